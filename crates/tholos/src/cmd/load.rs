//! `tholos cluster load`: how loaded the nodes are, and why leaderships moved.

use serde_json::Value;

use crate::cmd::cluster::{list, number, word};
use crate::style::{Colour, coloured, count, table};

/// One sentence, a row for every node, and the last moves, the newest first.
pub(crate) fn load_text(load: &Value) -> String {
    let nodes = list(&load["nodes"]);
    let (verdict, colour, how) = how_leaders_sit(load, nodes);
    let mut text = format!("{}  {how}\n\n", coloured(verdict, colour));
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    text += &table(
        &[
            "NODE",
            "WEIGHT>",
            "CAPACITY>",
            "SHARE>",
            "LOAD>",
            "SPARE>",
            "QUEUE>",
            "LEADS>",
            "TARGET>",
            "STRETCH>",
            "SYNC>",
            "COMMANDS/S>",
            "",
        ],
        &rows,
    );
    let moves = list(&load["moves"]);
    if moves.is_empty() {
        return text;
    }
    let shards = number(&load["shards"]);
    let rows: Vec<Vec<String>> = moves.iter().map(|given| move_row(given, shards)).collect();
    text.push('\n');
    text + &table(&["TIME (UTC)", "SHARD", "FROM", "TO", "WHY"], &rows)
}

/// A word for how alike the nodes are, and what decides who leads.
fn how_leaders_sit(load: &Value, nodes: &[Value]) -> (&'static str, Colour, String) {
    let slow =
        nodes.iter().filter(|node| node["capacity"].as_u64().is_some_and(|capacity| capacity < 100)).count();
    if load["rule"] == "fixed" {
        let how = "leaders = \"map\" is set: the map says who leads, however slow a node is";
        return ("FIXED", Colour::Good, how.to_owned());
    }
    let zones: Vec<&str> = list(&load["leader_zones"]).iter().map(word).collect();
    let (verdict, colour, are_slow) = match slow {
        0 => ("EVEN", Colour::Good, "no node is slow beside the others".to_owned()),
        some => ("UNEVEN", Colour::Warning, format!("{some} of {} slow", count(nodes.len(), "node"))),
    };
    let mut how = match (slow, zones.is_empty()) {
        (0, true) => format!("{are_slow}: the map says who leads"),
        (_, true) => format!("{are_slow}: leaders follow weight and capacity"),
        (_, false) => {
            let zone = if zones.len() == 1 { "zone" } else { "zones" };
            format!("{are_slow}: leaders follow weight and capacity in {zone} {}", zones.join(" "))
        }
    };
    match list(&load["hot_shards"]) {
        [] => {}
        [shard] => how += &format!("; s{} is led where less is asked for", number(shard)),
        hot => how += &format!("; {} hot shards are led where less is asked for", hot.len()),
    }
    (verdict, colour, how)
}

fn row(node: &Value) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let whole = |key: &str| or_dash(node[key].as_u64().map(|number| number.to_string()));
    let percent = |part: f64| format!("{part:.0}%");
    vec![
        word(&node["name"]).to_owned(),
        whole("weight"),
        or_dash(node["capacity"].as_f64().map(percent)),
        or_dash(node["share"].as_f64().map(|share| percent(share * 100.0))),
        or_dash(node["busy"].as_f64().map(percent)),
        or_dash(node["spare"].as_f64().map(percent)),
        whole("queue"),
        whole("leads"),
        whole("target"),
        or_dash(node["stretch"].as_f64().map(|stretch| format!("{stretch:.2}"))),
        or_dash(node["sync_us"].as_f64().map(|sync_us| format!("{:.2} ms", sync_us / 1000.0))),
        whole("commands_per_s"),
        node["reason"].as_str().or(node["slow"].as_str()).unwrap_or_default().to_owned(),
    ]
}

fn move_row(given: &Value, shards: usize) -> Vec<String> {
    vec![
        time_of_day(given["at_ms"].as_u64().unwrap_or(0)),
        shard_name(given, shards),
        word(&given["from"]).to_owned(),
        word(&given["to"]).to_owned(),
        word(&given["reason"]).to_owned(),
    ]
}

