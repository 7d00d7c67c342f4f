//! One run of the whole cluster: an event queue, true time in microseconds, one seed.

mod disk;
mod injection;
mod leases;
mod load;
mod membership;
mod rescue;
mod room;
mod rot;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, MetaState, NodeId, RecoverOrder};
use tholos_node::{ClientId, Effects, Event, Notice, PeerMessage};
use tholos_paxos::{Millis, Options, Planted};
use tholos_ring::ShardId;

use crate::agreement::Agreement;
use crate::coverage::{Coverage, Reached};
use crate::crowd::{Crowd, Deed};
use crate::disaster::Disaster;
use crate::elastic::Elastic;
use crate::faults::Fault;
use crate::founding::{genesis, hosts_of, nodes_of};
use crate::host::{Host, Started};
use crate::log_limits::LogLimits;
use crate::net::Net;
use crate::observer::{Cause, Observer};
use crate::plan::plan;
use crate::queue::Queue;
use crate::random::Random;
use crate::report::{Report, Settings, Violation};
use crate::trail::Trail;
use leases::{asks_to_read, clock_rate_ppm};
use tholos_check::{Limits, Verdict, linearizable};

/// True time at which faults stop.
pub const FAULTS_END_US: u64 = 50_000_000;
/// True time at which the run ends.
pub const RUN_END_US: u64 = 62_000_000;
/// From here on the cluster must serve again.
const LIVE_AGAIN_US: u64 = 56_000_000;
const TICK_US: u64 = 10_000;
/// Replicas of a shard.
pub const REPLICAS: usize = 3;
/// Shards of a cluster.
pub const SHARDS: u16 = 4;
/// The shards and the meta group.
const GROUPS: u16 = SHARDS + 1;
/// Clients of a run.
pub const CLIENTS: u64 = 4;
/// Decided entries sent again under a new ballot, in bytes: few, so that a replica that lacks more needs a snapshot.
const RESENT_BYTES_MAX: usize = 2 << 10;
/// How long a node that is told to stop may take to hand over.
const DRAIN_US: u64 = 2_000_000;

#[derive(Debug)]
enum Happening {
    Tick {
        host: usize,
        boot: u64,
    },
    Deliver {
        to: usize,
        from: usize,
        /// Which node the sender was.
        sender: NodeId,
        /// In which of its boots it was sent.
        sent_in: u64,
        boot: u64,
        message: PeerMessage,
    },
    Write {
        host: usize,
        boot: u64,
    },
    WriteDone {
        host: usize,
        boot: u64,
    },
    /// A log that refuses writers looks for room, though nothing may have come.
    LookForRoom {
        host: usize,
        boot: u64,
    },
    SnapshotWork {
        host: usize,
        boot: u64,
    },
    Resume {
        host: usize,
    },
    ToNode {
        host: usize,
        boot: u64,
        event: Event,
    },
    ToClient {
        connection: ClientId,
        bytes: Bytes,
    },
    Closed {
        connection: ClientId,
    },
    Membership,
    /// Machines are lost for good.
    Strike,
    /// The operator looks at what is left.
    Operator,
    /// The operator has read a plan and wants it.
    Recover {
        host: usize,
        boot: u64,
        order: Box<RecoverOrder>,
    },
    BarKept {
        host: usize,
        boot: u64,
    },
    MapKept {
        host: usize,
        boot: u64,
        state: Box<MetaState>,
    },
    ClientWakes {
        client: usize,
    },
    Fault(Fault),
    Drained {
        host: usize,
        boot: u64,
        until: u64,
        down_us: u64,
    },
    Start {
        host: usize,
    },
    /// What ends here in the log of a machine looks like a tear: it is killed once that can be noticed.
    Lost {
        host: usize,
        boot: u64,
        lsn: u64,
        down_us: u64,
    },
    Heal,
}

