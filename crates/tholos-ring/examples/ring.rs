//! Shows where keys live, and which of them a new node takes.
//!
//! `cargo run -p tholos-ring --example ring -- --nodes n1,n2,n3 --keys user:1,user:2 --add n4`

use std::process::ExitCode;

use tholos_ring::{Node, NodeIndex, Ring, ShardMap, hash64, place, rebalance, slot};

const USAGE: &str = "\
usage: ring --nodes NAME[/ZONE][*WEIGHT],... [--keys KEY,...] [--add NODE,...] [--shards 64] [--replicas 3]

Prints where each key lives on the plain ring and in which shard's replica set,
and, with --add, which keys and shards the new nodes take.";

/// Keys hashed to count what share of a ring moves.
const SAMPLE: u64 = 100_000;

struct Options {
    nodes: Vec<String>,
    keys: Vec<String>,
    added: Vec<String>,
    shards: u16,
    replicas: u8,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { nodes: vec![], keys: vec![], added: vec![], shards: 64, replicas: 3 };
    while let Some(flag) = arguments.next() {
        if flag == "--help" {
            return Err(String::new());
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let list = || value.split(',').filter(|word| !word.is_empty()).map(String::from).collect();
        match flag.as_str() {
            "--nodes" => options.nodes = list(),
            "--keys" => options.keys = list(),
            "--add" => options.added = list(),
            "--shards" => {
                options.shards = value.parse().map_err(|_| format!("--shards {value}: not a number"))?
            }
            "--replicas" => {
                options.replicas = value.parse().map_err(|_| format!("--replicas {value}: not a number"))?;
            }
            _ => return Err(format!("{flag} is no option")),
        }
    }
    if options.nodes.is_empty() {
        return Err(String::from("--nodes is missing"));
    }
    Ok(options)
}

/// `n1/za*2` is node n1 in zone za with weight 2.
fn node(text: &str) -> Result<Node<'_>, String> {
    let (text, weight) = match text.split_once('*') {
        Some((text, weight)) => (text, weight.parse().map_err(|_| format!("weight {weight}: not a number"))?),
        None => (text, 1),
    };
    let (name, zone) = text.split_once('/').unwrap_or((text, ""));
    Ok(Node { name, zone, weight })
}

fn names(set: &[NodeIndex], nodes: &[Node<'_>]) -> String {
    set.iter().map(|node| nodes[usize::from(node.0)].name).collect::<Vec<_>>().join(" ")
}

fn owner<'a>(ring: &Ring, nodes: &[Node<'a>], key: &[u8]) -> &'a str {
    ring.get(hash64(key, 0)).map_or("nobody", |node| nodes[usize::from(node.0)].name)
}

fn run(options: &Options) -> Result<(), String> {
    let nodes = options.nodes.iter().map(|text| node(text)).collect::<Result<Vec<_>, _>>()?;
    let ring = Ring::new(&nodes);
    let map = place(&nodes, options.shards, options.replicas).map_err(|error| error.to_string())?;

    println!("{} nodes, {} points on the ring, {} shards\n", nodes.len(), ring.point_count(), options.shards);
    println!("{:<16}{:>6}  {:<6}{:<20}on the plain ring", "key", "slot", "shard", "replicas");
    for key in &options.keys {
        let shard = map.shard_of_key(key.as_bytes());
        println!(
            "{key:<16}{:>6}  {:<6}{:<20}{}",
            slot(key.as_bytes()).number(),
            shard.to_string(),
            names(map.replica_set(shard), &nodes),
            owner(&ring, &nodes, key.as_bytes())
        );
    }
    print_shares(&map, &nodes);
    if !options.added.is_empty() {
        let mut after = nodes.clone();
        for text in &options.added {
            after.push(node(text)?);
        }
        print_moves(options, &ring, &nodes, &after);
        print_plan(&map, &after, options.replicas)?;
    }
    Ok(())
}

fn print_shares(map: &ShardMap, nodes: &[Node<'_>]) {
    println!("\n{:<16}{:>9}{:>7}", "node", "replicas", "leads");
    for (at, node) in (0..).map(NodeIndex).zip(nodes) {
        let held = map.iter().filter(|(_, set)| set.contains(&at)).count();
        let leads = map.iter().filter(|(_, set)| set.first() == Some(&at)).count();
        println!("{:<16}{held:>9}{leads:>7}", node.name);
    }
}

fn print_moves(options: &Options, ring: &Ring, nodes: &[Node<'_>], after: &[Node<'_>]) {
    let ring_after = Ring::new(after);
    println!("\nwith {} the ring has {} points", options.added.join(" "), ring_after.point_count());
    for key in &options.keys {
        let (from, to) = (owner(ring, nodes, key.as_bytes()), owner(&ring_after, after, key.as_bytes()));
        if from == to {
            println!("{key:<16}stays on {from}");
        } else {
            println!("{key:<16}moves from {from} to {to}");
        }
    }
    let moved = |at: &u64| {
        let key = at.to_le_bytes();
        owner(ring, nodes, &key) != owner(&ring_after, after, &key)
    };
    let moved = (0..SAMPLE).filter(moved).count();
    let weight = |nodes: &[Node<'_>]| nodes.iter().map(|node| f64::from(node.weight)).sum::<f64>();
    println!(
        "of {SAMPLE} keys {:.1} % move; the least possible is {:.1} %",
        100.0 * moved as f64 / SAMPLE as f64,
        100.0 * (1.0 - weight(nodes) / weight(after))
    );
}

fn print_plan(map: &ShardMap, after: &[Node<'_>], replicas: u8) -> Result<(), String> {
    let plan = rebalance(map, after, replicas).map_err(|error| error.to_string())?;
    println!("\n{} replicas move; the least possible is {}", plan.moved(), plan.least_possible);
    for step in &plan.moves {
        let name = |node: Option<NodeIndex>| node.map_or("nobody", |node| after[usize::from(node.0)].name);
        println!("{:<6}{} -> {}", step.shard.to_string(), name(step.from), name(step.to));
    }
    print_shares(&plan.map, after);
    Ok(())
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_empty() => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ring: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
