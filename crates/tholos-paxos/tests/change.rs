//! Changes of the replica set: one test for each sentence of R6 and R7 (docs/protocol/paxos.md). The scenes in full are
//! in `golden/change`; what random schedules make of changes is in `props.rs`.

use tholos_paxos::{ChangeError, Index, Message, Millis, Options, Planted, ProposeError, Record, ReplicaId};

mod common;
use common::{Council, Envelope, Parcel, ballot};

/// Replicas `1..=founders`, of which n1 leads.
fn council(founders: u32) -> Council {
    let mut council = Council::new(founders, Options::default());
    council.elect(1);
    council
}

/// The same with learners that lack nothing.
fn with_learners(founders: u32, learners: &[u32]) -> Council {
    let mut council = council(founders);
    let voters: Vec<u32> = (1..=founders).collect();
    council.order(1, &voters, learners).expect("learners may come");
    council.run(20);
    council
}

trait Short {
    fn order(&mut self, leader: u32, voters: &[u32], learners: &[u32]) -> Result<Index, ChangeError>;
    fn put(&mut self, leader: u32) -> Index;
    fn sync(&mut self, replicas: &[u32]);
    /// Delivers what goes from one of `from` to one of `to`; all else that is under way is lost.
    fn deliver_only(&mut self, from: &[u32], to: &[u32]);
    fn applied(&mut self, replica: u32) -> u64;
    fn hand(&mut self, from: u32, to: u32, message: Message) -> usize;
}

impl Short for Council {
    fn order(&mut self, leader: u32, voters: &[u32], learners: &[u32]) -> Result<Index, ChangeError> {
        Council::change(self, ReplicaId(leader), voters, learners)
    }

    fn put(&mut self, leader: u32) -> Index {
        self.try_propose(ReplicaId(leader)).expect("it serves")
    }

    fn sync(&mut self, replicas: &[u32]) {
        replicas.iter().for_each(|replica| self.make_durable(ReplicaId(*replica), usize::MAX));
    }

    fn deliver_only(&mut self, from: &[u32], to: &[u32]) {
        self.deliver_where(|envelope| from.contains(&envelope.from.0) && to.contains(&envelope.to.0));
    }

    fn applied(&mut self, replica: u32) -> u64 {
        self.at(ReplicaId(replica)).state.len() as u64
    }

    /// Returns how many messages that brings about.
    fn hand(&mut self, from: u32, to: u32, message: Message) -> usize {
        let before = self.network.len();
        self.deliver(Envelope { from: ReplicaId(from), to: ReplicaId(to), parcel: Parcel::Message(message) });
        self.network.len() - before
    }
}

/// R6: until it is decided every quorum is a quorum of the old set and of the new one. Here phase 2: for the Config
/// itself, and for what follows it.
#[test]
fn while_joint_a_value_needs_a_majority_of_both_sets() {
    // What the leader n1 and these others accept is decided in {1,2,3} → {1,4,5} if `decided`.
    for (others, decided) in [
        (&[2, 3][..], false),
        (&[4, 5], false),
        (&[2], false),
        (&[4], false),
        (&[2, 4], true),
        (&[3, 5], true),
    ] {
        let mut council = with_learners(3, &[4, 5]);
        let at = council.order(1, &[1, 4, 5], &[]).expect("taken");
        let next = council.put(1);
        council.deliver_only(&[1], others);
        council.sync(&[1]);
        council.sync(others);
        council.deliver_only(others, &[1]);
        let expected = if decided { next } else { Index(at.0 - 1) };
        assert_eq!(council.group(1).decided_index(), expected, "{others:?}");
    }
}

/// R6: … here phase 1. Neither set alone elects who has the Config in its log.
#[test]
fn while_joint_a_candidate_needs_a_majority_of_both_sets() {
    for (there, wins) in [(&[2, 3][..], false), (&[4, 5], false), (&[2, 3, 5], false), (&[2, 3, 4, 5], true)]
    {
        let mut council = with_learners(3, &[4, 5]);
        council.order(1, &[1, 4, 5], &[]).expect("taken");
        // All have it, and nobody knows it to be decided.
        council.deliver_only(&[1], &[2, 3, 4, 5]);
        council.sync_all();
        council.network.clear();
        for away in (1..=5).filter(|replica| !there.contains(replica)) {
            council.crash(ReplicaId(away));
        }
        council.run(2_000);
        assert_eq!(council.server().is_some(), wins, "{there:?}");
    }
}

