//! Rounds of misfortune under load, and what the histories say.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tholos_check::{Limits, Verdict, linearizable, write_operation};
use tholos_load::{History, Load, Mix, Plan, Summary, lost_writes};

use crate::cluster::{Cluster, PASSWORD, Servers};
use crate::ground::Ground;
use crate::plan::{Act, NODES, Round, Strike};
use crate::report::{Gap, Report};

/// How long a cluster may take to serve every key again once a majority works.
const RECOVERY_MAX: Duration = Duration::from_secs(40);
/// How long the scene of the cut-off leader lasts.
const SCENE: Duration = Duration::from_secs(25);
/// Rounds whose operations are one history.
const ROUNDS_PER_HISTORY: u64 = 10;
/// Operations of one history, at most.
const OPERATIONS_PER_HISTORY: u64 = 1_500_000;
/// Longer than the servers' own limit of 5 s, so that it is they who give up first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);
/// A node that is cut off answers nobody from then on: longer than a lease and what was under way.
const SILENT_AFTER: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

/// What a run is made of.
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) servers: Servers,
    pub(crate) acts: Vec<Act>,
    pub(crate) seed: u64,
    /// The number of the first round.
    pub(crate) from: u64,
    pub(crate) rounds: u64,
    pub(crate) time: Duration,
    pub(crate) pinned: usize,
    pub(crate) roaming: usize,
    pub(crate) think: Duration,
    /// Whether to begin with the scene of the cut-off leader.
    pub(crate) scene: bool,
}

/// Runs until the rounds or the time are over, or something is wrong; the report says which.
pub(crate) fn run(settings: &Settings, ground: Ground) -> Report {
    let mut report = Report::new(settings.seed);
    if let Err(why) = torture(settings, ground, &mut report) {
        report.fail(why);
    }
    report
}

fn torture(settings: &Settings, ground: Ground, report: &mut Report) -> Result<(), String> {
    let begin = Instant::now();
    let mut cluster = Cluster::new(&settings.dir, ground, settings.servers.clone())?;
    cluster.start_all()?;
    if settings.scene {
        scene(settings, &mut cluster, report)?;
    }
    let mut number = settings.from;
    let end = settings.from + settings.rounds;
    while number < end && begin.elapsed() < settings.time {
        number = one_history(settings, &mut cluster, number, end, begin, report)?;
    }
    Ok(())
}

/// Rounds whose clients' operations are judged together; returns the number of the next round.
fn one_history(
    settings: &Settings,
    cluster: &mut Cluster,
    first: u64,
    end: u64,
    begin: Instant,
    report: &mut Report,
) -> Result<u64, String> {
    let load = start_load(settings, cluster, &format!("r{first}:"))?;
    let mut gaps = Vec::new();
    let mut number = first;
    let mut went = wait_for_all(&load, cluster, load.now()).map(drop);
    while went.is_ok()
        && number < end.min(first + ROUNDS_PER_HISTORY)
        && begin.elapsed() < settings.time
        && !load.is_full()
    {
        let round = Round::draw(settings.seed, number, &settings.acts);
        went = one_round(cluster, &load, number, &round).map(|gap| gaps.push(gap));
        number += 1;
    }
    let history = load.stop(if went.is_ok() { RECOVERY_MAX } else { Duration::ZERO });
    let summary = history.summary();
    for gap in &mut gaps {
        gap.measure(&summary, settings.pinned);
        println!("{gap}");
        report.round(gap);
    }
    let judged = judge(&history, &settings.dir, report);
    // What the clients saw tells more than that a round went wrong.
    judged.and(went)?;
    Ok(number)
}

