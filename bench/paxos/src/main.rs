//! What a decision costs in the protocol alone, beside omnipaxos 0.2.4 and raft 0.7: three replicas, one thread,
//! messages handed over as values, no disk, logs trimmed, decided commands looked at on every replica.
//!
//! `cd bench && cargo run --release -p bench-paxos [-- CASE [CORE]]`: only cases whose name holds CASE, only the
//! cores whose name holds CORE. For one core and one case `valgrind --tool=callgrind` counts instructions, which are
//! the same on a busy machine; divide by [`SLICES`] times [`COMMANDS`].
//!
//! All are asked in turn, slice by slice, and the lower quartile of the slices counts, so that a busy machine weighs
//! on none of them more than on the others. All are driven alike: a member runs when there is something for it, takes
//! what has arrived, and hands on what it sends. A command is given as one more handle on bytes that are there (raft
//! wants a `Vec`); what frames a batch, and what finds the commands in it again, is part of the time. The others' logs
//! are trimmed every [`TRIM_EVERY`] entries, which is cheapest for them; ours after every round. omnipaxos batches by
//! itself if it is told to (`batch_size`): the better of both counts.
//!
//! A batch of Tholos is one entry that frames many commands; omnipaxos gathers entries into one message. The last lines
//! hold one against the other.
//!
//! Not alike, and to our cost: ours makes a record of everything it accepts, and holds each answer until the driver
//! says that the record is durable, which is one more call. raft's `Ready` gives that too; omnipaxos writes to its
//! storage, in memory, before it answers. Not alike, and to our gain: our followers learn of a decision with the next
//! Accept and not by a message of its own.

mod omni;
#[path = "../../../crates/tholos-paxos/examples/decisions.rs"]
mod ours;
mod tikv;

use ours::Case;

/// Entries between two trims of a peer's log.
const TRIM_EVERY: usize = 512;
/// Commands of a slice.
const COMMANDS: u64 = 16_384;
/// Slices of each core and case, after one that warms up.
const SLICES: usize = 48;

/// A core under way: decides so many commands of a case, and says how many nanoseconds each took.
type Decide = Box<dyn FnMut(&Case, u64) -> f64>;

fn cores(case: &Case) -> [(&'static str, Decide); 4] {
    let mut tholos = ours::Trio::new(Default::default());
    let mut plain = omni::Trio::new(1);
    let mut batching = omni::Trio::new(case.under_way as usize);
    let mut raft = tikv::Trio::new();
    [
        ("tholos", Box::new(move |case, count| tholos.decide(case, count))),
        ("omnipaxos", Box::new(move |case, count| plain.decide(case, count))),
        ("omnipaxos batching", Box::new(move |case, count| batching.decide(case, count))),
        ("raft", Box::new(move |case, count| raft.decide(case, count))),
    ]
}

/// Nanoseconds a command of each core; not a number for those not wanted.
fn measure(case: &Case, wanted: &str) -> [f64; 4] {
    let mut cores = cores(case).map(|(name, core)| name.contains(wanted).then_some(core));
    let mut runs: [Vec<f64>; 4] = Default::default();
    for _ in 0..=SLICES {
        for (core, runs) in cores.iter_mut().zip(&mut runs) {
            runs.extend(core.as_mut().map(|core| core(case, COMMANDS)));
        }
    }
    runs.map(|mut runs| {
        if runs.is_empty() {
            return f64::NAN;
        }
        runs.remove(0);
        runs.sort_by(f64::total_cmp);
        runs[runs.len() / 4]
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (wanted, core) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    println!("three replicas, one thread, {SLICES} × {COMMANDS} commands, lower quartile, ns a command");
    println!("{:30} {:>8} {:>16} {:>8} {:>14}", "", "tholos", "omnipaxos 0.2.4", "raft 0.7", "to omnipaxos");
    // Of batches of 64: ours in one entry, omnipaxos's as it makes them, by bytes of a command.
    let mut batches: Vec<(usize, f64, f64)> = Vec::new();
    for case in Case::all().iter().filter(|case| case.name.contains(&wanted)) {
        let [tholos, plain, batching, raft] = measure(case, &core);
        let omni = plain.min(batching);
        println!("{:30} {tholos:8.1} {omni:16.1} {raft:8.1} {:14.2}", case.name, tholos / omni);
        if case.framed > 0 {
            batches.push((case.command.len(), tholos, f64::NAN));
        } else if let Some(row) = batches.iter_mut().find(|row| row.0 == case.command.len()) {
            row.2 = omni;
        }
    }
    for (bytes, tholos, omni) in batches {
        let name = format!("batches of 64, {bytes} B, own way");
        println!("{name:30} {tholos:8.1} {omni:16.1} {:8} {:14.2}", "", tholos / omni);
    }
}
