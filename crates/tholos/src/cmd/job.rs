//! `tholos job`: the jobs that change the cluster. They are kept by the cluster and go on whoever watches.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cmd::cluster::{list, number, word};
use crate::cmd::plan;
use crate::cmd::rate::{in_unit, parse_rate, size, unit};
use crate::cmd::watch::{bytes, watch};
use crate::failure::{Exit, Failure};
use crate::http::At;
use crate::out::{out, outln};
use crate::style::table;

/// The meta group is waited for this long.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

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
In a terminal a bar; else a line a second, at most; with --json each as JSON.
Exits with 0 if the job is done, 1 if it was cancelled, 130 after ^C.

Examples:
  tholos job watch 4
  tholos job watch 4 --json")]
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
    /// Let a job send more or less from now on: so many bytes a second for all its moves together.
    #[command(after_help = "\
It counts within a second, at least 1MB/s; none for as fast as disks and network allow. A new job has 50MB/s.
Held back is the copying of data that is there; what clients write meanwhile follows at once.

Examples:
  tholos job throttle 4 20MB/s
  tholos job throttle 4 none")]
    Throttle {
        /// The job's number.
        id: u64,
        /// A number with a unit (B, kB, MB, GB, KiB, MiB, GiB) a second, or none.
        #[arg(value_parser = parse_rate)]
        rate: u64,
    },
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
            out!("{}", if args.json { format!("{jobs}\n") } else { list_text(&jobs) });
            Ok(Exit::Ok)
        }
        What::Watch(id) => watch(&args.at, args.json, id.id),
        What::Throttle { id, rate } => {
            let path = format!("/v1/jobs/throttle?id={id}&bytes_per_s={rate}");
            let answer = args.at.post(&path, ANSWER_TIMEOUT)?;
            let done = match rate {
                0 => "is not throttled any more".to_owned(),
                rate => format!("sends at most {}/s from now on", size(*rate)),
            };
            outln!("{}", if args.json { answer.to_string() } else { format!("job {id} {done}") });
            Ok(Exit::Ok)
        }
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
    outln!("{}", if args.json { answer.to_string() } else { format!("job {id} {done}") });
    Ok(Exit::Ok)
}

/// A row for each job; below those that run, what they wait for.
fn list_text(jobs: &Value) -> String {
    let jobs = list(&jobs["jobs"]);
    if jobs.is_empty() {
        return "no jobs\n".to_owned();
    }
    let row = |job: &Value| {
        let (moved, total) = (bytes(&job["bytes_moved"]), bytes(&job["bytes_total"]));
        let unit = unit(total);
        let data = format!("{}/{} {}", in_unit(moved, unit), in_unit(total, unit), unit.0);
        vec![
            job["id"].to_string(),
            word(&job["state"]).to_owned(),
            steps(job),
            if total == 0 { "-".to_owned() } else { data },
            job["throttle_bytes_per_s"].as_u64().map_or("-".to_owned(), |rate| format!("{}/s", size(rate))),
            word(&job["title"]).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    let mut text = table(&["JOB>", "STATE", "REPLICAS>", "DATA>", "THROTTLE>", ""], &rows);
    for job in jobs {
        if let Some(waiting) = job["waiting_on"].as_str() {
            text += &format!("job {} waits on: {waiting}\n", job["id"]);
        }
        for stall in list(&job["stalled"]) {
            text += &format!("job {} has stalled: {}\n", job["id"], word(stall));
        }
    }
    text
}

/// How many replicas have moved, of how many; where none are to, restarts or moves.
fn steps(job: &Value) -> String {
    let of = |done: &str, all: &str, what: &str| match number(&job[all]) {
        0 => None,
        all => Some(format!("{}/{all}{what}", number(&job[done]))),
    };
    of("replicas_moved", "replicas_total", "")
        .or_else(|| of("restarts_recorded", "restarts_total", " restarts"))
        .or_else(|| of("moves_recorded", "moves_total", " moves"))
        .unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_listed() {
        let jobs = serde_json::json!({"epoch": 7, "jobs": [
            {"id": 3, "title": "add n4", "state": "done", "replicas_total": 2, "replicas_moved": 2,
             "bytes_moved": 900, "bytes_total": 900, "throttle_bytes_per_s": null, "waiting_on": null, "stalled": []},
            {"id": 4, "title": "drain n2", "state": "running", "replicas_total": 32, "replicas_moved": 21,
             "bytes_moved": 402_000_000, "bytes_total": 612_000_000, "throttle_bytes_per_s": 50_000_000,
             "waiting_on": "s17 cannot reach n4", "stalled": ["s17 cannot reach n4 (14 s)"]},
        ]});
        assert_eq!(
            list_text(&jobs),
            "JOB  STATE    REPLICAS        DATA  THROTTLE\n\
             \x20 3  done          2/2   900/900 B         -  add n4\n\
             \x20 4  running     21/32  402/612 MB   50 MB/s  drain n2\n\
             job 4 waits on: s17 cannot reach n4\n\
             job 4 has stalled: s17 cannot reach n4 (14 s)\n"
        );
        assert_eq!(list_text(&serde_json::json!({"jobs": []})), "no jobs\n");
        let jobs = serde_json::json!({"epoch": 7, "jobs": [
            {"id": 5, "title": "roll n1 n2", "state": "running", "restarts_total": 2, "restarts_recorded": 1},
            {"id": 6, "title": "replicas 1", "state": "done", "moves_total": 32, "moves_recorded": 32},
            {"id": 7, "title": "rezone n1 b", "state": "done"},
        ]});
        assert_eq!(
            list_text(&jobs),
            "JOB  STATE        REPLICAS  DATA  THROTTLE\n\
             \x20 5  running  1/2 restarts     -         -  roll n1 n2\n\
             \x20 6  done      32/32 moves     -         -  replicas 1\n\
             \x20 7  done                -     -         -  rezone n1 b\n"
        );
    }
}