/// The shard of a move; the number behind the last is the meta group's.
pub(crate) fn shard_name(given: &Value, shards: usize) -> String {
    let shard = number(&given["shard"]);
    if shard == shards { "meta".to_owned() } else { format!("s{shard}") }
}

/// The time of the day of Unix milliseconds, `11:34:50`.
fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_node_is_told_with_what_it_gave_away() {
        let node = |name: &str, capacity: u64, leads: u64, slow: Value| {
            serde_json::json!({
                "name": name, "weight": 1, "leads": leads, "capacity": capacity, "slow": slow, "share": 0.4, "target": 26,
                "stretch": 1.125, "sync_us": 812, "commands_per_s": 1203, "reason": null, "busy": 20, "spare": capacity * 8 / 10,
                "queue": 3,
            })
        };
        let dead = serde_json::json!({
            "name": "n3", "weight": 1, "leads": 0, "capacity": null, "slow": null, "share": null, "target": null,
            "stretch": null, "sync_us": null, "commands_per_s": null, "reason": "connection refused",
        });
        let given = |shard: u64| {
            let at_ms = (86_400_u64 * 20_000 + 11 * 3600 + 34 * 60 + 5) * 1000;
            serde_json::json!({"at_ms": at_ms, "shard": shard, "from": "n1", "to": "n2", "reason": "slow disk"})
        };
        let load = serde_json::json!({
            "nodes": [node("n1", 0, 13, "slow disk".into()), node("n2", 100, 51, Value::Null), dead], "shards": 64,
            "moves": [given(64), given(12)],
        });
        assert_eq!(
            load_text(&load),
            "UNEVEN  1 of 3 nodes slow: leaders follow weight and capacity\n\n\
             NODE  WEIGHT  CAPACITY  SHARE  LOAD  SPARE  QUEUE  LEADS  TARGET  STRETCH     SYNC  COMMANDS/S\n\
             n1         1        0%    40%   20%     0%      3     13      26     1.12  0.81 ms        1203  slow disk\n\
             n2         1      100%    40%   20%    80%      3     51      26     1.12  0.81 ms        1203\n\
             n3         1         -      -     -      -      -      0       -        -        -           -  connection refused\n\n\
             TIME (UTC)  SHARD  FROM  TO  WHY\n\
             11:34:05    meta   n1    n2  slow disk\n\
             11:34:05    s12    n1    n2  slow disk\n"
        );
    }

    #[test]
    fn what_decides_who_leads_is_told() {
        let told = |rule: &str, capacity: u64, zones: &[&str], hot: &[u16]| {
            let load = serde_json::json!({
                "nodes": [{"name": "n1", "weight": 1, "leads": 64, "capacity": capacity}], "shards": 64, "moves": [],
                "rule": rule, "leader_zones": zones, "hot_shards": hot,
            });
            load_text(&load).lines().next().unwrap().to_owned()
        };
        let even = "EVEN  no node is slow beside the others: ";
        assert_eq!(told("map", 100, &[], &[]), format!("{even}the map says who leads"));
        assert_eq!(
            told("map", 100, &[], &[7]),
            format!("{even}the map says who leads; s7 is led where less is asked for")
        );
        assert_eq!(
            told("capacity", 100, &["a"], &[]),
            format!("{even}leaders follow weight and capacity in zone a")
        );
        assert_eq!(
            told("capacity", 50, &["a", "b"], &[7, 9]),
            "UNEVEN  1 of 1 node slow: leaders follow weight and capacity in zones a b; 2 hot shards are led where less is \
             asked for"
        );
        assert_eq!(
            told("fixed", 100, &["a"], &[]),
            "FIXED  leaders = \"map\" is set: the map says who leads, however slow a node is"
        );
    }

    #[test]
    fn an_even_cluster_is_told_so() {
        let load = serde_json::json!({"nodes": [{"name": "n1", "weight": 1, "leads": 64, "capacity": 100}], "shards": 64, "moves": []});
        let text = load_text(&load);
        assert!(
            text.starts_with("EVEN  no node is slow beside the others") && !text.contains("TIME"),
            "{text}"
        );
    }
}
