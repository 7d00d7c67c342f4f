//! `tholos check` against servers that keep their word and against one that does not.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use serde_json::Value as Json;
use tholos_resp::{CommandDecoder, Limits, Protocol, Value, encode};

/// A small server of the Redis protocol for the commands of the workload.
struct Store {
    values: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    writes: AtomicU64,
    /// Acknowledges every so many writes, and does nothing of it.
    forgets_one_in: Option<u64>,
}

impl Store {
    /// Serves until the test's process ends; its address.
    fn serve(forgets_one_in: Option<u64>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let store = Arc::new(Store { values: Mutex::default(), writes: AtomicU64::new(0), forgets_one_in });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let store = Arc::clone(&store);
                std::thread::spawn(move || store.talk(stream.unwrap()));
            }
        });
        address
    }

    fn talk(&self, mut stream: TcpStream) {
        let limits = Limits::default();
        let mut decoder = CommandDecoder::new(limits);
        let mut input = BytesMut::new();
        loop {
            while let Some(command) = decoder.decode(&mut input).unwrap() {
                let mut output = Vec::new();
                encode(&self.answer(&command), Protocol::Resp2, &mut output);
                if stream.write_all(&output).is_err() {
                    return;
                }
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => input.extend_from_slice(&buffer[..read]),
                _ => return,
            }
        }
    }

    fn answer(&self, command: &[bytes::Bytes]) -> Value {
        let mut values = self.values.lock().unwrap();
        let key = command[1].to_vec();
        let before = values.get(&key).cloned();
        let shown = |value: &Option<Vec<u8>>| value.clone().map_or(Value::Null, Value::bulk);
        let argument = || command[2].to_vec();
        let (reply, after) = match &command[0].to_ascii_uppercase()[..] {
            b"GET" => return shown(&before),
            b"EXISTS" => return Value::Integer(i64::from(before.is_some())),
            b"SET" => (Value::ok(), Some(argument())),
            b"SETNX" if before.is_some() => return Value::Integer(0),
            b"SETNX" => (Value::Integer(1), Some(argument())),
            b"DEL" => (Value::Integer(i64::from(before.is_some())), None),
            b"GETDEL" => (shown(&before), None),
            b"GETSET" => (shown(&before), Some(argument())),
            b"INCRBY" => {
                let number = before.map_or(0, |text| String::from_utf8(text).unwrap().parse().unwrap()) + 1;
                (Value::Integer(number), Some(number.to_string().into_bytes()))
            }
            b"APPEND" => {
                let whole = [before.unwrap_or_default(), argument()].concat();
                (Value::Integer(whole.len() as i64), Some(whole))
            }
            other => panic!("not a command of the workload: {}", other.escape_ascii()),
        };
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if self.forgets_one_in.is_none_or(|every| !number.is_multiple_of(every)) {
            match after {
                Some(value) => drop(values.insert(key, value)),
                None => drop(values.remove(&key)),
            }
        }
        reply
    }
}

fn tholos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tholos"));
    command.args(arguments).env_remove("THOLOS_REQUIREPASS").current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.output().expect("the binary can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_server_that_keeps_its_word_is_linearizable_and_its_history_can_be_judged_again() {
    let (first, second) = (Store::serve(None), Store::serve(None));
    let file = format!("{}/kept-{}.history", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let run = ["check", "--at", &first, "--operations", "3000", "--history", &file, "--json"];
    let output = tholos(&run);
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["verdict"]), (Some(0), &"linearizable".into()), "{found}");
    assert!(
        found["operations"].as_u64().unwrap() >= 3000 && found["acknowledged"].as_u64().unwrap() > 100,
        "{found}"
    );
    assert_eq!((&found["lost"], &found["unread"], &found["unknown"]), (&0.into(), &0.into(), &0.into()));

    let again = tholos(&["check", "--from", &file, "--json"]);
    let judged: Json = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((again.status.code(), &judged["operations"]), (Some(0), &found["operations"]));

    // Two stores that are asked as if they were one.
    let both = format!("{first},{second}");
    let output = tholos(&["check", "--at", &both, "--operations", "3000"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));

    // One reply changed in the file is found.
    let history = std::fs::read_to_string(&file).unwrap();
    let broken = history.replacen(" int:7\n", " int:9\n", 1);
    assert_ne!(history, broken);
    std::fs::write(&file, broken).unwrap();
    let output = tholos(&["check", "--from", &file]);
    let said = text(&output.stdout);
    assert!(output.status.code() == Some(1) && said.starts_with("not linearizable"), "{said}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_server_that_forgets_is_found_out_with_the_operations_in_order() {
    let address = Store::serve(Some(200));
    let output = tholos(&["check", "--at", &address, "--operations", "4000", "--json"]);
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["verdict"]), (Some(1), &"not linearizable".into()), "{found}");
    assert!(found["lost"].as_u64().unwrap() > 0, "{found}");
    let contradicting = found["violation"]["contradicting"].as_array().unwrap();
    let called: Vec<u64> = contradicting
        .iter()
        .map(|line| line.as_str().unwrap().split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(!called.is_empty() && called.is_sorted(), "{contradicting:?}");

    let said = text(&tholos(&["check", "--at", &address, "--operations", "4000"]).stdout);
    assert!(said.contains("These contradict each other"), "{said}");
}

#[test]
fn what_cannot_be_checked_is_told_by_its_exit_code() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let fails = |arguments: &[&str], exit: i32, word: &str| {
        let output = tholos(arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(exit) && said.contains(word), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    };
    fails(&["check", "--at", &nobody], 3, "--at");
    fails(&["check", "--mix", "fly=1"], 2, "get, set");
    fails(&["check", "--from", "/nonexistent/history"], 2, "cannot read");
    fails(&["check", "--from", file!(), "--at", &nobody], 2, "--from");
    let used = Store::serve(None);
    let keep = ["check", "--at", &used, "--operations", "2000", "--prefix", "p:", "--keep", "--keys", "1"];
    assert_eq!(tholos(&keep).status.code(), Some(0));
    // The register may have been deleted last; the check looks at all three keys.
    fails(&keep, 2, "p:");
}
