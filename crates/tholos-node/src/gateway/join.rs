//! How the answers of several shards become one reply.

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_engine::Version;
use tholos_engine::wide::CURSOR_BITS;
use tholos_resp::Value;
use tholos_ring::ShardId;

/// What to make of the answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Join {
    /// There is one, and it is the reply.
    One,
    /// Integers, to be added: EXISTS, TOUCH, DEL, UNLINK, DBSIZE.
    Sum,
    /// Arrays whose items belong at these places: MGET.
    Places {
        /// For each part, where its items go.
        places: Vec<Vec<usize>>,
        /// How many items there are.
        count: usize,
    },
    /// All are OK, or the first that is not: FLUSHALL.
    AllOk,
    /// Arrays, to be strung together: KEYS.
    Concat,
    /// Pairs of (keys in the shard, a key or null); one key by chance: RANDOMKEY.
    Pick {
        /// Chance.
        seed: u64,
    },
    /// Pages of SCAN, of one shard after the other.
    Scan(Scan),
    /// A transaction: the replies of the shard's commands among those made here.
    Exec {
        /// A command to run here, or `None` where the shard's next reply belongs.
        local: Vec<Option<Vec<Bytes>>>,
    },
    /// Versions of watched keys, part by part.
    Watch {
        /// The keys of each part.
        keys: Vec<Vec<Bytes>>,
    },
    /// Pairs (local, replicas): the least replica count is the reply (R32).
    Wait,
    /// Pairs (local, replicas): the least of both.
    WaitAof,
}

/// SCAN under way. It goes on from shard to shard until it has as many keys as it is asked for: of few keys in many shards
/// it answers more than none at a time, and clients that take the first page of few keys for all of them are right, as
/// with Redis.
#[derive(Clone, PartialEq, Debug)]
pub struct Scan {
    /// The command, its name first.
    pub args: Vec<Bytes>,
    /// So many keys are enough.
    pub count: usize,
    /// The shards that are asked for a page now, in their order.
    pub asked: Vec<ShardId>,
    /// The shards after those.
    pub rest: Vec<ShardId>,
    /// The keys of the shards before those.
    pub found: Vec<Value>,
}

impl Scan {
    /// Shards that are asked at once, at most.
    const ASKED_MAX: usize = 256;

    /// The pages of all that were asked. A shard that does not answer ends the page before it, and is the error of the next
    /// SCAN; of the first shard it is the error of this one.
    fn finish(mut self, parts: Vec<Value>) -> Joined {
        let mut stop = None;
        for (at, part) in parts.into_iter().enumerate() {
            let shard = self.asked[at];
            if let Value::Error(_) = &part {
                if at == 0 && self.found.is_empty() {
                    return Joined::Reply(part);
                }
                stop = Some(cursor(shard, 0));
                break;
            }
            let mut page = items(part).into_iter();
            let within = page.next().as_ref().and_then(integer).unwrap_or(0) as u64;
            self.found.extend(page.next().map(items).unwrap_or_default());
            if within > 0 {
                stop = Some(cursor(shard, within));
                break;
            }
            if self.found.len() >= self.count {
                let next = self.asked.get(at + 1).or(self.rest.first());
                stop = Some(next.map_or(0, |next| cursor(*next, 0)));
                break;
            }
        }
        match stop {
            Some(stop) => Joined::Reply(Scan::page(stop, self.found)),
            None if self.rest.is_empty() => Joined::Reply(Scan::page(0, self.found)),
            None => {
                // Twice as many as before: few rounds where there is little, and little asked in vain where there is much.
                let asked = (self.asked.len() * 2).min(Scan::ASKED_MAX).min(self.rest.len());
                self.asked = self.rest.drain(..asked).collect();
                Joined::ScanOn(self)
            }
        }
    }

    /// What was found before the shards that would be asked now.
    pub fn cut_short(self) -> Value {
        Scan::page(self.asked.first().map_or(0, |next| cursor(*next, 0)), self.found)
    }

    /// SCAN's reply.
    pub fn page(cursor: u64, keys: Vec<Value>) -> Value {
        Value::Array(alloc::vec![Value::bulk(alloc::format!("{cursor}")), Value::Array(keys)])
    }
}

/// A place in a shard, as SCAN's cursor has it (R25).
fn cursor(shard: ShardId, within: u64) -> u64 {
    u64::from(shard.0) << CURSOR_BITS | within
}

