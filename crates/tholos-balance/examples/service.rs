//! The balancer as a `tower` service over other services, so that it goes wherever one is taken: a client of tonic or hyper, a stack of
//! layers. It needs no more of tower than its trait.
//!
//! `cargo run --release -p tholos-balance --example service` asks three servers of which one is eight times slower.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tholos_balance::{Balancer, Candidate, Options, Outcome, ServerId};
use tokio::time::Instant;
use tower_service::Service;

/// Gives each request to one of some services, the one from which it expects the answer first.
pub struct Balance<S> {
    backends: Vec<Backend<S>>,
    shared: Arc<Shared>,
}

struct Backend<S> {
    service: S,
    state: State,
}

/// What a service has said when it was asked whether it is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Ready,
    /// It has failed, and so is never asked again: such is the contract of `poll_ready`.
    Gone,
}

/// What the futures of requests need when they end, which may be after the service itself is gone.
struct Shared {
    balancer: Balancer,
    /// The balancer's times count from here.
    began: Instant,
    requests: AtomicU64,
}

impl<S> Balance<S> {
    /// Over these; all are alike until more is known of them.
    pub fn new(services: impl IntoIterator<Item = S>) -> Balance<S> {
        let backend = |service| Backend { service, state: State::Unknown };
        let backends: Vec<_> = services.into_iter().map(backend).collect();
        let mut balancer = Balancer::new(Options::default());
        for at in 0..backends.len() {
            balancer.set(ServerId(at as u32), 1, Duration::ZERO);
        }
        let shared = Shared { balancer, began: Instant::now(), requests: AtomicU64::new(0) };
        Balance { backends, shared: Arc::new(shared) }
    }
}

impl<S, Request> Service<Request> for Balance<S>
where
    S: Service<Request>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    /// Ready with the first that is; an error only if it is the last one's.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let mut failed = None;
        for backend in self.backends.iter_mut().filter(|backend| backend.state == State::Unknown) {
            match backend.service.poll_ready(context) {
                Poll::Ready(Ok(())) => backend.state = State::Ready,
                Poll::Ready(Err(error)) => {
                    backend.state = State::Gone;
                    failed = Some(error);
                }
                Poll::Pending => {}
            }
        }
        let any = |state| self.backends.iter().any(|backend| backend.state == state);
        match failed {
            _ if any(State::Ready) => Poll::Ready(Ok(())),
            Some(error) if !any(State::Unknown) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ready = (0..).zip(&self.backends).filter(|(_, backend)| backend.state == State::Ready);
        let candidates: Vec<Candidate> = ready.map(|(at, _)| ServerId(at).into()).collect();
        let shared = Arc::clone(&self.shared);
        let pick = shared.balancer.pick(&candidates, shared.began.elapsed(), shared.chance());
        let pick = pick.expect("poll_ready has said that one is ready");
        let backend = &mut self.backends[pick.server().0 as usize];
        backend.state = State::Unknown;
        let answer = backend.service.call(request);
        Box::pin(async move {
            // Whoever drops this future has given up, and so has the pick.
            let result = answer.await;
            let outcome = if result.is_ok() { Outcome::Answered } else { Outcome::Failed };
            // A server that tells its load, in a header say, is judged better: that goes where None is.
            pick.done(shared.began.elapsed(), outcome, None);
            result
        })
    }
}

impl Shared {
    /// Good enough where nobody gains by guessing it.
    fn chance(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A server that answers with its number, one request after the other.
struct Server {
    number: usize,
    takes: Duration,
    free_at: Instant,
}

impl Service<()> for Server {
    type Response = usize;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<usize, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.free_at = self.free_at.max(Instant::now()) + self.takes;
        let (number, answers_at) = (self.number, self.free_at);
        Box::pin(async move {
            tokio::time::sleep_until(answers_at).await;
            Ok(number)
        })
    }
}

/// How many of so many requests each of three servers has answered, the first eight times slower than the others; one request comes each
/// millisecond.
async fn demonstrate(requests: usize) -> [usize; 3] {
    let free_at = Instant::now();
    let server = |(number, ms)| Server { number, takes: Duration::from_millis(ms), free_at };
    let mut balance = Balance::new([(0, 8), (1, 1), (2, 1)].map(server));
    let mut answers = Vec::new();
    for _ in 0..requests {
        let Ok(()) = std::future::poll_fn(|context| balance.poll_ready(context)).await;
        answers.push(tokio::spawn(balance.call(())));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut answered = [0; 3];
    for answer in answers {
        if let Ok(Ok(number)) = answer.await {
            answered[number] += 1;
        }
    }
    answered
}

#[tokio::main]
async fn main() {
    let [slow, second, third] = demonstrate(2000).await;
    println!("the slow server has answered {slow} requests, the others {second} and {third}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_slow_one_gets_little_and_nothing_is_lost() {
        let [slow, second, third] = demonstrate(2000).await;
        assert_eq!(slow + second + third, 2000);
        assert!(slow < 200 && second > 600 && third > 600, "{slow}, {second}, {third}");
    }

    /// Fails when it is asked whether it is ready.
    struct Broken;

    impl Service<()> for Broken {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            unreachable!("it is not ready")
        }
    }

    #[tokio::test]
    async fn the_last_one_that_fails_is_an_error() {
        let mut balance = Balance::new([Broken, Broken]);
        assert_eq!(std::future::poll_fn(|context| balance.poll_ready(context)).await, Err("broken"));
    }
}
