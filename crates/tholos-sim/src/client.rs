//! Simulated clients: real sessions over the gateway, and the history they record.

use bytes::{Bytes, BytesMut};
use tholos_node::ClientId;
use tholos_resp::{Value, ValueDecoder, ValueLimits};

use crate::random::Random;
use tholos_check::{Kind, Operation, Outcome, Reply};

/// Keys that clients fight over.
pub const KEYS: u64 = 6;

/// Keys that die of their TTL, and who has seen them gone: gone is gone (R17).
#[derive(Debug, Default)]
pub struct Mortals {
    keys: Vec<Mortal>,
}

/// A key set once, with a TTL.
#[derive(Debug)]
struct Mortal {
    key: String,
    /// When some client first had the answer that it is gone, after it was there.
    gone_at: Option<u64>,
    /// When it was first known to be there.
    seen_at: Option<u64>,
}

impl Mortals {
    fn create(&mut self, client: u64) -> (usize, String) {
        let key = format!("mortal:{client}:{}", self.keys.len());
        self.keys.push(Mortal { key: key.clone(), gone_at: None, seen_at: None });
        (self.keys.len() - 1, key)
    }

    /// One of the youngest.
    fn pick(&self, random: &mut Random) -> Option<(usize, String)> {
        let youngest = self.keys.len().checked_sub(1)?;
        let at = youngest - random.below(self.keys.len().min(4) as u64) as usize;
        Some((at, self.keys[at].key.clone()))
    }

