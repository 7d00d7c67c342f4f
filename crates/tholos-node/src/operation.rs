//! What a request does to a shard, and its bytes in batches and forwards.
//!
//! A batch is a row of items. An item is a header (who asks, which of their writes it is, until
//! when it may be applied: R18) and an operation. All integers are little-endian.

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_engine::Version;
use tholos_paxos::Millis;

/// One thing to do to a shard.
#[derive(Clone, PartialEq, Debug)]
pub enum Operation {
    /// One data command, its name first.
    Command(Vec<Bytes>),
    /// MULTI … EXEC: all of it in one step, if what was watched has not changed (R19).
    Transaction {
        /// Keys and the versions that WATCH saw.
        watched: Vec<(Bytes, Version)>,
        /// The commands queued, each with its name first.
        commands: Vec<Vec<Bytes>>,
    },
    /// DBSIZE, KEYS, RANDOMKEY or SCAN of this one shard.
    Wide {
        /// SCAN: where to go on within the shard, 0 at the start.
        cursor: u64,
        /// RANDOMKEY: chance.
        seed: u64,
        /// The command, its name first.
        args: Vec<Bytes>,
    },
    /// The versions of keys, for WATCH.
    Versions(Vec<Bytes>),
    /// Keys in a slot.
    CountInSlot(u16),
    /// Up to so many keys of a slot.
    KeysInSlot(u16, u64),
    /// A command for the meta group, as `tholos-cluster` writes it.
    Meta(Bytes),
    /// How far the leader has applied what is decided: a replica that has come as far may answer a read that came before
    /// this was asked (R15).
    HowFar,
    /// Wait until so many other replicas have everything durable, at most so many milliseconds
    /// (0: for ever); answers the leader's own durability and the count (R32).
    Durable {
        /// Other replicas wanted.
        replicas: u64,
        /// Whether the leader's own disk is wanted as well.
        local: bool,
        /// Milliseconds.
        timeout: u64,
    },
}

impl Operation {
    /// Whether it goes through the log.
    pub fn is_write(&self, command_writes: impl Fn(&[Bytes]) -> bool) -> bool {
        match self {
            Operation::Command(args) => command_writes(args),
            Operation::Transaction { .. } | Operation::Meta(_) => true,
            _ => false,
        }
    }
}

/// The header of one write in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteHeader {
    /// The session: one connection of one gateway boot on this shard.
    pub session: u64,
    /// Consecutive in the session, from 1.
    pub sequence: u64,
    /// Replies up to here have arrived and need not be kept.
    pub acknowledged: u64,
    /// Shard time from which on it is refused.
    pub expires_at: Millis,
}

/// The first byte of [`Operation::Command`].
pub(crate) const COMMAND: u8 = 0;
/// All of [`Operation::HowFar`].
pub(crate) const HOW_FAR: u8 = 8;
/// Bytes of a [`WriteHeader`] in a batch.
pub(crate) const HEADER_BYTES: usize = 32;

/// Bytes that are not an operation or a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Arguments are limited far below 4 GiB on their way in.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_list(out: &mut Vec<u8>, list: &[Bytes]) {
    out.extend_from_slice(&(list.len() as u32).to_le_bytes());
    for bytes in list {
        put_bytes(out, bytes);
    }
}

/// Reads from the front of a [`Bytes`], without copying.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(count))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array: [u8; N] = self.0.get(..N).and_then(|head| head.try_into().ok()).ok_or(Malformed)?;
        bytes::Buf::advance(&mut self.0, N);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub(crate) fn list(&mut self) -> Result<Vec<Bytes>, Malformed> {
        let count = self.u32()? as usize;
        // Each item takes four bytes at least, so a claimed count cannot make us reserve more.
        if count > self.0.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.bytes()).collect()
    }
}

