//! Authenticated connections between nodes, carrying frames of bytes.
