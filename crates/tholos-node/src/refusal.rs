//! What a leader refuses: writes, before anything is proposed, and replies that no other node could be sent. Only the
//! leader's word counts: gateways ask any leader.

use tholos_cluster::NodeId;
use tholos_engine::table::{self, Flags};
use tholos_paxos::Millis;
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::node::Node;
use crate::operation::Operation;
use crate::peer::Ask;
use crate::sessions::size_of_reply;

/// Clients give up after a few seconds; by then they should know that nothing was written. A gateway on another node has asked
/// again by then, and can believe that of none but the first attempt (G3): its clients are told that the fate is unknown.
const HELD_MAX: Millis = Millis(2000);
const HELD_TOO_LONG: &str = "DISKFULL the log of this shard's leader has no room until a snapshot is written, and it takes long; \
                             nothing was written: try again later, or raise wal.bytes_max";

impl Node {
    /// Why this leader does not take a request, if it does not.
    pub(crate) fn refusal(&self, shard: ShardId, ask: &Ask) -> Option<Value> {
        let Ask::Write { operation, .. } = ask else { return None };
        if shard == self.meta.group() {
            // Small and few, and what moves data off a full disk is among them: the log's reserve has room for them.
            return None;
        }
        if self.disk_is_full() && !self.transfers.comes_on(self.time().mono) {
            return Some(Value::error(
                "DISKFULL the log of this shard's leader has no room, nothing was written: free disk space or raise \
                 wal.bytes_max",
            ));
        }
        let me = self.config.me;
        let full = |node| if node == me { self.own_memory_full() } else { self.detector.memory_full(node) };
        let refusal = over_memory(self.replica_nodes(shard), me, full)?;
        let operation = Operation::decode(operation.clone()).ok()?;
        needs_memory(&operation).then_some(refusal)
    }
}

/// Clients' writes that wait until the log has room.
impl Node {
    /// How many shards' writes wait until a snapshot has made room in the log.
    pub fn shards_held_back(&self) -> usize {
        self.held.len()
    }

    /// Whether what waits for a shard is to wait on (H1, H2). What has for [`HELD_MAX`] is refused.
    pub(crate) fn holds_back(&mut self, id: ShardId) -> bool {
        let now = self.time().mono;
        let outrun = || self.transfers.holds_writes(self.appends.bytes());
        let holds = self.transfers.comes_on(now) && (self.disk_is_full() || outrun());
        // What moves data off a full disk is in the meta group.
        if !holds || id == self.meta.group() {
            self.held.remove(&id);
            return false;
        }
        let since = *self.held.entry(id).or_insert(now);
        if now.since(since) >= HELD_MAX {
            self.held.remove(&id);
            let time = self.shard_time(id);
            if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                shard.refuse_waiting(&Value::error(HELD_TOO_LONG), time, &mut self.answers);
            }
        }
        true
    }
}

/// `maxmemory` with `noeviction`: the leader or a majority of the replicas is over.
pub(crate) fn over_memory(
    replicas: &[NodeId],
    leader: NodeId,
    full: impl Fn(NodeId) -> bool,
) -> Option<Value> {
    let count = replicas.iter().filter(|node| full(**node)).count();
    let over = full(leader) || 2 * count > replicas.len();
    over.then(|| Value::error("OOM command not allowed when used memory > 'maxmemory'."))
}

/// The reply as another node may be sent it: one that is longer would be dropped on the way, and its client would wait
/// in vain.
pub(crate) fn relayed(reply: Value, bytes_max: usize) -> Value {
    if size_of_reply(&reply) <= bytes_max {
        return reply;
    }
    Value::error(alloc::format!(
        "ERR the reply is longer than the {} MiB that one node passes on to another: ask for less at once, or on the \
         node that leads the shard; what this command writes was written",
        bytes_max >> 20
    ))
}

fn needs_memory(operation: &Operation) -> bool {
    let denied =
        |args: &[bytes::Bytes]| table::resolve(args).is_ok_and(|spec| spec.flags.has(Flags::DENYOOM));
    match operation {
        Operation::Command(args) => denied(args),
        Operation::Transaction { commands, .. } => commands.iter().any(|args| denied(args)),
        _ => false,
    }
}
