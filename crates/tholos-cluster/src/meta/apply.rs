//! What each command does.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tholos_paxos::{Config, Millis, ReplicaId};
use tholos_ring::ShardId;

use crate::founding::number_of_name;
use crate::id::{Epoch, NodeId};
use crate::map::{NAME_BYTES_MAX, NodeRow, REPLICAS_MAX};
use crate::meta::{
    Before, Cause, Departed, JOBS_MAX, Job, JobMove, JobOrder, JobRestart, JobState, MOVES_MAX, MetaCommand,
    MetaState, MoveStage, NodeChange, Refusal, RestartStage, Standing, TITLE_BYTES_MAX, job, voters,
};
use crate::moves::Move;

/// Between the numbers of a node's lives, if its name is a number.
const LIVES_APART: usize = 1000;

impl MetaState {
    /// Carries out a command that was decided at `time`, in milliseconds since 1970, on `state`, which is `None` before the
    /// first map. A function of its arguments alone.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]; nothing has changed then.
    pub fn apply(state: &mut Option<MetaState>, command: &MetaCommand, time: Millis) -> Result<u64, Refusal> {
        let Some(before) = state else {
            let first = match command {
                MetaCommand::Found(map) => {
                    map.check()?;
                    MetaState::founded(map.clone())
                }
                MetaCommand::Restore(saved) => {
                    saved.check()?;
                    let mut first = MetaState::clone(saved);
                    // Who has the same copy has an older map from now on.
                    first.map.epoch = Epoch(saved.map.epoch.0 + 1);
                    first
                }
                _ => return Err(Refusal::NotFounded),
            };
            return Ok(state.insert(first).map.epoch.0);
        };
        // E1: worked out beside, so that a refusal leaves nothing half done.
        let mut after = before.clone();
        let answer = after.carry_out(command, time)?;
        if after != *before {
            // As it was, or as the copy had it.
            after.map.epoch = Epoch(after.map.epoch.0 + 1);
            *before = after;
        }
        Ok(answer.unwrap_or(before.map.epoch.0))
    }

    /// The answer, if it is not the epoch.
    fn carry_out(&mut self, command: &MetaCommand, time: Millis) -> Result<Option<u64>, Refusal> {
        match command {
            MetaCommand::Found(_) => {}
            MetaCommand::Restore(saved) => self.restore(saved)?,
            MetaCommand::Join(row) => return self.join(row, false).map(|id| Some(u64::from(id.0))),
            MetaCommand::Rejoin(row) => return self.join(row, true).map(|id| Some(u64::from(id.0))),
            MetaCommand::Readdress(row) => self.readdress(row)?,
            MetaCommand::StartJob(order) => return self.start_job(order, time).map(Some),
            MetaCommand::Order { job, at } => self.order(*job, *at)?,
            MetaCommand::Record { group, config, bytes } => self.record(*group, config, *bytes, time)?,
            MetaCommand::Pause(job) => self.set_job(*job, JobState::Paused, time)?,
            MetaCommand::Resume(job) => self.set_job(*job, JobState::Running, time)?,
            MetaCommand::Cancel(job) => self.cancel(*job, time)?,
            MetaCommand::Throttle { job, bytes_per_s } => self.throttle(*job, *bytes_per_s)?,
            MetaCommand::Remove(node) => self.remove(*node)?,
            MetaCommand::Hold(held) => self.held = *held,
            MetaCommand::Returned(node) => self.returned(*node, time)?,
            MetaCommand::GiveUp(job) => self.give_up(*job, time)?,
            MetaCommand::OrderRestart { job, at, boot } => self.order_restart(*job, *at, *boot)?,
            MetaCommand::RecordRestart { job, at } => self.record_restart(*job, *at, time)?,
            MetaCommand::Know { node, incarnation, level } => self.know(*node, *incarnation, *level)?,
            MetaCommand::Raise(level) => self.raise(*level)?,
            MetaCommand::Recover(order) => return self.recover(order, time).map(Some),
            MetaCommand::EndRescue { recovery, group } => self.end_rescue(*recovery, *group)?,
        }
        Ok(None)
    }

