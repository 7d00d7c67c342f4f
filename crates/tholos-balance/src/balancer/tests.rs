use alloc::vec;

use super::*;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Past the slow start of servers that were there from the beginning.
const START: u64 = 100_000;

fn balancer(policy: Policy, servers: u32) -> Balancer {
    let mut balancer = Balancer::new(Options { policy, ..Options::default() });
    (0..servers).for_each(|id| balancer.set(ServerId(id), 1, Duration::ZERO));
    balancer
}

fn all(servers: u32) -> Vec<Candidate> {
    (0..servers).map(|id| ServerId(id).into()).collect()
}

fn load(in_system: u32, service_ms: u64) -> LoadReport {
    LoadReport { in_system, workers: 1, service: at(service_ms) }
}

/// Whom `count` picks go to that end at once.
fn picks(balancer: &Balancer, candidates: &[Candidate], millis: u64, count: usize) -> Vec<usize> {
    let mut counts = vec![0; candidates.len()];
    for step in 0..count as u64 {
        let chance = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pick = balancer.pick(candidates, at(millis), chance).expect("there are candidates");
        counts[pick.server().0 as usize] += 1;
    }
    counts
}

#[test]
fn nobody_is_chosen_of_nobody() {
    for policy in [Policy::PeakEwma, Policy::LeastRequest, Policy::WeightedRandom, Policy::RoundRobin] {
        let balancer = balancer(policy, 2);
        assert!(balancer.pick(&[], at(START), 7).is_none());
        assert!(balancer.pick(&[ServerId(9).into()], at(START), 7).is_none(), "{policy:?}");
    }
}

#[test]
fn a_pick_that_is_dropped_leaves_nothing_behind() {
    let balancer = balancer(Policy::LeastRequest, 1);
    let in_flight = || balancer.view(ServerId(0), at(START)).map(|view| view.in_flight);
    let first = balancer.pick(&all(1), at(START), 0);
    let second = balancer.pick(&all(1), at(START), 0);
    assert_eq!(in_flight(), Some(2));
    drop(first);
    assert_eq!(in_flight(), Some(1));
    second.unwrap().done(at(START + 1), Outcome::Answered, None);
    assert_eq!(in_flight(), Some(0));
}

#[test]
fn a_pick_may_outlive_its_server() {
    let mut balancer = balancer(Policy::PeakEwma, 1);
    let [first, second] =
        [0, 1].map(|chance| balancer.pick(&all(1), at(START), chance).expect("it is known"));
    balancer.remove(ServerId(0));
    balancer.set(ServerId(0), 1, at(START));
    first.done(at(START + 1), Outcome::Answered, Some(load(3, 1)));
    let view = balancer.view(ServerId(0), at(START + 1)).expect("it is known");
    assert_eq!((view.in_flight, view.latency), (0, Duration::ZERO), "who came back is somebody new");
    balancer.remove(ServerId(0));
    second.done(at(START + 1), Outcome::Answered, Some(load(3, 1)));
}

#[test]
fn the_least_expected_time_wins() {
    let balancer = balancer(Policy::PeakEwma, 3);
    balancer.report(ServerId(0), load(0, 10), at(START));
    balancer.report(ServerId(1), load(2, 1), at(START));
    balancer.report(ServerId(2), load(9, 1), at(START));
    assert_eq!(picks(&balancer, &all(3), START, 20), [0, 20, 0]);
    // Picks that are under way count until the server has counted them.
    let under_way: Vec<Pick> =
        (0..12).filter_map(|chance| balancer.pick(&all(3), at(START), chance)).collect();
    let at_second = under_way.iter().filter(|pick| pick.server() == ServerId(1)).count();
    assert!(at_second < 12 && at_second > 2, "{at_second}");
}

#[test]
fn a_nearer_server_is_preferred_until_it_would_be_slower() {
    let balancer = balancer(Policy::PeakEwma, 2);
    let near = Candidate::from(ServerId(0));
    let far = Candidate { server: ServerId(1), distance: at(5) };
    for (queued, expected) in [(0, [9, 0]), (3, [9, 0]), (9, [0, 9])] {
        balancer.report(ServerId(0), load(queued, 1), at(START));
        balancer.report(ServerId(1), load(0, 1), at(START));
        assert_eq!(picks(&balancer, &[near, far], START, 9), expected, "{queued} waiting");
    }
}

#[test]
fn without_reports_the_slow_one_is_avoided_and_a_peak_is_followed_at_once() {
    let balancer = balancer(Policy::PeakEwma, 2);
    let serve = |server: u32, from: u64, took: u64| {
        let pick = balancer.pick(&[ServerId(server).into()], at(from), 0).expect("it is known");
        pick.done(at(from + took), Outcome::Answered, None);
    };
    serve(0, START, 10);
    serve(1, START, 20);
    assert_eq!(picks(&balancer, &all(2), START + 50, 10), [10, 0]);
    serve(0, START + 50, 100);
    assert_eq!(picks(&balancer, &all(2), START + 200, 10), [0, 10]);
    // And forgotten slowly.
    serve(0, START + 200, 10);
    assert_eq!(picks(&balancer, &all(2), START + 300, 10), [0, 10]);
}

