//! The choice, and what is learned of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use crate::cell::nanos;
use crate::load::{LoadReport, micros};
use crate::options::{Options, Policy};
use crate::server::{Outcome, Server};

/// What each candidate adds to the weight of a queue. Of many estimates the least is most likely one that is too low.
const WARINESS: f64 = 0.1;
/// The least part of its share that a server gets when shares are drawn: without answers nobody would know better.
const SHARE_LEAST: f64 = 0.02;

/// Somebody who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u32);

/// A server that could serve a request.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Who.
    pub server: ServerId,
    /// How much longer than the nearest it is away, there and back. A nearer server is preferred until one more request
    /// would wait there for longer than that.
    pub distance: Duration,
}

impl From<ServerId> for Candidate {
    fn from(server: ServerId) -> Candidate {
        Candidate { server, distance: Duration::ZERO }
    }
}

/// Chooses servers. May be shared by threads: choosing and learning take `&self` and wait for nobody.
///
/// It has no clock and no chance: times are durations since any fixed moment, the same in all calls.
#[derive(Debug)]
pub struct Balancer {
    options: Options,
    /// By id.
    servers: Vec<Option<Arc<Server>>>,
    next: AtomicUsize,
    /// How many servers failed too often: none, as a rule.
    suspects: Arc<AtomicU32>,
}

/// A choice. [`Pick::done`] tells how it went; dropped, the request counts as given up, and nothing is learned of it.
#[derive(Debug)]
#[must_use = "a choice that is dropped at once is a request given up"]
pub struct Pick {
    id: ServerId,
    server: Option<Arc<Server>>,
    /// Nanoseconds.
    sent_at: u64,
}

/// What a balancer knows of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Own requests under way.
    pub in_flight: u32,
    /// Moving average of what answers took.
    pub latency: Duration,
    /// Left out for its failures.
    pub left_out: bool,
    /// Its weight.
    pub weight: u32,
}

/// What is summed over the candidates: shares are parts of it.
#[derive(Default)]
struct Totals {
    reporting: f64,
    age: f64,
    service: f64,
    capacity: f64,
    queue: f64,
}

impl Balancer {
    /// Without servers.
    #[must_use]
    pub fn new(options: Options) -> Balancer {
        Balancer { options, servers: Vec::new(), next: AtomicUsize::new(0), suspects: Arc::default() }
    }

    /// Adds a server, or gives one another weight. A server of weight 0 is chosen only if nobody else can be.
    ///
    /// Costs memory for all ids below: let them be small.
    pub fn set(&mut self, id: ServerId, weight: u32, now: Duration) {
        let at = id.0 as usize;
        if self.servers.len() <= at {
            self.servers.resize_with(at + 1, || None);
        }
        match &self.servers[at] {
            Some(server) => server.weight.store(weight, Relaxed),
            None => {
                let suspects = Arc::clone(&self.suspects);
                self.servers[at] = Some(Arc::new(Server::new(weight, now, &self.options, suspects)));
            }
        }
    }

    /// Forgets a server. Requests under way there end as they end.
    pub fn remove(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(id.0 as usize) {
            *server = None;
        }
    }

    /// A server told its load other than with an answer.
    pub fn report(&self, id: ServerId, report: LoadReport, now: Duration) {
        if let Some(server) = self.server(id) {
            server.note_report(report, in_flight(server), nanos(now));
        }
    }

    /// Chooses one of the candidates; none if it knows none of them. `chance` is a fresh random number.
    #[must_use]
    pub fn pick(&self, candidates: &[Candidate], now: Duration, chance: u64) -> Option<Pick> {
        let clock = nanos(now);
        let at = self
            .probe(candidates, clock)
            .or_else(|| self.choose(candidates, clock, chance, true))
            // Everybody is left out: then nobody is.
            .or_else(|| self.choose(candidates, clock, chance, false))?;
        let id = candidates[at].server;
        let server = Arc::clone(self.server(id)?);
        server.note_sent(clock);
        Some(Pick { id, server: Some(server), sent_at: clock })
    }

