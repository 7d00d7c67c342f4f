//! What must hold for any bytes, one function for each fuzz target. The tests of the crates include these files and
//! replay the corpus with them.

pub mod cluster;
pub mod engine;
pub mod node;
pub mod resp;
pub mod rpc;
pub mod wal;
pub mod wire;
