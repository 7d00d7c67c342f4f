//! The handshake between two ends of a pipe, with and without someone in the middle.

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::config::Lane;
use crate::hello::Purpose;
use crate::secret::Secret;

fn ring(byte: u8) -> Keyring {
    Keyring::new(Some(&Secret::new(&[byte; 32]).unwrap()))
}

fn hello() -> Hello {
    Hello { purpose: Purpose::Lane(Lane::Log), expects: 2, identity: Identity::anonymous() }
}

async fn listener(mut stream: DuplexStream, ring: Keyring) -> Result<Proven, Refusal> {
    let mut proven = accept(&mut stream, &ring).await?;
    let identity = Identity { node: 2, ..Identity::anonymous() };
    proven.answer(&mut stream, Verdict::Welcome, identity).await?;
    Ok(proven)
}

async fn dialler(mut stream: DuplexStream, ring: Keyring) -> Result<Dialled, Refusal> {
    dial(&mut stream, &ring, &hello()).await
}

#[tokio::test]
async fn both_sides_prove_themselves_and_share_keys() {
    let (ours, theirs) = duplex(1 << 16);
    let (dialled, proven) = tokio::join!(dialler(ours, ring(1)), listener(theirs, ring(1)));
    let (dialled, proven) = (dialled.ok().unwrap(), proven.ok().unwrap());
    assert_eq!(proven.hello, hello());
    assert_eq!((dialled.answer.verdict, dialled.answer.identity.node), (Verdict::Welcome, 2));
    let (mut out, _) = dialled.keys.sealers(Role::Dialler);
    let (_, mut back) = proven.keys.sealers(Role::Listener);
    let tag = out.seal(b"header", b"payload", b"").unwrap();
    assert!(back.check(b"header", b"payload", &tag));
}

#[tokio::test]
async fn other_secrets_are_refused_and_told_nothing() {
    let check = async |dials: Keyring, listens: Keyring, dialler_says, listener_says| {
        let (ours, theirs) = duplex(1 << 16);
        let (dialled, proven) = tokio::join!(dialler(ours, dials), listener(theirs, listens));
        assert_eq!((dialled.err(), proven.err()), (Some(dialler_says), Some(listener_says)));
    };
    check(ring(1), ring(2), Refusal::Silence, Refusal::SecretDiffers).await;
    check(Keyring::new(None), ring(2), Refusal::Silence, Refusal::SecretMissing { here: false }).await;
    check(ring(1), Keyring::new(None), Refusal::Silence, Refusal::SecretMissing { here: true }).await;
}

/// An opening of a version range, rightly tagged.
fn opening(ring: &Keyring, versions: (u16, u16), nonce: u8) -> Vec<u8> {
    let opening = Opening { versions, secured: ring.secured, nonce: [nonce; NONCE_BYTES] };
    let mut bytes = opening.encode().to_vec();
    let tag = ring.opening_tag(&bytes);
    bytes.extend_from_slice(&tag);
    bytes
}

#[tokio::test]
async fn other_versions_are_refused_by_name() {
    let (mut ours, theirs) = duplex(1 << 16);
    let task = tokio::spawn(listener(theirs, ring(1)));
    ours.write_all(&opening(&ring(1), (7, 9), 1)).await.unwrap();
    assert_eq!(task.await.unwrap().err(), Some(Refusal::Version { ours: VERSIONS, theirs: (7, 9) }));
    let mut challenge = Vec::new();
    ours.read_to_end(&mut challenge).await.unwrap();
    assert_eq!(challenge.len(), OPENING_BYTES, "the challenge tells a proven dialler our versions");

    // The dialler finds out from a challenge with other versions.
    let (ours, mut theirs) = duplex(1 << 16);
    let task = tokio::spawn(dialler(ours, ring(1)));
    let mut bytes = vec![0; OPENING_BYTES];
    theirs.read_exact(&mut bytes).await.unwrap();
    let theirs_opening = Opening { versions: (4, 5), secured: true, nonce: [3; NONCE_BYTES] };
    let dialler_nonce = bytes[16..16 + NONCE_BYTES].try_into().unwrap();
    bytes.extend_from_slice(&theirs_opening.encode());
    let tag = ring(1).session(&dialler_nonce, &theirs_opening.nonce).transcript_tag(CHALLENGE_LABEL, &bytes);
    bytes.extend_from_slice(&tag);
    theirs.write_all(&bytes[OPENING_BYTES..]).await.unwrap();
    assert_eq!(task.await.unwrap().err(), Some(Refusal::Version { ours: VERSIONS, theirs: (4, 5) }));
}

/// Sends `bytes` to a listener, closes, and returns what it answered and said.
async fn stranger(bytes: &[u8]) -> (Vec<u8>, Refusal) {
    let (ours, theirs) = duplex(1 << 16);
    let task = tokio::spawn(listener(theirs, ring(1)));
    let (mut read_half, mut write_half) = tokio::io::split(ours);
    // It may close before it has read everything.
    let _ = write_half.write_all(bytes).await;
    let _ = write_half.shutdown().await;
    let mut answer = Vec::new();
    read_half.read_to_end(&mut answer).await.unwrap();
    (answer, task.await.unwrap().err().unwrap())
}

