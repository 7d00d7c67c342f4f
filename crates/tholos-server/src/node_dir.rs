//! A node's directory: `<dir>/<name>/{LOCK,node.toml,map,plans.json,wal/,snap/}`.
//!
//! Rules kept here: R21 (a directory has a random incarnation, so a wiped node is a new one), and that no two processes
//! use one directory at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, MapError, MetaState};

use crate::map_file;

/// The newest format of a node's directory that this release reads, and the one it writes. Format 1 has no checksum in
/// node.toml, and is read as well.
pub const DIRECTORY_FORMAT: u32 = 2;

/// What tells our directories from others; the value of the key `tholos` in node.toml.
const MARKER: &str = "node directory";
const LOCK_FILE: &str = "LOCK";
const IDENTITY_FILE: &str = "node.toml";
/// The identity while it is written; renamed into place once it is synced.
const IDENTITY_FILE_NEW: &str = "node.toml.tmp";

const HEADING: &str = "# Who this node is. Do not edit it, and do not copy it to run twice.\n";

/// Why a directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The system refused something.
    #[error("cannot {operation} {}: {source}; check the path and its permissions", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A live process has it.
    #[error(
        "{} is in use by {}; stop that process, or give this node another directory",
        path.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process with pid {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, if that can be told.
        pid: Option<u32>,
    },
    /// It holds files and no node.toml, or a node.toml that is none of ours.
    #[error(
        "{} is no node's directory: {reason}; choose another directory, or empty this one if nobody needs it",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What shows it.
        reason: String,
    },
    /// Its node.toml, or its map, is not what was written.
    #[error(
        "{} is damaged: {reason}; put back a copy of this one file if there is one (node.toml has not changed since the \
         node joined its cluster), or keep the directory for examination and go on without this node", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What shows it.
        reason: String,
    },
    /// A later release wrote it.
    #[error(
        "{} has directory format {found}, and this release reads formats up to {DIRECTORY_FORMAT}: start the release \
         that wrote it, or a later one", path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is the directory of another node.
    #[error(
        "{} belongs to node {found}, not to {expected}; start this node with its own directory", path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The name in it.
        found: String,
        /// The name asked for.
        expected: String,
    },
    /// The cluster map in it cannot be read.
    #[error(
        "the cluster map in {} cannot be read: {reason}; start the release that wrote it, or empty the directory and \
         let the node join again", path.display()
    )]
    BadMap {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: MapError,
    },
    /// A name that no node can have.
    #[error("{0}")]
    Name(MapError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Who a node is, as its directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Drawn when the directory was made (R21).
    pub incarnation: Incarnation,
    /// The cluster it belongs to, as its map was when the node began; `None` before that.
    pub map: Option<ClusterMap>,
}

/// A node's directory, locked for as long as this lives.
#[derive(Debug)]
pub struct NodeDir {
    path: PathBuf,
    identity: Identity,
    /// The newest map that it held when it was opened, if that is another than the identity's.
    state: Option<MetaState>,
    /// Held for its lock, which ends with its last holder.
    lock: Arc<File>,
}

/// node.toml.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    tholos: String,
    format: u32,
    name: String,
    incarnation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// The map's bytes in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<String>,
}

/// The last line, over all before it.
const CHECKSUM_KEY: &str = "checksum = ";

/// What the last line of node.toml must be.
fn checksum_line(text: &str) -> String {
    format!("{CHECKSUM_KEY}\"{:08x}\"\n", crc32c::crc32c(text.as_bytes()))
}

/// Whether the text ends with its checksum.
fn checksum_holds(text: &str) -> bool {
    text.rfind(CHECKSUM_KEY).is_some_and(|at| text[at..] == checksum_line(&text[..at]))
}

/// What every format of node.toml has: read first, so that a newer one is told as such.
#[derive(Deserialize)]
struct IdentityHead {
    tholos: String,
    format: u32,
}

