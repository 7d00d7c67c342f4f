use alloc::vec;

use super::*;
use crate::answer::Question;
use crate::id::{Epoch, NodeId};

const CLUSTER: ClusterId = ClusterId([0xc1; 20]);

fn row(name: &str, incarnation: u64) -> NodeRow {
    NodeRow {
        id: NodeId(0),
        name: String::from(name),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(incarnation),
        gateway: format!("{name}:6379"),
        cluster: format!("{name}:7001"),
        peer: format!("{name}:7101"),
        http: format!("{name}:8080"),
    }
}

fn settings(names: &[&str]) -> Settings {
    let seeds = names
        .iter()
        .map(|name| Seed { name: String::from(*name), address: format!("{name}:7101") })
        .collect();
    Settings { seeds, shard_count: 8, replicas: 3 }
}

fn three() -> Settings {
    settings(&["n1", "n2", "n3"])
}

/// The beginning at a node of three; its first incarnation is 1 for n1, 2 for n2, 3 for n3.
fn genesis(name: &str, incarnation: u64) -> Genesis {
    Genesis::new(row(name, incarnation), three(), CLUSTER).expect("a valid beginning")
}

fn empty(name: &str, incarnation: u64) -> Answer {
    Answer::Empty { row: row(name, incarnation), settings: three() }
}

fn belongs(map: &ClusterMap) -> Answer {
    Answer::Belongs { cluster_id: map.cluster_id, map: map.encode() }
}

fn wait(missing: &[&str]) -> Step {
    Step::Wait { missing: missing.iter().map(|name| String::from(*name)).collect(), conflicts: vec![] }
}

/// The cluster that n1, n2 and n3 found with their first directories.
fn founded() -> ClusterMap {
    ClusterMap::genesis(CLUSTER, vec![row("n1", 1), row("n2", 2), row("n3", 3)], 8, 3)
        .expect("a valid cluster")
}

/// The one conflict that this answer of n2 brings to n1.
#[track_caller]
fn check_conflict(answer: Answer, expected: &str) {
    let mut genesis = genesis("n1", 1);
    genesis.handle_answer("n3", empty("n3", 3));
    let step = genesis.handle_answer("n2", answer);
    assert_eq!(step, Step::Wait { missing: vec![], conflicts: vec![String::from(expected)] });
    // A corrected answer replaces it, and all is well.
    assert_eq!(genesis.handle_answer("n2", empty("n2", 2)), Step::Found(founded()));
}

#[test]
fn the_first_by_name_founds_once_all_are_empty() {
    let mut genesis = genesis("n1", 1);
    assert_eq!(genesis.step(), wait(&["n2", "n3"]));
    assert_eq!(genesis.handle_answer("n3", empty("n3", 3)), wait(&["n2"]));
    assert_eq!(genesis.handle_answer("n2", empty("n2", 2)), Step::Found(founded()));
    assert_eq!(genesis.step(), Step::Found(founded()), "for ever");
    assert_eq!(genesis.handle_silence("n2"), Step::Found(founded()));
}

#[test]
fn the_others_wait_for_the_founder_and_join_it() {
    let mut genesis = genesis("n2", 2);
    assert_eq!(genesis.handle_answer("n1", empty("n1", 1)), wait(&["n3"]));
    assert_eq!(genesis.handle_answer("n3", empty("n3", 3)), Step::AwaitFounder("n1".into()));
    assert_eq!(genesis.handle_answer("n1", belongs(&founded())), Step::Join(founded()));
    assert_eq!(genesis.handle_answer("n1", empty("n1", 9)), Step::Join(founded()), "for ever");
}

#[test]
fn a_node_joins_without_having_heard_of_all() {
    // n3 founded with n1 and n2 while this node was still asking; one map that names it is enough.
    let mut genesis = genesis("n2", 2);
    assert_eq!(genesis.handle_answer("n3", belongs(&founded())), Step::Join(founded()));
}

