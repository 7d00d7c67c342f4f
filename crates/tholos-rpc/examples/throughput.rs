//! Messages per second and processor time per message of 256 bytes between two nodes in this process.
//!
//! `cargo run --release -p tholos-rpc --example throughput [-- SECONDS]`
//!
//! One node sends, the other sends back what it gets; each message there and each back counts as one. Processor
//! time is the whole process's, so it holds both ends: sending, the kernel's loopback, receiving.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tholos_rpc::{Config, Event, Lane, LocalHello, PeerAddress, Rpc, Secret};
use tokio::sync::mpsc;

const MESSAGE_BYTES: usize = 256;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(1.5), |text| text.parse())?;
    println!("secret  pattern                     messages/s   us/round trip   cpu us/message");
    for secured in [false, true] {
        for (pattern, in_flight, per_frame) in [
            ("1 in flight", 1, 1),
            ("64 in flight", 64, 1),
            ("64 per frame, 1 in flight", 1, 64),
            ("64 per frame, 8 in flight", 8, 64),
        ] {
            let result = measure(secured, in_flight, per_frame, Duration::from_secs_f64(seconds)).await?;
            let secret = if secured { "yes" } else { "no" };
            println!(
                "{secret:<7} {pattern:<26} {:>11.0} {:>15.1} {:>16.2}",
                result.messages_per_second, result.round_trip_us, result.cpu_us
            );
        }
    }
    Ok(())
}

struct Measured {
    messages_per_second: f64,
    round_trip_us: f64,
    cpu_us: f64,
}

async fn measure(
    secured: bool,
    in_flight: u32,
    per_frame: usize,
    time: Duration,
) -> Result<Measured, Failure> {
    let (one, mut from_two) = start(1, secured)?;
    let (two, mut from_one) = start(2, secured)?;
    let row = |node: u16, rpc: &Rpc| PeerAddress {
        node,
        name: format!("n{node}"),
        address: rpc.local_address().to_string(),
    };
    two.set_peers(vec![row(1, &one)]);
    one.set_peers(vec![row(2, &two)]);
    up(&mut from_two).await;
    up(&mut from_one).await;

    let echo = two.clone();
    let echoing = tokio::spawn(async move {
        while let Some(event) = from_one.recv().await {
            if let Event::Frame { from, lane, payload, .. } = event
                && echo.send(from, lane, payload).is_err()
            {
                return;
            }
        }
    });
    let message = Bytes::from(vec![7; MESSAGE_BYTES * per_frame]);
    for _ in 0..in_flight {
        one.send(2, Lane::Log, message.clone())?;
    }
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut round_trips = 0u64;
    while start.elapsed() < time {
        // A look at the clock for each batch of answers is enough.
        for _ in 0..16 {
            if let Some(Event::Frame { .. }) = from_two.recv().await {
                round_trips += 1;
                one.send(2, Lane::Log, message.clone())?;
            }
        }
    }
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    one.shutdown().await;
    two.shutdown().await;
    echoing.abort();
    let messages = (round_trips * 2) as f64 * per_frame as f64;
    Ok(Measured {
        messages_per_second: messages / elapsed,
        round_trip_us: elapsed * 1e6 * f64::from(in_flight) / round_trips as f64,
        cpu_us: cpu.as_secs_f64() * 1e6 / messages,
    })
}

fn start(node: u16, secured: bool) -> Result<(Rpc, mpsc::Receiver<Event>), Failure> {
    let me = LocalHello {
        cluster_id: Some([1; 20]),
        node,
        name: format!("n{node}"),
        incarnation: 1,
        boot: 1,
        recovered_lsn: 0,
        advertised: Bytes::new(),
    };
    let secret = if secured { Some(Secret::new(&[9; 32])?) } else { None };
    let (sender, events) = mpsc::channel(1024);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok((Rpc::start(Config::new(listen, me, secret), sender)?, events))
}

async fn up(events: &mut mpsc::Receiver<Event>) {
    let mut lanes = 0;
    while lanes < 2 {
        if let Some(Event::Up { .. }) = events.recv().await {
            lanes += 1;
        }
    }
}

/// Processor time of this process, all threads, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
