//! The gateway: clients' connections on one side, requests to shards on the other.
//!
//! Any node takes any key; the request finds the shard's leader, here or on another node. A
//! request is sent again, under the same session and sequence, until it is answered or its time
//! is over (R18), so a client never sees a change of leader.
//!
//! Invariants:
//! - G1: replies leave in the order of their commands (R30).
//! - G2: of one connection and one shard, reads and writes are never in flight together, and
//!   each kind keeps its order. A read that was answered before an earlier one is asked again,
//!   or it could be the older of the two.
//! - G3: a client is told that nothing was written only if no attempt ever reached a leader, or a leader says so, which then
//!   takes no copy of it later.

mod admission;
mod commands;
mod connection;
mod execute;
mod join;
mod view;
mod writes;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_balance::Pick;
use tholos_cluster::NodeId;
use tholos_paxos::Millis;
use tholos_resp::Value;
use tholos_ring::ShardId;

pub use commands::same_secret;
pub use connection::{Connection, Replies};
pub use view::View;
pub use writes::JobWrites;

use crate::event::{ClientId, Port};
use crate::operation::{COMMAND, Operation};
use crate::peer::{Ask, Outcome};
use crate::reading::time;
use admission::Admission;
use join::{Join, Joined};

/// How long a forwarded request stays unanswered until it is sent again to the same node; doubled each time, since an
/// answer that takes long is more often late than lost, and copies make it later,
const RESEND_AFTER: Millis = Millis(1000);
/// up to this.
const RESEND_AFTER_MAX: Millis = Millis(8000);
/// Commands of one connection that may be under way; the rest wait in its backlog.
const PENDING_MAX: usize = 1024;

/// All connections of this node, and their requests.
#[derive(Debug)]
pub struct Gateway {
    me: NodeId,
    boot: u64,
    request_timeout: Millis,
    connections: BTreeMap<ClientId, Connection>,
    requests: BTreeMap<u64, Request>,
    /// Bytes of the operations in `requests`.
    requests_bytes: usize,
    admission: Admission,
    last_request: u64,
    last_session: u64,
    /// Requests to be routed now.
    outgoing: Vec<u64>,
    /// Requests whose shard has no known leader: routed again at the next tick, or when it is known.
    parked: Vec<u64>,
    /// Shards whose leaders have become known since what is parked was looked at.
    woken: Vec<ShardId>,
    /// Connections with output.
    touched: Vec<ClientId>,
    closes: Vec<ClientId>,
    /// Connections that the node takes at a time, as it said last; 0 if it has not.
    pub(crate) clients_max: u64,
    /// Settings and counters that commands read and change.
    pub settings: Settings,
    /// What INFO and the metrics count.
    pub counters: Counters,
    /// What clients met while the latest job ran.
    pub job_writes: JobWrites,
    /// The counters at the last CONFIG RESETSTAT, from which INFO counts.
    reset_at: Counters,
    /// The first tick, of the clock that never jumps.
    started: Option<Millis>,
}

/// What CONFIG SET may change; per node and not kept.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The password that AUTH asks for.
    pub requirepass: Option<Bytes>,
    /// Bytes in keyspaces above which writes are refused; 0 is no limit.
    pub maxmemory: u64,
    /// Connections at once, for CONFIG GET; the driver keeps it.
    pub maxclients: u64,
    /// How old answers may be to clients that have said READONLY and no number; 0: not at all.
    pub replica_read_staleness: Millis,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Commands started.
    pub commands: u64,
    /// Requests sent to other nodes.
    pub forwarded: u64,
    /// Of these, sent by way of a third node, because the leader was not heard.
    pub relayed: u64,
    /// Requests that ran out of time.
    pub timed_out: u64,
    /// Error replies.
    pub errors: u64,
    /// Commands refused because too many requests were open.
    pub shed: u64,
}

