//! Segments written ahead, recycled and removed; limits; failures.

mod common;

use common::{Model, Random, open, open_with, tiny};
use tholos_wal::{
    BATCH_BYTES_MAX, Crash, Disk, FileDisk, Log, LogError, Lsn, MemDisk, OpenError, Options, Room, Spare,
    Tail,
};

fn prepare_spares(log: &mut Log<MemDisk>) {
    while log.prepare_spare().expect("prepare") == Spare::Working {}
}

#[test]
fn a_released_log_stays_within_a_few_segments_for_ever() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut names = std::collections::BTreeSet::new();
    for round in 0..2000_u64 {
        let lsn = log.append(&[(1, vec![round as u8; 900])]).expect("append");
        log.sync().expect("sync");
        log.release(Lsn(lsn.0.saturating_sub(3000)));
        prepare_spares(&mut log);
        names.extend(disk.list().expect("list"));
        assert!(log.usage().file_bytes <= 5 * tiny().segment_bytes, "{:?}", log.usage());
    }
    assert_eq!(log.usage().late_segments, 0, "a spare was ready each time");
    assert!(log.usage().created_segments <= 4, "files were recycled: {:?}", log.usage());
    assert!(names.len() > 300, "segments were recycled under new numbers: {}", names.len());
    let files = disk.list().expect("list").len();
    assert!(files <= 5, "{files} files");
    drop(log);
    let (log, recovery, seen) = open(&disk);
    assert_eq!((recovery.tail, &recovery.damage[..]), (Tail::Clean, &[][..]));
    assert!((3..=8).contains(&seen.len()), "only what was not released: {}", seen.len());
    assert!(seen.iter().all(|(_, _, payload)| payload[0] >= 200), "nothing old: {seen:?}");
    assert!(log.live_bytes() <= 3000 + 2 * 1536);
}

/// R20: the same batch at the same place in the segment's earlier use must not be found.
#[test]
fn a_recycled_segments_old_batches_do_not_come_back() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    for round in 0..40_u64 {
        let lsn = log.append(&[(1, round.to_le_bytes())]).expect("append");
        log.sync().expect("sync");
        log.release(lsn);
        log.sync().expect("sync");
        prepare_spares(&mut log);
    }
    let lsn = log.written_lsn();
    for seed in 0..20 {
        let disk = disk.fork();
        disk.crash(Crash::Power(seed));
        let (_, recovery, seen) = open(&disk);
        assert_eq!(recovery.recovered_lsn, lsn);
        assert!(seen.len() <= 1, "{seen:?}");
    }
}

/// R22: what replaced the released records must be durable before the release counts.
#[test]
fn a_release_waits_for_what_was_written_before_it() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let old = log.append(&[(1, b"promise")]).expect("append");
    log.sync().expect("sync");
    log.append(&[(1, b"promise, again")]).expect("append");
    log.release(old);
    log.append(&[(2, b"another")]).expect("append");
    // The disk has the last batch and not the one before it.
    let name = disk.list().expect("list")[0].clone();
    disk.tamper(&name, |bytes| bytes[4096 + 512..4096 + 1024].fill(0));
    let (_, recovery, seen) = open(&disk);
    assert_eq!(recovery.released_to, Lsn(0));
    assert_eq!(seen.len(), 1, "the old promise is still there");
    assert_eq!(seen[0].2, b"promise");
}

#[test]
fn an_idle_log_releases_by_its_seal() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut lsn = Lsn(0);
    for _ in 0..30 {
        lsn = log.append(&[(1, vec![7; 900])]).expect("append");
    }
    log.sync().expect("sync");
    let segments = log.usage().segments;
    // Four batches of 1024 would fit, but for the sector kept for the last seal.
    assert_eq!(log.oldest_segment_end(), Some(Lsn(3 * 1024)));
    log.release(lsn);
    log.seal().expect("seal");
    assert!(segments > 5 && log.usage().segments == 1, "{segments} then {:?}", log.usage());
    let changes = disk.changes();
    log.seal().expect("seal");
    assert_eq!(disk.changes(), changes, "nothing new to seal");
}

