//! A replica that has lost durable records: what it may not do, and how it comes back (R20).

use tholos_paxos::{
    Ballot, Config, Connectivity, Group, Index, Message, Millis, Options, Outbox, Record, Repair, ReplicaId,
    Serial,
};

mod common;
use common::{Council, Envelope, Life, Parcel, ballot, replica};

/// Three with some entries decided, the last one on n1 and n3 alone; then n3 is down and its disk rotten.
fn rotten() -> Council {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    council.propose(replica(1)).expect("n1 leads");
    council.settle();
    council.cut_between(1, 2);
    council.propose(replica(1)).expect("n1 leads");
    council.settle();
    assert_eq!(council.group(1).decided_index(), Index(3));
    council.crash(replica(3));
    council.links.heal();
    council.network.clear();
    council
}

/// What n3 answers to `message`.
fn answers(council: &mut Council, from: u32, message: Message) -> Vec<Message> {
    council.network.clear();
    council.deliver(Envelope { from: replica(from), to: replica(3), parcel: Parcel::Message(message) });
    council.sync_all();
    let from_3 = council.network.drain(..).filter(|envelope| envelope.from == replica(3));
    let messages = from_3.filter_map(|envelope| match envelope.parcel {
        Parcel::Message(message) => Some(message),
        Parcel::Snapshot { .. } => None,
    });
    messages.collect()
}

#[test]
fn a_replica_with_rot_is_mute() {
    let mut council = rotten();
    council.rot(replica(3));
    let high = ballot(9, 2);
    let asks = [
        Message::Canvass { ballot: high, decided: Index(0) },
        Message::Prepare { ballot: high, decided: Index(0), released: None },
        Message::Fetch { ballot: high, from: Index(1) },
        Message::Confirm { ballot: high, round: 1 },
        Message::Released { ballot: high },
        Message::Accept { ballot: high, entries: Vec::new(), decided: Index(0) },
        Message::Sync { ballot: high, from: Index(1), entries: Vec::new(), whole_to: Index(0) },
        Message::Decide { ballot: high, decided: Index(0), length: Index(0) },
        // Another that has lost records may not rest on this one.
        Message::Repair { nonce: 5 },
    ];
    for ask in asks {
        assert_eq!(answers(&mut council, 2, ask.clone()), [], "{ask:?}");
    }
    // Nor does it stand, however long nobody leads.
    council.crash(replica(1));
    council.crash(replica(2));
    for _ in 0..200 {
        council.tick_all(10);
        council.sync_all();
    }
    let says_more = |envelope: &Envelope| {
        envelope.from == replica(3) && !matches!(envelope.parcel, Parcel::Message(Message::Repair { .. }))
    };
    assert!(!council.network.iter().any(says_more));
    assert_eq!(council.group(3).repair(), Some(Repair::Asks { answered: 0, needed: 2 }));
}

#[test]
fn a_mute_replica_waits_for_all_others_and_for_a_higher_ballot() {
    let mut council = rotten();
    council.crash(replica(2));
    council.rot(replica(3));
    council.run(3_000);
    assert_eq!(council.group(3).repair(), Some(Repair::Asks { answered: 1, needed: 2 }), "n2 may know more");
    let alone = council.propose(replica(1)).expect("n1 believes that it leads");
    council.run(200);
    assert!(council.group(1).decided_index() < alone, "n1 alone is no quorum");
    council.restart(replica(2));
    council.run(1_000);
    assert_eq!(council.group(3).repair(), None);
    let led = council.group(3).accepted_ballot();
    assert!(led > ballot(1, 1), "a ballot in which it has never voted: {led}");
    // What was decided with its lost vote is on its disk again, and it votes.
    council.check_all_on_majority();
    council.isolate(2);
    council.run(1_000);
    let server = council.server().expect("n1 and n3 are a quorum again");
    let index = council.propose(server).expect("it leads");
    council.run(200);
    assert!(council.group(3).decided_index() >= index);
}

