//! One live connection: a reader that hands on events and a writer that drains the lane's queue.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::{Lane, PeerHello};
use crate::event::{Credit, DownReason, Event};
use crate::frame::{Batch, Cut, Decoder, PIECE_BYTES, Received};
use crate::handshake::Role;
use crate::peers::Seat;
use crate::queue::Taken;
use crate::rpc::Shared;
use crate::secret::{Sealer, SessionKeys};
use crate::transport::{ReadHalf, Transport, WriteHalf};

/// A receive buffer's size: room for a frame in the making and for one read of many small ones.
const READ_BYTES: usize = 128 * 1024;

/// A new receive buffer is taken when less than this is left, so that reads stay large.
const READ_ROOM_BYTES: usize = 32 * 1024;

/// A received message costs its sender's budget at least this.
const MESSAGE_COST_BYTES: usize = 64;

/// Runs a proven connection until it ends; tells `Up` and `Down`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut seat: Seat,
    transport: Transport,
    keys: SessionKeys,
    role: Role,
    peer: PeerHello,
) {
    if let Some(previous) = seat.previous.take() {
        // Its `Down` comes before our `Up`.
        previous.cancelled().await;
    }
    transport.tune(seat.lane == Lane::Log, shared.config.timing.silence_limit);
    let (node, lane) = (seat.peer.node, seat.lane);
    let (sealer_out, sealer_in) = keys.sealers(role);
    let (read_half, write_half) = transport.into_split();
    let lane_state = seat.lane_state();
    lane_state.queue.open();
    lane_state.set_error(None);
    shared.tell(Event::Up { peer, lane }, &seat.stop).await;

    let writer = Writer::new(Arc::clone(&shared), &seat, sealer_out);
    let stop = seat.stop.clone();
    let writing = shared.tasks.spawn(async move {
        let result = writer.run(write_half).await;
        stop.cancel();
        result
    });
    let read_end = read_loop(&shared, &seat, read_half, sealer_in).await;
    lane_state.queue.close();
    seat.stop.cancel();
    let write_error = match writing.await {
        Ok(Err(error)) => Some(DownReason::Broken(error.to_string())),
        _ => None,
    };
    let reason = read_end.or(write_error).unwrap_or_else(|| {
        if shared.stop.is_cancelled() {
            DownReason::Shutdown
        } else if seat.peer.stop.is_cancelled() {
            DownReason::Removed
        } else {
            DownReason::Replaced
        }
    });
    lane_state.set_error(Some(reason.to_string()));
    shared.tell(Event::Down { node, lane, reason }, &shared.stop).await;
}

/// Reads until the connection ends; None when it was told to stop.
async fn read_loop(shared: &Shared, seat: &Seat, mut stream: ReadHalf, sealer: Sealer) -> Option<DownReason> {
    let limit = shared.config.timing.silence_limit;
    let mut decoder = Decoder::new(sealer, shared.config.limits.message_bytes_max(seat.lane));
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut stopped = pin!(seat.stop.cancelled());
    let mut silence = pin!(tokio::time::sleep(limit));
    // The timer is set again only when it fires: one flag a read instead of one timer a read.
    let mut heard = false;
    loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(Received::Message(payload))) => deliver(shared, seat, payload).await?,
                Ok(Some(Received::Nothing)) => {}
                Ok(None) => break,
                Err(error) => return Some(DownReason::BadFrame(error)),
            }
        }
        if buffer.capacity() - buffer.len() < READ_ROOM_BYTES {
            buffer.reserve(READ_BYTES);
        }
        tokio::select! {
            biased;
            () = &mut stopped => return None,
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) => return Some(DownReason::Closed),
                Ok(count) => {
                    heard = true;
                    seat.lane_state().received_bytes.fetch_add(count as u64, Relaxed);
                }
                Err(error) => return Some(DownReason::Broken(error.to_string())),
            },
            () = &mut silence => {
                if !heard {
                    return Some(DownReason::Silent(limit));
                }
                heard = false;
                silence.as_mut().reset(Instant::now() + limit);
            }
        }
    }
}

