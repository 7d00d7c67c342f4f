//! The acceptor: what one replica has promised and accepted, and the messages that wait for disk.
//!
//! Paxos Made Simple §2.2, phases 1b and 2b, for a whole log rather than one value; §2.5: what an
//! acceptor must remember is on stable storage before it speaks of it.
//!
//! The promise and the log are changed here alone (with [`recovery`] and [`answers`]), each together with the record
//! that tells of it. The decided and applied marks need no record of their own.
//!
//! Rules kept here: R1 (entries are taken only at accepted + 1 of that very ballot; the log's ballot rises only
//! with the whole log), R2 and R3 (no message before the record that it rests on is durable), R20 (that records
//! were lost is itself on disk, until nothing that was lost counts any more). Of the crate's invariants: P2 and P5 for
//! what arrives a second time, P6 for snapshots.

mod answers;
mod recovery;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

pub(crate) use self::recovery::Lost;
use crate::ballot::{AppendSeq, Ballot, Index, ReplicaId};
use crate::log::{Base, Log};
use crate::message::{Checkpoint, Config, Entry, Message, Record};
use crate::options::Planted;
use crate::outbox::Outbox;
use crate::rare::Rare;

#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    me: ReplicaId,
    /// Whether this replica has joined a running group (R7), and is no founder.
    has_joined: bool,
    promised: Ballot,
    /// The append that holds it; zero if it was there at the start.
    promised_at: AppendSeq,
    log: Log,
    /// The last append of this group.
    appended: AppendSeq,
    /// Everything up to here is durable.
    durable: AppendSeq,
    held: Rare<VecDeque<Held>>,
    /// What it begins with, and begins with again when it has lost everything.
    initial: Arc<Config>,
    lost: Option<Box<Lost>>,
    /// What it knows to be decided came with a snapshot of a higher ballot than that of its log: the log of a ballot in between
    /// has other entries there, perhaps a Config that was never decided.
    knows_above_its_log: bool,
}

/// Appends are counted from the last durable one: their numbers tell how busy this replica has been, and decide
/// nothing.
impl Hash for Acceptor {
    fn hash<H: Hasher>(&self, to: &mut H) {
        // Taken apart, so that no field is forgotten.
        let Acceptor {
            me,
            has_joined,
            promised,
            promised_at,
            log,
            appended,
            durable,
            held,
            initial,
            lost,
            knows_above_its_log,
        } = self;
        let ahead = |seq: &AppendSeq| seq.0.saturating_sub(durable.0);
        let held = held.get().into_iter().flatten();
        (me, has_joined, promised, ahead(promised_at), log, initial, lost, ahead(appended)).hash(to);
        (held.clone().count(), knows_above_its_log).hash(to);
        for Held { seq, to: receiver, message } in held {
            (ahead(seq), receiver, message).hash(to);
        }
    }
}

/// A message that may leave when `seq` is durable.
#[derive(Clone, PartialEq, Debug)]
struct Held {
    seq: AppendSeq,
    to: ReplicaId,
    message: Message,
}

/// Where a replica stands: who, and what their log is like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Standing {
    pub(crate) replica: ReplicaId,
    pub(crate) accepted: Ballot,
    pub(crate) length: Index,
    pub(crate) decided: Index,
}

impl Standing {
    /// The log to adopt is the one with the highest (accepted ballot, length).
    pub(crate) fn rank(&self) -> (Ballot, Index) {
        (self.accepted, self.length)
    }
}

impl Acceptor {
    pub(crate) fn new(me: ReplicaId, config: Arc<Config>) -> Acceptor {
        Acceptor {
            me,
            has_joined: false,
            promised: Ballot::ZERO,
            promised_at: AppendSeq(0),
            log: Log::new(Arc::clone(&config)),
            appended: AppendSeq(0),
            durable: AppendSeq(0),
            held: Rare::default(),
            initial: config,
            lost: None,
            knows_above_its_log: false,
        }
    }

    /// A replica that joins a running group: it knows no configuration, so it can win nothing before it has
    /// learnt one.
    pub(crate) fn join(me: ReplicaId, out: &mut Outbox) -> Acceptor {
        let mut acceptor = Acceptor::joined(me);
        acceptor.record(Record::Joined { replica: me }, out);
        acceptor
    }

