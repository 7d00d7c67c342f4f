//! Following a job: a bar in a terminal, lines where nobody looks, JSON for programs.
//!
//! The job is kept by the cluster; whoever follows it may go at any time.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cmd::cluster::{list, number, word};
use crate::cmd::job::ANSWER_TIMEOUT;
use crate::cmd::rate::{in_unit, size, unit};
use crate::failure::{Exit, Failure};
use crate::http::At;
use crate::out::{errln, outln};
use crate::style::count;

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Time between two lines, if it is only figures that have changed.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Nodes that do not answer are asked again for this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Signs of the bar.
const BAR_WIDTH: usize = 17;
/// For how long a job that a node does not know is asked for again.
const OLDER_FOR: Duration = Duration::from_secs(2);

/// Follows a job to its end.
pub(crate) fn watch(at: &At, json: bool, id: u64) -> Result<Exit, Failure> {
    let terminal = !json && std::io::stdout().is_terminal();
    detach_on_interrupt(id, terminal);
    let mut screen = Screen {
        json,
        terminal,
        shown: String::new(),
        told: Vec::new(),
        state: String::new(),
        at: None,
        moved: 0,
    };
    let mut silent_since: Option<Instant> = None;
    let mut unknown_since: Option<Instant> = None;
    loop {
        let answer = match at.get("/v1/jobs", ANSWER_TIMEOUT) {
            Ok(answer) => answer,
            // Nodes come and go: the job does not depend on the one that is asked.
            Err(failure) if failure.exit == Exit::CannotReach => {
                let since = *silent_since.get_or_insert_with(|| {
                    errln!("no node answers; job {id} goes on, and is asked for again");
                    Instant::now()
                });
                if since.elapsed() >= PATIENCE {
                    screen.end_line();
                    return Err(failure);
                }
                std::thread::sleep(LOOK);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        silent_since = None;
        let Some(job) = list(&answer["jobs"]).iter().find(|job| job["id"] == id) else {
            // Any node may have answered, by its own copy of the map, which may be older than the job.
            if unknown_since.get_or_insert_with(Instant::now).elapsed() < OLDER_FOR {
                std::thread::sleep(LOOK);
                continue;
            }
            screen.end_line();
            let why = "there is no such job, or it is forgotten";
            return Err(Failure::new(Exit::NotSo, format!("job {id}"), why, "see tholos job list"));
        };
        unknown_since = None;
        screen.show(job);
        match word(&job["state"]) {
            "done" => return Ok(Exit::Ok),
            "cancelled" => return Ok(Exit::NotSo),
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// ^C ends the watching and nothing else.
fn detach_on_interrupt(id: u64, terminal: bool) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let line_end = if terminal { "\n" } else { "" };
            errln!(
                "{line_end}Detached; job {id} goes on in the cluster. Watch: tholos job watch {id} · stop: tholos job pause {id}"
            );
            std::process::exit(Exit::Interrupted as i32);
        }
    });
}

/// What was shown.
struct Screen {
    json: bool,
    terminal: bool,
    shown: String,
    /// What has stalled and was told, without for how long.
    told: Vec<String>,
    state: String,
    at: Option<Instant>,
    /// The most that was moved: whoever counts may change, and then begins with less.
    moved: u64,
}

impl Screen {
    fn show(&mut self, job: &Value) {
        let finished = matches!(word(&job["state"]), "done" | "cancelled");
        let text = match (self.json, finished) {
            (true, _) => job.to_string(),
            (false, true) => end_text(job),
            (false, false) => {
                self.moved = self.moved.max(bytes(&job["bytes_moved"]));
                progress_text(job, self.moved, self.terminal)
            }
        };
        if !self.json && !finished {
            self.tell_stalls(job);
        }
        let done = ["state", "moves_recorded", "moves_cancelled", "restarts_recorded", "restarting"];
        let state = done.map(|field| job[field].to_string()).join(" ");
        let due = self.terminal || self.at.is_none_or(|at| at.elapsed() >= LINE_INTERVAL);
        if text == self.shown || (!due && state == self.state) {
            return;
        }
        let mut out = std::io::stdout().lock();
        let _unwritable_stdout_is_no_reason_to_stop = match (self.terminal, finished) {
            (true, false) => write!(out, "\r{}", padded(&text, &self.shown)),
            (true, true) => writeln!(out, "\r{}", padded(&text, &self.shown)),
            (false, _) => writeln!(out, "{text}"),
        }
        .and_then(|()| out.flush());
        (self.shown, self.state, self.at) = (text, state, Some(Instant::now()));
    }

    /// Tells once of each thing that has stalled.
    fn tell_stalls(&mut self, job: &Value) {
        let stalls: Vec<(&str, &str)> = list(&job["stalled"])
            .iter()
            .map(|stall| (word(stall), word(stall).rsplit_once(" (").map_or("", |(cause, _)| cause)))
            .collect();
        for (stall, cause) in &stalls {
            if !self.told.iter().any(|told| told == cause) {
                self.end_line();
                outln!("job {} has stalled: {stall}", job["id"]);
            }
        }
        self.told = stalls.into_iter().map(|(_, cause)| cause.to_owned()).collect();
    }

    /// Goes on below the bar.
    fn end_line(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            outln!();
            self.shown.clear();
        }
    }
}

