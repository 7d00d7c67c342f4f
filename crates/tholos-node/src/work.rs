//! What clients wait for in one shard, and what was asked of it lately.
//!
//! Few of a node's shards have any of it at a time, so a shard makes its own when the first request comes and gives it back
//! when it is found idle (I3). Nothing here is needed to say what the shard's state is.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_paxos::{Ballot, Index, Millis};
use tholos_resp::Value;

use crate::hot::Asked;
use crate::operation::{HEADER_BYTES, Operation, WriteHeader, encode_item_bytes};
use crate::peer::Outcome;
use crate::refused::RefusedWrites;
use crate::shard::{Answers, Origin};

/// Bytes of one batch, about; a larger command makes a batch of its own.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Commands of one batch.
pub(crate) const BATCH_COMMANDS_MAX: usize = 4096;
/// Bytes that may wait to be proposed in one shard; above it writes are refused.
const WAITING_BYTES_MAX: usize = 128 << 20;
/// A WAIT from another node that was not asked for again for this long has nobody behind it.
const WAIT_ASKED_WITHIN: Millis = Millis(4000);
/// A Tick for expiry's sake at most this often (R17).
pub(crate) const TICK_INTERVAL: Millis = Millis(1000);

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Work {
    batches: VecDeque<Batch>,
    waiting_bytes: usize,
    proposed: VecDeque<Proposed>,
    reads: BTreeMap<u64, PendingRead>,
    last_token: u64,
    last_tick_at: Millis,
    waits: Option<Box<Waits>>,
    pub(crate) refused: Option<Box<RefusedWrites>>,
    /// The last read whose look-ups are foreseen.
    foreseen_read: u64,
    pub(crate) asked: Asked,
}

/// Writes that are proposed together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) waiters: Vec<Origin>,
}

#[derive(Debug)]
struct Proposed {
    index: Index,
    /// The ballot it was proposed in: another leader's entry may come to stand at its index.
    origin: Ballot,
    waiters: Vec<Origin>,
}

/// A read that is not answered yet.
#[derive(Debug)]
pub(crate) struct PendingRead {
    pub(crate) operation: Operation,
    pub(crate) origin: Origin,
}

/// Those who wait for more than the applied state or the next entry. Most shards never have one.
#[derive(Debug, Default)]
struct Waits {
    /// Reads that wait until a Tick at this index is applied (R17).
    after_tick: VecDeque<(Index, PendingRead)>,
    durable: Vec<DurableWait>,
}

/// A WAIT or WAITAOF on the leader (R32).
#[derive(Debug)]
pub(crate) struct DurableWait {
    pub(crate) index: Index,
    pub(crate) replicas: u64,
    pub(crate) local: bool,
    pub(crate) until: Option<Millis>,
    pub(crate) origin: Origin,
    /// When its gateway last asked.
    pub(crate) asked_at: Millis,
}

impl Work {
    /// Whether nobody waits here, nothing was asked of the shard lately, and nothing would be done otherwise without what
    /// is remembered here.
    pub(crate) fn is_over(&self, now: Millis) -> bool {
        self.batches.is_empty()
            && self.proposed.is_empty()
            && self.reads.is_empty()
            && self.waits.is_none()
            && self.refused.is_none()
            && self.asked == Asked::default()
            && self.may_tick(now)
    }

    /// Gives back memory that was reserved for what is to come.
    pub(crate) fn shrink(&mut self) {
        self.batches.shrink_to_fit();
        self.proposed.shrink_to_fit();
        self.waits.take_if(|waits| waits.after_tick.is_empty() && waits.durable.is_empty());
        self.refused.take_if(|refused| refused.is_empty());
    }

    /// Leadership is gone: what was proposed has an unknown fate, the rest was not proposed.
    pub(crate) fn stop_leading(&mut self, answers: &mut Answers) {
        for proposed in self.proposed.drain(..) {
            answers.extend(proposed.waiters.into_iter().map(|origin| (origin, Outcome::Unknown)));
        }
        self.waiting_bytes = 0;
        let waiting = self.batches.drain(..).flat_map(|batch| batch.waiters);
        let Waits { after_tick, durable } = self.waits.take().map(|waits| *waits).unwrap_or_default();
        let ticked = after_tick.into_iter().map(|(_, read)| read.origin);
        let durable = durable.into_iter().map(|wait| wait.origin);
        let not_leader = |origin| (origin, Outcome::NotLeader { leader: None });
        answers.extend(waiting.chain(ticked).chain(durable).map(not_leader));
    }
}

