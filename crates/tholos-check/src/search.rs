//! The search for an order of one key's operations: depth first, with the refuted configurations remembered.
//!
//! A configuration is a place in the timeline, the state, which of the open operations already took their instant,
//! and how many of each class of unknown operations were used. Going forward needs no choice until an operation
//! returns without an instant; there a frame is pushed with the operations that could take theirs next.

use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasherDefault;

use super::lists::{MixHasher, UsedLists};
use super::model::{Effect, NIL, Product, State, Step, Values};
use super::remaining::Remaining;
use super::{HashMap, Limits, Operation};

/// Operations of one key that may be open at once; more end the search with a limit.
const OPEN_MAX: usize = 256;
/// Marks a class, rather than an operation, in a candidate or on the trail.
const CLASS: u32 = 1 << 31;

/// Calls and returns of one key in order; calls before returns of the same time, so that touching operations overlap.
pub(super) struct Timeline {
    /// (operation, it is a return).
    events: Vec<(u32, bool)>,
    invokes: Vec<usize>,
    returns: Vec<usize>,
}

impl Timeline {
    pub(super) fn new(operations: &[&Operation]) -> Self {
        let mut keyed = Vec::with_capacity(operations.len() * 2);
        for (i, operation) in operations.iter().enumerate() {
            let i = u32::try_from(i).ok().filter(|i| i & CLASS == 0).expect("fewer operations than 2^31");
            keyed.push((operation.invoked, false, i));
            if let Some(returned) = operation.returned {
                keyed.push((returned, true, i));
            }
        }
        keyed.sort_unstable();
        let mut invokes = vec![0; operations.len()];
        let mut returns = vec![usize::MAX; operations.len()];
        for (at, &(_, is_return, i)) in keyed.iter().enumerate() {
            let side = if is_return { &mut returns } else { &mut invokes };
            side[i as usize] = at;
        }
        Self { events: keyed.into_iter().map(|(_, is_return, i)| (i, is_return)).collect(), invokes, returns }
    }

    /// Where in the timeline an operation is called.
    pub(super) fn invokes(&self, operation: usize) -> usize {
        self.invokes[operation]
    }

    /// Where it returns; `usize::MAX` if never.
    pub(super) fn returns(&self, operation: usize) -> usize {
        self.returns[operation]
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The operation that returns at `event`, if that event is a return.
    pub(super) fn returning(&self, event: usize) -> Option<usize> {
        self.events.get(event).and_then(|&(i, is_return)| is_return.then_some(i as usize))
    }
}

/// The end of a search.
pub(super) enum Found {
    /// A legal order: operations, those of unknown fate that never happened left out.
    Order(Vec<usize>),
    /// There is none.
    None,
    /// A limit was reached first.
    Limit(&'static str),
}

type Mask = [u64; OPEN_MAX / 64];

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration {
    event: u32,
    state: State,
    /// Slots of open operations that took their instant.
    done: Mask,
    /// The last step was a blind write of unknown fate (K4).
    unread: bool,
}

struct Frame {
    at: Configuration,
    used: u32,
    trail: usize,
    /// Next steps still to try, best last.
    candidates: Vec<u32>,
    /// The unknown operations that do not lead straight to the goal have been added to `candidates`.
    complete: bool,
}

/// Unknown operations of one effect, in the order of their calls (K3).
struct Class {
    effect: Effect,
    operations: Vec<u32>,
    /// How many were called by the present event.
    called: u32,
}

pub(super) struct Search<'a> {
    timeline: &'a Timeline,
    cut: usize,
    limits: Limits,
    values: Values,
    steps: Vec<Option<Step>>,
    /// The slot of each known operation, and who holds each slot at the present event.
    slots: Vec<u16>,
    open: Vec<Option<u32>>,
    open_mask: Mask,
    too_many_open: bool,
    classes: Vec<Class>,
    class_of: Vec<u32>,
    classes_by_product: HashMap<State, Vec<u32>>,
    remaining: Remaining,
    now: Configuration,
    /// Number of the list of used classes, and the lists.
    used: u32,
    used_lists: UsedLists,
    trail: Vec<u32>,
    frames: Vec<Frame>,
    refuted: hashbrown::HashMap<Configuration, Vec<u32>, BuildHasherDefault<MixHasher>>,
    refuted_count: usize,
    steps_taken: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        steps: Vec<Option<Step>>,
        timeline: &'a Timeline,
        cut: usize,
        values: Values,
        limits: Limits,
    ) -> Self {
        let mut search = Search {
            timeline,
            cut: cut.min(timeline.len()),
            limits,
            remaining: Remaining::new(&steps, &values),
            values,
            slots: vec![0; steps.len()],
            open: vec![None; OPEN_MAX],
            open_mask: Mask::default(),
            too_many_open: false,
            classes: Vec::new(),
            class_of: vec![0; steps.len()],
            classes_by_product: HashMap::default(),
            now: Configuration { event: 0, state: NIL, done: Mask::default(), unread: false },
            used: 0,
            used_lists: UsedLists::default(),
            trail: Vec::new(),
            frames: Vec::new(),
            refuted: hashbrown::HashMap::default(),
            refuted_count: 0,
            steps_taken: 0,
            steps,
        };
        search.assign_slots();
        search.assign_classes();
        search
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps_taken
    }

