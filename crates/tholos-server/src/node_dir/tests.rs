use super::*;

use tholos_cluster::{Epoch, NodeId, NodeRow};

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        let path = std::env::temp_dir().join(format!("tholos-dir-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn map(incarnation: Incarnation) -> ClusterMap {
    let row = NodeRow {
        id: NodeId(1),
        name: "n1".into(),
        zone: String::new(),
        weight: 1,
        incarnation,
        gateway: "127.0.0.1:6379".into(),
        cluster: "127.0.0.1:7001".into(),
        peer: "127.0.0.1:7101".into(),
        http: "127.0.0.1:8080".into(),
    };
    ClusterMap {
        cluster_id: ClusterId([7; 20]),
        epoch: Epoch(1),
        shard_count: 2,
        replicas: 1,
        nodes: vec![row],
        shards: vec![vec![NodeId(1)]; 2],
    }
}

/// Opening must fail with a message that contains each of `parts`.
fn check_refused(parent: &Path, parts: &[&str]) {
    let error = NodeDir::open(parent, "n1").unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn identity_outlives_the_process_and_incarnations_differ() {
    let temp = Temp::new();
    let mut directory = NodeDir::open(&temp.0, "n1").unwrap();
    let other = NodeDir::open(&temp.0, "n2").unwrap();
    assert_ne!(directory.identity().incarnation, other.identity().incarnation);
    assert_eq!(directory.identity().map, None);
    let incarnation = directory.identity().incarnation;
    directory.write_map(map(incarnation)).unwrap();
    let written = directory.identity().clone();
    drop(directory);
    let again = NodeDir::open(&temp.0, "n1").unwrap();
    assert_eq!(*again.identity(), written);
    assert_eq!(again.identity().map.as_ref().unwrap().nodes[0].incarnation, incarnation);
}

#[test]
fn directory_in_use_names_the_process() {
    let temp = Temp::new();
    let held = NodeDir::open(&temp.0, "n1").unwrap();
    check_refused(&temp.0, &["in use", &format!("pid {}", std::process::id())]);
    assert!(matches!(remove(held.path()), Err(DirectoryError::InUse { .. })));
    drop(held);
    NodeDir::open(&temp.0, "n1").unwrap();
}

#[test]
fn strangers_files_are_left_alone() {
    let temp = Temp::new();
    let path = temp.0.join("n1");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("thesis.txt"), "years of work").unwrap();
    check_refused(&temp.0, &["no node's directory", "thesis.txt"]);
    assert!(matches!(remove(&path), Err(DirectoryError::NotOurs { .. })));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    fs::write(path.join("node.toml"), "tholos = \"something else\"\nformat = 1\n").unwrap();
    check_refused(&temp.0, &["mark"]);
    assert!(matches!(remove(&path), Err(DirectoryError::NotOurs { .. })));
}

#[test]
fn newer_format_is_told_as_such() {
    let temp = Temp::new();
    let path = temp.0.join("n1");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("node.toml"), "tholos = \"node directory\"\nformat = 3\nidentity = [1]\n").unwrap();
    check_refused(&temp.0, &["directory format 3", "up to 2", "start the release that wrote it"]);
}

#[test]
fn copied_directory_of_another_node_is_refused() {
    let temp = Temp::new();
    drop(NodeDir::open(&temp.0, "n2").unwrap());
    fs::rename(temp.0.join("n2"), temp.0.join("n1")).unwrap();
    check_refused(&temp.0, &["belongs to node n2, not to n1"]);
}

#[test]
fn damaged_map_is_told_as_such() {
    let temp = Temp::new();
    let mut directory = NodeDir::open(&temp.0, "n1").unwrap();
    directory.write_map(map(Incarnation(1))).unwrap();
    drop(directory);
    let file = temp.0.join("n1/node.toml");
    // Format 1 had no checksum.
    let text = fs::read_to_string(&file).unwrap().replace("format = 2", "format = 1");
    fs::write(&file, text.replace("map = \"01", "map = \"63")).unwrap();
    check_refused(&temp.0, &["cluster map", "version 99"]);
    fs::write(&file, text).unwrap();
    assert!(NodeDir::open(&temp.0, "n1").unwrap().identity().map.is_some());
}

#[test]
fn any_damage_to_an_identity_is_refused() {
    let temp = Temp::new();
    let mut directory = NodeDir::open(&temp.0, "n1").unwrap();
    directory.write_map(map(Incarnation(1))).unwrap();
    let (path, identity) = (directory.path().to_owned(), directory.identity().clone());
    let text = fs::read(path.join("node.toml")).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(path.join("node.toml"), bytes).unwrap();
        match read_identity(&path) {
            Ok(read) => assert_eq!(read, None, "{what} was taken for {identity:?}"),
            Err(error) => {
                assert!(error.to_string().contains("node.toml") || error.to_string().contains("format"))
            }
        }
    };
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << bit;
            refused(&damaged, &format!("byte {at} bit {bit}"));
        }
        refused(&text[..at], &format!("cut at {at}"));
    }
    fs::write(path.join("node.toml"), &text).unwrap();
    assert_eq!(read_identity(&path).unwrap(), Some(identity));
}

#[test]
fn first_start_that_was_cut_off_starts_again() {
    let temp = Temp::new();
    let path = temp.0.join("n1");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("LOCK"), "").unwrap();
    fs::write(path.join("node.toml.tmp"), "thol").unwrap();
    NodeDir::open(&temp.0, "n1").unwrap();
}

#[test]
fn removal_takes_a_node_and_nothing_else() {
    let temp = Temp::new();
    drop(NodeDir::open(&temp.0, "n1").unwrap());
    let path = temp.0.join("n1");
    assert!(has_marker(&path));
    fs::create_dir(path.join("wal")).unwrap();
    fs::write(path.join("wal/1.log"), "x").unwrap();
    remove(&path).unwrap();
    assert!(!path.exists() && temp.0.exists());
}
