//! The handshake: four messages, each proven over everything said before it.
//!
//! ```text
//! dialler                                            listener
//!    │── opening    nonce · versions · tag ─────────────►│  wrong tag: closed without a byte
//!    │◄───────────── challenge   nonce · versions · tag ──│
//!    │── hello      purpose · who I am · tag ────────────►│  proves a live secret: the tag covers the nonce
//!    │◄───────────── verdict     welcome or why not · tag ─│
//! ```
//!
//! Rules kept here: R28 (nonce both ways, nothing that depends on the cluster before the proof), R21 (the hello).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::hello::{
    Answer, HELLO_BYTES_MAX, Hello, Identity, MAGIC, OPENING_BYTES, Opening, VERSIONS, Verdict,
};
use crate::refusal::Refusal;
use crate::secret::{Keyring, NONCE_BYTES, SessionKeys, TAG_BYTES, tags_equal};

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Dialler,
    Listener,
}

const CHALLENGE_LABEL: &[u8; 16] = b"challenge       ";
const HELLO_LABEL: &[u8; 16] = b"hello           ";
const VERDICT_LABEL: &[u8; 16] = b"verdict         ";

/// A handshake the dialler has finished.
pub(crate) struct Dialled {
    pub(crate) keys: SessionKeys,
    pub(crate) answer: Answer,
}

/// Runs the dialler's side. The caller sets the deadline.
pub(crate) async fn dial<S>(stream: &mut S, ring: &Keyring, hello: &Hello) -> Result<Dialled, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let opening = Opening { versions: VERSIONS, secured: ring.secured, nonce: random_nonce()? };
    let mut transcript = Vec::with_capacity(1024);
    transcript.extend_from_slice(&opening.encode());
    let tag = ring.opening_tag(&transcript);
    transcript.extend_from_slice(&tag);
    stream.write_all(&transcript).await.map_err(unreachable)?;

    let bytes = read_opening(stream).await?.ok_or(Refusal::Silence)?;
    let challenge = Opening::decode(&bytes).ok_or(Refusal::NotAPeer { looks_like: "unknown bytes" })?;
    if challenge.secured != ring.secured {
        return Err(Refusal::SecretMissing { here: !ring.secured });
    }
    let keys = ring.session(&opening.nonce, &challenge.nonce);
    transcript.extend_from_slice(&bytes[..OPENING_BYTES - TAG_BYTES]);
    check(&keys, CHALLENGE_LABEL, &transcript, &bytes[OPENING_BYTES - TAG_BYTES..])?;
    transcript.extend_from_slice(&bytes[OPENING_BYTES - TAG_BYTES..]);
    if opening.common_version(challenge.versions).is_none() {
        return Err(Refusal::Version { ours: VERSIONS, theirs: challenge.versions });
    }

    write_body(stream, &keys, HELLO_LABEL, &mut transcript, &hello.encode()).await?;
    let body = read_body(stream, &keys, VERDICT_LABEL, &mut transcript).await?;
    let answer = Answer::decode(&body).ok_or(Refusal::Malformed("a verdict"))?;
    Ok(Dialled { keys, answer })
}

/// A dialler that has proved itself and waits for its verdict.
pub(crate) struct Proven {
    pub(crate) keys: SessionKeys,
    pub(crate) hello: Hello,
    transcript: Vec<u8>,
}

/// Runs the listener's side up to the dialler's proof. The caller sets the deadline.
pub(crate) async fn accept<S>(stream: &mut S, ring: &Keyring) -> Result<Proven, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bytes = read_opening(stream).await?.ok_or(Refusal::NotAPeer { looks_like: "it said nothing" })?;
    let opening = Opening::decode(&bytes).ok_or(Refusal::NotAPeer { looks_like: "unknown bytes" })?;
    if opening.secured != ring.secured {
        return Err(Refusal::SecretMissing { here: !ring.secured });
    }
    let expected = ring.opening_tag(&bytes[..OPENING_BYTES - TAG_BYTES]);
    if !tags_equal(&expected, &bytes[OPENING_BYTES - TAG_BYTES..]) {
        return Err(Refusal::SecretDiffers);
    }

    // From here on it is a peer, or the replay of a recorded opening; to both the challenge tells nothing.
    let challenge = Opening { versions: VERSIONS, secured: ring.secured, nonce: random_nonce()? };
    let keys = ring.session(&opening.nonce, &challenge.nonce);
    let mut transcript = Vec::with_capacity(1024);
    transcript.extend_from_slice(&bytes);
    transcript.extend_from_slice(&challenge.encode());
    let tag = keys.transcript_tag(CHALLENGE_LABEL, &transcript);
    transcript.extend_from_slice(&tag);
    stream.write_all(&transcript[OPENING_BYTES..]).await.map_err(unreachable)?;
    if challenge.common_version(opening.versions).is_none() {
        // The challenge told it our versions; it finds out by itself.
        return Err(Refusal::Version { ours: VERSIONS, theirs: opening.versions });
    }

    let body = read_body(stream, &keys, HELLO_LABEL, &mut transcript).await?;
    let hello = Hello::decode(&body).ok_or(Refusal::Malformed("a hello"))?;
    Ok(Proven { keys, hello, transcript })
}

