//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tholos_load::{History, Lost, Summary};

use crate::plan::{Act, NODES, Round};

/// How long clients waited in one round. Times are nanoseconds of the history.
pub(crate) struct Gap {
    number: u64,
    round: Round,
    struck: u64,
    /// From the strike to when every key had been written anew, if a majority went on; through any node.
    served: Option<u64>,
    healed: u64,
    recovered: u64,
    /// The longest that a client of a sound node waited for a reply: from the strike on if a majority went on, else
    /// from the healing on.
    pub(crate) waited: u64,
}

impl Gap {
    pub(crate) fn new(
        number: u64,
        round: Round,
        struck: u64,
        served: Option<u64>,
        healed: u64,
        recovered: u64,
    ) -> Self {
        Self { number, round, struck, served, healed, recovered, waited: 0 }
    }

    /// Clients pinned to a node tell how it was served; those that roam may all be stuck with one that is down.
    pub(crate) fn measure(&mut self, summary: &Summary, pinned: usize) {
        let (nodes, from) = match self.served {
            Some(_) => (self.round.sound(), self.struck),
            None => ((0..NODES).collect(), self.healed),
        };
        let clients = nodes.into_iter().flat_map(|node| node * pinned..(node + 1) * pinned);
        self.waited =
            clients.map(|client| summary.longest_wait(client, from..self.recovered)).max().unwrap_or(0);
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {}", self.number, self.round)?;
        if let Some(served) = self.served {
            write!(f, "; every key written again after {} ms", millis(served))?;
        }
        write!(f, ", {} ms after healing", millis(self.recovered - self.healed))?;
        write!(f, "; longest wait at sound nodes {} ms", millis(self.waited))
    }
}

/// All rounds and histories so far.
pub(crate) struct Report {
    seed: u64,
    /// For each kind, the waits of its rounds.
    waits: BTreeMap<Act, Vec<u64>>,
    rounds: u64,
    operations: u64,
    unknown: u64,
    refused: u64,
    histories: u64,
    illegal: u64,
    lost: Lost,
    scene: Option<String>,
    failure: Option<String>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            waits: BTreeMap::new(),
            rounds: 0,
            operations: 0,
            unknown: 0,
            refused: 0,
            histories: 0,
            illegal: 0,
            lost: Lost::default(),
            scene: None,
            failure: None,
        }
    }

    pub(crate) fn round(&mut self, gap: &Gap) {
        self.rounds += 1;
        self.waits.entry(gap.round.kind).or_default().push(gap.waited);
    }

    pub(crate) fn history(&mut self, history: &History, lost: Lost, illegal: bool) {
        let summary = history.summary();
        self.operations += history.operations.len() as u64;
        self.unknown += summary.unknown;
        self.refused += summary.failed;
        self.histories += 1;
        self.illegal += u64::from(illegal);
        self.lost.acknowledged += lost.acknowledged;
        self.lost.lost += lost.lost;
        let judged = if illegal { "NOT linearizable" } else { "linearizable" };
        println!(
            "history {}: {} operations ({} of unknown fate, {} refused), {judged}, {} of {} acknowledged writes lost",
            self.histories,
            history.operations.len(),
            summary.unknown,
            summary.failed,
            lost.lost,
            lost.acknowledged
        );
    }

    pub(crate) fn scene(&mut self, lost: Lost, waited: u64, lasted: Duration) {
        let line = format!(
            "cut-off leader, clients still reaching it, {} s: {} of {} acknowledged writes lost; longest wait at the \
             other nodes {} ms",
            lasted.as_secs(),
            lost.lost,
            lost.acknowledged,
            millis(waited)
        );
        println!("{line}");
        self.scene = Some(line);
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.failure = Some(why);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failure.is_none() && self.illegal == 0 && self.lost.lost == 0 && self.operations > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<12} {:>7} {:>14} {:>14}", "fault", "rounds", "median ms", "longest ms")?;
        for (act, waits) in &self.waits {
            let mut sorted = waits.clone();
            sorted.sort_unstable();
            let (median, longest) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            writeln!(f, "{act:<12} {:>7} {:>14} {:>14}", sorted.len(), millis(median), millis(longest))?;
        }
        if let Some(scene) = &self.scene {
            writeln!(f, "{scene}")?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "\nFAILED: {failure}\n")?;
        }
        let Lost { acknowledged, lost } = self.lost;
        write!(
            f,
            "{} rounds, {} operations ({} of unknown fate, {} refused) in {} histories: {lost} of {acknowledged} \
             acknowledged writes lost, {} illegal histories; seed {}",
            self.rounds, self.operations, self.unknown, self.refused, self.histories, self.illegal, self.seed
        )
    }
}

fn millis(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000
}
