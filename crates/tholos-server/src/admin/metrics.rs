//! The metrics of a node: one table of what is told, and from where each is read.
//!
//! What a metric is, its name says: one that ends with `_total` is a counter, any other a gauge.

use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::{Admin, report};
use crate::load::LoadReport;
use crate::metrics::{Counters, Exposition, Kind, get as count};
use crate::server::NodeHandle;
use crate::status::{JobReport, NodeReport};
use crate::wal_task::WalCounters;

/// A metric: name, meaning, and where it is read.
type Metric = (&'static str, &'static str, Read);

/// Where a metric is read.
enum Read {
    /// A place in what [`NodeHandle::client_counts`] says.
    Clients(usize),
    /// What the worker and the tasks around it count.
    Worker(fn(&Counters) -> &AtomicU64),
    /// What the log's thread counts.
    Log(fn(&WalCounters) -> &AtomicU64),
    /// What the node says of itself.
    Report(fn(&NodeReport) -> u64),
    /// The same of its load; the number stands while that is not known.
    Load(u64, fn(&LoadReport) -> u64),
}

/// What one node's metrics are read from.
struct Sample {
    handle: NodeHandle,
    report: NodeReport,
    clients: [u64; 3],
}

impl Sample {
    fn read(&self, read: &Read) -> u64 {
        match read {
            Read::Clients(at) => self.clients[*at],
            Read::Worker(counter) => count(counter(&self.handle.counters)),
            Read::Log(counter) => count(counter(&self.handle.wal.counters)),
            Read::Report(value) => value(&self.report),
            Read::Load(unknown, value) => self.report.load.as_ref().map_or(*unknown, value),
        }
    }
}

/// A part of one as percent; 0 if it is not known.
fn percent(part: Option<f64>) -> u64 {
    (part.unwrap_or(0.0) * 100.0).round() as u64
}

fn kind_of(name: &str) -> Kind {
    if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge }
}

