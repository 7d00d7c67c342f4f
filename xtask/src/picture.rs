//! The README's picture of the ring, drawn from what `tholos-ring` really computes for five nodes.
//!
//! `cargo xtask picture` writes it; `verify` only compares.

use std::f64::consts::TAU;
use std::fmt::Write;
use std::fs;

use tholos_ring::{Node, NodeIndex, SLOT_COUNT, ShardMap, place, slot, slots_of};

use crate::steps::root;

const PATH: &str = "docs/images/ring.svg";
const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// Okabe and Ito's palette, which colour-blind readers can tell apart.
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"];
const SHARDS: u16 = 64;
const REPLICAS: u8 = 3;
const KEY: &str = "user:1";

const CENTRE: f64 = 200.0;
/// Outer radius of the track of each replica; the leader's is the outermost.
const TRACKS: [f64; REPLICAS as usize] = [180.0, 152.0, 132.0];
const TRACK_WIDTHS: [f64; REPLICAS as usize] = [24.0, 16.0, 16.0];

pub(crate) fn write() -> Result<(), Vec<String>> {
    let path = root().join(PATH);
    fs::create_dir_all(path.parent().expect("the picture lies in a folder"))
        .and_then(|()| fs::write(&path, draw()))
        .map_err(|error| vec![format!("{PATH}: {error}")])
}

pub(crate) fn check() -> Result<(), Vec<String>> {
    match fs::read_to_string(root().join(PATH)) {
        Ok(text) if text == draw() => Ok(()),
        Ok(_) => Err(vec![format!("{PATH} is not what the ring gives now: cargo xtask picture")]),
        Err(error) => Err(vec![format!("{PATH}: {error}")]),
    }
}

fn draw() -> String {
    let nodes = NODES.map(|name| Node { name, zone: "", weight: 1 });
    let map = place(&nodes, SHARDS, REPLICAS).expect("five equal nodes hold three replicas");
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 400\" role=\"img\" \
         aria-label=\"16,384 slots in 64 shards on a ring; each shard's three replicas in the colours of their nodes\">\n\
         <style>text{font:15px system-ui,sans-serif;fill:#24292f}.s{font-size:13px;fill:#57606a}\
         .l{stroke:#24292f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9da7b1}.l{stroke:#e6edf3}}</style>\n",
    );
    for (shard, set) in map.iter() {
        let slots = slots_of(shard, SHARDS);
        for (track, node) in set.iter().enumerate() {
            let (from, to) = (f64::from(slots.start), f64::from(slots.end));
            svg += &arc(
                from + 12.0,
                to - 12.0,
                TRACKS[track],
                TRACK_WIDTHS[track],
                COLOURS[usize::from(node.0)],
            );
        }
    }
    svg += &pointer(&map);
    svg += &legend(&map);
    svg += "</svg>\n";
    svg
}

/// A piece of a track between two slots.
fn arc(from: f64, to: f64, outer: f64, width: f64, colour: &str) -> String {
    let inner = outer - width;
    let ((a, b), (c, d)) = (point(from, outer), point(to, outer));
    let ((e, f), (g, h)) = (point(to, inner), point(from, inner));
    format!(
        "<path d=\"M{a:.1} {b:.1}A{outer} {outer} 0 0 1 {c:.1} {d:.1}L{e:.1} {f:.1}A{inner} {inner} 0 0 0 {g:.1} {h:.1}z\" \
         fill=\"{colour}\"/>\n"
    )
}

/// Slot 0 is at the top, and slots go round clockwise.
fn point(slot: f64, radius: f64) -> (f64, f64) {
    let angle = slot / f64::from(SLOT_COUNT) * TAU;
    (CENTRE + radius * angle.sin(), CENTRE - radius * angle.cos())
}

/// A line from the centre to where the key lives.
fn pointer(map: &ShardMap) -> String {
    let number = slot(KEY.as_bytes()).number();
    let ((a, b), (c, d)) = (point(f64::from(number), 78.0), point(f64::from(number), 196.0));
    let mut text = format!("<path class=\"l\" d=\"M{a:.1} {b:.1}L{c:.1} {d:.1}\" stroke-width=\"2\"/>\n");
    let lines =
        [KEY.to_string(), format!("slot {number}"), format!("shard s{}", map.shard_of_key(KEY.as_bytes()).0)];
    for (i, line) in lines.iter().enumerate() {
        let y = CENTRE - 14.0 + 20.0 * i as f64;
        writeln!(text, "<text x=\"{CENTRE}\" y=\"{y}\" text-anchor=\"middle\">{line}</text>")
            .expect("a string takes all");
    }
    text
}

fn legend(map: &ShardMap) -> String {
    let mut text = String::new();
    let mut line = |y: u32, class: &str, words: &str| {
        writeln!(text, "<text x=\"430\" y=\"{y}\" class=\"{class}\">{words}</text>")
            .expect("a string takes all");
    };
    let set = map.replica_set(map.shard_of_key(KEY.as_bytes()));
    let names: Vec<&str> = set.iter().map(|node| NODES[usize::from(node.0)]).collect();
    line(50, "", "16,384 slots, 64 shards, 5 nodes");
    line(74, "s", "outer track: leads; inner tracks: follow");
    line(98, "s", &format!("{KEY} lives on {}", names.join(", ")));
    for (i, name) in NODES.iter().enumerate() {
        let node = NodeIndex(u16::try_from(i).expect("five nodes"));
        let holds = map.iter().filter(|(_, set)| set.contains(&node)).count();
        let leads = map.iter().filter(|(_, set)| set.first() == Some(&node)).count();
        let y = 140 + 36 * i;
        writeln!(
            text,
            "<rect x=\"430\" y=\"{}\" width=\"22\" height=\"16\" fill=\"{}\"/>\n\
             <text x=\"464\" y=\"{y}\">{name}</text><text x=\"500\" y=\"{y}\" class=\"s\">holds {holds}, leads {leads}</text>",
            y - 13,
            COLOURS[i]
        )
        .expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replica_of_every_shard_is_drawn() {
        let pieces = draw().matches("fill=\"#").count() - NODES.len();
        assert_eq!(pieces, usize::from(SHARDS) * usize::from(REPLICAS));
    }
}