impl NodeDir {
    /// Opens the directory `parent/name`, makes it if it is missing or empty, and locks it.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(parent: &Path, name: &str) -> Result<NodeDir, DirectoryError> {
        tholos_cluster::check_name(name).map_err(DirectoryError::Name)?;
        let path = parent.join(name);
        // Judged before anything is created in it: what is not ours stays as it was.
        if !path.join(IDENTITY_FILE).exists() {
            check_empty(&path)?;
        }
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        let lock = lock(&path)?;
        let identity = match read_identity(&path)? {
            Some(identity) => identity,
            None => {
                let incarnation = Incarnation(getrandom::u64().map_err(DirectoryError::Random)?);
                let identity = Identity { name: name.to_owned(), incarnation, map: None };
                write_identity(&path, &identity)?;
                sync_directory(parent)?;
                identity
            }
        };
        if identity.name != name {
            return Err(DirectoryError::OtherNode { path, found: identity.name, expected: name.to_owned() });
        }
        let state = map_file::read(&path)?;
        Ok(NodeDir { path, identity, state, lock: Arc::new(lock) })
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The newest map that the directory held when it was opened; `None` before genesis.
    #[must_use]
    pub fn map(&self) -> Option<&ClusterMap> {
        self.state.as_ref().map(|state| &state.map).or(self.identity.map.as_ref())
    }

    /// The same with all that is decided with it; `None` if nothing has changed since the node began.
    pub(crate) fn state(&self) -> Option<&MetaState> {
        self.state.as_ref()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    #[must_use]
    pub fn wal_path(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// Where the snapshots are.
    #[must_use]
    pub fn snapshot_path(&self) -> PathBuf {
        self.path.join("snap")
    }

    /// The directory stays locked for as long as this lives, too.
    pub(crate) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    /// Makes the node begin in a cluster that runs, durably.
    ///
    /// # Errors
    /// [`DirectoryError::Io`]; the node then does not belong to it yet.
    pub(crate) fn begin(&mut self, state: MetaState) -> Result<(), DirectoryError> {
        map_file::write(&self.path, &state)?;
        // From here on it belongs to the cluster.
        self.write_map(state.map.clone())?;
        self.state = Some(state);
        Ok(())
    }

    /// Makes the node begin in the map's cluster, durably.
    ///
    /// # Errors
    /// [`DirectoryError::Io`]; the old identity is then still in force.
    pub fn write_map(&mut self, map: ClusterMap) -> Result<(), DirectoryError> {
        let identity = Identity { map: Some(map), ..self.identity.clone() };
        write_identity(&self.path, &identity)?;
        self.identity = identity;
        Ok(())
    }
}

/// Whether `path` is a node's directory of ours; of any format.
pub(crate) fn has_marker(path: &Path) -> bool {
    fs::read_to_string(path.join(IDENTITY_FILE))
        .is_ok_and(|text| toml::from_str::<IdentityHead>(&text).is_ok_and(|head| head.tholos == MARKER))
}

/// Removes a node's directory of ours, unless a live process has it.
///
/// # Errors
/// See [`DirectoryError`]; `NotOurs` and `InUse` have changed nothing.
pub(crate) fn remove(path: &Path) -> Result<(), DirectoryError> {
    if !has_marker(path) {
        let reason = format!("it has no {IDENTITY_FILE} of ours");
        return Err(DirectoryError::NotOurs { path: path.to_owned(), reason });
    }
    let _lock = lock(path)?;
    // The marker goes last: a removal that is cut off can be taken up again.
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let entry = entry.map_err(io_error("list", path))?.path();
        if entry.ends_with(IDENTITY_FILE) {
            continue;
        }
        let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
        removed.map_err(io_error("remove", &entry))?;
    }
    fs::remove_dir_all(path).map_err(io_error("remove", path))
}

/// A directory without node.toml may hold only what a first start leaves when it is cut off.
fn check_empty(path: &Path) -> Result<(), DirectoryError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("list", path)(error)),
    };
    for entry in entries {
        let name = entry.map_err(io_error("list", path))?.file_name();
        if name != LOCK_FILE && name != IDENTITY_FILE_NEW {
            let reason = format!("it holds {} and no {IDENTITY_FILE}", name.to_string_lossy());
            return Err(DirectoryError::NotOurs { path: path.to_owned(), reason });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = path.join(LOCK_FILE);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(io_error("open", &file))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The pid is only for the message.
            let _ = lock.read_to_string(&mut text);
            return Err(DirectoryError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(error) => return Err(io_error("lock", &file)(error.into())),
    }
    let pid = format!("{}\n", std::process::id());
    // Over the old one and not after a truncation, so that it needs no room: a full disk keeps no node from starting. It is
    // for a message only, so without it the node starts all the same.
    let _ = lock
        .seek(SeekFrom::Start(0))
        .and_then(|_| lock.write_all(pid.as_bytes()))
        .and_then(|()| lock.set_len(pid.len() as u64));
    Ok(lock)
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DirectoryError> {
    let file = path.join(IDENTITY_FILE);
    let damaged = |reason: &str| DirectoryError::Damaged { path: file.clone(), reason: reason.to_owned() };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("it is no text")),
        Err(error) => return Err(io_error("read", &file)(error)),
    };
    let not_ours = |reason: String| DirectoryError::NotOurs { path: path.to_owned(), reason };
    // What still carries our mark was ours.
    let unreadable = |what: &str| match text.contains(MARKER) {
        true => damaged(what),
        false => not_ours(format!("its {IDENTITY_FILE} cannot be read ({what})")),
    };
    let head: IdentityHead = toml::from_str(&text).map_err(|error| unreadable(error.message()))?;
    if head.tholos != MARKER {
        return Err(not_ours(format!("its {IDENTITY_FILE} does not carry the mark \"{MARKER}\"")));
    }
    if head.format > DIRECTORY_FORMAT {
        return Err(DirectoryError::NewerFormat { path: path.to_owned(), found: head.format });
    }
    if head.format != 1 && !checksum_holds(&text) {
        return Err(damaged("its checksum does not hold"));
    }
    let read: IdentityFile = toml::from_str(&text).map_err(|error| unreadable(error.message()))?;
    let incarnation =
        u64::from_str_radix(&read.incarnation, 16).map_err(|_| unreadable("incarnation is no number"))?;
    let map = match read.map {
        None => None,
        Some(hex) => {
            let bytes = from_hex(&hex).ok_or_else(|| unreadable("map is not hex"))?;
            let map = ClusterMap::decode(&bytes)
                .map_err(|reason| DirectoryError::BadMap { path: file.clone(), reason })?;
            if read.cluster_id.as_deref().and_then(ClusterId::from_hex) != Some(map.cluster_id) {
                return Err(unreadable("cluster_id and map differ"));
            }
            Some(map)
        }
    };
    Ok(Some(Identity { name: read.name, incarnation: Incarnation(incarnation), map }))
}

