//! The bytes of the state and of the commands, version 5; earlier ones are read as well. What says nothing of feature levels is
//! written in version 4, so that a release that knows nothing of them reads it.
//!
//! Numbers are little-endian, strings and maps stand behind their length (2 and 4 bytes), lists behind their count.
//!
//! ```text
//!   state    version 1 | map | nodes × standing 1 | departed 2 × (id 2, name, incarnation 8) | configs 2 × config
//!            | last job 8 | jobs 1 × job | held 1 | recoveries 1 × recovery
//!            | level 2 | levels 2 × (node 2, level 2)
//!   config   number 8 | move 8 | last replica 4 | voters 1 × 4 | learners 1 × 4
//!   job      id 8 | plan 8 | title | state 1 | in flight 2 | moves 4 × (move, stage 1, number 8 if ordered) | removes 2 × 2
//!            | cause | restarts 2 × (node 2, stage 1, boot 8 if ordered)
//!            | bytes a second 8 | started 8 | ended 8 | moved bytes 8 | whether the next is there 1 | before
//!   before   replicas 1 | nodes 2 × change | sets 2 × (shard 2, 1 × node 2)
//!   change   kind 1 | node 2 | standing 1, weight 2 or zone
//!   cause    kind 1 | nodes 2 × 2 if lost
//!   move     shard 2 | from 2 | to 2                 0 is nobody
//!   command  version 1 | kind 1 | its fields in the order of their declaration
//! ```
//!
//! Version 1 has neither held, causes nor restarts. Before version 3, a job ends with its restarts, an order has no bytes a
//! second, and a record no bytes. Before version 4, a state has no recoveries; before version 5, no levels.

mod recovery;

use alloc::boxed::Box;
use alloc::vec::Vec;

use tholos_paxos::{Config, Millis, MoveId, ReplicaId};
use tholos_ring::ShardId;

use crate::bytes::{Reader, push_string};
use crate::id::{Epoch, Incarnation, Level, NodeId};
use crate::map::{ClusterMap, MapError, NodeRow};
use crate::meta::{
    Before, Cause, Departed, Job, JobMove, JobOrder, JobRestart, JobState, MetaCommand, MetaState, MoveStage,
    NodeChange, RestartStage, Standing, shared,
};
use crate::moves::Move;
use recovery::{push_recover, push_recovery, read_recover, read_recovery};

const VERSION: u8 = 5;
/// The first version that has causes of jobs and restarts.
const WITH_CAUSES: u8 = 2;
/// The first version that has throttles of jobs, their times and bytes, and what was before them.
const WITH_TIMES: u8 = 3;
/// The first version that has recoveries.
const WITH_RECOVERIES: u8 = 4;
/// The first version that has feature levels.
const WITH_LEVELS: u8 = 5;

const FOUND: u8 = 1;
const RESTORE: u8 = 42;

const STANDINGS: [Standing; 4] = [Standing::Member, Standing::Spare, Standing::Draining, Standing::Lost];
const JOB_STATES: [JobState; 5] =
    [JobState::Running, JobState::Paused, JobState::Cancelling, JobState::Done, JobState::Cancelled];

