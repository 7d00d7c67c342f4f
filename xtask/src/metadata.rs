//! What cargo knows about the workspace.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::steps::root;

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// As in its manifest.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// All its dependencies, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
    /// Names of cargo features other than what optional dependencies imply.
    pub(crate) features: Vec<String>,
    /// (kind, name) of each target: `lib`, `bin`, `test`, `example`…
    pub(crate) targets: Vec<(String, String)>,
}

/// One line of a manifest's dependencies.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// True for `[dev-dependencies]`.
    pub(crate) dev: bool,
    /// False if the line says `default-features = false`.
    pub(crate) default_features: bool,
}

impl Package {
    /// Whether it has a target of that kind; `name` narrows it.
    pub(crate) fn has_target(&self, kind: &str, name: Option<&str>) -> bool {
        self.targets.iter().any(|(k, n)| k == kind && name.is_none_or(|name| name == n))
    }
}

/// All crates of the workspace, by name. Asks cargo, without the network and without touching `Cargo.lock`.
pub(crate) fn packages() -> Result<Vec<Package>, String> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let json: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut packages: Vec<Package> = list(&json["packages"]).map(package).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    if packages.is_empty() { Err("cargo metadata lists no crate".into()) } else { Ok(packages) }
}

/// The cargo that runs us, so that a toolchain chosen with `+` stays chosen.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn package(json: &Value) -> Package {
    let manifest = PathBuf::from(text(&json["manifest_path"]));
    Package {
        name: text(&json["name"]),
        dir: manifest.parent().expect("a manifest lies in a folder").to_path_buf(),
        dependencies: list(&json["dependencies"]).map(dependency).collect(),
        features: json["features"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        targets: list(&json["targets"])
            .map(|target| (text(&target["kind"][0]), text(&target["name"])))
            .collect(),
    }
}

fn dependency(json: &Value) -> Dependency {
    Dependency {
        name: text(&json["name"]),
        dev: json["kind"].as_str() == Some("dev"),
        default_features: json["uses_default_features"].as_bool() != Some(false),
    }
}

fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_string()
}
