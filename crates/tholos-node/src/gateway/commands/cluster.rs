//! CLUSTER: the map and its leaders in the words of Redis Cluster.
//!
//! A node of Redis Cluster is a master of its slots or a replica of one master, and clients count on it: redis-py keeps
//! for each node the last role it read, rueidis one entry of CLUSTER SHARDS for each master. A node here leads some
//! shards and follows in others. So a node that leads is shown as a master only, and one that leads nothing as a
//! replica: in CLUSTER NODES and SHARDS of the leader whose shards it holds most of, in CLUSTER SLOTS wherever it
//! follows. `tholos cluster locate` has the whole truth.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;
use tholos_cluster::{NodeId, NodeRow, node_hash_id};
use tholos_engine::{error, introspect};
use tholos_resp::Value;
use tholos_ring::{SLOT_COUNT, ShardId, Slot, slot, slots_of};

use super::{Call, Reply, is, quoting, text};
use crate::event::Port;
use crate::gateway::View;
use crate::operation::Operation;
use crate::shard::mix;

/// Subcommands of Redis Cluster that change who holds what.
const OF_OPERATORS: [&str; 15] = [
    "addslots",
    "addslotsrange",
    "bumpepoch",
    "count-failure-reports",
    "delslots",
    "delslotsrange",
    "failover",
    "flushslots",
    "forget",
    "meet",
    "replicate",
    "reset",
    "saveconfig",
    "set-config-epoch",
    "setslot",
];

pub(super) fn run(call: &mut Call) -> Reply {
    let view = call.view;
    match call.spec.name {
        "cluster|keyslot" => return Ok(Value::Integer(slot(&call.args[2]).number().into())),
        "cluster|myid" => return Ok(Value::bulk(hash_id(view, view.config.me))),
        "cluster|info" => return Ok(text(info(view, call.port()))),
        _ if call.port() == Port::Gateway => return Err(disabled()),
        _ => {}
    }
    Ok(match call.spec.name {
        "cluster|slots" => slots(view),
        "cluster|shards" => shards(view),
        "cluster|nodes" => text(nodes(view)),
        "cluster|links" => links(view),
        // The shard of Redis is a master with its replicas: here, what this node leads.
        "cluster|myshardid" => Value::bulk(hash_id(view, view.config.me)),
        "cluster|replicas" | "cluster|slaves" => replicas(view, &call.args[2])?,
        "cluster|help" => introspect::help(call.spec),
        _ => return Err(error::unknown_subcommand(call.args)),
    })
}

/// What a command for clients of Redis Cluster answers on the gateway.
pub(super) fn disabled() -> Value {
    Value::error("ERR This instance has cluster support disabled")
}

/// Whether a subcommand is one by which operators of Redis Cluster move slots and nodes.
pub(super) fn is_of_operators(sub: &[u8]) -> bool {
    OF_OPERATORS.iter().any(|word| is(sub, word))
}

/// The refusal of such a subcommand.
pub(super) fn for_operators(sub: &[u8]) -> Value {
    let after = " is not supported: nodes and shards find their places by themselves, see 'tholos cluster status' \
                 and 'tholos cluster --help'";
    quoting("ERR CLUSTER ", &sub.to_ascii_uppercase(), after)
}

/// What CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT ask of the slot's shard.
pub(in crate::gateway) fn slot_question(args: &[Bytes]) -> Result<(Slot, Operation), Value> {
    let integer = |arg: &Bytes| tholos_resp::parse_integer(arg).ok_or_else(error::not_an_integer);
    let hash_slot = integer(&args[2])?;
    let count = args.get(3).map(integer).transpose()?;
    let hash_slot = u16::try_from(hash_slot).ok().and_then(Slot::new);
    match (hash_slot, count) {
        (Some(slot), None) => Ok((slot, Operation::CountInSlot(slot.number()))),
        (None, None) => Err(Value::error("ERR Invalid slot")),
        (Some(slot), Some(count @ 0..)) => Ok((slot, Operation::KeysInSlot(slot.number(), count as u64))),
        _ => Err(Value::error("ERR Invalid slot or number of keys")),
    }
}

/// The leader of a shard as clients are shown it. While none is known, or the one known is not heard, that is the first
/// replica that is heard: a client that comes to it waits there until it can be served or sent on. Redis too shows a
/// master for every slot while it elects another, and redis-py gives up on a map with holes.
fn shown_leader(view: &View, shard: ShardId) -> NodeId {
    let known = view.leader(shard).map(|(leader, _)| leader);
    let replicas = view.replicas(shard);
    let heard = || replicas.iter().copied().find(|node| is_heard(view, *node));
    known.filter(|leader| is_heard(view, *leader)).or_else(heard).or(known).unwrap_or(replicas[0])
}

