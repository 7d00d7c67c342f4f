//! Jobs that start by themselves, and what a node does that is to hold nothing.

use std::collections::BTreeSet;

use tholos_cluster::{
    Cause, Epoch, JobOrder, JobState, MetaCommand, MetaState, NodeChange, NodeId, Request, Standing,
};
use tholos_node::{Event, NodeConfig, Notice, PeerMessage, Port};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::support::{Cluster, flat, row};

const SHARDS: u16 = 16;

fn quick(config: &mut NodeConfig) {
    config.replace_after = Some(Millis(3000));
}

/// Three nodes of a cluster with these settings, and so many spares.
fn cluster(settings: fn(&mut NodeConfig), spares: usize) -> Cluster {
    let mut cluster = Cluster::start(3, 3, settings);
    cluster.settings = settings;
    cluster.wait_for_leaders();
    for _ in 0..spares {
        join(&mut cluster);
    }
    cluster.advance(500);
    cluster
}

fn join(cluster: &mut Cluster) {
    let number = cluster.nodes.len() + 1;
    assert_eq!(cluster.ask_meta(meta_leader(cluster), MetaCommand::Join(row(number))), Ok(number as u64));
    cluster.add_node();
}

fn meta_leader(cluster: &Cluster) -> usize {
    let leads = |at: &usize| {
        let node = &cluster.nodes[*at];
        node.shard(node.map().meta_group()).is_some_and(|shard| shard.group.serving())
    };
    (0..cluster.nodes.len()).rfind(leads).expect("somebody leads the meta group")
}

fn state(cluster: &Cluster) -> &MetaState {
    let states = cluster.nodes.iter().map(|node| node.meta_state());
    states.max_by_key(|state| state.epoch()).expect("there are nodes")
}

/// A node that does not lead the meta group.
fn victim(cluster: &Cluster) -> usize {
    (meta_leader(cluster) + 1) % 3
}

#[track_caller]
fn advance_until(cluster: &mut Cluster, what: &str, until: impl Fn(&Cluster) -> bool) {
    for _ in 0..600 {
        if until(cluster) {
            return;
        }
        cluster.advance(50);
    }
    panic!("never: {what}; jobs: {:?}", state(cluster).jobs);
}

fn name(at: usize) -> String {
    format!("n{}", at + 1)
}

fn id(at: usize) -> NodeId {
    NodeId(at as u16 + 1)
}

#[test]
fn a_spare_takes_over_what_a_node_holds_that_is_down_for_too_long() {
    let mut cluster = cluster(quick, 1);
    let gone = victim(&cluster);
    let client = cluster.connect(meta_leader(&cluster), Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["SET k v"])), "+OK");
    cluster.cut(gone);
    cluster.advance(2500);
    let leader = meta_leader(&cluster);
    assert!(cluster.nodes[leader].down_for(id(gone)).is_some_and(|time| time >= Millis(1500)));
    assert_eq!(state(&cluster).jobs, []);
    advance_until(&mut cluster, "a job", |cluster| !state(cluster).jobs.is_empty());
    let job = &state(&cluster).jobs[0];
    let title = format!("replace {} by n4 (down for 3 s)", name(gone));
    assert_eq!((&job.title, &job.cause), (&title, &Cause::Lost(vec![id(gone)])));
    advance_until(&mut cluster, "done", |cluster| state(cluster).jobs[0].state == JobState::Done);
    let now = state(&cluster);
    assert_eq!((now.holds(id(gone)), now.holds(NodeId(4))), (0, 17), "and the meta group");
    assert_eq!(now.standing(id(gone)), Some(Standing::Spare));
    // And that is all.
    cluster.mend();
    cluster.advance(10_000);
    assert_eq!(state(&cluster).jobs.len(), 1);
    assert_eq!(flat(&cluster.ask(client, &["GET k"])), "$1 v");
}

#[test]
fn a_node_that_returns_in_time_only_catches_up() {
    let mut cluster = cluster(quick, 1);
    for _ in 0..3 {
        let gone = victim(&cluster);
        cluster.cut(gone);
        cluster.advance(2500);
        cluster.mend();
        cluster.advance(1000);
    }
    assert_eq!(state(&cluster).jobs, []);
}

