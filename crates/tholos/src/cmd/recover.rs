//! `tholos cluster recover`: shards, or the whole cluster, have lost their majority for good.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cmd::cluster::{list, number, word};
use crate::failure::{Exit, Failure};
use crate::http::{At, query_escape};
use crate::out::out;
use crate::style::{Colour, coloured, count, table};

/// A node waits a second for each part of what each other node has.
const PLAN_TIMEOUT: Duration = Duration::from_secs(20);
/// The meta group is waited for as well, and it may have to be elected first.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the groups are waited for before the command ends; they go on.
const FOLLOW: Duration = Duration::from_secs(60);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Go on without nodes that are gone for ever, where they were a majority. Tells what may be lost, and changes nothing yet.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
The last resort: whatever the lost nodes decided by themselves is lost, though clients were told that it was written. Nodes that
can be started again should be. Ask a node that is left (--at). Groups that have a majority are left alone.
Exits with 1 if the recovery is blocked.

Examples:
  tholos cluster recover --lost n2,n3                     what it takes, and what may be lost
  tholos cluster recover --lost n2,n3 --shard s4,s7       some shards only
  tholos cluster recover apply 7c1e09ab --i-accept-loss   does it
  tholos cluster recover --history                        what was done"
)]
pub(crate) struct RecoverArgs {
    /// Nodes that are gone for ever: destroyed, with their directories. They are refused from then on.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    lost: Vec<String>,
    /// Only these shards, and the meta group if it needs it.
    #[arg(long = "shard", value_name = "SHARD", value_delimiter = ',')]
    shards: Vec<String>,
    /// The recoveries that were made.
    #[arg(long, conflicts_with_all = ["lost", "shards"])]
    history: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Carry out a recovery that was planned, and wait until every group goes on.
    #[command(after_help = "\
Refused if the map or the survivors' logs have changed since. Given again, it waits for the one that was begun.
Exits with 0 if every group goes on, 1 if one could not or it was refused, 5 if some are still to go on: they do so by
themselves.

Examples:
  tholos cluster recover apply 7c1e09ab --i-accept-loss")]
    Apply {
        /// The plan's name, as tholos cluster recover printed it.
        id: String,
        /// Your word: what may be lost, as the plan tells it, is given up.
        #[arg(long, required = true)]
        i_accept_loss: bool,
    },
}

pub(crate) fn run(at: &At, json: bool, args: &RecoverArgs) -> Result<Exit, Failure> {
    match &args.what {
        Some(What::Apply { id, i_accept_loss: _ }) => apply(at, json, id),
        None if args.history => {
            let history = at.get("/v1/recoveries", PLAN_TIMEOUT)?;
            out!("{}", if json { format!("{history}\n") } else { history_text(&history) });
            Ok(Exit::Ok)
        }
        None => {
            let (lost, groups) = (args.lost.join(","), args.shards.join(","));
            let path = format!(
                "/v1/recover?lost={}&groups={}",
                query_escape(lost.as_bytes()),
                query_escape(groups.as_bytes())
            );
            let plan = at.get(&path, PLAN_TIMEOUT)?;
            out!("{}", if json { format!("{plan}\n") } else { plan_text(&plan) });
            Ok(if plan["blocked"] == false { Exit::Ok } else { Exit::NotSo })
        }
    }
}

fn apply(at: &At, json: bool, id: &str) -> Result<Exit, Failure> {
    let path = format!("/v1/recover/apply?id={}&accept=loss", query_escape(id.as_bytes()));
    let begun = at.post(&path, APPLY_TIMEOUT)?;
    let recovery = number(&begun["recovery"]);
    let deadline = Instant::now() + FOLLOW;
    loop {
        let history = at.get("/v1/recoveries", PLAN_TIMEOUT)?;
        let own = own(&history, recovery);
        let exit = exit(&own);
        if exit != Exit::TimedOut || Instant::now() > deadline {
            out!("{}", if json { format!("{own}\n") } else { recovery_text(&own) });
            return Ok(exit);
        }
        std::thread::sleep(LOOK);
    }
}

/// What the node knows of a recovery. One that it has not heard of yet is as open as one can be: the node that is asked
/// need not be one that decided it.
fn own(history: &Value, recovery: usize) -> Value {
    let known = list(&history["recoveries"]).iter().find(|one| number(&one["id"]) == recovery);
    known.cloned().unwrap_or_else(|| json!({"id": recovery, "finished": false, "groups": []}))
}

/// What the command would end with now; [`Exit::TimedOut`] as long as some groups are still to go on.
fn exit(recovery: &Value) -> Exit {
    let refused = list(&recovery["groups"]).iter().any(|group| group["state"] == "refused");
    match (recovery["finished"] == true, refused) {
        (false, _) => Exit::TimedOut,
        (true, true) => Exit::NotSo,
        (true, false) => Exit::Ok,
    }
}

