//! What holds for every key, every ring and every cluster.

use proptest::prelude::*;
use tholos_ring::{ShardId, hash64, shard_of, slot, slots_of, tag};

proptest! {
    #[test]
    fn hash64_is_xxh64(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u64) {
        prop_assert_eq!(hash64(&bytes, seed), xxhash_rust::xxh64::xxh64(&bytes, seed));
    }

    #[test]
    fn keys_with_one_tag_share_a_slot(left in "[^{}]*", tagged in "[^{}]+", right in ".*") {
        let key = format!("{left}{{{tagged}}}{right}");
        prop_assert_eq!(tag(key.as_bytes()), tagged.as_bytes());
        prop_assert_eq!(slot(key.as_bytes()), slot(tagged.as_bytes()));
    }

    #[test]
    fn a_slot_lies_in_its_shard(key: Vec<u8>, bits in 0..=14_u32) {
        let shard_count = 1 << bits;
        let slot = slot(&key);
        let shard = shard_of(slot, shard_count);
        prop_assert!(shard < ShardId(shard_count));
        prop_assert!(slots_of(shard, shard_count).contains(&slot.number()));
    }
}