/// R6: … a round of reads, too.
#[test]
fn while_joint_a_read_needs_a_majority_of_both_sets() {
    for (others, answered) in [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true)] {
        let mut council = with_learners(3, &[4, 5]);
        council.order(1, &[1, 4, 5], &[]).expect("taken");
        council.network.clear();
        let token = council.read(ReplicaId(1)).expect("it leads");
        council.deliver_only(&[1], others);
        council.deliver_only(others, &[1]);
        assert_eq!(council.facts.reads_ready.contains(&token), answered, "{others:?}");
    }
}

/// A read under way when the others go is answered by those who stay, also if that is the leader alone, who asks nobody.
#[test]
fn a_read_outlives_those_who_were_asked() {
    let mut council = council(3);
    council.order(1, &[1], &[]).expect("taken");
    council.deliver_only(&[1], &[2]);
    council.sync(&[1, 2]);
    let token = council.read(ReplicaId(1)).expect("it leads");
    let confirm = |message: &Message| matches!(message, Message::Confirm { .. });
    council
        .network
        .retain(|envelope| !matches!(&envelope.parcel, Parcel::Message(message) if confirm(message)));
    council.deliver_only(&[2], &[1]);
    assert_eq!(council.decided_config().voters, [ReplicaId(1)]);
    assert!(council.facts.reads_ready.contains(&token));
}

/// R6 and R9: … and who hears a leader out. One that hears no majority of one of the sets falls silent.
#[test]
fn while_joint_a_leader_must_hear_a_majority_of_both_sets() {
    for (unheard, goes_on) in [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true)] {
        let mut council = with_learners(3, &[4, 5]);
        council.order(1, &[1, 4, 5], &[]).expect("taken");
        unheard.iter().for_each(|other| council.cut_between(1, *other));
        council.tick(ReplicaId(1));
        assert_eq!(council.group(1).leading().is_some(), goes_on, "{unheard:?}");
    }
}

/// R6: a Config counts from acceptance, also for a follower that does not know whether it is decided; and no longer
/// once the log that holds it is replaced.
#[test]
fn a_config_counts_from_acceptance_until_it_is_replaced() {
    let mut council = with_learners(3, &[4, 5]);
    council.order(1, &[1, 4, 5], &[]).expect("taken");
    council.deliver_only(&[1], &[4]);
    let numbers = |council: &mut Council, replica: u32| -> Vec<u64> {
        council.group(replica).configs().map(|config| config.number).collect()
    };
    assert_eq!(numbers(&mut council, 4), [1, 2]);
    council.sync(&[1, 4]);
    council.crash(ReplicaId(1));
    council.network.clear();
    council.elect(2);
    council.run(400);
    assert_eq!(numbers(&mut council, 4), [1]);
}

/// R6: phase 1 is counted again under the configuration in the log that it adopts: a majority of the set that the
/// candidate knows does not elect it once that log names another.
#[test]
fn phase_1_is_counted_again_under_the_log_that_it_adopts() {
    let mut council = with_learners(3, &[4, 5]);
    council.order(1, &[1, 4, 5], &[]).expect("taken");
    council.deliver_only(&[1], &[2]);
    council.sync_all();
    council.network.clear();
    for away in [1, 4, 5] {
        council.crash(ReplicaId(away));
    }
    council.run(1_000);
    assert!(
        council.group(3).promised() > ballot(1, 1),
        "it stood, and was promised by a majority that it knew"
    );
    assert_eq!(council.server(), None);
    council.restart(ReplicaId(4));
    council.run(1_000);
    assert_eq!(council.server(), None, "n4 is one of {{1,4,5}}");
    council.restart(ReplicaId(5));
    council.run(2_000);
    assert!(council.server().is_some());
    assert_eq!(council.decided_config().number, 2, "what phase 1 found was decided");
}

/// n3 leads without n1, which has decided the Config with n2 and n4, and a value after it with n4 alone. Only n2 and
/// n3 are of the set that n3 knows, and n2 has not heard of that value.
fn n3_finds_what_was_decided_in_a_set_that_it_did_not_know(planted: Planted) {
    let mut council = Council::new(3, Options { planted, ..Options::default() });
    council.elect(1);
    council.order(1, &[1, 2, 3], &[4, 5]).expect("learners may come");
    council.run(20);
    council.order(1, &[1, 4, 5], &[]).expect("taken");
    council.deliver_only(&[1], &[2, 4]);
    council.sync(&[2]);
    council.deliver_only(&[2], &[1]);
    let decided = council.put(1);
    council.deliver_only(&[1], &[4]);
    council.sync(&[1, 4]);
    council.deliver_only(&[4], &[1]);
    assert_eq!(council.group(1).decided_index(), decided);
    council.crash(ReplicaId(1));
    council.network.clear();
    council.elect(3);
    council.run(400);
    assert!(council.group(3).decided_index() > decided);
}

