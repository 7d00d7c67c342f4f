//! The configuration of a node: every key once, with its meaning, unit, bounds and default.
//!
//! One table makes the struct, the flags, the environment variables, the example file and the checks, so that they
//! cannot disagree. [`Layers`] puts the sources together: flag > environment > file > default.

mod layers;
mod setting;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use setting::Setting;
use tholos_paxos::LEASE;

pub use layers::{ConfigError, Layers, Origin, Resolved};
pub use setting::{
    Address, After, ByteSize, LeaderMode, LogFormat, LogLevel, ReadMode, ReplicaReads, Secret, Seed, Seeds,
    YesNo,
};

/// One key: what a flag, a variable, a line of the file and `config example` share.
#[derive(Debug)]
pub struct Key {
    /// The name in the file; a dot stands for a table (`limits.clients`).
    pub name: &'static str,
    /// Meaning, unit, bounds, what it trades: the documentation of the field.
    pub about: &'static str,
    /// The default, as it would be written in the file; empty for none.
    pub default: &'static str,
    /// The smallest and largest number allowed.
    pub bounds: Option<(u64, u64)>,
    /// What kind of value: `HOST:PORT`, `BYTES`, …
    pub value_name: &'static str,
    /// Never a flag, never printed.
    pub secret: bool,
    /// Shown in `--help`; all others are in `config example`.
    pub common: bool,
}

impl Key {
    /// The flag without its dashes: `limits.key_bytes` is `limits-key-bytes`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The environment variable: `limits.key_bytes` is `THOLOS_LIMITS_KEY_BYTES`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Whether it is about every node of a cluster alike, so that it makes sense for all nodes of `tholos dev` together, and
    /// not about which node this is, where it is found or which machine it has.
    #[must_use]
    pub fn is_of_every_node(&self) -> bool {
        const OF_ONE: [&str; 15] = [
            "name",
            "gateway",
            "cluster",
            "peer",
            "http",
            "advertise_gateway",
            "advertise_cluster",
            "advertise_peer",
            "advertise_http",
            "seeds",
            "join",
            "rejoin",
            "zone",
            "weight",
            "workers",
        ];
        !OF_ONE.contains(&self.name) && !self.name.starts_with("cluster_secret")
    }

    /// The first sentence of what it is about.
    #[must_use]
    pub fn summary(&self) -> String {
        let flat = self.about.split_whitespace().collect::<Vec<_>>().join(" ");
        flat.split_inclusive(". ").next().unwrap_or_default().trim_end().trim_end_matches('.').to_owned()
    }
}

/// What the names of all our environment variables start with.
pub const VARIABLE_PREFIX: &str = "THOLOS_";

/// `common` keys are in `--help`, `rare` ones only in the example file, `secret` ones are never a flag.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $visibility:ident $name:literal $field:ident: $type:ty = $default:literal $(in $min:literal..=$max:literal)?; )+) => {
        /// The configuration in force. Built by [`Layers::resolve`]; the default is a node of its own on loopback.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        /// Every key, in the order of the example file.
        pub const KEYS: &[Key] = &[$( Key {
            name: $name,
            about: concat!($($doc, "\n"),+),
            default: $default,
            bounds: settings!(@bounds $($min $max)?),
            value_name: <$type as Setting>::VALUE_NAME,
            secret: settings!(@is_secret $visibility),
            common: settings!(@is_common $visibility),
        }, )+];

        impl Default for Config {
            fn default() -> Self {
                Self { $( $field: <$type as Setting>::parse($default).expect("a test parses every default"), )+ }
            }
        }

        impl Config {
            /// Sets one key from text; the error says what is wrong with the value.
            fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $( $name => {
                        let value = <$type as Setting>::parse(text)?;
                        setting::check_bounds(&value, settings!(@bounds $($min $max)?))?;
                        self.$field = value;
                    } )+
                    _ => return Err("there is no such key".to_owned()),
                }
                Ok(())
            }

            /// The value of a key as it would be written in the file, or a placeholder for a secret.
            /// `None` if there is no such key.
            #[must_use]
            pub fn print(&self, key: &str) -> Option<String> {
                match key {
                    $( $name => Some(self.$field.print()), )+
                    _ => None,
                }
            }
        }
    };
    (@bounds) => { None };
    (@bounds $min:literal $max:literal) => { Some(($min, $max)) };
    (@is_secret secret) => { true };
    (@is_secret $other:ident) => { false };
    (@is_common common) => { true };
    (@is_common $other:ident) => { false };
}

