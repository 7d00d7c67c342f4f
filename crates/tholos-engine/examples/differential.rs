//! Compares the engine with a real Redis 7.0.15, command by command.
//!
//! ```text
//! redis-server --port 7900 --save '' --databases 1 --proto-max-bulk-len 67108864
//! cargo run -p tholos-engine --example differential -- --port 7900 [--seed 1] [--commands 20000]
//! ```
//!
//! Generates commands, right and wrong ones, sends each to both, in RESP2 and RESP3 by turns, and prints every reply
//! that differs; exits with 1 if any did. **Empties that server's database.**
//!
//! Differences that are intended, and kept out of what is generated:
//! - INCRBYFLOAT adds decimally and exactly, so only fractions that are exact in binary are compared; it reads no
//!   hexadecimal numbers.
//! - COMMAND COUNT, LIST and DOCS tell of our commands in our words; INFO is compared without remarks and without
//!   subcommands.
//! - DBSIZE counts keys that are alive, where Redis counts dead ones too until it has removed them.
//! - OBJECT has ENCODING and HELP alone.
//! - Names and options are compared whole, where Redis stops at a zero byte.
//! - In glob ranges, bytes above 127 come after the others, where Redis on some processors puts them before.
//! - A transaction's commands are those on keys.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use tholos_engine::glob::Glob;
use tholos_engine::wide::Wide;
use tholos_engine::{Access, Command, Context, Keyspace, Transaction, introspect, table};
use tholos_resp::{Protocol, Value, ValueDecoder, ValueLimits};

type Line = Vec<Bytes>;

fn main() -> ExitCode {
    let port = option("--port").unwrap_or(7900);
    let seed = option("--seed").unwrap_or(1);
    let commands = option("--commands").unwrap_or(20_000);
    let mut both = Both::connect(port as u16);
    let mut random = Random(seed);
    both.compare_table();
    for _ in 0..commands {
        match random.below(400) {
            0 => both.compare(&words(random.pick(&[
                "FLUSHALL",
                "flushdb async",
                "FLUSHDB SYNC",
                "FLUSHALL FOO",
                "FLUSHDB SYNC x",
            ]))),
            1 => both.compare_keys(),
            2..20 => both.compare_transaction(&mut random),
            20..22 => both.switch_protocol(),
            _ => both.compare_line(&mut random),
        }
    }
    both.compare_keys();
    println!("{} replies compared, {} differ (seed {seed})", both.compared, both.different);
    if both.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn option(name: &str) -> Option<u64> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok())
}

/// The engine, and a connection to Redis.
struct Both {
    redis: TcpStream,
    decoder: ValueDecoder,
    received: BytesMut,
    protocol: Protocol,
    keyspace: Keyspace,
    index: u64,
    compared: u64,
    different: u64,
}

impl Both {
    fn connect(port: u16) -> Both {
        let redis = TcpStream::connect(("127.0.0.1", port)).expect("a Redis on that port");
        redis.set_nodelay(true).expect("a TCP socket");
        let mut both = Both {
            redis,
            decoder: ValueDecoder::new(ValueLimits { nesting_max: 20, ..ValueLimits::default() }),
            received: BytesMut::new(),
            protocol: Protocol::Resp2,
            keyspace: Keyspace::new(0..16384, 7),
            index: 0,
            compared: 0,
            different: 0,
        };
        both.ask(&words("FLUSHALL"));
        both
    }

    fn ask(&mut self, line: &[Bytes]) -> Value {
        let mut out = Vec::new();
        tholos_resp::encode_command(line, &mut out);
        self.redis.write_all(&out).expect("Redis takes the command");
        loop {
            if let Some(value) = self.decoder.decode(&mut self.received).expect("Redis answers in RESP") {
                return value;
            }
            let mut buffer = [0; 65536];
            let length = self.redis.read(&mut buffer).expect("Redis answers");
            assert!(length > 0, "Redis closed the connection after {line:?}");
            self.received.extend_from_slice(&buffer[..length]);
        }
    }

    fn switch_protocol(&mut self) {
        let (protocol, version) = match self.protocol {
            Protocol::Resp2 => (Protocol::Resp3, "HELLO 3"),
            Protocol::Resp3 => (Protocol::Resp2, "HELLO 2"),
        };
        self.ask(&words(version));
        self.protocol = protocol;
    }

