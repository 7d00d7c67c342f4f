//! Nodes join, replicas move and nodes leave, by orders of the meta group, while clients write.

use tholos_cluster::{
    Cause, Epoch, JobOrder, JobState, Level, MetaCommand, Move, NodeChange, NodeId, NodeRow, Standing,
};
use tholos_node::{Event, LogRoom, Notice, PeerMessage, Port, ReplicaOrder};
use tholos_paxos::{Message, MoveId, ReplicaId, Serial};
use tholos_ring::ShardId;

use crate::support::{Client, Cluster, flat, row};

const SHARDS: u16 = 16;

/// Three nodes and a spare.
fn with_spare() -> Cluster {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask_meta(1, MetaCommand::Join(row(4))), Ok(4));
    cluster.add_node();
    cluster.advance(500);
    cluster
}

/// Every replica of n1 moves to n4.
fn exchange(cluster: &Cluster, removes: &[u16]) -> JobOrder {
    let step = |shard| Move { shard: ShardId(shard), from: Some(NodeId(1)), to: Some(NodeId(4)) };
    JobOrder {
        plan: 1,
        epoch: cluster.nodes[0].meta_state().epoch(),
        title: "n4 for n1".into(),
        in_flight_max: 3,
        bytes_per_s: 0,
        replicas: 3,
        changes: vec![
            NodeChange::Standing(NodeId(4), Standing::Member),
            NodeChange::Standing(NodeId(1), Standing::Draining),
        ],
        moves: (0..SHARDS).map(step).collect(),
        removes: removes.iter().copied().map(NodeId).collect(),
        cause: Cause::Operator,
        restarts: Vec::new(),
    }
}

/// The same number is written under many keys and read again.
struct Writer {
    client: Client,
    last: u32,
}

impl Writer {
    /// A round of writes; each is answered at once or with the next leader.
    fn write(&mut self, cluster: &mut Cluster) {
        self.last += 1;
        for key in 0..40 {
            let command = format!("SET k{key} {}", self.last);
            cluster.send(self.client, &[&command]);
        }
        for _ in 0..300 {
            if cluster.completed(self.client) == 40 * self.last {
                break;
            }
            cluster.advance(10);
        }
        assert_eq!(flat(&cluster.read(self.client)), vec!["+OK"; 40].join(" "));
    }

    fn check(&self, cluster: &mut Cluster, node: usize) {
        let client = cluster.connect(node, Port::Gateway);
        for key in 0..40 {
            let command = format!("GET k{key}");
            cluster.send(client, &[&command]);
            for _ in 0..300 {
                if cluster.completed(client) > key {
                    break;
                }
                cluster.advance(10);
            }
            let expected = format!("${} {}", self.last.to_string().len(), self.last);
            assert_eq!(flat(&cluster.read(client)), expected, "k{key} at n{}", node + 1);
        }
    }
}

fn writer(cluster: &mut Cluster, node: usize) -> Writer {
    Writer { client: cluster.connect(node, Port::Gateway), last: 0 }
}

fn job_state(cluster: &Cluster) -> JobState {
    cluster.nodes[1].meta_state().jobs[0].state
}

/// Writes until the job has come to this end.
fn write_until(cluster: &mut Cluster, writer: &mut Writer, end: JobState) {
    for _ in 0..400 {
        writer.write(cluster);
        cluster.advance(50);
        if job_state(cluster) == end {
            return;
        }
    }
    panic!("the job is {:?}: {:?}", job_state(cluster), cluster.nodes[1].meta_state().jobs[0].moves);
}

fn held(cluster: &Cluster, at: usize) -> usize {
    (0..=SHARDS).filter(|group| cluster.nodes[at].shard(ShardId(*group)).is_some()).count()
}

