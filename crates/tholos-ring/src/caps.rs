//! How many replicas each node is to hold: exact shares by weight as far as limits allow, then whole numbers.
//!
//! Shares are cut twice, first for zones and then for the nodes of each, and rounded twice. So that rounding does not
//! add up, the nodes' shares are cut from what their zone's share was *before* it was rounded: then each is rounded down
//! or up, never further.

use alloc::vec;
use alloc::vec::Vec;

/// A share before it is rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    numerator: u128,
    denominator: u128,
}

/// What one of several claims a part of a total by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Its part is proportional to this.
    pub(crate) weight: u64,
    /// And at most this.
    pub(crate) maximum: u64,
}

impl Share {
    pub(crate) const ZERO: Share = Share::whole(0);

    pub(crate) const fn whole(number: u64) -> Share {
        Share { numerator: number as u128, denominator: 1 }
    }

    pub(crate) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    pub(crate) const fn rounded_down(self) -> u64 {
        (self.numerator / self.denominator) as u64
    }

    pub(crate) const fn rounded_up(self) -> u64 {
        self.numerator.div_ceil(self.denominator) as u64
    }

    /// What rounding down takes away, in units of the denominator.
    const fn fraction(self) -> u128 {
        self.numerator % self.denominator
    }
}

/// Cuts `total` into parts proportional to weights, none above its maximum: what a full part cannot take is shared by
/// the others, as water fills vessels of different height.
///
/// # Panics
///
/// If the maxima of claims with a weight add up to less than `total`.
pub(crate) fn water_fill(total: Share, claims: &[Claim]) -> Vec<Share> {
    let mut parts = vec![Share::ZERO; claims.len()];
    let mut open: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].weight > 0).collect();
    let room: u64 = open.iter().map(|at| claims[*at].maximum).sum();
    let Share { numerator: mut rest, denominator } = total;
    assert!(
        rest <= u128::from(room) * denominator,
        "{} to be shared by vessels of {room}",
        total.rounded_down()
    );

    // A part that would reach its maximum is fixed there, which raises the level for the rest; so repeat until none is.
    loop {
        let weights: u128 = open.iter().map(|at| u128::from(claims[*at].weight)).sum();
        let maximum = |at: usize| u128::from(claims[at].maximum);
        let is_full = |at: usize| rest * u128::from(claims[at].weight) >= maximum(at) * denominator * weights;
        let (full, still_open): (Vec<usize>, Vec<usize>) = open.iter().partition(|at| is_full(**at));
        if full.is_empty() {
            for at in open {
                let weight = u128::from(claims[at].weight);
                parts[at] = Share { numerator: rest * weight, denominator: denominator * weights };
            }
            return parts;
        }
        for at in full {
            parts[at] = Share::whole(claims[at].maximum);
            rest -= maximum(at) * denominator;
        }
        open = still_open;
    }
}

/// Rounds shares to whole numbers that add up to `total`, which is their sum rounded down or up. Rounded up are those
/// that hold more than their share rounded down, then those with the largest fractions, the first of equals first.
pub(crate) fn round(total: u64, shares: &[Share], held: &[u64]) -> Vec<u64> {
    let mut wholes: Vec<u64> = shares.iter().map(|share| share.rounded_down()).collect();
    let left = total - wholes.iter().sum::<u64>();
    let mut broken: Vec<usize> = (0..shares.len()).filter(|at| shares[*at].fraction() > 0).collect();
    broken.sort_by(|&a, &b| {
        let keeps = |at: usize| held[at] > wholes[at];
        let (left, right) = (shares[a], shares[b]);
        let by_fraction = (right.fraction() * left.denominator).cmp(&(left.fraction() * right.denominator));
        keeps(b).cmp(&keeps(a)).then(by_fraction).then(a.cmp(&b))
    });
    assert!(left <= broken.len() as u64, "{left} more than {shares:?}");
    for at in broken.into_iter().take(left as usize) {
        wholes[at] += 1;
    }
    wholes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(total: u64, claims: &[(u64, u64)]) -> Vec<Share> {
        let claims: Vec<Claim> = claims.iter().map(|&(weight, maximum)| Claim { weight, maximum }).collect();
        water_fill(Share::whole(total), &claims)
    }

    #[track_caller]
    fn check(total: u64, claims: &[(u64, u64)], expected: &[u64]) {
        let shares = shares(total, claims);
        let wholes = round(total, &shares, &vec![0; claims.len()]);
        assert_eq!(wholes, expected);
        assert_eq!(wholes.iter().sum::<u64>(), total);
        for (whole, share) in wholes.iter().zip(shares) {
            assert!((*whole as f64 - share.to_f64()).abs() < 1.0, "{whole} for {share:?}");
        }
    }

    #[test]
    fn parts_follow_weights_up_to_their_maxima() {
        check(0, &[], &[]);
        check(10, &[(1, 99), (1, 99)], &[5, 5]);
        check(10, &[(1, 99), (1, 99), (1, 99)], &[4, 3, 3]);
        check(12, &[(1, 99), (2, 99), (0, 99)], &[4, 8, 0]);
        // Exact shares 1.43, 2.86, 5.71: the fractions .86 and .71 are rounded up.
        check(10, &[(1, 99), (2, 99), (4, 99)], &[1, 3, 6]);
        // The first is full at 4; the other 6 are shared 1 : 2, not 1 : 2 of what was left over from 10.
        check(10, &[(7, 4), (1, 99), (2, 99)], &[4, 2, 4]);
        // Filling one fills the next.
        check(10, &[(4, 3), (3, 3), (2, 3), (1, 3)], &[3, 3, 3, 1]);
        check(12, &[(4, 3), (3, 3), (2, 3), (1, 3)], &[3, 3, 3, 3]);
        check(0, &[(1, 0), (1, 5)], &[0, 0]);
    }

    #[test]
    fn what_may_be_rounded_stays_where_it_is() {
        let rounded = |total, held: &[u64]| round(total, &shares(total, &vec![(1, 99); held.len()]), held);
        assert_eq!(rounded(10, &[3, 4, 3]), [3, 4, 3]);
        assert_eq!(rounded(11, &[3, 4, 4]), [3, 4, 4]);
        // Nothing is rounded, so nobody keeps more than its share.
        assert_eq!(rounded(9, &[2, 4, 3]), [3, 3, 3]);
    }

    #[test]
    fn a_part_of_a_part_is_rounded_once() {
        // Two zones of 59.8 and 60.2, the first of two nodes: 29.9 each, so 30 at most, however the zones are rounded.
        let zones = shares(120, &[(598, 200), (602, 200)]);
        let nodes = water_fill(zones[0], &[Claim { weight: 1, maximum: 99 }; 2]);
        assert_eq!(round(60, &nodes, &[0, 0]), [30, 30]);
        assert_eq!(round(59, &nodes, &[0, 0]), [30, 29]);
    }

    #[test]
    #[should_panic(expected = "13 to be shared by vessels of 12")]
    fn what_does_not_fit_is_a_bug() {
        shares(13, &[(1, 6), (1, 6), (0, 99)]);
    }
}
