//! The transcripts of the book are run as they stand there, against the real binary, and must print what they say.
//!
//! The first pages show little of what commands print: there a command without output only has to succeed.
//!
//! In a block of console, a line that begins with `$ ` is a command and the lines after it are what it prints. `…` stands for any
//! number of lines, or for the rest of one. Figures, and how wide columns are, may differ; the names of plans differ each
//! time, and stand for those that are printed.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A command and what it prints.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), line.strip_prefix("$ ")) {
            (Some(kind), _) => is_console = kind == "console",
            (None, _) if !is_console => {}
            (None, Some(command)) => steps.push(Step { command: command.to_owned(), expected: Vec::new() }),
            (None, None) => steps.last_mut().unwrap().expected.push(line.to_owned()),
        }
    }
    steps
}

/// A line without what may differ: figures, and the width of columns. Counts that belong to the story stay.
fn essence(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        let measured =
            word.contains('.') && word.trim_end_matches(['s', ')', '%', ',']).parse::<f64>().is_ok();
        let is_plan = word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_version =
            word.split('.').count() == 3 && word.split('.').all(|part| part.parse::<u16>().is_ok());
        words.push(if measured || is_plan || is_version { "#" } else { word });
    }
    // Epochs depend on how often nodes said where they are; addresses on the ports that were free.
    let mut before = "";
    let text: Vec<&str> = words
        .into_iter()
        .map(|word| {
            let shown = if before == "epoch" || word.starts_with("127.0.0.1:") { "#" } else { word };
            before = word;
            shown
        })
        .collect();
    text.join(" ")
}

/// Whether `said` is what the book says.
fn fits(expected: &[String], said: &[&str]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return said.iter().all(|line| line.is_empty()) };
    if first == "…" {
        return (0..=said.len()).any(|skipped| fits(rest, &said[skipped..]));
    }
    let Some((line, others)) = said.split_first() else { return false };
    let same = match first.strip_suffix('…') {
        Some(head) => essence(line).starts_with(&essence(head)),
        None => essence(line) == essence(first),
    };
    same && fits(rest, others)
}

fn tholos(arguments: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tholos"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THOLOS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command
}

/// A `dev` cluster as the book starts it, on free ports; killed when dropped.
struct Dev {
    child: Child,
    banner: Vec<String>,
    gateway: String,
    /// The cluster port of the first node.
    cluster: String,
    http: String,
}

impl Dev {
    fn start(arguments: &[&str], dir: &Path) -> Dev {
        let ready = dir.join("ready.json");
        let free = ["--port", "0", "--cluster-port", "0", "--peer-port", "0", "--http-port", "0"];
        let mut command =
            tholos(&[arguments, &free, &["--ready-file", ready.to_str().unwrap()]].concat(), dir);
        // By measured load a node of a busy machine would lead less than the book shows.
        command.env("THOLOS_LEADERS", "map");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner: Vec<String> = Vec::new();
        // The last line says what to try.
        while banner.last().is_none_or(|line| !line.contains("Try:")) {
            banner.push(lines.next().expect("the banner comes whole").unwrap());
        }
        let addresses: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let text = |key: &str| addresses[key].as_str().unwrap().to_owned();
        let cluster = addresses["nodes"][0]["cluster"].as_str().unwrap().to_owned();
        Dev { child, banner, gateway: text("gateway"), cluster, http: text("http") }
    }

    /// What `redis-cli` prints for a command, with `-c -p 7001` as a client of the cluster.
    fn redis_cli(&self, words: &[&str]) -> String {
        let (mut address, words) = match words {
            ["-c", "-p", "7001", rest @ ..] => (self.cluster.clone(), rest),
            all => (self.gateway.clone(), all),
        };
        loop {
            let said = Dev::ask(&address, words);
            match said.strip_prefix("(error) -MOVED ").and_then(|moved| moved.trim().split_once(' ')) {
                Some((_slot, to)) => address = to.to_owned(),
                None => return said,
            }
        }
    }

