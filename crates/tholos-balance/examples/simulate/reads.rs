//! One hot shard that is only read: its leader alone, beside replicas that answer as well. Times are microseconds.
//!
//! Three nodes of one processor each hold the shard; n1 leads it. A processor reads and writes the bytes of clients one after the
//! other as long as there are any, and then runs a round of the node's worker, as the real one does: it takes all that has
//! come, and what it did leaves when the round ends. Reads come at a rate, whatever has become of those before.
//!
//! A replica that is chosen asks the leader how far its log is, one question at a time for all reads that came before it,
//! and reads its own state then. So a read there costs what a read costs, and a share of one question.
//!
//! What a step costs is from `bench/reads.py` with one key and 256 clients: the leader used 6.4 us of each read of the cluster, the
//! others 2.1 each. A question is not seen there; it is assumed to cost as much as ten forwarded reads, at either end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tholos_balance::{Balancer, Candidate, LoadReport, Options, Outcome, Pick, ServerId};

use crate::chance::Chance;
use crate::world::Times;

const NODES: usize = 3;
const LEADER: usize = 0;
/// Bytes of a client, from its socket or to it.
const CLIENT_US: f64 = 2.5;
/// A read of the state.
const READ_US: f64 = 4.0;
/// A read or an answer that goes from node to node among others, at each end.
const HOP_US: f64 = 1.0;
/// A question to the leader, or its answer, at each end.
const QUESTION_US: f64 = 10.0;
/// One way, between nodes as between clients and nodes.
const NETWORK_US: f64 = 50.0;
/// The rule of the gateway (`reading.rs` of `tholos-node`): a leader at which a read would wait for less is asked itself,
/// and a replica counts as so much further away.
const QUIET: Duration = Duration::from_micros(200);
/// What is measured of a queue is smoothed over about this time.
const QUEUE_MEMORY_US: f64 = 5000.0;
/// Nodes tell their load besides.
const REPORT_US: f64 = 100_000.0;
/// Of the time, before anything is counted.
const WARM_UP: f64 = 0.2;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The leader, and all clients are connected to it.
    Direct,
    /// The leader; clients are spread over the gateways of all nodes.
    Leader,
    /// Whom the gateway of the client's node chooses.
    Load,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Direct => "leader, all clients connected to it",
            Way::Leader => "leader, through all gateways",
            Way::Load => "whom the gateways choose",
        }
    }

    /// For a line of a chart.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Leader => "leader",
            Way::Load => "chosen",
        }
    }
}