#[test]
fn what_was_decided_in_a_set_that_the_candidate_did_not_know_is_found() {
    n3_finds_what_was_decided_in_a_set_that_it_did_not_know(Planted::Nothing);
}

/// The same without the second count is seen to fail.
#[test]
#[should_panic(expected = "agreement")]
fn without_the_second_count_it_is_lost() {
    n3_finds_what_was_decided_in_a_set_that_it_did_not_know(Planted::NotCountedAgain);
}

/// R6: the next Config only when the last is decided.
#[test]
fn one_change_at_a_time() {
    let mut council = with_learners(3, &[4, 5]);
    council.order(1, &[1, 2, 4], &[5]).expect("taken");
    assert_eq!(council.order(1, &[1, 2, 5], &[]), Err(ChangeError::UnderWay));
    council.settle();
    assert!(council.order(1, &[1, 2, 5], &[]).is_ok());
}

/// R6: … and when the leader has decided an entry of its own ballot.
#[test]
fn no_change_before_the_leaders_own_no_op_is_decided() {
    let mut council = with_learners(3, &[4]);
    council.crash(ReplicaId(1));
    council.network.clear();
    // n2 is elected, and nobody accepts its no-op.
    for _ in 0..40 {
        council.tick_all(10);
        council.sync_all();
        let sync = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Sync { .. }));
        council.deliver_where(|envelope| !sync(envelope));
    }
    let leader = (2..=3).find(|replica| council.group(*replica).leading().is_some()).expect("elected");
    let not_serving = Err(ChangeError::Refused(ProposeError::NotServing));
    assert_eq!(council.order(leader, &[2, 3, 4], &[]), not_serving);
    council.run(400);
    assert!(council.order(leader, &[2, 3, 4], &[]).is_ok());
}

/// R6: a swap of one replica for another is a single entry.
#[test]
fn a_swap_is_one_entry() {
    let mut council = with_learners(3, &[4]);
    let before = council.group(1).accepted_index();
    council.order(1, &[1, 2, 4], &[]).expect("taken");
    council.settle();
    assert_eq!(council.group(1).accepted_index(), before.next());
    assert_eq!(council.group(1).configs().count(), 1);
}

/// R6: learners get entries, and their answers count in no quorum.
#[test]
fn learners_decide_nothing_and_elect_nobody() {
    let mut council = with_learners(3, &[4, 5]);
    council.put(1);
    council.deliver_only(&[1], &[4, 5]);
    council.sync(&[1, 4, 5]);
    council.deliver_only(&[4, 5], &[1]);
    assert_eq!(council.group(4).accepted_index(), council.group(1).accepted_index());
    assert_eq!(council.group(1).decided_index().next(), council.group(1).accepted_index());
    // Neither do they elect, nor stand.
    council.crash(ReplicaId(1));
    council.crash(ReplicaId(2));
    council.network.clear();
    council.run(2_000);
    assert_eq!(council.server(), None);
    assert!(council.ids().into_iter().skip(3).all(|id| council.group(id.0).promised().replica.0 <= 3));
}

/// R7: a learner that lacks what was forgotten gets a snapshot, and the configuration with it.
#[test]
fn a_learner_begins_with_a_snapshot() {
    let mut council = council(3);
    for _ in 0..5 {
        council.put(1);
    }
    council.run(20);
    council.snapshot(ReplicaId(1), true);
    council.order(1, &[1, 2, 3], &[4]).expect("taken");
    council.run(400);
    assert_eq!(council.applied(4), council.applied(1));
    assert!(council.group(4).base().index > Index::ZERO);
    let config = council.group(1).config().clone();
    assert_eq!(council.group(4).config(), &config);
    council.order(1, &[1, 2, 4], &[]).expect("a voter like any other");
    council.run(20);
    assert_eq!(council.decided_config().number, 2);
}

/// R7: the leader refuses orders whose number is not current, whatever else they say.
#[test]
fn an_order_for_another_configuration_is_refused() {
    let mut council = with_learners(3, &[4]);
    for number in [0, 2] {
        let result = council.change_from(number, ReplicaId(1), &[1, 2, 4], &[]);
        assert_eq!(result, Err(ChangeError::NotCurrent { number: 1 }));
    }
    assert!(council.change_from(1, ReplicaId(1), &[1, 2, 4], &[]).is_ok());
}

/// R7: a replica id is used once: what was removed does not come back under it, neither as voter nor to learn.
#[test]
fn a_removed_replica_does_not_come_back_under_its_id() {
    let mut council = with_learners(3, &[4]);
    council.order(1, &[1, 2, 4], &[]).expect("taken");
    council.run(20);
    let used = Err(ChangeError::IdUsed { replica: ReplicaId(3) });
    assert_eq!(council.order(1, &[1, 2, 3], &[]), used);
    assert_eq!(council.order(1, &[1, 2, 4], &[3]), used);
}