#[test]
fn a_failure_is_never_fast() {
    let balancer = balancer(Policy::PeakEwma, 2);
    let end = |server: u32, took: u64, outcome| {
        let pick = balancer.pick(&[ServerId(server).into()], at(START), 0).expect("it is known");
        pick.done(at(START + took), outcome, None);
    };
    end(0, 0, Outcome::Failed);
    end(1, 50, Outcome::Answered);
    assert_eq!(picks(&balancer, &all(2), START + 60, 10), [0, 10]);
}

#[test]
fn who_fails_again_and_again_is_left_out_and_tried_again() {
    let balancer = balancer(Policy::RoundRobin, 2);
    let fail = |millis: u64| {
        let pick =
            balancer.pick(&[ServerId(0).into()], at(millis), 0).expect("alone, it is chosen all the same");
        pick.done(at(millis), Outcome::Failed, None);
    };
    (0..5).for_each(|_| fail(START));
    assert!(balancer.view(ServerId(0), at(START)).is_some_and(|view| view.left_out));
    assert_eq!(picks(&balancer, &all(2), START + 999, 10), [0, 10]);
    // After a second one request tries, and no other while it does.
    let probe = balancer.pick(&all(2), at(START + 1001), 0).expect("there are candidates");
    assert_eq!(probe.server(), ServerId(0));
    assert_eq!(picks(&balancer, &all(2), START + 1001, 10), [0, 10]);
    // It fails: two seconds more.
    probe.done(at(START + 1001), Outcome::Failed, None);
    assert_eq!(picks(&balancer, &all(2), START + 2999, 10), [0, 10]);
    let probe = balancer.pick(&all(2), at(START + 3002), 0).expect("there are candidates");
    assert_eq!(probe.server(), ServerId(0));
    probe.done(at(START + 3002), Outcome::Answered, None);
    assert_eq!(picks(&balancer, &all(2), START + 3002, 10), [5, 5]);
}

#[test]
fn when_all_are_left_out_nobody_is() {
    let balancer = balancer(Policy::LeastRequest, 2);
    for _ in 0..5 {
        for server in 0..2 {
            let pick = balancer.pick(&[ServerId(server).into()], at(START), 0).expect("it is known");
            pick.done(at(START), Outcome::Failed, None);
        }
    }
    assert!(balancer.pick(&all(2), at(START), 0).is_some());
}

#[test]
fn a_new_server_starts_slowly() {
    let mut balancer = balancer(Policy::WeightedRandom, 1);
    balancer.set(ServerId(1), 1, at(START));
    let part = |millis| picks(&balancer, &all(2), millis, 10_000)[1] as f64 / 10_000.0;
    assert!((part(START) - 0.1 / 1.1).abs() < 0.02);
    assert!((part(START + 5000) - 0.5 / 1.5).abs() < 0.02);
    assert!((part(START + 10_000) - 0.5).abs() < 0.02);
}

#[test]
fn weights_are_followed_and_none_is_none() {
    let mut balancer = balancer(Policy::WeightedRandom, 3);
    balancer.set(ServerId(1), 3, at(0));
    balancer.set(ServerId(2), 0, at(0));
    let counts = picks(&balancer, &all(3), START, 10_000);
    assert!(counts[0].abs_diff(2500) < 200 && counts[2] == 0, "{counts:?}");
    balancer.remove(ServerId(0));
    balancer.remove(ServerId(1));
    assert_eq!(picks(&balancer, &all(3), START, 10), [0, 0, 10], "somebody is better than nobody");
}

#[test]
fn reports_that_come_seldom_are_followed_as_shares() {
    let balancer = balancer(Policy::PeakEwma, 2);
    for round in 0..100 {
        balancer.report(ServerId(0), load(0, 1), at(START + 100 * round));
        balancer.report(ServerId(1), load(5, 1), at(START + 100 * round));
    }
    let counts = picks(&balancer, &all(2), START + 9950, 10_000);
    // All who heard this would go to the first, were it not for that.
    assert!(counts[0] > counts[1] && counts[1] > 4000, "{counts:?}");
}

#[test]
fn shares_are_spare_capacity_over_all_of_it() {
    let balancer = balancer(Policy::PeakEwma, 4);
    let report = |id, in_system, service| {
        let report = LoadReport { in_system, workers: 4, service: at(service) };
        balancer.report(ServerId(id), report, at(START));
    };
    report(0, 0, 1);
    report(1, 2, 1);
    report(2, 40, 1);
    let shares: Vec<f64> = balancer.shares(at(START)).iter().map(|(_, share)| *share).collect();
    assert_eq!(shares.len(), 3, "who has not reported has none");
    let sum = 4.0 + 2.0 + 0.08;
    for (share, expected) in shares.iter().zip([4.0 / sum, 2.0 / sum, 0.08 / sum]) {
        assert!((share - expected).abs() < 1e-9, "{shares:?}");
    }
}
