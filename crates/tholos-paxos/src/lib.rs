//! One Multi-Paxos group as a sans-I/O core: elect, promise, accept, decide, read, hand over.
//!
//! A [`Group`] is one replica of one replicated log. It owns no clock, socket, file, thread or random
//! number: messages, durable appends and the time go in through `handle_*`; messages, records to append and
//! answered reads come out through an [`Outbox`]. What it is told is all it knows, so a whole council can
//! be run in one thread, from one seed (`tests/common`), and looked at (`cargo run -p tholos-paxos
//! --example council`).
//!
//! ```
//! use tholos_paxos::{Config, Connectivity, Group, Millis, Options, Outbox, Payload, ReplicaId};
//! # struct Everybody;
//! # impl Connectivity for Everybody {
//! #     fn hears(&self, _: ReplicaId, _: ReplicaId) -> bool { true }
//! # }
//! let (me, now, mut out) = (ReplicaId(1), Millis(0), Outbox::default());
//! let mut group = Group::new(me, Config::founding(vec![me]), Options::default());
//! while !group.serving() {
//!     group.handle_tick(now, &Everybody, &mut out);
//!     group.handle_durable(out.last_seq(), now, &mut out); // after `out.appends` went to the disk
//! }
//! let index = group.propose(Payload::Batch("SET k v".into()), now, 7, &mut out)?;
//! group.handle_durable(out.last_seq(), now, &mut out);
//! assert_eq!(group.decided_index(), index);
//! # Ok::<(), tholos_paxos::ProposeError>(())
//! ```
//!
//! # The protocol
//!
//! It is Paxos as in *Paxos Made Simple*, for a log instead of one value, with one simplification that
//! Sequence Paxos and Viewstamped Replication share: a replica keeps **one accepted ballot for its whole
//! log**, not one for each index. Of two logs accepted in one ballot, one is then a prefix of the other,
//! and "the highest-numbered proposal of a quorum" becomes "the log with the highest (accepted ballot,
//! length) of a quorum".
//!
//! **Who may stand.** Failure detection is outside: [`Connectivity`] says who hears whom. A replica that
//! misses its leader waits for its turn in walk order and sends a *Canvass*: would you promise? That binds
//! nobody. A replica *endorses* it if it misses its leader as well, so that one that alone hears nothing
//! disturbs nobody, and if it could give the candidate its log. A leader is missed if it is not heard, or
//! hears no quorum itself; and whoever canvasses leads no more. A leader that hears no quorum falls silent
//! by itself (R9).
//!
//! **Phase 1.** With a quorum of endorsements the candidate takes a ballot above all it has seen, writes
//! its own promise to its disk, and only then sends *Prepare* (R2). A *Promise* leaves when it is durable,
//! and describes the sender's log: accepted ballot, length, decided index. With a quorum of promises the
//! candidate *fetches* what it lacks of the best log, re-accepts that log **whole**, with a no-op on top,
//! under its own ballot in one record ([`Record::Replaced`], R1), and leads.
//!
//! **Bringing followers to it.** Each follower gets everything after its decided index as a *Sync*. Its
//! pieces are kept aside until the whole is there; then one record replaces the tail of its log and raises
//! its ballot (R1).
//!
//! **Phase 2.** *Accept* carries new entries, many under way at once, and the leader's decided index. It is
//! taken only at the end of a log accepted in that very ballot; otherwise the follower says where it stands
//! (*Behind*) and is rewound. *Accepted* leaves when everything appended before it is durable, and speaks
//! for the log up to its index. The leader's own disk is one vote like any other, not a must (R3). What a
//! quorum has is decided; the next Accept, or a *Decide* of its own if there is none, tells the others. A
//! mark is obeyed only by a log accepted in the ballot that it names (R1).
//!
//! **Reads.** The leader notes its decided index, or its no-op if that is later, and asks whether the
//! others still hold to its ballot (*Confirm*, *Confirmed*); one round serves all reads that wait. A quorum
//! says yes, the index is applied, the read is answered. A round confirms nothing that came after it was
//! sent (R15).
//!
//! **Leases.** With [`Options::leases`] a leader that serves reads asks the others to promise nobody else for a while
//! (*Lease*, *Granted*; [`LEASE`]). As long as those who have are a part of every quorum that could elect another,
//! [`Group::lease_until`] says so, and reads need no round. The end of the lease is compared with a clock that is read
//! *after* the state was (R13), which is the driver's part. A restarted replica that may have granted a lease waits
//! ([`Group::remember_grants`], R14).
//!
//! **Handing over.** The leader takes nothing new, decides what is under way, waits until the heir has it
//! all, and lets go with *Released*. The heir stands at once, without a canvass. The old leader never
//! serves in that ballot again, whatever becomes of the heir (R10).
//!
//! **Changing the replica set.** An order ([`Change`]) names the configuration that it was made for, the new voters and
//! the learners. The leader puts it into the log as one [`Config`], and from acceptance on every quorum, of promises,
//! votes, reads, endorsements or nodes heard, is a majority of the set before it *and* of the new one, until it is
//! decided (R6). So one entry swaps a voter for another, and any set for any other. There are no configurations in
//! between, and nothing stops. Phase 1 is counted under the configurations of the log that it adopts: a candidate that
//! finds a Config in the log it has fetched counts again, and asks voters that it did not know.
//!
//! - A new replica [joins](Group::join) under an id never used before, knowing no configuration, so that it can win
//!   nothing. The leader asks where it stands and brings it up to date like any follower. Usually it learns first; an
//!   order by which the new set could not decide at once is refused ([`ChangeError::VotersLackEntries`]).
//! - Learners get entries, endorse, and promise what they are asked to, for a learner may be a voter of a Config that has
//!   not reached it. But whoever counts, counts voters.
//! - Whoever is removed hears one last word, and is ignored from then on, whatever it says (R7).
//! - A leader that is removed leads until the Config without it is decided. Then it puts a no-op into the log, and lets
//!   go when most of the new voters have it by an *Accept*, and with it durably know that the Config is decided. Before
//!   that they would go on asking the old set for its votes.
//! - If it loses its leadership before that, it says so to whoever still takes it for the leader, removed ones too, for
//!   their votes are needed until somebody knows better. A voter that has joined and knows nothing to be decided stands
//!   when nobody else does: the promise of one that was removed may tell it.
//!
//! **Snapshots.** Entries may be forgotten once a durable snapshot covers them; a [`Record::Checkpoint`]
//! then holds all that recovery needs. It may be appended before its snapshot is durable, if what is before it in the
//! log stays until then: [`Group::recover_known`] does without the snapshot where it can. A follower that lacks what was forgotten is reported in
//! [`Outbox::snapshots_wanted`]; carrying the snapshot over is the driver's work, [`Group::install`] takes
//! it in. So is a candidate that has a promise of one that was removed, and lacks what that one has forgotten: the new voters have it,
//! too, but it knows nothing of them. It is handed the snapshot in its own ballot, which both have promised, takes it over,
//! and stands again ([`Group::snapshots_in`]). Three things are to be got right there:
//!
//! - The log's ballot stays: the snapshot may be shorter than the log that its sender adopted, so it is not
//!   the whole of it (R1). A log that says too low a ballot is at worst passed over in an election, where
//!   somebody else has all that was decided.
//! - The sender's ballot is promised: what it has decided is known here now, and a leader of a lower ballot
//!   might lack it (P6).
//! - What follows the snapshot's last index is kept only if this log has the same origin there. If it has
//!   not, its tail was never decided: whatever was decided after that index, in whatever ballot, stands on
//!   what was decided at it (P4, P5).
//!
//! **Lost records.** A replica some of whose durable records cannot be read any more is told so by
//! [`Group::lose`]. It is *mute*: it promises, endorses, confirms and accepts nothing, and does not stand. It
//! asks every other voter what it has promised (*Repair*, *Bound*), and so learns a ballot above all in which it
//! may have voted. It takes that one for its promise, which makes a leader of a lower one give way, and votes again
//! once it has the whole log of a leader of a higher one (R20; `repair.rs` says why that is enough). In a set that has changed,
//! or where others are down, that is not to be had. There the leader gives it another id by a change of the set
//! ([`Outbox::renewals_wanted`], [`Group::renew`]), and when that is decided it begins anew under this id
//! ([`Group::renewed`], then [`Group::join`]).
//!
//! **A majority that is gone for good.** What is left is not enough to decide anything, and stands still. Somebody outside
//! may say who is gone for ever: then [`Assessment::of`] finds the survivor whose log is to be kept and says whether more
//! may have been decided, and [`Group::rescue`] makes that survivor take its log for decided and go on with the
//! survivors alone (R29; `rescue.rs` says what is kept and why).
//!
//! **What a driver must keep.** Appends in the order given, `handle_durable` only after they are on disk,
//! everything else in any order, or never. No message may be made up or altered. Records are given back by
//! [`Group::recover`] in order; a replica that lost any of them must be told ([`Group::lose`], R20), or
//! come back under a new [`ReplicaId`] (R7, R21).
//!
//! # Rules and invariants
//!
//! R1 … R32 are the rules of the whole, each with the failure that it prevents, in
//! `docs/protocol/paxos.md`; the files here name those they keep. Departures from the papers are in
//! `docs/protocol/divergence.md`. Invariants that the code asserts, also in release builds, or that
//! `tests/common` checks after every step:
//!
//! - **P1** `accepted_index ≥ decided_index ≥ applied_index ≥ base`, and `promised ≥ accepted ballot`.
//! - **P2** What is decided is never replaced, and is the same everywhere.
//! - **P3** Shard time never runs back from one entry to the next (R16).
//! - **P4** Of two logs accepted in one ballot, one is a prefix of the other.
//! - **P5** An (index, origin) names one value for ever, whoever re-sends it.
//! - **P6** What a replica knows to be decided was learnt in a ballot that it has promised. So a leader
//!   that it still heeds has all of it, and "everything after your decided index" is enough to bring it to
//!   the leader's log.
//!
//! # Words
//!
//! - *ballot* `3.n2`: a leadership round; ordered by round, then replica. *origin*: the ballot in which an
//!   entry was first proposed.
//! - *index* `@41`: a position in the log, from 1. *entry*: what stands there: a batch of commands (opaque
//!   here), a configuration, a no-op, or a tick of time.
//! - *promised*: the lowest ballot still heeded. *accepted* in a ballot: taken over from its leader,
//!   durable. *decided*: accepted in one ballot by a quorum. *applied*: handed out by
//!   [`Group::take_decided`].
//! - *quorum*: a majority of the voters, of every configuration that counts.
//!
//! # What is absent
//!
//! - **Who may forget a replica.** A removed replica stays until its driver drops it. That must not be before most of the
//!   new voters know the change to be decided, and a driver knows that best from the leader.
//! - **Reads at followers, and without a leader.**
//! - **Byzantine replicas, and disks that lie.** A message or record that this crate did not write may stop
//!   it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acceptor;
mod ballot;
mod candidate;
mod change;
mod connectivity;
mod election;
mod follower;
mod group;
mod leader;
mod lease;
mod log;
mod message;
mod notation;
mod options;
mod outbox;
mod quorum;
mod rare;
mod reads;
mod renewal;
mod repair;
mod rescue;

pub use ballot::{AppendSeq, Ballot, Index, Millis, MoveId, ReplicaId, Serial};
pub use change::{Change, ChangeError, REPLICAS_MAX};
pub use connectivity::Connectivity;
pub use group::Group;
pub use leader::ProposeError;
pub use lease::{LEASE, LEASE_HELD};
pub use log::Base;
pub use message::{Checkpoint, Config, Entry, Message, Payload, Record};
pub use options::{Options, Planted};
pub use outbox::{Outbox, RoleChange};
pub use renewal::Renewal;
pub use repair::Repair;
pub use rescue::{Assessment, Prospect, Rescue, RescueError, Survivor};
