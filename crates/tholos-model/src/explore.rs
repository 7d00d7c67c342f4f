//! Runs a search and tells what came of it.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::local::Memory;
use crate::state::State;
use crate::{Action, Council, step};

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that search.
    pub threads: usize,
    /// When it is given up; one thread alone does not look at it.
    pub time: Duration,
    /// Steps after which it is given up: what bounds its memory.
    pub steps: usize,
}

/// What a search found.
#[derive(Debug)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps taken, to states known or new.
    pub steps: usize,
    /// Steps of the longest of the shortest ways.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether every state that can be reached was.
    pub whole: bool,
    /// What should have been come by, and was not.
    pub missed: Vec<&'static str>,
    /// The first invariant that was seen broken.
    pub violation: Option<Violation>,
}

/// An invariant that does not hold.
#[derive(Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
    /// The way there, one line for each step and, indented, for each effect.
    pub trace: Vec<String>,
    /// Steps of that way.
    pub length: usize,
}

/// Explores `council`. The way to a violation is a shortest one if `limits` ask for one thread.
pub fn explore(council: &Council, limits: Limits) -> Report {
    let mut report = search(council, limits, None);
    while limits.threads == 1
        && let Some(violation) = &report.violation
        && let Some(shorter) = search(council, limits, Some(violation.length)).violation
    {
        // `stateright` keeps the last violation of a stretch of some thousand states, not the first.
        report.violation = Some(shorter);
    }
    report
}

/// `shorter_than` limits the length of the ways that are gone.
fn search(council: &Council, limits: Limits, shorter_than: Option<usize>) -> Report {
    let started = Instant::now();
    let mut builder =
        council.clone().checker().threads(limits.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(length) = shorter_than {
        // It counts states, of which a way has one more than steps, and stops before that many.
        builder = builder.target_max_depth(length + 1);
    }
    let checker = builder.timeout(limits.time).target_state_count(limits.steps).spawn_bfs().join();
    let time = started.elapsed();
    let violation = checker.discoveries().into_values().find_map(|path| {
        let states = path.clone().into_states();
        let broken = states.last()?.broken.as_ref()?;
        let (seen, invariant) = (broken.seen.clone(), broken.invariant);
        let actions = path.into_actions();
        Some(Violation { invariant, seen, trace: told(&states, &actions), length: actions.len() })
    });
    let whole = time < limits.time && checker.state_count() < limits.steps && violation.is_none();
    let wanted = council.wanted().into_iter().map(|wanted| wanted.name());
    let missed = wanted.filter(|name| checker.discovery(name).is_none()).collect();
    Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth() - 1,
        time,
        whole,
        missed,
        violation,
    }
}

fn told(states: &[State], actions: &[Action]) -> Vec<String> {
    let mut lines = Vec::new();
    let memory = Memory::default();
    for (number, (state, action)) in states.iter().zip(actions).enumerate() {
        let mut of_step = Vec::new();
        step::step(state, *action, &memory, Some(&mut of_step));
        let (first, effects) = of_step.split_first().expect("a step is told before what comes of it");
        lines.push(format!("{:>3}  {first}", number + 1));
        lines.extend(effects.iter().map(|effect| format!("       {effect}")));
    }
    lines
}
