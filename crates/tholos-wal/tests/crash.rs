//! Crashes at every change, with any subset of the unsynced sectors kept, dropped or torn.

mod common;

use common::{Model, Random, open, open_with, tiny};
use tholos_wal::{Crash, MemDisk};

/// Lives several lives on one disk, each ended by a crash somewhere, recovery included.
fn live(seed: u64) {
    let disk = MemDisk::new();
    let mut random = Random(seed);
    let mut model = Model::default();
    for _ in 0..8 {
        if random.below(3) == 0 {
            // R5: a crash during recovery must leave what the crash before it left.
            disk.die_after(Some(1 + random.below(12)));
        }
        // A full disk must not keep a log from opening in what it has, nor lose what it had.
        let full = random.below(4) == 0;
        disk.set_capacity_bytes(full.then(|| disk.used_bytes()));
        let opened = open_with(&disk, tiny());
        disk.die_after(None);
        disk.set_capacity_bytes(None);
        let Ok((mut log, recovery, seen)) = opened else {
            disk.crash(some_crash(&mut random));
            continue;
        };
        model.check(&recovery, &seen);
        match random.below(4) {
            0 => {}
            1 => disk.die_after(Some(1 + random.below(20))),
            _ => disk.die_after(Some(1 + random.below(400))),
        }
        let calls = random.below(200);
        let failing_sync_at = (random.below(4) == 0).then(|| random.below(200));
        for call in 0..calls {
            if failing_sync_at == Some(call) {
                disk.fail_syncs(true);
            }
            if !model.step(&mut log, &mut random) {
                break;
            }
        }
        disk.crash(some_crash(&mut random));
    }
    let (_, recovery, seen) = open(&disk);
    model.check(&recovery, &seen);
}

fn some_crash(random: &mut Random) -> Crash {
    if random.below(4) == 0 { Crash::Process } else { Crash::Power(random.next()) }
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    let seeds = std::env::var("WAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| live(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// The same short life, ended at each of its changes in turn.
#[test]
fn a_crash_at_every_change_loses_nothing() {
    let life = |disk: &MemDisk, model: &mut Model| {
        let Ok((mut log, recovery, seen)) = open_with(disk, tiny()) else { return };
        model.check(&recovery, &seen);
        let mut random = Random(11);
        for _ in 0..60 {
            if !model.step(&mut log, &mut random) {
                return;
            }
        }
    };
    let whole = MemDisk::new();
    life(&whole, &mut Model::default());
    let changes = whole.changes();
    assert!(changes > 60, "the life is long enough to matter: {changes}");
    for change in 1..=changes {
        for seed in 0..8 {
            let disk = MemDisk::new();
            let mut model = Model::default();
            disk.die_after(Some(change));
            life(&disk, &mut model);
            disk.crash(Crash::Power(seed));
            let (_, recovery, seen) = open(&disk);
            model.check(&recovery, &seen);
        }
    }
}

/// R5: what recovery shows is on disk when it returns, though only the page cache had it before.
#[test]
fn recovery_makes_durable_what_only_the_page_cache_held() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"acknowledged")]).expect("append");
    log.sync().expect("sync");
    log.append(&[(2, b"only in the page cache")]).expect("append");
    disk.fail_syncs(true);
    log.sync().expect_err("the disk fails");
    disk.crash(Crash::Process);
    let (_, recovery, seen) = open(&disk);
    assert_eq!(seen.len(), 2, "the page cache shows both");
    for seed in 0..50 {
        let disk = disk.fork();
        disk.crash(Crash::Power(seed));
        let (_, after, again) = open(&disk);
        assert_eq!(again, seen, "seed {seed}");
        assert_eq!(after.recovered_lsn, recovery.recovered_lsn);
    }
}

/// R5, twice: a crash at any point of recovery, and at any point of the recovery after that.
#[test]
fn a_double_crash_during_recovery_loses_nothing() {
    let disk = MemDisk::new();
    let mut model = Model::default();
    let (mut log, recovery, seen) = open(&disk);
    model.check(&recovery, &seen);
    let mut random = Random(5);
    for _ in 0..30 {
        assert!(model.append(&mut log, &mut random));
        if random.below(2) == 0 {
            model.acknowledged = log.sync().expect("sync").0;
        }
    }
    disk.crash(Crash::Process);
    let mut cases = 0;
    for first in 1..40 {
        for second in 1..40 {
            let disk = disk.fork();
            let mut model = model.fork();
            for (changes, seed) in [(first, first * 7), (second, second * 11)] {
                disk.die_after(Some(changes));
                if let Ok((_, recovery, seen)) = open_with(&disk, tiny()) {
                    model.check(&recovery, &seen);
                }
                disk.crash(Crash::Power(seed));
            }
            let (_, recovery, seen) = open(&disk);
            model.check(&recovery, &seen);
            cases += 1;
        }
    }
    assert_eq!(cases, 39 * 39);
}
