//! The error texts that clients match on, byte for byte those of Redis 7.0.15 (without the leading `-`).

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

/// Bytes of a command name, and of all its arguments, that an error repeats.
const ECHO_BYTES_MAX: usize = 128;

/// An option that the command does not know, or that contradicts another.
#[must_use]
pub fn syntax() -> Value {
    Value::Error(Bytes::from_static(b"ERR syntax error"))
}

/// A number was expected.
#[must_use]
pub fn not_an_integer() -> Value {
    Value::Error(Bytes::from_static(b"ERR value is not an integer or out of range"))
}

/// A decimal fraction was expected.
#[must_use]
pub fn not_a_float() -> Value {
    Value::Error(Bytes::from_static(b"ERR value is not a valid float"))
}

/// A sum left the range of `i64`.
#[must_use]
pub fn overflow() -> Value {
    Value::Error(Bytes::from_static(b"ERR increment or decrement would overflow"))
}

/// DECRBY of the one number that has no negative.
#[must_use]
pub fn decrement_overflow() -> Value {
    Value::Error(Bytes::from_static(b"ERR decrement would overflow"))
}

/// INCRBYFLOAT by infinity, or to a number of too many digits.
#[must_use]
pub fn not_finite() -> Value {
    Value::Error(Bytes::from_static(b"ERR increment would produce NaN or Infinity"))
}

/// SETRANGE before the start.
#[must_use]
pub fn offset_out_of_range() -> Value {
    Value::Error(Bytes::from_static(b"ERR offset is out of range"))
}

