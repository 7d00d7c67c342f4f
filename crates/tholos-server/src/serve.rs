//! One node of a cluster as a process of its own: genesis if its directory is new, then the node and its admin interface.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tholos_cluster::{ClusterMap, NodeId, NodeRow, Seed, Settings};
use tholos_resp::Limits;
use tholos_rpc::{Rpc, Secret};
use tholos_wal::{Disk, FileDisk};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::client_task::ClientLimits;
use crate::config::{Address, Config, LeaderMode, ReadMode, ReplicaReads, YesNo};
use crate::dev::{self, Addresses};
use crate::genesis::{self, Ended};
use crate::join;
use crate::node_dir::{DirectoryError, NodeDir};
use crate::open_files::{self, Nodes};
use crate::ports::{self, PortError};
use crate::recovery;
use crate::server::{
    self, NodeSettings, PeerPort, RunningNode, StartError, Tuning, rpc_config, start_node_on,
};
use crate::status::{Verdict, cluster_status};
use crate::worker_task::PEER_EVENTS_MAX;

/// How often it is looked whether every shard has a leader.
const READY_LOOK: Duration = Duration::from_millis(20);

/// A node that serves.
pub struct Server {
    node: RunningNode,
    admin: Admin,
    /// The admin interface.
    tasks: JoinSet<()>,
    addresses: Addresses,
    ready_file: Option<PathBuf>,
    started: Instant,
}

impl Server {
    /// Starts the node that `config`, which is valid, describes. If its directory is new, waits until the cluster has
    /// been founded, for as long as it takes; dropping the future gives up and leaves everything whole.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: &Config) -> Result<Server, StartError> {
        Self::start_on(config, |path| FileDisk::new(path)).await
    }

    /// The same with log and snapshots on what `open_disk` makes of their directories, see [`start_node_on`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_on<D: Disk + 'static>(
        config: &Config,
        open_disk: impl Fn(&Path) -> io::Result<D> + Send + 'static,
    ) -> Result<Server, StartError> {
        let started = Instant::now();
        let listen = Listen::resolve(config)?;
        let mut directory = NodeDir::open(&config.dir, &config.name)?;
        // Not before: it may be in the node's own directory, or be that of another process that has this one.
        if let Some(file) = &config.ready_file {
            dev::prepare_ready_file(file)?;
        }
        let http_listener = ports::listen("admin interface", listen.http, "--http")?;
        let http_error = |source| PortError::new("admin interface", listen.http, source, "--http");
        let http = http_listener.local_addr().map_err(http_error)?;
        let http_listener = TcpListener::from_std(http_listener).map_err(http_error)?;
        let mut tuning = tuning(config);
        let cluster = directory.map().map_or(config.founders().len(), |map| map.nodes.len());
        let clients = &mut tuning.clients;
        clients.process = open_files::set_aside(Nodes::one_of(cluster), &mut clients.clients_max)?;
        let secret = secret(config)?;
        let own = own_row(config, &listen, http, &directory);
        let (map, peer) = match directory.map().cloned() {
            Some(map) => {
                genesis::compare(&directory, &map, others(config), secret.as_ref()).await?;
                (map, PeerPort::Listen(listen.peer))
            }
            None => {
                // A taken port is told now, not when the cluster has been founded.
                drop(ports::listen("gateway", listen.gateway, "--gateway")?);
                drop(ports::listen("cluster port", listen.cluster, "--cluster")?);
                match &config.join {
                    Some(member) => {
                        drop(ports::listen("peer port", listen.peer, "--peer")?);
                        let (again, member) = (config.rejoin == YesNo::Yes, member.to_string());
                        let map = join(&mut directory, own.clone(), again, &member, secret.as_ref()).await?;
                        (map, PeerPort::Listen(listen.peer))
                    }
                    None => found(config, &listen, &mut directory, own.clone(), secret.as_ref()).await?,
                }
            }
        };
        let map = with_addresses(map, config, &own);
        let settings = NodeSettings {
            directory,
            map: map.clone(),
            gateway: Some(listen.gateway),
            cluster: listen.cluster,
            peer,
            secret: secret.clone(),
            tuning,
        };
        let node = start_node_on(settings, open_disk).await?;
        let addresses = Addresses::of(&map, own.gateway, own.http);
        let mut tasks = JoinSet::new();
        tasks.spawn(recovery::tell_if_gone(node.handle(), secret.clone()));
        let admin = Admin::node(node.handle(), secret);
        tasks.spawn(admin::serve(http_listener, admin.clone()));
        Ok(Server { node, admin, tasks, addresses, ready_file: config.ready_file.clone(), started })
    }

    /// Where this node is reached, and every other.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.directory().identity().name
    }

    /// How many shards the cluster has, and how many replicas each of them is meant to have.
    #[must_use]
    pub fn shards_and_replicas(&self) -> (u16, u8) {
        let state = self.node.handle().map();
        (state.map.shard_count, state.map.replicas)
    }

    /// Waits until every shard has a leader that has decided an entry of its own, then writes the ready file if one was
    /// asked for; how long that took from the start on. Waits for ever if too few nodes run.
    pub async fn ready(&self) -> Duration {
        while self.status().await.verdict == Verdict::Unavailable {
            tokio::time::sleep(READY_LOOK).await;
        }
        let took = self.started.elapsed();
        if let Some(file) = &self.ready_file {
            self.addresses.write(file);
        }
        took
    }

    /// The cluster's state, as all nodes that answer tell it.
    pub async fn status(&self) -> crate::status::ClusterStatus {
        cluster_status(&self.admin.newest(), &self.admin.ask_all().await)
    }

    /// Waits until the node has ended by itself, and says why: a failed disk (R23), a bug. Then the process is to exit.
    pub async fn ended(&self) -> Arc<str> {
        let mut ended = self.node.ended();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_else(|| "it has ended".into()),
            Err(_) => "it has ended".into(),
        }
    }

    /// Waits until the running job wants this node to restart. Then the process is to [stop](Self::stop) it and to begin anew,
    /// by the program that is on the disk then.
    pub async fn restart_wanted(&self) {
        if !server::restart_wanted(self.node.restart()).await {
            // It has ended by itself, which is told elsewhere.
            std::future::pending::<()>().await;
        }
    }

    /// Stops in order: hands every leadership over first, for as long as `drain_timeout_ms` allows. Returns whether it
    /// led nothing at the end that another could lead.
    pub async fn stop(mut self) -> bool {
        let handed_over = self.node.stop(true).await;
        self.tasks.shutdown().await;
        handed_over
    }
}

