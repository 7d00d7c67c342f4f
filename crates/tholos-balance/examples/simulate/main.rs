//! Policies side by side: servers of mixed speed, independent balancers, reports that are old, a server that slows down.
//!
//! `cargo xtask balance-sim` prints the tables; `-- --plots DIR` draws them besides. The same numbers on every machine.

mod chance;
mod plot;
mod reads;
mod rivals;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use reads::{Reads, Way};
use rivals::Rival;
use world::{Outcomes, Scene, Service, Trouble};

/// What each policy is run under.
const RIVALS: [Rival; 10] = [
    Rival::PeakEwma,
    Rival::TrueQueues,
    Rival::C3,
    Rival::TwoChoicesPeakEwma,
    Rival::TwoChoicesInFlight,
    Rival::LeastRequest,
    Rival::WeightedRandom,
    Rival::RoundRobin,
    Rival::Random,
    Rival::HighestWeight,
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut plots = None;
    let mut seconds = 20;
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--plots", Some(dir)) => plots = Some(PathBuf::from(dir)),
            ("--seconds", Some(text)) if text.parse().is_ok_and(|number: u32| number > 0) => {
                seconds = text.parse().unwrap_or(seconds);
            }
            _ => {
                eprintln!("usage: simulate [--plots DIR] [--seconds SIMULATED]");
                return ExitCode::from(2);
            }
        }
    }
    let scene = Scene { seconds: f64::from(seconds), ..Scene::default() };

    println!("20 servers of 4 workers (10 at 1x, 6 at 2x, 4 at 4x; 1 ms at 1x, exponential), 8 balancers,");
    println!(
        "reports with each answer and each 100 ms, 0.1 ms each way; one 2x server 10 times slower for a quarter"
    );
    println!("of {seconds} s; open-loop arrivals at 90 % of the capacity. Milliseconds.\n");
    let mut rows = Vec::new();
    table_head();
    for rival in RIVALS {
        rows.push((rival, table_row(rival.name(), &mut scene.run(rival))));
    }

    println!("\nthe same, each request with 3 candidates\n");
    table_head();
    for rival in
        [Rival::PeakEwma, Rival::TrueQueues, Rival::C3, Rival::TwoChoicesPeakEwma, Rival::LeastRequest]
    {
        let few = Scene { candidates: 3, ..scene.clone() };
        table_row(rival.name(), &mut few.run(rival));
    }

    println!("\nthe same, service of two modes: one request in 20 takes ten times as long as any other\n");
    table_head();
    let mut two_modes = Vec::new();
    for rival in RIVALS {
        let uneven = Scene { service: Service::TwoModes, ..scene.clone() };
        two_modes.push((rival, table_row(rival.name(), &mut uneven.run(rival))));
    }

    println!("\nmore balancers, each of which hears less\n");
    table_head();
    let mut herd = Vec::new();
    for balancers in [1, 4, 8, 16, 32, 64, 128, 256, 512] {
        let many = Scene { balancers, ..scene.clone() };
        let row = table_row(&format!("peak-ewma, {balancers} balancers"), &mut many.run(Rival::PeakEwma));
        herd.push((balancers as f64, row[1]));
    }

    println!("\n70 % load, reports each 100 ms and none with answers: the textbook's rule\n");
    table_head();
    let stale = Scene { load: 0.7, answers_report: false, trouble: Trouble::Nothing, ..scene.clone() };
    for rival in
        [Rival::PeakEwma, Rival::HighestWeight, Rival::WeightedRandom, Rival::LeastRequest, Rival::C3]
    {
        let mut outcomes = stale.run(rival);
        table_row(rival.name(), &mut outcomes);
        println!("{:<38} {:>3} of 20 servers idle at a time", "", outcomes.idle_servers.round());
    }

    println!(
        "\n70 % load, one more server of 4x half-way: 10 times slower at first, and less so for a quarter of"
    );
    println!("the time, which is the last column\n");
    table_head();
    for (name, rival) in [("peak-ewma", Rival::PeakEwma), ("least request", Rival::LeastRequest)] {
        for (start, slow_start) in [("at once", 0), ("slow start", 10)] {
            let trouble = Trouble::NewServer { slow_start: Duration::from_secs(slow_start) };
            let grows = Scene { load: 0.7, trouble, ..scene.clone() };
            table_row(&format!("{name}, {start}"), &mut grows.run(rival));
        }
    }

    println!("\none load after another, peak-ewma\n");
    table_head();
    let mut loads = Vec::new();
    for load in [0.5, 0.7, 0.8, 0.9, 0.95] {
        let row = table_row(
            &format!("{} % load", (load * 100.0_f64).round()),
            &mut Scene { load, ..scene.clone() }.run(Rival::PeakEwma),
        );
        loads.push((load, row));
    }

    let ways = read_tables();

    if let Some(dir) = plots
        && let Err(error) = plot::write(&dir, [&rows, &two_modes], &herd, &loads, &ways)
    {
        eprintln!("simulate: {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Reads a second of one hot shard.
const RATES: [f64; 11] = [10e3, 50e3, 100e3, 125e3, 150e3, 175e3, 200e3, 225e3, 250e3, 275e3, 300e3];
/// A cluster whose slowest reads of a hundred take longer, in microseconds, cannot do what it is asked.
const READS_P99_MAX: f64 = 5000.0;
const READS_SECONDS: f64 = 1.0;

/// The p99 of each way by reads a second, in thousands and milliseconds, up to the first that is too many.
fn read_tables() -> Vec<(Way, Vec<(f64, f64)>)> {
    println!("\none hot shard on three nodes of one processor each, reads only, open loop; microseconds\n");
    println!(
        "{:<38} {:>8} {:>9} {:>9} {:>13} {:>13} {:>19}",
        "", "reads/s", "p50", "p99", "processor/read", "at replicas", "reads a question"
    );
    let mut ways = Vec::new();
    for way in [Way::Load, Way::Leader, Way::Direct] {
        let mut points = Vec::new();
        for per_second in RATES {
            let mut found = Reads { way, per_second, seconds: READS_SECONDS, seed: 42 }.run();
            let p99 = found.times.quantile(0.99);
            println!(
                "{:<38} {per_second:>8} {:>9.0} {p99:>9.0} {:>14.1} {:>11.0} % {:>19.1}",
                way.name(),
                found.times.quantile(0.5),
                found.processor_us,
                100.0 * found.at_replicas,
                found.per_question,
            );
            points.push((per_second / 1e3, p99 / 1e3));
            if p99 > READS_P99_MAX {
                break;
            }
        }
        ways.push((way, points));
    }
    ways
}

fn table_head() {
    println!("{:<38} {:>9} {:>9} {:>9} {:>12}", "", "p50", "p99", "p99.9", "p99.9 slowed");
}

/// Prints a row, and answers it.
fn table_row(name: &str, outcomes: &mut Outcomes) -> [f64; 4] {
    let row = [
        outcomes.quiet.quantile(0.5),
        outcomes.quiet.quantile(0.99),
        outcomes.quiet.quantile(0.999),
        outcomes.slowed.quantile(0.999),
    ];
    let slowed = if outcomes.slowed.is_empty() { String::from("-") } else { format!("{:.2}", row[3]) };
    println!("{name:<38} {:>9.2} {:>9.2} {:>9.2} {slowed:>12}", row[0], row[1], row[2]);
    row
}
