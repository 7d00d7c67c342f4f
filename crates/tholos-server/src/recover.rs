//! From a directory to a core that knows all it knew: the snapshots first, then the log's records in their order.
//!
//! What was durable and cannot be read any more costs no more than the replicas whose it was: they start mute and are
//! repaired by their peers (R20). Only what cannot be told at all is an error.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use tholos_cluster::{ClusterMap, MetaState};
use tholos_node::{LoadedSnapshot, Node, NodeConfig, SnapshotLoader};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{
    Damage, Disk, Log, OpenError, Options, Recovery, SnapshotError, SnapshotName, SnapshotReader, Tail,
    remove_unfinished_snapshots,
};

use crate::bar_file;
use crate::counted_file::CountedLsns;
use crate::node_dir::NodeDir;

/// Why a node's data cannot be read. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// A directory cannot be made or opened.
    #[error("cannot open {path}: {source}; check the path and its permissions")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A record is not what this release writes.
    #[error(
        "a record of {shard} in {path} cannot be used: {reason}; start the release that wrote it, or a later one"
    )]
    Record {
        /// The log's directory.
        path: String,
        /// Whose record.
        shard: ShardId,
        /// What is wrong.
        reason: String,
    },
    /// What the log needs is not there.
    #[error(
        "the log in {path} is not whole: {reason}; put the file back, or give the node an empty directory and let it join again"
    )]
    Incomplete {
        /// The log's directory.
        path: String,
        /// What is missing.
        reason: String,
    },
}

/// The maps that a node starts with.
#[derive(Clone)]
pub(crate) struct Maps {
    /// The one that it began with: what its first replicas were.
    pub(crate) begun: ClusterMap,
    /// The newest that it had, if that is another.
    pub(crate) newest: Option<MetaState>,
}

/// A core with its past, and its open log.
pub(crate) struct Recovered<D: Disk> {
    pub(crate) node: Node,
    pub(crate) log: Log<D>,
    pub(crate) snapshots: D,
    pub(crate) recovery: Recovery,
}

