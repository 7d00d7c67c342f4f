//! What a development cluster stands on: its ports, its directories, and the map in them.
//!
//! ```text
//!   <dir>/n1/, <dir>/n2/, …            a node's directory each
//!   <dir>/left/n4-<incarnation>/       what a node has left behind that is none of the cluster any more
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tholos_cluster::{ClusterId, ClusterMap, Epoch, MetaState, NodeId, NodeRow, Standing};
use tokio::net::TcpListener;

use super::{DevSettings, NODES_MAX};
use crate::node_dir::{self, DirectoryError, NodeDir};
use crate::ports::{self, PortError};
use crate::server::StartError;

/// Nodes of a new cluster, if nobody says otherwise.
const NODES_DEFAULT: u16 = 3;
/// Where the directories go of nodes that have left.
const LEFT: &str = "left";

/// A directory that is removed with this.
pub(super) struct TempDir(PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the temporary directory stays");
        }
    }
}

/// The listeners of the process itself.
pub(super) struct Listeners {
    pub(super) gateway: TcpListener,
    pub(super) gateway_address: SocketAddr,
    pub(super) http: TcpListener,
    pub(super) http_address: SocketAddr,
}

impl Listeners {
    pub(super) fn open(settings: &DevSettings) -> Result<Listeners, StartError> {
        let (gateway, gateway_address) = listen("gateway", settings.port, "--port")?;
        let (http, http_address) = listen("admin interface", settings.http_port, "--http-port")?;
        Ok(Listeners { gateway, gateway_address, http, http_address })
    }
}

fn listen(what: &str, port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let wanted = ports::loopback(port);
    let listener = ports::listen(what, wanted, option)?;
    let error = |source| PortError::new(what, wanted, source, option);
    let address = listener.local_addr().map_err(error)?;
    Ok((TcpListener::from_std(listener).map_err(error)?, address))
}

/// The ports of n1, which those of the other nodes follow; 0 for any free ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstPorts {
    pub(super) cluster: u16,
    pub(super) peer: u16,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodePorts {
    pub(super) cluster: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl FirstPorts {
    /// Whether any free ports will do for one of the listeners.
    pub(super) const fn are_any(self) -> bool {
        self.cluster == 0 || self.peer == 0
    }

    /// Refuses first ports so near to each other that a node's port of one kind were another's of the other kind.
    pub(super) fn check<'a>(self, names: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
        if self.are_any() {
            return Ok(());
        }
        // Of one who was added as the hundredth, the others' ports are no matter: it takes what is free.
        let last = names.filter_map(number_of).filter(|number| *number <= NODES_MAX).max().unwrap_or(1);
        if self.cluster.abs_diff(self.peer) >= last {
            return Ok(());
        }
        Err(StartError::Settings(format!(
            "the ports from --cluster-port {} on and those from --peer-port {} on overlap: n{last} has the first port + {} of \
             each; choose them at least {last} apart, better {NODES_MAX}",
            self.cluster,
            self.peer,
            last - 1
        )))
    }

    /// The ports of a node: n3 has the third ones, a node with another name the first that none of `taken` has. They are
    /// opened here for a moment, so that one that somebody else has is told before anything has started.
    pub(super) fn of(self, name: &str, taken: &[NodePorts]) -> Result<NodePorts, StartError> {
        let mut used: Vec<u16> =
            taken.iter().flat_map(|ports| [ports.cluster.port(), ports.peer.port()]).collect();
        let mut one = |what: &str, first: u16, option: &'static str| {
            let what = format!("{what} of {name}");
            let port = if first == 0 {
                // Of so many different ones, one is not used.
                let free = ports::pick_free(used.len() + 1);
                let free = free.map_err(|source| PortError::new(what, ports::loopback(0), source, option))?;
                free.into_iter().find(|port| !used.contains(port)).unwrap_or_default()
            } else {
                let port = port_of(name, first, &used).ok_or_else(|| {
                    StartError::Settings(format!(
                        "{option} is {first}, and no port is left from there on for {name}: use a lower one"
                    ))
                })?;
                ports::listen(what, ports::loopback(port), option)?;
                port
            };
            used.push(port);
            Ok::<SocketAddr, StartError>(ports::loopback(port))
        };
        let cluster = one("cluster port", self.cluster, "--cluster-port")?;
        Ok(NodePorts { cluster, peer: one("peer port", self.peer, "--peer-port")? })
    }
}