#[test]
fn a_batch_larger_than_a_segment_gets_its_own() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    prepare_spares(&mut log);
    log.append(&[(1, vec![1; 100])]).expect("append");
    log.append(&[(2, vec![2; 100_000]), (3, vec![3; 50_000])]).expect("append");
    log.append(&[(4, vec![4; 100])]).expect("append");
    let lsn = log.sync().expect("sync");
    for seed in 0..10 {
        let disk = disk.fork();
        disk.crash(Crash::Power(seed));
        let (_, recovery, seen) = open(&disk);
        assert_eq!(recovery.recovered_lsn, lsn);
        let sizes: Vec<usize> = seen.iter().map(|(_, _, payload)| payload.len()).collect();
        assert_eq!(sizes, [100, 100_000, 50_000, 100], "seed {seed}");
    }
    let large = disk.list().expect("list").len();
    log.release(lsn);
    log.seal().expect("seal");
    assert!(log.usage().file_bytes < 100_000, "the oversize file is gone: {:?}", log.usage());
    assert!(disk.list().expect("list").len() <= large);
}

/// R5 with a tail that fits no segment.
#[test]
fn a_live_tail_larger_than_a_segment_is_kept() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    for size in [5000, 60_000, 3000, 3000] {
        log.append(&[(size, vec![size as u8; size as usize])]).expect("append");
    }
    let lsn = log.written_lsn();
    disk.crash(Crash::Process);
    let (log, recovery, seen) = open(&disk);
    assert_eq!((recovery.recovered_lsn, seen.len()), (lsn, 4));
    assert_eq!(log.durable_lsn(), lsn);
    drop(log);
    disk.crash(Crash::Power(9));
    assert_eq!(open(&disk).2, seen);
}

#[test]
fn a_batch_beyond_the_bound_is_refused_and_harms_nothing() {
    let (mut log, ..) = open(&MemDisk::new());
    let half = vec![0; BATCH_BYTES_MAX as usize / 2];
    let error = log.append(&[(1, &half), (1, &half)]).expect_err("too large");
    assert!(matches!(error, LogError::BatchTooLarge { .. }), "{error}");
    log.append(&[(1, b"goes on")]).expect("append");
    log.sync().expect("sync");
}

/// R23.
#[test]
fn a_failed_sync_poisons_the_log() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"x")]).expect("append");
    disk.fail_syncs(true);
    let first = log.sync().expect_err("fails");
    assert!(matches!(first, LogError::Io { operation: "sync", .. }), "{first}");
    // The disk is well again; the log must not believe it.
    disk.fail_syncs(false);
    let changes = disk.changes();
    for error in [
        log.sync().expect_err("poisoned"),
        log.append(&[(1, b"y")]).expect_err("poisoned"),
        log.seal().expect_err("poisoned"),
        log.prepare_spare().expect_err("poisoned"),
    ] {
        let LogError::Poisoned { first: said } = &error else { panic!("{error}") };
        assert_eq!(**said, first.to_string());
    }
    assert_eq!(disk.changes(), changes, "nothing was tried again");
    assert_eq!(log.headroom().bytes, 0);
}

/// R23.
#[test]
fn a_failed_write_poisons_the_log() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    disk.fail_writes(true);
    let error = log.append(&[(1, b"x")]).expect_err("fails");
    let text = error.to_string();
    assert!(text.contains("cannot write mem/0000000000000001.wal"), "{text}");
    disk.fail_writes(false);
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
}