    fn context(&mut self) -> Context {
        self.index += 1;
        Context { time_ms: now_ms(), seed: self.index, index: self.index, position: 0 }
    }

    fn engine(&mut self, line: &[Bytes]) -> Value {
        let context = self.context();
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => return error,
        };
        match command.access() {
            Access::Read => self.keyspace.read(context.time_ms, &command),
            Access::Write => self.keyspace.apply(&context, &command),
        }
    }

    fn compare(&mut self, line: &[Bytes]) {
        let theirs = self.ask(line);
        let ours = self.engine(line);
        self.judge(line, &theirs, &ours);
    }

    fn compare_line(&mut self, random: &mut Random) {
        let line = line(random);
        let fraction = line[0].eq_ignore_ascii_case(b"INCRBYFLOAT");
        if !(fraction && line.get(1).is_some_and(|key| self.is_long_number(key))) {
            self.compare(&line);
        }
    }

    /// Whether the value of a key has more digits than Redis adds without rounding.
    fn is_long_number(&self, key: &Bytes) -> bool {
        let get = Command::parse(&[Bytes::from("GET"), key.clone()]).expect("GET of a key");
        match self.keyspace.read(now_ms(), &get) {
            Value::Bulk(text) => text.len() > 15 || text.contains(&b'e'),
            _ => false,
        }
    }

    fn judge(&mut self, line: &[Bytes], theirs: &Value, ours: &Value) {
        let ours = through_the_wire(ours, self.protocol);
        self.compared += 1;
        if !alike(theirs, &ours, slack_ms(line)) {
            self.different += 1;
            println!("{line:?}\n  redis  {theirs:?}\n  engine {ours:?}");
        }
    }

    /// All keys, by KEYS and by SCAN with patterns.
    fn compare_keys(&mut self) {
        let now = now_ms();
        for pattern in ["*", "k*", "k[0-4]", "?[^1-3]", "\\k?", "*1*", "nothing"] {
            let line = [&words("KEYS")[..], &words(pattern)[..]].concat();
            let Ok(Wide::Keys { pattern: glob }) = Wide::parse(&line) else {
                panic!("KEYS is a wide command")
            };
            let theirs = set(self.ask(&line));
            let ours: BTreeSet<Bytes> = self.keyspace.keys(&glob, usize::MAX, now).into_iter().collect();
            let scanned = self.scan(pattern, now);
            self.compared += 1;
            if theirs != ours || theirs != scanned {
                self.different += 1;
                println!("KEYS {pattern}\n  redis  {theirs:?}\n  engine {ours:?}\n  scan   {scanned:?}");
            }
        }
        assert_eq!(self.keyspace.len(now), self.keyspace.keys(&Glob::new(b"*"), usize::MAX, now).len());
        for text in [
            "SCAN x",
            "SCAN 0 COUNT 0",
            "SCAN 0 COUNT",
            "SCAN 0 COUNT x",
            "SCAN",
            "SCAN 0 MATCH",
            "SCAN 0 FOO 1",
        ] {
            let theirs = self.ask(&words(text));
            let ours = Wide::parse(&words(text)).expect_err(text);
            self.judge(&words(text), &theirs, &ours);
        }
        match self.keyspace.random_key(now, now) {
            Some(key) => {
                let exists = self.ask(&[Bytes::from("EXISTS"), key]);
                self.judge(&words("RANDOMKEY"), &exists, &Value::Integer(1));
            }
            None => {
                let theirs = self.ask(&words("RANDOMKEY"));
                self.judge(&words("RANDOMKEY"), &theirs, &Value::Null);
            }
        }
    }

    fn scan(&self, pattern: &str, now: u64) -> BTreeSet<Bytes> {
        let (mut keys, mut cursor) = (BTreeSet::new(), 0);
        loop {
            let line = words(&format!("SCAN {cursor} MATCH {pattern} COUNT 3"));
            let Ok(Wide::Scan { cursor: at, filter, count }) = Wide::parse(&line) else { panic!("{line:?}") };
            let (next, found) = self.keyspace.scan(at, &filter, count, now);
            keys.extend(found);
            if next == 0 {
                return keys;
            }
            cursor = next;
        }
    }

    /// WATCH, something in between, MULTI, some commands, EXEC.
    fn compare_transaction(&mut self, random: &mut Random) {
        let watched: Vec<Bytes> = (0..random.below(3)).map(|_| key(random)).collect();
        let mut transaction = Transaction::default();
        if !watched.is_empty() {
            self.ask(&[&words("WATCH")[..], &watched].concat());
            let now = now_ms();
            transaction.watched =
                watched.iter().map(|key| (key.clone(), self.keyspace.version(key, now))).collect();
        }
        if random.below(2) == 0 {
            // One of those that change a key for sure, as Redis counts some writes that change nothing.
            let verb = random.pick(&["SET", "APPEND", "GETSET"]);
            let line = [Bytes::from(verb), key(random), Bytes::from("x")];
            self.compare(&line);
        }
        self.ask(&words("MULTI"));
        for _ in 0..random.below(5) {
            let line = line(random);
            if line[0].eq_ignore_ascii_case(b"INCRBYFLOAT") {
                continue;
            }
            let theirs = self.ask(&line);
            match Command::queue(&line) {
                Ok(command) => {
                    self.judge(&line, &theirs, &Value::simple("QUEUED"));
                    transaction.commands.push(command);
                }
                Err(error) => {
                    self.judge(&line, &theirs, &error);
                    self.ask(&words("DISCARD"));
                    return;
                }
            }
        }
        let theirs = self.ask(&words("EXEC"));
        let context = self.context();
        let ours = transaction.apply(&context, &mut self.keyspace);
        self.judge(&words("EXEC"), &theirs, &ours);
    }

    /// COMMAND INFO and GETKEYS of every command that Redis 7.0 has too.
    fn compare_table(&mut self) {
        for _ in 0..2 {
            let names = table::all().iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
            for spec in names.filter(|spec| !spec.since.starts_with("7.2")) {
                let line = [Bytes::from("COMMAND"), Bytes::from("INFO"), Bytes::from(spec.name)];
                let theirs = without_remarks(self.ask(&line));
                let ours = without_remarks(through_the_wire(&introspect::command(&line), self.protocol));
                self.judge(&line, &theirs, &ours);
            }
            for text in [
                "MSET a 1 b 2",
                "GET",
                "GET a b",
                "FOO a",
                "PING",
                "OBJECT ENCODING a",
                "OBJECT FOO a",
                "COPY a b",
                "LCS a b IDX",
                "SET a 1 GET",
                "EXPIRE a 1",
                "CONFIG GET a",
                "DEL a b a",
                "WATCH a b",
            ] {
                for verb in ["COMMAND GETKEYS", "COMMAND GETKEYSANDFLAGS"] {
                    let line = words(&format!("{verb} {text}"));
                    let theirs = self.ask(&line);
                    // SET's flags depend on its options there; the table tells the widest.
                    if !(verb.ends_with("FLAGS") && text.starts_with("SET")) {
                        self.judge(&line, &theirs, &introspect::command(&line));
                    }
                }
            }
            for text in [
                "COMMAND INFO foo",
                "COMMAND LIST FILTERBY PATTERN getd*",
                "COMMAND LIST FILTERBY MODULE none",
                "COMMAND FOO",
                "COMMAND GETKEYS",
                "COMMAND LIST FILTERBY FOO x",
                "COMMAND LIST FOO",
            ] {
                let theirs = self.ask(&words(text));
                self.judge(&words(text), &theirs, &introspect::command(&words(text)));
            }
            self.switch_protocol();
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

/// A reply as a client of that protocol decodes it.
fn through_the_wire(value: &Value, protocol: Protocol) -> Value {
    let mut bytes = Vec::new();
    tholos_resp::encode(value, protocol, &mut bytes);
    let mut bytes = BytesMut::from(&bytes[..]);
    let mut decoder = ValueDecoder::new(ValueLimits { nesting_max: 20, ..ValueLimits::default() });
    decoder.decode(&mut bytes).expect("we write RESP").expect("we write whole values")
}

/// How far two numbers may be apart, as the two sides look at the clock at different times.
fn slack_ms(line: &[Bytes]) -> i64 {
    let names: Vec<String> =
        line.iter().take(1).map(|name| String::from_utf8_lossy(name).to_uppercase()).collect();
    match names.first().map(String::as_str) {
        Some("TTL" | "EXPIRETIME") => 1,
        Some("PTTL" | "PEXPIRETIME" | "EXEC") => 200,
        _ => 0,
    }
}

fn alike(theirs: &Value, ours: &Value, slack: i64) -> bool {
    match (theirs, ours) {
        // Small numbers are counts, not times.
        (Value::Integer(a), Value::Integer(b)) => a == b || (a.abs_diff(*b) <= slack as u64 && *a > 1000),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(theirs, ours)| alike(theirs, ours, slack))
        }
        _ => theirs == ours,
    }
}

