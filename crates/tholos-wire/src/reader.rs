//! Reads fields off the front of a byte string. Running out of bytes is an error, never a panic (W1).

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_paxos::{Ballot, Index, Millis, ReplicaId, Serial};

use crate::{VERSION, VERSION_MAX, WireError};

pub(crate) struct Reader {
    version: u8,
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// Reads and checks the version byte.
    pub(crate) fn new(bytes: Bytes) -> Result<Reader, WireError> {
        let mut reader = Reader { version: VERSION, bytes, at: 0 };
        match reader.u8()? {
            version @ VERSION..=VERSION_MAX => Ok(Reader { version, ..reader }),
            other => Err(WireError::Version(other)),
        }
    }

    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// The end must have been reached, and what was read must need the version that it is written in (W3).
    pub(crate) fn finish(self, version_needed: u8) -> Result<(), WireError> {
        match self.remaining() {
            0 if self.version == version_needed => Ok(()),
            0 => Err(WireError::Kind { what: "need of the version", byte: self.version }),
            count => Err(WireError::Trailing(count)),
        }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        let byte = *self.bytes.get(self.at).ok_or(WireError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let field = self.bytes[self.at..].first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.at += N;
        Ok(*field)
    }

    /// Eight bytes, for numbers that are drawn at random or use all bits.
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Seven bits a byte, lowest first; the top bit says that more follow.
    pub(crate) fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Number);
            }
            value |= bits << shift;
            if byte < 0x80 {
                // W3: a last byte of zero could be left out.
                return if byte == 0 && shift > 0 { Err(WireError::Number) } else { Ok(value) };
            }
        }
        Err(WireError::Number)
    }

    /// A number that fits a narrower type.
    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, WireError> {
        T::try_from(self.number()?).map_err(|_| WireError::Number)
    }

    /// A sign in the lowest bit.
    pub(crate) fn signed(&mut self) -> Result<i64, WireError> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(WireError::Kind { what, byte }),
        }
    }

    /// A count of things of which each takes at least `bytes_min` bytes: more than can be there is refused
    /// before anything is reserved for them (W1).
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, WireError> {
        let count: usize = self.narrow()?;
        if count > self.remaining() / bytes_min {
            return Err(WireError::Truncated);
        }
        Ok(count)
    }

    /// A list of things of which each takes at least one byte. Its room grows with what is there: lists may be nested.
    pub(crate) fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Reader) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count(1)?;
        (0..count).map(|_| one(self)).collect()
    }

    /// Bytes behind their count, as a slice of the input (W2).
    pub(crate) fn bytes(&mut self) -> Result<Bytes, WireError> {
        let count = self.count(1)?;
        let slice = self.bytes.slice(self.at..self.at + count);
        self.at += count;
        Ok(slice)
    }

    pub(crate) fn ballot(&mut self) -> Result<Ballot, WireError> {
        Ok(Ballot { round: self.number()?, replica: self.replica()? })
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, WireError> {
        self.narrow().map(ReplicaId)
    }

    pub(crate) fn serial(&mut self) -> Result<Serial, WireError> {
        self.narrow().map(Serial)
    }

    pub(crate) fn index(&mut self) -> Result<Index, WireError> {
        self.number().map(Index)
    }

    pub(crate) fn millis(&mut self) -> Result<Millis, WireError> {
        self.number().map(Millis)
    }
}