/// What is simulated.
#[derive(Clone, Copy)]
pub(crate) struct Reads {
    pub(crate) way: Way,
    /// How many come.
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Found {
    pub(crate) times: Times,
    /// Of all processors, for each read.
    pub(crate) processor_us: f64,
    /// The part of the reads that others than the leader answered.
    pub(crate) at_replicas: f64,
    /// Reads that one question served, on average; 0 if none was asked.
    pub(crate) per_question: f64,
}

/// What a round is made of.
#[derive(Clone, Copy)]
enum Work {
    /// A client's read comes to its gateway.
    Read(usize),
    /// It goes to the leader.
    Sent(usize),
    /// It is to be answered here, once the leader has said how far its log is.
    Kept,
    /// The leader is to answer it.
    Forwarded {
        read: usize,
        from: usize,
    },
    /// It has.
    Answer(usize),
    Question {
        from: usize,
    },
    /// The leader has said how far its log is.
    Mark,
}

/// What passes between a client and its gateway.
#[derive(Clone, Copy)]
enum Bytes {
    Read(usize),
    Reply(usize),
}

struct Read {
    gateway: usize,
    sent_at: f64,
    pick: Option<Pick>,
}

struct Node {
    clients: VecDeque<Bytes>,
    inbox: Vec<Work>,
    /// What the round that runs has taken.
    round: Vec<Work>,
    /// Whether the processor has something to do.
    runs: bool,
    began_at: f64,
    ended_at: f64,
    queue: QueueMeter,
    balancer: Balancer,
    /// What the leader said last, as far as this node has heard.
    leader: LoadReport,
    /// Reads that the question under way is for, and those that came after it left.
    asked: Option<Vec<usize>>,
    waiting: Vec<usize>,
}

/// How a node measures its queue: as `load/queue.rs` of `tholos-node` does.
#[derive(Default)]
struct QueueMeter {
    busy: f64,
    all: f64,
    handled: f64,
    rounds: f64,
}

enum Event {
    Due,
    Sent(usize),
    Passed(usize),
    Comes { node: usize, work: Work, report: Option<LoadReport> },
    RoundEnds(usize),
    Answered(usize),
    Reports,
}

struct World {
    scene: Reads,
    chance: Chance,
    reads: Vec<Read>,
    nodes: Vec<Node>,
    events: Vec<Option<Event>>,
    /// Time in nanoseconds, then the order in which events were made.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    busy: f64,
    answered: f64,
    at_replicas: f64,
    questions: f64,
    times: Times,
}

/// The cores of a node count whole milliseconds.
fn clock(now: f64) -> Duration {
    Duration::from_millis((now / 1e3) as u64)
}

fn id(node: usize) -> ServerId {
    ServerId(node as u32)
}

impl Reads {
    pub(crate) fn run(self) -> Found {
        let mut world = World {
            chance: Chance(self.seed),
            reads: Vec::new(),
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            events: Vec::new(),
            queue: BinaryHeap::new(),
            busy: 0.0,
            answered: 0.0,
            at_replicas: 0.0,
            questions: 0.0,
            times: Times::default(),
            scene: self,
        };
        world.at(0.0, Event::Reports);
        world.at(0.0, Event::Due);
        world.go_on();
        Found {
            times: world.times,
            processor_us: world.busy / world.answered,
            at_replicas: world.at_replicas / world.answered,
            per_question: world.at_replicas / world.questions.max(1.0),
        }
    }

    fn end(&self) -> f64 {
        self.seconds * 1e6
    }

    fn counts(&self, now: f64) -> bool {
        now >= WARM_UP * self.end()
    }
}

impl World {
    fn at(&mut self, time: f64, event: Event) {
        self.queue.push(Reverse(((time * 1e3) as u64, self.events.len())));
        self.events.push(Some(event));
    }

    fn go_on(&mut self) {
        while let Some(Reverse((nanos, at))) = self.queue.pop() {
            let now = nanos as f64 / 1e3;
            if now > self.scene.end() {
                break;
            }
            match self.events[at].take().expect("each event comes once") {
                Event::Due => self.due(now),
                Event::Sent(read) => self.pass(self.reads[read].gateway, Bytes::Read(read), now),
                Event::Passed(node) => self.passed(node, now),
                Event::Comes { node, work, report } => self.comes(node, work, report, now),
                Event::RoundEnds(node) => self.round_ends(node, now),
                Event::Answered(read) => self.answered(read, now),
                Event::Reports => self.reports(now),
            }
        }
    }

    /// A client sends a read, and the next one is due at its time.
    fn due(&mut self, now: f64) {
        let next = now + self.chance.exponential(1e6 / self.scene.per_second);
        self.at(next, Event::Due);
        let gateway = if self.scene.way == Way::Direct { LEADER } else { self.chance.below(NODES) };
        self.at(now + NETWORK_US, Event::Sent(self.reads.len()));
        self.reads.push(Read { gateway, sent_at: now, pick: None });
    }

    fn answered(&mut self, read: usize, now: f64) {
        if self.scene.counts(now) {
            self.times.push(now - self.reads[read].sent_at);
            self.answered += 1.0;
        }
    }

    fn pass(&mut self, node: usize, bytes: Bytes, now: f64) {
        self.nodes[node].clients.push_back(bytes);
        self.go(node, now);
    }

    fn passed(&mut self, node: usize, now: f64) {
        match self.nodes[node].clients.pop_front().expect("it was under way") {
            Bytes::Read(read) => self.nodes[node].inbox.push(Work::Read(read)),
            Bytes::Reply(read) => self.at(now + NETWORK_US, Event::Answered(read)),
        }
        self.nodes[node].runs = false;
        self.go(node, now);
    }

    fn comes(&mut self, node: usize, work: Work, report: Option<LoadReport>, now: f64) {
        let row = &mut self.nodes[node];
        row.inbox.push(work);
        if let Some(report) = report {
            row.hear_leader(report, now);
        }
        self.go(node, now);
    }

