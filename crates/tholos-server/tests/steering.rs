//! A node whose disk turns slow leads nothing soon after, and no client notices; the admin interface tells why.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, beside, get, hold_port, in_time, rand};
use serde_json::Value as Json;
use tholos_resp::Value;
use tholos_server::Server;
use tholos_server::config::{Config, Seed, Seeds};
use tholos_wal::{Disk, FileDisk};

/// What a sync takes longer on the slow disk: below the election time-out, so that it never counts as standing still.
const SLOWER: Duration = Duration::from_millis(200);

/// A directory whose syncs are slow while the switch is on.
#[derive(Clone)]
struct SlowDisk {
    disk: FileDisk,
    is_slow: Arc<AtomicBool>,
}

impl Disk for SlowDisk {
    type File = <FileDisk as Disk>::File;

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        self.disk.create(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn length(&self, file: &Self::File) -> io::Result<u64> {
        self.disk.length(file)
    }

    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, offset, buffer)
    }

    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, bytes)
    }

    fn sync_data(&self, file: &Self::File) -> io::Result<()> {
        if self.is_slow.load(Ordering::Relaxed) {
            std::thread::sleep(SLOWER);
        }
        self.disk.sync_data(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn configs(dir: &Path) -> Vec<Config> {
    let ports: Vec<u16> = {
        // Held together, so that they differ.
        let held: Vec<_> = (0..3).map(|_| hold_port()).collect();
        held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
    };
    let peer = |at: usize| format!("127.0.0.1:{}", ports[at]).parse().unwrap();
    let seeds = Seeds((0..3).map(|at| Seed { name: format!("n{}", at + 1), address: peer(at) }).collect());
    let config = |at: usize| Config {
        name: format!("n{}", at + 1),
        dir: dir.to_owned(),
        peer: peer(at),
        gateway: "127.0.0.1:0".parse().unwrap(),
        cluster: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        seeds: seeds.clone(),
        shards: 8,
        ..Config::default()
    };
    (0..3).map(config).collect()
}

/// Waits until the nodes' rows are as wanted; the whole answer.
fn wait_for(http: &str, what: &str, is_so: impl Fn(&[Json]) -> bool) -> Json {
    let began = Instant::now();
    loop {
        let load = get(http, "/v1/load");
        if is_so(load["nodes"].as_array().unwrap()) {
            return load;
        }
        assert!(began.elapsed() < DEADLINE, "not {what}: {load}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes until it is told to stop; how many were acknowledged, which is all of them.
fn write(gateway: &str, name: usize, stop: &AtomicBool) -> usize {
    let mut client = Client::connect(gateway);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = client.ask(&["SET", &format!("{name}:{written}"), "v"]);
        assert_eq!(reply, Value::ok(), "write {written} of client {name}");
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_disk_sheds_its_leaders_and_no_write_fails() {
    let temp = Temp(std::env::temp_dir().join(format!("tholos-steering-{:x}", rand())));
    let is_slow = Arc::new(AtomicBool::new(false));
    let starting: Vec<_> = configs(&temp.0)
        .into_iter()
        .enumerate()
        .map(|(at, config)| {
            // The others' stay as they are.
            let is_slow = if at == 0 { Arc::clone(&is_slow) } else { Arc::default() };
            tokio::spawn(async move {
                let open = move |path: &Path| {
                    Ok(SlowDisk { disk: FileDisk::new(path)?, is_slow: Arc::clone(&is_slow) })
                };
                Server::start_on(&config, open).await
            })
        })
        .collect();
    let mut servers = Vec::new();
    for server in starting {
        servers.push(in_time("starting", server).await.unwrap().unwrap_or_else(|error| panic!("{error}")));
    }
    for server in &servers {
        in_time("getting ready", server.ready()).await;
    }
    let own = |at: usize| {
        let server = &servers[at];
        server.addresses().nodes.iter().find(|node| node.name == server.name()).unwrap()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|name| {
            let (gateway, stop) = (own(1 + name % 2).gateway.clone(), Arc::clone(&stop));
            tokio::task::spawn_blocking(move || write(&gateway, name, &stop))
        })
        .collect();
    let http = own(1).http.clone();
    beside(move || {
        let measured = |rows: &[Json]| rows[0]["sync_us"].is_u64() && rows[0]["capacity"] == 100;
        let led = wait_for(&http, "measured", measured)["nodes"][0]["leads"].as_u64().unwrap();
        is_slow.store(true, Ordering::Relaxed);
        let relieved =
            |rows: &[Json]| rows[0]["capacity"] == 0 && rows[0]["leads"] == 0 && rows[0]["target"] == 0;
        let load = wait_for(&http, "relieved", relieved);
        assert_eq!(load["nodes"][0]["slow"], "slow disk", "{load}");
        let moves = load["moves"].as_array().unwrap();
        // On a busy machine a sync may take so long that the disk counts as standing.
        let disk = |given: &Json| given["reason"] == "slow disk" || given["reason"] == "standing disk";
        let given = moves.iter().filter(|given| given["from"] == "n1" && disk(given)).count();
        assert!(given as u64 >= led, "{led}: {load}");
        let (_, metrics) = common::http_request(&http, &format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n"));
        assert!(metrics.contains("tholos_node_capacity_percent{node=\"n2\"} 100"), "{metrics}");
        is_slow.store(false, Ordering::Relaxed);
        wait_for(&http, "well again", |rows| {
            rows[0]["capacity"].as_u64().is_some_and(|capacity| capacity > 0)
        });
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(in_time("the writers", writer).await.unwrap() > 0);
    }
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
}
