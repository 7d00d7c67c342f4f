//! What one command sees of the keyspace: live keys at the time of its entry, and, if it writes, their changes.

use crate::keyspace::{Keyspace, is_dead};
use crate::store::entry::{Content, Entry, Stamp, View};
use crate::store::slots::Place;

/// The keyspace as a reading command sees it: live keys at one time.
pub(crate) struct Reader<'a> {
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) time_ms: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn view(&self, key: &[u8]) -> Option<View<'a>> {
        let entry = self.keyspace.entry(key)?;
        let view = entry.view();
        (!is_dead(view.expire_at, self.time_ms)).then_some(view)
    }

    /// Shard time, in Unix milliseconds.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }
}

/// What a write does to a key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// As it was, if the key was alive.
    Keep,
    /// The key lives until it is deleted.
    Never,
    /// Unix milliseconds.
    At(u64),
}

/// The keyspace as a writing command sees it: live keys at the time of its entry, and the stamp of its writes.
pub(crate) struct Session<'a> {
    pub(crate) keyspace: &'a mut Keyspace,
    pub(crate) time_ms: u64,
    pub(crate) stamp: Stamp,
}

impl Session<'_> {
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { keyspace: self.keyspace, time_ms: self.time_ms }
    }

    pub(crate) fn view(&self, key: &[u8]) -> Option<View<'_>> {
        self.reader().view(key)
    }

    /// Shard time, in Unix milliseconds.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Gives `key` a value. An expiry that has passed leaves the key absent.
    pub(crate) fn put(&mut self, key: &[u8], content: Content<'_>, expiry: Expiry) {
        let place = self.keyspace.place(key);
        if expiry == Expiry::Never {
            // What was there does not matter, so there is no look at it.
            return self.keyspace.put_entry(place, View { key, stamp: self.stamp, expire_at: None, content });
        }
        let old = self.live(place, key).and_then(Entry::expire_at);
        let expire_at = if let Expiry::At(at_ms) = expiry { Some(at_ms) } else { old };
        if is_dead(expire_at, self.time_ms) {
            // Even if the key was absent before: it came and went at once (K4).
            self.keyspace.set_absent(place.slot, self.stamp);
            self.remove(key);
            return;
        }
        self.keyspace.put_entry(place, View { key, stamp: self.stamp, expire_at, content });
        if expire_at.is_some() && expire_at != old {
            self.keyspace.set_absent(place.slot, self.stamp);
        }
    }

    /// Writes into a live text at `offset`; see [`Entry::write_at`].
    pub(crate) fn write_at(&mut self, key: &[u8], offset: usize, bytes: &[u8]) {
        let (place, stamp) = (self.keyspace.place(key), self.stamp);
        self.keyspace.change_entry(place, key, |entry| entry.write_at(stamp, offset, bytes));
    }

    /// Changes a live key's expiry; one that has passed removes the key.
    pub(crate) fn set_expire(&mut self, key: &[u8], expire_at: Option<u64>) {
        if is_dead(expire_at, self.time_ms) {
            self.remove(key);
            return;
        }
        let (place, stamp) = (self.keyspace.place(key), self.stamp);
        self.keyspace.change_entry(place, key, |entry| entry.set_expire(stamp, expire_at));
        if expire_at.is_some() {
            self.keyspace.set_absent(place.slot, stamp);
        }
    }

    /// Removes a key; answers whether it was alive. A dead one is left to eviction.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let place = self.keyspace.place(key);
        if self.live(place, key).is_none() {
            return false;
        }
        self.keyspace.set_absent(place.slot, self.stamp);
        self.keyspace.remove_entry(place, key);
        true
    }

    fn live(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.keyspace.store().get(place, key).filter(|entry| !is_dead(entry.expire_at(), self.time_ms))
    }

    /// Removes every key of the shard.
    pub(crate) fn flush(&mut self) {
        self.keyspace.flush(self.stamp);
    }
}