/// Neighbouring slots that have the same leader and the same followers.
#[derive(Clone, PartialEq, Debug)]
struct Range {
    first: u16,
    last: u16,
    leader: NodeId,
    /// Those that lead nothing, in the order of their ids.
    followers: Vec<NodeId>,
}

/// Who leads what, and who follows.
struct Roles {
    /// By first slot.
    ranges: Vec<Range>,
    /// For each node that leads, its shards.
    led: BTreeMap<NodeId, Vec<ShardId>>,
    /// How many shards of a leader a node follows in, by (node, leader).
    follows: BTreeMap<(NodeId, NodeId), usize>,
}

impl Roles {
    fn new(view: &View) -> Roles {
        let mut roles = Roles { ranges: Vec::new(), led: BTreeMap::new(), follows: BTreeMap::new() };
        for shard in view.all_shards() {
            let leader = shown_leader(view, shard);
            if address(view, leader).is_none() {
                continue;
            }
            roles.led.entry(leader).or_default().push(shard);
            for node in view.replicas(shard).iter().filter(|node| **node != leader) {
                *roles.follows.entry((*node, leader)).or_default() += 1;
            }
        }
        let mut shards: Vec<(ShardId, NodeId)> = Vec::new();
        for (leader, led) in &roles.led {
            shards.extend(led.iter().map(|shard| (*shard, *leader)));
        }
        shards.sort_unstable();
        for (shard, leader) in shards {
            let mut followers = view.replicas(shard).to_vec();
            followers.retain(|node| !roles.led.contains_key(node));
            followers.sort_unstable();
            let slots = slots_of(shard, view.map.shard_count);
            push_range(
                &mut roles.ranges,
                Range { first: slots.start, last: slots.end - 1, leader, followers },
            );
        }
        roles
    }

    /// The slots that a node leads, as first and last.
    fn slots_of(&self, node: NodeId) -> Vec<(u16, u16)> {
        let mut merged: Vec<Range> = Vec::new();
        for range in self.ranges.iter().filter(|range| range.leader == node) {
            push_range(&mut merged, Range { followers: Vec::new(), ..range.clone() });
        }
        merged.into_iter().map(|range| (range.first, range.last)).collect()
    }

    /// The leader that a node counts as a replica of, if it leads nothing.
    fn master_of(&self, node: NodeId) -> Option<NodeId> {
        if self.led.contains_key(&node) {
            return None;
        }
        let followed = self.follows.range((node, NodeId(0))..=(node, NodeId(u16::MAX)));
        // Of equals the first.
        let most = followed.max_by_key(|((_, leader), shards)| (**shards, core::cmp::Reverse(*leader)));
        most.map(|((_, leader), _)| *leader)
    }
}

/// Adds a range at the end, or to the last one if it goes on there.
fn push_range(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last)
            if last.leader == range.leader
                && last.followers == range.followers
                && last.last + 1 == range.first =>
        {
            last.last = range.last;
        }
        _ => ranges.push(range),
    }
}

fn hash_id(view: &View, node: NodeId) -> String {
    view.map.node(node).map_or_else(String::new, |row| node_hash_id(&view.map.cluster_id, &row.name))
}

/// Host and port where clients of the cluster port reach a node; `None` if nowhere.
fn address<'a>(view: &View<'a>, node: NodeId) -> Option<(&'a str, u16)> {
    split_address(&view.map.node(node)?.cluster)
}

/// An address of IPv6 stands in brackets, which Redis does not write.
fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

/// Whether a node may be offered to clients.
fn is_heard(view: &View, node: NodeId) -> bool {
    node == view.config.me || view.detector.hears_node(node)
}

/// Puts nodes in an order in which each comes first for as large a part of all ranges as its share is: clients that read at
/// the first replica follow the shares. The same for a range each time.
fn by_share(mut nodes: Vec<NodeId>, shares: &[(NodeId, f64)], range: u64) -> Vec<NodeId> {
    let share_of = |node: &NodeId| shares.iter().find(|(of, _)| of == node).map_or(0.0, |(_, share)| *share);
    let mut ordered = Vec::with_capacity(nodes.len());
    while !nodes.is_empty() {
        let sum: f64 = nodes.iter().map(share_of).sum();
        let chance = mix(range, ordered.len() as u64) >> 11;
        let mut left = chance as f64 / (1_u64 << 53) as f64 * sum;
        let drawn = nodes.iter().position(|node| {
            left -= share_of(node);
            left < 0.0
        });
        ordered.push(nodes.remove(drawn.unwrap_or(0)));
    }
    ordered
}

