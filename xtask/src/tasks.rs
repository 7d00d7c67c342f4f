//! The tasks, each a list of steps. All share cargo's one target folder.

use std::process::{Command, ExitCode};

use crate::metadata::{Package, cargo, packages};
use crate::steps::{Steps, root};
use crate::{layers, links, picture, rules, tidy};

/// Seeds within which a planted fault must be caught.
pub(crate) const MUTANT_SEEDS: &str = "10000";

/// Seeds of the simulation within `test`: some four minutes on two cores. The ledger in `docs/protocol/simulation.md` has
/// the long runs.
const TEST_SEEDS: &str = "2500";

/// Seeds in which a majority is lost for good and recovered from, within `test`: less than a minute on two cores.
const TEST_RECOVERIES: &str = "600";

/// Random schedules of the core within `test`: some two minutes on two cores. With fewer, not every branch is reached, which is a
/// failure. The ledger in `docs/protocol/schedules.md` has the long runs.
const TEST_SCHEDULES: &str = "50000";

const MODEL: &str = "tholos-model";

pub(crate) fn test() -> ExitCode {
    let mut steps = Steps::default();
    tests(&mut steps);
    steps.run("schedules", scheduler().args(["--seeds", TEST_SCHEDULES]));
    if find("tholos-sim").is_ok_and(|package| package.has_target("bin", None)) {
        steps.run("simulation", simulator().args(["--seeds", TEST_SEEDS]));
        steps.run("recoveries", simulator().args(["--recovery", "--seeds", TEST_RECOVERIES]));
    }
    if find(MODEL).is_ok() {
        steps.run("model", optimised(MODEL).args(["--config", "small"]));
    }
    steps.finish()
}

/// With `with_tests` false the caller has just run them (CI does `test` first).
pub(crate) fn verify(with_tests: bool) -> ExitCode {
    let mut steps = Steps::default();
    steps.run("fmt", cargo_command().args(["fmt", "--all", "--check"]));
    layers_step(&mut steps);
    steps.check("tidy", tidy::check);
    steps.check("links", links::check);
    steps.check("rules", rules::check);
    steps.check("picture", picture::check);
    let clippy = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.run("clippy", cargo_command().args(clippy));
    let doc = ["doc", "--quiet", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    steps.run("doc", cargo_command().args(doc).env("RUSTDOCFLAGS", "-D warnings"));
    if with_tests {
        tests(&mut steps);
    }
    steps.finish()
}

pub(crate) fn fix() -> ExitCode {
    let mut steps = Steps::default();
    let clippy = ["clippy", "--fix", "--workspace", "--all-targets", "--allow-dirty", "--allow-staged"];
    steps.run("clippy --fix", cargo_command().args(clippy));
    steps.run("fmt", cargo_command().args(["fmt", "--all"]));
    steps.finish()
}

pub(crate) fn layers() -> ExitCode {
    let mut steps = Steps::default();
    layers_step(&mut steps);
    steps.finish()
}

pub(crate) fn tidy() -> ExitCode {
    let mut steps = Steps::default();
    steps.check("tidy", tidy::check);
    steps.finish()
}

pub(crate) fn links() -> ExitCode {
    let mut steps = Steps::default();
    steps.check("links", links::check);
    steps.finish()
}

pub(crate) fn rules() -> ExitCode {
    let mut steps = Steps::default();
    steps.check("rules", rules::check);
    steps.finish()
}

pub(crate) fn picture() -> ExitCode {
    let mut steps = Steps::default();
    steps.check("picture", picture::write);
    steps.finish()
}

/// By convention the scripts of a crate are run by its test target `golden`.
pub(crate) fn golden(update: bool) -> ExitCode {
    let mut steps = Steps::default();
    let all = packages().unwrap_or_default();
    let with_scripts: Vec<&Package> =
        all.iter().filter(|package| package.has_target("test", Some("golden"))).collect();
    if with_scripts.is_empty() {
        eprintln!("no crate has a test target named golden");
        return ExitCode::FAILURE;
    }
    let mut command = cargo_command();
    command.args(["test", "--quiet", "--no-fail-fast", "--test", "golden"]);
    for package in with_scripts {
        command.args(["-p", &package.name]);
    }
    if update {
        command.env("UPDATE_GOLDEN", "1");
    }
    steps.run_counted(if update { "golden --update" } else { "golden" }, &mut command);
    steps.finish()
}

pub(crate) fn sim(flags: &[String]) -> ExitCode {
    match find("tholos-sim") {
        Ok(package) if package.has_target("bin", None) => exit_as(simulator().args(flags)),
        Ok(_) => failure("tholos-sim has no program yet"),
        Err(error) => failure(&error),
    }
}

/// The tables of the policies of load balancing, and with `--plots DIR` their pictures.
pub(crate) fn balance_sim(flags: &[String]) -> ExitCode {
    let simulate = ["run", "--release", "--package", "tholos-balance", "--example", "simulate", "--"];
    exit_as(cargo_command().args(simulate).args(flags))
}

/// Random fault schedules of the Paxos core.
pub(crate) fn schedules(flags: &[String]) -> ExitCode {
    exit_as(scheduler().args(flags))
}

pub(crate) fn model(flags: &[String]) -> ExitCode {
    exit_as(optimised(MODEL).args(flags))
}

/// Each planted fault of the protocol is caught within so many seeds by random schedules, or by the simulator if it is not
/// one of the core; one caught is one passed.
pub(crate) fn mutants(seeds: &str) -> ExitCode {
    plant(&planted_faults(), seeds)
}

/// So many of them, each day the next ones: in a few weeks all have had their turn in CI.
pub(crate) fn mutants_by_turns(count: &str) -> ExitCode {
    let Ok(count) = count.parse::<usize>() else { return failure("--some takes a number of planted faults") };
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let day = (since_1970.as_secs() / 86_400) as usize;
    let all = planted_faults();
    let turns = all.iter().cycle().skip(day * count % all.len().max(1)).take(count.min(all.len()));
    plant(&turns.cloned().collect::<Vec<_>>(), MUTANT_SEEDS)
}

/// What catches a planted fault.
#[derive(Clone, Copy)]
enum Catcher {
    Schedules,
    Simulator,
}

impl Catcher {
    fn command(self) -> Command {
        match self {
            Catcher::Schedules => scheduler(),
            Catcher::Simulator => simulator(),
        }
    }

    fn known(self) -> Vec<String> {
        let listed = self.command().arg("--list-planted").output();
        let names = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        names.unwrap_or_default().lines().map(String::from).collect()
    }
}

fn planted_faults() -> Vec<(String, Catcher)> {
    let scheduled = Catcher::Schedules.known();
    let simulated = Catcher::Simulator.known().into_iter().filter(|name| !scheduled.contains(name));
    let simulated: Vec<_> = simulated.map(|name| (name, Catcher::Simulator)).collect();
    scheduled.iter().map(|name| (name.clone(), Catcher::Schedules)).chain(simulated).collect()
}

fn plant(faults: &[(String, Catcher)], seeds: &str) -> ExitCode {
    let mut steps = Steps::default();
    if faults.is_empty() {
        return failure("no planted fault is listed");
    }
    for (name, catcher) in faults {
        let mut command = catcher.command();
        command.args(["--planted", name, "--seeds", seeds]);
        steps.run(&format!("planted {name}"), &mut command);
    }
    steps.finish()
}

/// Real processes, real faults. Optimised with assertions kept; what the run needs beyond Rust is installed if missing.
pub(crate) fn torture(flags: &[String]) -> ExitCode {
    let mut missing = Vec::new();
    if Command::new("ip").arg("-V").output().is_err() {
        missing.push("iproute2");
    }
    if !std::path::Path::new("/usr/lib").join(faketime_folder()).join("libfaketimeMT.so.1").exists() {
        missing.push("faketime");
    }
    if !missing.is_empty() && !apt_install(&missing) {
        return failure(&format!("cannot install {} with apt-get: install them by hand", missing.join(", ")));
    }
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--locked", "--profile", "sim", "-p", "tholos-torture", "--", "run"]);
    exit_as(command.args(flags))
}

fn faketime_folder() -> String {
    format!("{}-linux-gnu/faketime", std::env::consts::ARCH)
}

fn apt_install(packages: &[&str]) -> bool {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.status().is_ok_and(|status| status.success())
    };
    apt(&["update", "-q"]) && apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
}

