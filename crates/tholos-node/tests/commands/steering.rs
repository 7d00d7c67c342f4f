//! Leaderships leave nodes that measure themselves slow, and come back, while clients write.

use tholos_node::{Event, LoadSample, MoveReason, NodeConfig, Notice, Port, Slowness};
use tholos_ring::ShardId;

use crate::support::{Client, Cluster, flat};

const SHARDS: u16 = 16;

/// What a driver measures in 100 ms: the stretch in percent and the time of each sync in microseconds.
fn sample((stretch, sync_us): (u64, u64)) -> LoadSample {
    let processor_us = 20_000;
    LoadSample {
        span_us: 100_000,
        rounds_us: processor_us * stretch / 100,
        processor_us,
        syncs: 2,
        syncs_us: 2 * sync_us,
    }
}

const WELL: (u64, u64) = (110, 500);
const SLOW_DISK: (u64, u64) = (110, 50_000);
const HALF: (u64, u64) = (220, 500);

/// A cluster with a client that writes on and on by the gateway of its last node.
struct World {
    cluster: Cluster,
    client: Client,
    sent: u32,
}

impl World {
    /// Of nodes that lead what the map wants.
    fn new(nodes: usize, configure: impl Fn(&mut NodeConfig)) -> World {
        let mut cluster = Cluster::start(nodes, 3, configure);
        cluster.wait_for_leaders();
        let client = cluster.connect(nodes - 1, Port::Gateway);
        let mut world = World { cluster, client, sent: 0 };
        world.pass(50_000, |_| WELL);
        world
    }

    fn pass(&mut self, ms: u64, measured: impl Fn(usize) -> (u64, u64)) {
        for _ in 0..ms / 100 {
            for at in 0..self.cluster.nodes.len() {
                self.cluster.handle(at, Event::Load(sample(measured(at))));
            }
            self.sent += 1;
            self.cluster.send(self.client, &[&format!("SET k{} {}", self.sent % 40, self.sent)]);
            self.cluster.advance(100);
        }
    }

    fn leads(&self) -> Vec<usize> {
        let leads = |node: &tholos_node::Node| {
            let shards = (0..SHARDS).filter_map(|shard| node.shard(ShardId(shard)));
            shards.filter(|shard| shard.group.serving()).count()
        };
        self.cluster.nodes.iter().map(leads).collect()
    }

    fn given(&self) -> u64 {
        self.cluster.nodes.iter().map(tholos_node::Node::leaders_given).sum()
    }

    /// Every write was done, none refused and none of unknown fate.
    #[track_caller]
    fn check_client(&mut self) {
        self.cluster.advance(1000);
        let replies = flat(&self.cluster.read(self.client));
        assert_eq!(replies, vec!["+OK"; self.sent as usize].join(" "));
        self.sent = 0;
    }
}

fn slow(at: usize, how: (u64, u64)) -> impl Fn(usize) -> (u64, u64) {
    move |node| if node == at { how } else { WELL }
}

#[test]
fn nothing_moves_while_all_are_alike() {
    let mut world = World::new(3, |_| {});
    let (before, given) = (world.leads(), world.given());
    assert!(before.iter().all(|leads| (5..=6).contains(leads)), "{before:?}");
    for measured in [WELL, (900, 500), (110, 300_000), (250, 30_000)] {
        world.pass(30_000, |_| measured);
    }
    // And for a moment that is over before anybody is sure.
    for _ in 0..10 {
        world.pass(1_200, slow(0, SLOW_DISK));
        world.pass(3_000, |_| WELL);
    }
    assert_eq!((world.leads(), world.given()), (before, given));
    world.check_client();
}

#[test]
fn a_slow_disk_leads_nothing_within_five_seconds_and_gets_its_own_back_by_and_by() {
    for (nodes, slow_one) in [(3, 0), (5, 2)] {
        let mut world = World::new(nodes, |_| {});
        let (before, given) = (world.leads(), world.given());
        assert!(before[slow_one] > 0);
        world.pass(5_000, slow(slow_one, SLOW_DISK));
        let without = world.leads();
        assert_eq!((without[slow_one], without.iter().sum::<usize>()), (0, 16), "{without:?}");
        if nodes == 3 {
            assert_eq!(without, [0, 8, 8]);
        }
        assert!(world.cluster.notices.contains(&(
            slow_one,
            Notice::CapacityChanged { before: 100, capacity: 0, slowness: Some(Slowness::Disk) }
        )));
        let why = |reason| {
            let moves = world.cluster.nodes[slow_one].leader_moves();
            moves.filter(|given| given.reason == reason).count()
        };
        // The meta group may be one of them.
        let shed = why(MoveReason::SlowDisk);
        assert!((before[slow_one]..=before[slow_one] + 1).contains(&shed), "{shed}");
        // As long as it is slow nothing more moves but what others still even out.
        world.pass(3_000, slow(slow_one, SLOW_DISK));
        let settled = world.given();
        assert!(settled - given <= shed as u64 + 2, "{}", settled - given);
        world.pass(60_000, slow(slow_one, SLOW_DISK));
        assert_eq!(world.given(), settled);
        assert_eq!(world.cluster.nodes[slow_one].own_standing().target, 0);
        // It is well: nothing for ten seconds, then a few at a time.
        world.pass(9_000, |_| WELL);
        assert_eq!((world.leads()[slow_one], world.given()), (0, settled));
        let mut steps = Vec::new();
        for _ in 0..45 {
            world.pass(1_000, |_| WELL);
            steps.push(world.leads()[slow_one]);
        }
        assert!(steps.is_sorted() && steps.windows(2).all(|pair| pair[1] - pair[0] <= 2), "{steps:?}");
        assert!(steps[8] < before[slow_one], "{steps:?}");
        assert_eq!(world.leads(), before);
        let back = world.given() - settled;
        assert!(back <= shed as u64 + 4, "{back} for {shed}");
        world.check_client();
    }
}

