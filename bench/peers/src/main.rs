//! The load that `bench/peers.py` puts on the peers of Tholos, and the clients that watch a node die.
//!
//! `bench-peers load --system redis-wait|etcd-put|etcd-get …` is a closed loop like `tholos bench`, with the same keys,
//! values, histogram and JSON, for systems that `tholos bench` does not speak to. `bench-peers failover …` kills the
//! Tholos node that leads most and reports how long writes stood still, `failover-etcd` does the like to etcd. Each prints
//! one line of JSON.

mod args;
mod etcd;
mod failover;
mod failover_etcd;
mod load;
mod redis;
mod sample;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let result = args::Args::parse(words).and_then(|args| match command.as_str() {
        "load" => load::run(&args),
        "failover" => failover::run(&args),
        "failover-etcd" => failover_etcd::run(&args),
        _ => Err("say `load`, `failover` or `failover-etcd`; bench/peers.py knows the options".to_owned()),
    });
    match result {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bench-peers: {why}");
            ExitCode::FAILURE
        }
    }
}
