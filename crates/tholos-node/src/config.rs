//! Settings of a node core.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::{Level, NodeId};
use tholos_engine::Limits;
use tholos_paxos::{Millis, Options};

/// Settings of a node core. All times are in milliseconds.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub me: NodeId,
    /// A random number, fresh at each start.
    pub boot: u64,
    /// A random number, fresh at each start: all chance of this node comes of it.
    pub seed: u64,
    /// Limits and times of every group, which share them.
    pub group: Arc<Options>,
    /// Silence after which a node counts as lost.
    pub election_timeout: Millis,
    /// How often nodes tell that they live; well below `election_timeout`.
    pub heartbeat_interval: Millis,
    /// Whether the gateway sends reads to replicas when the leader has much to do.
    pub reads_at_replicas: bool,
    /// Whether leaderships go away from nodes that measure themselves slow, here and in what this node says of itself.
    pub steers: bool,
    /// Zones in which leaders should sit, as long as one of their nodes can lead; any if there are none. The same on all nodes.
    pub leader_zones: Vec<String>,
    /// A node that is asked for less than this in a second gives no leadership away for what is asked of its shard.
    pub hot_from_per_second: u64,
    /// How long a client waits for a quorum.
    pub request_timeout: Millis,
    /// Clients' requests that may be open at a time, to all shards together; more are refused before anything is done.
    pub requests_max: usize,
    /// Bytes of such requests, likewise; whatever its size, one is let through that finds less open.
    pub requests_bytes_max: usize,
    /// How long a node may be down until others take over what it holds; never if not given. The leader of the meta group
    /// decides, so it should be the same on all nodes.
    pub replace_after: Option<Millis>,
    /// Whether nodes that have come get their share by themselves. As above.
    pub auto_placement: bool,
    /// Bytes of applied entries kept in memory per shard, for followers that lag.
    pub entry_cache_bytes: usize,
    /// Bytes of log after which the shard that holds up the oldest of them is written anew (R22).
    pub log_bytes_max: u64,
    /// Bytes of the log's segments, of the last one as far as it is written, at which there is no room for clients' writes
    /// any more. They slow down before, to what snapshots release.
    pub log_room_bytes: u64,
    /// Bytes of one chunk of a snapshot, which is also one slice of the work on it, 1 to 4 MiB. Smaller ones keep
    /// commands waiting for less, and cost more of them.
    pub snapshot_chunk_bytes: usize,
    /// Keys or sessions that one slice passes at most, 1 or more.
    pub snapshot_slice_entries: usize,
    /// Bytes of a snapshot taken from a leader, at most: more is refused as damage.
    pub snapshot_bytes_max: u64,
    /// The password that AUTH asks for.
    pub requirepass: Option<Bytes>,
    /// Bytes of the records of a shard's sessions at which its leader refuses writes that would open further ones (R18).
    pub sessions_bytes_max: usize,
    /// Bytes of keys and of sessions' records above which writes are refused; 0 is no limit.
    pub maxmemory: u64,
    /// Connections at once, for CONFIG GET; the driver keeps it.
    pub maxclients: u64,
    /// How old answers may be to clients that have said READONLY and no number; 0: not at all.
    pub replica_read_staleness: Millis,
    /// How long keys and values may be.
    pub limits: Limits,
    /// Longest reply that another node is sent for its client, in bytes: what the connections between nodes carry.
    pub relayed_reply_bytes_max: usize,
    /// The highest feature level that this program knows.
    pub level: Level,
    /// The version that INFO shows.
    pub version: String,
    /// The process, for INFO.
    pub process_id: u32,
}

impl NodeConfig {
    /// The settings of `me` as they are when nothing is set. `boot` and `seed` are random.
    pub fn new(me: NodeId, boot: u64, seed: u64) -> NodeConfig {
        NodeConfig {
            me,
            boot,
            seed,
            group: Arc::default(),
            election_timeout: Millis(300),
            heartbeat_interval: Millis(50),
            reads_at_replicas: true,
            steers: true,
            leader_zones: Vec::new(),
            hot_from_per_second: 500,
            request_timeout: Millis(5000),
            requests_max: 262_144,
            requests_bytes_max: 512 << 20,
            replace_after: Some(Millis(600_000)),
            auto_placement: false,
            entry_cache_bytes: 256 << 10,
            log_bytes_max: 256 << 20,
            log_room_bytes: u64::MAX,
            // A tenth of a millisecond each, about.
            snapshot_chunk_bytes: 64 << 10,
            snapshot_slice_entries: 512,
            // More than a machine's memory, for now.
            snapshot_bytes_max: 1 << 40,
            requirepass: None,
            // 1.7 million with a short reply each: what 170,000 connections a second leave that write once.
            sessions_bytes_max: 512 << 20,
            maxmemory: 0,
            maxclients: 10_240,
            replica_read_staleness: Millis(0),
            limits: Limits::default(),
            relayed_reply_bytes_max: 64 << 20,
            level: Level::KNOWN,
            version: String::from(env!("CARGO_PKG_VERSION")),
            process_id: 0,
        }
    }
}