settings! {
    /// The node's name. The ring hashes it and people type it, so it stays the same when the address or the machine
    /// changes. 1 to 64 letters, digits, `-`, `_` and `.`.
    common "name" name: String = "";
    /// Where data is kept: `<dir>/<name>/`. Never shared between two live processes; never restored from a copy.
    common "dir" dir: PathBuf = "./tholos-data";
    /// Listener for any Redis client: looks like one standalone Redis, takes any key and forwards it.
    common "gateway" gateway: Address = "127.0.0.1:6379";
    /// Listener for cluster-aware Redis clients: answers CLUSTER SLOTS, and MOVED for keys led elsewhere.
    common "cluster" cluster: Address = "127.0.0.1:7001";
    /// Listener for the other nodes. Beyond loopback only with a cluster secret.
    common "peer" peer: Address = "127.0.0.1:7101";
    /// Listener for the admin HTTP interface: health, metrics, status.
    common "http" http: Address = "127.0.0.1:8080";
    /// What clients should dial for the gateway, if that is not the listener's own address (NAT, containers).
    rare "advertise_gateway" advertise_gateway: Option<Address> = "";
    /// What cluster-aware clients should dial: the address in CLUSTER SLOTS and MOVED.
    common "advertise_cluster" advertise_cluster: Option<Address> = "";
    /// What other nodes should dial. Needed if the listener is on all interfaces (0.0.0.0 or ::).
    common "advertise_peer" advertise_peer: Option<Address> = "";
    /// What tools should dial for the admin HTTP interface.
    rare "advertise_http" advertise_http: Option<Address> = "";
    /// The founding nodes and their peer addresses, this one included, the same list on all of them. The cluster is
    /// founded when all have answered that they are empty. Only this node if not given.
    common "seeds" seeds: Seeds = "";
    /// The peer port of any node of a cluster that runs, for this one to join it, at its first start only. It becomes a
    /// spare: nothing moves to it before a plan says so.
    common "join" join: Option<Address> = "";
    /// What becomes of a node with an empty directory whose name its cluster knows with another one: yes or no. With `yes`
    /// that other directory is given up for good, and the node comes back as a new one, a spare; with `no` it does not
    /// start. Better given once than left in the file.
    common "rejoin" rejoin: YesNo = "no";
    /// What fails together with this node: a rack, a building. Replicas of a shard go to different zones. A node
    /// without one is a zone of its own.
    common "zone" zone: String = "";
    /// How much of the data this node should take, relative to the others. 1 to 100.
    common "weight" weight: u64 = "1" in 1..=100;
    /// Shards of the cluster: a power of two. Fixed when the cluster is founded. More spread load more evenly and
    /// cost more memory and heartbeats.
    common "shards" shards: u64 = "64" in 1..=16384;
    /// Copies of each shard when the cluster is founded: 1, 3 or 5; tholos cluster plan replicas changes it later. 3 survive
    /// one lost node, 5 two; 1 survives none and is for development. A node that is founded alone has one.
    common "replicas" replicas: u64 = "3" in 1..=5;
    /// What nodes of one cluster prove to each other. Give it by THOLOS_CLUSTER_SECRET or `cluster_secret_file`
    /// rather than in a file that others read. At least 16 characters.
    secret "cluster_secret" cluster_secret: Option<Secret> = "";
    /// A file that holds the cluster secret; blanks at its end do not count.
    common "cluster_secret_file" cluster_secret_file: Option<PathBuf> = "";
    /// The password clients give with AUTH. Without one the client ports and the admin port serve loopback only.
    secret "requirepass" requirepass: Option<Secret> = "";
    /// A file that holds the clients' password; blanks at its end do not count.
    common "requirepass_file" requirepass_file: Option<PathBuf> = "";
    /// Memory that the data of this node may take, over which writes are refused with -OOM; nothing is evicted.
    /// 0 for no limit. Units as in Redis: 100mb is 100 * 1024 * 1024.
    common "maxmemory" maxmemory: ByteSize = "0";
    /// How a read is made linearizable: lease or quorum. With `lease` a leader answers by itself for 180 ms at a time, which
    /// a majority has granted; clocks may be wrong, but must run within 5 % of true time. `quorum` trusts no clock and asks
    /// a majority for each batch of reads.
    rare "reads" reads: ReadMode = "lease";
    /// Who answers reads of the gateway's clients: load or leader. With `load` it is the shard's leader, until it has more to do
    /// than a replica that could answer instead; that one then asks it how far the log is, so every read is linearizable.
    rare "replica_reads" replica_reads: ReplicaReads = "load";
    /// How old answers may be to clients that say READONLY and name no age themselves. Milliseconds, 0 to 86400000; with 0 their
    /// reads are linearizable. Within it a replica answers without asking anybody.
    rare "replica_read_staleness_ms" replica_read_staleness_ms: u64 = "0" in 0..=86400000;
    /// Who leads shards: load or map. With `load` it is as the map says, and leaderships leave a node whose disk or processor
    /// is measured to be slow beside the others', as many as it cannot lead. `map` leaves them there. The same on all nodes.
    rare "leaders" leaders: LeaderMode = "load";
    /// Zones in which leaders should sit, separated by commas; any if it is empty. A shard that has no replica there, or whose
    /// replicas there cannot lead, is led elsewhere. Needs `leaders = "load"`. The same on all nodes.
    rare "leader_zones" leader_zones: String = "";
    /// How long a command waits for a leader or a majority before it gets an error. Milliseconds, 100 to 60000.
    rare "request_timeout_ms" request_timeout_ms: u64 = "5000" in 100..=60000;
    /// How often nodes tell each other that they live. Milliseconds, 10 to 1000. Shorter finds a dead node sooner
    /// and costs packets.
    rare "heartbeat_interval_ms" heartbeat_interval_ms: u64 = "50" in 10..=1000;
    /// How long a leader must be unheard until another is elected. Milliseconds, 100 to 30000, at least four
    /// heartbeats. Shorter recovers faster and risks
    /// elections when a machine only stutters.
    rare "election_timeout_ms" election_timeout_ms: u64 = "300" in 100..=30000;
    /// How long a stopping node waits for its leaderships to be taken over and its replies to be sent.
    /// Milliseconds, 0 to 60000.
    rare "drain_timeout_ms" drain_timeout_ms: u64 = "8000" in 0..=60000;
    /// Threads that carry connections and the node's core; the log has one of its own. 0 takes half of the processors,
    /// at least one: more threads hand work to each other rather than do more of it.
    rare "workers" workers: u64 = "0" in 0..=256;
    /// Which log lines: error, warn, info, debug or trace. Info tells only changes of cluster state.
    common "log_level" log_level: LogLevel = "info";
    /// How log lines look: text or json.
    rare "log_format" log_format: LogFormat = "text";
    /// A file to write all addresses to, as JSON, once a write was decided in every shard. For scripts.
    common "ready_file" ready_file: Option<PathBuf> = "";
    /// How long a node may be down until others take over what it holds, spares first; `never` (or 0) for never. Seconds, or
    /// with a unit: 90s, 10min, 2h. If it returns before, it only catches up. The leader of the meta group measures and
    /// decides, so give all nodes the same.
    rare "placement.replace_after" placement_replace_after: After = "10min";
    /// Whether nodes that have joined, or returned after they were replaced, get their share by themselves, without a
    /// plan that somebody applies: true or false. Give all nodes the same.
    rare "placement.auto" placement_auto: bool = "false";
    /// Size of one file of the log. 1MiB to 1GiB. Larger means fewer changes of file and coarser recycling.
    rare "wal.segment_bytes" wal_segment_bytes: ByteSize = "16MiB" in 1048576..=1073741824;
    /// What all files of the log may take together before clients' writes are refused; snapshots are made long before. What is under
    /// way then, and what nodes must write to be rid of older files, may take three times as much besides. 256MiB to 1TiB, at least
    /// eight segments.
    rare "wal.bytes_max" wal_bytes_max: ByteSize = "1GiB" in 268435456..=1099511627776;
    /// What the node leaves free on the file system of `dir`: below it writes are refused and reads go on.
    rare "wal.disk_reserve_bytes" wal_disk_reserve_bytes: ByteSize = "256MiB";
    /// Bytes of a key, at most. Larger keys get an error. 1 to 64MiB.
    rare "limits.key_bytes" limits_key_bytes: ByteSize = "64KiB" in 1..=67108864;
    /// Bytes of a value, or of any argument, at most. 1KiB to 512MiB. Must be the same on all nodes.
    rare "limits.value_bytes" limits_value_bytes: ByteSize = "64MiB" in 1024..=536870912;
    /// Arguments of one command, at most.
    rare "limits.arguments" limits_arguments: u64 = "1048576" in 16..=16777216;
    /// Bytes of a line of an inline command, at most.
    rare "limits.inline_bytes" limits_inline_bytes: ByteSize = "64KiB" in 1024..=1048576;
    /// Bytes of one command as sent, at most: what one client can make the node hold. At least a value and 64KiB.
    rare "limits.query_buffer_bytes" limits_query_buffer_bytes: ByteSize = "128MiB" in 1048576..=4294967295;
    /// Bytes of replies that wait for a client that does not read, at most; then it is disconnected.
    rare "limits.output_buffer_bytes" limits_output_buffer_bytes: ByteSize = "64MiB" in 65536..=4294967295;
    /// Levels of arrays in arrays of a reply, at most.
    rare "limits.reply_nesting" limits_reply_nesting: u64 = "7" in 1..=64;
    /// Clients connected to this node at once, at most; further ones are told so and closed.
    rare "limits.clients" limits_clients: u64 = "10240" in 1..=1000000;
}