impl Operation {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Operation::Command(args) => {
                out.push(COMMAND);
                put_list(out, args);
            }
            Operation::Transaction { watched, commands } => {
                out.push(1);
                out.extend_from_slice(&(watched.len() as u32).to_le_bytes());
                for (key, version) in watched {
                    put_bytes(out, key);
                    put_u64(out, version.index);
                    out.extend_from_slice(&version.position.to_le_bytes());
                    out.push(u8::from(version.present));
                }
                out.extend_from_slice(&(commands.len() as u32).to_le_bytes());
                for args in commands {
                    put_list(out, args);
                }
            }
            Operation::Wide { cursor, seed, args } => {
                out.push(2);
                put_u64(out, *cursor);
                put_u64(out, *seed);
                put_list(out, args);
            }
            Operation::Versions(keys) => {
                out.push(3);
                put_list(out, keys);
            }
            Operation::CountInSlot(slot) => {
                out.push(4);
                put_u64(out, u64::from(*slot));
            }
            Operation::KeysInSlot(slot, count) => {
                out.push(5);
                put_u64(out, u64::from(*slot));
                put_u64(out, *count);
            }
            Operation::Durable { replicas, local, timeout } => {
                out.push(6);
                put_u64(out, *replicas);
                out.push(u8::from(*local));
                put_u64(out, *timeout);
            }
            Operation::Meta(command) => {
                out.push(7);
                put_bytes(out, command);
            }
            Operation::HowFar => out.push(HOW_FAR),
        }
    }

    /// Its bytes by themselves.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.room());
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Bytes that it takes; of what is rare about as many.
    fn room(&self) -> usize {
        let list = |list: &[Bytes]| 4 + list.iter().map(|bytes| 4 + bytes.len()).sum::<usize>();
        match self {
            Operation::Command(args) | Operation::Versions(args) => 1 + list(args),
            Operation::Wide { args, .. } => 17 + list(args),
            Operation::Transaction { commands, .. } => commands.iter().map(|args| list(args)).sum(),
            Operation::Meta(command) => 5 + command.len(),
            Operation::CountInSlot(_) | Operation::KeysInSlot(..) | Operation::Durable { .. } => 18,
            Operation::HowFar => 1,
        }
    }

    /// Reads one from bytes that hold nothing else.
    pub fn decode(bytes: Bytes) -> Result<Operation, Malformed> {
        let mut reader = Reader(bytes);
        let operation = match reader.u8()? {
            COMMAND => Operation::Command(reader.list()?),
            1 => decode_transaction(&mut reader)?,
            2 => Operation::Wide { cursor: reader.u64()?, seed: reader.u64()?, args: reader.list()? },
            3 => Operation::Versions(reader.list()?),
            4 => Operation::CountInSlot(slot(reader.u64()?)?),
            5 => Operation::KeysInSlot(slot(reader.u64()?)?, reader.u64()?),
            6 => Operation::Durable {
                replicas: reader.u64()?,
                local: reader.u8()? != 0,
                timeout: reader.u64()?,
            },
            7 => Operation::Meta(reader.bytes()?),
            HOW_FAR => Operation::HowFar,
            _ => return Err(Malformed),
        };
        if reader.0.is_empty() { Ok(operation) } else { Err(Malformed) }
    }
}

fn slot(value: u64) -> Result<u16, Malformed> {
    u16::try_from(value).ok().filter(|slot| *slot < tholos_ring::SLOT_COUNT).ok_or(Malformed)
}

fn decode_transaction(reader: &mut Reader) -> Result<Operation, Malformed> {
    let count = reader.u32()? as usize;
    if count > reader.0.len() / 16 {
        return Err(Malformed);
    }
    let mut watched = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.bytes()?;
        let (index, position, present) = (reader.u64()?, reader.u32()?, reader.u8()? != 0);
        watched.push((key, Version { index, position, present }));
    }
    let count = reader.u32()? as usize;
    if count > reader.0.len() / 4 {
        return Err(Malformed);
    }
    let commands = (0..count).map(|_| reader.list()).collect::<Result<_, _>>()?;
    Ok(Operation::Transaction { watched, commands })
}

