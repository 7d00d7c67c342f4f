//! A disk in memory, as cruel as a real one and the same for the same seed.
//!
//! Bytes written are visible at once, and durable only after a sync of their file; a crash keeps, drops or tears any
//! subset of the sectors in between, in any order. Names are durable only after a sync of the directory; a crash keeps
//! some first part of the changes, as journals do. A failed sync leaves its sectors visible and lost for good, as page
//! caches do.

mod inode;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::inode::SectorFates;
use self::inode::{Inode, Random};
use crate::disk::Disk;
use crate::format::SECTOR_BYTES;

/// What a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the operating system lives, with everything written, synced or not.
    Process,
    /// The power fails; the seed decides what of the unsynced reached the disk.
    Power(u64),
}

/// A simulated directory. Clones are handles to the same one, so a simulator keeps one and gives one to the log.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`MemDisk`]. A crash makes it stale.
#[derive(Debug)]
pub struct MemFile {
    inode: u64,
    boot: u64,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    boot: u64,
    /// Operations that change something, since the disk was made.
    changes: u64,
    /// The process is dead from this many changes on.
    dead_at: Option<u64>,
    failing_syncs: bool,
    failing_writes: bool,
    capacity_bytes: Option<u64>,
    /// The next write of a file goes to another place in it.
    misdirected: Option<u64>,
    fates: SectorFates,
}