/// R7: retired ids are ignored for ever, whatever they say.
#[test]
fn retired_ids_are_ignored() {
    let mut council = with_learners(3, &[4]);
    council.crash(ReplicaId(3));
    council.order(1, &[1, 2, 4], &[]).expect("taken");
    council.run(20);
    let high = ballot(9, 3);
    for message in [
        Message::Canvass { ballot: high, decided: Index(99) },
        Message::Prepare { ballot: high, decided: Index(99), released: None },
        Message::Reject { promised: high },
        Message::Accept { ballot: high, entries: Vec::new(), decided: Index(1) },
        Message::Sync { ballot: high, from: Index(1), entries: Vec::new(), whole_to: Index(0) },
    ] {
        for to in [1, 2, 4] {
            assert_eq!(council.hand(3, to, message.clone()), 0, "{message:?}");
        }
    }
    council.run(20);
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)));
    // What it comes back with, and how long it goes on: nobody is moved.
    council.restart(ReplicaId(3));
    council.cut_between(1, 3);
    council.run(3_000);
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)));
    assert!([1, 2, 4].iter().all(|replica| council.group(*replica).promised() == ballot(1, 1)));
}

/// R7: a leader that is removed leads until the Config without it is decided, and then hands over.
#[test]
fn a_removed_leader_hands_over() {
    let mut council = with_learners(3, &[4]);
    council.order(1, &[2, 3, 4], &[]).expect("taken");
    let after = council.put(1);
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)));
    council.run(100);
    assert!(council.group(1).is_retired() && council.group(1).leading().is_none());
    // Without a time-out, to the one that walks first.
    assert_eq!(council.server(), Some(ReplicaId(2)));
    assert!(council.group(2).decided_index() > after);
}

/// R7: … also if its last word is lost, and it is still there and is heard.
#[test]
fn a_removed_leader_whose_last_word_is_lost_is_not_waited_for_for_ever() {
    let mut council = with_learners(3, &[4]);
    council.order(1, &[2, 3, 4], &[]).expect("taken");
    for _ in 0..30 {
        council.tick_all(10);
        council.sync_all();
        let released =
            |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Released { .. }));
        council.deliver_where(|envelope| !released(envelope));
    }
    assert!(council.group(1).leading().is_none() && council.server().is_none());
    council.run(1_200);
    assert!(council.server().is_some_and(|server| server != ReplicaId(1)));
}

/// Whoever is removed may be switched off once it has let go: the others know that the change is decided, also after
/// they have all restarted.
#[test]
fn who_was_removed_is_needed_no_more() {
    let mut council = with_learners(1, &[2, 3]);
    council.order(1, &[2, 3], &[]).expect("taken");
    council.run(400);
    assert!(council.server().is_some_and(|server| server != ReplicaId(1)));
    for id in council.ids() {
        council.crash(id);
    }
    council.network.clear();
    council.restart(ReplicaId(2));
    council.restart(ReplicaId(3));
    council.run(2_000);
    assert!(council.server().is_some());
}

/// A voter that knows nothing of a change stands, with the vote of one that was removed and has forgotten what it lacks. It is handed
/// that one's snapshot, and learns from it whom to ask. Without it asked for ever for entries that are nowhere (simulator, seed 1644).
#[test]
fn who_has_lost_its_vote_hands_its_snapshot_to_a_candidate() {
    let mut council = with_learners(3, &[4]);
    council.cut_between(1, 3);
    council.cut_between(3, 4);
    council.order(1, &[1, 3, 4], &[]).expect("taken");
    council.run(400);
    council.snapshot(ReplicaId(2), true);
    assert!(council.group(2).is_retired() && council.group(3).config().is_voter(ReplicaId(2)));
    council.crash(ReplicaId(1));
    council.crash(ReplicaId(4));
    council.run(5_000);
    let (applied, config) = (council.group(2).applied_index(), council.group(2).config().clone());
    assert_eq!(council.group(3).applied_index(), applied);
    assert_eq!(*council.group(3).config(), config);
    // It leads nothing with that vote: two of the new voters are needed.
    assert_eq!(council.server(), None);
    council.heal();
    council.run(2_000);
    assert!(council.server().is_some());
}

