//! How many durable batches a second: this log beside a plain file that grows, in one run on one disk.
//!
//! `cargo run --release -p tholos-wal --example commit_rate [-- DIRECTORY [SECONDS]]`
//!
//! A batch of n entries is 256 B for each of n groups, made durable before the next one begins. The two logs take turns
//! in slices of a tenth of a second, so that a slow moment of the disk meets both.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tholos_wal::{FileDisk, Log, Lsn, Options, Spare};

const ENTRY_BYTES: usize = 256;
const SLICE: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(|| PathBuf::from("commit-rate"), PathBuf::from);
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    fs::create_dir_all(&directory)?;
    println!(
        "{:>18} {:>14} {:>14} {:>7} {:>12} {:>12}",
        "entries × groups", "plain /s", "wal /s", "ratio", "plain p99", "wal p99"
    );
    for entries in [1_u32, 16, 256] {
        let batch: Vec<(u32, [u8; ENTRY_BYTES])> =
            (0..entries).map(|group| (group, [group as u8; ENTRY_BYTES])).collect();
        let mut plain = Plain::create(&directory)?;
        let mut wal = Wal::create(&directory.join("wal"))?;
        // Warm up: the log reaches its steady state, in which each segment is recycled.
        wal.run(&batch, Duration::from_millis(500), &mut Vec::new())?;
        let (mut plain_times, mut wal_times) = (Vec::new(), Vec::new());
        let end = Instant::now() + Duration::from_secs_f64(2.0 * seconds);
        while Instant::now() < end {
            plain.run(&batch, SLICE, &mut plain_times)?;
            wal.run(&batch, SLICE, &mut wal_times)?;
        }
        let (plain_rate, wal_rate) = (rate(&plain_times), rate(&wal_times));
        let name = format!("{entries} × {entries}");
        let ratio = wal_rate / plain_rate;
        let (plain_p99, wal_p99) = (p99(&mut plain_times), p99(&mut wal_times));
        println!(
            "{name:>18} {plain_rate:>14.0} {wal_rate:>14.0} {ratio:>7.2} {plain_p99:>9.0} µs {wal_p99:>9.0} µs"
        );
        drop(wal);
        fs::remove_dir_all(directory.join("wal"))?;
        fs::remove_file(directory.join("plain"))?;
    }
    fs::remove_dir(&directory).or_else(|error| {
        if error.kind() == std::io::ErrorKind::DirectoryNotEmpty { Ok(()) } else { Err(error) }
    })?;
    Ok(())
}

fn rate(times: &[Duration]) -> f64 {
    times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64()
}

fn p99(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * 99 / 100].as_secs_f64() * 1e6
}

/// One file that grows: framing and checksum of the simplest kind.
struct Plain {
    file: File,
    buffer: Vec<u8>,
}

impl Plain {
    fn create(directory: &Path) -> std::io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).write(true).open(directory.join("plain"))?;
        Ok(Self { file, buffer: Vec::new() })
    }

    fn run(
        &mut self,
        batch: &[(u32, [u8; ENTRY_BYTES])],
        time: Duration,
        times: &mut Vec<Duration>,
    ) -> std::io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let start = Instant::now();
            self.buffer.clear();
            self.buffer.extend_from_slice(&[0; 8]);
            for (group, payload) in batch {
                self.buffer.extend_from_slice(&group.to_le_bytes());
                self.buffer.extend_from_slice(payload);
            }
            let crc = crc32c::crc32c(&self.buffer[8..]);
            self.buffer[..4].copy_from_slice(&crc.to_le_bytes());
            self.file.write_all(&self.buffer)?;
            self.file.sync_data()?;
            times.push(start.elapsed());
        }
        Ok(())
    }
}

/// This log, with its upkeep (releases, spares) in the time it is charged for.
struct Wal {
    log: Log<FileDisk>,
}

impl Wal {
    fn create(directory: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let (mut log, _) = Log::open(FileDisk::new(directory)?, Options::default(), |_, _, _| {})?;
        while log.prepare_spare()? == Spare::Working {}
        Ok(Self { log })
    }

    fn run(
        &mut self,
        batch: &[(u32, [u8; ENTRY_BYTES])],
        time: Duration,
        times: &mut Vec<Duration>,
    ) -> Result<(), tholos_wal::LogError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let start = Instant::now();
            let lsn = self.log.append(batch)?;
            self.log.sync()?;
            // As an owner does whose snapshots keep up.
            self.log.release(Lsn(lsn.0.saturating_sub(8 << 20)));
            self.log.prepare_spare()?;
            times.push(start.elapsed());
        }
        Ok(())
    }
}
