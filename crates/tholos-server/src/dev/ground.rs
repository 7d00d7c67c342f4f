//! What a development cluster stands on: its ports, its directories, and the map in them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tholos_cluster::{ClusterId, ClusterMap, NodeId, NodeRow};
use tokio::net::TcpListener;

use super::DevSettings;
use crate::node_dir::{self, DirectoryError, NodeDir};
use crate::ports::{self, PortError};
use crate::server::StartError;

/// A directory that is removed with this.
pub(super) struct TempDir(PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the temporary directory stays");
        }
    }
}

/// The listeners of the process itself, and the nodes' addresses.
pub(super) struct Listeners {
    pub(super) gateway: TcpListener,
    pub(super) gateway_address: SocketAddr,
    pub(super) http: TcpListener,
    pub(super) http_address: SocketAddr,
    cluster: Vec<SocketAddr>,
    peer: Vec<SocketAddr>,
}

impl Listeners {
    pub(super) fn open(settings: &DevSettings) -> Result<Listeners, StartError> {
        let (gateway, gateway_address) = listen("gateway", settings.port, "--port")?;
        let (http, http_address) = listen("admin interface", settings.http_port, "--http-port")?;
        let count = settings.nodes;
        let cluster = node_addresses("cluster port", settings.cluster_port, count, "--cluster-port")?;
        let peer = node_addresses("peer port", settings.peer_port, count, "--peer-port")?;
        Ok(Listeners { gateway, gateway_address, http, http_address, cluster, peer })
    }
}

fn listen(what: &str, port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let wanted = ports::loopback(port);
    let listener = ports::listen(what, wanted, option)?;
    let error = |source| PortError::new(what, wanted, source, option);
    let address = listener.local_addr().map_err(error)?;
    Ok((TcpListener::from_std(listener).map_err(error)?, address))
}

/// The addresses of one listener of all nodes. They are opened here for a moment, so that a taken one is told before
/// anything has started.
fn node_addresses(
    what: &str,
    first: u16,
    count: u16,
    option: &'static str,
) -> Result<Vec<SocketAddr>, StartError> {
    if first == 0 {
        let free = ports::pick_free(usize::from(count));
        let free = free.map_err(|source| PortError::new(what, ports::loopback(0), source, option))?;
        return Ok(free.into_iter().map(ports::loopback).collect());
    }
    if first.checked_add(count - 1).is_none() {
        return Err(StartError::Settings(format!(
            "{option} is {first}, and {count} nodes need as many ports from there on: use a lower one"
        )));
    }
    let addresses: Vec<SocketAddr> = (first..=first + (count - 1)).map(ports::loopback).collect();
    for (address, number) in addresses.iter().zip(1..) {
        ports::listen(format!("{what} of n{number}"), *address, option)?;
    }
    Ok(addresses)
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

/// Names of the nodes whose directories are in `dir`.
fn nodes_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    let ours = entries.flatten().filter(|entry| node_dir::has_marker(&entry.path()));
    ours.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub(super) fn open_directories(
    dir: &Path,
    settings: &DevSettings,
    temp: bool,
) -> Result<Vec<NodeDir>, StartError> {
    let names: Vec<String> = (1..=settings.nodes).map(|number| format!("n{number}")).collect();
    if settings.fresh && !temp {
        for name in nodes_in(dir) {
            node_dir::remove(&dir.join(name))?;
        }
    }
    let found = nodes_in(dir);
    // A node too many is one that an earlier cluster had; one too few may be a first start that was cut off.
    if let Some(other) = found.iter().find(|name| !names.contains(name)) {
        return Err(other_cluster(dir, &found, settings, &format!("it has {other}")));
    }
    names.iter().map(|name| Ok(NodeDir::open(dir, name)?)).collect()
}

fn other_cluster(dir: &Path, found: &BTreeSet<String>, settings: &DevSettings, why: &str) -> StartError {
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    StartError::Settings(format!(
        "{} holds another cluster than --nodes {} ({why}; in all: {}): start it with --nodes {}, wipe it with --fresh, \
         or choose another directory with --dir",
        dir.display(),
        settings.nodes,
        names.join(" "),
        names.len()
    ))
}

/// The map that the directories hold, or a new one, with the addresses of this start.
pub(super) fn found_or_read(
    mut directories: Vec<NodeDir>,
    settings: &DevSettings,
    listeners: &Listeners,
) -> Result<(ClusterMap, Vec<NodeDir>), StartError> {
    let begun = directories.iter().find_map(|directory| directory.identity().map.clone());
    let begun = match begun {
        Some(map) => map,
        None => new_map(&directories, settings)?,
    };
    let newest = directories.iter().filter_map(NodeDir::map).max_by_key(|map| map.epoch);
    let mut map = newest.unwrap_or(&begun).clone();
    let path = directories[0].path().parent().unwrap_or(Path::new(".")).to_owned();
    if map.nodes.len() != directories.len() {
        let names = map.nodes.iter().map(|row| row.name.clone()).collect();
        return Err(other_cluster(
            &path,
            &names,
            settings,
            "its cluster was founded with more or fewer nodes",
        ));
    }
    let addresses = listeners.cluster.iter().zip(&listeners.peer);
    for (row, (cluster, peer)) in map.nodes.iter_mut().zip(addresses) {
        row.gateway = listeners.gateway_address.to_string();
        row.http = listeners.http_address.to_string();
        row.cluster = cluster.to_string();
        row.peer = peer.to_string();
    }
    for directory in &mut directories {
        let identity = directory.identity();
        let same = |other: &ClusterMap| other.cluster_id == map.cluster_id;
        let known_to_map =
            map.by_name(&identity.name).is_some_and(|row| row.incarnation == identity.incarnation);
        if !known_to_map || !identity.map.as_ref().is_none_or(same) {
            return Err(StartError::Settings(format!(
                "{} and the other nodes' directories beside it are not of one cluster: put the right one back, wipe all with \
                 --fresh, or choose another directory with --dir",
                directory.path().display()
            )));
        }
        if identity.map.is_none() {
            directory.write_map(begun.clone())?;
        }
    }
    Ok((map, directories))
}

fn new_map(directories: &[NodeDir], settings: &DevSettings) -> Result<ClusterMap, StartError> {
    let mut cluster_id = [0; 20];
    getrandom::fill(&mut cluster_id).map_err(DirectoryError::Random)?;
    let row = |(directory, zone): (&NodeDir, char)| NodeRow {
        id: NodeId(0),
        name: directory.identity().name.clone(),
        zone: zone.to_string(),
        weight: 1,
        incarnation: directory.identity().incarnation,
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    let rows: Vec<NodeRow> = directories.iter().zip('a'..='z').map(row).collect();
    let replicas = settings.replicas.min(u8::try_from(rows.len()).unwrap_or(u8::MAX));
    // An even number of replicas survives no more losses than one less (R8).
    let replicas = if replicas.is_multiple_of(2) { replicas - 1 } else { replicas };
    ClusterMap::genesis(ClusterId(cluster_id), rows, settings.shards, replicas)
        .map_err(|error| StartError::Settings(error.to_string()))
}
