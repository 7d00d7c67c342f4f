//! Nodes driven by hand: one thread, a clock that moves when told, disks that are instant, clients that are strings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, MetaCommand, MetaState, NodeId, NodeRow};
use tholos_node::{
    ChunkRead, ClientId, Effects, Event, MetaFailure, Node, NodeConfig, Notice, Now, PeerMessage, Port,
    SnapshotJob, SnapshotLoader,
};
use tholos_paxos::{AppendSeq, Entry, Index, Millis, Record};
use tholos_ring::ShardId;

/// Wall clock at the start.
pub const WALL: u64 = 1_700_000_000_000;
/// Rounds after which events that go on for ever are a bug.
const ROUNDS_MAX: usize = 10_000;

/// A cluster whose nodes hear each other at once.
pub struct Cluster {
    pub nodes: Vec<Node>,
    now: u64,
    last_client: u64,
    /// What each client has been sent and not read.
    output: BTreeMap<(usize, ClientId), Vec<u8>>,
    pub closed: BTreeSet<(usize, ClientId)>,
    completed: BTreeMap<(usize, ClientId), u32>,
    mail: VecDeque<(NodeId, usize, PeerMessage)>,
    /// Nodes that hear nobody.
    cut: BTreeSet<usize>,
    cut_pairs: BTreeSet<[usize; 2]>,
    /// Whether disks are slow without end, and what waits for them.
    held: bool,
    /// The node whose disk alone is so.
    pub stuck: Option<usize>,
    waiting: BTreeMap<usize, AppendSeq>,
    /// What becomes of snapshots to be written.
    pub saves: Saves,
    /// Snapshots written and held back.
    saved: Vec<(usize, Event)>,
    /// Pieces of work on snapshots that are done in 10 ms, at most, and how many of them are left.
    pub pace: usize,
    jobs_left: usize,
    /// Work on snapshots that waits.
    jobs: VecDeque<(usize, SnapshotJob)>,
    /// The chunks of each snapshot file, and of those that arrive.
    files: BTreeMap<(usize, ShardId, Index), Vec<Bytes>>,
    incoming: BTreeMap<(usize, ShardId), (u64, Vec<Bytes>)>,
    /// Chunks taken from leaders.
    pub taken: usize,
    /// For so long the next node that reads by a lease stands still before it looks at its clock again.
    pub stands_still: u64,
    /// Whether no snapshot can be read.
    pub unreadable: bool,
    /// Chunks that were to be read, and could not be.
    pub unread: usize,
    /// What the nodes noticed.
    pub notices: Vec<(usize, Notice)>,
    /// Snapshots written to their ends.
    pub finished: usize,
    /// Chunks of snapshots written.
    pub chunks: usize,
    /// Bytes of the largest chunk of a snapshot.
    pub largest_chunk: usize,
    /// The newest release of a node's log.
    pub released: BTreeMap<usize, AppendSeq>,
    last_append: BTreeMap<usize, AppendSeq>,
    /// The records of each node's log.
    records: BTreeMap<usize, Vec<(ShardId, Record)>>,
    /// Bytes of the largest record.
    pub largest_append: usize,
    /// Messages of shards that were sent; what is between nodes alone does not count.
    pub shard_messages: usize,
    /// Messages that are lost.
    pub lost: fn(&PeerMessage) -> bool,
    /// Those that are lost from one node to another.
    pub lost_between: fn(usize, usize, &PeerMessage) -> bool,
    /// Those that are held up on their way, until [`Cluster::release_mail`].
    pub held_up: fn(usize, usize, &PeerMessage) -> bool,
    /// By how much each node's wall clock is behind, in milliseconds.
    pub clock_behind: fn(usize) -> u64,
    held_mail: Vec<(NodeId, usize, PeerMessage)>,
    /// What happens to messages to a node on their way.
    pub spoil: fn(usize, &mut PeerMessage),
    /// The map that the cluster was founded with.
    genesis: ClusterMap,
    /// The newest map on each node's disk, and whether disks take newer ones.
    kept: BTreeMap<usize, MetaState>,
    pub keeps_maps: bool,
    /// Nodes that begin no replicas any more, as their disks say.
    barred: BTreeSet<usize>,
    /// What the meta group answered.
    pub meta_answers: Vec<Result<u64, MetaFailure>>,
    /// Done to the settings of every node that joins or starts again.
    pub settings: fn(&mut NodeConfig),
    /// Nodes that were told to restart.
    pub to_restart: Vec<usize>,
    boots: u64,
}

