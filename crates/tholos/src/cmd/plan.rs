//! `tholos cluster plan`: what would move, told before anything is changed.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cmd::cluster::{ANSWER_TIMEOUT, list, number, word};
use crate::cmd::rate::{size, unit};
use crate::cmd::watch::{bytes, duration};
use crate::failure::{Exit, Failure};
use crate::http::{At, query_escape};
use crate::out::out;
use crate::style::{Colour, coloured, count, table};

/// What a change would move: before and after for each node, whether it is safe, how long it takes.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    change: Change,
}

#[derive(Subcommand, Debug)]
enum Change {
    /// Spares are to hold their shares.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan add n4
  tholos cluster plan add n4 n5 --json")]
    Add {
        /// Nodes that have joined.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Nodes are to hold nothing and to leave the cluster: leaders go first, then replicas, then the node.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan remove n4")]
    Remove {
        /// Nodes, dead or alive.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Nodes are to hold nothing and to stay as spares: leaders go first, then replicas.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan drain n2")]
    Drain {
        /// Nodes that hold something.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Members are to hold their shares, as after a job that ended early.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan even")]
    Even,
    /// A spare is to hold what a node holds.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan replace n2 n4")]
    Replace {
        /// Who gives up what it holds, dead or alive.
        old: String,
        /// The spare.
        new: String,
    },
    /// A node is to have another weight, and a share that goes with it.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan reweight n2 4")]
    Reweight {
        /// The node.
        node: String,
        /// Relative to the others' weights.
        weight: u16,
    },
    /// A node stands in another zone.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan rezone n2 b
  tholos cluster plan rezone n2         a zone of its own")]
    Rezone {
        /// The node.
        node: String,
        /// Nodes of one zone may fail together. None: a zone of its own.
        zone: Option<String>,
    },
    /// Shards are to have another number of replicas.
    #[command(after_help = "\
Changes nothing. Exits with 1 if the plan is blocked.

Examples:
  tholos cluster plan replicas 3 n2 n3  a cluster of one node grows to three
  tholos cluster plan replicas 1        and shrinks back")]
    Replicas {
        /// 1, 3 or 5.
        count: u8,
        /// Spares that are to hold their shares of them.
        #[arg(value_name = "NODE")]
        with: Vec<String>,
    },
}

impl PlanArgs {
    /// What is asked for, in words.
    pub(crate) fn words(&self) -> String {
        let words = match &self.change {
            Change::Add { nodes } => format!("add {}", nodes.join(" ")),
            Change::Remove { nodes } => format!("remove {}", nodes.join(" ")),
            Change::Even => "even".to_owned(),
            Change::Drain { nodes } => format!("drain {}", nodes.join(" ")),
            Change::Replace { old, new } => format!("replace {old} {new}"),
            Change::Reweight { node, weight } => format!("reweight {node} {weight}"),
            Change::Rezone { node, zone } => format!("rezone {node} {}", zone.as_deref().unwrap_or_default()),
            Change::Replicas { count, with } => format!("replicas {count} {}", with.join(" ")),
        };
        words.trim_end().to_owned()
    }
}

/// Prints the plan of a change told in words.
pub(crate) fn show(at: &At, json: bool, words: &str) -> Result<Exit, Failure> {
    let plan = at.get(&format!("/v1/plan?request={}", query_escape(words.as_bytes())), ANSWER_TIMEOUT)?;
    out!("{}", if json { format!("{plan}\n") } else { plan_text(&plan) });
    Ok(if plan["blocked"] == false { Exit::Ok } else { Exit::NotSo })
}

/// Told of a plan that may not be applied.
const BLOCKED: &str = "Blocked: this plan cannot be applied. Nothing has been changed.\n";

/// The plan that people read.
fn plan_text(plan: &Value) -> String {
    if !list(&plan["restarts"]).is_empty() {
        return roll_text(plan);
    }
    let (moves, least) = (number(&plan["moves_total"]), number(&plan["least_possible"]));
    let drops = list(&plan["moves"]).iter().filter(|step| step["to"].is_null()).count();
    let replicas = number(&plan["replicas"]);
    let part = 100.0 * moves as f64 / replicas.max(1) as f64;
    let mut text = format!(
        "Plan {} (map epoch {})   {}: moves {moves} of {replicas} replicas ({part:.1}%); the least possible is {least}",
        word(&plan["id"]),
        number(&plan["epoch"]),
        word(&plan["request"]),
    );
    text += &if drops > 0 { format!("; drops {drops}\n") } else { "\n".to_owned() };
    text += &nodes_text(list(&plan["nodes"]));
    text += &checks_text(list(&plan["checks"]));
    if plan["blocked"] != false {
        return text + BLOCKED;
    }
    if list(&plan["moves"]).is_empty() {
        text += "Nothing moves. ";
    }
    text + &format!(
        "Estimate {} for {} at the {}/s limit. Nothing has been changed.   Apply: tholos cluster apply {}\n",
        duration(bytes(&plan["estimate_s"])),
        size(bytes(&plan["bytes"])),
        size(bytes(&plan["bytes_per_s"])),
        word(&plan["id"]),
    )
}

/// A plan that restarts nodes and moves nothing.
fn roll_text(plan: &Value) -> String {
    let nodes: Vec<&str> = list(&plan["restarts"]).iter().map(word).collect();
    let mut text = format!(
        "Plan {} (map epoch {})   roll: {} one after the other: {}\n\
         Each hands its leaders over, ends, begins anew, and has caught up before the next. Nothing moves.\n",
        word(&plan["id"]),
        number(&plan["epoch"]),
        count(nodes.len(), "restart"),
        nodes.join(" "),
    );
    text += &checks_text(list(&plan["checks"]));
    if plan["blocked"] != false {
        return text + BLOCKED;
    }
    text + &format!("Nothing has been changed.   Apply: tholos cluster apply {}\n", word(&plan["id"]))
}

fn checks_text(checks: &[Value]) -> String {
    let told: Vec<String> = checks.iter().map(check_text).collect();
    let mut text = format!("Checks: {}\n", told.join(" · "));
    for check in checks {
        let reasons = list(&check["reasons"]);
        for reason in reasons {
            text += &format!("  {}: {}\n", word(&check["check"]), word(reason));
        }
        let more = number(&check["reasons_total"]) - reasons.len();
        if more > 0 {
            text += &format!("  {}: and {more} more\n", word(&check["check"]));
        }
    }
    text
}

fn check_text(check: &Value) -> String {
    let outcome = match (check["ok"] == true, check["blocks"] == false) {
        (true, _) => coloured("ok", Colour::Good),
        (false, true) => coloured("warning", Colour::Warning),
        (false, false) => coloured("BLOCKED", Colour::Bad),
    };
    format!("{} {outcome}", word(&check["what"]))
}

fn nodes_text(nodes: &[Value]) -> String {
    let of = |node: &Value, what: &str, at: usize| node[what][at].as_u64().unwrap_or(0);
    let most = nodes.iter().flat_map(|node| [of(node, "bytes", 0), of(node, "bytes", 1)]).max().unwrap_or(0);
    let (unit, unit_bytes) = unit(most);
    let size = |bytes: u64| {
        if unit_bytes == 1 { bytes.to_string() } else { format!("{:.1}", bytes as f64 / unit_bytes as f64) }
    };
    let whole = |number: u64| number.to_string();
    let pair = |node: &Value, what: &str, show: &dyn Fn(u64) -> String| {
        let width = |at: usize| nodes.iter().map(|node| show(of(node, what, at)).len()).max().unwrap_or(0);
        let (left, right) = (show(of(node, what, 0)), show(of(node, what, 1)));
        format!("{left:>0$} → {right:>1$}", width(0), width(1))
    };
    let row = |node: &Value| {
        let zone = word(&node["zone"]);
        let change = of(node, "replicas", 1) as i64 - of(node, "replicas", 0) as i64;
        vec![
            word(&node["name"]).to_owned(),
            if zone.is_empty() { "-".to_owned() } else { zone.to_owned() },
            pair(node, "replicas", &whole),
            if change == 0 { ".".to_owned() } else { format!("{change:+}") },
            pair(node, "leads", &whole),
            format!("{} {unit}", pair(node, "bytes", &size)),
            node["note"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    table(&["NODE", "ZONE", "REPLICAS", ">", "LEADS", "DATA", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(blocked: bool, checks: &Value) -> Value {
        let node = |name: &str,
                    zone: &str,
                    replicas: [u64; 2],
                    leads: [u64; 2],
                    bytes: [u64; 2],
                    note: Value| {
            json!({"name": name, "zone": zone, "replicas": replicas, "leads": leads, "bytes": bytes, "note": note})
        };
        let gb = 1_000_000_000;
        json!({
            "id": "7c1e09ab", "epoch": 12, "request": "add n4", "blocked": blocked, "moves_total": 32,
            "least_possible": 32, "replicas": 192, "bytes": 612_000_000, "bytes_per_s": 50_000_000, "estimate_s": 13,
            "moves": [{"shard": 3, "from": "n1", "to": "n4"}],
            "nodes": [
                node("n1", "a", [64, 32], [22, 16], [12 * gb / 10, 6 * gb / 10], Value::Null),
                node("n2", "b", [64, 64], [21, 16], [12 * gb / 10, 12 * gb / 10], "unchanged: only node in zone b, one copy per zone".into()),
                node("n4", "", [0, 32], [0, 16], [0, 6 * gb / 10], Value::Null),
            ],
            "checks": checks,
        })
    }

    #[test]
    fn a_plan_is_told_before_anything_moves() {
        let checks = json!([
            {"check": "quorum", "what": "quorum kept at every step", "ok": true, "blocks": false, "reasons": [], "reasons_total": 0},
            {"check": "zones", "what": "no shard loses a zone", "ok": false, "blocks": false, "reasons": ["2 zones"], "reasons_total": 3},
        ]);
        assert_eq!(
            plan_text(&plan(false, &checks)),
            "Plan 7c1e09ab (map epoch 12)   add n4: moves 32 of 192 replicas (16.7%); the least possible is 32\n\
             NODE  ZONE  REPLICAS       LEADS    DATA\n\
             n1    a     64 → 32   -32  22 → 16  1.2 → 0.6 GB\n\
             n2    b     64 → 64     .  21 → 16  1.2 → 1.2 GB  unchanged: only node in zone b, one copy per zone\n\
             n4    -      0 → 32   +32   0 → 16  0.0 → 0.6 GB\n\
             Checks: quorum kept at every step ok · no shard loses a zone warning\n  \
               zones: 2 zones\n  \
               zones: and 2 more\n\
             Estimate 13 s for 612 MB at the 50 MB/s limit. Nothing has been changed.   Apply: tholos cluster apply 7c1e09ab\n"
        );
    }

    #[test]
    fn a_roll_tells_its_order() {
        let mut roll = plan(false, &json!([]));
        roll["restarts"] = json!(["n2", "n1"]);
        assert_eq!(
            plan_text(&roll),
            "Plan 7c1e09ab (map epoch 12)   roll: 2 restarts one after the other: n2 n1\n\
             Each hands its leaders over, ends, begins anew, and has caught up before the next. Nothing moves.\n\
             Checks: \nNothing has been changed.   Apply: tholos cluster apply 7c1e09ab\n"
        );
        roll["blocked"] = json!(true);
        assert!(plan_text(&roll).ends_with(BLOCKED));
    }

    #[test]
    fn what_blocks_is_named() {
        let checks = json!([
            {"check": "quorum", "what": "quorum kept at every step", "ok": false, "blocks": true, "reasons": ["s3 has 1 of the 2"], "reasons_total": 1},
        ]);
        let text = plan_text(&plan(true, &checks));
        assert!(
            text.contains(
                "Checks: quorum kept at every step BLOCKED\n  quorum: s3 has 1 of the 2\nBlocked: "
            ),
            "{text}"
        );
    }

    #[test]
    fn nothing_to_move_is_said() {
        let mut plan = plan(false, &json!([]));
        plan["moves"] = json!([]);
        assert!(plan_text(&plan).contains("Nothing moves. Estimate"));
        plan["moves"] = json!([{"shard": 1, "from": "n1", "to": null}]);
        assert!(plan_text(&plan).contains("the least possible is 32; drops 1\n"));
    }
}
