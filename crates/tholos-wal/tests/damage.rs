//! Rot and tears: every byte of a small log damaged in turn, every length cut, whole files gone.

mod common;

use common::{Seen, open, open_with, tiny};
use tholos_wal::{Crash, Damage, Disk, Log, Lsn, MemDisk, OpenError, Options, Recovery, Spare, Tail};

/// A clean log of some segments with everything synced batch by batch, and what it holds.
fn small_log(sealed: bool) -> (MemDisk, Vec<Seen>) {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    for batch in 0..12_u32 {
        let sizes = [40, 0, 700 + batch as usize * 60];
        let records: Vec<(u32, Vec<u8>)> = (0..3)
            .map(|record| (batch * 3 + record, vec![batch as u8 + 1; sizes[record as usize]]))
            .collect();
        log.append(&records).expect("append");
        log.sync().expect("sync");
    }
    if sealed {
        log.seal().expect("seal");
    }
    drop(log);
    disk.crash(Crash::Power(0));
    let (_, recovery, seen) = open(&disk.fork());
    assert_eq!((seen.len(), recovery.tail, recovery.damage), (36, Tail::Clean, vec![]));
    (disk, seen)
}

/// Opens a damaged copy. Each record it does not give must be owned up to: as rot that names its group, or by lying
/// above `synced_to` and so in the dropped tail.
fn check(disk: &MemDisk, expected: &[Seen], context: &str) -> Recovery {
    let (_, recovery, seen) = open(disk);
    let mut missing = expected.iter().filter(|record| !seen.contains(record));
    assert!(seen.iter().all(|record| expected.contains(record)), "{context}: gave a damaged record");
    assert!(seen.is_sorted_by_key(|(_, lsn, _)| *lsn), "{context}: out of order");
    let owned_up = |(group, lsn, _): &Seen| {
        let rot = |damage: &Damage| {
            let hit = damage.from.0 < *lsn && *lsn <= damage.to.0;
            hit && damage.groups.as_ref().is_none_or(|groups| groups.contains(group))
        };
        *lsn > recovery.synced_to.0 || recovery.damage.iter().any(rot)
    };
    assert!(missing.all(owned_up), "{context}: lost a durable record without a word: {recovery:?}");
    for damage in recovery.damage.iter().filter_map(|damage| damage.groups.as_ref()) {
        let lost = |group: &u32| !seen.iter().any(|(seen, ..)| seen == group);
        assert!(damage.iter().all(lost), "{context}: named a group that lost nothing");
    }
    recovery
}

fn each_byte(sealed: bool, mut judge: impl FnMut(&Recovery, &str)) {
    let (disk, expected) = small_log(sealed);
    let names = disk.list().expect("list");
    assert!(names.len() >= 2, "several segments: {names:?}");
    for name in names {
        let bytes = disk.contents(&name).expect("listed");
        for at in 0..bytes.len() {
            // Zeros that nobody reads: some of them are enough.
            if bytes[at] == 0 && at % 17 != 0 {
                continue;
            }
            let damaged = disk.fork();
            damaged.tamper(&name, |bytes| bytes[at] ^= 1 << (at % 8));
            let context = format!("{name} byte {at}");
            judge(&check(&damaged, &expected, &context), &context);
        }
    }
}

#[test]
fn any_damaged_byte_of_a_sealed_log_is_rot() {
    let (mut rot, mut one_group) = (0, 0);
    each_byte(true, |recovery, context| {
        assert!(recovery.damage.len() <= 1, "{context}: {recovery:?}");
        rot += usize::from(!recovery.damage.is_empty());
        one_group += usize::from(recovery.damage.iter().any(|damage| damage.groups.is_some()));
        // The seal's own damage leaves the last batch above `synced_to`, and whole.
        assert!(recovery.records == 36 || !recovery.damage.is_empty(), "{context}: dropped as a tear");
    });
    assert!(rot > 10_000 && one_group > 10_000, "rot {rot}, of one group {one_group}");
}