#[test]
fn a_full_disk_is_refused_before_it_is_reached() {
    let disk = MemDisk::new();
    let options = Options { disk_reserve_bytes: 20_000, ..tiny() };
    let (mut log, ..) = open_with(&disk, options).expect("open");
    disk.set_capacity_bytes(Some(200_000));
    let mut unwelcome_at = None;
    let mut written = 0;
    let error = loop {
        let headroom = log.headroom();
        assert_eq!(
            log.writers_welcome(),
            headroom.writers_welcome,
            "the quick answer is the same: {headroom:?}"
        );
        if !headroom.writers_welcome {
            unwelcome_at.get_or_insert(headroom.bytes);
        }
        match log.append(&[(1, vec![5; 900])]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        log.sync().expect("sync");
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(disk.free_bytes().expect("free") >= 20_000, "the reserve is left to others");
    assert!(unwelcome_at.is_some_and(|bytes| bytes > 20_000), "writers were refused first: {unwelcome_at:?}");
    // Nothing is lost, and a release makes room again.
    let (_, recovery, seen) = open(&disk.fork());
    assert_eq!((seen.len(), recovery.tail), (written, Tail::Clean));
    for _ in 0..100 {
        log.release(Lsn(log.written_lsn().0 - 20_000));
        log.append(&[(1, vec![6; 900])]).expect("there is room again");
    }
    log.sync().expect("sync");
    assert_eq!(open(&disk).1.damage, []);
}

/// A node whose disk has filled up starts all the same: what an opening writes goes into a spare.
#[test]
fn a_log_opens_without_any_room_in_what_it_has_spare() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"before")]).expect("append");
    log.seal().expect("seal");
    prepare_spares(&mut log);
    log.append(&[(1, b"not sealed")]).expect("append");
    log.sync().expect("sync");
    drop(log);
    disk.set_capacity_bytes(Some(disk.used_bytes()));
    let (mut log, recovery, seen) = open(&disk);
    assert!(recovery.short_of_room && recovery.damage.is_empty(), "{recovery:?}");
    assert_eq!(seen.len(), 2);
    log.append(&[(1, b"a promise")]).expect("what was opened has room");
    log.sync().expect("sync");
    drop(log);

    // Nothing is spare now.
    let error = open_with(&disk, tiny()).expect_err("no room at all");
    assert!(matches!(error, OpenError::Full { free_bytes: 0, .. }), "{error}");
    assert!(error.to_string().contains("free space on this file system and start the node again"), "{error}");
    disk.set_capacity_bytes(None);
    let (_, recovery, seen) = open(&disk);
    assert!(!recovery.short_of_room);
    assert_eq!(seen.len(), 3);
}

/// Nor does it matter how often: an opening that was not written to is the next one's spare.
#[test]
fn a_full_disk_is_opened_any_number_of_times() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"before")]).expect("append");
    log.seal().expect("seal");
    prepare_spares(&mut log);
    drop(log);
    disk.set_capacity_bytes(Some(disk.used_bytes()));
    for _ in 0..10 {
        let (_, recovery, seen) = open(&disk);
        assert!(recovery.short_of_room && recovery.damage.is_empty(), "{recovery:?}");
        assert_eq!(seen.len(), 1);
    }
}

/// R22: what is released is room for an opening once that is on disk for good.
#[test]
fn a_log_opens_without_any_room_in_what_was_released() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    for _ in 0..40 {
        log.append(&[(1, vec![7; 900])]).expect("append");
    }
    log.sync().expect("sync");
    log.release(Lsn(log.written_lsn().0 - 10_000));
    log.sync().expect("sync");
    let release_stated = log.append(&[(1, b"states the release")]).expect("append");
    drop(log);
    disk.crash(tholos_wal::Crash::Process);
    disk.set_capacity_bytes(Some(disk.used_bytes()));
    // It is in the page cache only.
    let error = open_with(&disk.fork(), tiny()).expect_err("no room at all");
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    disk.set_capacity_bytes(None);
    drop(open(&disk));
    disk.set_capacity_bytes(Some(disk.used_bytes()));
    let (_, recovery, seen) = open(&disk);
    assert!(recovery.short_of_room && recovery.damage.is_empty(), "{recovery:?}");
    assert_eq!(seen.last().map(|(_, lsn, _)| *lsn), Some(release_stated.0));
}

