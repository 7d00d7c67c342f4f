//! The driver: tokio tasks around the node core.