/// Hands a message on, waiting for the owner's back-pressure; None when told to stop meanwhile.
async fn deliver(shared: &Shared, seat: &Seat, payload: Bytes) -> Option<()> {
    let budget = shared.config.limits.received_bytes_max;
    let cost = (payload.len() + MESSAGE_COST_BYTES).min(budget);
    let cost = u32::try_from(cost).expect("limits were checked to be under 4 GiB");
    let semaphore = &seat.lane_state().credit;
    let permit = match Arc::clone(semaphore).try_acquire_many_owned(cost) {
        Ok(permit) => permit,
        Err(_) => tokio::select! {
            permit = Arc::clone(semaphore).acquire_many_owned(cost) => permit.ok()?,
            () = seat.stop.cancelled() => return None,
        },
    };
    let event = Event::Frame { from: seat.peer.node, lane: seat.lane, payload, credit: Credit(permit) };
    shared.tell(event, &seat.stop).await.then_some(())
}

/// The sending side of a connection.
struct Writer {
    shared: Arc<Shared>,
    peer: Arc<crate::peers::Peer>,
    lane: Lane,
    stop: CancellationToken,
    sealer: Sealer,
    /// Bytes handed to the kernel in one go, about: what an urgent message may have to wait for.
    budget: usize,
    /// The long message being cut, and its length.
    cut: Option<(Cut, usize)>,
}

impl Writer {
    fn new(shared: Arc<Shared>, seat: &Seat, sealer: Sealer) -> Writer {
        let budget = match seat.lane {
            Lane::Log => PIECE_BYTES,
            Lane::Bulk => 4 * PIECE_BYTES,
        };
        let (peer, stop) = (Arc::clone(&seat.peer), seat.stop.clone());
        Writer { shared, peer, lane: seat.lane, stop, sealer, budget, cut: None }
    }

    /// Writes until told to stop.
    async fn run(mut self, mut stream: WriteHalf) -> io::Result<()> {
        let stop = self.stop.clone();
        let mut stopped = pin!(stop.cancelled());
        let mut ticks = tokio::time::interval(self.shared.config.timing.ping_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let peer = Arc::clone(&self.peer);
        let state = peer.lane(self.lane);
        let (mut batch, mut taken) = (Batch::new(), Taken::default());
        // Whether a message went out since the last tick; a ping does not count, or every other tick would be mute.
        let mut wrote = true;
        let mut pinging = false;
        loop {
            self.fill(&mut batch, &mut taken);
            if batch.has_remaining() {
                state.sent_bytes.fetch_add(batch.remaining() as u64, Relaxed);
                tokio::select! {
                    biased;
                    written = stream.write_all_buf(&mut batch) => written?,
                    () = &mut stopped => return Ok(()),
                }
                wrote |= !std::mem::take(&mut pinging);
                continue;
            }
            tokio::select! {
                biased;
                () = state.queue.ready() => {}
                () = &mut stopped => return Ok(()),
                _ = ticks.tick() => {
                    if !wrote {
                        batch.push_ping(&mut self.sealer);
                        pinging = true;
                    }
                    wrote = false;
                }
            }
        }
    }

    /// Encodes what waits, up to the budget; whole messages first, then pieces of the long one.
    fn fill(&mut self, batch: &mut Batch, taken: &mut Taken) {
        let queue = &self.peer.lane(self.lane).queue;
        queue.take(taken, self.cut.is_some(), self.budget);
        if std::mem::take(&mut taken.ping) {
            batch.push_ping(&mut self.sealer);
        }
        for message in taken.whole.drain(..) {
            batch.push_whole(message, &mut self.sealer);
        }
        if let Some(long) = taken.long.take() {
            let length = long.len();
            self.cut = Some((Cut::new(long), length));
        }
        while let Some((cut, length)) = &mut self.cut {
            let last = cut.push_piece(batch, &mut self.sealer);
            if last {
                queue.release(*length);
                self.cut = None;
            }
            if batch.remaining() >= self.budget {
                break;
            }
        }
        batch.seal_tail();
    }
}

#[cfg(test)]
mod tests;