#[test]
fn the_limit_of_the_log_holds() {
    let disk = MemDisk::new();
    let options = Options { log_bytes_max: 100_000, ..tiny() };
    let (mut log, ..) = open_with(&disk, options).expect("open");
    let mut refused = 0;
    for round in 0..400 {
        match log.append(&[(1, vec![round as u8; 900])]) {
            Ok(_) => {}
            Err(LogError::Full { .. }) => {
                refused += 1;
                // A release that frees nothing helps nothing, and harms nothing.
                log.release(Lsn(512));
                log.append(&[(1, vec![0; 900])]).expect_err("still full");
                log.seal().expect("no room is no failure");
                log.release(Lsn(log.written_lsn().0 - 20_000));
            }
            Err(error) => panic!("{error}"),
        }
        log.sync().expect("sync");
        assert!(log.usage().file_bytes <= 100_000);
    }
    assert!(refused > 0);
}

/// Beyond its limit the log welcomes no writers, and takes what must be written all the same; once that is released it is as small as ever.
#[test]
fn what_must_be_written_may_exceed_the_limit() {
    let disk = MemDisk::new();
    let options = Options { log_bytes_max: 100_000, overdraft_bytes: 100_000, ..tiny() };
    let (mut log, ..) = open_with(&disk, options).expect("open");
    let (mut over, mut spent_at) = (0, None);
    while let Ok(_lsn) = log.append(&[(1, vec![1; 900])]) {
        log.sync().expect("sync");
        let used = log.usage().file_bytes;
        assert!(used <= 200_000);
        if log.room() == Room::Spent {
            spent_at.get_or_insert(used);
        } else {
            assert_eq!(spent_at, None, "it is no more for whatever is appended");
            assert_eq!(log.room() == Room::Ample, log.writers_welcome());
        }
        if used > 100_000 {
            over += 1;
            assert!(!log.writers_welcome() && !log.headroom().writers_welcome);
            // Nothing is made ahead of its time with what is not meant for it.
            log.prepare_spare().expect_err("no spare beyond the limit");
        }
    }
    assert!(over > 20, "{over}");
    let spent_at = spent_at.expect("others' entries are not welcome to the end");
    assert!((110_000..=150_000).contains(&spent_at), "half of the overdraft is left: {spent_at}");
    log.release(log.written_lsn());
    log.seal().expect("a seal has room in the last segment");
    while matches!(log.prepare_spare(), Ok(tholos_wal::Spare::Working)) {}
    assert_eq!(log.room(), Room::Ample);
    assert!(log.usage().file_bytes <= 100_000, "{:?}", log.usage());
}

#[test]
fn contradicting_options_are_refused() {
    for options in [
        Options { segment_bytes: 1000, ..tiny() },
        Options { segment_bytes: 10_001, ..tiny() },
        Options { log_bytes_max: 10, ..tiny() },
        Options { spare_step_bytes: 0, ..tiny() },
    ] {
        let error = open_with(&MemDisk::new(), options).expect_err("refused");
        assert!(matches!(error, OpenError::Options { .. }), "{error}");
    }
    assert!(open_with(&MemDisk::new(), Options::default()).is_ok());
}

#[test]
fn segments_of_another_size_are_read_and_replaced() {
    let disk = MemDisk::new();
    let mut model = Model::default();
    for (life, segment_bytes) in [8 << 10, 32 << 10, 8 << 10, 64 << 10].into_iter().enumerate() {
        let options = Options { segment_bytes, ..tiny() };
        let (mut log, recovery, seen) = open_with(&disk, options).expect("open");
        model.check(&recovery, &seen);
        let mut random = Random(life as u64);
        for _ in 0..150 {
            assert!(model.step(&mut log, &mut random));
        }
    }
    let (_, recovery, seen) = open(&disk);
    model.check(&recovery, &seen);
}