/// Several replicas are changed one after the other while one is away; it comes back and finds itself removed, or
/// replaced, or still there.
#[test]
fn several_are_changed_while_one_is_away() {
    for away in [2, 3] {
        let mut council = with_learners(3, &[4, 5]);
        council.crash(ReplicaId(away));
        let stays = 5 - away;
        council.order(1, &[1, stays, away, 4, 5], &[]).expect("two more");
        council.run(20);
        council.order(1, &[1, away, 4, 5], &[6]).expect("one less, one learns");
        council.run(200);
        council.order(1, &[1, away, 4, 5, 6], &[]).expect("and votes");
        council.run(20);
        council.order(1, &[away, 5, 6], &[]).expect("the leader and another go");
        council.run(200);
        let server = council.server().expect("somebody leads").0;
        assert!([5, 6].contains(&server));
        council.put(server);
        council.run(20);
        council.restart(ReplicaId(away));
        council.run(400);
        assert_eq!(council.applied(away), council.applied(server));
        assert_eq!(council.decided_config().number, 5);
    }
}

/// 1 → 3 → 5 → 3 → 1, with a value decided in each set, and each leader in its turn removed.
#[test]
fn from_one_to_three_to_five_and_back() {
    let mut council = council(1);
    let mut leader = 1;
    let sets: [(&[u32], &[u32]); 8] = [
        (&[1], &[2, 3]),
        (&[1, 2, 3], &[]),
        (&[1, 2, 3], &[4, 5]),
        (&[1, 2, 3, 4, 5], &[]),
        (&[2, 3, 4], &[]),
        (&[2, 3, 4], &[6]),
        (&[3, 6, 4], &[]),
        (&[6], &[]),
    ];
    for (at, (voters, learners)) in sets.into_iter().enumerate() {
        council.order(leader, voters, learners).expect("taken");
        council.run(400);
        leader = council.server().expect("somebody leads").0;
        assert!(voters.contains(&leader), "n{leader} leads {voters:?}");
        council.put(leader);
        council.run(20);
        assert_eq!(council.decided_config().number, at as u64 + 1);
        for replica in voters.iter().chain(learners) {
            assert_eq!(
                council.applied(*replica),
                council.facts.decided.len() as u64,
                "n{replica} in {voters:?}"
            );
        }
    }
    assert_eq!(leader, 6);
}

/// A set whose majority lacks what is decided would stand still, so the order is refused until they have learnt it.
#[test]
fn voters_learn_before_they_vote() {
    let mut council = council(1);
    assert_eq!(council.order(1, &[1, 2, 3], &[]), Err(ChangeError::VotersLackEntries));
    council.order(1, &[1], &[2, 3]).expect("they may learn");
    council.sync(&[1]);
    assert_eq!(council.order(1, &[1, 2, 3], &[]), Err(ChangeError::VotersLackEntries));
    council.run(20);
    assert!(council.order(1, &[1, 2, 3], &[]).is_ok());
}

/// All but the Config's proposer may have it from a log that was sent whole, which carries no mark; and a replica that has
/// joined knows no configuration before it. It may ask all the same: the one that is removed knows that it is decided.
#[test]
fn a_voter_that_knows_nothing_decided_is_told() {
    let mut council = with_learners(1, &[2]);
    council.order(1, &[2], &[]).expect("the leader goes");
    council.deliver_only(&[1], &[2]);
    council.sync(&[1, 2]);
    council.deliver_only(&[2], &[1]);
    assert_eq!(council.decided_config().number, 2);
    council.network.clear();
    council.crash(ReplicaId(2));
    council.tick(ReplicaId(1));
    assert_eq!(council.group(1).leading(), None, "it hears no quorum");
    let ballot = council.at(ReplicaId(2)).disk.durable.iter().find_map(|record| match record {
        Record::Replaced { ballot, .. } => Some(*ballot),
        _ => None,
    });
    let entries = council.facts.decided.clone();
    let replaced =
        Record::Replaced { ballot: ballot.expect("it was brought up to date"), from: Index(1), entries };
    council.at(ReplicaId(2)).disk.durable = vec![Record::Joined { replica: ReplicaId(2) }, replaced];
    council.restart(ReplicaId(2));
    assert_eq!(council.group(2).decided_index(), Index::ZERO);
    council.run(1_200);
    assert_eq!(council.server(), Some(ReplicaId(2)));
}

