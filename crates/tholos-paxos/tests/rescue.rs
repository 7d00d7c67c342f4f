//! A majority that is gone for good (R29): what is kept, what may be lost, and that the survivors go on as one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tholos_paxos::{
    Assessment, Ballot, Config, Entry, Index, Message, MoveId, Options, Planted, Prospect, Record, ReplicaId,
    RescueError,
};

mod common;
mod schedule;
use common::{Council, Envelope, Parcel, ballot, replica};
use schedule::chance::Chance;
use schedule::mood::Mood;
use schedule::step;

const MOVE: MoveId = MoveId(77);

/// Three of which n1 leads, and two entries decided after its no-op.
fn council() -> Council {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    put(&mut council);
    put(&mut council);
    council.run(20);
    council
}

fn put(council: &mut Council) -> Index {
    let index = council.propose(replica(1)).expect("n1 leads");
    council.settle();
    index
}

/// These are gone, and with them whatever they sent or was sent to them.
fn lose(council: &mut Council, lost: &[u32]) {
    for number in lost {
        council.crash(replica(*number));
        council.facts.gone.push(replica(*number));
    }
    council.network.retain(|envelope| !lost.contains(&envelope.from.0) && !lost.contains(&envelope.to.0));
}

fn assess(council: &Council) -> Assessment {
    Assessment::of(&council.survivors(), &Config::default(), MOVE)
}

fn prospect(council: &Council) -> Prospect {
    match assess(council) {
        Assessment::Rescue(prospect) => prospect,
        other => panic!("{other:?}"),
    }
}

fn rescue(council: &mut Council) -> Prospect {
    let prospect = prospect(council);
    council.rescue(prospect.replica, &prospect.rescue).expect("it is as it was asked");
    prospect
}

fn ids(numbers: &[u32]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(ReplicaId).collect()
}

#[test]
fn one_of_three_goes_on_alone_with_what_it_has() {
    let mut council = council();
    lose(&mut council, &[1, 2]);
    council.run(3_000);
    assert_eq!(council.server(), None, "one of three is no majority");
    let before = council.whole_log(replica(3));
    let prospect = rescue(&mut council);
    assert_eq!(
        (prospect.replica, prospect.decided, prospect.rescue.length, prospect.loses_nothing),
        (replica(3), Index(3), Index(3), false)
    );
    council.run(1_000);
    assert_eq!(council.server(), Some(replica(3)));
    assert_eq!(&council.whole_log(replica(3))[..3], before);
    let (config, promised) = (council.group(3).config().clone(), council.group(3).promised());
    assert_eq!((config.number, config.move_id, &config.voters), (1, MOVE, &ids(&[3])));
    assert!(promised.round > 1 << 20, "above whatever those who are gone can have promised: {promised}");
    assert!(council.propose(replica(3)).is_some());
    council.run(100);
    assert_eq!(council.facts.end(), Index(6), "the Config, the no-op of the new ballot, the value");
}

#[test]
fn what_is_not_known_to_be_decided_is_kept_too() {
    let mut council = council();
    // n2 and n3 accept it and do not hear that it is decided.
    council.propose(replica(1)).expect("n1 leads");
    council.deliver_where(|_| true);
    council.sync_all();
    council.network.clear();
    lose(&mut council, &[1, 2]);
    let prospect = rescue(&mut council);
    assert_eq!((prospect.decided, prospect.rescue.length), (Index(3), Index(4)));
    council.run(1_000);
    assert_eq!(council.group(3).applied_index(), Index(6));
}

#[test]
fn an_order_is_for_one_log() {
    let mut council = council();
    lose(&mut council, &[1, 2]);
    let prospect = prospect(&council);
    let wrong = [
        |order: &mut tholos_paxos::Rescue| order.number = 1,
        |order: &mut tholos_paxos::Rescue| order.accepted = ballot(1, 2),
        |order: &mut tholos_paxos::Rescue| order.length = Index(2),
    ];
    for change in wrong {
        let mut order = prospect.rescue.clone();
        order.config.number = 5;
        change(&mut order);
        let refused = council.rescue(replica(3), &order);
        let now = RescueError::NotAsAsked { accepted: ballot(1, 1), length: Index(3), number: 0 };
        assert_eq!(refused, Err(now), "{order:?}");
    }
    let mut without = prospect.rescue.clone();
    without.config.voters = ids(&[2]);
    assert_eq!(council.rescue(replica(3), &without), Err(RescueError::NotNamed));
    council.rescue(replica(3), &prospect.rescue).expect("it is as it was asked");
    council.run(1_000);
    let length = council.group(3).accepted_index();
    council.rescue(replica(3), &prospect.rescue).expect("given again, it does nothing");
    assert_eq!(council.group(3).accepted_index(), length);
}

