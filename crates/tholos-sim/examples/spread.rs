//! How soon a change of the cluster map reaches every node, and how long the messages are.
//!
//! `cargo run --profile sim -p tholos-sim --example spread [-- NODES]`

use std::process::ExitCode;

use tholos_sim::spread::{grows_no_faster, run};

/// Nodes, if nothing is said.
const NODES: usize = 1_000;
/// What is compared with has so many times fewer.
const FEWER: usize = 4;
/// The bar, in microseconds.
const SPREAD_US_MAX: u64 = 1_000_000;

fn main() -> ExitCode {
    let nodes = std::env::args().nth(1).map_or(Ok(NODES), |text| text.parse());
    let Some(nodes) = nodes.ok().filter(|nodes| (4 * FEWER..=10_000).contains(nodes)) else {
        eprintln!("spread: the number of nodes is wanted, {} to 10000", 4 * FEWER);
        return ExitCode::from(2);
    };
    let measured = [nodes / FEWER, nodes].map(|nodes| (nodes, run(nodes, 1)));
    for (nodes, outcome) in &measured {
        match outcome {
            Ok(outcome) => println!(
                "{nodes} nodes: all know after {:.0} ms; {} messages, {} of them maps; longest by kind, in bytes: {:?}",
                outcome.spread_us as f64 / 1e3,
                outcome.messages,
                outcome.maps,
                outcome.largest
            ),
            Err(why) => println!("{nodes} nodes: {why}"),
        }
    }
    let [(_, Ok(few)), (_, Ok(many))] = &measured else { return ExitCode::FAILURE };
    if let Err(why) = grows_no_faster(few, many, FEWER) {
        println!("{why}");
        return ExitCode::FAILURE;
    }
    if many.spread_us <= SPREAD_US_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
