//! Whatever comes, in whatever order.

use proptest::prelude::*;
use tholos_cluster::{
    Cause, Incarnation, JobOrder, Level, MetaCommand, MetaState, Move, NodeChange, NodeId, NodeRow, Standing,
    THROTTLE_BYTES_MIN,
};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::support::{NOW, S0, apply, founded, next_config, now, order, row, swap, voters};

/// What may be asked, about a small cluster.
fn commands() -> impl Strategy<Value = Vec<(u8, u16, u16, u16)>> {
    prop::collection::vec((0..17_u8, 0..6_u16, 0..7_u16, 0..7_u16), 1..40)
}

fn command_of(state: &Option<MetaState>, (kind, a, b, c): (u8, u16, u16, u16)) -> MetaCommand {
    let job = (now(state).last_job + 1).saturating_sub(u64::from(a % 3));
    match kind {
        0 => MetaCommand::Join(NodeRow { incarnation: Incarnation(u64::from(c)), ..row(b + 1) }),
        1 if a > 3 => MetaCommand::Rejoin(NodeRow { incarnation: Incarnation(u64::from(c)), ..row(b + 1) }),
        1 => MetaCommand::Readdress(NodeRow { http: format!("{c}"), ..row(b + 1) }),
        2 => {
            let moves = [(a, b, c), (a + 1, c, b)].map(|(shard, from, to)| Move {
                shard: ShardId(shard % 5),
                from: Some(NodeId(from)).filter(|node| node.0 > 0),
                to: Some(NodeId(to)).filter(|node| node.0 > 0),
            });
            let changes = vec![NodeChange::Standing(NodeId(c), Standing::Draining)];
            let order = order(state, u64::from(a * 64 + b * 8 + c), &moves[..usize::from(1 + a % 2)]);
            let cause =
                [Cause::Operator, Cause::Placement, Cause::Lost(vec![NodeId(c)])][usize::from(b % 3)].clone();
            let restarts = vec![NodeId(b); usize::from(c % 2)];
            let removes = vec![NodeId(c); usize::from(b % 2)];
            MetaCommand::StartJob(JobOrder { changes, removes, cause, restarts, ..order })
        }
        3 => MetaCommand::Order { job, at: u32::from(b) },
        4 => MetaCommand::Pause(job),
        5 => MetaCommand::Resume(job),
        6 => MetaCommand::Cancel(job),
        7 => MetaCommand::Remove(NodeId(b)),
        8 => MetaCommand::Hold(b % 2 == 0),
        9 => MetaCommand::Returned(NodeId(b)),
        10 => MetaCommand::OrderRestart { job, at: u32::from(b % 2), boot: u64::from(c) },
        11 => MetaCommand::RecordRestart { job, at: u32::from(b % 2) },
        13 => MetaCommand::GiveUp(job),
        14 if c < 2 => MetaCommand::Raise(Level(b)),
        14 => MetaCommand::Know { node: NodeId(b), incarnation: row(b).incarnation, level: Level(c) },
        12 => MetaCommand::Throttle { job, bytes_per_s: u64::from(b) * THROTTLE_BYTES_MIN / 2 },
        // The shard does what the move under way wants, or goes another way.
        _ => {
            let group = ShardId(a % 5);
            let mut set = voters(state, group);
            let under_way = now(state).active_job().and_then(|job| {
                job.moves.iter().find(|step| step.what.shard == group && step.is_under_way())
            });
            if let Some(step) = under_way.filter(|_| b > 0) {
                set.retain(|node| step.what.from != Some(NodeId(*node)));
                set.extend(step.what.to.map(|node| node.0).filter(|node| !set.contains(node)));
            }
            MetaCommand::Record { group, config: next_config(state, group, &set, &[]), bytes: u64::from(c) }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn whatever_comes_the_state_holds_its_invariants(commands in commands()) {
        let mut state = founded(4);
        for command in commands {
            let command = command_of(&state, command);
            prop_assert_eq!(MetaCommand::decode(&command.encode()), Ok(command.clone()));
            let before = now(&state).clone();
            let answer = MetaState::apply(&mut state, &command, NOW);
            let after = now(&state);
            prop_assert_eq!(after.check(), Ok(()));
            // E1
            let rose = after.epoch().0 - before.epoch().0;
            prop_assert_eq!(rose, u64::from(*after != before));
            prop_assert!(answer.is_ok() || rose == 0);
            // E3, E4
            prop_assert!(after.last_job >= before.last_job);
            let known = |node: &NodeRow| after.map.node(node.id).is_some() || after.departed.iter().any(|gone| gone.id == node.id);
            prop_assert!(before.map.nodes.iter().all(known));
            prop_assert!(before.configs.iter().zip(&after.configs).all(|(old, new)| new.number >= old.number));
            // E5
            if let Some(job) = after.active_job() {
                let mut shards: Vec<_> = job.moves.iter().filter(|step| step.is_under_way()).map(|step| step.what.shard).collect();
                prop_assert!(shards.len() <= usize::from(job.in_flight_max));
                shards.sort_unstable();
                prop_assert!(shards.windows(2).all(|pair| pair[0] != pair[1]));
            }
            prop_assert_eq!(MetaState::decode(&after.encode()), Ok(after.clone()));
            // E2
            if answer.is_ok() && !matches!(command, MetaCommand::Pause(_) | MetaCommand::Resume(_)) {
                let once = state.clone();
                MetaState::apply(&mut state, &command, NOW.plus(Millis(1))).unwrap();
                prop_assert_eq!(&state, &once);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic(at in 0..4096_usize, change in 1..=255_u8) {
        let mut state = founded(4);
        let plan = order(&state, 7, &[swap(S0, voters(&state, S0)[0], (1..=4).find(|node| !voters(&state, S0).contains(node)).unwrap())]);
        apply(&mut state, &MetaCommand::StartJob(plan.clone()));
        let mut bytes = now(&state).encode();
        let at = at % bytes.len();
        prop_assert!(MetaState::decode(&bytes[..at]).is_err());
        bytes[at] ^= change;
        if let Ok(read) = MetaState::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "one state has one form");
        }
        let mut bytes = MetaCommand::StartJob(plan).encode();
        let at = at % bytes.len();
        prop_assert!(MetaCommand::decode(&bytes[..at]).is_err());
        bytes[at] ^= change;
        let _ = MetaCommand::decode(&bytes);
    }
}
