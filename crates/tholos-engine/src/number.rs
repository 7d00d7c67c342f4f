//! Integers as Redis reads and writes them.

use alloc::vec::Vec;

/// Reads a canonical decimal `i64`: no sign but a `-`, no leading zeros, no spaces, nothing after it.
///
/// Whatever this accepts, [`format`] writes back byte for byte, so such a text can be held as a number.
pub fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [] | [b'0', ..] => return None,
        // i64::MIN has 19 digits; more would overflow below.
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut magnitude: u64 = 0;
    for digit in digits {
        // 19 digits fit a u64.
        magnitude = magnitude * 10 + u64::from(digit.wrapping_sub(b'0'));
        if !digit.is_ascii_digit() {
            return None;
        }
    }
    if negative {
        // Negating in i128 keeps i64::MIN, whose magnitude no i64 holds.
        i64::try_from(-i128::from(magnitude)).ok()
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Writes a number in decimal.
#[must_use]
pub fn format(number: i64) -> Vec<u8> {
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
    digits[at..].to_vec()
}

/// Length of [`format`]'s answer, in bytes.
#[must_use]
pub(crate) fn digits(number: i64) -> usize {
    let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
    digits + usize::from(number < 0)
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;

    use super::*;

    #[test]
    fn only_canonical_numbers_are_read() {
        for (text, number) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("00", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("1\0", None),
            ("12345:", None),
            ("12345/", None),
        ] {
            assert_eq!(parse(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, -1, 9, 10, -10, 99, 100, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(format(number), number.to_string().as_bytes());
            assert_eq!(parse(&format(number)), Some(number));
            assert_eq!(digits(number), number.to_string().len());
        }
    }
}
