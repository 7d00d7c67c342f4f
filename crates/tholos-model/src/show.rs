//! Steps and what comes of them as text, in the notation of the project.

use tholos_paxos::{Entry, Index, ReplicaId};

use crate::local::Outcome;
use crate::state::{SPAN, State};
use crate::step::Action;

/// What happens.
pub(crate) fn action(before: &State, action: Action) -> String {
    match action {
        Action::Deliver { at, again, lost } => {
            let envelope = &before.network[at];
            let how =
                if lost { format!(", when {} has lost its leader", envelope.to) } else { String::new() };
            let again = if again { ", and a copy is on its way" } else { "" };
            format!("{envelope} arrives{how}{again}")
        }
        Action::Durable { at, count } => format!("{at} has on disk the next {}", records(count)),
        Action::Crash { at, kept, released } => {
            let lost = before.replica(at).pending.len() - kept;
            let from = if released { " from its checkpoint" } else { "" };
            format!("{at} loses its power, and with it {}, and starts again{from}", records(lost))
        }
        Action::Rot { at, kept } => {
            let lost = before.replica(at).pending.len() - kept;
            format!("{at} loses its power, and with it {}, and finds its disk rotten", records(lost))
        }
        Action::TimeOut { at } => {
            let group = &before.replica(at).group;
            match group.leader() {
                Some(ballot) if ballot.replica == at => format!("{at} hears nobody any more"),
                Some(ballot) => format!("{at} hears {} no more", ballot.replica),
                None => format!("{at} has waited long enough"),
            }
        }
        Action::Tick { at } => format!("{at} hears everybody, and time passes"),
        Action::Propose { at } => format!("{at} is given command {}", before.facts.proposed + 1),
        Action::Read { at } => {
            let (token, decided) = (before.facts.tokens + 1, Index(before.facts.decided.len() as u64));
            format!("{at} is asked for read {token}, after {decided} was decided")
        }
        Action::Change { at, goes } => format!("{at} is to have n{} for {goes}", before.replicas.len()),
        Action::Pass => format!("{} ms pass", SPAN.0),
        Action::Save { at } => {
            format!("{at} begins a snapshot to {}", before.replica(at).group.applied_index())
        }
        Action::Saved { at } => format!("{at} has its snapshot on disk"),
        Action::Trim { at, to } => format!("{at} forgets what it has applied to {to}"),
        Action::Transfer { at, to } => format!("{at} is to hand over to {to}"),
    }
}

fn records(count: usize) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// What comes of it, one line for each effect.
pub(crate) fn effects(at: ReplicaId, outcome: &Outcome) -> Vec<String> {
    let seen = outcome.replica.group.applied_index();
    let mut lines: Vec<String> = Vec::new();
    lines.extend(outcome.appends.iter().map(|appended| format!("{at} appends {appended:#}")));
    lines.extend(outcome.changes.iter().map(|changed| format!("{at} {changed}")));
    if !outcome.news.is_empty() {
        let news: Vec<String> = outcome.news.iter().map(|entry: &Entry| format!("{entry:#}")).collect();
        lines.push(format!("{at} applies [{}]", news.join(", ")));
    }
    lines.extend(outcome.sends.iter().map(|sent| sent.to_string()));
    lines.extend(outcome.reads_ready.iter().map(|token| format!("{at} answers read {token} at {seen}")));
    lines.extend(outcome.reads_failed.iter().map(|token| format!("{at} cannot answer read {token}")));
    lines
}
