//! The entries of one slot, in order of the keyed hash: short sorted pages, found by the first bits of the hash.
//!
//! A slot begins as one page. As it grows, its pages are cut in two one after the other, as linear hashing does it
//! (Litwin, *Linear hashing: a new tool for file and table addressing*, 1980), but by the first bits of the hash instead
//! of the last, so that pages are ordered as the hashes are and a walk goes from page to page. A change cuts or joins at
//! most one page: nothing is ever resized as a whole but the list of pages, which has a header for some fifty entries.
//!
//! Within a page the hashes are spread evenly, so where one stands is computed from it and is seldom more than a few
//! items off. A look-up thus reads the item and then the entry behind it, and seldom a third place.
//!
//! Keys whose whole hashes are equal are *twins*, next to impossible. They stand side by side.
//!
//! T1. Items are ordered by hash, twins by their keys: the order depends on what is in the slot and on nothing else.
//! T2. With `n` pages and `2^b` the least power of two at or above `n`, page `i` has the hashes whose first `b` bits, read
//!     from the last to the first, make `i`; while the page is not there yet that it will be cut into, those whose first
//!     `b - 1` bits do.

use alloc::vec::Vec;
use core::mem;

use super::entry::Entry;

/// Entries that a page has on average when the next one is cut.
const PAGE_ENTRIES_MAX: usize = 64;
/// Entries that a page has on average when two are joined: so few that a slot whose size sways does not cut and join.
const PAGE_ENTRIES_MIN: usize = 24;
/// A page that is full grows by this part of itself, and at least by as many items.
const GROWTH: usize = 8;
const GROWTH_ITEMS_MIN: usize = 4;

/// An entry and the keyed hash of its key.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) hash: u64,
    pub(crate) entry: Entry,
}

/// Items in order of their hash (T1).
type Page = Vec<Item>;

/// The entries of one slot.
#[derive(Debug)]
pub(crate) struct Pages(Form);

/// Most slots have one page. It lies in the slot itself, which spares a look-up one access to memory.
#[derive(Debug)]
enum Form {
    One(Page),
    Many { pages: Vec<Page>, len: usize },
}

/// Which page, and the first bits of the hash that all its items share.
#[derive(Clone, Copy, Debug)]
struct Range {
    page: usize,
    bits: u32,
}

impl Range {
    /// The page that has `hash` among `count` of them (T2).
    fn of(hash: u64, count: usize) -> Range {
        let bits = count.next_power_of_two().trailing_zeros();
        let all = (1_usize << bits) - 1;
        let upper = all ^ (all >> 1);
        let page = hash.reverse_bits() as usize & all;
        if page | upper < count {
            Range { page, bits }
        } else {
            Range { page: page & !upper, bits: bits - 1 }
        }
    }

    /// The hash after the last that the page may have; `None` at the end of all.
    fn end(self, hash: u64) -> Option<u64> {
        let width = 1_u64.checked_shl(u64::BITS - self.bits)?;
        (hash & !(width - 1)).checked_add(width)
    }
}

/// Where `hash` stands, about, in a page of hashes that share their first `bits` and are spread evenly.
fn guess(page: &[Item], bits: u32, hash: u64) -> usize {
    let within = hash.checked_shl(bits).unwrap_or(0);
    ((u128::from(within) * page.len() as u128) >> u64::BITS) as usize
}

/// Where the first item of at least `hash` is or would be, in a page of hashes that share their first `bits`.
fn lower_bound(page: &[Item], bits: u32, hash: u64) -> usize {
    let mut at = guess(page, bits, hash);
    while page.get(at).is_some_and(|item| item.hash < hash) {
        at += 1;
    }
    while at > 0 && page[at - 1].hash >= hash {
        at -= 1;
    }
    at
}

/// Makes room for one more item, with little to spare.
fn reserve(page: &mut Page) {
    if page.len() == page.capacity() {
        page.reserve_exact((page.len() / GROWTH).max(GROWTH_ITEMS_MIN));
    }
}

/// Gives back room that a page has had no use for since it was more than twice as long.
fn release(page: &mut Page) {
    if page.capacity() / 2 > page.len() + GROWTH_ITEMS_MIN {
        page.shrink_to(page.len() + page.len() / GROWTH);
    }
}

impl Default for Pages {
    fn default() -> Pages {
        Pages(Form::One(Vec::new()))
    }
}

