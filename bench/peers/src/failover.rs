//! Clients that go on writing while the node that leads most is killed.
//!
//! Each client owns its keys and writes rising numbers into them, so that whoever reads a key later knows what it must
//! hold at least: a smaller number is a lost write, or a read that went back in time. Clients know the leaders from
//! `CLUSTER SLOTS` and follow MOVED, as cluster clients do; a node that does not answer is left for the next one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::json;
use tholos_resp::{Value, ValueDecoder, ValueLimits, encode_command};
use tholos_ring::{SLOT_COUNT, shard_of, slot};

use crate::args::Args;
use crate::sample::Random;

/// Longer than the servers' own limit, so that it is they who give up first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);
/// Pause of a client whose operation failed.
const PAUSE: Duration = Duration::from_millis(2);
/// What a thread sleeps that measures how late it wakes.
const MOMENT: Duration = Duration::from_millis(1);
/// MOVED replies that one operation follows.
const HOPS_MAX: usize = 8;
/// One operation in so many is a read.
const READ_EVERY: u64 = 4;
/// How long the read-back may take until every key has answered.
const READ_BACK_MAX: Duration = Duration::from_secs(30);

/// A server process, given as `host:port=pid`.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) pid: u32,
}

impl Node {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, pid) =
            text.split_once('=').ok_or_else(|| format!("--node {text}: say HOST:PORT=PID"))?;
        Ok(Self { address: address.to_owned(), pid: pid.parse().map_err(|_| format!("--node {text}"))? })
    }
}

struct Plan {
    nodes: Vec<Node>,
    /// For each slot the number of its leader at the start.
    leaders: Vec<usize>,
    connections: usize,
    keys_per_client: usize,
    value_bytes: usize,
    shards: u16,
    begin: Instant,
    stop: AtomicBool,
}

/// What one client did.
#[derive(Default)]
struct Seen {
    /// When a write to a shard was acknowledged: nanoseconds of the run, shard.
    acknowledged: Vec<(u64, u16)>,
    reads: u64,
    /// Reads that showed less than what was acknowledged before they began.
    stale: u64,
    refused: u64,
    unclear: u64,
    states: Vec<KeyState>,
}

/// What is known of one key.
#[derive(Clone, Default)]
struct KeyState {
    key: Vec<u8>,
    written: u64,
    /// The largest number that was acknowledged or read.
    known: u64,
    /// Numbers whose write may still happen at any time.
    unclear: Vec<u64>,
}

impl KeyState {
    fn allows(&self, number: u64) -> bool {
        number <= self.written && (number >= self.known || self.unclear.contains(&number))
    }
}

/// Runs the load, kills the node, and reports the gaps.
pub(crate) fn run(args: &Args) -> Result<serde_json::Value, String> {
    let nodes: Vec<Node> = args.all("node").map(Node::parse).collect::<Result<_, _>>()?;
    let before = Duration::from_secs_f64(args.get("before", 2.0)?);
    let after = Duration::from_secs_f64(args.get("after", 5.0)?);
    let mut leaders = None;
    for number in 0..nodes.len() {
        leaders = leaders.or(Link::open(&nodes[number].address).and_then(|mut link| link.leaders(&nodes)));
    }
    let plan = Arc::new(Plan {
        leaders: leaders.ok_or("no node knows a leader for every slot")?,
        nodes,
        connections: args.get("connections", 16)?,
        keys_per_client: args.get("keys-per-client", 1000)?,
        value_bytes: args.get("value-bytes", 256)?,
        shards: args.get("shards", 64)?,
        begin: Instant::now(),
        stop: AtomicBool::new(false),
    });
    let led = |number: usize| plan.leaders.iter().filter(|&&leader| leader == number).count();
    let victim = (0..plan.nodes.len()).max_by_key(|&number| led(number)).ok_or("no --node")?;
    let clients: Vec<_> = (0..plan.connections)
        .map(|number| {
            let client = Client::new(number, plan.clone());
            std::thread::spawn(move || client.run())
        })
        .collect();
    let sleeper = {
        let plan = plan.clone();
        std::thread::spawn(move || longest_stall(&plan))
    };
    std::thread::sleep(before);
    let killed = plan.begin.elapsed().as_nanos() as u64;
    kill(plan.nodes[victim].pid)?;
    std::thread::sleep(after);
    plan.stop.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = clients
        .into_iter()
        .map(|client| client.join().map_err(|_| "a client failed".to_owned()))
        .collect::<Result<_, _>>()?;
    let stall = sleeper.join().map_err(|_| "the sleeper failed".to_owned())?;
    let (lost, unread) = read_back(&plan, &seen, victim);
    let mut report = report(&plan, victim, killed, &seen, lost, unread);
    report["scheduler_stall_ms_longest"] = json!((stall.as_secs_f64() * 1e4).round() / 10.0);
    Ok(report)
}

