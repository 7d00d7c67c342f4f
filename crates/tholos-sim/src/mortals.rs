//! Keys that die of their TTL, and who has seen them gone: gone is gone (R17).

use tholos_resp::Value;
use tholos_ring::{ShardId, shard_of, slot};

use crate::coverage::{Coverage, Reached};
use crate::random::Random;
use crate::sim::SHARDS;

/// Where all clocks are right and nothing goes wrong, a key is gone so long after its TTL at the latest.
const LATE_US: u64 = 100_000;

/// All of them.
#[derive(Debug, Default)]
pub struct Mortals {
    keys: Vec<Mortal>,
}

/// A key set once, with a TTL.
#[derive(Debug)]
struct Mortal {
    key: String,
    ttl_us: u64,
    /// When it was set at the latest, if that is known.
    set_by: Option<u64>,
    /// When it was first known to be there.
    seen_at: Option<u64>,
    /// When some client first had the answer that it is gone, after it was there.
    gone_at: Option<u64>,
    /// Its shard has lost something for good (R29): nothing is known of it any more.
    is_void: bool,
}

impl Mortals {
    /// A new one: its number, and the words that set it.
    pub fn create(&mut self, client: u64, random: &mut Random) -> (usize, Vec<String>) {
        let key = format!("mortal:{client}:{}", self.keys.len());
        let ttl_ms = random.between(20, 2_000);
        let words = ["SET", &key, "here", "PX", &ttl_ms.to_string()].map(String::from).to_vec();
        let ttl_us = ttl_ms * 1000;
        self.keys.push(Mortal { key, ttl_us, set_by: None, seen_at: None, gone_at: None, is_void: false });
        (self.keys.len() - 1, words)
    }

    /// One of the youngest.
    pub fn pick(&self, random: &mut Random) -> Option<usize> {
        let youngest = self.keys.len().checked_sub(1)?;
        Some(youngest - random.below(self.keys.len().min(4) as u64) as usize)
    }

    /// Its key.
    pub fn key(&self, at: usize) -> String {
        self.keys[at].key.clone()
    }

    /// A shard has lost something for good (R29).
    pub fn forget(&mut self, shard: ShardId) {
        let of_shard = |key: &str| shard_of(slot(key.as_bytes()), SHARDS) == shard;
        self.keys.iter_mut().filter(|mortal| of_shard(&mortal.key)).for_each(|mortal| mortal.is_void = true);
    }

    /// Takes a reply in, to what was asked at `asked` and answered at `now`. An error says which key came back from the
    /// dead; or, if `prompt`, which one is late to die.
    pub fn note(
        &mut self,
        at: usize,
        (asked, now): (u64, u64),
        reply: &Value,
        prompt: bool,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let mortal = &mut self.keys[at];
        if mortal.is_void {
            return Ok(());
        }
        match reply {
            Value::Simple(_) => {
                mortal.set_by.get_or_insert(now);
                mortal.seen_at.get_or_insert(now);
            }
            Value::Null if mortal.seen_at.is_some_and(|seen| asked > seen) => {
                if mortal.gone_at.is_none() {
                    coverage.count(Reached::GoneByTtl);
                }
                mortal.gone_at.get_or_insert(now);
            }
            Value::Bulk(_) => {
                mortal.seen_at.get_or_insert(now);
                let (key, gone_at) = (&mortal.key, mortal.gone_at);
                if let Some(gone) = gone_at.filter(|gone| asked > *gone) {
                    return Err(format!(
                        "{key} was gone at {gone} and is there again at {asked}..{now} (us)"
                    ));
                }
                let due = mortal.set_by.map(|set| set + mortal.ttl_us + LATE_US);
                if let Some(due) = due.filter(|due| prompt && asked > *due) {
                    return Err(format!("{key} should be gone since {due} and is there at {asked} (us)"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
