//! A TCP proxy that spreads connections over servers, with nothing but the standard library around the balancer.
//!
//! `cargo run --release -p tholos-balance --example proxy -- 127.0.0.1:8080 10.0.0.1:80 10.0.0.2:80`
//!
//! Each connection is a request: it is under way from when it is accepted until either side has closed it, so a server with long ones
//! gets fewer. The servers tell no load, so the choice is by what connecting to them takes and by what is under way there. One that
//! cannot be reached counts as slow, another is tried, and after some failures it is left out for a while.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tholos_balance::{Balancer, Candidate, Options, Outcome, Pick, ServerId};

/// A server that does not answer for so long is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

struct Proxy {
    balancer: Balancer,
    servers: Vec<String>,
    /// The balancer's times count from here.
    began: Instant,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), servers) = (arguments.next(), arguments.collect::<Vec<_>>()) else {
        return Err(io::Error::other("usage: proxy LISTEN SERVER…"));
    };
    let mut balancer = Balancer::new(Options::default());
    for at in 0..servers.len() {
        balancer.set(ServerId(at as u32), 1, Duration::ZERO);
    }
    let proxy = Arc::new(Proxy { balancer, servers, began: Instant::now() });
    for client in TcpListener::bind(listen)?.incoming() {
        let proxy = Arc::clone(&proxy);
        thread::spawn(move || {
            if let Err(error) = client.and_then(|client| proxy.serve(client)) {
                eprintln!("proxy: {error}");
            }
        });
    }
    Ok(())
}

impl Proxy {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let (pick, server) = self.connect()?;
        let up = (client.try_clone()?, server.try_clone()?);
        let upwards = thread::spawn(move || pass(up.0, up.1));
        let down = pass(server, client);
        let up = upwards.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")));
        // What the connection took says nothing of the server: it is under way no longer, and no more is learned.
        drop(pick);
        up.and(down)
    }

    /// A connection to whom the balancer chooses, each of the servers being tried once.
    fn connect(&self) -> io::Result<(Pick, TcpStream)> {
        let mut left: Vec<Candidate> = (0..self.servers.len()).map(|at| ServerId(at as u32).into()).collect();
        let mut failed = io::Error::other("no servers");
        while let Some(probe) = self.balancer.pick(&left, self.began.elapsed(), chance()) {
            let server = probe.server();
            match self.dial(server) {
                Ok(stream) => {
                    // Held as long as the connection lasts, after the time that connecting took is learned.
                    let held = self.balancer.pick(&[server.into()], self.began.elapsed(), chance());
                    probe.done(self.began.elapsed(), Outcome::Answered, None);
                    return held.map(|held| (held, stream)).ok_or(failed);
                }
                Err(error) => {
                    probe.done(self.began.elapsed(), Outcome::Failed, None);
                    left.retain(|candidate| candidate.server != server);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    fn dial(&self, server: ServerId) -> io::Result<TcpStream> {
        let name = &self.servers[server.0 as usize];
        let address = name.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
        TcpStream::connect_timeout(&address, CONNECT_WITHIN)
    }
}

/// Passes all bytes on, and then the end.
fn pass(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let passed = io::copy(&mut from, &mut to);
    // Whoever has closed already is not told.
    let _ = to.shutdown(Shutdown::Write);
    passed.map(drop)
}

/// Good enough where nobody gains by guessing it.
fn chance() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
