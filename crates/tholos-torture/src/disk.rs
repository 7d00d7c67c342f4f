//! A disk that holds writes in memory until they are synced, so that `kill -9` of the process is a power cut.
//!
//! Bytes lie in files `i<number>` of the directory, and the table of names in the file `names`: what is there is what
//! the platter holds. Everything newer lies in this process and dies with it. A real disk writes back when it likes, so
//! now and then some unsynced sectors (some of them in part) and some changes of names go to the platter early.
//!
//! What each rests on:
//!
//! - D1: a byte is on the platter for certain only after a sync of its file, a name only after one of the directory.
//! - D2: before that, any sector may be there, whole or torn; names get there in the order of their changes.
//! - D3: a failed sync leaves its sectors visible and lost for good, as page caches do.
//! - D4: nothing here syncs the real files: the machine stays up, and only this process dies.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tholos_load::Random;
use tholos_wal::Disk;

use crate::control::Faults;

const SECTOR: usize = 512;
/// The table of names.
const NAMES: &str = "names";
/// The table while it is written.
const NAMES_NEW: &str = "names.new";
/// One write in so many is followed by an early write-back.
const EARLY_IN: u64 = 24;
/// What a disk that is not full has free, in bytes.
const FREE_BYTES: u64 = 64 << 30;

type Sector = [u8; SECTOR];

/// A directory on the disk. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct PowerDisk {
    directory: Arc<Path>,
    faults: Arc<Faults>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What this process sees.
    names: BTreeMap<String, u64>,
    /// What the platter has.
    durable: BTreeMap<String, u64>,
    /// Files with a name of either kind.
    files: BTreeMap<u64, PowerFile>,
    number_next: u64,
    random: Random,
}

/// An open file.
#[derive(Clone)]
pub(crate) struct PowerFile {
    inode: Arc<Mutex<Inode>>,
}

struct Inode {
    platter: File,
    /// What a reader sees, in bytes.
    length: u64,
    /// Written since the last sync, by number of the sector.
    unsynced: BTreeMap<u64, Box<Sector>>,
    /// Visible, and never to reach the platter unless written again (D3).
    lost: BTreeMap<u64, Box<Sector>>,
}

