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
    /// A page of SCAN of this shard; what comes after its end.
    Scan {
        /// The shard of the page.
        shard: ShardId,
        /// The next shard to scan, if there is one.
        next: Option<ShardId>,
    },
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

/// A reply, or for WATCH what was seen.
#[derive(Debug)]
pub enum Joined {
    /// The reply.
    Reply(Value),
    /// The versions; the reply is OK.
    Watched(Vec<(Bytes, Version)>),
    /// The transaction's commands to run here, and the replies of the shard's.
    Executed(Vec<Option<Vec<Bytes>>>, Vec<Value>),
}

impl Join {
    /// Makes one reply of all answers. The first error among them is the reply; after a fan-out
    /// of writes it says that other parts may have happened (R30).
    pub fn finish(self, mut parts: Vec<Value>) -> Joined {
        if let Some(at) = parts.iter().position(|part| matches!(part, Value::Error(_))) {
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
            Join::Scan { shard, next } => scan(shard, next, parts),
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

fn partly(error: Value) -> Value {
    let Value::Error(text) = error else { return error };
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

fn scan(shard: ShardId, next: Option<ShardId>, mut parts: Vec<Value>) -> Value {
    let mut page = items(parts.pop().unwrap_or(Value::Null)).into_iter();
    let within = page.next().as_ref().and_then(integer).unwrap_or(0) as u64;
    let keys = page.next().unwrap_or(Value::Array(Vec::new()));
    let cursor = match (within, next) {
        (0, None) => 0,
        (0, Some(next)) => u64::from(next.0) << CURSOR_BITS,
        (within, _) => u64::from(shard.0) << CURSOR_BITS | within,
    };
    let cursor = Value::bulk(alloc::format!("{cursor}"));
    Value::Array(alloc::vec![cursor, keys])
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
    }

    #[test]
    fn scan_goes_from_shard_to_shard() {
        let page = |within| alloc::vec![Value::Array(alloc::vec![Value::Integer(within), ints(&[])])];
        let cursor = |within, next| match reply(Join::Scan { shard: ShardId(3), next }, page(within)) {
            Value::Array(parts) => parts[0].clone(),
            other => other,
        };
        assert_eq!(cursor(0, None), Value::bulk("0"));
        assert_eq!(cursor(0, Some(ShardId(4))), Value::bulk(alloc::format!("{}", 4_u64 << 43)));
        assert_eq!(cursor(9, None), Value::bulk(alloc::format!("{}", (3_u64 << 43) + 9)));
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
