//! One run of the whole cluster: an event queue, true time in microseconds, one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};
use tholos_node::{ClientId, Effects, Event, PeerMessage, Port};
use tholos_paxos::{AppendSeq, Ballot, Planted};
use tholos_ring::ShardId;
use tholos_wal::Crash;

use crate::client::{Client, Mortals};
use crate::faults::{Fault, FaultCounts, plan_faults};
use crate::host::Host;
use crate::net::Net;
use crate::random::Random;
use tholos_check::{Limits, Operation, Verdict, linearizable};

/// True time at which faults stop.
pub const FAULTS_END_US: u64 = 50_000_000;
/// True time at which the run ends.
pub const RUN_END_US: u64 = 62_000_000;
/// From here on the cluster must serve again.
const LIVE_AGAIN_US: u64 = 56_000_000;
const TICK_US: u64 = 10_000;
const NODES: usize = 3;
const SHARDS: u16 = 4;
const CLIENTS: u64 = 4;
/// A client gives a connection up after this long without an answer.
const CLIENT_PATIENCE_US: u64 = 7_000_000;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// A fault planted in the protocol, to see it caught.
    pub planted: Planted,
    /// Print every event.
    pub verbose: bool,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: u64,
    /// Operations whose outcome the clients know.
    pub operations: u64,
    /// Operations refused or in doubt.
    pub refused: u64,
    /// Faults by kind.
    pub faults: FaultCounts,
    /// Leaders elected.
    pub elections: u64,
    /// Snapshots taken over by replicas that fell behind.
    pub installs: u64,
    /// Transfers of snapshots that went on after a break.
    pub resumed: u64,
    /// Snapshots written.
    pub checkpoints: u64,
    /// What went wrong, if anything did.
    pub violation: Option<String>,
}

#[derive(Debug)]
enum Happening {
    Tick { host: usize, boot: u64 },
    Deliver { to: usize, from: usize, message: PeerMessage },
    WriteDone { host: usize, boot: u64 },
    SnapshotWork { host: usize, boot: u64 },
    Resume { host: usize },
    ToNode { host: usize, boot: u64, event: Event },
    ToClient { client: usize, connection: ClientId, bytes: Bytes },
    Closed { client: usize, connection: ClientId },
    ClientWakes { client: usize },
    Fault(Fault),
    Start { host: usize },
    Heal,
}

/// The world.
pub struct Sim {
    settings: Settings,
    random: Random,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<(u64, u64), Happening>,
    map: ClusterMap,
    hosts: Vec<Host>,
    net: Net,
    clients: Vec<Client>,
    next_connection: u64,
    history: Vec<Operation>,
    mortals: Mortals,
    /// Digest of each shard's state at each index, as first seen.
    digests: BTreeMap<(ShardId, u64), u64>,
    /// Who led in each ballot.
    leaders: BTreeMap<(ShardId, Ballot), NodeId>,
    /// The applied index of each replica, as last seen in this boot.
    applied: BTreeMap<(usize, ShardId), (u64, u64)>,
    /// Whether messages go through their bytes.
    through_bytes: bool,
    hash: u64,
    report: Report,
    healed: bool,
}

/// Runs one seed to its end.
pub fn run(settings: Settings) -> Report {
    let mut sim = Sim::new(settings);
    while let Some(Reverse(at)) = sim.queue.pop() {
        if at.0 > RUN_END_US || sim.report.violation.is_some() {
            break;
        }
        sim.now = at.0;
        if let Some(happening) = sim.happenings.remove(&at) {
            sim.happen(happening);
        }
    }
    sim.finish()
}