    pub(super) fn run(&mut self) -> Found {
        if self.too_many_open {
            return Found::Limit("more than 256 operations open at once");
        }
        if self.remaining.is_hopeless(&self.values) {
            return Found::None;
        }
        loop {
            if !self.advance() {
                return Found::Order(self.order());
            }
            self.steps_taken += 1;
            if self.steps_taken > self.limits.steps_max {
                return Found::Limit("too many configurations");
            }
            if self.refuted_count > self.limits.refuted_max {
                return Found::Limit("too many refuted configurations to remember");
            }
            if self.values.is_over_limit() {
                return Found::Limit("too many bytes of values");
            }
            if !self.is_refuted() {
                self.push_frame();
            }
            if !self.step() {
                return Found::None;
            }
        }
    }

    /// Gives each known operation a slot that no other holds while it is open.
    fn assign_slots(&mut self) {
        let mut free: Vec<u16> = (0..OPEN_MAX as u16).rev().collect();
        for event in 0..self.cut {
            let (i, is_return) = self.timeline.events[event];
            if !self.is_known(i) {
                continue;
            }
            if is_return {
                free.push(self.slots[i as usize]);
            } else if let Some(slot) = free.pop() {
                self.slots[i as usize] = slot;
            } else {
                self.too_many_open = true;
                return;
            }
        }
    }

    fn assign_classes(&mut self) {
        let mut numbers: HashMap<Effect, u32> = HashMap::default();
        for event in 0..self.cut {
            let (i, is_return) = self.timeline.events[event];
            let Some(step) = self.steps[i as usize].as_ref().filter(|step| !is_return && !step.known) else {
                continue;
            };
            let next = self.classes.len() as u32;
            let class = *numbers.entry(step.effect.clone()).or_insert(next);
            if class == next {
                self.classes.push(Class { effect: step.effect.clone(), operations: Vec::new(), called: 0 });
                if let Product::One(state) = step.effect.product() {
                    self.classes_by_product.entry(state).or_default().push(class);
                }
            }
            self.classes[class as usize].operations.push(i);
            self.class_of[i as usize] = class;
        }
    }

    fn is_known(&self, i: u32) -> bool {
        self.steps[i as usize].as_ref().is_some_and(|step| step.known)
    }

    fn effect(&self, i: u32) -> &Effect {
        &self.steps[i as usize].as_ref().expect("only compiled operations are open").effect
    }

