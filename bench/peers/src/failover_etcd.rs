//! Clients that go on writing to etcd while its leader is killed.
//!
//! etcd has one group, so the gap is the longest time without any acknowledged write. Clients begin at different nodes
//! and go to the next one when theirs does not answer soon: a follower that forwarded a Put to the dead leader says
//! nothing for 7 s, long after there is a new one, and it is not that limit that is to be measured. What etcd keeps is
//! not checked here.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::args::Args;
use crate::etcd::Etcd;
use crate::failover::{Node, kill};
use crate::sample::Random;

/// Well above the latency of a write, and a small part of an election.
const REPLY_TIMEOUT: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(2);
const KEYS: u64 = 16_000;

/// Runs the load, kills the first node given, and reports the gap.
pub(crate) fn run(args: &Args) -> Result<Value, String> {
    let nodes: Rc<Vec<Node>> = Rc::new(args.all("node").map(Node::parse).collect::<Result<_, _>>()?);
    let victim = nodes.first().ok_or("no --node")?.pid;
    let before = Duration::from_secs_f64(args.get("before", 2.0)?);
    let after = Duration::from_secs_f64(args.get("after", 5.0)?);
    let value_bytes = args.get("value-bytes", 256)?;
    let connections: usize = args.get("connections", 16)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let killed = tokio::task::LocalSet::new().block_on(&runtime, async {
        for number in 0..connections {
            let (nodes, acknowledged) = (nodes.clone(), acknowledged.clone());
            tokio::task::spawn_local(write(number, nodes, vec![b'.'; value_bytes], acknowledged));
        }
        sleep(before).await;
        let killed = Instant::now();
        kill(victim)?;
        sleep(after).await;
        Ok::<_, String>(killed)
    })?;
    let times = acknowledged.borrow();
    let ends = times.iter().copied().skip(1).chain([Instant::now()]);
    let gap = times.iter().zip(ends).filter(|(_, end)| *end >= killed).map(|(&start, end)| end - start).max();
    let gap = gap.ok_or("no write was acknowledged")?;
    Ok(json!({
        "gap_ms_longest": (gap.as_secs_f64() * 1e4).round() / 10.0,
        "acknowledged": times.len(),
        "resumed": times.last().is_some_and(|&last| last > killed),
    }))
}

/// One client: writes until nobody runs it any more.
async fn write(number: usize, nodes: Rc<Vec<Node>>, value: Vec<u8>, acknowledged: Rc<RefCell<Vec<Instant>>>) {
    let mut random = Random::new(7, number as u64);
    let mut node = number % nodes.len();
    let mut link = None;
    loop {
        if link.is_none() {
            link = Etcd::open(&nodes[node].address).await.ok();
        }
        let key = format!("key:{:012}", random.next() % KEYS);
        let written = match &link {
            Some(link) => timeout(REPLY_TIMEOUT, link.put(key.as_bytes(), &value)).await,
            None => Ok(Err("not connected".to_owned())),
        };
        if matches!(written, Ok(Ok(()))) {
            acknowledged.borrow_mut().push(Instant::now());
        } else {
            link = None;
            node = (node + 1) % nodes.len();
            sleep(PAUSE).await;
        }
    }
}
