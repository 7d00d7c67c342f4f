//! Why a connection did not come about, in words that name the cause and the remedy; and the limit on saying it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::CLUSTER_ID_BYTES;

/// Why no connection came about, seen from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// What dialled us does not speak this protocol.
    NotAPeer {
        /// What its first bytes look like.
        looks_like: &'static str,
    },
    /// The handshake was not finished in time.
    Deadline,
    /// A half-open connection made room for a newer one.
    Crowded,
    /// Its proof is wrong: it has another cluster secret.
    SecretDiffers,
    /// One side has a cluster secret and the other has none.
    SecretMissing {
        /// True when it is this node that has none.
        here: bool,
    },
    /// What we dialled closed the connection without a word: to one without its secret a node says nothing.
    Silence,
    /// No protocol version in common.
    Version {
        /// The lowest and highest version of this node.
        ours: (u16, u16),
        /// The lowest and highest version of the other.
        theirs: (u16, u16),
    },
    /// It belongs to another cluster, or one of the two to none yet.
    Cluster {
        /// Our cluster.
        ours: Option<[u8; CLUSTER_ID_BYTES]>,
        /// Its cluster.
        theirs: Option<[u8; CLUSTER_ID_BYTES]>,
    },
    /// This node's cluster map has no such node.
    UnknownNode {
        /// The id it claims.
        node: u16,
        /// The name it claims.
        name: String,
    },
    /// The other node's cluster map does not have this node.
    UnknownThere {
        /// The other node.
        node: u16,
    },
    /// At the address of one node another answered.
    WrongNode {
        /// The node that was dialled.
        expected: u16,
        /// The node that answered.
        found: u16,
    },
    /// A second live process claims a node (R21).
    Duplicate {
        /// The node claimed twice.
        node: u16,
    },
    /// The other node is connected with a second live process that claims to be this one (R21).
    DuplicateOfUs {
        /// The node that refused us.
        node: u16,
    },
    /// It dialled against the rule that the smaller id dials.
    NotItsTurn {
        /// The node that dialled.
        node: u16,
    },
    /// Too many queries at once.
    Busy,
    /// Without a secret, connections from beyond loopback are not taken.
    BeyondLoopback,
    /// Proven bytes that this version cannot read.
    Malformed(&'static str),
    /// The address cannot be reached; the text is the system's.
    Unreachable(String),
    /// The listener itself cannot accept (out of descriptors, say); the text is the system's.
    CannotAccept(String),
}

impl Refusal {
    /// A label from a closed list, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NotAPeer { .. } => "not_a_peer",
            Refusal::Deadline => "deadline",
            Refusal::Crowded => "crowded",
            Refusal::SecretDiffers => "secret_differs",
            Refusal::SecretMissing { .. } => "secret_missing",
            Refusal::Silence => "silence",
            Refusal::Version { .. } => "version",
            Refusal::Cluster { .. } => "cluster",
            Refusal::UnknownNode { .. } => "unknown_node",
            Refusal::UnknownThere { .. } => "unknown_there",
            Refusal::WrongNode { .. } => "wrong_node",
            Refusal::Duplicate { .. } => "duplicate",
            Refusal::DuplicateOfUs { .. } => "duplicate_of_us",
            Refusal::NotItsTurn { .. } => "not_its_turn",
            Refusal::Busy => "busy",
            Refusal::BeyondLoopback => "beyond_loopback",
            Refusal::Malformed(_) => "malformed",
            Refusal::Unreachable(_) => "unreachable",
            Refusal::CannotAccept(_) => "cannot_accept",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotAPeer { looks_like } => write!(
                f,
                "it does not speak the peer protocol ({looks_like}); point clients at the gateway or cluster port"
            ),
            Refusal::Deadline => f.write_str("it did not finish the handshake in time; is the network or that process stuck?"),
            Refusal::Crowded => f.write_str(
                "too many connections wait for their handshake and the oldest made room; find out who dials the peer port",
            ),
            Refusal::SecretDiffers => f.write_str(
                "its cluster secret differs from this node's; give all nodes the same cluster_secret",
            ),
            Refusal::SecretMissing { here: true } => f.write_str(
                "it has a cluster secret and this node has none; set cluster_secret here",
            ),
            Refusal::SecretMissing { here: false } => f.write_str(
                "it has no cluster secret and this node has one; set cluster_secret there",
            ),
            Refusal::Silence => f.write_str(
                "it closed the connection without a word; most likely its cluster secret differs (its log says so), \
                 or the address is not a peer port",
            ),
            Refusal::Version { ours, theirs } => write!(
                f,
                "it speaks protocol versions {} to {} and this node {} to {}; upgrade the older one",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Refusal::Cluster { ours, theirs } => write!(
                f,
                "it belongs to {} and this node to {}; point it at its own cluster's nodes, or start it on an empty directory",
                ClusterText(theirs),
                ClusterText(ours)
            ),
            Refusal::UnknownNode { node, name } => write!(
                f,
                "it says it is n{node} ({name}), which is not in this node's cluster map; let it join first"
            ),
            Refusal::UnknownThere { node } => write!(
                f,
                "n{node} does not have this node in its cluster map; if this node was removed, wipe it and let it join anew"
            ),
            Refusal::WrongNode { expected, found } => write!(
                f,
                "n{found} answered at the address of n{expected}; correct the addresses of the two"
            ),
            Refusal::Duplicate { node } => write!(
                f,
                "a second live process says it is n{node}; stop one of the two (a copied data directory must not run twice)"
            ),
            Refusal::DuplicateOfUs { node } => write!(
                f,
                "n{node} is connected with another live process that says it is this node; stop one of the two \
                 (a copied data directory must not run twice)"
            ),
            Refusal::NotItsTurn { node } => {
                write!(f, "n{node} dialled this node, but the node with the smaller id dials; are the two ids right?")
            }
            Refusal::Busy => f.write_str("it answers as many queries as it may at once; try again"),
            Refusal::BeyondLoopback => f.write_str(
                "it is beyond loopback and this node has no cluster secret; set cluster_secret on all nodes",
            ),
            Refusal::Malformed(what) => write!(f, "it sent {what} that this version cannot read; compare the versions of both"),
            Refusal::Unreachable(error) => write!(f, "{error}"),
            Refusal::CannotAccept(error) => {
                write!(f, "this node cannot accept connections: {error}; raise the limit of open files")
            }
        }
    }
}

