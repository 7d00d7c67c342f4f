//! One step of a schedule.

use tholos_paxos::{Millis, ReplicaId};

use super::chance::Chance;
use super::mood::Mood;
use crate::common::coverage::Reached;
use crate::common::{Council, Envelope, Life};

/// Replicas that come by orders, at most.
const REPLICAS_MAX: usize = 12;

pub fn step(council: &mut Council, chance: &mut Chance, mood: &Mood) {
    let any = any_of(council, chance);
    match chance.below(100) {
        0..60 => deliver_one(council, chance, mood),
        60..72 => {
            council.make_durable(any, 1 + chance.below(3));
        }
        72..82 => {
            council.now = council.now.plus(Millis(chance.below(30) as u64));
            council.tick(any);
        }
        82..90 => {
            council.propose(one_that_leads(council, chance));
        }
        90..94 => {
            let leader = one_that_leads(council, chance);
            council.read(leader);
            council.read_by_lease(leader);
        }
        94 if chance.one_in(8) => {
            let to = any_of(council, chance);
            council.transfer(any, to);
        }
        // A round in which all goes well, so that schedules are not all disorder and somebody comes to lead.
        95 => {
            council.tick_all(10 + chance.below(50) as u64);
            for _ in 0..chance.below(4) {
                council.sync_all();
                council.deliver_where(|_| true);
            }
        }
        96 => council.sync_all(),
        _ => {}
    }
    faults(council, chance, mood, any);
    if chance.one_in(mood.rate("change")) {
        change_replicas(council, chance);
    }
    if chance.one_in(mood.rate("snapshot")) {
        let trim = chance.one_in(2);
        council.snapshot(any, trim);
    }
    if chance.one_in(mood.rate("lease")) {
        cut_off_a_reader(council, chance);
    }
}

/// A leader that reads by its lease is cut off, and the others go on without it, perhaps before the lease is over: may it
/// read then?
fn cut_off_a_reader(council: &mut Council, chance: &mut Chance) {
    council.coverage.count(Reached::CutOffReader);
    let leader = one_that_leads(council, chance);
    let concerns = |envelope: &Envelope| envelope.from == leader || envelope.to == leader;
    council.read_by_lease(leader);
    council.now = council.now.plus(Millis(50));
    council.tick(leader);
    // Not everybody is asked, and the answers may be late.
    let unasked = chance.below(4);
    council.deliver_where(|envelope| envelope.from == leader && envelope.to.0 as usize % 4 != unasked);
    let late = chance.one_in(3);
    if !late {
        council.deliver_where(|envelope| envelope.to == leader);
    }
    let others: Vec<ReplicaId> = council.ids().into_iter().filter(|id| *id != leader).collect();
    if !others.is_empty() && chance.one_in(3) {
        // One who has granted forgets it.
        let one = others[chance.below(others.len())];
        council.sync_all();
        if council.is_up(one) {
            crash(council, chance, one);
            council.restart(one);
        }
    }
    for other in &others {
        council.links.deaf[other.0 as usize - 1][leader.0 as usize - 1] = true;
    }
    for _ in 0..chance.below(40) {
        council.now = council.now.plus(Millis(chance.below(12) as u64));
        for other in &others {
            council.tick(*other);
            council.make_durable(*other, usize::MAX);
        }
        council.propose(one_that_leads(council, chance));
        let (held, among_others): (Vec<_>, Vec<_>) = council.network.drain(..).partition(concerns);
        council.network.extend(among_others);
        council.deliver_where(|_| true);
        council.network.extend(held);
        council.read_by_lease(leader);
    }
    if late {
        council.deliver_where(|envelope| envelope.to == leader);
    }
    council.read_by_lease(leader);
    if chance.one_in(2) {
        council.links.heal();
    }
}

