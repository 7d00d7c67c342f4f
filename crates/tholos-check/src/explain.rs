//! A violation made small and readable.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::search::{Found, Timeline};
use super::{Kind, Limits, Operation, Outcome, Reply, decide};

/// Operations shown around the violation, at most.
const SHOWN_MAX: usize = 40;
/// Contradicting operations shown, at most.
const CORE_SHOWN_MAX: usize = 24;
/// Steps of the legal order shown, at most.
const ORDER_SHOWN_MAX: usize = 12;
/// Configurations looked at for the core, over all attempts.
const CORE_STEPS_MAX: u64 = 400_000;
/// Characters of a value shown.
const VALUE_SHOWN_MAX: usize = 40;

/// One key's history that no order explains.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The key.
    pub key: Vec<u8>,
    /// All its operations, in the order of their calls.
    pub operations: Vec<Operation>,
    /// The operation (number in `operations`) whose return cannot be explained: up to just before it there is an
    /// order, with it there is none.
    pub culprit: usize,
    /// The smallest found set of operations that contradict each other, in the order of their calls: with any one
    /// of them taken as of unknown fate (or, if a limit was met while shrinking, a superset of such a set).
    pub core: Vec<usize>,
    /// An order of the operations that explains everything before the culprit's return.
    pub prefix: Vec<usize>,
}

/// Finds culprit, prefix and core of a key known to be at fault.
pub(super) fn shrink(
    key: &[u8],
    operations: &[&Operation],
    timeline: &Timeline,
    limits: &Limits,
) -> Violation {
    // Linearizability is closed under prefixes, so the first bad cut can be bisected. A limit counts as "fine so
    // far", which can only make the prefix longer.
    let (mut good, mut bad) = (0, timeline.len());
    let mut prefix = Vec::new();
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        match decide(operations, timeline, limits, &|_| false, middle).0 {
            Found::None => bad = middle,
            Found::Order(order) => (good, prefix) = (middle, order),
            Found::Limit(_) => good = middle,
        }
    }
    let culprit = timeline.returning(bad - 1).expect("only a return can make a history wrong");
    let core = core(operations, timeline, limits, bad, culprit);

    let mut by_call: Vec<usize> = (0..operations.len()).collect();
    by_call.sort_by_key(|&i| timeline.invokes(i));
    let mut place = vec![0; operations.len()];
    for (at, &i) in by_call.iter().enumerate() {
        place[i] = at;
    }
    let mut core: Vec<usize> = core.into_iter().map(|i| place[i]).collect();
    core.sort_unstable();
    Violation {
        key: key.to_vec(),
        operations: by_call.iter().map(|&i| operations[i].clone()).collect(),
        culprit: place[culprit],
        core,
        prefix: prefix.into_iter().map(|i| place[i]).collect(),
    }
}

/// Takes away what the contradiction does not need, in halves, then quarters, down to single operations.
fn core(
    operations: &[&Operation],
    timeline: &Timeline,
    limits: &Limits,
    cut: usize,
    culprit: usize,
) -> Vec<usize> {
    let mut firm: Vec<usize> = (0..operations.len())
        .filter(|&i| {
            timeline.returns(i) < cut && i != culprit && matches!(operations[i].outcome, Outcome::Ok(_))
        })
        .collect();
    firm.sort_by_key(|&i| timeline.invokes(i));
    let mut is_firm = vec![false; operations.len()];
    firm.iter().chain([&culprit]).for_each(|&i| is_firm[i] = true);
    let mut budget = CORE_STEPS_MAX;
    let mut size = firm.len().div_ceil(2).max(1);
    while !firm.is_empty() {
        let mut kept = Vec::new();
        for chunk in firm.chunks(size) {
            chunk.iter().for_each(|&i| is_firm[i] = false);
            // What follows from few steps is found, and a longer search is not worth a shorter report.
            let within = Limits { steps_max: budget.min(CORE_STEPS_MAX / 16), ..*limits };
            let (found, steps) = decide(operations, timeline, &within, &|i| !is_firm[i], cut);
            budget = budget.saturating_sub(steps);
            if !matches!(found, Found::None) {
                chunk.iter().for_each(|&i| is_firm[i] = true);
                kept.extend_from_slice(chunk);
            }
        }
        firm = kept;
        if size == 1 || budget == 0 {
            break;
        }
        size = size.div_ceil(2);
    }
    firm.push(culprit);
    firm
}

