//! The clients of the load: each picks commands, sends them, waits, writes down what it saw.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tholos_load::Random;
use tholos_resp::encode_command;
use tokio::time::sleep;

use super::connection::{Connection, OpenFailure, Seen};
use super::mix::{Command, Mix};
use super::pace::{Metronome, Pace};
use super::report::Recorder;
use super::route::{self, Routes};

/// Redirections and reconnections of one command, at most; then it counts as an error.
const REDIRECTIONS_MAX: u32 = 16;
/// Pause after something went wrong, so that a dead server is not asked a million times.
const PAUSE: Duration = Duration::from_millis(5);
/// Different values of a run.
const VALUES: usize = 16;
/// Pipeline of a fill, at least.
const FILL_PIPELINE: usize = 32;

/// What all clients do alike.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) mix: Mix,
    pub(super) keys: u64,
    pub(super) pipeline: usize,
    pub(super) value_bytes: usize,
    pub(super) seed: u64,
    pub(super) password: Option<String>,
    /// Of an open loop: who says when.
    pub(super) metronome: Option<Arc<Metronome>>,
}

/// When a run ends.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// After this time, the warm-up not counted.
    Until(Duration),
    /// After this many commands, the warm-up not counted.
    Requests(u64),
    /// When every key was written once.
    Fill { keys: u64 },
}

/// What the clients of one run share.
pub(super) struct Shared {
    routes: Arc<Routes>,
    pub(super) work: Work,
    pub(super) warmup: Duration,
    pub(super) begin: OnceLock<Instant>,
    /// Commands handed out, of those that are counted.
    claimed: AtomicU64,
    /// Commands answered, for the progress line.
    pub(super) progress: AtomicU64,
    /// When the last counted reply came, in nanoseconds since measuring began.
    last_reply_ns: AtomicU64,
    /// When somebody wanted no more of it.
    stopped: OnceLock<Instant>,
}

impl Shared {
    pub(super) fn new(routes: Arc<Routes>, work: Work, warmup: Duration) -> Self {
        let (claimed, progress, last_reply_ns) = Default::default();
        let (begin, stopped) = (OnceLock::new(), OnceLock::new());
        Self { routes, work, warmup, begin, claimed, progress, last_reply_ns, stopped }
    }

    /// Ends the run now, with what was measured; false if that was said before.
    pub(super) fn stop(&self) -> bool {
        self.stopped.set(Instant::now()).is_ok()
    }

    /// Whether somebody wanted no more of it.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// When measuring begins.
    fn measured_from(&self) -> Instant {
        *self.begin.get().expect("set before the clients start") + self.warmup
    }

    /// The measured time up to `now`.
    pub(super) fn measured(&self, now: Instant) -> Duration {
        let until = self.end().map_or(now, |end| now.min(end));
        until.saturating_duration_since(self.measured_from())
    }

    /// When the run ends, if not with its last command.
    fn end(&self) -> Option<Instant> {
        let due = match self.work {
            Work::Until(time) => Some(self.measured_from() + time),
            _ => None,
        };
        due.into_iter().chain(self.stopped.get().copied()).min()
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| now >= end)
    }

    /// The measured time up to the last reply.
    pub(super) fn last_reply(&self) -> Option<Duration> {
        match self.last_reply_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Takes up to `count` commands, and the number of the first; 0 if there are no more.
    fn claim(&self, count: usize, now: Instant) -> (u64, usize) {
        let total = match self.work {
            _ if self.is_over(now) => return (0, 0),
            Work::Until(_) => return (0, count),
            Work::Requests(_) if now < self.measured_from() => return (0, count),
            Work::Requests(total) | Work::Fill { keys: total } => total,
        };
        let first = self.claimed.fetch_add(count as u64, Ordering::Relaxed);
        (first, total.saturating_sub(first).min(count as u64) as usize)
    }
}

