//! Nodes as processes of their own that are killed, drained and restarted: what the cluster does by itself, and what clients
//! see of it.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Cluster, DEADLINE, SHARDS, bring, row, text, tholos};
use serde_json::Value;

fn terminate(id: u32) {
    assert!(Command::new("kill").arg(id.to_string()).status().unwrap().success());
}

#[test]
fn a_node_that_is_killed_is_replaced_by_the_spare_without_an_operator() {
    let mut cluster = Cluster::start("lost", 3, 4, &["--placement-replace-after", "2s"]);
    let mut client = cluster.client(0);
    client.write(100, "v");
    cluster.kill(2);
    let whole = |status: &Value| {
        let up = ["n1", "n2", "n4"].map(|name| row(status, name));
        let held: u64 = up.iter().map(|node| node["replicas"].as_u64().unwrap()).sum();
        let caught_up = up.iter().all(|node| node["state"] == "up" && node["lag"] == 0);
        held == 3 * SHARDS && caught_up && row(status, "n3")["replicas"] == 0
    };
    let mut seen_under_way = false;
    let begin = Instant::now();
    loop {
        let status = cluster.json(&["cluster", "status"], &[0, 1]);
        let notes = status["notes"].to_string();
        seen_under_way |= notes.contains("replace n3 by n4 (down for ");
        if whole(&status) && !notes.contains("is running") {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "{status}");
    }
    let jobs = cluster.json(&["job", "list"], &[0, 1]);
    let job = &jobs["jobs"][0];
    assert_eq!((&job["state"], &job["cause"]), (&"done".into(), &"lost".into()), "{jobs}");
    assert!(job["title"].as_str().unwrap().starts_with("replace n3 by n4 (down for "), "{jobs}");
    assert!(seen_under_way, "the status tells of it while it is under way");
    client.check(100, "v");
    // Who returns is a spare now.
    cluster.restart(2);
    cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    let status = cluster.json(&["cluster", "status"], &[0]);
    assert_eq!(row(&status, "n3")["replicas"], 0, "{status}");
    assert_eq!(cluster.json(&["job", "list"], &[0])["jobs"].as_array().unwrap().len(), 1);
}

