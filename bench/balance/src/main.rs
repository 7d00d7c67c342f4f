//! What a choice among 16 servers costs, with what is learned of its outcome, beside `tower` and
//! `pingora-load-balancing`, in one run on one core.
//!
//! `cd bench && cargo run --release -p bench-balance`
//!
//! Not alike: ours looks at all 16 and learns from each answer; tower draws two, and its call goes through a service that
//! answers at once; pingora only chooses.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{BackendSelection, Consistent, RoundRobin};
use tholos_balance::{Balancer, Candidate, LoadReport, Options, Outcome, Policy, ServerId};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover, PendingRequestsDiscover};

const SERVERS: u32 = 16;
const ROUNDS: usize = 40;
const STEPS: u64 = 20_000;

/// Best time of a step, in nanoseconds: on a shared machine everything but the code itself only ever adds time.
fn measure(mut step: impl FnMut(u64)) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..STEPS).for_each(|at| step(black_box(at)));
        best = best.min(start.elapsed().as_nanos() as f64 / STEPS as f64);
    }
    best
}

fn ours(policy: Policy, reports: bool) -> f64 {
    let mut balancer = Balancer::new(Options { policy, ..Options::default() });
    (0..SERVERS).for_each(|id| balancer.set(ServerId(id), 1, Duration::ZERO));
    let candidates: Vec<Candidate> = (0..SERVERS).map(|id| ServerId(id).into()).collect();
    let mut clock = 20_000_000;
    measure(|at| {
        clock += 10;
        let now = Duration::from_micros(clock);
        let chance = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pick = balancer.pick(&candidates, now, chance).expect("there are candidates");
        let load = LoadReport { in_system: (at % 7) as u32, workers: 4, service: Duration::from_micros(500) };
        pick.done(now + Duration::from_micros(700), Outcome::Answered, reports.then_some(load));
    })
}

/// Answers at once.
#[derive(Clone)]
struct Instantly;

impl Service<u64> for Instantly {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// One request through a tower service that is always ready.
fn call<S: Service<u64>>(service: &mut S, request: u64) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = std::pin::pin!(service.call(request));
    assert!(black_box(future.as_mut().poll(&mut context)).is_ready());
}

fn services() -> ServiceList<Vec<Instantly>> {
    ServiceList::new::<u64>(vec![Instantly; SERVERS as usize])
}

fn tower_peak_ewma() -> f64 {
    let discover = PeakEwmaDiscover::new(
        services(),
        Duration::from_millis(1),
        Duration::from_secs(10),
        CompleteOnResponse::default(),
    );
    let mut balance = Balance::new(discover);
    measure(|at| call(&mut balance, at))
}

fn tower_pending() -> f64 {
    let mut balance = Balance::new(PendingRequestsDiscover::new(services(), CompleteOnResponse::default()));
    measure(|at| call(&mut balance, at))
}

fn pingora<S: BackendSelection + 'static>() -> f64
where
    S::Iter: pingora_load_balancing::selection::BackendIter,
{
    let addresses: Vec<String> = (0..SERVERS).map(|at| format!("10.0.0.{}:6379", at + 1)).collect();
    let balancer = LoadBalancer::<S>::try_from_iter(addresses).expect("valid addresses");
    measure(|at| {
        black_box(balancer.select(&at.to_le_bytes(), SERVERS as usize));
    })
}

fn main() {
    // Tower's peak-EWMA reads tokio's clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let rows = [
        ("tholos-balance, peak-ewma with reports", ours(Policy::PeakEwma, true)),
        ("tholos-balance, peak-ewma without", ours(Policy::PeakEwma, false)),
        ("tholos-balance, least request", ours(Policy::LeastRequest, false)),
        ("tholos-balance, round robin", ours(Policy::RoundRobin, false)),
        ("tower p2c, peak-ewma", tower_peak_ewma()),
        ("tower p2c, pending requests", tower_pending()),
        ("pingora, round robin, choice only", pingora::<RoundRobin>()),
        ("pingora, consistent (ketama), choice only", pingora::<Consistent>()),
    ];
    println!("choice among {SERVERS} servers and its outcome");
    for (name, nanos) in rows {
        println!("  {name:<44}{nanos:>8.1} ns   {:>6.2} x ours", nanos / rows[0].1);
    }
}
