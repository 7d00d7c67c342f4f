//! Values to bytes, in the protocol a connection speaks.
//!
//! RESP2 carries less than RESP3, so each richer type has the poorer form in which Redis sends it:
//!
//! ```text
//!   value            RESP2                 RESP3
//!   Null             $-1                   _
//!   NullArray        *-1                   _
//!   Map of n pairs   *2n, flat             %n
//!   Set              *n                    ~n
//!   Push             *n                    >n
//!   Double           bulk                  ,
//!   Boolean          :1 or :0              #t or #f
//!   Verbatim         bulk of the text      =
//!   BigNumber        bulk                  (
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::value::{Protocol, Value};

/// Appends `value` to `out` in the form `protocol` can carry.
pub fn encode(value: &Value, protocol: Protocol, out: &mut Vec<u8>) {
    match value {
        Value::Simple(text) => push_line(b'+', text, out),
        Value::Error(text) => push_line(b'-', text, out),
        Value::Integer(number) => push_header(b':', *number, out),
        Value::Bulk(bytes) => encode_bulk(bytes, out),
        Value::Array(values) => encode_list(b'*', values, protocol, out),
        Value::Null => out.extend_from_slice(match protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        }),
        Value::NullArray => out.extend_from_slice(match protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        }),
        _ => encode_rich(value, protocol, out),
    }
}

/// The types RESP2 lacks; apart, so that the common ones stay small enough to inline.
fn encode_rich(value: &Value, protocol: Protocol, out: &mut Vec<u8>) {
    let rich = protocol == Protocol::Resp3;
    match value {
        Value::Map(pairs) => {
            if rich {
                push_header(b'%', length(pairs.len()), out);
            } else {
                push_header(b'*', 2 * length(pairs.len()), out);
            }
            for (key, value) in pairs {
                encode(key, protocol, out);
                encode(value, protocol, out);
            }
        }
        Value::Set(values) => encode_list(if rich { b'~' } else { b'*' }, values, protocol, out),
        Value::Push(values) => encode_list(if rich { b'>' } else { b'*' }, values, protocol, out),
        Value::Double(number) => {
            let text = format_double(*number);
            if rich { push_line(b',', text.as_bytes(), out) } else { encode_bulk(text.as_bytes(), out) }
        }
        Value::Boolean(truth) => out.extend_from_slice(match (rich, truth) {
            (false, false) => b":0\r\n",
            (false, true) => b":1\r\n",
            (true, false) => b"#f\r\n",
            (true, true) => b"#t\r\n",
        }),
        Value::Verbatim { format, text } => {
            if rich {
                push_header(b'=', length(text.len()) + 4, out);
                out.extend_from_slice(format);
                out.push(b':');
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            } else {
                encode_bulk(text, out);
            }
        }
        Value::BigNumber(digits) => {
            if rich {
                push_line(b'(', digits, out);
            } else {
                encode_bulk(digits, out);
            }
        }
        Value::Simple(_)
        | Value::Error(_)
        | Value::Integer(_)
        | Value::Bulk(_)
        | Value::Array(_)
        | Value::Null
        | Value::NullArray => unreachable!("encode() writes {value:?} itself"),
    }
}

