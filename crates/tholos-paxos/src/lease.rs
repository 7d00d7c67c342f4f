//! Read leases: what binds a voter, and until when its leader may read without asking.
//!
//! A leader that serves reads asks each other replica for a *grant* ([`Message::Lease`]). Whoever grants it promises
//! nobody else for [`LEASE`], counted from a clock read *after* the question came. The leader counts [`LEASE_HELD`] from a
//! clock read *before* it asked, and reads without a round as long as grants that have not run out meet every quorum
//! that could elect another leader. So there is none while it reads:
//!
//! ```text
//!   leader     asked ├────────── LEASE_HELD ──────────┤ no more reads
//!                     ╲ Lease        ╱ Granted
//!   granter            ╲ received ├──┴───────── LEASE ───────────┤ may promise again
//! ```
//!
//! Neither compares its clock with another's. What must hold is that no clock runs faster than another by more than
//! their ratio: each within 5 % of true time is enough (0.9 · 1.05 / 0.95 < 1). A machine that stands still only
//! makes its own part later: the leader looks at its clock again after it has read (R13, [`Group::lease_until`]), and
//! what a granter has not done yet, it has not done.
//!
//! - A leader needs no grant of its own: the promise by which it would help another ends its leadership in the same step.
//! - A grant is not on disk. Who restarts is bound for [`LEASE`] by whatever it may have granted (R14), which it can have
//!   done only if it remembers a promise: nothing is granted before the promise that it rests on is durable.
//! - A message of a leader in a higher ballot is obeyed at once. That leader was elected by a quorum, of which some
//!   were bound until the lease was over.
//! - A leader that has let go (R10) reads no more in its ballot, whatever its grants say: they end when the heir shows it.
//!
//! Rules kept here: R12 (who grants, and what grants must meet), R13 (where the two spans begin), R14.
//!
//! [`Group::lease_until`]: crate::Group::lease_until
//! [`Message::Lease`]: crate::Message::Lease

use alloc::boxed::Box;

use crate::ballot::{Ballot, Millis, ReplicaId};
use crate::log::Log;
use crate::message::Message;

/// How long a grant binds, on the clock of whoever granted it; and how long a restarted replica is bound by what it may have
/// granted. No setting: replicas that believe in different spans could not trust each other.
pub const LEASE: Millis = Millis(200);

/// How long the leader counts on a grant, on its own clock.
pub const LEASE_HELD: Millis = Millis(180);

/// How often a leader asks again. All groups of a node ask in the same tick, so that one frame a peer carries them.
const ASKED_EVERY: Millis = Millis(50);

/// A leader asks as long as it has served reads so lately: idle groups send nothing.
const READ_LATELY: Millis = Millis(1000);

/// What a replica has granted, and what waits for the end of it.
#[derive(Clone, PartialEq, Hash, Debug, Default)]
pub(crate) struct Grants {
    /// The leader last granted a lease, and the end of it.
    given: Option<(Ballot, Millis)>,
    /// Until then an earlier boot's grants may bind (R14).
    forgotten_until: Millis,
    /// The highest Prepare, or the heir's Released, that waits until nothing binds.
    held: Option<Box<(ReplicaId, Message)>>,
}

impl Grants {
    /// A replica that remembers a promise may have granted what it does not remember (R14).
    pub(crate) fn restarted(now: Millis) -> Grants {
        Grants { forgotten_until: end_of(now), ..Grants::default() }
    }

    /// Grants a lease to the leader of `ballot`.
    pub(crate) fn give(&mut self, ballot: Ballot, now: Millis) {
        self.given = Some((ballot, end_of(now)));
    }

    /// The leader of `ballot` reads no more in it (R10).
    pub(crate) fn cancel(&mut self, ballot: Ballot) {
        self.given = self.given.filter(|(given, _)| *given != ballot);
    }

    /// Whether this replica must not promise anything new yet.
    pub(crate) fn bind(&self, now: Millis) -> bool {
        now < self.forgotten_until || self.given.is_some_and(|(_, until)| now < until)
    }

    /// Keeps what may not be done yet. Of several, the one of the highest ballot: the others would be refused after it.
    pub(crate) fn hold(&mut self, from: ReplicaId, ballot: Ballot, message: Message) {
        let higher = match self.held.as_ref().map(|held| &held.1) {
            Some(Message::Prepare { ballot: held, .. } | Message::Released { ballot: held }) => {
                ballot >= *held
            }
            _ => true,
        };
        if higher {
            self.held = Some(Box::new((from, message)));
        }
    }

    /// Whether something is held.
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Forgets what binds no more from `now` on.
    pub(crate) fn forget_past(&mut self, now: Millis) {
        self.given = self.given.filter(|(_, until)| now < *until);
        if self.forgotten_until <= now {
            self.forgotten_until = Millis(0);
        }
    }

    /// What was held, once nothing binds.
    pub(crate) fn take_held(&mut self, now: Millis) -> Option<(ReplicaId, Message)> {
        if self.held.is_none() || self.bind(now) {
            return None;
        }
        self.held.take().map(|held| *held)
    }
}

/// When a grant ends that begins at `now`, which may be up to a millisecond later than it says.
fn end_of(now: Millis) -> Millis {
    now.plus(LEASE).plus(Millis(1))
}

/// What a leader has asked for.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Lease {
    last_read: Option<Millis>,
    last_asked: Option<Millis>,
}

impl Lease {
    /// A read came.
    pub(crate) fn note_read(&mut self, now: Millis) {
        self.last_read = Some(now);
    }

    /// Whether nobody reads, so that it will not be asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.last_read.is_none()
    }

    /// Whether it is time to ask for grants.
    pub(crate) fn asks(&mut self, now: Millis) -> bool {
        self.last_read = self.last_read.filter(|at| now.since(*at) < READ_LATELY);
        let turn = |at: Millis| at.0 / ASKED_EVERY.0;
        let asks = self.last_read.is_some() && self.last_asked.is_none_or(|at| turn(at) != turn(now));
        if asks {
            self.last_asked = Some(now);
        }
        asks
    }
}

/// Until when the leader `me` may read: as long as those who have granted and are still bound meet every quorum that
/// could elect another. `granted` says who has granted a question, and when that was asked; the leader is one of them
/// without end. `None` if they are too few.
pub(crate) fn held_until(
    me: ReplicaId,
    log: &Log,
    granted: impl Iterator<Item = (ReplicaId, Millis)> + Clone,
) -> Option<Millis> {
    let bound_after = |time: Millis, voter: ReplicaId| {
        voter == me || granted.clone().any(|(replica, asked)| replica == voter && asked >= time)
    };
    let times = granted.clone().map(|(_, asked)| asked).chain([Millis(u64::MAX)]);
    let enough = times.filter(|time| log.meets_every_phase1_quorum(|voter| bound_after(*time, voter)));
    Some(enough.max()?.plus(LEASE_HELD))
}