impl PowerDisk {
    /// The disk in `directory`, as the last power cut left it.
    pub(crate) fn open(directory: &Path, faults: Arc<Faults>, seed: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let names = match fs::read_to_string(directory.join(NAMES)) {
            Ok(text) => read_names(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let mut state = State {
            durable: names.clone(),
            names,
            files: BTreeMap::new(),
            number_next: 0,
            random: Random::new(seed, 0),
        };
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else { continue };
            state.number_next = state.number_next.max(number + 1);
            if state.names.values().any(|&named| named == number) {
                let platter = OpenOptions::new().read(true).write(true).open(&path)?;
                state.files.insert(number, PowerFile::new(platter)?);
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { directory: directory.into(), faults, state: Arc::new(Mutex::new(state)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Puts the names as they are onto the platter, and forgets files without any.
    fn write_names(&self, state: &mut State) -> io::Result<()> {
        let text: String = state.names.iter().map(|(name, number)| format!("{number} {name}\n")).collect();
        fs::write(self.directory.join(NAMES_NEW), text)?;
        fs::rename(self.directory.join(NAMES_NEW), self.directory.join(NAMES))?;
        state.durable.clone_from(&state.names);
        let dead: Vec<u64> =
            state.files.keys().copied().filter(|number| !state.names.values().any(|n| n == number)).collect();
        for number in dead {
            state.files.remove(&number);
            fs::remove_file(self.backing(number))?;
        }
        Ok(())
    }

    /// After a change of names: a journal may commit at any time (D2).
    fn changed_names(&self, state: &mut State) -> io::Result<()> {
        if state.random.below(EARLY_IN) == 0 { self.write_names(state) } else { Ok(()) }
    }

    fn backing(&self, number: u64) -> PathBuf {
        self.directory.join(format!("i{number}"))
    }
}

impl Disk for PowerDisk {
    type File = PowerFile;

    fn open(&self, name: &str) -> io::Result<PowerFile> {
        let state = self.lock();
        let number = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[number].clone())
    }

    fn create(&self, name: &str) -> io::Result<PowerFile> {
        self.faults.check_write()?;
        let mut state = self.lock();
        let number = state.number_next;
        state.number_next += 1;
        let backing = self.backing(number);
        let file = PowerFile::new(OpenOptions::new().read(true).write(true).create_new(true).open(backing)?)?;
        state.files.insert(number, file.clone());
        state.names.insert(name.to_owned(), number);
        self.changed_names(&mut state)?;
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.check_write()?;
        let mut state = self.lock();
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        self.changed_names(&mut state)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.check_write()?;
        let mut state = self.lock();
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.changed_names(&mut state)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        if self.faults.syncs_lie() {
            return Ok(());
        }
        self.write_names(&mut self.lock())
    }

    fn length(&self, file: &PowerFile) -> io::Result<u64> {
        Ok(file.lock().length)
    }

    fn read_at(&self, file: &PowerFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        file.lock().read_at(offset, buffer)
    }

    fn write_at(&self, file: &PowerFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.check_write()?;
        let mut inode = file.lock();
        if self.faults.is_full() && offset + bytes.len() as u64 > inode.length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.write_at(offset, bytes)?;
        let mut state = self.lock();
        if state.random.below(EARLY_IN) == 0 { inode.write_back_some(&mut state.random) } else { Ok(()) }
    }

    fn sync_data(&self, file: &PowerFile) -> io::Result<()> {
        if let Err(error) = self.faults.before_sync() {
            file.lock().lose_unsynced();
            return Err(error);
        }
        if self.faults.syncs_lie() {
            return Ok(());
        }
        file.lock().sync()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(if self.faults.is_full() { 0 } else { FREE_BYTES })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl PowerFile {
    fn new(platter: File) -> io::Result<Self> {
        let length = platter.metadata()?.len();
        let inode = Inode { platter, length, unsynced: BTreeMap::new(), lost: BTreeMap::new() };
        Ok(Self { inode: Arc::new(Mutex::new(inode)) })
    }

    fn lock(&self) -> MutexGuard<'_, Inode> {
        lock(&self.inode)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked takes the process down with it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inode {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        self.read_platter(offset, buffer)?;
        let (first, last) = (offset / SECTOR as u64, (offset + count as u64).div_ceil(SECTOR as u64));
        // What was lost is older than what is unsynced.
        for (&number, sector) in self.lost.range(first..last).chain(self.unsynced.range(first..last)) {
            let start = number * SECTOR as u64;
            let from = start.max(offset);
            let to = (start + SECTOR as u64).min(offset + count as u64);
            let within =
                |at: u64, base: u64| usize::try_from(at - base).expect("within a buffer or a sector");
            buffer[within(from, offset)..within(to, offset)]
                .copy_from_slice(&sector[within(from, start)..within(to, start)]);
        }
        Ok(count)
    }

    /// The platter's bytes, with zeros where it has none.
    fn read_platter(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.platter.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let at = offset + written as u64;
            let number = at / SECTOR as u64;
            let within = usize::try_from(at % SECTOR as u64).expect("within a sector");
            let count = (SECTOR - within).min(bytes.len() - written);
            let mut sector = Box::new([0; SECTOR]);
            if count < SECTOR {
                self.read_sector(number, &mut sector)?;
            }
            sector[within..within + count].copy_from_slice(&bytes[written..written + count]);
            self.lost.remove(&number);
            self.unsynced.insert(number, sector);
            written += count;
        }
        self.length = self.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn read_sector(&self, number: u64, sector: &mut Sector) -> io::Result<()> {
        match self.unsynced.get(&number).or_else(|| self.lost.get(&number)) {
            Some(seen) => sector.copy_from_slice(&**seen),
            None => self.read_platter(number * SECTOR as u64, sector)?,
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        for (number, sector) in std::mem::take(&mut self.unsynced) {
            self.put(number, &sector[..])?;
        }
        Ok(())
    }

    /// Writes a sector, or the first part of one, to the platter; never beyond the file's end.
    fn put(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let start = number * SECTOR as u64;
        let left = usize::try_from(self.length.saturating_sub(start)).unwrap_or(usize::MAX);
        self.platter.write_all_at(&bytes[..bytes.len().min(left)], start)
    }

    /// Some unsynced sectors reach the platter early, one in eight of them torn (D2).
    fn write_back_some(&self, random: &mut Random) -> io::Result<()> {
        for (&number, sector) in &self.unsynced {
            match random.below(8) {
                0 => self.put(number, &sector[..random.below(SECTOR as u64) as usize])?,
                1..=3 => self.put(number, &sector[..])?,
                _ => {}
            }
        }
        Ok(())
    }

    fn lose_unsynced(&mut self) {
        self.lost.append(&mut self.unsynced);
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix('i')?.parse().ok()
}

fn read_names(text: &str) -> io::Result<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (number, name) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let names: Option<BTreeMap<String, u64>> = text.lines().map(line).collect();
    names.ok_or_else(|| io::Error::other("the table of names cannot be read"))
}

/// Slows a sync down.
pub(crate) fn stall(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed with this, and the disk in it after as many power cuts as it is opened.
    struct Cut(PathBuf);

    impl Cut {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tholos-power-{name}-{}", std::process::id()));
            let _none = fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self, faults: &Arc<Faults>, seed: u64) -> PowerDisk {
            PowerDisk::open(&self.0, Arc::clone(faults), seed).expect("the disk opens")
        }
    }

    impl Drop for Cut {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("our own directory can be removed");
        }
    }

    fn contents(disk: &PowerDisk, name: &str) -> Vec<u8> {
        let file = disk.open(name).expect("there is such a file");
        let mut bytes = vec![0; 1 << 16];
        let count = disk.read_at(&file, 0, &mut bytes).expect("readable");
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_need_not() {
        let cut = Cut::new("survive");
        let faults = Arc::new(Faults::default());
        let mut survived = 0;
        for seed in 0..200 {
            let disk = cut.open(&faults, seed);
            let file = disk.create("a").unwrap();
            disk.write_at(&file, 3, b"kept").unwrap();
            disk.sync_data(&file).unwrap();
            disk.sync_directory().unwrap();
            disk.write_at(&file, 1000, b"gone").unwrap();
            assert_eq!(&contents(&disk, "a")[1000..], b"gone");
            drop((disk, file));
            let disk = cut.open(&faults, seed);
            let seen = contents(&disk, "a");
            assert_eq!(&seen[..7], b"\0\0\0kept", "seed {seed}");
            survived += u32::from(seen.ends_with(b"gone"));
            disk.remove("a").unwrap();
            disk.sync_directory().unwrap();
            assert!(disk.list().unwrap().is_empty());
        }
        assert!((1..100).contains(&survived), "{survived} of 200 unsynced writes survived");
    }

    #[test]
    fn names_are_on_the_platter_after_a_sync_of_the_directory() {
        let cut = Cut::new("names");
        let faults = Arc::new(Faults::default());
        let mut early = 0;
        for seed in 0..200 {
            let disk = cut.open(&faults, seed);
            let file = disk.create("new").unwrap();
            disk.write_at(&file, 0, b"x").unwrap();
            disk.sync_data(&file).unwrap();
            drop((disk, file));
            let disk = cut.open(&faults, seed);
            early += u32::from(disk.open("new").is_ok());
            if disk.open("new").is_err() {
                let file = disk.create("new").unwrap();
                disk.write_at(&file, 0, b"x").unwrap();
                disk.sync_data(&file).unwrap();
            }
            disk.rename("new", "old").unwrap();
            disk.sync_directory().unwrap();
            drop(disk);
            let disk = cut.open(&faults, seed);
            assert_eq!(
                (disk.list().unwrap(), contents(&disk, "old")),
                (vec!["old".to_owned()], b"x".to_vec())
            );
            disk.remove("old").unwrap();
            disk.sync_directory().unwrap();
        }
        assert!((1..100).contains(&early), "{early} of 200 names were early");
    }

    #[test]
    fn a_failed_sync_is_seen_and_lost() {
        let cut = Cut::new("failed");
        let faults = Arc::new(Faults::default());
        let disk = cut.open(&faults, 1);
        let file = disk.create("a").unwrap();
        disk.write_at(&file, 0, &[1; 2048]).unwrap();
        disk.sync_data(&file).unwrap();
        disk.sync_directory().unwrap();
        disk.write_at(&file, 512, &[2; 512]).unwrap();
        faults.set("sync-fails");
        assert!(disk.sync_data(&file).is_err() && disk.sync_directory().is_err());
        faults.set("heal");
        disk.sync_data(&file).unwrap();
        assert_eq!(contents(&disk, "a")[512..1024], [2; 512]);
        drop((disk, file));
        assert_eq!(contents(&cut.open(&faults, 1), "a"), [1; 2048]);
    }

    #[test]
    fn a_full_disk_takes_what_does_not_grow() {
        let cut = Cut::new("full");
        let faults = Arc::new(Faults::default());
        let disk = cut.open(&faults, 1);
        let file = disk.create("a").unwrap();
        disk.write_at(&file, 0, &[1; 1024]).unwrap();
        faults.set("full");
        assert_eq!(disk.free_bytes().unwrap(), 0);
        disk.write_at(&file, 512, &[2; 512]).unwrap();
        let refused = disk.write_at(&file, 1000, &[3; 100]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.length(&file).unwrap(), 1024);
    }
}