    /// Goes on to the next return of an operation without an instant; false at the end of the timeline.
    fn advance(&mut self) -> bool {
        while (self.now.event as usize) < self.cut {
            let (i, is_return) = self.timeline.events[self.now.event as usize];
            if self.is_known(i) {
                let slot = usize::from(self.slots[i as usize]);
                if !is_return {
                    self.open[slot] = Some(i);
                    set(&mut self.open_mask, slot);
                    self.take_if_pure(i);
                } else if has(&self.now.done, slot) {
                    self.open[slot] = None;
                    clear(&mut self.open_mask, slot);
                    clear(&mut self.now.done, slot);
                } else {
                    return true;
                }
            } else if !is_return && self.steps[i as usize].is_some() {
                self.classes[self.class_of[i as usize] as usize].called += 1;
            }
            self.now.event += 1;
        }
        false
    }

    /// K1: lets an operation that changes nothing happen now if it fits the state.
    fn take_if_pure(&mut self, i: u32) {
        let step = self.steps[i as usize].as_ref().expect("only compiled operations are open");
        if step.effect.is_pure() && step.effect.apply(self.now.state, &mut self.values).is_some() {
            self.remaining.take(&step.effect, step.known);
            set(&mut self.now.done, usize::from(self.slots[i as usize]));
            self.now.unread = false;
            self.trail.push(i);
        }
    }

    fn for_each_open(&self, mut visit: impl FnMut(u32)) {
        for (word, (&open, &done)) in self.open_mask.iter().zip(&self.now.done).enumerate() {
            let mut waiting = open & !done;
            while waiting != 0 {
                let slot = word * 64 + waiting.trailing_zeros() as usize;
                visit(self.open[slot].expect("the mask says that this slot is held"));
                waiting &= waiting - 1;
            }
        }
    }

    fn push_frame(&mut self) {
        let (goal, _) = self.timeline.events[self.now.event as usize];
        let goal_effect = self.effect(goal).clone();
        let goal_need = goal_effect.need();
        let goal_fits = goal_effect.apply(self.now.state, &mut self.values).is_some();
        let mut ranked: Vec<(u8, usize, u32)> = Vec::new();
        self.for_each_open(|i| {
            let effect = self.effect(i);
            if effect.is_pure() {
                return;
            }
            let product = match effect.product() {
                Product::One(state) => Some(state),
                _ => None,
            };
            let rank = if i == goal {
                1
            } else if effect.is_blind() && product.is_some_and(|p| !self.remaining.is_needed(p)) {
                // Nobody reads it: its best place is just before a write that covers it.
                if goal_fits && !goal_effect.is_blind() { 4 } else { 0 }
            } else if product.is_some() && product == goal_need {
                2
            } else {
                3
            };
            ranked.push((rank, self.timeline.returns(i as usize), i));
        });
        if let Some(classes) =
            goal_need.filter(|_| !goal_fits).and_then(|need| self.classes_by_product.get(&need))
        {
            ranked.extend(classes.iter().map(|&class| (2, usize::MAX, class | CLASS)));
        }
        ranked.sort_unstable();
        let candidates = ranked.into_iter().rev().map(|(_, _, candidate)| candidate).collect();
        let complete = self.classes.is_empty();
        self.frames.push(Frame {
            at: self.now,
            used: self.used,
            trail: self.trail.len(),
            candidates,
            complete,
        });
    }

    /// Takes the best untried step, going back as far as needed; false if nothing is left to try.
    fn step(&mut self) -> bool {
        loop {
            let Some(mut frame) = self.frames.pop() else { return false };
            self.rewind(&frame);
            if frame.candidates.is_empty() && !frame.complete {
                frame.complete = true;
                frame.candidates = self.other_unknown();
            }
            let Some(candidate) = frame.candidates.pop() else {
                self.refuted.entry(frame.at).or_default().push(frame.used);
                self.refuted_count += 1;
                continue;
            };
            self.frames.push(frame);
            if self.take(candidate) {
                return true;
            }
        }
    }

