//! The byte stream under a connection, and the only place that knows it is plain TCP.
//!
//! TLS will come in here: `connect` and `accept` will run its handshake, and the two halves become those of the
//! TLS stream. Nothing above asks for more than `AsyncRead`, `AsyncWrite` and the peer's address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// The receiving half of a transport.
pub(crate) type ReadHalf = tokio::net::tcp::OwnedReadHalf;
/// The sending half of a transport.
pub(crate) type WriteHalf = tokio::net::tcp::OwnedWriteHalf;

/// Bytes the kernel may hold that it has not sent yet. More would let a heartbeat wait behind them.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A connected, not yet authenticated byte stream.
pub(crate) struct Transport {
    stream: TcpStream,
    pub(crate) address: SocketAddr,
}

impl Transport {
    /// Resolves `address` (`host:port`) and connects to the first of its addresses that answers.
    ///
    /// With `loopback_only` an address beyond loopback is an error, and none of its packets leaves this machine.
    pub(crate) async fn connect(address: &str, loopback_only: bool) -> io::Result<Transport> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in tokio::net::lookup_host(address).await? {
            if loopback_only && !candidate.ip().is_loopback() {
                last = io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it is beyond loopback and this node has no cluster secret: set cluster_secret on all nodes",
                );
                continue;
            }
            match TcpStream::connect(candidate).await {
                Ok(stream) => return Transport::accept(stream, candidate),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes over a connection that a listener accepted.
    pub(crate) fn accept(stream: TcpStream, address: SocketAddr) -> io::Result<Transport> {
        stream.set_nodelay(true)?;
        Ok(Transport { stream, address })
    }

    /// Bounds what the kernel keeps unsent and how long it tries; on platforms without the options, does nothing.
    pub(crate) fn tune(&self, small_unsent: bool, silence: Duration) {
        let socket = socket2::SockRef::from(&self.stream);
        // Both are improvements only: the writer's pieces and the pings keep the promise without them.
        #[cfg(any(target_os = "android", target_os = "linux"))]
        if small_unsent {
            let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        }
        #[cfg(any(target_os = "android", target_os = "linux", target_os = "fuchsia"))]
        let _ = socket.set_tcp_user_timeout(Some(silence));
        let _ = (socket, small_unsent, silence, UNSENT_BYTES_MAX);
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        self.stream.into_split()
    }
}