#[test]
fn every_node_learns_what_the_meta_group_decides() {
    let mut cluster = with_spare();
    for at in 0..4 {
        let state = cluster.nodes[at].meta_state();
        assert_eq!(
            (state.epoch(), state.standing(NodeId(4))),
            (Epoch(2), Some(Standing::Spare)),
            "n{}",
            at + 1
        );
    }
    assert_eq!(held(&cluster, 3), 0, "nothing moves by itself");
    // Asked of the node that is no voter, and refused by the group.
    let wiped = NodeRow { incarnation: tholos_cluster::Incarnation(99), ..row(4) };
    let refused = cluster.ask_meta(3, MetaCommand::Join(wiped)).expect_err("the name is taken");
    assert!(refused.contains("another directory"), "{refused}");
}

#[test]
fn replicas_move_to_another_node_while_clients_write() {
    let mut cluster = with_spare();
    let mut writer = writer(&mut cluster, 1);
    writer.write(&mut cluster);
    let order = exchange(&cluster, &[1]);
    assert_eq!(cluster.ask_meta(2, MetaCommand::StartJob(order.clone())), Ok(1));
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1), "asked again, it is the same job");
    write_until(&mut cluster, &mut writer, JobState::Done);
    cluster.advance(1000);
    // The shards and the meta group.
    assert_eq!(held(&cluster, 3), 17);
    let state = cluster.nodes[1].meta_state();
    assert_eq!(state.map.node(NodeId(1)), None, "it has left");
    assert!(state.configs.iter().all(|config| config.number == 2), "learner, then switch");
    writer.check(&mut cluster, 1);
    writer.check(&mut cluster, 3);
}

#[test]
fn what_moved_away_is_dropped_once_the_map_is_durable_and_stays_away() {
    let mut cluster = with_spare();
    let mut writer = writer(&mut cluster, 1);
    cluster.keeps_maps = false;
    let order = exchange(&cluster, &[]);
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    write_until(&mut cluster, &mut writer, JobState::Done);
    cluster.advance(1000);
    assert_eq!(held(&cluster, 0), 17, "N2: it would come back at the next start");
    cluster.keeps_maps = true;
    // Its disk takes the next map.
    let before = cluster.nodes[0].meta_state().epoch();
    let elsewhere = NodeRow { http: "127.0.0.1:1".into(), ..cluster.nodes[0].map().nodes[1].clone() };
    cluster.ask_meta(1, MetaCommand::Readdress(elsewhere)).expect("it is a member");
    cluster.advance(1000);
    assert!(cluster.nodes[0].meta_state().epoch() > before);
    assert_eq!(held(&cluster, 0), 0);
    assert!(
        cluster
            .notices
            .iter()
            .any(|(at, notice)| *at == 0 && matches!(notice, Notice::ReplicaDropped { .. }))
    );
    // All its records are still in its log.
    cluster.restart(0);
    cluster.advance(1000);
    assert_eq!(held(&cluster, 0), 0);
    // And when most of them are gone.
    cluster.release_records(0);
    cluster.restart(0);
    cluster.advance(1000);
    assert_eq!(held(&cluster, 0), 0);
    writer.write(&mut cluster);
    writer.check(&mut cluster, 0);
}

#[test]
fn nodes_tell_what_levels_they_know_and_who_does_not_know_the_clusters_says_so() {
    let mut cluster = with_spare();
    let level = |cluster: &Cluster, at: usize| cluster.nodes[at].meta_state().level_of(NodeId(at as u16 + 1));
    let founded = cluster.nodes[1].meta_state().epoch();
    cluster.advance(1000);
    assert_eq!(cluster.nodes[1].meta_state().epoch(), founded, "nobody has anything to say");
    cluster.settings = |config| config.level = Level(2);
    for at in 0..3 {
        cluster.restart(at);
        cluster.advance(2000);
        assert_eq!(level(&cluster, at), Level(2));
    }
    let raise = || MetaCommand::Raise(Level(2));
    let refused = cluster.ask_meta(1, raise()).unwrap_err();
    assert!(refused.contains("feature level 2 is not known to the programs of n4"), "{refused}");
    cluster.restart(3);
    cluster.advance(2000);
    assert_eq!(level(&cluster, 3), Level(2));
    cluster.ask_meta(1, raise()).expect("all know it");
    cluster.advance(1000);
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| node.meta_state().level == Level(2) && node.level_unknown().is_none())
    );
    // Put back to the release before, too late: its driver is told to stop it.
    cluster.settings = |config| config.level = Level(1);
    cluster.restart(0);
    cluster.advance(1000);
    assert_eq!(cluster.nodes[0].level_unknown(), Some(Level(2)));
    assert_eq!(level(&cluster, 1), Level(2));
}

