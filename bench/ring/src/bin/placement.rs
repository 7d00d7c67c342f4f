//! Balance and movement of placements beside other crates' hashes, and how long plans take.
//!
//! `cd bench && cargo run --release -p bench-ring --bin placement`
//!
//! Balance and movement are counted, not timed, and come out the same each time. The others hash one key to one node, so
//! the table places shards of one replica each; sets of three in zones follow below it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tholos_cluster::{
    ClusterId, ClusterMap, Epoch, Facts, Incarnation, NodeFacts, NodeId, NodeRow, Request, ShardFacts,
    Standing,
};
use tholos_ring::{Node, NodeIndex, Plan, Ring, ShardMap, place, rebalance, shard_token};

const SHARDS: u16 = 256;
const NODES: usize = 10;
const SALTS: usize = 33;

/// Names of nodes; different salts are different clusters.
fn names(salt: usize, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("n{salt}-{at}")).collect()
}

fn as_nodes(names: &[String]) -> Vec<Node<'_>> {
    names.iter().map(|name| Node { name, zone: "", weight: 1 }).collect()
}

/// The owner of each shard, by name, as a scheme without memory gives it.
type Scheme = fn(&[String]) -> Vec<String>;

fn shard_keys() -> impl Iterator<Item = String> {
    (0..SHARDS).map(|shard| format!("s{shard}"))
}

fn plain_ring(names: &[String]) -> Vec<String> {
    let ring = Ring::new(&as_nodes(names));
    let tokens = (0..SHARDS).map(|shard| shard_token(tholos_ring::ShardId(shard)));
    tokens.map(|token| names[usize::from(ring.get(token).expect("a ring of nodes").0)].clone()).collect()
}

fn ketama(names: &[String]) -> Vec<String> {
    let address = |at: usize, name: &String| -> SocketAddr {
        // Ketama hashes addresses: as many different ones as there are names.
        let salt = tholos_ring::hash64(name.as_bytes(), 0);
        let port = (salt % 60_000) as u16 + 1;
        SocketAddr::from(([10, (salt >> 16) as u8, (salt >> 24) as u8, at as u8], port))
    };
    let addresses: Vec<SocketAddr> = names
        .iter()
        .map(|name| address(name.rsplit('-').next().map_or(0, |at| at.parse().unwrap_or(0)), name))
        .collect();
    let buckets: Vec<_> = addresses.iter().map(|address| pingora_ketama::Bucket::new(*address, 1)).collect();
    let continuum = pingora_ketama::Continuum::new(&buckets);
    let owner = |key: String| {
        let owner = continuum.node(key.as_bytes()).expect("a ring of nodes");
        names[addresses.iter().position(|address| *address == owner).expect("one of them")].clone()
    };
    shard_keys().map(owner).collect()
}

fn hash_ring(names: &[String]) -> Vec<String> {
    let mut ring = hashring::HashRing::new();
    let points = names.iter().flat_map(|name| (0..128).map(move |point| (name.clone(), point)));
    ring.batch_add(points.collect());
    shard_keys().map(|key| ring.get(&key).expect("a ring of nodes").0.clone()).collect()
}

#[derive(Clone)]
struct Named(String);

impl conhash::Node for Named {
    fn name(&self) -> String {
        self.0.clone()
    }
}

fn con_hash(names: &[String]) -> Vec<String> {
    let mut ring = conhash::ConsistentHash::new();
    names.iter().for_each(|name| ring.add(&Named(name.clone()), 128));
    shard_keys().map(|key| ring.get_str(&key).expect("a ring of nodes").0.clone()).collect()
}

fn jump(names: &[String]) -> Vec<String> {
    let hasher = jumphash::JumpHasher::new_with_keys(1, 2);
    // Different clusters are different keys, since jump hash knows nodes by their numbers alone.
    let salt = names[0].split('-').next().unwrap_or("").to_owned();
    shard_keys().map(|key| names[hasher.slot(&(&salt, key), names.len() as u32) as usize].clone()).collect()
}

fn bounded(names: &[String]) -> Vec<String> {
    owners(&place(&as_nodes(names), SHARDS, 1).expect("enough nodes"), names)
}

fn owners(map: &ShardMap, names: &[String]) -> Vec<String> {
    map.iter().map(|(_, set)| names[usize::from(set[0].0)].clone()).collect()
}

/// What a change cost: replicas moved, and those the change made necessary.
#[derive(Default)]
struct Cost {
    moved: usize,
    least: usize,
}

impl Cost {
    fn ratio(&self) -> f64 {
        self.moved as f64 / self.least as f64
    }
}