    /// The group has lost the end of its log for good, and a node that is left has a copy of what that end decided. A state
    /// that is as new stays: then the copy is of an earlier one.
    fn restore(&mut self, saved: &MetaState) -> Result<(), Refusal> {
        if saved.epoch() > self.epoch() && saved.map.cluster_id == self.map.cluster_id {
            saved.check()?;
            self.clone_from(saved);
        }
        Ok(())
    }

    /// Lets a node in; `again`: whoever bears its name has lost its directory.
    fn join(&mut self, row: &NodeRow, again: bool) -> Result<NodeId, Refusal> {
        row.check()?;
        if let Some(gone) = self.departed.iter().find(|gone| gone.incarnation == row.incarnation) {
            return Err(Refusal::HasLeft(gone.id));
        }
        if let Some(known) = self.map.nodes.iter().find(|known| known.incarnation == row.incarnation) {
            // E2; and who is lost bears another name.
            return if known.name == row.name { Ok(known.id) } else { Err(Refusal::HasLeft(known.id)) };
        }
        match self.map.by_name(&row.name).map(|known| known.id) {
            Some(_) if !again => return Err(Refusal::NameTaken(row.name.clone())),
            Some(known) => self.lose(known)?,
            None => {}
        }
        let used = |id: NodeId| self.map.node(id).is_some() || self.departed.iter().any(|gone| gone.id == id);
        let last =
            self.map.nodes.iter().map(|row| row.id).chain(self.departed.iter().map(|gone| gone.id)).max();
        let next = last.and_then(|last| last.0.checked_add(1)).map(NodeId);
        // As at genesis: a name like n4 is the number, if that is free. Its next lives are n1004, n2004, …, so that they take
        // no number from n5.
        let speaking = number_of_name(&row.name).filter(|number| *number > 0);
        let lives =
            speaking.into_iter().flat_map(|number| (number..=u16::MAX).step_by(LIVES_APART).map(NodeId));
        let id = lives.into_iter().find(|id| !used(*id)).or(next).ok_or(Refusal::NodesUsedUp)?;
        let at = self.map.nodes.partition_point(|other| other.id < id);
        self.map.nodes.insert(at, NodeRow { id, ..row.clone() });
        self.standings.insert(at, Standing::Spare);
        Ok(id)
    }

    /// A node will never come back with what it had: another is to bear its name. It leaves at once if it holds nothing;
    /// else it stays, under another name and reached nowhere, until moves have replaced what it holds.
    pub(super) fn lose(&mut self, id: NodeId) -> Result<(), Refusal> {
        if self.holds(id) == 0 && self.remove(id).is_ok() {
            return Ok(());
        }
        let at =
            self.map.nodes.binary_search_by_key(&id, |row| row.id).map_err(|_| Refusal::UnknownNode(id))?;
        let was = self.map.nodes[at].name.clone();
        let name = lost_name(&was, id);
        if self.map.by_name(&name).is_some() {
            return Err(Refusal::NameTaken(was));
        }
        let row = &mut self.map.nodes[at];
        row.name = name;
        for address in [&mut row.gateway, &mut row.cluster, &mut row.peer, &mut row.http] {
            address.clear();
        }
        self.standings[at] = Standing::Lost;
        Ok(())
    }

    fn readdress(&mut self, row: &NodeRow) -> Result<(), Refusal> {
        row.check()?;
        let known = self.map.nodes.iter_mut().find(|known| known.id == row.id);
        let known = known.filter(|known| known.incarnation == row.incarnation && known.name == row.name);
        let known = known.ok_or(Refusal::UnknownNode(row.id))?;
        let (weight, zone) = (known.weight, known.zone.clone());
        *known = NodeRow { weight, zone, ..row.clone() };
        Ok(())
    }