#[test]
fn a_group_with_a_majority_is_left_alone() {
    let mut council = council();
    lose(&mut council, &[2]);
    assert_eq!(assess(&council), Assessment::HasMajority);
    // An order that was made when it had none comes when it has one again.
    lose(&mut council, &[3]);
    let Prospect { replica: keeps, rescue: order, .. } = prospect(&council);
    council.run(1_000);
    council.restart(replica(3));
    council.run(1_000);
    assert!(council.server().is_some(), "two of three");
    let refused = council.rescue(keeps, &order);
    assert!(matches!(refused, Err(RescueError::NotAsAsked { .. })), "{refused:?}");
}

/// Of five, two are gone and one is mute: the leader hears a majority, and none can vote.
#[test]
fn a_leader_that_can_decide_nothing_goes_on_too() {
    let mut council = Council::new(5, Options::default());
    council.elect(1);
    put(&mut council);
    council.run(20);
    council.crash(replica(5));
    council.rot(replica(5));
    lose(&mut council, &[3, 4]);
    council.run(1_000);
    let index = council.propose(replica(1)).expect("it hears a majority");
    council.run(1_000);
    assert!(council.facts.end() < index);
    assert_eq!(rescue(&mut council).rescue.config.voters, ids(&[1, 2]));
    council.run(1_000);
    assert!(council.server().is_some() && council.facts.end() > index);
}

/// One record holds all of it.
#[test]
fn a_crash_before_it_is_durable_undoes_all_of_it_and_one_after_it_nothing() {
    for durable in [false, true] {
        let mut council = council();
        put(&mut council);
        lose(&mut council, &[1, 2]);
        let decided = council.group(3).decided_index();
        rescue(&mut council);
        assert_eq!(council.at(replica(3)).disk.pending.len(), 1);
        council.crash_keeping(replica(3), usize::from(durable));
        council.restart(replica(3));
        council.run(2_000);
        assert_eq!(council.server().is_some(), durable);
        if !durable {
            assert!(council.group(3).decided_index() <= decided);
            rescue(&mut council);
            council.run(1_000);
            assert_eq!(council.server(), Some(replica(3)));
        }
    }
}

#[test]
fn survivors_share_the_best_log_and_those_who_are_gone_are_ignored() {
    let mut council = Council::new(5, Options::default());
    council.elect(1);
    put(&mut council);
    // n4 gets one entry more than n5, and n1 to n3 decide one more without either.
    council.isolate(5);
    put(&mut council);
    council.isolate(4);
    let last = put(&mut council);
    lose(&mut council, &[1, 2, 3]);
    council.links.heal();
    let prospect = rescue(&mut council);
    assert_eq!(
        (prospect.replica, prospect.rescue.length, &prospect.rescue.config.voters),
        (replica(4), Index(last.0 - 1), &ids(&[4, 5]))
    );
    council.run(2_000);
    let server = council.server().expect("both survivors");
    assert_eq!(council.whole_log(replica(4)), council.whole_log(replica(5)));
    // One that was gone comes back, with what it knows.
    council.restart(replica(1));
    council.links.heal();
    council.run(3_000);
    assert_eq!(council.server(), Some(server));
    assert!(council.group(1).leading().is_none() && council.group(1).config().number == 0);
}

#[test]
fn who_gave_a_grant_to_one_that_is_gone_waits_for_its_end() {
    let mut council = Council::new(3, Options { leases: true, ..Options::default() });
    council.elect(1);
    put(&mut council);
    council.read_by_lease(replica(1));
    council.now = council.now.plus(tholos_paxos::Millis(50));
    council.tick(replica(1));
    council.settle();
    let until = council.read_by_lease(replica(1)).expect("n2 and n3 have granted");
    lose(&mut council, &[1, 2]);
    rescue(&mut council);
    while council.now < until {
        council.tick_all(10);
        council.settle();
        assert!(council.now >= until || council.server().is_none(), "n1 may still read");
    }
    council.run(1_000);
    assert_eq!(council.server(), Some(replica(3)));
}

