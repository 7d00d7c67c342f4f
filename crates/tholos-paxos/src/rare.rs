//! Parts that most replicas do without most of the time.
//!
//! There may be thousands of groups, and most of them rest: what only some need, or only now and then, costs them one
//! word. To be there and empty is the same state as not to be there, and is hashed alike.

use alloc::boxed::Box;
use core::hash::{Hash, Hasher};

/// A part that is [`T::default()`](Default) until it is made, and again once it is given back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T: Default + PartialEq> Rare<T> {
    /// It, if it was made.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// It, to be changed, if it was made.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// It, made if it was not.
    pub(crate) fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Gives back its memory if there is nothing in it.
    pub(crate) fn shrink(&mut self) {
        self.0.take_if(|part| **part == T::default());
    }
}

impl<T> From<T> for Rare<T> {
    fn from(part: T) -> Rare<T> {
        Rare(Some(Box::new(part)))
    }
}

impl<T: Default + PartialEq + Hash> Hash for Rare<T> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.get().filter(|part| **part != T::default()).hash(to);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn what_is_there_and_empty_is_hashed_as_what_is_not_and_given_back() {
        let hashed = |rare: &Rare<Vec<u8>>| {
            let mut hasher = std::hash::DefaultHasher::new();
            rare.hash(&mut hasher);
            hasher.finish()
        };
        let mut rare = Rare::default();
        let absent = hashed(&rare);
        rare.make().push(7);
        assert_ne!(hashed(&rare), absent);
        rare.shrink();
        assert_eq!(rare.get().map(Vec::len), Some(1), "it holds something");
        rare.make().clear();
        assert_eq!(hashed(&rare), absent);
        rare.shrink();
        assert!(rare.get().is_none() && hashed(&rare) == absent);
    }
}