/// CLUSTER SLOTS: for each range its ends, its leader, and the followers that are heard, ordered by what they have to spare.
fn slots(view: &View) -> Value {
    let shares = view.shares();
    let node = |node: NodeId| {
        let (host, port) = address(view, node)?;
        Some(Value::array([
            Value::bulk(String::from(host)),
            Value::Integer(port.into()),
            Value::bulk(hash_id(view, node)),
            Value::Map(Vec::new()),
        ]))
    };
    let row = |range: Range| {
        let mut row = alloc::vec![Value::Integer(range.first.into()), Value::Integer(range.last.into())];
        row.extend(node(range.leader));
        let heard = range.followers.into_iter().filter(|follower| is_heard(view, *follower));
        row.extend(by_share(heard.collect(), &shares, u64::from(range.first)).into_iter().filter_map(node));
        Value::Array(row)
    };
    Value::Array(Roles::new(view).ranges.into_iter().map(row).collect())
}

/// CLUSTER SHARDS: one entry for each leader, with all its slots and its replicas.
fn shards(view: &View) -> Value {
    let roles = Roles::new(view);
    let entry = |(leader, shards): (&NodeId, &Vec<ShardId>)| {
        let ends = roles.slots_of(*leader).into_iter().flat_map(|(first, last)| [first, last]);
        let others = view.map.nodes.iter().map(|row| row.id);
        let replicas = others.filter(|node| roles.master_of(*node) == Some(*leader));
        let all = core::iter::once(*leader).chain(replicas);
        let nodes = all.filter_map(|node| shard_node(view, node, node == *leader, shards));
        Value::Map(alloc::vec![
            (Value::bulk("slots"), Value::Array(ends.map(|slot| Value::Integer(slot.into())).collect())),
            (Value::bulk("nodes"), Value::Array(nodes.collect())),
        ])
    };
    Value::Array(roles.led.iter().map(entry).collect())
}

fn shard_node(view: &View, node: NodeId, leads: bool, shards: &[ShardId]) -> Option<Value> {
    let (host, port) = address(view, node)?;
    let offset: u64 = shards.iter().map(|shard| known_offset(view, node, *shard)).sum();
    let fields = [
        ("id", Value::bulk(hash_id(view, node))),
        ("port", Value::Integer(port.into())),
        ("ip", Value::bulk(String::from(host))),
        ("endpoint", Value::bulk(String::from(host))),
        ("role", Value::bulk(if leads { "master" } else { "replica" })),
        ("replication-offset", Value::Integer(offset as i64)),
        ("health", Value::bulk(if is_heard(view, node) { "online" } else { "fail" })),
    ];
    Some(Value::Map(fields.into_iter().map(|(name, value)| (Value::bulk(name), value)).collect()))
}

/// How many entries of a shard a node has, as far as this node knows: exactly for itself and for followers that it
/// leads, else at least what this node has seen decided.
fn known_offset(view: &View, node: NodeId, shard: ShardId) -> u64 {
    let Some(own) = view.shard(shard) else { return 0 };
    if node == view.config.me {
        return own.group.applied_index().0;
    }
    let follower = own.group.followers().find(|(replica, _)| crate::detector::node_of(*replica) == node);
    follower.map_or(own.group.decided_index().0, |(_, accepted)| accepted.0)
}

fn nodes(view: &View) -> String {
    let roles = Roles::new(view);
    let line = |row: &NodeRow| node_line(view, row, roles.master_of(row.id), &roles.slots_of(row.id));
    view.map.nodes.iter().map(line).collect()
}

/// `<id> <ip:port@cport> <flags> <master> <ping-sent> <pong-recv> <config-epoch> <link-state> <slot> ...`
fn node_line(view: &View, row: &NodeRow, master: Option<NodeId>, led: &[(u16, u16)]) -> String {
    let (host, port) = split_address(&row.cluster).unwrap_or(("", 0));
    let peer_port = split_address(&row.peer).map_or(0, |(_, port)| port);
    let heard = is_heard(view, row.id);
    let myself = if row.id == view.config.me { "myself," } else { "" };
    let role = if master.is_some() { "slave" } else { "master" };
    let suspected = if heard { "" } else { ",fail?" };
    let master = master.map_or_else(|| String::from("-"), |master| hash_id(view, master));
    let link = if heard { "connected" } else { "disconnected" };
    let mut line = format!(
        "{} {host}:{port}@{peer_port} {myself}{role}{suspected} {master} 0 0 {} {link}",
        hash_id(view, row.id),
        view.map.epoch.0,
    );
    for (first, last) in led {
        // Writing to a String cannot fail.
        let _ = if first == last { write!(line, " {first}") } else { write!(line, " {first}-{last}") };
    }
    line.push('\n');
    line
}