/// That it is mute outlives a restart, before and after it knows what it waits for.
#[test]
fn a_mute_replica_stays_mute_after_a_restart() {
    let mut council = rotten();
    council.crash(replica(1));
    council.rot(replica(3));
    council.sync_all();
    let restart = |council: &mut Council| {
        council.crash(replica(3));
        council.network.clear();
        council.restart(replica(3));
        council.group(3).repair()
    };
    assert_eq!(restart(&mut council), Some(Repair::Asks { answered: 0, needed: 2 }));
    // Both others have answered, and nobody leads yet.
    let bound = |nonce, round| Message::Bound { nonce, promised: ballot(round, 1), config: 0 };
    council.tick_all(100);
    let nonce = council.network.iter().find_map(|envelope| match envelope.parcel {
        Parcel::Message(Message::Repair { nonce }) => Some(nonce),
        _ => None,
    });
    let nonce = nonce.expect("it asks");
    answers(&mut council, 1, bound(nonce, 4));
    answers(&mut council, 2, bound(nonce - 1, 9));
    assert_eq!(
        council.group(3).repair(),
        Some(Repair::Asks { answered: 1, needed: 2 }),
        "of an earlier boot"
    );
    answers(&mut council, 2, bound(nonce, 3));
    let Some(Repair::Waits { until }) = council.group(3).repair() else { panic!("all have answered") };
    assert!(until > Ballot { round: 5, replica: ReplicaId(0) });
    assert_eq!(restart(&mut council), Some(Repair::Waits { until }));
    // A leader of a lower ballot is told to give way, and is not followed.
    let low = Message::Accept { ballot: ballot(5, 1), entries: Vec::new(), decided: Index(0) };
    assert_eq!(answers(&mut council, 1, low), [Message::Reject { promised: until }]);
}

/// In a set that has changed others than its voters may hold a promise of the lost replica.
#[test]
fn answers_of_another_configuration_do_not_bound_what_was_promised() {
    let mut council = rotten();
    council.rot(replica(3));
    council.network.clear();
    council.tick_all(200);
    let nonce = council.network.iter().find_map(|envelope| match envelope.parcel {
        Parcel::Message(Message::Repair { nonce }) => Some(nonce),
        _ => None,
    });
    let nonce = nonce.expect("it asks");
    for (from, config) in [(1, 1), (2, 0)] {
        answers(&mut council, from, Message::Bound { nonce, promised: ballot(4, 1), config });
    }
    assert_eq!(council.group(3).repair(), Some(Repair::WaitsForId));
    answers(&mut council, 1, Message::Bound { nonce, promised: ballot(4, 1), config: 0 });
    assert!(matches!(council.group(3).repair(), Some(Repair::Waits { .. })), "it was told late");
}

/// n1 leads n1, n3 and n4, which has come for n2; then n3 is down and its disk rotten.
fn rotten_after_a_change() -> Council {
    let mut council = rotten();
    council.restart(replica(3));
    council.run(1_000);
    let leader = council.server().expect("somebody leads");
    council.change(leader, &[1, 3, 4], &[]).expect("it is taken");
    council.run(500);
    assert_eq!(council.decided_config().number, 1);
    council.elect(1);
    council.crash(replica(3));
    council.network.clear();
    council.rot(replica(3));
    council
}

/// Two more entries: with the second, disks have it that the first is decided, and all before.
fn go_on(council: &mut Council) {
    for _ in 0..2 {
        let server = council.server().expect("somebody serves");
        council.propose(server).expect("it leads");
        council.run(200);
    }
}

