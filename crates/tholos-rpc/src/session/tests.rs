//! A node against a hand-made dialler that has the secret and misbehaves.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::{Config, Lane, LocalHello, PeerAddress};
use crate::event::{DownReason, Event};
use crate::frame::{Batch, Decoder, FrameError, Received};
use crate::handshake::{self, Dialled, Role};
use crate::hello::{Hello, Identity, Purpose, Verdict};
use crate::refusal::Refusal;
use crate::rpc::Rpc;
use crate::secret::{Keyring, Secret};

const DEADLINE: Duration = Duration::from_secs(20);

fn secret() -> Secret {
    Secret::new(&[1; 32]).unwrap()
}

fn hello(node: u16) -> LocalHello {
    LocalHello {
        cluster_id: Some([1; 20]),
        node,
        name: format!("n{node}"),
        incarnation: 1,
        boot: 1,
        recovered_lsn: 0,
        advertised: Bytes::new(),
    }
}

/// Node 2, which knows nodes 1 and 3.
struct Node {
    rpc: Rpc,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn start(adjust: impl FnOnce(&mut Config)) -> Node {
        let mut config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), hello(2), Some(secret()));
        adjust(&mut config);
        let (sender, events) = mpsc::channel(64);
        let rpc = Rpc::start(config, sender).unwrap();
        let row = |node| PeerAddress { node, name: format!("n{node}"), address: "127.0.0.1:1".into() };
        rpc.set_peers(vec![row(1), row(3)]);
        Node { rpc, events }
    }

    /// The next event that is no failure of dialling node 3, which does not exist.
    async fn next(&mut self) -> Event {
        let finding = async {
            loop {
                match self.events.recv().await.unwrap() {
                    Event::Refused { reason: Refusal::Unreachable(_), .. } => {}
                    event => return event,
                }
            }
        };
        timeout(DEADLINE, finding).await.expect("it did not come before the deadline")
    }

    async fn up(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, Event::Up { .. }), "{event:?}");
    }

    async fn down(&mut self) -> DownReason {
        match self.next().await {
            Event::Down { reason, .. } => reason,
            event => panic!("{event:?}"),
        }
    }

    async fn dial(&self, node: u16, nonce: u64) -> (TcpStream, Dialled) {
        let mut stream = TcpStream::connect(self.rpc.local_address()).await.unwrap();
        let identity = Identity::new(&hello(node), nonce);
        let hello = Hello { purpose: Purpose::Lane(Lane::Log), expects: 2, identity };
        let ring = Keyring::new(Some(&secret()));
        let dialled = handshake::dial(&mut stream, &ring, &hello).await.ok().unwrap();
        (stream, dialled)
    }
}

/// The wire bytes of a frame of a connection's first message.
fn first_frame(dialled: &Dialled, message: &'static [u8]) -> Vec<u8> {
    let (mut out, _) = dialled.keys.sealers(Role::Dialler);
    let mut batch = Batch::new();
    batch.push_whole(Bytes::from_static(message), &mut out);
    batch.seal_tail();
    batch.copy_to_bytes(batch.remaining()).to_vec()
}

#[tokio::test]
async fn tampered_and_replayed_frames_end_the_connection() {
    let mut node = Node::start(|_| ());
    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    let frame = first_frame(&dialled, b"once");
    stream.write_all(&frame).await.unwrap();
    assert!(matches!(node.next().await, Event::Frame { payload, .. } if payload == "once"));
    stream.write_all(&frame).await.unwrap();
    assert_eq!(node.down().await, DownReason::BadFrame(FrameError::Tag), "replayed on the same connection");

    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    stream.write_all(&frame).await.unwrap();
    assert_eq!(node.down().await, DownReason::BadFrame(FrameError::Tag), "replayed on another connection");
    drop((stream, dialled));

    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    let mut frame = first_frame(&dialled, b"once");
    frame[5] ^= 1;
    stream.write_all(&frame).await.unwrap();
    assert_eq!(node.down().await, DownReason::BadFrame(FrameError::Tag), "changed");
}