    fn start_job(&mut self, order: &JobOrder, time: Millis) -> Result<u64, Refusal> {
        // E2
        if let Some(job) = self.jobs.iter().find(|job| job.plan == order.plan) {
            return Ok(job.id);
        }
        self.admits(order)?;
        let (replicas, nodes) = (self.map.replicas, self.nodes_before(&order.changes)?);
        for change in &order.changes {
            self.change_node(change)?;
        }
        self.map.replicas = order.replicas;
        if let Some(unknown) = order.restarts.iter().find(|node| self.map.node(**node).is_none()) {
            return Err(Refusal::UnknownNode(*unknown));
        }
        let mut moves = order.moves.clone();
        if order.restarts.is_empty() && moves.iter().all(|step| step.shard != self.map.meta_group()) {
            let down = match &order.cause {
                Cause::Lost(nodes) => &nodes[..],
                Cause::Operator | Cause::Placement => &[],
            };
            moves.extend(voters::moves(self, down));
        }
        let sets = self.sets_after(&moves)?;
        for node in &order.removes {
            let replicas = sets.iter().filter(|set| set.contains(node)).count();
            if self.map.node(*node).is_none() {
                return Err(Refusal::UnknownNode(*node));
            }
            if replicas > 0 {
                return Err(Refusal::StillHolds { node: *node, replicas });
            }
        }
        let before = Before { replicas, nodes, sets: self.sets_before(&moves) };
        self.last_job += 1;
        if self.jobs.len() == JOBS_MAX {
            self.jobs.remove(0);
        }
        self.jobs.push(Job {
            id: self.last_job,
            plan: order.plan,
            title: order.title.clone(),
            state: JobState::Running,
            in_flight_max: order.in_flight_max,
            moves: moves.into_iter().map(|what| JobMove { what, stage: MoveStage::Waiting }).collect(),
            removes: order.removes.clone(),
            cause: order.cause.clone(),
            restarts: order
                .restarts
                .iter()
                .map(|node| JobRestart { node: *node, stage: RestartStage::Waiting })
                .collect(),
            bytes_per_s: order.bytes_per_s,
            started_at: time,
            ended_at: Millis(0),
            moved_bytes: 0,
            before: Some(before),
        });
        self.finish_job(time);
        Ok(self.last_job)
    }

    /// Whether a job of this kind may begin now; what it is to change is judged while it is changed.
    fn admits(&self, order: &JobOrder) -> Result<(), Refusal> {
        if let Some(job) = self.active_job() {
            return Err(Refusal::JobUnderWay(job.id));
        }
        if let Some(recovery) = self.recovery_under_way() {
            return Err(Refusal::RecoveryUnderWay(recovery.id));
        }
        if self.held && order.cause.is_automatic() {
            return Err(Refusal::Held);
        }
        if order.epoch != self.map.epoch {
            return Err(Refusal::MapMoved { planned: order.epoch, now: self.map.epoch });
        }
        let fits = order.moves.len() <= MOVES_MAX
            && order.title.len() <= TITLE_BYTES_MAX
            && order.in_flight_max > 0
            && (1..=REPLICAS_MAX).contains(&order.replicas);
        if !fits {
            return Err(Refusal::BadJob);
        }
        if !job::is_throttle(order.bytes_per_s) {
            return Err(Refusal::BadThrottle(order.bytes_per_s));
        }
        Ok(())
    }

    /// What the nodes that are to be changed are now.
    fn nodes_before(&self, changes: &[NodeChange]) -> Result<Vec<NodeChange>, Refusal> {
        let before = |change: &NodeChange| {
            let (node, at) = (change.node(), self.place(change.node())?);
            let row = &self.map.nodes[at];
            Ok(match change {
                NodeChange::Standing(..) => NodeChange::Standing(node, self.standings[at]),
                NodeChange::Weight(..) => NodeChange::Weight(node, row.weight),
                NodeChange::Zone(..) => NodeChange::Zone(node, row.zone.clone()),
            })
        };
        changes.iter().map(before).collect()
    }

