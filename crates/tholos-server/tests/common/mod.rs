//! What the tests of whole clusters share.
#![allow(
    clippy::unwrap_used,
    reason = "a test may fail anywhere; only functions marked as tests are exempt by themselves"
)]
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tholos_resp::{Value, ValueDecoder, ValueLimits};

/// How long anything may take; a test that waits longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A client that waits for each reply.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: ValueDecoder,
    buffer: bytes::BytesMut,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let decoder = ValueDecoder::new(ValueLimits::default());
        Client { stream, decoder, buffer: bytes::BytesMut::new() }
    }

    pub(crate) fn send(&mut self, arguments: &[&str]) {
        let mut bytes = Vec::new();
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        tholos_resp::encode_command(&arguments, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next reply; `None` when the connection is closed.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some(value) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(value);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, arguments: &[&str]) -> Value {
        self.send(arguments);
        self.receive().expect("the connection stays open")
    }
}

/// Status code and body.
pub(crate) fn http_request(address: &str, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Client {
    pub(crate) fn try_ping(&mut self) -> Option<Value> {
        // The server may have closed already.
        let _ = self.stream.write_all(b"PING\r\n");
        self.receive().filter(|value| *value == Value::simple("PONG"))
    }
}

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {DEADLINE:?}"))
}

/// Blocking clients run beside the runtime.
pub(crate) async fn beside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// A port that is free and will be until it is used: not of those that the kernel gives to outgoing connections, and of
/// those of one process never the same.
pub(crate) fn hold_port() -> std::net::TcpListener {
    use std::hash::{BuildHasher as _, Hasher as _};
    use std::sync::atomic::{AtomicU64, Ordering};
    static BASE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let base =
        *BASE.get_or_init(|| std::collections::hash_map::RandomState::new().build_hasher().finish() % 6_000);
    let port = || 20_000 + ((base + COUNT.fetch_add(1, Ordering::Relaxed)) % 6_000) as u16;
    std::iter::repeat_with(port)
        .find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok())
        .unwrap()
}

pub(crate) fn rand() -> u64 {
    getrandom::u64().unwrap()
}

/// Posts JSON to an admin interface; status code and body.
pub(crate) fn http_post(address: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The JSON that an admin interface answers.
pub(crate) fn get(http: &str, path: &str) -> serde_json::Value {
    let (code, body) = http_request(http, &format!("GET {path} HTTP/1.1\r\nHost: {http}\r\n"));
    assert_eq!(code, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Plans a change, applies it, and waits until its job is done.
pub(crate) fn plan_and_apply(http: &str, words: &str) {
    let began = std::time::Instant::now();
    // A node that has only just come back may still be catching up, which blocks; or tells where it is reached now, which
    // makes a new map.
    let job = loop {
        let plan = get(http, &format!("/v1/plan?request={}", words.replace(' ', "%20")));
        let id = plan["id"].as_str().unwrap();
        let (code, answer) = http_request(
            http,
            &format!("POST /v1/apply?id={id} HTTP/1.1\r\nHost: {http}\r\nContent-Length: 0\r\n"),
        );
        if code == 200 {
            let applied: serde_json::Value = serde_json::from_str(&answer).unwrap();
            break applied["job"].as_u64().unwrap();
        }
        assert!(code == 409 && began.elapsed() < DEADLINE, "{words}: {code} {answer}");
        std::thread::sleep(Duration::from_millis(50));
    };
    loop {
        let jobs = get(http, "/v1/jobs");
        let job = jobs["jobs"].as_array().unwrap().iter().find(|one| one["id"] == job).cloned();
        if job.is_some_and(|job| job["state"] == "done") {
            return;
        }
        assert!(began.elapsed() < 3 * DEADLINE, "{words}: {jobs}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
