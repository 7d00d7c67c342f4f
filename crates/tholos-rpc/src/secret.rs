//! The cluster secret, the keys that come of it, and the tags that prove them.
//!
//! One primitive serves all three: BLAKE3, as key derivation and as keyed MAC. Every key has one use.
//!
//! ```text
//! secret ──derive "root"──► root ──derive "opening"──► opening key (the dialler's first bytes)
//!                            │
//!        both nonces ──MAC───┴──► session ──derive──► handshake key · dialler→listener · listener→dialler
//! ```
//!
//! Rules kept here: R28 (a keyed MAC on every frame; the counter in it makes a replay or a swap fail).

use std::fmt;

use crate::handshake::Role;

/// Bytes of a tag: a BLAKE3 keyed hash cut to 128 bits, which is more than a peer can try in a life of the cluster.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of the random nonce either side gives to a handshake.
pub(crate) const NONCE_BYTES: usize = 32;

/// Bytes a secret must have, at least.
pub const SECRET_BYTES_MIN: usize = 16;

/// What all nodes of a cluster share: who has it may speak, who has not gets nothing.
///
/// Only a key derived from it is kept. A recorded handshake lets an eavesdropper test guesses as fast as BLAKE3
/// runs, so it must be random (32 random bytes, say), not a password.
#[derive(Clone)]
pub struct Secret {
    root: [u8; 32],
}

/// Why bytes cannot serve as a cluster secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster secret has {length} bytes and needs at least {SECRET_BYTES_MIN}; \
     make one with: head -c 32 /dev/urandom | base64"
)]
pub struct SecretTooShort {
    /// Bytes given.
    pub length: usize,
}

impl Secret {
    /// Takes the secret's bytes exactly as they are: the caller strips the newline of a file.
    ///
    /// # Errors
    /// Fewer than [`SECRET_BYTES_MIN`] bytes.
    pub fn new(bytes: &[u8]) -> Result<Secret, SecretTooShort> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort { length: bytes.len() });
        }
        Ok(Secret { root: blake3::derive_key("tholos-rpc v1 root of the cluster secret", bytes) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The root of all keys of a handshake: the secret's, or a public constant.
///
/// Without a secret the handshake runs the same code under a key that everybody knows. That proves nothing and
/// keeps one path; such nodes speak on loopback only, and their frames carry no tags.
#[derive(Clone)]
pub(crate) struct Keyring {
    root: [u8; 32],
    pub(crate) secured: bool,
}

impl Keyring {
    pub(crate) fn new(secret: Option<&Secret>) -> Keyring {
        match secret {
            Some(secret) => Keyring { root: secret.root, secured: true },
            None => Keyring {
                root: blake3::derive_key("tholos-rpc v1 root without a secret", b""),
                secured: false,
            },
        }
    }

    /// The tag of an opening, which both proves the secret and shields the listener's first byte from strangers.
    pub(crate) fn opening_tag(&self, opening: &[u8]) -> [u8; TAG_BYTES] {
        let key = blake3::derive_key("tholos-rpc v1 opening", &self.root);
        cut(&blake3::keyed_hash(&key, opening))
    }

    /// The keys of one connection; both nonces are in them, so no two connections share any.
    pub(crate) fn session(&self, dialler: &[u8; NONCE_BYTES], listener: &[u8; NONCE_BYTES]) -> SessionKeys {
        let mut hasher = blake3::Hasher::new_keyed(&self.root);
        hasher.update(b"tholos-rpc v1 session").update(dialler).update(listener);
        let session = *hasher.finalize().as_bytes();
        SessionKeys {
            handshake: blake3::derive_key("tholos-rpc v1 handshake", &session),
            from_dialler: blake3::derive_key("tholos-rpc v1 dialler to listener", &session),
            from_listener: blake3::derive_key("tholos-rpc v1 listener to dialler", &session),
            secured: self.secured,
        }
    }
}

/// The keys of one connection.
pub(crate) struct SessionKeys {
    handshake: [u8; 32],
    from_dialler: [u8; 32],
    from_listener: [u8; 32],
    secured: bool,
}

impl SessionKeys {
    /// The tag of a handshake message: a MAC over its label and everything said before it, itself included.
    pub(crate) fn transcript_tag(&self, label: &[u8; 16], transcript: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.handshake);
        hasher.update(label).update(transcript);
        cut(&hasher.finalize())
    }

    /// The sealer of what `role` sends and the sealer that checks what it receives.
    pub(crate) fn sealers(&self, role: Role) -> (Sealer, Sealer) {
        let (out, back) = match role {
            Role::Dialler => (self.from_dialler, self.from_listener),
            Role::Listener => (self.from_listener, self.from_dialler),
        };
        (Sealer::new(self.secured.then_some(out)), Sealer::new(self.secured.then_some(back)))
    }
}

/// Makes or checks the tags of one direction of one connection, in order.
pub(crate) struct Sealer {
    /// None without a secret: frames carry no tag.
    key: Option<[u8; 32]>,
    /// Frames sealed so far. In the MAC and never on the wire, so a repeated, lost or swapped frame cannot pass.
    counter: u64,
}

impl Sealer {
    pub(crate) fn new(key: Option<[u8; 32]>) -> Sealer {
        Sealer { key, counter: 0 }
    }

    /// Bytes that a tag takes in each frame: 16, or 0 without a secret.
    pub(crate) fn tag_bytes(&self) -> usize {
        if self.key.is_some() { TAG_BYTES } else { 0 }
    }

    /// The tag of the next frame, given as its header (length and kind) and the two parts of its payload.
    pub(crate) fn seal(&mut self, header: &[u8], first: &[u8], second: &[u8]) -> Option<[u8; TAG_BYTES]> {
        let hash = self.next_hash(header, first, second)?;
        Some(cut(&hash))
    }

    /// Whether `tag` is that of the next frame. After a `false` the connection must end: the counter has moved on.
    pub(crate) fn check(&mut self, header: &[u8], payload: &[u8], tag: &[u8]) -> bool {
        match self.next_hash(header, payload, &[]) {
            Some(hash) => same(&hash, tag),
            None => tag.is_empty(),
        }
    }

    fn next_hash(&mut self, header: &[u8], first: &[u8], second: &[u8]) -> Option<blake3::Hash> {
        let key = self.key.as_ref()?;
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&self.counter.to_le_bytes()).update(header).update(first).update(second);
        // 2^64 frames take longer than any connection lives; wrapping would reuse a counter.
        self.counter = self.counter.checked_add(1).expect("fewer than 2^64 frames on one connection");
        Some(hasher.finalize())
    }
}