/// CLUSTER REPLICAS node-id: the nodes that follow in a shard which that node leads.
fn replicas(view: &View, id: &[u8]) -> Reply {
    let known = view.map.nodes.iter().find(|row| is(id, &hash_id(view, row.id)));
    let Some(leader) = known.map(|row| row.id) else { return Err(quoting("ERR Unknown node ", id, "")) };
    let roles = Roles::new(view);
    if !roles.led.contains_key(&leader) {
        return Err(Value::error("ERR The specified node is not a master"));
    }
    let rows = view.map.nodes.iter().filter(|row| roles.follows.contains_key(&(row.id, leader)));
    let line = |row: &NodeRow| {
        let line = node_line(view, row, Some(leader), &[]);
        Value::bulk(String::from(line.trim_end()))
    };
    Ok(Value::Array(rows.map(line).collect()))
}

/// CLUSTER LINKS: the nodes that are heard.
fn links(view: &View) -> Value {
    let others = view.map.nodes.iter().filter(|row| row.id != view.config.me && is_heard(view, row.id));
    let link = |row: &NodeRow| {
        Value::Map(alloc::vec![
            (Value::bulk("direction"), Value::bulk("from")),
            (Value::bulk("node"), Value::bulk(hash_id(view, row.id))),
        ])
    };
    Value::Array(others.map(link).collect())
}

/// CLUSTER INFO. The gateway begins it with the line that no client of Redis Cluster expects.
fn info(view: &View, port: Port) -> String {
    let (mut ok, mut suspected, mut fail) = (0, 0, 0);
    let mut leaders: Vec<NodeId> = Vec::new();
    for shard in view.all_shards() {
        let count = slots_of(shard, view.map.shard_count).len();
        match view.leader(shard) {
            None => fail += count,
            Some((leader, _)) => {
                *(if is_heard(view, leader) { &mut ok } else { &mut suspected }) += count;
                leaders.push(leader);
            }
        }
    }
    leaders.sort_unstable();
    leaders.dedup();
    let state = if fail == 0 { "ok" } else { "fail" };
    let enabled = if port == Port::Gateway { "cluster_enabled:0\r\n" } else { "" };
    let (nodes, size, epoch) = (view.map.nodes.len(), leaders.len(), view.map.epoch.0);
    format!(
        "{enabled}cluster_state:{state}\r\ncluster_slots_assigned:{SLOT_COUNT}\r\ncluster_slots_ok:{ok}\r\n\
         cluster_slots_pfail:{suspected}\r\ncluster_slots_fail:{fail}\r\ncluster_known_nodes:{nodes}\r\n\
         cluster_size:{size}\r\ncluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_twice_as_much_to_spare_comes_first_twice_as_often() {
        let (a, b, c) = (NodeId(1), NodeId(2), NodeId(3));
        let shares = [(a, 0.5), (b, 0.25), (c, 0.25)];
        let mut firsts = [0; 3];
        for range in 0..1000 {
            let ordered = by_share(alloc::vec![a, b, c], &shares, range);
            assert_eq!(ordered, by_share(alloc::vec![a, b, c], &shares, range));
            assert!([a, b, c].iter().all(|node| ordered.contains(node)));
            firsts[usize::from(ordered[0].0) - 1] += 1;
        }
        assert!((450..550).contains(&firsts[0]) && (200..300).contains(&firsts[1]), "{firsts:?}");
        assert_eq!(by_share(alloc::vec![a, b], &[], 7).len(), 2);
    }

    #[test]
    fn addresses_are_taken_apart_as_redis_writes_them() {
        assert_eq!(split_address("10.0.0.1:7001"), Some(("10.0.0.1", 7001)));
        assert_eq!(split_address("[::1]:7001"), Some(("::1", 7001)));
        assert_eq!(split_address("db.example:7001"), Some(("db.example", 7001)));
        assert_eq!(split_address(""), None);
        assert_eq!(split_address("host:x"), None);
    }
}
