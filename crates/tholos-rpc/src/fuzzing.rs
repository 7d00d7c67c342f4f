//! Entrances for coverage-guided fuzzing: every decoder that meets bytes of others. Not part of the API.

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{Batch, Cut, Decoder, FrameError, Received};
use crate::hello::{Answer, Hello, OPENING_BYTES, Opening};
use crate::secret::Sealer;

/// The largest message taken here, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Takes frames off `bytes` as a connection without a secret would. What comes out does not depend on how the stream
/// is cut into reads, keeps to the limit, and comes out the same when it is sent again.
pub fn frames(bytes: &[u8]) {
    let (messages, error) = read(bytes, bytes.len());
    assert_eq!(read(bytes, bytes.len() / 2), (messages.clone(), error));
    assert_eq!(read(bytes, 3), (messages.clone(), error));
    assert!(messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX), "a message above the limit");
    let (mut batch, mut sealer) = (Batch::new(), Sealer::new(None));
    for message in &messages {
        let mut cut = Cut::new(message.clone());
        while !cut.push_piece(&mut batch, &mut sealer) {}
    }
    let sent = batch.copy_to_bytes(batch.remaining());
    assert_eq!(read(&sent, sent.len()), (messages, None));
}

/// The messages in `bytes`, which arrive in reads of `step` bytes, and what ended them.
fn read(bytes: &[u8], step: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut decoder = Decoder::new(Sealer::new(None), MESSAGE_BYTES_MAX);
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(Received::Message(message))) => messages.push(message),
                Ok(Some(Received::Nothing)) => {}
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
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