/// The keys that say what is dialled instead of a listener's own address, in the order of the listeners.
const ADVERTISED: [&str; 4] = ["advertise_gateway", "advertise_cluster", "advertise_peer", "advertise_http"];

/// Characters of a secret, at least.
const SECRET_CHARACTERS_MIN: usize = 16;

impl Config {
    /// What clients should dial for the gateway.
    #[must_use]
    pub fn advertised_gateway(&self) -> &Address {
        self.advertise_gateway.as_ref().unwrap_or(&self.gateway)
    }

    /// What cluster-aware clients should dial.
    #[must_use]
    pub fn advertised_cluster(&self) -> &Address {
        self.advertise_cluster.as_ref().unwrap_or(&self.cluster)
    }

    /// What other nodes should dial.
    #[must_use]
    pub fn advertised_peer(&self) -> &Address {
        self.advertise_peer.as_ref().unwrap_or(&self.peer)
    }

    /// What tools should dial for the admin HTTP interface.
    #[must_use]
    pub fn advertised_http(&self) -> &Address {
        self.advertise_http.as_ref().unwrap_or(&self.http)
    }

    /// Where this node keeps its data: `<dir>/<name>`.
    #[must_use]
    pub fn node_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// The founding nodes: the seeds, or this node alone.
    #[must_use]
    pub fn founders(&self) -> Vec<Seed> {
        if self.seeds.0.is_empty() {
            return vec![Seed { name: self.name.clone(), address: self.advertised_peer().clone() }];
        }
        self.seeds.0.clone()
    }

