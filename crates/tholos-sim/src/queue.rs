//! What will happen, in the order of its times; of one time, in the order in which it was asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Things to come.
#[derive(Debug)]
pub struct Queue<T> {
    /// Time, number, place.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    places: Vec<Option<T>>,
    free: Vec<u32>,
    asked: u64,
}

impl<T> Queue<T> {
    /// Nothing will happen.
    pub fn new() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), asked: 0 }
    }

    /// This will happen at `at`.
    pub fn push(&mut self, at: u64, thing: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        self.places[place as usize] = Some(thing);
        self.asked += 1;
        self.heap.push(Reverse((at, self.asked, place)));
    }

    /// The next thing, and its time.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let thing = self.places[place as usize].take().expect("a place in the heap holds something");
        Some((at, thing))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_order_and_within_one_time_first_come_first_served() {
        let mut queue = Queue::new();
        for (at, thing) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (5, 'e')] {
            queue.push(at, thing);
        }
        assert_eq!(queue.pop(), Some((1, 'a')));
        queue.push(2, 'x');
        let rest: String = std::iter::from_fn(|| queue.pop()).map(|(_, thing)| thing).collect();
        assert_eq!(rest, "xbcde");
    }
}