#[test]
fn only_the_last_batch_of_an_unsealed_log_can_be_taken_for_torn() {
    let mut torn = 0;
    each_byte(false, |recovery, context| {
        let dropped = recovery.records < 36 && recovery.damage.is_empty();
        if dropped {
            torn += 1;
            assert_eq!(recovery.records, 33, "{context}: a tear took more than the last batch");
        }
    });
    assert!(torn > 500, "{torn}");
}

#[test]
fn any_cut_of_a_file_leaves_a_prefix_or_is_rot() {
    let (disk, expected) = small_log(true);
    for name in disk.list().expect("list") {
        let length = disk.contents(&name).expect("listed").len();
        for cut in 0..length {
            let damaged = disk.fork();
            damaged.tamper(&name, |bytes| bytes.truncate(cut));
            check(&damaged, &expected, &format!("{name} cut to {cut}"));
        }
    }
}

#[test]
fn a_missing_segment_before_others_is_rot_of_unknown_groups() {
    let (disk, expected) = small_log(true);
    let names = disk.list().expect("list");
    for name in &names[..names.len() - 1] {
        let damaged = disk.fork();
        damaged.remove(name).expect("remove");
        let recovery = check(&damaged, &expected, name);
        assert_eq!(recovery.damage.len(), 1, "{name}: {recovery:?}");
        assert_eq!(recovery.damage[0].groups, None, "{name}");
    }
}

#[test]
fn rot_is_reported_again_until_it_is_released() {
    let (disk, expected) = small_log(true);
    let first = disk.list().expect("list")[0].clone();
    disk.tamper(&first, |bytes| bytes[4096 + 60] ^= 1);
    let (_, recovery, _) = open(&disk);
    let damage = recovery.damage.clone();
    assert_eq!(damage.len(), 1);
    let (mut log, recovery, seen) = open(&disk);
    assert_eq!(recovery.damage, damage, "still there");
    // The owner repairs from its peers, appends what it still needs, and releases.
    log.append(&[(0, b"repaired")]).expect("append");
    log.sync().expect("sync");
    log.release(Lsn(seen.last().expect("records").1));
    log.seal().expect("seal");
    drop(log);
    let (_, recovery, seen) = open(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(seen.len(), 1);
    assert!(!expected.contains(&seen[0]));
}

#[test]
fn what_was_lost_before_a_record_that_needs_nothing_is_no_loss() {
    let (disk, _) = small_log(true);
    let first = disk.list().expect("list")[0].clone();
    // Group 0's record of the first batch, then the first batch as a whole.
    for (at, one_group) in [(4096 + 56 + 36, true), (4096 + 8, false)] {
        let disk = disk.fork();
        disk.tamper(&first, |bytes| bytes[at] ^= 1);
        let (_, recovery, _) = open(&disk);
        let to = recovery.damage[0].to;
        assert_eq!(recovery.damage[0].groups.is_some(), one_group);
        for (replaced_at, lost) in [(None, true), (Some(to), true), (Some(Lsn(to.0 + 512)), false)] {
            assert_eq!(recovery.lost_records_of(0, replaced_at), lost, "{replaced_at:?}");
            assert_eq!(recovery.lost_records_of(35, replaced_at), lost && !one_group, "{replaced_at:?}");
        }
    }
}

/// What the log wrote again when it was opened is durable, and says so: damage to it is rot even before any batch
/// follows.
#[test]
fn a_rewritten_tail_that_is_damaged_is_rot() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"one")]).expect("append");
    log.append(&[(2, b"two")]).expect("append");
    drop(log);
    drop(open(&disk));
    let name = disk.list().expect("list")[1].clone();
    // Also with one copy of the header gone.
    for header_byte in [None, Some(40), Some(2048 + 40)] {
        let disk = disk.fork();
        disk.tamper(&name, |bytes| {
            bytes[4096 + 512 + 8] ^= 1;
            header_byte.into_iter().for_each(|at| bytes[at] ^= 1);
        });
        let (_, recovery, seen) = open(&disk);
        assert_eq!((seen.len(), recovery.tail), (1, Tail::Clean));
        assert_eq!(recovery.damage, [Damage { from: Lsn(512), to: Lsn(1024), groups: None }]);
        assert_eq!(recovery.worn.len(), usize::from(header_byte.is_some()));
    }
}