impl MemDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Crashes: open files become stale, and what was not synced has the fate that `crash` says. Also ends failures
    /// that were switched on.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.lock();
        state.boot += 1;
        state.dead_at = None;
        state.failing_syncs = false;
        state.failing_writes = false;
        if let Crash::Power(seed) = crash {
            state.lose_power(&mut Random(seed));
        }
    }

    /// From `changes` more changing operations on, the process counts as dead: the last of them still goes to the page
    /// cache, and it and all later ones fail. `None` takes it back.
    pub fn die_after(&self, changes: Option<u64>) {
        let mut state = self.lock();
        state.dead_at = changes.map(|changes| state.changes + changes);
    }

    /// Operations that changed something so far, for crashing at each of them in turn.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Makes every sync fail, and lose what it was to make durable.
    pub fn fail_syncs(&self, failing: bool) {
        self.lock().failing_syncs = failing;
    }

    /// Makes every write fail.
    pub fn fail_writes(&self, failing: bool) {
        self.lock().failing_writes = failing;
    }

    /// Bounds what all files may take together; `None` is no bound.
    pub fn set_capacity_bytes(&self, capacity: Option<u64>) {
        self.lock().capacity_bytes = capacity;
    }

    /// The bytes of a file as a reader sees them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        Some(state.inodes[state.names.get(name)?].bytes.clone())
    }

    /// Changes a file behind everybody's back, durably: flips bits, truncates.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if let Some(inode) = state.names.get(name).copied().and_then(|inode| state.inodes.get_mut(&inode)) {
            change(&mut inode.bytes);
            inode.durable_length = inode.bytes.len();
            inode.unsynced.clear();
            inode.lost.clear();
        }
    }

    /// Makes the sector at `offset` of a file unreadable until it is written again.
    pub fn break_sector(&self, name: &str, offset: usize) {
        let mut state = self.lock();
        if let Some(inode) = state.names.get(name).copied().and_then(|inode| state.inodes.get_mut(&inode)) {
            inode.unreadable.insert(offset / SECTOR_BYTES);
        }
    }

    /// Flips one bit, chosen by `seed`, of a sector that was durable and holds something. `None`: there is none.
    pub fn flip_bit(&self, seed: u64) -> Option<String> {
        self.hurt(seed, Inode::flip_bit)
    }

    /// Makes one sector, chosen by `seed`, unreadable that was durable and holds something. `None`: there is none.
    pub fn lose_sector(&self, seed: u64) -> Option<String> {
        self.hurt(seed, Inode::lose_sector)
    }

    fn hurt(&self, seed: u64, hurt: impl Fn(&mut Inode, usize, &mut Random)) -> Option<String> {
        let mut state = self.lock();
        let State { names, inodes, .. } = &mut *state;
        let random = &mut Random(seed);
        let sectors: Vec<(&String, u64, Vec<usize>)> =
            names.iter().map(|(name, inode)| (name, *inode, inodes[inode].durable_sectors())).collect();
        let count: usize = sectors.iter().map(|(_, _, sectors)| sectors.len()).sum();
        let mut chosen = random.below(count.max(1) as u64) as usize;
        for (name, inode, sectors) in sectors {
            if let Some(sector) = sectors.get(chosen) {
                hurt(inodes.get_mut(&inode)?, *sector, random);
                return Some(name.clone());
            }
            chosen -= sectors.len();
        }
        None
    }

    /// The next write goes to another place of its file, chosen by `seed`, and says nothing.
    pub fn misdirect_next_write(&self, seed: u64) {
        self.lock().misdirected = Some(seed);
    }

    /// What became of unsynced sectors when the power failed, since the disk was made.
    #[must_use]
    pub fn sector_fates(&self) -> SectorFates {
        self.lock().fates
    }

    /// Bytes that all files take together.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Whether the process counts as dead ([`MemDisk::die_after`]).
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let state = self.lock();
        state.dead_at.is_some_and(|at| state.changes >= at)
    }

    /// A copy of the directory as it is, unsynced parts included, which then goes its own way.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock();
        let copy = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            inodes: state.inodes.clone(),
            inode_next: state.inode_next,
            boot: state.boot + 1,
            capacity_bytes: state.capacity_bytes,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder leaves nothing half done that matters to a test.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a change; the error, if the process is dead, is for after it.
    fn change(&mut self) -> io::Result<Result<(), io::Error>> {
        self.changes += 1;
        match self.dead_at {
            Some(at) if self.changes > at => Err(dead()),
            Some(at) if self.changes == at => Ok(Err(dead())),
            _ => Ok(Ok(())),
        }
    }

    fn inode(&mut self, file: &MemFile) -> io::Result<&mut Inode> {
        if file.boot != self.boot {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        self.inodes.get_mut(&file.inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.bytes.len() as u64).sum()
    }

    fn change_names(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced_names.push(change);
        self.forget_unnamed();
    }

    fn forget_unnamed(&mut self) {
        let (names, durable) = (&self.names, &self.durable_names);
        let pending = &self.unsynced_names;
        self.inodes.retain(|inode, _| {
            names.values().chain(durable.values()).any(|named| named == inode)
                || pending.iter().any(|change| matches!(change, NameChange::Link(_, named) if named == inode))
        });
    }

    fn lose_power(&mut self, random: &mut Random) {
        let kept = random.below(self.unsynced_names.len() as u64 + 1) as usize;
        for change in self.unsynced_names.drain(..).take(kept) {
            apply(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
        self.forget_unnamed();
        for inode in self.inodes.values_mut() {
            inode.lose_power(random, &mut self.fates);
        }
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let state = self.lock();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemFile { inode, boot: state.boot })
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut state = self.lock();
        let after = state.change()?;
        let inode = state.inode_next;
        state.inode_next += 1;
        state.inodes.insert(inode, Inode::default());
        state.change_names(NameChange::Link(name.to_owned(), inode));
        after.map(|()| MemFile { inode, boot: state.boot })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let after = state.change()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        after
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let after = state.change()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Remove(name.to_owned()));
        after
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.change()??;
        if state.failing_syncs {
            return Err(failing());
        }
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        state.forget_unnamed();
        Ok(())
    }

    fn length(&self, file: &MemFile) -> io::Result<u64> {
        Ok(self.lock().inode(file)?.bytes.len() as u64)
    }

    fn read_at(&self, file: &MemFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let inode = state.inode(file)?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let rest = inode.bytes.get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        let mut sectors = inode.unreadable.range(offset / SECTOR_BYTES..);
        if count > 0 && sectors.next().is_some_and(|sector| sector * SECTOR_BYTES < offset + count) {
            return Err(failing());
        }
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, file: &MemFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let after = state.change()?;
        if state.failing_writes {
            return Err(failing());
        }
        let room =
            state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes()));
        let misdirected = state.misdirected.take();
        let inode = state.inode(file)?;
        let mut offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let growth = (offset + bytes.len()).saturating_sub(inode.bytes.len()) as u64;
        if growth > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(seed) = misdirected {
            offset = inode.other_place(offset, bytes.len(), &mut Random(seed));
        }
        inode.write(offset, bytes);
        after
    }

    fn sync_data(&self, file: &MemFile) -> io::Result<()> {
        let mut state = self.lock();
        state.change()??;
        let failed = state.failing_syncs;
        let inode = state.inode(file)?;
        if failed {
            inode.fail_sync();
            return Err(failing());
        }
        inode.sync();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("mem").join(name)
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

fn failing() -> io::Error {
    io::Error::other("input/output error (simulated)")
}