fn port_of(name: &str, first: u16, used: &[u16]) -> Option<u16> {
    let own = number_of(name).and_then(|number| first.checked_add(number - 1));
    own.filter(|port| !used.contains(port)).or_else(|| (first..=u16::MAX).find(|port| !used.contains(port)))
}

/// The number k of a name `n<k>`, from 1.
pub(super) fn number_of(name: &str) -> Option<u16> {
    name.strip_prefix('n')?.parse().ok().filter(|number| *number > 0)
}

/// The zone of a node that is told none: n1 is in zone a, n2 in b; after z, and with other names, each is one of its own.
pub(super) fn zone_of(name: &str) -> String {
    let letter = number_of(name).and_then(|number| ('a'..='z').nth(usize::from(number) - 1));
    letter.map_or_else(String::new, String::from)
}

/// Names the options of `dev` instead of those of `serve`.
pub(super) fn dev_options(error: StartError) -> StartError {
    match error {
        StartError::Port(mut port) => {
            port.option = match port.option {
                "--cluster" => "--cluster-port",
                "--peer" => "--peer-port",
                other => other,
            };
            StartError::Port(port)
        }
        other => other,
    }
}

/// Where the directories are; and what is to be removed at the end.
pub(super) fn place(settings: &DevSettings) -> Result<(PathBuf, Option<TempDir>), StartError> {
    if !settings.temp {
        return Ok((settings.dir.clone(), None));
    }
    let random = getrandom::u64().map_err(DirectoryError::Random)?;
    let path = std::env::temp_dir().join(format!("tholos-dev-{random:016x}"));
    std::fs::create_dir(&path).map_err(|source| DirectoryError::Io {
        operation: "create",
        path: path.clone(),
        source,
    })?;
    Ok((path.clone(), Some(TempDir(path))))
}

/// Names of the directories of ours in `dir`.
fn nodes_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    let ours = entries.flatten().filter(|entry| node_dir::has_marker(&entry.path()));
    ours.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Puts the directory of a node aside that is none of the cluster any more, unless a live process has it; where it is.
pub(super) fn put_aside(dir: &Path, directory: NodeDir) -> Result<PathBuf, DirectoryError> {
    let from = directory.path().to_owned();
    let identity = directory.identity();
    let to = dir.join(LEFT).join(format!("{}-{}", identity.name, identity.incarnation));
    let error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DirectoryError::Io { operation, path, source }
    };
    std::fs::create_dir_all(dir.join(LEFT)).map_err(error("create", &dir.join(LEFT)))?;
    std::fs::rename(&from, &to).map_err(error("rename", &from))?;
    drop(directory);
    Ok(to)
}

/// What the directories hold.
pub(super) struct Ground {
    /// The newest map and what is decided with it.
    pub(super) state: MetaState,
    /// The directories of its nodes, locked.
    pub(super) directories: BTreeMap<String, NodeDir>,
    /// Nodes with a directory that the cluster may not know of: they were stopped while they joined.
    pub(super) unfinished: Vec<String>,
}

impl Ground {
    /// Opens what is there, or founds a new cluster.
    pub(super) fn open(dir: &Path, settings: &DevSettings) -> Result<Ground, StartError> {
        if settings.fresh && !settings.temp {
            for parent in [dir.to_owned(), dir.join(LEFT)] {
                for name in nodes_in(&parent) {
                    node_dir::remove(&parent.join(name))?;
                }
            }
        }
        let names = nodes_in(dir);
        let opened: Result<Vec<NodeDir>, _> = names.iter().map(|name| NodeDir::open(dir, name)).collect();
        let opened = opened?;
        let newest = opened.iter().filter_map(newest_state).max_by_key(MetaState::epoch);
        match newest {
            None => Self::found(dir, settings, opened),
            Some(state) => Self::read(dir, settings, state, opened),
        }
    }