/// The segment that an opening began says what it dropped. When it is lost as a whole, later ones still do.
#[test]
fn a_lost_openings_segment_does_not_bring_back_what_it_dropped() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"one")]).expect("append");
    let end = log.sync().expect("sync");
    for _ in 0..4 {
        log.append(&[(2, b"never synced")]).expect("append");
    }
    // The disk wrote all of them but the first.
    let name = disk.list().expect("list")[0].clone();
    disk.tamper(&name, |bytes| bytes[4096 + 512..4096 + 1024].fill(0));
    let (mut log, recovery, _) = open(&disk);
    assert_eq!(recovery.recovered_lsn, end);
    let opened = disk.list().expect("list").last().cloned().expect("its segment");
    // Into the next segment, past all that was dropped.
    while disk.list().expect("list").len() < 3 {
        log.append(&[(3, vec![7; 900])]).expect("append");
        log.sync().expect("sync");
    }
    log.append(&[(4, b"last")]).expect("append");
    log.seal().expect("seal");
    drop(log);
    disk.remove(&opened).expect("remove");
    for _ in 0..2 {
        let (log, recovery, seen) = open(&disk);
        let groups: Vec<u32> = seen.iter().map(|(group, ..)| *group).collect();
        assert!(!groups.contains(&2), "a dropped batch came back: {groups:?}");
        assert_eq!((recovery.damage[0].from, recovery.damage[0].groups.clone()), (end, None));
        // The next opening, too, names the lost one.
        drop(log);
    }
}

/// Numbers of segments that were lost at the end of the log are not given to others.
#[test]
fn a_lost_last_segments_number_is_not_used_again() {
    let (disk, _) = small_log(true);
    let number = |name: &String| u64::from_str_radix(&name[..16], 16).expect("hex");
    let mut before: Vec<u64> = disk.list().expect("list").iter().map(number).collect();
    let last = disk.list().expect("list").pop().expect("several");
    disk.remove(&last).expect("remove");
    let kept = before.split_off(before.len() - 1);
    let (mut log, ..) = open(&disk);
    while log.prepare_spare().expect("prepare") == tholos_wal::Spare::Working {}
    let fresh: Vec<u64> =
        disk.list().expect("list").iter().map(number).filter(|number| !before.contains(number)).collect();
    assert!(!fresh.is_empty() && fresh.iter().all(|number| number > &kept[0]), "{fresh:?} after {kept:?}");
}

/// A file of which nothing can be read may be what is damaged, so it stays as it is for whoever wants to look.
#[test]
fn an_unreadable_segment_is_kept_until_the_damage_is_released() {
    let (disk, _) = small_log(true);
    let name = disk.list().expect("list")[1].clone();
    disk.tamper(&name, |bytes| bytes[4096..].fill(0xee));
    let (mut log, recovery, seen) = open(&disk);
    assert_eq!(recovery.damage.len(), 1);
    while log.prepare_spare().expect("prepare") == tholos_wal::Spare::Working {}
    assert_eq!(disk.contents(&name).map(|bytes| bytes[4096]), Some(0xee), "not recycled");
    log.release(Lsn(seen.last().expect("records").1));
    log.seal().expect("seal");
    while log.prepare_spare().expect("prepare") == tholos_wal::Spare::Working {}
    assert_eq!(open(&disk).1.damage, []);
    assert_eq!(log.usage().segments, 1);
}

