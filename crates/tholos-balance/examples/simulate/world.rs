//! Servers, balancers and time, event by event. Times are milliseconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tholos_balance::{LoadMeter, LoadReport};

use crate::chance::Chance;
use crate::rivals::{Choice, Chooser, Rival, Truth};

/// Speeds of the servers.
const SPEEDS: [f64; 20] =
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0];
const WORKERS: usize = 4;
/// One way.
const NETWORK_MS: f64 = 0.1;
const REPORT_MS: f64 = 100.0;
/// A server of double speed that slows down.
const SLOWED: usize = 12;
const SLOWED_BY: f64 = 10.0;
/// One of fourfold speed that joins, and is so much slower at first, with nothing in its caches.
const NEW: usize = 19;
const COLD_BY: f64 = 10.0;
/// Where service has two modes: the part of requests that are long, how much longer than the others, and the short ones'
/// part of the mean, so that the mean is the same.
const LONG_PART: f64 = 0.05;
const LONG_BY: f64 = 10.0;
const SHORT: f64 = 1.0 / (1.0 - LONG_PART + LONG_PART * LONG_BY);
/// Of the time, before anything is counted.
const WARM_UP: f64 = 0.1;

#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) seconds: f64,
    pub(crate) load: f64,
    pub(crate) balancers: usize,
    pub(crate) candidates: usize,
    /// Whether answers carry the server's load.
    pub(crate) answers_report: bool,
    pub(crate) trouble: Trouble,
    pub(crate) service: Service,
    pub(crate) seed: u64,
}

/// What is wrong from half to three quarters of the time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Nothing,
    /// A server is slower.
    SlowDown,
    /// A server is there from then on, cold at first; balancers start slowly with it for so long.
    NewServer {
        slow_start: Duration,
    },
}

/// How times of service differ about their mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Exponential,
    /// One in twenty takes ten times as long as each of the others: a scan among reads of one key.
    TwoModes,
}

impl Service {
    fn draw(self, mean: f64, chance: &mut Chance) -> f64 {
        match self {
            Service::Exponential => chance.exponential(mean),
            Service::TwoModes if chance.unit() < LONG_PART => mean * SHORT * LONG_BY,
            Service::TwoModes => mean * SHORT,
        }
    }
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            seconds: 20.0,
            load: 0.9,
            balancers: 8,
            candidates: SPEEDS.len(),
            answers_report: true,
            trouble: Trouble::SlowDown,
            service: Service::Exponential,
            seed: 42,
        }
    }
}

/// Response times, kept whole and sorted when asked.
#[derive(Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, time: f64) {
        self.0.push(time);
    }

    pub(crate) fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        let at = (self.0.len().saturating_sub(1) as f64 * part) as usize;
        self.0.get(at).copied().unwrap_or(0.0)
    }
}

#[derive(Default)]
pub(crate) struct Outcomes {
    /// Of requests sent while all servers were themselves.
    pub(crate) quiet: Times,
    /// Of requests sent while one was slow, or new.
    pub(crate) slowed: Times,
    /// How many servers had nothing to do, on average over the moments of reports.
    pub(crate) idle_servers: f64,
}

struct Server {
    serving: usize,
    waiting: VecDeque<usize>,
    meter: LoadMeter,
}

struct Request {
    balancer: usize,
    sent_at: f64,
    choice: Option<Choice>,
}

enum Event {
    Arrival,
    AtServer { request: usize, server: usize },
    Served { request: usize, server: usize },
    Answer { request: usize, report: LoadReport },
    Reports,
    Joins,
}

struct World {
    scene: Scene,
    chance: Chance,
    servers: Vec<Server>,
    choosers: Vec<Chooser>,
    requests: Vec<Request>,
    events: Vec<Option<Event>>,
    /// Time in nanoseconds, then the order in which events were made.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    idle: (f64, f64),
    outcomes: Outcomes,
}

fn clock(now: f64) -> Duration {
    Duration::from_nanos((now * 1e6) as u64)
}

impl Scene {
    fn end(&self) -> f64 {
        self.seconds * 1000.0
    }

    fn is_troubled(&self, now: f64) -> bool {
        self.trouble != Trouble::Nothing && now >= 0.5 * self.end() && now < 0.75 * self.end()
    }

    /// How many servers there are.
    fn there(&self, now: f64) -> usize {
        match self.trouble {
            Trouble::NewServer { .. } if now < 0.5 * self.end() => NEW,
            _ => SPEEDS.len(),
        }
    }

    /// Mean time of service.
    fn service(&self, server: usize, now: f64) -> f64 {
        let by = match self.trouble {
            _ if !self.is_troubled(now) => 1.0,
            Trouble::SlowDown if server == SLOWED => SLOWED_BY,
            Trouble::NewServer { .. } if server == NEW => {
                1.0 + (COLD_BY - 1.0) * (0.75 - now / self.end()) / 0.25
            }
            _ => 1.0,
        };
        by / SPEEDS[server]
    }

