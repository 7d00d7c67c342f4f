//! INFO: figures of this node, in Redis's sections and words. Fields of Redis that would have no true value are
//! left out.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use bytes::Bytes;
use tholos_resp::Value;

use super::{Call, REDIS_VERSION, is, text};
use crate::event::Port;
use crate::gateway::View;
use crate::shard::{Shard, mix};

/// A section's name in requests and its heading.
const SECTIONS: [(&str, &str); 9] = [
    ("server", "Server"),
    ("clients", "Clients"),
    ("memory", "Memory"),
    ("persistence", "Persistence"),
    ("stats", "Stats"),
    ("replication", "Replication"),
    ("cluster", "Cluster"),
    ("tholos", "Tholos"),
    ("keyspace", "Keyspace"),
];

type Fields = Vec<(&'static str, String)>;

/// INFO [section ...]
pub(super) fn run(call: &Call) -> Value {
    let wanted = &call.args[1..];
    let mut whole = String::new();
    for (name, heading) in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|asked| asks_for(asked, name)) {
            continue;
        }
        if !whole.is_empty() {
            whole.push_str("\r\n");
        }
        whole.push_str(&format!("# {heading}\r\n"));
        for (field, value) in fields(call, name) {
            whole.push_str(&format!("{field}:{value}\r\n"));
        }
    }
    text(whole)
}

fn asks_for(asked: &Bytes, name: &str) -> bool {
    is(asked, name) || ["all", "default", "everything"].iter().any(|word| is(asked, word))
}

fn field(name: &'static str, value: impl Display) -> (&'static str, String) {
    (name, value.to_string())
}

fn fields(call: &Call, section: &str) -> Fields {
    match section {
        "server" => server(call),
        "clients" => clients(call),
        "memory" => memory(call),
        "persistence" => persistence(),
        "stats" => stats(call),
        "replication" => replication(call),
        "cluster" => alloc::vec![field("cluster_enabled", u8::from(call.port() == Port::Cluster))],
        "tholos" => tholos(call),
        _ => keyspace(call),
    }
}

fn server(call: &Call) -> Fields {
    let (view, gateway) = (call.view, &call.gateway);
    let uptime = gateway.started.map_or(0, |started| view.now.mono.since(started).0) / 1000;
    let mode = match call.port() {
        Port::Gateway => "standalone",
        Port::Cluster => "cluster",
    };
    let local = gateway.connections.get(&call.client).map_or("", |connection| &connection.local);
    let boot = gateway.boot;
    // 40 hex digits that change with each start.
    let run_id = format!("{:016x}{:016x}{:08x}", mix(boot, 1), mix(boot, 2), mix(boot, 3) as u32);
    alloc::vec![
        field("redis_version", REDIS_VERSION),
        field("tholos_version", &view.config.version),
        field("redis_mode", mode),
        field("arch_bits", usize::BITS),
        field("process_id", view.config.process_id),
        field("run_id", run_id),
        field("tcp_port", local.rsplit_once(':').map_or("0", |(_, port)| port)),
        field("server_time_usec", view.now.wall.0.saturating_mul(1000)),
        field("uptime_in_seconds", uptime),
        field("uptime_in_days", uptime / 86_400),
    ]
}

fn clients(call: &Call) -> Fields {
    alloc::vec![
        field("connected_clients", call.gateway.connections.len()),
        field("maxclients", call.gateway.settings.maxclients),
        field("blocked_clients", 0),
        field("tracking_clients", 0),
    ]
}

fn memory(call: &Call) -> Fields {
    let (used, most) = (call.view.memory_used, call.gateway.settings.maxmemory);
    alloc::vec![
        field("used_memory", used),
        field("used_memory_human", human(used)),
        field("maxmemory", most),
        field("maxmemory_human", human(most)),
        field("maxmemory_policy", "noeviction"),
    ]
}

/// Bytes as Redis writes them for people, with two decimals.
fn human(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes}B"),
        1024..0x10_0000 => (1_u64 << 10, 'K'),
        0x10_0000..0x4000_0000 => (1 << 20, 'M'),
        _ => (1 << 30, 'G'),
    };
    let hundredths = u128::from(bytes) * 100 / u128::from(unit);
    format!("{}.{:02}{name}", hundredths / 100, hundredths % 100)
}

