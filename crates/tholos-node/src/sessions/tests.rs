use super::*;

fn header(sequence: u64, acknowledged: u64, expires_at: u64) -> WriteHeader {
    WriteHeader { session: 7, sequence, acknowledged, expires_at: Millis(expires_at) }
}

#[test]
fn applies_next_repeats_last_refuses_gaps() {
    let mut sessions = Sessions::default();
    assert_eq!(sessions.judge(&header(2, 0, 100), Millis(1)), Verdict::Gap { expected: 1 });
    assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Apply);
    sessions.record(&header(1, 0, 100), &Value::Integer(5));
    assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Repeat(Some(Value::Integer(5))));
    assert_eq!(sessions.judge(&header(3, 1, 100), Millis(1)), Verdict::Gap { expected: 2 });
    sessions.record(&header(2, 1, 100), &Value::Integer(6));
    assert_eq!(sessions.judge(&header(1, 1, 100), Millis(1)), Verdict::Repeat(None));
}

#[test]
fn a_write_past_its_time_is_refused_and_its_record_lives_exactly_that_long() {
    let mut sessions = Sessions::default();
    sessions.record(&header(1, 0, 100), &Value::Null);
    sessions.record(&header(2, 0, 90), &Value::Null);
    sessions.expire(Millis(99));
    assert_eq!(sessions.judge(&header(1, 0, 100), Millis(99)), Verdict::Repeat(Some(Value::Null)));
    assert_eq!(sessions.judge(&header(1, 0, 100), Millis(100)), Verdict::Expired);
    sessions.expire(Millis(100));
    assert!(sessions.is_empty() && sessions.0.is_none(), "and its memory is given back");
}

#[test]
fn replies_are_kept_in_order_until_they_are_acknowledged() {
    let mut replies = KeptReplies::default();
    let sequences = |replies: &KeptReplies| replies.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    for sequence in 1..=4 {
        replies.push_back((sequence, None));
    }
    assert_eq!(sequences(&replies), [1, 2, 3, 4]);
    replies.forget(2);
    assert_eq!((sequences(&replies), replies.len()), (alloc::vec![3, 4], 2));
    replies.forget(3);
    assert_eq!(sequences(&replies), [4]);
    replies.forget(9);
    assert_eq!((sequences(&replies), replies.is_empty()), (Vec::new(), true));
}

/// The walk gives what the table was at its start, whatever comes, changes, moves and ends meanwhile.
#[test]
fn a_walk_gives_the_table_of_its_start() {
    let mut chance = 7_u64;
    let mut below = |max: u64| {
        chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (chance >> 33) % max
    };
    for _ in 0..300 {
        let mut sessions = Sessions::default();
        let mut time = 0;
        let mut step = |sessions: &mut Sessions, time: &mut u64| {
            *time += below(3);
            let id = below(20);
            let sequence = sessions.get(id).map_or(1, |session| session.last + 1);
            let expires_at = Millis(*time + 1 + below(40));
            let header = WriteHeader { session: id, sequence, acknowledged: below(sequence + 1), expires_at };
            sessions.record(&header, &Value::Integer(*time as i64));
            // Some that have ended are left for later.
            sessions.expire_some(Millis(*time), below(3) as usize);
        };
        for _ in 0..30 {
            step(&mut sessions, &mut time);
        }
        let own = |(id, session): (u64, &Session)| (id, session.clone());
        // X1
        let counts = |(_, session): &(u64, &Session)| session.ends > Millis(time);
        let start: Vec<_> = sessions.export().into_iter().filter(counts).map(own).collect();
        sessions.begin_walk();
        let mut walked = Vec::new();
        while let Some(slice) = sessions.next_walked(2) {
            assert!(slice.len() <= 2);
            walked.extend(slice);
            step(&mut sessions, &mut time);
        }
        walked.sort_by_key(|(id, _)| *id);
        // Some come twice, and then alike.
        walked.dedup();
        assert_eq!(walked, start);
    }
}

