//! One client's connection: its settings, its transaction, and its replies in order (R30).

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_engine::Version;
use tholos_paxos::Millis;
use tholos_resp::{Protocol, Value, encode};
use tholos_ring::ShardId;

use super::join::Join;
use crate::event::{ClientId, Port};

type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// What each watched key counts beside its own bytes.
pub(super) const WATCHED_KEY_BYTES: usize = 32;

/// Room for output that a connection keeps, in bytes.
const OUTPUT_KEPT_BYTES_MAX: usize = 256;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// Its id.
    pub id: ClientId,
    /// The listener it came in by.
    pub port: Port,
    /// `host:port` of the client.
    pub remote: String,
    /// `host:port` it connected to.
    pub local: String,
    /// Whether the client's address is a loopback one.
    pub loopback: bool,
    /// When it connected, of the clock that never jumps.
    pub since: Millis,
    /// When its last command came.
    pub last_command_at: Millis,
    /// The name of its last command, in lower case.
    pub last_command: &'static str,
    /// RESP2 until HELLO 3.
    pub protocol: Protocol,
    /// Whether it may run commands.
    pub authenticated: bool,
    /// CLIENT SETNAME.
    pub name: Bytes,
    /// CLIENT SETINFO lib-name and lib-ver.
    pub library: (Bytes, Bytes),
    /// READONLY was said, and with it perhaps how old answers may be; 0: not at all.
    pub readonly: Option<Option<Millis>>,
    /// CLIENT NO-EVICT and NO-TOUCH, which change nothing here but are shown.
    pub no_evict: bool,
    /// See `no_evict`.
    pub no_touch: bool,
    /// CLIENT REPLY.
    pub replies: Replies,
    /// Commands not looked at yet.
    pub backlog: VecDeque<Vec<Bytes>>,
    /// Set when the stream ended in something that is not the protocol: sent last, then closed.
    pub fatal: Option<Bytes>,
    /// MULTI was said.
    pub multi: Option<Multi>,
    /// What WATCH saw.
    pub watched: Vec<(Bytes, Version)>,
    /// A barrier is under way: nothing after it may start.
    pub blocked: bool,
    /// Closed once everything due is written.
    pub closing: bool,
    /// Closed at once: nothing more is written.
    cut: bool,
    /// The driver was told to close it.
    closed: bool,
    /// Commands started, so that the driver can bound them.
    pub lanes: HashMap<ShardId, Lane>,
    slots: VecDeque<Slot>,
    first_slot: u64,
    output: Vec<u8>,
    completed: u32,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replies {
    /// Every command is answered.
    On,
    /// None is.
    Off,
    /// The next one is not.
    SkipNext,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Multi {
    /// Queued, each with its name first.
    pub queued: Vec<Vec<Bytes>>,
    /// One could not be queued: EXEC will refuse.
    pub failed: bool,
    /// Bytes queued, about.
    pub bytes: usize,
}

impl Multi {
    /// EXEC will refuse; what was queued is of no use any more.
    pub fn fail(&mut self) {
        self.failed = true;
        self.queued = Vec::new();
    }
}

/// One connection's requests to one shard. Reads and writes never overlap in it, and both keep
/// their order, so a client sees its own commands in order per shard (R30).
#[derive(Debug, Default)]
pub struct Lane {
    /// The session of R18; 0 before the first write.
    pub session: u64,
    /// Sequence of the last write sent.
    pub sequence: u64,
    /// The record of this session lives at least until here, in shard time.
    pub ends: Millis,
    /// Whether those in flight are writes.
    pub writing: bool,
    /// Sent or parked, not answered, in order.
    pub in_flight: VecDeque<u64>,
    /// Waiting for those in flight, of the other kind.
    pub queue: VecDeque<u64>,
    /// Whether this connection has written to the shard (WAIT asks those).
    pub wrote: bool,
}

/// The place of one command in the row of replies.
#[derive(Debug)]
struct Slot {
    protocol: Protocol,
    silent: bool,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Done(Value),
    Waiting { join: Join, parts: Vec<Option<Value>>, missing: usize },
}

impl Connection {
    /// A fresh connection.
    pub fn new(
        id: ClientId,
        port: Port,
        remote: String,
        local: String,
        loopback: bool,
        now: Millis,
    ) -> Connection {
        Connection {
            id,
            port,
            remote,
            local,
            loopback,
            since: now,
            last_command_at: now,
            last_command: "NULL",
            protocol: Protocol::Resp2,
            authenticated: false,
            name: Bytes::new(),
            library: (Bytes::new(), Bytes::new()),
            readonly: None,
            no_evict: false,
            no_touch: false,
            replies: Replies::On,
            backlog: VecDeque::new(),
            fatal: None,
            multi: None,
            watched: Vec::new(),
            blocked: false,
            closing: false,
            cut: false,
            closed: false,
            lanes: HashMap::default(),
            slots: VecDeque::new(),
            first_slot: 0,
            output: Vec::new(),
            completed: 0,
        }
    }

    /// Whether every command started has its reply.
    pub fn is_settled(&self) -> bool {
        self.slots.is_empty()
    }

    /// Commands started whose replies are not out yet.
    pub fn pending(&self) -> usize {
        self.slots.len()
    }

    /// A command that is not answered; it counts as completed in its turn.
    pub fn pass(&mut self) {
        let state = SlotState::Done(Value::Null);
        self.slots.push_back(Slot { protocol: self.protocol, silent: true, state });
    }

    /// Ends the connection without what is still due.
    pub fn cut(&mut self) {
        self.closing = true;
        self.cut = true;
        self.backlog.clear();
        self.fatal = None;
        self.output.clear();
    }

    /// Whether it is to be closed now; true once.
    pub fn take_close(&mut self) -> bool {
        let now = self.closing && (self.cut || self.is_settled()) && !self.closed;
        self.closed |= now;
        now
    }

    fn push(&mut self, state: SlotState) -> u64 {
        let silent = match self.replies {
            Replies::On => false,
            Replies::Off => true,
            Replies::SkipNext => {
                self.replies = Replies::On;
                true
            }
        };
        self.slots.push_back(Slot { protocol: self.protocol, silent, state });
        self.first_slot + self.slots.len() as u64 - 1
    }

    /// A command that is answered at once.
    pub fn answer(&mut self, value: Value) {
        self.push(SlotState::Done(value));
    }

    /// A command that waits for `parts` answers. Returns its slot.
    pub fn wait_for(&mut self, join: Join, parts: usize) -> u64 {
        let parts: Vec<Option<Value>> = (0..parts).map(|_| None).collect();
        self.push(SlotState::Waiting { join, missing: parts.len(), parts })
    }

    /// A command whose answers all came, and which waits for `parts` more.
    pub fn wait_again(&mut self, slot: u64, join: Join, parts: usize) {
        let at = slot.saturating_sub(self.first_slot) as usize;
        if let Some(slot) = self.slots.get_mut(at) {
            let parts: Vec<Option<Value>> = (0..parts).map(|_| None).collect();
            slot.state = SlotState::Waiting { join, missing: parts.len(), parts };
        }
    }

    /// One answer of a waiting command. Returns its join and all parts when it was the last.
    pub fn fill(&mut self, slot: u64, part: usize, value: Value) -> Option<(Join, Vec<Value>)> {
        let at = slot.checked_sub(self.first_slot)? as usize;
        let SlotState::Waiting { join, parts, missing } = &mut self.slots.get_mut(at)?.state else {
            return None;
        };
        let place = parts.get_mut(part)?;
        if place.is_none() {
            *missing -= 1;
        }
        *place = Some(value);
        if *missing > 0 {
            return None;
        }
        let values = parts.drain(..).flatten().collect();
        Some((core::mem::replace(join, Join::One), values))
    }

    /// The reply of a waiting command; `exec` if that is EXEC.
    pub fn finish(&mut self, slot: u64, value: Value, exec: bool) {
        let at = slot.saturating_sub(self.first_slot) as usize;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.state = SlotState::Done(value);
            // EXEC may have held HELLO. Nothing else that waits changes the protocol, and EXEC waits alone.
            slot.protocol = if exec { self.protocol } else { slot.protocol };
        }
    }

    /// Moves the replies that are due to the output.
    pub fn drain(&mut self) {
        while let Some(Slot { state: SlotState::Done(_), .. }) = self.slots.front() {
            if let Some(Slot { protocol, silent, state: SlotState::Done(value) }) = self.slots.pop_front() {
                self.first_slot += 1;
                self.completed += 1;
                if !silent && !self.cut {
                    encode(&value, protocol, &mut self.output);
                }
            }
        }
        if self.slots.is_empty()
            && self.backlog.is_empty()
            && let Some(text) = self.fatal.take()
        {
            encode(&Value::Error(text), self.protocol, &mut self.output);
            self.closing = true;
        }
    }

    /// The bytes to write and the number of commands they complete, since the last call.
    pub fn take_output(&mut self) -> (Bytes, u32) {
        let completed = core::mem::take(&mut self.completed);
        if self.output.capacity() > OUTPUT_KEPT_BYTES_MAX {
            return (Bytes::from(core::mem::take(&mut self.output)), completed);
        }
        // Short replies are copied, as that costs less than new room for each.
        let output = Bytes::copy_from_slice(&self.output);
        self.output.clear();
        (output, completed)
    }

    /// Bytes of replies that are due and not taken yet.
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// What WATCH saw; of a key watched before, the first look counts.
    pub fn watch(&mut self, seen: Vec<(Bytes, Version)>) {
        for (key, version) in seen {
            if self.watched.iter().all(|(known, _)| *known != key) {
                self.watched.push((key, version));
            }
        }
    }

    /// Bytes that are watched, about.
    pub fn watched_bytes(&self) -> usize {
        self.watched.iter().map(|(key, _)| key.len() + WATCHED_KEY_BYTES).sum()
    }

    /// RESET: as if newly connected, but for what the driver knows of it.
    pub fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        self.name = Bytes::new();
        self.readonly = None;
        self.no_evict = false;
        self.no_touch = false;
        self.replies = Replies::On;
        self.multi = None;
        self.watched.clear();
    }
}
