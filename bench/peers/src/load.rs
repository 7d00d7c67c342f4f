//! The closed loop: each client sends an operation, waits for its answer, sends the next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::args::Args;
use crate::etcd::{CLIENTS_PER_CHANNEL, Etcd};
use crate::redis::Redis;
use crate::sample::{Random, cpu_us};

/// Latencies above this are written down as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Different values of a run.
const VALUES: usize = 16;
/// Pause after an error, so that a dead server is not asked a million times.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    RedisWait,
    EtcdPut,
    EtcdGet,
}

/// What all clients do alike.
#[derive(Clone)]
struct Plan {
    system: System,
    address: String,
    connections: usize,
    threads: usize,
    keys: u64,
    value_bytes: usize,
    seconds: Duration,
    warmup: Duration,
    /// Writes every key once instead of running for a time.
    fill: bool,
    replicas: u32,
    seed: u64,
}

impl Plan {
    fn from(args: &Args) -> Result<Self, String> {
        let system = match args.get("system", String::new())?.as_str() {
            "redis-wait" => System::RedisWait,
            "etcd-put" => System::EtcdPut,
            "etcd-get" => System::EtcdGet,
            other => return Err(format!("--system {other} is unknown")),
        };
        let seconds = |name, default| -> Result<Duration, String> {
            Duration::try_from_secs_f64(args.get(name, default)?).map_err(|error| error.to_string())
        };
        Ok(Self {
            system,
            address: args.get("at", String::new())?,
            connections: args.get("connections", 64_usize)?.max(1),
            threads: args.get("threads", 1_usize)?.max(1),
            keys: args.get("keys", 100_000)?,
            value_bytes: args.get("value-bytes", 256)?,
            seconds: seconds("seconds", 8.0)?,
            warmup: seconds("warmup", 1.0)?,
            fill: args.get("fill", false)?,
            replicas: args.get("replicas", 2)?,
            seed: args.get("seed", 1)?,
        })
    }
}

/// What the clients saw.
struct Recorder {
    latencies_us: Histogram<u64>,
    missing: u64,
    errors: BTreeMap<String, u64>,
}

impl Recorder {
    fn new() -> Self {
        let latencies_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are legal");
        Self { latencies_us, missing: 0, errors: BTreeMap::new() }
    }

    fn add(&mut self, other: &Recorder) {
        self.latencies_us.add(&other.latencies_us).expect("all histograms have the same bounds");
        self.missing += other.missing;
        for (why, count) in &other.errors {
            *self.errors.entry(why.clone()).or_default() += count;
        }
    }
}

/// Runs a load and returns what came of it, under the names that `tholos bench --json` uses.
pub(crate) fn run(args: &Args) -> Result<Value, String> {
    let plan = Plan::from(args)?;
    let pids = args.all("pid").map(|pid| pid.parse().map_err(|_| format!("--pid {pid}")));
    let pids: Vec<u32> = pids.collect::<Result<_, String>>()?;
    let connected = Arc::new(Barrier::new(plan.threads + 1));
    let next_fill = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let (plan, connected, next_fill) = (plan.clone(), connected.clone(), next_fill.clone());
            std::thread::spawn(move || drive(thread, &plan, &connected, &next_fill))
        })
        .collect();
    connected.wait();
    let begin = Instant::now();
    let mut cpu_measured = None;
    if !plan.fill {
        std::thread::sleep(plan.warmup);
        let before = cpu_us(&pids)?;
        std::thread::sleep(plan.seconds);
        cpu_measured = Some(cpu_us(&pids)? - before);
    }
    let mut all = Recorder::new();
    for thread in threads {
        all.add(&thread.join().map_err(|_| "a client thread failed".to_owned())??);
    }
    let elapsed = if plan.fill { begin.elapsed() } else { plan.seconds };
    let operations = all.latencies_us.len();
    let cpu_per_op = cpu_measured.filter(|_| operations > 0 && !pids.is_empty());
    Ok(json!({
        "ops_per_s": (operations as f64 / elapsed.as_secs_f64()).round(),
        "p50_us": all.latencies_us.value_at_quantile(0.50),
        "p99_us": all.latencies_us.value_at_quantile(0.99),
        "max_us": all.latencies_us.max(),
        "operations": operations, "elapsed_s": elapsed.as_secs_f64(), "missing": all.missing,
        "errors": all.errors.values().sum::<u64>(), "errors_by_kind": all.errors,
        "server_cpu_us_per_op": cpu_per_op.map(|cpu| cpu as f64 / operations as f64),
    }))
}