/// By how much a thread that wants to sleep for a moment, again and again, woke too late at most: for so long the machine had no
/// processor for anybody like it, and no gap can be shorter than what its servers waited for one.
fn longest_stall(plan: &Plan) -> Duration {
    let mut longest = Duration::ZERO;
    while !plan.stop.load(Ordering::Relaxed) {
        let asleep = Instant::now();
        std::thread::sleep(MOMENT);
        longest = longest.max(asleep.elapsed().saturating_sub(MOMENT));
    }
    longest
}

/// SIGKILL.
pub(crate) fn kill(pid: u32) -> Result<(), String> {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("cannot kill {pid}")) }
}

/// Reads every key on the nodes that live: how many hold less than what was acknowledged, and how many did not answer.
fn read_back(plan: &Arc<Plan>, seen: &[Seen], victim: usize) -> (u64, u64) {
    let (mut lost, mut unread) = (0, 0);
    let mut reader = Client::new(usize::MAX, plan.clone());
    let elsewhere = (victim + 1) % plan.nodes.len();
    reader.leaders.iter_mut().filter(|leader| **leader == victim).for_each(|leader| *leader = elsewhere);
    let deadline = Instant::now() + READ_BACK_MAX;
    for state in seen.iter().flat_map(|seen| &seen.states).filter(|state| state.written > 0) {
        let found = loop {
            match reader.ask(&state.key, None) {
                Answer::Number(number) => break Some(number),
                _ if Instant::now() > deadline => break None,
                _ => std::thread::sleep(PAUSE),
            }
        };
        match found {
            Some(number) => lost += u64::from(!state.allows(number)),
            None => unread += 1,
        }
    }
    (lost, unread)
}

fn report(
    plan: &Plan,
    victim: usize,
    killed: u64,
    seen: &[Seen],
    lost: u64,
    unread: u64,
) -> serde_json::Value {
    let mut by_shard: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for (time, shard) in seen.iter().flat_map(|seen| &seen.acknowledged) {
        by_shard.entry(*shard).or_default().push(*time);
    }
    let stopped = by_shard.values().flatten().max().copied().unwrap_or(killed);
    let mut gaps_led = Vec::new();
    let mut gaps_other = Vec::new();
    let mut never_resumed = 0;
    for (shard, times) in &mut by_shard {
        times.sort_unstable();
        let led = plan.leaders.iter().enumerate().any(|(slot, &leader)| {
            leader == victim
                && slot * usize::from(plan.shards) / usize::from(SLOT_COUNT) == usize::from(*shard)
        });
        never_resumed += u64::from(times.last().is_none_or(|&last| last < killed));
        // Up to the end of the run, or a shard that never resumed would have no gap at all.
        let ends = times.iter().copied().chain([stopped]);
        let after_kill = times.iter().copied().zip(ends.skip(1)).filter(|&(_, end)| end >= killed);
        let gap = after_kill.map(|(start, end)| end - start).max().unwrap_or_default();
        if led { gaps_led.push(gap) } else { gaps_other.push(gap) }
    }
    let ms = |ns: u64| (ns as f64 / 1e5).round() / 10.0;
    let longest = |gaps: &[u64]| ms(gaps.iter().max().copied().unwrap_or_default());
    gaps_led.sort_unstable();
    let median = gaps_led.get(gaps_led.len() / 2).copied().unwrap_or_default();
    let sum = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    json!({
        "victim": plan.nodes[victim].address,
        "shards_led_by_victim": gaps_led.len(),
        "gap_ms_longest": longest(&gaps_led), "gap_ms_median": ms(median),
        "gap_ms_longest_other_shards": longest(&gaps_other),
        "shards_never_resumed": never_resumed,
        "acknowledged": sum(|seen| seen.acknowledged.len() as u64),
        "reads": sum(|seen| seen.reads), "reads_back_in_time": sum(|seen| seen.stale),
        "refused": sum(|seen| seen.refused), "unclear": sum(|seen| seen.unclear),
        "keys_read_back": seen.iter().flat_map(|seen| &seen.states).filter(|state| state.written > 0).count(),
        "acknowledged_writes_lost": lost, "keys_that_did_not_answer": unread,
    })
}