/// A reply, or for WATCH what was seen.
#[derive(Debug)]
pub enum Joined {
    /// The reply.
    Reply(Value),
    /// The versions; the reply is OK.
    Watched(Vec<(Bytes, Version)>),
    /// The transaction's commands to run here, and the replies of the shard's.
    Executed(Vec<Option<Vec<Bytes>>>, Vec<Value>),
    /// The next shards are to be asked.
    ScanOn(Scan),
}

impl Join {
    /// Makes one reply of all answers. The first error among them is the reply; after a fan-out
    /// of writes it says that other parts may have happened (R30).
    pub fn finish(self, mut parts: Vec<Value>) -> Joined {
        if !matches!(self, Join::Scan(_))
            && let Some(at) = parts.iter().position(|part| matches!(part, Value::Error(_)))
        {
            let error = parts.swap_remove(at);
            let several = !parts.is_empty() && matches!(self, Join::Sum | Join::AllOk);
            return Joined::Reply(if several { partly(error) } else { error });
        }
        Joined::Reply(match self {
            Join::One => parts.pop().unwrap_or(Value::Null),
            Join::Sum => Value::Integer(parts.iter().filter_map(integer).sum()),
            Join::Places { places, count } => place(&places, count, parts),
            Join::AllOk => Value::ok(),
            Join::Concat => Value::Array(parts.into_iter().flat_map(items).collect()),
            Join::Pick { seed } => pick(seed, parts),
            Join::Scan(scan) => return scan.finish(parts),
            Join::Exec { local } => match parts.pop() {
                Some(Value::Array(replies)) => return Joined::Executed(local, replies),
                // A watched key has changed: nothing was done.
                other => other.unwrap_or(Value::NullArray),
            },
            Join::Watch { keys } => return Joined::Watched(watched(keys, parts)),
            Join::Wait => Value::Integer(least(&parts, 1)),
            Join::WaitAof => {
                Value::Array([least(&parts, 0), least(&parts, 1)].into_iter().map(Value::Integer).collect())
            }
        })
    }
}

const NOTHING_READ: &[u8] = b"nothing was read";