    /// The processor takes what is next, if it is free: clients, and then all that has come for a round.
    fn go(&mut self, node: usize, now: f64) {
        let row = &mut self.nodes[node];
        if row.runs || (row.clients.is_empty() && row.inbox.is_empty()) {
            return;
        }
        row.runs = true;
        if !row.clients.is_empty() {
            self.spend(CLIENT_US, now);
            return self.at(now + CLIENT_US, Event::Passed(node));
        }
        row.began_at = now;
        row.round = std::mem::take(&mut row.inbox);
        if node != LEADER {
            self.choose_all(node, now);
        }
        let takes = self.nodes[node].round_takes();
        self.spend(takes, now);
        self.at(now + takes, Event::RoundEnds(node));
    }

    fn spend(&mut self, time: f64, now: f64) {
        if self.scene.counts(now) {
            self.busy += time;
        }
    }

    /// Says of each read in the round of a node that does not lead who is to answer it.
    fn choose_all(&mut self, node: usize, now: f64) {
        let mut round = std::mem::take(&mut self.nodes[node].round);
        for work in &mut round {
            if let Work::Read(read) = *work {
                *work = self.choose(node, read, now);
            }
        }
        self.nodes[node].round = round;
    }

    fn choose(&mut self, node: usize, read: usize, now: f64) -> Work {
        if self.scene.way != Way::Load {
            return Work::Sent(read);
        }
        let row = &mut self.nodes[node];
        let sent = row.balancer.view(id(LEADER), clock(now)).map_or(0, |view| view.in_flight);
        let mut candidates = vec![Candidate::from(id(LEADER))];
        if row.leader.service * (row.leader.in_system + sent) > QUIET {
            candidates.push(Candidate { server: id(node), distance: QUIET });
        }
        let pick = row.balancer.pick(&candidates, clock(now), self.chance.next());
        let pick = pick.expect("every candidate is known");
        let is_kept = pick.server() == id(node);
        self.reads[read].pick = Some(pick);
        if !is_kept {
            return Work::Sent(read);
        }
        row.waiting.push(read);
        Work::Kept
    }

    fn round_ends(&mut self, node: usize, now: f64) {
        let row = &mut self.nodes[node];
        let round = std::mem::take(&mut row.round);
        row.queue.note(now - row.began_at, row.began_at - row.ended_at, round.len());
        row.ended_at = now;
        let report = row.queue.report();
        row.balancer.report(id(node), report, clock(now));
        for work in round {
            match work {
                Work::Read(read) => self.answer(read, LEADER, now),
                Work::Sent(read) => self.send(LEADER, Work::Forwarded { read, from: node }, None, now),
                Work::Kept => {}
                Work::Forwarded { read, from } => self.send(from, Work::Answer(read), Some(report), now),
                Work::Answer(read) => self.answer(read, LEADER, now),
                Work::Question { from } => self.send(from, Work::Mark, Some(report), now),
                Work::Mark => {
                    for read in self.nodes[node].asked.take().unwrap_or_default() {
                        self.answer(read, node, now);
                    }
                }
            }
        }
        self.ask(node, now);
        self.nodes[node].runs = false;
        self.go(node, now);
    }

    /// One question at a time, for all reads that wait.
    fn ask(&mut self, node: usize, now: f64) {
        let row = &mut self.nodes[node];
        if row.asked.is_some() || row.waiting.is_empty() {
            return;
        }
        row.asked = Some(std::mem::take(&mut row.waiting));
        if self.scene.counts(now) {
            self.questions += 1.0;
        }
        self.send(LEADER, Work::Question { from: node }, None, now);
    }

    fn send(&mut self, to: usize, work: Work, report: Option<LoadReport>, now: f64) {
        self.at(now + NETWORK_US, Event::Comes { node: to, work, report });
    }

    /// The gateway answers its client; `by` has read the value.
    fn answer(&mut self, read: usize, by: usize, now: f64) {
        if let Some(pick) = self.reads[read].pick.take() {
            pick.done(clock(now), Outcome::Answered, None);
        }
        if by != LEADER && self.scene.counts(now) {
            self.at_replicas += 1.0;
        }
        self.nodes[self.reads[read].gateway].clients.push_back(Bytes::Reply(read));
    }

