//! House rules that a machine can check cheaply; STYLE.md says why each is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rust_text::{code_only, identifiers, words};
use crate::steps::root;

/// Lines of one file without its tests, at most. STYLE.md aims at 500; this is the point where it hurts.
const FILE_LINES_MAX: usize = 900;

const README_LINES_MAX: usize = 200;

/// Marks that may live on a branch, never on main. Split, so that this file passes its own check.
const MARKS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X:")];

/// Macros that say "not done".
const MACROS: &[&str] = &["dbg", "todo", "unimplemented"];

/// Words of other systems for what STYLE.md §4 names, and our word. Only those that mean nothing else here:
/// `bucket`, `partition`, `view`, `version`, `commit` and `member` have honest other uses.
const FORBIDDEN_WORDS: &[(&str, &str)] = &[
    ("compaction", "trim"),
    ("master", "leader"),
    ("migration", "move"),
    ("slave", "follower"),
    ("term", "ballot"),
];

/// Where Redis's own field names are spoken, and its words with them.
const REDIS_FACES: &[&str] = &["crates/tholos-node/src/gateway/commands/"];

/// What a test of layers 0 to 3 must not do: it would fail on a slow day.
const CLOCK_CALLS: &[&str] = &["sleep(", "Instant::now(", "SystemTime::now("];

/// The crates that [`CLOCK_CALLS`] is about. Connections need a runtime's clock even in tests, so of them
/// only sleeping is asked.
const TIMELESS: &[&str] = &[
    "tholos-ring",
    "tholos-paxos",
    "tholos-resp",
    "tholos-check",
    "tholos-engine",
    "tholos-cluster",
    "tholos-node",
    "tholos-wire",
    "tholos-wal",
    "tholos-rpc",
];

/// Folders that hold no source of ours.
const SKIPPED_DIRS: &[&str] = &["target", "node_modules", "__pycache__", ".git"];

/// All breaches in the checkout, one sentence each.
pub(crate) fn check() -> Result<(), Vec<String>> {
    let root = root();
    let mut complaints = Vec::new();
    let files = files_below(&root);
    for path in &files {
        let shown = path.strip_prefix(&root).unwrap_or(path).display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let Ok(text) = fs::read_to_string(path) else { continue };
        match extension {
            "rs" => complaints.extend(check_rust(&shown, &text)),
            "py" | "mjs" | "sh" | "md" | "toml" => complaints.extend(check_marks(&shown, &text)),
            _ => {}
        }
        if shown == "README.md" && text.lines().count() > README_LINES_MAX {
            complaints.push(format!("README.md has more than {README_LINES_MAX} lines"));
        }
        if path.file_name().is_some_and(|name| name == "Cargo.toml") && shown.starts_with("crates/") {
            complaints.extend(check_manifest(&shown, &text));
        }
    }
    if !files.iter().any(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        complaints.push("no Rust file was found: the check looks in the wrong place".into());
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Every plain file of the checkout, sorted, without what is generated or hidden; `.ci` is ours.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        if SKIPPED_DIRS.contains(&name.as_str()) || (name.starts_with('.') && name != ".ci") {
            continue;
        }
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn check_rust(shown: &str, text: &str) -> Vec<String> {
    let mut complaints = check_marks(shown, text);
    let code = code_only(text);
    for (number, line) in code.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        for name in MACROS {
            if line.contains(&format!("{name}!(")) && identifiers(line).any(|identifier| identifier == *name)
            {
                complaints.push(format!("{shown}:{number}: {name}! is for a branch, not for main"));
            }
        }
        for identifier in
            identifiers(line).filter(|_| !REDIS_FACES.iter().any(|face| shown.starts_with(face)))
        {
            let words = words(identifier);
            for (word, ours) in FORBIDDEN_WORDS.iter().filter(|(word, _)| words.iter().any(|w| w == word)) {
                complaints
                    .push(format!("{shown}:{number}: `{identifier}`: say {ours}, not {word} (STYLE.md)"));
            }
        }
        if line.trim_start().starts_with("pub use tholos_") {
            complaints
                .push(format!("{shown}:{number}: an item has one path: no `pub use` of another crate's"));
        }
    }
    complaints.extend(check_clock(shown, &code));
    let lines = lines_without_tests(shown, &code);
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{shown}: {lines} lines without tests; split it by the state it owns"));
    }
    complaints
}

