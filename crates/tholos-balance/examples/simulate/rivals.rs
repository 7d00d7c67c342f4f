//! The policies that are compared: the crate's own, and what others do.

use std::time::Duration;

use tholos_balance::{Balancer, Candidate, LoadReport, Options, Outcome, Pick, Policy, ServerId};

use crate::chance::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// This crate's default.
    PeakEwma,
    /// Greedy, by the true queues and speeds of this very moment: no real balancer can know them.
    TrueQueues,
    /// Replica ranking of C3 (Suresh and others, NSDI 2015, §3.1), without its rate control.
    C3,
    /// The lower of two by chance, by peak-EWMA times requests under way: tower's p2c.
    TwoChoicesPeakEwma,
    /// The lower of two by chance, by requests under way (Mitzenmacher 2001).
    TwoChoicesInFlight,
    /// This crate's.
    LeastRequest,
    /// This crate's, without weights.
    WeightedRandom,
    /// This crate's.
    RoundRobin,
    /// Anybody.
    Random,
    /// The textbook's: every request to the server of the highest weight, `w_i = c_i / Σ c_j`, as last reported.
    HighestWeight,
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rival::PeakEwma => "peak-ewma over all (default)",
            Rival::TrueQueues => "oracle: true queues, greedy",
            Rival::C3 => "C3 ranking",
            Rival::TwoChoicesPeakEwma => "peak-ewma, two choices (tower p2c)",
            Rival::TwoChoicesInFlight => "requests under way, two choices",
            Rival::LeastRequest => "least request",
            Rival::WeightedRandom => "weighted random, equal weights",
            Rival::RoundRobin => "round robin",
            Rival::Random => "random",
            Rival::HighestWeight => "highest weight (textbook)",
        }
    }

    fn policy(self) -> Option<Policy> {
        match self {
            Rival::PeakEwma => Some(Policy::PeakEwma),
            Rival::LeastRequest => Some(Policy::LeastRequest),
            Rival::WeightedRandom => Some(Policy::WeightedRandom),
            Rival::RoundRobin => Some(Policy::RoundRobin),
            _ => None,
        }
    }
}

/// What is true of a server at this moment, for the oracle.
#[derive(Clone, Copy)]
pub(crate) struct Truth {
    pub(crate) in_system: usize,
    pub(crate) workers: usize,
    pub(crate) service: f64,
}

/// What one balancer knows. Times are milliseconds.
pub(crate) struct Chooser {
    rival: Rival,
    balancers: usize,
    ours: Balancer,
    known: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    in_flight: f64,
    latency: f64,
    latency_at: f64,
    /// C3's three averages.
    response: f64,
    service: f64,
    queue: f64,
    weight: f64,
}

/// A request's choice, to be told how it went.
pub(crate) enum Choice {
    Ours(Pick),
    Other(usize),
}

impl Choice {
    pub(crate) fn server(&self) -> usize {
        match self {
            Choice::Ours(pick) => pick.server().0 as usize,
            Choice::Other(server) => *server,
        }
    }
}

fn clock(now: f64) -> Duration {
    Duration::from_nanos((now * 1e6) as u64)
}

impl Chooser {
    /// Of `servers`, the first `there` are there from the beginning.
    pub(crate) fn new(
        rival: Rival,
        servers: usize,
        there: usize,
        balancers: usize,
        slow_start: Option<Duration>,
    ) -> Chooser {
        let defaults = Options::default();
        let options = Options {
            policy: rival.policy().unwrap_or_default(),
            slow_start: slow_start.unwrap_or(defaults.slow_start),
            ..defaults
        };
        let mut ours = Balancer::new(options);
        (0..there).for_each(|server| ours.set(ServerId(server as u32), 1, Duration::ZERO));
        let known = Known {
            in_flight: 0.0,
            latency: 0.0,
            latency_at: 0.0,
            response: 0.0,
            service: 0.0,
            queue: 0.0,
            weight: 0.0,
        };
        Chooser { rival, balancers, ours, known: vec![known; servers] }
    }