/// The world.
pub struct Sim {
    random: Random,
    now: u64,
    queue: Queue<Happening>,
    map: ClusterMap,
    hosts: Vec<Host>,
    observers: Vec<Observer>,
    net: Net,
    crowd: Crowd,
    agreement: Agreement,
    /// Whether messages go through their bytes.
    through_bytes: bool,
    /// Whether leaders read by leases.
    leases: bool,
    elastic: Elastic,
    /// In runs in which machines are lost for good.
    disaster: Option<Disaster>,
    /// Of chance that decides who has much to do.
    busy_salt: u64,
    /// Whether no clock was ever off.
    clocks_true: bool,
    hash: u64,
    coverage: Coverage,
    trail: Trail,
    violation: Option<Violation>,
    troubles: u64,
    /// What has happened so far, counted.
    events: u64,
}

/// Runs one seed to its end. A broken invariant of the cores, which panics, is a violation like any other.
pub fn run(settings: Settings) -> Report {
    let end = settings.narrow.end_us.unwrap_or(RUN_END_US);
    let mut sim = Sim::new(settings);
    let played = catch_unwind(AssertUnwindSafe(|| sim.play(end)));
    if let Err(cause) = played {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| String::from(*text)));
        sim.violate(None, format!("an invariant broke: {}", text.unwrap_or_default()));
    }
    sim.finish(end)
}

/// The faults that a run plans, in words.
pub fn planned(settings: &Settings) -> Vec<Vec<(u64, Fault)>> {
    let seed = settings.seed;
    let elastic = Elastic::of(seed);
    // A minority that loses its disks is enough.
    let no_rot = elastic.wipes || settings.recovery;
    let mut troubles = plan(&mut Random::new(seed), hosts_of(seed), elastic.is_on, no_rot);
    let away = elastic.losses(seed, hosts_of(seed)).into_iter();
    let away: Vec<_> = away
        .map(|(at, host, down_us)| (at, Fault::Crash { host, power: seed.is_multiple_of(2), down_us }))
        .collect();
    if !away.is_empty() {
        troubles.push(away);
    }
    troubles.extend(LogLimits::of(seed).full_disks(hosts_of(seed)));
    troubles.sort_by_key(|trouble| trouble[0].0);
    troubles
}

/// Limits of the groups, small enough to be met: entries in pieces, one at a time, followers that wait for their turn.
fn options(random: &mut Random, leases: bool, planted: Planted) -> Options {
    let defaults = Options::default();
    let mut pick = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
    Options {
        message_bytes_max: pick(&[1, 300, 1 << 20]) as usize,
        window_entries_max: pick(&[1, 4, 64]),
        follower_entries_max: pick(&[2, 1024]),
        read_rounds_max: pick(&[1, 8]) as usize,
        resent_bytes_max: RESENT_BYTES_MAX,
        leases,
        planted,
        ..defaults
    }
}

