//! A server's bytes and the values in them; each case is fed whole, byte by byte, and cut in two at every place.

use bytes::BytesMut;
use tholos_resp::{ValueDecoder, ValueLimits};

fn run<'a>(
    limits: &ValueLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<String>, Option<String>) {
    let mut decoder = ValueDecoder::new(limits.clone());
    let mut buffer = BytesMut::new();
    let mut values = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(value)) => values.push(value.to_string()),
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "the error stays");
                    return (values, Some(error.to_string()));
                }
            }
        }
    }
    (values, None)
}

#[track_caller]
fn check_with(limits: &ValueLimits, input: &str, expected: &[&str], error: Option<&str>) {
    let whole = run(limits, [input.as_bytes()]);
    assert_eq!(whole.0, expected, "{input:?}");
    assert_eq!(whole.1.as_deref(), error, "{input:?}");
    assert_eq!(run(limits, input.as_bytes().chunks(1)), whole, "byte by byte: {input:?}");
    for cut in 0..input.len() {
        let (left, right) = input.as_bytes().split_at(cut);
        assert_eq!(run(limits, [left, right]), whole, "cut at {cut}: {input:?}");
    }
}

#[track_caller]
fn check(input: &str, expected: &[&str]) {
    check_with(&ValueLimits::default(), input, expected, None);
}

#[track_caller]
fn check_error(input: &str, error: &str) {
    check_with(&ValueLimits::default(), input, &[], Some(error));
}

#[test]
fn values_of_resp2() {
    check("+OK\r\n-ERR no\r\n:-12\r\n", &["OK", "-ERR no", "-12"]);
    check("$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n", &["\"a\\r\\nbc\"", "\"\"", "null"]);
    check("*3\r\n:1\r\n*2\r\n+a\r\n*0\r\n$1\r\nx\r\n*-1\r\n", &["[1, [a, []], \"x\"]", "null[]"]);
    check("+\r\n-\r\n", &["", "-"]);
}

#[test]
fn values_of_resp3() {
    check("_\r\n#t\r\n#f\r\n", &["null", "true", "false"]);
    check(
        ",1.5\r\n,-1e300\r\n,inf\r\n,-inf\r\n,nan\r\n,10\r\n",
        &["1.5", "-1.0000000000000001e+300", "inf", "-inf", "nan", "10"],
    );
    check(
        "(3492890328409238509324850943850943825024385\r\n(-1\r\n",
        &["3492890328409238509324850943850943825024385", "-1"],
    );
    check("=8\r\ntxt:a\r\nb\r\n!8\r\nERR a\r\nb\r\n", &["txt:\"a\\r\\nb\"", "-ERR a\\r\\nb"]);
    check(
        "%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n:2\r\n>1\r\n+push\r\n%0\r\n",
        &["map[a: 1, b: set[2]]", "push[push]", "map[]"],
    );
}

#[test]
fn attributes_are_dropped() {
    check("|1\r\n+ttl\r\n:3600\r\n*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n:2\r\n|0\r\n:3\r\n", &["[2, 3]"]);
}

#[test]
fn half_a_value_waits() {
    for input in [
        "+OK",
        "+OK\r",
        "$3\r\nab",
        "$3\r\nabc\r",
        "*2\r\n:1\r\n",
        "*1048576\r\n",
        "%1\r\n+a\r\n",
        "|1\r\n+a\r\n:1\r\n",
    ] {
        check(input, &[]);
    }
}

#[test]
fn what_is_no_value_is_said() {
    check_error("x", "no value starts with byte 0x78");
    check_error("\r\n", "no value starts with byte 0x0d");
    for length in ["", "-1x", "-2", "a", "+1", "01", "?", "536870913", "99999999999999999999"] {
        check_error(&format!("${length}\r\n"), "invalid length");
    }
    for length in ["", "-2", "?", "x"] {
        check_error(&format!("*{length}\r\n"), "invalid length");
        check_error(&format!("%{length}\r\n"), "invalid length");
    }
    check_error("*16777217\r\n", "too many elements");
    check_error("%8388609\r\n", "too many elements");
    check_error("%9223372036854775807\r\n", "too many elements");
    for input in [
        ":1a\r\n",
        ":\r\n",
        ",1,5\r\n",
        ",infinity\r\n",
        ",\r\n",
        "#x\r\n",
        "#\r\n",
        "_x\r\n",
        "(1a\r\n",
        "(\r\n",
        "=3\r\ntxt\r\n",
        "=4\r\ntxt.\r\n",
    ] {
        check_error(input, "invalid number, boolean, null or verbatim string");
    }
    for input in ["+a\rb", "$1\r\nabc", "$1\r\na\rx", ":1\r:"] {
        check_error(input, "expected a line end");
    }
}

#[test]
fn elements_are_counted_over_all_levels_and_anew_for_each_value() {
    let limits = ValueLimits { elements_max: 3, ..ValueLimits::default() };
    check_with(&limits, "*3\r\n:1\r\n:2\r\n:3\r\n*1\r\n*2\r\n:1\r\n:2\r\n", &["[1, 2, 3]", "[[1, 2]]"], None);
    check_with(&limits, "*2\r\n:1\r\n*2\r\n", &[], Some("too many elements"));
}

#[test]
fn nesting_ends_at_its_limit() {
    let seven = "*1\r\n".repeat(7);
    check(&format!("{seven}:1\r\n"), &["[[[[[[[1]]]]]]]"]);
    check_error(&format!("{seven}*1\r\n"), "lists nested too deep");
    check_error(&"*1\r\n".repeat(100_000)[..400], "lists nested too deep");
    let flat = ValueLimits { nesting_max: 0, ..ValueLimits::default() };
    check_with(&flat, ":1\r\n*0\r\n", &["1"], Some("lists nested too deep"));
}

#[test]
fn endless_lines_end_at_their_limit() {
    let limits = ValueLimits { line_bytes_max: 8, ..ValueLimits::default() };
    check_with(&limits, "+12345678\r\n", &["12345678"], None);
    check_with(&limits, "+123456789", &[], Some("line too long"));
    check_with(&limits, "+123456789\r\n", &[], Some("line too long"));
}