#[test]
fn who_lacks_most_of_the_entries_learns_and_does_not_vote() {
    let mut cluster = with_spare();
    let client = cluster.connect(1, Port::Gateway);
    let shard = tholos_ring::shard_of(tholos_ring::slot(b"k"), SHARDS);
    for number in 0..100 {
        assert_eq!(flat(&cluster.ask(client, &[&format!("SET k {number}")])), "+OK");
    }
    // Nothing reaches a replica that was not there at the founding.
    cluster.lost = |message| matches!(message, tholos_node::PeerMessage::Paxos { to, .. } if to.0 > 0);
    let mut order = exchange(&cluster, &[]);
    order.moves.retain(|step| step.shard == shard);
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    cluster.advance(3000);
    let config = cluster.nodes[1].shard(shard).expect("it stays").group.config();
    assert_eq!((config.number, config.learners.len()), (1, 1));
    let behind = (0..4).find_map(|at| cluster.nodes[at].move_behind(shard));
    assert!(behind.is_some_and(|behind| behind >= 100), "{behind:?}");
    cluster.lost = |_| false;
    cluster.advance(3000);
    assert_eq!(job_state(&cluster), JobState::Done);
}

#[test]
fn a_set_is_recorded_when_most_of_its_voters_know_it() {
    let mut cluster = with_spare();
    let mut order = exchange(&cluster, &[]);
    order.moves.truncate(1);
    // The entry that tells them does not arrive.
    cluster.lost = |message| match message {
        tholos_node::PeerMessage::Paxos {
            shard: ShardId(0),
            message: tholos_paxos::Message::Accept { entries, .. },
            ..
        } => entries.iter().any(|entry| entry.payload == tholos_paxos::Payload::Noop),
        _ => false,
    };
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    cluster.advance(250);
    let number = |cluster: &Cluster| cluster.nodes[1].meta_state().configs[0].number;
    for _ in 0..100 {
        cluster.advance(10);
        assert_eq!(number(&cluster), 0, "V3");
    }
    let switched = |at: usize| {
        cluster.nodes[at].shard(ShardId(0)).is_some_and(|shard| shard.group.applied_config().number == 2)
    };
    assert!((0..4).any(switched));
    cluster.lost = |_| false;
    cluster.advance(3000);
    assert_eq!(number(&cluster), 2);
}

#[test]
fn a_job_goes_on_when_any_node_is_killed() {
    for victim in 0..4 {
        let mut cluster = with_spare();
        let mut writer = writer(&mut cluster, if victim == 1 { 2 } else { 1 });
        let order = exchange(&cluster, &[]);
        assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
        for _ in 0..6 {
            writer.write(&mut cluster);
            cluster.advance(50);
            cluster.restart(victim);
        }
        write_until(&mut cluster, &mut writer, JobState::Done);
        cluster.advance(1000);
        assert_eq!(held(&cluster, 3), 17, "n{} was killed", victim + 1);
        assert_eq!(held(&cluster, 0), 0, "n{} was killed", victim + 1);
        writer.check(&mut cluster, 3);
    }
}

