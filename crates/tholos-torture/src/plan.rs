//! Which misfortune comes next: a function of the seed and the number of the round alone, so that a seed reproduces it.

use std::fmt;
use std::str::FromStr;

use tholos_load::Random;

/// Nodes of the cluster.
pub(crate) const NODES: usize = 3;

/// A kind of misfortune. What it strikes is drawn anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// `kill -9`, which the disk makes a power cut.
    KillOne,
    KillTwo,
    KillAll,
    /// SIGSTOP, then SIGCONT: the node believes that no time has passed. Longer than a lease.
    PauseOne,
    PauseTwo,
    /// A node hears and reaches no other, and clients still reach it.
    CutOne,
    /// What a node sends to the others is lost; it hears them.
    CutOut,
    /// What the others send to a node is lost; they hear it.
    CutIn,
    /// Two nodes do not reach each other; the third reaches both.
    CutPair,
    /// The next syncs fail (EIO): the node must stop.
    SyncFails,
    /// The next writes fail (EIO): the node must stop.
    WriteFails,
    /// No byte more fits.
    FullDisk,
    /// Each sync takes long.
    SlowDisk,
    /// The wall clock jumps, and back.
    ClockJump,
    /// Two or three of these at once.
    Several,
}

pub(crate) const ALL: [(Act, &str); 15] = [
    (Act::KillOne, "kill-one"),
    (Act::KillTwo, "kill-two"),
    (Act::KillAll, "kill-all"),
    (Act::PauseOne, "pause-one"),
    (Act::PauseTwo, "pause-two"),
    (Act::CutOne, "cut-one"),
    (Act::CutOut, "cut-out"),
    (Act::CutIn, "cut-in"),
    (Act::CutPair, "cut-pair"),
    (Act::SyncFails, "sync-fails"),
    (Act::WriteFails, "write-fails"),
    (Act::FullDisk, "full-disk"),
    (Act::SlowDisk, "slow-disk"),
    (Act::ClockJump, "clock-jump"),
    (Act::Several, "several"),
];

impl Act {
    pub(crate) fn needs_namespaces(self) -> bool {
        matches!(self, Act::CutOne | Act::CutOut | Act::CutIn | Act::CutPair)
    }

    pub(crate) fn needs_power_disk(self) -> bool {
        matches!(self, Act::SyncFails | Act::WriteFails | Act::FullDisk | Act::SlowDisk)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = ALL.iter().find(|(act, _)| act == self).expect("ALL has every act");
        f.pad(name)
    }
}

impl FromStr for Act {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALL.iter().find(|(_, name)| *name == text);
        let all = || ALL.map(|(_, name)| name).join(", ");
        found.map(|(act, _)| *act).ok_or_else(|| format!("\"{text}\" is none of {}", all()))
    }
}

/// One misfortune with its victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) act: Act,
    pub(crate) victim: usize,
    /// The second victim of two, the other end of a pair.
    pub(crate) other: usize,
    /// Milliseconds of a slow sync, seconds of a jump (negative when odd).
    pub(crate) amount: u64,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) kind: Act,
    pub(crate) strikes: Vec<Strike>,
    /// Milliseconds of quiet before.
    pub(crate) calm_ms: u64,
    /// Milliseconds that the misfortune lasts, beyond what recovery from it takes.
    pub(crate) hold_ms: u64,
}

impl Round {
    /// The round of a seed with this number; `acts` must not be empty.
    pub(crate) fn draw(seed: u64, number: u64, acts: &[Act]) -> Round {
        let mut random = Random::new(seed, number);
        let kind = acts[random.below(acts.len() as u64) as usize];
        let single: Vec<Act> = acts.iter().copied().filter(|act| *act != Act::Several).collect();
        let strikes = if kind == Act::Several && !single.is_empty() {
            let count = 2 + random.below(2);
            (0..count)
                .map(|_| {
                    let act = single[random.below(single.len() as u64) as usize];
                    Strike::draw(act, &mut random)
                })
                .collect()
        } else {
            vec![Strike::draw(kind, &mut random)]
        };
        let hold = match kind {
            Act::PauseOne | Act::PauseTwo => 400 + random.below(2_600),
            Act::KillOne | Act::KillTwo | Act::KillAll => random.below(1_000),
            _ => 300 + random.below(2_200),
        };
        Round { kind, strikes, calm_ms: 100 + random.below(400), hold_ms: hold }
    }