impl Sim {
    fn new(settings: Settings) -> Sim {
        let mut random = Random::new(settings.seed);
        let row = |number: usize| NodeRow {
            id: NodeId(number as u16),
            name: format!("n{number}"),
            zone: format!("z{number}"),
            weight: 1,
            incarnation: Incarnation(number as u64),
            gateway: String::new(),
            cluster: format!("10.0.0.{number}:7001"),
            peer: String::new(),
            http: String::new(),
        };
        let rows = (1..=NODES).map(row).collect();
        let map = ClusterMap::genesis(ClusterId([7; 20]), rows, SHARDS, NODES as u8);
        let map = map.expect("the simulated cluster can be founded");
        let clients = (0..CLIENTS).map(|number| Client::new(number, random.fork())).collect();
        let hosts = (1..=NODES).map(|number| Host::new(NodeId(number as u16), settings.planted)).collect();
        let mut sim = Sim {
            through_bytes: random.below(8) == 0,
            random,
            settings,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            map,
            hosts,
            net: Net::new(NODES),
            clients,
            next_connection: 0,
            history: Vec::new(),
            mortals: Mortals::default(),
            digests: BTreeMap::new(),
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            report: Report::default(),
            healed: false,
        };
        let clocks_differ = sim.random.below(2) == 0;
        for host in 0..NODES {
            let offset = sim.random.below(6_000) as i64 - 3_000;
            sim.hosts[host].wall_offset_ms = if clocks_differ { offset } else { 0 };
            // Where snapshots take long, most crashes come in the middle of one.
            if sim.random.below(2) == 0 {
                sim.hosts[host].snapshots.piece_us = (2_000, 80_000);
            }
            sim.after(sim.now, Happening::Start { host });
        }
        for client in 0..sim.clients.len() {
            let at = 500_000 + sim.random.below(500_000);
            sim.after(at, Happening::ClientWakes { client });
        }
        for (at, fault) in plan_faults(&mut sim.random, NODES) {
            sim.after(at, Happening::Fault(fault));
        }
        sim.after(FAULTS_END_US, Happening::Heal);
        sim
    }

    /// Something that will happen at a time.
    fn after(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        let key = (at.max(self.now), self.sequence);
        self.queue.push(Reverse(key));
        self.happenings.insert(key, happening);
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    fn happen(&mut self, happening: Happening) {
        self.mix(self.now);
        if self.settings.verbose && !matches!(happening, Happening::Tick { .. }) {
            println!("{:>10.3} ms {happening:?}", self.now as f64 / 1000.0);
        }
        match happening {
            Happening::Tick { host, boot } => {
                if self.hosts[host].boot == boot && self.hosts[host].node.is_some() {
                    self.give(host, Event::Tick);
                    self.after(self.now + TICK_US, Happening::Tick { host, boot });
                }
            }
            Happening::Deliver { to, from, message } => {
                self.mix(to as u64 * 16 + from as u64);
                let from = NodeId(from as u16 + 1);
                self.give(to, Event::Peer { from, message });
            }
            Happening::WriteDone { host, boot } => self.write_done(host, boot),
            Happening::SnapshotWork { host, boot } => self.snapshot_work(host, boot),
            Happening::Resume { host } => self.resume(host),
            Happening::ToNode { host, boot, event } => {
                if self.hosts[host].boot == boot {
                    self.give(host, event);
                }
            }
            Happening::ToClient { client, connection, bytes } => {
                self.reach_client(client, connection, &bytes)
            }
            Happening::Closed { client, connection } => self.closed(client, connection),
            Happening::ClientWakes { client } => self.client_wakes(client),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Start { host } => self.start(host),
            Happening::Heal => self.heal(),
        }
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            return;
        }
        let mut out = Effects::default();
        let now = self.now;
        if !self.hosts[host].start(&self.map, now, &mut self.random, &mut out) {
            let crash = Crash::Power(self.random.bits());
            self.hosts[host].crash(crash);
            let delay = self.random.between(10_000, 2_000_000);
            return self.after(now + delay, Happening::Start { host });
        }
        self.applied.retain(|(of, _), _| *of != host);
        let boot = self.hosts[host].boot;
        self.after(now + self.random.clone().below(TICK_US), Happening::Tick { host, boot });
        self.check_host(host);
        self.carry_out(host, out);
    }

