//! What waits to be sent to one peer on one lane, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::frame::PIECE_BYTES;

/// What a queued message costs beside its bytes, so that empty messages are bounded too.
const MESSAGE_COST_BYTES: usize = 64;

/// Bytes of urgent messages that may wait, beside the lane's own bound: a full queue must not stop heartbeats.
const URGENT_BYTES_MAX: usize = 4 * PIECE_BYTES;

/// Why a message was not queued. Nothing of it was or will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection on this lane, or no such peer.
    #[error("not connected")]
    NotConnected,
    /// The queue's bound in bytes is reached.
    #[error("the queue to this peer is full")]
    Full,
    /// Longer than any message on this lane may be.
    #[error("the message is longer than this lane takes")]
    TooLarge,
}

/// The queue of one lane to one peer; `send` on any thread, one writer task takes.
pub(crate) struct SendQueue {
    state: Mutex<State>,
    ready: Notify,
    bytes_max: usize,
    message_bytes_max: usize,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Overtakes `normal`, between the pieces of a long message too.
    urgent: VecDeque<Bytes>,
    normal: VecDeque<Message>,
    /// Cost of the normal messages that wait, the one being cut included.
    bytes: usize,
    /// Cost of the urgent ones.
    urgent_bytes: usize,
    ping: bool,
}

/// One message, in parts that are sent one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) first: Bytes,
    pub(crate) rest: Vec<Bytes>,
}

impl Message {
    /// All its bytes.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }
}

impl From<Bytes> for Message {
    fn from(first: Bytes) -> Message {
        Message { first, rest: Vec::new() }
    }
}

/// What the writer took in one go.
#[derive(Default)]
pub(crate) struct Taken {
    /// Messages that fit into a frame, in the order to send.
    pub(crate) whole: Vec<Bytes>,
    /// A message to be cut, after `whole`: one that is too long for a frame, or comes in parts. Its cost stays counted until
    /// `release`.
    pub(crate) long: Option<Message>,
    /// Send a ping whatever else there is.
    pub(crate) ping: bool,
}

impl SendQueue {
    pub(crate) fn new(bytes_max: usize, message_bytes_max: usize) -> SendQueue {
        SendQueue { state: Mutex::default(), ready: Notify::new(), bytes_max, message_bytes_max }
    }

    /// Queues a message. A message that alone exceeds the bound is taken when nothing else waits.
    pub(crate) fn send(&self, message: Message) -> Result<(), SendError> {
        let length = message.len();
        self.push(length, self.message_bytes_max, |state| {
            let cost = length + MESSAGE_COST_BYTES;
            if state.bytes > 0 && state.bytes + cost > self.bytes_max {
                return Err(SendError::Full);
            }
            state.bytes += cost;
            state.normal.push_back(message);
            Ok(())
        })
    }

    /// Queues a message that overtakes all others.
    pub(crate) fn send_urgent(&self, message: Bytes) -> Result<(), SendError> {
        self.push(message.len(), PIECE_BYTES, |state| {
            let cost = message.len() + MESSAGE_COST_BYTES;
            if state.urgent_bytes > 0 && state.urgent_bytes + cost > URGENT_BYTES_MAX {
                return Err(SendError::Full);
            }
            state.urgent_bytes += cost;
            state.urgent.push_back(message);
            Ok(())
        })
    }

