//! Every interleaving of small councils: the real [`tholos_paxos::Group`], explored breadth first by `stateright`.
//!
//! A [`Council`] is a few replicas of one group, the messages on their way, the records on their way to disks, and what
//! may still happen to them ([`Budget`]): so many time-outs, crashes, duplicates, commands, reads. From each state
//! every possible next step is taken; states that have been met are not gone on from again. If the search ends, the
//! invariants hold in every state that can be reached, whatever the order of messages and disk writes.
//!
//! How it is kept small, and why no behaviour is lost by it:
//!
//! - **No clock but for leases.** All time-outs are zero. Whoever is ticked finds that enough time has passed, and the model
//!   decides who is ticked when, and whom it hears. Any order of time-outs that clocks could bring about is one of them.
//!   Leases alone count time: where they are given, one clock for all goes on by half a lease, now and then.
//! - **A lost message is one that never arrives.** Nothing depends on whether it still could, so loss needs no step and
//!   no bound: each state stands also for those in which any of the messages on their way are lost. For the same
//!   reason a message whose arrival would change nothing and be answered by nothing is left where it is.
//! - **A machine that is down is one to which nothing happens.** So a crash and the start after it are one step.
//! - **A follower loses its leader when it matters.** Whether it misses its leader decides only how it answers a
//!   Canvass and whether it stands; so it notices just before one of these.
//! - **A disk is the replica that it would bring back.** Records that recover to the same are the same. A crash keeps
//!   any number of the records on their way, in order, and finds the records before the last checkpoint that counts, or not.
//! - **A snapshot is its index.** What it holds is what was decided up to there, so that is all that is sent. One that is cut
//!   off on its way is one that never arrives.
//!
//! What the model cannot see is in `docs/protocol/model.md`.
#![forbid(unsafe_code)]

pub mod configs;
mod disk;
pub mod explore;
mod invariants;
mod local;
pub mod planted;
mod show;
mod state;
mod step;

use std::sync::Arc;

use stateright::{Model, Property};
use tholos_paxos::{Options, ReplicaId};

pub use state::{Budget, State};
pub use step::Action;

use configs::Start;
use invariants::Wanted;
use local::Memory;
use state::Envelope;

/// A small council, and what may happen to it.
#[derive(Clone, Debug)]
pub struct Council {
    /// How many vote at first.
    pub voters: u32,
    /// One more has joined, for changes of the replica set.
    pub spare: bool,
    /// Limits of the groups, and the fault planted in them; all times in it are zero.
    pub options: Options,
    /// Where it begins.
    pub start: Start,
    /// What may happen.
    pub budget: Budget,
    /// What is known of its replicas; all clones share it.
    memory: Arc<Memory>,
}

impl Council {
    /// A council of which nothing is known yet.
    pub fn new(voters: u32, options: Options, start: Start, budget: Budget) -> Council {
        Council { voters, spare: budget.changes > 0, options, start, budget, memory: Arc::default() }
    }

    /// Whether there are snapshots in it.
    fn has_snapshots(&self) -> bool {
        let begins_with_one = matches!(self.start, Start::Trimmed { .. } | Start::Resent | Start::Mute);
        begins_with_one || self.budget.saves > 0 || self.budget.trims > 0
    }

    /// The first state: what [`Start`] says has happened, and nothing is on its way but what that says.
    fn begin(&self) -> State {
        let mut state = State::new(self.voters, self.spare, self.options, Budget::default());
        state.facts.learnt_in = self.has_snapshots().then(Vec::new);
        match self.start {
            Start::Nobody => {}
            Start::Led { commands, without, tail } => state = self.lead(state, commands, without, tail),
            Start::Trimmed { commands, without } => {
                state = self.lead(state, commands, without, false);
                self.trim(&mut state);
                self.send_snapshot(&mut state);
            }
            Start::Resent => {
                state = self.lead(state, 1, Some(ReplicaId(3)), false);
                self.trim(&mut state);
                self.lead_again(&mut state);
            }
            Start::Mute => {
                state = self.lead(state, 1, None, false);
                self.trim(&mut state);
                self.mute(&mut state);
            }
        }
        assert!(state.broken.is_none(), "it begins broken: {:?}", state.broken);
        state.left = self.budget;
        state
    }

    /// n1 comes to lead.
    fn lead(&self, mut state: State, commands: u8, without: Option<ReplicaId>, tail: bool) -> State {
        let leader = ReplicaId(1);
        let asked = u8::from(self.options.leases);
        let commands_all = commands + u8::from(tail);
        state.left =
            Budget { time_outs: 1, commands: commands_all, reads: asked, ticks: asked, ..Budget::default() };
        let wanted = |envelope: &Envelope| Some(envelope.to) != without;
        state = self.happened(&state, Action::TimeOut { at: leader });
        self.settle(&mut state, wanted);
        for _ in 0..commands {
            state = self.happened(&state, Action::Propose { at: leader });
            self.settle(&mut state, wanted);
        }
        if self.options.leases {
            // Somebody has read, so that leases are asked for.
            state = self.happened(&state, Action::Read { at: leader });
            self.settle(&mut state, wanted);
            state = self.happened(&state, Action::Tick { at: leader });
            self.settle(&mut state, wanted);
        }
        if tail {
            state = self.happened(&state, Action::Propose { at: leader });
            self.settle(&mut state, |_| false);
        }
        state
    }