/// A removed replica may have more than the new voters and have forgotten what came before. They have that themselves.
#[test]
fn what_a_removed_replica_has_forgotten_the_new_voters_have() {
    let mut council = with_learners(1, &[2]);
    council.order(1, &[2], &[1]).expect("they change places");
    council.deliver_only(&[1], &[2]);
    council.sync(&[1, 2]);
    council.deliver_only(&[2], &[1]);
    council.put(1);
    council.sync(&[1]);
    council.snapshot(ReplicaId(1), true);
    council.sync(&[1]);
    council.crash(ReplicaId(1));
    council.restart(ReplicaId(1));
    council.network.clear();
    // n2 is elected and loses all of it, and n1 has it.
    while council.group(2).leading().is_none() {
        council.now = council.now.plus(Millis(10));
        council.tick(ReplicaId(2));
        council.deliver_where(|_| true);
        let promised = |record: &Record| matches!(record, Record::Promised { .. });
        if council.at(ReplicaId(2)).disk.pending.iter().all(promised) {
            council.sync(&[2]);
        }
        council.sync(&[1]);
    }
    council.deliver_only(&[2], &[1]);
    council.sync(&[1]);
    council.crash(ReplicaId(2));
    council.restart(ReplicaId(2));
    let [removed, voter] =
        [1, 2].map(|replica| (council.group(replica).base(), council.group(replica).accepted_ballot()));
    assert!(removed.1 > voter.1 && removed.0.index > council.group(2).decided_index());
    council.run(1_200);
    assert_eq!(council.server(), Some(ReplicaId(2)));
    assert_eq!(council.applied(2), council.facts.decided.len() as u64);
}

/// Who was removed together with the leader may be waited for by those who do not know it, and may wait for the leader.
#[test]
fn who_was_removed_is_told_that_its_leader_leads_no_more() {
    let mut council = with_learners(3, &[4, 5, 6]);
    council.order(1, &[4, 5, 6], &[]).expect("all go");
    council.deliver_only(&[1], &[2, 3, 4, 5]);
    council.sync(&[1, 2, 3, 4, 5]);
    council.deliver_only(&[2, 3, 4, 5], &[1]);
    assert_eq!(council.decided_config().number, 2);
    council.network.clear();
    // It falls silent, and hears everybody again at once.
    council.isolate(1);
    council.tick(ReplicaId(1));
    assert_eq!(council.group(1).leading(), None);
    council.links.heal();
    council.run(1_200);
    let server = council.server().expect("somebody serves");
    assert!([4, 5, 6].contains(&server.0), "{server}");
}

/// n1 leads {n1, n2, n3} and has ordered {n2, n3, n4}, of which nobody has heard, when it falls silent and hears everybody again
/// at once. n4 is away, and n2 restarts and stands first. It cannot do without n3, since it finds the new set in n1's log; and n3
/// has forgotten what n2 does not know to be decided. If not `caught_up`, n3 has heard of n1's ballot and has nothing of its log.
fn followed_and_silent(caught_up: bool) -> Council {
    let mut council = with_learners(3, &[4]);
    council.put(1);
    council.deliver_only(&[1], &[2, 3, 4]);
    council.sync_all();
    council.deliver_only(&[2, 3, 4], &[1]);
    council.tick(ReplicaId(1));
    council.deliver_only(&[1], &[3]);
    council.snapshot(ReplicaId(3), true);
    council.sync_all();
    if !caught_up {
        fall_silent(&mut council, 1);
        council.crash(ReplicaId(3));
        let led = council.elect_but(1, 3);
        council.run(200);
        council.restart(ReplicaId(3));
        council.hand(1, 3, Message::Decide { ballot: led, decided: Index(1), length: Index(4) });
        council.network.clear();
    }
    council.order(1, &[2, 3, 4], &[]).expect("the leader goes");
    council.sync(&[1]);
    council.network.clear();
    council.crash(ReplicaId(4));
    council.crash(ReplicaId(2));
    council.restart(ReplicaId(2));
    council.now = council.now.plus(tholos_paxos::LEASE);
    fall_silent(&mut council, 1);
    let [old, candidate, other] = [1, 2, 3].map(|replica| council.group(replica).clone());
    assert_eq!(other.leader(), Some(old.accepted_ballot()));
    assert_eq!(other.accepted_ballot() == old.accepted_ballot(), caught_up);
    assert!(!other.resends_after(candidate.decided_index()));
    council
}

/// It hears nobody for a moment.
fn fall_silent(council: &mut Council, leader: u32) {
    council.isolate(leader);
    council.tick(ReplicaId(leader));
    assert_eq!(council.group(leader).leading(), None);
    council.links.heal();
}

/// A candidate that needs the vote of one that it could not lead cannot win. So that one stands itself, though the leader that
/// it follows is there (schedules, seed 1109494).
#[test]
fn who_cannot_promise_a_candidate_stands_itself() {
    for caught_up in [true, false] {
        let mut council = followed_and_silent(caught_up);
        council.run(300);
        assert_eq!(council.server(), Some(ReplicaId(3)), "caught up: {caught_up}");
    }
}