    /// Checks what no single value shows, as far as it can be known without asking anybody.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key to change.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_name()?;
        self.validate_addresses()?;
        self.validate_way_in()?;
        self.validate_secrets()?;
        self.validate_every_node()
    }

    /// Checks what a cluster cannot be founded with. Of no matter to a node that belongs to one: that goes by its map.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key to change.
    pub fn validate_founding(&self) -> Result<(), ConfigError> {
        let seeds = &self.seeds.0;
        for (at, seed) in seeds.iter().enumerate() {
            if let Some(twin) = seeds[..at].iter().find(|other| other.address == seed.address) {
                let why = format!("{} and {} have one address, {}", twin.name, seed.name, seed.address);
                return Err(ConfigError::invalid("seeds", why, "give each its own peer address"));
            }
        }
        // One that is founded alone has one copy, whatever is said.
        let count = seeds.len() as u64;
        if count > 1 && self.replicas > count {
            let why = format!("{} copies need as many nodes, and there are {count} seeds", self.replicas);
            let fewer = if count.is_multiple_of(2) { count - 1 } else { count };
            let remedy = format!("use --replicas {fewer}, or name more seeds");
            return Err(ConfigError::invalid("replicas", why, remedy));
        }
        Ok(())
    }

    /// The part of [`validate`](Self::validate) that is about every node alike ([`Key::is_of_every_node`]).
    ///
    /// # Errors
    /// The first thing that is wrong, with the key to change.
    pub fn validate_every_node(&self) -> Result<(), ConfigError> {
        self.validate_copies()?;
        self.validate_timing()?;
        self.validate_sizes()
    }

    fn validate_name(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() {
            return Err(ConfigError::invalid("name", "the node has no name", "give it one with --name n1"));
        }
        setting::check_name(&self.name)
            .map_err(|why| ConfigError::invalid("name", why, "choose another name"))?;
        if !self.zone.is_empty() {
            setting::check_name(&self.zone)
                .map_err(|why| ConfigError::invalid("zone", why, "choose another zone"))?;
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        let listeners = self.listeners();
        for (i, (key, address, advertised)) in listeners.iter().enumerate() {
            let twin = listeners[..i].iter().find(|(_, other, _)| address.port != 0 && other == address);
            if let Some((other, _, _)) = twin {
                let why = format!("it is the address of `{other}` too, {address}");
                return Err(ConfigError::invalid(key, why, "give each listener its own port"));
            }
            if let Some(wrong) = advertised.as_ref().filter(|address| address.is_unspecified()) {
                let key = ADVERTISED[i];
                let why = format!("nobody can dial {wrong}");
                let remedy = "give the address of this machine that others reach, or leave it out";
                return Err(ConfigError::invalid(key, why, remedy));
            }
            // Clients and tools may know the address otherwise; other nodes and MOVED have only this one.
            if address.is_unspecified() && advertised.is_none() && matches!(*key, "cluster" | "peer") {
                let why = format!("nobody can dial {address}");
                let remedy = format!("say what others should dial with --advertise-{key} HOST:PORT");
                return Err(ConfigError::invalid(key, why, remedy));
            }
        }
        Ok(())
    }

    fn validate_copies(&self) -> Result<(), ConfigError> {
        if !self.shards.is_power_of_two() {
            let why = format!("{} is not a power of two", self.shards);
            return Err(ConfigError::invalid("shards", why, "use 64, or another power of two up to 16384"));
        }
        if self.replicas.is_multiple_of(2) {
            let why = format!("{} copies survive no more than {} do", self.replicas, self.replicas - 1);
            return Err(ConfigError::invalid("replicas", why, "use 1, 3 or 5"));
        }
        Ok(())
    }

    fn validate_way_in(&self) -> Result<(), ConfigError> {
        if !self.seeds.0.is_empty() && !self.seeds.0.iter().any(|seed| seed.name == self.name) {
            let why = format!("the list does not name this node, {}", self.name);
            return Err(ConfigError::invalid(
                "seeds",
                why,
                "give all nodes the same list, with each of them in it",
            ));
        }
        if self.join.is_some() && !self.seeds.0.is_empty() {
            let why = "a node either founds a cluster with its seeds or joins one that runs".to_owned();
            return Err(ConfigError::invalid("join", why, "give one of the two"));
        }
        Ok(())
    }

    fn validate_timing(&self) -> Result<(), ConfigError> {
        if self.election_timeout_ms < 4 * self.heartbeat_interval_ms {
            let why = format!("{} ms are fewer than four heartbeats", self.election_timeout_ms);
            let remedy =
                format!("use at least {} or lower heartbeat_interval_ms", 4 * self.heartbeat_interval_ms);
            return Err(ConfigError::invalid("election_timeout_ms", why, remedy));
        }
        if self.reads == ReadMode::Lease && self.election_timeout_ms < LEASE.0 {
            let why = format!("{} ms are shorter than a lease, {} ms", self.election_timeout_ms, LEASE.0);
            let remedy = format!("use at least {}, or reads = \"quorum\"", LEASE.0);
            return Err(ConfigError::invalid("election_timeout_ms", why, remedy));
        }
        Ok(())
    }

    fn validate_secrets(&self) -> Result<(), ConfigError> {
        let short =
            |secret: &Option<Secret>, min| secret.as_ref().is_some_and(|s| s.reveal().chars().count() < min);
        if short(&self.cluster_secret, SECRET_CHARACTERS_MIN) {
            let why = format!("the secret has fewer than {SECRET_CHARACTERS_MIN} characters");
            return Err(ConfigError::invalid(
                "cluster_secret",
                why,
                "use a random one: head -c 32 /dev/urandom | base64",
            ));
        }
        if self.cluster_secret.is_none() && !self.peer.is_loopback() {
            let why = format!(
                "without a cluster secret nothing listens on the peer port beyond loopback, and {} is",
                self.peer
            );
            let remedy = "give --cluster-secret-file or THOLOS_CLUSTER_SECRET, or a loopback address";
            return Err(ConfigError::invalid("peer", why, remedy));
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let least = self.limits_value_bytes.0 + (64 << 10);
        if self.limits_query_buffer_bytes.0 < least {
            let why = "a value of the largest size would not fit";
            let remedy = format!("use at least {least} or lower limits.value_bytes");
            return Err(ConfigError::invalid("limits.query_buffer_bytes", why, remedy));
        }
        if self.wal_bytes_max.0 < 8 * self.wal_segment_bytes.0 {
            let remedy = "raise it, or lower wal.segment_bytes";
            return Err(ConfigError::invalid("wal.bytes_max", "it is less than eight segments", remedy));
        }
        Ok(())
    }

    /// The listeners: key, address, what is advertised instead of it.
    fn listeners(&self) -> [(&'static str, &Address, &Option<Address>); 4] {
        [
            ("gateway", &self.gateway, &self.advertise_gateway),
            ("cluster", &self.cluster, &self.advertise_cluster),
            ("peer", &self.peer, &self.advertise_peer),
            ("http", &self.http, &self.advertise_http),
        ]
    }
}

/// A complete, commented configuration file in which everything is at its default.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Tholos: every key with its default. A line without `#` in front is in force.\n\
         # A flag, its key here and its variable are one word: --http, http, THOLOS_HTTP.\n\
         # A flag beats a variable, a variable beats this file, this file beats the default.\n",
    );
    let mut table = "";
    for key in KEYS {
        let (prefix, leaf) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if prefix != table {
            table = prefix;
            text += &format!("\n[{table}]\n");
        }
        text.push('\n');
        for line in key.about.lines() {
            text += &format!("#{}\n", line.trim_end());
        }
        let quoted = key.bounds.is_none() || key.default.parse::<u64>().is_err();
        let default = if quoted { format!("\"{}\"", key.default) } else { key.default.to_owned() };
        text += &format!("#{leaf} = {default}\n");
    }
    text
}