/// What becomes of snapshots to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Saves {
    AtOnce,
    Fail,
    /// Those of one shard are written for a long time.
    HoldOf(ShardId),
}

/// One connection.
#[derive(Clone, Copy)]
pub struct Client {
    pub node: usize,
    pub id: ClientId,
}

pub fn row(number: usize) -> NodeRow {
    NodeRow {
        id: NodeId(0),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(number as u64),
        gateway: format!("127.0.0.1:{}", 6378 + number),
        cluster: format!("127.0.0.1:{}", 7000 + number),
        peer: format!("127.0.0.1:{}", 7100 + number),
        http: String::new(),
    }
}

impl Cluster {
    /// One node that leads all of 16 shards.
    pub fn single() -> Cluster {
        let mut cluster = Cluster::start(1, 1, |_| {});
        cluster.wait_for_leaders();
        cluster
    }

    /// Nodes n1 to n`nodes` of 16 shards, without leaders yet.
    pub fn start(nodes: usize, replicas: u8, configure: impl Fn(&mut NodeConfig)) -> Cluster {
        let rows = (1..=nodes).map(row).collect();
        let map = ClusterMap::genesis(ClusterId([7; 20]), rows, 16, replicas).expect("a valid map");
        let node = |number: usize| {
            let mut config = NodeConfig::new(NodeId(number as u16), number as u64, 40 + number as u64);
            configure(&mut config);
            Node::new(config, map.clone())
        };
        let mut cluster = Cluster {
            nodes: (1..=nodes).map(node).collect(),
            now: 1000,
            last_client: 0,
            output: BTreeMap::new(),
            closed: BTreeSet::new(),
            completed: BTreeMap::new(),
            mail: VecDeque::new(),
            cut: BTreeSet::new(),
            cut_pairs: BTreeSet::new(),
            held: false,
            stuck: None,
            waiting: BTreeMap::new(),
            saves: Saves::AtOnce,
            saved: Vec::new(),
            pace: usize::MAX,
            jobs_left: usize::MAX,
            jobs: VecDeque::new(),
            files: BTreeMap::new(),
            incoming: BTreeMap::new(),
            taken: 0,
            stands_still: 0,
            unreadable: false,
            unread: 0,
            notices: Vec::new(),
            finished: 0,
            chunks: 0,
            largest_chunk: 0,
            released: BTreeMap::new(),
            last_append: BTreeMap::new(),
            records: BTreeMap::new(),
            largest_append: 0,
            shard_messages: 0,
            lost: |_| false,
            lost_between: |_, _, _| false,
            held_up: |_, _, _| false,
            clock_behind: |_| 0,
            held_mail: Vec::new(),
            spoil: |_, _| {},
            genesis: map,
            kept: BTreeMap::new(),
            keeps_maps: true,
            barred: BTreeSet::new(),
            meta_answers: Vec::new(),
            settings: |_| {},
            to_restart: Vec::new(),
            boots: 100,
        };
        for at in 0..nodes {
            let (now, mut effects) = (cluster.now(), Effects::default());
            cluster.nodes[at].start(now, &mut effects);
            cluster.carry_out(at, effects);
        }
        cluster.settle();
        cluster
    }

    /// Stops a node, and starts it again with what its log holds, in the settings as they are when nothing is set.
    pub fn restart(&mut self, at: usize) {
        self.restart_with(at, false);
    }

    /// The same with a log of which nothing can be read any more.
    pub fn restart_rotten(&mut self, at: usize) {
        self.records.remove(&at);
        self.restart_with(at, true);
    }