#[test]
fn two_wiped_nodes_of_three_never_found_a_cluster() {
    // n1 and n2 lost their disks; n3 has the data and is down. They are a majority, and wait (G1).
    let mut n1 = genesis("n1", 11);
    let mut n2 = genesis("n2", 12);
    for _ in 0..100 {
        assert_eq!(n1.handle_answer("n2", empty("n2", 12)), wait(&["n3"]));
        assert_eq!(n2.handle_answer("n1", empty("n1", 11)), wait(&["n3"]));
        assert_eq!(n1.handle_silence("n3"), wait(&["n3"]));
        assert_eq!(n2.handle_silence("n3"), wait(&["n3"]));
    }
    // n3 comes back: it ends for good (G2).
    for node in [&mut n1, &mut n2] {
        let step = node.handle_answer("n3", belongs(&founded()));
        assert!(
            matches!(&step, Step::Known { seed, reason } if seed == "n3" && reason.contains("--rejoin yes")),
            "{step:?}"
        );
        assert_eq!(node.handle_answer("n3", empty("n3", 13)), step, "even if n3 is wiped after that");
    }
}

#[test]
fn an_answer_that_was_taken_back_does_not_count() {
    let mut genesis = genesis("n1", 1);
    genesis.handle_answer("n2", empty("n2", 2));
    assert_eq!(genesis.handle_silence("n2"), wait(&["n2", "n3"]));
    assert_eq!(genesis.handle_answer("n3", empty("n3", 3)), wait(&["n2"]));
    // n2 comes back with another directory, and that one is in the map (G3).
    let step = genesis.handle_answer("n2", empty("n2", 22));
    let Step::Found(map) = step else { panic!("{step:?}") };
    assert_eq!(map.by_name("n2").map(|row| row.incarnation), Some(Incarnation(22)));
    // So n2's older directory does not get in.
    let step = self::genesis("n2", 2).handle_answer("n1", belongs(&map));
    assert!(matches!(step, Step::Known { .. }), "{step:?}");
}

#[test]
fn a_stranger_to_the_cluster_is_refused() {
    let others =
        ClusterMap::genesis(CLUSTER, vec![row("n1", 1), row("n2", 2)], 8, 2).expect("a valid cluster");
    let step = genesis("n3", 3).handle_answer("n1", belongs(&others));
    let reason = format!(
        "n1 belongs to cluster {CLUSTER}, which does not know n3: let this node join that cluster (--join instead of \
         --seeds), or correct its seeds"
    );
    assert_eq!(step, Step::Refuse { reason });
}

#[test]
fn a_map_that_cannot_be_read_still_ends_it() {
    let check = |answer: Answer, expected: &str| {
        let step = genesis("n1", 1).handle_answer("n2", answer);
        assert!(matches!(&step, Step::Refuse { reason } if reason.contains(expected)), "{step:?}");
    };
    let mut newer = founded().encode();
    newer[0] = 9;
    check(Answer::Belongs { cluster_id: CLUSTER, map: newer }, "cannot be read: written in version 9");
    check(Answer::Belongs { cluster_id: CLUSTER, map: vec![] }, "cannot be read");
    check(Answer::Belongs { cluster_id: ClusterId([9; 20]), map: founded().encode() }, "shows the map of");
}

#[test]
fn strangers_and_echoes_change_nothing() {
    let mut genesis = genesis("n1", 1);
    assert_eq!(genesis.handle_answer("n9", belongs(&founded())), wait(&["n2", "n3"]));
    assert_eq!(genesis.handle_answer("n1", belongs(&founded())), wait(&["n2", "n3"]));
    assert_eq!(genesis.handle_answer("n1", empty("n1", 7)), wait(&["n2", "n3"]));
    assert_eq!(genesis.handle_silence("n1"), wait(&["n2", "n3"]));
    assert_eq!(genesis.answer(), empty("n1", 1));
}

