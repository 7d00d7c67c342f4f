//! What the operations that have not happened yet need and can bring about.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::model::{Effect, NIL, Product, State, Step, Values};

/// What the operations that have not happened yet need and can bring about, for K2.
pub(super) struct Remaining {
    /// Known operations that can only start from this state; those among them that also leave it; and operations,
    /// known or not, that can bring it about.
    by_state: Vec<[u32; 3]>,
    integers: u32,
    /// Appends of unknown length, and of known length by that.
    strings: u32,
    strings_by_length: BTreeMap<usize, u32>,
    /// Operations whose need is more than one state.
    vague: u32,
}

const NEEDED: usize = 0;
const LEFT: usize = 1;
const MADE: usize = 2;

impl Remaining {
    pub(super) fn new(steps: &[Option<Step>], values: &Values) -> Self {
        let mut remaining = Self {
            by_state: vec![[0; 3]; values.len()],
            integers: 0,
            strings: 0,
            strings_by_length: BTreeMap::new(),
            vague: 0,
        };
        for step in steps.iter().flatten() {
            remaining.give_back(&step.effect, step.known);
        }
        remaining
    }

    pub(super) fn give_back(&mut self, effect: &Effect, known: bool) {
        self.count(effect, known, |n| *n += 1);
    }

    pub(super) fn take(&mut self, effect: &Effect, known: bool) {
        self.count(effect, known, |n| *n -= 1);
    }

    fn count(&mut self, effect: &Effect, known: bool, change: impl Fn(&mut u32)) {
        if let Some(state) = effect.need().filter(|_| known) {
            change(&mut self.by_state[state.0 as usize][NEEDED]);
            if matches!(effect, Effect::Swap(..)) {
                change(&mut self.by_state[state.0 as usize][LEFT]);
            }
        }
        if effect.is_vague() {
            change(&mut self.vague);
        }
        match effect.product() {
            Product::Nothing => {}
            Product::One(state) => change(&mut self.by_state[state.0 as usize][MADE]),
            Product::Integers => change(&mut self.integers),
            Product::Strings(None) => change(&mut self.strings),
            Product::Strings(Some(length)) => change(self.strings_by_length.entry(length).or_default()),
        }
    }

    fn get(&self, state: State) -> [u32; 3] {
        // A value first seen in the search is one that no operation names.
        self.by_state.get(state.0 as usize).copied().unwrap_or_default()
    }

    pub(super) fn is_needed(&self, state: State) -> bool {
        self.get(state)[NEEDED] > 0
    }

    /// True if `state`, just left, is needed and will not come back often enough.
    pub(super) fn is_lost(&self, state: State, values: &Values) -> bool {
        let [needed, left, made] = self.get(state);
        (needed > 0 && made == 0 || left > made) && !self.may_be_summed(state, values)
    }

    /// True if something that still asks for more than a certain state could start from any.
    pub(super) fn has_vague(&self) -> bool {
        self.vague > 0
    }

    fn may_be_summed(&self, state: State, values: &Values) -> bool {
        state != NIL
            && (self.strings > 0
                || self.strings_by_length.get(&values.bytes(state).len()).is_some_and(|&n| n > 0)
                || self.integers > 0 && values.integer(state).is_some())
    }

    /// True if at the start already something needs a state that cannot come about.
    pub(super) fn is_hopeless(&self, values: &Values) -> bool {
        (0..self.by_state.len()).any(|i| {
            let state = State(i as u32);
            let [needed, left, made] = self.get(state);
            let made = made + u32::from(state == NIL);
            (needed > 0 && made == 0 || left > made) && !self.may_be_summed(state, values)
        })
    }
}
