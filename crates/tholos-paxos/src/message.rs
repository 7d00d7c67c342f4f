//! What replicas say to each other, what they ask the log to keep, and what is in an entry.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::ballot::{Ballot, Index, Millis, MoveId, ReplicaId, Serial};

/// What one index of the log holds (R4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// A framed batch of commands, opaque to the protocol: encoded once, never unpacked here.
    Batch(Bytes),
    /// The replica set from here on (R6). Stands alone in its index.
    Config(Box<Config>),
    /// Nothing: the first entry of a new leader's own ballot (R15).
    Noop,
    /// Nothing but its time: lets shard time pass a key's expiry (R17).
    Tick,
}

/// One index of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Where it stands.
    pub index: Index,
    /// The ballot in which this value was first proposed at this index. Never changes, also
    /// when a later leader re-sends the entry under its own ballot, so (index, origin) names
    /// one value for ever and two logs can be compared without their bytes (invariant P5).
    pub origin: Ballot,
    /// Shard time in Unix milliseconds: never lower than that of the entry before it (R16).
    pub time: Millis,
    /// Chance for the commands of this entry, the same on every replica (R4).
    pub seed: u64,
    /// The value.
    pub payload: Payload,
}

impl Entry {
    /// Bytes that this entry costs in a window or a message, about.
    pub fn cost_bytes(&self) -> usize {
        64 + match &self.payload {
            Payload::Batch(bytes) => bytes.len(),
            Payload::Config(config) => 8 * (config.voters.len() + config.learners.len()),
            Payload::Noop | Payload::Tick => 0,
        }
    }
}

/// The replica set of a group, numbered (R7).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Config {
    /// Counts up by one with each change; the first set is number 0.
    pub number: u64,
    /// The order that it carries out.
    pub move_id: MoveId,
    /// The replicas whose votes count, in walk order: the first is the preferred leader.
    pub voters: Vec<ReplicaId>,
    /// Replicas that get entries and snapshots, and are in no quorum.
    pub learners: Vec<ReplicaId>,
    /// No id up to this one will be given again: whoever has it or a lower one, and is neither voter nor learner, is retired
    /// for ever.
    pub last_replica: ReplicaId,
}

impl Config {
    /// The first configuration of a group.
    pub fn founding(voters: Vec<ReplicaId>) -> Config {
        let last_replica = voters.iter().copied().max().unwrap_or_default();
        Config { voters, last_replica, ..Config::default() }
    }

    /// The voter or learner that lives at `node`.
    pub fn replica_at(&self, node: u16) -> Option<ReplicaId> {
        self.voters.iter().chain(&self.learners).copied().find(|replica| replica.node() == node)
    }

    /// The id under which a replica at `node` may join after this configuration; `None` if the serials are used up.
    pub fn next_replica_at(&self, node: u16) -> Option<ReplicaId> {
        let serial = self.last_replica.serial().0.checked_add(1)?;
        Some(ReplicaId::new(node, Serial(serial)))
    }
}

/// What one replica says to another about one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Would you promise `ballot`? Binds nobody (R9: a quorum must call the leader lost first).
    Canvass {
        /// The ballot that the sender would prepare.
        ballot: Ballot,
        /// How far the sender's log is known to be decided.
        decided: Index,
    },
    /// Yes to a [`Message::Canvass`]: I, too, have lost the leader.
    Endorse {
        /// The ballot of the canvass.
        ballot: Ballot,
    },
    /// Phase 1a.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// How far the candidate's log is known to be decided.
        decided: Index,
        /// The ballot whose leader has named the candidate its heir, and reads in it no more: grants to it end (R10).
        released: Option<Ballot>,
    },
    /// Phase 1b: no lower ballot will be accepted by the sender. Its log is described, not sent.
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// The ballot in which the sender's whole log was accepted (R1).
        accepted: Ballot,
        /// The last index of the sender's log.
        length: Index,
        /// How far the sender's log is known to be decided.
        decided: Index,
    },
    /// A higher ballot was promised: a hint that saves a time-out, never more.
    Reject {
        /// What the sender has promised.
        promised: Ballot,
    },
    /// The candidate asks for the log that it must adopt, from `from` on.
    Fetch {
        /// The candidate's ballot.
        ballot: Ballot,
        /// First index wanted.
        from: Index,
    },
    /// Part of the answer to [`Message::Fetch`].
    Fetched {
        /// The candidate's ballot.
        ballot: Ballot,
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The last index of the log being fetched.
        whole_to: Index,
    },
    /// A piece of the leader's log under its own ballot, for a replica whose log is still
    /// accepted in an older one. Pieces are staging until `whole_to` is reached (R1).
    Sync {
        /// The leader's ballot.
        ballot: Ballot,
        /// The whole of it replaces everything from here on. Everything below is decided.
        from: Index,
        /// Consecutive entries, starting at `from` or where the last piece ended.
        entries: Vec<Entry>,
        /// The last index of the log that is being sent.
        whole_to: Index,
    },
    /// Phase 2a, pipelined: entries that follow the sender's last ones in this ballot.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// Consecutive entries; taken only at the receiver's accepted index + 1 (R1).
        entries: Vec<Entry>,
        /// The leader's decided index; obeyed only if the receiver's log is accepted in `ballot`.
        decided: Index,
    },
    /// Phase 2b: the sender's log is accepted in `ballot` and durable up to `index`.
    Accepted {
        /// The ballot accepted in.
        ballot: Ballot,
        /// The last durable index.
        index: Index,
    },
    /// An Accept or Decide did not fit: this is where the sender stands.
    Behind {
        /// The ballot of what did not fit, which the sender has promised.
        ballot: Ballot,
        /// The ballot in which the sender's whole log was accepted.
        accepted: Ballot,
        /// The last index of the sender's log.
        length: Index,
        /// How far the sender's log is known to be decided.
        decided: Index,
    },
    /// The leader's marks, when there is no Accept to carry them.
    Decide {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's decided index.
        decided: Index,
        /// The last index the leader has proposed, so that a hole at the end is noticed.
        length: Index,
    },
    /// Read-index round: do you still hold to my ballot (R15)?
    Confirm {
        /// The leader's ballot.
        ballot: Ballot,
        /// Numbers the leader's rounds.
        round: u64,
    },
    /// Yes: the sender has promised exactly `ballot`.
    Confirmed {
        /// The leader's ballot.
        ballot: Ballot,
        /// The round answered.
        round: u64,
    },
    /// Promise nobody else for [`LEASE`](crate::LEASE) from now on (R12).
    Lease {
        /// The leader's ballot.
        ballot: Ballot,
        /// When this was asked, on the leader's clock: comes back with the grant.
        asked: Millis,
    },
    /// Yes: the sender's promise is exactly `ballot`, is durable, and binds for so long.
    Granted {
        /// The leader's ballot.
        ballot: Ballot,
        /// As it was asked.
        asked: Millis,
    },
    /// The leader of `ballot` has drained and will never serve in it again: lead (R10).
    Released {
        /// The ballot given up.
        ballot: Ballot,
    },
    /// The sender has lost records that were durable, and does not know what it has promised (R20).
    Repair {
        /// Fresh in each boot of the sender.
        nonce: u64,
    },
    /// The answer to a [`Message::Repair`] of a replica that has lost nothing.
    Bound {
        /// As it was asked.
        nonce: u64,
        /// No lower than any ballot that the sender has promised.
        promised: Ballot,
        /// The number of the last configuration in the sender's log.
        config: u64,
    },
    /// A leader's answer to a [`Message::Repair`], once it has decided a configuration in which the receiver has another
    /// id: nothing that it has lost counts under this one, so it may begin anew (R20).
    Renewed {
        /// As it was asked, before that configuration was proposed.
        nonce: u64,
        /// The new id.
        replica: ReplicaId,
    },
}