    pub(crate) fn choose(
        &mut self,
        candidates: &[usize],
        truths: impl Fn(usize) -> Truth,
        now: f64,
        chance: &mut Chance,
    ) -> Choice {
        if self.rival.policy().is_some() {
            let all: Vec<Candidate> = candidates.iter().map(|at| ServerId(*at as u32).into()).collect();
            let pick = self.ours.pick(&all, clock(now), chance.next());
            return Choice::Ours(pick.expect("every candidate is known"));
        }
        let random = |chance: &mut Chance| candidates[chance.below(candidates.len())];
        let server = match self.rival {
            Rival::TwoChoicesPeakEwma | Rival::TwoChoicesInFlight => {
                let pair = [random(chance), random(chance)];
                self.least(&pair, 0, |known| match self.rival {
                    Rival::TwoChoicesInFlight => known.in_flight,
                    _ => known.latency * (known.in_flight + 1.0),
                })
            }
            Rival::Random => random(chance),
            Rival::HighestWeight => {
                self.least(candidates, chance.below(candidates.len()), |known| -known.weight)
            }
            Rival::C3 => self.least(candidates, chance.below(candidates.len()), |known| {
                let queue = 1.0 + known.in_flight * self.balancers as f64 + known.queue;
                known.response - known.service + queue.powi(3) * known.service
            }),
            _ => {
                let first = chance.below(candidates.len());
                let rotated = candidates[first..].iter().chain(&candidates[..first]);
                let cost = |server: usize| {
                    let truth = truths(server);
                    let ahead = (truth.in_system + 1).saturating_sub(truth.workers) as f64;
                    truth.service * (1.0 + ahead / truth.workers as f64)
                };
                *rotated.min_by(|a, b| cost(**a).total_cmp(&cost(**b))).expect("there are candidates")
            }
        };
        self.known[server].in_flight += 1.0;
        Choice::Other(server)
    }

    fn least(&self, candidates: &[usize], first: usize, cost: impl Fn(&Known) -> f64) -> usize {
        let rotated = candidates[first..].iter().chain(&candidates[..first]);
        let least = rotated.min_by(|a, b| cost(&self.known[**a]).total_cmp(&cost(&self.known[**b])));
        *least.expect("there are candidates")
    }

    /// One more server is there from now on.
    pub(crate) fn joins(&mut self, server: usize, now: f64) {
        self.ours.set(ServerId(server as u32), 1, clock(now));
    }

    pub(crate) fn answered(
        &mut self,
        choice: Choice,
        sent_at: f64,
        now: f64,
        report: LoadReport,
        with_report: bool,
    ) {
        let server = match choice {
            Choice::Ours(pick) => {
                return pick.done(clock(now), Outcome::Answered, with_report.then_some(report));
            }
            Choice::Other(server) => server,
        };
        let known = &mut self.known[server];
        known.in_flight -= 1.0;
        let took = now - sent_at;
        let since = now - known.latency_at;
        known.latency_at = now;
        // Tower's: peaks at once, else forgotten within ten seconds.
        known.latency = if took > known.latency {
            took
        } else {
            took + (known.latency - took) * (-since / 10_000.0).exp()
        };
        if with_report {
            let blend = |old: f64, new: f64| if old == 0.0 { new } else { 0.9 * old + 0.1 * new };
            known.response = blend(known.response, took);
            known.service = blend(known.service, report.service.as_secs_f64() * 1e3);
            known.queue = blend(known.queue, f64::from(report.in_system));
        }
    }

    pub(crate) fn reported(&mut self, server: usize, report: LoadReport, now: f64) {
        self.ours.report(ServerId(server as u32), report, clock(now));
        let known = &mut self.known[server];
        let service = report.service.as_secs_f64() * 1e3;
        known.weight = (f64::from(report.workers) - f64::from(report.in_system)) / service;
        if known.service == 0.0 {
            known.service = service;
        }
        known.queue = f64::from(report.in_system);
    }
}
