//! The Rust `redis` crate against one server. One line a check on stdout.
//!
//! `compat-rust suite|failover --mode gateway|cluster --port P --proto 2|3 --table FILE --name PREFIX`

use std::collections::{BTreeSet, HashMap};
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClientBuilder, ClusterConnection};
use redis::{Client, Cmd, Connection, ConnectionLike, ProtocolVersion, RedisError, TypedCommands, Value};

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Arguments {
    what: String,
    options: HashMap<String, String>,
}

impl Arguments {
    fn read() -> Arguments {
        let mut words = std::env::args().skip(1);
        let what = words.next().expect("suite or failover");
        let mut options = HashMap::new();
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            options.insert(key.trim_start_matches("--").to_string(), value);
        }
        Arguments { what, options }
    }

    fn get(&self, key: &str) -> &str {
        self.options.get(key).unwrap_or_else(|| panic!("--{key} is missing"))
    }

    fn url(&self) -> String {
        let host = self.options.get("host").map_or("127.0.0.1", String::as_str);
        format!("redis://{host}:{}/?protocol=resp{}", self.get("port"), self.get("proto"))
    }

    fn key(&self, suffix: &str) -> String {
        format!("{{{}}}:{suffix}", self.get("name"))
    }

    fn single(&self) -> Result<Connection, RedisError> {
        Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))
    }

    fn cluster(&self) -> Result<ClusterConnection, RedisError> {
        let protocol = if self.get("proto") == "3" { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        ClusterClientBuilder::new([self.url()])
            .use_protocol(protocol)
            .connection_timeout(Duration::from_secs(1))
            .response_timeout(Duration::from_secs(8))
            .build()?
            .get_connection()
    }
}

fn main() {
    let arguments = Arguments::read();
    let gateway = arguments.get("mode") == "gateway";
    let result = match (arguments.what.as_str(), gateway) {
        ("suite", true) => arguments.single().map(|mut connection| {
            suite(&arguments, &mut connection);
            gateway_only(&arguments, &mut connection);
        }),
        ("suite", false) => arguments.cluster().map(|mut connection| suite(&arguments, &mut connection)),
        ("failover", true) => failover(&arguments, || arguments.single()),
        ("failover", false) => failover(&arguments, || arguments.cluster()),
        (what, _) => panic!("{what}: suite or failover"),
    };
    if let Err(error) = result {
        println!("FAIL connect: {error}");
    }
}

fn check(name: &str, run: impl FnOnce() -> Outcome) {
    match run() {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAIL {name}: {}", error.to_string().replace('\n', " ")),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(actual: T, expected: T) -> Outcome {
    if actual == expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}").into()) }
}

fn suite<C: ConnectionLike + TypedCommands>(arguments: &Arguments, connection: &mut C) {
    let gateway = arguments.get("mode") == "gateway";
    let text = std::fs::read_to_string(arguments.get("table")).expect("the table is there");
    let table: serde_json::Value = serde_json::from_str(&text).expect("the table is JSON");
    for (number, case) in table.as_array().expect("a list of cases").iter().enumerate() {
        if case[if gateway { "cluster" } else { "keyless" }] == true {
            continue;
        }
        let name = case["name"].as_str().expect("a case has a name");
        check(&format!("table: {name}"), || run_case(arguments, connection, number, case));
    }
    check("typed calls", || typed_calls(arguments, connection));
    check("a value of 1 MiB", || {
        let value: Vec<u8> = (0..1 << 20).map(|i| i as u8).collect();
        connection.set(arguments.key("large"), &value)?;
        let read: Vec<u8> = redis::cmd("GET").arg(arguments.key("large")).query(connection)?;
        equal(read == value, true)?;
        Ok(connection.del(arguments.key("large")).map(|_| ())?)
    });
}

fn run_case<C: ConnectionLike>(
    arguments: &Arguments,
    connection: &mut C,
    number: usize,
    case: &serde_json::Value,
) -> Outcome {
    let prefix = format!("{{{}:{number}}}:", arguments.get("name"));
    for step in case["steps"].as_array().expect("a case has steps") {
        let words: Vec<String> = step[0]
            .as_array()
            .expect("a step has arguments")
            .iter()
            .map(|word| {
                let word = word.as_str().expect("an argument is text");
                word.strip_prefix('$').map_or_else(|| word.to_string(), |name| format!("{prefix}{name}"))
            })
            .collect();
        let mut command = Cmd::new();
        for word in &words {
            command.arg(word);
        }
        let actual: Result<Value, RedisError> = command.query(connection);
        if !matches(&step[1], &actual) {
            return Err(format!("{words:?} gave {actual:?}, not {}", step[1]).into());
        }
    }
    Ok(())
}