fn start_load(settings: &Settings, cluster: &Cluster, prefix: &str) -> Result<Load, String> {
    let plan = Plan {
        targets: cluster.gateways(),
        password: Some(PASSWORD.to_owned()),
        pinned: settings.pinned,
        roaming: settings.roaming,
        keys: 8,
        prefix: prefix.to_owned(),
        mix: Mix::default(),
        think: settings.think,
        reply_timeout: REPLY_TIMEOUT,
        seed: settings.seed,
        operations_max: OPERATIONS_PER_HISTORY,
    };
    let deadline = Instant::now() + RECOVERY_MAX;
    loop {
        match Load::start(plan.clone()) {
            Ok(load) => return Ok(load),
            Err(why) if Instant::now() > deadline => return Err(format!("no node answers clients: {why:?}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn one_round(cluster: &mut Cluster, load: &Load, number: u64, round: &Round) -> Result<Gap, String> {
    let wrong = |why: String| format!("round {number}, {round}: {why}");
    let begun = load.now();
    std::thread::sleep(Duration::from_millis(round.calm_ms));
    wait_until_open(load, round, begun);
    let struck = load.now();
    cluster.strike(round).map_err(wrong)?;
    let served = match round.keeps_majority() {
        true => Some(wait_for_all(load, cluster, struck).map_err(wrong)? - struck),
        false => None,
    };
    std::thread::sleep(Duration::from_millis(round.hold_ms));
    let healed = load.now();
    must_be_cut_off(load, round, healed).map_err(wrong)?;
    cluster.heal(round).map_err(wrong)?;
    let recovered = wait_for_all(load, cluster, healed).map_err(wrong)?;
    cluster.all_run().map_err(wrong)?;
    Ok(Gap::new(number, round.clone(), struck, served, healed, recovered))
}

/// Waits until nodes whose disks are to be full answer clients. One that is being started again needs room to open its log,
/// and says so and ends if there is none, as it should.
fn wait_until_open(load: &Load, round: &Round, from: u64) {
    let deadline = Instant::now() + RECOVERY_MAX;
    for strike in round.strikes.iter().filter(|strike| strike.act == Act::FullDisk) {
        while load.answered(strike.victim) < from && !load.is_full() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

/// A cut that cuts nothing would prove nothing: a node that reaches no other has answered nobody lately.
fn must_be_cut_off(load: &Load, round: &Round, now: u64) -> Result<(), String> {
    let lately = u64::try_from(SILENT_AFTER.as_nanos()).expect("a short time");
    for strike in &round.strikes {
        let long = Duration::from_millis(round.hold_ms) > 2 * SILENT_AFTER;
        if strike.act == Act::CutOne && long && load.answered(strike.victim) + lately > now {
            return Err(format!(
                "{} still answers though it is cut off",
                crate::cluster::name(strike.victim)
            ));
        }
    }
    Ok(())
}

/// Waits until every key was written anew after `from`; when the last of them was.
fn wait_for_all(load: &Load, cluster: &mut Cluster, from: u64) -> Result<u64, String> {
    let mut waited = Duration::ZERO;
    let mut looked = Instant::now();
    loop {
        if let Some(at) = load.all_written_since(from) {
            return Ok(at);
        }
        if load.is_full() {
            return Ok(load.now());
        }
        // The whole machine may have stood still, servers and clients with it: one look counts for a second at most.
        waited += looked.elapsed().min(Duration::from_secs(1));
        looked = Instant::now();
        if waited > RECOVERY_MAX {
            cluster.all_run()?;
            return Err(format!(
                "some keys took no write for {} s though a majority works",
                RECOVERY_MAX.as_secs()
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Judges a history, adds it to the report, and keeps it in a file if it is at fault.
fn judge(history: &History, dir: &Path, report: &mut Report) -> Result<(), String> {
    let lost = lost_writes(&history.operations);
    let verdict = linearizable(&history.operations, &Limits::default());
    report.history(history, lost, matches!(verdict, Verdict::Violation(_)));
    if matches!(verdict, Verdict::Ok(_)) && lost.lost == 0 && history.unread == 0 {
        return Ok(());
    }
    let file = dir.join("history");
    let mut text = format!("{}\n", tholos_check::HISTORY_HEADER);
    history.operations.iter().for_each(|operation| write_operation(operation, &mut text));
    std::fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Err(match verdict {
        Verdict::Violation(violation) => {
            format!(
                "{}\n{} of {} acknowledged writes lost; the history is in {}",
                violation.explain(),
                lost.lost,
                lost.acknowledged,
                file.display()
            )
        }
        Verdict::Undecided(why) => format!("undecided: {why:?}; the history is in {}", file.display()),
        Verdict::Ok(_) if lost.lost > 0 => {
            format!(
                "{} acknowledged writes lost, in an order the checker takes: one of the two is wrong",
                lost.lost
            )
        }
        Verdict::Ok(_) => format!("{} keys could not be read at the end", history.unread),
    })
}

/// A node is cut off from the others, and clients still reach it: what it acknowledged must be there afterwards. (Redis
/// Cluster loses what its cut-off leader took until it steps down, and more if clients stay.)
fn scene(settings: &Settings, cluster: &mut Cluster, report: &mut Report) -> Result<(), String> {
    let load = start_load(settings, cluster, "scene:")?;
    let mut went = wait_for_all(&load, cluster, load.now()).map(drop);
    let struck = load.now();
    let strike = Strike { act: Act::CutOne, victim: 0, other: 1, amount: 0 };
    let round = Round { kind: Act::CutOne, strikes: vec![strike], calm_ms: 0, hold_ms: 0 };
    let mut healed = struck;
    if went.is_ok() {
        went = cut_off(cluster, &load, &round, &mut healed);
    }
    let history = load.stop(RECOVERY_MAX);
    let summary: Summary = history.summary();
    let others = (settings.pinned..settings.pinned * NODES)
        .map(|client| summary.longest_wait(client, struck..healed.max(struck)))
        .max();
    let judged = judge(&history, &settings.dir, report);
    report.scene(lost_writes(&history.operations), others.unwrap_or(0), SCENE);
    judged.and(went)
}

fn cut_off(cluster: &mut Cluster, load: &Load, round: &Round, healed: &mut u64) -> Result<(), String> {
    cluster.strike(round)?;
    let struck = load.now();
    wait_for_all(load, cluster, struck)?;
    let passed = Duration::from_nanos(load.now() - struck);
    std::thread::sleep(SCENE.saturating_sub(passed));
    *healed = load.now();
    cluster.heal(round)?;
    wait_for_all(load, cluster, *healed)?;
    cluster.all_run()
}
