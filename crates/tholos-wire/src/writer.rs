//! Appends fields to a byte string; the counterpart of `reader`.

use alloc::vec::Vec;

use tholos_paxos::{Ballot, ReplicaId};

pub(crate) fn push_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn push_signed(value: i64, out: &mut Vec<u8>) {
    push_number((value << 1 ^ value >> 63) as u64, out);
}

pub(crate) fn push_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    push_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn push_ballot(ballot: Ballot, out: &mut Vec<u8>) {
    push_number(ballot.round, out);
    push_replica(ballot.replica, out);
}

pub(crate) fn push_replica(replica: ReplicaId, out: &mut Vec<u8>) {
    push_number(u64::from(replica.0), out);
}
