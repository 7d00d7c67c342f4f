//! Counters of one node, and their text for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a node counts since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commands: AtomicU64,
    pub(crate) reply_bytes: AtomicU64,
    pub(crate) rounds: AtomicU64,
    pub(crate) clients_overflowed: AtomicU64,
    pub(crate) peer_messages_sent: AtomicU64,
    pub(crate) peer_messages_received: AtomicU64,
    pub(crate) peer_messages_undecodable: AtomicU64,
    pub(crate) peer_messages_senseless: AtomicU64,
    pub(crate) peer_payloads_dropped: AtomicU64,
    pub(crate) peer_connections_refused: AtomicU64,
    pub(crate) leaders_elected: AtomicU64,
    pub(crate) leaders_stopped: AtomicU64,
    pub(crate) nodes_lost: AtomicU64,
    pub(crate) snapshots_installed: AtomicU64,
    pub(crate) snapshots_saved: AtomicU64,
    pub(crate) went_back: AtomicU64,
    pub(crate) replicas_diverged: AtomicU64,
    pub(crate) states_differed: AtomicU64,
    pub(crate) replicas_muted: AtomicU64,
    pub(crate) replicas_repaired: AtomicU64,
    pub(crate) snapshots_resumed: AtomicU64,
    /// Of the work on a snapshot that the worker did in one go, the longest since start, in nanoseconds.
    pub(crate) snapshot_slice_longest_nanos: AtomicU64,
    /// How many clients the node takes at a time; 0 until it has said so.
    pub(crate) clients_admitted: AtomicU64,
    pub(crate) shards_held_back: AtomicU64,
    /// See [`crate::room::Room`].
    pub(crate) disk_free_bytes: AtomicU64,
    pub(crate) memory_free_bytes: AtomicU64,
}

/// Counts; each counter has one writer, or needs no order.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// One family of samples in the text format that Prometheus reads.
pub(crate) struct Exposition {
    text: String,
}

/// What a metric is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

impl Exposition {
    pub(crate) fn new() -> Exposition {
        Exposition { text: String::with_capacity(4096) }
    }

    /// Adds a metric with one sample for each node.
    pub(crate) fn metric(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (String, u64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (node, value) in samples {
            let _ = writeln!(self.text, "{name}{{node=\"{node}\"}} {value}");
        }
    }

    /// Adds a counter with samples for each node, told apart by one more label.
    pub(crate) fn counter_by(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (String, String, u64)>,
    ) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for (node, value, count) in samples {
            let _ = writeln!(self.text, "{name}{{node=\"{node}\",{label}=\"{value}\"}} {count}");
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_help_type_and_a_sample_for_each_node() {
        let mut exposition = Exposition::new();
        let samples = [("n1".to_owned(), 3), ("n2".to_owned(), 4)];
        exposition.metric("tholos_server_commands_total", Kind::Counter, "Commands received.", samples);
        let moves = [("n1".to_owned(), "slow disk".to_owned(), 3)];
        exposition.counter_by("tholos_node_leader_moves_total", "Moves.", "reason", moves);
        assert_eq!(
            exposition.finish(),
            "# HELP tholos_server_commands_total Commands received.\n\
             # TYPE tholos_server_commands_total counter\n\
             tholos_server_commands_total{node=\"n1\"} 3\n\
             tholos_server_commands_total{node=\"n2\"} 4\n\
             # HELP tholos_node_leader_moves_total Moves.\n\
             # TYPE tholos_node_leader_moves_total counter\n\
             tholos_node_leader_moves_total{node=\"n1\",reason=\"slow disk\"} 3\n"
        );
    }
}
