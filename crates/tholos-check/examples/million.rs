//! How long a million operations take to check: `cargo run --profile sim -p tholos-check --example million`.

use std::time::Instant;

use tholos_check::{Kind, Limits, Operation, Outcome, Reply, linearizable};

const OPERATIONS: u64 = 1_000_000;

fn main() {
    for (keys, clients) in [(1_000, 16), (32, 16), (32, 64), (1, 16)] {
        let history = history(keys, clients);
        let begin = Instant::now();
        let verdict = linearizable(&history, &Limits::default());
        println!("{keys} keys, {clients} clients: {:.2} s, {verdict:?}", begin.elapsed().as_secs_f64());
    }
}

/// A correct run of `SET`, `DEL` and `GET`: each takes effect at its number, its call and
/// its return are up to as many operations away as there are clients; one in 2,000 never returns.
fn history(keys: u64, clients: u64) -> Vec<Operation> {
    let mut state = 5_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut stores: Vec<Option<Vec<u8>>> = vec![None; usize::try_from(keys).expect("few keys")];
    let mut history = Vec::new();
    for number in 0..OPERATIONS {
        let key = below(keys);
        let store = &mut stores[usize::try_from(key).expect("few keys")];
        let at = 1_000 + number * 10;
        let (kind, reply) = match below(10) {
            0 => {
                let existed = store.take().is_some();
                (Kind::Del, Reply::Integer(i64::from(existed)))
            }
            1..=4 => {
                let value = format!("v{number}").into_bytes();
                *store = Some(value.clone());
                (Kind::Set(value), Reply::Ok)
            }
            _ => (Kind::Get, store.clone().map_or(Reply::Nil, Reply::Value)),
        };
        let known = below(2_000) != 0;
        history.push(Operation {
            client: number % clients,
            key: format!("key:{key}").into_bytes(),
            kind,
            invoked: at - below(10 * clients),
            returned: known.then(|| at + 1 + below(10 * clients)),
            outcome: if known { Outcome::Ok(reply) } else { Outcome::Unknown },
        });
    }
    history
}