/// Writes beside, syncs, renames, syncs the directory: a crash leaves the old identity or the new one.
fn write_identity(path: &Path, identity: &Identity) -> Result<(), DirectoryError> {
    let written = IdentityFile {
        tholos: MARKER.to_owned(),
        format: DIRECTORY_FORMAT,
        name: identity.name.clone(),
        incarnation: identity.incarnation.to_string(),
        cluster_id: identity.map.as_ref().map(|map| map.cluster_id.to_string()),
        map: identity.map.as_ref().map(|map| to_hex(&map.encode())),
    };
    let text = toml::to_string(&written).expect("five plain fields can be written as TOML");
    let (new, file) = (path.join(IDENTITY_FILE_NEW), path.join(IDENTITY_FILE));
    let stored = File::create(&new).and_then(|mut file| {
        let text = format!("{HEADING}{text}");
        let checksum = checksum_line(&text);
        file.write_all(format!("{text}{checksum}").as_bytes()).and_then(|()| file.sync_all())
    });
    stored.map_err(io_error("write", &new))?;
    fs::rename(&new, &file).map_err(io_error("rename", &new))?;
    sync_directory(path)
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), DirectoryError> {
    // An empty path is the current directory, written relatively.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error("sync", path))
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    move |source| DirectoryError::Io { operation, path, source }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests;