/// One survivor has learnt by a snapshot, in a ballot that its log is not accepted in, more than the other, whose log
/// ranks higher.
#[test]
fn what_a_survivor_knows_to_be_decided_goes_before_the_rank_of_a_log() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    put(&mut council);
    let low = council.survivors();
    let mut knows = low[1].clone();
    let mut ranks = low[2].clone();
    (knows.decided, knows.length, knows.origins) = (Index(9), Index(9), vec![(Index(9), ballot(5, 1))]);
    (ranks.accepted, ranks.length) = (ballot(4, 1), Index(12));
    ranks.origins = vec![(Index(2), ballot(1, 1)), (Index(3), ballot(4, 1))];
    let of = |survivors: &[tholos_paxos::Survivor]| match Assessment::of(survivors, &Config::default(), MOVE)
    {
        Assessment::Rescue(prospect) => (prospect.replica, prospect.decided),
        other => panic!("{other:?}"),
    };
    let five = Config::founding(ids(&[1, 2, 3, 4, 5]));
    for survivor in [&mut knows, &mut ranks] {
        survivor.configs = vec![(Index(0), five.clone())];
    }
    assert_eq!(of(&[knows.clone(), ranks.clone()]), (replica(2), Index(9)));
    // It has that very entry, and more.
    ranks.origins.push((Index(8), ballot(5, 1)));
    assert_eq!(of(&[knows.clone(), ranks.clone()]), (replica(3), Index(9)));
    // What the map says is retired is dropped at any time.
    let recorded = Config { last_replica: replica(3), ..Config::founding(ids(&[1, 2])) };
    let Assessment::Rescue(prospect) = Assessment::of(&[knows, ranks], &recorded, MOVE) else { panic!() };
    assert_eq!((prospect.replica, prospect.rescue.config.voters), (replica(2), ids(&[2])));
}

/// As in phase 1: what was decided below its ballot is in a log, however short it is.
#[test]
fn the_ballot_of_a_log_goes_before_its_length() {
    let council = council();
    let mut survivors = council.survivors();
    survivors.truncate(2);
    for survivor in &mut survivors {
        survivor.configs = vec![(Index(0), Config::founding(ids(&[1, 2, 3, 4, 5])))];
    }
    let [long, high] = &mut survivors[..] else { panic!() };
    long.length = Index(9);
    (high.accepted, high.length) = (ballot(2, 4), Index(5));
    let Assessment::Rescue(prospect) = Assessment::of(&survivors, &Config::default(), MOVE) else { panic!() };
    assert_eq!((prospect.replica, prospect.rescue.length), (replica(2), Index(5)));
}

/// The owner of the best log was being removed, and only it knows so far: another survivor would hear of that from it before
/// it is helped, and ignore it for ever (seed 876 of the runs with a recovery).
#[test]
fn an_owner_that_somebody_knows_to_be_left_out_goes_on_alone() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    put(&mut council);
    let [_, owner, other] = &mut council.survivors()[..] else { panic!() };
    let without = Config { number: 1, last_replica: replica(4), ..Config::founding(ids(&[1, 3, 4])) };
    (owner.length, owner.accepted) = (Index(9), ballot(3, 2));
    let told = |owner: &tholos_paxos::Survivor, other: &tholos_paxos::Survivor| {
        let survivors = [owner.clone(), other.clone()];
        match Assessment::of(&survivors, &Config::default(), MOVE) {
            Assessment::Rescue(prospect) => (prospect.replica, prospect.rescue.config.voters),
            other => panic!("{other:?}"),
        }
    };
    let all = Config::founding(ids(&[1, 2, 3, 4, 5]));
    for survivor in [&mut *owner, &mut *other] {
        survivor.configs = vec![(Index(0), all.clone())];
    }
    assert_eq!(told(owner, other), (replica(2), ids(&[2, 3])));
    // Decided or not, and whoever knows it.
    for at in [Index(1), Index(9)] {
        let mut knows = owner.clone();
        knows.configs.push((at, without.clone()));
        assert_eq!(told(&knows, other), (replica(2), ids(&[2])));
        let mut knows = other.clone();
        knows.configs.push((at, without.clone()));
        assert_eq!(told(owner, &knows), (replica(2), ids(&[2])));
    }
}

