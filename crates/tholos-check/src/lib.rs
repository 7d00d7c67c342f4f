//! Is this history linearizable? Register operations with counters, checked key by key.
//!
//! A history is linearizable if every operation can be given one instant between its call and its return, such
//! that the operations in the order of these instants are a correct run of one sequential store (Herlihy and Wing,
//! *Linearizability: A Correctness Condition for Concurrent Objects*, 1990). Linearizability is local (theorem 1
//! there), so each key is checked alone.
//!
//! The search is Wing and Gong's with Lowe's *just-in-time linearization* (G. Lowe, *Testing for linearizability*,
//! 2017): walk the calls and returns in time order, and only when an operation returns without an instant choose
//! which of the open operations took theirs, ending with this one. Configurations already refuted are remembered.
//!
//! Rules kept here; each only leaves out orders that a shorter one stands for, so none changes the answer:
//!
//! - K1: an operation that changes nothing (a read, a refused `SET NX`) takes its instant as soon as it fits.
//! - K2: a value that a remaining operation must still find is not overwritten unless something can bring it back.
//! - K3: operations of unknown fate with the same effect stand for one another: the one called first is used first.
//! - K4: a blind write of unknown fate that is overwritten at once has not happened.
//! - K5: a refuted configuration refutes all that differ from it only by having used up more unknown operations.
//!
//! Times are any integers that grow: a simulator's event numbers, a process's monotonic nanoseconds. Two operations
//! are ordered only if one returned *strictly* before the other was called.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod explain;
mod history;
mod lists;
mod model;
mod remaining;
mod search;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use model::Values;
use search::{Found, Search, Timeline};

pub use explain::Violation;
pub use history::{HISTORY_HEADER, HistoryError, read_operation, write_operation};

/// The same order of iteration, should any be made, in every run.
type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// What a client asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `GET key`.
    Get,
    /// `SET key value`.
    Set(Vec<u8>),
    /// `SET key value NX` or `SETNX`.
    SetNx(Vec<u8>),
    /// `DEL key`, of this one key.
    Del,
    /// `INCRBY key delta`; `INCR` is a delta of 1, `DECR` of −1.
    IncrBy(i64),
    /// `APPEND key suffix`.
    Append(Vec<u8>),
    /// `GETDEL key`.
    GetDel,
    /// `GETSET key value` or `SET key value GET`.
    GetSet(Vec<u8>),
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// The null reply.
    Nil,
    /// An integer; a `SET NX` may be answered by 1 and 0 as well as by `OK` and null.
    Integer(i64),
    /// A string.
    Value(Vec<u8>),
    /// An error that follows from the value alone: not an integer, or the sum would overflow.
    Refused,
}

/// How an operation ended, as far as its client can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect once, between its call and its return, with this reply.
    Ok(Reply),
    /// It may have happened at any time after its call, still may, or never will.
    Unknown,
    /// It has certainly not happened and never will.
    Failed,
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called; only for the report.
    pub client: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The command.
    pub kind: Kind,
    /// When the client called.
    pub invoked: u64,
    /// When the client had the reply; `None` if it never did, whatever `outcome` says.
    pub returned: Option<u64>,
    /// What the client knows.
    pub outcome: Outcome,
}

/// Bounds of the search. Reaching one gives [`Verdict::Undecided`], never an answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Configurations looked at, per key.
    pub steps_max: u64,
    /// Refuted configurations remembered, per key; one takes about 80 bytes.
    pub refuted_max: usize,
    /// Bytes of different values held, per key (an `APPEND` makes a new one).
    pub value_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps_max: 20_000_000, refuted_max: 2_000_000, value_bytes_max: 256 << 20 }
    }
}

/// The answer.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// Every key's operations have a legal order.
    Ok(Stats),
    /// One key's operations have none.
    Violation(Box<Violation>),
    /// A limit was reached on at least one key and no other key is at fault: nothing is known.
    Undecided(Undecided),
}

/// What a successful check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations of the history.
    pub operations: usize,
    /// Different keys.
    pub keys: usize,
    /// Configurations looked at, over all keys.
    pub steps: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The first key (in byte order) that reached a limit.
    pub key: Vec<u8>,
    /// Operations of this key.
    pub operations: usize,
    /// The limit, in words.
    pub reason: &'static str,
}

/// Checks a history within `limits`. The order of `history` does not matter.
///
/// # Panics
/// If an operation returned before it was called: then the recorder is wrong and no answer would mean anything.
pub fn linearizable(history: &[Operation], limits: &Limits) -> Verdict {
    let mut by_key: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Some(returned) = operation.returned {
            assert!(operation.invoked <= returned, "an operation returned before its call: {operation:?}");
        }
        by_key.entry(&operation.key).or_default().push(operation);
    }
    let mut stats = Stats { operations: history.len(), keys: by_key.len(), steps: 0 };
    let mut undecided = None;
    for (key, operations) in by_key {
        let timeline = Timeline::new(&operations);
        match decide(&operations, &timeline, limits, &|_| false, usize::MAX) {
            (Found::Order(_), steps) => stats.steps += steps,
            (Found::None, _) => {
                return Verdict::Violation(Box::new(explain::shrink(key, &operations, &timeline, limits)));
            }
            (Found::Limit(reason), _) => {
                undecided.get_or_insert(Undecided {
                    key: key.to_vec(),
                    operations: operations.len(),
                    reason,
                });
            }
        }
    }
    undecided.map_or(Verdict::Ok(stats), Verdict::Undecided)
}

/// Searches one key's operations up to event `cut`, taking those that `demoted` names, and those that return later,
/// as of unknown fate. Both only weaken the history: what has no order weakened has none as it is.
fn decide(
    operations: &[&Operation],
    timeline: &Timeline,
    limits: &Limits,
    demoted: &dyn Fn(usize) -> bool,
    cut: usize,
) -> (Found, u64) {
    let mut values = Values::new(limits.value_bytes_max);
    let steps = operations
        .iter()
        .enumerate()
        .map(|(i, operation)| {
            let known = timeline.returns(i) < cut && !demoted(i);
            (timeline.invokes(i) < cut).then(|| model::compile(operation, known, &mut values)).flatten()
        })
        .collect();
    let mut search = Search::new(steps, timeline, cut, values, *limits);
    let found = search.run();
    (found, search.steps())
}
