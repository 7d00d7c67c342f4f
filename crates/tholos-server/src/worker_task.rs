//! The worker: the one task that owns the [`Node`]. It takes all events that wait, hands each to the core, and carries
//! out what the core asks for. Batches come of load: what arrives while a round runs makes the next one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Instant;

use bytes::Bytes;
use tholos_cluster::{Incarnation, Level, MetaCommand, MetaState, NodeId};
use tholos_node::{ClientId, Effects, Event, MetaFailure, Node, Now, SnapshotJob};
use tholos_paxos::AppendSeq;
use tholos_rpc::{Lane, Refusal};
use tokio::sync::{mpsc, watch};

use crate::bar_file;
use crate::client_output::{ClientOutput, Ending};
use crate::clock;
use crate::genesis;
use crate::join::{self, Question};
use crate::meter::Meter;
use crate::metrics::{Counters, add};
use crate::notices;
use crate::peers::{self, Peers};
use crate::plan::Plans;
use crate::recovery;
use crate::room::Room;
use crate::status::NodeReport;
use crate::upgrade;
use crate::wal_task::{WalQueue, WalState};

/// Inputs that may wait on each of the two channels; a sender waits when there are more.
pub(crate) const INPUTS_MAX: usize = 4096;
/// Events from the peers' connections that may wait.
pub(crate) const PEER_EVENTS_MAX: usize = 1024;
/// Inputs of each kind taken in one round, at most.
const ROUND_INPUTS_MAX: usize = 1024;
/// Commands of clients after which a round takes no further inputs of theirs: pipelines would make rounds that are longer than
/// others wait for a heartbeat.
const ROUND_COMMANDS_MAX: usize = 1024;

/// Turns that a round gives to others before it begins, at most: what is ready after so many waits for the next.
const GATHER_TURNS_MAX: usize = 16;
/// Turns in a row in which nobody adds anything, after which the round begins.
const GATHER_TURNS_QUIET: usize = 2;

/// A question to the core, asked between two rounds.
pub(crate) type Inspection = Box<dyn FnOnce(&Node) + Send>;

/// Takes what the meta group answered.
pub(crate) type Asker = Box<dyn FnOnce(Result<u64, MetaFailure>) + Send + Sync>;

/// What the worker is told.
pub(crate) enum Input {
    /// A client connected; `event` says so to the core.
    Connect {
        /// Where its replies go.
        output: Arc<ClientOutput>,
        /// [`Event::Connected`].
        event: Event,
    },
    /// Something happened.
    Event(Event),
    /// Someone wants the meta group to decide something.
    AskMeta(Box<MetaCommand>, Asker),
    /// Someone wants to know something.
    Inspect(Inspection),
    /// The node stops: end, leaving what waits.
    Stop,
}

/// The channels into the worker.
pub(crate) struct Inputs {
    /// From this node's own parts: few, and never behind clients.
    pub(crate) control: mpsc::Receiver<Input>,
    /// From clients.
    pub(crate) clients: mpsc::Receiver<Input>,
    /// From the connections to other nodes.
    pub(crate) peers: mpsc::Receiver<tholos_rpc::Event>,
    /// From the log.
    pub(crate) wal: watch::Receiver<WalState>,
}

/// What the worker's effects go to.
pub(crate) struct Outputs {
    pub(crate) peers: Peers,
    pub(crate) wal: Arc<WalQueue>,
    pub(crate) snapshots: Sender<SnapshotJob>,
    /// The answer to every query of another node: to which cluster this one belongs.
    pub(crate) membership: Bytes,
    /// The password that clients must show, whenever CONFIG SET changes it.
    pub(crate) password: watch::Sender<Option<Bytes>>,
    /// Each newer map.
    pub(crate) map: watch::Sender<Arc<MetaState>>,
    /// Told when the node is to restart.
    pub(crate) restart: watch::Sender<bool>,
    /// Where the mark goes of a node that begins no replicas any more, and who is told that it is there.
    pub(crate) directory: PathBuf,
    /// What was planned here lately, which others ask for.
    pub(crate) plans: Plans,
    pub(crate) control: mpsc::WeakSender<Input>,
}