    /// The replica sets of the shards of which replicas are to move.
    fn sets_before(&self, moves: &[Move]) -> Vec<(ShardId, Vec<NodeId>)> {
        let mut shards: Vec<ShardId> = moves.iter().map(|step| step.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        // The meta group finds its voters by itself.
        shards.retain(|shard| *shard != self.map.meta_group());
        shards.into_iter().map(|shard| (shard, self.map.replica_set(shard).to_vec())).collect()
    }

    fn place(&self, node: NodeId) -> Result<usize, Refusal> {
        let at = self.map.nodes.binary_search_by_key(&node, |row| row.id);
        at.map_err(|_| Refusal::UnknownNode(node))
    }

    fn change_node(&mut self, change: &NodeChange) -> Result<(), Refusal> {
        let at = self.place(change.node())?;
        match change {
            // E6: it holds nothing more, and comes back as nothing else.
            NodeChange::Standing(_, Standing::Draining) if self.standings[at] == Standing::Lost => {}
            NodeChange::Standing(_, standing)
                if (self.standings[at] == Standing::Lost) != (*standing == Standing::Lost) =>
            {
                return Err(Refusal::HasLeft(change.node()));
            }
            NodeChange::Standing(_, standing) => self.standings[at] = *standing,
            NodeChange::Weight(_, weight) => self.map.nodes[at].weight = *weight,
            NodeChange::Zone(_, zone) => self.map.nodes[at].zone.clone_from(zone),
        }
        self.map.nodes[at].check()?;
        Ok(())
    }

    /// The voters of each group once all moves are made.
    fn sets_after(&self, moves: &[Move]) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let groups = (0..self.configs.len()).map(|at| ShardId(at as u16));
        let mut sets: Vec<Vec<NodeId>> = groups.map(|group| self.voters(group).collect()).collect();
        for step in moves {
            let bad = Refusal::BadMove(*step);
            let known = step.to.is_none_or(|to| self.map.node(to).is_some() && !self.is_gone(to));
            let set = sets.get_mut(usize::from(step.shard.0)).filter(|_| known).ok_or(bad.clone())?;
            let after = step.set_after(set).filter(|after| after.len() <= usize::from(REPLICAS_MAX));
            *set = after.filter(|after| after != set).ok_or(bad)?;
        }
        Ok(sets)
    }

    fn order(&mut self, id: u64, at: u32) -> Result<(), Refusal> {
        let job = self.unfinished_mut(id)?;
        let step = job.moves.get(at as usize).ok_or(Refusal::NotDue { job: id, at })?;
        if step.stage != MoveStage::Waiting {
            // E2: ordered before, and perhaps done since.
            return Ok(());
        }
        if !job.due().contains(&at) {
            return Err(Refusal::NotDue { job: id, at });
        }
        let group = usize::from(step.what.shard.0);
        let number = self.configs[group].number;
        let job = self.unfinished_mut(id)?;
        job.moves[at as usize].stage = MoveStage::Ordered { number };
        Ok(())
    }

    fn record(&mut self, group: ShardId, config: &Config, bytes: u64, time: Millis) -> Result<(), Refusal> {
        let Some(recorded) = self.configs.get_mut(usize::from(group.0)) else {
            return Err(Refusal::Invalid(crate::MapError::BadReplicaSet(group)));
        };
        // E4, and E2: what is older was told late.
        if config.number <= recorded.number {
            return Ok(());
        }
        let before = recorded.number;
        let renewed = is_renewed(recorded, config);
        *recorded = Arc::new(config.clone());
        let voters: Vec<NodeId> = self.voters(group).collect();
        if let Some(set) = self.map.shards.get_mut(usize::from(group.0)) {
            *set = voters;
        }
        if let Some(job) = self.jobs.last_mut() {
            for step in job.moves.iter_mut().filter(|step| step.what.shard == group) {
                let was_under_way = step.is_under_way();
                step.stage = match step.stage {
                    // It is as far as it was.
                    MoveStage::Ordered { number } if renewed && number == before => {
                        MoveStage::Ordered { number: config.number }
                    }
                    _ => settle(step, config),
                };
                if was_under_way && !step.is_under_way() {
                    job.moved_bytes = job.moved_bytes.saturating_add(bytes);
                }
            }
        }
        self.settle_rescue(group, config.move_id);
        self.check()?;
        self.finish_job(time);
        Ok(())
    }

    fn cancel(&mut self, id: u64, time: Millis) -> Result<(), Refusal> {
        let was = self.job(id).map(|job| (job.state, job.cause.is_automatic()));
        self.set_job(id, JobState::Cancelling, time)?;
        // What an operator stops does not begin by itself again.
        self.held |= matches!(was, Some((JobState::Running | JobState::Paused, true)));
        Ok(())
    }