/// Writes.
impl Work {
    /// Whether no more writes can wait for this shard.
    pub(crate) fn is_overfull(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Whether so many writes or more wait to be proposed.
    pub(crate) fn has_waiting(&self, writes: usize) -> bool {
        // Most times the bytes tell, without a look at each batch.
        let fits = self.waiting_bytes >= writes.saturating_mul(HEADER_BYTES);
        fits && self.batches.iter().map(|batch| batch.waiters.len()).sum::<usize>() >= writes
    }

    /// Whether a copy of this request waits here to be proposed, or to be decided.
    pub(crate) fn has_taken(&self, origin: &Origin) -> bool {
        let proposed = self.proposed.iter().flat_map(|proposed| &proposed.waiters);
        let mut waiting = self.batches.iter().flat_map(|batch| &batch.waiters).chain(proposed);
        waiting.any(|waiter| waiter.is_same_request(origin))
    }

    /// Adds a write to those that wait to be proposed.
    pub(crate) fn write(&mut self, header: &WriteHeader, operation: &[u8], origin: Origin) {
        let full = self.batches.back().is_none_or(|batch| {
            batch.bytes.len() + operation.len() > BATCH_BYTES_MAX || batch.waiters.len() >= BATCH_COMMANDS_MAX
        });
        if full {
            self.batches.push_back(Batch::default());
        }
        let Some(batch) = self.batches.back_mut() else { return };
        let before = batch.bytes.len();
        encode_item_bytes(header, operation, &mut batch.bytes);
        batch.waiters.push(origin);
        self.waiting_bytes += batch.bytes.len() - before;
    }

    /// Whether writes wait to be proposed.
    pub(crate) fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// The writes to be proposed next.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    /// All that wait to be proposed.
    pub(crate) fn take_batches(&mut self) -> VecDeque<Batch> {
        self.waiting_bytes = 0;
        core::mem::take(&mut self.batches)
    }

    /// They could not be proposed now.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        self.batches.push_front(batch);
    }

    /// Writes of so many bytes are proposed at `index`, in the ballot `origin`.
    pub(crate) fn note_proposed(&mut self, bytes: usize, index: Index, origin: Ballot, waiters: Vec<Origin>) {
        self.waiting_bytes -= bytes;
        self.proposed.push_back(Proposed { index, origin, waiters });
    }

    /// Who waits for the entry that is applied now; nobody does if another leader's stands at its index.
    pub(crate) fn take_waiters(&mut self, index: Index, origin: Ballot) -> Vec<Origin> {
        let is_it = |proposed: &mut Proposed| (proposed.index, proposed.origin) == (index, origin);
        self.proposed.pop_front_if(is_it).map(|proposed| proposed.waiters).unwrap_or_default()
    }
}

/// Reads.
impl Work {
    /// A number for a read that no other has.
    pub(crate) fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// A read that the group was asked for under this number.
    pub(crate) fn add_read(&mut self, token: u64, read: PendingRead) {
        self.reads.insert(token, read);
    }

    /// It is confirmed, or cannot be.
    pub(crate) fn take_read(&mut self, token: u64) -> Option<PendingRead> {
        self.reads.remove(&token)
    }

    /// The keys of the reads that have come since the last call.
    pub(crate) fn foresee_reads(&mut self) -> impl Iterator<Item = &Bytes> {
        let foreseen = &mut self.foreseen_read;
        self.reads.range(*foreseen + 1..).filter_map(|(token, read)| {
            *foreseen = *token;
            let Operation::Command(args) = &read.operation else { return None };
            args.get(1)
        })
    }

    /// Whether a Tick may be proposed for expiry's sake.
    pub(crate) fn may_tick(&self, now: Millis) -> bool {
        now.since(self.last_tick_at) >= TICK_INTERVAL
    }

    /// One is.
    pub(crate) fn note_tick(&mut self, now: Millis) {
        self.last_tick_at = now;
    }