pub(crate) fn compat(flags: &[String]) -> ExitCode {
    let mut steps = Steps::default();
    // As the tests have built it: assertions are on, and it need not be built again. Features are those of all crates together,
    // so it has to be asked for among all of them; its own tests bring it.
    let build = ["test", "--locked", "--workspace", "--no-run", "--test", "cli"];
    if steps.run("build", cargo_command().args(build)) {
        let mut suite = Command::new("python3");
        suite.arg("compat/run.py").arg("--tholos").arg(checked_binary()).args(flags);
        steps.run_counted("stock clients", &mut suite);
    }
    steps.finish()
}

/// Unit, integration and documentation tests of all crates; the golden scripts are never rewritten here.
fn tests(steps: &mut Steps) {
    let mut command = cargo_command();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    steps.run_counted("tests", &mut command);
}

fn layers_step(steps: &mut Steps) {
    steps.check("layers", || match packages() {
        Ok(packages) => layers::check(&packages),
        Err(error) => Err(vec![error]),
    });
}

fn simulator() -> Command {
    optimised("tholos-sim")
}

/// An example of the crate of the core, since it drives the council that the tests of that crate drive.
fn scheduler() -> Command {
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--locked", "--profile", "sim", "-p", "tholos-paxos"]);
    command.args(["--example", "schedules", "--"]);
    command
}

/// The program of a crate, optimised, with assertions.
fn optimised(name: &str) -> Command {
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--locked", "--profile", "sim", "-p", name, "--"]);
    command
}

fn cargo_command() -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(root()).env_remove("UPDATE_GOLDEN");
    command
}

fn checked_binary() -> std::path::PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir));
    target.join("debug").join("tholos")
}

fn find(name: &str) -> Result<Package, String> {
    packages()?.into_iter().find(|package| package.name == name).ok_or_else(|| format!("no crate {name}"))
}

/// Hands the terminal over and ends as the program did.
fn exit_as(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => failure(&format!("cannot run {}: {error}", command.get_program().to_string_lossy())),
    }
}

fn failure(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
