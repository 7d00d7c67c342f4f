//! Everything the log does to the world, as a trait with two users: the real directory and the simulated one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::format::SECTOR_BYTES;

/// The memory of a write that may go around the page cache begins at a multiple of this, in bytes; its place and its
/// length are multiples of [`SECTOR_BYTES`]. A page, since some controllers want more of the memory than a sector.
pub(crate) const MEMORY_ALIGNMENT: usize = 4096;

/// One directory of files.
///
/// What an implementation must keep: bytes written are readable at once, and on disk only after
/// [`sync_data`](Self::sync_data) of their file; a created, renamed or removed name is on disk only after
/// [`sync_directory`](Self::sync_directory). Clones are handles to the same directory.
pub trait Disk: Send + Clone {
    /// An open file, readable and writable.
    type File: Send;

    /// Opens an existing file.
    ///
    /// # Errors
    /// As the operating system has it; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file, in place of one of that name if there is one.
    ///
    /// # Errors
    /// As the operating system has it.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// The names of all files in the directory, sorted.
    ///
    /// # Errors
    /// As the operating system has it.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file, in place of one of the new name if there is one.
    ///
    /// # Errors
    /// As the operating system has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system has it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the directory's names durable.
    ///
    /// # Errors
    /// As the operating system has it.
    fn sync_directory(&self) -> io::Result<()>;

    /// The length of a file, in bytes.
    ///
    /// # Errors
    /// As the operating system has it.
    fn length(&self, file: &Self::File) -> io::Result<u64>;

    /// Reads at `offset`, at most the buffer's length; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// As the operating system has it; a bad sector is an error.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if need be.
    ///
    /// # Errors
    /// As the operating system has it; how much was written is then unknown.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// As the operating system has it; what is on disk is then unknown (R23).
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Bytes that may still be written to the file system of this directory.
    ///
    /// # Errors
    /// As the operating system has it.
    fn free_bytes(&self) -> io::Result<u64>;

    /// How an error message names a file of this directory.
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory of the real file system.
#[derive(Debug, Clone)]
pub struct FileDisk {
    directory: Arc<Path>,
    /// Held open: a sync of it that found no descriptor free would be a failed one, and end the node (R23).
    handle: Arc<File>,
}

impl FileDisk {
    /// Takes `directory`, and creates it (durably, in its parent) if it is missing.
    ///
    /// # Errors
    /// If it cannot be created or is no directory.
    pub fn new(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        if !directory.is_dir() {
            fs::create_dir_all(&directory)?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let handle = Arc::new(File::open(&directory)?);
        Ok(Self { directory: directory.into(), handle })
    }
}

/// An open file of a [`FileDisk`].
///
/// Batches of the log go around the page cache (`O_DIRECT`): the copy, the write-back and the bookkeeping of pages are
/// a good third of what a durable batch costs otherwise. Where the system has no such thing, or refuses it for this
/// file, they go through it like everything else; what is durable is decided by [`Disk::sync_data`] either way.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    direct: Option<File>,
    /// The file system or the device refused a direct write: the rest goes through the page cache.
    refused: AtomicBool,
}

impl DiskFile {
    fn new(file: File, path: &Path) -> DiskFile {
        DiskFile { file, direct: open_direct(path), refused: AtomicBool::new(false) }
    }

    /// Writes as much as can be written directly, and says how much that was.
    fn write_direct(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let Some(direct) = &self.direct else { return Ok(0) };
        let fits = offset.is_multiple_of(SECTOR_BYTES as u64)
            && bytes.len().is_multiple_of(SECTOR_BYTES)
            && bytes.as_ptr().addr().is_multiple_of(MEMORY_ALIGNMENT);
        if !fits || self.refused.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.try_direct(direct, offset, bytes)
    }