    /// A read waits until the Tick at `index` is applied (R17).
    pub(crate) fn add_after_tick(&mut self, index: Index, read: PendingRead) {
        self.waits.get_or_insert_default().after_tick.push_back((index, read));
    }

    /// A read whose Tick is applied.
    pub(crate) fn take_after_tick(&mut self, applied: Index) -> Option<PendingRead> {
        let after_tick = &mut self.waits.as_mut()?.after_tick;
        after_tick.pop_front_if(|(index, _)| *index <= applied).map(|(_, read)| read)
    }

    /// The index of the last Tick that a read waits for.
    pub(crate) fn last_tick(&self) -> Option<Index> {
        self.waits.as_ref()?.after_tick.back().map(|(index, _)| *index)
    }
}

/// WAIT and WAITAOF.
impl Work {
    /// One that waits here already is asked for again; `false` if it does not.
    pub(crate) fn renew_wait(&mut self, origin: Origin, now: Millis) -> bool {
        let mut waits = self.waits.iter_mut().flat_map(|waits| &mut waits.durable);
        let Some(wait) = waits.find(|wait| wait.origin.is_same_request(&origin)) else { return false };
        (wait.asked_at, wait.origin) = (now, origin);
        true
    }

    /// One more.
    pub(crate) fn add_wait(&mut self, wait: DurableWait) {
        self.waits.get_or_insert_default().durable.push(wait);
    }

    /// How many are open.
    pub(crate) fn waits(&self) -> usize {
        self.waits.as_ref().map_or(0, |waits| waits.durable.len())
    }

    /// Whoever waited with this request has left.
    pub(crate) fn forget_wait(&mut self, origin: &Origin) {
        if let Some(waits) = &mut self.waits {
            waits.durable.retain(|wait| !wait.origin.is_same_request(origin));
        }
    }

    /// Answers those whose condition holds or whose time is over (R32). `reached` says of an index how many other replicas
    /// have it durably, and whether this one does.
    pub(crate) fn answer_waits(
        &mut self,
        reached: impl Fn(Index) -> (u64, bool),
        now: Millis,
        answers: &mut Answers,
    ) {
        let Some(waits) = &mut self.waits else { return };
        waits.durable.retain(|wait| {
            let (replicas, local) = reached(wait.index);
            let done = replicas >= wait.replicas && (local || !wait.local);
            if done || wait.until.is_some_and(|until| now >= until) {
                let numbers = alloc::vec![Value::Integer(i64::from(local)), Value::Integer(replicas as i64)];
                answers.push((wait.origin, Outcome::Done(Value::Array(numbers))));
                return false;
            }
            // Gateways elsewhere ask again as long as their clients wait; this node says when one has left.
            wait.origin.node.is_none() || now.since(wait.asked_at) < WAIT_ASKED_WITHIN
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_nobody_waits_and_what_is_remembered_changes_nothing() {
        let origin = |request| Origin { node: None, relay: None, boot: 1, request };
        let header = WriteHeader { session: 1, sequence: 1, acknowledged: 0, expires_at: Millis(9_000) };
        let (mut work, now, ballot) = (Work::default(), Millis(5_000), Ballot::ZERO);
        assert!(work.is_over(now));
        work.write(&header, b"set", origin(1));
        assert!(!work.is_over(now), "a write waits to be proposed");
        let batch = work.take_batch().expect("it waits");
        work.note_proposed(batch.bytes.len(), Index(7), ballot, batch.waiters);
        assert!(!work.is_over(now), "a write waits to be decided");
        assert!(work.take_waiters(Index(6), ballot).is_empty());
        assert_eq!(work.take_waiters(Index(7), ballot).len(), 1);
        assert!(work.is_over(now));
        let token = work.next_token();
        let read = |request| PendingRead { operation: Operation::HowFar, origin: origin(request) };
        work.add_read(token, read(2));
        assert!(!work.is_over(now), "a read waits");
        assert!(work.take_read(token).is_some());
        work.add_after_tick(Index(8), read(2));
        work.shrink();
        assert!(!work.is_over(now), "a read waits for a Tick");
        assert!(work.take_after_tick(Index(8)).is_some());
        work.shrink();
        work.note_tick(now);
        assert!(!work.is_over(Millis(5_999)), "the next Tick would come too soon");
        assert!(work.is_over(Millis(6_000)));
    }
}