#[test]
fn a_mute_replica_is_no_survivor() {
    let mut council = council();
    lose(&mut council, &[1]);
    council.crash(replica(2));
    council.rot(replica(2));
    council.sync_all();
    let prospect = prospect(&council);
    assert_eq!((prospect.replica, &prospect.rescue.config.voters), (replica(3), &ids(&[3])));
    assert_eq!(council.rescue(replica(2), &prospect.rescue), Err(RescueError::Mute));
    lose(&mut council, &[3]);
    assert_eq!(assess(&council), Assessment::NothingLeft);
}

/// Two of a set that grew to four are gone: neither they nor the others are a majority.
#[test]
fn nothing_is_lost_where_those_who_are_gone_decided_nothing_alone() {
    let mut council = council();
    council.change(replica(1), &[1, 2, 3], &[4]).expect("a learner may come");
    council.run(50);
    council.change(replica(1), &[1, 2, 3, 4], &[]).expect("it has all");
    council.run(50);
    // The last is accepted by n1, n2 and n3, and n4 has not heard of it.
    council.isolate(4);
    let last = put(&mut council);
    assert_eq!(council.facts.end(), last);
    let decided = council.facts.decided.clone();
    lose(&mut council, &[1, 2]);
    council.links.heal();
    let prospect = rescue(&mut council);
    assert!(prospect.loses_nothing);
    assert_eq!(prospect.replica, replica(3));
    council.run(1_000);
    assert!(council.server().is_some());
    assert_eq!(&council.whole_log(replica(4))[..decided.len()], decided);
    assert_eq!(council.group(4).config().last_replica, replica(4), "ids are never used again");
}

#[test]
fn the_record_is_taken_back_as_it_was_written() {
    let mut council = council();
    lose(&mut council, &[1, 2]);
    rescue(&mut council);
    council.sync_all();
    let records = council.at(replica(3)).disk.durable.clone();
    let Some(Record::Rescued { ballot, from, entries }) = records.last() else { panic!("{records:?}") };
    assert_eq!((ballot.replica, *from, entries.len()), (replica(3), Index(4), 1));
    council.crash(replica(3));
    council.restart(replica(3));
    let group = council.group(3);
    assert_eq!((group.accepted_ballot(), group.promised()), (*ballot, *ballot));
    assert_eq!((group.decided_index(), group.config().number), (Index(4), 1));
}

/// What a random schedule leaves of a council, of whom some are then gone for good; whatever is left agrees, keeps what
/// any of them knew to be decided, and goes on. If it says that nothing is lost, then nothing is.
#[test]
fn whatever_is_left_goes_on_as_one() {
    let trials = std::env::var("TRIALS").map_or(100, |text| text.parse().expect("a number"));
    let mut counts = Counts::default();
    for seed in 0..trials {
        let played = catch_unwind(AssertUnwindSafe(|| play(seed, &mut counts)));
        if let Err(cause) = played {
            println!("seed {seed}");
            resume_unwind(cause);
        }
    }
    println!("{counts:?}");
    // That nothing is lost is rare, and has a test of its own.
    let Counts { rescued, lost_some, joint, again, kept_undecided, .. } = counts;
    for count in [rescued, lost_some, joint, again, kept_undecided] {
        assert!(count * 50 > trials, "{counts:?}");
    }
}

#[derive(Default, Clone, Copy, Debug)]
struct Counts {
    rescued: u64,
    /// Entries that somebody knew to be decided are gone.
    lost_some: u64,
    /// It was said beforehand that nothing would be.
    lost_nothing: u64,
    /// A change of the replica set was under way.
    joint: u64,
    /// The survivor died before its record was durable.
    again: u64,
    kept_undecided: u64,
}