fn matches(expected: &serde_json::Value, actual: &Result<Value, RedisError>) -> bool {
    use serde_json::Value as Json;
    let value = match (expected, actual) {
        (Json::Object(kind), Err(error)) => {
            // The crate splits `CODE text` and writes its own word for the code.
            let wanted = kind.get("error").and_then(Json::as_str).unwrap_or("\0");
            let (code, detail) = wanted.split_once(' ').unwrap_or((wanted, ""));
            return kind.contains_key("any")
                || error.code().unwrap_or("ERR") == code && error.detail().unwrap_or("").starts_with(detail);
        }
        (_, Err(_)) => return false,
        (_, Ok(value)) => value,
    };
    match (expected, value) {
        (Json::Null, Value::Nil) => true,
        (Json::String(text), Value::BulkString(bytes)) => text.as_bytes() == bytes,
        (Json::String(text), Value::SimpleString(status)) => text == status,
        (Json::String(text), Value::Okay) => text == "OK",
        (Json::Number(number), Value::Int(int)) => number.as_i64() == Some(*int),
        (Json::Array(items), Value::Array(values)) => {
            items.len() == values.len()
                && items.iter().zip(values).all(|(item, value)| matches(item, &Ok(value.clone())))
        }
        (Json::Object(kind), Value::Int(int)) if kind.contains_key("int") => {
            let bound = |i: usize| kind["int"][i].as_i64().expect("two bounds");
            (bound(0)..=bound(1)).contains(int)
        }
        (Json::Object(kind), _) => kind.contains_key("any"),
        _ => false,
    }
}

fn typed_calls<C: ConnectionLike + TypedCommands>(arguments: &Arguments, connection: &mut C) -> Outcome {
    let key = |suffix| arguments.key(suffix);
    connection.set_ex(key("s"), "v", 100)?;
    equal(connection.get(key("s"))?, Some("v".to_string()))?;
    equal(connection.set_nx(key("s"), "w")?, false)?;
    connection.mset(&[(key("m1"), "1"), (key("m2"), "2")])?;
    equal(connection.mget(&[key("m1"), key("m2")])?, vec![Some("1".to_string()), Some("2".to_string())])?;
    equal(connection.incr(key("n"), 42)?, 42)?;
    equal(connection.get_del(key("n"))?, Some("42".to_string()))?;
    equal(connection.exists(key("n"))?, false)?;
    equal(connection.del(&[key("s"), key("m1"), key("m2")])?, 3)
}

fn gateway_only(arguments: &Arguments, connection: &mut Connection) {
    let name = arguments.get("name");
    check("1000 commands in a pipeline, in order", || {
        let mut pipe = redis::pipe();
        for i in 0..1000 {
            pipe.set(format!("{name}:p{i}"), i).ignore().get(format!("{name}:p{i}"));
        }
        equal(pipe.query::<Vec<i64>>(connection)?, (0..1000).collect())
    });
    check("MULTI and WATCH", || {
        let key = arguments.key("t");
        let replies: (i64, i64) =
            redis::pipe().atomic().set(&key, 1).ignore().incr(&key, 41).get(&key).query(connection)?;
        equal(replies, (42, 42))?;
        let mut other = arguments.single()?;
        redis::cmd("WATCH").arg(&key).exec(connection)?;
        other.set(&key, "changed")?;
        let refused: Option<()> = redis::pipe().atomic().set(&key, "lost").ignore().query(connection)?;
        equal(refused.is_none(), true)?;
        equal(connection.get(&key)?, Some("changed".to_string()))
    });
    check("SCAN finds all keys", || {
        let names: BTreeSet<String> = (0..300).map(|i| format!("{name}:scan:{i}")).collect();
        for label in &names {
            connection.set(label, "x")?;
        }
        let found: Result<BTreeSet<String>, RedisError> =
            connection.scan_match::<_, String>(format!("{name}:scan:*"))?.collect();
        equal(found? == names, true)
    });
}

/// Writes until stdin says stop, each key once and again until acknowledged; then reads all of it back.
fn failover<C: ConnectionLike + TypedCommands>(
    arguments: &Arguments,
    connect: impl Fn() -> Result<C, RedisError>,
) -> Result<(), RedisError> {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let mut line = String::new();
        // An end of input is a stop as well.
        let _ = std::io::stdin().lock().read_line(&mut line);
        STOPPED.store(true, Ordering::SeqCst);
    });
    let mut connection = connect()?;
    let mut acknowledged: Vec<String> = Vec::new();
    let (mut errors, mut longest, mut last, mut deadline) = (0, Duration::ZERO, Instant::now(), None);
    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
        if STOPPED.load(Ordering::SeqCst) && deadline.is_none() {
            deadline = Some(Instant::now() + Duration::from_secs(1));
        }
        let key = format!("{}:f:{}", arguments.get("name"), acknowledged.len());
        if connection.set(&key, acknowledged.len()).is_err() {
            errors += 1;
            std::thread::sleep(Duration::from_millis(50));
            // This crate's plain connection does not reconnect by itself.
            if let Ok(fresh) = connect() {
                connection = fresh;
            }
            continue;
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        acknowledged.push(key);
        if acknowledged.len() == 10 {
            println!("ready");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    check("writes go on after a leader is killed", || {
        equal(acknowledged.len() >= 50 && last.elapsed() < Duration::from_secs(3), true)
    });
    check("nothing acknowledged is lost", || {
        for (number, key) in acknowledged.iter().enumerate() {
            equal(connection.get(key)?, Some(number.to_string()))?;
        }
        Ok(())
    });
    println!(
        "note {} writes, {errors} errors, longest gap {:.2} s",
        acknowledged.len(),
        longest.as_secs_f64()
    );
    Ok(())
}
