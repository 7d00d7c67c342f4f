//! Random fault schedules of a council: whatever is delivered, lost, doubled or reordered, whoever crashes or stands
//! still and when, whoever comes and goes, the council agrees, decides only what was proposed, forgets nothing, answers
//! no stale read, and goes on once the faults stop. What is checked after each step is in `common::facts`.
#![allow(dead_code, unreachable_pub, reason = "each user uses its own part")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use tholos_paxos::Planted;

use crate::common::coverage::{Coverage, Reached};
use crate::common::{Council, standing};

pub mod chance;
pub mod mood;
pub mod planted;
pub mod shrink;
pub mod step;

use chance::Chance;
use mood::Mood;

/// What a schedule is made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// A fault planted in the protocol, to see it caught.
    pub planted: Planted,
    /// Only these steps, in order; all if there is no list.
    pub steps: Option<Vec<usize>>,
    /// Kinds of faults that are left out.
    pub without: Vec<&'static str>,
    /// Keep what happens, in words.
    pub trace: bool,
}

/// What a schedule found.
pub struct Report {
    /// Steps before the faults stopped.
    pub steps: usize,
    /// Entries decided.
    pub decided: usize,
    pub coverage: Coverage,
    pub violation: Option<String>,
    /// What happened, if that was asked for.
    pub lines: Vec<String>,
}

/// Runs a schedule to its end. A check that does not hold panics, and that is the violation.
pub fn run(settings: &Settings) -> Report {
    let mut mood = Mood::of(settings.seed, settings.planted);
    settings.without.iter().for_each(|kind| mood.without(kind));
    let mut council = Council::new(mood.replicas, mood.options);
    council.trace = settings.trace.then(Vec::new);
    let numbers = settings.steps.clone().unwrap_or_else(|| (0..mood.steps).collect());
    let played = catch_unwind(AssertUnwindSafe(|| {
        for number in &numbers {
            step::step(&mut council, &mut Chance::of_step(settings.seed, *number), &mood);
        }
        council.say(|| "the faults stop".to_string());
        calm(&mut council);
    }));
    let violation = played.err().map(|cause| {
        let text = cause.downcast_ref::<&str>().map(|text| text.to_string());
        text.or_else(|| cause.downcast_ref::<String>().cloned()).unwrap_or_default()
    });
    if violation.is_some() {
        for replica in &council.replicas {
            let stands = replica.group.as_ref().map_or("is down".into(), |group| {
                let configs: Vec<String> = group.configs().map(|config| config.to_string()).collect();
                format!("{}; {}", standing(group), configs.join(" and "))
            });
            let line = format!("{} {stands}", replica.id);
            council.trace.iter_mut().for_each(|lines| lines.push(line.clone()));
        }
    }
    let (decided, coverage) = (council.facts.decided.len(), std::mem::take(&mut council.coverage));
    Report { steps: numbers.len(), decided, coverage, violation, lines: council.take_trace() }
}

/// Begins the text of a violation that is no wrong answer but none.
pub const LIVENESS: &str = "liveness";

/// The faults stop: within four election time-outs somebody serves, and then everything that is proposed is
/// decided and known to all. Then everybody crashes at once, and what was decided is still there.
fn calm(council: &mut Council) {
    council.heal();
    goes_on(council);
    let decided = council.facts.decided.len();
    council.check_all_on_majority();
    for id in council.ids() {
        council.crash(id);
    }
    council.network.clear();
    council.heal();
    goes_on(council);
    assert!(council.facts.decided.len() > decided || council.facts.may_stall);
    council.check_all_on_majority();
}

fn goes_on(council: &mut Council) {
    council.settle();
    let timeout = council.options.election_timeout.0;
    // Heirs and candidates of before may still be waited for; then comes the election itself.
    council.run(4 * timeout);
    let Some(server) = council.server() else {
        assert!(council.facts.may_stall, "{LIVENESS}: nobody serves");
        council.coverage.count(Reached::Stalled);
        return;
    };
    let proposed = council.propose(server);
    assert!(proposed.is_some(), "{LIVENESS}: {server} refuses");
    let read = council.read(server).unwrap_or_else(|| panic!("{LIVENESS}: a read is refused"));
    council.run(2 * timeout);
    let end = council.facts.end();
    assert!(proposed <= Some(end), "{LIVENESS}: {proposed:?} is not decided");
    let configs = council.at(server).group.as_ref().map_or(0, |group| group.configs().count());
    assert_eq!(configs, 1, "{LIVENESS}: a change is not decided");
    assert!(council.facts.reads_ready.contains(&read), "{LIVENESS}: a read is not answered");
    // Those who were removed hear nothing any more.
    let config = council.decided_config().clone();
    for id in council.ids().into_iter().filter(|id| config.names(*id)) {
        let applied = council.at(id).state.len() as u64;
        let all = applied == end.0 || council.facts.may_stall;
        assert!(all, "{LIVENESS}: {id} has applied {applied} of {}", end.0);
    }
}