impl MetaState {
    /// The state's bytes.
    ///
    /// # Panics
    ///
    /// If the state does not hold its invariants ([`MetaState::check`]).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("a state out of its bounds before write: {error}");
        }
        let version = if self.has_levels() { WITH_LEVELS } else { WITH_RECOVERIES };
        let mut out = Vec::from([version]);
        push_map(&self.map, &mut out);
        out.extend(self.standings.iter().map(|standing| position(&STANDINGS, *standing)));
        push_list16(&self.departed, &mut out, push_departed);
        push_list16(&self.configs, &mut out, |config, out| push_config(config, out));
        out.extend_from_slice(&self.last_job.to_le_bytes());
        out.push(self.jobs.len() as u8);
        for job in &self.jobs {
            push_job(job, &mut out);
        }
        out.push(u8::from(self.held));
        out.push(self.recoveries.len() as u8);
        for recovery in &self.recoveries {
            push_recovery(recovery, &mut out);
        }
        if version >= WITH_LEVELS {
            out.extend_from_slice(&self.level.0.to_le_bytes());
            push_list16(&self.levels, &mut out, |(node, level), out| {
                push_node(Some(*node), out);
                out.extend_from_slice(&level.0.to_le_bytes());
            });
        }
        out
    }

    /// Whether it says more than that all know the first level, and nothing else is in force.
    const fn has_levels(&self) -> bool {
        self.level.0 > Level::FIRST.0 || !self.levels.is_empty()
    }

    /// Reads a state back. Any bytes may come: what is no state is an error, and allocates little.
    ///
    /// # Errors
    ///
    /// The first thing found to be wrong.
    pub fn decode(bytes: &[u8]) -> Result<MetaState, MapError> {
        let mut reader = Reader::new(bytes);
        let version = read_version(&mut reader)?;
        let map = read_map(&mut reader)?;
        let standings =
            map.nodes.iter().map(|_| read_one_of(&STANDINGS, &mut reader)).collect::<Result<_, _>>()?;
        let departed = read_list16(&mut reader, read_departed)?;
        let configs = shared(read_list16(&mut reader, read_config)?);
        let last_job = reader.u64()?;
        let count = reader.u8()?;
        let jobs = (0..count).map(|_| read_job(version, &mut reader)).collect::<Result<_, _>>()?;
        let held = version >= WITH_CAUSES && read_flag(&mut reader)?;
        let count = if version >= WITH_RECOVERIES { reader.u8()? } else { 0 };
        let recoveries = (0..count).map(|_| read_recovery(&mut reader)).collect::<Result<_, _>>()?;
        let (mut level, mut levels) = (Level::FIRST, Vec::new());
        if version >= WITH_LEVELS {
            level = Level(reader.u16()?);
            levels = read_list16(&mut reader, |reader| Ok((NodeId(reader.u16()?), Level(reader.u16()?))))?;
        }
        end(&reader)?;
        let state =
            MetaState { map, standings, departed, configs, jobs, last_job, held, recoveries, level, levels };
        state.check()?;
        Ok(state)
    }
}