#[test]
fn who_is_cut_off_or_stands_still_replaces_nobody() {
    let mut cluster = cluster(quick, 1);
    let leader = meta_leader(&cluster);
    cluster.cut(leader);
    cluster.advance(2500);
    assert_ne!(meta_leader(&cluster), leader);
    cluster.mend();
    cluster.advance(1000);
    // One is down for a while, and the leader stands still; when it goes on it hears the third first, which still follows it.
    let (leader, gone) = (meta_leader(&cluster), victim(&cluster));
    cluster.cut(gone);
    cluster.advance(1000);
    assert!(cluster.nodes[leader].down_for(id(gone)).is_some());
    cluster.skip(60_000);
    cluster.handle(3 - leader - gone, Event::Tick);
    cluster.settle();
    cluster.handle(leader, Event::Tick);
    assert_eq!(meta_leader(&cluster), leader);
    let down = cluster.nodes[leader].down_for(id(gone));
    assert!(down.is_none_or(|down| down < Millis(1000)), "{down:?}");
    cluster.mend();
    cluster.advance(2000);
    assert_eq!(state(&cluster).jobs, []);
}

#[test]
fn where_half_of_the_members_are_not_heard_nothing_is_planned() {
    let mut cluster = Cluster::start(4, 3, quick);
    cluster.wait_for_leaders();
    let leader = meta_leader(&cluster);
    let voters: Vec<usize> = {
        let state = state(&cluster);
        state.voters(state.map.meta_group()).map(|node| usize::from(node.0) - 1).collect()
    };
    // Most of the meta group is left.
    let voter = voters.iter().copied().find(|at| *at != leader).expect("three vote");
    let other = (0..4).find(|at| !voters.contains(at)).expect("and one does not");
    cluster.cut(voter);
    cluster.cut(other);
    cluster.advance(10_000);
    assert_eq!(meta_leader(&cluster), leader);
    assert!(cluster.nodes[leader].down_for(id(other)).is_some_and(|down| down > Millis(3000)));
    assert_eq!((state(&cluster).jobs.len(), cluster.nodes[leader].automatic_blocked()), (0, None));
}

#[test]
fn who_is_heard_by_another_is_not_down() {
    let mut cluster = cluster(quick, 1);
    // Not even by most of the cluster.
    cluster.lost_between = |from, to, _| from == 2 && to != 3;
    cluster.advance(10_000);
    assert_eq!(state(&cluster).jobs, []);
}

#[test]
fn a_node_that_returns_ends_the_job_that_replaces_it() {
    let mut cluster = cluster(quick, 1);
    let gone = victim(&cluster);
    cluster.cut(gone);
    // Nothing reaches a replica that was not there at the founding.
    cluster.lost = |message| matches!(message, PeerMessage::Paxos { to, .. } if to.0 > 0);
    advance_until(&mut cluster, "a job", |cluster| !state(cluster).jobs.is_empty());
    cluster.advance(3000);
    assert_eq!(state(&cluster).jobs[0].state, JobState::Running);
    cluster.mend();
    advance_until(&mut cluster, "cancelling", |cluster| state(cluster).jobs[0].state == JobState::Cancelling);
    cluster.lost = |_| false;
    advance_until(&mut cluster, "cancelled", |cluster| state(cluster).jobs[0].state == JobState::Cancelled);
    let now = state(&cluster);
    assert_eq!((now.standing(id(gone)), now.holds(id(gone)), now.held), (Some(Standing::Member), 17, false));
}

#[test]
fn a_job_whose_spare_dies_is_planned_anew() {
    let mut cluster = cluster(quick, 2);
    let gone = victim(&cluster);
    cluster.cut(gone);
    // Nothing reaches a replica that was not there at the founding.
    cluster.lost = |message| matches!(message, PeerMessage::Paxos { to, .. } if to.0 > 0);
    advance_until(&mut cluster, "a job", |cluster| !state(cluster).jobs.is_empty());
    assert!(state(&cluster).jobs[0].title.contains("by n4"));
    cluster.cut(3);
    advance_until(&mut cluster, "given up", |cluster| state(cluster).jobs[0].state == JobState::Cancelling);
    cluster.lost = |_| false;
    advance_until(&mut cluster, "done", |cluster| {
        state(cluster).jobs.get(1).is_some_and(|job| job.state == JobState::Done)
    });
    let now = state(&cluster);
    assert_eq!((now.holds(id(gone)), now.holds(NodeId(4)), now.holds(NodeId(5))), (0, 0, 17));
}

