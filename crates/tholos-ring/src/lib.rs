//! Key to slot to shard to replica set: CRC16 slots, hash ring, bounded-load placement.
