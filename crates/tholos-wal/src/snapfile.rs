//! Snapshot files: a stream of chunks, each verified by a checksum that covers all before it too.
//!
//! Rules kept here: R22: the file and its directory are synced before [`SnapshotWriter::finish`] returns, so nothing that
//! it replaces goes before it is there; writing syncs in steps, so that it does not hold up the log's syncs.
//!
//! The format is in `docs/protocol/wal.md`.

use std::fmt;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::SnapshotError;

/// The format this release writes, and the newest it reads.
pub const SNAPSHOT_FORMAT_VERSION: u32 = 1;

/// The largest chunk, in bytes.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 4 << 20;

/// Written bytes after which the writer syncs: a long sync at the end would hold up the log's, on the same disk.
const SYNC_STEP_BYTES: u64 = 4 << 20;
const MAGIC: [u8; 8] = *b"THOLOSSN";
const HEADER_BYTES: usize = 32;
const CHUNK_HEAD_BYTES: usize = 8;
const TRAILER_BYTES: usize = 24;

/// Names of files that are not finished: written here, and received from another node.
const UNFINISHED: [&str; 2] = [".tmp", ".part"];

/// Which snapshot: its shard, and the index up to which it has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// The shard's number.
    pub shard: u32,
    /// Index of the last entry in it.
    pub index: u64,
}

impl SnapshotName {
    /// The name of its file, `s<shard>-<index>.snap`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("s{}-{}.snap", self.shard, self.index)
    }

    /// The reverse of [`file_name`](Self::file_name); `None` for any other name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (shard, index) = name.strip_prefix('s')?.strip_suffix(".snap")?.split_once('-')?;
        let parsed = Self { shard: shard.parse().ok()?, index: index.parse().ok()? };
        // Refuses signs and leading zeros, which would give one snapshot two names.
        (parsed.file_name() == name).then_some(parsed)
    }

    fn unfinished_name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.file_name())
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&SNAPSHOT_FORMAT_VERSION.to_le_bytes());
        header[16..20].copy_from_slice(&self.shard.to_le_bytes());
        header[24..32].copy_from_slice(&self.index.to_le_bytes());
        let crc = header_crc(&header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

fn header_crc(header: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

/// One chunk of a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The checksum of everything up to its end, as it stands in the file. The same chunks in the same order under
    /// the same [`SnapshotName`] have the same checksums.
    pub checksum: u32,
}

/// Writes one snapshot. Dropped before [`finish`](Self::finish), it leaves a temporary file that
/// [`remove_unfinished_snapshots`] removes.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    name: SnapshotName,
    suffix: &'static str,
    file: D::File,
    /// Bytes written to the file.
    offset: u64,
    unsynced_bytes: u64,
    /// Checksum of everything so far; the next one goes on from it.
    chain: u32,
    places: Places,
    bytes: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins the file under a temporary name.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn create(disk: D, name: SnapshotName) -> Result<Self, SnapshotError> {
        Self::create_as(disk, name, UNFINISHED[0])
    }

    /// Begins the file of a snapshot that another node sends, under a temporary name of its own.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn receive(disk: D, name: SnapshotName) -> Result<Self, SnapshotError> {
        Self::create_as(disk, name, UNFINISHED[1])
    }

    fn create_as(disk: D, name: SnapshotName, suffix: &'static str) -> Result<Self, SnapshotError> {
        let unfinished = name.unfinished_name(suffix);
        let file = disk.create(&unfinished).map_err(|source| SnapshotError::Io {
            operation: "create",
            path: disk.path(&unfinished),
            source,
        })?;
        let header = name.header();
        let mut writer = Self {
            disk,
            name,
            suffix,
            file,
            offset: 0,
            unsynced_bytes: 0,
            chain: header_crc(&header),
            places: Places::new(),
            bytes: 0,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends a chunk of 1 to [`SNAPSHOT_CHUNK_BYTES_MAX`] bytes, and syncs when enough is written.
    ///
    /// # Errors
    /// [`SnapshotError::ChunkSize`] has done nothing; after [`SnapshotError::Io`] drop the writer.
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.is_empty() || chunk.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            let (bytes, max) = (chunk.len() as u64, SNAPSHOT_CHUNK_BYTES_MAX as u64);
            return Err(SnapshotError::ChunkSize { bytes, max });
        }
        let length = u32::try_from(chunk.len()).expect("bounded above").to_le_bytes();
        self.chain = chunk_crc(self.chain, length, chunk);
        let mut framed = Vec::with_capacity(CHUNK_HEAD_BYTES + chunk.len());
        framed.extend_from_slice(&length);
        framed.extend_from_slice(&self.chain.to_le_bytes());
        framed.extend_from_slice(chunk);
        self.write(&framed)?;
        self.places.0.push(self.offset);
        self.bytes += chunk.len() as u64;
        if self.unsynced_bytes >= SYNC_STEP_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Appends a chunk that was read from another file of this snapshot, if it follows what is here.
    ///
    /// # Errors
    /// As [`write_chunk`](Self::write_chunk); [`SnapshotError::Damaged`] if `chunk` is not what comes next, or is not what
    /// was read: then drop the writer.
    pub fn write_received(&mut self, chunk: &[u8], checksum: u32) -> Result<(), SnapshotError> {
        let at = self.offset;
        self.write_chunk(chunk)?;
        if self.chain != checksum {
            let path = self.disk.path(&self.name.unfinished_name(self.suffix));
            return Err(SnapshotError::Damaged {
                path,
                offset: at,
                what: "a received chunk does not follow",
            });
        }
        Ok(())
    }

    /// Reads a chunk back, from 0, while the file is still being written; `None` if it is not written yet.
    ///
    /// # Errors
    /// As [`SnapshotReader::next_chunk`].
    pub fn read_chunk(&self, number: u32) -> Result<Option<SnapshotChunk>, SnapshotError> {
        let path = || self.disk.path(&self.name.unfinished_name(self.suffix));
        if u64::from(number) >= self.places.chunks() {
            return Ok(None);
        }
        self.places.read(&self.disk, &self.file, number, &self.name.header(), path).map(Some)
    }

    /// Bytes of chunks so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the file, syncs it, gives it its name and syncs the directory: from here on it is durable (R22).
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; the snapshot must then not be named anywhere.
    pub fn finish(mut self) -> Result<SnapshotName, SnapshotError> {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[8..16].copy_from_slice(&self.places.chunks().to_le_bytes());
        trailer[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = trailer_crc(self.chain, &trailer);
        trailer[4..8].copy_from_slice(&crc.to_le_bytes());
        self.write(&trailer)?;
        self.sync()?;
        let (from, to) = (self.name.unfinished_name(self.suffix), self.name.file_name());
        self.disk.rename(&from, &to).map_err(|source| self.error("rename", source))?;
        self.disk.sync_directory().map_err(|source| self.error("sync the directory of", source))?;
        Ok(self.name)
    }

    /// Gives the unfinished file up and removes it.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; [`remove_unfinished_snapshots`] removes it then.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        let removed = self.disk.remove(&self.name.unfinished_name(self.suffix));
        removed.map_err(|source| self.error("remove", source))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let written = self.disk.write_at(&self.file, self.offset, bytes);
        written.map_err(|source| self.error("write", source))?;
        self.offset += bytes.len() as u64;
        self.unsynced_bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SnapshotError> {
        self.disk.sync_data(&self.file).map_err(|source| self.error("sync", source))?;
        self.unsynced_bytes = 0;
        Ok(())
    }

    fn error(&self, operation: &'static str, source: std::io::Error) -> SnapshotError {
        SnapshotError::Io { operation, path: self.disk.path(&self.name.unfinished_name(self.suffix)), source }
    }
}

fn chunk_crc(before: u32, length: [u8; 4], chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &length), chunk)
}

