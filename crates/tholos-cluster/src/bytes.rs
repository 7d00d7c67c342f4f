//! Reading and writing the fields of the map's bytes: little-endian numbers, strings behind their length.

use alloc::string::String;
use alloc::vec::Vec;

use crate::map::MapError;

/// Reads fields off the front of a byte string; running out of bytes is an error, never a panic.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that is left.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], MapError> {
        let (field, rest) = self.bytes.split_first_chunk::<N>().ok_or(MapError::Truncated)?;
        self.bytes = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MapError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, MapError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, MapError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, MapError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next so many bytes.
    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], MapError> {
        let (slice, rest) = self.bytes.split_at_checked(length).ok_or(MapError::Truncated)?;
        self.bytes = rest;
        Ok(slice)
    }

    /// A string behind its length in two bytes.
    pub(crate) fn string(&mut self) -> Result<String, MapError> {
        let length = usize::from(self.u16()?);
        core::str::from_utf8(self.slice(length)?).map(String::from).map_err(|_| MapError::NotText)
    }
}

/// Appends a string behind its length in two bytes.
pub(crate) fn push_string(text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("check() bounds every string of a map below 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
