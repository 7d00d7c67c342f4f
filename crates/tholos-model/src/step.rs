//! One step of a council: what can happen, and what comes of it.
//!
//! What has been learnt by a step is checked as it is learnt; what must hold in every state is in
//! [`crate::invariants`].

use std::sync::Arc;

use tholos_paxos::{Ballot, Entry, Index, ReplicaId, RoleChange};

use crate::invariants;
use crate::invariants::{AGREEMENT, ASSERTIONS, ONE_LEADER, READ_FRESHNESS, RECOVERY, VALIDITY};
use crate::local::{Event, Memory, Outcome, Wrong};
use crate::show;
use crate::state::{Budget, Read, SPAN, State, number_of};

/// Something that can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The message at this place of the network arrives.
    Deliver {
        /// Where it stands in the network.
        at: usize,
        /// A copy of it is still on its way.
        again: bool,
        /// The receiver has just lost the leader that it followed.
        lost: bool,
    },
    /// The oldest records on their way to a disk have arrived there.
    Durable {
        /// Whose.
        at: ReplicaId,
        /// How many.
        count: usize,
    },
    /// A machine loses its power and starts again.
    Crash {
        /// Which.
        at: ReplicaId,
        /// So many of the records on their way to the disk have arrived there.
        kept: usize,
        /// What was before the last checkpoint that counted had been released.
        released: bool,
    },
    /// A machine loses its power, and when it starts again its disk is rotten: nothing of it is left.
    Rot {
        /// Which.
        at: ReplicaId,
        /// So many of the records on their way to the disk had arrived there.
        kept: usize,
    },
    /// Time has passed: a follower or candidate stands, a leader that hears nobody falls silent.
    TimeOut {
        /// Whose.
        at: ReplicaId,
    },
    /// Time has passed and all is well: a leader probes and tells marks, a follower says again what it holds.
    Tick {
        /// Whose.
        at: ReplicaId,
    },
    /// A client's command comes in.
    Propose {
        /// Where.
        at: ReplicaId,
    },
    /// A client's read comes in.
    Read {
        /// Where.
        at: ReplicaId,
    },
    /// A leader is asked to hand over.
    Transfer {
        /// The leader.
        at: ReplicaId,
        /// The heir.
        to: ReplicaId,
    },
    /// Half a lease passes.
    Pass,
    /// A leader is ordered to have the one that has joined for another.
    Change {
        /// The leader.
        at: ReplicaId,
        /// Who goes, perhaps the leader.
        goes: ReplicaId,
    },
    /// A replica writes a checkpoint, and begins the snapshot that it names.
    Save {
        /// Which.
        at: ReplicaId,
    },
    /// The file of a snapshot is durable.
    Saved {
        /// Whose.
        at: ReplicaId,
    },
    /// A replica forgets applied entries in memory.
    Trim {
        /// Which.
        at: ReplicaId,
        /// Up to here.
        to: Index,
    },
}

/// Where the lines of a trace go, if anywhere.
pub(crate) type Trace<'a> = Option<&'a mut Vec<String>>;