/// Reads everything that the directory holds, by what `open_disk` makes of its parts. Blocks for as long as the disk
/// takes.
pub(crate) fn recover<D: Disk>(
    directory: &NodeDir,
    open_disk: impl Fn(&Path) -> io::Result<D>,
    config: NodeConfig,
    maps: Maps,
    options: Options,
    counted: CountedLsns,
) -> Result<Recovered<D>, RecoverError> {
    let wal_path = directory.wal_path();
    let open = |path: std::path::PathBuf| {
        open_disk(&path)
            .map_err(|source| RecoverError::Directory { path: path.display().to_string(), source })
    };
    let snapshots = open(directory.snapshot_path())?;
    let wal = open(wal_path.clone())?;
    let path = wal_path.display().to_string();
    let mut node = Node::new(config, maps.begun);
    if let Some(newest) = maps.newest {
        node.recover_map(newest);
    }
    if bar_file::is_there(directory.path()) {
        node.recover_barred();
    }
    remove_unfinished_snapshots(&snapshots)?;
    let mut failed = None;
    // Of each group, where its last record is that needs none before it.
    let mut replaced_at = BTreeMap::new();
    let (log, recovery) = Log::open(wal, options, |group, lsn, payload| {
        if failed.is_some() {
            return;
        }
        match recover_record(&mut node, &snapshots, &path, group, payload) {
            Ok(true) => _ = replaced_at.insert(group, lsn),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if recovery.short_of_room {
        tracing::error!(
            %path, "the disk is full: the log goes on in a segment that it had to spare, and clients' writes are refused \
            until there is room; free space on this file system"
        );
    }
    if recovery.unreadable {
        tracing::error!(
            %path, "nothing of the log can be read: this node's replicas vote nowhere until the others have repaired them, \
            which they do by themselves while a majority of each shard is whole; check the disk, it may be failing"
        );
    }
    for damage in recovery.damage.iter().filter(|_| !recovery.unreadable) {
        let lost = words(damage);
        tracing::error!(
            %path, lost, "the log is damaged: what was durable cannot be read; check the disk, it may be failing"
        );
    }
    if let Tail::Torn { from, dropped_bytes } = recovery.tail {
        tracing::info!(%path, %from, dropped_bytes, "dropped a write that a crash had cut off; nobody was promised it");
    }
    for file in &recovery.worn {
        tracing::warn!(%path, file, "one of two copies of a header cannot be read; the disk may be failing");
    }
    let lost = |shard: ShardId| {
        let group = u32::from(shard.0);
        recovery.lost_records_of(group, replaced_at.get(&group).copied())
    };
    node.finish_recovery(lost).map_err(|reason| RecoverError::Incomplete { path, reason })?;
    node.recover_counted(recovery.recovered_lsn.0, counted);
    Ok(Recovered { node, log, snapshots, recovery })
}

/// Hands a record to the core; whether it needs none before it.
fn recover_record<D: Disk>(
    node: &mut Node,
    snapshots: &D,
    path: &str,
    group: u32,
    payload: &[u8],
) -> Result<bool, RecoverError> {
    let shard = shard_of(group);
    let record_error = |reason: String| RecoverError::Record { path: path.to_owned(), shard, reason };
    let record = tholos_wire::decode_record(Bytes::copy_from_slice(payload))
        .map_err(|error| record_error(error.to_string()))?;
    let mut failed = None;
    let recovered = node.recover_record(shard, record, &mut |shard, index| {
        load(snapshots, path, shard, index).unwrap_or_else(|error| {
            failed = Some(error);
            None
        })
    });
    match failed {
        Some(error) => Err(error),
        None => recovered.map_err(record_error),
    }
}

/// Reads a snapshot that a record of the log names; `None` if there is no whole file of it.
fn load<D: Disk>(
    disk: &D,
    path: &str,
    shard: ShardId,
    index: Index,
) -> Result<Option<LoadedSnapshot>, RecoverError> {
    let name = SnapshotName { shard: u32::from(shard.0), index: index.0 };
    let mut loader = SnapshotLoader::new();
    let mut unreadable = None;
    let read = read_chunks(disk, name, |chunk| {
        unreadable = loader.push(chunk).err();
        unreadable.is_none()
    });
    match read {
        Ok(()) => {
            let loaded = unreadable.map_or_else(|| loader.finish(), Err);
            loaded.map(Some).map_err(|reason| RecoverError::Record { path: path.to_owned(), shard, reason })
        }
        Err(SnapshotError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        // What the disk refuses to read is damaged like what it reads wrongly, as in the log.
        Err(error @ (SnapshotError::Damaged { .. } | SnapshotError::Io { operation: "read", .. })) => {
            tracing::error!(%shard, %index, %error, "a snapshot cannot be read");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads and verifies the whole file, as long as `take` wants more of it.
fn read_chunks<D: Disk>(
    disk: &D,
    name: SnapshotName,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), SnapshotError> {
    let mut reader = SnapshotReader::open(disk.clone(), name)?;
    while let Some(chunk) = reader.next_chunk()? {
        if !take(&chunk) {
            return Ok(());
        }
    }
    Ok(())
}

/// Groups are numbered as shards are; a number beyond them is refused by the core.
fn shard_of(group: u32) -> ShardId {
    ShardId(u16::try_from(group).unwrap_or(u16::MAX))
}

fn words(damage: &Damage) -> String {
    let shards = match &damage.groups {
        None => "records of unknown shards".to_owned(),
        Some(groups) => {
            let names: Vec<String> = groups.iter().map(|group| shard_of(*group).to_string()).collect();
            format!("records of {}", names.join(", "))
        }
    };
    format!("the part from {} to {}, with {shards}", damage.from, damage.to)
}

#[cfg(test)]
mod sweep;

#[cfg(test)]
mod tests {
    use tholos_wal::Lsn;

    use super::*;

    #[test]
    fn damage_is_told_with_its_shards() {
        let damage = |groups| Damage { from: Lsn(512), to: Lsn(1024), groups };
        assert_eq!(words(&damage(Some(vec![3, 12]))), "the part from 512 to 1024, with records of s3, s12");
        assert_eq!(words(&damage(None)), "the part from 512 to 1024, with records of unknown shards");
    }
}