/// Whether `tag` is the cut form of `hash`, in constant time (BLAKE3's own comparison of whole hashes).
fn same(hash: &blake3::Hash, tag: &[u8]) -> bool {
    if tag.len() != TAG_BYTES {
        return false;
    }
    let mut claimed = *hash.as_bytes();
    claimed[..TAG_BYTES].copy_from_slice(tag);
    *hash == blake3::Hash::from_bytes(claimed)
}

/// Whether two tags are equal, in constant time.
pub(crate) fn tags_equal(ours: &[u8; TAG_BYTES], theirs: &[u8]) -> bool {
    let mut whole = [0; 32];
    whole[..TAG_BYTES].copy_from_slice(ours);
    same(&blake3::Hash::from_bytes(whole), theirs)
}

fn cut(hash: &blake3::Hash) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_never_printed() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    }

    #[test]
    fn short_secret_is_refused_with_a_remedy() {
        let error = Secret::new(b"short").unwrap_err();
        assert!(error.to_string().contains("/dev/urandom"), "{error}");
    }

    #[test]
    fn directions_and_connections_have_different_keys() {
        let ring = Keyring::new(Some(&Secret::new(&[7; 32]).unwrap()));
        let keys = ring.session(&[1; NONCE_BYTES], &[2; NONCE_BYTES]);
        let (mut out, mut back) = keys.sealers(Role::Dialler);
        let first = out.seal(b"h", b"p", b"").unwrap();
        assert!(!back.check(b"h", b"p", &first), "a frame thrown back at its sender must not pass");
        let (_, mut listener) = keys.sealers(Role::Listener);
        assert!(listener.check(b"h", b"p", &first));
        let other = ring.session(&[1; NONCE_BYTES], &[3; NONCE_BYTES]);
        assert!(!other.sealers(Role::Listener).1.check(b"h", b"p", &first));
    }

    #[test]
    fn tags_compare_all_their_bytes() {
        let ours = [9; TAG_BYTES];
        assert!(tags_equal(&ours, &[9; TAG_BYTES]));
        for at in 0..TAG_BYTES {
            let mut theirs = ours;
            theirs[at] ^= 1;
            assert!(!tags_equal(&ours, &theirs), "byte {at} was not compared");
        }
        assert!(!tags_equal(&ours, &ours[..TAG_BYTES - 1]));
    }
}