/// All that can happen in `state`, in an order that depends on the state alone.
pub(crate) fn actions(state: &State, into: &mut Vec<Action>) {
    if state.broken.is_some() {
        return;
    }
    deliveries(state, into);
    let left = state.left;
    if left.spans > 0 {
        into.push(Action::Pass);
    }
    for at in state.ids() {
        let replica = state.replica(at);
        let group = &replica.group;
        let waiting = replica.pending.len();
        into.extend((1..=waiting).map(|count| Action::Durable { at, count }));
        if left.crashes > 0 {
            let released = [false, true].into_iter().take(1 + usize::from(replica.disk.may_be_released()));
            let crashes = released
                .flat_map(|released| (0..=waiting).map(move |kept| Action::Crash { at, kept, released }));
            into.extend(crashes);
        }
        if replica.saving.is_some() {
            into.push(Action::Saved { at });
        } else if left.saves > 0 {
            into.push(Action::Save { at });
        }
        if left.trims > 0 {
            let forgotten = group.base().index.next().0..=group.applied_index().0;
            into.extend(forgotten.map(|to| Action::Trim { at, to: Index(to) }));
        }
        if left.rots > 0 {
            into.extend((0..=waiting).map(|kept| Action::Rot { at, kept }));
        }
        if left.time_outs > 0 {
            into.push(Action::TimeOut { at });
        }
        // A candidate's tick is its time-out.
        if left.ticks > 0 && (group.leader().is_some() || group.repair().is_some()) {
            into.push(Action::Tick { at });
        }
        if left.commands > 0 && group.serving() {
            into.push(Action::Propose { at });
        }
        if left.reads > 0 && group.leading().is_some() {
            into.push(Action::Read { at });
        }
        if left.transfers > 0 && group.serving() {
            let others = state.ids().filter(|to| *to != at);
            into.extend(others.map(|to| Action::Transfer { at, to }));
        }
        if left.changes > 0 && group.serving() {
            into.extend(group.config().voters.iter().map(|goes| Action::Change { at, goes: *goes }));
        }
    }
}

fn deliveries(state: &State, into: &mut Vec<Action>) {
    for (at, envelope) in state.network.iter().enumerate() {
        // Two that are the same make one step.
        if at > 0 && state.network[at - 1].fingerprint() == envelope.fingerprint() {
            continue;
        }
        let followed = state.replica(envelope.to).group.leader();
        let may_lose = envelope.is_canvass() && followed.is_some_and(|ballot| ballot.replica != envelope.to);
        for again in [false, true] {
            if again && state.left.duplicates == 0 {
                continue;
            }
            into.push(Action::Deliver { at, again, lost: false });
            if may_lose {
                into.push(Action::Deliver { at, again, lost: true });
            }
        }
    }
}

/// What comes of `action`; nothing if it changes nothing.
pub(crate) fn step(before: &State, action: Action, memory: &Memory, trace: Trace) -> Option<State> {
    let mut state = before.clone();
    spend(&mut state.left, action);
    let mut step = Step { state: &mut state, memory, trace };
    step.say(|| show::action(before, action));
    let changed = match action {
        Action::Deliver { at, again, lost } => step.deliver(at, again, lost),
        Action::Durable { at, count } => step.event(at, Event::Durable { count }),
        Action::Crash { at, kept, released } => step.boot(at, |nonce| Event::Crash { kept, released, nonce }),
        Action::Rot { at, kept } => step.boot(at, |nonce| Event::Rot { kept, nonce }),
        Action::TimeOut { at } => step.event(at, Event::TimeOut),
        Action::Tick { at } => step.event(at, Event::Tick),
        Action::Propose { at } => {
            step.state.facts.proposed += 1;
            let number = step.state.facts.proposed;
            step.event(at, Event::Propose { number })
        }
        Action::Read { at } => step.read(at),
        Action::Pass => {
            step.state.now = step.state.now.plus(SPAN);
            true
        }
        Action::Transfer { at, to } => step.event(at, Event::Transfer { to }),
        Action::Change { at, goes } => {
            // The one that joined has the last number.
            let comes = ReplicaId(before.replicas.len() as u32);
            step.event(at, Event::Change { goes, comes })
        }
        Action::Save { at } => step.event(at, Event::Save),
        Action::Saved { at } => step.event(at, Event::Saved),
        Action::Trim { at, to } => step.event(at, Event::Trim { to }),
    };
    if !changed {
        return None;
    }
    invariants::check(&mut state);
    Some(state)
}