/// A value would grow beyond the limit.
#[must_use]
pub fn too_long() -> Value {
    Value::Error(Bytes::from_static(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

/// A key is longer than this node's limit, in bytes. Redis has no such limit, so the text is ours.
#[must_use]
pub fn key_too_long(bytes_max: usize) -> Value {
    let limit = crate::number::format(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    line(&[b"ERR key is longer than the limit of ", &limit, b" bytes"])
}

/// RENAME of a key that is not there.
#[must_use]
pub fn no_such_key() -> Value {
    Value::Error(Bytes::from_static(b"ERR no such key"))
}

/// COPY of a key onto itself.
#[must_use]
pub fn same_object() -> Value {
    Value::Error(Bytes::from_static(b"ERR source and destination objects are the same"))
}

/// A database other than 0.
#[must_use]
pub fn database_out_of_range() -> Value {
    Value::Error(Bytes::from_static(b"ERR DB index is out of range"))
}

/// The value at the key is of a type this command does not work on.
#[must_use]
pub fn wrong_type() -> Value {
    Value::Error(Bytes::from_static(b"WRONGTYPE Operation against a key holding the wrong kind of value"))
}

/// A command that must be atomic names keys of several slots (R31).
#[must_use]
pub fn cross_slot() -> Value {
    Value::Error(Bytes::from_static(b"CROSSSLOT Keys in request don't hash to the same slot"))
}

/// An expiry that is not positive, or overflows. `command` in lower case.
#[must_use]
pub fn invalid_expire(command: &str) -> Value {
    line(&[b"ERR invalid expire time in '", command.as_bytes(), b"' command"])
}

/// Too few or too many arguments. `command` in lower case, a subcommand as `object|encoding`.
#[must_use]
pub fn wrong_arity(command: &str) -> Value {
    line(&[b"ERR wrong number of arguments for '", command.as_bytes(), b"' command"])
}

/// An option of the EXPIRE family that does not exist.
#[must_use]
pub fn unsupported_option(option: &[u8]) -> Value {
    // What ends a line is cut off at the end of a text, as Redis does; elsewhere it becomes a blank.
    let option = c_string(option);
    let kept = option.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    line(&[b"ERR Unsupported option ", &option[..kept]])
}

/// EXPIRE with NX beside another condition.
#[must_use]
pub fn nx_and_others() -> Value {
    Value::Error(Bytes::from_static(b"ERR NX and XX, GT or LT options at the same time are not compatible"))
}

/// EXPIRE with both GT and LT.
#[must_use]
pub fn gt_and_lt() -> Value {
    Value::Error(Bytes::from_static(b"ERR GT and LT options at the same time are not compatible"))
}

/// A number that fits 64 bits but not the 32 that are meant.
#[must_use]
pub fn not_an_int() -> Value {
    Value::Error(Bytes::from_static(
        b"ERR value is out of range, value must between -2147483648 and 2147483647",
    ))
}

/// SCAN from a cursor that is no number.
#[must_use]
pub fn invalid_cursor() -> Value {
    Value::Error(Bytes::from_static(b"ERR invalid cursor"))
}

/// LCS asked for two answers at once.
#[must_use]
pub fn lcs_len_and_idx() -> Value {
    Value::Error(Bytes::from_static(b"ERR If you want both the length and indexes, please just use IDX."))
}

/// LCS of texts whose table would be larger than a value may be.
#[must_use]
pub fn lcs_too_large() -> Value {
    Value::Error(Bytes::from_static(
        b"ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    ))
}

/// No command of this name; repeats the start of what was sent.
#[must_use]
pub fn unknown_command(args: &[Bytes]) -> Value {
    let mut echoed: Vec<u8> = Vec::new();
    for arg in args.iter().skip(1) {
        if echoed.len() >= ECHO_BYTES_MAX {
            break;
        }
        let room = ECHO_BYTES_MAX - echoed.len();
        echoed.push(b'\'');
        echoed.extend_from_slice(clipped(c_string(arg), room));
        echoed.extend_from_slice(b"' ");
    }
    let name = args.first().map_or(&[][..], |name| c_string(name));
    line(&[
        b"ERR unknown command '",
        clipped(name, ECHO_BYTES_MAX),
        b"', with args beginning with: ",
        &echoed,
    ])
}

/// A container command has no subcommand of this name.
#[must_use]
pub fn unknown_subcommand(args: &[Bytes]) -> Value {
    let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let sub = args.get(1).map_or(&[][..], |sub| c_string(sub));
    line(&[b"ERR unknown subcommand '", clipped(sub, ECHO_BYTES_MAX), b"'. Try ", c_string(&name), b" HELP."])
}

/// The command is known, but is for the connection or the whole keyspace; the node must not ask the engine for it.
#[must_use]
pub fn not_data(command: &str) -> Value {
    line(&[b"ERR '", command.as_bytes(), b"' is not a command on keys"])
}

/// A write reached the read path, which the keyspace rules out before.
pub(crate) fn not_a_read() -> Value {
    Value::Error(Bytes::from_static(b"ERR this command writes"))
}

/// An `ERR` line with text that is not known in advance, on one line whatever the text holds.
pub(crate) fn line(parts: &[&[u8]]) -> Value {
    let mut text: Vec<u8> = parts.concat();
    for byte in &mut text {
        // An argument repeated in an error must not end the line early.
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    Value::Error(text.into())
}

/// Redis formats arguments as C strings, so its texts end at the first zero byte.
fn c_string(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn clipped(bytes: &[u8], length: usize) -> &[u8] {
    &bytes[..bytes.len().min(length)]
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::prelude::rust_2024::*;

    use super::*;

    fn check(args: &[&'static str], error: fn(&[Bytes]) -> Value, expected: &str) {
        let args: Vec<Bytes> = args.iter().map(|arg| Bytes::from_static(arg.as_bytes())).collect();
        assert_eq!(error(&args), Value::error(expected.to_string()));
    }

    #[test]
    fn unknown_command_repeats_its_arguments() {
        check(&["foo"], unknown_command, "ERR unknown command 'foo', with args beginning with: ");
        check(
            &["Foo", "a", "b"],
            unknown_command,
            "ERR unknown command 'Foo', with args beginning with: 'a' 'b' ",
        );
        check(
            &["f\r\no", "a\nb"],
            unknown_command,
            "ERR unknown command 'f  o', with args beginning with: 'a b' ",
        );
        check(&["f\0o", "a\0b"], unknown_command, "ERR unknown command 'f', with args beginning with: 'a' ");
    }

    #[test]
    fn unknown_command_repeats_no_more_than_128_bytes_of_each() {
        let long: &'static str = Box::leak("x".repeat(200).into_boxed_str());
        let clipped = "x".repeat(128);
        let text = format!("ERR unknown command '{clipped}', with args beginning with: '{clipped}' ");
        check(&[long, long, "y"], unknown_command, &text);
    }

    #[test]
    fn line_ends_of_an_unsupported_option_are_blanks_but_at_its_end() {
        let expire = |args: &[Bytes]| unsupported_option(&args[0]);
        check(&["\r\n"], expire, "ERR Unsupported option ");
        check(&["\na\rb\r\n"], expire, "ERR Unsupported option  a b");
        check(&["a\0b"], expire, "ERR Unsupported option a");
    }

    #[test]
    fn unknown_subcommand_names_the_help() {
        check(&["object", "foo"], unknown_subcommand, "ERR unknown subcommand 'foo'. Try OBJECT HELP.");
    }
}
