//! `tholos cluster hot`: what the cluster is asked for most.

use serde_json::Value;

use crate::cmd::cluster::{list, number, word};
use crate::style::table;

/// The tables that people read.
pub(crate) fn text(hot: &Value) -> String {
    let (reads, writes) = (number(&hot["reads_per_s"]), number(&hot["writes_per_s"]));
    let mut text =
        format!("{reads} reads/s · {writes} writes/s in the last five seconds that were counted\n");
    for node in list(&hot["silent"]) {
        text += &format!("  {} does not answer: what it is asked for is not in here\n", word(node));
    }
    let (keys, shards) = (list(&hot["keys"]), list(&hot["shards"]));
    if keys.is_empty() && shards.is_empty() {
        return text;
    }
    let percent = |row: &Value| format!("{:.1} %", row["share"].as_f64().unwrap_or(0.0) * 100.0);
    let rates = |row: &Value| {
        [number(&row["reads_per_s"]).to_string(), number(&row["writes_per_s"]).to_string(), percent(row)]
    };
    let row = |row: &Value| {
        // What would move the cursor is written as an escape.
        let key = word(&row["key"]).escape_debug().to_string();
        let place = [format!("s{}", number(&row["shard"])), word(&row["node"]).to_owned()];
        [key].into_iter().chain(place).chain(rates(row)).collect()
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    text.push('\n');
    text += &table(&["KEY", "SHARD", "NODE", "READS/S>", "WRITES/S>", "SHARE>"], &rows);
    let row = |row: &Value| {
        let role = if row["leads"] == true { "leads" } else { "replica" };
        let place = [format!("s{}", number(&row["shard"])), word(&row["node"]).to_owned(), role.to_owned()];
        place.into_iter().chain(rates(row)).collect()
    };
    let rows: Vec<Vec<String>> = shards.iter().map(row).collect();
    text.push('\n');
    text + &table(&["SHARD", "NODE", "ROLE", "READS/S>", "WRITES/S>", "SHARE>"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_shards_are_rows_and_keys_cannot_draw() {
        let hot = serde_json::json!({
            "reads_per_s": 70, "writes_per_s": 30, "silent": ["n3"],
            "keys": [{"key": "a\u{1b}[2J", "shard": 12, "node": "n2", "reads_per_s": 50, "writes_per_s": 1,
                      "most_per_s": 60, "share": 0.51}],
            "shards": [{"shard": 12, "node": "n2", "leads": true, "reads_per_s": 60, "writes_per_s": 1, "share": 0.61}],
        });
        let text = text(&hot);
        assert!(text.starts_with("70 reads/s · 30 writes/s"), "{text}");
        assert!(text.contains("  n3 does not answer"), "{text}");
        assert!(text.contains("a\\u{1b}[2J  s12    n2         50         1  51.0 %"), "{text}");
        assert!(text.contains("s12    n2    leads       60         1  61.0 %"), "{text}");
    }
}
