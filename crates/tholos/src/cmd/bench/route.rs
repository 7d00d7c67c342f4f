//! Which server gets which key.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tholos_resp::Value;
use tholos_ring::{SLOT_COUNT, slot};

use super::connection::Connection;

/// Servers of a cluster, at most; slots name them by 16 bits.
const SERVERS_MAX: usize = 1024;

/// The servers, and in a cluster the leader of each slot. Shared by all clients: one that is told MOVED tells all.
pub(super) struct Routes {
    servers: RwLock<Vec<String>>,
    /// Empty if the servers are no cluster.
    slots: Vec<AtomicU16>,
}

impl Routes {
    /// Client i uses server i, counted round.
    pub(super) fn fixed(servers: Vec<String>) -> Self {
        Self { servers: RwLock::new(servers), slots: Vec::new() }
    }

    pub(super) fn is_cluster(&self) -> bool {
        !self.slots.is_empty()
    }

    /// The number of the server for a key.
    pub(super) fn server_for(&self, client: u32, key: &[u8]) -> usize {
        if self.is_cluster() {
            usize::from(self.slots[usize::from(slot(key).number())].load(Ordering::Relaxed))
        } else {
            client as usize % self.count()
        }
    }

    pub(super) fn count(&self) -> usize {
        self.servers.read().expect("no writer panics").len()
    }

    pub(super) fn address(&self, server: usize) -> String {
        self.servers.read().expect("no writer panics")[server].clone()
    }

    /// Obeys `MOVED <slot> <host:port>`; `from` is used if the host is left out. False if it says nothing.
    pub(super) fn moved(&self, line: &str, from: usize) -> bool {
        let mut words = line.split(' ').skip(1);
        let slot =
            words.next().and_then(|slot| slot.parse::<usize>().ok()).filter(|slot| *slot < self.slots.len());
        let (Some(slot), Some(address)) = (slot, words.next()) else { return false };
        let address = match address.strip_prefix(':') {
            Some(port) => format!("{}:{port}", host_of(&self.address(from))),
            None => address.to_owned(),
        };
        self.lead(slot, address)
    }

    fn lead(&self, slot: usize, address: String) -> bool {
        let known =
            self.servers.read().expect("no writer panics").iter().position(|server| *server == address);
        let server = known.unwrap_or_else(|| {
            let mut servers = self.servers.write().expect("no writer panics");
            servers.push(address);
            servers.len() - 1
        });
        if server >= SERVERS_MAX {
            return false;
        }
        self.slots[slot].store(server as u16, Ordering::Relaxed);
        true
    }

    /// Takes over what another answer of CLUSTER SLOTS says.
    pub(super) fn update(&self, fresh: &Routes) {
        for (slot, server) in fresh.slots.iter().enumerate() {
            self.lead(slot, fresh.address(usize::from(server.load(Ordering::Relaxed))));
        }
    }
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Asks a server for CLUSTER SLOTS.
pub(super) async fn ask(connection: &mut Connection, address: &str) -> Result<Routes, String> {
    let reply = connection.ask(&[b"CLUSTER", b"SLOTS"]).await?;
    parse(&reply, address)
}

fn parse(reply: &Value, asked: &str) -> Result<Routes, String> {
    let ranges = match reply {
        Value::Array(ranges) => ranges,
        Value::Error(line) => return Err(String::from_utf8_lossy(line).into_owned()),
        _ => return Err("CLUSTER SLOTS is answered by something else than a list".to_owned()),
    };
    const NOBODY: u16 = u16::MAX;
    let slots = (0..SLOT_COUNT).map(|_| AtomicU16::new(NOBODY)).collect();
    let routes = Routes { servers: RwLock::new(Vec::new()), slots };
    for range in ranges {
        let (first, last, address) = range_of(range, asked)
            .ok_or_else(|| "CLUSTER SLOTS has a range that cannot be read".to_owned())?;
        for slot in first..=last {
            routes.lead(slot, address.clone());
        }
    }
    match routes.slots.iter().position(|server| server.load(Ordering::Relaxed) == NOBODY) {
        Some(slot) => Err(format!("slot {slot} has no leader yet")),
        None => Ok(routes),
    }
}

/// `[first, last, [host, port, …], …]`: the leader comes first.
fn range_of(range: &Value, asked: &str) -> Option<(usize, usize, String)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Integer(first), Value::Integer(last), Value::Array(leader), ..] = &parts[..] else {
        return None;
    };
    let [host, Value::Integer(port), ..] = &leader[..] else { return None };
    let host = match host {
        Value::Bulk(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
        // A server that does not know its address means the one we asked at.
        _ => host_of(asked),
    };
    let last = usize::try_from(*last).ok().filter(|last| *last < usize::from(SLOT_COUNT))?;
    Some((usize::try_from(*first).ok()?, last, format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: &'static str, port: i64) -> Value {
        let leader =
            Value::array([Value::bulk(host.as_bytes()), Value::Integer(port), Value::bulk(&b"id"[..])]);
        Value::array([Value::Integer(first), Value::Integer(last), leader])
    }

    #[test]
    fn slots_lead_to_servers_and_moved_is_obeyed() {
        let reply = Value::array([range(0, 8191, "10.0.0.1", 7001), range(8192, 16383, "", 7002)]);
        let routes = parse(&reply, "host:1").unwrap();
        let where_is = |key: &[u8]| routes.address(routes.server_for(0, key));
        // CRC16: foo is in slot 12182, hello in 866.
        assert_eq!(
            (where_is(b"hello"), where_is(b"foo")),
            ("10.0.0.1:7001".to_owned(), "host:7002".to_owned())
        );
        assert!(routes.moved("MOVED 866 10.0.0.9:7009", 0));
        assert_eq!(where_is(b"hello"), "10.0.0.9:7009");
        assert!(routes.moved("MOVED 866 :7004", 0));
        assert_eq!(where_is(b"hello"), "10.0.0.1:7004");
        assert!(!routes.moved("MOVED 99999 a:1", 0));
    }

    #[test]
    fn a_slot_without_leader_is_an_error() {
        let reply = Value::array([range(0, 16382, "a", 1)]);
        assert_eq!(parse(&reply, "a:1").err(), Some("slot 16383 has no leader yet".to_owned()));
        assert!(parse(&Value::error("ERR This instance has cluster support disabled"), "a:1").is_err());
    }
}