/// Where the chunks of a file begin, and the next one would.
#[derive(Debug)]
struct Places(Vec<u64>);

impl Places {
    fn new() -> Places {
        Places(vec![HEADER_BYTES as u64])
    }

    fn chunks(&self) -> u64 {
        self.0.len() as u64 - 1
    }

    /// Reads and verifies chunk `number`, whose place is known.
    fn read<D: Disk>(
        &self,
        disk: &D,
        file: &D::File,
        number: u32,
        header: &[u8; HEADER_BYTES],
        path: impl Fn() -> PathBuf,
    ) -> Result<SnapshotChunk, SnapshotError> {
        let at = self.0[number as usize];
        let damaged = |what| SnapshotError::Damaged { path: path(), offset: at, what };
        let read = |offset: u64, buffer: &mut [u8]| match disk.read_at(file, offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(damaged("it ends within a chunk")),
            Err(source) => Err(SnapshotError::Io { operation: "read", path: path(), source }),
        };
        let mut head = [0; CHUNK_HEAD_BYTES];
        read(at, &mut head)?;
        let (length, checksum) = split_head(head);
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes == 0 || bytes > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(damaged("a chunk's length is none that a chunk has"));
        }
        let before = match number.checked_sub(1) {
            None => header_crc(header),
            Some(before) => {
                let mut head = [0; CHUNK_HEAD_BYTES];
                read(self.0[before as usize], &mut head)?;
                split_head(head).1
            }
        };
        let mut chunk = vec![0; bytes];
        read(at + CHUNK_HEAD_BYTES as u64, &mut chunk)?;
        if chunk_crc(before, length, &chunk) != checksum {
            return Err(damaged("a chunk's checksum does not hold"));
        }
        Ok(SnapshotChunk { bytes: chunk, checksum })
    }
}

