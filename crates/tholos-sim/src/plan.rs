//! The faults of a run: a list made from the seed before the run begins, so that any part of it can be left out.

use crate::coverage::Reached;
use crate::faults::{Fault, Rot};
use crate::moves::Step;
use crate::net::Weather;
use crate::random::Random;
use crate::sim::{FAULTS_END_US, REPLICAS, SHARDS};

/// Faults of a run, at least and at most.
const TROUBLES: (u64, u64) = (10, 24);

/// One fault, and whatever mends it, each with its time.
pub type Trouble = Vec<(u64, Fault)>;

/// Plans a run's faults: at least ten, spread over the time until they stop. `jobs` move replicas besides; a machine that
/// is `wiped` loses what it had already.
pub fn plan(random: &mut Random, nodes: usize, jobs: bool, wiped: bool) -> Vec<Trouble> {
    let count = random.between(TROUBLES.0, TROUBLES.1);
    let mut troubles: Vec<Trouble> = (0..count)
        .map(|_| {
            let at = random.between(1_500_000, FAULTS_END_US - 1_000_000);
            plan_one(at, random, nodes)
        })
        .collect();
    // Disks rot in one machine of a run, at most: a minority. It may stay away for good, so this comes late.
    if random.below(3) == 0 && !wiped {
        let host = random.below(nodes as u64) as usize;
        let at = random.between(FAULTS_END_US / 2, FAULTS_END_US - 3_000_000);
        troubles.push(vec![(at, rot(host, random))]);
    }
    // Where there are nodes to spare, replicas move, most often in the middle of something else.
    if nodes > REPLICAS && !jobs {
        troubles.extend((0..random.between(1, 4)).map(|_| change(random)));
    }
    // Chance of its own, so that the faults above stay what they were.
    troubles.extend(slow_processor(&mut random.clone(), nodes));
    troubles.sort_by_key(|trouble| trouble[0].0);
    troubles
}

/// In half of the runs a machine has to share its processor for a while.
fn slow_processor(random: &mut Random, nodes: usize) -> Option<Trouble> {
    let mut random = random.fork();
    let (host, stretch) = (random.below(nodes as u64) as usize, random.between(150, 900));
    let at = random.between(1_500_000, FAULTS_END_US - 10_000_000);
    let until = at + random.between(1_000_000, 20_000_000);
    let slow = Fault::SlowProcessor { host, stretch };
    let trouble = vec![(at, slow), (until, Fault::SlowProcessor { host, stretch: 100 })];
    (random.below(2) == 0).then_some(trouble)
}

/// A node learns, and soon a learner votes, for the leader or for another, or goes again.
fn change(random: &mut Random) -> Trouble {
    let at = random.between(1_500_000, FAULTS_END_US - 4_000_000);
    let shard = random.below(u64::from(SHARDS)) as u16;
    let mut step = |step| Fault::ChangeReplicas { shard, step, pick: random.bits() };
    let first = (at, step(Step::Learn));
    let others = [step(Step::Vote), step(Step::VoteForLeader), step(Step::Vote), step(Step::Leave)];
    let (then, once_more) = (random.below(4) as usize, random.below(4) as usize);
    let later = random.between(50_000, 2_000_000);
    vec![first, (at + later, others[then]), (at + 2 * later, others[once_more])]
}

fn rot(host: usize, random: &mut Random) -> Fault {
    let (kind, seed) = (random.below(8), random.bits());
    let rot = match kind {
        0 | 1 => Rot::Bit,
        2 if seed.is_multiple_of(3) => Rot::Headers,
        2 => Rot::Sector,
        3 | 4 => Rot::SnapshotBit,
        5 | 6 => Rot::Copy,
        _ => Rot::Misdirect,
    };
    Fault::Rot { host, rot, seed, kill_after_us: random.between(1_000, 1_500_000) }
}

fn plan_one(at: u64, random: &mut Random, nodes: usize) -> Trouble {
    let host = random.below(nodes as u64) as usize;
    let power = random.below(2) == 0;
    let short = random.between(1_000, 400_000);
    let long = random.between(400_000, 6_000_000);
    let down_us = if random.below(2) == 0 { short } else { long };
    let one = |fault| vec![(at, fault)];
    match random.below(26) {
        0..=4 => one(Fault::Crash { host, power, down_us }),
        5 => one(Fault::CrashAll { power, down_us: short }),
        6 | 7 => one(Fault::CrashInWrite { host, changes: if power { 0 } else { random.between(1, 40) } }),
        8..=10 => one(Fault::Pause { host, for_us: random.between(20_000, 2_500_000) }),
        11..=14 => partition(at, host, random, nodes),
        15..=17 => {
            let low = random.between(20, 5_000);
            let weather = Weather {
                loss: random.between(1, 300_000),
                duplication: random.below(200_000),
                delay_us: (low, low + random.between(1, 20_000)),
                stragglers: random.below(50_000),
                reorders: random.below(2) == 0,
            };
            vec![(at, Fault::Weather(weather)), (at + long, Fault::Weather(Weather::CALM))]
        }
        18 => {
            let low = random.between(1_001, 400_000);
            let slow = Fault::SlowDisk { host, sync_us: (low, 2 * low) };
            vec![(at, slow), (at + long, Fault::SlowDisk { host, sync_us: (100, 400) })]
        }
        19 => one(Fault::StandingDisk { host, for_us: long }),
        20 | 21 => one(Fault::ClockJump { host, ms: random.between(0, 20_000) as i64 - 10_000 }),
        22 => one(Fault::DiskFails { host, sync: random.below(3) > 0, power }),
        23 => {
            let full = Fault::DiskFull { host, left_bytes: random.below(40_000) };
            vec![(at, full), (at + long, Fault::DiskRoom { host })]
        }
        _ => one(Fault::Drain { host, down_us: short }),
    }
}

/// A node alone, one direction of a pair, a pair that hears each other only through the third, a node that is heard by
/// nobody, or one that is heard by nobody and hears the others late: a leader of the past that does not know it.
fn partition(at: u64, host: usize, random: &mut Random, nodes: usize) -> Trouble {
    let until = at + random.between(300_000, 6_000_000);
    let other = (host + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
    let others = || (0..nodes).filter(|peer| *peer != host);
    let (part_of, cuts): (Reached, Vec<(usize, usize)>) = match random.below(5) {
        0 => (Reached::CutAlone, others().flat_map(|peer| [(host, peer), (peer, host)]).collect()),
        1 => (Reached::CutOneWay, vec![(host, other)]),
        2 => (Reached::CutPair, vec![(host, other), (other, host)]),
        3 => (Reached::CutMute, others().map(|peer| (host, peer)).collect()),
        _ => (Reached::CutOld, others().map(|peer| (host, peer)).collect()),
    };
    let cut = cuts.iter().map(|(from, to)| (at, Fault::Cut { from: *from, to: *to, part_of }));
    let mend = cuts.iter().map(|(from, to)| (until, Fault::Mend { from: *from, to: *to }));
    let mut trouble: Trouble = cut.chain(mend).collect();
    if part_of == Reached::CutOld {
        let early = at.saturating_sub(random.below(300_000));
        trouble.insert(0, (early, Fault::Late { host, by_us: random.between(100_000, 2_000_000) }));
        trouble.push((until, Fault::Late { host, by_us: 0 }));
    }
    trouble
}
