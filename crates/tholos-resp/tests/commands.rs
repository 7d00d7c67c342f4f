//! A client's bytes and what becomes of them; each case is fed whole, byte by byte, and cut in two at every place.

use bytes::BytesMut;
use tholos_resp::{CommandDecoder, Limits, ProtocolError};

/// Everything a stream gives: its commands, then its error if it has one, or how many bytes wait for more.
#[derive(Debug, PartialEq)]
struct Outcome {
    commands: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
    mid_command: bool,
}

fn run<'a>(limits: &Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = CommandDecoder::new(limits.clone());
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(command)) => {
                    assert!(!command.is_empty(), "a command has a name");
                    commands.push(command.iter().map(|argument| argument.to_vec()).collect());
                }
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "C4: the error stays");
                    return Outcome { commands, error: Some(error), mid_command: false };
                }
            }
        }
    }
    Outcome { commands, error: None, mid_command: decoder.is_mid_command(&buffer) }
}

/// Commands are written as words joined by `|`.
#[track_caller]
fn check_with(limits: &Limits, input: &[u8], commands: &[&str], error: Option<&str>, mid_command: bool) {
    let whole = run(limits, [input]);
    let shown: Vec<String> = whole
        .commands
        .iter()
        .map(|command| {
            command.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join("|")
        })
        .collect();
    assert_eq!(shown, commands, "{}", input.escape_ascii());
    assert_eq!(whole.error.map(|error| error.to_string()).as_deref(), error, "{}", input.escape_ascii());
    assert_eq!(whole.mid_command, mid_command, "{}", input.escape_ascii());

    assert_eq!(run(limits, input.chunks(1)), whole, "byte by byte: {}", input.escape_ascii());
    for cut in 0..input.len().min(256) {
        let (left, right) = input.split_at(cut);
        assert_eq!(run(limits, [left, right]), whole, "cut at {cut}: {}", input.escape_ascii());
    }
}

#[track_caller]
fn check(input: &str, commands: &[&str], error: Option<&str>) {
    check_with(&Limits::default(), input.as_bytes(), commands, error, false);
}

/// Valid so far, and waiting.
#[track_caller]
fn check_waits(input: &str, commands: &[&str]) {
    check_with(&Limits::default(), input.as_bytes(), commands, None, true);
}

#[test]
fn multibulk_commands() {
    check("*1\r\n$4\r\nPING\r\n", &["PING"], None);
    check("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n", &["SET|k|"], None);
    check("*2\r\n$3\r\nGET\r\n$4\r\n\r\n\0\r\n*1\r\n", &[], Some("Protocol error: expected a line end"));
    check("*2\r\n$3\r\nGET\r\n$5\r\n\r\n\0\r\n\r\n*1\r\n$1\r\nx\r\n", &["GET|\\r\\n\\x00\\r\\n", "x"], None);
    check("", &[], None);
}

#[test]
fn inline_commands() {
    check("PING\r\n", &["PING"], None);
    check("PING\n", &["PING"], None);
    check("set k \"a b\"\r\nget 'k'\r\n", &["set|k|a b", "get|k"], None);
    check("$-1\r\n", &["$-1"], None);
    check("\0\r\n", &["\\x00"], None);
    check_waits("PING", &[]);
    check_waits("PING\r", &[]);
    check("GET \"k\r\n", &[], Some("Protocol error: unbalanced quotes in request"));
}

#[test]
fn nothing_to_do_is_skipped() {
    check("\r\n\n  \r\n*0\r\n*-1\r\n*-10\r\nPING\r\n", &["PING"], None);
    check("*1\r\n$4\r\nPING\r\n\r\n*1\r\n$4\r\nPING\r\n", &["PING", "PING"], None);
}

#[test]
fn half_a_command_waits() {
    for input in [
        "*",
        "*1",
        "*1\r",
        "*1\r\n",
        "*1\r\n$",
        "*1\r\n$4\r",
        "*1\r\n$4\r\n",
        "*1\r\n$4\r\nPING",
        "*1\r\n$4\r\nPING\r",
    ] {
        check_waits(input, &[]);
    }
    check_waits("PING\r\n*2\r\n$3\r\nGET\r\n", &["PING"]);
    // A claim within the limits waits for its bytes.
    check_waits("*1048576\r\n$67108864\r\nx", &[]);
}