impl Message {
    /// Whether only the leader of a ballot says so.
    pub(crate) fn is_of_leader(&self) -> bool {
        matches!(
            self,
            Message::Sync { .. }
                | Message::Accept { .. }
                | Message::Decide { .. }
                | Message::Confirm { .. }
                | Message::Lease { .. }
                | Message::Released { .. }
        )
    }
}

/// What a replica asks the log to keep. Recovery replays these in the order of their appending.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// No lower ballot will be accepted (phase 1b).
    Promised {
        /// The ballot promised.
        ballot: Ballot,
    },
    /// Entries appended to a log that is accepted in `ballot`.
    Accepted {
        /// The log's ballot, which is at least promised.
        ballot: Ballot,
        /// How far the log was known to be decided before these: recovery may apply so far.
        decided: Index,
        /// Consecutive entries after the last one.
        entries: Vec<Entry>,
    },
    /// The whole re-sent log, in one record (R1): replaces everything from `from` on and
    /// raises the log's ballot.
    Replaced {
        /// The ballot the log is accepted in from now on.
        ballot: Ballot,
        /// Everything from here on is replaced.
        from: Index,
        /// The entries from `from` to the end; may be empty.
        entries: Vec<Entry>,
    },
    /// The majority is gone for good: the log is taken for decided to its end, where a configuration of survivors stands,
    /// and accepted in a ballot that nobody has used (R29). All else as in [`Record::Replaced`].
    Rescued {
        /// The ballot the log is accepted in from now on.
        ballot: Ballot,
        /// The first index that was not known to be decided.
        from: Index,
        /// The entries from `from` to the end; the last is the new configuration.
        entries: Vec<Entry>,
    },
    /// The whole state of the group, so that nothing before it is needed (R22).
    Checkpoint(Box<Checkpoint>),
    /// A replica that joins a group that is there already begins here, and remembers nothing (R7). Whatever comes
    /// before is of a replica that lived here before it.
    Joined {
        /// The id under which it joins.
        replica: ReplicaId,
    },
    /// This replica has lost records that were durable: it votes nowhere until its log is accepted in `until` or a
    /// higher ballot (R20).
    Muted {
        /// `None` as long as that ballot is not known: then everything before this record is void. Who lives here does not
        /// stand in it, so what says that is still needed.
        until: Option<Ballot>,
    },
}

impl Record {
    /// Whether nothing of its group before it is needed. A checkpoint behind which the replica says that it has lost records
    /// ([`Record::Muted`]) counts when that is durable, too (R20).
    pub fn replaces_all(&self) -> bool {
        matches!(self, Record::Checkpoint(_) | Record::Joined { .. })
    }

    /// Whether everything of its group before it is void, but for what says who lives here: damage there costs nothing more.
    pub fn voids_all(&self) -> bool {
        self.replaces_all() || *self == Record::Muted { until: None }
    }
}

/// The whole durable state of one replica of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Checkpoint {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot in which the log is accepted.
    pub accepted: Ballot,
    /// What is known to be decided may have been decided in a higher ballot than that: it came with a snapshot.
    pub knows_above: bool,
    /// Last index that the snapshot covers; zero when there is none.
    pub snapshot: Index,
    /// Time of the last entry that the snapshot covers.
    pub snapshot_time: Millis,
    /// Origin of the last entry that the snapshot covers.
    pub snapshot_origin: Ballot,
    /// The configuration in force at `snapshot`.
    pub config: Config,
    /// The id under which this replica has joined; zero for a founder, whose driver knows its id.
    pub joined: ReplicaId,
    /// How far the log is known to be decided.
    pub decided: Index,
    /// The entries after `snapshot`.
    pub entries: Vec<Entry>,
}