#[test]
fn in_a_set_that_has_changed_a_replica_with_rot_gets_another_id() {
    let mut council = rotten_after_a_change();
    council.run(1_000);
    go_on(&mut council);
    assert_eq!((council.facts.renewed, council.facts.repaired), (1, 0));
    let config = council.decided_config().clone();
    assert_eq!((config.number, &config.voters), (2, &vec![replica(1), replica(5), replica(4)]));
    assert_eq!(council.at(replica(3)).life, Life::Gone);
    // It votes: n4 is not needed any more.
    council.isolate(4);
    council.run(1_000);
    let server = council.server().expect("n1 and n5 are a quorum");
    let index = council.propose(server).expect("it leads");
    council.run(200);
    assert!(council.group(5).decided_index() >= index);
}

#[test]
fn it_begins_anew_only_when_its_id_is_decided() {
    let mut council = rotten_after_a_change();
    // n4 hears of no change, so none is decided.
    for _ in 0..50 {
        council.tick_all(10);
        council.sync_all();
        council.deliver_where(|envelope| envelope.to != replica(4));
    }
    assert_eq!(council.group(1).config().number, 2, "it is proposed");
    assert_eq!(council.group(3).repair(), Some(Repair::WaitsForId));
    assert_eq!((council.group(3).renewed(), council.at(replica(5)).life), (None, Life::Awaited));
    council.run(500);
    go_on(&mut council);
    assert_eq!(council.facts.renewed, 1);
}

#[test]
fn an_answer_to_an_earlier_question_lets_nobody_begin() {
    let mut council = rotten_after_a_change();
    council.network.clear();
    council.tick_all(100);
    let nonce = council.network.iter().find_map(|envelope| match envelope.parcel {
        Parcel::Message(Message::Repair { nonce }) => Some(nonce),
        _ => None,
    });
    let nonce = nonce.expect("it asks");
    answers(&mut council, 1, Message::Renewed { nonce: nonce - 1, replica: replica(5) });
    assert_eq!(council.group(3).renewed(), None);
    // Nor does one that would bring back an id.
    answers(&mut council, 1, Message::Renewed { nonce, replica: replica(3) });
    assert_eq!(council.group(3).renewed(), None);
}

/// The leader that ordered it is lost, and the next one does not know whose question it was: it gives one more id.
#[test]
fn another_leader_gives_one_more_id() {
    let mut council = rotten_after_a_change();
    for _ in 0..60 {
        council.tick_all(10);
        council.settle_but(|envelope| !matches!(envelope.parcel, Parcel::Message(Message::Renewed { .. })));
    }
    assert_eq!((council.decided_config().number, council.facts.renewed), (2, 0));
    assert!(council.transfer(replica(1), replica(4)));
    council.run(1_000);
    go_on(&mut council);
    let config = council.decided_config().clone();
    assert_eq!((config.number, &config.voters), (3, &vec![replica(1), replica(6), replica(4)]));
    assert_eq!((council.at(replica(5)).life, council.facts.renewed), (Life::Awaited, 1));
}

/// Five, of which one is rotten and one is down: the others go on without waiting for that.
#[test]
fn who_cannot_be_repaired_for_long_gets_another_id_too() {
    let mut council = Council::new(5, Options::default());
    council.elect(1);
    council.propose(replica(1)).expect("n1 leads");
    council.settle();
    council.crash(replica(4));
    council.crash(replica(5));
    council.rot(replica(5));
    council.run(9_000);
    assert_eq!(council.group(5).repair(), Some(Repair::Asks { answered: 3, needed: 4 }), "n4 may come back");
    council.run(2_000);
    go_on(&mut council);
    assert_eq!((council.facts.renewed, council.decided_config().number), (1, 1));
    assert_eq!(council.group(6).accepted_index(), council.group(1).accepted_index());
}

