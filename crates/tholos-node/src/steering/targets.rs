//! How many shards each node should lead.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use tholos_balance::{Balancer, LoadReport, Options, ServerId};
use tholos_cluster::NodeId;

use crate::load::CAPACITY_WHOLE;

/// What a request takes at a node that is whole. Only what it is beside the others counts.
const SERVICE: Duration = Duration::from_millis(1);

/// A node that could lead, and what it should.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Standing {
    pub(crate) node: NodeId,
    /// What the operator gave it.
    pub(crate) weight: u16,
    /// What it could do of what it should, in percent.
    pub(crate) capacity: u8,
    /// Shards that it leads.
    pub(crate) leads: i64,
    /// What is asked of these, in requests a second.
    pub(crate) rate: u32,
    /// Its part of all, 0 to 1.
    pub(crate) share: f64,
    /// Shards that it should lead.
    pub(crate) target: i64,
}

impl Standing {
    pub(crate) fn new(node: NodeId, weight: u16, capacity: u8, leads: u16, rate: u32) -> Standing {
        Standing { node, weight, capacity, leads: i64::from(leads), rate, share: 0.0, target: 0 }
    }

    /// By how many it is over its target.
    pub(crate) fn over(&self) -> i64 {
        self.leads - self.target
    }
}

/// The part of each in what all together can do, given its weight and what it has to spare, in percent; 0 of who has nothing.
pub(crate) fn shares(rows: impl IntoIterator<Item = (u16, u8)>) -> Vec<f64> {
    let options = Options { slow_start: Duration::ZERO, ..Options::default() };
    let mut balancer = Balancer::new(options);
    let mut shares = vec![];
    for (weight, spare) in rows {
        let id = ServerId(shares.len() as u32);
        shares.push(0.0);
        if spare > 0 {
            balancer.set(id, u32::from(weight), Duration::ZERO);
            let service = SERVICE * u32::from(CAPACITY_WHOLE) / u32::from(spare);
            balancer.report(id, LoadReport { in_system: 0, workers: 1, service }, Duration::ZERO);
        }
    }
    for (id, share) in balancer.shares(Duration::ZERO) {
        shares[id.0 as usize] = share;
    }
    shares
}

/// Gives each its share by weight and capacity, and a target, so that the targets come to `shards`. What rounding leaves
/// goes to whoever leads it already: a share that changes a little moves nothing.
pub(crate) fn apportion(standings: &mut [Standing], shards: u16) {
    let shares = shares(standings.iter().map(|standing| (standing.weight, standing.capacity)));
    let mut left = i64::from(shards);
    // By how much each leads more than its share rounded down, its place, and what rounding took from it.
    let mut rests: Vec<(i64, f64, usize)> = vec![];
    for (at, share) in shares.into_iter().enumerate() {
        let standing = &mut standings[at];
        (standing.share, standing.target) = (share, 0);
        if share == 0.0 {
            continue;
        }
        let exact = share * f64::from(shards);
        standing.share = share;
        // A share that was to be whole may have come out a hair less.
        standing.target = (exact + 1e-6) as i64;
        left -= standing.target;
        rests.push((standing.over().clamp(0, 1), exact - standing.target as f64, at));
    }
    rests.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    for (_, _, at) in rests.into_iter().take(usize::try_from(left).unwrap_or(0)) {
        standings[at].target += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of weight, capacity and leads, and the targets of 64 shards.
    #[track_caller]
    fn check(rows: &[(u16, u8, u16)], targets: &[i64]) {
        let rows = (1..).zip(rows);
        let mut standings: Vec<Standing> = rows
            .map(|(node, (weight, capacity, leads))| {
                Standing::new(NodeId(node), *weight, *capacity, *leads, 0)
            })
            .collect();
        apportion(&mut standings, 64);
        let found: Vec<i64> = standings.iter().map(|standing| standing.target).collect();
        assert_eq!(found, targets);
        if targets.iter().any(|target| *target > 0) {
            assert_eq!(found.iter().sum::<i64>(), 64);
            let shares: f64 = standings.iter().map(|standing| standing.share).sum();
            assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        }
    }

    #[test]
    fn shares_are_weight_times_capacity() {
        check(&[(1, 100, 16), (1, 100, 16), (2, 100, 32)], &[16, 16, 32]);
        check(&[(1, 100, 21), (1, 100, 21), (2, 50, 22)], &[21, 21, 22]);
        check(&[(1, 50, 21), (1, 100, 21), (1, 100, 22)], &[13, 26, 25]);
        check(&[(3, 25, 0), (1, 100, 0), (1, 100, 0)], &[18, 23, 23]);
        check(&[(1, 0, 21), (1, 100, 21), (1, 100, 22)], &[0, 32, 32]);
        check(&[(1, 100, 64)], &[64]);
        check(&[(1, 0, 32), (1, 0, 32)], &[0, 0]);
        check(&[], &[]);
    }

    #[test]
    fn what_rounding_leaves_stays_where_it_is() {
        check(&[(1, 100, 22), (1, 100, 21), (1, 100, 21)], &[22, 21, 21]);
        check(&[(1, 100, 21), (1, 100, 21), (1, 100, 22)], &[21, 21, 22]);
        check(&[(1, 50, 12), (1, 100, 26), (1, 100, 26)], &[12, 26, 26]);
        check(&[(1, 50, 13), (1, 100, 26), (1, 100, 25)], &[13, 26, 25]);
    }
}