    /// The nodes that others and clients can count on throughout: their clients must go on being served if they are a
    /// majority that hears each other.
    pub(crate) fn sound(&self) -> Vec<usize> {
        (0..NODES).filter(|&node| !self.strikes.iter().any(|strike| strike.unsettles(node))).collect()
    }

    /// Whether a majority of nodes runs, hears each other and has a disk that works, and no leader is bound to refuse:
    /// one whose disk is full keeps its leadership, and says so to writers.
    pub(crate) fn keeps_majority(&self) -> bool {
        if self.strikes.iter().any(|strike| strike.act == Act::FullDisk) {
            return false;
        }
        let sound = self.sound();
        let cut = |a: usize, b: usize| {
            self.strikes.iter().any(|s| {
                s.act == Act::CutPair && ((s.victim, s.other) == (a, b) || (s.victim, s.other) == (b, a))
            })
        };
        sound.iter().any(|&a| sound.iter().any(|&b| a < b && !cut(a, b)))
    }
}

impl Strike {
    fn draw(act: Act, random: &mut Random) -> Strike {
        let victim = random.below(NODES as u64) as usize;
        let other = (victim + 1 + random.below(NODES as u64 - 1) as usize) % NODES;
        let amount = match act {
            Act::SlowDisk => 20 + random.below(700),
            Act::ClockJump => 1 + random.below(200_000),
            _ => 0,
        };
        Strike { act, victim, other, amount }
    }

    /// Whether the node is not to be counted on. A node with a slow disk or a wrong wall clock is.
    pub(crate) fn unsettles(&self, node: usize) -> bool {
        match self.act {
            Act::KillAll => true,
            Act::KillTwo | Act::PauseTwo => node == self.victim || node == self.other,
            Act::SlowDisk | Act::ClockJump | Act::CutPair | Act::Several => false,
            _ => node == self.victim,
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (self.victim + 1, self.other + 1);
        match self.act {
            Act::KillAll => write!(f, "{}", self.act),
            Act::KillTwo | Act::PauseTwo | Act::CutPair => write!(f, "{} n{a} n{b}", self.act),
            Act::SlowDisk => write!(f, "{} n{a} {} ms", self.act, self.amount),
            Act::ClockJump => write!(f, "{} n{a} {:+} s", self.act, self.jump_seconds()),
            _ => write!(f, "{} n{a}", self.act),
        }
    }
}

impl Strike {
    pub(crate) fn jump_seconds(&self) -> i64 {
        let seconds = i64::try_from(self.amount).expect("a small number");
        if seconds % 2 == 0 { seconds } else { -seconds }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strikes: Vec<String> = self.strikes.iter().map(Strike::to_string).collect();
        write!(f, "{} for {} ms", strikes.join(", "), self.hold_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reproduces_its_plan_and_reaches_every_act_and_every_node() {
        let acts: Vec<Act> = ALL.iter().map(|(act, _)| *act).collect();
        let plan = |seed| (0..400).map(|number| Round::draw(seed, number, &acts)).collect::<Vec<_>>();
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
        for (act, name) in ALL {
            assert_eq!(name.parse(), Ok(act));
            let rounds: Vec<Round> = plan(3).into_iter().filter(|round| round.kind == act).collect();
            assert!(rounds.len() > 5, "{act}: {}", rounds.len());
            assert!((0..NODES).all(|node| rounds.iter().any(|r| r.strikes[0].victim == node)), "{act}");
        }
        assert!("fly".parse::<Act>().unwrap_err().contains("kill-one"));
    }

    #[test]
    fn a_majority_is_two_nodes_that_work_and_hear_each_other() {
        let strike = |act, victim, other| Strike { act, victim, other, amount: 0 };
        let keeps = |strikes: &[Strike]| {
            Round { kind: Act::Several, strikes: strikes.to_vec(), calm_ms: 0, hold_ms: 0 }.keeps_majority()
        };
        assert!(keeps(&[strike(Act::KillOne, 0, 1)]));
        assert!(!keeps(&[strike(Act::KillTwo, 0, 1)]));
        assert!(!keeps(&[strike(Act::KillAll, 0, 1)]));
        assert!(keeps(&[strike(Act::CutPair, 0, 1)]));
        assert!(!keeps(&[strike(Act::CutPair, 0, 1), strike(Act::PauseOne, 2, 0)]));
        assert!(keeps(&[strike(Act::CutPair, 0, 1), strike(Act::SlowDisk, 2, 0)]));
        assert!(!keeps(&[strike(Act::FullDisk, 0, 1)]));
    }
}
