//! Decimal fractions for INCRBYFLOAT: added digit by digit, without rounding until the answer is written.
//!
//! Redis adds in the processor's `long double`, so its answers differ between processors, and 0.1 + 0.2 can be
//! 0.30000000000000004. Here the sum is exact, and written with at most 17 fractional digits, as many as Redis
//! writes (a half rounds away from zero). So all replicas agree, whatever they run on.

use alloc::vec::Vec;

/// Fractional digits of an answer.
const FRACTION_DIGITS_MAX: usize = 17;
/// Longest text that is read, in bytes.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Largest and smallest power of ten of a number's first digit, those of the 80-bit `long double`.
const EXPONENT_MAX: i64 = 4932;
const EXPONENT_MIN: i64 = -4951;

/// `digits` × 10^-`scale`, with its sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Values 0 to 9, the most significant first, which is not 0. Empty for zero.
    digits: Vec<u8>,
    /// How many of the digits (or zeros before them) are fractional.
    scale: usize,
}

/// Why a text is no finite number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalError {
    /// Not a number, or outside the range of numbers.
    NotANumber,
    /// `inf` and the like.
    Infinite,
}

impl Decimal {
    pub(crate) const ZERO: Decimal = Decimal { negative: false, digits: Vec::new(), scale: 0 };

    /// Reads `[+-] digits [. digits] [e [+-] digits]`; one of the two runs of digits may be empty.
    pub(crate) fn parse(text: &[u8]) -> Result<Decimal, DecimalError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(DecimalError::NotANumber);
        }
        let (negative, rest) = sign(text);
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Err(DecimalError::Infinite);
        }
        let (whole, rest) = digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            rest => (&[][..], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DecimalError::NotANumber);
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest).ok_or(DecimalError::NotANumber)?,
            _ => return Err(DecimalError::NotANumber),
        };
        let all = whole.iter().chain(fraction).map(|digit| digit - b'0');
        let mut digits: Vec<u8> = all.skip_while(|digit| *digit == 0).collect();
        if digits.is_empty() {
            return Ok(Decimal::ZERO);
        }
        let scale = fraction.len() as i64 - exponent;
        // The power of ten of the first digit bounds both the memory of the sum and the length of the answer.
        if !(EXPONENT_MIN..=EXPONENT_MAX).contains(&(digits.len() as i64 - 1 - scale)) {
            return Err(DecimalError::NotANumber);
        }
        if scale < 0 {
            digits.resize(digits.len() + scale.unsigned_abs() as usize, 0);
        }
        Ok(Decimal { negative, digits, scale: scale.max(0) as usize })
    }

    /// The exact sum, or `None` if it is out of range.
    pub(crate) fn add(&self, other: &Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        let (a, b) = (self.widened(scale), other.widened(scale));
        let sum = if self.negative == other.negative {
            Decimal { negative: self.negative, digits: add_digits(&a, &b), scale }
        } else if greater_or_equal(&a, &b) {
            Decimal { negative: self.negative, digits: subtract_digits(&a, &b), scale }
        } else {
            Decimal { negative: other.negative, digits: subtract_digits(&b, &a), scale }
        };
        (sum.digits.len() as i64 - 1 - scale as i64 <= EXPONENT_MAX).then_some(sum)
    }

    /// The number with at most 17 fractional digits, without an exponent and without zeros at its end.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        let digits = self.rounded();
        let whole = digits.len() - FRACTION_DIGITS_MAX;
        let fraction = &digits[whole..];
        let kept = fraction.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        let mut text = Vec::with_capacity(digits.len() + 2);
        if self.negative && digits.iter().any(|digit| *digit != 0) {
            text.push(b'-');
        }
        text.extend(digits[..whole].iter().map(|digit| digit + b'0'));
        if kept > 0 {
            text.push(b'.');
            text.extend(fraction[..kept].iter().map(|digit| digit + b'0'));
        }
        text
    }

    /// The digits at a scale of exactly 17, with at least one before the point.
    fn rounded(&self) -> Vec<u8> {
        let mut digits = if self.scale <= FRACTION_DIGITS_MAX {
            self.widened(FRACTION_DIGITS_MAX)
        } else {
            let dropped = self.scale - FRACTION_DIGITS_MAX;
            let kept = self.digits.len().saturating_sub(dropped);
            // A number with fewer digits than are dropped has a zero there.
            let next = if self.digits.len() >= dropped { self.digits[kept] } else { 0 };
            let kept = &self.digits[..kept];
            if next >= 5 { add_digits(kept, &[1]) } else { kept.to_vec() }
        };
        let missing = (FRACTION_DIGITS_MAX + 1).saturating_sub(digits.len());
        digits.splice(0..0, core::iter::repeat_n(0, missing));
        digits
    }

    fn widened(&self, scale: usize) -> Vec<u8> {
        let mut digits = self.digits.clone();
        if !digits.is_empty() {
            digits.resize(digits.len() + scale - self.scale, 0);
        }
        digits
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// The run of digits at the front, and what follows it.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, rest) = sign(text);
    let (run, rest) = digits(rest);
    if run.is_empty() || !rest.is_empty() {
        return None;
    }
    // Saturates far outside the range, as a text of 5 KiB cannot bring it back.
    let value = run.iter().fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1_000_000));
    Some(if negative { -value } else { value })
}

