//! The bytes of a genesis question and its answer.
//!
//! ```text
//!   question  1 | asker's name
//!   empty     1 | 0 | row as in the map | shards 2 | replicas 1 | seeds 2 | each seed: name, address
//!   belongs   1 | 1 | cluster id 20 | the map, to the end
//! ```
//!
//! The first byte is the version. Numbers and strings as in the map.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{Reader, push_string};
use crate::genesis::{Answer, Seed, Settings};
use crate::id::ClusterId;
use crate::map::{MapError, NodeRow};

const VERSION: u8 = 1;
const EMPTY: u8 = 0;
const BELONGS: u8 = 1;

/// The question *who are you?*, of a node that would begin a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks; for the log of the one that is asked.
    pub asker: String,
}

impl Question {
    /// The question's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([VERSION]);
        push_string(&self.asker, &mut out);
        out
    }

    /// Reads a question.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Question, MapError> {
        let mut reader = version(bytes)?;
        let asker = reader.string()?;
        end(&reader)?;
        Ok(Question { asker })
    }
}

impl Answer {
    /// The answer's bytes.
    ///
    /// # Panics
    ///
    /// If a string has 64 KiB or more, or there are more than 65,535 seeds: [`Genesis::new`](crate::Genesis::new) lets
    /// none of these pass.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([VERSION]);
        match self {
            Answer::Empty { row, settings } => {
                out.push(EMPTY);
                row.encode(&mut out);
                out.extend_from_slice(&settings.shard_count.to_le_bytes());
                out.push(settings.replicas);
                let seed_count = u16::try_from(settings.seeds.len()).expect("seeds are at most SEEDS_MAX");
                out.extend_from_slice(&seed_count.to_le_bytes());
                for seed in &settings.seeds {
                    push_string(&seed.name, &mut out);
                    push_string(&seed.address, &mut out);
                }
            }
            Answer::Belongs { cluster_id, map } => {
                out.push(BELONGS);
                out.extend_from_slice(&cluster_id.0);
                out.extend_from_slice(map);
            }
        }
        out
    }

    /// Reads an answer. The map in it is not looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Answer, MapError> {
        let mut reader = version(bytes)?;
        match reader.u8()? {
            EMPTY => {
                let row = NodeRow::decode(&mut reader)?;
                let shard_count = reader.u16()?;
                let replicas = reader.u8()?;
                let mut seeds = Vec::new();
                for _ in 0..reader.u16()? {
                    seeds.push(Seed { name: reader.string()?, address: reader.string()? });
                }
                end(&reader)?;
                Ok(Answer::Empty { row, settings: Settings { seeds, shard_count, replicas } })
            }
            BELONGS => {
                let cluster_id = ClusterId(reader.array()?);
                Ok(Answer::Belongs { cluster_id, map: reader.rest().to_vec() })
            }
            other => Err(MapError::UnknownKind(other)),
        }
    }
}

fn version(bytes: &[u8]) -> Result<Reader<'_>, MapError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        written => Err(MapError::UnknownVersion { written, reads: VERSION }),
    }
}

fn end(reader: &Reader<'_>) -> Result<(), MapError> {
    if reader.is_empty() { Ok(()) } else { Err(MapError::TrailingBytes) }
}