fn spend(left: &mut Budget, action: Action) {
    match action {
        Action::Deliver { again: true, .. } => left.duplicates -= 1,
        Action::Deliver { .. } | Action::Durable { .. } | Action::Saved { .. } => {}
        Action::Crash { .. } => left.crashes -= 1,
        Action::Rot { .. } => left.rots -= 1,
        Action::TimeOut { .. } => left.time_outs -= 1,
        Action::Tick { .. } => left.ticks -= 1,
        Action::Propose { .. } => left.commands -= 1,
        Action::Read { .. } => left.reads -= 1,
        Action::Transfer { .. } => left.transfers -= 1,
        Action::Change { .. } => left.changes -= 1,
        Action::Pass => left.spans -= 1,
        Action::Save { .. } => left.saves -= 1,
        Action::Trim { .. } => left.trims -= 1,
    }
}

struct Step<'a> {
    state: &'a mut State,
    memory: &'a Memory,
    trace: Trace<'a>,
}

impl Step<'_> {
    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// A message arrives. What would change nothing and be answered by nothing stays on its way: it may mean something
    /// later, and one that never arrives is as good as lost.
    fn deliver(&mut self, at: usize, again: bool, lost: bool) -> bool {
        let envelope = Arc::clone(&self.state.network[at]);
        if !again {
            self.state.network.remove(at);
        }
        self.event(envelope.to, Event::Arrival { envelope: &envelope, lost })
    }

    /// Power was lost. What it was asked to read gets no answer.
    fn boot(&mut self, at: ReplicaId, event: impl Fn(u64) -> Event<'static>) -> bool {
        self.state.facts.reads.retain(|read| read.at != at);
        self.state.facts.boots += 1;
        let nonce = self.state.facts.boots;
        self.event(at, event(nonce))
    }

    fn read(&mut self, at: ReplicaId) -> bool {
        self.state.facts.tokens += 1;
        let token = self.state.facts.tokens;
        // Everything that anybody knows to be decided by now must be seen (R15).
        let floor = Index(self.state.facts.decided.len() as u64);
        self.state.facts.reads.push(Read { token, at, floor });
        let changed = self.event(at, Event::Read { token });
        // A round would take messages.
        if self.state.facts.reads.last().is_none_or(|read| read.token != token) {
            self.state.facts.answered_by_lease += 1;
        }
        changed
    }

    /// Something happens to a replica, and its effects are carried out. Whether anything has come of it.
    fn event(&mut self, at: ReplicaId, event: Event) -> bool {
        let outcome = self.memory.outcome(self.state.shared(at), event, self.state.now);
        *self.state.shared_mut(at) = Arc::clone(&outcome.replica);
        match &outcome.wrong {
            Some(Wrong::Recovery(error)) => {
                self.state.break_with(RECOVERY, format!("{at} has a record that cannot follow: {error}"));
            }
            Some(Wrong::Assertion(text)) => self.state.break_with(ASSERTIONS, format!("{at}: {text}")),
            None => self.carry_out(at, &outcome),
        }
        outcome.changed || outcome.wrong.is_some()
    }

    fn carry_out(&mut self, at: ReplicaId, outcome: &Outcome) {
        if let Some(trace) = &mut self.trace {
            trace.extend(show::effects(at, outcome));
        }
        for change in &outcome.changes {
            if let RoleChange::Elected(ballot) = change {
                self.learn_elected(at, *ballot);
            }
        }
        let led = outcome.changes.iter().find_map(|change| match change {
            RoleChange::Stopped(ballot) => Some(*ballot),
            _ => None,
        });
        let led = outcome.replica.group.leading().or(led);
        for entry in &outcome.news {
            self.learn_decided(at, led, entry);
        }
        for envelope in &outcome.sends {
            self.state.send(Arc::clone(envelope));
        }
        for token in &outcome.reads_ready {
            self.learn_answer(at, *token, outcome.replica.group.applied_index());
        }
        self.state.facts.reads.retain(|read| !outcome.reads_failed.contains(&read.token));
    }

    fn learn_elected(&mut self, at: ReplicaId, ballot: Ballot) {
        if ballot.replica != at {
            self.state.break_with(ONE_LEADER, format!("{at} leads in {ballot}, which is another's"));
        } else if self.state.facts.elected.contains(&ballot) {
            self.state.break_with(ONE_LEADER, format!("{ballot} is led twice"));
        }
        let elected = &mut self.state.facts.elected;
        elected.push(ballot);
        elected.sort_unstable();
    }

    /// `entry` is decided, says `at`, which has led in `led` just now, if it has: the first to say so sets it for all.
    fn learn_decided(&mut self, at: ReplicaId, led: Option<Ballot>, entry: &Entry) {
        let place = entry.index.0 as usize - 1;
        self.note_learnt(place, led);
        let decided = &self.state.facts.decided;
        let clash = match decided.get(place) {
            Some(known) if known == entry => return,
            Some(known) => {
                Some((AGREEMENT, format!("{at} has decided {entry:#}, and {known:#} was decided")))
            }
            None => self.invalid(entry).map(|seen| (VALIDITY, seen)),
        };
        match clash {
            Some((invariant, seen)) => self.state.break_with(invariant, seen),
            None => self.state.facts.decided.push(entry.clone()),
        }
    }

    /// Leaders count votes, each in its own ballot; that of a lower one may find last what others knew before.
    fn note_learnt(&mut self, place: usize, led: Option<Ballot>) {
        let (Some(learnt_in), Some(led)) = (&mut self.state.facts.learnt_in, led) else { return };
        match learnt_in.get_mut(place) {
            Some(lowest) => *lowest = led.min(*lowest),
            None => learnt_in.push(led),
        }
    }

    /// Only what was proposed is decided, and once.
    fn invalid(&self, entry: &Entry) -> Option<String> {
        let number = number_of(&entry.payload)?;
        let facts = &self.state.facts;
        let twice = facts.decided.iter().any(|known| number_of(&known.payload) == Some(number));
        if twice {
            return Some(format!("command {number} is decided twice, also at {}", entry.index));
        }
        (number == 0 || number > facts.proposed).then(|| format!("command {number} was not proposed"))
    }

    fn learn_answer(&mut self, at: ReplicaId, token: u64, seen: Index) {
        self.state.facts.answered += 1;
        let reads = &mut self.state.facts.reads;
        let Some(place) = reads.iter().position(|read| read.token == token) else {
            self.state
                .break_with(READ_FRESHNESS, format!("{at} answers read {token}, which it was not asked"));
            return;
        };
        let read = reads.remove(place);
        if seen < read.floor {
            let text =
                format!("{at} answers read {token} at {seen}, and {} was decided before it came", read.floor);
            self.state.break_with(READ_FRESHNESS, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Council;
    use crate::configs::{self, Start};
    use crate::state::command;

    fn council() -> Council {
        Council::new(
            3,
            configs::options(),
            Start::Led { commands: 1, without: None, tail: false },
            Budget::default(),
        )
    }

    /// What `learn` breaks in a state in which @1 and @2 are decided.
    #[track_caller]
    fn expect(learn: impl FnOnce(&mut Step), invariant: &str, seen: &str) {
        let (council, memory) = (council(), Memory::default());
        let mut state = council.begin();
        learn(&mut Step { state: &mut state, memory: &memory, trace: None });
        let broken = state.broken.expect("it is broken");
        assert_eq!((broken.invariant, broken.seen.as_str()), (invariant, seen));
    }

    const N2: ReplicaId = ReplicaId(2);
    const BALLOT: Ballot = Ballot { round: 2, replica: N2 };

    fn entry(at: u64, number: u8) -> Entry {
        Entry {
            index: Index(at),
            origin: BALLOT,
            time: crate::state::BEGINNING,
            seed: 0,
            payload: command(number),
        }
    }

    #[test]
    fn another_value_at_a_decided_index_is_seen() {
        let seen = "n2 has decided @2 command 1 of 2.n2, and @2 command 1 of 1.n1 was decided";
        expect(|step| step.learn_decided(N2, Some(BALLOT), &entry(2, 1)), AGREEMENT, seen);
    }

    #[test]
    fn a_command_that_was_not_proposed_or_is_decided_twice_is_seen() {
        expect(
            |step| step.learn_decided(N2, Some(BALLOT), &entry(3, 2)),
            VALIDITY,
            "command 2 was not proposed",
        );
        expect(
            |step| step.learn_decided(N2, Some(BALLOT), &entry(3, 1)),
            VALIDITY,
            "command 1 is decided twice, also at @3",
        );
    }

    #[test]
    fn a_ballot_led_twice_or_by_another_is_seen() {
        let ballot = |replica| Ballot { round: 1, replica: ReplicaId(replica) };
        expect(|step| step.learn_elected(ReplicaId(1), ballot(1)), ONE_LEADER, "1.n1 is led twice");
        expect(|step| step.learn_elected(N2, ballot(3)), ONE_LEADER, "n2 leads in 1.n3, which is another's");
    }

    #[test]
    fn an_answer_older_than_its_question_is_seen() {
        let asked = |step: &mut Step| {
            step.state.facts.reads.push(Read { token: 7, at: N2, floor: Index(2) });
        };
        let seen = "n2 answers read 7 at @1, and @2 was decided before it came";
        let stale = |step: &mut Step| {
            asked(step);
            step.learn_answer(N2, 7, Index(1));
        };
        expect(stale, READ_FRESHNESS, seen);
        let twice = |step: &mut Step| {
            asked(step);
            step.learn_answer(N2, 7, Index(2));
            step.learn_answer(N2, 7, Index(2));
        };
        expect(twice, READ_FRESHNESS, "n2 answers read 7, which it was not asked");
    }

    #[test]
    fn a_crash_keeps_what_had_reached_the_disk_and_nothing_else() {
        let council = council();
        let mut state = council.begin();
        state.left = Budget { commands: 2, crashes: 1, ..Budget::default() };
        let n1 = ReplicaId(1);
        for _ in 0..2 {
            state = council.happened(&state, Action::Propose { at: n1 });
        }
        for kept in 0..=2 {
            let after = council.happened(&state, Action::Crash { at: n1, kept, released: false });
            let group = &after.replica(n1).group;
            assert_eq!((group.accepted_index(), group.leading()), (Index(2 + kept as u64), None));
            assert!(after.replica(n1).pending.is_empty());
        }
    }

    #[test]
    fn rot_leaves_nothing_and_is_found_again_until_the_disk_says_so() {
        let council = council();
        let mut state = council.begin();
        state.left = Budget { crashes: 2, rots: 1, ..Budget::default() };
        let n3 = ReplicaId(3);
        let rotten = council.happened(&state, Action::Rot { at: n3, kept: 0 });
        let again = council.happened(&rotten, Action::Crash { at: n3, kept: 0, released: false });
        let known = council.happened(&again, Action::Crash { at: n3, kept: 1, released: false });
        for (state, on_disk, asked) in [(&rotten, false, 2), (&again, false, 4), (&known, true, 4)] {
            let replica = state.replica(n3);
            assert_eq!(replica.group.accepted_index(), Index::ZERO);
            assert!(replica.group.repair().is_some());
            assert_eq!((replica.disk.whole.repair().is_some(), state.network.len()), (on_disk, asked));
            // Two other disks have what is decided, and what n3 had still counts.
            assert!(replica.lost.is_some() && state.broken.is_none());
        }
    }

    #[test]
    fn messages_that_are_the_same_arrive_as_one() {
        let council = council();
        let mut state = council.begin();
        state.left.commands = 1;
        state = council.happened(&state, Action::Propose { at: ReplicaId(1) });
        let count = |state: &State| {
            let mut all = Vec::new();
            actions(state, &mut all);
            all.iter().filter(|action| matches!(action, Action::Deliver { .. })).count()
        };
        assert_eq!((state.network.len(), count(&state)), (2, 2));
        let copy = Arc::clone(&state.network[0]);
        state.send(copy);
        assert_eq!((state.network.len(), count(&state)), (3, 2));
    }
}