/// Sleeping and reading the clock in tests of pure crates.
fn check_clock(shown: &str, code: &str) -> Vec<String> {
    let Some(name) = TIMELESS.iter().find(|name| shown.starts_with(&format!("crates/{name}/"))) else {
        return vec![];
    };
    if shown.contains("/examples/") || shown.contains("/benches/") {
        return vec![];
    }
    let calls = if *name == "tholos-rpc" { &CLOCK_CALLS[..1] } else { CLOCK_CALLS };
    let tests_begin = lines_without_tests(shown, code);
    let mut complaints = Vec::new();
    for (number, line) in code.lines().enumerate().skip(tests_begin) {
        for call in calls.iter().filter(|call| line.contains(**call)) {
            let number = number + 1;
            complaints.push(format!(
                "{shown}:{number}: no test of layers 0 to 3 calls `{}`",
                call.trim_end_matches('(')
            ));
        }
    }
    complaints
}

fn check_marks(shown: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(i, line)| {
            MARKS.iter().filter(move |mark| line.contains(**mark)).map(move |mark| (i + 1, mark))
        })
        .map(|(number, mark)| format!("{shown}:{number}: {mark} is for a branch, not for main"))
        .collect()
}

fn check_manifest(shown: &str, text: &str) -> Option<String> {
    (!text.contains("[lints]\nworkspace = true"))
        .then(|| format!("{shown}: lacks `[lints] workspace = true`, so the shared lints do not hold there"))
}

/// Tests stand last in a file (STYLE.md), so all from `#[cfg(test)] mod` on is theirs.
fn lines_without_tests(shown: &str, code: &str) -> usize {
    if shown.contains("/tests/") || shown.ends_with("/tests.rs") {
        return 0;
    }
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(text: &str, expected: &[&str]) {
        let found = check_rust("src/x.rs", text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (complaint, part) in found.iter().zip(expected) {
            assert!(complaint.contains(part), "{complaint} lacks {part}");
        }
    }

    #[test]
    fn each_rule_catches_its_breach() {
        expect(concat!("fn f() {}\n// FIX", "ME: later\n"), &["src/x.rs:2"]);
        expect("fn f() { dbg!(1); }", &["dbg!"]);
        expect("let old_master = 1;", &["say leader"]);
        expect("struct TermMigration;", &["say move", "say ballot"]);
        expect("pub use tholos_ring::Slot;", &["one path"]);
        expect(&"fn f() {}\n".repeat(FILE_LINES_MAX + 1), &["901 lines"]);
    }

    #[test]
    fn tests_of_pure_crates_do_not_sleep() {
        let code =
            "fn f() { sleep(1) }\n#[cfg(test)]\nmod tests {\n fn t() { sleep(1); Instant::now(); }\n}\n";
        assert_eq!(check_clock("crates/tholos-wal/src/log.rs", code).len(), 2);
        assert_eq!(check_clock("crates/tholos-rpc/src/dial.rs", code).len(), 1);
        assert_eq!(check_clock("crates/tholos-wal/tests/props.rs", "sleep(1)").len(), 1);
        assert_eq!(check_clock("crates/tholos-wal/examples/rate.rs", code).len(), 0);
        assert_eq!(check_clock("crates/tholos/tests/process.rs", "sleep(1)").len(), 0);
    }

    #[test]
    fn what_is_allowed_passes() {
        expect("// the master of Redis\nlet s = \"master_repl_offset\"; let terminal = determined;", &[]);
        expect("fn todo() {} // dbg!(", &[]);
        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn t() {}\n".repeat(2000));
        expect(&tests, &[]);
        assert_eq!(lines_without_tests("crates/x/tests/props.rs", &tests), 0);
    }

    #[test]
    fn a_manifest_takes_the_shared_lints() {
        assert!(check_manifest("x", "[package]\n[lints]\nworkspace = true\n").is_none());
        assert!(check_manifest("x", "[package]\n").is_some());
    }
}
