//! Frames: round trips in any cut, and everything a liar or a bad wire can do to them.

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::secret::TAG_BYTES;

const KEY: [u8; 32] = [7; 32];
const LIMIT: usize = 1 << 20;

fn sealer(secured: bool) -> Sealer {
    Sealer::new(secured.then_some(KEY))
}

/// The wire bytes of some messages, each cut as the writer cuts it.
fn wire(messages: &[Bytes], secured: bool) -> Vec<u8> {
    let mut sealer = sealer(secured);
    let mut batch = Batch::new();
    for message in messages {
        let mut cut = Cut::new(message.clone());
        while !cut.push_piece(&mut batch, &mut sealer) {}
    }
    batch.seal_tail();
    batch.copy_to_bytes(batch.remaining()).to_vec()
}

/// Feeds `bytes` in chunks of `step` and returns the messages, or the first error.
fn read(bytes: &[u8], step: usize, secured: bool) -> Result<Vec<Bytes>, FrameError> {
    let mut decoder = Decoder::new(sealer(secured), LIMIT);
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        buffer.extend_from_slice(chunk);
        while let Some(received) = decoder.decode(&mut buffer)? {
            if let Received::Message(message) = received {
                messages.push(message);
            }
        }
    }
    Ok(messages)
}

fn message(length: usize) -> Bytes {
    (0..length).map(|at| ((at * 31) >> 3) as u8).collect::<Vec<u8>>().into()
}

/// Header and payload of one frame, sealed by `sealer`.
fn raw(kind: u8, payload: &[u8], sealer: &mut Sealer) -> Vec<u8> {
    let length = 1 + payload.len() + sealer.tag_bytes();
    let mut frame = (length as u32).to_le_bytes().to_vec();
    frame.push(kind);
    let tag = sealer.seal(&frame, payload, &[]);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(tag.as_ref().map_or(&[], |tag| &tag[..]));
    frame
}

#[test]
fn frame_bytes_are_as_documented() {
    assert_eq!(wire(&[Bytes::from_static(b"hi")], false), [3, 0, 0, 0, 1, b'h', b'i']);
    let sealed = wire(&[Bytes::from_static(b"hi")], true);
    assert_eq!(sealed[..7], [3 + TAG_BYTES as u8, 0, 0, 0, 1, b'h', b'i']);
    assert_eq!(sealed.len(), 7 + TAG_BYTES);
    let mac = blake3::keyed_hash(&KEY, &[&[0; 8], &sealed[..7]].concat());
    assert_eq!(sealed[7..], mac.as_bytes()[..TAG_BYTES], "counter 0, then the header, then the payload");
    let mut batch = Batch::new();
    batch.push_ping(&mut sealer(false));
    batch.seal_tail();
    assert_eq!(&batch.copy_to_bytes(batch.remaining())[..], [1, 0, 0, 0, 4]);
}

#[test]
fn messages_of_all_sizes_round_trip() {
    for secured in [false, true] {
        let sizes =
            [0, 1, 2047, 2048, 2049, PIECE_BYTES - 4, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, LIMIT];
        let messages: Vec<Bytes> = sizes.into_iter().map(message).collect();
        let bytes = wire(&messages, secured);
        for step in [1 << 24, 65_536, 4099] {
            assert_eq!(read(&bytes, step, secured).unwrap(), messages, "step {step}");
        }
    }
}

#[test]
fn a_message_in_parts_arrives_as_one() {
    for sizes in [
        vec![1, 1],
        vec![10, PIECE_BYTES, 3],
        vec![PIECE_BYTES - 4, 1],
        vec![3 * PIECE_BYTES + 5, 7, 2 * PIECE_BYTES],
    ] {
        let whole = message(sizes.iter().sum());
        let mut left = whole.clone();
        let mut parts = sizes.iter().map(|size| left.split_to(*size));
        let first = parts.next().unwrap();
        let mut cut = Cut::new(Message { first, rest: parts.collect() });
        let (mut batch, mut out) = (Batch::new(), sealer(true));
        while !cut.push_piece(&mut batch, &mut out) {}
        batch.push_whole(Bytes::from_static(b"next"), &mut out);
        batch.seal_tail();
        let bytes = batch.copy_to_bytes(batch.remaining());
        assert_eq!(read(&bytes, 4096, true).unwrap(), [whole, Bytes::from_static(b"next")], "{sizes:?}");
    }
}

#[test]
fn urgent_message_passes_between_pieces() {
    let long = message(5 * PIECE_BYTES);
    let mut out = sealer(true);
    let (mut batch, mut cut) = (Batch::new(), Cut::new(long.clone()));
    assert!(!cut.push_piece(&mut batch, &mut out));
    batch.push_whole(Bytes::from_static(b"beat"), &mut out);
    while !cut.push_piece(&mut batch, &mut out) {}
    batch.seal_tail();
    let bytes = batch.copy_to_bytes(batch.remaining());
    assert_eq!(read(&bytes, 4096, true).unwrap(), [Bytes::from_static(b"beat"), long]);
}

#[test]
fn every_changed_bit_is_refused() {
    let bytes = wire(&[message(50)], true);
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        // A longer length makes the reader wait for bytes that the tag will not fit either.
        changed.extend_from_slice(&[0; PIECE_BYTES]);
        assert!(read(&changed, 1 << 20, true).is_err(), "bit {at} was changed and it passed");
    }
}