/// A leader that is left alone in the new set falls silent, and is heard by one that knows of no new set.
#[test]
fn who_has_fallen_silent_says_so() {
    for caught_up in [true, false] {
        let mut council = followed_and_silent(caught_up);
        council.cut_between(1, 2);
        council.run(1_200);
        assert_eq!(council.server(), Some(ReplicaId(3)), "caught up: {caught_up}");
    }
}

/// Who has nothing of the log of a leader that was removed is told as well that it leads no more.
#[test]
fn who_has_heard_of_a_leader_is_told_that_it_was_removed() {
    let mut council = with_learners(5, &[6]);
    fall_silent(&mut council, 1);
    council.crash(ReplicaId(3));
    let led = council.elect_but(1, 3);
    council.run(200);
    council.restart(ReplicaId(3));
    council.hand(1, 3, Message::Decide { ballot: led, decided: Index(1), length: Index(3) });
    council.network.clear();
    council.order(1, &[2, 3, 6], &[]).expect("the leader and two more go");
    council.deliver_only(&[1], &[2, 4, 6]);
    council.sync(&[1, 2, 4, 6]);
    council.deliver_only(&[2, 4, 6], &[1]);
    assert!(council.group(1).is_retired() && council.group(3).leader() == Some(led));
    council.network.clear();
    fall_silent(&mut council, 1);
    council.crash(ReplicaId(4));
    council.crash(ReplicaId(5));
    council.run(1_200);
    let server = council.server().expect("somebody serves");
    assert!([2, 3, 6].contains(&server.0), "{server}");
}

/// One that joined with a Config of which nobody else has heard finds in the log of the others no Config at all: it cannot know who
/// counts, and does not go on to ask for promises, which keeps those from standing who do (schedules, seed 39807).
#[test]
fn who_cannot_know_who_counts_gives_up() {
    let mut council = council(3);
    council.order(1, &[2, 3, 4], &[]).expect("n4 for n1");
    for _ in 0..4 {
        council.sync(&[1, 4]);
        council
            .deliver_where(|envelope| [1, 4].contains(&envelope.from.0) && [1, 4].contains(&envelope.to.0));
    }
    council.network.clear();
    assert!(council.group(4).config().is_voter(ReplicaId(4)) && council.group(4).configs().count() == 2);
    council.isolate(1);
    council.isolate(4);
    council.elect(2);
    council.put(2);
    council.settle();
    council.links.heal();
    council.crash(ReplicaId(1));
    council.crash(ReplicaId(2));
    council.restart(ReplicaId(2));
    // It stands first, though it should be last, and goes on for as long as it has others' promises.
    for _ in 0..200 {
        council.tick_all(10);
        council.settle_but(|envelope| {
            let canvass = matches!(envelope.parcel, Parcel::Message(Message::Canvass { .. }));
            envelope.from == ReplicaId(4) || !canvass
        });
        if council.group(3).promised().replica == ReplicaId(4) {
            break;
        }
    }
    assert_eq!(council.group(3).promised().replica, ReplicaId(4));
    // Whoever has promised gives it an election time-out.
    council.run(400);
    assert!(council.server().is_some_and(|server| server != ReplicaId(4)));
}

/// A candidate needs the vote of one that does not know the Config which makes it a voter. That one has a snapshot, not yet the log,
/// and nothing that the candidate lacks before it. It would wait for ever for a candidate that knows more, and never stand
/// (schedules, seeds 3414107 and 3471977).
#[test]
fn who_does_not_know_that_it_is_a_voter_promises() {
    for has_config in [false, true] {
        let mut council = with_learners(3, &[4]);
        council.isolate(1);
        council.isolate(4);
        council.elect(3);
        council.links.heal();
        council.isolate(4);
        council.run(100);
        council.put(3);
        council.deliver_only(&[3], &[1, 2]);
        council.sync_all();
        council.deliver_only(&[1, 2], &[3]);
        council.snapshot(ReplicaId(3), true);
        council.links.heal();
        council.now = council.now.plus(Millis(100));
        council.tick(ReplicaId(3));
        let is_log = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Sync { .. }));
        council.settle_but(|envelope| envelope.to != ReplicaId(2) && !is_log(envelope));
        council.order(3, &[2, 3, 4], &[]).expect("n4 for n1");
        let accept = council.network.iter().find_map(|envelope| match &envelope.parcel {
            Parcel::Message(Message::Accept { ballot, entries, .. }) => {
                Some(Message::Accept { ballot: *ballot, entries: entries.clone(), decided: Index::ZERO })
            }
            _ => None,
        });
        council.network.clear();
        let to = if has_config { 2 } else { 1 };
        council.hand(3, to, accept.expect("it is sent at once"));
        council.sync_all();
        council.network.clear();
        council.crash(ReplicaId(3));
        let [other, candidate, new] = [1, 2, 4].map(|replica| council.group(replica).clone());
        assert_eq!(
            [other.configs().count(), candidate.configs().count()],
            if has_config { [1, 2] } else { [2, 1] }
        );
        assert!(new.base().index > candidate.decided_index() && !new.config().is_voter(ReplicaId(4)));
        assert!(new.accepted_ballot() < new.promised(), "a snapshot of a ballot and not yet the log");
        council.run(2_000);
        assert_eq!(council.server(), Some(ReplicaId(2)), "has the Config: {has_config}");
    }
}

