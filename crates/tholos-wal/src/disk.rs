//! Everything the log does to the world, as a trait with two users: the real directory and the simulated one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        Ok(Self { directory: directory.into() })
    }
}

impl Disk for FileDisk {
    type File = File;

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        // A new inode rather than a truncated one: no reader of an old handle sees it change.
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().read(true).write(true).create_new(true).open(self.path(name))
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
        File::open(&self.directory)?.sync_all()
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        // fdatasync on Linux; the standard library asks for F_FULLFSYNC on macOS, where less does not reach the disk.
        file.sync_data()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&*self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
