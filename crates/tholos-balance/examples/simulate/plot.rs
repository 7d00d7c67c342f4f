//! The tables as pictures: lines on logarithmic scales, in SVG written by hand.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::reads::Way;
use crate::rivals::Rival;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Room for labels: left, right, above, below.
const MARGINS: [f64; 4] = [64.0, 24.0, 40.0, 48.0];
/// What the policies' bars and the lines are drawn in.
const COLOURS: [&str; 3] = ["#2b6cb0", "#dd6b20", "#2f855a"];

/// A line of a chart.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

pub(crate) fn write(
    dir: &Path,
    [rivals, two_modes]: [&[(Rival, [f64; 4])]; 2],
    herd: &[(f64, f64)],
    loads: &[(f64, [f64; 4])],
    ways: &[(Way, Vec<(f64, f64)>)],
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("policies.svg"), bars("p99 at 90 % load, milliseconds, logarithmic", rivals))?;
    let title = "p99 at 90 % load, service of two modes, milliseconds, logarithmic";
    fs::write(dir.join("two-modes.svg"), bars(title, two_modes))?;
    let line = Line { name: "peak-ewma", points: herd.to_vec() };
    let title = "p99 by the number of balancers that do not hear of each other, milliseconds";
    fs::write(dir.join("herd.svg"), lines(title, "balancers", true, &[line]))?;
    let of = |at: usize, name| Line {
        name,
        points: loads.iter().map(|(load, row)| (100.0 * load, row[at])).collect(),
    };
    let title = "peak-ewma by load, milliseconds";
    fs::write(
        dir.join("loads.svg"),
        lines(title, "load, %", false, &[of(0, "p50"), of(1, "p99"), of(2, "p99.9")]),
    )?;
    let of = |(way, points): &(Way, Vec<(f64, f64)>)| Line { name: way.short(), points: points.clone() };
    let title = "p99 of reads of one hot shard on three nodes, milliseconds";
    let ways: Vec<Line<'_>> = ways.iter().map(of).collect();
    fs::write(dir.join("reads.svg"), lines(title, "thousand reads a second", false, &ways))
}

fn head(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n<text x=\"{}\" y=\"22\" \
         font-size=\"14\">{title}</text>\n",
        MARGINS[0]
    )
}

/// One bar for each policy, on a logarithmic scale.
fn bars(title: &str, rivals: &[(Rival, [f64; 4])]) -> String {
    let mut svg = head(title);
    let left = 230.0;
    let most = rivals.iter().map(|(_, row)| row[1]).fold(1.0, f64::max).log10();
    let step = (HEIGHT - MARGINS[2] - 16.0) / rivals.len() as f64;
    for (at, (rival, row)) in rivals.iter().enumerate() {
        let y = MARGINS[2] + step * at as f64;
        let width = (WIDTH - left - 90.0) * row[1].log10().max(0.01) / most;
        let colour = COLOURS[usize::from(*rival != Rival::PeakEwma)];
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n<rect x=\"{left}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{:.1}</text>",
            left - 8.0,
            y + step * 0.6,
            rival.name(),
            step * 0.75,
            left + width + 6.0,
            y + step * 0.6,
            row[1]
        );
    }
    svg + "</svg>\n"
}

/// Lines over a common axis, which is logarithmic if asked for; the other always is.
fn lines(title: &str, axis: &str, log: bool, lines: &[Line<'_>]) -> String {
    let mut svg = head(title);
    let scale = |x: f64| if log { x.log2() } else { x };
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let (low, high) =
        all().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(scale(*x)), high.max(scale(*x))));
    let least = all().map(|(_, y)| y.log10()).fold(f64::MAX, f64::min).floor();
    let most = all().map(|(_, y)| y.log10()).fold(f64::MIN, f64::max).ceil();
    let x = |value: f64| {
        MARGINS[0] + (scale(value) - low) / (high - low) * (WIDTH - MARGINS[0] - MARGINS[1] - 60.0)
    };
    let y = |value: f64| {
        HEIGHT - MARGINS[3] - (value.log10() - least) / (most - least) * (HEIGHT - MARGINS[2] - MARGINS[3])
    };
    let mut mark = 10.0_f64.powf(least);
    while mark.log10() <= most + 1e-9 {
        let _ = writeln!(
            svg,
            "<line x1=\"{}\" x2=\"{}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{4:.1}\" \
             text-anchor=\"end\">{mark}</text>",
            MARGINS[0],
            WIDTH - MARGINS[1],
            y(mark),
            MARGINS[0] - 6.0,
            y(mark) + 4.0
        );
        mark *= 10.0;
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        if let Some((a, b)) = line.points.last() {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                x(*a) + 6.0,
                y(*b) + 4.0,
                line.name
            );
        }
    }
    for (value, _) in lines.first().map_or(&[][..], |line| &line.points) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            x(*value),
            HEIGHT - MARGINS[3] + 18.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{axis}</text>", MARGINS[0], HEIGHT - 10.0);
    svg + "</svg>\n"
}
