//! Inline commands: a line typed by hand, cut into arguments as Redis's `sdssplitargs` cuts it.

use alloc::vec::Vec;

use bytes::Bytes;

/// The line's arguments, or nothing if a quote is not closed or has text right behind it.
///
/// Double quotes know `\n \r \t \b \a \xHH` and `\` before any other byte; single quotes know only `\'`. A quote may
/// open in the middle of an argument (`a"b c"` is `ab c`) but must close at its end.
pub(crate) fn split_arguments(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut arguments = Vec::new();
    let mut rest = line;
    loop {
        let blank = rest.iter().take_while(|byte| is_space(**byte)).count();
        rest = &rest[blank..];
        if rest.is_empty() {
            return Some(arguments);
        }
        let (argument, after) = take_argument(rest)?;
        arguments.push(argument.into());
        rest = after;
    }
}

/// The first argument of a line that starts with one, and what follows it.
fn take_argument(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut argument = Vec::new();
    let mut rest = line;
    loop {
        match rest {
            [] => return Some((argument, rest)),
            // Vertical tab and form feed part arguments only in front of one: so does Redis.
            [b' ' | b'\n' | b'\r' | b'\t', after @ ..] => return Some((argument, after)),
            [b'"', after @ ..] => return closed(argument_in_double_quotes(after, &mut argument)?, argument),
            [b'\'', after @ ..] => return closed(argument_in_single_quotes(after, &mut argument)?, argument),
            [byte, after @ ..] => {
                argument.push(*byte);
                rest = after;
            }
        }
    }
}

/// A closing quote ends its argument: only a space or the end of the line may follow.
fn closed(rest: &[u8], argument: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    match rest {
        [] => Some((argument, rest)),
        [byte, ..] if is_space(*byte) => Some((argument, rest)),
        _ => None,
    }
}

fn argument_in_double_quotes<'a>(line: &'a [u8], argument: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = line;
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] => (
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                },
                after,
            ),
            [byte, after @ ..] => (*byte, after),
        };
        argument.push(byte);
        rest = after;
    }
}

fn argument_in_single_quotes<'a>(line: &'a [u8], argument: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = line;
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        argument.push(byte);
        rest = after;
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// C's `isspace` in its plain locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<&[&[u8]]>) {
        let arguments = split_arguments(line.as_bytes());
        assert_eq!(
            arguments.as_ref().map(|all| all.iter().map(|one| &one[..]).collect::<Vec<_>>()),
            expected.map(<[&[u8]]>::to_vec),
            "{line:?}"
        );
    }

    #[test]
    fn lines_are_cut_as_redis_cuts_them() {
        check("", Some(&[]));
        check("  \t ", Some(&[]));
        check("PING", Some(&[b"PING"]));
        check("  set  k\tv ", Some(&[b"set", b"k", b"v"]));
        check(r#"a "b c" d"#, Some(&[b"a", b"b c", b"d"]));
        check(r#"a"b c""#, Some(&[b"ab c"]));
        check(r#""" ''"#, Some(&[b"", b""]));
        check(r#""\x41\n\r\t\b\a\q\"\x4""#, Some(&[b"A\n\r\t\x08\x07q\"x4"]));
        check(r"'\n\'x'", Some(&[b"\\n'x"]));
        check("\x0ba\x0bb", Some(&[b"a\x0bb"]));
    }

    #[test]
    fn a_quote_must_close_at_the_end_of_its_argument() {
        for line in [r#"""#, "'", r#""a"b"#, "'a'b", r#"set k "v"#, r#""a\"#, r#""\"#, "a'b", r#""a"'b'"#] {
            check(line, None);
        }
    }
}