    /// n1, which leads, saves a snapshot and forgets what it has applied.
    fn trim(&self, state: &mut State) {
        let at = ReplicaId(1);
        state.left = Budget { saves: 1, trims: 1, ..Budget::default() };
        *state = self.happened(state, Action::Save { at });
        self.settle(state, |_| true);
        *state = self.happened(state, Action::Saved { at });
        let to = state.replica(at).group.applied_index();
        *state = self.happened(state, Action::Trim { at, to });
    }

    /// n1 asks those who have not answered where they stand, so that the snapshot is on its way to them.
    fn send_snapshot(&self, state: &mut State) {
        state.left.ticks = 1;
        *state = self.happened(state, Action::Tick { at: ReplicaId(1) });
        let lost = self.settle(state, |envelope| !envelope.is_snapshot());
        lost.into_iter().filter(|envelope| envelope.is_snapshot()).for_each(|envelope| state.send(envelope));
    }

    /// n1 has one more command decided with the help of n2, starts again, and is elected by the other two.
    fn lead_again(&self, state: &mut State) {
        let at = ReplicaId(1);
        state.left = Budget { commands: 1, crashes: 1, time_outs: 1, ..Budget::default() };
        *state = self.happened(state, Action::Propose { at });
        self.settle(state, |envelope| envelope.to != ReplicaId(3));
        *state = self.happened(state, Action::Crash { at, kept: 0, released: true });
        *state = self.happened(state, Action::TimeOut { at });
        let lost = self.settle(state, |envelope| !envelope.is_snapshot() && !envelope.is_sync());
        lost.into_iter().for_each(|envelope| state.send(envelope));
    }

    /// n3 has lost what was on its disk.
    fn mute(&self, state: &mut State) {
        let at = ReplicaId(3);
        state.left = Budget { rots: 1, ticks: 1, ..Budget::default() };
        for action in [Action::Rot { at, kept: 0 }, Action::Tick { at }] {
            *state = self.happened(state, action);
            self.settle(state, |_| true);
        }
    }

    fn happened(&self, state: &State, action: Action) -> State {
        step::step(state, action, &self.memory, None).unwrap_or_else(|| panic!("{action:?} changes nothing"))
    }

    /// All is written, and what is `wanted` arrives, until nothing is on its way. Returns the rest, which is lost.
    fn settle(&self, state: &mut State, wanted: impl Fn(&Envelope) -> bool) -> Vec<Arc<Envelope>> {
        let mut lost = Vec::new();
        loop {
            let waiting = state.ids().find(|id| !state.replica(*id).pending.is_empty());
            if let Some(at) = waiting {
                let count = state.replica(at).pending.len();
                *state = self.happened(state, Action::Durable { at, count });
            } else if !state.network.is_empty() {
                let arrives = Action::Deliver { at: 0, again: false, lost: false };
                let wanted = wanted(&state.network[0]);
                match wanted.then(|| self.next_state(state, arrives)).flatten() {
                    Some(next) => *state = next,
                    None => lost.push(state.network.remove(0)),
                }
            } else {
                return lost;
            }
        }
    }
}

impl Model for Council {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        step::actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        step::step(state, action, &self.memory, None)
    }

    fn properties(&self) -> Vec<Property<Council>> {
        let mut properties = invariants::properties();
        properties.extend(self.wanted().into_iter().map(Wanted::property));
        properties
    }
}

impl Council {
    /// What a search of this council must come by, if nothing is planted and it goes on to its end.
    fn wanted(&self) -> Vec<Wanted> {
        let budget = self.budget;
        let mut wanted = vec![Wanted::AllHasHappened];
        if budget.commands > 0 {
            wanted.push(Wanted::CommandDecided);
        }
        if budget.reads > 0 {
            wanted.push(Wanted::ReadAnswered);
        }
        if budget.reads > 0 && self.options.leases {
            wanted.push(Wanted::ReadByLease);
        }
        // It takes a leader that was elected without it.
        if (budget.rots > 0 || self.start == Start::Mute) && budget.time_outs > 0 {
            wanted.push(Wanted::Repaired);
        }
        if budget.changes > 0 {
            wanted.push(Wanted::SetChanged);
        }
        let lacks_all =
            matches!(self.start, Start::Trimmed { without: Some(_), .. } | Start::Resent | Start::Mute);
        if lacks_all || budget.trims > 0 || self.spare && self.has_snapshots() {
            wanted.extend([Wanted::SnapshotInstalled, Wanted::AcceptedAfterSnapshot]);
        }
        if budget.saves > 0 && budget.crashes > 0 {
            wanted.push(Wanted::BackFromCheckpoint);
        }
        if self.has_snapshots() && budget.time_outs > 0 {
            wanted.push(Wanted::LedFromSnapshot);
        }
        let nobody_leads = matches!(self.start, Start::Nobody | Start::Mute);
        let elections = budget.time_outs + u8::from(!nobody_leads);
        if elections > 1 || budget.transfers > 0 {
            wanted.push(Wanted::DecidedInTwoBallots);
        }
        if elections > 1 {
            wanted.push(Wanted::TwoLeaders);
        }
        wanted
    }
}