impl Sim {
    fn new(settings: Settings) -> Sim {
        let (narrow, nodes) = (&settings.narrow, hosts_of(settings.seed));
        let mut elastic = Elastic::of(settings.seed);
        let disaster = settings.recovery.then(|| Disaster::of(settings.seed));
        elastic.wipes &= disaster.is_none();
        let mut troubles = planned(&settings);
        let mut random = Random::new(settings.seed ^ 0x7a1e ^ (narrow.salt << 40));
        let mut number = 0..;
        troubles.retain(|_| narrow.keeps(number.next().expect("numbers do not end")));
        let count = narrow.clients.unwrap_or(CLIENTS);
        let crowd = Crowd::new(count, narrow.commands.unwrap_or(u64::MAX), &mut random);
        // Chance of their own, so that seeds which were looked at before stay what they were.
        let leases = !settings.seed.is_multiple_of(4);
        let mut rates = Random::new(settings.seed ^ 0x0c10_c4a7);
        let options = options(&mut random, leases, settings.planted);
        let mut hosts: Vec<Host> =
            (1..=nodes).map(|number| Host::new(NodeId(number as u16), options)).collect();
        for host in hosts.iter_mut().filter(|_| leases) {
            host.clock_rate_ppm = clock_rate_ppm(&mut rates);
        }
        for host in &mut hosts {
            if settings.seed % 5 == 1 {
                host.leader_zones = vec![String::from("z1"), String::from("z3")];
            }
            if settings.seed % 7 == 2 {
                // Fewer than there are clients.
                host.sessions_bytes_max = 1_000;
            }
            host.by_itself = (elastic.replace_after_ms.map(Millis), elastic.auto_placement);
        }
        LogLimits::of(settings.seed).give(&mut hosts);
        let mut sim = Sim {
            through_bytes: random.below(8) == 0,
            leases,
            random,
            now: 0,
            queue: Queue::new(),
            map: genesis(nodes_of(settings.seed), &elastic),
            hosts,
            observers: (0..nodes).map(|_| Observer::new(GROUPS, nodes)).collect(),
            net: Net::new(nodes),
            crowd,
            agreement: Agreement::new(nodes, GROUPS),
            elastic,
            disaster,
            busy_salt: settings.seed ^ 0xb5e7,
            clocks_true: true,
            hash: 0xcbf2_9ce4_8422_2325,
            coverage: Coverage::default(),
            trail: Trail::new(settings.trail),
            violation: None,
            troubles: troubles.len() as u64,
            events: 0,
        };
        if sim.through_bytes {
            sim.coverage.count(Reached::ThroughBytes);
        }
        sim.net.reorders = sim.random.below(2) == 0;
        let clocks_differ = sim.random.below(2) == 0;
        if sim.elastic.is_on {
            sim.after(1_000_000, Happening::Membership);
        }
        if let Some(disaster) = &sim.disaster {
            sim.after(disaster.at_us, Happening::Strike);
        }
        for host in 0..nodes {
            let offset = sim.random.below(6_000) as i64 - 3_000;
            if clocks_differ {
                sim.set_clock(host, offset);
                sim.coverage.count(Reached::ClockOff);
            }
            // Where snapshots take long, most crashes come in the middle of one.
            if sim.random.below(2) == 0 {
                sim.hosts[host].snapshots.piece_us = (2_000, 80_000);
            }
            sim.after(sim.now, Happening::Start { host });
        }
        for client in 0..sim.crowd.len() {
            let at = 500_000 + sim.random.below(500_000);
            sim.after(at, Happening::ClientWakes { client });
        }
        for (at, fault) in troubles.into_iter().flatten() {
            sim.after(at, Happening::Fault(fault));
        }
        sim.after(FAULTS_END_US, Happening::Heal);
        sim
    }

    fn play(&mut self, end: u64) {
        while self.violation.is_none()
            && let Some((at, happening)) = self.queue.pop()
            && at <= end
        {
            self.now = at;
            self.events += 1;
            self.happen(happening);
        }
    }