/// A line that covers the one before it.
fn padded(text: &str, before: &str) -> String {
    let missing = before.chars().count().saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

/// How far a job is: `job 4 running  21/32 replicas  402/612 MB  48 MB/s  ETA 4 s  (waiting on: s17 catching up on n4)`.
fn progress_text(job: &Value, moved: u64, bar: bool) -> String {
    let total = bytes(&job["bytes_total"]).max(moved);
    let state = word(&job["state"]);
    let mut text = format!("job {}", job["id"]);
    if bar {
        text += &format!("  {}", bar_text(job, moved, total));
    }
    if !bar || state != "running" {
        text += &format!(" {state}");
    }
    text += &format!("  {}", moves_text(job));
    if total > 0 {
        let unit = unit(total);
        text += &format!("  {}/{} {}", in_unit(moved, unit), in_unit(total, unit), unit.0);
    }
    if let Some(rate) = job["rate_bytes_per_s"].as_u64().filter(|rate| *rate > 0) {
        text += &format!("  {}/s", size(rate));
    }
    if let Some(eta) = job["eta_s"].as_u64() {
        text += &format!("  ETA {}", duration(eta));
    }
    if let Some(waiting) = job["waiting_on"].as_str() {
        text += &format!("  (waiting on: {waiting})");
    }
    text
}

/// As many replicas as are moved; where none are to be, moves.
fn moves_text(job: &Value) -> String {
    let restarts = number(&job["restarts_total"]);
    let (what, done, all) = match number(&job["replicas_total"]) {
        0 if restarts > 0 => ("restarts", number(&job["restarts_recorded"]), restarts),
        0 => ("moves", number(&job["moves_recorded"]), number(&job["moves_total"])),
        all => ("replicas", number(&job["replicas_moved"]), all),
    };
    let cancelled = match number(&job["moves_cancelled"]) {
        0 => String::new(),
        cancelled => format!(", {cancelled} cancelled"),
    };
    let next = job["restarting"].as_str().map_or(String::new(), |node| format!("  next: {node}"));
    format!("{done}/{all} {what}{cancelled}{next}")
}

/// Bytes fill the bar; where there are none, moves.
fn bar_text(job: &Value, moved: u64, total: u64) -> String {
    let restarts = number(&job["restarts_total"]) as u64;
    let (done, all) = match total {
        0 if restarts > 0 => (number(&job["restarts_recorded"]) as u64, restarts),
        0 => (number(&job["moves_recorded"]) as u64, number(&job["moves_total"]) as u64),
        total => (moved.min(total), total),
    };
    let filled = (BAR_WIDTH as u64 * done).checked_div(all).unwrap_or(0) as usize;
    "#".repeat(filled) + &"-".repeat(BAR_WIDTH - filled)
}

/// What has become of a job: `job 4 done in 13.1 s: 32 replicas, 612 MB moved (46.7 MB/s), 0 write errors, longest write stall 12 ms`.
fn end_text(job: &Value) -> String {
    let (moved, replicas) = (bytes(&job["bytes_moved"]), number(&job["replicas_moved"]));
    let state = word(&job["state"]);
    let mut text = format!("job {} {state}", job["id"]);
    let elapsed = job["elapsed_ms"].as_u64();
    if let Some(elapsed) = elapsed {
        let word = if state == "done" { "in" } else { "after" };
        text += &format!(" {word} {:.1} s", elapsed as f64 / 1000.0);
    }
    let all = number(&job["replicas_total"]);
    text += &match (replicas, all) {
        (0, 0) if number(&job["restarts_total"]) > 0 => {
            format!(": {}", count(number(&job["restarts_recorded"]), "restart"))
        }
        (0, 0) => format!(": {}", count(number(&job["moves_recorded"]), "move")),
        (done, all) if done == all => format!(": {}, {} moved", count(all, "replica"), size(moved)),
        (done, all) => format!(": {done} of {}, {} moved", count(all, "replica"), size(moved)),
    };
    if let Some(rate) =
        elapsed.and_then(|elapsed| (moved * 1000).checked_div(elapsed)).filter(|rate| *rate > 0)
    {
        text += &format!(" ({}/s)", size(rate));
    }
    match number(&job["moves_cancelled"]) {
        0 => {}
        cancelled => text += &format!(", {} cancelled", count(cancelled, "move")),
    }
    if let Some(longest) = job["longest_write_ms"].as_u64() {
        let errors = count(number(&job["write_errors"]), "write error");
        text += &format!(", {errors}, longest write stall {longest} ms");
    }
    text
}

pub(crate) fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str) -> Value {
        serde_json::json!({
            "id": 4, "title": "add n4", "state": state, "moves_total": 40, "moves_recorded": 29, "moves_cancelled": 0,
            "replicas_total": 32, "replicas_moved": 21, "bytes_moved": 402_000_000, "bytes_total": 612_000_000,
            "rate_bytes_per_s": 48_000_000, "eta_s": 4, "elapsed_ms": 13_100,
            "waiting_on": "s17 catching up on n4", "stalled": [], "in_flight": [],
        })
    }

    #[test]
    fn a_job_says_how_far_it_is_and_what_it_waits_for() {
        let line = "21/32 replicas  402/612 MB  48 MB/s  ETA 4 s  (waiting on: s17 catching up on n4)";
        assert_eq!(
            progress_text(&job("running"), 402_000_000, true),
            format!("job 4  ###########------  {line}")
        );
        assert_eq!(progress_text(&job("running"), 402_000_000, false), format!("job 4 running  {line}"));
        assert!(
            progress_text(&job("paused"), 402_000_000, true)
                .starts_with("job 4  ###########------ paused  21/32")
        );
    }

    #[test]
    fn the_end_of_a_job_is_a_summary() {
        let mut job = job("done");
        (job["replicas_moved"], job["bytes_moved"]) = (32.into(), 612_000_000.into());
        assert_eq!(end_text(&job), "job 4 done in 13.1 s: 32 replicas, 612 MB moved (46.7 MB/s)");
        (job["write_errors"], job["longest_write_ms"]) = (0.into(), 12.into());
        let writes = "0 write errors, longest write stall 12 ms";
        assert!(end_text(&job).ends_with(&format!("moved (46.7 MB/s), {writes}")), "{}", end_text(&job));
        (job["write_errors"], job["longest_write_ms"]) = (Value::Null, Value::Null);
        job["state"] = "cancelled".into();
        (job["replicas_moved"], job["moves_cancelled"]) = (1.into(), 38.into());
        let expected =
            "job 4 cancelled after 13.1 s: 1 of 32 replicas, 612 MB moved (46.7 MB/s), 38 moves cancelled";
        assert_eq!(end_text(&job), expected);
        let leads = serde_json::json!({"id": 5, "state": "done", "moves_total": 2, "moves_recorded": 2, "elapsed_ms": 40});
        assert_eq!(end_text(&leads), "job 5 done in 0.0 s: 2 moves");
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0, 59, 61, 3_661].map(duration), ["0 s", "59 s", "1 min 1 s", "1 h 1 min"]);
    }

    #[test]
    fn a_shorter_line_covers_a_longer_one() {
        assert_eq!(padded("äb", "lang"), "äb  ");
        assert_eq!(padded("lang", "äb"), "lang");
    }
}