/// Writes until it is told to stop, by whichever node it reaches; what needed a second try, what failed for good, and how
/// many writes there were.
fn write_anywhere(gateways: &[String], name: usize, stop: &AtomicBool) -> (usize, Vec<String>, usize) {
    let mut at = name;
    let mut client = None;
    let mut attempt = |key: &str, at: &mut usize| -> Result<(), String> {
        let mut open = match client.take() {
            Some(open) => open,
            None => Client::connect(&gateways[*at % gateways.len()]).map_err(|error| error.to_string())?,
        };
        match open.ask(&["SET", key, key]) {
            Ok(Some(ok)) if ok == "+OK" => {
                client = Some(open);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    };
    let (mut again, mut failed, mut written) = (0, Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{name}:{written}");
        written += 1;
        let Err(first) = attempt(&key, &mut at) else { continue };
        again += 1;
        // As a client does that knows several nodes.
        at += 1;
        std::thread::sleep(Duration::from_millis(500));
        if let Err(second) = attempt(&key, &mut at) {
            failed.push(format!("{key}: {first}, then {second}"));
            at += 1;
        }
    }
    (again, failed, written)
}

#[test]
#[cfg(target_os = "linux")]
fn a_node_restarts_with_the_program_that_has_taken_the_place_of_its_own() {
    let mut cluster = Cluster::new("upgrade", 3);
    cluster.program = bring(&cluster.dir, "tholos");
    cluster.found(3);
    let newer = bring(&cluster.dir, "newer");
    std::fs::rename(newer, &cluster.program).unwrap();
    let runs = || std::fs::read_link(format!("/proc/{}/exe", cluster.id(1))).unwrap();
    assert!(runs().to_string_lossy().ends_with("/tholos (deleted)"), "{:?}", runs());
    cluster.change(&["cluster", "roll", "n2"], 0);
    assert_eq!(runs(), cluster.program.canonicalize().unwrap(), "{}", cluster.log(1));
    cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
}

#[test]
fn nodes_restart_one_after_the_other_and_a_client_that_retries_once_sees_no_error() {
    let cluster = Cluster::start("roll", 3, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let gateways: Vec<String> = (0..3).map(|at| cluster.gateway(at)).collect();
    let clients: Vec<_> = (0..3)
        .map(|name| {
            let (gateways, stop) = (gateways.clone(), Arc::clone(&stop));
            std::thread::spawn(move || write_anywhere(&gateways, name, &stop))
        })
        .collect();
    let ids: Vec<u32> = (0..3).map(|at| cluster.id(at)).collect();
    let plan = cluster.json(&["cluster", "roll"], &[0]);
    assert_eq!(plan["restarts"], serde_json::json!(["n1", "n2", "n3"]), "{plan}");
    assert_eq!((&plan["blocked"], &plan["moves_total"]), (&false.into(), &0.into()));
    let applied = cluster.run(&["cluster", "apply", plan["id"].as_str().unwrap(), "--detach"], &[0]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    // All are asked at once, so it does not matter that each of them is gone for a while.
    let watched = cluster.run(&["job", "watch", "1"], &[0, 1, 2]);
    let told = text(&watched.stdout);
    let last = told.lines().last().unwrap_or_default();
    let why = text(&watched.stderr);
    assert!(watched.status.success() && last.contains("3 restarts"), "{told}{why}");
    stop.store(true, Ordering::Relaxed);
    let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    eprintln!("needed a second try, failed, written: {ends:?}");
    let failed: Vec<&String> = ends.iter().flat_map(|(_, failed, _)| failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(cluster.log(at).matches("begins anew").count(), 1, "{}", cluster.log(at));
        assert_eq!(cluster.id(at), *id);
    }
    let status = cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    assert_eq!(row(&status, "n2")["version"], env!("CARGO_PKG_VERSION"));
    let mut client = cluster.client(1);
    for (name, (.., written)) in ends.iter().enumerate() {
        for number in 0..*written {
            let key = format!("{name}:{number}");
            assert_eq!(client.ask(&["GET", &key]).unwrap(), Some(key));
        }
    }
}

/// Sends many writes at once, again and again, until the connection ends; what was answered, and what was not.
fn write_in_batches(gateway: &str, name: usize) -> (Vec<String>, Vec<String>) {
    const BATCH: usize = 40;
    let mut client = Client::connect(gateway).unwrap();
    let (mut answered, mut number) = (Vec::new(), 0);
    loop {
        let keys: Vec<String> = (0..BATCH).map(|at| format!("{name}:{}", number + at)).collect();
        number += BATCH;
        let commands: Vec<[&str; 3]> = keys.iter().map(|key| ["SET", key, "v"]).collect();
        let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
        let mut done = 0;
        if client.send(&commands).is_ok() {
            while done < BATCH && client.reply().is_ok_and(|reply| reply.as_deref() == Some("+OK")) {
                done += 1;
            }
        }
        answered.extend(keys[..done].iter().cloned());
        if done < BATCH {
            return (answered, keys[done..].to_vec());
        }
    }
}

#[test]
fn a_drained_node_that_stops_leaves_no_request_in_doubt() {
    let mut cluster = Cluster::start("drain", 4, 4, &[]);
    // If it started last, others led its shards first.
    cluster.wait_for("its leaders", &[0], |status| row(status, "n4")["leads"].as_u64() > Some(0));
    let told = text(&cluster.run(&["cluster", "plan", "drain", "n4"], &[0]).stdout);
    assert!(told.contains("hands its leaders over, then its replicas; stays as a spare"), "{told}");
    cluster.change(&["cluster", "plan", "drain", "n4"], 0);
    let status = cluster.wait_for("drained", &[0], |status| row(status, "n4")["replicas"] == 0);
    assert_eq!(row(&status, "n4")["leads"], 0);

    let gateway = cluster.gateway(3);
    let clients: Vec<_> = (0..4)
        .map(|name| {
            let gateway = gateway.clone();
            std::thread::spawn(move || write_in_batches(&gateway, name))
        })
        .collect();
    // They are at it.
    let mut client = cluster.client(0);
    let begin = Instant::now();
    while client.ask(&["GET", "3:400"]).unwrap().is_none() {
        assert!(begin.elapsed() < DEADLINE);
    }
    terminate(cluster.id(3));
    let ended = cluster.child(3).wait().unwrap();
    assert!(ended.success(), "{}", cluster.log(3));
    let (mut answered, mut silent) = (Vec::new(), Vec::new());
    for client in clients {
        let (done, rest) = client.join().unwrap();
        answered.extend(done);
        silent.extend(rest);
    }
    assert!(answered.len() > 400);
    for key in answered {
        assert_eq!(client.ask(&["GET", &key]).unwrap().as_deref(), Some("v"), "{key} was acknowledged");
    }
    for key in silent {
        assert_eq!(client.ask(&["GET", &key]).unwrap(), None, "{key} was done and not answered");
    }
    // And out it goes, dead as it is.
    cluster.change(&["cluster", "plan", "remove", "n4"], 0);
    let status = cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{status}");
}

#[test]
fn a_plan_is_applied_by_its_name_after_every_node_has_restarted() {
    let mut cluster = Cluster::start("plan", 3, 4, &[]);
    let plan = cluster.json(&["cluster", "plan", "add", "n4"], &[0]);
    let id = plan["id"].as_str().unwrap();
    for at in 0..4 {
        cluster.kill(at);
        cluster.restart(at);
    }
    cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    let applied = cluster.run(&["cluster", "apply", id], &[1]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    let status = cluster.json(&["cluster", "status"], &[1]);
    assert_eq!(row(&status, "n4")["replicas"], 3 * SHARDS / 4, "{status}");
}

#[test]
fn nothing_begins_by_itself_while_it_is_held() {
    let mut cluster = Cluster::start("held", 3, 4, &["--placement-replace-after", "1s"]);
    let told = cluster.run(&["cluster", "hold"], &[0]);
    assert!(told.status.success() && text(&told.stdout).contains("tholos cluster release"));
    cluster.kill(2);
    // What was decided with n3 the others may hear from the next leader of the meta group.
    cluster.wait_for("down", &[0], |status| {
        row(status, "n3")["state"] == "down"
            && status["notes"].to_string().contains("no job begins by itself")
    });
    assert_eq!(cluster.run(&["cluster", "release"], &[0]).status.code(), Some(0));
    cluster.wait_for("replaced", &[0], |status| row(status, "n3")["replicas"] == 0);
}

#[test]
fn a_node_that_joins_gets_its_share_by_itself_where_that_is_wanted() {
    let cluster = Cluster::start("auto", 3, 4, &["--placement-auto", "true"]);
    let status = cluster.wait_for("shared", &[0], |status| row(status, "n4")["replicas"] == 3 * SHARDS / 4);
    let held = ["n1", "n2", "n3"].map(|name| row(&status, name)["replicas"].as_u64().unwrap());
    assert_eq!(held.iter().sum::<u64>(), 3 * SHARDS * 3 / 4, "{status}");
    let job = cluster.json(&["job", "list"], &[0])["jobs"][0].clone();
    assert_eq!((&job["title"], &job["cause"]), (&"add n4 (by itself)".into(), &"placement".into()), "{job}");
}

#[test]
fn a_program_that_cannot_be_reached_is_told() {
    let output = tholos().args(["cluster", "hold", "--at", "127.0.0.1:1"]).current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}
