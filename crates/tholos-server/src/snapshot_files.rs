//! The snapshot files of a node: being written, being received, and read to be sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use tholos_node::{LoadedSnapshot, SnapshotLoader};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{
    Disk, SnapshotChunk, SnapshotError, SnapshotName, SnapshotSource, SnapshotWriter, remove_snapshots_below,
};

/// Finished files that are kept open to be read, at most: more than are sent at a time.
const SOURCES_MAX: usize = 8;

/// Why a snapshot from another node is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    File(#[from] SnapshotError),
    /// The bytes are those that were sent, and no snapshot.
    #[error("{0}")]
    Contents(String),
}

/// What became of a received chunk.
pub(crate) enum Received {
    /// It is written, and was not the last.
    Taken,
    /// All of it is durable and read.
    Loaded(Box<LoadedSnapshot>),
    /// Its file was given up.
    Unknown,
}

/// All of a node. Each file is in the hands of one thread.
pub(crate) struct SnapshotFiles<D: Disk> {
    disk: D,
    writers: BTreeMap<SnapshotName, SnapshotWriter<D>>,
    receivers: BTreeMap<ShardId, Receiver<D>>,
    /// Finished files that something was read of, the latest last.
    sources: Vec<(SnapshotName, SnapshotSource<D>)>,
}

struct Receiver<D: Disk> {
    file: u64,
    writer: SnapshotWriter<D>,
    loader: SnapshotLoader,
}

impl<D: Disk> SnapshotFiles<D> {
    pub(crate) fn new(disk: D) -> SnapshotFiles<D> {
        SnapshotFiles { disk, writers: BTreeMap::new(), receivers: BTreeMap::new(), sources: Vec::new() }
    }

    pub(crate) fn begin(&mut self, shard: ShardId, index: Index) -> Result<(), SnapshotError> {
        let name = name(shard, index);
        self.writers.insert(name, SnapshotWriter::create(self.disk.clone(), name)?);
        Ok(())
    }

    /// False if the file was given up before: what follows a failure was asked for before the core heard of it.
    pub(crate) fn write(
        &mut self,
        shard: ShardId,
        index: Index,
        bytes: &Bytes,
    ) -> Result<bool, SnapshotError> {
        let Some(writer) = self.writers.get_mut(&name(shard, index)) else { return Ok(false) };
        if !bytes.is_empty() {
            // The writer syncs in steps, so that the log's own syncs never wait for long.
            writer.write_chunk(bytes)?;
        }
        Ok(true)
    }

    /// The same, for the end of the file.
    pub(crate) fn finish(&mut self, shard: ShardId, index: Index) -> Result<bool, SnapshotError> {
        let name = name(shard, index);
        let Some(writer) = self.writers.remove(&name) else { return Ok(false) };
        writer.finish()?;
        // It may have replaced one that was read.
        self.close(name);
        Ok(true)
    }

    pub(crate) fn abandon(&mut self, shard: ShardId, index: Index) {
        if let Some(Err(error)) = self.writers.remove(&name(shard, index)).map(SnapshotWriter::abandon) {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
    }

    /// A chunk to be sent, and how many there are if the file is finished. `None`: there is no such chunk.
    pub(crate) fn read(
        &mut self,
        shard: ShardId,
        index: Index,
        chunk: u32,
    ) -> Result<Option<(SnapshotChunk, u32)>, SnapshotError> {
        let name = name(shard, index);
        if let Some(writer) = self.writers.get(&name) {
            return Ok(writer.read_chunk(chunk)?.map(|chunk| (chunk, 0)));
        }
        let (_, mut source) = match self.sources.iter().position(|(known, _)| *known == name) {
            Some(at) => self.sources.remove(at),
            None => (name, SnapshotSource::open(self.disk.clone(), name)?),
        };
        let chunks = u32::try_from(source.chunks()).unwrap_or(u32::MAX);
        let read = source.read_chunk(chunk)?;
        if self.sources.len() >= SOURCES_MAX {
            self.sources.remove(0);
        }
        self.sources.push((name, source));
        Ok(read.map(|chunk| (chunk, chunks)))
    }

    fn close(&mut self, name: SnapshotName) {
        self.sources.retain(|(known, _)| *known != name);
    }

    /// Takes a chunk from a leader. After an error its file is given up.
    pub(crate) fn receive(
        &mut self,
        shard: ShardId,
        (index, file): (Index, u64),
        number: u32,
        (bytes, checksum): (&Bytes, u32),
        last: bool,
    ) -> Result<Received, ReceiveError> {
        if number == 0 {
            let writer = SnapshotWriter::receive(self.disk.clone(), name(shard, index))?;
            self.receivers.insert(shard, Receiver { file, writer, loader: SnapshotLoader::new() });
        }
        let Some(receiver) = self.receivers.get_mut(&shard).filter(|receiver| receiver.file == file) else {
            return Ok(Received::Unknown);
        };
        receiver.writer.write_received(bytes, checksum)?;
        receiver.loader.push(bytes).map_err(ReceiveError::Contents)?;
        if !last {
            return Ok(Received::Taken);
        }
        let Some(Receiver { writer, loader, .. }) = self.receivers.remove(&shard) else {
            return Ok(Received::Unknown);
        };
        let snapshot = loader.finish().map_err(ReceiveError::Contents)?;
        self.close(writer.finish()?);
        Ok(Received::Loaded(Box::new(snapshot)))
    }

    /// Gives up what has come of a snapshot.
    pub(crate) fn forget(&mut self, shard: ShardId, file: u64) {
        if self.receivers.get(&shard).is_some_and(|receiver| receiver.file == file)
            && let Some(Err(error)) = self.receivers.remove(&shard).map(|receiver| receiver.writer.abandon())
        {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
    }

    pub(crate) fn remove_below(&mut self, shard: ShardId, index: Index) {
        let shard = u32::from(shard.0);
        self.sources.retain(|(name, _)| name.shard != shard || name.index >= index.0);
        if let Err(error) = remove_snapshots_below(&self.disk, shard, index.0) {
            tracing::warn!(%shard, %index, %error, "old snapshots stay for now");
        }
    }
}

fn name(shard: ShardId, index: Index) -> SnapshotName {
    SnapshotName { shard: u32::from(shard.0), index: index.0 }
}

#[cfg(test)]
mod tests {
    use tholos_wal::MemDisk;

    use super::*;

    #[test]
    fn files_that_were_read_are_not_kept_open_for_ever() {
        let mut files = SnapshotFiles::new(MemDisk::new());
        let shards = || (0..3 * SOURCES_MAX as u16).map(ShardId);
        for shard in shards() {
            files.begin(shard, Index(1)).expect("begin");
            files.write(shard, Index(1), &Bytes::from(format!("{shard}"))).expect("write");
            files.finish(shard, Index(1)).expect("finish");
        }
        for _ in 0..2 {
            for shard in shards() {
                let (chunk, chunks) = files.read(shard, Index(1), 0).expect("read").expect("it is there");
                assert_eq!((&chunk.bytes[..], chunks), (format!("{shard}").as_bytes(), 1));
                assert!(files.sources.len() <= SOURCES_MAX, "{} files are open", files.sources.len());
            }
        }
    }
}