/// While it waits for a leader it may be replaced, and nobody tells it: whoever leads says nothing to the old id. Seed 1643 of
/// the simulator is such a case to its end.
#[test]
fn who_waits_for_a_leader_and_is_left_alone_asks_again() {
    let asks = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Repair { .. }));
    let answers = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Bound { .. }));
    let mut council = rotten();
    council.rot(replica(3));
    for _ in 0..30 {
        council.tick_all(10);
        council.sync_all();
        council.deliver_where(|envelope| asks(envelope) || answers(envelope));
    }
    assert!(matches!(council.group(3).repair(), Some(Repair::Waits { .. })));
    let mut asked_within = |millis: u64| {
        council.network.clear();
        for _ in 0..millis / 10 {
            council.tick_all(10);
            council.sync_all();
        }
        council.network.iter().filter(|envelope| asks(envelope)).count()
    };
    assert_eq!(asked_within(1_000), 0, "it waits");
    assert!(asked_within(2_000) > 0);
}

/// A leader loses its records. A voter that joined after all that it remembers is not asked, and goes on following it; when
/// another wants to lead, it speaks to its leader, and learns. (Seeds 1654 and 3337 of the simulator.)
#[test]
fn who_follows_a_leader_that_has_lost_its_records_learns_it_when_another_stands() {
    let mut council = rotten();
    council.restart(replica(3));
    council.run(300);
    assert_eq!(council.group(3).leader(), Some(ballot(1, 1)));
    council.network.clear();
    council.crash(replica(1));
    council.rot(replica(1));
    council.network.clear();
    let canvass = Message::Canvass { ballot: ballot(2, 2), decided: Index(3) };
    assert_eq!(
        answers(&mut council, 2, canvass.clone()),
        [Message::Accepted { ballot: ballot(1, 1), index: Index(3) }]
    );
    let says = Message::Accepted { ballot: ballot(1, 1), index: Index(3) };
    let to_1 = Envelope { from: replica(3), to: replica(1), parcel: Parcel::Message(says) };
    council.deliver(to_1);
    let told = |envelope: &Envelope| {
        envelope.to == replica(3) && matches!(envelope.parcel, Parcel::Message(Message::Repair { .. }))
    };
    assert!(council.network.iter().any(told));
    council.deliver_where(told);
    assert_eq!(council.group(3).leader(), None);
    assert_eq!(answers(&mut council, 2, canvass), [Message::Endorse { ballot: ballot(2, 2) }]);
}

/// The leader's node has lost all its replicas, and one stands in for what may have lived there, under an id that was retired
/// long ago: who follows the leader learns all the same that it leads no more. (Seed 705534 of the simulator.)
#[test]
fn who_asks_under_a_retired_id_leads_under_no_other() {
    let led_by = |node: u16| Ballot { round: 1, replica: ReplicaId::new(node, Serial(1)) };
    let voters = [2, 3, 4].map(|node| ReplicaId::new(node, Serial(u16::from(node == 4)))).to_vec();
    let set = Config { number: 7, last_replica: ReplicaId::new(4, Serial(1)), ..Config::founding(voters) };
    let mut follower = Group::new(ReplicaId(3), set, Options::default());
    let mut out = Outbox::default();
    let mut hear = |group: &mut Group, from, message| {
        group.handle_message(from, message, Millis(0), &mut out);
    };
    let decide = Message::Decide { ballot: led_by(4), decided: Index(0), length: Index(1) };
    hear(&mut follower, ReplicaId::new(4, Serial(1)), decide);
    hear(&mut follower, ReplicaId(2), Message::Repair { nonce: 7 });
    assert_eq!(follower.leader(), Some(led_by(4)), "another's loss is not its leader's");
    hear(&mut follower, ReplicaId(4), Message::Repair { nonce: 7 });
    assert_eq!(follower.leader(), None);
    assert!(out.sends.iter().all(|(to, _)| *to != ReplicaId(4)), "a retired id gets no answer (R7)");
}