#[test]
fn a_job_is_paused_resumed_and_cancelled() {
    let mut cluster = with_spare();
    let mut writer = writer(&mut cluster, 1);
    let order = exchange(&cluster, &[]);
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    cluster.advance(100);
    // Orders are taken by full disks as well: they are what makes room.
    (0..3).for_each(|at| cluster.handle(at, Event::LogRoom(LogRoom::Short)));
    cluster.ask_meta(1, MetaCommand::Pause(1)).expect("it runs");
    (0..3).for_each(|at| cluster.handle(at, Event::LogRoom(LogRoom::Ample)));
    for _ in 0..20 {
        writer.write(&mut cluster);
        cluster.advance(100);
    }
    let job = cluster.nodes[1].meta_state().jobs[0].clone();
    assert_eq!((job.state, job.in_flight()), (JobState::Paused, 0), "what was under way is made");
    let made = held(&cluster, 3);
    assert!((1..17).contains(&made), "{made}");
    cluster.ask_meta(2, MetaCommand::Resume(1)).expect("it is paused");
    cluster.advance(50);
    cluster.ask_meta(2, MetaCommand::Cancel(1)).expect("it runs");
    write_until(&mut cluster, &mut writer, JobState::Cancelled);
    cluster.advance(1000);
    let state = cluster.nodes[1].meta_state();
    assert!(state.configs.iter().all(|config| config.voters.len() == 3 && config.learners.is_empty()));
    assert_eq!(held(&cluster, 0) + held(&cluster, 3), 17, "each is at one of the two");
    writer.check(&mut cluster, 3);
}

/// A leader's order lets a learner begin, and nobody else ever hears of it: the next leader knows nothing of that replica.
#[test]
fn a_learner_of_a_change_that_came_to_nothing_is_dropped() {
    let mut cluster = with_spare();
    let mut writer = writer(&mut cluster, 1);
    writer.write(&mut cluster);
    let serves = |cluster: &Cluster, at: usize, shard: ShardId| {
        cluster.nodes[at].shard(shard).is_some_and(|shard| shard.group.serving())
    };
    let shard = (0..SHARDS).map(ShardId).find(|shard| serves(&cluster, 0, *shard)).expect("it leads some");
    let leads = |cluster: &Cluster, at: usize| serves(cluster, at, shard);
    cluster.lost_between = |from, to, message| {
        from == 0 && to != 3 && matches!(message, PeerMessage::Paxos { message: Message::Accept { .. }, .. })
    };
    let order = ReplicaOrder {
        shard,
        number: 0,
        move_id: MoveId(9),
        voters: [1, 2, 3].map(NodeId).to_vec(),
        learners: vec![NodeId(4)],
    };
    cluster.handle(0, Event::ChangeReplicas(order));
    cluster.advance(20);
    let begun = cluster.nodes[3].shard(shard).expect("it learns").group.me();
    cluster.cut(0);
    cluster.lost_between = |_, _, _| false;
    for _ in 0..100 {
        cluster.advance(20);
    }
    let heir = (1..3).find(|at| leads(&cluster, *at)).expect("one of the two leads");
    assert_eq!(cluster.nodes[heir].shard(shard).expect("it leads").group.config().number, 0);
    cluster.mend();
    cluster.advance(1000);
    // What the cluster does next with this shard has nothing to do with n4.
    let mut job = exchange(&cluster, &[]);
    job.moves = vec![
        Move { shard, from: Some(NodeId(1)), to: None },
        Move { shard, from: None, to: Some(NodeId(1)) },
    ];
    job.changes.clear();
    assert_eq!(cluster.ask_meta(2, MetaCommand::StartJob(job)), Ok(1));
    write_until(&mut cluster, &mut writer, JobState::Done);
    cluster.advance(1000);
    assert!(cluster.nodes[0].shard(shard).is_some());
    assert!(cluster.nodes[3].shard(shard).is_none(), "{begun} is in no set and never will be");
}

