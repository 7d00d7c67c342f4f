//! What waits to be written to one client: filled by the worker, emptied by the client's task.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Replies up to this size are copied side by side, so that many leave in one write; larger ones are kept by reference.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// A buffer for small replies above this is given back once it is written, in bytes.
const BUFFER_BYTES_KEPT: usize = 64 << 10;
/// Pieces handed to the kernel in one call, at most.
const SLICES_MAX: usize = 32;

/// How a connection goes on, from the mildest to the harshest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// It goes on.
    Open,
    /// It is closed when all that was read is answered and all replies are written.
    AfterAnswers,
    /// It is closed when all replies are written that are there.
    AfterReplies,
    /// It is closed at once.
    Now,
}

/// The output of one client.
pub(crate) struct ClientOutput {
    state: Mutex<State>,
    /// Bytes not yet given to the kernel.
    unsent_bytes: AtomicUsize,
    unsent_bytes_max: usize,
    /// Commands answered, or known to get no answer, since the client connected.
    settled: AtomicU64,
    authenticated: AtomicBool,
    wake: Notify,
}

struct State {
    waiting: Unsent,
    ending: Ending,
}

/// Bytes in the order to write: first the pieces, then the small replies behind them.
#[derive(Default)]
pub(crate) struct Unsent {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
}

impl ClientOutput {
    /// An output that lets `unsent_bytes_max` bytes wait.
    pub(crate) fn new(unsent_bytes_max: usize) -> ClientOutput {
        ClientOutput {
            state: Mutex::new(State { waiting: Unsent::default(), ending: Ending::Open }),
            unsent_bytes: AtomicUsize::new(0),
            unsent_bytes_max,
            settled: AtomicU64::new(0),
            authenticated: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Adds a reply; false if the client does not read and is given up for it. A single reply over the bound passes
    /// when little waits, or large values could not be read at all.
    pub(crate) fn push(&self, reply: Bytes) -> bool {
        let mut state = self.lock();
        if state.ending == Ending::Now {
            return true;
        }
        if self.unsent_bytes.load(Ordering::Relaxed) > self.unsent_bytes_max {
            state.ending = Ending::Now;
            state.waiting = Unsent::default();
            return false;
        }
        self.unsent_bytes.fetch_add(reply.len(), Ordering::Relaxed);
        if reply.len() <= COPIED_BYTES_MAX {
            state.waiting.small.extend_from_slice(&reply);
        } else {
            let before = state.waiting.small.split().freeze();
            if !before.is_empty() {
                state.waiting.pieces.push_back(before);
            }
            state.waiting.pieces.push_back(reply);
        }
        true
    }

    /// Ends the connection; an earlier and harsher ending stays.
    pub(crate) fn end(&self, ending: Ending) {
        let mut state = self.lock();
        state.ending = state.ending.max(ending);
    }

    /// Says how many commands are answered so far, and whether the client has shown its password or needs none.
    pub(crate) fn settle(&self, settled: u64, authenticated: bool) {
        self.settled.store(settled, Ordering::Relaxed);
        self.authenticated.store(authenticated, Ordering::Relaxed);
    }

    /// Wakes the client's task. Everything said before is seen by it.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for the next [`wake`](Self::wake); one that came before counts.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Commands answered so far.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Whether the client may send large commands.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Moves what waits into `unsent`, which must be empty and whose memory is used again; and how to go on.
    pub(crate) fn take(&self, unsent: &mut Unsent) -> Ending {
        debug_assert!(unsent.is_empty(), "what was taken before is written before more is taken");
        let mut state = self.lock();
        std::mem::swap(&mut state.waiting, unsent);
        state.ending
    }

    /// How to go on.
    pub(crate) fn ending(&self) -> Ending {
        self.lock().ending
    }

    /// Notes that the kernel took `count` bytes.
    pub(crate) fn sent(&self, count: usize) {
        self.unsent_bytes.fetch_sub(count, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsent {
    /// Whether all is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty()
    }

    /// Gives the kernel what it takes without waiting, and how much that was.
    pub(crate) fn try_write(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let count = if self.pieces.is_empty() {
            stream.try_write(&self.small)?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let chunks = self.pieces.iter().map(|piece| &piece[..]).chain(Some(&self.small[..]));
            let mut filled = 0;
            for (slice, chunk) in slices.iter_mut().zip(chunks) {
                *slice = IoSlice::new(chunk);
                filled += 1;
            }
            stream.try_write_vectored(&slices[..filled])?
        };
        self.advance(count);
        Ok(count)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
        if count == self.small.len() {
            if self.small.capacity() > BUFFER_BYTES_KEPT {
                self.small = BytesMut::new();
            } else {
                // Unlike advancing to the end, this leaves the whole buffer for the next replies.
                self.small.clear();
            }
        } else {
            self.small.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(unsent: &Unsent) -> Vec<u8> {
        let mut all: Vec<u8> = unsent.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        all.extend_from_slice(&unsent.small);
        all
    }

    #[test]
    fn order_is_kept_between_small_and_large_replies() {
        let output = ClientOutput::new(1 << 20);
        let large = vec![b'x'; COPIED_BYTES_MAX + 1];
        for reply in [&b"one"[..], b"two", &large, b"three"] {
            assert!(output.push(Bytes::copy_from_slice(reply)));
        }
        let mut unsent = Unsent::default();
        assert_eq!(output.take(&mut unsent), Ending::Open);
        let expected = [b"onetwo", &large[..], b"three"].concat();
        assert_eq!(content(&unsent), expected);
        for cut in [3, 4, large.len()] {
            unsent.advance(cut);
        }
        assert_eq!(content(&unsent), b"hree");
        unsent.advance(content(&unsent).len());
        assert!(unsent.is_empty());
    }

    #[test]
    fn client_that_does_not_read_is_given_up_and_its_memory_freed() {
        let output = ClientOutput::new(1000);
        let reply = Bytes::from(vec![b'x'; 600]);
        assert!(output.push(reply.clone()));
        assert!(output.push(reply.clone()), "the bound is looked at before a reply is added");
        assert!(!output.push(reply));
        let mut unsent = Unsent::default();
        assert_eq!(output.take(&mut unsent), Ending::Now);
        assert!(unsent.is_empty());
    }

    #[test]
    fn large_reply_passes_to_a_client_that_reads() {
        let output = ClientOutput::new(1000);
        assert!(output.push(Bytes::from(vec![b'x'; 5000])));
        output.sent(5000);
        assert!(output.push(Bytes::from(vec![b'x'; 5000])));
    }

    #[test]
    fn harsher_ending_stays() {
        let output = ClientOutput::new(1000);
        output.end(Ending::Now);
        output.end(Ending::AfterReplies);
        assert_eq!(output.ending(), Ending::Now);
        // Whoever is closed for what it sent is not listened to because the node stops.
        let output = ClientOutput::new(1000);
        output.end(Ending::AfterReplies);
        output.end(Ending::AfterAnswers);
        assert_eq!(output.ending(), Ending::AfterReplies);
    }
}