    fn ask(address: &str, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(format!("{}\r\nQUIT\r\n", words.join(" ")).as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n").unwrap();
        match head.split_at(1) {
            ("+", text) => format!("{text}\n"),
            (":", number) => format!("(integer) {number}\n"),
            ("$", _) => format!("\"{}\"\n", body.split_once("\r\n").unwrap().0),
            _ => format!("(error) {head}\n"),
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a command of the book; what it prints.
fn run(words: &[&str], dev: &Dev, dir: &Path) -> String {
    if let ["redis-cli", rest @ ..] = words {
        return dev.redis_cli(rest);
    }
    let output = tholos(&words[1..], dir).env("THOLOS_AT", &dev.http).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// Runs a page.
fn check(page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/book").join(page);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("book-{page}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut dev = None;
    // The book's names of plans, and the real ones.
    let mut plans: BTreeMap<String, String> = BTreeMap::new();
    for step in steps(&std::fs::read_to_string(path).unwrap()) {
        let real: Vec<&str> = step
            .command
            .split_whitespace()
            .map(|word| plans.get(word).map_or(word, String::as_str))
            .collect();
        let said = match (&real[..], &dev) {
            (["tholos", "dev", rest @ ..], None) => {
                let started = Dev::start(&[&["dev"], rest].concat(), &dir);
                let said = started.banner.join("\n");
                dev = Some(started);
                said
            }
            (words, Some(dev)) => said_in_time(words, dev, &dir, &step),
            (_, None) => panic!("{page} begins without tholos dev: {}", step.command),
        };
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            fits(&step.expected, &lines),
            "{page}: $ {}\n\nin the book:\n{}\n\nnow:\n{said}",
            step.command,
            step.expected.join("\n")
        );
        let name = |line: &str| line.strip_prefix("Plan ").map(|rest| rest[..8].to_owned());
        let in_book = step.expected.first().and_then(|line| name(line));
        if let (Some(in_book), Some(real)) = (in_book, lines.first().and_then(|line| name(line))) {
            plans.insert(in_book, real);
        }
    }
    drop(dev);
    std::fs::remove_dir_all(dir).unwrap();
}

/// What only looks is asked until it is as the book says: leaders take a moment to change, and replicas to catch up.
fn said_in_time(words: &[&str], dev: &Dev, dir: &Path, step: &Step) -> String {
    let began = Instant::now();
    let looks = matches!(words, ["tholos", "cluster", "status" | "plan", ..]);
    loop {
        let said = run(words, dev, dir);
        if !looks || fits(&step.expected, &said.lines().collect::<Vec<_>>()) || began.elapsed() > DEADLINE {
            return said;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A command of a first page as it is run here, or `None` for what is none of this test's: the tests themselves.
fn of_first_page(command: &str) -> Option<String> {
    let command = command.split("  # ").next()?.split(" # ").next()?;
    let command = command.replace("cargo run --release --", "tholos");
    // Ports and the file of addresses are chosen here.
    let shown = command.split(" --port 0").next()?.trim();
    (!shown.starts_with("cargo xtask")).then(|| shown.to_owned())
}

/// What a command prints that ends with 0. One that only looks is asked again until it does, as a node that has just
/// restarted may be missed for a moment.
fn succeeds(words: &[&str], dev: &Dev, dir: &Path) -> String {
    let began = Instant::now();
    loop {
        let output = tholos(words, dir).env("THOLOS_AT", &dev.http).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(0) {
            return said;
        }
        let again = words[0] == "cluster" && began.elapsed() < DEADLINE;
        assert!(again, "$ tholos {}: {:?}\n{said}", words.join(" "), output.status);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs the console blocks of a first page.
fn check_first_page(page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let name = page.replace('/', "-");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (mut dev, mut ran): (Option<Dev>, usize) = (None, 0);
    for step in steps(&std::fs::read_to_string(path).unwrap()) {
        let Some(command) = of_first_page(&step.command) else { continue };
        ran += 1;
        let words: Vec<&str> = command.split_whitespace().collect();
        let said = match (&words[..], &dev) {
            (["tholos", "dev"] | ["tholos", "dev", "--temp", ..], _) => {
                // One cluster at a time.
                drop(dev.take());
                let started = Dev::start(&words[1..], &dir);
                let said = started.banner.join("\n");
                dev = Some(started);
                said
            }
            (["redis-cli", rest @ ..], Some(dev)) => dev.redis_cli(rest),
            (["tholos", rest @ ..], Some(dev)) => succeeds(rest, dev, &dir),
            _ => panic!("{page}: nobody knows how to run $ {command}"),
        };
        let lines: Vec<&str> = said.lines().collect();
        let expected: Vec<String> = step.expected.iter().filter(|line| !line.is_empty()).cloned().collect();
        assert!(expected.is_empty() || fits(&expected, &lines), "{page}: $ {command}\n{said}");
    }
    assert!(ran >= 5, "{page} shows only {ran} commands");
    drop(dev);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_readme_shows_what_works() {
    check_first_page("README.md");
}

#[test]
fn getting_started_shows_what_works() {
    check_first_page("docs/book/getting-started.md");
}

#[test]
fn a_cluster_grows_from_one_as_the_book_says() {
    check("growing.md");
}

#[test]
fn what_may_differ_differs_and_nothing_else() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let check = |book: &str, said: &str, expected: bool| {
        assert_eq!(fits(&lines(book), &said.lines().collect::<Vec<_>>()), expected, "{book:?} {said:?}");
    };
    check(
        "Plan 7c1e09ab (map epoch 3)   add n2: moves 4",
        "Plan 00000000 (map epoch 9)  add n2: moves 4",
        true,
    );
    check(
        "Plan 7c1e09ab (map epoch 3)   add n2: moves 4",
        "Plan 00000000 (map epoch 9)  add n2: moves 5",
        false,
    );
    check("ready in 0.1 s", "ready in 3.4 s", true);
    check("n1  up\n…\nn3  up", "n1 up\nn2 up\nn3 up", true);
    check("n1  up\n…\nn3  up", "n1 up\nn2 up", false);
    check("n2  DOWN …", "n2  DOWN  and why", true);
    check("OK", "OK\nand more", false);
    check("", "", true);
}
