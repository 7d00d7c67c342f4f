//! How far the running job is, as the leader of the meta group hears it, and what holds it up.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::peer::{MoveReport, Wait};

/// A move without progress for this long has stalled.
pub const STALL_AFTER: Millis = Millis(10_000);
/// An order without an answer for this long, and its successors, are not heard.
const SILENT_AFTER: Millis = Millis(1000);
/// The rate is that of so much time.
const RATE_SPAN: Millis = Millis(5000);
/// Time between two samples of it.
const SAMPLE_INTERVAL: Millis = Millis(500);

/// How far the running job is; the leader of the meta group knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobProgress {
    /// The job's number.
    pub job: u64,
    /// Bytes that were sent in a second, over the last few.
    pub bytes_per_s: u64,
    /// Its moves under way, by shard.
    pub moves: Vec<MoveProgress>,
}

/// How far a move is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MoveProgress {
    /// The shard, or the meta group.
    pub shard: ShardId,
    /// Bytes of snapshot and entries sent for it.
    pub sent: u64,
    /// Bytes that it takes, about.
    pub total: u64,
    /// Entries that the node lacks which is to get the shard, while it learns.
    pub behind: Option<u64>,
    /// What it waits for.
    pub wait: Wait,
    /// For how long nothing has come of it.
    pub still_for: Millis,
}

impl MoveProgress {
    /// Whether somebody should look.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.still_for >= STALL_AFTER
    }
}

/// What is known of the moves under way.
#[derive(Debug, Default)]
pub(super) struct Progress {
    job: u64,
    moves: BTreeMap<ShardId, UnderWay>,
    /// Bytes that the job had sent, at times in the past, the oldest first.
    samples: VecDeque<(Millis, u64)>,
}

#[derive(Debug)]
struct UnderWay {
    /// Since when it is known to be ordered, and when it was last ordered.
    since: Millis,
    ordered_at: Option<Millis>,
    /// When a leader of the shard last said something, and which one.
    heard_at: Option<Millis>,
    leader: Option<NodeId>,
    said: MoveReport,
    /// Sent by leaders before this one.
    sent_before: u64,
    /// When it last came further.
    moved_at: Millis,
    has_leader: bool,
}

impl UnderWay {
    fn new(shard: ShardId, now: Millis) -> UnderWay {
        UnderWay {
            since: now,
            ordered_at: None,
            heard_at: None,
            leader: None,
            said: MoveReport::new(shard),
            sent_before: 0,
            moved_at: now,
            has_leader: true,
        }
    }

    const fn sent(&self) -> u64 {
        self.sent_before + self.said.sent
    }

    fn wait(&self, now: Millis) -> Wait {
        if !self.has_leader {
            return Wait::Leader;
        }
        let heard = self.heard_at.unwrap_or(self.since);
        if now.since(heard) >= SILENT_AFTER { Wait::Silent } else { self.said.wait }
    }
}

impl Progress {
    /// These are the moves under way of this job; of recorded ones it has sent so many bytes.
    pub(super) fn keep(&mut self, job: u64, shards: &[ShardId], moved_bytes: u64, now: Millis) {
        if self.job != job {
            *self = Progress { job, ..Progress::default() };
        }
        self.moves.retain(|shard, _| shards.contains(shard));
        for shard in shards {
            self.moves.entry(*shard).or_insert_with(|| UnderWay::new(*shard, now));
        }
        if self.samples.back().is_none_or(|(at, _)| now.since(*at) >= SAMPLE_INTERVAL) {
            let sent: u64 = self.moves.values().map(UnderWay::sent).sum();
            self.samples.push_back((now, moved_bytes + sent));
            while self.samples.front().is_some_and(|(at, _)| now.since(*at) > RATE_SPAN) {
                self.samples.pop_front();
            }
        }
    }

    /// Nothing is under way, or somebody else leads.
    pub(super) fn clear(&mut self) {
        *self = Progress::default();
    }

    /// Whether the shard's leader should be told again; it is from here on.
    pub(super) fn order(&mut self, shard: ShardId, has_leader: bool, interval: Millis, now: Millis) -> bool {
        let Some(under_way) = self.moves.get_mut(&shard) else { return false };
        if under_way.ordered_at.is_some_and(|at| now.since(at) < interval) {
            return false;
        }
        (under_way.ordered_at, under_way.has_leader) = (Some(now), has_leader);
        true
    }

    /// Whether nobody has said for a while, or ever, how far the move of a shard is.
    pub(super) fn is_unheard(&self, shard: ShardId, now: Millis) -> bool {
        let heard_at = self.moves.get(&shard).and_then(|under_way| under_way.heard_at);
        heard_at.is_none_or(|at| now.since(at) >= SILENT_AFTER)
    }

    /// What the leader of a shard says.
    pub(super) fn hear(&mut self, from: NodeId, report: &MoveReport, now: Millis) {
        let Some(under_way) = self.moves.get_mut(&report.shard) else { return };
        let before = core::mem::replace(&mut under_way.said, report.clone());
        if under_way.leader != Some(from) || report.sent < before.sent {
            // Another leader, or the same in another boot or ballot, counts from 0.
            under_way.sent_before += before.sent;
        }
        (under_way.leader, under_way.heard_at) = (Some(from), Some(now));
        let nearer = match (before.behind, report.behind) {
            (Some(before), Some(now)) => now < before,
            (before, now) => before != now,
        };
        // What is sent again is no news: a target that is back, or has room again, gets its time once more.
        let is_back = matches!(before.wait, Wait::Target | Wait::TargetFull)
            && !matches!(report.wait, Wait::Target | Wait::TargetFull);
        if nearer || is_back || report.sent > before.sent || report.number > before.number {
            under_way.moved_at = now;
        }
    }