#[test]
fn half_a_processor_leads_about_half() {
    let mut world = World::new(3, |_| {});
    let (before, given) = (world.leads(), world.given());
    world.pass(8_000, slow(1, HALF));
    let with_half = world.leads();
    // 16 in shares of 2, 1 and 2.
    assert!((3..=4).contains(&with_half[1]) && with_half.iter().all(|leads| *leads <= 7), "{with_half:?}");
    let moved = world.given() - given;
    assert!(moved <= (before[1] - with_half[1]) as u64 + 1, "{moved} for {before:?} and {with_half:?}");
    let standing = world.cluster.nodes[1].own_standing();
    assert_eq!((standing.load.capacity, standing.slowness), (50, Some(Slowness::Processor)));
    assert!(standing.share.is_some_and(|share| (share - 0.2).abs() < 1e-9), "{standing:?}");
    let settled = world.given();
    world.pass(60_000, slow(1, HALF));
    assert_eq!((world.leads(), world.given()), (with_half, settled));
    world.pass(20_000, |_| WELL);
    assert_eq!(world.leads(), before);
    world.check_client();
}

/// Who gave up its own is not about to stop, and need not wait as if it were.
#[test]
fn who_was_slow_for_a_moment_has_its_own_back_soon() {
    let mut world = World::new(3, |_| {});
    let before = world.leads();
    world.pass(6_000, slow(0, SLOW_DISK));
    assert_eq!(world.leads()[0], 0);
    world.pass(38_000, |_| WELL);
    assert_eq!(world.leads(), before);
    world.pass(3_000, slow(1, HALF));
    assert!(world.leads()[1] < before[1]);
    world.pass(20_000, |_| WELL);
    assert_eq!(world.leads(), before);
    world.check_client();
}

#[test]
fn who_comes_back_gets_nothing_from_the_map_while_its_disk_is_slow() {
    let mut world = World::new(3, |_| {});
    world.pass(6_000, slow(0, SLOW_DISK));
    // Its leaderships were lost besides, and would go back to it after half a minute.
    world.cluster.cut(0);
    world.pass(2_000, slow(0, SLOW_DISK));
    world.cluster.mend();
    world.pass(60_000, slow(0, SLOW_DISK));
    assert_eq!(world.leads(), [0, 8, 8]);
    world.check_client();
}

#[test]
fn who_does_not_steer_leads_what_the_map_says() {
    let mut world = World::new(3, |config| config.steers = false);
    let (before, given) = (world.leads(), world.given());
    world.pass(30_000, slow(0, SLOW_DISK));
    assert_eq!((world.leads(), world.given()), (before, given));
    let standing = world.cluster.nodes[0].own_standing();
    assert_eq!((standing.load.capacity, standing.slowness), (100, None));
    assert!(standing.load.sync_us > 40_000, "it is measured all the same: {standing:?}");
    let told = |notice: &Notice| matches!(notice, Notice::CapacityChanged { .. });
    assert!(
        !world.cluster.notices.iter().any(|(_, notice)| told(notice)),
        "nothing follows, so nothing is told"
    );
}

#[test]
fn clients_go_where_there_is_something_to_spare() {
    let mut world = World::new(3, |_| {});
    let reader = world.cluster.connect(0, Port::Gateway);
    let mut info = |world: &mut World| {
        let admitted = world.cluster.nodes[0].clients_max();
        let text = world.cluster.ask(reader, &["INFO tholos"]);
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
        };
        assert_eq!(field("tholos_clients_admitted"), admitted);
        assert!(text.contains("tholos_share_percent"), "{text}");
        ["capacity", "load", "spare", "share"].map(|what| field(&format!("tholos_{what}_percent")))
    };
    // Each sample says that the worker has work for 22 % of the time.
    assert_eq!(info(&mut world), [100, 22, 78, 33]);
    assert_eq!(world.cluster.nodes[0].clients_max(), 10_240);
    world.pass(6_000, slow(0, HALF));
    let [capacity, load, spare, share] = info(&mut world);
    assert!(capacity == 50 && load > 40 && spare < 30 && share < 20, "{capacity} {load} {spare} {share}");
    let admitted = world.cluster.nodes[0].clients_max();
    assert!((2_560..=6_400).contains(&admitted), "{admitted}");
    world.pass(6_000, slow(0, SLOW_DISK));
    info(&mut world);
    assert_eq!(world.cluster.nodes[0].clients_max(), 1_280, "an eighth is left to it");
    assert_eq!(world.cluster.nodes[1].clients_max(), 10_240);
}