    /// Each server's part of the whole, `c_i / Σ c_j` with c its spare capacity: workers that are free over the time of
    /// service, times its weight, and a fiftieth of that for one that is full. For slow choices, such as where leaders
    /// sit: shares are to be followed together, and never the largest alone. Servers that have not reported have none.
    #[must_use]
    pub fn shares(&self, now: Duration) -> Vec<(ServerId, f64)> {
        let clock = nanos(now);
        let spare = |server: &Server| {
            let seen = server.seen(clock)?;
            let free = (seen.workers - seen.queue).max(SHARE_LEAST * seen.workers);
            Some(free / seen.service * server.weight() * server.warmth(clock))
        };
        let known = (0..).map(ServerId).zip(&self.servers);
        let spares: Vec<(ServerId, f64)> =
            known.filter_map(|(id, server)| Some((id, spare(server.as_ref()?)?))).collect();
        let sum: f64 = spares.iter().map(|(_, spare)| spare).sum();
        spares.into_iter().map(|(id, spare)| (id, if sum > 0.0 { spare / sum } else { 0.0 })).collect()
    }

    /// What is known of a server.
    #[must_use]
    pub fn view(&self, id: ServerId, now: Duration) -> Option<View> {
        let server = self.server(id)?;
        Some(View {
            in_flight: in_flight(server),
            latency: Duration::from_nanos((server.latency() * 1e3) as u64),
            left_out: server.is_left_out(nanos(now)),
            weight: server.weight.load(Relaxed),
        })
    }

    fn server(&self, id: ServerId) -> Option<&Arc<Server>> {
        self.servers.get(id.0 as usize)?.as_ref()
    }

    /// A server whose time out is over is tried by one request, whatever the others are like.
    fn probe(&self, candidates: &[Candidate], clock: u64) -> Option<usize> {
        if self.suspects.load(Relaxed) == 0 {
            return None;
        }
        candidates.iter().position(|candidate| {
            self.server(candidate.server)
                .is_some_and(|server| server.is_suspect() && server.wants_probe(clock) && server.take_probe())
        })
    }

