//! The clients of a run: who is connected where, what each may still send, and what they have seen.

use bytes::Bytes;
use tholos_node::{ClientId, Event};
use tholos_ring::ShardId;

use crate::client::{Client, Seen};
use crate::random::Random;

/// A client gives a connection up after this long without an answer.
const PATIENCE_US: u64 = 7_000_000;

/// All clients.
pub struct Crowd {
    clients: Vec<Client>,
    /// Handfuls of commands that each may still send.
    left: Vec<u64>,
    next_connection: u64,
    /// What they have seen.
    pub seen: Seen,
}

/// What a client does: an event for a node, some time later.
pub struct Deed {
    /// Which node.
    pub host: usize,
    /// How much later it has it, in microseconds.
    pub delay_us: u64,
    /// What it has.
    pub event: Event,
    /// The commands, in words, if it sends some.
    pub words: Option<String>,
}

impl Crowd {
    /// So many clients that send so many handfuls of commands each.
    pub fn new(count: u64, handfuls: u64, random: &mut Random) -> Crowd {
        let clients: Vec<Client> = (0..count).map(|number| Client::new(number, random.fork())).collect();
        Crowd { left: vec![handfuls; clients.len()], clients, next_connection: 0, seen: Seen::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whose connection it is, and to which node.
    pub fn of(&self, connection: ClientId) -> Option<(usize, usize)> {
        self.clients.iter().enumerate().find_map(|(at, client)| {
            let (id, host) = client.connection?;
            (id == connection).then_some((at, host))
        })
    }

    /// The connections to a node.
    pub fn at_node(&self, host: usize) -> Vec<ClientId> {
        let connections = self.clients.iter().filter_map(|client| client.connection);
        connections.filter(|(_, at)| *at == host).map(|(id, _)| id).collect()
    }

    /// Something that was sent at `now` arrives `delay` later, but after all that came before on this connection.
    pub fn arrival(&mut self, client: usize, now: u64, delay: u64) -> u64 {
        let client = &mut self.clients[client];
        client.last_delivery = (now + delay).max(client.last_delivery + 1);
        client.last_delivery
    }

    /// A client has time: it connects, sends, waits or gives up. `up` says whether a node runs.
    pub fn wake(
        &mut self,
        at: usize,
        now: u64,
        random: &mut Random,
        hosts: usize,
        up: impl Fn(usize) -> bool,
    ) -> Option<Deed> {
        let client = &mut self.clients[at];
        let Some((connection, host)) = client.connection else {
            let host = random.below(hosts as u64) as usize;
            return up(host).then(|| self.connect(at, host));
        };
        if client.is_idle() && client.moved {
            client.disconnect(&mut self.seen);
            let event = Event::Disconnected { client: connection };
            return Some(Deed { host, delay_us: 100, event, words: None });
        }
        if client.is_idle() && self.left[at] > 0 {
            self.left[at] -= 1;
            let commands = client.next_commands(now, &mut self.seen);
            let words = Some(words(&commands));
            let event = Event::Commands { client: connection, commands };
            return Some(Deed { host, delay_us: random.between(20, 200), event, words });
        }
        if !client.is_idle() && now - client.sent_at > PATIENCE_US {
            client.disconnect(&mut self.seen);
            let event = Event::Disconnected { client: connection };
            return Some(Deed { host, delay_us: 100, event, words: None });
        }
        None
    }

    fn connect(&mut self, at: usize, host: usize) -> Deed {
        self.next_connection += 1;
        let client = ClientId(self.next_connection);
        let port = self.clients[at].connect(client, host);
        let event = Event::Connected {
            client,
            port,
            remote: format!("10.0.1.{at}:40000"),
            local: String::from("10.0.0.1:6379"),
            loopback: true,
        };
        Deed { host, delay_us: 0, event, words: None }
    }

    /// Bytes reach a client. An error is a violation.
    pub fn receive(&mut self, client: usize, bytes: &[u8], now: u64) -> Result<(), String> {
        self.clients[client].receive(bytes, now, &mut self.seen)
    }

    /// A shard has lost something for good (R29).
    pub fn forget(&mut self, shard: ShardId) {
        self.clients.iter_mut().for_each(Client::forget_watch);
        self.seen.mortals.forget(shard);
    }

    /// A connection is gone.
    pub fn closed(&mut self, connection: ClientId) {
        if let Some((client, _)) = self.of(connection) {
            self.clients[client].disconnect(&mut self.seen);
        }
    }

    /// Everybody leaves. The clients that had something to send and were not served since `live_again_us`.
    pub fn leave(&mut self, live_again_us: u64) -> Vec<usize> {
        let mut unserved = Vec::new();
        for (at, client) in self.clients.iter_mut().enumerate() {
            let served = self.seen.history.iter().rev().any(|operation| {
                operation.client == client.number
                    && operation.invoked >= live_again_us
                    && matches!(operation.outcome, tholos_check::Outcome::Ok(_))
            });
            if !served && self.left[at] > 0 {
                unserved.push(at);
            }
            client.disconnect(&mut self.seen);
        }
        unserved
    }

    /// Operations answered, and refused or in doubt.
    pub fn answered(&self) -> (u64, u64) {
        let answered = self.clients.iter().map(|client| client.answered).sum();
        (answered, self.clients.iter().map(|client| client.refused).sum())
    }
}

fn words(commands: &[Vec<Bytes>]) -> String {
    let command = |args: &Vec<Bytes>| {
        args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    };
    commands.iter().map(command).collect::<Vec<_>>().join("; ")
}
