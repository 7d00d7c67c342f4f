//! What must hold for any bytes given to the decoders of `tholos-resp`.

use bytes::{Bytes, BytesMut};
use tholos_resp::{
    CommandDecoder, Limits, Protocol, ProtocolError, Value, ValueDecoder, ValueError, ValueLimits, encode,
    encode_command,
};

/// A server's decoder: however the bytes are cut, the same commands within the limits come out, and sending them again
/// gives them again.
pub fn resp_command(bytes: &[u8]) {
    let strict = Limits {
        bulk_bytes_max: 32,
        arguments_max: 4,
        inline_bytes_max: 24,
        query_buffer_bytes_max: 96,
        authenticated: true,
    };
    for limits in [Limits::default(), strict, Limits { authenticated: false, ..Limits::default() }] {
        let whole = commands(bytes, &limits, bytes.len());
        for piece_bytes in [1, 2, 3, 7] {
            assert_eq!(commands(bytes, &limits, piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        let mut again = Vec::new();
        for command in &whole.0 {
            assert!((1..=limits.arguments_max.max(limits.inline_bytes_max)).contains(&command.len()));
            let argument_bytes_max = limits.bulk_bytes_max.max(limits.inline_bytes_max);
            assert!(command.iter().all(|argument| argument.len() <= argument_bytes_max));
            encode_command(command, &mut again);
        }
        assert_eq!(commands(&again, &Limits::default(), again.len()), (whole.0, None), "sent again");
    }
}

/// The commands in `bytes` when they arrive in pieces, and the error that ends them.
pub fn commands(
    bytes: &[u8],
    limits: &Limits,
    piece_bytes: usize,
) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
    let mut decoder = CommandDecoder::new(limits.clone());
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

/// A client's decoder: however the bytes are cut, the same values come out, and what we write of them is read as the
/// same again.
pub fn resp_value(bytes: &[u8]) {
    let strict = ValueLimits { bulk_bytes_max: 16, line_bytes_max: 16, elements_max: 8, nesting_max: 3 };
    for limits in [ValueLimits::default(), strict] {
        let whole = values(bytes, &limits, bytes.len());
        for piece_bytes in [1, 2, 3, 7] {
            let cut = values(bytes, &limits, piece_bytes);
            // Compared as written, because nan equals nothing.
            assert_eq!(written(&cut.0), written(&whole.0), "in pieces of {piece_bytes}");
            assert_eq!(cut.1, whole.1, "in pieces of {piece_bytes}");
        }
        let bytes = written(&whole.0);
        let again = values(
            &bytes,
            &ValueLimits { bulk_bytes_max: usize::MAX, ..ValueLimits::default() },
            bytes.len(),
        );
        assert_eq!(again.1, None);
        assert_eq!(written(&again.0), bytes);
    }
}

fn values(bytes: &[u8], limits: &ValueLimits, piece_bytes: usize) -> (Vec<Value>, Option<ValueError>) {
    let mut decoder = ValueDecoder::new(limits.clone());
    let mut buffer = BytesMut::new();
    let mut values = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(error) => return (values, Some(error)),
            }
        }
    }
    (values, None)
}

fn written(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| encode(value, Protocol::Resp3, &mut bytes));
    bytes
}