/// Appends a bulk string: `$<length>\r\n<bytes>\r\n`.
pub fn encode_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    // One growth of the buffer for the whole string; 24 covers the sign, the longest length and both line ends.
    out.reserve(bytes.len() + 24);
    push_header(b'$', length(bytes.len()), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a command as clients send it: an array of bulk strings, the same in both protocols.
pub fn encode_command<A: AsRef<[u8]>>(arguments: &[A], out: &mut Vec<u8>) {
    push_header(b'*', length(arguments.len()), out);
    for argument in arguments {
        encode_bulk(argument.as_ref(), out);
    }
}

fn encode_list(sign: u8, values: &[Value], protocol: Protocol, out: &mut Vec<u8>) {
    push_header(sign, length(values.len()), out);
    for value in values {
        encode(value, protocol, out);
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).expect("no slice is longer than isize::MAX")
}

/// `<sign><number>\r\n`.
fn push_header(sign: u8, number: i64, out: &mut Vec<u8>) {
    // Most lengths and small replies are one digit: skip the division loop for them.
    if (0..10).contains(&number) {
        out.extend_from_slice(&[sign, b'0' + number as u8, b'\r', b'\n']);
        return;
    }
    out.push(sign);
    push_integer(number, out);
    out.extend_from_slice(b"\r\n");
}

/// `<sign><text>\r\n`, with line breaks inside the text written as spaces: an error may quote what a client sent, and a
/// line break in it would be read as the end of the reply and the start of a forged one.
fn push_line(sign: u8, text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 3);
    out.push(sign);
    let start = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `number` in decimal.
pub fn push_integer(number: i64, out: &mut Vec<u8>) {
    // 19 digits of i64::MIN and its sign.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

/// The digits a double needs to be read back as the same double.
const DOUBLE_DIGITS: i32 = 17;

/// A double as Redis 7.0 replies it: C's `%.17g`, with `inf`, `-inf` and `nan` for what has no digits.
#[must_use]
pub fn format_double(number: f64) -> String {
    if number.is_nan() {
        return String::from("nan");
    }
    if number.is_infinite() {
        return String::from(if number > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{number:.*e}", DOUBLE_DIGITS as usize - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("LowerExp always writes an exponent");
    let exponent: i32 = exponent.parse().expect("LowerExp writes a small decimal exponent");
    if (-4..DOUBLE_DIGITS).contains(&exponent) {
        let places = (DOUBLE_DIGITS - 1 - exponent) as usize;
        // Exact decimal expansion rounded at the same digit as the scientific form, so both agree.
        let fixed = format!("{number:.places$}");
        return String::from(trim_fraction(&fixed));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim_fraction(mantissa), exponent.unsigned_abs())
}

/// `%g` drops the zeros that end a fraction, and a point with nothing after it.
fn trim_fraction(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use bytes::Bytes;

    use super::*;

    #[track_caller]
    fn check(value: &Value, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = Vec::new();
            encode(value, protocol, &mut out);
            assert_eq!(out.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
        }
    }

    #[test]
    fn scalars_as_redis_writes_them() {
        check(&Value::ok(), "+OK\r\n", "+OK\r\n");
        check(&Value::error("ERR no"), "-ERR no\r\n", "-ERR no\r\n");
        for number in [0, 9, 10, -1, 1041, i64::MAX, i64::MIN] {
            let text = format!(":{number}\r\n");
            check(&Value::integer(number), &text, &text);
        }
        check(&Value::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(&Value::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
        check(&Value::Null, "$-1\r\n", "_\r\n");
        check(&Value::NullArray, "*-1\r\n", "_\r\n");
        check(&Value::Boolean(true), ":1\r\n", "#t\r\n");
        check(&Value::Boolean(false), ":0\r\n", "#f\r\n");
        check(&Value::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(
            &Value::Verbatim { format: *b"txt", text: Bytes::from_static(b"hi") },
            "$2\r\nhi\r\n",
            "=6\r\ntxt:hi\r\n",
        );
        check(
            &Value::BigNumber(Bytes::from_static(b"12345678901234567890")),
            "$20\r\n12345678901234567890\r\n",
            "(12345678901234567890\r\n",
        );
    }

    #[test]
    fn collections_as_redis_writes_them() {
        let list = vec![Value::integer(1), Value::Null];
        check(&Value::array(list.clone()), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n");
        check(&Value::Set(list.clone()), "*2\r\n:1\r\n$-1\r\n", "~2\r\n:1\r\n_\r\n");
        check(&Value::Push(list.clone()), "*2\r\n:1\r\n$-1\r\n", ">2\r\n:1\r\n_\r\n");
        let map =
            Value::Map(vec![(Value::bulk("k"), Value::Array(list)), (Value::bulk("e"), Value::array([]))]);
        check(
            &map,
            "*4\r\n$1\r\nk\r\n*2\r\n:1\r\n$-1\r\n$1\r\ne\r\n*0\r\n",
            "%2\r\n$1\r\nk\r\n*2\r\n:1\r\n_\r\n$1\r\ne\r\n*0\r\n",
        );
    }

    #[test]
    fn a_line_cannot_forge_a_second_reply() {
        check(&Value::error("ERR 'a\r\n+OK\r\n'"), "-ERR 'a  +OK  '\r\n", "-ERR 'a  +OK  '\r\n");
    }

    #[test]
    fn doubles_as_percent_17g() {
        // Each right-hand side is what C's printf("%.17g") prints.
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.1, "0.10000000000000001"),
            (3.3, "3.2999999999999998"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (1e23, "9.9999999999999992e+22"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(format_double(number), expected);
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        encode_command(&["SET", "k", ""], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
