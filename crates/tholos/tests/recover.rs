//! Nodes as processes of their own, two of three of which are destroyed (R29): the one that is left goes on, and new ones
//! join it.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::fs;

use common::{Cluster, SHARDS, text, wait_until};
use serde_json::Value;

const KEYS: usize = 60;

/// Plans until nothing blocks, since nodes are heard for a moment after they are gone; the plan's name.
fn plan(cluster: &Cluster, lost: &str, at: usize) -> String {
    wait_until("planned", || {
        let (plan, code) = cluster.json_and_code(&["cluster", "recover", "--lost", lost], &[at]);
        if code == 0 { Ok(plan["id"].as_str().unwrap().to_owned()) } else { Err(plan.to_string()) }
    })
}

#[test]
fn a_recovery_is_applied_at_another_survivor() {
    let mut cluster = Cluster::start("survivors", 4, 4, &[]);
    cluster.client(0).write(KEYS, "before");
    cluster.kill(2);
    cluster.kill(3);
    let id = plan(&cluster, "n3,n4", 0);
    let mixed = cluster.run(&["cluster", "apply", &id], &[1]);
    assert!(
        text(&mixed.stderr).contains("is a recovery: tholos cluster recover apply"),
        "{}",
        text(&mixed.stderr)
    );
    let apply = ["cluster", "recover", "apply", &id, "--i-accept-loss", "--json"];
    let applied = cluster.run(&apply, &[1]);
    let done = text(&applied.stdout);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    assert!(done.contains(r#""by":"n2""#) && done.contains(r#""finished":true"#), "{done}");
    cluster.client(1).check(KEYS, "before");
}

#[test]
fn one_process_of_three_goes_on_and_two_new_ones_join_it() {
    let mut cluster = Cluster::new("recover", 5);
    cluster.found(3);
    cluster.client(1).write(KEYS, "before");
    // Somebody who is alive is not given up, and where there is a majority there is nothing to do.
    let (plan, code) = cluster.json_and_code(&["cluster", "recover", "--lost", "n3"], &[0]);
    assert_eq!((code, plan["blocked"].as_bool()), (1, Some(true)));
    assert!(plan["blocks"].to_string().contains("n3 is named lost and answers"), "{plan}");
    let old = fs::read_dir(cluster.dir.join("n2")).unwrap().count();
    assert!(old > 1, "its data is there");
    cluster.kill(1);
    cluster.kill(2);
    // A copy that somebody has kept of a directory that should be gone.
    fs::rename(cluster.dir.join("n2"), cluster.dir.join("n2.old")).unwrap();
    fs::remove_dir_all(cluster.dir.join("n3")).unwrap();
    cluster.wait_for("noticed", &[0], |status| status["verdict"] == "unavailable");

    let (plan, code) = cluster.json_and_code(&["cluster", "recover", "--lost", "n2"], &[0]);
    assert_eq!(code, 1, "n3 may know more: {plan}");
    assert!(plan["blocks"].to_string().contains("n3 does not answer and is not named lost"), "{plan}");
    // Nodes are heard for a moment after they are gone.
    let shown = wait_until("planned", || {
        let shown = cluster.run(&["cluster", "recover", "--lost", "n2,n3"], &[0]);
        if shown.status.success() { Ok(text(&shown.stdout)) } else { Err(text(&shown.stderr)) }
    });
    for part in [
        "given up for ever: n2, n3",
        "9 groups go on with less; 0 of them lose nothing for certain. 0 groups have a majority",
        "They must be destroyed first",
        "--i-accept-loss",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (plan, code) = cluster.json_and_code(&["cluster", "recover", "--lost", "n2,n3"], &[0]);
    assert_eq!((code, plan["rescues"].as_array().unwrap().len()), (0, 9), "{plan}");
    let id = plan["id"].as_str().unwrap().to_owned();
    let silent = cluster.run(&["cluster", "recover", "apply", &id], &[0]);
    assert_eq!(silent.status.code(), Some(2), "never without the operator's word");
    let unknown = cluster.run(&["cluster", "recover", "apply", "00000000", "--i-accept-loss"], &[0]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("plan it again"), "{}", text(&unknown.stderr));
    let (done, code) = cluster.json_and_code(&["cluster", "recover", "apply", &id, "--i-accept-loss"], &[0]);
    assert_eq!((code, done["finished"].as_bool()), (0, Some(true)), "{done} {}", cluster.log(0));
    let (again, code) = cluster.json_and_code(&["cluster", "recover", "apply", &id, "--i-accept-loss"], &[0]);
    assert_eq!((code, &again["id"]), (0, &done["id"]), "given again, it is the same");

    let mut client = cluster.client(0);
    client.check(KEYS, "before");
    client.write(KEYS, "alone");
    let (status, code) = cluster.json_and_code(&["cluster", "status"], &[0]);
    assert_eq!((code, status["nodes"].as_array().unwrap().len()), (1, 1), "{status}");
    assert!(status["notes"].to_string().contains("8 shards have fewer than 3 replicas"), "{status}");
    assert!(status["notes"].to_string().contains("gave up n2 and n3 for ever; 9 groups go on"), "{status}");
    let history = text(&cluster.run(&["cluster", "recover", "--history"], &[0]).stdout);
    assert!(history.contains("recovery 1 by n1 at 20"), "{history}");

    // The copy comes back: it is refused, and says so.
    fs::rename(cluster.dir.join("n2.old"), cluster.dir.join("n2")).unwrap();
    cluster.spawn(1);
    wait_until("refused", || {
        let log = cluster.log(1);
        let refused = log.contains("the cluster goes on without this node: it was given up for ever");
        if refused { Ok(()) } else { Err(format!("{} {log}", cluster.log(0))) }
    });
    let told = cluster.run(&["cluster", "status"], &[1]);
    assert_eq!(told.status.code(), Some(1), "what it has seen last is no status: {}", text(&told.stdout));
    assert!(text(&told.stderr).contains("the cluster goes on without n2"), "{}", text(&told.stderr));
    client.write(1, "alone");
    cluster.kill(1);

    // Two new ones; and n1 is killed while they get its data.
    [3, 4].into_iter().for_each(|at| cluster.join(at));
    let (plan, code) = cluster.json_and_code(&["cluster", "plan", "add", "n4", "n5"], &[0]);
    assert_eq!(code, 0, "{plan}");
    let started = cluster.run(&["cluster", "apply", plan["id"].as_str().unwrap(), "--detach"], &[0]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_for("whole again", &[0], |status| {
        let nodes = status["nodes"].as_array().unwrap();
        let whole = |node: &Value| node["replicas"] == SHARDS && node["lag"] == 0 && node["state"] == "up";
        status["verdict"] == "healthy" && nodes.len() == 3 && nodes.iter().all(whole)
    });
    cluster.client(3).check(KEYS, "alone");
    cluster.client(4).write(KEYS, "after");
    // Any one of them may fail now.
    cluster.kill(0);
    let mut client = cluster.client(3);
    client.write(KEYS, "later");
    client.check(KEYS, "later");
}