    fn returned(&mut self, node: NodeId, time: Millis) -> Result<(), Refusal> {
        let replaces = |job: &&Job| matches!(&job.cause, Cause::Lost(nodes) if nodes.contains(&node));
        let Some(job) = self.active_job().filter(replaces) else { return Ok(()) };
        if job.state == JobState::Cancelling {
            return Ok(());
        }
        let id = job.id;
        if self.standing(node) == Some(Standing::Spare) {
            self.change_node(&NodeChange::Standing(node, Standing::Member))?;
        }
        self.set_job(id, JobState::Cancelling, time)
    }

    fn give_up(&mut self, id: u64, time: Millis) -> Result<(), Refusal> {
        let runs = |job: &&Job| job.id == id && job.cause.is_automatic() && job.state != JobState::Cancelling;
        if self.active_job().filter(runs).is_none() {
            return Ok(());
        }
        self.set_job(id, JobState::Cancelling, time)
    }

    fn order_restart(&mut self, id: u64, at: u32, boot: u64) -> Result<(), Refusal> {
        let job = self.unfinished_mut(id)?;
        let not_due = Refusal::NotDue { job: id, at };
        let restart = *job.restarts.get(at as usize).ok_or(not_due.clone())?;
        // E2
        if restart.stage != RestartStage::Waiting {
            return Ok(());
        }
        if job.state != JobState::Running || job.next_restart().is_none_or(|(next, _)| next != at) {
            return Err(not_due);
        }
        job.restarts[at as usize].stage = RestartStage::Ordered { boot };
        Ok(())
    }

    fn record_restart(&mut self, id: u64, at: u32, time: Millis) -> Result<(), Refusal> {
        // E2: recorded before, and the job perhaps finished with it.
        let recorded = |job: &&Job| {
            job.restarts.get(at as usize).is_some_and(|restart| restart.stage == RestartStage::Recorded)
        };
        if self.job(id).is_some_and(|job| recorded(&job)) {
            return Ok(());
        }
        let job = self.unfinished_mut(id)?;
        let restart = job.restarts.get_mut(at as usize).ok_or(Refusal::NotDue { job: id, at })?;
        if !matches!(restart.stage, RestartStage::Ordered { .. }) {
            return Err(Refusal::NotDue { job: id, at });
        }
        restart.stage = RestartStage::Recorded;
        self.finish_job(time);
        Ok(())
    }

    pub(super) fn cancel_job(&mut self, id: u64, time: Millis) -> Result<(), Refusal> {
        self.set_job(id, JobState::Cancelling, time)
    }

    fn set_job(&mut self, id: u64, state: JobState, time: Millis) -> Result<(), Refusal> {
        let job = self.jobs.iter_mut().find(|job| job.id == id).ok_or(Refusal::UnknownJob(id))?;
        if job.state == state || (job.state, state) == (JobState::Cancelled, JobState::Cancelling) {
            return Ok(());
        }
        if job.state.is_finished() || job.state == JobState::Cancelling {
            return Err(Refusal::Finished(id));
        }
        job.state = state;
        if state == JobState::Cancelling {
            for step in job.moves.iter_mut().filter(|step| step.stage == MoveStage::Waiting) {
                step.stage = MoveStage::Cancelled;
            }
            // One that is under way cannot be taken back; the node comes again by itself.
            for restart in job.restarts.iter_mut().filter(|restart| !restart.is_finished()) {
                restart.stage = RestartStage::Cancelled;
            }
        }
        self.finish_job(time);
        Ok(())
    }