fn faults(council: &mut Council, chance: &mut Chance, mood: &Mood, any: ReplicaId) {
    if chance.one_in(mood.rate("crash")) {
        match council.is_up(any) {
            true if chance.one_in(10) => crash_all(council, chance),
            true => crash(council, chance, any),
            false => restart(council, chance, mood, any),
        }
    } else if !council.is_up(any) && chance.one_in(20) {
        restart(council, chance, mood, any);
    }
    if chance.one_in(mood.rate("pause")) {
        let unheard = chance.one_in(2);
        council.pause(any, unheard);
    } else if chance.one_in(30) {
        council.resume(any);
    }
    if chance.one_in(mood.rate("cut")) {
        cut(council, chance);
    }
}

fn cut(council: &mut Council, chance: &mut Chance) {
    let (a, b) = (chance.below(council.size()), chance.below(council.size()));
    let (way, to) = (chance.below(6), chance.one_in(2));
    let old = one_that_leads(council, chance).0 as usize - 1;
    let links = &mut council.links;
    // Lost in one direction; in both; unheard; late; unheard and late; everything is well again.
    let reached = match way {
        0 => {
            links.cut[a][b] = to;
            Reached::CutOneWay
        }
        1 => {
            (links.cut[a][b], links.cut[b][a]) = (to, to);
            Reached::CutPair
        }
        2 => {
            links.deaf[a][b] = to;
            Reached::Deaf
        }
        3 => {
            links.held[a][b] = to;
            Reached::LateOneWay
        }
        4 => {
            links.age(old, to);
            Reached::Aged
        }
        _ => return links.heal(),
    };
    if to {
        council.coverage.count(reached);
    }
}

fn crash(council: &mut Council, chance: &mut Chance, id: ReplicaId) {
    let kept = chance.below(council.at(id).disk.pending.len() + 1);
    council.crash_keeping(id, kept);
}

fn crash_all(council: &mut Council, chance: &mut Chance) {
    council.coverage.count(Reached::CrashedAll);
    for id in council.ids().into_iter().filter(|id| council.is_up(*id)).collect::<Vec<_>>() {
        crash(council, chance, id);
    }
}

/// A disk may be found rotten; of two at a time what was decided may be lost.
fn restart(council: &mut Council, chance: &mut Chance, mood: &Mood, id: ReplicaId) {
    let others_whole = council.ids().into_iter().all(|other| other == id || !council.is_mute(other));
    if chance.one_in(mood.rate("rot"))
        && others_whole
        && council.facts.goes_on_without(id)
        && council.at(id).life == Life::Here
        && !council.is_up(id)
    {
        if council.decided_config().number > 0 {
            council.coverage.count(Reached::RottedAfterChange);
        }
        if !council.facts.is_settled_without(id, &council.replicas) {
            council.coverage.count(Reached::RottedInChange);
            council.facts.may_stall = true;
        }
        council.rot(id);
    } else {
        council.restart(id);
    }
}

