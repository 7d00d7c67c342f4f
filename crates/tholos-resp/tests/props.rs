//! What holds for all values and all bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tholos_resp::{Protocol, Value, ValueDecoder, ValueLimits, encode, encode_command};

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/resp.rs"]
mod harness;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

/// Text of one line.
fn line() -> impl Strategy<Value = Bytes> {
    "[^\r\n]{0,12}".prop_map(Bytes::from)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        Just(Value::NullArray),
        any::<f64>().prop_filter("nan equals nothing", |number| !number.is_nan()).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        (any::<[u8; 3]>(), bytes()).prop_map(|(format, text)| Value::Verbatim { format, text }),
        "-?[0-9]{1,30}".prop_map(|digits| Value::BigNumber(Bytes::from(digits))),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            list.clone().prop_map(Value::Array),
            list.clone().prop_map(Value::Set),
            list.prop_map(Value::Push),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

/// What a client of RESP2 is meant to see: the table of the encoder, as a function from value to value.
fn downgraded(value: &Value) -> Value {
    let list = |values: &[Value]| values.iter().map(downgraded).collect();
    match value {
        Value::Array(values) | Value::Set(values) | Value::Push(values) => Value::Array(list(values)),
        Value::Map(pairs) => {
            Value::Array(pairs.iter().flat_map(|(key, value)| [downgraded(key), downgraded(value)]).collect())
        }
        Value::Double(number) => Value::bulk(tholos_resp::format_double(*number)),
        Value::Boolean(truth) => Value::integer(i64::from(*truth)),
        Value::Verbatim { text, .. } => Value::Bulk(text.clone()),
        Value::BigNumber(digits) => Value::Bulk(digits.clone()),
        other => other.clone(),
    }
}

/// RESP3 has one null.
fn one_null(value: &Value) -> Value {
    match value {
        Value::NullArray => Value::Null,
        Value::Array(values) => Value::Array(values.iter().map(one_null).collect()),
        Value::Set(values) => Value::Set(values.iter().map(one_null).collect()),
        Value::Push(values) => Value::Push(values.iter().map(one_null).collect()),
        Value::Map(pairs) => {
            Value::Map(pairs.iter().map(|(key, value)| (one_null(key), one_null(value))).collect())
        }
        other => other.clone(),
    }
}

fn decoded(bytes: &[u8]) -> Value {
    let mut buffer = BytesMut::from(bytes);
    let value = ValueDecoder::new(ValueLimits::default()).decode(&mut buffer);
    assert!(buffer.is_empty(), "one value and nothing else");
    value.expect("what we encode is a value").expect("and a whole one")
}

/// Bytes that get far into a decoder: its own words in any order, with some noise.
fn nearly_protocol() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"*",
        b"$",
        b"\r\n",
        b"\r",
        b"\n",
        b"-1",
        b"0",
        b"1",
        b"2",
        b"3",
        b"10",
        b"*1\r\n",
        b"*2\r\n",
        b"$1\r\na\r\n",
        b"$3\r\nGET\r\n",
        b"%1\r\n",
        b"~2\r\n",
        b">1\r\n",
        b"|1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(7\r\n",
        b"=5\r\ntxt:a\r\n",
        b"!3\r\nERR\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"\"",
        b"'",
        b"\\x41",
        b"\\",
        b" ",
        b"PING\r\n",
        b"99999999999999999999",
        b"67108864",
        b"\x16\x03",
        b"\0",
        b"\xff",
    ];
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn a_value_survives_resp3(value in values()) {
        let mut bytes = Vec::new();
        encode(&value, Protocol::Resp3, &mut bytes);
        prop_assert_eq!(decoded(&bytes), one_null(&value));
    }

    #[test]
    fn a_value_is_downgraded_to_resp2(value in values()) {
        let mut bytes = Vec::new();
        encode(&value, Protocol::Resp2, &mut bytes);
        prop_assert_eq!(decoded(&bytes), downgraded(&value));
    }

    #[test]
    fn a_double_is_read_back_as_the_same(number: f64) {
        prop_assume!(!number.is_nan());
        let text = tholos_resp::format_double(number);
        prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(number.to_bits()), "{}", text);
    }

    #[test]
    fn a_command_survives(arguments in prop::collection::vec(bytes(), 1..8)) {
        let mut encoded = Vec::new();
        encode_command(&arguments, &mut encoded);
        prop_assert_eq!(harness::commands(&encoded, &Default::default(), 1), (vec![arguments], None));
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut(noise: Vec<u8>, words in nearly_protocol()) {
        for bytes in [noise, words] {
            harness::resp_command(&bytes);
            harness::resp_value(&bytes);
        }
    }
}
