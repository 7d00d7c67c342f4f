//! What the core reports: one log line and one counter each.

use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::Notice;

use crate::metrics::{Counters, add};

/// Logs and counts a notice of node `me`, with the names that the map has for other nodes.
pub(crate) fn tell(me: &str, notice: &Notice, map: &ClusterMap, counters: &Counters) {
    let name = |node: NodeId| map.node(node).map_or_else(|| node.to_string(), |row| row.name.clone());
    match notice {
        Notice::LeaderElected { shard, ballot } => {
            add(&counters.leaders_elected, 1);
            tracing::debug!(node = me, shard = %shard, ballot = %ballot, "leads");
        }
        Notice::LeaderStoppedLeading { shard, ballot } => {
            add(&counters.leaders_stopped, 1);
            tracing::debug!(node = me, shard = %shard, ballot = %ballot, "leads no more");
        }
        Notice::OtherIncarnation { node } => {
            tracing::error!(
                node = me, peer = %name(*node),
                "it has another incarnation than the cluster map says and is not heard; give it back its own directory"
            );
        }
        Notice::NodeLost { node } => {
            add(&counters.nodes_lost, 1);
            tracing::warn!(node = me, lost = %name(*node), "does not hear a node");
        }
        Notice::NodeHeard { node } => {
            tracing::info!(node = me, heard = %name(*node), "hears a node");
        }
        Notice::SnapshotInstalled { shard, index } => {
            add(&counters.snapshots_installed, 1);
            tracing::info!(node = me, shard = %shard, index = %index, "installed a snapshot");
        }
        Notice::CapacityChanged { before, capacity, slowness: Some(slowness) } if capacity < before => {
            tracing::warn!(
                node = me, capacity, slow = %slowness,
                "this node is slower than the others and leads as much less; see tholos cluster load"
            );
        }
        Notice::CapacityChanged { capacity, .. } => {
            tracing::info!(node = me, capacity, "this node is as fast as the others and leads more again");
        }
        Notice::MapChanged { epoch } => {
            tracing::info!(node = me, epoch = %epoch, "has a newer cluster map");
        }
        Notice::GroupRescued { shard, replica, number } => {
            tracing::warn!(
                node = me, shard = %shard, replica = %replica, number,
                "a recovery: the group goes on with the log of this replica, without those who are gone"
            );
        }
        Notice::RescueRefused { shard, node, reason } => {
            tracing::error!(
                node = me, shard = %shard, of = %name(*node), reason,
                "a recovery: the group cannot go on as it was planned; plan the recovery again"
            );
        }
        Notice::ReplicaDropped { shard, replica } => {
            tracing::info!(node = me, shard = %shard, replica = %replica, "dropped a replica that has moved away");
        }
        Notice::ReplicaMuted { shard, loss } => {
            add(&counters.replicas_muted, 1);
            tracing::error!(
                node = me, shard = %shard, lost = %loss,
                "a replica is mute until the other voters have repaired it: check this node's disk"
            );
        }
        Notice::ReplicaRenewed { shard, lost, by } => {
            tracing::warn!(
                node = me, shard = %shard, lost = %lost, by = %by,
                "a replica on another node has lost data after its set had changed: it gets another id and begins anew"
            );
        }
        Notice::WentBack { counted_by, recovered, counted } => {
            add(&counters.went_back, 1);
            tracing::error!(
                node = me,
                by = %name(*counted_by),
                recovered,
                counted,
                "this directory is older than what the others have counted of it: it was put back from a copy, or its \
                 disk lost what was durable; all its replicas are mute until the others have repaired them, which they do: \
                 look after the disk"
            );
        }
        Notice::PeerWentBack { node } => {
            tracing::error!(
                node = me,
                peer = %name(*node),
                "a node came back with less than it had on disk, and is not heeded until it knows"
            );
        }
        Notice::ReplicaDiverged { shard, node, index } => {
            add(&counters.replicas_diverged, 1);
            tracing::error!(
                node = me, shard = %shard, differs = %name(*node), index = %index,
                "a replica has another state than the majority and is repaired: its memory or its disk is failing, or this \
                 is a fault of ours; please report it"
            );
        }
        Notice::StatesDiffer { shard, index } => {
            add(&counters.states_differed, 1);
            tracing::error!(
                node = me, shard = %shard, index = %index,
                "the replicas of a shard have different states and no majority agrees; which is right cannot be told: \
                 stop writing to it and compare them"
            );
        }
        Notice::ReplicaRepaired { shard } => {
            add(&counters.replicas_repaired, 1);
            tracing::info!(node = me, shard = %shard, "a replica is repaired and votes again");
        }
        Notice::SnapshotResumed { shard, node, chunk } => {
            add(&counters.snapshots_resumed, 1);
            tracing::info!(node = me, to = %name(*node), shard = %shard, chunk, "goes on sending a snapshot");
        }
        Notice::ReplicasChanging { shard, move_id } => {
            tracing::info!(node = me, %shard, order = move_id.0, "the replica set changes");
        }
        Notice::ChangeRefused { shard, move_id, error } => {
            tracing::warn!(node = me, %shard, order = move_id.0, %error, "an order to change the replica set is refused");
        }
        Notice::ReplicasChanged { shard, number, move_id } => {
            tracing::info!(node = me, %shard, number, order = move_id.0, "the replica set has changed");
        }
        Notice::ReplicaJoined { shard, replica } => {
            tracing::info!(node = me, %shard, %replica, "a replica begins here");
        }
        Notice::JobStarts { title } => {
            tracing::warn!(node = me, title, "a job starts by itself");
        }
        Notice::RestartOrdered => {
            tracing::info!(node = me, "restarts, as the running job wants it");
        }
        Notice::MessageDropped { node, reason } => {
            add(&counters.peer_messages_senseless, 1);
            tracing::debug!(node = me, from = %name(*node), reason, "dropped a message");
        }
        other => tracing::info!(node = me, notice = ?other, "notice"),
    }
}