#[test]
fn replayed_swapped_and_lost_frames_are_refused() {
    let mut out = sealer(true);
    let frames: Vec<Vec<u8>> = (0..3).map(|n| raw(1, &[n], &mut out)).collect();
    let order = |order: &[usize]| {
        let bytes: Vec<u8> = order.iter().flat_map(|&n| frames[n].clone()).collect();
        read(&bytes, 1 << 20, true).map(|messages| messages.len())
    };
    assert_eq!(order(&[0, 1, 2]), Ok(3));
    assert_eq!(order(&[0, 0]), Err(FrameError::Tag), "replayed");
    assert_eq!(order(&[1, 0]), Err(FrameError::Tag), "swapped");
    assert_eq!(order(&[0, 2]), Err(FrameError::Tag), "one lost");
}

#[test]
fn untagged_frame_is_refused_where_tags_are_due() {
    let bytes = wire(&[message(50)], false);
    assert!(read(&bytes, 1 << 20, true).is_err());
}

#[test]
fn lying_lengths_get_no_memory_and_no_patience() {
    for length in [0, PIECE_BYTES as u32 + 2, 1 << 24, u32::MAX] {
        let mut decoder = Decoder::new(sealer(false), LIMIT);
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&[1]);
        let capacity = buffer.capacity();
        assert_eq!(decoder.decode(&mut buffer), Err(FrameError::Length { length }));
        assert_eq!(buffer.capacity(), capacity);
    }
    // A short frame cannot hold its tag.
    let mut decoder = Decoder::new(sealer(true), LIMIT);
    let mut buffer = BytesMut::from(&[16, 0, 0, 0, 1][..]);
    assert_eq!(decoder.decode(&mut buffer), Err(FrameError::Length { length: 16 }));
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    let check = |frames: &[(u8, &[u8])], expected: &str| {
        let mut out = sealer(true);
        let bytes: Vec<u8> =
            frames.iter().flat_map(|(kind, payload)| raw(*kind, payload, &mut out)).collect();
        let error = read(&bytes, 1 << 20, true).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} instead of {expected}");
    };
    let total = |length: u32, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
    check(&[(3, b"x")], "without a beginning");
    check(&[(2, &total(9, b"x")), (2, &total(9, b"x"))], "inside another");
    check(&[(2, &total(9, b""))], "without bytes");
    check(&[(2, b"")], "without bytes");
    check(&[(2, &total(1, b"x"))], "the whole message");
    check(&[(2, &total(3, b"x")), (3, b"xyz")], "wrong size");
    check(&[(2, &total(3, b"x")), (3, b"")], "wrong size");
    check(&[(2, &total(LIMIT as u32 + 1, b"x"))], "this node takes");
    check(&[(2, &total(u32::MAX, b"x"))], "this node takes");
    check(&[(4, b"x")], "ping");
    check(&[(0, b"")], "unknown kind 0");
    check(&[(9, b"")], "unknown kind 9");
}

#[test]
fn whole_messages_obey_a_small_limit_too() {
    let mut decoder = Decoder::new(sealer(false), 10);
    let mut buffer = BytesMut::from(&wire(&[message(11)], false)[..]);
    assert_eq!(decoder.decode(&mut buffer), Err(FrameError::TooLarge { length: 11, limit: 10 }));
}

#[test]
fn batch_survives_writes_that_stop_anywhere() {
    let messages = [message(10), message(5000), message(2048), message(70_000), message(0)];
    let expected = wire(&messages, true);
    for step in [61, 1000, 4096, 66_000] {
        let mut sealer = sealer(true);
        let mut batch = Batch::new();
        for message in &messages {
            let mut cut = Cut::new(message.clone());
            while !cut.push_piece(&mut batch, &mut sealer) {}
        }
        let mut written = Vec::new();
        while batch.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = batch.chunks_vectored(&mut slices);
            assert!(!batch.chunk().is_empty() && filled > 0);
            let mut count = 0;
            for slice in &slices[..filled] {
                let part = slice.len().min(step - count);
                written.extend_from_slice(&slice[..part]);
                count += part;
            }
            batch.advance(count);
        }
        assert!(written == expected, "step {step}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), step in 1usize..50) {
        let _ = read(&bytes, step, false);
        prop_assert!(read(&bytes, step, true).map_or(true, |messages| messages.is_empty()));
    }

    /// Frames with a right length and any kind and payload: the decoder behind the length check.
    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec((0u8..6, prop::collection::vec(0u8..4, 0..12)), 0..20),
    ) {
        let mut out = sealer(true);
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| raw(*kind, payload, &mut out)).collect();
        let _ = read(&bytes, 1 << 20, true);
    }

    #[test]
    fn random_messages_round_trip(
        sizes in prop::collection::vec(0usize..200_000, 0..5),
        step in 1usize..100_000,
        secured: bool,
    ) {
        let messages: Vec<Bytes> = sizes.into_iter().map(message).collect();
        let bytes = wire(&messages, secured);
        prop_assert_eq!(read(&bytes, step, secured).unwrap(), messages);
    }
}