    /// A replica that has joined under this id, without anything that it remembers.
    pub(crate) fn joined(me: ReplicaId) -> Acceptor {
        Acceptor { has_joined: true, ..Acceptor::new(me, Arc::default()) }
    }

    pub(crate) fn me(&self) -> ReplicaId {
        self.me
    }

    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    /// Whether a promise was made, and a restart would remember it.
    pub(crate) fn has_durable_promise(&self) -> bool {
        self.promised > Ballot::ZERO && self.promised_at <= self.durable
    }

    /// What its checkpoints say: its id, or zero of a founder.
    fn joined_as(&self) -> ReplicaId {
        if self.has_joined { self.me } else { ReplicaId::default() }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            replica: self.me,
            accepted: self.log.accepted(),
            length: self.log.last(),
            decided: self.log.decided(),
        }
    }

    /// Marks everything up to `index` decided. Returns whether that is news.
    pub(crate) fn decide(&mut self, index: Index) -> bool {
        self.log.decide(index)
    }

    /// The next decided entry to apply, in order, each once.
    pub(crate) fn take_decided(&mut self) -> Option<&Entry> {
        self.log.take_decided()
    }

    /// Forgets applied entries up to `to` in memory.
    pub(crate) fn trim(&mut self, to: Index) {
        self.log.trim(to);
    }
}

/// Records: each goes with the change that it tells of.
impl Acceptor {
    /// Promises `ballot`.
    pub(crate) fn promise(&mut self, ballot: Ballot, out: &mut Outbox) -> AppendSeq {
        self.raise_promised(ballot);
        self.record(Record::Promised { ballot }, out)
    }