    /// Something that will happen at a time.
    fn after(&mut self, at: u64, happening: Happening) {
        self.queue.push(at.max(self.now), happening);
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    fn happen(&mut self, happening: Happening) {
        self.mix(self.now);
        match happening {
            Happening::Tick { host, boot } => {
                if self.hosts[host].boot == boot && self.hosts[host].node.is_some() {
                    self.give(host, Event::Tick);
                    self.tell_load(host);
                    self.after(self.now + TICK_US, Happening::Tick { host, boot });
                }
            }
            // It came by a connection to a process that is gone, and the ledgers of R21 rest on that.
            Happening::Deliver { to, boot, message: PeerMessage::Counted(_), .. }
                if self.hosts[to].boot != boot => {}
            // Nor is a process heard once its successor was: a node has one live process, and the connections know which (R21).
            Happening::Deliver { to, from, sent_in, message: PeerMessage::Counted(_), .. }
                if !self.hosts[to].hears_boot(from, sent_in) => {}
            // Nobody hears a machine as the node that it was before it was wiped.
            Happening::Deliver { from, sender, .. } if self.hosts[from].id != sender => {}
            Happening::Deliver { to, from, message, sender, .. } => {
                self.mix(to as u64 * 16 + from as u64);
                self.trail.message(self.now, (from, to), "reaches", &message);
                let from = sender;
                self.give(to, Event::Peer { from, message });
            }
            Happening::Write { host, boot } => {
                if self.hosts[host].boot == boot && self.hosts[host].writing.is_none() {
                    self.begin_write(host);
                }
            }
            Happening::WriteDone { host, boot } => self.write_done(host, boot),
            Happening::LookForRoom { host, boot } => self.look_for_room(host, boot),
            Happening::SnapshotWork { host, boot } => self.snapshot_work(host, boot),
            Happening::Resume { host } => self.resume(host),
            Happening::ToNode { host, boot, event } => {
                if self.hosts[host].boot == boot {
                    self.give(host, event);
                }
            }
            Happening::BarKept { host, boot } => {
                if self.hosts[host].boot == boot && self.hosts[host].node.is_some() {
                    self.hosts[host].barred = true;
                    self.give(host, Event::BarKept);
                }
            }
            Happening::Membership => self.membership(),
            Happening::Strike => self.strike(),
            Happening::Operator => self.operator(),
            Happening::Recover { host, boot, order } => self.recover(host, boot, *order),
            Happening::MapKept { host, boot, state } => self.map_kept(host, boot, *state),
            Happening::ToClient { connection, bytes } => self.reach_client(connection, &bytes),
            Happening::Closed { connection } => self.crowd.closed(connection),
            Happening::ClientWakes { client } => self.client_wakes(client),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Drained { host, boot, until, down_us } => self.drained(host, boot, until, down_us),
            Happening::Start { host } => self.start(host),
            Happening::Lost { host, boot, lsn, down_us } => self.lost(host, boot, lsn, down_us),
            Happening::Heal => self.heal(),
        }
    }

    fn start(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let is_member = self.map.node(machine.id).is_some() || machine.begun.is_some();
        if machine.node.is_some() || machine.retired || machine.is_off || !is_member {
            return;
        }
        let mut out = Effects::default();
        let now = self.now;
        let (map, random, coverage) = (&self.map, &mut self.random, &mut self.coverage);
        let started = self.hosts[host].start(map, now, random, coverage, &mut out);
        match started {
            Started::Up => {}
            Started::DiskFailed => {
                self.trail.note(now, None, || format!("n{} cannot start", host + 1));
                let crash = self.power_crash(host);
                self.hosts[host].crash(crash);
                let delay = self.random.between(10_000, 2_000_000);
                return self.after(now + delay, Happening::Start { host });
            }
            Started::Refused(reason) => return self.retire(host, Reached::RotFound, reason),
            Started::Forgot(what) => return self.violate(None, format!("n{}: {what}", host + 1)),
        }
        self.trail.note(now, None, || format!("n{} starts", host + 1));
        self.agreement.restarted(host);
        self.observers[host].restarted(&mut self.coverage);
        let boot = self.hosts[host].boot;
        self.after(now + self.random.clone().below(TICK_US), Happening::Tick { host, boot });
        self.check_host(host);
        self.carry_out(host, Cause::Other, out);
    }

    /// A node does not start again, which only rot explains.
    fn retire(&mut self, host: usize, why: Reached, reason: String) {
        if !self.hosts[host].rotten {
            return self.violate(None, format!("n{} cannot start again: {reason}", host + 1));
        }
        self.trail.note(self.now, None, || format!("n{} stays away: {reason}", host + 1));
        self.coverage.count(why);
        self.hosts[host].retired = true;
    }

    /// Hands an event to a node, now or when its machine goes on.
    fn give(&mut self, host: usize, event: Event) {
        if self.hosts[host].node.is_none() {
            return;
        }
        if asks_to_read(&event)
            && let Some(for_us) = self.hosts[host].pauses_in_the_middle.take()
            && self.hosts[host].paused_until <= self.now
        {
            self.coverage.count(Reached::PausedInTheMiddle);
            self.hosts[host].read_clock_at = Some(self.now);
            self.hosts[host].stalled.push(event);
            return self.pause(host, for_us);
        }
        if self.hosts[host].paused_until > self.now {
            // While it stands still only one tick waits, as with a real timer.
            if !matches!(event, Event::Tick) {
                self.hosts[host].stalled.push(event);
            }
            return;
        }
        let cause = Cause::of(&event);
        self.run_node(host, cause, self.now, [event]);
    }

    fn pause(&mut self, host: usize, for_us: u64) {
        self.hosts[host].paused_until = self.now + for_us;
        self.after(self.now + for_us, Happening::Resume { host });
    }

    /// Lets a node handle events that it read its clock for at `read_clock_at`.
    fn run_node(
        &mut self,
        host: usize,
        cause: Cause,
        read_clock_at: u64,
        events: impl IntoIterator<Item = Event>,
    ) {
        let now = self.hosts[host].now(read_clock_at);
        let later = self.hosts[host].now(self.now);
        let mut leased = Vec::new();
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let mut out = Effects::default();
        for event in events {
            self.trail.event(self.now, host, &event);
            node.handle(now, event, &mut out);
        }
        node.flush(now, &mut out);
        if node.shards_held_back() > 0 {
            self.coverage.count(Reached::WritesHeld);
        }
        while node.keeps_back() {
            leased.extend(node.releases(later));
            node.release(later, &mut out);
        }
        self.check_leases(host, &leased);
        self.note_rescues(host, &out.notices);
        self.check_host(host);
        self.carry_out(host, cause, out);
    }

    fn resume(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            return;
        }
        let mut events = std::mem::take(&mut self.hosts[host].stalled);
        if let Some(at) = self.hosts[host].read_clock_at.take()
            && !events.is_empty()
        {
            let first = events.remove(0);
            self.run_node(host, Cause::Other, at, [first]);
        }
        if !events.is_empty() {
            self.run_node(host, Cause::Other, self.now, events);
        }
    }