/// The worker.
pub(crate) struct Worker {
    node: Node,
    name: Arc<str>,
    me: NodeId,
    outputs: Outputs,
    counters: Arc<Counters>,
    effects: Effects,
    clients: HashMap<u64, Client, BuildHasherDefault<CountHasher>>,
    /// Clients with something new, each once.
    touched: Vec<ClientId>,
    /// Who waits for the meta group, by number.
    askers: HashMap<u64, Asker>,
    last_asker: u64,
    /// So much waits for the log that no more work is taken.
    wal_full: bool,
    meter: Meter,
}

struct Client {
    output: Arc<ClientOutput>,
    settled: u64,
    authenticated: bool,
    touched: bool,
}

/// What a round took from the channels.
#[derive(Default)]
struct Round {
    inputs: Vec<Input>,
    peer_events: Vec<tholos_rpc::Event>,
    /// Commands among the inputs.
    commands: usize,
}

impl Round {
    fn len(&self) -> usize {
        self.inputs.len() + self.peer_events.len()
    }

    /// Takes an input; false at the channel's end.
    fn take(&mut self, input: Option<Input>) -> bool {
        let open = input.is_some();
        if let Some(input) = input {
            self.push(input);
        }
        open
    }

    fn push(&mut self, input: Input) {
        if let Input::Event(Event::Commands { commands, .. }) = &input {
            self.commands += commands.len();
        }
        self.inputs.push(input);
    }

    /// Whether it takes more of clients.
    fn has_room(&self) -> bool {
        self.inputs.len() < ROUND_INPUTS_MAX && self.commands < ROUND_COMMANDS_MAX
    }
}

impl Worker {
    pub(crate) fn new(
        node: Node,
        name: Arc<str>,
        me: NodeId,
        outputs: Outputs,
        counters: Arc<Counters>,
    ) -> Worker {
        Worker {
            node,
            name,
            me,
            outputs,
            counters,
            effects: Effects::default(),
            clients: HashMap::default(),
            touched: Vec::new(),
            askers: HashMap::new(),
            last_asker: 0,
            wal_full: false,
            meter: Meter::new(),
        }
    }