    /// Takes a reply in. An error says which key came back from the dead.
    fn note(&mut self, at: usize, asked: u64, now: u64, reply: &Value) -> Result<(), String> {
        let mortal = &mut self.keys[at];
        match reply {
            Value::Simple(_) => mortal.seen_at = Some(mortal.seen_at.unwrap_or(now)),
            Value::Null if mortal.seen_at.is_some_and(|seen| asked > seen) => {
                mortal.gone_at = Some(mortal.gone_at.unwrap_or(now))
            }
            Value::Bulk(_) => {
                mortal.seen_at = Some(mortal.seen_at.unwrap_or(now));
                if let Some(gone) = mortal.gone_at.filter(|gone| asked > *gone) {
                    let key = &mortal.key;
                    return Err(format!(
                        "{key} was gone at {gone} and is there again at {asked}..{now} (us)"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A client with at most a few commands under way.
pub struct Client {
    /// Its number, for the history.
    pub number: u64,
    /// The connection, if it has one: its id and the node.
    pub connection: Option<(ClientId, usize)>,
    /// When the oldest command under way was sent.
    pub sent_at: u64,
    /// When the last bytes on their way arrive.
    pub last_delivery: u64,
    under_way: Vec<UnderWay>,
    buffer: BytesMut,
    decoder: ValueDecoder,
    random: Random,
    next_value: u64,
    /// Commands that got a reply.
    pub answered: u64,
    /// Replies that said that the fate is unknown or that nothing was done.
    pub refused: u64,
}

/// A command that was sent and not answered.
#[derive(Debug)]
enum UnderWay {
    /// For the history.
    Checked(Operation),
    /// On a key that dies: which, and when it was asked for.
    Mortal(usize, u64),
}

impl Client {
    /// A client without a connection.
    pub fn new(number: u64, random: Random) -> Client {
        Client {
            number,
            connection: None,
            sent_at: 0,
            last_delivery: 0,
            under_way: Vec::new(),
            buffer: BytesMut::new(),
            decoder: ValueDecoder::new(ValueLimits::default()),
            random,
            next_value: 0,
            answered: 0,
            refused: 0,
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Makes the next commands and notes their call. Mostly one; sometimes a pipeline.
    pub fn next_commands(&mut self, now: u64, mortals: &mut Mortals) -> Vec<Vec<Bytes>> {
        let count = if self.random.below(8) == 0 { self.random.between(2, 4) } else { 1 };
        self.sent_at = now;
        (0..count)
            .map(|_| {
                if self.random.below(10) == 0 {
                    self.next_mortal(now, mortals)
                } else {
                    self.next_command(now)
                }
            })
            .collect()
    }

    fn next_mortal(&mut self, now: u64, mortals: &mut Mortals) -> Vec<Bytes> {
        let known = mortals.pick(&mut self.random).filter(|_| self.random.below(4) > 0);
        let (at, words) = match known {
            Some((at, key)) => (at, vec![String::from("GET"), key]),
            None => {
                let (at, key) = mortals.create(self.number);
                let ttl = self.random.between(20, 2_000).to_string();
                (at, vec![String::from("SET"), key, String::from("here"), String::from("PX"), ttl])
            }
        };
        self.under_way.push(UnderWay::Mortal(at, now));
        words.into_iter().map(Bytes::from).collect()
    }

    fn next_command(&mut self, now: u64) -> Vec<Bytes> {
        let number = self.random.below(KEYS);
        // Counters have keys of their own, so that INCR mostly finds an integer.
        let counter = self.random.below(3) == 0;
        let key = if counter { format!("counter:{number}") } else { format!("key:{number}") };
        self.next_value += 1;
        let value = format!("{}-{}", self.number, self.next_value).into_bytes();
        let (kind, words): (Kind, Vec<Vec<u8>>) = if counter {
            match self.random.below(10) {
                0..=5 => {
                    let by = self.random.between(1, 9) as i64;
                    (Kind::IncrBy(by), vec![b"INCRBY".to_vec(), by.to_string().into_bytes()])
                }
                6 => (Kind::Del, vec![b"DEL".to_vec()]),
                _ => (Kind::Get, vec![b"GET".to_vec()]),
            }
        } else {
            match self.random.below(20) {
                0..=6 => (Kind::Get, vec![b"GET".to_vec()]),
                7..=13 => (Kind::Set(value.clone()), vec![b"SET".to_vec(), value]),
                14 => (Kind::SetNx(value.clone()), vec![b"SETNX".to_vec(), value]),
                15 => (Kind::Del, vec![b"DEL".to_vec()]),
                16 => (Kind::GetDel, vec![b"GETDEL".to_vec()]),
                17 | 18 => (Kind::Append(value.clone()), vec![b"APPEND".to_vec(), value]),
                _ => (Kind::GetSet(value.clone()), vec![b"GETSET".to_vec(), value]),
            }
        };
        let mut args = vec![Bytes::from(words[0].clone()), Bytes::from(key.clone())];
        args.extend(words[1..].iter().cloned().map(Bytes::from));
        self.under_way.push(UnderWay::Checked(Operation {
            client: self.number,
            key: key.into_bytes(),
            kind,
            invoked: now,
            returned: None,
            outcome: Outcome::Unknown,
        }));
        args
    }

    /// Bytes from the node. Completed operations go to `history`. An error is a violation.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: u64,
        history: &mut Vec<Operation>,
        mortals: &mut Mortals,
    ) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        while let Some(value) = self.decoder.decode(&mut self.buffer).expect("replies are well formed") {
            assert!(!self.under_way.is_empty(), "a reply to nothing: {value:?}");
            let mut operation = match self.under_way.remove(0) {
                UnderWay::Checked(operation) => operation,
                UnderWay::Mortal(at, asked) => {
                    mortals.note(at, asked, now, &value)?;
                    continue;
                }
            };
            operation.returned = Some(now);
            operation.outcome = outcome(&value);
            match operation.outcome {
                Outcome::Ok(_) => self.answered += 1,
                _ => self.refused += 1,
            }
            history.push(operation);
        }
        Ok(())
    }

    /// The connection is gone: whatever is under way has an unknown fate.
    pub fn disconnect(&mut self, history: &mut Vec<Operation>) {
        self.connection = None;
        self.buffer.clear();
        self.decoder = ValueDecoder::new(ValueLimits::default());
        history.extend(self.under_way.drain(..).filter_map(|command| match command {
            UnderWay::Checked(operation) => Some(operation),
            UnderWay::Mortal(..) => None,
        }));
    }
}

fn outcome(value: &Value) -> Outcome {
    match value {
        Value::Simple(text) if &text[..] == b"OK" => Outcome::Ok(Reply::Ok),
        Value::Integer(number) => Outcome::Ok(Reply::Integer(*number)),
        Value::Bulk(bytes) => Outcome::Ok(Reply::Value(bytes.to_vec())),
        Value::Null => Outcome::Ok(Reply::Nil),
        Value::Error(text) if text.starts_with(b"INDOUBT") => Outcome::Unknown,
        Value::Error(text) if text.starts_with(b"CLUSTERDOWN") => Outcome::Failed,
        Value::Error(text) if text.starts_with(b"ERR value is not an integer") => Outcome::Ok(Reply::Refused),
        Value::Error(text) if text.starts_with(b"ERR increment") => Outcome::Ok(Reply::Refused),
        other => panic!("an unexpected reply: {other:?}"),
    }
}