/// The listeners' own addresses, each with a port.
struct Listen {
    gateway: SocketAddr,
    cluster: SocketAddr,
    peer: SocketAddr,
    http: SocketAddr,
}

impl Listen {
    fn resolve(config: &Config) -> Result<Listen, StartError> {
        let one = |what: &str, address: &Address| -> Result<SocketAddr, StartError> {
            let mut resolved = address.resolve().map_err(|error| {
                StartError::Settings(format!("the address of --{what}, {address}, is none: {error}"))
            })?;
            if resolved.port() == 0 {
                // It goes into the map before it is opened, so it is chosen here.
                let free = ports::pick_free(1)
                    .map_err(|source| StartError::System { what: "find a free port", source })?;
                resolved.set_port(free[0]);
            }
            Ok(resolved)
        };
        Ok(Listen {
            gateway: one("gateway", &config.gateway)?,
            cluster: one("cluster", &config.cluster)?,
            peer: one("peer", &config.peer)?,
            http: one("http", &config.http)?,
        })
    }
}

fn secret(config: &Config) -> Result<Option<Secret>, StartError> {
    let secret = config.cluster_secret.as_ref().map(|secret| Secret::new(secret.reveal().as_bytes()));
    secret.transpose().map_err(|error| StartError::Settings(error.to_string()))
}

/// This node's row of the map; its id is given by the cluster.
fn own_row(config: &Config, listen: &Listen, http: SocketAddr, directory: &NodeDir) -> NodeRow {
    let advertised = |given: &Option<Address>, configured: &Address, listens: SocketAddr| {
        let name = given.as_ref().unwrap_or(configured);
        // The name that was given, with the port that is in force.
        if name.port == 0 { listens.to_string() } else { name.to_string() }
    };
    NodeRow {
        id: NodeId(0),
        name: config.name.clone(),
        zone: config.zone.clone(),
        weight: u16::try_from(config.weight).unwrap_or(u16::MAX),
        incarnation: directory.identity().incarnation,
        gateway: advertised(&config.advertise_gateway, &config.gateway, listen.gateway),
        cluster: advertised(&config.advertise_cluster, &config.cluster, listen.cluster),
        peer: advertised(&config.advertise_peer, &config.peer, listen.peer),
        http: advertised(&config.advertise_http, &config.http, http),
    }
}

/// The nodes that were named beside this one: the seeds, or the member to join by.
fn others(config: &Config) -> Vec<Seed> {
    let seeds = config.seeds.0.iter().filter(|seed| seed.name != config.name);
    let seeds = seeds.map(|seed| (seed.name.clone(), seed.address.to_string()));
    let member = config.join.iter().map(|member| (member.to_string(), member.to_string()));
    seeds.chain(member).map(|(name, address)| Seed { name, address }).collect()
}