    fn push(
        &self,
        length: usize,
        length_max: usize,
        queue: impl FnOnce(&mut State) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if length > length_max {
            return Err(SendError::TooLarge);
        }
        let mut state = self.lock();
        if !state.open {
            return Err(SendError::NotConnected);
        }
        let was_empty = state.urgent.is_empty() && state.normal.is_empty();
        queue(&mut state)?;
        drop(state);
        // The writer sleeps only on an empty queue, and `Notify` keeps a wake-up that comes before the wait.
        if was_empty {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Asks for a ping: a machine that has forgotten the connection answers it with a reset.
    pub(crate) fn nudge(&self) {
        self.lock().ping = true;
        self.ready.notify_one();
    }

    /// Takes all urgent messages and, unless a long one is being `cutting`, normal ones of about `budget` bytes.
    pub(crate) fn take(&self, taken: &mut Taken, cutting: bool, budget: usize) {
        let mut state = self.lock();
        taken.ping = std::mem::take(&mut state.ping);
        let mut left = budget;
        left = left.saturating_sub(std::mem::take(&mut state.urgent_bytes));
        taken.whole.extend(state.urgent.drain(..));
        while !cutting && left > 0 {
            let Some(message) = state.normal.pop_front() else { break };
            if message.len() > PIECE_BYTES || !message.rest.is_empty() {
                taken.long = Some(message);
                break;
            }
            let cost = message.first.len() + MESSAGE_COST_BYTES;
            state.bytes -= cost;
            left = left.saturating_sub(cost);
            taken.whole.push(message.first);
        }
    }

    /// Gives back the cost of a long message of `length` bytes that has been sent.
    pub(crate) fn release(&self, length: usize) {
        self.lock().bytes -= length + MESSAGE_COST_BYTES;
    }

    /// Waits until there may be something to take.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn open(&self) {
        *self.lock() = State { open: true, ..State::default() };
    }

    /// Refuses from now on and forgets what waits.
    pub(crate) fn close(&self) {
        *self.lock() = State::default();
    }

    /// Whether it is open, and the bytes that wait.
    pub(crate) fn status(&self) -> (bool, usize) {
        let state = self.lock();
        (state.open, state.bytes + state.urgent_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(bytes_max: usize) -> SendQueue {
        let queue = SendQueue::new(bytes_max, 1 << 20);
        queue.open();
        queue
    }

    #[test]
    fn closed_queue_takes_nothing() {
        let queue = queue(1000);
        queue.close();
        assert_eq!(queue.send(Bytes::from_static(b"x").into()), Err(SendError::NotConnected));
    }

    #[test]
    fn full_queue_refuses_and_does_not_grow() {
        let queue = queue(1000);
        let mut queued = 0;
        while queue.send(Bytes::from(vec![0; 100]).into()).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, 1000 / (100 + MESSAGE_COST_BYTES));
        let before = queue.status();
        assert_eq!(queue.send(Bytes::from(vec![0; 100]).into()), Err(SendError::Full));
        assert_eq!(queue.status(), before);
        let mut urgent = 0;
        while queue.send_urgent(Bytes::from(vec![0; 100])).is_ok() {
            urgent += 1;
        }
        assert_eq!(urgent, URGENT_BYTES_MAX / (100 + MESSAGE_COST_BYTES), "a full queue stops no heartbeat");
        let mut empty = 0;
        let tiny = SendQueue::new(1000, 10);
        tiny.open();
        while tiny.send(Bytes::new().into()).is_ok() {
            empty += 1;
        }
        assert_eq!(empty, 1000 / MESSAGE_COST_BYTES, "empty messages are bounded too");
    }

    #[test]
    fn one_long_message_passes_alone_and_counts_until_released() {
        let queue = queue(1000);
        let long = Bytes::from(vec![0; 200_000]);
        queue.send(long.clone().into()).unwrap();
        assert_eq!(queue.send(Bytes::new().into()), Err(SendError::Full));
        let mut taken = Taken::default();
        queue.take(&mut taken, false, PIECE_BYTES);
        assert_eq!(taken.long, Some(Message::from(long.clone())));
        assert_eq!(queue.send(Bytes::new().into()), Err(SendError::Full), "it is still in memory");
        queue.release(long.len());
        queue.send(Bytes::new().into()).unwrap();
    }

    #[test]
    fn urgent_overtakes_and_passes_a_message_being_cut() {
        let queue = queue(1 << 20);
        queue.send(Bytes::from_static(b"first").into()).unwrap();
        queue.send_urgent(Bytes::from_static(b"beat")).unwrap();
        let mut taken = Taken::default();
        queue.take(&mut taken, true, PIECE_BYTES);
        assert_eq!(taken.whole, [Bytes::from_static(b"beat")]);
        taken.whole.clear();
        queue.take(&mut taken, false, PIECE_BYTES);
        assert_eq!(taken.whole, [Bytes::from_static(b"first")]);
        assert_eq!(queue.status(), (true, 0));
    }

    #[test]
    fn message_limits_hold() {
        let queue = queue(1 << 30);
        assert_eq!(queue.send(Bytes::from(vec![0; (1 << 20) + 1]).into()), Err(SendError::TooLarge));
        assert_eq!(queue.send_urgent(Bytes::from(vec![0; PIECE_BYTES + 1])), Err(SendError::TooLarge));
    }
}