impl MetaCommand {
    /// The command's bytes.
    ///
    /// # Panics
    ///
    /// If a list in it is longer than its bound: who makes a command keeps them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let version = match self {
            MetaCommand::Know { .. } | MetaCommand::Raise(_) => WITH_LEVELS,
            _ => WITH_RECOVERIES,
        };
        let mut out = Vec::from([version, self.kind()]);
        match self {
            MetaCommand::Found(map) => push_map(map, &mut out),
            MetaCommand::Join(row) | MetaCommand::Readdress(row) | MetaCommand::Rejoin(row) => {
                row.encode(&mut out);
            }
            MetaCommand::StartJob(order) => push_order(order, &mut out),
            MetaCommand::Order { job, at } => {
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
            }
            MetaCommand::Record { group, config, bytes } => {
                out.extend_from_slice(&group.0.to_le_bytes());
                push_config(config, &mut out);
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            MetaCommand::Pause(job)
            | MetaCommand::Resume(job)
            | MetaCommand::Cancel(job)
            | MetaCommand::GiveUp(job) => {
                out.extend_from_slice(&job.to_le_bytes());
            }
            MetaCommand::Remove(node) | MetaCommand::Returned(node) => push_node(Some(*node), &mut out),
            MetaCommand::Hold(held) => out.push(u8::from(*held)),
            MetaCommand::Throttle { job, bytes_per_s } => {
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(&bytes_per_s.to_le_bytes());
            }
            MetaCommand::Recover(order) => push_recover(order, &mut out),
            MetaCommand::Restore(state) => out.extend_from_slice(&state.encode()),
            MetaCommand::EndRescue { recovery, group } => {
                out.extend_from_slice(&recovery.to_le_bytes());
                out.extend_from_slice(&group.0.to_le_bytes());
            }
            MetaCommand::Know { node, incarnation, level } => {
                push_node(Some(*node), &mut out);
                out.extend_from_slice(&incarnation.0.to_le_bytes());
                out.extend_from_slice(&level.0.to_le_bytes());
            }
            MetaCommand::Raise(level) => out.extend_from_slice(&level.0.to_le_bytes()),
            MetaCommand::OrderRestart { job, at, boot } => {
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&boot.to_le_bytes());
            }
            MetaCommand::RecordRestart { job, at } => {
                out.extend_from_slice(&job.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
            }
        }
        out
    }

    /// Whether these are the bytes of a command that makes the first state: all others come after it.
    #[must_use]
    pub fn is_first(bytes: &[u8]) -> bool {
        matches!(bytes, [_, FOUND | RESTORE, ..])
    }

    const fn kind(&self) -> u8 {
        match self {
            MetaCommand::Found(_) => FOUND,
            MetaCommand::Join(_) => 2,
            MetaCommand::Readdress(_) => 3,
            MetaCommand::StartJob(_) => 4,
            MetaCommand::Order { .. } => 5,
            MetaCommand::Record { .. } => 6,
            MetaCommand::Pause(_) => 7,
            MetaCommand::Resume(_) => 8,
            MetaCommand::Cancel(_) => 9,
            MetaCommand::Remove(_) => 10,
            MetaCommand::Hold(_) => 11,
            MetaCommand::Returned(_) => 12,
            MetaCommand::OrderRestart { .. } => 13,
            MetaCommand::RecordRestart { .. } => 14,
            MetaCommand::Throttle { .. } => 15,
            MetaCommand::Rejoin(_) => 16,
            MetaCommand::GiveUp(_) => 17,
            MetaCommand::Know { .. } => 18,
            MetaCommand::Raise(_) => 19,
            MetaCommand::Recover(_) => 40,
            MetaCommand::EndRescue { .. } => 41,
            MetaCommand::Restore(_) => RESTORE,
        }
    }

    /// Reads a command back.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<MetaCommand, MapError> {
        let mut reader = Reader::new(bytes);
        let version = read_version(&mut reader)?;
        let kind = reader.u8()?;
        if kind == RESTORE {
            // To the end, behind its own version.
            return MetaState::decode(reader.rest()).map(|state| MetaCommand::Restore(Box::new(state)));
        }
        let command = match kind {
            FOUND => MetaCommand::Found(read_map(&mut reader)?),
            2 => MetaCommand::Join(NodeRow::decode(&mut reader)?),
            3 => MetaCommand::Readdress(NodeRow::decode(&mut reader)?),
            4 => MetaCommand::StartJob(read_order(version, &mut reader)?),
            5 => MetaCommand::Order { job: reader.u64()?, at: reader.u32()? },
            6 => MetaCommand::Record {
                group: ShardId(reader.u16()?),
                config: read_config(&mut reader)?,
                bytes: since_times(version, &mut reader)?,
            },
            7 => MetaCommand::Pause(reader.u64()?),
            8 => MetaCommand::Resume(reader.u64()?),
            9 => MetaCommand::Cancel(reader.u64()?),
            10 => MetaCommand::Remove(NodeId(reader.u16()?)),
            11 => MetaCommand::Hold(read_flag(&mut reader)?),
            12 => MetaCommand::Returned(NodeId(reader.u16()?)),
            13 => MetaCommand::OrderRestart { job: reader.u64()?, at: reader.u32()?, boot: reader.u64()? },
            14 => MetaCommand::RecordRestart { job: reader.u64()?, at: reader.u32()? },
            15 => MetaCommand::Throttle { job: reader.u64()?, bytes_per_s: reader.u64()? },
            16 => MetaCommand::Rejoin(NodeRow::decode(&mut reader)?),
            17 => MetaCommand::GiveUp(reader.u64()?),
            18 => MetaCommand::Know {
                node: NodeId(reader.u16()?),
                incarnation: Incarnation(reader.u64()?),
                level: Level(reader.u16()?),
            },
            19 => MetaCommand::Raise(Level(reader.u16()?)),
            40 => MetaCommand::Recover(read_recover(&mut reader)?),
            41 => MetaCommand::EndRescue { recovery: reader.u64()?, group: ShardId(reader.u16()?) },
            other => return Err(MapError::UnknownKind(other)),
        };
        end(&reader)?;
        Ok(command)
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<u8, MapError> {
    match reader.u8()? {
        version @ 1..=VERSION => Ok(version),
        written => Err(MapError::UnknownVersion { written, reads: VERSION }),
    }
}