#[test]
fn a_sector_that_cannot_be_read_costs_no_more_than_itself() {
    let (disk, expected) = small_log(true);
    let name = disk.list().expect("list")[0].clone();
    let length = disk.contents(&name).expect("listed").len();
    for offset in (0..length).step_by(512) {
        let damaged = disk.fork();
        damaged.break_sector(&name, offset);
        let recovery = check(&damaged, &expected, &format!("sector at {offset}"));
        assert!(recovery.records >= 33, "at {offset}: lost more than a batch");
        assert_eq!(recovery.worn.len(), usize::from([0, 2048].contains(&offset)));
        assert_eq!(recovery.damage.len(), usize::from(recovery.records < 36));
    }
    // The only segment of a log: the salt is found in the second copy of its header.
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"one")]).expect("append");
    log.sync().expect("sync");
    disk.break_sector("0000000000000001.wal", 0);
    assert_eq!(open(&disk).2.len(), 1);
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (disk, _) = small_log(true);
    let other = MemDisk::new();
    drop(open_with(&other, Options { salt: 5, ..tiny() }).expect("open"));
    let bytes = other.contents("0000000000000001.wal").expect("there");
    disk.create("00000000000000aa.wal").expect("create");
    disk.tamper("00000000000000aa.wal", |file| *file = bytes);
    let error = Log::open(disk, tiny(), |_, _, _| {}).expect_err("mixed");
    assert!(error.to_string().starts_with("mem/00000000000000aa.wal is not of the same log"), "{error}");
}

#[test]
fn a_bad_record_before_good_ones_above_synced_to_is_a_tear() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"one")]).expect("append");
    let durable = log.sync().expect("sync");
    for _ in 0..3 {
        log.append(&[(2, b"never synced")]).expect("append");
    }
    let name = disk.list().expect("list")[0].clone();
    // The disk wrote the third and fourth batch before the second.
    disk.tamper(&name, |bytes| bytes[4096 + 512..4096 + 1024].fill(0));
    let (_, recovery, seen) = open(&disk);
    assert_eq!(seen.len(), 1);
    assert_eq!(recovery.tail, Tail::Torn { from: durable, dropped_bytes: 1024 });
    assert_eq!(recovery.damage, []);
}

#[test]
fn a_dropped_tail_never_comes_back() {
    let disk = MemDisk::new();
    let (mut log, ..) = open(&disk);
    log.append(&[(1, b"one")]).expect("append");
    log.sync().expect("sync");
    for _ in 0..3 {
        log.append(&[(2, b"never synced")]).expect("append");
    }
    let name = disk.list().expect("list")[0].clone();
    disk.tamper(&name, |bytes| bytes[4096 + 512..4096 + 1024].fill(0));
    let (mut log, ..) = open(&disk);
    // As long as the dropped batch, so that the ones after it would fit.
    log.append(&[(3, b"new history!")]).expect("append");
    drop(log);
    let (_, recovery, seen) = open(&disk);
    let payloads: Vec<&[u8]> = seen.iter().map(|(_, _, payload)| &payload[..]).collect();
    assert_eq!(payloads, [b"one".as_slice(), b"new history!"]);
    assert_eq!(recovery.tail, Tail::Clean);
}

