//! What a check found, for people and for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use tholos_check::{Operation, Verdict, Violation, write_operation};
use tholos_load::{Lost, Summary, lost_writes};

use crate::style::{self, Colour, count};

use super::CheckArgs;

/// Things that servers said, shown at most.
const SAID_MAX: usize = 5;

pub(super) struct Report {
    summary: Summary,
    verdict: Verdict,
    judged_in: Duration,
    lost: Lost,
    operations: usize,
    keys: usize,
    /// How long the run took; `None` for a history from a file.
    pub(super) elapsed: Option<Duration>,
    pub(super) clients: usize,
    pub(super) unread: usize,
    pub(super) said: Vec<(String, u64)>,
}

impl Report {
    pub(super) fn new(summary: Summary, judged: (Verdict, Duration), operations: Vec<Operation>) -> Self {
        let (verdict, judged_in) = judged;
        let keys: std::collections::BTreeSet<&[u8]> = operations.iter().map(|o| &o.key[..]).collect();
        Self {
            summary,
            verdict,
            judged_in,
            lost: lost_writes(&operations),
            keys: keys.len(),
            operations: operations.len(),
            elapsed: None,
            clients: 0,
            unread: 0,
            said: Vec::new(),
        }
    }

    /// A run in which nothing was answered explains nothing.
    pub(super) fn is_linearizable(&self) -> bool {
        matches!(self.verdict, Verdict::Ok(_)) && self.summary.succeeded > 0
    }

    fn word(&self) -> &'static str {
        match &self.verdict {
            Verdict::Ok(_) if self.summary.succeeded == 0 => "undecided",
            Verdict::Ok(_) => "linearizable",
            Verdict::Violation(_) => "not linearizable",
            Verdict::Undecided(_) => "undecided",
        }
    }

    fn longest_pause(&self) -> u64 {
        self.summary.longest_pause(self.summary.whole())
    }

    /// The longest that one connection went without an answer.
    fn longest_wait(&self) -> Option<u64> {
        (0..self.clients).map(|client| self.summary.longest_wait(client, self.summary.whole())).max()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let colour = match self.word() {
            "linearizable" => Colour::Good,
            "undecided" => Colour::Warning,
            _ => Colour::Bad,
        };
        let what = format!("{} on {}", count(self.operations, "operation"), count(self.keys, "key"));
        let took =
            self.elapsed.map_or(String::new(), |elapsed| format!(" in {:.1} s", elapsed.as_secs_f64()));
        let verdict = style::coloured(self.word(), colour);
        writeln!(text, "{verdict}: {what}{took}, judged in {:.1} s", self.judged_in.as_secs_f64())?;
        let Summary { succeeded, unknown, failed, .. } = &self.summary;
        writeln!(text, "  {succeeded} answered, {unknown} of unknown fate, {failed} refused and not done")?;
        write!(text, "  longest pause {} (nobody had a reply)", millis(self.longest_pause()))?;
        match self.longest_wait() {
            Some(wait) => writeln!(text, "; longest wait of one connection {}", millis(wait))?,
            None => writeln!(text)?,
        }
        let Lost { acknowledged, lost } = self.lost;
        writeln!(text, "  {lost} of {acknowledged} acknowledged INCRBY and APPEND lost")?;
        if self.unread > 0 {
            writeln!(text, "  {} could not be read at the end", count(self.unread, "key"))?;
        }
        for (said, times) in self.said.iter().take(SAID_MAX) {
            writeln!(text, "  {times} x {said}")?;
        }
        match &self.verdict {
            Verdict::Violation(violation) => {
                write!(text, "\n{}\nTimes are nanoseconds since the start.\n", violation.explain())
            }
            Verdict::Undecided(why) => writeln!(
                text,
                "\nA limit of the search was reached on key {} with {}: {}. Nothing is known.",
                why.key.escape_ascii(),
                count(why.operations, "operation"),
                why.reason
            ),
            Verdict::Ok(_) if self.summary.succeeded == 0 => {
                writeln!(text, "\nNothing was answered, so nothing is known.")
            }
            Verdict::Ok(_) => Ok(()),
        }
    }

    pub(super) fn json(&self, args: &CheckArgs) -> serde_json::Value {
        let said: Vec<serde_json::Value> = self
            .said
            .iter()
            .map(|(said, times)| serde_json::json!({ "said": said, "times": times }))
            .collect();
        serde_json::json!({
            "verdict": self.word(),
            "operations": self.operations,
            "keys": self.keys,
            "answered": self.summary.succeeded,
            "unknown": self.summary.unknown,
            "refused": self.summary.failed,
            "acknowledged": self.lost.acknowledged,
            "lost": self.lost.lost,
            "unread": self.unread,
            "seconds": self.elapsed.map(|elapsed| elapsed.as_secs_f64()),
            "judged_seconds": self.judged_in.as_secs_f64(),
            "longest_pause_ms": self.longest_pause() / 1_000_000,
            "longest_wait_ms": self.longest_wait().map(|wait| wait / 1_000_000),
            "said": said,
            "violation": match &self.verdict {
                Verdict::Violation(violation) => violation_json(violation),
                _ => serde_json::Value::Null,
            },
            "undecided": match &self.verdict {
                Verdict::Undecided(why) => Some(why.reason),
                _ => None,
            },
            "at": if args.from.is_none() { Some(&args.at) } else { None },
            "from": args.from.as_ref().map(|path| path.display().to_string()),
            "connections": args.connections,
            "mix": args.mix.to_string(),
            "seed": args.seed,
        })
    }
}

/// The operations that contradict each other, in the order of their calls, each as a line of a history.
fn violation_json(violation: &Violation) -> serde_json::Value {
    let line = |&i: &usize| {
        let mut text = String::new();
        write_operation(&violation.operations[i], &mut text);
        text.trim_end().to_owned()
    };
    serde_json::json!({
        "key": violation.key.escape_ascii().to_string(),
        "culprit": line(&violation.culprit),
        "contradicting": violation.core.iter().map(line).collect::<Vec<_>>(),
        "explanation": violation.explain(),
    })
}

fn millis(nanoseconds: u64) -> String {
    format!("{} ms", nanoseconds / 1_000_000)
}