#[test]
fn a_large_reply_is_not_kept() {
    let mut sessions = Sessions::default();
    sessions.record(&header(1, 0, 100), &Value::bulk(alloc::vec![0; KEPT_REPLY_BYTES_MAX + 1]));
    assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Repeat(None));
}

/// X1: as if all were forgotten at once, though each entry forgets two at most.
#[test]
fn what_counts_does_not_hang_on_how_soon_records_are_removed() {
    let mut chance = 11_u64;
    let mut below = |max: u64| {
        chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (chance >> 33) % max
    };
    let (mut late, mut both) = (0, 0);
    for _ in 0..200 {
        let [mut slow, mut fast] = [Sessions::default(), Sessions::default()];
        let mut time = 0;
        for _ in 0..100 {
            // Several items in one entry.
            for _ in 0..=below(6) {
                let [session, sequence] = [below(12), 1 + below(4)];
                let expires_at = Millis((time + below(30)).saturating_sub(2));
                let header = WriteHeader { session, sequence, acknowledged: below(sequence), expires_at };
                let verdict = fast.judge(&header, Millis(time));
                assert_eq!(slow.judge(&header, Millis(time)), verdict);
                assert_eq!(slow.has_applied(session, sequence), fast.has_applied(session, sequence));
                if verdict == Verdict::Apply {
                    let reply = Value::Integer(time as i64);
                    slow.record(&header, &reply);
                    fast.record(&header, &reply);
                }
            }
            if below(10) == 0 {
                slow.begin_walk();
                fast.begin_walk();
            }
            slow.expire_some(Millis(time), 2);
            fast.expire_some(Millis(time), usize::MAX);
            for sessions in [&slow, &fast] {
                let cost: usize = sessions.export().iter().map(|(_, session)| session.cost()).sum();
                assert_eq!(sessions.bytes(), cost);
            }
            late += slow.len() - fast.len();
            both += fast.len();
            // Time may stand still.
            time += below(4) * below(4);
        }
        // Snapshots are the same, though one replica has more to skip.
        let image = |sessions: &mut Sessions| {
            sessions.begin_walk();
            let mut walked: Vec<_> = core::iter::from_fn(|| sessions.next_walked(3)).flatten().collect();
            walked.sort_by_key(|(id, _)| *id);
            walked
        };
        assert_eq!(image(&mut slow), image(&mut fast));
    }
    assert!(late > 1000 && both > 1000, "{late} {both}");
}

/// A million connections that write once each, to one shard.
#[test]
fn a_million_sessions_come_and_go() {
    const MILLION: u64 = 1_000_000;
    let ends = Millis(10_000);
    let mut sessions = Sessions::default();
    let mut held = 0;
    for tenth in 0..10 {
        let used = allocation_counter::measure(|| {
            for number in tenth * (MILLION / 10)..(tenth + 1) * (MILLION / 10) {
                let session = crate::shard::mix(number, 0);
                let header = WriteHeader { session, sequence: 1, acknowledged: 0, expires_at: ends };
                sessions.record(&header, &Value::simple("OK"));
            }
        });
        held += used.bytes_current;
        let (len, counted) = (sessions.len() as i64, sessions.bytes() as i64);
        assert!(140 * len <= held && held <= counted, "{held} B of {len} sessions, counted as {counted}");
    }
    assert_eq!(sessions.len() as u64, MILLION);
    // What has ended is forgotten entry by entry, without a further write, and the memory is given back on the way.
    let mut entries = 0;
    while !sessions.is_empty() {
        let before = sessions.len();
        held += allocation_counter::measure(|| sessions.expire(ends)).bytes_current;
        let len = sessions.len();
        assert!(before - len <= ENDS_MAX, "an entry does so much and no more");
        assert!(held <= (8 * RECORD_BYTES * (len + KEPT_CAPACITY)) as i64, "{held} B of {len} sessions");
        entries += 1;
    }
    assert_eq!((entries, held, sessions.bytes()), ((MILLION as usize).div_ceil(ENDS_MAX), 0, 0));
}