fn names(value: &Value) -> String {
    let names: Vec<&str> = list(value).iter().map(|one| one["name"].as_str().unwrap_or(word(one))).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// The plan that people read.
fn plan_text(plan: &Value) -> String {
    let rescues = list(&plan["rescues"]);
    let mut text = format!(
        "Recovery {} (map epoch {})   given up for ever: {}\n",
        word(&plan["id"]),
        number(&plan["epoch"]),
        names(&plan["lost"]),
    );
    if !rescues.is_empty() {
        let row = |rescue: &Value| {
            let mark = |name: &str| format!("@{}", number(&rescue[name]));
            let anew = list(&rescue["survivors"]).is_empty();
            let lost = match rescue["loses_nothing"] == true {
                true => "nothing".to_owned(),
                false if anew => format!("map changes after e{}", number(&plan["epoch"])),
                false => format!("all after {} that the lost decided", mark("kept_to")),
            };
            let survivors = list(&rescue["survivors"]).iter().map(|survivor| {
                let name = word(&survivor["name"]);
                if survivor["mute"] == true {
                    format!("{name} (its data is lost)")
                } else {
                    format!("{name} @{}/@{}", number(&survivor["accepted"]), number(&survivor["decided"]))
                }
            });
            vec![
                word(&rescue["group"]).to_owned(),
                if anew { "nobody".to_owned() } else { survivors.collect::<Vec<_>>().join(", ") },
                word(&rescue["from"]).to_owned(),
                word(&rescue["accepted_in"]).to_owned(),
                mark("decided"),
                mark("kept_to"),
                lost,
            ]
        };
        let rows: Vec<Vec<String>> = rescues.iter().map(row).collect();
        let header = ["GROUP", "LEFT (ACCEPTED/DECIDED)", "KEEPS", "BALLOT", "DECIDED>", "KEPT TO>", "LOST"];
        text += &table(&header, &rows);
        text += "What is kept beyond what is decided may have been decided or not: nobody left can tell. What is lost, clients may \
                 have been told to be written; how much that is, nobody left can tell either.\n";
    }
    let whole = list(&plan["whole"]).len();
    text += &format!(
        "{} with less; {} of them lose{} nothing for certain. {} a majority and {} left alone.\n",
        match rescues.len() {
            1 => "1 group goes on".to_owned(),
            count => format!("{count} groups go on"),
        },
        number(&plan["lose_nothing"]),
        if number(&plan["lose_nothing"]) == 1 { "s" } else { "" },
        if whole == 1 { "1 group has".to_owned() } else { format!("{whole} groups have") },
        if whole == 1 { "is" } else { "are" },
    );
    let hopeless: Vec<&str> = list(&plan["hopeless"]).iter().map(word).collect();
    if !hopeless.is_empty() {
        text += &format!(
            "Nothing is left of {}: {} keys are gone.\n",
            hopeless.join(", "),
            if hopeless.len() == 1 { "its" } else { "their" }
        );
    }
    if plan["unrecorded"] == true {
        text += "The meta group goes on already, by a recovery that was not recorded, for the node that was asked for it died \
                 meanwhile. This one records who is lost, so that they are refused.\n";
    }
    if let Some(warning) = plan["warning"].as_str().filter(|warning| !warning.is_empty()) {
        text += &format!("{}  {warning}\n", coloured("BEFORE YOU APPLY", Colour::Bad));
    }
    for block in list(&plan["blocks"]) {
        text += &format!("  blocked: {}\n", word(block));
    }
    if plan["blocked"] != false {
        return text + "This recovery cannot be applied. Nothing has been changed.\n";
    }
    text + &format!(
        "Nothing has been changed.   Apply: tholos cluster recover apply {} --i-accept-loss\n",
        word(&plan["id"])
    )
}

fn recovery_text(recovery: &Value) -> String {
    if recovery["by"].is_null() {
        let id = number(&recovery["id"]);
        return format!(
            "recovery {id} has begun; this node has not heard of it yet: tholos cluster recover --history\n"
        );
    }
    let groups = list(&recovery["groups"]);
    let of = |state: &str| groups.iter().filter(|group| group["state"] == state).count();
    let (done, refused, open) = (of("done"), of("refused"), of("ordered"));
    let mut text = format!(
        "recovery {} by {} at {}, map epoch {}: {} given up for ever; {}",
        number(&recovery["id"]),
        word(&recovery["by"]),
        time_text(number(&recovery["at"]) as u64),
        number(&recovery["epoch"]),
        names(&recovery["lost"]),
        match (done, groups.len()) {
            (_, 0) => "it recorded no more than that".to_owned(),
            (1, _) => "1 group goes on".to_owned(),
            (done, _) => format!("{done} groups go on"),
        },
    );
    if open > 0 {
        text += &format!(", {} still to", count(open, "group"));
    }
    if refused > 0 {
        text += &format!(", {} could not: plan again", count(refused, "group"));
    }
    text += "\n";
    let row = |group: &Value| {
        vec![
            word(&group["group"]).to_owned(),
            word(&group["from"]).to_owned(),
            format!("@{}", number(&group["decided"])),
            format!("@{}", number(&group["kept_to"])),
            if group["loses_nothing"] == true { "nothing" } else { "not known" }.to_owned(),
            word(&group["state"]).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    if rows.is_empty() {
        return text;
    }
    text + &table(&["GROUP", "FROM", "DECIDED>", "KEPT TO>", "LOST", "STATE"], &rows)
}

fn history_text(history: &Value) -> String {
    let recoveries = list(&history["recoveries"]);
    if recoveries.is_empty() {
        return "no recovery was ever made\n".to_owned();
    }
    recoveries.iter().map(recovery_text).collect::<Vec<_>>().join("\n")
}

/// A time as `2026-11-26 10:32:14 UTC` (proleptic Gregorian calendar, no leap seconds).
fn time_text(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Civil from days, with years that begin in March: leap days come last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_may_be_lost_and_what_to_do_first() {
        let survivor = json!({"name": "n1", "accepted": 7, "decided": 5, "mute": false});
        let rescue = |group: &str, loses_nothing: bool| {
            json!({
                "group": group, "from": "n1", "accepted_in": "2.n1", "decided": 5, "kept_to": 7,
                "loses_nothing": loses_nothing, "survivors": [survivor],
            })
        };
        let mut plan = json!({
            "id": "7c1e09ab", "epoch": 4, "blocked": false, "blocks": [], "lost": [{"name": "n2"}, {"name": "n3"}],
            "rescues": [rescue("meta", false), rescue("s0", true)], "lose_nothing": 1, "whole": ["s1"],
            "hopeless": ["s2"], "warning": "n2 and n3 would still serve.",
        });
        assert_eq!(
            plan_text(&plan),
            "Recovery 7c1e09ab (map epoch 4)   given up for ever: n2, n3\n\
             GROUP  LEFT (ACCEPTED/DECIDED)  KEEPS  BALLOT  DECIDED  KEPT TO  LOST\n\
             meta   n1 @7/@5                 n1     2.n1         @5       @7  all after @7 that the lost decided\n\
             s0     n1 @7/@5                 n1     2.n1         @5       @7  nothing\n\
             What is kept beyond what is decided may have been decided or not: nobody left can tell. What is lost, clients \
             may have been told to be written; how much that is, nobody left can tell either.\n\
             2 groups go on with less; 1 of them loses nothing for certain. 1 group has a majority and is left alone.\n\
             Nothing is left of s2: its keys are gone.\n\
             BEFORE YOU APPLY  n2 and n3 would still serve.\n\
             Nothing has been changed.   Apply: tholos cluster recover apply 7c1e09ab --i-accept-loss\n"
        );
        plan["unrecorded"] = true.into();
        assert!(plan_text(&plan).contains("goes on already, by a recovery that was not recorded"));
        plan["blocked"] = true.into();
        plan["blocks"] = json!(["n3 answers"]);
        let text = plan_text(&plan);
        assert!(text.ends_with(
            "  blocked: n3 answers\nThis recovery cannot be applied. Nothing has been changed.\n"
        ));
        assert!(!text.contains("Apply:"), "{text}");
    }

    #[test]
    fn what_was_done_is_told() {
        let group =
            |state: &str| json!({"group": "s0", "from": "n1", "decided": 5, "kept_to": 7, "state": state});
        let recovery = json!({
            "id": 1, "at": 1_700_000_000_123_u64, "by": "n1", "epoch": 4, "lost": [{"name": "n2"}],
            "groups": [group("done"), group("refused")],
        });
        assert_eq!(
            history_text(&json!({"recoveries": [recovery]})),
            "recovery 1 by n1 at 2023-11-14 22:13:20 UTC, map epoch 4: n2 given up for ever; 1 group goes on, 1 group could \
             not: plan again\n\
             GROUP  FROM  DECIDED  KEPT TO  LOST       STATE\n\
             s0     n1         @5       @7  not known  done\n\
             s0     n1         @5       @7  not known  refused\n"
        );
        let alone = json!({"id": 2, "at": 1_700_000_000_123_u64, "by": "n1", "epoch": 5, "lost": [{"name": "n2"}], "groups": []});
        let text = recovery_text(&alone);
        assert!(
            text.contains("n2 given up for ever; it recorded no more than that\n") && !text.contains("STATE"),
            "{text}"
        );
        assert_eq!(history_text(&json!({"recoveries": []})), "no recovery was ever made\n");
    }

    #[test]
    fn a_recovery_ends_when_the_node_knows_that_it_did() {
        let of = |id: u64, finished: bool, state: &str| json!({"id": id, "finished": finished, "groups": [{"group": "s0", "state": state}]});
        let check = |recoveries: &[Value], expected: Exit| {
            let own = own(&json!({"recoveries": recoveries}), 7);
            assert_eq!((number(&own["id"]), exit(&own)), (7, expected), "{own}");
        };
        check(&[], Exit::TimedOut);
        check(&[of(6, true, "done")], Exit::TimedOut);
        check(&[of(6, true, "done"), of(7, false, "ordered")], Exit::TimedOut);
        check(&[of(7, true, "done")], Exit::Ok);
        check(&[of(7, true, "refused")], Exit::NotSo);
        assert!(recovery_text(&own(&json!({"recoveries": []}), 7)).starts_with("recovery 7 has begun"));
    }

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time_text(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(time_text(1_735_689_599_000), "2024-12-31 23:59:59 UTC");
    }
}