fn set(value: Value) -> BTreeSet<Bytes> {
    let (Value::Array(values) | Value::Set(values)) = value else { panic!("a list, not {value:?}") };
    let text = |value| match value {
        Value::Bulk(text) => text,
        other => panic!("a text, not {other:?}"),
    };
    values.into_iter().map(text).collect()
}

/// COMMAND INFO's reply without `notes` of key specs and without subcommands.
fn without_remarks(value: Value) -> Value {
    let Value::Array(mut entries) = value else { return value };
    if let Some(Value::Array(fields)) = entries.first_mut() {
        fields.truncate(9);
        if let Some(Value::Set(specs) | Value::Array(specs)) = fields.last_mut() {
            for spec in specs {
                match spec {
                    Value::Map(pairs) => pairs.retain(|(name, _)| *name != Value::bulk("notes")),
                    Value::Array(flat) if flat.first() == Some(&Value::bulk("notes")) => {
                        drop(flat.drain(..2))
                    }
                    _ => {}
                }
            }
        }
    }
    Value::Array(entries)
}

/// Numbers that look random; the sequence is that of its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

fn words(line: &str) -> Line {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn key(random: &mut Random) -> Bytes {
    match random.below(40) {
        0 => Bytes::new(),
        1 => Bytes::from(format!("long{}", "y".repeat(300))),
        number => Bytes::from(format!("k{}", number % 8)),
    }
}

fn value(random: &mut Random) -> Bytes {
    let number = random.below(30) as i64 - 15;
    match random.below(12) {
        0 => Bytes::new(),
        1..4 => Bytes::from(number.to_string()),
        4 => Bytes::from(random.pick(&[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "007",
            "+1",
            "-0",
            " 1",
            "1 ",
            "99999999999999999999",
            "1e3",
            "-1.5",
            "10.50",
            ".5",
            "3.",
            "inf",
            "-inf",
            "nan",
            "1.0e2",
        ])),
        5 => Bytes::from("x".repeat(40 + random.below(8) as usize)),
        6 => Bytes::from("long".repeat(random.below(600) as usize)),
        7 => Bytes::from_static(b"\0\xff\r\n\"quoted\""),
        8 => Bytes::from((0..random.below(30)).map(|_| random.pick(&["a", "b", "c"])).collect::<String>()),
        _ => Bytes::from(format!("value{number}")),
    }
}

fn time(random: &mut Random) -> &'static str {
    random.pick(&[
        "1000000",
        "5000000",
        "0",
        "-1",
        "-1000",
        "x",
        "",
        "1.5",
        "4102444800",
        "4102444800000",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775",
        "9223372036854776",
        "-9223372036854775",
        "9223370000000000000",
    ])
}