#[tokio::test]
async fn strangers_get_no_byte_and_a_name() {
    let check = async |bytes: &[u8], looks_like| {
        assert_eq!(stranger(bytes).await, (vec![], Refusal::NotAPeer { looks_like }));
    };
    check(b"", "it said nothing").await;
    check(b"\x16\x03\x01\x02\x00\x01\x00", "it looks like a TLS client").await;
    check(b"*1\r\n$4\r\nPING\r\n", "it looks like a Redis client").await;
    check(b"PING\r\n", "it looks like a Redis client").await;
    check(b"GET / HTTP/1.1\r\n\r\n", "it looks like HTTP").await;
    check(&[0xff; 1000], "unknown bytes").await;
    check(b"THOLOS", "unknown bytes").await;
    check(&opening(&ring(1), VERSIONS, 1)[..OPENING_BYTES - 1], "unknown bytes").await;
    let wrong = opening(&ring(2), VERSIONS, 1);
    assert_eq!(stranger(&wrong).await, (vec![], Refusal::SecretDiffers));
}

#[tokio::test]
async fn replayed_opening_gets_a_challenge_and_nothing_more() {
    let recorded = opening(&ring(1), VERSIONS, 1);
    let (answer, refusal) = stranger(&recorded).await;
    assert_eq!(answer.len(), OPENING_BYTES);
    assert!(matches!(refusal, Refusal::Unreachable(_)), "{refusal}");
    // A recorded hello does not fit the new challenge.
    let (ours, theirs) = duplex(1 << 16);
    let (mut tap, far) = duplex(1 << 16);
    let task = tokio::spawn(dialler(ours, ring(1)));
    let honest = tokio::spawn(listener(far, ring(1)));
    let mut recording = Vec::new();
    let mut theirs = theirs;
    relay(&mut theirs, &mut tap, OPENING_BYTES, &mut recording).await;
    relay(&mut tap, &mut theirs, OPENING_BYTES, &mut Vec::new()).await;
    relay(&mut theirs, &mut tap, 4 + hello().encode().len() + TAG_BYTES, &mut recording).await;
    let answered = honest.await.unwrap();
    assert!(answered.is_ok(), "the recording is of a handshake that works");
    drop((theirs, task));
    let (answer, refusal) = stranger(&recording).await;
    assert_eq!((answer.len(), refusal), (OPENING_BYTES, Refusal::SecretDiffers));
}

async fn relay(from: &mut DuplexStream, to: &mut DuplexStream, count: usize, copy: &mut Vec<u8>) {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).await.unwrap();
    to.write_all(&bytes).await.unwrap();
    copy.extend_from_slice(&bytes);
}

#[tokio::test]
async fn every_byte_changed_on_the_way_is_noticed() {
    let hello_bytes = 4 + hello().encode().len() + TAG_BYTES;
    let answer = Answer { verdict: Verdict::Welcome, identity: Identity::anonymous() };
    let answer_bytes = 4 + answer.encode().len() + TAG_BYTES;
    let legs = [OPENING_BYTES, OPENING_BYTES, hello_bytes, answer_bytes];
    for leg in 0..legs.len() {
        for at in 0..legs[leg] {
            let (ours, mut near) = duplex(1 << 16);
            let (mut far, theirs) = duplex(1 << 16);
            let dialling = tokio::spawn(dialler(ours, ring(1)));
            let listening = tokio::spawn(listener(theirs, ring(1)));
            for (number, count) in legs.iter().take(leg + 1).enumerate() {
                let (from, to) = if number % 2 == 0 { (&mut near, &mut far) } else { (&mut far, &mut near) };
                let mut bytes = vec![0; *count];
                from.read_exact(&mut bytes).await.unwrap();
                if number == leg {
                    bytes[at] ^= 0x10;
                }
                to.write_all(&bytes).await.unwrap();
            }
            drop((near, far));
            assert!(dialling.await.unwrap().is_err(), "leg {leg} byte {at}");
            // The last leg is the listener's own: only the dialler can notice it.
            assert!(leg == 3 || listening.await.unwrap().is_err(), "leg {leg} byte {at}");
        }
    }
}

#[tokio::test]
async fn huge_hello_length_gets_no_memory() {
    for length in [0, 15, HELLO_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut bytes = opening(&ring(1), VERSIONS, 1);
        bytes.extend_from_slice(&length.to_le_bytes());
        let (answer, refusal) = stranger(&bytes).await;
        assert_eq!((answer.len(), refusal), (OPENING_BYTES, Refusal::Malformed("a length")), "{length}");
    }
}

#[tokio::test]
async fn listener_thrown_back_at_itself_proves_nothing() {
    // Whoever has no secret can only repeat: the dialler's own opening as a challenge.
    let (ours, mut theirs) = duplex(1 << 16);
    let task = tokio::spawn(dialler(ours, ring(1)));
    let mut bytes = [0; OPENING_BYTES];
    theirs.read_exact(&mut bytes).await.unwrap();
    theirs.write_all(&bytes).await.unwrap();
    assert_eq!(task.await.unwrap().err(), Some(Refusal::SecretDiffers));
}
