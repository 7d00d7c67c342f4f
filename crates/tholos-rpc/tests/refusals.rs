//! Who is not let in, what both sides say about it, and that strangers get nothing.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use common::{CLUSTER, DEADLINE, Node, address, config, introduce, pair, secret};
use tholos_rpc::{Config, Event, Lane, PeerAddress, QueryError, Refusal, Rpc, StartError, query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Bytes of an opening and of a challenge.
const OPENING_BYTES: usize = 64;

#[tokio::test]
async fn other_secret_is_refused_whoever_dials() {
    for (first, second) in [(secret(1), secret(2)), (secret(1), None), (None, secret(2))] {
        let label = if first.is_some() && second.is_some() { "secret_differs" } else { "secret_missing" };
        let mut one = Node::start(config(1, first));
        let mut two = Node::start(config(2, second));
        introduce(&one, 1, &two, 2);
        let reason = two.refusal(label).await;
        assert!(reason.to_string().contains("cluster_secret"), "{reason}");
        assert_eq!(one.refusal("silence").await, Refusal::Silence);
        let error = one.rpc.status()[0].log.last_error.clone().unwrap();
        assert!(error.contains("cluster secret differs"), "{error}");
    }
}

#[tokio::test]
async fn other_cluster_is_refused_by_name() {
    let mut other = config(2, secret(1));
    other.me.cluster_id = Some([0xc2; 20]);
    let mut one = Node::start(config(1, secret(1)));
    let mut two = Node::start(other);
    introduce(&one, 1, &two, 2);
    let (ours, theirs) = (Some(CLUSTER), Some([0xc2; 20]));
    assert_eq!(one.refusal("cluster").await, Refusal::Cluster { ours, theirs });
    assert_eq!(two.refusal("cluster").await, Refusal::Cluster { ours: theirs, theirs: ours });
}

#[tokio::test]
async fn unknown_node_is_refused_by_name() {
    let mut one = Node::start(config(1, secret(1)));
    let mut two = Node::start(config(2, secret(1)));
    one.rpc.set_peers(vec![address(2, &two)]);
    assert_eq!(two.refusal("unknown_node").await, Refusal::UnknownNode { node: 1, name: "n1".into() });
    assert_eq!(one.refusal("unknown_there").await, Refusal::UnknownThere { node: 2 });
    // The right id under another name is as unknown.
    two.rpc.set_peers(vec![PeerAddress { name: "other".into(), ..address(1, &one) }]);
    assert_eq!(two.refusal("unknown_node").await, Refusal::UnknownNode { node: 1, name: "n1".into() });
}

#[tokio::test]
async fn exchanged_addresses_are_noticed() {
    let mut one = Node::start(config(1, secret(1)));
    let mut two = Node::start(config(2, secret(1)));
    one.rpc.set_peers(vec![address(3, &two)]);
    let wrong = Refusal::WrongNode { expected: 3, found: 2 };
    assert_eq!(one.refusal("wrong_node").await, wrong);
    assert_eq!(two.refusal("wrong_node").await, wrong);
}

#[tokio::test]
async fn second_live_process_of_a_node_is_refused_until_the_first_stops() {
    let (one, mut two) = pair(secret(1)).await;
    let mut twin = Node::start(config(1, secret(1)));
    twin.rpc.set_peers(vec![address(2, &two)]);
    assert_eq!(twin.refusal("duplicate_of_us").await, Refusal::DuplicateOfUs { node: 2 });
    let reason = two.refusal("duplicate").await;
    assert_eq!(reason, Refusal::Duplicate { node: 1 });
    assert!(reason.to_string().contains("copied data directory"), "{reason}");
    one.rpc.send(2, Lane::Log, Bytes::from_static(b"the first lives")).unwrap();
    assert_eq!(two.message().await.2, "the first lives");
    one.rpc.shutdown().await;
    twin.both_up(2).await;
}

#[tokio::test]
async fn beyond_loopback_needs_a_secret() {
    let start = |listen: &str, secret| {
        let listen: SocketAddr = listen.parse().unwrap();
        Rpc::start(Config { listen, ..config(1, secret) }, mpsc::channel(1).0)
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7101"] {
        let error = start(listen, None).err().unwrap();
        assert!(matches!(error, StartError::NoSecret { .. }), "{error}");
        assert!(error.to_string().contains("--cluster-secret-file"), "{error}");
    }
    assert!(start("0.0.0.0:0", secret(1)).is_ok());

    let mut one = Node::start(config(1, None));
    one.rpc.set_peers(vec![PeerAddress { node: 2, name: "n2".into(), address: "192.0.2.1:7101".into() }]);
    let reason = one.refusal("unreachable").await;
    assert!(reason.to_string().contains("set cluster_secret"), "{reason}");
    let asked = query("192.0.2.1:7101", None, Bytes::new(), DEADLINE).await.unwrap_err();
    assert!(asked.to_string().contains("set cluster_secret"), "{asked}");
}

#[tokio::test]
async fn taken_port_is_named() {
    let one = Node::start(config(1, None));
    let listen = one.rpc.local_address();
    let error = Rpc::start(Config { listen, ..config(1, None) }, mpsc::channel(1).0).err().unwrap();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

/// An address that nobody listens on, and nobody else can while the socket lives.
fn closed() -> (TcpSocket, String) {
    let held = TcpSocket::new_v4().expect("there are sockets");
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has free ports");
    let address = held.local_addr().expect("it is bound").to_string();
    (held, address)
}

#[tokio::test]
async fn dead_address_is_told_and_shown() {
    let (_held, closed) = closed();
    let mut one = Node::start(config(1, secret(1)));
    one.rpc.set_peers(vec![PeerAddress { node: 2, name: "n2".into(), address: closed.clone() }]);
    let reason = one.refusal("unreachable").await.to_string();
    assert!(reason.contains(&closed) && reason.contains("refused"), "{reason}");
    assert!(one.rpc.status()[0].log.last_error.is_some() && !one.rpc.status()[0].log.up);
}

/// Who was told the right address, and then a wrong one, by somebody who had not heard yet, still finds the peer.
#[tokio::test]
async fn the_address_before_the_newest_is_tried_as_well() {
    let (_held, closed) = closed();
    let (mut one, mut two) = (Node::start(config(1, None)), Node::start(config(2, None)));
    one.rpc.set_peers(vec![address(2, &two)]);
    one.refusal("unknown_there").await;
    one.rpc.set_peers(vec![PeerAddress { node: 2, name: "n2".into(), address: closed }]);
    one.refusal("unreachable").await;
    two.rpc.set_peers(vec![address(1, &one)]);
    one.both_up(2).await;
    two.both_up(1).await;
}

/// A node that gives strangers little time, and one peer it should know.
fn guarded() -> Node {
    let mut config = config(2, secret(1));
    config.timing.handshake_timeout = Duration::from_millis(300);
    config.limits.half_open_max = 8;
    Node::start(config)
}

/// What a node sends until it closes. A reset counts as a close: bytes of the stranger's were left unread.
async fn all_it_says(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut said)).await.expect("it did not close");
    said
}

