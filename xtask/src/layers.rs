//! Who may depend on whom. The table here is the truth that ARCHITECTURE.md tells in prose.
//!
//! Rules: L1 each crate has a layer; L2 it depends only on crates of lower layers; L3 layers 0 to 2 are `no_std`,
//! so that no clock, socket, thread or random iteration order exists there; L4 their foreign dependencies are on
//! a short list, without default features; L5 layers 0 to 3 have no cargo features; L6 what carries bytes
//! (log, connections) knows no crate of ours; L7 the golden runner is for tests only.

use std::fs;

use crate::metadata::{Dependency, Package};

/// Layers from 0; `PURE` and below have neither `std` nor effects.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["tholos-ring", "tholos-balance", "tholos-paxos", "tholos-resp", "tholos-check"]),
    (1, &["tholos-engine", "tholos-cluster"]),
    (2, &["tholos-node"]),
    (3, &["tholos-wire", "tholos-wal", "tholos-rpc", "tholos-load"]),
    (4, &["tholos-server"]),
    (5, &["tholos", "tholos-torture", "tholos-sim", "tholos-model", "xtask"]),
];

/// The highest layer without effects.
const PURE: u8 = 2;

/// The highest layer without cargo features.
const FEATURELESS: u8 = 3;

/// Foreign crates that layers 0 to 2 may use outside of tests. Each is `no_std` and has no effects.
const PURE_DEPENDENCIES: &[&str] = &["bytes", "hashbrown", "foldhash"];

/// They carry bytes, whatever these mean.
const CARRIERS: &[&str] = &["tholos-wal", "tholos-rpc"];

/// A dev-dependency of any crate, a dependency of none.
const GOLDEN: &str = "tholos-golden";

/// All breaches, one sentence each.
pub(crate) fn check(packages: &[Package]) -> Result<(), Vec<String>> {
    let complaints: Vec<String> =
        packages.iter().flat_map(|package| check_package(package, packages)).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

fn check_package(package: &Package, packages: &[Package]) -> Vec<String> {
    let name = &package.name;
    let Some(layer) = layer_of(name) else {
        let known = name == GOLDEN;
        return if known {
            vec![]
        } else {
            vec![format!("L1 {name} has no layer: give it one in xtask/src/layers.rs")]
        };
    };
    let mut complaints = Vec::new();
    for dependency in &package.dependencies {
        let ours = packages.iter().any(|package| package.name == dependency.name);
        let complaint =
            if ours { check_ours(name, layer, dependency) } else { check_foreign(name, layer, dependency) };
        complaints.extend(complaint);
    }
    if layer <= FEATURELESS && !package.features.is_empty() {
        complaints.push(format!("L5 {name} has cargo features: {}", package.features.join(", ")));
    }
    if layer <= PURE {
        complaints.extend(check_no_std(package));
    }
    complaints
}

fn check_ours(name: &str, layer: u8, dependency: &Dependency) -> Option<String> {
    let on = &dependency.name;
    if on == GOLDEN {
        return (!dependency.dev).then(|| format!("L7 {name} uses {GOLDEN} outside of its tests"));
    }
    // A test may look down as the crate itself may, never sideways: else a cycle of tests grows.
    if layer_of(on).is_some_and(|lower| lower >= layer) {
        return Some(format!("L2 {name} (layer {layer}) depends on {on}, which is not below it"));
    }
    (CARRIERS.contains(&name) && !dependency.dev)
        .then(|| format!("L6 {name} carries bytes and must not know {on}"))
}

fn check_foreign(name: &str, layer: u8, dependency: &Dependency) -> Option<String> {
    let on = &dependency.name;
    if layer > PURE || dependency.dev {
        return None;
    }
    if !PURE_DEPENDENCIES.contains(&on.as_str()) {
        return Some(format!(
            "L4 {name} (layer {layer}) depends on {on}, which is not on the list of layers.rs"
        ));
    }
    dependency
        .default_features
        .then(|| format!("L4 {name} takes {on} with its default features, which may need std"))
}

fn check_no_std(package: &Package) -> Vec<String> {
    let path = package.dir.join("src/lib.rs");
    match fs::read_to_string(&path) {
        Ok(text) => check_no_std_text(&package.name, &text),
        Err(error) => vec![format!("L3 {}: {error}", path.display())],
    }
}

fn check_no_std_text(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.lines().any(|line| line == "#![no_std]") {
        complaints.push(format!("L3 {name}/src/lib.rs lacks #![no_std]"));
    }
    let mut previous = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with("extern crate std") && previous != "#[cfg(test)]" {
            complaints.push(format!("L3 {name}/src/lib.rs brings std in outside of tests"));
        }
        previous = line;
    }
    complaints
}

fn layer_of(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, names)| names.contains(&name)).map(|(layer, _)| *layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool, bool)]) -> Package {
        Package {
            name: name.into(),
            dir: "/nonexistent".into(),
            dependencies: dependencies
                .iter()
                .map(|&(name, dev, default_features)| Dependency { name: name.into(), dev, default_features })
                .collect(),
            features: vec![],
            targets: vec![],
        }
    }

    /// The rule numbers that `package` breaks, L3 aside (it has no file here).
    #[track_caller]
    fn expect(package: Package, rules: &[&str]) {
        let others =
            ["tholos-ring", "tholos-paxos", "tholos-node", "tholos-wal", "tholos-golden", "tholos-sim"];
        let all: Vec<Package> = others.iter().map(|name| self::package(name, &[])).collect();
        let found = check_package(&package, &all);
        let numbers: Vec<&str> =
            found.iter().map(|text| &text[..2]).filter(|number| *number != "L3").collect();
        assert_eq!(numbers, rules, "{found:?}");
    }

    #[test]
    fn each_rule_catches_its_breach() {
        expect(package("tholos-new", &[]), &["L1"]);
        expect(package("tholos-paxos", &[("tholos-ring", false, true)]), &["L2"]);
        expect(package("tholos-paxos", &[("tholos-node", true, true)]), &["L2"]);
        expect(package("tholos", &[("tholos-sim", true, true)]), &["L2"]);
        expect(package("tholos-node", &[("tokio", false, false)]), &["L4"]);
        expect(package("tholos-node", &[("bytes", false, true)]), &["L4"]);
        expect(package("tholos-wal", &[("tholos-paxos", false, true)]), &["L6"]);
        expect(package("tholos-node", &[("tholos-golden", false, true)]), &["L7"]);
        let mut featured = package("tholos-ring", &[]);
        featured.features.push("std".into());
        expect(featured, &["L5"]);
    }

    #[test]
    fn what_is_allowed_passes() {
        expect(package("tholos-node", &[("tholos-paxos", false, true), ("bytes", false, false)]), &[]);
        expect(package("tholos-node", &[("tholos-golden", true, true), ("proptest", true, true)]), &[]);
        expect(package("tholos-sim", &[("tholos-wal", false, true), ("rand", false, true)]), &[]);
        expect(package("tholos-golden", &[]), &[]);
    }

    #[test]
    fn std_comes_in_only_for_tests() {
        let good = "//! Doc.\n#![no_std]\nextern crate alloc;\n#[cfg(test)]\nextern crate std;\n";
        assert!(check_no_std_text("x", good).is_empty());
        assert_eq!(check_no_std_text("x", "//! Doc.\n").len(), 1);
        assert_eq!(check_no_std_text("x", "#![no_std]\nextern crate std;\n").len(), 1);
        assert_eq!(check_no_std_text("x", "// #![no_std]\n").len(), 1);
    }
}