fn play(seed: u64, counts: &mut Counts) {
    let mood = Mood::of(seed, Planted::Nothing);
    let mut chance = Chance::of_seed(seed ^ 0x2e5c_0e00);
    let mut council = Council::new(mood.replicas, mood.options);
    for number in 0..mood.steps / (1 + chance.below(3)) {
        step::step(&mut council, &mut Chance::of_step(seed, number), &mood);
    }
    let (lost, left): (Vec<u32>, Vec<u32>) = (1..=council.size() as u32).partition(|_| chance.below(5) < 3);
    lose(&mut council, &lost);
    council.links.heal();
    for number in &left {
        council.resume(replica(*number));
        council.restart(replica(*number));
    }
    // What they can still do by themselves is done.
    council.run(2_000);
    let before = council.facts.decided.clone();
    let known: Vec<Vec<Entry>> = council.replicas.iter().map(|replica| replica.state.clone()).collect();
    if !orders(&mut council, &mut chance, counts) {
        return;
    }
    let kept = council.facts.decided.clone();
    for own in &known {
        assert_eq!(own[..], kept[..own.len()], "what a survivor knew to be decided is kept");
    }
    // Who is left and not in the new set is told of nothing any more, and dropped by its driver.
    let voters = council.decided_config().voters.clone();
    let left_out = council.ids().into_iter().filter(|id| !voters.contains(id));
    council.facts.gone.extend(left_out);
    if before.iter().ne(kept.iter().take(before.len())) {
        counts.lost_some += 1;
    }
    go_on(&mut council, &lost);
    // One that was gone comes back, and speaks to nobody else that was.
    if let Some(back) = lost.first().filter(|_| lost.len() > 1) {
        let server = council.server();
        council.restart(replica(*back));
        council.run(2_000);
        assert_eq!(council.server(), server, "n{back} changes nothing");
    }
}

/// Gives the order, perhaps twice; whether there was one to give.
fn orders(council: &mut Council, chance: &mut Chance, counts: &mut Counts) -> bool {
    let before = council.facts.decided.clone();
    loop {
        let Assessment::Rescue(prospect) = assess(council) else { return false };
        if council.survivors().iter().any(|survivor| survivor.configs.len() > 1) {
            counts.joint += 1;
        }
        council.rescue(prospect.replica, &prospect.rescue).expect("it is as it was asked");
        let after = &council.facts.decided;
        if prospect.loses_nothing {
            assert_eq!(before[..], after[..before.len()], "it was said that nothing is lost");
            counts.lost_nothing += 1;
        }
        if chance.one_in(4) {
            council.crash(prospect.replica);
            council.restart(prospect.replica);
            council.run(50);
            counts.again += 1;
            continue;
        }
        council.make_durable(prospect.replica, usize::MAX);
        counts.rescued += 1;
        counts.kept_undecided += u64::from(prospect.decided < prospect.rescue.length);
        return true;
    }
}

/// Somebody of the survivors serves, what is proposed is decided, and all of them have it; also after all crash at once.
fn go_on(council: &mut Council, lost: &[u32]) {
    for _ in 0..2 {
        council.run(2_000);
        let server = council.server().unwrap_or_else(|| {
            let stand = |replica: &common::Replica| match &replica.group {
                Some(group) => format!(
                    "{} {}; {:?}",
                    replica.id,
                    common::standing(group),
                    group.configs().collect::<Vec<_>>()
                ),
                None => format!("{} is gone", replica.id),
            };
            panic!("nobody serves: {}", council.replicas.iter().map(stand).collect::<Vec<_>>().join("\n"))
        });
        assert!(!lost.contains(&server.0), "{server} is gone");
        let index = council.propose(server).expect("it serves");
        council.run(500);
        assert!(council.facts.end() >= index);
        council.check_all_on_majority();
        let config = council.decided_config().clone();
        for id in &config.voters {
            assert_eq!(council.whole_log(*id), council.facts.decided, "{id}");
        }
        for id in council.ids().into_iter().filter(|id| !lost.contains(&id.0)) {
            council.crash(id);
            council.network.clear();
            council.restart(id);
        }
    }
    council.run(2_000);
}

/// A late message of one that is gone, to one that has heard of the new set.
#[test]
fn what_those_who_are_gone_say_is_ignored() {
    let mut council = council();
    lose(&mut council, &[1, 2]);
    rescue(&mut council);
    council.run(1_000);
    let (log, promised) = (council.whole_log(replica(3)), council.group(3).promised());
    let high = Ballot { round: promised.round + 5, replica: replica(2) };
    for message in [
        Message::Canvass { ballot: high, decided: Index(9) },
        Message::Prepare { ballot: high, decided: Index(9), released: None },
        Message::Accept { ballot: high, entries: Vec::new(), decided: Index(9) },
        Message::Sync { ballot: high, from: Index(1), entries: Vec::new(), whole_to: Index(0) },
    ] {
        let parcel = Parcel::Message(message);
        council.deliver(Envelope { from: replica(2), to: replica(3), parcel });
        assert!(council.network.is_empty());
    }
    assert_eq!((council.whole_log(replica(3)), council.group(3).promised()), (log, promised));
}