/// All clients of one thread.
fn drive(
    thread: usize,
    plan: &Plan,
    connected: &Barrier,
    next_fill: &Arc<AtomicU64>,
) -> Result<Recorder, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let clients: Vec<usize> = (thread..plan.connections).step_by(plan.threads).collect();
    let opened = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let opened = runtime.block_on(open(&clients, plan))?;
        Ok((runtime, opened))
    });
    // A thread that could not connect must not leave the others at the barrier.
    connected.wait();
    let (runtime, opened) = opened?;
    let recorder = Rc::new(RefCell::new(Recorder::new()));
    let values = Rc::new(make_values(plan));
    let begin = Instant::now();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let running: Vec<_> = clients
            .iter()
            .zip(opened)
            .map(|(&number, connection)| {
                let client = Client {
                    random: Random::new(plan.seed, number as u64),
                    plan: plan.clone(),
                    values: values.clone(),
                    recorder: recorder.clone(),
                    next_fill: next_fill.clone(),
                };
                tokio::task::spawn_local(client.run(connection, begin))
            })
            .collect();
        for client in running {
            client.await.expect("a client does not panic");
        }
    });
    Ok(recorder.replace(Recorder::new()))
}

enum Connection {
    Redis(Redis),
    Etcd(Etcd),
}

async fn open(clients: &[usize], plan: &Plan) -> Result<Vec<Connection>, String> {
    let mut opened: Vec<Connection> = Vec::new();
    for number in 0..clients.len() {
        let connection = match (plan.system, opened.last()) {
            (System::RedisWait, _) => Connection::Redis(Redis::open(&plan.address, plan.replicas).await?),
            (_, Some(Connection::Etcd(channel))) if number % CLIENTS_PER_CHANNEL != 0 => {
                Connection::Etcd(channel.clone())
            }
            _ => Connection::Etcd(Etcd::open(&plan.address).await?),
        };
        opened.push(connection);
    }
    Ok(opened)
}

/// Random, so that nothing compresses them, and few, so that making them costs nothing.
fn make_values(plan: &Plan) -> Vec<Vec<u8>> {
    let mut random = Random::new(plan.seed, u64::MAX);
    let value = |random: &mut Random| -> Vec<u8> {
        let words = 0..plan.value_bytes.div_ceil(8);
        let mut value: Vec<u8> = words.flat_map(|_| random.next().to_le_bytes()).collect();
        value.truncate(plan.value_bytes);
        value
    };
    (0..VALUES).map(|_| value(&mut random)).collect()
}

struct Client {
    random: Random,
    plan: Plan,
    values: Rc<Vec<Vec<u8>>>,
    recorder: Rc<RefCell<Recorder>>,
    next_fill: Arc<AtomicU64>,
}

impl Client {
    async fn run(mut self, mut connection: Connection, begin: Instant) {
        let measured_from = begin + self.plan.warmup;
        let end = measured_from + self.plan.seconds;
        loop {
            let sent = Instant::now();
            let number = if self.plan.fill {
                self.next_fill.fetch_add(1, Ordering::Relaxed)
            } else {
                self.random.next() % self.plan.keys
            };
            if if self.plan.fill { number >= self.plan.keys } else { sent >= end } {
                return;
            }
            let key = format!("key:{number:012}");
            let outcome = self.operate(&mut connection, key.as_bytes()).await;
            let answered = Instant::now();
            let counted = self.plan.fill || (sent >= measured_from && answered < end);
            let failed = outcome.is_err();
            if counted {
                self.record(outcome, answered - sent);
            }
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// False if a read found nothing.
    async fn operate(&mut self, connection: &mut Connection, key: &[u8]) -> Result<bool, String> {
        let value = &self.values[(self.random.next() % VALUES as u64) as usize];
        match connection {
            Connection::Redis(redis) => redis.set_and_wait(key, value).await.map(|()| true),
            Connection::Etcd(etcd) if self.plan.system == System::EtcdGet => etcd.get(key).await,
            Connection::Etcd(etcd) => etcd.put(key, value).await.map(|()| true),
        }
    }

    fn record(&self, outcome: Result<bool, String>, latency: Duration) {
        let mut recorder = self.recorder.borrow_mut();
        match outcome {
            Ok(found) => {
                let us = (latency.as_micros() as u64).clamp(1, LATENCY_US_MAX);
                recorder.latencies_us.saturating_record(us);
                recorder.missing += u64::from(!found);
            }
            Err(why) => *recorder.errors.entry(why).or_default() += 1,
        }
    }
}
