//! Clients that write down what they asked, when, and what they were told.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tholos_check::{Kind, Operation, Outcome, Reply};
use tholos_resp::{Value, ValueDecoder, ValueLimits, encode_command};

use super::nemesis::Random;
use super::process::Target;

/// Longer than the servers' own limit, so that it is they who give up first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);
/// Pause of a client that cannot connect.
const PAUSE: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Keys that hold values, and as many that count.
    pub(crate) keys: u64,
    /// Pause of a client between two operations.
    pub(crate) think: Duration,
}

impl Default for Mix {
    fn default() -> Self {
        Self { keys: 16, think: Duration::from_millis(1) }
    }
}

/// What all clients of a run share.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Operation>>>,
    /// Operations that succeeded.
    pub(crate) served: Arc<AtomicU64>,
}

struct Shared {
    begin: Instant,
    stop: AtomicBool,
    /// For each key, when it was last written; in nanoseconds of the run.
    written: Vec<AtomicU64>,
}

impl Load {
    /// Starts the clients. Half of them use the gateways, half the cluster ports if there are any; each uses one address
    /// until that fails, then any.
    pub(crate) fn start(targets: Vec<Target>, clients: usize, mix: Mix, seed: u64) -> Self {
        let written = (0..mix.keys * 2).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { begin: Instant::now(), stop: AtomicBool::new(false), written });
        let served = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|number| {
                // A paused node holds up every client of the cluster ports that it is MOVED to. Those of the gateways
                // show how the others go on.
                let redirects = number % 2 == 1 && targets.iter().any(|target| target.redirects);
                let targets: Vec<Target> =
                    targets.iter().filter(|t| t.redirects == redirects).cloned().collect();
                let mut client = Client {
                    number: number as u64,
                    target: number / 2 % targets.len(),
                    targets,
                    connection: None,
                    random: Random::new(seed * 1000 + number as u64),
                    mix,
                    sequence: 0,
                    shared: shared.clone(),
                    served: served.clone(),
                    history: Vec::new(),
                };
                std::thread::spawn(move || {
                    client.run();
                    client.history
                })
            })
            .collect();
        Self { shared, clients, served }
    }

    /// Nanoseconds of the run.
    pub(crate) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Waits until every key was written anew; returns when the last of them was.
    pub(crate) fn wait_until_served(&self, at_most: Duration, dir: &Path) -> u64 {
        let from = self.now();
        let deadline = Instant::now() + at_most;
        loop {
            let times = || self.shared.written.iter().map(|time| time.load(Ordering::Relaxed));
            if times().all(|time| time > from) {
                return times().max().unwrap_or(from);
            }
            let waiting = times().filter(|&time| time <= from).count();
            assert!(
                Instant::now() < deadline,
                "{waiting} keys took no write for {at_most:?} though enough nodes run, see {}",
                dir.display()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the clients, and returns all they did.
    pub(crate) fn stop(self) -> Vec<Operation> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }
}

struct Client {
    number: u64,
    target: usize,
    targets: Vec<Target>,
    connection: Option<Connection>,
    random: Random,
    mix: Mix,
    sequence: u64,
    shared: Arc<Shared>,
    served: Arc<AtomicU64>,
    history: Vec<Operation>,
}

impl Client {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (key, kind) = self.pick();
            if self.connect() {
                self.operate(key, kind);
                std::thread::sleep(self.mix.think);
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn pick(&mut self) -> (u64, Kind) {
        self.sequence += 1;
        // No two writes write the same: a read tells which one it saw.
        let value = format!("c{}.{}", self.number, self.sequence).into_bytes();
        let key = self.random.below(self.mix.keys * 2);
        let counts = key >= self.mix.keys;
        let kind = match (self.random.below(10), counts) {
            (0..4, false) => Kind::Set(value),
            (4, false) => Kind::GetSet(value),
            (5, false) => Kind::Del,
            (6, false) => Kind::SetNx(value),
            (0..5, true) => Kind::IncrBy(1),
            _ => Kind::Get,
        };
        (key, kind)
    }

    fn connect(&mut self) -> bool {
        if self.connection.is_none() {
            // At random: in turn, all clients would gather at one node and be stuck with it together.
            self.target = self.random.below(self.targets.len() as u64) as usize;
            self.connection = Connection::open(&self.targets[self.target].address);
        }
        self.connection.is_some()
    }

    fn operate(&mut self, number: u64, kind: Kind) {
        let key = format!("key:{number}").into_bytes();
        let mut operation = Operation {
            client: self.number,
            key,
            kind,
            invoked: self.shared.now(),
            returned: None,
            outcome: Outcome::Unknown,
        };
        let connection = self.connection.as_mut().expect("connected before");
        let mut answer = connection.ask(&operation);
        // What MOVED answers was not done there, so it is still the same operation.
        for _ in 0..8 {
            match moved_to(&answer) {
                Some(address) if self.targets[self.target].redirects => {
                    let Some(mut detour) = Connection::open(&address) else {
                        answer = Answer::Refused("MOVED to a node that is down".to_owned());
                        break;
                    };
                    answer = detour.ask(&operation);
                    self.connection = Some(detour);
                }
                _ => break,
            }
        }
        operation.outcome = match answer {
            Answer::Reply(reply) => Outcome::Ok(reply),
            Answer::Refused(_) => Outcome::Failed,
            Answer::Unclear => Outcome::Unknown,
        };
        match operation.outcome {
            Outcome::Unknown => self.connection = None,
            _ => operation.returned = Some(self.shared.now()),
        }
        if let (Outcome::Ok(_), Some(returned)) = (&operation.outcome, operation.returned) {
            self.served.fetch_add(1, Ordering::Relaxed);
            if operation.kind != Kind::Get {
                self.shared.written[number as usize].fetch_max(returned, Ordering::Relaxed);
            }
        }
        self.history.push(operation);
    }
}

/// What a request came to.
enum Answer {
    Reply(Reply),
    /// An error that says that nothing was done.
    Refused(String),
    /// No reply, or an error that leaves it open.
    Unclear,
}

fn moved_to(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Refused(line) => line.strip_prefix("MOVED ")?.split(' ').nth(1).map(str::to_owned),
        _ => None,
    }
}

struct Connection {
    stream: TcpStream,
    input: BytesMut,
    decoder: ValueDecoder,
}

impl Connection {
    fn open(address: &str) -> Option<Self> {
        let address = address.parse().expect("an address of ours, or one that MOVED gives");
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).ok()?;
        Some(Self { stream, input: BytesMut::new(), decoder: ValueDecoder::new(ValueLimits::default()) })
    }

    fn ask(&mut self, operation: &Operation) -> Answer {
        let mut request = Vec::new();
        let key = &operation.key[..];
        match &operation.kind {
            Kind::Get => encode_command(&[b"GET", key], &mut request),
            Kind::Set(value) => encode_command(&[b"SET", key, value], &mut request),
            Kind::SetNx(value) => encode_command(&[b"SET", key, value, b"NX"], &mut request),
            Kind::Del => encode_command(&[b"DEL", key], &mut request),
            Kind::IncrBy(delta) => {
                encode_command(&[b"INCRBY", key, delta.to_string().as_bytes()], &mut request)
            }
            Kind::Append(suffix) => encode_command(&[b"APPEND", key, suffix], &mut request),
            Kind::GetDel => encode_command(&[b"GETDEL", key], &mut request),
            Kind::GetSet(value) => encode_command(&[b"SET", key, value, b"GET"], &mut request),
        }
        if self.stream.write_all(&request).is_err() {
            return Answer::Unclear;
        }
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(value)) => return understand(value),
                Ok(None) => {}
                Err(error) => panic!("the server sent no RESP: {error}"),
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(read) if read > 0 => self.input.extend_from_slice(&buffer[..read]),
                _ => return Answer::Unclear,
            }
        }
    }
}

fn understand(value: Value) -> Answer {
    let line = match value {
        Value::Simple(text) if text == "OK" => return Answer::Reply(Reply::Ok),
        Value::Integer(number) => return Answer::Reply(Reply::Integer(number)),
        Value::Bulk(bytes) => return Answer::Reply(Reply::Value(bytes.to_vec())),
        Value::Null => return Answer::Reply(Reply::Nil),
        Value::Error(line) => String::from_utf8_lossy(&line).into_owned(),
        other => panic!("a reply that none of these commands has: {other:?}"),
    };
    let code = line.split(' ').next().unwrap_or_default();
    match code {
        "MOVED" | "CLUSTERDOWN" | "LOADING" | "OOM" | "TRYAGAIN" => Answer::Refused(line),
        "ERR" if line.contains("not an integer") => Answer::Reply(Reply::Refused),
        "INDOUBT" => Answer::Unclear,
        _ => panic!("an error that these commands should never meet: {line}"),
    }
}
