//! The connections of the admin interface: so many at a time, and none for ever. Whoever only holds one open takes neither
//! memory nor files that the node needs, and gives its place back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::client_task;

/// Connections at a time; more are closed at once. What asks here are tools, a few times a minute each.
pub(crate) const CONNECTIONS_MAX: usize = 128;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time.
    pub(super) connections_max: usize,
    /// The whole head of a request has come by then, counted from the connection's beginning or the answer before: half
    /// requests end, and so do connections that are not used.
    pub(super) head_within: Duration,
    /// After this no further request is taken. Longer than any request takes: what asks every quarter of a minute has many.
    pub(super) lifetime: Duration,
    /// What is under way then ends by then, or is cut off: a body that does not come, an answer that nobody reads.
    pub(super) ends_within: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections_max: CONNECTIONS_MAX,
            head_within: Duration::from_secs(30),
            lifetime: Duration::from_secs(300),
            ends_within: Duration::from_secs(30),
        }
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    client_task::accept(listener, move |stream, remote| {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { return };
        let router = router.clone().layer(Extension(ConnectInfo(remote)));
        tokio::spawn(async move {
            serve_one(stream, router, bounds).await;
            drop(place);
        });
    })
    .await;
}

/// Serves a connection to its end. How it ended is known to who was connected.
async fn serve_one(stream: TcpStream, router: Router, bounds: Bounds) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_within)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    if tokio::time::timeout(bounds.lifetime, connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(bounds.ends_within, connection).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// How long anything here may take.
    const DEADLINE: Duration = Duration::from_secs(30);

    async fn start(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/body", post(|body: String| async { body }));
        tokio::spawn(serve(listener, router, bounds));
        address
    }

    async fn connect(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // One that is closed already says so when it is read.
        let _ = stream.write_all(text.as_bytes()).await;
        stream
    }

    /// What comes until the end, which must come.
    async fn to_end(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset is an end as well.
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("it ends");
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_end_by_themselves() {
        let short = Duration::from_millis(20);
        let address = start(Bounds { head_within: short, ..Bounds::default() }).await;
        let mut silent = connect(address, "").await;
        let mut half = connect(address, "GET / HTTP/1.1\r\nHost: a\r\nX-Half:").await;
        let mut idle = connect(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(to_end(&mut silent).await, "");
        assert!(!to_end(&mut half).await.contains("200 OK"));
        assert!(to_end(&mut idle).await.ends_with("here"));
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut_off() {
        let short = Duration::from_millis(20);
        let address = start(Bounds { lifetime: short, ends_within: short, ..Bounds::default() }).await;
        let mut stuck =
            connect(address, "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
        assert!(!to_end(&mut stuck).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn more_than_there_are_places_for_are_closed_at_once() {
        let address = start(Bounds { connections_max: 2, ..Bounds::default() }).await;
        let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (first, mut second) = (connect(address, "").await, connect(address, "").await);
        let mut third = connect(address, ask).await;
        assert_eq!(to_end(&mut third).await, "");
        drop(first);
        let served = async {
            while !to_end(&mut connect(address, "GET / HTTP/1.0\r\n\r\n").await).await.ends_with("here") {}
        };
        tokio::time::timeout(DEADLINE, served).await.expect("the place of the first is free");
        second.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it is open");
        assert!(to_end(&mut second).await.ends_with("here"));
    }
}