enum Answer {
    Done,
    /// What a read found; 0 if the key is not there.
    Number(u64),
    /// It did not happen.
    Refused,
    /// It may have happened.
    Unclear,
}

struct Client {
    number: usize,
    plan: Arc<Plan>,
    random: Random,
    /// By number of the node.
    links: Vec<Option<Link>>,
    leaders: Vec<usize>,
    seen: Seen,
}

impl Client {
    fn new(number: usize, plan: Arc<Plan>) -> Self {
        Self {
            number,
            random: Random::new(7, number as u64),
            links: plan.nodes.iter().map(|_| None).collect(),
            leaders: plan.leaders.clone(),
            seen: Seen::default(),
            plan,
        }
    }

    fn run(mut self) -> Seen {
        let key = |i: usize| format!("c{:03}:{i:06}", self.number).into_bytes();
        let mut states: Vec<KeyState> =
            (0..self.plan.keys_per_client).map(|i| KeyState { key: key(i), ..KeyState::default() }).collect();
        while !self.plan.stop.load(Ordering::Relaxed) {
            let state = self.random.next() as usize % states.len();
            let state = &mut states[state];
            let worked = if self.random.next().is_multiple_of(READ_EVERY) {
                self.read(state)
            } else {
                self.write(state)
            };
            if !worked {
                std::thread::sleep(PAUSE);
            }
        }
        self.seen.states = states;
        self.seen
    }

    fn write(&mut self, state: &mut KeyState) -> bool {
        state.written += 1;
        let mut value = format!("{:020}", state.written).into_bytes();
        value.resize(self.plan.value_bytes.max(value.len()), b'.');
        match self.ask(&state.key, Some(&value)) {
            Answer::Done => {
                state.known = state.written;
                let shard = shard_of(slot(&state.key), self.plan.shards).0;
                self.seen.acknowledged.push((self.plan.begin.elapsed().as_nanos() as u64, shard));
                return true;
            }
            Answer::Refused => self.seen.refused += 1,
            Answer::Number(_) | Answer::Unclear => {
                self.seen.unclear += 1;
                state.unclear.push(state.written);
            }
        }
        false
    }

    fn read(&mut self, state: &mut KeyState) -> bool {
        match self.ask(&state.key, None) {
            Answer::Number(number) => {
                self.seen.reads += 1;
                self.seen.stale += u64::from(!state.allows(number));
                state.known = state.known.max(number);
                true
            }
            _ => false,
        }
    }

