//! Steps of a task: run, timed, counted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; the compiled-in path serves a binary started by hand.
    let manifest_dir =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest_dir).parent().expect("xtask is a folder of the checkout").to_path_buf()
}

/// What a task has done so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Steps {
    /// A check within this process; its complaints are printed, one a line.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), Vec<String>>) {
        let started = begin(name);
        let result = check();
        for complaint in result.as_ref().err().into_iter().flatten() {
            println!("{complaint}");
        }
        self.count(name, result.is_ok(), started);
    }

    /// A program that passes or fails as a whole.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> bool {
        let started = begin(name);
        let status = command_status(command);
        let ok = report_start(command, status);
        self.count(name, ok, started);
        ok
    }

    /// A program that counts for itself: each line `N passed, M failed` or of libtest's `test result:` adds up.
    /// A program that fails without having counted a failure is one failure.
    pub(crate) fn run_counted(&mut self, name: &str, command: &mut Command) {
        let started = begin(name);
        let (failed_before, total_before) = (self.failed, self.passed + self.failed);
        let status = self.tee(command);
        let ok = report_start(command, status);
        if !ok && self.failed == failed_before {
            self.failed += 1;
        }
        if ok && self.passed + self.failed == total_before {
            println!("it counted nothing, which cannot be right");
            self.failed += 1;
        }
        end(name, self.failed == failed_before, started);
    }

    fn tee(&mut self, command: &mut Command) -> std::io::Result<bool> {
        let mut child = command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("stdout was asked to be piped"));
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            // Not raw bytes: our own tests run this, and what they print must stay captured, or it would be counted.
            print!("{text}");
            if let Some((passed, failed, ignored)) = counts(&text) {
                self.passed += passed;
                self.failed += failed;
                self.ignored += ignored;
            }
            line.clear();
        }
        Ok(child.wait()?.success())
    }

    fn count(&mut self, name: &str, ok: bool, started: Instant) {
        if ok {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        end(name, ok, started);
    }

    /// The last line, and the exit code that goes with it.
    pub(crate) fn finish(self) -> ExitCode {
        if self.ignored > 0 {
            println!("{} ignored", self.ignored);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn begin(name: &str) -> Instant {
    println!("==> {name}");
    Instant::now()
}

fn end(name: &str, ok: bool, started: Instant) {
    let word = if ok { "ok" } else { "FAILED" };
    println!("==> {name}: {word} ({:.1} s)", started.elapsed().as_secs_f64());
}

fn command_status(command: &mut Command) -> std::io::Result<bool> {
    Ok(command.current_dir(root()).stdin(Stdio::null()).status()?.success())
}

fn report_start(command: &Command, result: std::io::Result<bool>) -> bool {
    result.unwrap_or_else(|error| {
        println!("cannot run {}: {error}", command.get_program().to_string_lossy());
        false
    })
}

/// Passed, failed and ignored, if the line states them.
fn counts(line: &str) -> Option<(u64, u64, u64)> {
    let line = line.trim();
    let before = |word: &str| {
        let (head, _) = line.split_once(word)?;
        head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    if line.starts_with("test result: ") {
        return Some((before(" passed;")?, before(" failed;")?, before(" ignored;")?));
    }
    let (passed, failed) = line.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_both_kinds_of_line() {
        let line = "test result: FAILED. 11 passed; 2 failed; 3 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(counts(line), Some((11, 2, 3)));
        assert_eq!(counts("250 passed, 1 failed\n"), Some((250, 1, 0)));
        assert_eq!(counts("2 of 5 passed, 1 failed"), None);
        assert_eq!(counts("running 3 tests"), None);
    }

    #[test]
    fn a_program_that_counts_nothing_fails() {
        let mut steps = Steps::default();
        steps.run_counted("true", &mut Command::new("true"));
        steps.run_counted("false", &mut Command::new("false"));
        steps.run_counted("absent", &mut Command::new("no-such-program-here"));
        steps.run_counted("counts", Command::new("echo").arg("4 passed, 1 failed"));
        assert_eq!((steps.passed, steps.failed), (4, 4));
    }
}