#[test]
fn a_directory_that_went_back_in_time_begins_replicas_only_under_ids_that_are_new() {
    let mut cluster = with_spare();
    // n2 has counted more of n4's log than n4 has.
    let said = tholos_node::Counted { boot: 2, of_boot: 63, of_before: 9, ..Default::default() };
    cluster.handle(3, Event::Peer { from: NodeId(2), message: tholos_node::PeerMessage::Counted(said) });
    assert!(cluster.notices.iter().any(|(at, notice)| *at == 3 && matches!(notice, Notice::WentBack { .. })));
    let mut order = exchange(&cluster, &[]);
    order.moves.truncate(1);
    order.changes.clear();
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    cluster.handle(3, Event::BarKept);
    // It may have been the replica that the order names, and voted: that one does not begin.
    let shard = ShardId(0);
    let ordered = ReplicaId::new(4, Serial(1));
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.extend(cluster.nodes[3].shard(shard).map(|shard| shard.group.me()));
        cluster.advance(20);
    }
    seen.dedup();
    assert!(!seen.contains(&ordered), "{seen:?}");
    assert_eq!(seen.first(), Some(&ReplicaId::new(4, Serial(0))), "a mute one asked");
    assert_eq!(job_state(&cluster), JobState::Done);
    let recorded = cluster.nodes[1].meta_state().config(shard).and_then(|config| config.replica_at(4));
    assert_eq!(seen.last().copied(), recorded);
}

#[test]
fn a_leader_that_moves_away_leaves_no_gap() {
    let mut cluster = with_spare();
    let order = exchange(&cluster, &[]);
    let led = |cluster: &Cluster, at: usize| {
        (0..SHARDS)
            .filter(|shard| {
                cluster.nodes[at].shard(ShardId(*shard)).is_some_and(|shard| shard.group.serving())
            })
            .count()
    };
    assert!(led(&cluster, 0) > 0);
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    for _ in 0..2000 {
        cluster.advance(10);
        if job_state(&cluster) == JobState::Done {
            break;
        }
        let all: usize = (0..4).map(|at| led(&cluster, at)).sum();
        assert_eq!(all, usize::from(SHARDS), "no election is waited for");
    }
    assert_eq!(job_state(&cluster), JobState::Done);
}

/// A leader that nobody has told of its successor, and that then was removed, is ignored by all: the map ends it.
#[test]
fn a_leader_of_the_past_that_was_removed_is_dropped() {
    const OF: ShardId = ShardId(3);
    let mut cluster = with_spare();
    let leads =
        |cluster: &Cluster| cluster.nodes[0].shard(OF).is_some_and(|shard| shard.group.leading().is_some());
    assert!(leads(&cluster), "the shard was chosen so");
    // Nobody hears n1, which hears them, but nothing of this shard.
    cluster.lost_between =
        |from, to, message| from == 0 || (to == 0 && matches!(message, PeerMessage::Paxos { shard: OF, .. }));
    cluster.advance(2000);
    let order = JobOrder {
        moves: vec![Move { shard: OF, from: Some(NodeId(1)), to: Some(NodeId(4)) }],
        changes: Vec::new(),
        ..exchange(&cluster, &[])
    };
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    for _ in 0..100 {
        cluster.advance(100);
        if job_state(&cluster) == JobState::Done {
            break;
        }
    }
    assert_eq!(job_state(&cluster), JobState::Done);
    assert!(leads(&cluster), "it knows of no other");
    cluster.lost_between = |_, _, _| false;
    cluster.advance(4000);
    assert!(cluster.nodes[0].shard(OF).is_none());
    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["DBSIZE"])), ":0", "its node asks who leads now");
}