fn greater_or_equal(a: &[u8], b: &[u8]) -> bool {
    (a.len(), a) >= (b.len(), b)
}

fn add_digits(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut sum = Vec::with_capacity(a.len().max(b.len()) + 1);
    let (mut a, mut b) = (a.iter().rev(), b.iter().rev());
    let mut carry = 0;
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() && carry == 0 {
            break;
        }
        let digit = x.unwrap_or(&0) + y.unwrap_or(&0) + carry;
        sum.push(digit % 10);
        carry = digit / 10;
    }
    sum.reverse();
    sum
}

/// `a` − `b`, where `a` is not the smaller.
fn subtract_digits(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut difference = Vec::with_capacity(a.len());
    let mut b = b.iter().rev();
    let mut borrow = 0;
    for x in a.iter().rev() {
        let y = b.next().unwrap_or(&0) + borrow;
        borrow = u8::from(*x < y);
        difference.push(x + 10 * borrow - y);
    }
    while difference.last() == Some(&0) {
        difference.pop();
    }
    difference.reverse();
    difference
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;

    use super::*;

    fn check_sum(a: &str, b: &str, expected: &str) {
        let sum = |a: &str, b: &str| {
            let parse = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
            String::from_utf8(parse(a).add(&parse(b)).unwrap().to_text()).unwrap()
        };
        assert_eq!(sum(a, b), expected, "{a} + {b}");
        assert_eq!(sum(b, a), expected, "{b} + {a}");
    }

    #[test]
    fn sums_are_exact() {
        check_sum("0.1", "0.2", "0.3");
        check_sum("10.50", "0.1", "10.6");
        check_sum("5.0e3", "2.0e2", "5200");
        check_sum("3", "1.000000000000000005", "4.00000000000000001");
        check_sum("-1", "1", "0");
        check_sum("-1.5", "1", "-0.5");
        check_sum("1", "-1.5", "-0.5");
        check_sum("999", "1", "1000");
        check_sum("1000", "-1", "999");
        check_sum("+.5", "5.", "5.5");
        check_sum("0", "-0", "0");
        check_sum("1e30", "1e-10", "1000000000000000000000000000000.0000000001");
    }

    #[test]
    fn answers_have_17_fractional_digits() {
        check_sum("0", "1e-17", "0.00000000000000001");
        check_sum("0", "1e-18", "0");
        check_sum("0", "-1e-18", "0");
        check_sum("0", "4.9e-18", "0");
        check_sum("0", "5e-18", "0.00000000000000001");
        check_sum("0", "-5e-18", "-0.00000000000000001");
        check_sum("0", "0.999999999999999999", "1");
        check_sum("0", "9.99999999999999999999", "10");
        check_sum("0", "1e-4000", "0");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = "1".repeat(5120);
        for text in [
            "", "-", ".", "e1", "1e", "1e+", "1 ", " 1", "1x", "0x10", "nan", "1e5000", "1e-5000", "--1",
            &long,
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()), Err(DecimalError::NotANumber), "{text:?}");
        }
        for text in ["inf", "-inf", "+Infinity"] {
            assert_eq!(Decimal::parse(text.as_bytes()), Err(DecimalError::Infinite), "{text:?}");
        }
        let huge = Decimal::parse(b"9e4932").unwrap();
        assert_eq!(huge.add(&huge), None);
    }
}