    /// Runs until it is stopped.
    ///
    /// # Errors
    /// Why the node cannot go on: the log failed (R23).
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), Arc<str>> {
        let now = clock::read_now();
        self.node.start(now, &mut self.effects);
        self.finish_round(now);
        let mut round = Round::default();
        let mut durable = AppendSeq(0);
        loop {
            if !self.wait(&mut inputs, &mut round).await {
                return Ok(());
            }
            self.gather(&mut inputs, &mut round).await;
            // Nothing is awaited until the round ends: it stays on this thread.
            let look = self.meter.begin();
            let now = clock::read_now();
            if let Some(round) = self.meter.take_round() {
                self.node.handle(now, Event::Round(round), &mut self.effects);
            }
            if let Some(sample) = self.meter.take_due(&self.outputs.wal.counters) {
                self.node.handle(now, Event::Load(sample), &mut self.effects);
                self.counters.clients_admitted.store(self.node.clients_max(), Ordering::Relaxed);
                self.counters.shards_held_back.store(self.node.shards_held_back() as u64, Ordering::Relaxed);
            }
            match &*inputs.wal.borrow_and_update() {
                WalState::Durable(seq) if *seq == durable => {}
                WalState::Durable(seq) => {
                    durable = *seq;
                    let counters = &self.outputs.wal.counters;
                    let lsn = counters.durable_lsn.load(Ordering::Relaxed);
                    let kept_bytes = counters.kept_bytes.load(Ordering::Relaxed);
                    self.node.handle(now, Event::DurableLsn { lsn, kept_bytes }, &mut self.effects);
                    self.node.handle(now, Event::Durable { seq: durable }, &mut self.effects);
                }
                WalState::Failed(why) => return Err(Arc::clone(why)),
            }
            for event in round.peer_events.drain(..) {
                self.handle_peer(now, event);
            }
            let mut stop = false;
            round.commands = 0;
            for input in round.inputs.drain(..) {
                stop |= self.handle_input(now, input);
            }
            if stop {
                return Ok(());
            }
            self.finish_round(now);
            if let Some(why) =
                self.node.level_unknown().and_then(|level| upgrade::refusal(level, Level::KNOWN))
            {
                return Err(why.into());
            }
            self.meter.end(&look);
        }
    }

    /// Lets the core finish what was handed in at `now`, and carries out what it asks for.
    fn finish_round(&mut self, now: Now) {
        self.node.flush(now, &mut self.effects);
        while self.node.keeps_back() {
            // R13: whoever was stopped between the two readings does not answer by a lease of the past.
            self.node.release(clock::read_now(), &mut self.effects);
        }
        self.carry_out();
    }

    /// Waits until there is something to do; false if the node's other parts are gone.
    async fn wait(&mut self, inputs: &mut Inputs, round: &mut Round) -> bool {
        let open = !self.wal_full;
        tokio::select! {
            biased;
            changed = inputs.wal.changed() => changed.is_ok(),
            event = inputs.peers.recv(), if open => {
                round.peer_events.extend(event);
                true
            }
            input = inputs.control.recv() => round.take(input),
            input = inputs.clients.recv(), if open => round.take(input),
            () = self.outputs.wal.drained(), if !open => {
                self.wal_full = self.outputs.wal.is_full();
                true
            }
        }
    }

    /// Lets whoever is ready to add to this round do so first: one write, one sync and one message to each peer then
    /// serve all of them. Ends when nobody was ready for a few turns in a row; a turn with nobody ready costs about a
    /// microsecond, and one sleep and waking less pays for ten of them.
    async fn gather(&self, inputs: &mut Inputs, round: &mut Round) {
        let mut quiet_turns = 0;
        for _ in 0..GATHER_TURNS_MAX {
            tokio::task::yield_now().await;
            let before = round.len();
            self.take_all(inputs, round);
            quiet_turns = if round.len() == before { quiet_turns + 1 } else { 0 };
            if quiet_turns >= GATHER_TURNS_QUIET {
                return;
            }
        }
    }

    /// Takes what else waits by now, up to a limit.
    fn take_all(&self, inputs: &mut Inputs, round: &mut Round) {
        while let Ok(input) = inputs.control.try_recv() {
            round.push(input);
            if round.inputs.len() >= 2 * ROUND_INPUTS_MAX {
                break;
            }
        }
        if self.wal_full {
            return;
        }
        while round.peer_events.len() < ROUND_INPUTS_MAX
            && let Ok(event) = inputs.peers.try_recv()
        {
            round.peer_events.push(event);
        }
        while round.has_room()
            && let Ok(input) = inputs.clients.try_recv()
        {
            round.push(input);
        }
    }

    /// Hands an input to the core; true if it is the end.
    fn handle_input(&mut self, now: Now, input: Input) -> bool {
        match input {
            Input::Connect { output, event } => {
                if let Event::Connected { client, .. } = &event {
                    let client = *client;
                    self.clients.insert(
                        client.0,
                        Client { output, settled: 0, authenticated: false, touched: false },
                    );
                    self.node.handle(now, event, &mut self.effects);
                    self.touch(client);
                }
            }
            Input::Event(event) => {
                match &event {
                    Event::Commands { client, commands } => {
                        add(&self.counters.commands, commands.len() as u64);
                        let client = *client;
                        self.touch(client);
                    }
                    Event::Disconnected { client } => {
                        self.clients.remove(&client.0);
                    }
                    _ => {}
                }
                if is_slice(&event) {
                    self.handle_slice(now, event);
                } else {
                    self.node.handle(now, event, &mut self.effects);
                }
            }
            Input::AskMeta(command, asker) => self.ask_meta(now, command, asker),
            Input::Inspect(inspection) => inspection(&self.node),
            Input::Stop => return true,
        }
        false
    }

    fn ask_meta(&mut self, now: Now, command: Box<MetaCommand>, asker: Asker) {
        self.last_asker += 1;
        self.askers.insert(self.last_asker, asker);
        let asked = Event::AskMeta { asker: self.last_asker, command };
        self.node.handle(now, asked, &mut self.effects);
    }

    /// A piece of work on a snapshot: commands wait for it, so its time is watched.
    fn handle_slice(&mut self, now: Now, event: Event) {
        let began = Instant::now();
        self.node.handle(now, event, &mut self.effects);
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.snapshot_slice_longest_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    fn handle_peer(&mut self, now: Now, event: tholos_rpc::Event) {
        match event {
            tholos_rpc::Event::Frame { from, payload, credit, .. } => {
                let from = NodeId(from);
                let (node, effects) = (&mut self.node, &mut self.effects);
                peers::take_apart(from, payload, &self.counters, |message| {
                    node.handle(now, Event::Peer { from, message }, effects);
                });
                drop(credit);
            }
            tholos_rpc::Event::Up { peer, .. } => {
                let (node, incarnation) = (NodeId(peer.node), Incarnation(peer.incarnation));
                self.node.handle(now, Event::PeerUp { node, incarnation }, &mut self.effects);
            }
            tholos_rpc::Event::Down { node, lane: Lane::Log, reason } => {
                tracing::debug!(node = %self.name, peer = %NodeId(node), %reason, "a connection is down");
                self.node.handle(now, Event::PeerDown { node: NodeId(node) }, &mut self.effects);
            }
            tholos_rpc::Event::Refused { address, reason, suppressed, .. } => {
                add(&self.counters.peer_connections_refused, 1 + suppressed);
                if let Refusal::UnknownNode { node, name: peer } = &reason
                    && self.node.meta_state().is_gone(NodeId(*node))
                {
                    tracing::warn!(
                        node = %self.name, %peer, %address, suppressed,
                        "a node that was given up for ever, or has left, is refused: destroy its data, or let it join with an \
                         empty directory"
                    );
                } else if is_passing(&reason) {
                    tracing::debug!(node = %self.name, %address, %reason, suppressed, "no connection");
                } else {
                    tracing::warn!(node = %self.name, %address, %reason, suppressed, "a connection was refused");
                }
            }
            tholos_rpc::Event::Query { payload, reply, .. } => {
                let answer = match Question::read(&payload) {
                    Some(Question::Join(_, known)) if known < self.node.meta_state().level => {
                        join::too_old(self.node.meta_state().level, known)
                    }
                    Some(Question::Join(command, _)) => {
                        let asker = Box::new(move |answer| {
                            // Whoever asked may be gone.
                            let _ = reply.send(join::answer(&answer));
                        });
                        return self.ask_meta(now, Box::new(command), asker);
                    }
                    Some(Question::Map) => self.node.meta_state().encode().into(),
                    None if let Some(first) = recovery::wanted(&payload) => {
                        self.node.inventory(first).encode().into()
                    }
                    None if genesis::asks_status(&payload) => {
                        NodeReport::of(&self.node, &self.name, Room::of(&self.counters), &self.outputs.plans)
                            .to_json()
                    }
                    None => self.outputs.membership.clone(),
                };
                // Whoever asked may be gone.
                let _ = reply.send(answer);
            }
            _ => {}
        }
    }

    fn touch(&mut self, client: ClientId) {
        if let Some(row) = self.clients.get_mut(&client.0)
            && !row.touched
        {
            row.touched = true;
            self.touched.push(client);
        }
    }

    /// Appends in the order given; all else in any order.
    fn carry_out(&mut self) {
        add(&self.counters.rounds, 1);
        let mut effects = std::mem::take(&mut self.effects);
        if !effects.appends.is_empty() || effects.release.is_some() {
            self.wal_full = self.outputs.wal.push(&mut effects.appends, effects.release.take());
        }
        self.outputs.peers.send_all(&mut effects.sends, &self.counters);
        // Before whoever set it is told that it is set.
        self.tell_password();
        self.reply(&mut effects);
        if std::mem::take(&mut effects.bar) {
            self.keep_bar();
        }
        if std::mem::take(&mut effects.restart) {
            self.outputs.restart.send_replace(true);
        }
        if let Some(state) = effects.map.take() {
            self.take_map(*state);
        }
        for (asker, answer) in effects.meta_answers.drain(..) {
            if let Some(asker) = self.askers.remove(&asker) {
                asker(answer);
            }
        }
        for job in effects.snapshots.drain(..) {
            // Its thread ends before this task only when the node is killed.
            let _ = self.outputs.snapshots.send(job);
        }
        for notice in effects.notices.drain(..) {
            notices::tell(&self.name, &notice, self.node.map(), &self.counters);
        }
        // The lists' memory serves the next round.
        self.effects = effects;
    }

    fn tell_password(&self) {
        let password = &self.node.gateway().settings.requirepass;
        if *self.outputs.password.borrow() != *password {
            self.outputs.password.send_replace(password.clone());
        }
    }

    /// Has the mark made; until then the node does not own up to what it lost.
    fn keep_bar(&self) {
        let (directory, control) = (self.outputs.directory.clone(), self.outputs.control.clone());
        tokio::spawn(async move {
            match tokio::task::spawn_blocking(move || bar_file::write(&directory)).await {
                Ok(Ok(())) => {
                    if let Some(control) = control.upgrade() {
                        // The node may have ended.
                        let _ = control.send(Input::Event(Event::BarKept)).await;
                    }
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot be kept; the node votes nowhere until it is started again");
                }
                Err(_) => {}
            }
        });
    }

    /// Reaches the nodes of a newer map, and has it kept.
    fn take_map(&mut self, state: MetaState) {
        self.outputs.peers.set_map(&state.map, self.me);
        self.outputs.map.send_replace(Arc::new(state));
    }

    /// Replies and ends of connections; each client's task is woken once.
    fn reply(&mut self, effects: &mut Effects) {
        for (client, reply) in effects.replies.drain(..) {
            add(&self.counters.reply_bytes, reply.len() as u64);
            let Some(row) = self.clients.get_mut(&client.0) else { continue };
            if !row.output.push(reply) {
                add(&self.counters.clients_overflowed, 1);
                tracing::warn!(node = %self.name, client = client.0, "closed a client that does not read its replies");
            }
            if !row.touched {
                row.touched = true;
                self.touched.push(client);
            }
        }
        for (client, count) in effects.completed.drain(..) {
            if let Some(row) = self.clients.get_mut(&client.0) {
                row.settled += u64::from(count);
                if !row.touched {
                    row.touched = true;
                    self.touched.push(client);
                }
            }
        }
        for client in effects.closes.drain(..) {
            if let Some(row) = self.clients.get(&client.0) {
                row.output.end(Ending::AfterReplies);
                row.output.wake();
            }
        }
        for client in self.touched.drain(..) {
            let Some(row) = self.clients.get_mut(&client.0) else { continue };
            row.touched = false;
            if !row.authenticated {
                let connection = self.node.gateway().connection(client);
                row.authenticated = connection.is_some_and(|open| open.authenticated);
            }
            row.output.settle(row.settled, row.authenticated);
            row.output.wake();
        }
    }
}