    /// The candidates that may be chosen, with their places. Those left out for their failures may not, unless `strict`
    /// is off; nor may those of weight 0, unless nobody else is there.
    fn eligible<'a>(
        &'a self,
        candidates: &'a [Candidate],
        strict: bool,
    ) -> impl Iterator<Item = (usize, &'a Candidate, &'a Arc<Server>)> {
        let known = candidates.iter().enumerate().filter_map(|(at, candidate)| {
            self.server(candidate.server).map(|server| (at, candidate, server))
        });
        known.filter(move |(_, _, server)| {
            !strict || (server.weight.load(Relaxed) > 0 && !server.is_suspect())
        })
    }

    fn choose(&self, candidates: &[Candidate], clock: u64, chance: u64, strict: bool) -> Option<usize> {
        match self.options.policy {
            Policy::PeakEwma => {
                let wariness = WARINESS * candidates.len() as f64;
                let mut stale = 0.0;
                let best = self.least(candidates, chance, strict, |candidate, server| {
                    stale += server.stale();
                    let time = server
                        .expected_by_load(wariness)
                        .unwrap_or_else(|| server.expected_by_latency(in_flight(server)));
                    self.slowed_start(time, server, clock) + micros(candidate.distance)
                });
                if stale <= 0.0 {
                    return best;
                }
                let totals = self.totals(candidates, clock, strict);
                self.draw(candidates, chance, strict, |candidate, server| {
                    self.share(candidate, server, &totals, clock)
                })
            }
            Policy::LeastRequest => self.least(candidates, chance, strict, |_, server| {
                (f64::from(in_flight(server)) + 1.0) / self.part(server, clock)
            }),
            Policy::WeightedRandom => {
                self.draw(candidates, chance, strict, |_, server| self.part(server, clock))
            }
            Policy::RoundRobin => {
                let count = self.eligible(candidates, strict).count();
                let turn = self.next.fetch_add(1, Relaxed).checked_rem(count)?;
                self.eligible(candidates, strict).nth(turn).map(|(at, _, _)| at)
            }
        }
    }

    /// Weight, as far as the server is warm.
    fn part(&self, server: &Server, clock: u64) -> f64 {
        server.weight().max(f64::MIN_POSITIVE) * server.warmth(clock)
    }

    fn totals(&self, candidates: &[Candidate], clock: u64, strict: bool) -> Totals {
        let mut totals = Totals::default();
        for (_, candidate, server) in self.eligible(candidates, strict) {
            let Some(seen) = server.seen(clock) else { continue };
            totals.reporting += 1.0;
            totals.age += seen.age;
            totals.service += seen.service;
            totals.capacity += seen.capacity;
            totals.queue += seen.queue + seen.capacity * micros(candidate.distance);
        }
        totals
    }

    /// A server that is not warm counts as so much slower.
    fn slowed_start(&self, time: f64, server: &Server, clock: u64) -> f64 {
        let warmth = server.warmth(clock);
        if warmth < 1.0 { time / warmth } else { time }
    }

    /// The share of a server when what is known is old: its capacity, less what its queue exceeds the common length of
    /// wait, to be made up for in the time that it takes to hear of it. Anything sharper would be overshot by all at once.
    fn share(&self, candidate: &Candidate, server: &Server, totals: &Totals, clock: u64) -> f64 {
        let Some(seen) = server.seen(clock) else {
            return totals.capacity / totals.reporting * self.part(server, clock);
        };
        let capacity = seen.capacity;
        let wait = totals.queue / totals.capacity;
        let horizon = (totals.age + totals.service) / totals.reporting;
        let queue = seen.queue + capacity * micros(candidate.distance);
        let share = capacity - (queue - capacity * wait) / horizon;
        share.max(SHARE_LEAST * capacity) * self.part(server, clock)
    }

    /// The candidate of least cost; the first of equals counted from a random place.
    fn least(
        &self,
        candidates: &[Candidate],
        chance: u64,
        strict: bool,
        mut cost: impl FnMut(&Candidate, &Arc<Server>) -> f64,
    ) -> Option<usize> {
        let first = ((u128::from(chance) * candidates.len() as u128) >> 64) as usize;
        let (before, after) = candidates.split_at(first);
        let mut best = None;
        for (offset, part) in [(first, after), (0, before)] {
            for (at, candidate, server) in self.eligible(part, strict) {
                let cost = cost(candidate, server);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, at + offset));
                }
            }
        }
        best.map(|(_, at)| at)
    }

    /// A candidate drawn in proportion to its share.
    fn draw(
        &self,
        candidates: &[Candidate],
        chance: u64,
        strict: bool,
        share: impl Fn(&Candidate, &Arc<Server>) -> f64,
    ) -> Option<usize> {
        let eligible = || self.eligible(candidates, strict);
        let sum: f64 = eligible().map(|(_, candidate, server)| share(candidate, server)).sum();
        let mut left = sum * unit(chance);
        let mut last = None;
        for (at, candidate, server) in eligible() {
            last = Some(at);
            left -= share(candidate, server);
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

impl Pick {
    /// Whom to ask.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.id
    }

    /// The request ended, and the server told its load if it did.
    pub fn done(mut self, now: Duration, outcome: Outcome, report: Option<LoadReport>) {
        if let Some(server) = self.server.take() {
            let now = nanos(now);
            server.note_ended(self.sent_at, now, outcome);
            if let Some(report) = report {
                // All but this one.
                server.note_report(report, in_flight(&server).saturating_sub(1), now);
            }
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.note_cancelled();
        }
    }
}

/// Own requests under way at a server: whoever holds it, but the balancer.
fn in_flight(server: &Arc<Server>) -> u32 {
    u32::try_from(Arc::strong_count(server) - 1).unwrap_or(u32::MAX)
}

/// A number from 0 on and below 1.
fn unit(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