impl std::error::Error for Refusal {}

struct ClusterText<'a>(&'a Option<[u8; CLUSTER_ID_BYTES]>);

impl fmt::Display for ClusterText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(id) = self.0 else { return f.write_str("no cluster yet") };
        f.write_str("cluster ")?;
        // Four bytes tell two clusters apart for a human.
        id[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Refusals of one reason that may be told at once.
const BURST: u32 = 5;
/// Time after which one more may be told.
const REFILL: Duration = Duration::from_secs(1);

/// Lets refusals through at a bounded rate for each reason, so that a stranger cannot fill logs or queues.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// One row for each reason met; the reasons are a closed list.
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    reason: &'static str,
    tokens: u32,
    refilled: Instant,
    suppressed: u64,
}

impl Limiter {
    /// Whether to tell a refusal of this reason now: if so, how many were kept back since the last one told.
    pub(crate) fn admit(&mut self, reason: &'static str, now: Instant) -> Option<u64> {
        let at = match self.rows.iter().position(|row| row.reason == reason) {
            Some(at) => at,
            None => {
                self.rows.push(Row { reason, tokens: BURST, refilled: now, suppressed: 0 });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[at];
        let earned = now.saturating_duration_since(row.refilled).as_millis() / REFILL.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            row.tokens = row.tokens.saturating_add(earned).min(BURST);
            row.refilled = now;
        }
        if row.tokens == 0 {
            row.suppressed += 1;
            return None;
        }
        row.tokens -= 1;
        Some(std::mem::take(&mut row.suppressed))
    }

    /// Counts one that was let through and then found no room.
    pub(crate) fn put_back(&mut self, reason: &'static str, suppressed: u64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.reason == reason) {
            row.suppressed += suppressed + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_tells_a_burst_then_one_each_second_and_counts_the_rest() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(limiter.admit("deadline", start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limiter.admit("deadline", start), None);
        }
        assert_eq!(limiter.admit("cluster", start), Some(0), "each reason has its own bucket");
        assert_eq!(limiter.admit("deadline", start + REFILL), Some(7));
        assert_eq!(limiter.admit("deadline", start + REFILL), None);
        assert_eq!(limiter.admit("deadline", start + REFILL * 100), Some(1));
    }

    #[test]
    fn texts_name_a_remedy() {
        let ours = Some([0xab; CLUSTER_ID_BYTES]);
        let text = Refusal::Cluster { ours, theirs: None }.to_string();
        assert!(
            text.contains("no cluster yet") && text.contains("abababab") && text.contains("start it on"),
            "{text}"
        );
        assert!(Refusal::SecretDiffers.to_string().contains("cluster_secret"));
    }
}
