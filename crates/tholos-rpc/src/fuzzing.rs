//! Entrances for coverage-guided fuzzing: every decoder that meets bytes of others. Not part of the API.

use bytes::BytesMut;

use crate::frame::Decoder;
use crate::hello::{Answer, Hello, OPENING_BYTES, Opening};
use crate::secret::Sealer;

/// Takes frames off `bytes` as a connection without a secret would, in two reads.
pub fn frames(bytes: &[u8]) {
    let mut decoder = Decoder::new(Sealer::new(None), 1 << 20);
    let mut buffer = BytesMut::new();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for part in [first, second] {
        buffer.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Reads `bytes` as each message of the handshake; what can be read must come out the same when written again.
pub fn handshake(bytes: &[u8]) {
    if let Some(hello) = Hello::decode(bytes) {
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
    }
    if let Some(answer) = Answer::decode(bytes) {
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
    if let Some(Ok(bytes)) = bytes.get(..OPENING_BYTES).map(<&[u8; OPENING_BYTES]>::try_from) {
        let _ = Opening::decode(bytes);
    }
}