/// Orders some change of the replica set; whether it is taken is for the leader to judge.
fn change_replicas(council: &mut Council, chance: &mut Chance) {
    let leader = one_that_leads(council, chance);
    if council.ids().into_iter().any(|id| council.is_mute(id)) {
        // A set may not be left to one that is mute and another.
        return;
    }
    let Some(group) = &council.replicas[leader.0 as usize - 1].group else { return };
    let config = group.config();
    let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect::<Vec<u32>>();
    let (mut voters, mut learners) = (numbers(&config.voters), numbers(&config.learners));
    // One that was proposed and came to nothing, or the next one.
    let fresh = config.last_replica.0 + 1;
    let fresh = (fresh as usize <= REPLICAS_MAX).then_some(fresh);
    let learner = (!learners.is_empty()).then(|| chance.below(learners.len()));
    let voter = (!voters.is_empty()).then(|| chance.below(voters.len()));
    let reached = match (chance.below(10), learner, voter, fresh) {
        (0..3, _, _, Some(fresh)) => {
            learners.push(fresh);
            Reached::LearnerCame
        }
        (3..5, Some(learner), ..) if voters.len() < 5 => {
            voters.push(learners.remove(learner));
            Reached::VoterMore
        }
        (5..7, Some(learner), Some(voter), _) => {
            voters[voter] = learners.remove(learner);
            Reached::Swapped
        }
        (7, Some(learner), Some(voter), _) => {
            std::mem::swap(&mut voters[voter], &mut learners[learner]);
            Reached::ChangedPlaces
        }
        (8, _, Some(voter), _) if voters.len() > 1 => {
            voters.remove(voter);
            Reached::VoterLeft
        }
        (9, Some(learner), ..) => {
            learners.remove(learner);
            Reached::LearnerLeft
        }
        (_, Some(_), Some(voter), _) => {
            let stays = voters[voter];
            voters = std::mem::take(&mut learners);
            voters.push(stays);
            Reached::AllChanged
        }
        (_, _, Some(voter), Some(fresh)) => {
            voters[voter] = fresh;
            Reached::Stranger
        }
        _ => return,
    };
    let changed = council.change(leader, &voters, &learners).is_ok();
    if changed {
        council.coverage.count(reached);
        if !voters.contains(&leader.0) {
            council.coverage.count(Reached::LeaderLeft);
        }
    }
    if changed && chance.one_in(3) {
        leave_in_the_middle(council, chance, leader);
    } else if chance.one_in(3) {
        council.links.heal();
    }
}

/// Each hears this or that of a change and of what follows, its leader the answers, and then that one is alone.
fn leave_in_the_middle(council: &mut Council, chance: &mut Chance, leader: ReplicaId) {
    for _ in 0..chance.below(3) {
        council.propose(leader);
    }
    let lucky: Vec<bool> = council.network.iter().map(|_| chance.one_in(2)).collect();
    let lucky = std::cell::RefCell::new(lucky.into_iter());
    council.deliver_where(|_| lucky.borrow_mut().next().unwrap_or(true));
    council.sync_all();
    council.deliver_where(|envelope| envelope.to == leader);
    match chance.below(3) {
        0 => crash(council, chance, leader),
        1 => {
            council.links.age(leader.0 as usize - 1, true);
            council.coverage.count(Reached::Aged);
        }
        _ => {
            council.isolate(leader.0);
            council.coverage.count(Reached::Isolated);
        }
    }
}

fn any_of(council: &Council, chance: &mut Chance) -> ReplicaId {
    ReplicaId(1 + chance.below(council.size()) as u32)
}

/// One of those who believe that they lead; anyone if there is none.
fn one_that_leads(council: &Council, chance: &mut Chance) -> ReplicaId {
    let leads = |id: &ReplicaId| {
        let group = &council.replicas[id.0 as usize - 1].group;
        group.as_ref().is_some_and(|group| group.leading().is_some())
    };
    let leaders: Vec<ReplicaId> = council.ids().into_iter().filter(leads).collect();
    let all = if leaders.is_empty() { council.ids() } else { leaders };
    all[chance.below(all.len())]
}

fn deliver_one(council: &mut Council, chance: &mut Chance, mood: &Mood) {
    if council.network.is_empty() {
        return;
    }
    let overtakes = chance.one_in(mood.rate("overtake"));
    let at = if overtakes { chance.below(council.network.len()) } else { 0 };
    let envelope = council.network.remove(at).expect("within the length");
    if council.is_held(&envelope) {
        council.network.push_back(envelope);
        return;
    }
    if at > 0 {
        council.coverage.count(Reached::Overtook);
    }
    if council.links.is_cut(&envelope) {
        return council.coverage.count(Reached::IntoCut);
    }
    if chance.one_in(mood.rate("loss")) {
        return council.coverage.count(Reached::Lost);
    }
    if chance.one_in(mood.rate("double")) {
        // The copy comes late.
        council.coverage.count(Reached::Doubled);
        council.network.push_back(envelope.clone());
    }
    council.deliver(envelope);
}