    /// Writes to the direct handle until all is written or it is refused, and says how much was written.
    fn try_direct(&self, direct: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match direct.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing of it was written: sectors of this device are larger, or the file system cannot do it.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path) -> Option<File> {
    None
}

/// What is read of an existing file is to come from the disk: the page cache may hold good bytes over bad sectors. Best
/// effort; what was written and not synced stays there, and recovery writes that again (R5).
#[cfg(target_os = "linux")]
fn forget_cached(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget_cached(_file: &File) {}

impl Disk for FileDisk {
    type File = DiskFile;

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        forget_cached(&file);
        Ok(DiskFile::new(file, &path))
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        // A new inode rather than a truncated one: no reader of an old handle sees it change.
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(DiskFile::new(OpenOptions::new().read(true).write(true).create_new(true).open(&path)?, &path))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn length(&self, file: &DiskFile) -> io::Result<u64> {
        Ok(file.file.metadata()?.len())
    }

    fn read_at(&self, file: &DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = file.write_direct(offset, bytes)?;
        file.file.write_all_at(&bytes[written..], offset + written as u64)
    }

    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        // fdatasync on Linux; the standard library asks for F_FULLFSYNC on macOS, where less does not reach the disk.
        file.file.sync_data()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&*self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuffer;

    fn directory(name: &str) -> PathBuf {
        let unique = format!("tholos-wal-{name}-{}", std::process::id());
        std::env::temp_dir().join(unique)
    }

    #[test]
    fn writes_around_and_through_the_page_cache_see_each_other() {
        let path = directory("direct");
        let disk = FileDisk::new(&path).expect("create");
        let file = disk.create("segment").expect("create");
        let mut expected = vec![0_u8; 64 << 10];
        disk.write_at(&file, 0, &expected).expect("write");
        let mut aligned = AlignedBuffer::default();
        // Sectors at places that are whole sectors and not whole pages, with writes of odd sizes between them.
        for step in 0..60_usize {
            let fill = step as u8 + 1;
            let (offset, length) = match step % 3 {
                0 => (SECTOR_BYTES * (step + 1), SECTOR_BYTES * 3),
                1 => (SECTOR_BYTES * step + 7, 333),
                _ => (SECTOR_BYTES * step, SECTOR_BYTES),
            };
            aligned.reset(length);
            aligned.push(&vec![fill; length]);
            disk.write_at(&file, offset as u64, aligned.bytes()).expect("write");
            disk.sync_data(&file).expect("sync");
            expected[offset..offset + length].fill(fill);
            let mut seen = vec![0; expected.len()];
            assert_eq!(disk.read_at(&file, 0, &mut seen).expect("read"), expected.len());
            assert!(seen == expected, "after step {step} the file is not what was written");
        }
        fs::remove_dir_all(path).expect("remove");
    }

    #[test]
    fn sync_of_the_directory_opens_nothing() {
        let path = directory("held");
        let disk = FileDisk::new(&path).expect("create");
        // Whoever opened it by its name would not find it now.
        let moved = path.with_extension("moved");
        fs::rename(&path, &moved).expect("rename");
        disk.sync_directory().expect("the directory is held");
        fs::remove_dir_all(moved).expect("remove");
    }

    #[test]
    fn file_system_that_refuses_direct_writes_is_written_to_all_the_same() {
        let path = directory("refused");
        let disk = FileDisk::new(&path).expect("create");
        let file = disk.create("segment").expect("create");
        if let Some(direct) = &file.direct {
            // At a place within a sector: `EINVAL` on every file system that writes directly at all.
            let written = file.try_direct(direct, 7, &[9; SECTOR_BYTES]).expect("a refusal is no error");
            assert_eq!(
                file.refused.load(Ordering::Relaxed),
                written < SECTOR_BYTES,
                "a refusal is remembered"
            );
        }
        let mut aligned = AlignedBuffer::default();
        aligned.reset(SECTOR_BYTES);
        aligned.push(&[9; SECTOR_BYTES]);
        disk.write_at(&file, 4096, aligned.bytes()).expect("write");
        let mut seen = [0; SECTOR_BYTES];
        assert_eq!(disk.read_at(&file, 4096, &mut seen).expect("read"), SECTOR_BYTES);
        assert_eq!(seen, [9; SECTOR_BYTES]);
        fs::remove_dir_all(path).expect("remove");
    }
}
