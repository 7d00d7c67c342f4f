//! Commands on all keys at once: SCAN, KEYS, RANDOMKEY, DBSIZE.
//!
//! The node puts the question to each shard and joins the answers; here is what they ask of one shard, and how
//! their arguments are read. (FLUSHDB and FLUSHALL are [`Command`](crate::Command)s, one for each shard.)

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

use crate::cmd::{integer, is_option};
use crate::error;
use crate::glob::Glob;
use crate::keyspace::{Keyspace, is_dead};
use crate::store::entry::Entry;
use crate::store::hash::mix;
use crate::store::slots::Place;
use crate::table;

/// Bits of a cursor within a shard: 14 of the slot, 29 of the hash. A node that puts the shard's number above them
/// stays within 2^53 for up to 1024 shards (R25).
pub const CURSOR_BITS: u32 = 43;

const PREFIX_BITS: u32 = 29;
/// What SCAN visits in one call unless told otherwise.
const COUNT_DEFAULT: usize = 10;
/// Slots with more keys than this pick a random one by its hash rather than by counting.
const COUNTED_PICK_MAX: usize = 4096;

/// A command on all keys, its arguments checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Wide {
    /// SCAN.
    Scan {
        /// Where to go on; 0 to start.
        cursor: u64,
        /// Which of the visited keys to answer.
        filter: Filter,
        /// How many keys to visit.
        count: usize,
    },
    /// KEYS.
    Keys {
        /// Which keys to answer.
        pattern: Glob,
    },
    /// RANDOMKEY.
    RandomKey,
    /// DBSIZE.
    Size,
}

/// Which keys SCAN answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// MATCH.
    pub pattern: Option<Glob>,
    /// TYPE; a name of no type matches nothing.
    pub type_name: Option<Bytes>,
}

impl Filter {
    fn accepts(&self, entry: &Entry) -> bool {
        // There is only one type yet.
        self.type_name.as_ref().is_none_or(|name| is_option(name, "string"))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(entry.key()))
    }
}

impl Wide {
    /// Reads a command line: name first. Anything but SCAN, KEYS, RANDOMKEY and DBSIZE answers
    /// [`error::not_data`].
    pub fn parse(args: &[Bytes]) -> Result<Wide, Value> {
        let spec = table::resolve(args)?;
        match spec.name {
            "scan" => parse_scan(args),
            "keys" => Ok(Wide::Keys { pattern: Glob::new(&args[1]) }),
            "randomkey" => Ok(Wide::RandomKey),
            "dbsize" => Ok(Wide::Size),
            name => Err(error::not_data(name)),
        }
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn parse_scan(args: &[Bytes]) -> Result<Wide, Value> {
    let cursor = parse_cursor(&args[1]).ok_or_else(error::invalid_cursor)?;
    let (mut filter, mut count) = (Filter::default(), COUNT_DEFAULT);
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        let Some(argument) = options.next() else { return Err(error::syntax()) };
        if is_option(option, "COUNT") {
            count = match usize::try_from(integer(argument)?) {
                Ok(count) if count > 0 => count,
                _ => return Err(error::syntax()),
            };
        } else if is_option(option, "MATCH") {
            filter.pattern = Some(Glob::new(argument));
        } else if is_option(option, "TYPE") {
            filter.type_name = Some(argument.clone());
        } else {
            return Err(error::syntax());
        }
    }
    Ok(Wide::Scan { cursor, filter, count })
}

/// A cursor as C's `strtoul` reads it, which is how Redis does; nothing at all is 0.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let value = digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { value.wrapping_neg() } else { value })
}

/// The cursor at a place: its slot and the first bits of its hash. Places of one cursor go out together.
fn cursor_at(place: Place) -> u64 {
    u64::from(place.slot) << PREFIX_BITS | place.hash >> (u64::BITS - PREFIX_BITS)
}

impl Keyspace {
    /// Visits about `count` keys from `cursor` on, in order of slot and keyed hash; answers the next cursor, 0 at
    /// the end, and those of the keys that are alive and pass `filter`.
    ///
    /// A key that is there from the first call to the last is answered exactly once, whatever comes and goes
    /// meanwhile: its place never changes. Cursors are below 2^[`CURSOR_BITS`]; others, and those of another
    /// shard, answer whatever lies there.
    #[must_use]
    pub fn scan(&self, cursor: u64, filter: &Filter, count: usize, time_ms: u64) -> (u64, Vec<Bytes>) {
        let slot = cursor >> PREFIX_BITS;
        let Some(slot) = u16::try_from(slot).ok().filter(|slot| *slot < self.store().slot_count()) else {
            return (0, Vec::new());
        };
        let start = Place { slot, hash: cursor << (u64::BITS - PREFIX_BITS) };
        let mut keys = Vec::new();
        let (mut visited, mut last) = (0, cursor);
        for (place, entry) in self.store().iter_from(start) {
            let here = cursor_at(place);
            if visited >= count && here != last {
                return (here, keys);
            }
            (visited, last) = (visited + 1, here);
            if !is_dead(entry.expire_at(), time_ms) && filter.accepts(entry) {
                keys.push(Bytes::copy_from_slice(entry.key()));
            }
        }
        (0, keys)
    }

    /// Live keys that match, at most `limit`.
    #[must_use]
    pub fn keys(&self, pattern: &Glob, limit: usize, time_ms: u64) -> Vec<Bytes> {
        let entries = self.store().iter_from(Place::FIRST).map(|(_, entry)| entry);
        let live = entries.filter(|entry| !is_dead(entry.expire_at(), time_ms));
        let matching = live.filter(|entry| pattern.matches(entry.key()));
        matching.take(limit).map(|entry| Bytes::copy_from_slice(entry.key())).collect()
    }

    /// Up to `limit` live keys of one slot; none for a slot of another shard.
    #[must_use]
    pub fn keys_in_slot(&self, slot: u16, limit: usize, time_ms: u64) -> Vec<Bytes> {
        let Some(slot) = self.local_slot(slot) else { return Vec::new() };
        let entries = self.store().iter_slot(slot, 0).map(|(_, entry)| entry);
        let live = entries.filter(|entry| !is_dead(entry.expire_at(), time_ms));
        live.take(limit).map(|entry| Bytes::copy_from_slice(entry.key())).collect()
    }

    /// A live key picked by `seed`; `None` if there is none.
    ///
    /// Every key is as likely as any other, but in slots of more than 4096 keys, where one after a gap in the
    /// hashes is a little likelier.
    #[must_use]
    pub fn random_key(&self, seed: u64, time_ms: u64) -> Option<Bytes> {
        let total = self.entry_count();
        if total == 0 {
            return None;
        }
        let store = self.store();
        let mut ordinal = (mix(seed, 1) % total as u64) as usize;
        let mut start = Place::FIRST;
        for slot in 0..store.slot_count() {
            let count = store.count_slot(slot);
            if ordinal < count {
                let hash = if count > COUNTED_PICK_MAX {
                    mix(seed, 2)
                } else {
                    store.iter_slot(slot, 0).nth(ordinal).map_or(0, |(place, _)| place.hash)
                };
                start = Place { slot, hash };
                break;
            }
            ordinal -= count;
        }
        // The picked one may be dead, or beyond the last hash: take the next, around the end if need be.
        let around = store.iter_from(start).chain(store.iter_from(Place::FIRST));
        let live = around.map(|(_, entry)| entry).find(|entry| !is_dead(entry.expire_at(), time_ms));
        live.map(|entry| Bytes::copy_from_slice(entry.key()))
    }
}

#[cfg(test)]
mod tests;
