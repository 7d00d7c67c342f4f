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
//!   any number of the records on their way, in order.
//!
//! What the model cannot see is in `docs/protocol/model.md`.
#![forbid(unsafe_code)]

pub mod configs;
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

    /// The first state: what [`Start`] says has happened, and nothing is on its way.
    fn begin(&self) -> State {
        let mut state = State::new(self.voters, self.spare, self.options, Budget::default());
        let Start::Led { commands, without, tail } = self.start else {
            state.left = self.budget;
            return state;
        };
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
        assert!(state.broken.is_none(), "it begins broken: {:?}", state.broken);
        state.left = self.budget;
        state
    }

    fn happened(&self, state: &State, action: Action) -> State {
        step::step(state, action, &self.memory, None).unwrap_or_else(|| panic!("{action:?} changes nothing"))
    }

    /// All is written, and what is `wanted` arrives, until nothing is on its way; the rest is lost.
    fn settle(&self, state: &mut State, wanted: impl Fn(&Envelope) -> bool) {
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
                    None => drop(state.network.remove(0)),
                }
            } else {
                return;
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
        if budget.rots > 0 {
            wanted.push(Wanted::Repaired);
        }
        if budget.changes > 0 {
            wanted.push(Wanted::SetChanged);
        }
        let elections = budget.time_outs + u8::from(self.start != Start::Nobody);
        if elections > 1 || budget.transfers > 0 {
            wanted.push(Wanted::DecidedInTwoBallots);
        }
        if elections > 1 {
            wanted.push(Wanted::TwoLeaders);
        }
        wanted
    }
}