#[test]
fn errors_as_redis_words_them() {
    for count in
        ["a", "", "1048577", "9223372036854775808", "20000000000000000000000", "+1", "01", "-", " 1", "1 "]
    {
        check(&format!("PING\r\n*{count}\r\n"), &["PING"], Some("Protocol error: invalid multibulk length"));
    }
    for length in
        ["a", "", "-1", "-10", "67108865", "9223372036854775807", "2147483648000000000000", "+1", "00"]
    {
        check(&format!("*2\r\n$3\r\nGET\r\n${length}\r\n"), &[], Some("Protocol error: invalid bulk length"));
    }
    check("*1\r\nfoo\r\n", &[], Some("Protocol error: expected '$', got 'f'"));
    check("*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", &[], Some("Protocol error: expected '$', got 'f'"));
    check("*2\r\n*1\r\n$1\r\nx\r\n", &[], Some("Protocol error: expected '$', got '*'"));
    assert_eq!(
        ProtocolError::ExpectedBulk(b'f').to_reply(),
        tholos_resp::Value::error("ERR Protocol error: expected '$', got 'f'")
    );
}

#[test]
fn a_line_end_is_both_bytes() {
    for input in ["*1\rx", "*1\r\n$4\rx", "*1\r\n$4\r\nPINGx", "*1\r\n$4\r\nPING\rx", "*1\r\n$4\r\nPING\n"] {
        check(input, &[], Some("Protocol error: expected a line end"));
    }
}

#[test]
fn endless_lines_end_at_their_limit() {
    let limits = Limits { inline_bytes_max: 40, ..Limits::default() };
    for (start, error) in [
        ("", "Protocol error: too big inline request"),
        ("*", "Protocol error: too big mbulk count string"),
        ("*1\r\n$", "Protocol error: too big bulk count string"),
    ] {
        let line_start = start.rfind('\n').map_or(0, |at| at + 1);
        let mut input = String::from(start);
        while input.len() - line_start < 40 {
            input.push('7');
        }
        check_with(&limits, input.as_bytes(), &[], None, true);
        input.push('7');
        check_with(&limits, input.as_bytes(), &[], Some(error), false);
        input.push_str("\r\n");
        check_with(&limits, input.as_bytes(), &[], Some(error), false);
    }
}

#[test]
fn the_end_of_an_inline_line_is_no_part_of_it() {
    let limits = Limits { inline_bytes_max: 4, ..Limits::default() };
    for end in ["\n", "\r\n"] {
        check_with(&limits, format!("PING{end}").as_bytes(), &["PING"], None, false);
        let error = "Protocol error: too big inline request";
        check_with(&limits, format!("PINGS{end}").as_bytes(), &[], Some(error), false);
    }
}

#[test]
fn tls_is_told_so() {
    check_with(
        &Limits::default(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[],
        Some("Protocol error: TLS handshake on a port without TLS"),
        false,
    );
}

#[test]
fn before_the_password_little_is_taken() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    let check = |input: &str, error: Option<&str>| {
        check_with(&limits, input.as_bytes(), &[], error, error.is_none());
    };
    check("*10\r\n$16384\r\n", None);
    check("*11\r\n", Some("Protocol error: unauthenticated multibulk length"));
    check("*1\r\n$16385\r\n", Some("Protocol error: unauthenticated bulk length"));

    let mut decoder = CommandDecoder::new(limits.clone());
    decoder.limits_mut().authenticated = true;
    assert_eq!(decoder.decode(&mut BytesMut::from("*11\r\n$16385\r\n")), Ok(None));
}

#[test]
fn a_command_is_bounded_as_a_whole() {
    // A line of 4 and three arguments of 5 + 10 + 2 bytes.
    let limits = Limits { query_buffer_bytes_max: 55, ..Limits::default() };
    let two = "*3\r\n$10\r\n0123456789\r\n$10\r\n0123456789\r\n";
    assert_eq!(two.len(), 38);
    check_with(&limits, format!("{two}$10\r\n").as_bytes(), &[], None, true);
    check_with(
        &limits,
        format!("{two}$11\r\n").as_bytes(),
        &[],
        Some("Protocol error: too big query"),
        false,
    );
}

#[test]
fn an_error_stays_whatever_the_limits_become() {
    let mut decoder = CommandDecoder::new(Limits { arguments_max: 1, ..Limits::default() });
    let mut buffer = BytesMut::from("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    assert_eq!(decoder.decode(&mut buffer), Err(ProtocolError::InvalidMultibulkLength));
    decoder.limits_mut().arguments_max = 2;
    assert_eq!(decoder.decode(&mut buffer), Err(ProtocolError::InvalidMultibulkLength));
}

#[test]
fn a_claim_allocates_nothing() {
    let mut decoder = CommandDecoder::new(Limits::default());
    let mut buffer = BytesMut::from("*1048576\r\n$67108864\r\n");
    let capacity = buffer.capacity();
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(buffer.capacity(), capacity);
}