    /// Takes `entries`, which follow the last one, into the log in the ballot that it has.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, out: &mut Outbox) -> AppendSeq {
        for entry in &entries {
            self.log.append(entry.clone());
        }
        let (ballot, decided) = (self.log.accepted(), self.log.decided());
        self.record(Record::Accepted { ballot, decided, entries }, out)
    }

    /// The same for one entry. Those that come before the driver takes their record share it.
    pub(crate) fn append_next(&mut self, entry: Entry, out: &mut Outbox) -> AppendSeq {
        let ballot = self.log.accepted();
        // The outbox may serve other groups too: only its last record can be told to be one of this.
        if out.last_seq() == self.appended
            && let Some(Record::Accepted { ballot: same, entries, .. }) = out.appends.last_mut()
            && *same == ballot
        {
            self.log.append(entry.clone());
            entries.push(entry);
            return self.appended;
        }
        self.append(alloc::vec![entry], out)
    }

    /// Takes `entries` as all that follows the decided index, accepted in `ballot`: one record
    /// replaces the tail and raises the log's ballot (R1). Entries below must be those known.
    pub(crate) fn adopt(&mut self, ballot: Ballot, mut entries: Vec<Entry>, out: &mut Outbox) -> AppendSeq {
        let decided = self.log.decided();
        let known = entries.iter().take_while(|entry| entry.index <= decided).count();
        for entry in entries.drain(..known) {
            if let Some(mine) = self.log.get(entry.index) {
                // P2 and P5: what is decided is the same everywhere.
                assert_eq!(mine.origin, entry.origin, "two values decided at {}", entry.index);
            }
        }
        let from = decided.next();
        self.raise_promised(ballot.max(self.promised));
        self.log.replace(from, entries.clone());
        self.log.raise_accepted(ballot);
        // Whoever leads in the ballot that was promised has what was decided in lower ones.
        self.knows_above_its_log = false;
        self.record(Record::Replaced { ballot, from, entries }, out)
    }

    /// Takes the whole log for decided, with `last` on top, accepted in `ballot`, which is the origin of `last` and of
    /// nothing else (R29): one record, so that a crash leaves all of it or nothing.
    pub(crate) fn rescue(
        &mut self,
        ballot: Ballot,
        mut last: Entry,
        planted: Planted,
        out: &mut Outbox,
    ) -> AppendSeq {
        let from = self.log.decided().next();
        let mut entries = self.log.after(self.log.decided());
        if planted == Planted::RescueDropsUnknown {
            entries.clear();
            last.index = from;
        }
        entries.push(last);
        self.raise_promised(ballot);
        self.log.replace(from, entries.clone());
        self.log.raise_accepted(ballot);
        self.knows_above_its_log = false;
        self.log.decide(self.log.last());
        self.record(Record::Rescued { ballot, from, entries }, out)
    }

    /// The whole durable state, with `snapshot` as what a durable snapshot covers (R22).
    pub(crate) fn checkpoint(&self, snapshot: Base, config: Config) -> Checkpoint {
        Checkpoint {
            promised: self.promised,
            accepted: self.log.accepted(),
            knows_above: self.knows_above_its_log,
            snapshot: snapshot.index,
            snapshot_time: snapshot.time,
            snapshot_origin: snapshot.origin,
            config,
            joined: self.joined_as(),
            decided: self.log.decided(),
            entries: self.log.after(snapshot.index),
        }
    }

    pub(crate) fn append_checkpoint(
        &mut self,
        snapshot: Base,
        config: Config,
        planted: Planted,
        out: &mut Outbox,
    ) -> AppendSeq {
        let mut checkpoint = self.checkpoint(snapshot, config);
        match planted {
            Planted::CheckpointWithoutTail => checkpoint.entries.clear(),
            Planted::CheckpointForgetsPromise => checkpoint.promised = checkpoint.accepted,
            _ => {}
        }
        let seq = self.record(Record::Checkpoint(Box::new(checkpoint)), out);
        // The checkpoint replaces what is before it, also the record that says so: it counts when that is there again.
        match self.lost() {
            None => seq,
            Some(_) if planted == Planted::CheckpointForgetsMute => seq,
            Some(Lost::Unknown) => self.record(Record::Muted { until: None }, out),
            Some(Lost::Until(until)) => self.record(Record::Muted { until: Some(until) }, out),
        }
    }

    /// Takes over a durable snapshot that holds what was decided in `ballot` or lower ones, and promises that
    /// ballot: what the snapshot holds is known here now, and a leader of a lower one might lack it (P6).
    pub(crate) fn install(
        &mut self,
        ballot: Ballot,
        base: Base,
        config: Config,
        planted: Planted,
        out: &mut Outbox,
    ) -> AppendSeq {
        if planted != Planted::SnapshotDoesNotBind {
            self.raise_promised(ballot.max(self.promised));
        }
        self.knows_above_its_log = ballot > self.log.accepted();
        self.log.install(base, Arc::new(config.clone()), planted == Planted::TailKeptAfterSnapshot);
        if planted == Planted::SnapshotRaisesBallot {
            self.log.raise_accepted(ballot);
        }
        self.append_checkpoint(base, config, planted, out)
    }

    /// Tells the leader of `ballot`, whose snapshot was taken over, where this log stands.
    pub(crate) fn say_installed(&mut self, ballot: Ballot, planted: Planted, out: &mut Outbox) {
        if self.log.accepted() == ballot {
            self.say_accepted(ballot.replica, ballot, planted, out);
        } else {
            self.send_when_durable(ballot.replica, self.behind(ballot), out);
        }
    }

    fn raise_promised(&mut self, ballot: Ballot) {
        assert!(ballot >= self.promised, "promise {} falls to {ballot}", self.promised);
        if ballot > self.promised {
            self.promised = ballot;
            // The record that holds it comes next.
            self.promised_at = AppendSeq(u64::MAX);
        }
    }

    fn record(&mut self, record: Record, out: &mut Outbox) -> AppendSeq {
        let seq = out.append(record);
        assert!(seq > self.appended, "appends are numbered upwards");
        self.appended = seq;
        self.promised_at = self.promised_at.min(seq);
        seq
    }
}

/// The disk.
impl Acceptor {
    pub(crate) fn all_durable(&self) -> bool {
        self.durable >= self.appended
    }