/// What a replica knows by a snapshot of a higher ballot says nothing of a log of a lower one. n1 has ordered n2 back in the place
/// of n3, and nobody has heard of it; n3 and n4 have decided other things since. n2, which learns, has a snapshot of these and not
/// yet the log. Its vote and n1's are no quorum, though n2 says that as much is decided as n1's log is long (schedules, seed 2067547).
#[test]
fn what_a_snapshot_tells_decides_nothing_in_a_log_of_a_lower_ballot() {
    for restarts in [false, true] {
        let mut council = with_learners(3, &[4]);
        council.order(1, &[1, 3, 4], &[2]).expect("they change places");
        council.run(200);
        let order = council.order(1, &[1, 2, 4], &[3]).expect("and back");
        (0..3).for_each(|_| _ = council.put(1));
        council.sync(&[1]);
        council.network.clear();
        council.isolate(1);
        council.isolate(2);
        council.elect(4);
        council.put(4);
        council.settle();
        council.snapshot(ReplicaId(4), true);
        council.links.heal();
        council.isolate(1);
        council.now = council.now.plus(Millis(100));
        council.tick(ReplicaId(4));
        let is_log = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Sync { .. }));
        council.settle_but(|envelope| !is_log(envelope));
        let [n1, n2] = [1, 2].map(|replica| council.group(replica).clone());
        assert_eq!(n1.accepted_ballot(), n2.accepted_ballot());
        assert!(order <= n2.decided_index() && n2.decided_index() < n1.accepted_index());
        council.crash(ReplicaId(4));
        if restarts {
            council.crash(ReplicaId(2));
            council.restart(ReplicaId(2));
        }
        council.links.heal();
        // n3 misses the leader, too, and hears no more of it.
        for _ in 0..100 {
            council.tick_all(10);
            let endorses = |envelope: &Envelope| {
                matches!(envelope.parcel, Parcel::Message(Message::Canvass { .. } | Message::Endorse { .. }))
            };
            council.settle_but(|envelope| match (envelope.from.0, envelope.to.0) {
                (3, _) => matches!(envelope.parcel, Parcel::Message(Message::Endorse { .. })),
                (_, 3) => endorses(envelope),
                _ => true,
            });
            assert_eq!(council.group(1).leading(), None);
        }
        council.run(2_000);
        assert!(council.server().is_some(), "restarts: {restarts}");
    }
}

/// Who has lost its vote, promised, saved a snapshot and started again still knows that its marks are of its own log: the new
/// voter, which has not heard that the change is decided, needs its word (schedules, seeds 3034256 and 3071038).
#[test]
fn who_was_removed_and_has_promised_votes_after_a_restart() {
    let mut council = with_learners(1, &[2]);
    let removal = council.order(1, &[2], &[]).expect("it has all that it lacks");
    council.sync(&[1]);
    council.deliver_only(&[1], &[2]);
    council.sync(&[2]);
    council.deliver_only(&[2], &[1]);
    council.network.clear();
    assert!(council.group(1).decided_index() >= removal && council.group(2).decided_index() < removal);
    council.isolate(1);
    council.run(1_000);
    assert_eq!(council.group(1).leading(), None, "it hears nobody");
    council.links.heal();
    for _ in 0..100 {
        council.tick_all(10);
        council.settle_but(|envelope| {
            let stands = |message: &Message| {
                matches!(message, Message::Canvass { .. } | Message::Endorse { .. } | Message::Prepare { .. })
            };
            matches!(&envelope.parcel, Parcel::Message(message) if stands(message))
        });
        if council.group(1).promised() > council.group(1).accepted_ballot() {
            break;
        }
    }
    let promised = council.group(1).promised();
    assert_eq!(promised.replica, ReplicaId(2), "its word is lost");
    council.snapshot(ReplicaId(1), true);
    council.settle_but(|_| false);
    council.crash(ReplicaId(1));
    council.restart(ReplicaId(1));
    assert_eq!(council.group(1).promised(), promised);
    council.run(4_000);
    assert_eq!(council.server(), Some(ReplicaId(2)));
}