#[test]
fn seeds_that_were_told_other_things_are_named() {
    let told = |change: fn(&mut Settings)| {
        let mut settings = three();
        change(&mut settings);
        Answer::Empty { row: row("n2", 2), settings }
    };
    check_conflict(told(|all| all.shard_count = 16), "n2 was told 16 shards, this node 8");
    check_conflict(told(|all| all.replicas = 1), "n2 was told 1 replicas, this node 3");
    check_conflict(
        told(|all| drop(all.seeds.pop())),
        "n2 was told the seeds n1=n1:7101,n2=n2:7101, this node n1=n1:7101,n2=n2:7101,n3=n3:7101",
    );
    check_conflict(
        told(|all| all.seeds[0].address = "n1:1".into()),
        "n2 was told the seeds n1=n1:1,n2=n2:7101,n3=n3:7101, this node n1=n1:7101,n2=n2:7101,n3=n3:7101",
    );
    check_conflict(empty("n3", 3), "the address given for n2 is answered by n3");
    check_conflict(empty("n2", 1), "n1 and n2 have copies of one directory: give n2 an empty one");
    let heavy = Answer::Empty { row: NodeRow { weight: 0, ..row("n2", 2) }, settings: three() };
    check_conflict(
        heavy,
        "n2 says something that is not valid: the weight of node n2 is not within 1 to 100",
    );
}

#[test]
fn the_order_of_seeds_does_not_matter() {
    let mut genesis =
        Genesis::new(row("n1", 1), settings(&["n3", "n1", "n2"]), CLUSTER).expect("a valid beginning");
    genesis.handle_answer("n2", empty("n2", 2));
    assert_eq!(genesis.handle_answer("n3", empty("n3", 3)), Step::Found(founded()));
}

#[test]
fn one_node_founds_alone() {
    let settings = Settings { replicas: 1, ..settings(&["n1"]) };
    let mut genesis = Genesis::new(row("n1", 1), settings, CLUSTER).expect("a valid beginning");
    let step = genesis.step();
    assert!(matches!(&step, Step::Found(map) if map.epoch == Epoch(1) && map.nodes.len() == 1), "{step:?}");
}

#[test]
fn what_no_answer_could_mend_is_refused_at_once() {
    let check = |name: &str, settings: Settings, expected: &str| {
        let error = Genesis::new(row(name, 1), settings, CLUSTER).expect_err("not valid");
        assert_eq!(format!("{error}"), expected);
    };
    check("n4", three(), "node n4 is not among its own seeds: name every node of the cluster there");
    check("n1", settings(&["n1", "n2", "n1"]), "seeds: n1 is named twice");
    check("n1", settings(&["n1", "n2"]), "3 replicas of a shard need as many nodes, and there are 2");
    check(
        "n1",
        settings(&["n1", "a b", "n3"]),
        "seeds: \"a b\" is no name: it takes 1 to 64 letters, digits, '.', '_' or '-'",
    );
    check(
        "n1",
        Settings { shard_count: 12, ..three() },
        "12 shards: it takes a power of two within 1 to 16384",
    );
    check("", three(), "\"\" is no name: it takes 1 to 64 letters, digits, '.', '_' or '-'");
}

#[test]
fn questions_and_answers_survive_the_way() {
    let question = Question { asker: "n1".into() };
    assert_eq!(Question::decode(&question.encode()), Ok(question));
    assert_eq!(Question::decode(b"\x02\0\0"), Err(MapError::UnknownVersion { written: 2, reads: 1 }));
    assert_eq!(Question::decode(b"\x01\0\0x"), Err(MapError::TrailingBytes));
    for answer in [empty("n1", 1), belongs(&founded())] {
        let bytes = answer.encode();
        assert_eq!(Answer::decode(&bytes), Ok(answer));
        for end in 0..bytes.len().min(22) {
            assert_eq!(Answer::decode(&bytes[..end]), Err(MapError::Truncated), "{end}");
        }
    }
    assert_eq!(Answer::decode(b"\x01\x02"), Err(MapError::UnknownKind(2)));
}