fn partly(error: Value) -> Value {
    let Value::Error(text) = error else { return error };
    // The errors of what only reads say so.
    if text.windows(NOTHING_READ.len()).any(|part| part == NOTHING_READ) {
        return Value::Error(text);
    }
    let mut whole = text.to_vec();
    whole.extend_from_slice(b" (keys in other slots of this command may have been written)");
    Value::Error(Bytes::from(whole))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn place(places: &[Vec<usize>], count: usize, parts: Vec<Value>) -> Value {
    let mut all: Vec<Value> = (0..count).map(|_| Value::Null).collect();
    for (places, part) in places.iter().zip(parts) {
        for (at, item) in places.iter().zip(items(part)) {
            all[*at] = item;
        }
    }
    Value::Array(all)
}

fn pick(seed: u64, parts: Vec<Value>) -> Value {
    let shards: Vec<Vec<Value>> = parts.into_iter().map(items).collect();
    let count = |shard: &Vec<Value>| shard.first().and_then(integer).unwrap_or(0) as u64;
    let total: u64 = shards.iter().map(count).sum();
    let mut rest = if total > 0 { seed % total } else { 0 };
    for shard in shards {
        let keys = count(&shard);
        if rest < keys {
            return shard.into_iter().nth(1).unwrap_or(Value::Null);
        }
        rest -= keys;
    }
    Value::Null
}

fn watched(keys: Vec<Vec<Bytes>>, parts: Vec<Value>) -> Vec<(Bytes, Version)> {
    let mut all = Vec::new();
    for (keys, part) in keys.into_iter().zip(parts) {
        for (key, version) in keys.into_iter().zip(items(part)) {
            let numbers: Vec<i64> = items(version).iter().filter_map(integer).collect();
            if let [index, position, present] = numbers[..] {
                let version =
                    Version { index: index as u64, position: position as u32, present: present != 0 };
                all.push((key, version));
            }
        }
    }
    all
}

fn least(parts: &[Value], at: usize) -> i64 {
    let number = |part: &Value| match part {
        Value::Array(items) => items.get(at).and_then(integer),
        _ => None,
    };
    parts.iter().filter_map(number).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn reply(join: Join, parts: Vec<Value>) -> Value {
        match join.finish(parts) {
            Joined::Reply(value) => value,
            other => panic!("{other:?}"),
        }
    }

    fn ints(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().map(|number| Value::Integer(*number)).collect())
    }

    #[test]
    fn mget_puts_items_back_in_their_places() {
        let join = Join::Places { places: alloc::vec![alloc::vec![0, 2], alloc::vec![1]], count: 3 };
        assert_eq!(reply(join, alloc::vec![ints(&[10, 30]), ints(&[20])]), ints(&[10, 20, 30]));
    }

    #[test]
    fn a_part_that_failed_fails_the_whole_and_says_so() {
        let parts = alloc::vec![Value::Integer(1), Value::error("INDOUBT x")];
        let Value::Error(text) = reply(Join::Sum, parts) else { panic!() };
        assert!(text.starts_with(b"INDOUBT x (keys in other slots"));
        let read = || {
            Value::error("CLUSTERDOWN no quorum for this shard in time, nothing was read: try again later")
        };
        assert_eq!(reply(Join::Sum, alloc::vec![Value::Integer(1), read()]), read());
    }

    #[test]
    fn scan_goes_from_shard_to_shard() {
        let scan = |asked: &[u16], rest: &[u16], found: usize| Scan {
            args: Vec::new(),
            count: 3,
            asked: asked.iter().copied().map(ShardId).collect(),
            rest: rest.iter().copied().map(ShardId).collect(),
            found: (0..found).map(|_| Value::bulk("k")).collect(),
        };
        let page = |within, keys: &[i64]| Value::Array(alloc::vec![Value::Integer(within), ints(keys)]);
        let told = |scan: Scan, parts| match Join::Scan(scan).finish(parts) {
            Joined::Reply(Value::Array(parts)) => match &parts[..] {
                [Value::Bulk(cursor), Value::Array(keys)] => {
                    alloc::format!("{} {}", String::from_utf8_lossy(cursor), keys.len())
                }
                other => alloc::format!("{other:?}"),
            },
            Joined::ScanOn(next) => alloc::format!("on {:?} {}", next.asked, next.found.len()),
            other => alloc::format!("{other:?}"),
        };
        let at = |shard: u64, within: u64| shard << 43 | within;
        assert_eq!(told(scan(&[3], &[], 0), alloc::vec![page(0, &[1])]), "0 1", "the last shard");
        assert_eq!(
            told(scan(&[3], &[4, 5, 9, 10], 0), alloc::vec![page(0, &[])]),
            "on [ShardId(4), ShardId(5)] 0",
            "too few: on to twice as many"
        );
        assert_eq!(
            told(scan(&[4, 5], &[9], 0), alloc::vec![page(0, &[1, 2]), page(0, &[3])]),
            alloc::format!("{} 3", at(9, 0)),
            "enough"
        );
        assert_eq!(
            told(scan(&[4, 5], &[9], 1), alloc::vec![page(0, &[1, 2]), page(0, &[3])]),
            alloc::format!("{} 3", at(5, 0)),
            "enough without the second shard, which will be asked again"
        );
        assert_eq!(
            told(scan(&[4, 5], &[9], 0), alloc::vec![page(7, &[1]), page(0, &[3])]),
            alloc::format!("{} 1", at(4, 7)),
            "a shard that has more goes on"
        );
        let error = || Value::error("CLUSTERDOWN");
        assert_eq!(
            told(scan(&[4, 5], &[], 0), alloc::vec![page(0, &[1]), error()]),
            alloc::format!("{} 1", at(5, 0)),
            "a shard that does not answer is left for the next call"
        );
        assert!(told(scan(&[4], &[], 0), alloc::vec![error()]).contains("CLUSTERDOWN"));
        assert_eq!(scan(&[4, 5], &[], 1).cut_short(), Scan::page(at(4, 0), alloc::vec![Value::bulk("k")]));
    }

    #[test]
    fn a_transaction_that_was_refused_runs_nothing_here() {
        let local = alloc::vec![None, Some(alloc::vec![Bytes::from_static(b"PING")])];
        let refused = reply(Join::Exec { local: local.clone() }, alloc::vec![Value::NullArray]);
        assert_eq!(refused, Value::NullArray);
        let done = Join::Exec { local: local.clone() }.finish(alloc::vec![ints(&[1])]);
        assert!(matches!(done, Joined::Executed(here, replies)
            if here == local && replies == [Value::Integer(1)]));
    }
}
