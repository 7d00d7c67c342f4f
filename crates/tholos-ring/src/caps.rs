//! How many replicas each node is to hold: exact integers that follow weights as far as zones allow.

use alloc::vec;
use alloc::vec::Vec;

/// Cuts `total` into integer parts proportional to weights, none above its maximum: what a full part cannot take is
/// shared by the others, as water fills vessels of different height. `claims` are (weight, maximum).
///
/// The parts add up to `total`. Each is within 1 of its exact share; those with the largest fractions are rounded up,
/// the first of equals first.
///
/// # Panics
///
/// If the maxima of claims with a weight add up to less than `total`.
pub(crate) fn water_fill(total: u64, claims: &[(u64, u64)]) -> Vec<u64> {
    let mut parts = vec![0; claims.len()];
    let mut open: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].0 > 0).collect();
    let room: u64 = open.iter().map(|at| claims[*at].1).sum();
    assert!(total <= room, "{total} to be shared by vessels of {room}");

    // A part that would reach its maximum is fixed there, which raises the level for the rest; so repeat until none is.
    let mut rest = total;
    loop {
        let weights: u64 = open.iter().map(|at| claims[*at].0).sum();
        let is_full = |at: usize| {
            u128::from(rest) * u128::from(claims[at].0) >= u128::from(claims[at].1) * u128::from(weights)
        };
        let (full, still_open): (Vec<usize>, Vec<usize>) = open.iter().partition(|at| is_full(**at));
        if full.is_empty() {
            break;
        }
        for at in full {
            parts[at] = claims[at].1;
            rest -= claims[at].1;
        }
        open = still_open;
    }

    let weights: u64 = open.iter().map(|at| claims[*at].0).sum();
    let mut fractions = Vec::with_capacity(open.len());
    let mut left = rest;
    for at in open {
        let share = u128::from(rest) * u128::from(claims[at].0);
        // Below its maximum, or it would have been fixed; so one more always fits.
        parts[at] = (share / u128::from(weights)) as u64;
        left -= parts[at];
        fractions.push((share % u128::from(weights), at));
    }
    fractions.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, at) in fractions.into_iter().take(left as usize) {
        parts[at] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(total: u64, claims: &[(u64, u64)], expected: &[u64]) {
        let parts = water_fill(total, claims);
        assert_eq!(parts, expected);
        assert_eq!(parts.iter().sum::<u64>(), total);
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
    #[should_panic(expected = "13 to be shared by vessels of 12")]
    fn what_does_not_fit_is_a_bug() {
        water_fill(13, &[(1, 6), (1, 6), (0, 99)]);
    }
}