impl Violation {
    /// The story for a human: what contradicts what, what happened around it, and the longest legal order.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, text: &mut String) -> core::fmt::Result {
        let culprit = &self.operations[self.culprit];
        writeln!(text, "key {} is not linearizable: no order of its operations explains", shown(&self.key))?;
        writeln!(text, "    {}", line(culprit))?;
        let hidden = self.core.len().saturating_sub(CORE_SHOWN_MAX);
        let more = if hidden > 0 {
            format!(", the last {CORE_SHOWN_MAX} of {}", self.core.len())
        } else {
            String::new()
        };
        writeln!(text, "\nThese contradict each other (c = client; called..returned{more}):")?;
        for &i in &self.core[hidden..] {
            writeln!(text, "    {}", line(&self.operations[i]))?;
        }
        let window = self.window();
        writeln!(
            text,
            "\nOperations of this key around it, {} of {}, in the order of their calls (* contradicts, ? unknown fate):",
            window.len(),
            self.operations.len()
        )?;
        for i in window {
            let operation = &self.operations[i];
            let mark = if self.core.contains(&i) {
                '*'
            } else if matches!(operation.outcome, Outcome::Unknown) || operation.returned.is_none() {
                '?'
            } else {
                ' '
            };
            writeln!(text, "  {mark} {}", line(operation))?;
        }
        let skipped = self.prefix.len().saturating_sub(ORDER_SHOWN_MAX);
        writeln!(text, "\nUp to there {} operations have an order, which ends with:", self.prefix.len())?;
        for &i in &self.prefix[skipped..] {
            writeln!(text, "    {}", line(&self.operations[i]))?;
        }
        Ok(())
    }

    /// The core, and what overlaps it or comes between its parts, the latest kept if that is too much.
    fn window(&self) -> Vec<usize> {
        let core = &self.core[self.core.len().saturating_sub(CORE_SHOWN_MAX)..];
        let end = self.operations[self.culprit].returned.unwrap_or(u64::MAX);
        let begin = core.iter().map(|&i| self.operations[i].invoked).min().unwrap_or(0);
        let overlaps = |operation: &Operation| {
            operation.invoked <= end && operation.returned.is_none_or(|returned| returned >= begin)
        };
        let others: Vec<usize> = (0..self.operations.len())
            .filter(|&i| !core.contains(&i) && overlaps(&self.operations[i]))
            .collect();
        let room = SHOWN_MAX.saturating_sub(core.len());
        let mut window = others[others.len().saturating_sub(room)..].to_vec();
        window.extend_from_slice(core);
        window.sort_unstable();
        window
    }
}

fn line(operation: &Operation) -> String {
    let returned = operation.returned.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let kind = match &operation.kind {
        Kind::Get => "GET".to_owned(),
        Kind::Set(value) => format!("SET {}", shown(value)),
        Kind::SetNx(value) => format!("SET {} NX", shown(value)),
        Kind::Del => "DEL".to_owned(),
        Kind::IncrBy(delta) => format!("INCRBY {delta}"),
        Kind::Append(suffix) => format!("APPEND {}", shown(suffix)),
        Kind::GetDel => "GETDEL".to_owned(),
        Kind::GetSet(value) => format!("GETSET {}", shown(value)),
    };
    let outcome = match &operation.outcome {
        Outcome::Failed => "failed, nothing happened".to_owned(),
        Outcome::Ok(_) if operation.returned.is_none() => "no reply".to_owned(),
        Outcome::Unknown => "fate unknown".to_owned(),
        Outcome::Ok(Reply::Ok) => "OK".to_owned(),
        Outcome::Ok(Reply::Nil) => "nil".to_owned(),
        Outcome::Ok(Reply::Integer(n)) => n.to_string(),
        Outcome::Ok(Reply::Value(value)) => shown(value),
        Outcome::Ok(Reply::Refused) => "refused".to_owned(),
    };
    format!("c{:<3} {:>12}..{:<12} {kind} -> {outcome}", operation.client, operation.invoked, returned)
}

/// A value as text, cut to a readable length.
fn shown(value: &[u8]) -> String {
    let text = value.escape_ascii().to_string();
    if text.len() <= VALUE_SHOWN_MAX {
        return format!("\"{text}\"");
    }
    format!("\"{}...\" ({} bytes)", &text[..VALUE_SHOWN_MAX], value.len())
}
