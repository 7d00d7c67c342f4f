//! How the keys of one shard lie in memory: entries, their order, and the index of those that will expire.

pub(crate) mod entry;
pub(crate) mod hash;
pub(crate) mod pages;
pub(crate) mod slots;
