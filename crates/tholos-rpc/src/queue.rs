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
    normal: VecDeque<Bytes>,
    /// Cost of the normal messages that wait, the one being cut included.
    bytes: usize,
    /// Cost of the urgent ones.
    urgent_bytes: usize,
    ping: bool,
}

/// What the writer took in one go.
#[derive(Default)]
pub(crate) struct Taken {
    /// Messages that fit into a frame, in the order to send.
    pub(crate) whole: Vec<Bytes>,
    /// A message to be cut, after `whole`. Its cost stays counted until `release`.
    pub(crate) long: Option<Bytes>,
    /// Send a ping whatever else there is.
    pub(crate) ping: bool,
}

impl SendQueue {
    pub(crate) fn new(bytes_max: usize, message_bytes_max: usize) -> SendQueue {
        SendQueue { state: Mutex::default(), ready: Notify::new(), bytes_max, message_bytes_max }
    }

    /// Queues a message. A message that alone exceeds the bound is taken when nothing else waits.
    pub(crate) fn send(&self, message: Bytes, urgent: bool) -> Result<(), SendError> {
        if message.len() > if urgent { PIECE_BYTES } else { self.message_bytes_max } {
            return Err(SendError::TooLarge);
        }
        let cost = cost(&message);
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.open {
            return Err(SendError::NotConnected);
        }
        let was_empty = state.urgent.is_empty() && state.normal.is_empty();
        let (queue, bytes, bytes_max) = if urgent {
            (&mut state.urgent, &mut state.urgent_bytes, URGENT_BYTES_MAX)
        } else {
            (&mut state.normal, &mut state.bytes, self.bytes_max)
        };
        if *bytes > 0 && *bytes + cost > bytes_max {
            return Err(SendError::Full);
        }
        *bytes += cost;
        queue.push_back(message);
        drop(guard);
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
            if message.len() > PIECE_BYTES {
                taken.long = Some(message);
                break;
            }
            state.bytes -= cost(&message);
            left = left.saturating_sub(cost(&message));
            taken.whole.push(message);
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

fn cost(message: &Bytes) -> usize {
    message.len() + MESSAGE_COST_BYTES
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
        assert_eq!(queue.send(Bytes::from_static(b"x"), false), Err(SendError::NotConnected));
    }

    #[test]
    fn full_queue_refuses_and_does_not_grow() {
        let queue = queue(1000);
        let mut queued = 0;
        while queue.send(Bytes::from(vec![0; 100]), false).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, 1000 / (100 + MESSAGE_COST_BYTES));
        let before = queue.status();
        assert_eq!(queue.send(Bytes::from(vec![0; 100]), false), Err(SendError::Full));
        assert_eq!(queue.status(), before);
        let mut urgent = 0;
        while queue.send(Bytes::from(vec![0; 100]), true).is_ok() {
            urgent += 1;
        }
        assert_eq!(urgent, URGENT_BYTES_MAX / (100 + MESSAGE_COST_BYTES), "a full queue stops no heartbeat");
        let mut empty = 0;
        let tiny = SendQueue::new(1000, 10);
        tiny.open();
        while tiny.send(Bytes::new(), false).is_ok() {
            empty += 1;
        }
        assert_eq!(empty, 1000 / MESSAGE_COST_BYTES, "empty messages are bounded too");
    }

    #[test]
    fn one_long_message_passes_alone_and_counts_until_released() {
        let queue = queue(1000);
        let long = Bytes::from(vec![0; 200_000]);
        queue.send(long.clone(), false).unwrap();
        assert_eq!(queue.send(Bytes::new(), false), Err(SendError::Full));
        let mut taken = Taken::default();
        queue.take(&mut taken, false, PIECE_BYTES);
        assert_eq!(taken.long.as_ref(), Some(&long));
        assert_eq!(queue.send(Bytes::new(), false), Err(SendError::Full), "it is still in memory");
        queue.release(long.len());
        queue.send(Bytes::new(), false).unwrap();
    }

    #[test]
    fn urgent_overtakes_and_passes_a_message_being_cut() {
        let queue = queue(1 << 20);
        queue.send(Bytes::from_static(b"first"), false).unwrap();
        queue.send(Bytes::from_static(b"beat"), true).unwrap();
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
        assert_eq!(queue.send(Bytes::from(vec![0; (1 << 20) + 1]), false), Err(SendError::TooLarge));
        assert_eq!(queue.send(Bytes::from(vec![0; PIECE_BYTES + 1]), true), Err(SendError::TooLarge));
    }
}