/// Appends one item to a batch.
#[cfg(test)]
pub(crate) fn encode_item(header: &WriteHeader, operation: &Operation, out: &mut Vec<u8>) {
    put_u64(out, header.session);
    put_u64(out, header.sequence);
    put_u64(out, header.acknowledged);
    put_u64(out, header.expires_at.0);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    operation.encode(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends one item whose operation is in bytes already, as a forward brings it.
pub(crate) fn encode_item_bytes(header: &WriteHeader, operation: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_BYTES + 4 + operation.len());
    put_u64(out, header.session);
    put_u64(out, header.sequence);
    put_u64(out, header.acknowledged);
    put_u64(out, header.expires_at.0);
    put_bytes(out, operation);
}

/// Session and first key of the first item of a batch, and what follows it; `None` at the end, and where it is not a
/// command with arguments.
pub(crate) fn peek_item(batch: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let session = u64::from_le_bytes(*batch.first_chunk()?);
    let (operation, rest) = peek_bytes(batch.get(HEADER_BYTES..)?)?;
    Some((session, peek_key(operation)?, rest))
}

/// The first key of an operation; `None` if it is none on keys.
pub(crate) fn peek_key(operation: &[u8]) -> Option<&[u8]> {
    let (_name, args) = peek_bytes(operation.strip_prefix(&[COMMAND])?.get(4..)?)?;
    Some(peek_bytes(args)?.0)
}

fn peek_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Takes the next item from a batch, if there is one.
pub(crate) fn decode_item(batch: &mut Bytes) -> Result<Option<(WriteHeader, Bytes)>, Malformed> {
    if batch.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader(core::mem::take(batch));
    let header = WriteHeader {
        session: reader.u64()?,
        sequence: reader.u64()?,
        acknowledged: reader.u64()?,
        expires_at: Millis(reader.u64()?),
    };
    let operation = reader.bytes()?;
    *batch = reader.0;
    Ok(Some((header, operation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn samples() -> Vec<Operation> {
        let version = Version { index: 7, position: 3, present: true };
        alloc::vec![
            Operation::Command(alloc::vec![bytes("SET"), bytes("k"), bytes("")]),
            Operation::Transaction {
                watched: alloc::vec![(bytes("k"), version)],
                commands: alloc::vec![alloc::vec![bytes("INCR"), bytes("k")], alloc::vec![bytes("PING")]],
            },
            Operation::Wide { cursor: 9, seed: 5, args: alloc::vec![bytes("SCAN"), bytes("0")] },
            Operation::Versions(alloc::vec![bytes("a"), bytes("b")]),
            Operation::CountInSlot(16383),
            Operation::KeysInSlot(1, 2),
            Operation::Durable { replicas: 2, local: true, timeout: 100 },
        ]
    }

    #[test]
    fn operations_survive_their_bytes() {
        for operation in samples() {
            assert_eq!(Operation::decode(operation.to_bytes()), Ok(operation));
        }
    }

    #[test]
    fn the_room_of_a_command_is_what_it_takes() {
        for operation in samples() {
            let (room, length) = (operation.room(), operation.to_bytes().len());
            match operation {
                Operation::Command(_) | Operation::Wide { .. } | Operation::Versions(_) => {
                    assert_eq!(room, length);
                }
                _ => assert!(room.abs_diff(length) < 64, "{operation:?}: {room}, {length}"),
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for operation in samples() {
            let whole = operation.to_bytes();
            for end in 0..whole.len() {
                assert_eq!(Operation::decode(whole.slice(..end)), Err(Malformed), "{operation:?} to {end}");
            }
        }
    }

    #[test]
    fn a_look_at_an_item_finds_its_session_and_key() {
        let header = WriteHeader { session: 5, sequence: 2, acknowledged: 1, expires_at: Millis(9) };
        let [set, others @ ..] = &samples()[..] else { panic!() };
        let mut batch = Vec::new();
        encode_item(&header, set, &mut batch);
        let end = batch.len();
        assert_eq!(peek_item(&batch), Some((5, &b"k"[..], &b""[..])));
        assert!((0..end).all(|length| peek_item(&batch[..length]).is_none()), "every truncation");
        for other in others {
            encode_item(&header, other, &mut batch);
            assert_eq!(peek_item(&batch), Some((5, &b"k"[..], &batch[end..])));
            assert_eq!(peek_item(&batch[end..]), None, "{other:?}");
            batch.truncate(end);
        }
    }

    #[test]
    fn a_batch_gives_back_its_items() {
        let header = WriteHeader { session: 1, sequence: 2, acknowledged: 1, expires_at: Millis(9) };
        let mut batch = Vec::new();
        for operation in samples() {
            encode_item(&header, &operation, &mut batch);
            encode_item_bytes(&header, &operation.to_bytes(), &mut batch);
        }
        let mut batch = Bytes::from(batch);
        for operation in samples() {
            for _ in 0..2 {
                let (got, bytes) = decode_item(&mut batch).unwrap().unwrap();
                assert_eq!((got, Operation::decode(bytes)), (header, Ok(operation.clone())));
            }
        }
        assert_eq!(decode_item(&mut batch), Ok(None));
    }
}
