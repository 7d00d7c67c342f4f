//! What a mistake is told, and with which exit code: on the command line, in the configuration, in the surroundings.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::{Cluster, text, tholos, wait_until};
use serde_json::Value;

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let dir = std::env::temp_dir().join(format!("tholos-mistakes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Temp(dir)
    }

    /// A command that is run there.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tholos();
        command.args(arguments).current_dir(&self.0);
        command
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address where nobody listens: a port that was free a moment ago.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[track_caller]
fn says(output: &Output, exit: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say \"{word}\": {said}");
    }
}

#[track_caller]
fn fails(arguments: &[&str], exit: i32, words: &[&str]) {
    let temp = Temp::new(&format!("fails{:?}", std::thread::current().id()));
    says(&temp.command(arguments).output().unwrap(), exit, words);
}

#[test]
fn what_no_cluster_can_be_founded_with_is_told_before_anything_starts() {
    let two = "n1=127.0.0.1:7101,n2=127.0.0.1:7102";
    let twins = "n1=127.0.0.1:7101,n2=127.0.0.1:7102,n3=127.0.0.1:7102";
    for what in [&["config", "check"][..], &["serve", "--gateway", "127.0.0.1:0", "--cluster", "127.0.0.1:0"]]
    {
        let with = |more: &[&'static str]| [what, &["--name", "n1", "--http", "127.0.0.1:0"], more].concat();
        let few = ["`replicas`", "3 copies", "2 seeds", "--replicas 1"];
        fails(&with(&["--seeds", two]), 2, &few);
        fails(&with(&["--seeds", twins]), 2, &["`seeds`", "n2 and n3", "127.0.0.1:7102"]);
        for listener in ["gateway", "cluster", "peer", "http"] {
            let flag = format!("--advertise-{listener}");
            let key = format!("`advertise_{listener}`");
            let with: Vec<&str> = [&with(&[])[..], &[flag.as_str(), "0.0.0.0:7000"]].concat();
            fails(&with, 2, &[&key, "nobody can dial 0.0.0.0:7000", "leave it out"]);
        }
    }
    fails(&["config", "check", "--name", "n1", "--advertise-peer", "[::]:1"], 2, &["`advertise_peer`"]);
    // Who joins is told by the cluster how many copies there are, and who founds one alone has one.
    for more in [&["--join", "127.0.0.1:7109"][..], &["--seeds", "n1=127.0.0.1:7101"], &[]] {
        fails(&[&["config", "check", "--name", "n1"], more].concat(), 0, &[]);
    }
}

/// What the flags say of the founding counts no more once it has been; what is not so is told, and stops nothing.
#[test]
fn a_node_that_has_its_map_starts_whatever_is_said_of_the_founding() {
    let mut cluster = Cluster::start("founded", 1, 1, &[]);
    let seeds = format!("n1={},n2=127.0.0.1:1", cluster.address(0, 2));
    assert!(!cluster.log(0).contains("WARN"), "{}", cluster.log(0));
    cluster.kill(0);
    cluster.nodes[0].more = vec!["--replicas".to_owned(), "5".to_owned()];
    cluster.set_seeds(0, &seeds);
    cluster.restart(0);
    let log = cluster.log(0);
    let told: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(told.len(), 1, "{log}");
    for part in ["replicas = 5 is not in force", "the cluster has 1", "tholos cluster plan replicas"] {
        assert!(told[0].contains(part), "{part:?} is not in: {}", told[0]);
    }
}

#[test]
fn a_node_that_is_alone_stops_without_a_warning() {
    let mut cluster = Cluster::start("alone", 1, 1, &[]);
    assert!(Command::new("kill").args(["-TERM", &cluster.id(0).to_string()]).status().unwrap().success());
    assert_eq!(cluster.child(0).wait().unwrap().code(), Some(0));
    let log = cluster.log(0);
    assert!(log.contains("stops") && !log.contains("WARN"), "{log}");
}

#[test]
fn a_file_in_the_way_of_a_client_is_told_and_its_secrets_do_not_matter() {
    let temp = Temp::new("file");
    let write = |text: &str| fs::write(temp.0.join("tholos.toml"), text).unwrap();
    let status = || temp.command(&["cluster", "status"]).output().unwrap();
    for wrong in ["http = \"127.0.0.1:1", "htpp = \"127.0.0.1:1\"", "http = 8080"] {
        write(wrong);
        says(&status(), 2, &["tholos.toml", "--at"]);
    }
    // Where else to ask makes it no matter.
    let nobody = nobody();
    says(&temp.command(&["cluster", "status", "--at", &nobody]).output().unwrap(), 3, &[&nobody]);
    let unreadable =
        "requirepass_file = \"/nonexistent/password\"\ncluster_secret_file = \"/nonexistent/secret\"";
    write(&format!("http = \"{nobody}\"\n{unreadable}\n"));
    says(&status(), 3, &[&nobody]);
    // What a node listens on everywhere is asked on this machine.
    let port = nobody.rsplit_once(':').unwrap().1;
    write(&format!("http = \"0.0.0.0:{port}\"\n"));
    says(&status(), 3, &[&format!("127.0.0.1:{port}: ")]);
    write(&format!("http = \"[::]:{port}\"\n"));
    says(&status(), 3, &[&format!("[::1]:{port}: ")]);
    // Without a file it is the default.
    fs::remove_file(temp.0.join("tholos.toml")).unwrap();
    let said = text(&status().stderr);
    assert!(!said.contains("tholos.toml"), "{said}");
}

#[test]
fn an_empty_secret_of_the_environment_is_none() {
    let temp = Temp::new("empty");
    for (name, key) in
        [("THOLOS_REQUIREPASS", "`requirepass`"), ("THOLOS_CLUSTER_SECRET", "`cluster_secret`")]
    {
        for empty in ["", " \n"] {
            let checked =
                temp.command(&["config", "check", "--name", "n1"]).env(name, empty).output().unwrap();
            says(&checked, 2, &[key, name, "empty", "unset it"]);
        }
    }
    let nobody = nobody();
    let clients = [&["bench", "--at", &nobody][..], &["check", "--at", &nobody]];
    for client in clients {
        let output = temp.command(client).env("THOLOS_REQUIREPASS", "").output().unwrap();
        says(&output, 2, &["THOLOS_REQUIREPASS", "empty", "unset it"]);
        fs::write(temp.0.join("password"), "\n").unwrap();
        let output = temp.command(&[client, &["--password-file", "password"]].concat()).output().unwrap();
        says(&output, 2, &["password", "empty"]);
    }
}

#[test]
fn an_address_that_is_none_is_told_before_anybody_is_asked() {
    for wrong in ["foo", "", "127.0.0.1:99999", "127.0.0.1", "a b:1", "127.0.0.1:"] {
        for what in
            [&["cluster", "status"][..], &["job", "list"], &["dev", "kill", "n1"], &["bench"], &["check"]]
        {
            fails(&[what, &["--at", wrong]].concat(), 2, &["--at", "HOST:PORT, such as"]);
        }
    }
    let temp = Temp::new("at");
    let status = |at: &str| temp.command(&["cluster", "status"]).env("THOLOS_AT", at).output().unwrap();
    says(&status("bogus"), 2, &["THOLOS_AT", "bogus", "HOST:PORT, such as"]);
    says(&status("127.0.0.1:1,127.0.0.1:99999"), 2, &["THOLOS_AT", "99999"]);
    // A name is an address, too, also one that nobody has.
    says(&status("nobody.invalid:8080, localhost:1"), 3, &["nobody.invalid:8080", "localhost:1"]);
}

#[test]
fn a_ready_file_that_cannot_be_written_is_told_at_the_start() {
    let listeners = ["--gateway", "--cluster", "--peer", "--http"].map(|flag| [flag, "127.0.0.1:0"]);
    let serve = [&["serve", "--name", "n1", "--log-level", "error"], listeners.as_flattened()].concat();
    let dev = ["dev", "--temp", "--port", "0", "--cluster-port", "0", "--peer-port", "0", "--http-port", "0"];
    for what in [&serve[..], &dev] {
        let with = [what, &["--ready-file", "/nonexistent/ready.json"]].concat();
        fails(&with, 2, &["--ready-file", "/nonexistent"]);
    }
    // A directory that the start itself makes will do.
    let temp = Temp::new("ready");
    let ready = temp.0.join("data/ready.json");
    let mut child =
        temp.command(&serve).args(["--dir", "data", "--ready-file", "data/ready.json"]).spawn().unwrap();
    wait_until("ready", || ready.exists().then_some(()).ok_or_else(String::new));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ports_of_a_dev_cluster_that_overlap_are_told() {
    let held: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = held[0].local_addr().unwrap().port();
    let (cluster, peer) = (port.to_string(), port.saturating_add(1).to_string());
    for (cluster, peer) in [(&cluster, &peer), (&peer, &cluster), (&peer, &peer)] {
        let ports = ["--port", "0", "--http-port", "0", "--cluster-port", cluster, "--peer-port", peer];
        fails(&[&["dev", "--temp"], &ports[..]].concat(), 2, &["--cluster-port", "--peer-port", "apart"]);
    }
}

#[test]
fn what_a_hold_comes_to_has_a_name() {
    let cluster = Cluster::start("hold", 1, 1, &[]);
    for (what, held) in [("hold", true), ("release", false)] {
        let done = cluster.json(&["cluster", what], &[0]);
        let epoch = cluster.json(&["cluster", "status"], &[0])["epoch"].clone();
        assert_eq!(done, serde_json::json!({"held": held, "epoch": epoch}));
        assert!(matches!(epoch, Value::Number(_)));
    }
}
