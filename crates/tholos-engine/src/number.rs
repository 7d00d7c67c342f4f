//! Integers as Redis writes them.

use alloc::vec::Vec;

/// Writes a number in decimal. Whatever [`parse_integer`](tholos_resp::parse_integer) accepts, this writes back byte for byte, so such a text can be held as
/// a number.
#[must_use]
pub fn format(number: i64) -> Vec<u8> {
    let mut text = Vec::with_capacity(digits(number));
    tholos_resp::push_integer(number, &mut text);
    text
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
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, -1, 9, 10, -10, 99, 100, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(format(number), number.to_string().as_bytes());
            assert_eq!(tholos_resp::parse_integer(&format(number)), Some(number));
            assert_eq!(digits(number), number.to_string().len());
        }
    }
}