impl Pages {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Form::One(page) => page.len(),
            Form::Many { len, .. } => *len,
        }
    }

    /// The page that has `hash`, and how many first bits its hashes share.
    fn page(&self, hash: u64) -> (&[Item], Range) {
        match &self.0 {
            Form::One(page) => (page, Range { page: 0, bits: 0 }),
            Form::Many { pages, .. } => {
                let range = Range::of(hash, pages.len());
                (&pages[range.page], range)
            }
        }
    }

    fn page_mut(&mut self, hash: u64) -> (&mut Page, Range) {
        match &mut self.0 {
            Form::One(page) => (page, Range { page: 0, bits: 0 }),
            Form::Many { pages, .. } => {
                let range = Range::of(hash, pages.len());
                (&mut pages[range.page], range)
            }
        }
    }

    /// Reads what a look-up begins with: the slot and an item near the one wanted. The number means nothing.
    pub(crate) fn prefetch_item(&self, hash: u64) -> u64 {
        let (page, range) = self.page(hash);
        page.get(guess(page, range.bits, hash)).map_or(0, |item| item.hash)
    }

    /// The entry of `key`.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.at(hash).find(|entry| entry.key() == key)
    }

    /// The entry of `key`, to be changed.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let (page, range) = self.page_mut(hash);
        let at = lower_bound(page, range.bits, hash);
        let twins = page[at..].iter_mut().take_while(|item| item.hash == hash);
        twins.map(|item| &mut item.entry).find(|entry| entry.key() == key)
    }

    /// All entries of one hash: none, one, or twins.
    pub(crate) fn at(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        let (page, range) = self.page(hash);
        let at = lower_bound(page, range.bits, hash);
        page[at..].iter().take_while(move |item| item.hash == hash).map(|item| &item.entry)
    }

    /// All items from `hash` on, in order.
    pub(crate) fn iter_from(&self, hash: u64) -> impl Iterator<Item = &Item> {
        let mut next = Some(hash);
        let pages = core::iter::from_fn(move || {
            let start = next?;
            let (page, range) = self.page(start);
            next = range.end(start);
            Some(&page[lower_bound(page, range.bits, start)..])
        });
        pages.flatten()
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) {
        let (page, range) = self.page_mut(hash);
        let mut at = lower_bound(page, range.bits, hash);
        while let Some(twin) =
            page.get(at).filter(|item| item.hash == hash && item.entry.key() <= entry.key())
        {
            assert!(twin.entry.key() != entry.key(), "inserted a key twice, hash {hash:#x}");
            at += 1;
        }
        reserve(page);
        page.insert(at, Item { hash, entry });
        self.grow();
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let (page, range) = self.page_mut(hash);
        let first = lower_bound(page, range.bits, hash);
        let mut twins = page[first..].iter().take_while(|item| item.hash == hash);
        let at = first + twins.position(|item| item.entry.key() == key)?;
        let removed = page.remove(at);
        release(page);
        self.shrink();
        Some(removed.entry)
    }

    /// After an entry came: cuts the page whose turn it is, if there are too many entries for the pages.
    fn grow(&mut self) {
        match &mut self.0 {
            Form::One(page) if page.len() > PAGE_ENTRIES_MAX => {
                let len = page.len();
                let mut pages = Vec::with_capacity(2);
                pages.push(mem::take(page));
                cut(&mut pages);
                self.0 = Form::Many { pages, len };
            }
            Form::One(_) => {}
            Form::Many { pages, len } => {
                *len += 1;
                if *len > pages.len() * PAGE_ENTRIES_MAX {
                    cut(pages);
                }
            }
        }
    }

    /// After an entry went: joins the pages that were cut last, if there are too few entries for the pages.
    fn shrink(&mut self) {
        let Form::Many { pages, len } = &mut self.0 else { return };
        *len -= 1;
        if *len < pages.len() * PAGE_ENTRIES_MIN {
            join(pages);
        }
        if let [page] = &mut pages[..] {
            self.0 = Form::One(mem::take(page));
        }
    }
}

/// Cuts the page whose turn it is, by the first bit that its hashes may differ in (T2).
fn cut(pages: &mut Vec<Page>) {
    let new = pages.len();
    let bits = new.ilog2();
    let old = &mut pages[new - (1 << bits)];
    let middle = 1 << (u64::BITS - 1 - bits);
    let upper = old.partition_point(|item| item.hash & middle == 0);
    let page = old.split_off(upper);
    old.shrink_to(old.len() + old.len() / GROWTH);
    pages.push(page);
}

/// Puts the page that was cut off last back to the one that it came from: the reverse of [`cut`].
fn join(pages: &mut Vec<Page>) {
    let Some(upper) = pages.pop() else { return };
    let last = pages.len();
    let lower = &mut pages[last - (1 << last.ilog2())];
    lower.reserve_exact(upper.len());
    lower.extend(upper);
}

#[cfg(test)]
mod tests;