/// A chunk's length, as its bytes, and its checksum.
fn split_head(head: [u8; CHUNK_HEAD_BYTES]) -> ([u8; 4], u32) {
    let [a, b, c, d, rest @ ..] = head;
    ([a, b, c, d], u32::from_le_bytes(rest))
}

/// Reads single chunks of a finished snapshot, in any order, each verified with the one before it.
pub struct SnapshotSource<D: Disk> {
    reader: SnapshotReader<D>,
    places: Places,
    chunks: u64,
}

impl<D: Disk> fmt::Debug for SnapshotSource<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SnapshotSource({}, {} chunks)", self.reader.name.file_name(), self.chunks)
    }
}

impl<D: Disk> SnapshotSource<D> {
    /// Opens a finished snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`]; `Io` with `NotFound` if there is none.
    pub fn open(disk: D, name: SnapshotName) -> Result<Self, SnapshotError> {
        let reader = SnapshotReader::open(disk, name)?;
        let length = reader.disk.length(&reader.file).map_err(|source| reader.io(source))?;
        let mut trailer = [0; TRAILER_BYTES];
        let at = length.saturating_sub(TRAILER_BYTES as u64);
        let count =
            reader.disk.read_at(&reader.file, at, &mut trailer).map_err(|source| reader.io(source))?;
        let chunks = u64::from_le_bytes(trailer[8..16].try_into().expect("eight bytes"));
        // Each has a head and a byte at least; whether the count is true, each chunk's own checks will tell.
        if count < TRAILER_BYTES || trailer[..4] != [0; 4] || chunks > length / (CHUNK_HEAD_BYTES as u64 + 1)
        {
            return Err(reader.damaged(at, "its trailer does not hold"));
        }
        Ok(Self { reader, places: Places::new(), chunks })
    }

    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Chunk `number`, from 0; `None` after the last.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if it or a head before it is not as it was written, [`SnapshotError::Io`].
    pub fn read_chunk(&mut self, number: u32) -> Result<Option<SnapshotChunk>, SnapshotError> {
        if u64::from(number) >= self.chunks {
            return Ok(None);
        }
        while self.places.chunks() < u64::from(number) {
            self.pass_chunk()?;
        }
        let (reader, path) = (&self.reader, || self.reader.path());
        self.places.read(&reader.disk, &reader.file, number, &reader.name.header(), path).map(Some)
    }

    /// Finds the place after the last one known.
    fn pass_chunk(&mut self) -> Result<(), SnapshotError> {
        let at = self.places.0[self.places.0.len() - 1];
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.reader.offset = at;
        self.reader.read(&mut head, "it ends where a chunk should begin")?;
        let bytes = u32::from_le_bytes(split_head(head).0) as usize;
        if bytes == 0 || bytes > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(self.reader.damaged(at, "a chunk's length is none that a chunk has"));
        }
        self.places.0.push(at + (CHUNK_HEAD_BYTES + bytes) as u64);
        Ok(())
    }
}

fn trailer_crc(chain: u32, trailer: &[u8; TRAILER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &trailer[..4]), &trailer[8..])
}

/// Reads one snapshot and verifies it on the way. Nothing may be installed before
/// [`next_chunk`](Self::next_chunk) has returned `None`: only then is it known to be whole.
#[derive(Debug)]
pub struct SnapshotReader<D: Disk> {
    disk: D,
    name: SnapshotName,
    file: D::File,
    offset: u64,
    chain: u32,
    chunks: u64,
    bytes: u64,
    ended: bool,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens a finished snapshot and verifies its header.
    ///
    /// # Errors
    /// [`SnapshotError`]; `Io` with `NotFound` if there is none.
    pub fn open(disk: D, name: SnapshotName) -> Result<Self, SnapshotError> {
        let path = disk.path(&name.file_name());
        let file = disk.open(&name.file_name()).map_err(|source| SnapshotError::Io {
            operation: "open",
            path: path.clone(),
            source,
        })?;
        let mut reader = Self { disk, name, file, offset: 0, chain: 0, chunks: 0, bytes: 0, ended: false };
        let mut header = [0; HEADER_BYTES];
        reader.read(&mut header, "it ends within its header")?;
        let crc = header_crc(&header);
        if header[..8] != MAGIC || header[12..16] != crc.to_le_bytes() {
            return Err(reader.damaged(0, "it has no valid header"));
        }
        let found = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        if found > SNAPSHOT_FORMAT_VERSION {
            return Err(SnapshotError::NewerFormat { path, found, supported: SNAPSHOT_FORMAT_VERSION });
        }
        if header != name.header() {
            return Err(reader.damaged(0, "its header names another snapshot"));
        }
        reader.chain = crc;
        Ok(reader)
    }