/// Founds or joins the cluster of the seeds (R26); its map, and the peer port that was opened for it.
async fn found(
    config: &Config,
    listen: &Listen,
    directory: &mut NodeDir,
    own: NodeRow,
    secret: Option<&Secret>,
) -> Result<(ClusterMap, PeerPort), StartError> {
    config.validate_founding().map_err(|error| StartError::Settings(error.to_string()))?;
    let founders = config.founders();
    let seeds: Vec<Seed> = founders
        .iter()
        .map(|seed| Seed { name: seed.name.clone(), address: seed.address.to_string() })
        .collect();
    let alone = seeds.len() == 1;
    let settings = Settings {
        seeds,
        shard_count: u16::try_from(config.shards).unwrap_or(u16::MAX),
        // A node alone can hold one copy only, whatever the default says.
        replicas: if alone { 1 } else { u8::try_from(config.replicas).unwrap_or(u8::MAX) },
    };
    let (sender, mut events) = mpsc::channel(PEER_EVENTS_MAX);
    let boot = getrandom::u64().map_err(DirectoryError::Random)?;
    let hello = genesis::hello(directory, boot);
    let rpc = match Rpc::start(rpc_config(listen.peer, hello, secret.cloned()), sender) {
        Ok(rpc) => rpc,
        Err(tholos_rpc::StartError::Bind { listen, source }) => {
            return Err(PortError::new("peer port", listen, source, "--peer").into());
        }
        Err(error) => return Err(error.into()),
    };
    let map = match genesis::run(directory, own.clone(), settings, &mut events, secret).await {
        Ok(Ended::Belongs(map)) => Ok(map),
        Ok(Ended::Known { reason, .. }) if config.rejoin == YesNo::No => Err(StartError::Settings(reason)),
        Ok(Ended::Known { address, .. }) => join(directory, own, true, &address, secret).await,
        Err(error) => Err(error),
    };
    match map {
        Ok(map) => Ok((map, PeerPort::Open(rpc, events))),
        Err(error) => {
            // Whoever tries again, with other settings say, finds the port free.
            rpc.shutdown().await;
            Err(error)
        }
    }
}

/// Joins the cluster of a member; its map.
async fn join(
    directory: &mut NodeDir,
    own: NodeRow,
    again: bool,
    member: &str,
    secret: Option<&Secret>,
) -> Result<ClusterMap, StartError> {
    join::run(directory, own, again, member, secret).await?;
    Ok(directory.map().cloned().expect("it has just joined"))
}

/// The map with the addresses that this start was told: its own, and the seeds' peer ports.
fn with_addresses(mut map: ClusterMap, config: &Config, own: &NodeRow) -> ClusterMap {
    for row in &mut map.nodes {
        if let Some(seed) = config.seeds.0.iter().find(|seed| seed.name == row.name) {
            row.peer = seed.address.to_string();
        }
        if row.name == own.name {
            row.gateway.clone_from(&own.gateway);
            row.cluster.clone_from(&own.cluster);
            row.peer.clone_from(&own.peer);
            row.http.clone_from(&own.http);
        }
    }
    map
}

impl From<&Config> for Tuning {
    fn from(config: &Config) -> Tuning {
        tuning(config)
    }
}

fn tuning(config: &Config) -> Tuning {
    let limit = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Tuning {
        requirepass: config.requirepass.as_ref().map(|password| password.reveal().to_owned().into()),
        maxmemory_bytes: config.maxmemory.0,
        clients: ClientLimits {
            clients_max: limit(config.limits_clients),
            output_buffer_bytes_max: config.limits_output_buffer_bytes.as_usize(),
            commands: Limits {
                bulk_bytes_max: config.limits_value_bytes.as_usize(),
                arguments_max: limit(config.limits_arguments),
                inline_bytes_max: config.limits_inline_bytes.as_usize(),
                query_buffer_bytes_max: config.limits_query_buffer_bytes.as_usize(),
                authenticated: true,
            },
            ..ClientLimits::default()
        },
        limits: tholos_engine::Limits {
            key_bytes_max: config.limits_key_bytes.as_usize(),
            value_bytes_max: config.limits_value_bytes.as_usize(),
        },
        request_timeout: Duration::from_millis(config.request_timeout_ms),
        heartbeat_interval: Duration::from_millis(config.heartbeat_interval_ms),
        election_timeout: Duration::from_millis(config.election_timeout_ms),
        leases: config.reads == ReadMode::Lease,
        reads_at_replicas: config.replica_reads == ReplicaReads::Load,
        replica_read_staleness: Duration::from_millis(config.replica_read_staleness_ms),
        steers: config.leaders == LeaderMode::Load,
        leader_zones: config
            .leader_zones
            .split(',')
            .map(|zone| zone.trim().to_owned())
            .filter(|zone| !zone.is_empty())
            .collect(),
        drain_timeout: Duration::from_millis(config.drain_timeout_ms),
        replace_after: config.placement_replace_after.0,
        auto_placement: config.placement_auto,
        wal: tholos_wal::Options {
            segment_bytes: config.wal_segment_bytes.0,
            disk_reserve_bytes: config.wal_disk_reserve_bytes.0,
            ..tholos_wal::Options::default().limited_to(config.wal_bytes_max.0)
        },
    }
}
