//! Versioned bytes of peer messages, log records and snapshots.
