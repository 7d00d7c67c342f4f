//! Jobs as JSON: how far each is, what it waits for, and what has stalled.

use serde::Serialize;
use tholos_cluster::{Cause, Job, JobMove, JobState, MetaState, MoveStage, NodeId, RestartStage};

use crate::status::{Answers, JobReport, JobWritesReport, MoveStands, ShardReport, leaders};

/// All jobs that are remembered.
#[derive(Serialize)]
pub(super) struct JobsView {
    epoch: u64,
    /// Oldest first.
    pub(super) jobs: Vec<JobView>,
}

/// A job.
#[derive(Serialize)]
pub(super) struct JobView {
    id: u64,
    title: String,
    /// `operator`, `lost` or `placement`: the last two began by themselves.
    cause: &'static str,
    /// `running`, `paused`, `cancelling`, `done` or `cancelled`.
    state: &'static str,
    moves_total: usize,
    moves_recorded: usize,
    moves_cancelled: usize,
    /// Moves that copy a replica of a shard to another node, and those of them that are recorded.
    replicas_total: usize,
    replicas_moved: usize,
    /// Bytes sent so far, and in all, about.
    bytes_moved: u64,
    bytes_total: u64,
    /// What it may send in a second; null if nothing holds it back.
    throttle_bytes_per_s: Option<u64>,
    /// What it sends in a second; null if nobody knows, or it is finished.
    rate_bytes_per_s: Option<u64>,
    /// At that rate; null if it sends nothing just now.
    eta_s: Option<u64>,
    /// For how long it ran, or runs; null if nobody knows.
    elapsed_ms: Option<u64>,
    /// Clients' writes that ended in CLUSTERDOWN, DISKFULL or INDOUBT while it ran or runs, as far as nodes that are up know; null if
    /// none does.
    write_errors: Option<u64>,
    /// How long the longest of them took, in milliseconds.
    longest_write_ms: Option<u64>,
    /// What holds it up the longest, in words; null if nothing is under way.
    waiting_on: Option<String>,
    /// What has not moved for 10 s and why, in words.
    stalled: Vec<String>,
    in_flight: Vec<MoveView>,
    restarts_total: usize,
    restarts_recorded: usize,
    /// The node that restarts, or is to restart next.
    restarting: Option<String>,
}

/// A move under way.
#[derive(Serialize)]
struct MoveView {
    /// `s12`, or `meta`.
    shard: String,
    from: Option<String>,
    to: Option<String>,
    /// Entries that the node lacks which is to get the shard, while it learns.
    behind: Option<u64>,
    bytes_sent: u64,
    bytes_total: u64,
    /// `decision`, `quorum`, `told`, `target-down`, `target-full`, `target-begins`, `snapshot`, `sending`, `throttle`,
    /// `entries`, `leader` or `leader-silent`; null if nobody knows.
    waiting_for: Option<String>,
    /// For how long nothing has come of it.
    still_ms: u64,
    stalled: bool,
}

pub(super) const fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Cancelling => "cancelling",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
    }
}

/// All jobs, by the state and by what the nodes of its map answered; `now_ms` is the time, since 1970.
pub(super) fn view(state: &MetaState, answers: &Answers, now_ms: u64) -> JobsView {
    let look = Look { state, answers, leaders: leaders(&state.map, answers), now_ms };
    JobsView { epoch: state.epoch().0, jobs: state.jobs.iter().map(|job| look.job(job)).collect() }
}

/// What the jobs are seen by.
struct Look<'a> {
    state: &'a MetaState,
    answers: &'a Answers,
    leaders: Vec<Option<(usize, ShardReport)>>,
    now_ms: u64,
}

