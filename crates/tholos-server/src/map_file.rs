//! The newest map that a node has, in its directory: a restart goes on with it, and replicas that it says are retired do
//! not come back (N2 of the core's meta group).
//!
//! ```text
//!   state, as tholos-cluster writes it | CRC-32C of it, 4 bytes, little-endian
//! ```
//!
//! Beside it, node.toml keeps the map that the node began with, which says what its first replicas were.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tholos_cluster::{MapError, MetaState};
use tholos_node::Event;
use tokio::sync::{mpsc, watch};

use crate::node_dir::{DirectoryError, sync_directory};
use crate::worker_task::Input;

const FILE: &str = "map";

/// The map that the directory holds; `None` if it has not changed since the node began.
///
/// # Errors
/// [`DirectoryError::Damaged`] if it is not what was written; [`DirectoryError::Io`].
pub(crate) fn read(directory: &Path) -> Result<Option<MetaState>, DirectoryError> {
    let path = directory.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DirectoryError::Io { operation: "read", path, source }),
    };
    let damaged = |reason: String| DirectoryError::Damaged { path: path.clone(), reason };
    let Some((state, sum)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged("it ends early".to_owned()));
    };
    if crc32c::crc32c(state) != u32::from_le_bytes(*sum) {
        return Err(damaged("its checksum does not hold".to_owned()));
    }
    match MetaState::decode(state) {
        Ok(state) => Ok(Some(state)),
        // Whole, and nothing is wrong with it.
        Err(reason @ MapError::UnknownVersion { .. }) => Err(DirectoryError::BadMap { path, reason }),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Writes beside, syncs, renames, syncs the directory: a crash leaves the old map or the new one.
///
/// # Errors
/// [`DirectoryError::Io`]; the old map is then still there.
pub(crate) fn write(directory: &Path, state: &MetaState) -> Result<(), DirectoryError> {
    let mut bytes = state.encode();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let (new, file) = (directory.join(format!("{FILE}.tmp")), directory.join(FILE));
    let error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DirectoryError::Io { operation, path, source }
    };
    let mut stored = File::create(&new).map_err(error("write", &new))?;
    stored.write_all(&bytes).and_then(|()| stored.sync_all()).map_err(error("write", &new))?;
    fs::rename(&new, &file).map_err(error("rename", &new))?;
    sync_directory(directory)
}

/// Keeps the newest of `maps` in the directory and tells the node, until that ends. A map that cannot be written is told
/// of and tried again with the next one: until then the node drops nothing.
pub(crate) async fn keep(
    directory: PathBuf,
    mut maps: watch::Receiver<Arc<MetaState>>,
    node: mpsc::Sender<Input>,
) {
    while maps.changed().await.is_ok() {
        let state = Arc::clone(&maps.borrow_and_update());
        let (directory, epoch) = (directory.clone(), state.epoch());
        match tokio::task::spawn_blocking(move || write(&directory, &state)).await {
            Ok(Ok(())) => {
                if node.send(Input::Event(Event::MapKept { epoch })).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, %epoch, "the cluster map cannot be kept; the next one is tried again");
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};

    use super::*;

    fn state() -> MetaState {
        let row = NodeRow {
            id: NodeId(1),
            name: "n1".into(),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(7),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        };
        MetaState::founded(ClusterMap::genesis(ClusterId([7; 20]), vec![row], 2, 1).unwrap())
    }

    #[test]
    fn a_map_is_read_back_and_damage_is_noticed() {
        let directory = std::env::temp_dir().join(format!("tholos-map-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&directory).unwrap();
        assert_eq!(read(&directory).unwrap(), None);
        write(&directory, &state()).unwrap();
        assert_eq!(read(&directory).unwrap(), Some(state()));
        let mut bytes = fs::read(directory.join(FILE)).unwrap();
        bytes[9] ^= 1;
        fs::write(directory.join(FILE), &bytes).unwrap();
        assert!(matches!(read(&directory), Err(DirectoryError::Damaged { .. })));
        fs::write(directory.join(FILE), b"no").unwrap();
        assert!(matches!(read(&directory), Err(DirectoryError::Damaged { .. })));
        fs::remove_dir_all(&directory).unwrap();
    }
}