fn most(owners: &[String], names: &[String]) -> usize {
    names.iter().map(|name| owners.iter().filter(|owner| *owner == name).count()).max().unwrap_or(0)
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// The largest share of a node over the mean, median and worst; costs of a node's joining and of another's leaving.
fn row(name: &str, scheme: Scheme) {
    let (mut shares, mut join, mut leave) = (Vec::new(), Cost::default(), Cost::default());
    for salt in 0..SALTS {
        let more = names(salt, NODES + 1);
        let some = more[..NODES].to_vec();
        let mut fewer = some.clone();
        let gone = fewer.remove(NODES / 2);
        let owners = scheme(&some);
        shares.push(most(&owners, &some));
        let joined = scheme(&more);
        join.moved += moved(&owners, &joined);
        join.least += joined.iter().filter(|owner| **owner == more[NODES]).count();
        leave.moved += moved(&owners, &scheme(&fewer));
        leave.least += owners.iter().filter(|owner| **owner == gone).count();
    }
    print_row(name, shares, &join, &leave);
}

fn print_row(name: &str, mut shares: Vec<usize>, join: &Cost, leave: &Cost) {
    shares.sort_unstable();
    let target = f64::from(SHARDS) / NODES as f64;
    let over = |at: usize| shares[at] as f64 / target;
    println!(
        "{name:<34} {:>7.2} {:>7.2} {:>9.2} {:>9.2}",
        over(SALTS / 2),
        over(SALTS - 1),
        join.ratio(),
        leave.ratio()
    );
}

fn with_memory() {
    let (mut shares, mut join, mut leave) = (Vec::new(), Cost::default(), Cost::default());
    for salt in 0..SALTS {
        let names = names(salt, NODES + 1);
        let nodes = as_nodes(&names);
        let map = place(&nodes[..NODES], SHARDS, 1).expect("enough nodes");
        shares.push(most(&owners(&map, &names), &names));
        let joined = rebalance(&map, &nodes, 1).expect("enough nodes");
        join.moved += joined.moved();
        join.least += joined.least_possible;
        let mut fewer = nodes[..NODES].to_vec();
        fewer[NODES / 2].weight = 0;
        let left = rebalance(&map, &fewer, 1).expect("enough nodes");
        leave.moved += left.moved();
        leave.least += left.least_possible;
    }
    print_row("bounded ring with memory (ours)", shares, &join, &leave);
}

fn timed<T>(what: impl Fn() -> T) -> (T, Duration) {
    let rounds = (0..3).map(|_| {
        let start = Instant::now();
        let result = black_box(what());
        (result, start.elapsed())
    });
    rounds.min_by_key(|(_, time)| *time).expect("three rounds")
}

fn report(what: &str, (plan, time): (Plan, Duration)) {
    println!(
        "  {what:<34} {time:>9.1?}   {:>6} moved, {:>6} at least, largest {:.3} of its share",
        plan.moved(),
        plan.least_possible,
        plan.max_over_target
    );
}

fn scale(node_count: usize, shard_count: u16) {
    println!("\n{node_count} nodes in 5 zones, {shard_count} shards of 3 replicas");
    let names: Vec<String> = (0..node_count + node_count / 50).map(|at| format!("node-{at}")).collect();
    let node = |at: usize| Node { name: &names[at], zone: ["a", "b", "c", "d", "e"][at % 5], weight: 1 };
    let nodes: Vec<Node<'_>> = (0..names.len()).map(node).collect();
    let some = &nodes[..node_count];
    let nothing =
        ShardMap::from_sets(vec![Vec::<NodeIndex>::new(); usize::from(shard_count)]).expect("shards");
    let plan_of =
        |map: &ShardMap, nodes: &[Node<'_>]| timed(|| rebalance(map, nodes, 3).expect("enough nodes"));
    let first = plan_of(&nothing, some);
    let map = first.0.map.clone();
    report("first placement", first);
    report("2 % more nodes", plan_of(&map, &nodes));
    let mut without = some.to_vec();
    without[node_count / 3].weight = 0;
    report("a node leaves", plan_of(&map, &without));
    let mut zone_lost = some.to_vec();
    zone_lost.iter_mut().filter(|node| node.zone == "c").for_each(|node| node.weight = 0);
    report("a zone is lost", plan_of(&map, &zone_lost));
    let mut weighed = some.to_vec();
    weighed.iter_mut().step_by(10).for_each(|node| node.weight = 2);
    report("every tenth node counts double", plan_of(&map, &weighed));
    report("nothing changes", plan_of(&map, some));
}

/// Whole plans, with their order and their checks.
fn plans(node_count: u16, shard_count: u16) {
    println!("\nplans of {node_count} nodes in 5 zones, {shard_count} shards of 3 replicas");
    let row = |id: u16| NodeRow {
        id: NodeId(id),
        name: format!("n{id}"),
        zone: ["a", "b", "c", "d", "e"][usize::from(id % 5)].to_owned(),
        weight: 1,
        incarnation: Incarnation(u64::from(id)),
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    let spares = node_count / 50;
    let rows: Vec<NodeRow> = (1..=node_count + spares).map(row).collect();
    let some = &rows[..usize::from(node_count)];
    let nodes: Vec<Node<'_>> =
        some.iter().map(|row| Node { name: &row.name, zone: &row.zone, weight: 1 }).collect();
    let sets = place(&nodes, shard_count, 3).expect("enough nodes").into_sets();
    let ids = |set: Vec<NodeIndex>| set.iter().map(|node| NodeId(node.0 + 1)).collect();
    let map = ClusterMap {
        cluster_id: ClusterId([7; 20]),
        epoch: Epoch(1),
        shard_count,
        replicas: 3,
        shards: sets.into_iter().map(ids).collect(),
        nodes: rows,
    };
    let standing = |row: &NodeRow| if row.id.0 <= node_count { Standing::Member } else { Standing::Spare };
    let standings: Vec<Standing> = map.nodes.iter().map(standing).collect();
    let room = NodeFacts { down: None, disk_free: Some(1 << 50), memory_free: Some(1 << 50) };
    let facts = Facts {
        nodes: vec![room; map.nodes.len()],
        shards: vec![ShardFacts { bytes: Some(1 << 30), ..ShardFacts::default() }; map.shards.len()],
    };
    let in_zone = map.nodes.iter().filter(|row| row.zone == "c").map(|row| row.id).take(200);
    let joining = map.nodes[usize::from(node_count)..].iter().map(|row| row.id);
    for (what, request) in [
        ("2 % more nodes", Request::Add(joining.collect())),
        ("a node leaves", Request::Remove(vec![NodeId(node_count / 3)])),
        ("a zone is drained", Request::Drain(in_zone.filter(|node| node.0 <= node_count).collect())),
        ("a node counts fourfold", Request::Reweight { node: NodeId(1), weight: 4 }),
    ] {
        let (plan, time) =
            timed(|| tholos_cluster::plan(&map, &standings, &facts, &request).expect("enough nodes"));
        assert!(!plan.is_blocked(), "{:?}", plan.checks);
        println!(
            "  {what:<34} {time:>9.1?}   {:>6} copies, {:>6} at least",
            plan.copies(),
            plan.least_possible
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        println!("  memory of this process at most, so far: {}", peak.trim());
    }
}

fn main() {
    println!("{SHARDS} shards of 1 replica, {NODES} nodes, {SALTS} sets of names\n");
    println!("{:<34} {:>15} {:>19}", "", "largest ÷ mean", "moved ÷ necessary");
    println!("{:<34} {:>7} {:>7} {:>9} {:>9}", "", "median", "worst", "join", "leave");
    row("plain ring, 128 points (ours)", plain_ring);
    row("pingora-ketama, 160 points", ketama);
    row("hashring, 128 points", hash_ring);
    row("conhash, 128 points", con_hash);
    row("jumphash", jump);
    anchor();
    row("bounded ring without memory", bounded);
    with_memory();
    scale(100, 4096);
    scale(1000, 16_384);
    plans(100, 4096);
    plans(1000, 16_384);
}

/// AnchorHash remembers the order in which its resources came and went, so it is led through the changes.
fn anchor() {
    let (mut shares, mut join, mut leave) = (Vec::new(), Cost::default(), Cost::default());
    for salt in 0..SALTS {
        let names = names(salt, NODES + 1);
        let some = names[..NODES].to_vec();
        let builder = || anchorhash::Builder::default().with_resources(some.clone());
        // Its hash is seeded by chance at each build, so one instance is changed and changed back.
        let mut anchor = builder().build(64);
        let of = |anchor: &anchorhash::AnchorHash<String, String, _>| -> Vec<String> {
            shard_keys().map(|key| anchor.get_resource(key).expect("resources").clone()).collect()
        };
        let owners = of(&anchor);
        shares.push(most(&owners, &some));
        anchor.add_resource(names[NODES].clone()).expect("there is room");
        let joined = of(&anchor);
        join.moved += moved(&owners, &joined);
        join.least += joined.iter().filter(|owner| **owner == names[NODES]).count();
        anchor.remove_resource(&names[NODES]).expect("it is there");
        anchor.remove_resource(&names[NODES / 2]).expect("it is there");
        leave.moved += moved(&owners, &of(&anchor));
        leave.least += owners.iter().filter(|owner| **owner == names[NODES / 2]).count();
    }
    print_row("anchorhash", shares, &join, &leave);
}
