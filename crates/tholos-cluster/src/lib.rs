//! The cluster map and its genesis.
