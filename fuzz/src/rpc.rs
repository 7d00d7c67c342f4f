//! What must hold for any bytes that a connection between nodes brings. The decoders are no API, so `tholos-rpc` states
//! it beside them.

/// The frames of a connection.
pub fn rpc_frames(bytes: &[u8]) {
    tholos_rpc::fuzzing::frames(bytes);
}

/// The messages of the handshake.
pub fn rpc_handshake(bytes: &[u8]) {
    tholos_rpc::fuzzing::handshake(bytes);
}