#[tokio::test]
async fn strangers_get_no_byte_and_are_closed() {
    let mut node = guarded();
    let at = node.rpc.local_address();
    let mut huge = b"THOLOSRP".to_vec();
    huge.extend_from_slice(&[0xff; 56]);
    let cases: [(&[u8], &str); 8] = [
        (b"", "deadline"),
        (b"T", "deadline"),
        (b"THOLOSRP", "deadline"),
        (&huge, "secret_differs"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not_a_peer"),
        (b"*1\r\n$4\r\nPING\r\n", "not_a_peer"),
        (&[0xff; 4096], "not_a_peer"),
        (&[0; 4096], "not_a_peer"),
    ];
    for (bytes, label) in cases {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(all_it_says(&mut stream).await, b"", "{bytes:?}");
        node.refusal(label).await;
    }
}

#[tokio::test]
async fn slow_bytes_do_not_stretch_the_deadline() {
    let mut node = guarded();
    let mut stream = TcpStream::connect(node.rpc.local_address()).await.unwrap();
    let (mut read_half, mut write_half) = stream.split();
    let drip = async {
        // Each byte is a sign of life; the deadline is for the whole.
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for byte in b"THOLOSRP".iter().chain(std::iter::repeat(&0)) {
            if write_half.write_all(&[*byte]).await.is_err() {
                return;
            }
            pace.tick().await;
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = timeout(DEADLINE, read_half.read_to_end(&mut said)) => {}
    }
    assert_eq!(said, b"");
    assert_eq!(node.refusal("deadline").await, Refusal::Deadline);
}

#[tokio::test]
async fn crowd_of_silent_strangers_is_bounded_and_keeps_no_peer_out() {
    let mut patient = config(2, secret(1));
    patient.timing.handshake_timeout = Duration::from_secs(3600);
    patient.limits.half_open_max = 8;
    let mut node = Node::start(patient);
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(node.rpc.local_address()).await.unwrap());
    }
    let mut one = Node::start(config(1, secret(1)));
    introduce(&one, 1, &node, 2);
    one.both_up(2).await;
    node.both_up(1).await;
    // No deadline closes these: all but eight made room for newer ones.
    for stream in &mut crowd[..192] {
        assert_eq!(all_it_says(stream).await, b"");
    }
}