impl Proven {
    /// Tells the dialler the verdict and who this node is.
    pub(crate) async fn answer<S>(
        &mut self,
        stream: &mut S,
        verdict: Verdict,
        identity: Identity,
    ) -> Result<(), Refusal>
    where
        S: AsyncWrite + Unpin,
    {
        let body = Answer { verdict, identity }.encode();
        write_body(stream, &self.keys, VERDICT_LABEL, &mut self.transcript, &body).await
    }
}

/// Reads the fixed first bytes, giving up at the first that is not of our magic; None if it closed saying nothing.
async fn read_opening<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<[u8; OPENING_BYTES]>, Refusal> {
    let mut bytes = [0; OPENING_BYTES];
    let mut filled = 0;
    while filled < OPENING_BYTES {
        let count = match stream.read(&mut bytes[filled..]).await {
            Ok(count) => count,
            // A close with our bytes unread arrives as a reset; it means the same as a close.
            Err(_) if filled == 0 => return Ok(None),
            Err(error) => return Err(unreachable(error)),
        };
        if count == 0 && filled == 0 {
            return Ok(None);
        }
        filled += count;
        let judged = filled.min(MAGIC.len());
        if bytes[..judged] != MAGIC[..judged] || count == 0 {
            return Err(Refusal::NotAPeer { looks_like: looks_like(&bytes[..filled]) });
        }
    }
    Ok(Some(bytes))
}

/// What a stranger's first bytes look like, for the operator who pointed a client at the wrong port.
fn looks_like(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x16, 0x03, ..] => "it looks like a TLS client",
        [b'*' | b'$', ..] | [b'P', b'I', b'N', b'G', ..] => "it looks like a Redis client",
        [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] | [b'H', b'T', b'T', b'P', ..] => {
            "it looks like HTTP"
        }
        _ => "unknown bytes",
    }
}

async fn write_body<S: AsyncWrite + Unpin>(
    stream: &mut S,
    keys: &SessionKeys,
    label: &[u8; 16],
    transcript: &mut Vec<u8>,
    body: &[u8],
) -> Result<(), Refusal> {
    let length = u32::try_from(body.len() + TAG_BYTES).expect("a hello is at most some KiB");
    let from = transcript.len();
    transcript.extend_from_slice(&length.to_le_bytes());
    transcript.extend_from_slice(body);
    let tag = keys.transcript_tag(label, transcript);
    transcript.extend_from_slice(&tag);
    stream.write_all(&transcript[from..]).await.map_err(unreachable)
}

async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    keys: &SessionKeys,
    label: &[u8; 16],
    transcript: &mut Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(unreachable)?;
    let size = u32::from_le_bytes(length) as usize;
    if !(TAG_BYTES..=HELLO_BYTES_MAX).contains(&size) {
        return Err(Refusal::Malformed("a length"));
    }
    let mut body = vec![0; size];
    stream.read_exact(&mut body).await.map_err(unreachable)?;
    let tag = body.split_off(size - TAG_BYTES);
    transcript.extend_from_slice(&length);
    transcript.extend_from_slice(&body);
    check(keys, label, transcript, &tag)?;
    transcript.extend_from_slice(&tag);
    Ok(body)
}

fn check(keys: &SessionKeys, label: &[u8; 16], transcript: &[u8], tag: &[u8]) -> Result<(), Refusal> {
    if tags_equal(&keys.transcript_tag(label, transcript), tag) {
        Ok(())
    } else {
        Err(Refusal::SecretDiffers)
    }
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], Refusal> {
    let mut nonce = [0; NONCE_BYTES];
    match getrandom::fill(&mut nonce) {
        Ok(()) => Ok(nonce),
        Err(error) => Err(Refusal::Unreachable(format!("the system gives no random numbers: {error}"))),
    }
}

fn unreachable(error: std::io::Error) -> Refusal {
    Refusal::Unreachable(format!("the connection failed during the handshake: {error}"))
}

#[cfg(test)]
mod tests;
