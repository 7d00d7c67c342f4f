//! A small real node's log and snapshots, damaged at every byte and cut at every length: nothing that was acknowledged is
//! lost without a word, and nothing damaged is served (R20, R21).
//!
//! A test takes a part of the bytes; `SWEEP=all cargo test -p tholos-server --lib sweep` takes all of them, which is
//! minutes.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use tholos_cluster::{ClusterId, NodeId, NodeRow};
use tholos_paxos::Ballot;
use tholos_wal::MemDisk;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use super::*;
use crate::server::{NodeSettings, PeerPort, Tuning, start_node_on};

const SHARDS: u16 = 2;

/// One in so many bytes is damaged, if not all are to be.
fn stride(some: usize) -> usize {
    if std::env::var("SWEEP").is_ok_and(|value| value == "all") { 1 } else { some }
}

/// What a replica must know again.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    applied: Index,
    digest: u64,
    promised: Ballot,
    accepted: (Ballot, Index),
}

/// A node that has written snapshots, recycled its log, and been stopped in order.
struct Sample {
    path: PathBuf,
    directory: NodeDir,
    map: ClusterMap,
    options: Options,
    wal: MemDisk,
    snapshots: MemDisk,
    /// What a peer has counted of the log.
    counted: u64,
    whole: Vec<Option<Known>>,
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What became of damaged copies.
#[derive(Debug, Default)]
struct Tally {
    /// Nothing that counts was hit.
    harmless: usize,
    /// Refused, with an error that names the place.
    refused: usize,
    /// Some replica is mute.
    mute: usize,
    /// The log ends before what a peer has counted: all are mute once it says so.
    short: usize,
}

fn pick(path: &Path, wal: &MemDisk, snapshots: &MemDisk) -> MemDisk {
    if path.ends_with("wal") { wal.clone() } else { snapshots.clone() }
}

fn row(directory: &NodeDir) -> NodeRow {
    NodeRow {
        id: NodeId(1),
        name: "n1".to_owned(),
        zone: String::new(),
        weight: 1,
        incarnation: directory.identity().incarnation,
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    }
}

/// Writes until both shards have a snapshot that the log cannot do without, for what came before it is recycled.
async fn write(port: u16, snapshots: &MemDisk) {
    let mut client = BufStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let mut number = 0;
    // A release is rounded down to 256 KiB, so the log must be several times that long.
    while number < 2_000 || tholos_wal::list_snapshots(snapshots).unwrap().len() < usize::from(SHARDS) {
        let (key, value) = (format!("key:{}", number % 12), "v".repeat(250 + number % 7));
        let text = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
        client.write_all(text.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        let mut reply = String::new();
        client.read_line(&mut reply).await.unwrap();
        // A log so small is now and then without room until a snapshot is written.
        assert!(reply == "+OK\r\n" || reply.starts_with("-DISK"), "{reply}");
        number += 1;
        assert!(number < 20_000, "no snapshots come");
    }
}

async fn sample() -> Sample {
    let path = std::env::temp_dir().join(format!("tholos-sweep-{:016x}", getrandom::u64().unwrap()));
    let mut directory = NodeDir::open(&path, "n1").unwrap();
    let map = ClusterMap::genesis(ClusterId([7; 20]), vec![row(&directory)], SHARDS, 1).unwrap();
    directory.write_map(map.clone()).unwrap();
    let options = Options { segment_bytes: 32 << 10, log_bytes_max: 1 << 20, ..Options::small() };
    let (wal, snapshots) = (MemDisk::new(), MemDisk::new());
    let ports = crate::ports::pick_free(3).unwrap();
    let at = |port: u16| format!("127.0.0.1:{port}").parse().unwrap();
    let settings = NodeSettings {
        directory,
        map: map.clone(),
        gateway: Some(at(ports[0])),
        cluster: at(ports[1]),
        peer: PeerPort::Listen(at(ports[2])),
        secret: None,
        tuning: Tuning { wal: options.clone(), ..Tuning::default() },
    };
    let disks = (wal.clone(), snapshots.clone());
    let node = start_node_on(settings, move |path| Ok(pick(path, &disks.0, &disks.1))).await.unwrap();
    write(ports[0], &snapshots).await;
    let counted = node.handle().wal.counters.durable_lsn.load(Ordering::Relaxed);
    node.stop(false).await;
    let directory = NodeDir::open(&path, "n1").unwrap();
    let mut sample = Sample { path, directory, map, options, wal, snapshots, counted, whole: Vec::new() };
    let recovered = sample.recover(&sample.wal.fork(), &sample.snapshots.fork()).unwrap();
    assert!(recovered.recovery.recovered_lsn.0 >= counted && recovered.recovery.released_to.0 > 0);
    sample.whole = known(&recovered);
    assert!(sample.whole.iter().flatten().filter(|known| known.applied > Index::ZERO).count() == 2);
    sample
}

/// Of each replica that counts, what it knows.
fn known(recovered: &Recovered<MemDisk>) -> Vec<Option<Known>> {
    let shards = (0..SHARDS).map(|shard| recovered.node.shard(ShardId(shard)).unwrap());
    let known = shards.map(|shard| {
        let group = &shard.group;
        shard.loss.is_none().then(|| Known {
            applied: group.applied_index(),
            digest: shard.keyspace.digest(),
            promised: group.promised(),
            accepted: (group.accepted_ballot(), group.accepted_index()),
        })
    });
    known.collect()
}

impl Sample {
    fn recover(&self, wal: &MemDisk, snapshots: &MemDisk) -> Result<Recovered<MemDisk>, RecoverError> {
        let config = NodeConfig::new(NodeId(1), 7, 7);
        let open = |path: &Path| Ok(pick(path, wal, snapshots));
        let maps = Maps { begun: self.map.clone(), newest: None };
        recover(&self.directory, open, config, maps, self.options.clone(), CountedLsns::new())
    }

    fn disk(&self, in_log: bool) -> &MemDisk {
        if in_log { &self.wal } else { &self.snapshots }
    }

    /// Damages a copy, and sees that it is owned up to.
    fn check(
        &self,
        in_log: bool,
        name: &str,
        what: &str,
        tally: &mut Tally,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        let (wal, snapshots) = (self.wal.fork(), self.snapshots.fork());
        if in_log {
            wal.tamper(name, change)
        } else {
            snapshots.tamper(name, change)
        }
        let recovered = match self.recover(&wal, &snapshots) {
            Ok(recovered) => recovered,
            Err(error) => {
                let text = error.to_string();
                assert!(!matches!(error, RecoverError::Record { .. }), "{name} {what}: {text}");
                tally.refused += 1;
                return;
            }
        };
        if recovered.recovery.recovered_lsn.0 < self.counted {
            tally.short += 1;
            return;
        }
        let known = known(&recovered);
        for (shard, (known, whole)) in known.iter().zip(&self.whole).enumerate() {
            assert!(
                known.is_none() || known == whole,
                "{name} {what}: s{shard} knows {known:?}, not {whole:?}"
            );
        }
        if known == self.whole { tally.harmless += 1 } else { tally.mute += 1 }
    }

    /// Flips a bit of each byte that is not padding, and of the first `all_bits` bytes of each file every bit.
    fn flip(&self, in_log: bool, all_bits: usize, some: usize) -> Tally {
        let mut tally = Tally::default();
        let mut turn = 0;
        for name in self.disk(in_log).list().unwrap() {
            let bytes = self.disk(in_log).contents(&name).unwrap();
            for at in 0..bytes.len() {
                // Of zeros that nobody reads some are enough.
                if bytes[at] == 0 && at >= all_bits && at % 61 != 0 {
                    continue;
                }
                let bits = if at < all_bits { 0..8 } else { at % 8..at % 8 + 1 };
                for bit in bits {
                    turn += 1;
                    if turn % stride(some) != 0 {
                        continue;
                    }
                    let what = format!("byte {at} bit {bit}");
                    self.check(in_log, &name, &what, &mut tally, |bytes| bytes[at] ^= 1 << bit);
                }
            }
        }
        tally
    }

    fn cut(&self, in_log: bool, step: usize) -> Tally {
        let mut tally = Tally::default();
        for name in self.disk(in_log).list().unwrap() {
            for length in (0..self.disk(in_log).contents(&name).unwrap().len()).step_by(stride(step)) {
                let what = format!("cut to {length}");
                self.check(in_log, &name, &what, &mut tally, |bytes| bytes.truncate(length));
            }
        }
        tally
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_byte_of_a_log_is_owned_up_to() {
    let tally = sample().await.flip(true, 80, 1_499);
    println!("{tally:?}");
    // How much of it is harmless depends on how many spares there were time for.
    assert!(tally.mute > 10, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_byte_of_a_snapshot_is_owned_up_to() {
    let tally = sample().await.flip(false, 64, 41);
    println!("{tally:?}");
    // Every byte is under a checksum; a file is harmless if the log still holds what it does.
    assert!(tally.mute > 10 && tally.short == 0 && tally.refused == 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cut_of_a_file_is_owned_up_to() {
    let sample = sample().await;
    let (log, files) = (sample.cut(true, 4_001), sample.cut(false, 61));
    println!("{log:?} {files:?}");
    assert!(log.mute + log.short > 10, "{log:?}");
    assert!(files.mute > 10 && files.short == 0 && files.refused == 0, "{files:?}");
}