    /// Every class of unknown operations that could matter.
    fn other_unknown(&self) -> Vec<u32> {
        let vague = self.remaining.has_vague();
        let mut found: Vec<u32> = Vec::new();
        for (number, class) in self.classes.iter().enumerate() {
            // A value that nobody looks for, one way or another, is only in the way.
            let wanted = match class.effect.product() {
                Product::One(state) => vague || self.remaining.is_needed(state),
                _ => true,
            };
            if wanted && self.used_lists.count(self.used, number as u32) < class.called {
                found.push(number as u32 | CLASS);
            }
        }
        found
    }

    /// Lets one operation happen now; false if it cannot, or need not be tried.
    fn take(&mut self, candidate: u32) -> bool {
        let class = (candidate & CLASS != 0).then_some(candidate & !CLASS);
        let i = match class {
            Some(number) => {
                let class = &self.classes[number as usize];
                let used = self.used_lists.count(self.used, number);
                if used >= class.called {
                    return false;
                }
                class.operations[used as usize]
            }
            None => candidate,
        };
        let step = self.steps[i as usize].as_ref().expect("only compiled operations are candidates");
        let before = self.now.state;
        if self.now.unread && step.effect.is_blind() {
            return false;
        }
        let Some(after) = step.effect.apply(before, &mut self.values) else { return false };
        if class.is_some() && after == before {
            return false;
        }
        self.remaining.take(&step.effect, step.known);
        self.trail.push(i);
        match class {
            Some(number) => self.used = self.used_lists.with(self.used, number),
            None => set(&mut self.now.done, usize::from(self.slots[i as usize])),
        }
        self.now.unread = class.is_some() && step.effect.is_blind();
        self.now.state = after;
        if after != before {
            // K2; the frame's next candidate undoes what was just done.
            if self.remaining.is_lost(before, &self.values) {
                return false;
            }
            self.take_open_pure();
        }
        true
    }

    fn take_open_pure(&mut self) {
        let mut fitting = Vec::new();
        self.for_each_open(|i| {
            if self.effect(i).is_pure() {
                fitting.push(i);
            }
        });
        for i in fitting {
            self.take_if_pure(i);
        }
    }

    fn rewind(&mut self, frame: &Frame) {
        while self.now.event > frame.at.event {
            self.now.event -= 1;
            let (i, is_return) = self.timeline.events[self.now.event as usize];
            if self.is_known(i) {
                let slot = usize::from(self.slots[i as usize]);
                if is_return {
                    self.open[slot] = Some(i);
                    set(&mut self.open_mask, slot);
                } else {
                    self.open[slot] = None;
                    clear(&mut self.open_mask, slot);
                }
            } else if !is_return && self.steps[i as usize].is_some() {
                self.classes[self.class_of[i as usize] as usize].called -= 1;
            }
        }
        for i in self.trail.drain(frame.trail..) {
            let step = self.steps[i as usize].as_ref().expect("only compiled operations are on the trail");
            self.remaining.give_back(&step.effect, step.known);
        }
        self.now = frame.at;
        self.used = frame.used;
    }

    fn is_refuted(&self) -> bool {
        // K5.
        self.refuted
            .get(&self.now)
            .is_some_and(|used| used.iter().any(|&used| self.used_lists.is_within(used, self.used)))
    }

    fn order(&self) -> Vec<usize> {
        self.trail.iter().map(|&i| i as usize).collect()
    }
}

fn set(mask: &mut Mask, slot: usize) {
    mask[slot / 64] |= 1 << (slot % 64);
}

fn clear(mask: &mut Mask, slot: usize) {
    mask[slot / 64] &= !(1 << (slot % 64));
}

fn has(mask: &Mask, slot: usize) -> bool {
    mask[slot / 64] & (1 << (slot % 64)) != 0
}
