//! A whole zone is lost: both of its processes are killed, the others take over, and it comes back.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::collections::BTreeMap;

use common::{Cluster, SHARDS, row, text, wait_until};
use serde_json::Value;

const KEYS: usize = 60;
/// Of n1 to n6.
const ZONES: [&str; 6] = ["a", "a", "b", "b", "c", "c"];

/// Of each shard the zones of its replicas, sorted. The keys are enough to meet every shard.
fn zones(cluster: &Cluster, at: usize) -> BTreeMap<u64, Vec<&'static str>> {
    let mut zones = BTreeMap::new();
    let mut keys = (0..).map(|key| format!("k{key}"));
    while zones.len() < SHARDS as usize {
        let told = cluster.json(&["cluster", "locate", &keys.next().unwrap()], &[at]);
        let names = told["replicas"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let mut set: Vec<&str> = names.map(|name| ZONES[name[1..].parse::<usize>().unwrap() - 1]).collect();
        set.sort_unstable();
        zones.insert(told["shard"].as_u64().unwrap(), set);
    }
    zones
}

#[test]
fn a_lost_zone_is_replaced_within_the_rest_and_gets_its_place_back() {
    let mut cluster = Cluster::new("zones", 6);
    cluster.more = ["--placement-replace-after", "2s", "--placement-auto", "true"].map(String::from).to_vec();
    for (node, zone) in cluster.nodes.iter_mut().zip(ZONES) {
        node.more = vec!["--zone".to_owned(), zone.to_owned()];
    }
    cluster.found(6);
    let mut client = cluster.client(0);
    client.write(KEYS, "before");
    assert!(zones(&cluster, 0).values().all(|set| *set == ["a", "b", "c"]), "{:?}", zones(&cluster, 0));
    let status = cluster.json(&["cluster", "status"], &[0]);
    assert!(!status["notes"].to_string().contains("in a zone"), "{status}");

    cluster.kill(4);
    cluster.kill(5);
    let held = |status: &Value, names: &[&str]| -> u64 {
        names.iter().map(|name| row(status, name)["replicas"].as_u64().unwrap()).sum()
    };
    let rest = ["n1", "n2", "n3", "n4"];
    let status = cluster.wait_for("replaced within the rest", &[0, 1, 2, 3], |status| {
        let caught_up =
            rest.iter().all(|name| row(status, name)["state"] == "up" && row(status, name)["lag"] == 0);
        let at_it = status["notes"].to_string().contains("is running");
        held(status, &rest) == 3 * SHARDS && held(status, &["n5", "n6"]) == 0 && caught_up && !at_it
    });
    let notes = status["notes"].to_string();
    let warning = "8 shards have more than one replica in a zone: 2 zones are up, and 3 are needed";
    assert!(notes.contains(warning), "{status}");
    let jobs = cluster.json(&["job", "list"], &[0]);
    let last = jobs["jobs"].as_array().unwrap().iter().rfind(|job| job["cause"] == "lost").unwrap();
    assert_eq!(last["state"], "done", "{jobs}");
    // A plan of anything else says the same.
    let plan = text(&cluster.run(&["cluster", "plan", "even"], &[0]).stdout);
    assert!(plan.contains("zones: 2 zones for 3 replicas: 8 shards have more than one in a zone"), "{plan}");
    client.check(KEYS, "before");
    client.write(KEYS, "meanwhile");

    // It returns, and is given what it had by itself.
    [4, 5].into_iter().for_each(|at| cluster.spawn(at));
    [4, 5].into_iter().for_each(|at| cluster.wait_until_ready(at));
    cluster.wait_for("back in its place", &[0], |status| {
        status["verdict"] == "healthy"
            && held(status, &["n5", "n6"]) == SHARDS
            && !status["notes"].to_string().contains("in a zone")
            && !status["notes"].to_string().contains("is running")
    });
    let told = wait_until("one replica a zone", || {
        let told = zones(&cluster, 5);
        if told.values().all(|set| *set == ["a", "b", "c"]) { Ok(told) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(told.len(), SHARDS as usize);
    // Its return moved one replica of each shard, two of the meta group at most, and no more.
    let jobs = cluster.json(&["job", "list"], &[0]);
    let back = jobs["jobs"].as_array().unwrap().iter().filter(|job| job["cause"] == "placement");
    let moved: u64 = back.map(|job| job["replicas_total"].as_u64().unwrap()).sum();
    assert!((SHARDS..=SHARDS + 2).contains(&moved), "{jobs}");
    cluster.client(5).check(KEYS, "meanwhile");
}
