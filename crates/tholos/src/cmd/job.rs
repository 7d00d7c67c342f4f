//! `tholos job`: the jobs that change the cluster. They are kept by the cluster and go on whoever watches.

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cmd::cluster::number;
use crate::cmd::plan;
use crate::failure::{Exit, Failure};
use crate::http::At;
use crate::style::table;

/// The meta group is waited for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a watched job is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// See and steer the jobs that change the cluster.
#[derive(Args, Debug)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    at: At,
    /// Print answers as JSON, one a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The jobs that are remembered, oldest first.
    #[command(after_help = "\
Examples:
  tholos job list
  tholos job list --json")]
    List,
    /// Follow a job to its end. ^C detaches: the job goes on.
    #[command(after_help = "\
Exits with 0 if the job is done, 1 if it was cancelled.

Examples:
  tholos job watch 4")]
    Watch(Id),
    /// Let the moves under way end, and begin no further one.
    #[command(after_help = "\
Examples:
  tholos job pause 4")]
    Pause(Id),
    /// Go on with a paused job.
    #[command(after_help = "\
Examples:
  tholos job resume 4")]
    Resume(Id),
    /// End a job: what it has under way is taken back, and what is done stays.
    #[command(after_help = "\
Examples:
  tholos job cancel 4")]
    Cancel(Id),
    /// Plan the way back: weights, zones, standings and replicas as they were before a job. Changes nothing.
    #[command(after_help = "\
What later jobs did is taken back as well. Exits with 1 if the plan is blocked.

Examples:
  tholos job undo 4
  tholos job undo 4 --json")]
    Undo(Id),
}

#[derive(Args, Debug)]
struct Id {
    /// The job's number.
    id: u64,
}

pub(crate) fn run(args: &JobArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::List => {
            let jobs = args.at.get("/v1/jobs", ANSWER_TIMEOUT)?;
            print!("{}", if args.json { format!("{jobs}\n") } else { list_text(&jobs) });
            Ok(Exit::Ok)
        }
        What::Watch(id) => watch(&args.at, args.json, id.id),
        What::Pause(id) => {
            steer(args, id.id, "pause", "paused: what is under way ends, and nothing else begins")
        }
        What::Resume(id) => steer(args, id.id, "resume", "goes on"),
        What::Undo(id) => plan::show(&args.at, args.json, &format!("undo {}", id.id)),
        What::Cancel(id) => steer(
            args,
            id.id,
            "cancel",
            "is being cancelled: what is under way is taken back, what is done stays",
        ),
    }
}

fn steer(args: &JobArgs, id: u64, verb: &str, done: &str) -> Result<Exit, Failure> {
    let answer = args.at.post(&format!("/v1/jobs/{verb}?id={id}"), ANSWER_TIMEOUT)?;
    println!("{}", if args.json { answer.to_string() } else { format!("job {id} {done}") });
    Ok(Exit::Ok)
}

/// Follows a job until it ends; a line for each change.
pub(crate) fn watch(at: &At, json: bool, id: u64) -> Result<Exit, Failure> {
    let mut shown = String::new();
    loop {
        let answer = at.get("/v1/jobs", ANSWER_TIMEOUT)?;
        let job = answer["jobs"].as_array().and_then(|jobs| jobs.iter().find(|job| job["id"] == id));
        let Some(job) = job else {
            let why = "there is no such job, or it is forgotten";
            return Err(Failure::new(Exit::NotSo, format!("job {id}"), why, "see tholos job list"));
        };
        let line = if json { job.to_string() } else { job_text(job) };
        if line != shown {
            println!("{line}");
            let _unwritable_stdout_is_no_reason_to_stop = std::io::stdout().flush();
            shown = line;
        }
        match job["state"].as_str() {
            Some("done") => return Ok(Exit::Ok),
            Some("cancelled") => return Ok(Exit::NotSo),
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// One job in a line: how far it is, and what it waits for.
fn job_text(job: &Value) -> String {
    let moving: Vec<String> = job["in_flight"].as_array().into_iter().flatten().map(move_text).collect();
    let mut text = format!(
        "job {} {}  {}/{} moves",
        job["id"],
        job["state"].as_str().unwrap_or("-"),
        number(&job["moves_recorded"]),
        number(&job["moves_total"]),
    );
    let restarts = number(&job["restarts_total"]);
    if restarts > 0 {
        text += &format!(", {}/{restarts} restarts", number(&job["restarts_recorded"]));
    }
    if let Some(node) = job["restarting"].as_str() {
        text += &format!("  next: {node}");
    }
    if number(&job["moves_cancelled"]) > 0 {
        text += &format!(", {} cancelled", number(&job["moves_cancelled"]));
    }
    if !moving.is_empty() {
        text += &format!("  under way: {}", moving.join(" · "));
    }
    text
}

fn move_text(step: &Value) -> String {
    let shard = step["shard"].as_str().unwrap_or("-");
    let way = match (step["from"].as_str(), step["to"].as_str()) {
        (Some(from), Some(to)) if from == to => format!("{shard} to be led by {to}"),
        (Some(from), Some(to)) => format!("{shard} {from} → {to}"),
        (None, Some(to)) => format!("{shard} + {to}"),
        (from, None) => format!("{shard} - {}", from.unwrap_or("-")),
    };
    match step["behind"].as_u64() {
        Some(behind) if behind > 0 => format!("{way} ({behind} entries behind)"),
        _ => way,
    }
}

fn list_text(jobs: &Value) -> String {
    let row = |job: &Value| {
        vec![
            job["id"].to_string(),
            job["state"].as_str().unwrap_or("-").to_owned(),
            format!("{}/{}", number(&job["moves_recorded"]), number(&job["moves_total"])),
            job["title"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = jobs["jobs"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "no jobs\n".to_owned();
    }
    table(&["JOB>", "STATE", "MOVES>", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        serde_json::json!({
            "id": 4, "title": "add n4", "state": "running", "moves_total": 32, "moves_recorded": 21,
            "moves_cancelled": 0, "in_flight": [
                {"shard": "s17", "from": "n1", "to": "n4", "behind": 120},
                {"shard": "meta", "from": null, "to": "n4", "behind": null},
            ],
        })
    }

    #[test]
    fn a_job_says_what_it_waits_for() {
        assert_eq!(
            job_text(&job()),
            "job 4 running  21/32 moves  under way: s17 n1 → n4 (120 entries behind) · meta + n4"
        );
    }

    #[test]
    fn jobs_are_listed() {
        let jobs = serde_json::json!({"epoch": 7, "jobs": [job()]});
        assert_eq!(list_text(&jobs), "JOB  STATE    MOVES\n  4  running  21/32  add n4\n");
        assert_eq!(list_text(&serde_json::json!({"jobs": []})), "no jobs\n");
    }
}