#[test]
fn a_value_that_looks_like_a_batch_is_not_taken_for_one() {
    // A client who knows the format, the use number and the position, but not the salt, forges a later batch whose
    // `synced_to` turns a tear into rot.
    let evil = MemDisk::new();
    let (mut log, ..) = open_with(&evil, Options { salt: 1, ..tiny() }).expect("open");
    log.append(&[(9, b"as long as a sector")]).expect("append");
    log.sync().expect("sync");
    log.append(&[(9, b"forged")]).expect("append");
    let forged =
        evil.contents(&evil.list().expect("list")[0]).expect("listed")[4096 + 512..4096 + 1024].to_vec();
    for (salt, believed) in [(1, true), (2, false)] {
        let disk = MemDisk::new();
        let (mut log, ..) = open_with(&disk, Options { salt, ..tiny() }).expect("open");
        let mut value = vec![0; 512 - 68];
        value.extend_from_slice(&forged);
        log.append(&[(1, value)]).expect("append");
        let name = disk.list().expect("list")[0].clone();
        disk.tamper(&name, |bytes| bytes[4096] ^= 1);
        drop(log);
        let (_, recovery, _) = open(&disk);
        assert_eq!(!recovery.damage.is_empty(), believed, "salt {salt}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, _) = small_log(true);
    let name = disk.list().expect("list")[0].clone();
    disk.tamper(&name, |bytes| {
        for copy in [0, 2048] {
            let sector = &mut bytes[copy..copy + 512];
            sector[8..12].copy_from_slice(&7_u32.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..]);
            sector[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    });
    let error = Log::open(disk, tiny(), |_, _, _| {}).expect_err("newer");
    assert!(matches!(error, OpenError::NewerFormat { found: 7, supported: 2, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&name) && text.contains("format 7") && text.contains("up to 2"), "{text}");
}

/// R20: a log of which nothing can be read begins anew behind it, says so at each opening until that is released, and never
/// shows an old record again.
#[test]
fn segments_without_any_readable_header_are_no_empty_log() {
    let (disk, _) = small_log(true);
    let lost = disk.list().expect("list");
    for name in &lost {
        disk.tamper(name, |bytes| bytes[..4096].fill(0xff));
    }
    let again = Options { salt: 1, ..tiny() };
    let (mut log, recovery, seen) = open_with(&disk, again.clone()).expect("it opens");
    let everything = Damage { from: Lsn(0), to: Lsn(512), groups: None };
    assert!(recovery.unreadable && seen.is_empty(), "{recovery:?}");
    assert_eq!((&recovery.damage, recovery.recovered_lsn), (&vec![everything.clone()], Lsn(512)));
    let lsn = log.append(&[(3, b"muted")]).expect("append");
    log.sync().expect("sync");
    drop(log);
    let (mut log, recovery, seen) = open_with(&disk, again.clone()).expect("it opens");
    assert_eq!((&recovery.damage, recovery.unreadable), (&vec![everything], false));
    assert_eq!(seen, [(3, lsn.0, b"muted".to_vec())]);
    assert!(recovery.lost_records_of(4, None) && !recovery.lost_records_of(3, Some(lsn)));
    assert!(lost.iter().all(|name| disk.contents(name).is_some()), "kept until the owner has released them");
    log.release(lsn);
    log.seal().expect("seal");
    while log.prepare_spare().expect("prepare") == Spare::Working {}
    drop(log);
    assert!(
        !lost.iter().all(|name| disk.contents(name).is_some()),
        "what was lost and released is room again"
    );
    let (_, recovery, seen) = open_with(&disk, again).expect("it opens");
    assert_eq!((recovery.damage, seen.len()), (Vec::new(), 0));
}

/// A crash anywhere in that opening leaves a log that begins anew all the same.
#[test]
fn an_unreadable_log_stays_unreadable_through_crashes() {
    let (disk, _) = small_log(true);
    for name in disk.list().expect("list") {
        disk.tamper(&name, |bytes| bytes[..4096].fill(0));
    }
    for changes in 1.. {
        let disk = disk.fork();
        disk.die_after(Some(changes));
        let opened = open_with(&disk, tiny()).is_ok();
        disk.crash(Crash::Power(changes));
        let (_, recovery, seen) = open_with(&disk, tiny()).expect("it opens");
        assert!(seen.is_empty() && recovery.lost_records_of(1, None), "{changes}: {recovery:?}");
        if opened {
            return;
        }
    }
}

#[test]
fn one_unreadable_header_costs_nothing_and_is_told() {
    let (disk, expected) = small_log(true);
    let name = disk.list().expect("list")[0].clone();
    disk.tamper(&name, |bytes| bytes[..4096].fill(0xff));
    let recovery = check(&disk, &expected, "header");
    assert_eq!((recovery.records, recovery.worn), (36, vec![name]));
}

#[test]
fn garbage_of_any_kind_never_panics() {
    let (disk, _) = small_log(true);
    let mut random = common::Random(3);
    for _ in 0..2000 {
        let disk = disk.fork();
        let names = disk.list().expect("list");
        let name = &names[random.below(names.len() as u64) as usize];
        disk.tamper(name, |bytes| {
            for _ in 0..1 + random.below(6) {
                let at = 4096
                    + random.below(bytes.len() as u64 - 4096) as usize / 512 * 512
                    + random.below(64) as usize;
                bytes[at] = random.next() as u8;
            }
        });
        let (mut log, ..) = open(&disk);
        log.append(&[(1, b"goes on")]).expect("append");
        log.sync().expect("sync");
    }
}