    /// None of the directories belongs to a cluster yet.
    fn found(dir: &Path, settings: &DevSettings, opened: Vec<NodeDir>) -> Result<Ground, StartError> {
        let count = settings.nodes.unwrap_or(NODES_DEFAULT);
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let mut directories: BTreeMap<String, NodeDir> =
            opened.into_iter().map(|directory| (directory.identity().name.clone(), directory)).collect();
        // A first start with more nodes, which was cut off.
        if let Some(other) = directories.keys().find(|name| !names.contains(name)) {
            let why = format!("it has {other}");
            return Err(other_cluster(dir, directories.keys(), settings, &why));
        }
        for name in &names {
            if !directories.contains_key(name) {
                directories.insert(name.clone(), NodeDir::open(dir, name)?);
            }
        }
        let map = new_map(directories.values(), settings)?;
        for directory in directories.values_mut() {
            directory.write_map(map.clone())?;
        }
        Ok(Ground { state: MetaState::founded(map), directories, unfinished: Vec::new() })
    }

    /// They do.
    fn read(
        dir: &Path,
        settings: &DevSettings,
        state: MetaState,
        opened: Vec<NodeDir>,
    ) -> Result<Ground, StartError> {
        let founded = opened.iter().filter_map(|directory| directory.identity().map.clone());
        let founded = founded.into_iter().find(|map| map.epoch == Epoch(1));
        let names = members(&state).map(|row| row.name.clone());
        let names: Vec<String> = names.collect();
        if settings.nodes.is_some_and(|count| usize::from(count) != names.len()) {
            return Err(other_cluster(dir, names.iter(), settings, "it has grown, or was founded otherwise"));
        }
        let mut ground = Ground { state, directories: BTreeMap::new(), unfinished: Vec::new() };
        for directory in opened {
            ground.sort_in(dir, directory, founded.as_ref())?;
        }
        for name in names.iter().filter(|name| !ground.directories.contains_key(*name)) {
            if !ground.unfinished.contains(name) {
                tracing::warn!(
                    node = %name,
                    "its directory is missing: put it back, or let the node begin anew with tholos dev wipe {name}"
                );
            }
        }
        Ok(ground)
    }

    /// What a directory is to the cluster.
    fn sort_in(
        &mut self,
        dir: &Path,
        mut directory: NodeDir,
        founded: Option<&ClusterMap>,
    ) -> Result<(), StartError> {
        let identity = directory.identity().clone();
        let known = |map: &ClusterMap| {
            map.by_name(&identity.name).is_some_and(|row| row.incarnation == identity.incarnation)
        };
        let other_cluster =
            identity.map.as_ref().is_some_and(|map| map.cluster_id != self.state.map.cluster_id);
        let gone = self.state.departed.iter().any(|gone| gone.incarnation == identity.incarnation)
            || self.state.map.nodes.iter().any(|row| {
                row.incarnation == identity.incarnation && self.state.standing(row.id) == Some(Standing::Lost)
            });
        if other_cluster || (identity.map.is_some() && !gone && !known(&self.state.map)) {
            return Err(StartError::Settings(format!(
                "{} and the other nodes' directories beside it are not of one cluster: put the right one back, wipe all with \
                 --fresh, or choose another directory with --dir",
                directory.path().display()
            )));
        }
        if gone {
            let aside = put_aside(dir, directory)?;
            tracing::warn!(node = %identity.name, "it has left the cluster: its directory is in {}", aside.display());
            return Ok(());
        }
        if identity.map.is_none() {
            // Who was founded with the others and did not come to know it; anybody else asks the cluster.
            match founded.filter(|founded| known(founded) && known(&self.state.map)) {
                Some(founded) => directory.write_map(founded.clone())?,
                None => {
                    self.unfinished.push(identity.name);
                    return Ok(());
                }
            }
        }
        self.directories.insert(identity.name, directory);
        Ok(())
    }
}

/// The nodes of a cluster, those left out whose directory is lost.
fn members(state: &MetaState) -> impl Iterator<Item = &NodeRow> {
    let rows = state.map.nodes.iter().zip(&state.standings);
    rows.filter(|(_, standing)| **standing != Standing::Lost).map(|(row, _)| row)
}

