//! The tables of rules and planted faults name what holds them, and what they name is there.
//!
//! A row of `docs/protocol/paxos.md` reads `| [R3](#r3) | few words | state | held by |`. The last cell names tests,
//! planted faults or files in backticks. Checked: all of R1 to R32 are there, once and in order; a rule *in code*
//! names at least one thing; each thing named, there and in the table of invariants (`| P2 | …`), is an identifier of our
//! Rust, a crate or a file; and each rule that the code cites exists.

use std::collections::BTreeSet;
use std::fs;

use crate::papers;
use crate::rust_text::{code_only, identifiers};
use crate::steps::root;
use crate::tidy::files_below;

const RULES: u32 = 32;
const STATES: &[&str] = &["in code", "in part", "place left", "see tests", ""];

/// All breaches, one sentence each.
pub(crate) fn check() -> Result<(), Vec<String>> {
    let (names, mut complaints) = sources();
    complaints.extend(papers::check());
    match fs::read_to_string(root().join("docs/protocol/paxos.md")) {
        Ok(text) => complaints.extend(check_table(&text, &names)),
        Err(error) => complaints.push(format!("docs/protocol/paxos.md: {error}")),
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Every identifier of our Rust and every path of the checkout; and citations of rules that do not exist.
fn sources() -> (BTreeSet<String>, Vec<String>) {
    let root = root();
    let mut names = BTreeSet::new();
    let mut complaints = Vec::new();
    for path in files_below(&root) {
        let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        if shown.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            names.extend(code_only(&text).lines().flat_map(identifiers).map(String::from));
            complaints.extend(
                unknown_rules(&text).map(|rule| format!("{shown} cites {rule}, which does not exist")),
            );
        }
        names.extend(shown.split('/').map(String::from));
        names.insert(shown);
    }
    (names, complaints)
}

/// Rules beyond the last one that the comments of a source cite.
fn unknown_rules(text: &str) -> impl Iterator<Item = String> {
    let comments = text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment));
    comments.flat_map(identifiers).filter_map(|word| {
        let number: u32 = word.strip_prefix('R')?.parse().ok()?;
        (number == 0 || number > RULES).then(|| word.to_string())
    })
}

fn check_table(text: &str, names: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut next = 1;
    for line in text.lines().filter(|line| line.starts_with("| [R")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [rule, _, state, held_by] = cells[..] else {
            complaints.push(format!("paxos.md: a row wants four cells: {line}"));
            continue;
        };
        let number = rule.trim_start_matches("[R").split(']').next().unwrap_or_default();
        if number != next.to_string() {
            complaints.push(format!("paxos.md: R{number} stands where R{next} should"));
        }
        next += 1;
        if !STATES.contains(&state) {
            complaints.push(format!("paxos.md: R{number}: no such state: {state}"));
        }
        let spans: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        if spans.is_empty() && state.starts_with("in ") {
            complaints.push(format!("paxos.md: R{number} is {state} and nothing is named that holds it"));
        }
        complaints.extend(unknown(&spans, names).map(|span| named_in_vain(&format!("R{number}"), span)));
    }
    for line in text.lines().filter(|line| line.starts_with("| P")) {
        let spans: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let invariant = line.trim_matches('|').split('|').next().unwrap_or_default().trim();
        complaints.extend(unknown(&spans, names).map(|span| named_in_vain(invariant, span)));
    }
    if next != RULES + 1 {
        complaints.push(format!("paxos.md: the table ends at R{}", next - 1));
    }
    complaints
}

/// What is named and not there. `Planted::X` is named by its last part.
fn unknown<'a>(spans: &[&'a str], names: &BTreeSet<String>) -> impl Iterator<Item = &'a str> {
    spans.iter().copied().filter(|span| !names.contains(span.rsplit("::").next().unwrap_or(span)))
}

fn named_in_vain(by: &str, span: &str) -> String {
    format!("paxos.md: {by} names {span}, which is not there")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(change: impl Fn(u32) -> Option<String>) -> String {
        let row = |n| change(n).unwrap_or_else(|| format!("| [R{n}](#r{n}) | x | in code | `a_test` |\n"));
        (1..=RULES).map(row).collect()
    }

    #[track_caller]
    fn expect(text: &str, parts: &[&str]) {
        let names = BTreeSet::from(["a_test".to_string(), "Fault".to_string()]);
        let found = check_table(text, &names);
        assert_eq!(found.len(), parts.len(), "{found:?}");
        for (complaint, part) in found.iter().zip(parts) {
            assert!(complaint.contains(part), "{complaint} lacks {part}");
        }
    }

    #[test]
    fn a_table_must_be_whole_and_true() {
        let three = |row: &str| table(|n| (n == 3).then(|| format!("| [R3](#r3) | x | {row} |\n")));
        expect(&table(|_| None), &[]);
        expect(&three("in part | `Planted::Fault`"), &[]);
        expect(&three("place left | "), &[]);
        expect(&three("in code | soon"), &["nothing is named"]);
        expect(&three("done | `a_test`"), &["no such state"]);
        expect(&three("in code | `gone_test`"), &["gone_test, which is not there"]);
        expect(&table(|n| (n == 32).then(String::new)), &["ends at R31"]);
        let with_invariant = |row: &str| format!("| P4 | x | {row} |\n{}", table(|_| None));
        expect(&with_invariant("none | `a_test` of it"), &[]);
        expect(&with_invariant("`Log::gone` | `a_test`"), &["P4 names Log::gone, which is not there"]);
    }

    #[test]
    fn a_citation_of_no_rule_is_found() {
        // Put together here, or this file would be found.
        let text = format!("let a = R99; // keeps R3 and R{}\n//! R{}, RESP3\n", 33, 0);
        assert_eq!(unknown_rules(&text).collect::<Vec<_>>(), [format!("R{}", 33), format!("R{}", 0)]);
    }
}
