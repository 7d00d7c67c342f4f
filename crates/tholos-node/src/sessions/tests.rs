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
            sessions.expire(Millis(*time));
        };
        for _ in 0..30 {
            step(&mut sessions, &mut time);
        }
        let own = |(id, session): (u64, &Session)| (id, session.clone());
        let start: Vec<_> = sessions.export().into_iter().map(own).collect();
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