    pub(crate) fn run(&self, rival: Rival) -> Outcomes {
        let server = |speed: &f64| Server {
            serving: 0,
            waiting: VecDeque::new(),
            meter: LoadMeter::new(WORKERS as u32, clock(1.0 / speed), Duration::ZERO),
        };
        let mut world = World {
            chance: Chance(self.seed),
            servers: SPEEDS.iter().map(server).collect(),
            choosers: (0..self.balancers).map(|_| self.chooser(rival)).collect(),
            requests: Vec::new(),
            events: Vec::new(),
            queue: BinaryHeap::new(),
            idle: (0.0, 0.0),
            outcomes: Outcomes::default(),
            scene: self.clone(),
        };
        world.at(0.0, Event::Reports);
        world.at(0.0, Event::Arrival);
        if self.there(0.0) < SPEEDS.len() {
            world.at(0.5 * self.end(), Event::Joins);
        }
        world.go_on();
        world.outcomes
    }

    fn chooser(&self, rival: Rival) -> Chooser {
        let slow_start = match self.trouble {
            Trouble::NewServer { slow_start } => Some(slow_start),
            _ => None,
        };
        Chooser::new(rival, SPEEDS.len(), self.there(0.0), self.balancers, slow_start)
    }
}

impl World {
    fn at(&mut self, time: f64, event: Event) {
        self.queue.push(Reverse(((time * 1e6) as u64, self.events.len())));
        self.events.push(Some(event));
    }

    fn go_on(&mut self) {
        while let Some(Reverse((nanos, at))) = self.queue.pop() {
            let now = nanos as f64 / 1e6;
            if now > self.scene.end() {
                break;
            }
            match self.events[at].take().expect("each event comes once") {
                Event::Arrival => self.arrival(now),
                Event::AtServer { request, server } => self.at_server(request, server, now),
                Event::Served { request, server } => self.served(request, server, now),
                Event::Answer { request, report } => self.answer(request, report, now),
                Event::Reports => self.reports(now),
                Event::Joins => self.choosers.iter_mut().for_each(|chooser| chooser.joins(NEW, now)),
            }
        }
        self.outcomes.idle_servers = self.idle.0 / self.idle.1.max(1.0);
    }

    fn arrival(&mut self, now: f64) {
        let capacity: f64 = SPEEDS.iter().sum::<f64>() * WORKERS as f64;
        let next = now + self.chance.exponential(1.0 / (capacity * self.scene.load));
        self.at(next, Event::Arrival);
        let balancer = self.chance.below(self.choosers.len());
        let there = self.scene.there(now);
        let mut candidates: Vec<usize> = (0..there).collect();
        for at in 0..self.scene.candidates.min(there - 1) {
            let other = at + self.chance.below(there - at);
            candidates.swap(at, other);
        }
        candidates.truncate(self.scene.candidates);
        let (servers, scene) = (&self.servers, &self.scene);
        let truths = |at: usize| Truth {
            in_system: servers[at].serving + servers[at].waiting.len(),
            workers: WORKERS,
            service: scene.service(at, now),
        };
        let choice = self.choosers[balancer].choose(&candidates, truths, now, &mut self.chance);
        let (request, server) = (self.requests.len(), choice.server());
        self.requests.push(Request { balancer, sent_at: now, choice: Some(choice) });
        self.at(now + NETWORK_MS, Event::AtServer { request, server });
    }

    fn at_server(&mut self, request: usize, server: usize, now: f64) {
        self.servers[server].meter.arrived(clock(now));
        if self.servers[server].serving < WORKERS {
            self.servers[server].serving += 1;
            self.serve(request, server, now);
        } else {
            self.servers[server].waiting.push_back(request);
        }
    }

    fn serve(&mut self, request: usize, server: usize, now: f64) {
        let mean = self.scene.service(server, now);
        let takes = self.scene.service.draw(mean, &mut self.chance);
        self.at(now + takes, Event::Served { request, server });
    }

    fn served(&mut self, request: usize, server: usize, now: f64) {
        let row = &mut self.servers[server];
        row.meter.ended(clock(now));
        let report = row.meter.report(clock(now));
        match row.waiting.pop_front() {
            Some(next) => self.serve(next, server, now),
            None => row.serving -= 1,
        }
        self.at(now + NETWORK_MS, Event::Answer { request, report });
    }

    fn answer(&mut self, request: usize, report: LoadReport, now: f64) {
        let Request { balancer, sent_at, choice } = &mut self.requests[request];
        let (balancer, sent_at) = (*balancer, *sent_at);
        let choice = choice.take().expect("each request is answered once");
        let with_report = self.scene.answers_report;
        self.choosers[balancer].answered(choice, sent_at, now, report, with_report);
        if sent_at < WARM_UP * self.scene.end() {
            return;
        }
        let times = match self.scene.is_troubled(sent_at) {
            true => &mut self.outcomes.slowed,
            // What the slow time left behind is neither.
            false if self.scene.is_troubled(sent_at - 0.05 * self.scene.end()) => return,
            false => &mut self.outcomes.quiet,
        };
        times.push(now - sent_at);
    }

    fn reports(&mut self, now: f64) {
        self.at(now + REPORT_MS, Event::Reports);
        for (at, server) in self.servers.iter_mut().enumerate() {
            let report = server.meter.report(clock(now));
            self.choosers.iter_mut().for_each(|chooser| chooser.reported(at, report, now));
        }
        if now >= WARM_UP * self.scene.end() {
            self.idle.0 += self.servers.iter().filter(|server| server.serving == 0).count() as f64;
            self.idle.1 += 1.0;
        }
    }
}