    /// Bytes that were sent for the move of a shard.
    pub(super) fn sent(&self, shard: ShardId) -> u64 {
        self.moves.get(&shard).map_or(0, UnderWay::sent)
    }

    pub(super) fn behind(&self, shard: ShardId) -> Option<u64> {
        self.moves.get(&shard)?.said.behind
    }

    pub(super) fn report(&self, now: Millis) -> Option<JobProgress> {
        let progress = |(shard, under_way): (&ShardId, &UnderWay)| MoveProgress {
            shard: *shard,
            sent: under_way.sent(),
            total: under_way.said.total.max(under_way.sent()),
            behind: under_way.said.behind,
            wait: under_way.wait(now),
            still_for: now.since(under_way.moved_at),
        };
        (self.job > 0).then(|| JobProgress {
            job: self.job,
            bytes_per_s: self.rate(now),
            moves: self.moves.iter().map(progress).collect(),
        })
    }

    fn rate(&self, now: Millis) -> u64 {
        let (Some((from, first)), Some((_, last))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let span = now.since(*from).0;
        last.saturating_sub(*first).saturating_mul(1000).checked_div(span).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: ShardId = ShardId(7);
    const N2: NodeId = NodeId(2);

    fn said(sent: u64, behind: Option<u64>, wait: Wait) -> MoveReport {
        MoveReport { sent, total: 1000, behind, wait, ..MoveReport::new(S) }
    }

    /// What is told of the one move.
    fn seen(progress: &Progress, now: u64) -> MoveProgress {
        progress.report(Millis(now)).expect("a job runs").moves[0]
    }

    fn with_one_move() -> Progress {
        let mut progress = Progress::default();
        progress.keep(4, &[S], 0, Millis(0));
        assert!(progress.order(S, true, Millis(200), Millis(0)));
        progress
    }

    #[test]
    fn an_order_is_given_again_and_not_too_often() {
        let mut progress = with_one_move();
        assert!(!progress.order(S, true, Millis(200), Millis(199)));
        assert!(progress.order(S, true, Millis(200), Millis(200)));
        assert!(!progress.order(ShardId(8), true, Millis(200), Millis(200)), "it is not under way");
    }

    #[test]
    fn who_says_nothing_is_told_of() {
        let mut progress = with_one_move();
        assert_eq!(seen(&progress, 999).wait, Wait::Decision);
        assert_eq!(seen(&progress, 1000).wait, Wait::Silent);
        progress.hear(N2, &said(0, None, Wait::Target), Millis(1000));
        assert_eq!((seen(&progress, 1999).wait, seen(&progress, 2000).wait), (Wait::Target, Wait::Silent));
        progress.order(S, false, Millis(200), Millis(2000));
        assert_eq!(seen(&progress, 2000).wait, Wait::Leader);
    }

    #[test]
    fn what_does_not_come_further_has_stalled() {
        let mut progress = with_one_move();
        let mut hear = |sent, behind, at| {
            progress.hear(N2, &said(sent, behind, Wait::Sending), Millis(at));
            seen(&progress, at + 9_999).is_stalled()
        };
        assert!(!hear(1, None, 100));
        assert!(!hear(2, Some(50), 5_000));
        assert!(!hear(2, Some(40), 6_000), "fewer entries are lacking");
        assert!(hear(2, Some(45), 6_001), "more are");
        assert!(hear(2, Some(45), 6_100));
        assert_eq!(seen(&progress, 16_000).still_for, STALL_AFTER);
        assert!(seen(&progress, 16_000).is_stalled() && !seen(&progress, 15_999).is_stalled());
        let report = |wait| said(2, Some(45), wait);
        progress.hear(N2, &report(Wait::Target), Millis(17_000));
        assert!(seen(&progress, 17_000).is_stalled());
        progress.hear(N2, &report(Wait::Sending), Millis(18_000));
        assert!(!seen(&progress, 18_000).is_stalled(), "the target is back");
    }

    #[test]
    fn what_several_leaders_have_sent_adds_up() {
        let mut progress = with_one_move();
        for (from, sent, sum) in [(2, 100, 100), (2, 300, 300), (3, 50, 350), (3, 20, 370), (2, 400, 770)] {
            progress.hear(NodeId(from), &said(sent, None, Wait::Sending), Millis(0));
            assert_eq!(progress.sent(S), sum, "n{from} {sent}");
        }
        assert_eq!(seen(&progress, 0).total, 1000);
        progress.keep(5, &[S], 0, Millis(0));
        assert_eq!(progress.sent(S), 0, "another job");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = with_one_move();
        let rate = |progress: &Progress, now| progress.report(Millis(now)).expect("a job runs").bytes_per_s;
        assert_eq!(rate(&progress, 0), 0);
        // 1,000 bytes each half second; the move is recorded halfway, and its bytes are then the job's.
        for step in 1..=20_u64 {
            let now = Millis(step * 500);
            progress.hear(N2, &said(step.min(10) * 1000, None, Wait::Sending), now);
            let (shards, recorded) = if step < 11 { (&[S][..], 0) } else { (&[][..], step * 1000) };
            progress.keep(4, shards, recorded, now);
            assert_eq!(rate(&progress, now.0), 2000, "after {step}");
        }
        for step in 21..=30 {
            progress.keep(4, &[], 20_000, Millis(step * 500));
        }
        assert_eq!(rate(&progress, 15_000), 0, "it stands still");
    }
}