impl Look<'_> {
    fn job(&self, job: &Job) -> JobView {
        // The leader of the meta group knows.
        let knows = |report: &&JobReport| report.job == job.id && !job.state.is_finished();
        let report = self.answers.iter().flatten().filter_map(|report| report.job.as_ref()).find(knows);
        let of = |step: &JobMove| {
            let moves = report.map_or(&[][..], |report| &report.moves);
            moves.iter().find(|stands| stands.shard == step.what.shard.0)
        };
        let under_way: Vec<(&JobMove, Option<&MoveStands>)> =
            job.moves.iter().filter(|step| step.is_under_way()).map(|step| (step, of(step))).collect();
        let waiting = job.moves.iter().filter(|step| step.stage == MoveStage::Waiting && step.what.is_copy());
        let to_come: u64 = waiting.map(|step| self.data_of(step)).sum();
        let (mut sent, mut total) = (job.moved_bytes, job.moved_bytes + to_come);
        for (step, stands) in &under_way {
            sent += stands.map_or(0, |stands| stands.bytes_sent);
            // Of one that has just begun, nobody has said anything yet.
            let copies = if step.what.is_copy() { self.data_of(step) } else { 0 };
            total += stands.map_or(copies, |stands| stands.bytes_total.max(copies));
        }
        let (replicas_total, replicas_moved) = job.copies(self.state.map.meta_group());
        let rate = report.map(|report| report.bytes_per_s);
        let slowest = under_way.iter().filter_map(|(step, stands)| Some((*step, (*stands)?)));
        let slowest = slowest.max_by_key(|(_, stands)| stands.still_ms);
        let stalled = under_way.iter().filter_map(|(step, stands)| {
            let stands = stands.filter(|stands| stands.stalled)?;
            Some(format!("{} ({} s)", self.waits(step, stands), stands.still_ms / 1000))
        });
        let mut stalled: Vec<String> = stalled.collect();
        let mut waiting_on = slowest.map(|(step, stands)| self.waits(step, stands));
        if !job.state.is_finished()
            && report.is_none()
            && let Some(leaderless) = self.leaderless_ms()
        {
            let why = format!(
                "the meta group has no leader{}",
                self.down(self.state.voters(self.state.map.meta_group()))
            );
            if leaderless >= tholos_node::STALL_AFTER.0 {
                stalled.push(format!("{why} ({} s)", leaderless / 1000));
            }
            waiting_on = Some(why);
        }
        JobView {
            id: job.id,
            title: job.title.clone(),
            cause: match job.cause {
                Cause::Operator => "operator",
                Cause::Lost(_) => "lost",
                Cause::Placement => "placement",
            },
            state: state_word(job.state),
            moves_total: job.moves.len(),
            moves_recorded: job.count(MoveStage::Recorded),
            moves_cancelled: job.count(MoveStage::Cancelled),
            replicas_total,
            replicas_moved,
            bytes_moved: sent,
            bytes_total: total,
            throttle_bytes_per_s: Some(job.bytes_per_s).filter(|rate| *rate > 0),
            rate_bytes_per_s: rate,
            eta_s: rate.filter(|rate| *rate > 0).map(|rate| (total - sent).div_ceil(rate)),
            elapsed_ms: self.elapsed_ms(job),
            write_errors: self.writes(job).map(|writes| writes.failed).reduce(u64::saturating_add),
            longest_write_ms: self.writes(job).map(|writes| writes.longest_ms).max(),
            waiting_on,
            stalled,
            in_flight: under_way.iter().map(|(step, stands)| self.move_view(step, *stands)).collect(),
            restarts_total: job.restarts.len(),
            restarts_recorded: job.restarts.iter().filter(|one| one.stage == RestartStage::Recorded).count(),
            restarting: job.next_restart().map(|(_, restart)| self.name(restart.node)),
        }
    }

    /// Bytes that a copy of the shard of a move takes, about, as its leader says.
    fn data_of(&self, step: &JobMove) -> u64 {
        let leader = self.leaders.get(usize::from(step.what.shard.0)).and_then(Option::as_ref);
        leader.map_or(0, |(_, report)| report.data_bytes)
    }

    /// What the nodes' clients met while a job ran.
    fn writes(&self, job: &Job) -> impl Iterator<Item = &JobWritesReport> {
        let job = job.id;
        let said = self.answers.iter().flatten().filter_map(|report| report.job_writes.as_ref());
        said.filter(move |writes| writes.job == job)
    }

    fn elapsed_ms(&self, job: &Job) -> Option<u64> {
        let end = if job.state.is_finished() { job.ended_at.0 } else { self.now_ms };
        (job.started_at.0 > 0).then(|| end.saturating_sub(job.started_at.0))
    }

    /// For how long nobody leads the meta group, if all who were asked say so.
    fn leaderless_ms(&self) -> Option<u64> {
        let mut said = self.answers.iter().flatten().map(|report| report.meta_leaderless_ms);
        said.try_fold(None, |least: Option<u64>, said| {
            let said = said?;
            Some(Some(least.map_or(said, |least| least.min(said))))
        })?
    }

    fn move_view(&self, step: &JobMove, stands: Option<&MoveStands>) -> MoveView {
        MoveView {
            shard: self.group(step, "meta"),
            from: step.what.from.map(|node| self.name(node)),
            to: step.what.to.map(|node| self.name(node)),
            behind: stands.and_then(|stands| stands.behind),
            bytes_sent: stands.map_or(0, |stands| stands.bytes_sent),
            bytes_total: stands.map_or(0, |stands| stands.bytes_total),
            waiting_for: stands.map(|stands| stands.wait.clone()),
            still_ms: stands.map_or(0, |stands| stands.still_ms),
            stalled: stands.is_some_and(|stands| stands.stalled),
        }
    }

    fn name(&self, id: NodeId) -> String {
        self.state.map.node(id).map_or_else(|| id.to_string(), |row| row.name.clone())
    }

    fn group(&self, step: &JobMove, meta: &str) -> String {
        if step.what.shard == self.state.map.meta_group() {
            return meta.to_owned();
        }
        step.what.shard.to_string()
    }

    /// What a move waits for, in words.
    fn waits(&self, step: &JobMove, stands: &MoveStands) -> String {
        let shard = self.group(step, "the meta group");
        let to = step.what.to.map_or_else(|| "nobody".to_owned(), |node| self.name(node));
        let voters = || self.down(self.state.voters(step.what.shard));
        match stands.wait.as_str() {
            "decision" => format!("{shard} deciding its replica set"),
            "quorum" => format!("{shard} has no majority of voters{}", voters()),
            "told" => format!("{shard} telling its replicas what is decided"),
            "target-down" => format!("{shard} cannot reach {to}{}", self.down(step.what.to.into_iter())),
            "target-full" => format!("{shard} has no room on {to}: its disk is full"),
            "target-begins" => format!("{shard} not begun on {to}"),
            "snapshot" => format!("{shard} writing a snapshot for {to}"),
            "sending" => format!("{shard} on its way to {to}"),
            "throttle" => format!("{shard} on its way to {to}, held back by the throttle"),
            "entries" => match stands.behind {
                Some(behind) if behind > 0 => format!("{shard} catching up on {to}, {behind} entries behind"),
                _ => format!("{shard} catching up on {to}"),
            },
            "leader" => format!("{shard} has no leader{}", voters()),
            "leader-silent" => format!("the leader of {shard} does not answer"),
            other => format!("{shard}: {other}"),
        }
    }

    /// Which of these nodes do not answer, and why: `: n2 is down (connection refused)`; nothing if all do.
    fn down(&self, nodes: impl Iterator<Item = NodeId>) -> String {
        let down: Vec<String> = nodes
            .filter_map(|node| {
                let at = self.state.map.nodes.binary_search_by_key(&node, |row| row.id).ok()?;
                let why = self.answers.get(at)?.as_ref().err()?;
                Some(format!("{} is down ({why})", self.name(node)))
            })
            .collect();
        if down.is_empty() { String::new() } else { format!(": {}", down.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tholos_cluster::{
        ClusterId, ClusterMap, Incarnation, JobOrder, MetaCommand, Move, NodeChange, NodeRow, Standing,
    };
    use tholos_paxos::Millis;
    use tholos_ring::ShardId;

    use crate::status::NodeReport;

    use super::*;

    const START: u64 = 1_000_000;

    /// Four nodes; of three moves of n1 to n4 one is recorded, one under way, one waits. The meta group moves as well.
    fn state() -> MetaState {
        let row = |number: u16| NodeRow {
            id: NodeId(number),
            name: format!("n{number}"),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(u64::from(number)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        };
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 4, 3).unwrap();
        let mut state = None;
        let mut apply = |command: &MetaCommand, at| {
            MetaState::apply(&mut state, command, Millis(at)).unwrap();
            state.clone().unwrap()
        };
        apply(&MetaCommand::Found(map), 1);
        let joined = apply(&MetaCommand::Join(row(4)), 1);
        let step = |shard| Move { shard: ShardId(shard), from: Some(NodeId(1)), to: Some(NodeId(4)) };
        let order = JobOrder {
            plan: 1,
            epoch: joined.epoch(),
            title: "replace n1 n4".to_owned(),
            in_flight_max: 1,
            bytes_per_s: 50_000_000,
            replicas: 3,
            changes: vec![
                NodeChange::Standing(NodeId(1), Standing::Draining),
                NodeChange::Standing(NodeId(4), Standing::Member),
            ],
            moves: (0..3).map(step).collect(),
            removes: Vec::new(),
            cause: Cause::Operator,
            restarts: Vec::new(),
        };
        apply(&MetaCommand::StartJob(order), START);
        let state = apply(&MetaCommand::Order { job: 1, at: 0 }, START);
        let mut config = state.config(ShardId(0)).unwrap().clone();
        config.number += 1;
        let comes = config.next_replica_at(4).unwrap();
        config.last_replica = comes;
        for voter in config.voters.iter_mut().filter(|voter| voter.node() == 1) {
            *voter = comes;
        }
        apply(&MetaCommand::Record { group: ShardId(0), config, bytes: 300 }, START);
        apply(&MetaCommand::Order { job: 1, at: 1 }, START)
    }

    fn answers(wait: &str, still_ms: u64) -> Answers {
        let leads =
            |shard, data_bytes| ShardReport { shard, leads: true, data_bytes, ..ShardReport::default() };
        let stands = MoveStands {
            shard: 1,
            bytes_sent: 40,
            bytes_total: 110,
            behind: Some(7),
            wait: wait.to_owned(),
            still_ms,
            stalled: still_ms >= 10_000,
        };
        let n2 = NodeReport {
            job: Some(JobReport { job: 1, bytes_per_s: 20, moves: vec![stands] }),
            shards: vec![leads(0, 310), leads(1, 110), leads(2, 500)],
            job_writes: Some(JobWritesReport { job: 1, failed: 2, longest_ms: 30 }),
            ..NodeReport::default()
        };
        let writes = JobWritesReport { job: 1, failed: 1, longest_ms: 70 };
        let other = || Ok(NodeReport { job_writes: Some(writes), ..NodeReport::default() });
        vec![other(), Ok(n2), Err("connection refused".to_owned()), Err("no answer within 1s".to_owned())]
    }

    fn seen(answers: &Answers) -> Value {
        serde_json::to_value(&view(&state(), answers, START + 5_000).jobs[0]).unwrap()
    }

    #[test]
    fn a_job_is_counted_in_bytes_and_replicas() {
        let job = seen(&answers("sending", 100));
        let expected = json!({
            "replicas_total": 3, "replicas_moved": 1, "bytes_moved": 340, "bytes_total": 910,
            "throttle_bytes_per_s": 50_000_000, "rate_bytes_per_s": 20, "eta_s": 29, "elapsed_ms": 5000,
            "waiting_on": "s1 on its way to n4", "stalled": [], "write_errors": 3, "longest_write_ms": 70,
        });
        for (field, expected) in expected.as_object().unwrap() {
            assert_eq!(&job[field], expected, "{field}");
        }
        assert_eq!(job["in_flight"][0]["bytes_sent"], 40);
        // Nodes that have started since, or know of a later job only.
        let later = JobWritesReport { job: 2, failed: 9, longest_ms: 9 };
        let nobody = vec![Ok(NodeReport { job_writes: Some(later), ..NodeReport::default() }); 4];
        assert_eq!(seen(&nobody)["write_errors"], Value::Null);
        assert_eq!(job["moves_total"], 4, "the meta group's is one that no plan counts");
        assert_eq!(crate::jobs::notes(&state()), ["job 1 is running: replace n1 n4: 1/3 replicas"]);
    }

    #[track_caller]
    fn check(wait: &str, expected: &str) {
        let job = seen(&answers(wait, 14_000));
        assert_eq!(job["waiting_on"], expected);
        assert_eq!(job["stalled"], json!([format!("{expected} (14 s)")]));
        assert_eq!(job["in_flight"][0]["waiting_for"], wait);
    }

    #[test]
    fn what_has_stalled_is_named_with_its_cause() {
        check("target-down", "s1 cannot reach n4: n4 is down (no answer within 1s)");
        check("quorum", "s1 has no majority of voters: n3 is down (connection refused)");
        check("leader", "s1 has no leader: n3 is down (connection refused)");
        check("leader-silent", "the leader of s1 does not answer");
        check("target-full", "s1 has no room on n4: its disk is full");
        check("target-begins", "s1 not begun on n4");
        check("snapshot", "s1 writing a snapshot for n4");
        check("throttle", "s1 on its way to n4, held back by the throttle");
        check("entries", "s1 catching up on n4, 7 entries behind");
        check("told", "s1 telling its replicas what is decided");
        check("decision", "s1 deciding its replica set");
    }

    #[test]
    fn a_meta_group_without_leader_holds_up_every_job() {
        let alone = |ms| Ok(NodeReport { meta_leaderless_ms: Some(ms), ..NodeReport::default() });
        let down = || Err("connection refused".to_owned());
        let job = seen(&vec![alone(12_000), down(), down(), alone(11_000)]);
        let why =
            "the meta group has no leader: n2 is down (connection refused), n3 is down (connection refused)";
        assert_eq!((&job["waiting_on"], &job["stalled"]), (&json!(why), &json!([format!("{why} (11 s)")])));
        // Somebody knows one.
        let job = seen(&vec![alone(12_000), Ok(NodeReport::default()), down(), down()]);
        assert_eq!(job["bytes_moved"], 300, "what is recorded is known");
        assert_eq!((&job["waiting_on"], &job["stalled"]), (&Value::Null, &json!([])));
    }
}