#[test]
fn nothing_begins_by_itself_where_it_is_not_to() {
    let mut cluster = cluster(|config| config.replace_after = None, 1);
    let gone = victim(&cluster);
    cluster.cut(gone);
    cluster.advance(10_000);
    assert_eq!(state(&cluster).jobs, [], "never");
    let mut cluster = self::cluster(quick, 1);
    assert!(cluster.ask_meta(0, MetaCommand::Hold(true)).is_ok());
    let gone = victim(&cluster);
    cluster.cut(gone);
    cluster.advance(10_000);
    assert_eq!(state(&cluster).jobs, [], "held");
    assert!(cluster.ask_meta(meta_leader(&cluster), MetaCommand::Hold(false)).is_ok());
    advance_until(&mut cluster, "a job", |cluster| !state(cluster).jobs.is_empty());
    assert!(cluster.ask_meta(meta_leader(&cluster), MetaCommand::Cancel(1)).is_ok());
    cluster.advance(10_000);
    assert_eq!(state(&cluster).jobs.len(), 1, "an operator has stopped it");
}

#[test]
fn what_is_blocked_is_told_and_begins_when_it_can() {
    let mut cluster = cluster(quick, 0);
    let gone = victim(&cluster);
    cluster.cut(gone);
    cluster.advance(6000);
    let why = cluster.nodes[meta_leader(&cluster)].automatic_blocked().map(String::from);
    let expected = format!("lost {}: 3 replicas of a shard need as many nodes", name(gone));
    assert!(why.as_ref().is_some_and(|why| why.starts_with(&expected)), "{why:?}");
    join(&mut cluster);
    advance_until(&mut cluster, "done", |cluster| {
        state(cluster).jobs.first().is_some_and(|job| job.state == JobState::Done)
    });
    assert_eq!(cluster.nodes[meta_leader(&cluster)].automatic_blocked(), None);
}

fn by_itself(config: &mut NodeConfig) {
    quick(config);
    config.auto_placement = true;
}

#[test]
fn two_that_join_get_their_shares_by_one_job() {
    let mut cluster = cluster(by_itself, 1);
    cluster.advance(3000);
    join(&mut cluster);
    assert_eq!(state(&cluster).jobs, []);
    advance_until(&mut cluster, "done", |cluster| {
        state(cluster).jobs.first().is_some_and(|job| job.state == JobState::Done)
    });
    let job = &state(&cluster).jobs[0];
    assert_eq!((job.title.as_str(), &job.cause), ("add n4 n5 (by itself)", &Cause::Placement));
    cluster.advance(20_000);
    let now = state(&cluster);
    assert_eq!(now.jobs.len(), 1, "all shares are even");
    let shares: BTreeSet<usize> = now.map.nodes.iter().map(|row| now.map.shards_of(row.id).count()).collect();
    assert!(shares.iter().all(|share| [9, 10].contains(share)), "{shares:?}");
}

#[test]
fn a_node_that_was_replaced_gets_its_place_back() {
    let mut cluster = cluster(by_itself, 1);
    // The spare is a member before long.
    advance_until(&mut cluster, "done", |cluster| {
        state(cluster).jobs.first().is_some_and(|job| job.state == JobState::Done)
    });
    let gone = victim(&cluster);
    cluster.cut(gone);
    advance_until(&mut cluster, "replaced", |cluster| {
        state(cluster).jobs.get(1).is_some_and(|job| job.state == JobState::Done)
    });
    assert!(state(&cluster).jobs[1].title.starts_with(&format!("replace {} (down for", name(gone))));
    assert_eq!(state(&cluster).holds(id(gone)), 0);
    cluster.mend();
    advance_until(&mut cluster, "back", |cluster| {
        state(cluster).jobs.get(2).is_some_and(|job| job.state == JobState::Done)
    });
    assert_eq!(state(&cluster).map.shards_of(id(gone)).count(), 12);
}

