//! What strangers and operators can do to a node by its ports: connections without end, and the admin interface.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod common;

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use common::{Cluster, text, tholos};

/// A cluster of one node, not started, whose process may open so many files.
fn bounded(name: &str, open_files: u32, more: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(name, 1);
    let program = cluster.dir.join("bounded");
    let binary = env!("CARGO_BIN_EXE_tholos");
    let script = format!("#!/bin/sh\nulimit -n {open_files}\nexec {binary} \"$@\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.program = program;
    cluster.more = more.iter().map(|word| (*word).to_owned()).collect();
    cluster
}

/// Connections that ask nothing.
fn idle(address: &str, count: usize) -> Vec<TcpStream> {
    // The node may close what is too much before it is connected here.
    (0..count).filter_map(|_| TcpStream::connect(address).ok()).collect()
}

/// What a command ends with and says, at the admin port of a node, with such an environment.
fn command(cluster: &Cluster, words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = tholos();
    command.args(words).args(["--at", &cluster.address(0, 3)]).current_dir(&cluster.dir);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn idle_connections_leave_a_node_the_files_that_it_needs() {
    let mut cluster = bounded("idle", 480, &["--wal-segment-bytes", "1MiB"]);
    cluster.found(1);
    let mut client = cluster.client(0);
    let _silent: Vec<_> = [0, 1, 2, 3].map(|of| idle(&cluster.address(0, of), 150)).into_iter().collect();
    let value = "x".repeat(256 << 10);
    // The log goes through many segments.
    for round in 0..40 {
        let set =
            client.ask(&["SET", "k", &value]).unwrap_or_else(|error| panic!("{error}: {}", cluster.log(0)));
        assert_eq!(set.as_deref(), Some("+OK"), "round {round}: {}", cluster.log(0));
    }
    client.send(&[&["CONFIG", "GET", "maxclients"]]).unwrap();
    let reply = [client.reply(), client.reply(), client.reply()].map(|line| line.unwrap().unwrap());
    assert_eq!(reply, ["*2", "maxclients", "48"]);
    let said = cluster.log(0);
    for word in ["open_files=480", "allowed=10240", "clients=48", "ulimit -n", "LimitNOFILE"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    assert!(cluster.child(0).try_wait().unwrap().is_none(), "{said}");
}

#[test]
fn a_node_without_files_for_itself_does_not_start() {
    let cluster = bounded("few", 200, &[]);
    let output = std::process::Command::new(&cluster.program)
        .args([
            "serve",
            "--name",
            "n1",
            "--dir",
            "data",
            "--gateway",
            "127.0.0.1:0",
            "--cluster",
            "127.0.0.1:0",
        ])
        .args(["--peer", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .current_dir(&cluster.dir)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("may open 200 files") && said.contains("ulimit -n"), "{said}");
}

#[test]
fn the_command_line_shows_the_password_that_it_finds() {
    let mut cluster = Cluster::new("password", 1);
    let file = |cluster: &Cluster, name: &str, text: &str| {
        let path = cluster.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file(&cluster, "right", "s\u{e9}cret:1\n"), file(&cluster, "wrong", "no\n"));
    cluster.more = vec!["--requirepass-file".to_owned(), right.clone()];
    cluster.found(1);
    let hold = &["cluster", "hold"];
    let refused = |(code, said): (Option<i32>, String)| {
        let remedy = said.contains("--password-file") && said.contains("THOLOS_REQUIREPASS");
        assert!(code == Some(4) && remedy && !said.contains("cret"), "{code:?} {said}");
    };
    let done = |(code, said): (Option<i32>, String)| assert_eq!(code, Some(0), "{said}");
    refused(command(&cluster, hold, &[]));
    refused(command(&cluster, &["cluster", "hold", "--password-file", &wrong], &[]));
    refused(command(&cluster, hold, &[("THOLOS_REQUIREPASS", "no")]));
    refused(command(&cluster, &["job", "pause", "1"], &[]));
    done(command(&cluster, &["cluster", "status"], &[]));
    done(command(&cluster, &["cluster", "hold", "--password-file", &right], &[("THOLOS_REQUIREPASS", "no")]));
    done(command(&cluster, hold, &[("THOLOS_REQUIREPASS", "s\u{e9}cret:1")]));
    file(&cluster, "tholos.toml", "requirepass_file = \"right\"\n");
    done(command(&cluster, hold, &[]));
    // Its node may have another by now.
    let mut client = cluster.client(0);
    for words in [&["AUTH", "s\u{e9}cret:1"][..], &["CONFIG", "SET", "requirepass", "other"]] {
        assert_eq!(client.ask(words).unwrap().as_deref(), Some("+OK"));
    }
    refused(command(&cluster, hold, &[]));
    done(command(&cluster, hold, &[("THOLOS_REQUIREPASS", "other")]));
    assert_eq!(client.ask(&["CONFIG", "SET", "requirepass", ""]).unwrap().as_deref(), Some("+OK"));
    done(command(&cluster, hold, &[]));
    let gone = cluster.dir.join("gone");
    let (code, said) =
        command(&cluster, &["cluster", "hold", "--password-file", gone.to_str().unwrap()], &[]);
    assert!(code == Some(2) && said.contains("gone"), "{code:?} {said}");
}