fn number(random: &mut Random) -> &'static str {
    random.pick(&[
        "0",
        "1",
        "-1",
        "2",
        "5",
        "-3",
        "20",
        "100",
        "x",
        "-100",
        "9223372036854775807",
        "-9223372036854775808",
        "01",
    ])
}

fn fraction(random: &mut Random) -> &'static str {
    random.pick(&[
        "0.5", "-0.25", "1", "-3", "1.5e2", "1e3", "x", "", "inf", "-inf", "nan", "5.0", "+.5", "1e", " 1",
        "1 ", "1e5000",
    ])
}

/// A command with all that it takes, sometimes with a piece too many or too few.
fn line(random: &mut Random) -> Line {
    let mut line = whole_line(random);
    match random.below(60) {
        0 => drop(line.pop()),
        1 => line.push(value(random)),
        2 => line.truncate(1),
        3 => line.insert(0, Bytes::from("NOSUCH")),
        _ => {}
    }
    if line.is_empty() {
        line.push(Bytes::from("NOSUCH"));
    }
    line
}

fn whole_line(random: &mut Random) -> Line {
    let verbs = [
        "GET",
        "SET",
        "SET",
        "SET",
        "DEL",
        "UNLINK",
        "EXISTS",
        "TYPE",
        "EXPIRE",
        "PEXPIRE",
        "EXPIREAT",
        "PEXPIREAT",
        "TTL",
        "PTTL",
        "EXPIRETIME",
        "PEXPIRETIME",
        "PERSIST",
        "INCR",
        "DECR",
        "INCRBY",
        "DECRBY",
        "INCRBYFLOAT",
        "MGET",
        "MSET",
        "MSETNX",
        "SETNX",
        "SETEX",
        "PSETEX",
        "GETSET",
        "GETDEL",
        "GETEX",
        "APPEND",
        "STRLEN",
        "GETRANGE",
        "SUBSTR",
        "SETRANGE",
        "LCS",
        "RENAME",
        "RENAMENX",
        "COPY",
        "TOUCH",
        "OBJECT",
    ];
    let verb = random.pick(&verbs);
    let mut line =
        vec![Bytes::from(if random.below(8) == 0 { verb.to_lowercase() } else { verb.to_string() })];
    let mut add = |word: Bytes| line.push(word);
    match verb {
        "SET" => {
            add(key(random));
            add(value(random));
            let options =
                ["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "nx", "Ex", "PERSIST", "FOO"];
            for _ in 0..random.below(4) {
                let option = random.pick(&options);
                add(Bytes::from(option));
                if option.len() > 1
                    && (option.ends_with(['X', 'x', 'T'])
                        && !matches!(option, "NX" | "nx" | "XX" | "GET" | "PERSIST"))
                {
                    add(Bytes::from(time(random)));
                }
            }
        }
        "GETEX" => {
            add(key(random));
            for _ in 0..random.below(3) {
                let option = random.pick(&["EX", "PX", "EXAT", "PXAT", "PERSIST", "KEEPTTL", "NX"]);
                add(Bytes::from(option));
                if matches!(option, "EX" | "PX" | "EXAT" | "PXAT") {
                    add(Bytes::from(time(random)));
                }
            }
        }
        "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
            add(key(random));
            add(Bytes::from(time(random)));
            for _ in 0..random.below(3) {
                add(Bytes::from(random.pick(&["NX", "XX", "GT", "LT", "gt", "FOO", "a\r\nb"])));
            }
        }
        "INCRBY" | "DECRBY" => {
            add(key(random));
            add(Bytes::from(number(random)));
        }
        "INCRBYFLOAT" => {
            add(key(random));
            add(Bytes::from(fraction(random)));
        }
        "MGET" | "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => {
            (0..=random.below(3)).for_each(|_| add(key(random)))
        }
        "MSET" | "MSETNX" => {
            for _ in 0..=random.below(3) {
                add(key(random));
                add(value(random));
            }
        }
        "SETNX" | "GETSET" | "APPEND" => {
            add(key(random));
            add(value(random));
        }
        "SETEX" | "PSETEX" => {
            add(key(random));
            add(Bytes::from(time(random)));
            add(value(random));
        }
        "GETRANGE" | "SUBSTR" => {
            add(key(random));
            add(Bytes::from(number(random)));
            add(Bytes::from(number(random)));
        }
        "SETRANGE" => {
            add(key(random));
            add(Bytes::from(if random.below(10) == 0 {
                random.pick(&["67108864", "70000"])
            } else {
                number(random)
            }));
            add(value(random));
        }
        "LCS" => {
            add(key(random));
            add(key(random));
            for _ in 0..random.below(4) {
                let option = random.pick(&["LEN", "IDX", "IDX", "MINMATCHLEN", "WITHMATCHLEN", "FOO"]);
                add(Bytes::from(option));
                if option == "MINMATCHLEN" {
                    add(Bytes::from(number(random)));
                }
            }
        }
        "RENAME" | "RENAMENX" => {
            add(key(random));
            add(key(random));
        }
        "COPY" => {
            add(key(random));
            add(key(random));
            for _ in 0..random.below(3) {
                let option = random.pick(&["REPLACE", "DB", "replace", "FOO"]);
                add(Bytes::from(option));
                if option == "DB" {
                    add(Bytes::from(random.pick(&["0", "0", "1", "x", "-1", "9999999999"])));
                }
            }
        }
        "OBJECT" => {
            add(Bytes::from(random.pick(&["ENCODING", "ENCODING", "encoding", "FOO"])));
            add(key(random));
        }
        _ => add(key(random)),
    }
    line
}