#[test]
fn a_real_directory_behaves_like_the_simulated_one() {
    let directory = std::env::temp_dir().join(format!("tholos-wal-test-{}", std::process::id()));
    let disk = FileDisk::new(directory.join("wal")).expect("create");
    let mut lsn = Lsn(0);
    for life in 0..3_u32 {
        let mut seen = Vec::new();
        let (mut log, recovery) =
            Log::open(disk.clone(), tiny(), |group, _, payload: &[u8]| seen.push((group, payload.len())))
                .expect("open");
        assert_eq!(recovery.recovered_lsn, lsn);
        assert_eq!(seen.len(), life as usize * 20);
        for round in 0..20 {
            log.append(&[(life, vec![round; 400 * round as usize])]).expect("append");
            log.sync().expect("sync");
            while log.prepare_spare().expect("prepare") == Spare::Working {}
        }
        lsn = log.seal().expect("seal");
        assert!(log.headroom().writers_welcome);
    }
    std::fs::remove_dir_all(directory).expect("clean up");
}

#[test]
fn a_log_that_is_never_idle_goes_on_in_spares_that_were_lent() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut lent = None;
    for round in 0..200_u8 {
        log.append(&[(1, vec![round; 900])]).expect("append");
        log.sync().expect("sync");
        lent = match lent {
            None => log.lend_spare().expect("lend"),
            Some(spare) => written_or_back(spare, &mut log),
        };
    }
    let usage = log.usage();
    assert!(usage.created_segments > 10, "{usage:?}");
    assert_eq!(usage.late_segments, 0, "{usage:?}");
    drop(log);
    let (_, _, seen) = open(&disk);
    assert_eq!(seen.len(), 200);
}

fn written_or_back(
    mut spare: tholos_wal::LentSpare<MemDisk>,
    log: &mut tholos_wal::Log<MemDisk>,
) -> Option<tholos_wal::LentSpare<MemDisk>> {
    if spare.write() {
        return Some(spare);
    }
    log.take_spare_back(spare).expect("take back");
    None
}

#[test]
fn a_log_that_needs_a_segment_while_one_is_lent_writes_another() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut spare = log.lend_spare().expect("lend").expect("none is ready");
    for round in 0..40_u8 {
        log.append(&[(1, vec![round; 900])]).expect("append");
        log.sync().expect("sync");
        assert_eq!(log.lend_spare().expect("lend").map(drop), None, "one at a time");
        assert_eq!(log.prepare_spare().expect("prepare"), Spare::Enough, "left to the one that is lent");
    }
    while spare.write() {}
    log.take_spare_back(spare).expect("take back");
    assert_eq!(log.usage().spares, 1);
    let late = log.usage().late_segments;
    assert!(late > 2, "{late}");
    for round in 40..60_u8 {
        log.append(&[(1, vec![round; 300])]).expect("append");
        log.sync().expect("sync");
    }
    drop(log);
    let (_, _, seen) = open(&disk);
    assert!(seen.iter().map(|(.., payload)| payload[0]).eq(0..60), "in order, in segments in order");
}

#[test]
fn a_lent_spare_that_fails_stops_the_log_and_one_without_room_does_not() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut spare = log.lend_spare().expect("lend").expect("none is ready");
    disk.fail_syncs(true);
    while spare.write() {}
    let error = log.take_spare_back(spare).expect_err("the disk failed");
    assert!(matches!(error, tholos_wal::LogError::Io { .. }), "{error}");
    log.append(&[(1, b"more")]).expect_err("R23");

    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    let mut spare = log.lend_spare().expect("lend").expect("none is ready");
    disk.set_capacity_bytes(Some(0));
    while spare.write() {}
    let error = log.take_spare_back(spare).expect_err("no room");
    assert!(matches!(error, tholos_wal::LogError::Full { .. }), "{error}");
    assert_eq!(log.lend_spare().expect("asked for room first").map(drop), None);
    disk.set_capacity_bytes(None);
    log.append(&[(1, b"more")]).expect("the log is well");
    log.sync().expect("sync");
}