/// The same of a voter that has not got anything of its leader's log yet. (Seed 587 of the simulator.)
#[test]
fn who_has_nothing_yet_learns_it_too() {
    let founders = Config::founding((1..=3).map(replica).collect());
    let mut follower = Group::new(replica(3), founders, Options::default());
    let mut out = Outbox::default();
    let decide = Message::Decide { ballot: ballot(1, 1), decided: Index(0), length: Index(1) };
    follower.handle_message(replica(1), decide, Millis(0), &mut out);
    assert_eq!(follower.leader(), Some(ballot(1, 1)));
    out.sends.clear();
    let canvass = Message::Canvass { ballot: ballot(2, 2), decided: Index(1) };
    follower.handle_message(replica(2), canvass, Millis(0), &mut out);
    let behind =
        Message::Behind { ballot: ballot(1, 1), accepted: Ballot::ZERO, length: Index(0), decided: Index(0) };
    assert_eq!(out.sends, [(replica(1), behind.clone())]);

    let mut council = rotten();
    council.crash(replica(1));
    council.rot(replica(1));
    council.network.clear();
    council.deliver(Envelope { from: replica(3), to: replica(1), parcel: Parcel::Message(behind) });
    let asked = |envelope: &Envelope| {
        envelope.to == replica(3) && matches!(envelope.parcel, Parcel::Message(Message::Repair { .. }))
    };
    assert!(council.network.iter().any(asked), "and so it loses its leader");
}

/// Of one that has lived somewhere nothing is known any more, not even under which id: it asks whom it is told of.
#[test]
fn who_knows_nothing_of_itself_is_mute_and_asks() {
    let mut out = Outbox::default();
    let mut group = Group::unknown(replica(7), Options::default(), 9);
    assert_eq!(group.repair(), Some(Repair::WaitsForId));
    group.ask_also([replica(1), replica(2)]);
    group.handle_message(
        replica(1),
        Message::Prepare { ballot: ballot(4, 1), decided: Index(0), released: None },
        Millis(0),
        &mut out,
    );
    assert!(out.is_empty());
    group.handle_tick(Millis(1_000), &Nobody, &mut out);
    let asks = [1, 2].map(|number| (replica(number), Message::Repair { nonce: 9 }));
    assert_eq!(out.sends, asks);
    assert!(out.appends.is_empty(), "nothing of it is on disk");
    let by = ReplicaId::new(7, Serial(4));
    group.handle_message(replica(1), Message::Renewed { nonce: 9, replica: by }, Millis(0), &mut out);
    assert_eq!(group.renewed(), Some(by));
}

struct Nobody;

impl Connectivity for Nobody {
    fn hears(&self, _: ReplicaId, _: ReplicaId) -> bool {
        false
    }
}

/// A checkpoint replaces the record which says that others are lost, too. So it counts no sooner than the one behind it, which
/// says so again: else a crash between the two brings back a replica that votes (model, council `rotten`).
#[test]
fn a_checkpoint_counts_when_what_it_says_of_lost_records_is_durable() {
    let founding = || Config::founding([1, 2, 3].map(replica).to_vec());
    let bound = Message::Bound { nonce: 7, promised: ballot(4, 1), config: 0 };
    for answers in [vec![], vec![1, 3]] {
        let (mut group, mut out) =
            (Group::new(replica(2), founding(), Options::default()), Outbox::default());
        group.lose(7, &mut out);
        for from in answers {
            group.handle_message(replica(from), bound.clone(), Millis(0), &mut out);
        }
        let seq = group.append_checkpoint(group.applied_base(), founding(), &mut out);
        let is_checkpoint = |record: &Record| matches!(record, Record::Checkpoint(_));
        let first = out.appends.iter().rposition(is_checkpoint).expect("it was appended");
        // All before it may be gone as soon as `seq` is durable.
        let mut back = Group::new(replica(2), founding(), Options::default());
        for record in &out.appends[first..seq.0 as usize] {
            back.recover(record.clone()).expect("it is the first, or follows");
        }
        assert_eq!(back.repair().is_some(), group.repair().is_some(), "{:?}", group.repair());
    }
}
