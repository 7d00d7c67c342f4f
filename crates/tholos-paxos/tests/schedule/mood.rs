//! What a seed makes likely.

use tholos_paxos::{Options, Planted};

use super::chance::Chance;

const NEVER: usize = 1_000_000_000;

/// Kinds of faults, as a run can leave them out.
pub const KINDS: [&str; 10] =
    ["loss", "double", "overtake", "crash", "cut", "pause", "snapshot", "rot", "change", "lease"];

/// One in so many messages is lost, is doubled, overtakes others; one in so many steps is a crash, a cut, a pause, a
/// snapshot, a change of the replica set, the end of whoever reads by a lease; one in so many restarts finds rot.
pub struct Mood {
    /// Who founds the group.
    pub replicas: u32,
    pub options: Options,
    /// Steps before the faults stop.
    pub steps: usize,
    rates: [usize; KINDS.len()],
}

impl Mood {
    pub fn of(seed: u64, planted: Planted) -> Mood {
        let mut chance = Chance::of_seed(seed);
        let options = Options {
            window_entries_max: chance.of(&[1, 4, 16]),
            // Small, so that logs are sent in pieces and followers wait for their turn.
            message_bytes_max: chance.of(&[1, 150, 1 << 20]),
            follower_entries_max: chance.of(&[2, 1024]),
            // Drawn beside the rest, which stays what it was. An entry has 64 bytes and some.
            follower_bytes_max: Chance::of_seed(seed ^ 0x00b7_7e5f).of(&[1, 200, 500, 8 << 20]),
            read_rounds_max: chance.of(&[1, 8]),
            // A replica that lacks more than some ten entries needs a snapshot, forgotten or not.
            resent_bytes_max: chance.of(&[800, 1 << 20, 1 << 20]),
            planted,
            ..Options::default()
        };
        let mut mood = Mood {
            replicas: chance.of(&[1, 3, 3, 3, 3, 3, 5, 5]),
            options,
            steps: chance.of(&[300, 800, 2_000]),
            rates: [NEVER; KINDS.len()],
        };
        let mut rate = |kind: &str, choices: &[usize]| mood.rates[at(kind)] = chance.of(choices);
        rate("loss", &[NEVER, 50, 8]);
        rate("double", &[NEVER, 50, 8]);
        rate("overtake", &[NEVER, 20, 4]);
        rate("crash", &[NEVER, 400, 80]);
        rate("cut", &[NEVER, 200, 40]);
        rate("pause", &[NEVER, 300, 60]);
        rate("snapshot", &[NEVER, 100, 15]);
        rate("rot", &[NEVER, 8, 2]);
        rate("change", &[NEVER, NEVER, 100, 20]);
        rate("lease", &[NEVER, 60, 30]);
        mood.options.leases = mood.rates[at("lease")] != NEVER;
        mood
    }

    /// One in so many.
    pub fn rate(&self, kind: &str) -> usize {
        self.rates[at(kind)]
    }

    /// Leaves a kind of faults out.
    pub fn without(&mut self, kind: &str) {
        self.rates[at(kind)] = NEVER;
    }
}

fn at(kind: &str) -> usize {
    KINDS.iter().position(|known| *known == kind).expect("a kind of faults")
}
