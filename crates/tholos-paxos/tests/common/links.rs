//! What is on its way between the replicas of a council, and what is wrong there.

use std::fmt;

use tholos_paxos::{Ballot, Connectivity, Message, ReplicaId};

use super::disk::SnapshotFile;

/// What is on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub parcel: Parcel,
}

#[derive(Clone, Debug)]
pub enum Parcel {
    Message(Message),
    /// Stands for the chunks of a snapshot, which the protocol leaves to its driver.
    Snapshot {
        ballot: Ballot,
        file: SnapshotFile,
    },
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ", self.from, self.to)?;
        match &self.parcel {
            Parcel::Message(message) => write!(f, "{message:#}"),
            Parcel::Snapshot { ballot, file } => write!(f, "Snapshot {ballot} to {}", file.base.index),
        }
    }
}

/// Replicas are numbered from 0 here.
#[derive(Default)]
pub struct Links {
    /// `cut[a][b]`: what a sends to b is lost.
    pub cut: Vec<Vec<bool>>,
    /// `held[a][b]`: what a sends to b waits in the network.
    pub held: Vec<Vec<bool>>,
    /// `deaf[a][b]`: failure detection of a says that b is silent, whether it is or not.
    pub deaf: Vec<Vec<bool>>,
}

/// What one replica's failure detection says.
pub struct View<'a> {
    pub links: &'a Links,
    pub up: &'a [bool],
}

impl Connectivity for View<'_> {
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let (a, b) = (a.0 as usize - 1, b.0 as usize - 1);
        // One that was proposed may not be there yet.
        let here = a.max(b) < self.up.len();
        here && (a == b || (self.up[b] && !self.links.cut[b][a] && !self.links.deaf[a][b]))
    }
}

fn ends(envelope: &Envelope) -> (usize, usize) {
    (envelope.from.0 as usize - 1, envelope.to.0 as usize - 1)
}

impl Links {
    pub fn new(replicas: u32) -> Links {
        let mut links = Links::default();
        (0..replicas).for_each(|_| links.grow());
        links
    }

    /// There is one replica more.
    pub fn grow(&mut self) {
        for rows in [&mut self.cut, &mut self.held, &mut self.deaf] {
            rows.iter_mut().for_each(|row| row.push(false));
            rows.push(vec![false; rows.len() + 1]);
        }
    }

    pub fn is_cut(&self, envelope: &Envelope) -> bool {
        let (from, to) = ends(envelope);
        self.cut[from][to]
    }

    pub fn is_held(&self, envelope: &Envelope) -> bool {
        let (from, to) = ends(envelope);
        self.held[from][to]
    }

    /// Nothing is cut or late and nobody deaf from here on.
    pub fn heal(&mut self) {
        for row in self.cut.iter_mut().chain(&mut self.held).chain(&mut self.deaf) {
            row.fill(false);
        }
    }

    /// Whether the others hear `at`.
    pub fn set_unheard(&mut self, at: usize, unheard: bool) {
        self.deaf.iter_mut().for_each(|row| row[at] = unheard);
    }

    /// What is sent to this replica is late, and the others do not hear it, or no longer so: a leader
    /// grows old without knowing.
    pub fn age(&mut self, at: usize, old: bool) {
        self.held.iter_mut().for_each(|row| row[at] = old);
        self.set_unheard(at, old);
    }
}