    /// The next chunk; `None` after the last, when all of the file has been verified.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if anything is not as it was written, [`SnapshotError::Io`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.offset;
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.read(&mut head, "it ends where a chunk should begin")?;
        let (length, crc) = split_head(head);
        if length == [0; 4] {
            return self.read_end(at, head).map(|()| None);
        }
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(self.damaged(at, "a chunk is longer than any can be"));
        }
        let mut chunk = vec![0; bytes];
        self.read(&mut chunk, "it ends within a chunk")?;
        self.chain = chunk_crc(self.chain, length, &chunk);
        if self.chain != crc {
            return Err(self.damaged(at, "a chunk's checksum does not hold"));
        }
        self.chunks += 1;
        self.bytes += bytes as u64;
        Ok(Some(chunk))
    }

    /// Reads all that is left and verifies it.
    ///
    /// # Errors
    /// As [`next_chunk`](Self::next_chunk).
    pub fn verify(mut self) -> Result<(), SnapshotError> {
        while self.next_chunk()?.is_some() {}
        Ok(())
    }

    fn read_end(&mut self, at: u64, head: [u8; CHUNK_HEAD_BYTES]) -> Result<(), SnapshotError> {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..CHUNK_HEAD_BYTES].copy_from_slice(&head);
        self.read(&mut trailer[CHUNK_HEAD_BYTES..], "it ends within its trailer")?;
        let crc = trailer_crc(self.chain, &trailer);
        let counts = [self.chunks.to_le_bytes(), self.bytes.to_le_bytes()].concat();
        if trailer[4..8] != crc.to_le_bytes() || trailer[8..] != counts {
            return Err(self.damaged(at, "its trailer does not hold"));
        }
        let length = self.disk.length(&self.file).map_err(|source| self.io(source))?;
        if length != self.offset {
            return Err(self.damaged(self.offset, "bytes follow its trailer"));
        }
        self.ended = true;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], short: &'static str) -> Result<(), SnapshotError> {
        let count = self.disk.read_at(&self.file, self.offset, buffer).map_err(|source| self.io(source))?;
        if count < buffer.len() {
            return Err(self.damaged(self.offset, short));
        }
        self.offset += count as u64;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.disk.path(&self.name.file_name())
    }

    fn io(&self, source: std::io::Error) -> SnapshotError {
        SnapshotError::Io { operation: "read", path: self.path(), source }
    }

    fn damaged(&self, offset: u64, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path(), offset, what }
    }
}

/// The finished snapshots of the directory, by shard and index.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn list_snapshots<D: Disk>(disk: &D) -> Result<Vec<SnapshotName>, SnapshotError> {
    let names = list(disk)?;
    let mut snapshots: Vec<SnapshotName> =
        names.iter().filter_map(|name| SnapshotName::parse(name)).collect();
    snapshots.sort_unstable();
    Ok(snapshots)
}

/// Removes the shard's snapshots with an index below `index`; how many. Call it when a durable record names a newer one.
///
/// # Errors
/// [`SnapshotError::Io`]; some may be removed.
pub fn remove_snapshots_below<D: Disk>(disk: &D, shard: u32, index: u64) -> Result<usize, SnapshotError> {
    let old = list_snapshots(disk)?.into_iter().filter(|name| name.shard == shard && name.index < index);
    remove(disk, old.map(|name| name.file_name()).collect())
}

/// Removes what a crash left of snapshots that were being written; how many. Call it at start only.
///
/// # Errors
/// [`SnapshotError::Io`]; some may be removed.
pub fn remove_unfinished_snapshots<D: Disk>(disk: &D) -> Result<usize, SnapshotError> {
    let unfinished = |name: &String| {
        let finished = UNFINISHED.iter().find_map(|suffix| name.strip_suffix(suffix));
        finished.is_some_and(|name| SnapshotName::parse(name).is_some())
    };
    remove(disk, list(disk)?.into_iter().filter(unfinished).collect())
}

fn list<D: Disk>(disk: &D) -> Result<Vec<String>, SnapshotError> {
    disk.list().map_err(|source| SnapshotError::Io { operation: "list", path: disk.path(""), source })
}

fn remove<D: Disk>(disk: &D, names: Vec<String>) -> Result<usize, SnapshotError> {
    for name in &names {
        let io = |source| SnapshotError::Io { operation: "remove", path: disk.path(name), source };
        disk.remove(name).map_err(io)?;
    }
    Ok(names.len())
}