    fn reports(&mut self, now: f64) {
        self.at(now + REPORT_US, Event::Reports);
        let report = self.nodes[LEADER].queue.report();
        for node in &mut self.nodes {
            node.hear_leader(report, now);
        }
    }
}

impl Node {
    fn new() -> Node {
        let mut balancer = Balancer::new(Options { slow_start: Duration::ZERO, ..Options::default() });
        (0..NODES).for_each(|node| balancer.set(id(node), 1, Duration::ZERO));
        Node {
            clients: VecDeque::new(),
            inbox: Vec::new(),
            round: Vec::new(),
            runs: false,
            began_at: 0.0,
            ended_at: 0.0,
            queue: QueueMeter::default(),
            balancer,
            leader: QueueMeter::default().report(),
            asked: None,
            waiting: Vec::new(),
        }
    }

    fn hear_leader(&mut self, report: LoadReport, now: f64) {
        self.leader = report;
        self.balancer.report(id(LEADER), report, clock(now));
    }

    /// What the round takes that is about to run, the question that leaves with its end included.
    fn round_takes(&self) -> f64 {
        let is_answered = self.round.iter().any(|work| matches!(work, Work::Mark));
        let asks = !self.waiting.is_empty() && (self.asked.is_none() || is_answered);
        let takes = |work: &Work| match work {
            Work::Read(_) => READ_US,
            Work::Sent(_) | Work::Answer(_) => HOP_US,
            Work::Kept => 0.0,
            Work::Forwarded { .. } => HOP_US + READ_US,
            Work::Question { .. } => QUESTION_US,
            Work::Mark => QUESTION_US + READ_US * self.asked.as_ref().map_or(0, Vec::len) as f64,
        };
        self.round.iter().map(takes).sum::<f64>() + if asks { QUESTION_US } else { 0.0 }
    }
}

impl QueueMeter {
    fn note(&mut self, took: f64, idle: f64, handled: usize) {
        let kept = QUEUE_MEMORY_US / (took + idle + QUEUE_MEMORY_US);
        self.busy = self.busy * kept + took;
        self.all = self.all * kept + took + idle;
        self.handled = self.handled * kept + handled as f64;
        self.rounds = self.rounds * kept + 1.0;
    }

    fn report(&self) -> LoadReport {
        if self.busy <= 0.0 {
            return LoadReport { in_system: 0, workers: 1, service: Duration::from_nanos(1) };
        }
        let time_here = self.busy / self.rounds * (1.0 + self.busy / self.all / 2.0);
        let service = Duration::from_nanos((self.busy / self.handled * 1e3) as u64);
        LoadReport { in_system: (self.handled / self.all * time_here) as u32, workers: 1, service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(way: Way, per_second: f64) -> Found {
        Reads { way, per_second, seconds: 0.5, seed: 42 }.run()
    }

    #[test]
    fn replicas_read_half_as_much_again_for_no_more_processor_time() {
        let mut leader = at(Way::Leader, 165e3);
        assert!(leader.times.quantile(0.99) > 5e3, "a leader alone cannot do so much");
        let mut chosen = at(Way::Load, 250e3);
        assert!(chosen.times.quantile(0.99) < 5e3, "{}", chosen.times.quantile(0.99));
        assert!(chosen.at_replicas > 0.3 && chosen.processor_us <= leader.processor_us);
    }

    #[test]
    fn a_quiet_leader_answers_all() {
        let [mut leader, mut chosen] = [Way::Leader, Way::Load].map(|way| at(way, 50e3));
        assert!(chosen.at_replicas < 0.01, "{}", chosen.at_replicas);
        assert!(chosen.times.quantile(0.5) <= leader.times.quantile(0.5) * 1.01);
    }

    #[test]
    fn the_same_seed_tells_the_same() {
        let [mut once, mut again] = [(); 2].map(|()| at(Way::Load, 200e3));
        assert_eq!(once.times.quantile(0.99), again.times.quantile(0.99));
        assert_eq!(once.at_replicas, again.at_replicas);
    }
}