/// The same on a node that begins no replicas by itself (C4), and that is to get the shard back meanwhile: what the shard's
/// leader says to the replica that is to come keeps the old one no longer. (Seed 702812 of the simulator.)
#[test]
fn a_leader_of_the_past_gives_way_though_its_node_is_spoken_to() {
    const OF: ShardId = ShardId(3);
    let mut cluster = with_spare();
    let went_back = tholos_node::Counted { boot: 2, of_boot: 63, of_before: 9, ..Default::default() };
    cluster.handle(3, Event::Peer { from: NodeId(2), message: PeerMessage::Counted(went_back) });
    cluster.advance(100);
    cluster.handle(3, Event::BarKept);
    let moved = |cluster: &mut Cluster, plan: u64, from: u16, to: u16| {
        let order = JobOrder {
            plan,
            epoch: cluster.nodes[1].meta_state().epoch(),
            moves: vec![Move { shard: OF, from: Some(NodeId(from)), to: Some(NodeId(to)) }],
            changes: vec![NodeChange::Standing(NodeId(4), Standing::Member)],
            ..exchange(cluster, &[])
        };
        assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(plan));
        let is_done = |cluster: &Cluster| {
            cluster.nodes[1].meta_state().jobs.last().is_some_and(|job| job.state == JobState::Done)
        };
        for _ in 0..100 {
            cluster.advance(100);
            if is_done(cluster) {
                return true;
            }
        }
        false
    };
    let leads =
        |cluster: &Cluster| cluster.nodes[3].shard(OF).is_some_and(|shard| shard.group.leading().is_some());
    assert!(moved(&mut cluster, 1, 1, 4), "n4 gets it");
    cluster.advance(2000);
    assert!(leads(&cluster), "and leads it, as n1 did");
    // Nobody hears n4, which hears them, but nothing of this shard.
    cluster.lost_between =
        |from, to, message| from == 3 || (to == 3 && matches!(message, PeerMessage::Paxos { shard: OF, .. }));
    cluster.advance(2000);
    assert!(moved(&mut cluster, 2, 4, 1) && leads(&cluster), "n4 knows of no other leader");
    cluster.lost_between = |_, _, _| false;
    assert!(moved(&mut cluster, 3, 2, 4), "n4 gets it back");
}

#[test]
fn a_message_for_a_replica_that_was_dropped_brings_nothing_back() {
    let mut cluster = with_spare();
    let mut writer = writer(&mut cluster, 1);
    let order = exchange(&cluster, &[]);
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(1));
    write_until(&mut cluster, &mut writer, JobState::Done);
    let back = |shard| Move { shard: ShardId(shard), from: Some(NodeId(4)), to: Some(NodeId(1)) };
    let order = JobOrder {
        plan: 2,
        epoch: cluster.nodes[1].meta_state().epoch(),
        moves: (0..SHARDS).map(back).collect(),
        changes: vec![NodeChange::Standing(NodeId(1), Standing::Member)],
        ..exchange(&cluster, &[])
    };
    assert_eq!(cluster.ask_meta(1, MetaCommand::StartJob(order)), Ok(2));
    for _ in 0..400 {
        cluster.advance(50);
        if cluster.nodes[1].meta_state().active_job().is_none() {
            break;
        }
    }
    cluster.advance(1000);
    assert_eq!((held(&cluster, 0), held(&cluster, 3)), (16, 1), "the meta group stays where it is");
    cluster.release_records(3);
    cluster.restart(3);
    cluster.advance(1000);
    assert_eq!((held(&cluster, 0), held(&cluster, 3)), (16, 1));
    let from = NodeId(2);
    let me = tholos_paxos::ReplicaId::new(4, tholos_paxos::Serial(1));
    let ballot = tholos_paxos::Ballot { round: 99, replica: tholos_paxos::ReplicaId(2) };
    let message = tholos_node::PeerMessage::Paxos {
        shard: ShardId(0),
        from: tholos_paxos::Serial(0),
        to: me.serial(),
        message: tholos_paxos::Message::Prepare { ballot, decided: tholos_paxos::Index(0), released: None },
    };
    cluster.handle(3, Event::Peer { from, message });
    assert_eq!(held(&cluster, 3), 1);
}

#[test]
fn a_wiped_node_comes_back_under_its_name_as_a_new_one() {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let mut writer = writer(&mut cluster, 0);
    writer.write(&mut cluster);
    let wiped = NodeRow { incarnation: tholos_cluster::Incarnation(99), ..row(2) };
    // As long as the one with the directory is heard, nobody takes its place.
    let refused = cluster.ask_meta(0, MetaCommand::Rejoin(wiped.clone())).unwrap_err();
    assert!(refused.contains("n2 lives with another directory"), "{refused}");
    cluster.cut(1);
    cluster.advance(1000);
    assert_eq!(cluster.ask_meta(0, MetaCommand::Rejoin(wiped.clone())), Ok(1002));
    assert_eq!(cluster.nodes[0].meta_state().standing(NodeId(2)), Some(Standing::Lost));
    // Asked again, since the answer was lost: that is not another directory.
    assert_eq!(cluster.ask_meta(2, MetaCommand::Rejoin(wiped)), Ok(1002));
    writer.write(&mut cluster);
    writer.check(&mut cluster, 2);
}