    /// Sends `message` when everything this group has asked to append so far is durable.
    pub(crate) fn send_when_durable(&mut self, to: ReplicaId, message: Message, out: &mut Outbox) {
        if self.all_durable() {
            out.send(to, message);
        } else {
            self.held.make().push_back(Held { seq: self.appended, to, message });
        }
    }

    /// Gives back memory that was reserved for what is to come.
    pub(crate) fn shrink(&mut self) {
        self.log.shrink();
        self.held.shrink();
    }

    pub(crate) fn handle_durable(&mut self, seq: AppendSeq, out: &mut Outbox) {
        self.durable = self.durable.max(seq);
        let Some(all) = self.held.get_mut() else { return };
        while let Some(Held { to, message, .. }) = all.pop_front_if(|held| held.seq <= self.durable) {
            // Of several Accepted to the same leader that leave together, the last says all.
            if let (Message::Accepted { ballot, .. }, Some(next)) = (&message, all.front())
                && next.seq <= self.durable
                && next.to == to
                && matches!(&next.message, Message::Accepted { ballot: later, .. } if later == ballot)
            {
                continue;
            }
            out.send(to, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::ballot::Millis;
    use crate::message::Payload;

    const BALLOT: Ballot = Ballot { round: 2, replica: ReplicaId(2) };

    fn acceptor() -> Acceptor {
        Acceptor::new(ReplicaId(1), Config::founding(vec![ReplicaId(1), ReplicaId(2)]).into())
    }

    fn entries(indexes: core::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let entry = |at| {
            let (index, time) = (Index(at), Millis(at));
            Entry { index, origin: BALLOT, time, seed: 0, payload: Payload::Noop }
        };
        indexes.map(entry).collect()
    }

    fn accept(acceptor: &mut Acceptor, ballot: Ballot, first: u64, last: u64, out: &mut Outbox) {
        let entries = entries(first..=last);
        acceptor.handle_accept(ballot.replica, ballot, entries, Index::ZERO, Planted::Nothing, out);
    }

    #[test]
    fn what_is_hashed_is_what_waits_and_not_how_it_is_numbered() {
        let hashed = |acceptor: &Acceptor| {
            let mut hasher = std::hash::DefaultHasher::new();
            acceptor.hash(&mut hasher);
            hasher.finish()
        };
        let (mut one, mut other, mut out) = (acceptor(), acceptor(), Outbox::default());
        // Two records or one, all durable: the same replica.
        one.adopt(BALLOT, entries(1..=1), &mut out);
        accept(&mut one, BALLOT, 2, 2, &mut out);
        one.handle_durable(out.last_seq(), &mut out);
        let mut once = Outbox::default();
        other.adopt(BALLOT, entries(1..=2), &mut once);
        assert_ne!(hashed(&one), hashed(&other));
        other.handle_durable(once.last_seq(), &mut once);
        assert_eq!(hashed(&one), hashed(&other));
        // The next record is waited for, and so is what it holds back.
        accept(&mut one, BALLOT, 3, 3, &mut out);
        other.append(entries(3..=3), &mut once);
        assert_ne!(hashed(&one), hashed(&other));
        other.say_accepted(BALLOT.replica, BALLOT, Planted::Nothing, &mut once);
        assert_eq!(hashed(&one), hashed(&other));
    }

    #[test]
    fn every_change_is_in_a_record_and_recovers() {
        let (mut acceptor, mut out) = (acceptor(), Outbox::default());
        acceptor.promise(Ballot { round: 1, replica: ReplicaId(1) }, &mut out);
        acceptor.adopt(BALLOT, entries(1..=3), &mut out);
        accept(&mut acceptor, BALLOT, 4, 5, &mut out);
        acceptor.decide(Index(4));
        acceptor.append_checkpoint(Base::default(), Config::default(), Planted::Nothing, &mut out);
        for records in [&out.appends[..3], &out.appends[3..]] {
            let mut again = super::tests::acceptor();
            for record in records {
                again.recover(record.clone(), Planted::Nothing).unwrap();
            }
            let decided = again.log().decided();
            assert_eq!(again.standing(), Standing { decided, ..acceptor.standing() });
            assert_eq!(again.promised(), BALLOT);
        }
    }

    #[test]
    fn a_replica_that_joined_comes_back_under_its_id_and_without_the_one_before_it() {
        let (mut before, mut out) = (acceptor(), Outbox::default());
        before.promise(BALLOT, &mut out);
        let me = ReplicaId::new(1, crate::ballot::Serial(3));
        let mut joined = Acceptor::join(me, &mut out);
        let config = Config { number: 4, ..Config::founding(vec![ReplicaId(2), me]) };
        joined.install(
            BALLOT,
            Base { index: Index(7), ..Base::default() },
            config.clone(),
            Planted::Nothing,
            &mut out,
        );
        for records in [&out.appends[..2], &out.appends[..], &out.appends[2..]] {
            let mut again = acceptor();
            for record in records {
                again.recover(record.clone(), Planted::Nothing).unwrap();
            }
            assert_eq!(again.me(), me);
            let known = if records.len() == 2 { Config::default() } else { config.clone() };
            assert_eq!(again.log().latest_config(), &known);
            assert_eq!(again.promised(), if records.len() == 2 { Ballot::ZERO } else { BALLOT });
        }
    }

    #[test]
    fn a_checkpoint_is_known_to_whoever_has_all_before_it() {
        let (mut acceptor, mut out) = (acceptor(), Outbox::default());
        acceptor.adopt(BALLOT, entries(1..=3), &mut out);
        accept(&mut acceptor, BALLOT, 4, 5, &mut out);
        acceptor.promise(Ballot { round: 3, replica: ReplicaId(1) }, &mut out);
        acceptor.decide(Index(4));
        let base = Base { index: Index(3), origin: BALLOT, time: Millis(3) };
        let checkpoint = acceptor.checkpoint(base, Config::default());
        let recovered = |records: &[Record]| {
            let mut again = super::tests::acceptor();
            for record in records {
                // What follows a lost record cannot be taken.
                let _ = again.recover(record.clone(), Planted::Nothing);
            }
            again
        };
        let mut whole = recovered(&out.appends);
        assert!(whole.recover_known(&checkpoint, Planted::Nothing));
        assert_eq!(whole.standing(), acceptor.standing());
        assert_eq!(whole.promised(), acceptor.promised());
        for lost in [&out.appends[1..], &out.appends[..1], &[]] {
            assert!(!recovered(lost).recover_known(&checkpoint, Planted::Nothing));
        }
        // The promise is in the checkpoint too.
        let mut unpromised = recovered(&out.appends[..2]);
        assert!(unpromised.recover_known(&checkpoint, Planted::Nothing));
        assert_eq!(unpromised.promised(), acceptor.promised());
    }

    #[test]
    fn accepted_waits_for_disk_and_the_last_says_all() {
        let (mut acceptor, mut out) = (acceptor(), Outbox::default());
        let adopted = acceptor.adopt(BALLOT, entries(1..=1), &mut out);
        accept(&mut acceptor, BALLOT, 2, 2, &mut out);
        accept(&mut acceptor, BALLOT, 3, 3, &mut out);
        acceptor.handle_durable(adopted, &mut out);
        assert!(out.sends.is_empty() && !acceptor.all_durable());
        acceptor.handle_durable(out.last_seq(), &mut out);
        let accepted = Message::Accepted { ballot: BALLOT, index: Index(3) };
        assert_eq!(out.sends, [(ReplicaId(2), accepted)]);
    }

    #[test]
    fn entries_are_taken_only_at_the_end_of_a_log_of_their_ballot() {
        let (mut acceptor, mut out) = (acceptor(), Outbox::default());
        acceptor.adopt(BALLOT, entries(1..=1), &mut out);
        let later = Ballot { round: 3, ..BALLOT };
        accept(&mut acceptor, later, 2, 2, &mut out);
        accept(&mut acceptor, BALLOT, 3, 3, &mut out);
        let behind = |ballot| (ReplicaId(2), acceptor.behind(ballot));
        assert_eq!(out.sends, [behind(later), behind(BALLOT)]);
        assert_eq!((acceptor.log().last(), out.appends.len()), (Index(1), 1));
    }
}