    /// Hands an event to a node, now or when its machine goes on.
    fn give(&mut self, host: usize, event: Event) {
        if self.hosts[host].node.is_none() {
            return;
        }
        if self.hosts[host].paused_until > self.now {
            // While it stands still only one tick waits, as with a real timer.
            if !matches!(event, Event::Tick) {
                self.hosts[host].stalled.push(event);
            }
            return;
        }
        self.run_node(host, vec![event]);
    }

    fn run_node(&mut self, host: usize, events: Vec<Event>) {
        let now = self.hosts[host].now(self.now);
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let mut out = Effects::default();
        for event in events {
            node.handle(now, event, &mut out);
        }
        node.flush(now, &mut out);
        self.check_host(host);
        self.carry_out(host, out);
    }

    fn resume(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            return;
        }
        let events = std::mem::take(&mut self.hosts[host].stalled);
        if !events.is_empty() {
            self.run_node(host, events);
        }
    }

    fn carry_out(&mut self, host: usize, out: Effects) {
        for (to, message) in out.sends {
            self.send(host, usize::from(to.0) - 1, message);
        }
        for (connection, bytes) in out.replies {
            let delay = self.random.between(20, 200);
            if let Some(client) = self.client_of(connection)
                && !bytes.is_empty()
            {
                // A connection keeps its order.
                let at = (self.now + delay).max(self.clients[client].last_delivery + 1);
                self.clients[client].last_delivery = at;
                self.after(at, Happening::ToClient { client, connection, bytes });
            }
        }
        for notice in out.notices {
            match notice {
                tholos_node::Notice::LeaderElected { .. } => self.report.elections += 1,
                tholos_node::Notice::SnapshotInstalled { .. } => self.report.installs += 1,
                tholos_node::Notice::ReplicaDiverged { .. } | tholos_node::Notice::StatesDiffer { .. } => {
                    self.violate(format!("the nodes themselves find that states differ: {notice:?}"));
                }
                tholos_node::Notice::SnapshotResumed { .. } => self.report.resumed += 1,
                _ => {}
            }
        }
        if self.hosts[host].snapshots.push(out.snapshots) {
            self.begin_snapshot_work(host);
        }
        if let Some(before) = out.release {
            self.hosts[host].release(before);
        }
        if self.hosts[host].append(out.appends) {
            self.begin_write(host);
        }
    }

    fn begin_snapshot_work(&mut self, host: usize) {
        self.hosts[host].snapshots.busy = true;
        let (low, high) = self.hosts[host].snapshots.piece_us;
        let delay = self.random.between(low, high);
        let boot = self.hosts[host].boot;
        self.after(self.now + delay, Happening::SnapshotWork { host, boot });
    }

    fn snapshot_work(&mut self, host: usize, boot: u64) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        self.hosts[host].snapshots.busy = false;
        let Ok(event) = self.hosts[host].snapshots.step() else { return self.disk_failed(host) };
        if let Some(event) = event {
            if matches!(event, Event::SnapshotSaved { .. }) {
                self.report.checkpoints += 1;
            }
            self.give(host, event);
        }
        if self.hosts[host].node.is_some() && self.hosts[host].snapshots.push(Vec::new()) {
            self.begin_snapshot_work(host);
        }
    }

    fn begin_write(&mut self, host: usize) {
        if !self.hosts[host].begin_write() {
            return self.disk_failed(host);
        }
        let (low, high) = self.hosts[host].sync_us;
        let delay = self.random.between(low, high);
        let boot = self.hosts[host].boot;
        self.after(self.now + delay, Happening::WriteDone { host, boot });
    }

    fn write_done(&mut self, host: usize, boot: u64) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        let Some(AppendSeq(seq)) = self.hosts[host].end_write() else { return self.disk_failed(host) };
        let lsn = self.hosts[host].durable_lsn();
        self.give(host, Event::DurableLsn(lsn));
        self.give(host, Event::Durable { seq: AppendSeq(seq) });
        if self.hosts[host].node.is_some() && self.hosts[host].writing.is_none() {
            if self.hosts[host].has_waiting() {
                self.begin_write(host);
            } else if self.random.below(4) == 0 && !self.hosts[host].seal() {
                self.disk_failed(host);
            }
        }
    }

    /// R23: the node stops. Here its power goes with it.
    fn disk_failed(&mut self, host: usize) {
        self.crash(host, true);
        let delay = self.random.between(10_000, 2_000_000);
        self.after(self.now + delay, Happening::Start { host });
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let message = if self.through_bytes { through_bytes(&message) } else { message };
        for delay in self.net.deliveries(from, to, &mut self.random) {
            let message = message.clone();
            self.after(self.now + delay, Happening::Deliver { to, from, message });
        }
    }

    fn crash(&mut self, host: usize, power: bool) {
        if self.hosts[host].node.is_none() {
            return;
        }
        let crash = if power { Crash::Power(self.random.bits()) } else { Crash::Process };
        self.hosts[host].crash(crash);
        for client in 0..self.clients.len() {
            if let Some((connection, at)) = self.clients[client].connection
                && at == host
            {
                let delay = self.random.between(20, 2_000);
                self.after(self.now + delay, Happening::Closed { client, connection });
            }
        }
        // The others notice by a broken connection, or later by silence.
        for other in (0..NODES).filter(|other| *other != host) {
            if self.random.below(2) == 0 && !self.net.is_cut(host, other) {
                let node = NodeId(host as u16 + 1);
                let (boot, event) = (self.hosts[other].boot, Event::PeerDown { node });
                let delay = self.random.between(50, 1_000);
                self.after(self.now + delay, Happening::ToNode { host: other, boot, event });
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.report.faults.count(&fault);
        match fault {
            Fault::Crash { host, power, down_us } => {
                self.crash(host, power);
                self.after(self.now + down_us, Happening::Start { host });
            }
            Fault::CrashAll { power, down_us } => {
                for host in 0..NODES {
                    self.crash(host, power);
                    let delay = down_us + self.random.below(500_000);
                    self.after(self.now + delay, Happening::Start { host });
                }
            }
            Fault::CrashInWrite { host, changes } => self.hosts[host].die_after(changes),
            Fault::Pause { host, for_us } => {
                let until = self.now + for_us;
                self.hosts[host].paused_until = until;
                self.after(until, Happening::Resume { host });
            }
            Fault::Cut { from, to } => self.net.set_cut(from, to, true),
            Fault::Mend { from, to } => self.net.set_cut(from, to, false),
            Fault::Weather { loss, duplication, delay_us, stragglers } => {
                self.net.loss = loss;
                self.net.duplication = duplication;
                self.net.delay_us = delay_us;
                self.net.stragglers = stragglers;
            }
            Fault::SlowDisk { host, sync_us } => self.hosts[host].sync_us = sync_us,
            Fault::ClockOffset { host, ms } => self.hosts[host].wall_offset_ms = ms,
        }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.net.heal();
        for host in 0..NODES {
            self.hosts[host].sync_us = (100, 400);
            self.hosts[host].snapshots.piece_us = (50, 2_000);
            self.hosts[host].paused_until = self.now.min(self.hosts[host].paused_until);
            self.resume(host);
            self.after(self.now, Happening::Start { host });
        }
    }

    fn client_of(&self, connection: ClientId) -> Option<usize> {
        self.clients.iter().position(|client| client.connection.is_some_and(|(id, _)| id == connection))
    }

    fn client_wakes(&mut self, at: usize) {
        let pause = self.random.between(5_000, 250_000);
        self.after(self.now + pause, Happening::ClientWakes { client: at });
        let client = &mut self.clients[at];
        if let Some((connection, host)) = client.connection {
            if client.is_idle() {
                let commands = client.next_commands(self.now, &mut self.mortals);
                let boot = self.hosts[host].boot;
                let event = Event::Commands { client: connection, commands };
                let delay = self.random.between(20, 200);
                self.after(self.now + delay, Happening::ToNode { host, boot, event });
            } else if self.now - client.sent_at > CLIENT_PATIENCE_US {
                let boot = self.hosts[host].boot;
                client.disconnect(&mut self.history);
                let event = Event::Disconnected { client: connection };
                self.after(self.now + 100, Happening::ToNode { host, boot, event });
            }
            return;
        }
        let host = self.random.below(NODES as u64) as usize;
        if self.hosts[host].node.is_none() {
            return;
        }
        self.next_connection += 1;
        let id = ClientId(self.next_connection);
        client.connection = Some((id, host));
        let event = Event::Connected {
            client: id,
            port: Port::Gateway,
            remote: format!("10.0.1.{at}:40000"),
            local: String::from("10.0.0.1:6379"),
            loopback: true,
        };
        let boot = self.hosts[host].boot;
        self.after(self.now, Happening::ToNode { host, boot, event });
    }

    fn reach_client(&mut self, client: usize, connection: ClientId, bytes: &[u8]) {
        if self.clients[client].connection.is_some_and(|(id, _)| id == connection) {
            for byte in bytes {
                self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            let before = self.clients[client].answered;
            let (history, mortals) = (&mut self.history, &mut self.mortals);
            if let Err(text) = self.clients[client].receive(bytes, self.now, history, mortals) {
                self.violate(text);
            }
            if self.settings.verbose && before == self.clients[client].answered {
                println!("client {client}: {}", String::from_utf8_lossy(bytes));
            }
        }
    }

    fn closed(&mut self, client: usize, connection: ClientId) {
        if self.clients[client].connection.is_some_and(|(id, _)| id == connection) {
            self.clients[client].disconnect(&mut self.history);
        }
    }

    fn violate(&mut self, text: String) {
        self.report.violation.get_or_insert(format!("at {:.3} s: {text}", self.now as f64 / 1e6));
    }

    /// Agreement: one state for each index of each shard, one leader for each ballot.
    fn check_host(&mut self, host: usize) {
        let Some(node) = self.hosts[host].node.as_ref() else { return };
        let mut wrong = None;
        for number in 0..SHARDS {
            let id = ShardId(number);
            let Some(shard) = node.shard(id) else { continue };
            let me = NodeId(host as u16 + 1);
            if let Some(ballot) = shard.group.leading() {
                let leader = *self.leaders.entry((id, ballot)).or_insert(me);
                if leader != me {
                    wrong = Some(format!("{id}: both {leader} and {me} lead in {ballot}"));
                }
            }
            let (applied, digest) = (shard.group.applied_index().0, shard.keyspace.digest());
            let seen = (applied, digest);
            if self.applied.insert((host, id), seen) == Some(seen) {
                continue;
            }
            let first = *self.digests.entry((id, applied)).or_insert(digest);
            if first != digest {
                wrong =
                    Some(format!("{id}: {me} has another state at @{applied}: {digest:x}, not {first:x}"));
            }
        }
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    fn finish(mut self) -> Report {
        for client in 0..self.clients.len() {
            let late = self.history.iter().rev().any(|operation| {
                operation.client == self.clients[client].number
                    && operation.invoked >= LIVE_AGAIN_US
                    && matches!(operation.outcome, tholos_check::Outcome::Ok(_))
            });
            if !late && self.report.violation.is_none() {
                self.violate(format!("client {client} is not served after the faults have stopped"));
            }
            self.clients[client].disconnect(&mut self.history);
        }
        if self.report.violation.is_none() {
            match linearizable(&self.history, &Limits::default()) {
                Verdict::Ok(_) => {}
                Verdict::Violation(violation) => self.violate(violation.explain()),
                Verdict::Undecided(undecided) => self.violate(format!("the checker gave up: {undecided:?}")),
            }
        }
        self.report.operations = self.clients.iter().map(|client| client.answered).sum();
        self.report.refused = self.clients.iter().map(|client| client.refused).sum();
        self.report.trace = self.hash;
        self.report
    }
}

fn through_bytes(message: &PeerMessage) -> PeerMessage {
    let mut bytes = Vec::new();
    tholos_wire::encode_peer(message, &mut bytes);
    let back = tholos_wire::decode_peer(Bytes::from(bytes)).expect("what was encoded can be decoded");
    assert_eq!(&back, message, "a message changed on the wire");
    back
}
