//! The table "sentence of a paper → test" and the tests are one: what each test says of itself stands in
//! `docs/protocol/papers.md`, and nothing else does.
//!
//! A test in `crates/tholos-paxos/tests/paper` has a doc comment `SOURCE: sentence`, where the source begins with a
//! paper's short name, a rule, or *Ours*. Its row is `| SOURCE | sentence | the test's name in backticks |`.

use std::fs;

use crate::steps::root;

const TESTS: &str = "crates/tholos-paxos/tests/paper";
const TABLE: &str = "docs/protocol/papers.md";
const SOURCES: &[&str] = &["Simple", "Omni", "VR", "Raft", "Ours"];

/// All breaches, one sentence each.
pub(crate) fn check() -> Vec<String> {
    let mut tests = String::new();
    let files = fs::read_dir(root().join(TESTS)).into_iter().flatten().flatten();
    for file in files {
        tests += &fs::read_to_string(file.path()).unwrap_or_default();
    }
    match fs::read_to_string(root().join(TABLE)) {
        Ok(table) => compare(&table, &tests),
        Err(error) => vec![format!("{TABLE}: {error}")],
    }
}

fn compare(table: &str, tests: &str) -> Vec<String> {
    let (wanted, mut complaints) = rows_of(tests);
    // The last cell of a row is a test; that of a heading is not.
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).collect();
    for row in &wanted {
        match rows.iter().filter(|there| *there == row).count() {
            1 => {}
            0 => complaints.push(format!("{TABLE} lacks the row: {row}")),
            _ => complaints.push(format!("{TABLE} has a row twice: {row}")),
        }
    }
    let strange = rows.iter().filter(|row| !wanted.iter().any(|wanted| wanted == *row));
    complaints.extend(strange.map(|row| format!("{TABLE}: no test says so: {row}")));
    complaints
}

/// The row of each test, and what is wrong with tests that have none.
fn rows_of(tests: &str) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    let (mut said, mut is_test) = (Vec::new(), false);
    for line in tests.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            said.push(comment.trim());
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
        } else {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            if let Some(name) = name.filter(|_| is_test) {
                match row(&said.join(" "), name) {
                    Some(row) => rows.push(row),
                    None => complaints.push(format!("{TESTS}: {name} does not say whose sentence it tests")),
                }
            }
            said.clear();
            is_test = false;
        }
    }
    (rows, complaints)
}

fn row(said: &str, test: &str) -> Option<String> {
    let (source, sentence) = said.split_once(": ")?;
    let by = source.split([' ', ',']).next()?;
    let is_rule = by.strip_prefix('R').is_some_and(|number| number.parse::<u32>().is_ok());
    (is_rule || SOURCES.contains(&by)).then(|| format!("| {source} | {sentence} | `{test}` |"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = "/// Simple §2.2, P1: an acceptor must accept the first\n/// proposal: always.\n#[test]\nfn a_test() {\n";
    const ROW: &str =
        "| Simple §2.2, P1 | an acceptor must accept the first proposal: always. | `a_test` |\n";

    #[track_caller]
    fn expect(table: &str, tests: &str, parts: &[&str]) {
        let found = compare(table, tests);
        assert_eq!(found.len(), parts.len(), "{found:?}");
        for (complaint, part) in found.iter().zip(parts) {
            assert!(complaint.contains(part), "{complaint} lacks {part}");
        }
    }

    #[test]
    fn tests_and_table_say_the_same() {
        let heading = "| said by | sentence | test |\n|---|---|---|\n";
        expect(&format!("{heading}{ROW}"), TEST, &[]);
        expect(heading, TEST, &["lacks the row: | Simple §2.2, P1 | an"]);
        expect(&ROW.repeat(2), TEST, &["twice"]);
        expect(ROW, "", &["no test says so: | Simple"]);
        expect(&ROW.replace("first", "last"), TEST, &["lacks the row", "no test says so"]);
        expect(&ROW.replace("a_test", "gone"), TEST, &["lacks the row", "no test says so"]);
    }

    #[test]
    fn a_test_without_a_source_is_found() {
        expect("", &TEST.replace("Simple", "Somebody"), &["a_test does not say whose"]);
        expect("", "#[test]\nfn silent() {\n", &["silent does not say whose"]);
        expect("| R9, R10 | yes. | `t` |", "/// R9, R10: yes.\n#[test]\n#[ignore]\nfn t() {\n", &[]);
        expect("", "/// Raises it.\nfn no_test() {\n\n/// Ours: lost.\nstruct S;\n", &[]);
    }
}
