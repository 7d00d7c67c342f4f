//! Queries: one question and one answer on a connection of its own, proven by the secret and by no cluster.
//!
//! Genesis needs them (R26): nodes without a cluster id must be able to ask each other who they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::event::Event;
use crate::frame::{Batch, Cut, Decoder, FrameError, Received};
use crate::handshake::{self, Proven, Role};
use crate::hello::{Hello, Identity, Purpose, Verdict};
use crate::refusal::Refusal;
use crate::rpc::Shared;
use crate::secret::{Keyring, Sealer, Secret};
use crate::transport::Transport;

/// Bytes of a query and of its answer, at most.
pub const QUERY_BYTES_MAX: usize = 1 << 20;

/// Why a query has no answer. The question may have been received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No connection came about; nothing was asked.
    #[error("{0}")]
    Refused(Refusal),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The node closed the connection without an answer.
    #[error("the node closed the connection without an answer")]
    NoAnswer,
    /// The answer's bytes are not ours.
    #[error("{0}")]
    BadFrame(FrameError),
    /// The question has more than [`QUERY_BYTES_MAX`] bytes; nothing was asked.
    #[error("a query may have {QUERY_BYTES_MAX} bytes")]
    TooLarge,
}

/// Asks the node at `address` (`host:port`) one thing. Needs no cluster id, and no [`Rpc`](crate::Rpc).
///
/// # Errors
/// See [`QueryError`]. Without a secret only loopback addresses are asked.
pub async fn query(
    address: &str,
    secret: Option<&Secret>,
    payload: Bytes,
    timeout: Duration,
) -> Result<Bytes, QueryError> {
    if payload.len() > QUERY_BYTES_MAX {
        return Err(QueryError::TooLarge);
    }
    let asking = ask(address, Keyring::new(secret), payload);
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(QueryError::TimedOut(timeout)))
}

async fn ask(address: &str, keyring: Keyring, payload: Bytes) -> Result<Bytes, QueryError> {
    let unreachable =
        |error: std::io::Error| QueryError::Refused(Refusal::Unreachable(format!("{address}: {error}")));
    let mut transport = Transport::connect(address, !keyring.secured).await.map_err(unreachable)?;
    let hello = Hello { purpose: Purpose::Query, expects: 0, identity: Identity::anonymous() };
    let dialled = handshake::dial(transport.stream(), &keyring, &hello).await.map_err(QueryError::Refused)?;
    match dialled.answer.verdict {
        Verdict::Welcome => {}
        Verdict::Busy => return Err(QueryError::Refused(Refusal::Busy)),
        _ => return Err(QueryError::Refused(Refusal::Malformed("a verdict"))),
    }
    let (mut out, back) = dialled.keys.sealers(Role::Dialler);
    if write_message(&mut transport, payload, &mut out).await.is_err() {
        return Err(QueryError::NoAnswer);
    }
    match read_message(&mut transport, back).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(QueryError::NoAnswer),
        Err(error) => Err(QueryError::BadFrame(error)),
    }
}

/// Answers one query on a proven connection.
pub(crate) async fn answer(shared: Arc<Shared>, mut transport: Transport, mut proven: Proven) {
    let permit = Arc::clone(&shared.queries).try_acquire_owned();
    let verdict = if permit.is_ok() { Verdict::Welcome } else { Verdict::Busy };
    if permit.is_err() {
        shared.refuse(transport.address.to_string(), None, Refusal::Busy);
    }
    let answering = async {
        proven.answer(transport.stream(), verdict, shared.identity()).await.ok()?;
        if verdict != Verdict::Welcome {
            return None;
        }
        let (mut out, back) = proven.keys.sealers(Role::Listener);
        let payload = read_message(&mut transport, back).await.ok()??;
        let (reply, response) = oneshot::channel();
        let event = Event::Query { address: transport.address.to_string(), payload, reply };
        shared.tell(event, &shared.stop).await;
        let response = response.await.ok()?;
        // An answer over the limit would be refused over there; saying nothing is the same, sooner.
        if response.len() <= QUERY_BYTES_MAX {
            write_message(&mut transport, response, &mut out).await.ok()?;
        }
        Some(())
    };
    tokio::select! {
        _ = tokio::time::timeout(shared.config.timing.query_timeout, answering) => {}
        () = shared.stop.cancelled() => {}
    }
}

async fn write_message(
    transport: &mut Transport,
    message: Bytes,
    sealer: &mut Sealer,
) -> std::io::Result<()> {
    let (mut cut, mut batch) = (Cut::new(message), Batch::new());
    while !cut.push_piece(&mut batch, sealer) {}
    batch.seal_tail();
    while batch.has_remaining() {
        transport.stream().write_buf(&mut batch).await?;
    }
    Ok(())
}

/// Reads one message; None if the connection ended before it was whole.
async fn read_message(transport: &mut Transport, sealer: Sealer) -> Result<Option<Bytes>, FrameError> {
    let mut decoder = Decoder::new(sealer, QUERY_BYTES_MAX);
    let mut buffer = BytesMut::new();
    loop {
        while let Some(received) = decoder.decode(&mut buffer)? {
            if let Received::Message(message) = received {
                return Ok(Some(message));
            }
        }
        match transport.stream().read_buf(&mut buffer).await {
            Ok(count) if count > 0 => {}
            _ => return Ok(None),
        }
    }
}