fn newest_state(directory: &NodeDir) -> Option<MetaState> {
    directory.state().cloned().or_else(|| directory.identity().map.clone().map(MetaState::founded))
}

fn other_cluster<'a>(
    dir: &Path,
    names: impl Iterator<Item = &'a String>,
    settings: &DevSettings,
    why: &str,
) -> StartError {
    let names: Vec<&str> = names.map(String::as_str).collect();
    StartError::Settings(format!(
        "{} holds another cluster than --nodes {} ({why}; in all: {}): start it with --nodes {} or without --nodes, add or \
         remove nodes while it runs (tholos dev add, tholos dev remove), wipe it with --fresh, or choose another \
         directory with --dir",
        dir.display(),
        settings.nodes.unwrap_or(NODES_DEFAULT),
        names.join(" "),
        names.len()
    ))
}

fn new_map<'a>(
    directories: impl Iterator<Item = &'a NodeDir>,
    settings: &DevSettings,
) -> Result<ClusterMap, StartError> {
    let mut cluster_id = [0; 20];
    getrandom::fill(&mut cluster_id).map_err(DirectoryError::Random)?;
    let row = |directory: &NodeDir| NodeRow {
        id: NodeId(0),
        name: directory.identity().name.clone(),
        zone: zone_of(&directory.identity().name),
        weight: 1,
        incarnation: directory.identity().incarnation,
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    let rows: Vec<NodeRow> = directories.map(row).collect();
    let replicas = settings.replicas.min(u8::try_from(rows.len()).unwrap_or(u8::MAX));
    // An even number of replicas survives no more losses than one less (R8).
    let replicas = if replicas.is_multiple_of(2) { replicas - 1 } else { replicas };
    ClusterMap::genesis(ClusterId(cluster_id), rows, settings.shards, replicas)
        .map_err(|error| StartError::Settings(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_names() {
        assert_eq!(port_of("n1", 7001, &[]), Some(7001));
        assert_eq!(port_of("n4", 7001, &[7001, 7101, 7002, 7102]), Some(7004));
        assert_eq!(port_of("db", 7001, &[7001, 7003]), Some(7002));
        assert_eq!(port_of("n3", 7001, &[7001, 7003]), Some(7002), "another has its own place");
        assert_eq!((port_of("n2", 65_535, &[]), port_of("n2", 65_535, &[65_535])), (Some(65_535), None));
    }

    #[test]
    fn first_ports_must_leave_room_for_the_others() {
        let check = |cluster, peer, names: &[&str]| {
            FirstPorts { cluster, peer }.check(names.iter().copied()).map_err(|error| error.to_string())
        };
        assert_eq!(check(7001, 7101, &["n1", "n2", "n101"]), Ok(()));
        assert_eq!(check(7001, 7004, &["n1", "n2", "n3"]), Ok(()));
        assert_eq!((check(0, 7001, &["n1"]), check(7001, 7002, &["n1", "foo"])), (Ok(()), Ok(())));
        for (cluster, peer) in [(7001, 7002), (7002, 7001), (7001, 7001)] {
            let why = check(cluster, peer, &["n1", "n2"]).unwrap_err();
            assert!(why.contains("at least 2 apart"), "{why}");
        }
        assert!(check(7001, 7004, &["n1", "n4"]).is_err());
        assert!(check(7001, 7001, &["foo"]).is_err());
    }

    #[test]
    fn any_free_ports_are_different_ones() {
        let mut taken = Vec::new();
        for name in ["n1", "n2", "n3"] {
            let ports = FirstPorts { cluster: 0, peer: 0 }.of(name, &taken).unwrap();
            taken.push(ports);
        }
        let mut all: Vec<u16> =
            taken.iter().flat_map(|ports| [ports.cluster.port(), ports.peer.port()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn zones_are_letters_as_far_as_they_go() {
        assert_eq!(["n1", "n26", "n27", "db", "n0"].map(zone_of), ["a", "z", "", "", ""]);
    }
}