#[tokio::test]
async fn same_process_that_dials_again_replaces_its_connection() {
    let mut node = Node::start(|_| ());
    let first = node.dial(1, 7).await;
    node.up().await;
    let (mut stream, dialled) = node.dial(1, 7).await;
    assert_eq!(node.down().await, DownReason::Replaced);
    node.up().await;
    stream.write_all(&first_frame(&dialled, b"new")).await.unwrap();
    assert!(matches!(node.next().await, Event::Frame { payload, .. } if payload == "new"));
    let (_, other) = node.dial(1, 8).await;
    assert_eq!(other.answer.verdict, Verdict::Duplicate, "another process does not");
    drop(first);
}

#[tokio::test]
async fn dialler_out_of_turn_or_with_our_own_id_is_refused() {
    let mut node = Node::start(|_| ());
    let refusal = async |node: &mut Node| match node.next().await {
        Event::Refused { reason, node, .. } => (reason, node),
        event => panic!("{event:?}"),
    };
    assert_eq!(node.dial(3, 7).await.1.answer.verdict, Verdict::NotYourTurn);
    assert_eq!(refusal(&mut node).await, (Refusal::NotItsTurn { node: 3 }, Some(3)));
    assert_eq!(node.dial(2, 7).await.1.answer.verdict, Verdict::Duplicate);
    assert_eq!(refusal(&mut node).await, (Refusal::Duplicate { node: 2 }, Some(2)));
}

#[tokio::test]
async fn silent_peer_is_dropped_and_an_idle_one_gets_pings() {
    let mut node = Node::start(|config| {
        config.timing.ping_interval = Duration::from_millis(20);
        config.timing.silence_limit = Duration::from_millis(200);
    });
    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    assert_eq!(node.down().await, DownReason::Silent(Duration::from_millis(200)));
    let mut sent = BytesMut::new();
    timeout(DEADLINE, async { while stream.read_buf(&mut sent).await.is_ok_and(|count| count > 0) {} })
        .await
        .unwrap();
    let (_, back) = dialled.keys.sealers(Role::Dialler);
    let mut decoder = Decoder::new(back, 100);
    let mut pings = 0;
    while let Some(received) = decoder.decode(&mut sent).unwrap() {
        assert_eq!(received, Received::Nothing);
        pings += 1;
    }
    assert!(pings > 0, "an idle connection must show life");
}

#[tokio::test]
async fn pings_keep_an_idle_connection_up() {
    let mut node = Node::start(|config| {
        config.timing.ping_interval = Duration::from_millis(20);
        config.timing.silence_limit = Duration::from_millis(500);
    });
    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    let (mut out, _) = dialled.keys.sealers(Role::Dialler);
    // More pings than fit into twice the silence limit, each after one of the node's: no clock of our own.
    for _ in 0..60 {
        let mut ping = [0; 21];
        timeout(DEADLINE, stream.read_exact(&mut ping)).await.unwrap().unwrap();
        let mut batch = Batch::new();
        batch.push_ping(&mut out);
        batch.seal_tail();
        stream.write_all_buf(&mut batch).await.unwrap();
    }
    while let Ok(event) = node.events.try_recv() {
        assert!(!matches!(event, Event::Down { .. }), "it went down");
    }
}

#[tokio::test]
async fn twin_of_a_vanished_machine_is_let_in_by_the_nudge() {
    let mut node = Node::start(|config| {
        config.timing.ping_interval = Duration::from_secs(1000);
        config.timing.silence_limit = Duration::from_secs(3600);
    });
    let (mut stream, dialled) = node.dial(1, 7).await;
    node.up().await;
    let (_, refused) = node.dial(1, 8).await;
    assert_eq!(refused.answer.verdict, Verdict::Duplicate);
    assert!(matches!(node.next().await, Event::Refused { reason: Refusal::Duplicate { node: 1 }, .. }));
    // The ping that a machine which forgot the connection would answer with a reset.
    let mut ping = [0; 21];
    timeout(DEADLINE, stream.read_exact(&mut ping)).await.unwrap().unwrap();
    drop((stream, dialled));
    node.down().await;
    assert_eq!(node.dial(1, 8).await.1.answer.verdict, Verdict::Welcome);
}