#[test]
fn what_ended_early_is_made_even() {
    let mut cluster = cluster(by_itself, 1);
    cluster.lost = |message| matches!(message, PeerMessage::Paxos { to, .. } if to.0 > 0);
    advance_until(&mut cluster, "a job", |cluster| !state(cluster).jobs.is_empty());
    cluster.advance(1000);
    assert!(cluster.ask_meta(0, MetaCommand::Cancel(1)).is_ok());
    cluster.lost = |_| false;
    advance_until(&mut cluster, "cancelled", |cluster| state(cluster).jobs[0].state == JobState::Cancelled);
    assert!(cluster.ask_meta(0, MetaCommand::Hold(false)).is_ok());
    advance_until(&mut cluster, "even", |cluster| {
        state(cluster).jobs.get(1).is_some_and(|job| job.state == JobState::Done)
    });
    assert_eq!(state(&cluster).jobs[1].title, "even (by itself)");
    assert_eq!(state(&cluster).map.shards_of(NodeId(4)).count(), 12);
}

#[test]
fn a_node_that_is_to_hold_nothing_leads_nothing_long_before_its_replicas_go() {
    let mut cluster = cluster(quick, 0);
    let (at, before) =
        (0..3).map(|at| (at, cluster.leads(at))).max_by_key(|(_, leads)| *leads).expect("three");
    assert!(before > 0);
    let order = JobOrder {
        plan: 1,
        epoch: state(&cluster).epoch(),
        title: "nothing moves yet".into(),
        in_flight_max: 1,
        bytes_per_s: 0,
        replicas: 3,
        changes: vec![NodeChange::Standing(id(at), Standing::Draining)],
        moves: Vec::new(),
        removes: Vec::new(),
        cause: Cause::Operator,
        restarts: Vec::new(),
    };
    assert!(cluster.ask_meta(meta_leader(&cluster), MetaCommand::StartJob(order)).is_ok());
    cluster.advance(1000);
    assert_eq!(cluster.leads(at), 0);
    assert_eq!((0..3).map(|at| cluster.leads(at)).sum::<usize>(), 17);
    // Nor does anybody hand one back to it, who is the first of its sets.
    cluster.notices.clear();
    cluster.advance(65_000);
    let elected =
        |(by, notice): &(usize, Notice)| *by == at && matches!(notice, Notice::LeaderElected { .. });
    assert!(!cluster.notices.iter().any(elected));
}

#[test]
fn leaders_leave_a_node_that_drains_before_its_replicas() {
    let mut cluster = cluster(quick, 1);
    let (at, before) =
        (0..3).map(|at| (at, cluster.leads(at))).max_by_key(|(_, leads)| *leads).expect("three");
    assert!(before > 0);
    let node = id(at);
    cluster.notices.clear();
    let map = state(&cluster).map.clone();
    let standings = state(&cluster).standings.clone();
    let facts =
        tholos_cluster::Facts { nodes: vec![tholos_cluster::NodeFacts::default(); 4], shards: Vec::new() };
    let request = Request::Replace { old: node, new: NodeId(4) };
    let order =
        tholos_cluster::plan(&map, &standings, &facts, &request).expect("it fits").to_order(&map, 4, 0);
    assert!(order.changes.contains(&NodeChange::Standing(node, Standing::Draining)));
    assert_eq!(order.epoch, Epoch(2));
    assert_eq!(cluster.ask_meta(meta_leader(&cluster), MetaCommand::StartJob(order)), Ok(1));
    advance_until(&mut cluster, "done", |cluster| state(cluster).jobs[0].state == JobState::Done);
    // None of its shards was changed while it led.
    let changed_by_it =
        |(by, notice): &(usize, Notice)| *by == at && matches!(notice, Notice::ReplicasChanging { .. });
    assert!(!cluster.notices.iter().any(changed_by_it));
    let elected =
        |(by, notice): &(usize, Notice)| *by == at && matches!(notice, Notice::LeaderElected { .. });
    assert!(!cluster.notices.iter().any(elected), "nobody hands it one back");
    assert_eq!(cluster.leads(at), 0);
    cluster.advance(1000);
    let held = (0..=SHARDS).filter(|group| cluster.nodes[at].shard(ShardId(*group)).is_some()).count();
    assert_eq!(held, 0);
}
