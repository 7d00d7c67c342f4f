//! Memory for a batch, aligned so that its write may go around the page cache.

use crate::disk::MEMORY_ALIGNMENT;

/// Bytes in a row that begin at a multiple of [`MEMORY_ALIGNMENT`].
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    /// Zeros up to the first aligned address, then the bytes.
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// Forgets what it holds and makes room for `bytes` bytes: pushing more would move it.
    pub(crate) fn reset(&mut self, bytes: usize) {
        self.memory.clear();
        self.memory.reserve(bytes + MEMORY_ALIGNMENT);
        self.start = self.memory.as_ptr().align_offset(MEMORY_ALIGNMENT);
        self.memory.resize(self.start, 0);
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.memory.capacity() - self.memory.len();
        assert!(bytes.len() <= room, "pushed {} bytes where {room} have room", bytes.len());
        self.memory.extend_from_slice(bytes);
    }

    /// Zeros up to a length of `bytes`, for which it has room.
    pub(crate) fn pad(&mut self, bytes: usize) {
        assert!(self.start + bytes <= self.memory.capacity(), "padded beyond the room to {bytes} bytes");
        self.memory.resize(self.start + bytes, 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// Bytes of memory it holds on to.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_at_every_size_and_after_reuse() {
        let mut buffer = AlignedBuffer::default();
        for bytes in [1, 512, 4096, 100_000, 1 << 20, 7] {
            buffer.reset(bytes);
            buffer.push(&vec![7; bytes / 2]);
            buffer.pad(bytes);
            assert_eq!(buffer.bytes().len(), bytes);
            assert!(buffer.bytes()[..bytes / 2].iter().all(|byte| *byte == 7));
            assert!(buffer.bytes()[bytes / 2..].iter().all(|byte| *byte == 0), "no byte of an earlier use");
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(MEMORY_ALIGNMENT));
        }
    }
}