/// Runs some clients in this thread: connects them, says so, waits for the start, and returns what they saw.
pub(super) fn run(
    clients: &[u32],
    plan: &Plan,
    shared: &Arc<Shared>,
    connected: &Sender<Result<(), String>>,
    start: &Receiver<()>,
) -> Recorder {
    let recorder = Rc::new(RefCell::new(Recorder::new()));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _gone = connected.send(Err(error.to_string()));
            return Recorder::new();
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let values = Rc::new(make_values(plan));
    let opened = runtime.block_on(async {
        let mut opened = Vec::new();
        for &number in clients {
            let random = Random::new(plan.seed, u64::from(number));
            let mut client =
                Client::new(number, random, plan.clone(), shared.clone(), values.clone(), recorder.clone());
            client.connect_all().await?;
            opened.push(client);
        }
        Ok(opened)
    });
    let opened: Vec<Client> = match opened {
        Ok(opened) => opened,
        Err(why) => {
            let _gone = connected.send(Err(why));
            return Recorder::new();
        }
    };
    if connected.send(Ok(())).is_err() || start.recv().is_err() {
        return Recorder::new();
    }
    tasks.block_on(&runtime, async {
        let running: Vec<_> =
            opened.into_iter().map(|client| tokio::task::spawn_local(client.run())).collect();
        for client in running {
            client.await.expect("a client does not panic");
        }
    });
    recorder.take()
}

/// The values of a run: random, so that nothing compresses them, and few, so that making them costs nothing.
fn make_values(plan: &Plan) -> Vec<Vec<u8>> {
    let mut random = Random::new(plan.seed, u64::MAX);
    let count = if plan.value_bytes > 1 << 20 { 1 } else { VALUES };
    (0..count)
        .map(|_| {
            let words = plan.value_bytes.div_ceil(8);
            let mut value: Vec<u8> = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
            value.truncate(plan.value_bytes);
            value
        })
        .collect()
}

/// A command on its way.
struct Pending {
    command: Command,
    key: [u8; 16],
    value: usize,
}

struct Client {
    number: u32,
    random: Random,
    plan: Plan,
    shared: Arc<Shared>,
    values: Rc<Vec<Vec<u8>>>,
    recorder: Rc<RefCell<Recorder>>,
    /// By number of the server.
    connections: Vec<Option<Connection>>,
    /// Commands sent and not answered, by number of the server.
    pending: Vec<VecDeque<Pending>>,
    /// Connections to where ASK sent it, by address.
    detours: HashMap<String, Connection>,
}

impl Client {
    fn new(
        number: u32,
        random: Random,
        plan: Plan,
        shared: Arc<Shared>,
        values: Rc<Vec<Vec<u8>>>,
        recorder: Rc<RefCell<Recorder>>,
    ) -> Self {
        let (connections, pending, detours) = Default::default();
        Self { number, random, plan, shared, values, recorder, connections, pending, detours }
    }

    async fn connect_all(&mut self) -> Result<(), String> {
        let routes = self.shared.routes.clone();
        for server in 0..routes.count() {
            if routes.is_cluster() || server == self.number as usize % routes.count() {
                self.connection(server).await?;
            }
        }
        Ok(())
    }

    async fn open(&self, address: &str) -> Result<Connection, String> {
        Connection::open(address, self.plan.password.as_deref()).await.map_err(OpenFailure::why)
    }

    /// The connection to a server, opened if need be.
    async fn connection(&mut self, server: usize) -> Result<&mut Connection, String> {
        if self.connections.len() <= server {
            self.connections.resize_with(server + 1, || None);
            self.pending.resize_with(server + 1, VecDeque::new);
        }
        if self.connections[server].is_none() {
            let address = self.shared.routes.address(server);
            let opened = self.open(&address).await?;
            self.connections[server] = Some(opened);
        }
        Ok(self.connections[server].as_mut().expect("opened above"))
    }

