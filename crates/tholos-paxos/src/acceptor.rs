//! The acceptor: what one replica has promised, and the messages that wait for disk.
//!
//! Paxos Made Simple §2.2, phase 1b, for a whole log rather than one value; §2.5: what an
//! acceptor must remember is on stable storage before it speaks of it.
//!
//! Rules kept here: R2 and R3 (no message before the record that it rests on is durable).

use alloc::collections::VecDeque;

use crate::ballot::{AppendSeq, Ballot, ReplicaId};
use crate::message::Message;
use crate::outbox::Outbox;

#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    promised: Ballot,
    /// The last append of this group.
    appended: AppendSeq,
    /// Everything up to here is durable.
    durable: AppendSeq,
    held: VecDeque<Held>,
}

/// A message that may leave when `seq` is durable.
#[derive(Debug)]
struct Held {
    seq: AppendSeq,
    to: ReplicaId,
    message: Message,
}

impl Acceptor {
    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    /// Raises the promise; the caller has asked for a record that implies it.
    pub(crate) fn raise_promised(&mut self, ballot: Ballot) {
        assert!(ballot >= self.promised, "promise {} falls to {ballot}", self.promised);
        self.promised = ballot;
    }

    /// For recovery from a checkpoint only: everything before it counts no more.
    pub(crate) fn recover_promised(&mut self, ballot: Ballot) {
        self.promised = ballot;
    }

    pub(crate) fn note_append(&mut self, seq: AppendSeq) {
        assert!(seq > self.appended, "appends are numbered upwards");
        self.appended = seq;
    }

    pub(crate) fn all_durable(&self) -> bool {
        self.durable >= self.appended
    }

    /// Sends `message` when everything this group has asked to append so far is durable.
    pub(crate) fn send_when_durable(&mut self, to: ReplicaId, message: Message, out: &mut Outbox) {
        if self.all_durable() {
            out.send(to, message);
        } else {
            self.held.push_back(Held { seq: self.appended, to, message });
        }
    }

    pub(crate) fn handle_durable(&mut self, seq: AppendSeq, out: &mut Outbox) {
        self.durable = self.durable.max(seq);
        while let Some(held) = self.held.front() {
            if held.seq > self.durable {
                break;
            }
            if let Some(Held { to, message, .. }) = self.held.pop_front() {
                // Of several Accepted to the same leader that leave together, the last says all.
                if let (Message::Accepted { ballot, .. }, Some(next)) = (&message, self.held.front())
                    && next.seq <= self.durable
                    && next.to == to
                    && matches!(&next.message, Message::Accepted { ballot: later, .. } if later == ballot)
                {
                    continue;
                }
                out.send(to, message);
            }
        }
    }
}
