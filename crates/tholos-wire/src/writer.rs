//! Appends fields to a byte string; the counterpart of `reader`.

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_paxos::{Ballot, ReplicaId};

/// A byte string of at least so many bytes may be shared and not copied: what does not fit a frame between nodes beside others.
const SHARED_BYTES_MIN: usize = 64 << 10;

/// Where encoded bytes go.
#[derive(Debug, Default)]
pub(crate) struct Out {
    bytes: Vec<u8>,
    /// Long byte strings that are not copied, each with its place among `bytes`, in order.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    shares: bool,
}

impl Out {
    /// Long byte strings are not copied.
    pub(crate) fn sharing() -> Out {
        Out { shares: true, ..Out::default() }
    }

    /// Appends what `encode` does to `bytes`, all of it copied.
    pub(crate) fn append(bytes: &mut Vec<u8>, encode: impl FnOnce(&mut Out)) {
        let mut out = Out { bytes: core::mem::take(bytes), ..Out::default() };
        encode(&mut out);
        *bytes = out.bytes;
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes so far, shared ones included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// What is copied; shared ones are left out.
    pub(crate) fn copied(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// All of it in parts, none of them empty. Starts anew.
    pub(crate) fn take_parts(&mut self) -> Vec<Bytes> {
        let mut copied = Bytes::from(core::mem::take(&mut self.bytes));
        let (mut parts, mut at) = (Vec::new(), 0);
        self.shared_bytes = 0;
        for (place, shared) in self.shared.drain(..) {
            parts.push(copied.split_to(place - at));
            parts.push(shared);
            at = place;
        }
        parts.push(copied);
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Whether anything is shared.
    pub(crate) fn has_shared(&self) -> bool {
        !self.shared.is_empty()
    }
}

pub(crate) fn push_number(mut value: u64, out: &mut Out) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn push_signed(value: i64, out: &mut Out) {
    push_number((value << 1 ^ value >> 63) as u64, out);
}

pub(crate) fn push_u64(value: u64, out: &mut Out) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn push_bytes(bytes: &[u8], out: &mut Out) {
    push_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The same, of bytes that may be shared.
pub(crate) fn push_shared(bytes: &Bytes, out: &mut Out) {
    if !out.shares || bytes.len() < SHARED_BYTES_MIN {
        return push_bytes(bytes, out);
    }
    push_number(bytes.len() as u64, out);
    out.shared.push((out.bytes.len(), bytes.clone()));
    out.shared_bytes += bytes.len();
}

pub(crate) fn push_ballot(ballot: Ballot, out: &mut Out) {
    push_number(ballot.round, out);
    push_replica(ballot.replica, out);
}

pub(crate) fn push_replica(replica: ReplicaId, out: &mut Out) {
    push_number(u64::from(replica.0), out);
}