    async fn run(mut self) {
        let is_fill = matches!(self.shared.work, Work::Fill { .. });
        let pipeline = if is_fill { self.plan.pipeline.max(FILL_PIPELINE) } else { self.plan.pipeline };
        let measured_from = self.shared.measured_from();
        let mut pace = self.pace();
        loop {
            if let (Some(pace), Some(end)) = (&pace, self.shared.end())
                && pace.due() >= end
            {
                return;
            }
            let begin = match &mut pace {
                None => Instant::now(),
                Some(pace) => pace.turn().await,
            };
            // A turn may have been due before the end and come after it.
            let (first, count) = self.shared.claim(pipeline, Instant::now());
            if count == 0 {
                if let (Some(pace), Some(end)) = (pace, self.shared.end()) {
                    let owed = pace.owed(end) + u64::from(begin < end);
                    self.recorder.borrow_mut().unsent += owed * pipeline as u64;
                }
                return;
            }
            for number in 0..count as u64 {
                let pending = self.pick(is_fill.then_some(first + number));
                self.send(pending, begin >= measured_from).await;
            }
            // All is sent before any reply is awaited: the servers work at the same time.
            for server in 0..self.connections.len() {
                self.flush(server, begin >= measured_from).await;
            }
            for server in 0..self.connections.len() {
                self.collect(server, begin, measured_from).await;
            }
        }
    }

    /// The turns of this client, if the loop is an open one.
    fn pace(&self) -> Option<Pace> {
        let start = *self.shared.begin.get().expect("set before the clients start");
        Some(Pace::new(self.plan.metronome.clone()?, self.number, start))
    }