    fn restart_with(&mut self, at: usize, rotten: bool) {
        self.boots += 1;
        let mut config = NodeConfig::new(NodeId(at as u16 + 1), self.boots, 7);
        (self.settings)(&mut config);
        let kept = self.kept.get(&at);
        // Who joined later began with a later map.
        let founder = self.genesis.node(config.me).is_some();
        let begun = kept.filter(|_| !founder).map_or(&self.genesis, |state| &state.map);
        let mut node = Node::new(config, begun.clone());
        if let Some(kept) = kept {
            node.recover_map(kept.clone());
        }
        if self.barred.contains(&at) {
            node.recover_barred();
        }
        for (shard, record) in self.records.entry(at).or_default().clone() {
            node.recover_record(shard, record, &mut |_, _| None).expect("its own log");
        }
        node.finish_recovery(|_| rotten).expect("what is lost is known");
        let mut effects = Effects::default();
        node.start(self.now(), &mut effects);
        self.nodes[at] = node;
        self.carry_out(at, effects);
    }

    /// The log of a node begins later than it did: of shards that it does not hold it has the last record only.
    pub fn release_records(&mut self, at: usize) {
        let records = self.records.remove(&at).unwrap_or_default();
        let node = &self.nodes[at];
        let (mut kept, gone): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(shard, _)| node.shard(*shard).is_some());
        kept.extend(gone.into_iter().collect::<BTreeMap<ShardId, Record>>());
        self.records.insert(at, kept);
    }

    /// A node that has joined starts, with the map that told it so.
    pub fn add_node(&mut self) {
        let at = self.nodes.len();
        let state = self.nodes[0].meta_state().clone();
        let mut config = NodeConfig::new(NodeId(at as u16 + 1), 60 + at as u64, 8);
        (self.settings)(&mut config);
        let mut node = Node::new(config, state.map.clone());
        node.recover_map(state.clone());
        self.kept.insert(at, state);
        let mut effects = Effects::default();
        node.start(self.now(), &mut effects);
        self.nodes.push(node);
        self.carry_out(at, effects);
        self.settle();
    }

    /// Has the meta group decide a command, asked of a node; what it answered.
    pub fn ask_meta(&mut self, at: usize, command: MetaCommand) -> Result<u64, String> {
        self.handle(at, Event::AskMeta { asker: 7, command: Box::new(command) });
        for _ in 0..600 {
            self.settle();
            if let Some(answer) = self.meta_answers.pop() {
                return answer.map_err(|failure| failure.text);
            }
            self.advance(10);
        }
        panic!("the meta group does not answer");
    }

    pub fn now(&self) -> Now {
        Now { mono: Millis(self.now), wall: Millis(WALL + self.now) }
    }

    /// What the clocks of a node say.
    fn now_at(&self, at: usize) -> Now {
        let now = self.now();
        Now { wall: Millis(now.wall.0 - (self.clock_behind)(at)), ..now }
    }

    /// Time passes, and nobody has looked at the clock yet.
    pub fn skip(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Lets time pass.
    pub fn advance(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.now += 10;
            self.jobs_left = self.pace;
            for at in 0..self.nodes.len() {
                self.handle(at, Event::Tick);
            }
            self.settle();
        }
    }

    /// Lets time pass until every shard has a leader that serves.
    pub fn wait_for_leaders(&mut self) {
        for _ in 0..1000 {
            let map = self.nodes[0].map();
            let led = |shard: u16| {
                let serves = |node: &Node| {
                    let shard = node.shard(tholos_ring::ShardId(shard));
                    shard.is_some_and(|shard| shard.group.serving())
                };
                self.nodes.iter().any(serves)
            };
            if (0..map.shard_count).all(led) {
                return self.advance(200);
            }
            self.advance(10);
        }
        panic!("no leaders");
    }

    /// Holds back all disks, or lets them go on.
    pub fn hold_disk(&mut self, held: bool) {
        self.held = held;
        if !held {
            for (at, seq) in std::mem::take(&mut self.waiting) {
                self.handle(at, Event::Durable { seq });
            }
            self.settle();
        }
    }

    /// Tells of the snapshots that were held back, and writes the next ones at once.
    pub fn release_saves(&mut self) {
        self.saves = Saves::AtOnce;
        for (at, event) in std::mem::take(&mut self.saved) {
            self.handle(at, event);
        }
        self.settle();
    }

    /// How many snapshots are held back.
    pub fn saves_held(&self) -> usize {
        self.saved.len()
    }

    /// How many snapshots of a shard a node has on its disk.
    pub fn snapshot_files(&self, at: usize, shard: ShardId) -> usize {
        self.files.keys().filter(|(of, name, _)| (*of, *name) == (at, shard)).count()
    }

    /// The number of a node's last append.
    pub fn last_append(&self, at: usize) -> u64 {
        self.last_append.get(&at).map_or(0, |seq| seq.0)
    }

    /// What was held up arrives, and nothing is held up any more.
    pub fn release_mail(&mut self) {
        self.held_up = |_, _, _| false;
        self.mail.extend(self.held_mail.drain(..));
        self.settle();
    }

    /// How many groups a node leads.
    pub fn leads(&self, at: usize) -> usize {
        let groups = (0..=self.nodes[at].map().shard_count).map(ShardId);
        groups.filter_map(|id| self.nodes[at].shard(id)).filter(|shard| shard.group.serving()).count()
    }

    /// Does as a driver does whose node is to restart: hands over, stops, starts again.
    pub fn restart_in_order(&mut self, at: usize) {
        self.handle(at, Event::Resign);
        for _ in 0..200 {
            if self.nodes[at].leads_nothing() {
                self.cut(at);
                self.advance(500);
                self.mend();
                return self.restart(at);
            }
            self.advance(10);
        }
        panic!("n{} never hands over", at + 1);
    }

    /// Cuts a node off from the others.
    pub fn cut(&mut self, at: usize) {
        self.cut.insert(at);
    }

    /// Cuts two nodes off from each other; all others reach both.
    pub fn cut_pair(&mut self, one: usize, other: usize) {
        self.cut_pairs.extend([[one, other], [other, one]]);
    }

    /// Lets all nodes hear each other again.
    pub fn mend(&mut self) {
        self.cut_pairs.clear();
        self.cut.clear();
    }

    pub fn handle(&mut self, at: usize, event: Event) {
        let (now, mut effects) = (self.now_at(at), Effects::default());
        self.nodes[at].handle(now, event, &mut effects);
        self.carry_out(at, effects);
    }

    /// Delivers and flushes until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut idle = true;
            for at in 0..self.nodes.len() {
                let (now, mut effects) = (self.now_at(at), Effects::default());
                self.nodes[at].flush(now, &mut effects);
                while self.nodes[at].keeps_back() {
                    self.now += std::mem::take(&mut self.stands_still);
                    let later = self.now_at(at);
                    self.nodes[at].release(later, &mut effects);
                }
                idle &= effects.appends.is_empty() && effects.sends.is_empty();
                self.carry_out(at, effects);
            }
            while self.jobs_left > 0
                && let Some((at, job)) = self.jobs.pop_front()
            {
                self.jobs_left -= 1;
                idle = false;
                self.work(at, job);
            }
            if idle && self.mail.is_empty() {
                return;
            }
            for (from, to, mut message) in std::mem::take(&mut self.mail) {
                (self.spoil)(to, &mut message);
                let sender = usize::from(from.0) - 1;
                if to < self.nodes.len()
                    && !self.cut.contains(&sender)
                    && !self.cut.contains(&to)
                    && !self.cut_pairs.contains(&[sender, to])
                    && !(self.lost)(&message)
                    && !(self.lost_between)(sender, to, &message)
                {
                    if (self.held_up)(sender, to, &message) {
                        self.held_mail.push((from, to, message));
                        continue;
                    }
                    self.handle(to, Event::Peer { from, message });
                }
            }
        }
        panic!("the nodes never come to rest");
    }

    fn carry_out(&mut self, at: usize, effects: Effects) {
        let me = NodeId(at as u16 + 1);
        for (to, message) in effects.sends {
            let of_nodes = matches!(message, PeerMessage::Heartbeat(_) | PeerMessage::Counted(_));
            self.shard_messages += usize::from(!of_nodes);
            self.mail.push_back((me, usize::from(to.0) - 1, message));
        }
        for (client, bytes) in effects.replies {
            self.output.entry((at, client)).or_default().extend_from_slice(&bytes);
        }
        for (client, completed) in effects.completed {
            *self.completed.entry((at, client)).or_default() += completed;
        }
        for client in effects.closes {
            assert!(self.closed.insert((at, client)), "closed twice");
        }
        self.meta_answers.extend(effects.meta_answers.into_iter().map(|(_, answer)| answer));
        if effects.restart {
            self.to_restart.push(at);
        }
        if effects.bar && self.barred.insert(at) {
            self.handle(at, Event::BarKept);
        }
        if let Some(state) = effects.map.filter(|_| self.keeps_maps) {
            let epoch = state.epoch();
            self.kept.insert(at, *state);
            self.handle(at, Event::MapKept { epoch });
        }
        if let Some(release) = effects.release {
            self.released.insert(at, release);
        }
        self.notices.extend(effects.notices.into_iter().map(|notice| (at, notice)));
        self.jobs.extend(effects.snapshots.into_iter().map(|job| (at, job)));
        for append in &effects.appends {
            self.records.entry(at).or_default().push((append.shard, append.record.clone()));
            let entries = match &append.record {
                Record::Accepted { entries, .. }
                | Record::Replaced { entries, .. }
                | Record::Rescued { entries, .. } => entries,
                Record::Checkpoint(checkpoint) => &checkpoint.entries,
                Record::Promised { .. } | Record::Joined { .. } | Record::Muted { .. } => continue,
            };
            let bytes = entries.iter().map(Entry::cost_bytes).sum();
            self.largest_append = self.largest_append.max(bytes);
        }
        if let Some(last) = effects.appends.last() {
            self.last_append.insert(at, last.seq);
        }
        match effects.appends.last() {
            Some(last) if self.held || self.stuck == Some(at) => drop(self.waiting.insert(at, last.seq)),
            Some(last) => self.handle(at, Event::Durable { seq: last.seq }),
            None => {}
        }
    }

    fn work(&mut self, at: usize, job: SnapshotJob) {
        match job {
            SnapshotJob::Begin { shard, index } => drop(self.files.insert((at, shard, index), Vec::new())),
            SnapshotJob::Write { shard, index, bytes, .. } => {
                if !bytes.is_empty() {
                    self.files.get_mut(&(at, shard, index)).expect("it was begun").push(bytes.clone());
                }
                self.chunks += 1;
                self.largest_chunk = self.largest_chunk.max(bytes.len());
                self.handle(at, Event::SnapshotWritten { shard, index });
            }
            SnapshotJob::Finish { shard, index } => {
                self.finished += 1;
                match self.saves {
                    Saves::Fail => self.handle(at, Event::SnapshotFailed { shard, index }),
                    Saves::HoldOf(held) if held == shard => {
                        self.saved.push((at, Event::SnapshotSaved { shard, index }));
                    }
                    _ => self.handle(at, Event::SnapshotSaved { shard, index }),
                }
            }
            SnapshotJob::Read { shard, index, to, chunk } => {
                let chunks = self.files.get(&(at, shard, index));
                let bytes = chunks.and_then(|chunks| chunks.get(chunk as usize));
                let event = match bytes.filter(|_| !self.unreadable) {
                    // How many there are is told with the end of the file alone.
                    Some(bytes) => Event::SnapshotRead(ChunkRead {
                        shard,
                        index,
                        to,
                        chunk,
                        chunks: if self.nodes[at].shard(shard).is_some_and(|shard| shard.snapshot == index) {
                            chunks.map_or(0, Vec::len) as u32
                        } else {
                            0
                        },
                        bytes: bytes.clone(),
                        checksum: bytes.iter().fold(chunk, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte)),
                    }),
                    None => {
                        self.unread += 1;
                        Event::SnapshotUnreadable { shard, index }
                    }
                };
                self.handle(at, event);
            }
            SnapshotJob::Take { shard, index, file, chunk, checksum, bytes, last } => {
                let sum = bytes.iter().fold(chunk, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
                assert_eq!(sum, checksum);
                self.taken += 1;
                if chunk == 0 {
                    self.incoming.insert((at, shard), (file, Vec::new()));
                }
                let (begun, chunks) = self.incoming.get_mut(&(at, shard)).expect("it was begun");
                assert_eq!((*begun, chunks.len()), (file, chunk as usize), "chunks come in order");
                chunks.push(bytes);
                if !last {
                    return self.handle(at, Event::SnapshotTaken { shard, file, chunk });
                }
                let (_, chunks) = self.incoming.remove(&(at, shard)).expect("it was begun");
                let mut loader = SnapshotLoader::new();
                chunks.iter().for_each(|chunk| loader.push(chunk).expect("it is whole"));
                let snapshot = Box::new(loader.finish().expect("it is whole"));
                self.files.insert((at, shard, index), chunks);
                self.handle(at, Event::SnapshotLoaded { shard, file, snapshot });
            }
            SnapshotJob::Forget { shard, .. } => drop(self.incoming.remove(&(at, shard))),
            SnapshotJob::Abandon { shard, index } => drop(self.files.remove(&(at, shard, index))),
            SnapshotJob::RemoveBelow { shard, index } => {
                self.files.retain(|(of, name, covered), _| *of != at || *name != shard || *covered >= index);
            }
            SnapshotJob::Drop(discarded) => drop(discarded),
        }
    }

    /// Connects to a node from its own machine.
    pub fn connect(&mut self, node: usize, port: Port) -> Client {
        self.connect_from(node, port, "127.0.0.1", true)
    }

    pub fn connect_from(&mut self, node: usize, port: Port, host: &str, loopback: bool) -> Client {
        self.last_client += 1;
        let id = ClientId(self.last_client);
        let row = self.nodes[node].map().node(NodeId(node as u16 + 1)).expect("it is in the map");
        let local = match port {
            Port::Gateway => row.gateway.clone(),
            Port::Cluster => row.cluster.clone(),
        };
        let remote = format!("{host}:{}", 50_000 + self.last_client);
        self.handle(node, Event::Connected { client: id, port, remote, local, loopback });
        self.settle();
        Client { node, id }
    }

    /// Sends a pipeline without reading.
    pub fn send(&mut self, client: Client, commands: &[&str]) {
        let commands: Vec<Vec<Bytes>> = commands.iter().map(|line| arguments(line)).collect();
        let sent = commands.len() as u32;
        let before = self.completed(client);
        self.handle(client.node, Event::Commands { client: client.id, commands });
        self.settle();
        assert!(self.completed(client) - before <= sent, "more completed than sent");
    }

    /// Commands that the node called completed.
    pub fn completed(&self, client: Client) -> u32 {
        self.completed.get(&(client.node, client.id)).copied().unwrap_or(0)
    }

    /// What a client has been sent since it last looked.
    pub fn read(&mut self, client: Client) -> String {
        let bytes = self.output.remove(&(client.node, client.id)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a pipeline and reads what comes at once.
    pub fn ask(&mut self, client: Client, commands: &[&str]) -> String {
        self.send(client, commands);
        self.read(client)
    }

    pub fn is_closed(&self, client: Client) -> bool {
        self.closed.contains(&(client.node, client.id))
    }

    pub fn disconnect(&mut self, client: Client) {
        self.handle(client.node, Event::Disconnected { client: client.id });
        self.settle();
    }

    pub fn malformed(&mut self, client: Client, text: &'static str) -> String {
        self.handle(client.node, Event::Malformed { client: client.id, text: Bytes::from(text) });
        self.settle();
        self.read(client)
    }
}

/// Words of a line; `""` is an empty one.
fn arguments(line: &str) -> Vec<Bytes> {
    let word =
        |word: &str| if word == "\"\"" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) };
    line.split(' ').map(word).collect()
}

/// Arrays, statuses and the like without their line ends, for short expectations: `+OK :1 $1 b`.
pub fn flat(reply: &str) -> String {
    reply.strip_suffix("\r\n").unwrap_or(reply).replace("\r\n", " ")
}

/// Each command's reply by itself, line ends written as spaces.
#[track_caller]
pub fn check(cluster: &mut Cluster, client: Client, expected: &[(&str, &str)]) {
    for (command, reply) in expected {
        assert_eq!(flat(&cluster.ask(client, &[command])), *reply, "{command}");
    }
}

/// The same on the gateway of a single node.
#[track_caller]
pub fn check_single(expected: &[(&str, &str)]) {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, expected);
}

/// One pipeline on the gateway of a single node.
#[track_caller]
pub fn check_pipeline(commands: &[&str], replies: &str) {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, commands)), replies, "{commands:?}");
    assert_eq!(cluster.completed(client), commands.len() as u32);
}