/// Whether an event lets the core do a piece of work on a snapshot.
fn is_slice(event: &Event) -> bool {
    matches!(
        event,
        Event::SnapshotWritten { .. }
            | Event::SnapshotSaved { .. }
            | Event::SnapshotRead(_)
            | Event::SnapshotTaken { .. }
            | Event::SnapshotLoaded { .. }
    )
}

/// Whether a refusal is no news: the core tells when a node is lost, and while a cluster is being founded some nodes
/// already belong to it and some do not.
fn is_passing(reason: &Refusal) -> bool {
    match reason {
        Refusal::Unreachable(_) => true,
        Refusal::Cluster { ours, theirs } => ours.is_none() || theirs.is_none(),
        _ => false,
    }
}

/// Client ids count up: spread by a multiplication, they need no hash.
#[derive(Default)]
struct CountHasher(u64);

impl Hasher for CountHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(commands: usize) -> Input {
        let commands = vec![vec![Bytes::from_static(b"PING")]; commands];
        Input::Event(Event::Commands { client: ClientId(1), commands })
    }

    #[test]
    fn a_round_takes_so_many_commands_and_the_input_that_goes_beyond() {
        let mut round = Round::default();
        let mut taken = 0;
        while round.has_room() {
            round.push(pipeline(100));
            taken += 1;
        }
        assert_eq!(taken, 11);
        let mut round = Round::default();
        while round.has_room() {
            round.push(Input::Event(Event::Tick));
        }
        assert_eq!(round.len(), ROUND_INPUTS_MAX);
    }
}