/// A number that came with [`WITH_TIMES`]: it was 0 before.
fn since_times(version: u8, reader: &mut Reader<'_>) -> Result<u64, MapError> {
    if version < WITH_TIMES { Ok(0) } else { reader.u64() }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, MapError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(MapError::UnknownKind(other)),
    }
}

fn end(reader: &Reader<'_>) -> Result<(), MapError> {
    if reader.is_empty() { Ok(()) } else { Err(MapError::TrailingBytes) }
}

fn push_list16<T>(list: &[T], out: &mut Vec<u8>, mut push: impl FnMut(&T, &mut Vec<u8>)) {
    let count = u16::try_from(list.len()).expect("lists of nodes and shards are numbered with 16 bits");
    out.extend_from_slice(&count.to_le_bytes());
    list.iter().for_each(|item| push(item, out));
}

/// Counts are claims: the list grows with the bytes that are really there.
fn read_list16<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, MapError>,
) -> Result<Vec<T>, MapError> {
    let mut list = Vec::new();
    for _ in 0..reader.u16()? {
        list.push(read(reader)?);
    }
    Ok(list)
}

fn position<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).expect("all of them are listed") as u8
}

fn read_one_of<T: Copy>(all: &[T], reader: &mut Reader<'_>) -> Result<T, MapError> {
    let kind = reader.u8()?;
    all.get(usize::from(kind)).copied().ok_or(MapError::UnknownKind(kind))
}

fn push_departed(gone: &Departed, out: &mut Vec<u8>) {
    push_node(Some(gone.id), out);
    push_string(&gone.name, out);
    out.extend_from_slice(&gone.incarnation.0.to_le_bytes());
}

fn read_departed(reader: &mut Reader<'_>) -> Result<Departed, MapError> {
    let (id, name) = (NodeId(reader.u16()?), reader.string()?);
    Ok(Departed { id, name, incarnation: Incarnation(reader.u64()?) })
}

