//! One test for each sentence of the papers that this crate relies on. Sentences are told in our words, with
//! the section that says them, or the rule of ours; departures are in docs/protocol/divergence.md. All of them are
//! the table of docs/protocol/papers.md, which `cargo xtask rules` keeps true.
//!
//! - *Simple*: Lamport, "Paxos Made Simple", 2001.
//! - *Omni*: Ng, Haridi, Carbone, "Omni-Paxos: Breaking the Barriers of Partial Connectivity", EuroSys 2023.
//! - *VR*: Liskov, Cowling, "Viewstamped Replication Revisited", 2012.
//! - *Raft*: Ongaro, "Consensus: Bridging Theory and Practice", 2014.

use tholos_paxos::{Ballot, Entry, Index, Message, Millis, Options};

#[path = "../common/mod.rs"]
mod common;
mod omni;
mod own;
mod raft;
mod simple;
mod viewstamped;

use common::{Council, Envelope, Parcel, number_of, replica, value};

fn council(replicas: u32) -> Council {
    Council::new(replicas, Options::default())
}

/// Hands a message to a replica and returns what it says at once.
fn hand(council: &mut Council, from: u32, to: u32, message: Message) -> Vec<String> {
    let before = council.network.len();
    council.deliver(Envelope { from: replica(from), to: replica(to), parcel: Parcel::Message(message) });
    council.network.iter().skip(before).map(Envelope::to_string).collect()
}

/// What is under way, as text.
fn under_way(council: &Council) -> Vec<String> {
    council.network.iter().map(Envelope::to_string).collect()
}

fn entry(index: u64, origin: Ballot, number: u64) -> Entry {
    Entry { index: Index(index), origin, time: Millis(1_000), seed: number, payload: value(number) }
}

/// The whole log of a leader, sent again under its ballot.
fn sync(ballot: Ballot, entries: Vec<Entry>) -> Message {
    let whole_to = entries.last().map_or(Index::ZERO, |last| last.index);
    Message::Sync { ballot, from: Index(1), entries, whole_to }
}

fn prepare(ballot: Ballot) -> Message {
    Message::Prepare { ballot, decided: Index::ZERO, released: None }
}

fn is(envelope: &Envelope, wanted: impl Fn(&Message) -> bool) -> bool {
    matches!(&envelope.parcel, Parcel::Message(message) if wanted(message))
}

/// The numbers in the log of a replica, no-ops as 0.
fn values(council: &mut Council, number: u32) -> Vec<u64> {
    let group = council.group(number);
    let all = (1..=group.accepted_index().0).filter_map(|at| group.entry(Index(at)));
    all.map(|entry| number_of(&entry.payload).unwrap_or(0)).collect()
}
