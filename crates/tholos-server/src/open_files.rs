//! How many files this process may have open, and how many of them are left to clients: each client is one.
//!
//! A node that cannot open the next segment of its log ends (R23), so what nodes need for themselves is set aside before
//! any client is let in. Every way in has a bound: clients here, peers and strangers in `tholos-rpc`, the admin interface in
//! [`admin`](crate::admin).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::CONNECTIONS_MAX;
use crate::server::StartError;

/// What a process has open besides its nodes and its connections: the standard streams, the runtime's own, listeners of the
/// gateway and the admin interface, look-ups of names, and the questions of an admin interface to other nodes
/// ([`ASKED_MAX`](crate::genesis::ASKED_MAX)).
const PROCESS_FILES: usize = 64;
/// What a node has open: its log with the segment in use, one that is full and not synced, one that is being written and two
/// spares (twice each, for writes around the page cache), as many again while a batch wants one of its own; as many
/// snapshots being written, read and received as `snapshot_files` holds at a time, twice each likewise; its lock, its
/// directories, the map and what it counts; and two listeners.
const NODE_FILES: usize = 96;
/// Strangers and questions at a peer port.
const STRANGERS: usize = 80;
/// Connections between two nodes, at each.
const PEER_FILES: usize = 2;
/// A cluster may grow to so many nodes, at least, while this process runs.
const CLUSTER_NODES: usize = 32;
/// What is asked for where the system grants no more than a number that it does not tell.
const OPEN_FILES_MODEST: u64 = 10_240;

/// The clients of all nodes of this process.
#[derive(Debug)]
pub(crate) struct ProcessClients {
    max: AtomicUsize,
    count: AtomicUsize,
}

/// The place of a client; free again when it is dropped.
pub(crate) struct Place(Arc<ProcessClients>);

impl Default for ProcessClients {
    fn default() -> ProcessClients {
        ProcessClients::new(usize::MAX)
    }
}

impl ProcessClients {
    fn new(max: usize) -> ProcessClients {
        ProcessClients { max: AtomicUsize::new(max), count: AtomicUsize::new(0) }
    }

    /// A place, if one is free.
    pub(crate) fn enter(self: &Arc<ProcessClients>) -> Option<Place> {
        let max = self.max.load(Ordering::Relaxed);
        let entered = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
        entered.is_ok().then(|| Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all nodes of a process need, and what they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nodes {
    /// Of this process.
    pub(crate) here: usize,
    /// Of the cluster.
    pub(crate) of_cluster: usize,
}

impl Nodes {
    /// One of a cluster, which may grow.
    pub(crate) fn one_of(of_cluster: usize) -> Nodes {
        Nodes { here: 1, of_cluster: of_cluster.max(CLUSTER_NODES) }
    }

    /// A whole cluster in this process.
    pub(crate) fn all(here: usize) -> Nodes {
        Nodes { here, of_cluster: here }
    }

    /// Files that are no client's.
    fn reserve(self) -> usize {
        let node = NODE_FILES + STRANGERS + PEER_FILES * self.of_cluster;
        PROCESS_FILES + CONNECTIONS_MAX + node * self.here
    }

    /// Clients that so many files leave room for; an error if there is none for one.
    fn clients(self, open_files: u64) -> Result<usize, StartError> {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        match open_files.saturating_sub(self.reserve()) {
            0 => Err(StartError::Settings(format!(
                "this process may open {open_files} files, and its own take up to {} before the first client: raise the limit \
                 with ulimit -n, or LimitNOFILE= in a unit of systemd",
                self.reserve()
            ))),
            clients => Ok(clients),
        }
    }
}

/// Sets the nodes' own files aside; the clients that there is room for.
///
/// # Errors
/// [`StartError::Settings`] if there is room for none.
pub(crate) fn set_aside(nodes: Nodes, clients_max: &mut usize) -> Result<Arc<ProcessClients>, StartError> {
    let open_files = raise(nodes.reserve() as u64 + *clients_max as u64);
    let clients = nodes.clients(open_files)?;
    if clients < *clients_max {
        tracing::warn!(
            open_files,
            allowed = *clients_max,
            clients,
            "fewer clients than limits.clients allows have room in the limit of open files: raise it with ulimit -n, or \
             LimitNOFILE= in a unit of systemd, to {}",
            nodes.reserve() + *clients_max
        );
        *clients_max = clients;
    }
    Ok(Arc::new(ProcessClients::new(clients)))
}

/// Sets aside what one more node needs.
///
/// # Errors
/// [`StartError::Settings`] if there is no room for it.
pub(crate) fn set_more_aside(nodes: Nodes, clients: &ProcessClients) -> Result<(), StartError> {
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = nodes.clients(open_files)?;
    if clients.count.load(Ordering::Relaxed) > left {
        return Err(StartError::Settings(format!(
            "more clients are connected than the {left} that one more node would leave room for: close some, or raise the \
             limit of open files with ulimit -n and start again"
        )));
    }
    clients.max.store(left, Ordering::Relaxed);
    Ok(())
}

/// Lets this process open as many files as the system allows it at all; how many that is.
fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return u64::MAX };
    // Where the limit that may be set has no end, the system may have one all the same.
    for target in [limit.maximum, Some(wanted), Some(OPEN_FILES_MODEST)] {
        let is_more = target.is_none_or(|target| target > current);
        if is_more && setrlimit(Resource::Nofile, Rlimit { current: target, ..limit }).is_ok() {
            return target.unwrap_or(u64::MAX);
        }
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_need_is_no_client_s() {
        let check = |nodes: Nodes, open_files: u64, clients: Option<usize>| {
            assert_eq!(nodes.clients(open_files).ok(), clients, "{nodes:?} of {open_files}");
        };
        check(Nodes::one_of(3), 1024, Some(1024 - 432));
        check(Nodes::one_of(100), 1024, Some(1024 - 568));
        check(Nodes::one_of(3), 433, Some(1));
        check(Nodes::one_of(3), 432, None);
        check(Nodes::one_of(3), u64::MAX, Some(usize::MAX - 432));
        check(Nodes::all(1), 1024, Some(1024 - 370));
        check(Nodes::all(3), 1024, Some(1024 - 738));
        check(Nodes::all(3), 300, None);
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let clients = Arc::new(ProcessClients::new(2));
        let first = clients.enter().expect("free");
        let _second = clients.enter().expect("free");
        assert!(clients.enter().is_none());
        drop(first);
        assert!(clients.enter().is_some());
    }
}