    fn carry_out(&mut self, host: usize, cause: Cause, out: Effects) {
        self.observers[host].note(cause, &out, &mut self.coverage);
        for append in &out.appends {
            self.trail.append(self.now, host, append.shard, &append.record);
        }
        for notice in &out.notices {
            self.trail.notice(self.now, host, notice);
            if let Notice::ReplicaDiverged { .. } | Notice::StatesDiffer { .. } = notice {
                self.violate(None, format!("the nodes themselves find that states differ: {notice:?}"));
            }
        }
        for (to, message) in out.sends {
            // Who was wiped is reached as nobody any more.
            if let Some(to) = self.hosts.iter().position(|host| host.id == to) {
                self.send(host, to, message);
            }
        }
        for (connection, bytes) in out.replies {
            let delay = self.random.between(20, 200);
            if let Some((client, _)) = self.crowd.of(connection)
                && !bytes.is_empty()
            {
                let at = self.crowd.arrival(client, self.now, delay);
                self.after(at, Happening::ToClient { connection, bytes });
            }
        }
        if out.restart {
            self.restart_in_order(host);
        }
        if out.bar {
            let boot = self.hosts[host].boot;
            let delay = self.random.between(500, 50_000);
            self.after(self.now + delay, Happening::BarKept { host, boot });
        }
        if let Some(state) = out.map {
            let boot = self.hosts[host].boot;
            let delay = self.random.between(500, 50_000);
            self.after(self.now + delay, Happening::MapKept { host, boot, state });
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

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let message = if self.through_bytes { through_bytes(&message) } else { message };
        let (boot, sender, sent_in) = (self.hosts[to].boot, self.hosts[from].id, self.hosts[from].boot);
        let arrivals = self.net.arrivals((from, to), self.now, &mut self.random, &mut self.coverage);
        match arrivals {
            [Some(one), None] => {
                self.after(one, Happening::Deliver { to, from, sender, sent_in, boot, message })
            }
            [Some(one), Some(other)] => {
                let again = message.clone();
                self.after(one, Happening::Deliver { to, from, sender, sent_in, boot, message });
                self.after(other, Happening::Deliver { to, from, sender, sent_in, boot, message: again });
            }
            _ => self.trail.message(self.now, (from, to), "does not reach", &message),
        }
    }

    fn client_wakes(&mut self, at: usize) {
        let pause = self.random.between(5_000, 250_000);
        self.after(self.now + pause, Happening::ClientWakes { client: at });
        let hosts = &self.hosts;
        let up = |host: usize| hosts[host].node.is_some();
        let Some(deed) = self.crowd.wake(at, self.now, &mut self.random, hosts.len(), up) else { return };
        let Deed { host, delay_us, event, words } = deed;
        if let Some(words) = words {
            self.trail.note(self.now, None, || format!("client {at} to n{}: {words}", host + 1));
        }
        let boot = self.hosts[host].boot;
        self.after(self.now + delay_us, Happening::ToNode { host, boot, event });
    }

    fn reach_client(&mut self, connection: ClientId, bytes: &[u8]) {
        let Some((client, host)) = self.crowd.of(connection) else { return };
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.trail.note(self.now, None, || {
            let text = String::from_utf8_lossy(bytes);
            format!("client {client} has: {}", text.trim_end().replace("\r\n", " "))
        });
        self.crowd.seen.prompt = self.clocks_true && self.now > LIVE_AGAIN_US;
        if self.hosts[host].is_full() && bytes.first() == Some(&b'$') {
            self.coverage.count(Reached::ReadWhileFull);
        }
        if let Err(text) = self.crowd.receive(client, bytes, self.now) {
            self.violate(None, text);
        }
    }

    fn violate(&mut self, shard: Option<ShardId>, text: String) {
        self.violation.get_or_insert(Violation { at: self.now, shard, text });
    }

    fn check_host(&mut self, host: usize) {
        // Who is lost for good goes its own way, should it come back: only what it tells clients counts.
        let Some(node) = self.hosts[host].node.as_ref().filter(|_| !self.hosts[host].is_lost) else { return };
        if let Err((shard, wrong)) = self.agreement.check(host, node, self.now) {
            self.violate(Some(shard), wrong);
        }
    }

    fn finish(mut self, end: u64) -> Report {
        for client in self.crowd.leave(LIVE_AGAIN_US) {
            if end >= RUN_END_US {
                self.violate(None, format!("client {client} is not served after the faults have stopped"));
            }
        }
        if end >= RUN_END_US {
            self.check_recovery();
            self.check_membership();
        }
        if self.violation.is_none() {
            let judged = self.disaster.as_ref().map(|disaster| disaster.judge(&self.crowd.seen.history));
            match linearizable(judged.as_ref().unwrap_or(&self.crowd.seen.history), &Limits::default()) {
                Verdict::Ok(_) => {}
                Verdict::Violation(violation) => {
                    let culprit = &violation.operations[violation.culprit];
                    self.now = culprit.returned.unwrap_or(self.now);
                    let shard = tholos_ring::shard_of(tholos_ring::slot(&violation.key), SHARDS);
                    self.violate(Some(shard), violation.explain());
                }
                Verdict::Undecided(undecided) => {
                    self.violate(None, format!("the checker gave up: {undecided:?}"))
                }
            }
        }
        for host in &self.hosts {
            host.count(&mut self.coverage);
        }
        let mut coverage = self.coverage;
        coverage.add(&self.crowd.seen.coverage);
        for host in &self.hosts {
            for disk in [&host.disk, &host.snapshots.disk] {
                let fates = disk.sector_fates();
                coverage.add_to(Reached::SectorKept, fates.kept);
                coverage.add_to(Reached::SectorLost, fates.lost);
                coverage.add_to(Reached::SectorTorn, fates.torn);
            }
        }
        let (operations, refused) = self.crowd.answered();
        Report {
            trace: self.hash,
            operations,
            refused,
            troubles: self.troubles,
            events: self.events,
            coverage,
            violation: self.violation,
            lines: self.trail.take(),
        }
    }
}

fn through_bytes(message: &PeerMessage) -> PeerMessage {
    let mut bytes = Vec::new();
    tholos_wire::encode_peer(message, &mut bytes);
    let back = tholos_wire::decode_peer(Bytes::from(bytes)).expect("what was encoded can be decoded");
    assert_eq!(&back, message, "a message changed on the wire");
    back
}