/// A request to a shard.
#[derive(Debug)]
struct Request {
    client: ClientId,
    port: Port,
    slot: u64,
    part: usize,
    shard: ShardId,
    /// The slot of its first key, for MOVED.
    hash_slot: u16,
    /// Whether a client of the cluster port is told to ask elsewhere. WAIT is about what this connection wrote (R32), and
    /// a command on all keys about what this node led when it began: they follow their shards.
    movable: bool,
    /// The encoded operation.
    operation: Bytes,
    write: Option<Write>,
    began: Millis,
    deadline: Option<Millis>,
    /// How often it was given to a leader.
    attempts: u32,
    /// With this node, since then.
    sent: Option<(NodeId, Millis)>,
    /// It is sent again after so long without an answer.
    resend_after: Millis,
    /// It waits in the gateway's list of those to be routed again.
    parked: bool,
    /// It was answered before an earlier read of its lane, and is asked again after that one (G2).
    overtook: bool,
    /// A replica could not answer it in time: the leader is to.
    for_leader: bool,
    /// It was sent to a replica that need not lead.
    at_replica: bool,
    /// It was sent to a node that passes it on to the leader (R11).
    relayed: bool,
    /// The choice among replicas, which learns how it went.
    pick: Option<Pick>,
}

impl Request {
    /// Whoever was chosen for it has not answered. If that was a replica, the leader is to.
    fn fail(&mut self, now: Millis) {
        if let Some(pick) = self.pick.take() {
            pick.done(time(now), tholos_balance::Outcome::Failed, None);
        }
        self.for_leader |= core::mem::take(&mut self.at_replica);
    }
}

/// Session and sequence of a write (R18).
#[derive(Clone, Copy, Debug)]
struct Write {
    session: u64,
    sequence: u64,
    expires_at: Millis,
}

/// A request as the router sees it.
#[derive(Debug)]
pub struct Routed {
    /// Its number.
    pub request: u64,
    /// Its shard.
    pub shard: ShardId,
    /// What is asked.
    pub ask: Ask,
}

impl Gateway {
    /// Without connections. `boot` and `session_seed` are random: sessions of two boots never meet.
    pub fn new(
        me: NodeId,
        boot: u64,
        session_seed: u64,
        request_timeout: Millis,
        settings: Settings,
    ) -> Gateway {
        Gateway {
            me,
            boot,
            request_timeout,
            connections: BTreeMap::new(),
            requests: BTreeMap::new(),
            requests_bytes: 0,
            admission: Admission::default(),
            last_request: 0,
            last_session: session_seed,
            outgoing: Vec::new(),
            parked: Vec::new(),
            woken: Vec::new(),
            touched: Vec::new(),
            closes: Vec::new(),
            clients_max: 0,
            settings,
            counters: Counters::default(),
            job_writes: JobWrites::default(),
            reset_at: Counters::default(),
            started: None,
        }
    }

    /// This boot's number, which answers must carry.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// One connection, if it is open.
    pub fn connection(&self, client: ClientId) -> Option<&Connection> {
        self.connections.get(&client)
    }

    /// Connections open.
    pub fn connections(&self) -> impl ExactSizeIterator<Item = &Connection> {
        self.connections.values()
    }

    /// Requests not answered yet.
    pub fn requests_open(&self) -> usize {
        self.requests.len()
    }

    /// A client connected.
    pub fn connected(
        &mut self,
        client: ClientId,
        port: Port,
        remote: String,
        local: String,
        loopback: bool,
        now: Millis,
    ) {
        let mut connection = Connection::new(client, port, remote, local, loopback, now);
        connection.authenticated = self.settings.requirepass.is_none();
        if connection.authenticated && !loopback {
            connection.fatal = Some(commands::protected());
            connection.drain();
            self.touched.push(client);
        }
        self.counters.connections += 1;
        self.connections.insert(client, connection);
    }