    fn throttle(&mut self, id: u64, bytes_per_s: u64) -> Result<(), Refusal> {
        if !job::is_throttle(bytes_per_s) {
            return Err(Refusal::BadThrottle(bytes_per_s));
        }
        self.unfinished_mut(id)?.bytes_per_s = bytes_per_s;
        Ok(())
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Result<(), Refusal> {
        // E2
        if self.departed.iter().any(|gone| gone.id == node) {
            return Ok(());
        }
        self.place(node)?;
        let replicas = self.holds(node);
        if replicas > 0 {
            return Err(Refusal::StillHolds { node, replicas });
        }
        if let Some(job) =
            self.active_job().filter(|job| job.moves.iter().any(|step| step.what.to == Some(node)))
        {
            return Err(Refusal::JobUnderWay(job.id));
        }
        self.depart(node);
        Ok(())
    }

    /// Takes a node that holds nothing off the map, for ever.
    fn depart(&mut self, node: NodeId) {
        let Ok(at) = self.map.nodes.binary_search_by_key(&node, |row| row.id) else { return };
        let NodeRow { id, name, incarnation, .. } = self.map.nodes.remove(at);
        self.standings.remove(at);
        self.levels.retain(|(of, _)| *of != id);
        let at = self.departed.partition_point(|gone| gone.id < id);
        self.departed.insert(at, Departed { id, name: String::from(name.as_str()), incarnation });
    }

    fn unfinished_mut(&mut self, id: u64) -> Result<&mut Job, Refusal> {
        let job = self.jobs.iter_mut().find(|job| job.id == id).ok_or(Refusal::UnknownJob(id))?;
        if job.state.is_finished() { Err(Refusal::Finished(id)) } else { Ok(job) }
    }

    /// Ends the running job if nothing of it is open; then those leave who were to, if they hold nothing.
    fn finish_job(&mut self, time: Millis) {
        let Some(job) = self.jobs.last_mut().filter(|job| !job.state.is_finished()) else { return };
        let open = |step: &JobMove| step.is_under_way() || step.stage == MoveStage::Waiting;
        if job.moves.iter().any(open) || !job.restarts.iter().all(JobRestart::is_finished) {
            return;
        }
        // 0 says that it has not ended.
        job.ended_at = time.max(Millis(1));
        let mut leave = Vec::new();
        if job.state == JobState::Cancelling {
            job.state = JobState::Cancelled;
        } else {
            job.state = JobState::Done;
            leave.clone_from(&job.removes);
        }
        let lost =
            self.map.nodes.iter().zip(&self.standings).filter(|(_, standing)| **standing == Standing::Lost);
        leave.extend(lost.map(|(row, _)| row.id));
        for node in leave {
            // Refused where a move was lost on the way: who holds something stays, draining or lost.
            let _ = self.remove(node);
        }
    }
}

/// What a node is called whose name another one bears since.
pub(super) fn lost_name(name: &str, id: NodeId) -> String {
    let suffix = format!(".lost.{}", id.0);
    // Names are ASCII (M1).
    let kept = &name[..name.len().min(NAME_BYTES_MAX - suffix.len())];
    format!("{kept}{suffix}")
}

/// Whether `config` follows `recorded` by nothing but other ids for replicas that had lost their records (R20).
fn is_renewed(recorded: &Config, config: &Config) -> bool {
    let same = |a: &[ReplicaId], b: &[ReplicaId]| {
        a.iter().map(|replica| replica.node()).eq(b.iter().map(|replica| replica.node()))
    };
    recorded.move_id == config.move_id
        && same(&recorded.voters, &config.voters)
        && same(&recorded.learners, &config.learners)
}

/// How far a move is once its shard is known to have come to `config`.
fn settle(step: &JobMove, config: &Config) -> MoveStage {
    let MoveStage::Ordered { number } = step.stage else { return step.stage };
    if config.number <= number {
        return step.stage;
    }
    if let Some(leads) = step.what.leads() {
        let first = config.voters.first().is_some_and(|replica| replica.node() == leads.0);
        return if first { MoveStage::Recorded } else { MoveStage::Cancelled };
    }
    let votes = |node: NodeId| config.voters.iter().any(|replica| replica.node() == node.0);
    let came = step.what.to.is_none_or(votes);
    let went = step.what.from.is_none_or(|from| !votes(from));
    let learns = step.what.to.is_some_and(|to| config.learners.iter().any(|replica| replica.node() == to.0));
    match (came && went, learns) {
        (true, _) => MoveStage::Recorded,
        (false, true) => step.stage,
        (false, false) => MoveStage::Cancelled,
    }
}