/// Every metric of a node, in the order in which they are told.
const METRICS: &[Metric] = &[
    ("tholos_server_clients_connected", "Clients connected.", Read::Clients(0)),
    ("tholos_server_clients_accepted_total", "Connections of clients accepted.", Read::Clients(1)),
    ("tholos_server_clients_rejected_total", "Clients turned away, there being too many.", Read::Clients(2)),
    (
        "tholos_server_clients_overflowed_total",
        "Clients closed because they did not read their replies.",
        Read::Worker(|counters| &counters.clients_overflowed),
    ),
    (
        "tholos_server_commands_total",
        "Commands received from clients.",
        Read::Worker(|counters| &counters.commands),
    ),
    (
        "tholos_server_replies_bytes_total",
        "Bytes of replies to clients.",
        Read::Worker(|counters| &counters.reply_bytes),
    ),
    (
        "tholos_server_rounds_total",
        "Rounds of the worker: commands divided by rounds is the batch size.",
        Read::Worker(|counters| &counters.rounds),
    ),
    ("tholos_node_error_replies_total", "Error replies to clients.", Read::Report(|report| report.errors)),
    (
        "tholos_node_repeated_writes_total",
        "Retried writes that replicas of this node found applied, and answered again.",
        Read::Report(|report| report.repeated),
    ),
    (
        "tholos_node_lease_reads_total",
        "Reads that leaders on this node answered by a lease.",
        Read::Report(|report| report.reads_by_lease),
    ),
    (
        "tholos_node_late_lease_reads_total",
        "Reads by a lease that had run out when they were answered: they were asked again by a round.",
        Read::Report(|report| report.reads_late),
    ),
    (
        "tholos_node_shed_commands_total",
        "Commands refused with -BUSY because too many requests of this node's clients were open.",
        Read::Report(|report| report.shed),
    ),
    (
        "tholos_node_reads_per_second",
        "Reads a second that this node was asked for, in the last five seconds that were counted.",
        Read::Report(|report| report.shards.iter().map(|shard| shard.reads_per_s).sum()),
    ),
    (
        "tholos_node_writes_per_second",
        "Writes a second that this node was asked for, likewise.",
        Read::Report(|report| report.shards.iter().map(|shard| shard.writes_per_s).sum()),
    ),
    (
        "tholos_node_hottest_shard_per_second",
        "Reads and writes a second of the shard that this node is asked for most.",
        Read::Report(|report| {
            report.shards.iter().map(|shard| shard.reads_per_s + shard.writes_per_s).max().unwrap_or(0)
        }),
    ),
    (
        "tholos_node_hottest_key_per_second",
        "Reads and writes a second of the key that this node is asked for most, about; which it is, tholos cluster hot says.",
        Read::Report(|report| {
            report.hot_keys.iter().map(|key| key.reads_per_s + key.writes_per_s).max().unwrap_or(0)
        }),
    ),
    (
        "tholos_node_replica_reads_total",
        "Reads that replicas of this node answered while another node led.",
        Read::Report(|report| report.reads_as_replica),
    ),
    (
        "tholos_node_stale_reads_total",
        "Of these, reads answered at once, because their clients allow answers of some age.",
        Read::Report(|report| report.reads_stale),
    ),
    (
        "tholos_node_reads_to_leaders_total",
        "Reads of gateway clients that were sent to the leader on another node, when there was a choice.",
        Read::Report(|report| report.reads_to_leaders),
    ),
    (
        "tholos_node_reads_to_replicas_total",
        "Reads of gateway clients that a replica answered because the leader had more to do.",
        Read::Report(|report| report.reads_to_replicas),
    ),
    (
        "tholos_node_forwarded_requests_total",
        "Requests sent to the leader on another node.",
        Read::Report(|report| report.forwarded),
    ),
    (
        "tholos_node_relayed_requests_total",
        "Of these, requests sent by way of a third node, because the leader was not heard.",
        Read::Report(|report| report.relayed),
    ),
    (
        "tholos_node_timed_out_requests_total",
        "Requests that ran out of time.",
        Read::Report(|report| report.timed_out),
    ),
    (
        "tholos_node_capacity_percent",
        "What this node could lead of what it should, by how slow it is beside the others.",
        Read::Load(100, |load| load.capacity.into()),
    ),
    (
        "tholos_node_share_percent",
        "Its part of all leaderships by weight and capacity.",
        Read::Load(0, |load| percent(load.share)),
    ),
    ("tholos_node_weight", "Its weight, as the operator gave it.", Read::Load(0, |load| load.weight.into())),
    (
        "tholos_node_load_percent",
        "The part of the time that its worker has work, waits for its processor included.",
        Read::Load(0, |load| load.busy.into()),
    ),
    (
        "tholos_node_spare_percent",
        "What it has left of what it could do, by its load and its capacity.",
        Read::Load(0, |load| load.spare.into()),
    ),
    (
        "tholos_node_queue_length",
        "Commands and messages that wait for its worker or are being handled, on average.",
        Read::Load(0, |load| load.queue.into()),
    ),
    (
        "tholos_node_clients_admitted",
        "Clients that it takes at a time: limits.clients, or less if other nodes have more to spare.",
        Read::Load(0, |load| load.clients_max),
    ),
    (
        "tholos_node_leads_target",
        "Shards that this node should lead.",
        Read::Load(0, |load| load.target.into()),
    ),
    (
        "tholos_node_stretch_percent",
        "Time that the worker takes over time that a processor runs it, in percent; 0 if it has little to do.",
        Read::Load(0, |load| percent(load.stretch)),
    ),
    (
        "tholos_wal_sync_mean_microseconds",
        "What writing and syncing a batch of the log took lately; 0 if there was none.",
        Read::Load(0, |load| load.sync_us.unwrap_or(0).into()),
    ),
    (
        "tholos_node_leaders_given_total",
        "Leaderships that this node gave to another; tholos cluster load tells why.",
        Read::Load(0, |load| load.given),
    ),
    (
        "tholos_node_lost_nodes_total",
        "Times another node was not heard any more.",
        Read::Worker(|counters| &counters.nodes_lost),
    ),
    (
        "tholos_engine_keys",
        "Keys in the keyspaces of this node, dead ones not removed yet left out.",
        Read::Report(|report| report.keys),
    ),
    (
        "tholos_engine_used_bytes",
        "Memory of the keyspaces of this node, about.",
        Read::Report(|report| report.used_bytes),
    ),
    (
        "tholos_node_stalled_moves",
        "Moves of the running job from which nothing has come for 10 s; told by the leader of the meta group.",
        Read::Report(|report| report.job.as_ref().map_or(0, JobReport::stalled)),
    ),
    (
        "tholos_node_moves_bytes_per_second",
        "Bytes a second that the running job sends, over the last few; told by the leader of the meta group.",
        Read::Report(|report| report.job.as_ref().map_or(0, |job| job.bytes_per_s)),
    ),
    (
        "tholos_paxos_replicas",
        "Shards that this node holds a replica of.",
        Read::Report(|report| report.shards.len() as u64),
    ),
    (
        "tholos_paxos_leads",
        "Shards that this node leads.",
        Read::Report(|report| report.shards.iter().filter(|shard| shard.leads).count() as u64),
    ),
    (
        "tholos_paxos_mute_replicas",
        "Replicas that have lost data and vote nowhere until the others have repaired them.",
        Read::Report(|report| report.shards.iter().filter(|shard| shard.mute.is_some()).count() as u64),
    ),
    (
        "tholos_paxos_muted_replicas_total",
        "Times a replica of this node was found to have lost data.",
        Read::Worker(|counters| &counters.replicas_muted),
    ),
    (
        "tholos_node_clock_off_milliseconds",
        "How far this node's wall clock is off the median of the nodes' clocks, whichever way.",
        Read::Report(|report| report.clock_ahead_ms.map_or(0, i64::unsigned_abs)),
    ),
    (
        "tholos_node_went_back_total",
        "Times the others had counted more of this node's log than it has: an old copy of a directory, a lost file.",
        Read::Worker(|counters| &counters.went_back),
    ),
    (
        "tholos_node_diverged_replicas_total",
        "Replicas found to have another state than a majority, by this node as their leader.",
        Read::Worker(|counters| &counters.replicas_diverged),
    ),
    (
        "tholos_node_undecided_differences_total",
        "Times the states of replicas differed and no majority agreed, as this node as their leader saw.",
        Read::Worker(|counters| &counters.states_differed),
    ),
    (
        "tholos_paxos_repaired_replicas_total",
        "Times a replica of this node that had lost data was repaired.",
        Read::Worker(|counters| &counters.replicas_repaired),
    ),
    (
        "tholos_paxos_leaders_elected_total",
        "Times this node became leader of a shard.",
        Read::Worker(|counters| &counters.leaders_elected),
    ),
    (
        "tholos_paxos_leaders_stopped_total",
        "Times this node stopped leading a shard.",
        Read::Worker(|counters| &counters.leaders_stopped),
    ),
    (
        "tholos_node_snapshots_installed_total",
        "Snapshots received and installed.",
        Read::Worker(|counters| &counters.snapshots_installed),
    ),
    (
        "tholos_wal_snapshots_saved_total",
        "Snapshot files written.",
        Read::Worker(|counters| &counters.snapshots_saved),
    ),
    (
        "tholos_node_snapshots_resumed_total",
        "Transfers of snapshots to other nodes that went on after a break.",
        Read::Worker(|counters| &counters.snapshots_resumed),
    ),
    (
        "tholos_node_held_back_shards",
        "Shards whose writes wait until a snapshot has made room in the log.",
        Read::Worker(|counters| &counters.shards_held_back),
    ),
    (
        "tholos_node_snapshot_slice_longest_nanoseconds",
        "The longest that commands waited for one piece of work on a snapshot, since start.",
        Read::Worker(|counters| &counters.snapshot_slice_longest_nanos),
    ),
    ("tholos_wal_appends_total", "Records appended to the log.", Read::Log(|counters| &counters.appends)),
    (
        "tholos_wal_written_bytes_total",
        "Bytes written to the log.",
        Read::Log(|counters| &counters.written_bytes),
    ),
    (
        "tholos_wal_syncs_total",
        "Syncs of the log: appends divided by syncs is what one sync serves.",
        Read::Log(|counters| &counters.syncs),
    ),
    (
        "tholos_wal_live_bytes",
        "Bytes of the log that are not released.",
        Read::Log(|counters| &counters.live_bytes),
    ),
    (
        "tholos_server_disk_free_bytes",
        "Bytes that may be written to the disk of this node, its reserve left out.",
        Read::Report(|report| report.disk_free_bytes.unwrap_or(0)),
    ),
    ("tholos_wal_file_bytes", "Bytes of all files of the log.", Read::Log(|counters| &counters.file_bytes)),
    (
        "tholos_rpc_messages_sent_total",
        "Messages sent to other nodes.",
        Read::Worker(|counters| &counters.peer_messages_sent),
    ),
    (
        "tholos_rpc_messages_received_total",
        "Messages received from other nodes.",
        Read::Worker(|counters| &counters.peer_messages_received),
    ),
    (
        "tholos_rpc_messages_undecodable_total",
        "Messages from other nodes that could not be read.",
        Read::Worker(|counters| &counters.peer_messages_undecodable),
    ),
    (
        "tholos_rpc_messages_senseless_total",
        "Messages from other nodes that made no sense.",
        Read::Worker(|counters| &counters.peer_messages_senseless),
    ),
    (
        "tholos_rpc_payloads_dropped_total",
        "Payloads that could not be sent: the peer is not connected or does not keep up.",
        Read::Worker(|counters| &counters.peer_payloads_dropped),
    ),
    (
        "tholos_rpc_connections_refused_total",
        "Connections with other nodes that did not come about.",
        Read::Worker(|counters| &counters.peer_connections_refused),
    ),
];

/// All metrics of the nodes of this process, in the text format of Prometheus.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let mut samples = Vec::new();
    for handle in admin.handles() {
        if let Ok(report) = report(&handle).await {
            let clients = handle.client_counts();
            samples.push(Sample { handle, report, clients });
        }
    }
    let mut exposition = Exposition::new();
    for (name, help, read) in METRICS {
        let values = samples.iter().map(|sample| (sample.report.name.clone(), sample.read(read)));
        exposition.metric(name, kind_of(name), help, values);
    }
    let reasons = samples.iter().flat_map(|sample| {
        let of = sample.report.load.iter().flat_map(|load| &load.reasons);
        of.map(|(reason, count)| (sample.report.name.clone(), reason.clone(), *count))
    });
    let help = "Leaderships that this node gave to another, by reason.";
    exposition.counter_by("tholos_node_leader_moves_total", help, "reason", reasons);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], exposition.finish()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_follow_the_rule_and_are_used_once() {
        let mut names: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
        assert!(names.iter().all(|name| name.starts_with("tholos_")), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