    /// A write if there is a value, else a read.
    fn ask(&mut self, key: &[u8], value: Option<&[u8]>) -> Answer {
        let place = usize::from(slot(key).number());
        for _ in 0..HOPS_MAX {
            let leader = self.leaders[place];
            if self.links[leader].is_none() {
                self.links[leader] = Link::open(&self.plan.nodes[leader].address);
            }
            let Some(link) = self.links[leader].as_mut() else {
                self.leave(leader);
                return Answer::Refused;
            };
            let reply = match value {
                Some(value) => link.ask(&[b"SET", key, value]),
                None => link.ask(&[b"GET", key]),
            };
            match reply {
                None => {
                    self.links[leader] = None;
                    self.leave(leader);
                    return Answer::Unclear;
                }
                Some(Value::Simple(_)) => return Answer::Done,
                Some(Value::Null) => return Answer::Number(0),
                Some(Value::Bulk(bytes)) => return Answer::Number(number_of(&bytes)),
                Some(Value::Error(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    match line.strip_prefix("MOVED ").and_then(|rest| rest.split_once(' ')) {
                        Some((_, address)) => self.leaders[place] = self.node_at(address, leader),
                        None if line.contains("nothing was") => return Answer::Refused,
                        None => return Answer::Unclear,
                    }
                }
                Some(_) => return Answer::Unclear,
            }
        }
        Answer::Refused
    }

    /// Points what a node led to the next one, which says MOVED if it knows better.
    fn leave(&mut self, node: usize) {
        let next = (node + 1) % self.plan.nodes.len();
        self.leaders.iter_mut().filter(|leader| **leader == node).for_each(|leader| *leader = next);
    }

    fn node_at(&self, address: &str, otherwise: usize) -> usize {
        self.plan.nodes.iter().position(|node| node.address == address).unwrap_or(otherwise)
    }
}

/// A value that is not ours reads as a number that nobody wrote.
fn number_of(value: &[u8]) -> u64 {
    let digits = value.get(..20).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

/// A connection to one node.
struct Link {
    stream: TcpStream,
    input: BytesMut,
}

impl Link {
    fn open(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).ok()?;
        Some(Self { stream, input: BytesMut::with_capacity(4096) })
    }

    /// `None` if the connection is of no more use.
    fn ask(&mut self, arguments: &[&[u8]]) -> Option<Value> {
        let mut output = Vec::with_capacity(512);
        encode_command(arguments, &mut output);
        self.stream.write_all(&output).ok()?;
        let mut decoder = ValueDecoder::new(ValueLimits::default());
        let mut chunk = [0; 16_384];
        loop {
            if let Some(value) = decoder.decode(&mut self.input).ok()? {
                return Some(value);
            }
            match self.stream.read(&mut chunk).ok()? {
                0 => return None,
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// For each slot the number of its leader; `None` if a slot has none.
    fn leaders(&mut self, nodes: &[Node]) -> Option<Vec<usize>> {
        let Value::Array(ranges) = self.ask(&[b"CLUSTER", b"SLOTS"])? else { return None };
        let mut leaders = vec![usize::MAX; usize::from(SLOT_COUNT)];
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Integer(first), Value::Integer(last), Value::Array(leader), ..] = &parts[..] else {
                return None;
            };
            let [Value::Bulk(host), Value::Integer(port), ..] = &leader[..] else { return None };
            let address = format!("{}:{port}", String::from_utf8_lossy(host));
            let number = nodes.iter().position(|node| node.address == address)?;
            leaders.get_mut(*first as usize..=*last as usize)?.fill(number);
        }
        (!leaders.contains(&usize::MAX)).then_some(leaders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_what_was_known_or_what_came_later_and_nothing_older() {
        let state = KeyState { written: 9, known: 6, unclear: vec![4, 8], ..KeyState::default() };
        let allowed: Vec<u64> = (0..12).filter(|&number| state.allows(number)).collect();
        assert_eq!(allowed, [4, 6, 7, 8, 9]);
        assert!(!state.allows(number_of(b"not ours")));
        assert_eq!(number_of(b"00000000000000000042......"), 42);
    }
}