#[tokio::test]
async fn replayed_opening_gets_one_challenge_and_nothing_of_the_cluster() {
    // Record the opening of an honest node by standing at its peer's address.
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = Node::start(config(1, secret(1)));
    let row = PeerAddress { node: 2, name: "n2".into(), address: trap.local_addr().unwrap().to_string() };
    one.rpc.set_peers(vec![row]);
    let (mut stream, _) = timeout(DEADLINE, trap.accept()).await.unwrap().unwrap();
    let mut opening = [0; OPENING_BYTES];
    stream.read_exact(&mut opening).await.unwrap();

    let node = guarded();
    let mut replay = TcpStream::connect(node.rpc.local_address()).await.unwrap();
    replay.write_all(&opening).await.unwrap();
    replay.write_all(&[0xff; 200]).await.unwrap();
    let said = all_it_says(&mut replay).await;
    // A reset may swallow even the challenge.
    assert!(said.is_empty() || said.len() == OPENING_BYTES, "{} bytes", said.len());
}

#[tokio::test]
async fn strangers_cannot_fill_the_events() {
    // Nobody takes events, and there is room for two.
    let (sender, mut events) = mpsc::channel(2);
    let rpc = Rpc::start(config(2, secret(1)), sender).unwrap();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(rpc.local_address()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(all_it_says(&mut stream).await, b"", "it still serves");
    }
    assert_eq!(events.len(), 2);
    while events.try_recv().is_ok() {}
    // What was kept back is counted in the next one told.
    let suppressed = async {
        loop {
            let mut stream = TcpStream::connect(rpc.local_address()).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            all_it_says(&mut stream).await;
            if let Ok(Event::Refused { suppressed, .. }) = events.try_recv() {
                return suppressed;
            }
        }
    };
    assert!(timeout(DEADLINE, suppressed).await.unwrap() >= 48);
}

/// A node without a cluster, as at genesis, that answers with the question reversed.
async fn answering(node: &mut Node) {
    let (payload, reply) = node
        .find(|event| match event {
            Event::Query { payload, reply, .. } => Some((payload, reply)),
            _ => None,
        })
        .await;
    let answer: Vec<u8> = payload.iter().rev().copied().collect();
    reply.send(answer.into()).expect("the asker waits");
}

#[tokio::test]
async fn query_is_answered_before_any_cluster_exists() {
    for secret in [None, secret(1)] {
        let mut founding = config(1, secret.clone());
        founding.me.cluster_id = None;
        let mut one = Node::start(founding);
        let at = one.rpc.local_address().to_string();
        for length in [0, 5, 500_000] {
            let question: Bytes = (0..length).map(|n: u32| n as u8).collect::<Vec<u8>>().into();
            let asking = query(&at, secret.as_ref(), question.clone(), DEADLINE);
            let (answer, ()) = tokio::join!(asking, answering(&mut one));
            assert!(answer.unwrap().iter().eq(question.iter().rev()));
        }
    }
}

#[tokio::test]
async fn query_failures_are_told_apart() {
    let mut config = config(1, secret(1));
    config.limits.queries_max = 1;
    let mut one = Node::start(config);
    let at = one.rpc.local_address().to_string();
    let ask = |secret: u8, timeout| {
        let at = at.clone();
        async move { query(&at, common::secret(secret).as_ref(), Bytes::from_static(b"?"), timeout).await }
    };
    assert_eq!(ask(2, DEADLINE).await, Err(QueryError::Refused(Refusal::Silence)));
    let waiting = tokio::spawn(ask(1, DEADLINE));
    let reply =
        one.find(|event| if let Event::Query { reply, .. } = event { Some(reply) } else { None }).await;
    assert_eq!(ask(1, DEADLINE).await, Err(QueryError::Refused(Refusal::Busy)));
    drop(reply);
    assert_eq!(waiting.await.unwrap(), Err(QueryError::NoAnswer));
    let long = Bytes::from(vec![0; tholos_rpc::QUERY_BYTES_MAX + 1]);
    assert_eq!(query(&at, None, long, DEADLINE).await, Err(QueryError::TooLarge));
    // A listener that accepts and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let brief = Duration::from_millis(50);
    let at_mute = mute.local_addr().unwrap().to_string();
    let asked = query(&at_mute, None, Bytes::new(), brief).await;
    assert_eq!(asked, Err(QueryError::TimedOut(brief)));
}