    /// Closes a client at once, without what it would still be answered.
    fn cut(&mut self, client: ClientId) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.cut();
            self.touched.push(client);
        }
    }

    /// A client is gone; what it asked for may still be done. Returns its requests that a leader may have.
    pub fn disconnected(&mut self, client: ClientId) -> Vec<(ShardId, u64)> {
        let mut given = Vec::new();
        let Some(connection) = self.connections.remove(&client) else { return given };
        for (shard, lane) in connection.lanes {
            given.extend(lane.in_flight.iter().map(|request| (shard, *request)));
            for request in lane.in_flight.into_iter().chain(lane.queue) {
                self.take_request(request);
            }
        }
        given
    }

    fn take_request(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.requests_bytes -= request.operation.len();
        Some(request)
    }

    /// Whether no more requests are taken, so that memory stays bounded however many clients wait for a shard that does
    /// not answer.
    fn is_full(&self, view: &View) -> bool {
        self.requests.len() >= view.config.requests_max
            || self.requests.len() >= self.admission.refused_from()
            || self.requests_bytes >= view.config.requests_bytes_max
    }

    /// How many clients the node takes at a time at present.
    pub fn clients_admitted(&self) -> u64 {
        match self.clients_max {
            0 => self.settings.maxclients,
            max => max,
        }
    }

    /// How many requests may be open at present before connections wait with the next one.
    pub fn requests_open_max(&self) -> usize {
        self.admission.open_max()
    }

    /// A client sent commands.
    pub fn commands(&mut self, client: ClientId, commands: Vec<Vec<Bytes>>, view: &View) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.backlog.extend(commands);
            self.advance(client, view);
        }
    }

    /// A client's stream is broken: an error after what is due, then the end.
    pub fn malformed(&mut self, client: ClientId, text: Bytes, view: &View) {
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.fatal = Some(text);
            self.advance(client, view);
        }
    }

    /// Starts as many commands of a connection as may start.
    fn advance(&mut self, client: ClientId, view: &View) {
        let open_max = self.admission.open_max();
        while let Some(connection) = self.connections.get_mut(&client) {
            connection.drain();
            if connection.is_settled() {
                connection.blocked = false;
            }
            if connection.blocked || connection.closing || connection.pending() >= PENDING_MAX {
                break;
            }
            // What it waits for will start the next one.
            if connection.pending() > 0 && self.requests.len() >= open_max {
                break;
            }
            let Some(args) = connection.backlog.front() else { break };
            let barrier = execute::is_barrier(connection, args);
            if barrier && !connection.is_settled() {
                break;
            }
            let Some(args) = connection.backlog.pop_front() else { break };
            self.counters.commands += 1;
            self.execute(client, args, view);
            if barrier && let Some(connection) = self.connections.get_mut(&client) {
                connection.blocked = !connection.is_settled();
            }
        }
        self.touched.push(client);
    }

    /// Makes a request for one part of a waiting command.
    fn submit(&mut self, request: Request, writes: bool, view: &View) {
        self.last_request += 1;
        let id = self.last_request;
        let (client, shard) = (request.client, request.shard);
        self.requests_bytes += request.operation.len();
        self.requests.insert(id, request);
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let lane = connection.lanes.entry(shard).or_default();
        lane.wrote |= writes;
        lane.queue.push_back(id);
        self.launch(client, shard, view);
    }

    /// Sends what may be sent of a lane (G2).
    fn launch(&mut self, client: ClientId, shard: ShardId, view: &View) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let Some(lane) = connection.lanes.get_mut(&shard) else { return };
        while let Some(id) = lane.queue.front().copied() {
            let Some(request) = self.requests.get_mut(&id) else {
                lane.queue.pop_front();
                continue;
            };
            let writes = request.write.is_some();
            let idle = lane.in_flight.is_empty();
            // Between two sessions nothing would keep the order.
            if !idle && (lane.writing != writes || (writes && lane.session == 0)) {
                return;
            }
            lane.queue.pop_front();
            lane.writing = writes;
            if let Some(write) = &mut request.write {
                // A record that may be forgotten soon is not built on.
                let time = view.shard_time(shard);
                if lane.session == 0 || (idle && lane.ends <= time.plus(self.request_timeout)) {
                    self.last_session = crate::shard::mix(self.last_session, 1);
                    (lane.session, lane.sequence, lane.ends) = (self.last_session, 0, Millis(0));
                }
                lane.sequence += 1;
                let expires_at = time.plus(self.request_timeout).plus(self.request_timeout);
                lane.ends = lane.ends.max(expires_at);
                *write = Write { session: lane.session, sequence: lane.sequence, expires_at };
            }
            lane.in_flight.push_back(id);
            self.outgoing.push(id);
        }
    }

    /// The requests to be routed now, in order.
    pub fn take_outgoing(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.outgoing)
    }

    /// What to ask of which shard.
    pub fn routed(&self, id: u64) -> Option<Routed> {
        let request = self.requests.get(&id)?;
        let operation = request.operation.clone();
        let ask = match request.write {
            None => Ask::Read { operation },
            Some(Write { session, sequence, expires_at }) => {
                let acknowledged = self.acknowledged(request, sequence);
                Ask::Write { session, sequence, acknowledged, expires_at, operation }
            }
        };
        Some(Routed { request: id, shard: request.shard, ask })
    }

    /// Every reply before the oldest write in flight has arrived.
    fn acknowledged(&self, request: &Request, sequence: u64) -> u64 {
        let lane = self.connections.get(&request.client).and_then(|c| c.lanes.get(&request.shard));
        let oldest = lane.and_then(|lane| lane.in_flight.front()).and_then(|id| self.requests.get(id));
        oldest.and_then(|oldest| oldest.write).map_or(sequence, |write| write.sequence) - 1
    }

    /// The shard that a request is for.
    pub fn shard_of(&self, id: u64) -> Option<ShardId> {
        self.requests.get(&id).map(|request| request.shard)
    }

    /// Where a client of the cluster port must go instead, if it came to the wrong node.
    pub fn must_move(&self, id: u64, leader: NodeId) -> Option<u16> {
        let request = self.requests.get(&id)?;
        // MOVED says that nothing was done. A write that a leader was given before may be decided yet: only its session
        // can tell (R18), so it is forwarded with it. The client would send it anew and have it applied twice.
        let may_be_done = request.write.is_some() && request.attempts > 0;
        (request.port == Port::Cluster && request.movable && leader != self.me && !may_be_done)
            .then_some(request.hash_slot)
    }

    /// Whether the replica here may answer: the client has said READONLY, and this is a read of keys.
    pub(crate) fn may_read_at_replica(&self, id: u64) -> bool {
        let Some(request) = self.requests.get(&id) else { return false };
        let readonly =
            || self.connections.get(&request.client).is_some_and(|client| client.readonly.is_some());
        request.write.is_none()
            && !request.for_leader
            && request.operation.first() == Some(&COMMAND)
            && readonly()
    }

    /// How old the answer to a request may be, if its client has stated that: only to a read of keys, and never where the
    /// same connection has written.
    pub(crate) fn staleness_bound(&self, id: u64) -> Option<Millis> {
        let request = self.requests.get(&id)?;
        let connection = self.connections.get(&request.client)?;
        let bound = connection.readonly?.unwrap_or(self.settings.replica_read_staleness);
        let has_written = || connection.lanes.get(&request.shard).is_some_and(|lane| lane.wrote);
        let fits = bound > Millis(0)
            && request.write.is_none()
            && !request.for_leader
            && request.operation.first() == Some(&COMMAND)
            && !has_written();
        fits.then_some(bound)
    }

    /// Whether the gateway may choose a replica for it: a read of keys, of a client that lets the gateway find its way.
    pub(crate) fn may_choose(&self, id: u64) -> bool {
        self.requests.get(&id).is_some_and(|request| {
            request.port == Port::Gateway
                && request.write.is_none()
                && !request.for_leader
                && request.operation.first() == Some(&COMMAND)
        })
    }

    /// A replica was chosen for it, which need not lead if `at_replica`.
    pub(crate) fn picked(&mut self, id: u64, pick: Pick, at_replica: bool) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.pick = Some(pick);
            request.at_replica = at_replica;
        }
    }

    /// Replicas are not to be asked again for this request.
    pub(crate) fn leave_to_leader(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.for_leader = true;
        }
    }

    /// The request was given to `node`.
    pub fn sent(&mut self, id: u64, node: NodeId, now: Millis) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.attempts += 1;
            request.resend_after = match request.sent {
                Some((before, _)) if before == node => {
                    request.resend_after.plus(request.resend_after).min(RESEND_AFTER_MAX)
                }
                _ => RESEND_AFTER,
            };
            request.sent = Some((node, now));
            (request.pick, request.at_replica, request.relayed) = (None, false, false);
            self.counters.forwarded += u64::from(node != self.me);
        }
    }

    /// The request was given to `relay`, to be passed on.
    pub(crate) fn relayed(&mut self, id: u64, relay: NodeId, now: Millis) {
        self.sent(id, relay, now);
        if let Some(request) = self.requests.get_mut(&id) {
            request.relayed = true;
            self.counters.relayed += 1;
        }
    }

    /// No leader is known, or whoever was asked could not answer: try again at the next tick, or when a leader is known.
    pub fn park(&mut self, id: u64, now: Millis) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.sent = None;
            // A replica has failed, and the leader is to answer. One that was asked as the leader may just lead no more.
            match request.at_replica {
                true => request.fail(now),
                false => request.pick = None,
            }
            if !core::mem::replace(&mut request.parked, true) {
                self.parked.push(id);
            }
        }
    }

    /// What was sent to `node` may be lost.
    pub fn peer_down(&mut self, node: NodeId, now: Millis) {
        let lost = |request: &Request| request.sent.is_some_and(|(to, _)| to == node);
        let lost: Vec<u64> =
            self.requests.iter().filter(|(_, request)| lost(request)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|id| self.park(id, now));
    }

    /// `node` is heard again: what was sent there before may be lost, and is not put off for longer than the first time.
    pub(crate) fn peer_back(&mut self, node: NodeId) {
        for request in
            self.requests.values_mut().filter(|request| request.sent.is_some_and(|(to, _)| to == node))
        {
            request.resend_after = RESEND_AFTER;
        }
    }

    /// The leader of a shard is known now, and was not, or is another: what is parked for it need not wait for the tick.
    pub(crate) fn wake(&mut self, shard: ShardId) {
        self.woken.push(shard);
    }

    /// Routes again what is parked for the shards whose leaders have become known.
    pub(crate) fn route_woken(&mut self) {
        if self.woken.is_empty() {
            return;
        }
        let mut woken = core::mem::take(&mut self.woken);
        woken.sort_unstable();
        let requests = &mut self.requests;
        let awake = self.parked.extract_if(.., |id| {
            let found = requests.get_mut(id).filter(|request| woken.binary_search(&request.shard).is_ok());
            found.map(|request| request.parked = false).is_some()
        });
        let from = self.outgoing.len();
        self.outgoing.extend(awake);
        // Writes of a session are sent in their order.
        self.outgoing[from..].sort_unstable();
        woken.clear();
        self.woken = woken;
    }

    /// Routes parked requests again, sends late ones again, ends those whose time is over.
    pub fn tick(&mut self, now: Millis, view: &View) {
        self.started.get_or_insert(now);
        self.admission.tick(now);
        let mut again = core::mem::take(&mut self.parked);
        for id in &again {
            if let Some(request) = self.requests.get_mut(id) {
                request.parked = false;
            }
        }
        let mut over = Vec::new();
        for (id, request) in &self.requests {
            if request.deadline.is_some_and(|deadline| now >= deadline) {
                over.push(*id);
            } else if let Some((to, at)) = request.sent.filter(|(to, _)| *to != self.me) {
                // The one asked may stand still, and no answer come: another leads by now.
                let passes_on = request.at_replica || request.relayed;
                let superseded =
                    !passes_on && view.leader(request.shard).is_some_and(|(leader, _)| leader != to);
                if superseded || now.since(at) >= request.resend_after {
                    again.push(*id);
                }
            }
        }
        for id in &again {
            if let Some(request) = self.requests.get_mut(id) {
                request.fail(now);
            }
        }
        for id in over {
            let Some(request) = self.requests.get(&id) else { continue };
            self.counters.timed_out += 1;
            let error = timed_out(request);
            self.forget_session(id);
            self.complete(id, error, view);
        }
        again.sort_unstable();
        again.dedup();
        self.outgoing.extend(again);
    }

    /// A write that was not applied, or may not be, leaves a hole in its session: later writes take a new one.
    fn forget_session(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        if let (Some(write), Some(connection)) = (request.write, self.connections.get_mut(&request.client))
            && let Some(lane) = connection.lanes.get_mut(&request.shard)
            && lane.session == write.session
        {
            lane.session = 0;
        }
    }

    /// An answer to a request of this boot, or to one that needs none any more.
    pub fn handle_answer(&mut self, id: u64, outcome: Outcome, view: &View) {
        let Some(request) = self.requests.get(&id) else { return };
        let tried_before = request.write.is_some() && request.attempts > 1;
        match outcome {
            Outcome::Done(_) if self.overtakes(id) => self.set_back(id),
            Outcome::Done(value) => self.complete(id, value, view),
            // G3: an earlier attempt may have been applied, and only another one can tell.
            Outcome::Refused(_) if tried_before => self.park(id, view.now.mono),
            Outcome::Refused(value) => self.refuse(id, &value, view),
            Outcome::NotLeader { .. } | Outcome::Unknown => self.park(id, view.now.mono),
            Outcome::Gap { .. } => self.send_again(id, view.now.mono),
            // G3: an earlier attempt may have been applied and its record forgotten since.
            Outcome::Expired if tried_before => {
                self.forget_session(id);
                self.complete(id, in_doubt(), view);
            }
            Outcome::Expired => self.refuse(id, &not_written(), view),
        }
    }

    /// Whether this is a read, and one before it in its lane is still to be answered.
    fn overtakes(&self, id: u64) -> bool {
        let Some(request) = self.requests.get(&id).filter(|request| request.write.is_none()) else {
            return false;
        };
        let lane = self.connections.get(&request.client).and_then(|c| c.lanes.get(&request.shard));
        lane.and_then(|lane| lane.in_flight.front()).is_some_and(|first| *first != id)
    }

    /// Waits for the reads before it, and is then asked again.
    fn set_back(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.sent = None;
            request.pick = None;
            request.overtook = true;
        }
    }

    /// Ends a request that no shard has done or ever will. A write that never was leaves a hole in its session, so
    /// that none after it in flight can be applied either: they end alike, and the next one opens another session.
    pub fn refuse(&mut self, id: u64, value: &Value, view: &View) {
        let Some(request) = self.requests.get(&id) else { return };
        let (client, shard) = (request.client, request.shard);
        let mut refused = alloc::vec![id];
        if let Some(Write { session, sequence, .. }) = request.write {
            self.forget_session(id);
            let lane = self.connections.get(&client).and_then(|c| c.lanes.get(&shard));
            let after = |id: &u64| {
                let write = self.requests.get(id).and_then(|request| request.write);
                write.is_some_and(|write| write.session == session && write.sequence > sequence)
            };
            refused.extend(lane.into_iter().flat_map(|lane| lane.in_flight.iter().copied()).filter(after));
        }
        for id in refused {
            self.complete(id, value.clone(), view);
        }
    }

    /// The leader wants an earlier write of the session first: all in flight again, in order.
    /// The session stays what it is, also if its record seems gone: this may be an old answer,
    /// and under another session what was applied already would be applied again.
    fn send_again(&mut self, id: u64, now: Millis) {
        let Some(request) = self.requests.get(&id) else { return };
        let lane = self.connections.get(&request.client).and_then(|c| c.lanes.get(&request.shard));
        let ids: Vec<u64> = lane.map(|lane| lane.in_flight.iter().copied().collect()).unwrap_or_default();
        for id in ids {
            self.park(id, now);
        }
    }

    /// Ends a request with its value.
    pub fn complete(&mut self, id: u64, value: Value, view: &View) {
        let Some(mut request) = self.take_request(id) else { return };
        if let Some(pick) = request.pick.take() {
            pick.done(time(view.now.mono), tholos_balance::Outcome::Answered, None);
        }
        self.admission.answered();
        if request.write.is_some() {
            self.job_writes.note(request.began, view.now.mono, &value);
        }
        let Some(connection) = self.connections.get_mut(&request.client) else { return };
        if let Some(lane) = connection.lanes.get_mut(&request.shard) {
            lane.in_flight.retain(|other| *other != id);
            for next in &lane.in_flight {
                let Some(next_request) = self.requests.get_mut(next).filter(|next| next.overtook) else {
                    break;
                };
                next_request.overtook = false;
                self.outgoing.push(*next);
            }
        }
        if let Some((join, parts)) = connection.fill(request.slot, request.part, value) {
            let exec = matches!(join, Join::Exec { .. });
            let reply = match join.finish(parts) {
                Joined::Reply(reply) => Some(reply),
                Joined::Watched(seen) => {
                    connection.watch(seen);
                    Some(Value::ok())
                }
                Joined::Executed(local, replies) => Some(self.weave(request.client, local, replies, view)),
                Joined::ScanOn(scan) => {
                    self.scan_on(request.client, request.slot, scan, view);
                    None
                }
            };
            if let (Some(reply), Some(connection)) = (reply, self.connections.get_mut(&request.client)) {
                self.counters.errors += u64::from(reply.is_error());
                connection.finish(request.slot, reply, exec);
            }
        }
        self.launch(request.client, request.shard, view);
        self.advance(request.client, view);
    }

    /// Bytes for clients since the last call, with the number of commands they complete.
    pub fn take_replies(&mut self) -> Vec<(ClientId, Bytes, u32)> {
        let mut replies = Vec::with_capacity(self.touched.len());
        for client in self.touched.drain(..) {
            let Some(connection) = self.connections.get_mut(&client) else { continue };
            let (bytes, completed) = connection.take_output();
            if !bytes.is_empty() || completed > 0 {
                replies.push((client, bytes, completed));
            }
            if connection.take_close() {
                self.closes.push(client);
            }
        }
        replies
    }

    /// Clients to close, since the last call.
    pub fn take_closes(&mut self) -> Vec<ClientId> {
        core::mem::take(&mut self.closes)
    }
}

fn in_doubt() -> Value {
    Value::error(
        "INDOUBT no answer in time: the write may or may not happen, read the key before you send it again",
    )
}

fn busy(writes: bool) -> Value {
    let nothing = if writes { "nothing was written" } else { "nothing was read" };
    Value::error(alloc::format!(
        "BUSY too many requests of this node's clients wait for their shards, {nothing}: try again later"
    ))
}

fn not_written() -> Value {
    Value::error("CLUSTERDOWN no quorum for this shard in time, nothing was written: try again later")
}

/// G3: what may have reached a leader is in doubt.
fn timed_out(request: &Request) -> Value {
    match (&request.write, request.attempts) {
        (None, _) => {
            Value::error("CLUSTERDOWN no quorum for this shard in time, nothing was read: try again later")
        }
        (Some(_), 0) => not_written(),
        (Some(_), _) => in_doubt(),
    }
}
