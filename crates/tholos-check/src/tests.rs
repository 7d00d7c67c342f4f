//! Known-good and known-bad histories, and agreement with a checker that tries every order.

use std::format;
use std::string::{String, ToString as _};
use std::vec;

use super::*;

/// Histories compared with the brute force; without optimisation this takes two seconds.
const ROUNDS: u64 = 8_000;

fn op(client: u64, invoked: u64, returned: u64, kind: Kind, reply: Reply) -> Operation {
    Operation {
        client,
        key: b"k".to_vec(),
        kind,
        invoked,
        returned: Some(returned),
        outcome: Outcome::Ok(reply),
    }
}

fn unknown(client: u64, invoked: u64, kind: Kind) -> Operation {
    Operation { client, key: b"k".to_vec(), kind, invoked, returned: None, outcome: Outcome::Unknown }
}

fn set(client: u64, invoked: u64, returned: u64, value: &str) -> Operation {
    op(client, invoked, returned, Kind::Set(value.into()), Reply::Ok)
}

fn get(client: u64, invoked: u64, returned: u64, value: &str) -> Operation {
    let reply = if value == "nil" { Reply::Nil } else { Reply::Value(value.into()) };
    op(client, invoked, returned, Kind::Get, reply)
}

fn incr(client: u64, invoked: u64, returned: u64, sum: i64) -> Operation {
    op(client, invoked, returned, Kind::IncrBy(1), Reply::Integer(sum))
}

#[track_caller]
fn good(history: &[Operation]) {
    match linearizable(history, &Limits::default()) {
        Verdict::Ok(stats) => assert_eq!(stats.operations, history.len()),
        Verdict::Violation(violation) => panic!("{}", violation.explain()),
        Verdict::Undecided(why) => panic!("{why:?}"),
    }
}

