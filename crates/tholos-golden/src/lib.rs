//! Runner of golden scripts: prose, commands, expected output, in one text file that reads as a scenario.
//!
//! A script is divided into blocks. A block is one or more command lines, a separator and the output of those
//! commands; everything else is prose and is kept as it is.
//!
//! ```text
//! Prose, in as many lines as the scenario deserves.
//!
//! > prepare n1 ballot=2.n1
//! > deliver n2
//! ---
//! n1 -> n2 Prepare 2.n1
//! n2 appends Promised 2.n1
//! ```
//!
//! - A command line starts with `> `. The rest is a name and arguments, divided by blanks; an argument is
//!   `value` or `key=value`, and a value with blanks stands in double quotes (`\"`, `\\`, `\n`, `\r`, `\t` and
//!   `\xNN` inside them; `\xNN` is ASCII only, since a value is text).
//! - The output ends at the first empty line. An empty line *within* an output is therefore written as a single
//!   `\`, and a line that itself begins with `\` gets one more in front.
//! - A block whose commands print nothing shows `ok`; a command that fails shows `error: ` and its message.
//!
//! A test runs a folder of scripts, each with fresh state:
//!
//! ```no_run
//! tholos_golden::run_dir("tests/golden", || {
//!     let mut sum = 0u64;
//!     move |command: &tholos_golden::Command| {
//!         let mut args = command.consume();
//!         match command.name.as_str() {
//!             "add" => sum += args.next::<u64>("number")?,
//!             other => return Err(format!("unknown command {other}")),
//!         }
//!         args.finish()?;
//!         Ok(format!("sum {sum}"))
//!     }
//! });
//! ```
//!
//! With `UPDATE_GOLDEN=1` in the environment the scripts are rewritten with what the commands print now, and the
//! review reads the difference. Without it a difference is a failed test that shows both sides.
//!
//! Rules kept here: G1 a script without a command fails, so does a folder without a script (a test that cannot
//! fail is none); G2 prose and commands survive a rewrite byte for byte; G3 a rewrite is a fixed point.

mod command;
mod diff;
mod script;

use std::fs;
use std::path::{Path, PathBuf};

pub use command::{Argument, Arguments, Command};
use script::Script;

/// The variable that asks for the scripts to be rewritten; any value but `0` and the empty one counts.
pub const UPDATE_VARIABLE: &str = "UPDATE_GOLDEN";

/// Runs one script, whose path is relative to the crate under test.
///
/// # Panics
/// If the script cannot be read or parsed, if it has no command (G1), or if its output differs from the one
/// expected and [`UPDATE_VARIABLE`] is not set. The message names the file and shows the difference.
pub fn run(path: impl AsRef<Path>, mut handler: impl FnMut(&Command) -> Result<String, String>) {
    if let Err(message) = check_file(path.as_ref(), &mut handler, update_wanted()) {
        panic!("{message}");
    }
}

/// Runs each script below a folder, in the order of their paths; `new_handler` makes fresh state for each.
///
/// # Panics
/// As [`run`], but only after all scripts have run, with all failures in one message; also if the folder has no
/// script (G1).
pub fn run_dir<H>(dir: impl AsRef<Path>, mut new_handler: impl FnMut() -> H)
where
    H: FnMut(&Command) -> Result<String, String>,
{
    let dir = dir.as_ref();
    let scripts = match scripts_below(dir) {
        Ok(scripts) => scripts,
        Err(error) => panic!("golden folder {}: {error}", dir.display()),
    };
    assert!(!scripts.is_empty(), "golden folder {} has no script", dir.display());
    let update = update_wanted();
    let failures: Vec<String> =
        scripts.iter().filter_map(|path| check_file(path, &mut new_handler(), update).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} golden scripts failed\n\n{}",
        failures.len(),
        scripts.len(),
        failures.join("\n\n")
    );
}

fn update_wanted() -> bool {
    std::env::var(UPDATE_VARIABLE).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Runs one file; with `update` a difference is written back instead of reported.
fn check_file(
    path: &Path,
    handler: &mut dyn FnMut(&Command) -> Result<String, String>,
    update: bool,
) -> Result<(), String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("golden script {shown}: {error}"))?;
    let script = Script::parse(&text).map_err(|error| format!("golden script {shown}: {error}"))?;
    let actual = {
        let mut place = Place { path, line: 0 };
        script.rewrite(&mut |command| {
            place.line = command.line;
            handler(command)
        })
    };
    if actual == text {
        return Ok(());
    }
    if update {
        return fs::write(path, actual).map_err(|error| format!("golden script {shown}: {error}"));
    }
    Err(format!(
        "golden script {shown} differs (- expected, + printed now); {UPDATE_VARIABLE}=1 rewrites it\n{}",
        diff::lines(&text, &actual)
    ))
}

/// Says where in which script a panic of the code under test came from; the panic itself only knows the code.
struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while running golden script {}:{}", self.path.display(), self.line);
        }
    }
}

/// All plain files below `dir`, sorted; names that begin with a dot are left out (editors put theirs there).
fn scripts_below(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(scripts_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