/// n4 has come for n1 everywhere, and then loses its whole log: it knows of no replica that it had. Each gets another id, the
/// map learns of them, and a job that moves them on goes on with them.
#[test]
fn a_node_that_has_lost_all_its_replicas_begins_them_anew_under_other_ids() {
    let mut cluster = with_spare();
    let mut writer = Writer { client: cluster.connect(1, Port::Gateway), last: 0 };
    writer.write(&mut cluster);
    let job = exchange(&cluster, &[]);
    cluster.ask_meta(1, MetaCommand::StartJob(job)).expect("it fits");
    cluster.advance(6_000);
    assert_eq!(cluster.nodes[1].meta_state().jobs[0].state, JobState::Done);
    let ids = |cluster: &Cluster| {
        let state = cluster.nodes[1].meta_state().clone();
        let id = |at| state.config(ShardId(at)).and_then(|config| config.replica_at(4));
        (0..SHARDS).map(|at| id(at).expect("n4 votes")).collect::<Vec<_>>()
    };
    let before = ids(&cluster);
    cluster.restart_rotten(3);
    let mute = |cluster: &Cluster| {
        let shards = (0..SHARDS).filter_map(|at| cluster.nodes[3].shard(ShardId(at)));
        shards.filter(|shard| shard.group.repair().is_some()).count()
    };
    assert_eq!(mute(&cluster), usize::from(SHARDS), "the map says that it had them");
    cluster.advance(6_000);
    assert_eq!(mute(&cluster), 0);
    let after = ids(&cluster);
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "{after:?}");
    for at in 0..SHARDS {
        let held = cluster.nodes[3].shard(ShardId(at)).map(|shard| shard.group.me());
        assert_eq!(held, Some(after[usize::from(at)]));
    }
    // They vote: another of the three is not needed.
    cluster.cut(1);
    cluster.advance(2_000);
    let mut writer = Writer { client: cluster.connect(3, Port::Gateway), last: 0 };
    writer.write(&mut cluster);
    // It begins no replica because a message is for it, and comes to have one nevertheless.
    cluster.mend();
    cluster.advance(1_000);
    writer.check(&mut cluster, 2);
}

/// While nobody can record the ids that replicas were given, for the meta group decides nothing, what is said of them again and
/// again makes no more entries: they would fill the logs. (Seed 704024 of the simulator.)
#[test]
fn what_the_map_does_not_learn_of_other_ids_makes_no_entries() {
    const META: ShardId = ShardId(SHARDS);
    let mut cluster = with_spare();
    let job = exchange(&cluster, &[]);
    cluster.ask_meta(1, MetaCommand::StartJob(job)).expect("it fits");
    cluster.advance(6_000);
    assert_eq!(cluster.nodes[1].meta_state().jobs[0].state, JobState::Done);
    cluster.lost_between = |_, _, message| matches!(message, PeerMessage::Paxos { shard: META, .. });
    cluster.restart_rotten(3);
    cluster.advance(6_000);
    let shard = ShardId(0);
    let recorded = cluster.nodes[1].meta_state().config(shard).map(|config| config.number);
    let decided = |cluster: &Cluster| {
        let led = |at: &usize| cluster.nodes[*at].shard(shard).is_some_and(|shard| shard.group.serving());
        let leader = (0..4).find(led).expect("the shard is led");
        let group = &cluster.nodes[leader].shard(shard).expect("it leads").group;
        assert!(Some(group.config().number) > recorded, "n4 has another id");
        group.decided_index().0
    };
    let before = decided(&cluster);
    cluster.advance(5_000);
    let entries = decided(&cluster) - before;
    assert!(entries < 5, "{entries} entries");
    cluster.lost_between = |_, _, _| false;
    cluster.advance(3_000);
    assert!(cluster.nodes[1].meta_state().config(shard).map(|config| config.number) > recorded);
}