#[track_caller]
fn bad(history: &[Operation]) -> Violation {
    match linearizable(history, &Limits::default()) {
        Verdict::Violation(violation) => *violation,
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn sequential_use_of_every_command_is_fine() {
    use Kind::*;
    let script = [
        (Get, Reply::Nil),
        (SetNx(b"1".to_vec()), Reply::Ok),
        (SetNx(b"2".to_vec()), Reply::Nil),
        (SetNx(b"2".to_vec()), Reply::Integer(0)),
        (IncrBy(41), Reply::Integer(42)),
        (Append(b"0".to_vec()), Reply::Integer(3)),
        (Get, Reply::Value(b"420".to_vec())),
        (GetSet(b"x".to_vec()), Reply::Value(b"420".to_vec())),
        (IncrBy(1), Reply::Refused),
        (Del, Reply::Integer(1)),
        (Del, Reply::Integer(0)),
        (GetDel, Reply::Nil),
        (IncrBy(-1), Reply::Integer(-1)),
        (IncrBy(1), Reply::Integer(0)),
        (IncrBy(0), Reply::Integer(0)),
        (GetDel, Reply::Value(b"0".to_vec())),
        (GetSet(b"y".to_vec()), Reply::Nil),
        (GetSet(b"y".to_vec()), Reply::Value(b"y".to_vec())),
        (Set(i64::MAX.to_string().into_bytes()), Reply::Ok),
        (IncrBy(1), Reply::Refused),
        (Set(b"01".to_vec()), Reply::Ok),
        (IncrBy(1), Reply::Refused),
        (Set(Vec::new()), Reply::Ok),
        (Get, Reply::Value(Vec::new())),
    ];
    let history: Vec<Operation> = script
        .into_iter()
        .zip(0..)
        .map(|((kind, reply), i)| op(0, i * 10, i * 10 + 5, kind, reply))
        .collect();
    good(&history);
}

#[test]
fn a_stale_read_is_found_and_named() {
    let violation = bad(&[set(1, 0, 10, "a"), get(3, 5, 8, "nil"), set(1, 20, 30, "b"), get(2, 40, 50, "a")]);
    assert_eq!((violation.culprit, &violation.core[..]), (3, &[0, 2, 3][..]));
    let text = violation.explain();
    assert!(text.contains("c2             40..50           GET -> \"a\""), "{text}");
}

#[test]
fn a_lost_write_is_found() {
    bad(&[set(1, 0, 10, "a"), get(2, 20, 30, "nil")]);
    bad(&[incr(1, 0, 10, 1), incr(1, 20, 30, 1)]);
    // Both could come first, but neither can be lost.
    good(&[set(1, 0, 10, "a"), set(2, 0, 10, "b"), get(2, 20, 30, "a")]);
    bad(&[set(1, 0, 10, "a"), set(2, 0, 10, "b"), get(2, 20, 30, "nil")]);
}

#[test]
fn an_increment_applied_twice_or_answered_twice_is_found() {
    bad(&[incr(1, 0, 10, 1), incr(2, 5, 15, 1)]);
    bad(&[incr(1, 0, 10, 1), get(2, 20, 30, "2")]);
    good(&[incr(1, 0, 10, 1), unknown(3, 5, Kind::IncrBy(1)), get(2, 20, 30, "2")]);
    bad(&[incr(1, 0, 10, 1), unknown(3, 5, Kind::IncrBy(1)), get(2, 20, 30, "3")]);
    bad(&[incr(1, 0, 10, 1), unknown(3, 5, Kind::IncrBy(1)), get(2, 20, 30, "2"), get(2, 40, 50, "1")]);
}

#[test]
fn reads_do_not_go_back_in_time() {
    let writer = [set(1, 0, 5, "a"), set(1, 10, 100, "b")];
    good(&[&writer[..], &[get(2, 20, 30, "a"), get(2, 40, 50, "b")]].concat());
    bad(&[&writer[..], &[get(2, 20, 30, "b"), get(2, 40, 50, "a")]].concat());
    // Overlapping reads may see it either way round.
    good(&[&writer[..], &[get(2, 20, 45, "b"), get(3, 40, 50, "a")]].concat());
}

#[test]
fn a_lost_update_is_found() {
    let swap = |client, invoked, returned, new: &str, old: &str| {
        op(client, invoked, returned, Kind::GetSet(new.into()), Reply::Value(old.into()))
    };
    good(&[set(0, 0, 5, "a"), swap(1, 10, 30, "b", "a"), swap(2, 10, 30, "c", "b")]);
    bad(&[set(0, 0, 5, "a"), swap(1, 10, 30, "b", "a"), swap(2, 10, 30, "c", "a")]);
    let append = |client, length| op(client, 10, 30, Kind::Append(b"x".to_vec()), Reply::Integer(length));
    good(&[append(1, 1), append(2, 2), get(3, 40, 50, "xx")]);
    bad(&[append(1, 1), append(2, 1)]);
}

#[test]
fn one_lock_has_one_holder() {
    let lock = |client, reply| op(client, 0, 10, Kind::SetNx(vec![b'0' + client as u8]), reply);
    good(&[lock(1, Reply::Ok), lock(2, Reply::Nil), get(3, 20, 30, "1")]);
    bad(&[lock(1, Reply::Ok), lock(2, Reply::Ok)]);
    bad(&[lock(1, Reply::Nil), lock(2, Reply::Nil)]);
}

#[test]
fn an_unknown_write_may_come_late_or_never_but_once() {
    let late = unknown(9, 0, Kind::Set(b"u".to_vec()));
    good(&[late.clone(), set(1, 10, 20, "a"), get(1, 30, 40, "a"), get(1, 50, 60, "u"), get(1, 70, 80, "u")]);
    bad(&[late.clone(), get(1, 30, 40, "u"), set(1, 50, 60, "a"), get(1, 70, 80, "u")]);
    bad(&[get(1, 0, 5, "u"), unknown(9, 6, Kind::Set(b"u".to_vec()))]);
    let failed = Operation { outcome: Outcome::Failed, returned: Some(5), ..late };
    bad(&[failed, get(1, 30, 40, "u")]);
}

#[test]
fn operations_that_touch_overlap_and_a_strict_gap_orders() {
    good(&[set(1, 0, 10, "a"), get(2, 10, 20, "nil")]);
    bad(&[set(1, 0, 10, "a"), get(2, 11, 20, "nil")]);
}

#[test]
fn a_reply_of_the_wrong_type_is_a_violation() {
    bad(&[op(1, 0, 1, Kind::Get, Reply::Integer(1))]);
    bad(&[op(1, 0, 1, Kind::Del, Reply::Integer(2))]);
}

#[test]
fn keys_are_judged_apart() {
    let mut other = set(1, 0, 10, "a");
    other.key = b"other".to_vec();
    good(&[other.clone(), get(2, 20, 30, "nil")]);
    let violation = bad(&[other, get(2, 20, 30, "zz")]);
    assert_eq!((violation.key.as_slice(), violation.operations.len()), (b"k".as_slice(), 1));
}

#[test]
fn a_limit_is_undecided_and_never_ok() {
    // Every order of these appends gives another value, and none gives the one read.
    let mut history: Vec<Operation> =
        (0..14).map(|i| unknown(i, 0, Kind::Append(vec![b'a' + i as u8]))).collect();
    history.push(get(20, 10, 20, "abcdefghijklmnz"));
    let limits = Limits { steps_max: 10_000, ..Limits::default() };
    let verdict = linearizable(&history, &limits);
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict:?}");
    let wide: Vec<Operation> = (0..300).map(|i| set(i, 0, 10, "a")).collect();
    assert!(matches!(linearizable(&wide, &limits), Verdict::Undecided(_)));
}

/// xorshift64*, for histories that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Runs one operation on the store; the second, independent implementation of the commands.
fn execute(store: &mut Option<Vec<u8>>, kind: &Kind) -> Reply {
    let value = |v: &Option<Vec<u8>>| v.clone().map_or(Reply::Nil, Reply::Value);
    let before = store.clone();
    match kind {
        Kind::Get => return value(store),
        Kind::Set(v) => *store = Some(v.clone()),
        Kind::SetNx(v) if before.is_none() => *store = Some(v.clone()),
        Kind::SetNx(_) => return Reply::Nil,
        Kind::Del => return Reply::Integer(i64::from(store.take().is_some())),
        Kind::GetDel => {
            *store = None;
            return value(&before);
        }
        Kind::GetSet(v) => {
            *store = Some(v.clone());
            return value(&before);
        }
        Kind::IncrBy(delta) => {
            let text = String::from_utf8(before.unwrap_or_else(|| b"0".to_vec())).unwrap();
            let number = text.parse::<i64>().ok().filter(|n| n.to_string() == text);
            let Some(sum) = number.and_then(|n| n.checked_add(*delta)) else { return Reply::Refused };
            *store = Some(sum.to_string().into_bytes());
            return Reply::Integer(sum);
        }
        Kind::Append(suffix) => {
            let mut joined = before.unwrap_or_default();
            joined.extend_from_slice(suffix);
            *store = Some(joined.clone());
            return Reply::Integer(joined.len() as i64);
        }
    }
    Reply::Ok
}

fn some_kind(random: &mut Random, unique: Option<u64>) -> Kind {
    let value = match unique {
        Some(number) => format!("v{number}").into_bytes(),
        None => [&b"1"[..], b"2", b"x", b""][random.below(4) as usize].to_vec(),
    };
    match random.below(if unique.is_some() { 10 } else { 12 }) {
        0 => Kind::SetNx(value),
        1 => Kind::Del,
        2 => Kind::GetDel,
        3 => Kind::GetSet(value),
        4 | 5 => Kind::Set(value),
        10 => Kind::IncrBy(random.below(3) as i64 - 1),
        11 => Kind::Append(value),
        _ => Kind::Get,
    }
}

/// A correct run: each operation takes effect at its number, and its call and return are up to `spread` away.
fn correct_run(
    random: &mut Random,
    count: u64,
    spread: u64,
    unique: bool,
    unknown_in: u64,
) -> Vec<Operation> {
    let mut store = None;
    let mut history = Vec::new();
    for i in 0..count {
        let kind = some_kind(random, unique.then_some(i));
        let at = 1_000 + i * 10;
        let invoked = at - random.below(spread);
        let mut operation = unknown(i % 16, invoked, kind);
        if random.below(unknown_in) != 0 {
            operation.outcome = Outcome::Ok(execute(&mut store, &operation.kind));
            operation.returned = Some(at + 1 + random.below(spread));
        } else if random.below(2) == 0 {
            execute(&mut store, &operation.kind);
        }
        history.push(operation);
    }
    history
}

/// Tries every order: the checker that cannot be wrong, for a handful of operations.
fn brute_force(history: &[Operation], done: &mut Vec<bool>, store: &Option<Vec<u8>>) -> bool {
    let known = |operation: &Operation| operation.returned.is_some() && operation.outcome != Outcome::Unknown;
    if (0..history.len()).all(|i| done[i] || !known(&history[i])) {
        return true;
    }
    for i in 0..history.len() {
        let blocked = (0..history.len()).any(|j| {
            !done[j] && known(&history[j]) && history[j].returned.is_some_and(|at| at < history[i].invoked)
        });
        if done[i] || blocked {
            continue;
        }
        let mut after = store.clone();
        let reply = execute(&mut after, &history[i].kind);
        let reply = match (&history[i].kind, &history[i].outcome, reply) {
            (Kind::SetNx(_), Outcome::Ok(Reply::Integer(1)), Reply::Ok) => Reply::Integer(1),
            (Kind::SetNx(_), Outcome::Ok(Reply::Integer(0)), Reply::Nil) => Reply::Integer(0),
            (_, _, reply) => reply,
        };
        if known(&history[i]) && history[i].outcome != Outcome::Ok(reply) {
            continue;
        }
        done[i] = true;
        if brute_force(history, done, &after) {
            return true;
        }
        done[i] = false;
    }
    false
}

#[test]
fn agrees_with_trying_every_order() {
    let mut random = Random(42);
    let (mut accepted, mut rejected) = (0, 0);
    for round in 0..ROUNDS {
        let (count, spread) = (1 + random.below(7), 1 + random.below(60));
        let mut history = correct_run(&mut random, count, spread, false, 4);
        // Half of the histories get wrong replies: those of another run.
        if round % 2 == 0 {
            let other = correct_run(&mut random, count, spread, false, 4);
            for (mine, theirs) in history.iter_mut().zip(other) {
                if random.below(3) == 0 {
                    mine.kind = theirs.kind;
                    if let (Outcome::Ok(mine), Outcome::Ok(theirs)) = (&mut mine.outcome, theirs.outcome) {
                        *mine = theirs;
                    }
                }
            }
        }
        let expected = brute_force(&history, &mut vec![false; history.len()], &None);
        match linearizable(&history, &Limits::default()) {
            Verdict::Ok(_) => assert!(expected, "wrongly accepted: {history:#?}"),
            Verdict::Violation(violation) => {
                assert!(!expected, "wrongly rejected: {history:#?}\n{}", violation.explain());
                check_violation(&violation);
            }
            Verdict::Undecided(why) => panic!("{why:?}: {history:#?}"),
        }
        if expected { accepted += 1 } else { rejected += 1 }
    }
    assert!(accepted.min(rejected) > ROUNDS / 10, "one-sided: {accepted} accepted, {rejected} rejected");
}

/// The core contradicts itself, and each member of it is needed.
fn check_violation(violation: &Violation) {
    let with_firm = |firm: &[usize]| {
        let history: Vec<Operation> = (violation.operations.iter().enumerate())
            .map(|(i, operation)| match &operation.outcome {
                Outcome::Ok(_) if !firm.contains(&i) => {
                    Operation { returned: None, outcome: Outcome::Unknown, ..operation.clone() }
                }
                _ => operation.clone(),
            })
            .filter(|operation| {
                operation.invoked <= violation.operations[violation.culprit].returned.unwrap()
            })
            .collect();
        brute_force(&history, &mut vec![false; history.len()], &None)
    };
    assert!(!with_firm(&violation.core), "the core has an order: {violation:#?}");
    for &spare in &violation.core {
        let rest: Vec<usize> = violation.core.iter().copied().filter(|&i| i != spare).collect();
        assert!(with_firm(&rest), "{spare} is not needed: {violation:#?}");
    }
}

#[test]
fn long_correct_runs_are_accepted() {
    let mut random = Random(11);
    for round in 0..60 {
        good(&correct_run(&mut random, 400, 10 + round % 80, round % 3 != 0, 50));
    }
}

#[test]
fn a_read_moved_to_the_end_of_a_long_run_is_rejected() {
    let mut random = Random(7);
    let mut rejected = 0;
    for round in 0..40 {
        let mut history = correct_run(&mut random, 400, 10 + round % 50, true, 50);
        let reads: Vec<usize> = (0..history.len())
            .filter(|&i| matches!((&history[i].kind, &history[i].outcome), (Kind::Get, Outcome::Ok(_))))
            .collect();
        let (from, to) =
            (reads[random.below(20) as usize], reads[reads.len() - 1 - random.below(20) as usize]);
        history[to].outcome = history[from].outcome.clone();
        match linearizable(&history, &Limits::default()) {
            Verdict::Violation(violation) => {
                rejected += 1;
                assert!(violation.core.contains(&violation.culprit));
            }
            // Both reads saw no value, or the state just then.
            Verdict::Ok(_) => assert!(history[to].outcome == Outcome::Ok(Reply::Nil)),
            Verdict::Undecided(why) => panic!("{why:?}"),
        }
    }
    assert!(rejected > 24, "only {rejected} of 40 rejected");
}

#[test]
fn many_unknown_operations_on_one_key_do_not_explode() {
    let mut random = Random(3);
    good(&correct_run(&mut random, 5_000, 100, true, 4));
    // A counter with hundreds of lost replies.
    let mut store = None;
    let mut history = Vec::new();
    for i in 0..3_000 {
        let at = 1_000 + i * 10;
        let mut operation = unknown(i % 8, at - random.below(80), Kind::IncrBy(1));
        let reply = execute(&mut store, &operation.kind);
        if random.below(5) != 0 {
            operation.outcome = Outcome::Ok(reply);
            operation.returned = Some(at + 1 + random.below(80));
        }
        history.push(operation);
    }
    good(&history);
    let total = history.len() as i64;
    history.push(incr(1, 900_000, 900_010, total + 2));
    bad(&history);
}