fn push_map(map: &ClusterMap, out: &mut Vec<u8>) {
    let bytes = map.encode();
    let length = u32::try_from(bytes.len()).expect("a map is far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes);
}

fn read_map(reader: &mut Reader<'_>) -> Result<ClusterMap, MapError> {
    let length = reader.u32()? as usize;
    ClusterMap::decode(reader.slice(length)?)
}

/// Nodes count from 1, so 0 is nobody.
fn push_node(node: Option<NodeId>, out: &mut Vec<u8>) {
    out.extend_from_slice(&node.map_or(0, |node| node.0).to_le_bytes());
}

fn read_somebody(reader: &mut Reader<'_>) -> Result<Option<NodeId>, MapError> {
    Ok(Some(NodeId(reader.u16()?)).filter(|node| node.0 > 0))
}

fn push_replicas(replicas: &[ReplicaId], out: &mut Vec<u8>) {
    out.push(u8::try_from(replicas.len()).expect("check() bounds a replica set"));
    replicas.iter().for_each(|replica| out.extend_from_slice(&replica.0.to_le_bytes()));
}

fn read_replicas(reader: &mut Reader<'_>) -> Result<Vec<ReplicaId>, MapError> {
    let count = reader.u8()?;
    (0..count).map(|_| reader.u32().map(ReplicaId)).collect()
}

fn push_config(config: &Config, out: &mut Vec<u8>) {
    out.extend_from_slice(&config.number.to_le_bytes());
    out.extend_from_slice(&config.move_id.0.to_le_bytes());
    out.extend_from_slice(&config.last_replica.0.to_le_bytes());
    push_replicas(&config.voters, out);
    push_replicas(&config.learners, out);
}

fn read_config(reader: &mut Reader<'_>) -> Result<Config, MapError> {
    Ok(Config {
        number: reader.u64()?,
        move_id: MoveId(reader.u64()?),
        last_replica: ReplicaId(reader.u32()?),
        voters: read_replicas(reader)?,
        learners: read_replicas(reader)?,
    })
}

fn push_move(step: &Move, out: &mut Vec<u8>) {
    out.extend_from_slice(&step.shard.0.to_le_bytes());
    push_node(step.from, out);
    push_node(step.to, out);
}

fn read_move(reader: &mut Reader<'_>) -> Result<Move, MapError> {
    Ok(Move { shard: ShardId(reader.u16()?), from: read_somebody(reader)?, to: read_somebody(reader)? })
}

fn push_job(job: &Job, out: &mut Vec<u8>) {
    out.extend_from_slice(&job.id.to_le_bytes());
    out.extend_from_slice(&job.plan.to_le_bytes());
    push_string(&job.title, out);
    out.push(position(&JOB_STATES, job.state));
    out.extend_from_slice(&job.in_flight_max.to_le_bytes());
    out.extend_from_slice(&(job.moves.len() as u32).to_le_bytes());
    for JobMove { what, stage } in &job.moves {
        push_move(what, out);
        match stage {
            MoveStage::Waiting => out.push(0),
            MoveStage::Ordered { number } => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            MoveStage::Recorded => out.push(2),
            MoveStage::Cancelled => out.push(3),
        }
    }
    push_list16(&job.removes, out, |node, out| push_node(Some(*node), out));
    push_cause(&job.cause, out);
    push_list16(&job.restarts, out, |restart, out| {
        push_node(Some(restart.node), out);
        match restart.stage {
            RestartStage::Waiting => out.push(0),
            RestartStage::Ordered { boot } => {
                out.push(1);
                out.extend_from_slice(&boot.to_le_bytes());
            }
            RestartStage::Recorded => out.push(2),
            RestartStage::Cancelled => out.push(3),
        }
    });
    for number in [job.bytes_per_s, job.started_at.0, job.ended_at.0, job.moved_bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::from(job.before.is_some()));
    if let Some(before) = &job.before {
        push_before(before, out);
    }
}

fn push_before(before: &Before, out: &mut Vec<u8>) {
    out.push(before.replicas);
    push_list16(&before.nodes, out, push_change);
    push_list16(&before.sets, out, |(shard, set), out| {
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.push(u8::try_from(set.len()).expect("check() bounds a replica set"));
        set.iter().for_each(|node| push_node(Some(*node), out));
    });
}

fn read_before(reader: &mut Reader<'_>) -> Result<Before, MapError> {
    let replicas = reader.u8()?;
    let nodes = read_list16(reader, read_change)?;
    let sets = read_list16(reader, |reader| {
        let (shard, count) = (ShardId(reader.u16()?), reader.u8()?);
        let set = (0..count).map(|_| reader.u16().map(NodeId)).collect::<Result<_, _>>()?;
        Ok((shard, set))
    })?;
    Ok(Before { replicas, nodes, sets })
}

fn push_cause(cause: &Cause, out: &mut Vec<u8>) {
    match cause {
        Cause::Operator => out.push(0),
        Cause::Lost(nodes) => {
            out.push(1);
            push_list16(nodes, out, |node, out| push_node(Some(*node), out));
        }
        Cause::Placement => out.push(2),
    }
}

fn read_cause(reader: &mut Reader<'_>) -> Result<Cause, MapError> {
    match reader.u8()? {
        0 => Ok(Cause::Operator),
        1 => read_list16(reader, |reader| reader.u16().map(NodeId)).map(Cause::Lost),
        2 => Ok(Cause::Placement),
        other => Err(MapError::UnknownKind(other)),
    }
}

fn read_restart(reader: &mut Reader<'_>) -> Result<JobRestart, MapError> {
    let node = NodeId(reader.u16()?);
    let stage = match reader.u8()? {
        0 => RestartStage::Waiting,
        1 => RestartStage::Ordered { boot: reader.u64()? },
        2 => RestartStage::Recorded,
        3 => RestartStage::Cancelled,
        other => return Err(MapError::UnknownKind(other)),
    };
    Ok(JobRestart { node, stage })
}

fn read_job(version: u8, reader: &mut Reader<'_>) -> Result<Job, MapError> {
    let (id, plan, title) = (reader.u64()?, reader.u64()?, reader.string()?);
    let state = read_one_of(&JOB_STATES, reader)?;
    let in_flight_max = reader.u16()?;
    let mut moves = Vec::new();
    for _ in 0..reader.u32()? {
        let what = read_move(reader)?;
        let stage = match reader.u8()? {
            0 => MoveStage::Waiting,
            1 => MoveStage::Ordered { number: reader.u64()? },
            2 => MoveStage::Recorded,
            3 => MoveStage::Cancelled,
            other => return Err(MapError::UnknownKind(other)),
        };
        moves.push(JobMove { what, stage });
    }
    let removes = read_list16(reader, |reader| reader.u16().map(NodeId))?;
    let (mut cause, mut restarts) = (Cause::Operator, Vec::new());
    if version >= WITH_CAUSES {
        cause = read_cause(reader)?;
        restarts = read_list16(reader, read_restart)?;
    }
    let mut numbers = [0; 4];
    for number in &mut numbers {
        *number = since_times(version, reader)?;
    }
    let [bytes_per_s, started_at, mut ended_at, moved_bytes] = numbers;
    if version < WITH_TIMES {
        // Nobody knows when.
        ended_at = u64::from(state.is_finished());
    }
    let has_before = version >= WITH_TIMES && read_flag(reader)?;
    let before = if has_before { Some(read_before(reader)?) } else { None };
    let (started_at, ended_at) = (Millis(started_at), Millis(ended_at));
    Ok(Job {
        id,
        plan,
        title,
        state,
        in_flight_max,
        moves,
        removes,
        cause,
        restarts,
        bytes_per_s,
        started_at,
        ended_at,
        moved_bytes,
        before,
    })
}

fn push_order(order: &JobOrder, out: &mut Vec<u8>) {
    out.extend_from_slice(&order.plan.to_le_bytes());
    out.extend_from_slice(&order.epoch.0.to_le_bytes());
    push_string(&order.title, out);
    out.extend_from_slice(&order.in_flight_max.to_le_bytes());
    out.extend_from_slice(&order.bytes_per_s.to_le_bytes());
    out.push(order.replicas);
    push_list16(&order.changes, out, push_change);
    out.extend_from_slice(&(order.moves.len() as u32).to_le_bytes());
    order.moves.iter().for_each(|step| push_move(step, out));
    push_list16(&order.removes, out, |node, out| push_node(Some(*node), out));
    push_cause(&order.cause, out);
    push_list16(&order.restarts, out, |node, out| push_node(Some(*node), out));
}

fn push_change(change: &NodeChange, out: &mut Vec<u8>) {
    match change {
        NodeChange::Standing(node, standing) => {
            out.push(0);
            push_node(Some(*node), out);
            out.push(position(&STANDINGS, *standing));
        }
        NodeChange::Weight(node, weight) => {
            out.push(1);
            push_node(Some(*node), out);
            out.extend_from_slice(&weight.to_le_bytes());
        }
        NodeChange::Zone(node, zone) => {
            out.push(2);
            push_node(Some(*node), out);
            push_string(zone, out);
        }
    }
}

fn read_change(reader: &mut Reader<'_>) -> Result<NodeChange, MapError> {
    let (kind, node) = (reader.u8()?, NodeId(reader.u16()?));
    Ok(match kind {
        0 => NodeChange::Standing(node, read_one_of(&STANDINGS, reader)?),
        1 => NodeChange::Weight(node, reader.u16()?),
        2 => NodeChange::Zone(node, reader.string()?),
        other => return Err(MapError::UnknownKind(other)),
    })
}

fn read_order(version: u8, reader: &mut Reader<'_>) -> Result<JobOrder, MapError> {
    let (plan, epoch, title) = (reader.u64()?, Epoch(reader.u64()?), reader.string()?);
    let (in_flight_max, bytes_per_s, replicas) = (reader.u16()?, since_times(version, reader)?, reader.u8()?);
    let changes = read_list16(reader, read_change)?;
    let mut moves = Vec::new();
    for _ in 0..reader.u32()? {
        moves.push(read_move(reader)?);
    }
    let removes = read_list16(reader, |reader| reader.u16().map(NodeId))?;
    let (mut cause, mut restarts) = (Cause::Operator, Vec::new());
    if version >= WITH_CAUSES {
        cause = read_cause(reader)?;
        restarts = read_list16(reader, |reader| reader.u16().map(NodeId))?;
    }
    Ok(JobOrder {
        plan,
        epoch,
        title,
        in_flight_max,
        bytes_per_s,
        replicas,
        changes,
        moves,
        removes,
        cause,
        restarts,
    })
}
