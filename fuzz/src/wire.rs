//! What must hold for any bytes given to the decoders of `tholos-wire`.

use bytes::Bytes;
use tholos_wire::{FrameBuilder, WireError, decode_peer, decode_record, encode_peer, encode_record, frames};

/// What a decoder may hold at once for each byte of its input: the 50 of docs/protocol/wire.md (W1), twice, since a list
/// that grows has its old and its new place for a moment.
const MEMORY_PER_BYTE: u64 = 100;
/// What it may hold besides, in bytes: lists begin with room for a few elements.
const MEMORY_BASE: u64 = 32 << 10;

/// A peer's payload: what can be read is written as the same bytes (W3), in little memory (W1). The whole is also
/// tried as one message, for it is shorter than a frame that holds it.
pub fn wire_frames(bytes: &[u8]) {
    let input = Bytes::copy_from_slice(bytes);
    if let Ok(message) = within_memory(&input, || decode_peer(input.clone())) {
        let mut again = Vec::new();
        encode_peer(&message, &mut again);
        assert_eq!(again, bytes);
    }
    let messages = within_memory(&input, || frames(input.clone()).collect::<Vec<_>>());
    let mut builder = FrameBuilder::new();
    let mut rest = bytes;
    for (at, message) in messages.iter().enumerate() {
        let Some((frame, after)) = split_frame(rest) else {
            assert_eq!(
                (message, at),
                (&Err(WireError::Truncated), messages.len() - 1),
                "nothing follows a cut"
            );
            return;
        };
        rest = after;
        if let Ok(message) = message {
            builder.push(message);
            assert_eq!(builder.take().into_bytes(), frame);
        }
    }
    assert!(rest.is_empty(), "{} bytes are in no message", rest.len());
}

/// A record of the log: what can be read is written as the same bytes (W3), in little memory (W1).
pub fn wire_record(bytes: &[u8]) {
    let input = Bytes::copy_from_slice(bytes);
    if let Ok(record) = within_memory(&input, || decode_record(input.clone())) {
        let mut again = Vec::new();
        encode_record(&record, &mut again);
        assert_eq!(again, bytes);
    }
}

/// The first message with its length, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    bytes.split_at_checked(4_usize.checked_add(length)?)
}

fn within_memory<T>(input: &Bytes, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    let used = allocation_counter::measure(|| decoded = Some(decode()));
    let limit = MEMORY_BASE + input.len() as u64 * MEMORY_PER_BYTE;
    assert!(used.bytes_max <= limit, "{} bytes of memory for {} of input", used.bytes_max, input.len());
    decoded.expect("it was decoded")
}
