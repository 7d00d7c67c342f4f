//! What earlier versions wrote, and the feature level.

use tholos_cluster::{Incarnation, Level, MapError, MetaCommand, MetaState, NodeId, PlanError, Refusal};
use tholos_paxos::Millis;

use crate::support::{S0, apply, founded, now, order, row, swap};

/// States and commands as earlier versions wrote them: a job of one move, cancelled.
#[test]
fn what_earlier_versions_wrote_is_read() {
    let mut state = founded(3);
    apply(&mut state, &MetaCommand::Join(row(4)));
    let plan = order(&state, 7, &[swap(S0, 1, 4)]);
    apply(&mut state, &MetaCommand::StartJob(plan.clone()));
    apply(&mut state, &MetaCommand::Cancel(1));
    let last = state.as_mut().unwrap().jobs.last_mut().unwrap();
    (last.started_at, last.ended_at, last.before) = (Millis(0), Millis(1), None);
    let state = now(&state);
    let mut bytes = state.encode();
    // That there are no recoveries; four numbers of the one job, and that what was before it is not known; then whether jobs
    // are held.
    assert_eq!(bytes.pop(), Some(0));
    let end = bytes.len();
    bytes.drain(end - 34..end - 1);
    bytes[0] = 2;
    assert_eq!(MetaState::decode(&bytes).as_ref(), Ok(state));
    assert_eq!(state.before_job(1), Err(PlanError::BeforeUnknown(1)));
    // The cause, the restarts, and whether jobs are held.
    assert_eq!(bytes.split_off(bytes.len() - 4), [0, 0, 0, 0]);
    bytes[0] = 1;
    assert_eq!(MetaState::decode(&bytes).as_ref(), Ok(state));
    bytes[0] = 6;
    assert_eq!(MetaState::decode(&bytes), Err(MapError::UnknownVersion { written: 6, reads: 5 }));

    let mut bytes = MetaCommand::StartJob(plan.clone()).encode();
    // Behind version, kind, plan, epoch, title and moves in flight.
    let at = 2 + 8 + 8 + 2 + plan.title.len() + 2;
    bytes.drain(at..at + 8);
    bytes[0] = 2;
    let plan = MetaCommand::StartJob(plan);
    assert_eq!(MetaCommand::decode(&bytes).as_ref(), Ok(&plan));
    assert_eq!(bytes.split_off(bytes.len() - 3), [0, 0, 0]);
    bytes[0] = 1;
    assert_eq!(MetaCommand::decode(&bytes), Ok(plan));
}

fn know(node: u16, level: u16) -> MetaCommand {
    MetaCommand::Know { node: NodeId(node), incarnation: row(node).incarnation, level: Level(level) }
}

#[track_caller]
fn refused(state: &mut Option<MetaState>, command: &MetaCommand, expected: &Refusal) {
    let before = state.clone();
    assert_eq!(MetaState::apply(state, command, Millis(0)).as_ref(), Err(expected));
    assert_eq!(*state, before);
}

#[test]
fn the_feature_level_rises_when_every_node_knows_it_and_never_falls() {
    let mut state = founded(3);
    let old = now(&state).encode();
    assert_eq!(old[0], 4, "an earlier release reads what says nothing of levels");
    apply(&mut state, &know(1, 2));
    apply(&mut state, &know(3, 3));
    assert_eq!(
        (now(&state).encode()[0], now(&state).level_of(NodeId(3)), now(&state).level),
        (5, Level(3), Level(1))
    );
    let names: Vec<&str> = now(&state).behind(Level(2)).map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["n2"]);
    let behind = |level, nodes: &[u16]| {
        let nodes = nodes.iter().copied().map(NodeId).collect();
        Refusal::NodesBehind { level: Level(level), nodes }
    };
    refused(&mut state, &MetaCommand::Raise(Level(2)), &behind(2, &[2]));
    // Put back to what it was before, it is as before.
    apply(&mut state, &know(3, 1));
    apply(&mut state, &know(1, 1));
    let back = MetaState { map: now(&state).map.clone(), ..MetaState::decode(&old).unwrap() };
    assert_eq!(*now(&state), back);
    for node in 1..=3 {
        apply(&mut state, &know(node, 2));
    }
    apply(&mut state, &MetaCommand::Raise(Level(2)));
    assert_eq!(now(&state).level, Level(2));
    let epoch = now(&state).epoch();
    apply(&mut state, &MetaCommand::Raise(Level(1)));
    apply(&mut state, &MetaCommand::Raise(Level(2)));
    assert_eq!(
        (now(&state).level, now(&state).epoch()),
        (Level(2), epoch),
        "it never falls, and once is enough"
    );
    let low = Refusal::LevelTooLow { node: NodeId(2), known: Level(1), level: Level(2) };
    refused(&mut state, &know(2, 1), &low);
    refused(&mut state, &MetaCommand::Raise(Level(3)), &behind(3, &[1, 2, 3]));
    let wrong = MetaCommand::Know { node: NodeId(2), incarnation: Incarnation(77), level: Level(3) };
    refused(&mut state, &wrong, &Refusal::UnknownNode(NodeId(2)));
    assert_eq!(MetaState::decode(&now(&state).encode()).as_ref(), Ok(now(&state)));
    // Who joins has said nothing yet, and holds the next one up; who has left does not.
    apply(&mut state, &MetaCommand::Join(row(4)));
    for node in 1..=3 {
        apply(&mut state, &know(node, 3));
    }
    refused(&mut state, &MetaCommand::Raise(Level(3)), &behind(3, &[4]));
    apply(&mut state, &MetaCommand::Remove(NodeId(4)));
    apply(&mut state, &MetaCommand::Raise(Level(3)));
    for command in [know(2, 9), MetaCommand::Raise(Level(7))] {
        assert_eq!(MetaCommand::decode(&command.encode()), Ok(command));
    }
}
