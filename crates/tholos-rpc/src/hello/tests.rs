//! The handshake's bytes: documented layout, round trips, and any garbage.

use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity {
        cluster_id: Some([0xcc; CLUSTER_ID_BYTES]),
        node: 0x0102,
        incarnation: 3,
        boot: 4,
        nonce: 5,
        recovered_lsn: 6,
        name: "n2".into(),
        advertised: Bytes::from_static(b"rows"),
    }
}

#[test]
fn opening_bytes_are_as_documented() {
    let opening = Opening { versions: (1, 2), secured: true, nonce: [9; NONCE_BYTES] };
    let bytes = opening.encode();
    assert_eq!(bytes[..16], *b"THOLOSRP\x01\0\x02\0\x01\0\0\0");
    assert_eq!(bytes[16..], [9; NONCE_BYTES]);
    let mut whole = [0; OPENING_BYTES];
    whole[..bytes.len()].copy_from_slice(&bytes);
    assert_eq!(Opening::decode(&whole), Some(opening));
    whole[0] ^= 1;
    assert_eq!(Opening::decode(&whole), None);
}

#[test]
fn hello_bytes_are_as_documented() {
    let hello = Hello { purpose: Purpose::Lane(Lane::Bulk), expects: 0x0304, identity: identity() };
    let mut expected = vec![2, 4, 3, 1];
    expected.extend_from_slice(&[0xcc; 20]);
    expected.extend_from_slice(&[2, 1]);
    for number in 3u64..=6 {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.extend_from_slice(b"\x02n2\x04\0rows");
    assert_eq!(hello.encode(), expected);
    assert_eq!(Hello::decode(&expected), Some(hello));
}

#[test]
fn largest_hello_fits_its_bound() {
    let identity = Identity {
        name: "x".repeat(NAME_BYTES_MAX),
        advertised: vec![1; ADVERTISED_BYTES_MAX].into(),
        ..identity()
    };
    let hello = Hello { purpose: Purpose::Query, expects: 1, identity };
    let bytes = hello.encode();
    assert_eq!(bytes.len() + TAG_BYTES, HELLO_BYTES_MAX);
    assert_eq!(Hello::decode(&bytes), Some(hello));
}

#[test]
fn cut_or_stretched_bodies_are_none() {
    let bytes = Hello { purpose: Purpose::Query, expects: 1, identity: identity() }.encode();
    for length in 0..bytes.len() {
        assert_eq!(Hello::decode(&bytes[..length]), None, "{length} bytes");
    }
    assert_eq!(Hello::decode(&[&bytes[..], &[0]].concat()), None);
    let answer = Answer { verdict: Verdict::Duplicate, identity: identity() }.encode();
    assert!(Answer::decode(&answer).is_some());
    for length in 0..answer.len() {
        assert_eq!(Answer::decode(&answer[..length]), None, "{length} bytes");
    }
}

#[test]
fn versions_meet_at_the_highest_common() {
    let check = |ours, theirs, expected| {
        let opening = Opening { versions: ours, secured: false, nonce: [0; NONCE_BYTES] };
        assert_eq!(opening.common_version(theirs), expected);
    };
    check((1, 1), (1, 1), Some(1));
    check((1, 3), (2, 9), Some(3));
    check((2, 9), (1, 3), Some(3));
    check((1, 2), (3, 4), None);
    check((3, 4), (1, 2), None);
    check((5, 1), (1, 5), None);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = (Hello::decode(&bytes), Answer::decode(&bytes));
        let mut opening = [0; OPENING_BYTES];
        let count = bytes.len().min(OPENING_BYTES);
        opening[..count].copy_from_slice(&bytes[..count]);
        let _ = Opening::decode(&opening);
    }

    /// A body with a few bytes changed, so that the decoder gets deep before it meets them.
    #[test]
    fn damaged_bodies_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = Hello { purpose: Purpose::Query, expects: 1, identity: identity() }.encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(hello) = Hello::decode(&bytes) {
            prop_assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        }
    }

    #[test]
    fn random_identities_round_trip(
        cluster: Option<[u8; CLUSTER_ID_BYTES]>,
        numbers: [u64; 4],
        node: u16,
        name in "\\PC{0,60}",
        advertised in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let identity = Identity {
            cluster_id: cluster,
            node,
            incarnation: numbers[0],
            boot: numbers[1],
            nonce: numbers[2],
            recovered_lsn: numbers[3],
            name,
            advertised: advertised.into(),
        };
        let answer = Answer { verdict: Verdict::Busy, identity };
        prop_assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
}