    fn pick(&mut self, fill: Option<u64>) -> Pending {
        let command = if fill.is_some() { Command::Set } else { self.plan.mix.pick(self.random.next()) };
        let number = fill.unwrap_or_else(|| self.random.next() % self.plan.keys);
        // Counters and appended strings have keys of their own, or a SET between would spoil them.
        let prefix = match command {
            Command::Incr => b"cnt:",
            Command::Append => b"app:",
            _ => b"key:",
        };
        let mut key = *b"....000000000000";
        key[..4].copy_from_slice(prefix);
        let mut rest = number;
        for digit in key[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Pending { command, key, value: (self.random.next() % self.values.len() as u64) as usize }
    }

    /// Puts a command into the output of its server.
    async fn send(&mut self, pending: Pending, counted: bool) {
        let server = self.shared.routes.server_for(self.number, &pending.key);
        let values = self.values.clone();
        match self.connection(server).await {
            Ok(connection) => {
                encode(&pending, &values, &mut connection.output);
                self.pending[server].push_back(pending);
            }
            Err(why) => {
                self.failed(&why, 1, counted);
                self.look_around().await;
            }
        }
    }

    async fn flush(&mut self, server: usize, counted: bool) {
        let Some(connection) = self.connections[server].as_mut() else { return };
        if connection.output.is_empty() {
            return;
        }
        if let Err(why) = connection.flush().await {
            self.broken(server, &why, counted).await;
        }
    }

    /// Takes all replies of one server.
    async fn collect(&mut self, server: usize, begin: Instant, measured_from: Instant) {
        while !self.pending[server].is_empty() {
            let connection =
                self.connections[server].as_mut().expect("what is pending was sent on a connection");
            match connection.next().await {
                Ok(seen) => {
                    let pending = self.pending[server].pop_front().expect("checked above");
                    self.answered(pending, seen, server, begin, measured_from).await;
                }
                Err(why) => self.broken(server, &why, begin >= measured_from).await,
            }
        }
    }

    /// Gives up a connection and what waits for a reply on it.
    async fn broken(&mut self, server: usize, why: &str, counted: bool) {
        let lost = self.pending[server].len() as u64;
        self.pending[server].clear();
        self.connections[server] = None;
        self.failed(why, lost, counted);
        self.look_around().await;
    }

    async fn answered(
        &mut self,
        pending: Pending,
        seen: Seen,
        server: usize,
        begin: Instant,
        measured_from: Instant,
    ) {
        let seen = match seen {
            Seen::Error(line) if line.starts_with("MOVED ") && self.shared.routes.is_cluster() => {
                self.follow(&pending, line, server).await
            }
            Seen::Error(line) if line.starts_with("ASK ") && self.shared.routes.is_cluster() => {
                self.go_where_asked(&pending, &line).await
            }
            seen => Ok(seen),
        };
        let now = Instant::now();
        let counted = begin >= measured_from && !self.shared.is_over(now);
        match seen {
            Ok(Seen::Error(line)) => {
                let code = line.split(' ').next().unwrap_or_default().to_owned();
                self.failed(&code, 1, counted);
                sleep(PAUSE).await;
            }
            Ok(seen) => {
                self.shared.progress.fetch_add(1, Ordering::Relaxed);
                if counted {
                    let since = now.duration_since(measured_from);
                    self.shared.last_reply_ns.fetch_max(since.as_nanos() as u64, Ordering::Relaxed);
                    self.recorder.borrow_mut().answered(now.duration_since(begin), seen == Seen::Missing);
                }
            }
            Err(why) => self.failed(&why, 1, counted),
        }
    }

    /// Asks once where ASK points: Redis Cluster is moving the slot there. Tholos never says so.
    async fn go_where_asked(&mut self, pending: &Pending, line: &str) -> Result<Seen, String> {
        self.recorder.borrow_mut().redirections += 1;
        let address = line.split(' ').nth(2).unwrap_or_default();
        let mut detour = match self.detours.remove(address) {
            Some(detour) => detour,
            None => self.open(address).await?,
        };
        encode_command(&[b"ASKING"], &mut detour.output);
        encode(pending, &self.values, &mut detour.output);
        detour.flush().await?;
        detour.next().await?;
        let seen = detour.next().await?;
        self.detours.insert(address.to_owned(), detour);
        Ok(seen)
    }

    /// Goes where MOVED points until somebody answers.
    async fn follow(&mut self, pending: &Pending, line: String, server: usize) -> Result<Seen, String> {
        let (mut line, mut server) = (line, server);
        for hop in 0..REDIRECTIONS_MAX {
            self.recorder.borrow_mut().redirections += 1;
            if !self.shared.routes.moved(&line, server) {
                return Ok(Seen::Error(line));
            }
            server = self.shared.routes.server_for(self.number, &pending.key);
            if hop > 0 {
                sleep(PAUSE).await;
            }
            let values = self.values.clone();
            // A connection whose replies are still awaited cannot be asked between; this one is only for the detour.
            let address = self.shared.routes.address(server);
            let mut detour = self.open(&address).await?;
            encode(pending, &values, &mut detour.output);
            detour.flush().await?;
            match detour.next().await? {
                Seen::Error(next) if next.starts_with("MOVED ") => line = next,
                seen => return Ok(seen),
            }
        }
        Err("MOVED in circles".to_owned())
    }

    /// After a failure: waits a little, and asks whoever answers who leads now.
    async fn look_around(&mut self) {
        sleep(PAUSE).await;
        if !self.shared.routes.is_cluster() {
            return;
        }
        for server in 0..self.shared.routes.count() {
            let address = self.shared.routes.address(server);
            let Ok(mut connection) = self.open(&address).await else { continue };
            if let Ok(fresh) = route::ask(&mut connection, &address).await {
                self.shared.routes.update(&fresh);
                return;
            }
        }
    }

    fn failed(&self, why: &str, count: u64, counted: bool) {
        if counted {
            self.recorder.borrow_mut().failed(why, count);
        }
    }
}

fn encode(pending: &Pending, values: &[Vec<u8>], output: &mut Vec<u8>) {
    let key = &pending.key[..];
    match pending.command {
        Command::Get => encode_command(&[b"GET", key], output),
        Command::Set => encode_command(&[b"SET", key, &values[pending.value]], output),
        Command::Incr => encode_command(&[b"INCR", key], output),
        Command::Append => encode_command(&[b"APPEND", key, &values[pending.value]], output),
        Command::Del => encode_command(&[b"DEL", key], output),
        Command::Exists => encode_command(&[b"EXISTS", key], output),
        Command::Ping => encode_command(&[b"PING"], output),
    }
}