fn persistence() -> Fields {
    alloc::vec![
        // A node serves no client before it has read its log.
        field("loading", 0),
        field("async_loading", 0),
        field("rdb_bgsave_in_progress", 0),
        field("aof_enabled", 1),
        field("aof_rewrite_in_progress", 0),
        // A failed write stops the node, so one that answers has none.
        field("aof_last_write_status", "ok"),
    ]
}

fn stats(call: &Call) -> Fields {
    let (now, then) = (call.gateway.counters, call.gateway.reset_at);
    alloc::vec![
        field("total_connections_received", now.connections.saturating_sub(then.connections)),
        field("total_commands_processed", now.commands.saturating_sub(then.commands)),
        field("total_error_replies", now.errors.saturating_sub(then.errors)),
        field("total_forwarded_requests", now.forwarded.saturating_sub(then.forwarded)),
        field("total_timed_out_requests", now.timed_out.saturating_sub(then.timed_out)),
        field("evicted_keys", 0),
        field("pubsub_channels", 0),
        field("pubsub_patterns", 0),
    ]
}

fn replication(call: &Call) -> Fields {
    alloc::vec![
        field("role", "master"),
        // Redis means replicas of this server; here each shard has its own, which CLUSTER SHARDS shows.
        field("connected_slaves", 0),
        field("master_replid", call.view.map.cluster_id),
        field("master_repl_offset", offset(call.view)),
    ]
}

/// The replicas of shards on this node; that of the meta group is none.
fn held<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Shard> + Clone + use<'a> {
    view.shards[..usize::from(view.map.shard_count)].iter().flatten()
}

/// Entries applied by the replicas on this node; grows with every write.
pub(super) fn offset(view: &View) -> u64 {
    held(view).map(|shard| shard.group.applied_index().0).sum()
}

fn tholos(call: &Call) -> Fields {
    let view = call.view;
    let name = view.map.node(view.config.me).map_or("", |row| &row.name);
    let held = held(view);
    let load = view.load_of(view.config.me);
    let shares = view.shares();
    let share = shares.iter().find(|(node, _)| *node == view.config.me).map_or(0.0, |(_, share)| *share);
    alloc::vec![
        field("tholos_node", name),
        field("tholos_cluster", view.map.cluster_id),
        field("tholos_epoch", view.map.epoch.0),
        field("tholos_nodes", view.map.nodes.len()),
        field("tholos_shards", view.map.shard_count),
        field("tholos_shards_held", held.clone().count()),
        field("tholos_shards_led", held.filter(|shard| shard.group.serving()).count()),
        field("tholos_capacity_percent", load.capacity),
        field("tholos_load_percent", load.busy),
        field("tholos_spare_percent", load.spare()),
        field("tholos_share_percent", (share * 100.0 + 0.5) as u64),
        field("tholos_clients_admitted", call.gateway.clients_admitted()),
    ]
}

/// Keys of this node: on the cluster port, as DBSIZE there, those of the shards it leads; on the gateway, which has
/// no shard of its own, those of all its replicas.
fn keyspace(call: &Call) -> Fields {
    let cluster = call.port() == Port::Cluster;
    let counted = |shard: &&Shard| !cluster || shard.group.serving();
    let shards = held(call.view).filter(counted);
    let (mut keys, mut expires) = (0, 0);
    for shard in shards {
        keys += shard.keyspace.len(shard.time.0);
        expires += shard.keyspace.expiring(shard.time.0);
    }
    // Client libraries read the three of them; nobody keeps the mean of what is left to live here, and 0 is what Redis says
    // before it has looked.
    let counts = format!("keys={keys},expires={expires},avg_ttl=0");
    if keys == 0 { Vec::new() } else { alloc::vec![field("db0", counts)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people_are_cut_to_two_decimals() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1536, "1.50K"),
            (0x10_0000 - 1, "1023.99K"),
            (0x10_0000, "1.00M"),
            (5 << 30, "5.00G"),
        ] {
            assert_eq!(human(bytes), expected, "{bytes}");
        }
    }
}
