//! Load balancing by measured load: whom to ask next, and in what shares.
//!
//! A [`Balancer`] has no clock, no chance and no connections: it is told of servers, of times and of how requests went,
//! and answers whom to ask next. So it fits into any client or proxy, and a simulator can run it as it ships.
//!
//! ```
//! use core::time::Duration;
//! use tholos_balance::{Balancer, LoadReport, Options, Outcome, ServerId};
//!
//! let mut balancer = Balancer::new(Options::default());
//! for id in 0..3 {
//!     balancer.set(ServerId(id), 1, Duration::ZERO);
//! }
//! let candidates = [0, 1, 2].map(|id| ServerId(id).into());
//!
//! let now = Duration::from_millis(5);
//! let pick = balancer.pick(&candidates, now, 42).expect("there are candidates");
//! // … ask `pick.server()`; it answers, and says how loaded it is …
//! let load = LoadReport { in_system: 3, workers: 4, service: Duration::from_micros(800) };
//! pick.done(now + Duration::from_millis(2), Outcome::Answered, Some(load));
//! ```
//!
//! A server measures its load with a [`LoadMeter`]. Servers that report none are judged by what their answers took.
//!
//! Whole programs around it: `examples/proxy.rs`, a TCP proxy that spreads connections over servers that tell nothing, and
//! `examples/service.rs`, a `tower` service over others, for whatever takes one (tonic, hyper, a stack of layers).
//!
//! # Load balancing in ten minutes
//!
//! **Counting is not enough.** Round robin and chance give every server the same, and the slowest of them drowns while
//! the others wait for work: in the table below its queue grows until the run ends.
//!
//! **The best one is the wrong one.** The textbook collects loads, computes weights `w_i = c_i / Σ c_j` of spare
//! capacity c, and sends everything to the highest. But loads are known as they *were*. Whoever was free 100 ms ago gets
//! all that comes in the next 100 ms, from everybody, and then somebody else does: they herd. Weights are shares, to be
//! followed together ([`Balancer::shares`]), and choose no winner.
//!
//! **Two choices are for those who know nothing.** To look at two servers by chance and take the better one (Mitzenmacher
//! 2001) needs no more than a count of one's own requests, and is far better than chance alone. But among servers of
//! unequal speed two slow ones are often drawn, so the slow ones get more than they can do. A balancer of twenty servers
//! can look at all of them.
//!
//! **What is asked is: when would my answer come?** That is the time of service, and the wait for those who were there
//! before. Both are measured best where they are, at the server, and come back with every answer:
//!
//! ```text
//!                      service x (1 + (queue + wariness x waiting) / workers)
//!
//!     service    what a request takes there without waiting       reported
//!     queue      requests there, served or waiting                reported, plus own ones sent since
//!     waiting    those of the queue that no worker is free for
//!     wariness   a tenth for each candidate
//! ```
//!
//! Without wariness this would be the time itself, were the report true. It is a few milliseconds old, and the least of
//! many such estimates is most likely one that is too low. So queues count for more than they should, the more so the
//! more candidates there are: who has none at all is a safer choice than who has a short one and is fast.
//!
//! **Who knows little must not act alike.** With many balancers each hears less of every server. Once reports come twelve
//! times of service apart, the least estimate is followed no longer: it would be by all others too. Then servers are drawn
//! in shares of their capacity, corrected for queues that are longer or shorter than all wait for, gently enough to be made
//! up for in the time between two reports and not overshot.
//!
//! # Measured
//!
//! `cargo xtask balance-sim`: 20 servers of 4 workers, of three speeds, 8 balancers, 90 % load, one server 10 times
//! slower for a quarter of the time; milliseconds, of which the mean service is a half, exponential, and the way there and
//! back 0.2.
//!
//! | policy | p50 | p99 | p99.9 | p99.9 while slowed |
//! |---|--:|--:|--:|--:|
//! | [`Policy::PeakEwma`], the default | 0.83 | 3.53 | 5.69 | 6.22 |
//! | an oracle that sees true queues, greedy | 1.36 | 4.10 | 6.06 | 7.07 |
//! | C3's ranking (NSDI 2015) | 0.64 | 3.83 | 6.11 | 10.90 |
//! | [`Policy::LeastRequest`] | 0.80 | 4.93 | 7.21 | 23.87 |
//! | peak-EWMA of two choices | 2.94 | 464 | 482 | 786 |
//! | requests under way, two choices | 5.23 | 562 | 580 | 1,661 |
//! | chance, round robin | 1.7 | 6,950 | 7,150 | 8,340 |
//! | the highest weight | 555 | 3,257 | 5,944 | 3,310 |
//!
//! With three candidates for each request: 0.92, 3.85, 6.04, 6.84. With 64 balancers the p99 is 6.0 ms, with 512 it is
//! 8.4. At 70 % load with reports each 100 ms only, the highest weight keeps 11 of 20 servers idle and has a median of
//! 364 ms, where shares have 0.64.
//!
//! **Service of two modes.** The same, but one request in twenty takes ten times as long as any other, with the same mean: on a
//! slowest server 6.9 ms and 0.69.
//!
//! | policy | p50 | p99 | p99.9 | p99.9 while slowed |
//! |---|--:|--:|--:|--:|
//! | [`Policy::PeakEwma`], the default | 0.83 | 7.10 | 7.52 | 7.75 |
//! | an oracle that sees true queues, greedy | 1.23 | 6.04 | 7.78 | 9.08 |
//! | C3's ranking | 0.59 | 7.10 | 7.72 | 8.66 |
//! | [`Policy::LeastRequest`] | 0.69 | 7.66 | 9.26 | 21.38 |
//! | peak-EWMA of two choices | 3.84 | 481 | 514 | 805 |
//! | requests under way, two choices | 5.96 | 565 | 582 | 1,708 |
//! | chance, round robin | 1.9 | 6,970 | 7,230 | 8,390 |
//! | the highest weight | 555 | 3,241 | 5,912 | 3,346 |
//!
//! Which requests are long nobody knows before; 7.10 is what one takes on a slowest server without any wait, the way included.
//!
//! **A new server**, of the fastest, half-way through at 70 % load: ten times slower at first, with nothing in its caches, as it
//! should be five seconds later. The p99.9 of these five seconds is 5.57 with slow start and 5.73 without by the default
//! policy, which sees from reports that it is slow; by [`Policy::LeastRequest`], which does not, it is 6.75 and 7.51.
//!
//! **One hot shard, reads only.** Three nodes of one processor each, the clients spread over them, in the same simulator: a replica that
//! is chosen reads its own state after one question to the leader for all reads that wait. What a step costs is taken from the
//! real server. How many reads a second each way can do with a p99 below 5 ms:
//!
//! | who answers | reads a second | processor time a read |
//! |---|--:|--:|
//! | the leader, all clients connected to it | 100,000 | 9.0 us |
//! | the leader, through all gateways | 150,000 | 11.0 us |
//! | whom the gateways choose, by the default policy and reported queues | 250,000 | 9.8 us |
//!
//! Up to 150,000 the leader answers nearly all of them either way, in the same time. If replicas kept all that comes to their nodes it
//! would be 300,000: reports are old beside reads of 4 us, so a gateway draws in shares and leaves some to a leader that is full.
//!
//! A choice among 16 servers and what is learned of its outcome take about 105 ns, where tower's p2c takes 430 with
//! peak-EWMA and 135 with pending requests (`cd bench && cargo run --release -p bench-balance`; its peers need cmake).
//!
//! # What else it does
//!
//! - A failure counts as slow, however fast it came: a server that refuses at once must not attract everything.
//! - A server that fails five times in a row is left out, tried by one request after a second, and left out for twice as
//!   long if that fails too. If all are left out, none is.
//! - A server that is new, or is back, starts with a tenth of its share and has all of it after ten seconds.
//! - A nearer server is preferred until it would be slower ([`Candidate::distance`]), which is before it is full.
//! - A [`Pick`] that is dropped counts as given up: nothing leaks.
//! - Each server takes a fixed amount of memory. Threads may share a balancer, and none waits for another.
#![no_std]

extern crate alloc;

mod balancer;
mod cell;
mod load;
mod options;
mod server;

pub use balancer::{Balancer, Candidate, Pick, ServerId, View};
pub use load::{LoadMeter, LoadReport};
pub use options::{Options, Policy};
pub use server::Outcome;
