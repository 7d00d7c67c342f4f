//! What a command asks for: which shards, in which parts, and how their answers join.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_engine::table::{self, Flags, Spec};
use tholos_engine::wide::{CURSOR_BITS, Wide};
use tholos_engine::{Access, Command, check_limits, error};
use tholos_paxos::Millis;
use tholos_resp::Value;
use tholos_ring::{ShardId, Slot, shard_of, slot};

use super::commands;
use super::connection::{Connection, Multi, WATCHED_KEY_BYTES};
use super::join::{Join, Scan};
use super::{Gateway, Operation, Request, View, Write};
use crate::event::{ClientId, Port};

/// Whether nothing of the connection may be under way while this command runs (R30). A guess
/// from the name alone is enough: an error is quick.
pub(super) fn is_barrier(connection: &Connection, args: &[Bytes]) -> bool {
    const BARRIERS: [&str; 14] = [
        "watch",
        "unwatch",
        "multi",
        "exec",
        "discard",
        "wait",
        "waitaof",
        "scan",
        "keys",
        "dbsize",
        "randomkey",
        "flushall",
        "flushdb",
        "reset",
    ];
    const FANS: [&str; 5] = ["mget", "exists", "touch", "del", "unlink"];
    let Some(name) = args.first() else { return false };
    let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
    if BARRIERS.iter().any(&is) {
        return true;
    }
    connection.multi.is_none()
        && args.len() > 2
        && FANS.iter().any(is)
        && args[2..].iter().any(|key| slot(key) != slot(&args[1]))
}

/// Bytes of all commands that one MULTI may queue: they become one entry of the log.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// What each queued argument counts beside its own bytes.
const QUEUED_ARGUMENT_BYTES: usize = 32;

/// Bytes of all keys that one connection may watch: EXEC brings them into its entry.
const WATCHED_BYTES_MAX: usize = 16 << 20;

/// How a fan-out's parts are cut and joined.
struct Parts {
    keys: Vec<Bytes>,
    places: Vec<usize>,
}

impl Gateway {
    /// Runs one command of a connection.
    pub(super) fn execute(&mut self, client: ClientId, args: Vec<Bytes>, view: &View) {
        if commands::is_http(&args) {
            return self.cut(client);
        }
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.last_command_at = view.now.mono;
        let spec = match table::resolve(&args) {
            Ok(spec) => spec,
            Err(error) => return self.unresolved(client, &args, error),
        };
        connection.last_command = spec.name;
        if commands::needs_password(&self.settings, connection) && !spec.flags.has(Flags::NO_AUTH) {
            return self.fail(client, no_auth(spec));
        }
        if connection.multi.is_some() && !ends_queueing(spec) {
            let refusal = not_queued(connection, spec, &args, view);
            if let Err(error) = refusal.and_then(|()| queue(connection, args)) {
                if let Some(multi) = &mut connection.multi {
                    multi.fail();
                }
                return self.fail(client, error);
            }
            return connection.answer(Value::simple("QUEUED"));
        }
        match spec.name {
            "multi" => start_multi(connection),
            "discard" => discard(connection),
            "unwatch" => {
                connection.watched.clear();
                connection.answer(Value::ok());
            }
            "exec" => self.exec(client, view),
            "watch" if connection.multi.is_some() => {
                self.fail(client, Value::error("ERR WATCH inside MULTI is not allowed"));
            }
            "watch" => self.watch(client, &args[1..], view),
            "cluster|countkeysinslot" | "cluster|getkeysinslot" if connection.port == Port::Cluster => {
                match commands::slot_question(&args) {
                    Ok(part) => self.ask(client, Join::One, alloc::vec![part], false, view),
                    Err(error) => self.fail(client, error),
                }
            }
            "wait" | "waitaof" => self.wait(client, spec, &args, view),
            "dbsize" | "keys" | "randomkey" | "scan" | "flushall" | "flushdb" => {
                self.whole(client, spec, &args, view);
            }
            _ if spec.is_data() => self.data(client, spec, args, view),
            _ => {
                let value = commands::run(self, client, spec, &args, view);
                let Some(connection) = self.connections.get_mut(&client) else { return };
                match value {
                    Some(value) => {
                        self.counters.errors += u64::from(value.is_error());
                        connection.answer(value);
                    }
                    None => connection.pass(),
                }
            }
        }
    }

    /// A command that is unknown, or has a wrong number of arguments.
    fn unresolved(&mut self, client: ClientId, args: &[Bytes], error: Value) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
            connection.multi = None;
            connection.watched.clear();
            return self.fail(client, exec_abort(error));
        }
        if let Some(multi) = &mut connection.multi {
            multi.fail();
        }
        let error = commands::unknown(connection.port, args).unwrap_or(error);
        self.fail(client, error);
    }

    fn fail(&mut self, client: ClientId, error: Value) {
        self.counters.errors += 1;
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.answer(error);
        }
    }

    /// A command on keys.
    fn data(&mut self, client: ClientId, spec: &'static Spec, args: Vec<Bytes>, view: &View) {
        let Some(connection) = self.connections.get(&client) else { return };
        // As in Redis Cluster, slots are judged before a command looks at its options; alone, Redis knows no slots.
        if connection.port == Port::Cluster && are_of_many_slots(table::keys(spec, &args)) {
            return self.fail(client, error::cross_slot());
        }
        let command = match Command::parse(&args) {
            Ok(command) => command,
            Err(error) => return self.fail(client, error),
        };
        if let Err(error) = check_limits(&command, &view.config.limits) {
            return self.fail(client, error);
        }
        let writes = command.access() == Access::Write;
        let mut keys = command.keys();
        let Some(first) = keys.next().map(|key| slot(key)) else {
            return self.fail(client, error::cross_slot());
        };
        if keys.all(|key| slot(key) == first) {
            let operation = Operation::Command(args);
            return self.ask(client, Join::One, alloc::vec![(first, operation)], writes, view);
        }
        let fans = matches!(spec.name, "mget" | "exists" | "touch" | "del" | "unlink");
        if !fans {
            return self.fail(client, error::cross_slot());
        }
        self.fan_out(client, spec, &args, writes, view);
    }

    /// One part for each shard; each key is linearizable, the whole is no snapshot.
    fn fan_out(&mut self, client: ClientId, spec: &'static Spec, args: &[Bytes], writes: bool, view: &View) {
        let mut shards: BTreeMap<ShardId, Parts> = BTreeMap::new();
        for (place, key) in table::keys(spec, args).enumerate() {
            let shard = shard_of(slot(key), view.map.shard_count);
            let parts = shards.entry(shard).or_insert_with(|| Parts { keys: Vec::new(), places: Vec::new() });
            parts.keys.push(key.clone());
            parts.places.push(place);
        }
        let join = match spec.name {
            "mget" => Join::Places {
                places: shards.values().map(|parts| parts.places.clone()).collect(),
                count: args.len() - 1,
            },
            _ => Join::Sum,
        };
        let operation = |parts: Parts| {
            let first = slot(&parts.keys[0]);
            let args = core::iter::once(args[0].clone()).chain(parts.keys).collect();
            (first, Operation::Command(args))
        };
        let parts = shards.into_values().map(operation).collect();
        self.ask(client, join, parts, writes, view);
    }

    /// Makes a waiting reply and its requests, one for each operation.
    fn ask(
        &mut self,
        client: ClientId,
        join: Join,
        parts: Vec<(Slot, Operation)>,
        writes: bool,
        view: &View,
    ) {
        let timeout = Some(Millis(0));
        self.ask_for(client, join, parts, writes, timeout, view);
    }

    /// As `ask`; `extra` is time beyond the usual that the answer may take, `None` any.
    fn ask_for(
        &mut self,
        client: ClientId,
        join: Join,
        parts: Vec<(Slot, Operation)>,
        writes: bool,
        extra: Option<Millis>,
        view: &View,
    ) {
        if self.is_full(view) {
            self.counters.shed += 1;
            return self.fail(client, super::busy(writes));
        }
        let Some(connection) = self.connections.get_mut(&client) else { return };
        // FLUSHALL, and what else goes to every shard (below).
        let whole = matches!(join, Join::AllOk);
        let slot = connection.wait_for(join, parts.len());
        self.request_parts(client, slot, parts, (writes, whole), extra, view);
    }

    /// Asks the next shards of a SCAN.
    pub(super) fn scan_on(&mut self, client: ClientId, slot: u64, scan: Scan, view: &View) {
        if self.is_full(view) {
            if let Some(connection) = self.connections.get_mut(&client) {
                connection.finish(slot, scan.cut_short(), false);
            }
            return;
        }
        let operation = Operation::Wide { cursor: 0, seed: 0, args: scan.args.clone() };
        let parts: Vec<(Slot, Operation)> =
            scan.asked.iter().map(|shard| (first_slot(*shard, view), operation.clone())).collect();
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.wait_again(slot, Join::Scan(scan), parts.len());
        self.request_parts(client, slot, parts, (false, true), Some(Millis(0)), view);
    }

    /// Makes the requests of a command that waits for them: whether they write, and whether they are parts of a command on all
    /// keys.
    fn request_parts(
        &mut self,
        client: ClientId,
        slot: u64,
        parts: Vec<(Slot, Operation)>,
        (writes, whole): (bool, bool),
        extra: Option<Millis>,
        view: &View,
    ) {
        let Some(port) = self.connections.get(&client).map(|connection| connection.port) else { return };
        let deadline = extra.map(|extra| view.now.mono.plus(self.request_timeout).plus(extra));
        for (part, (hash_slot, operation)) in parts.into_iter().enumerate() {
            let request = Request {
                client,
                port,
                slot,
                part,
                shard: shard_of(hash_slot, view.map.shard_count),
                hash_slot: hash_slot.number(),
                movable: !whole && !matches!(operation, Operation::Durable { .. } | Operation::Wide { .. }),
                operation: operation.to_bytes(),
                write: writes.then_some(Write { session: 0, sequence: 0, expires_at: Millis(0) }),
                began: view.now.mono,
                deadline,
                attempts: 0,
                sent: None,
                resend_after: Millis(0),
                parked: false,
                overtook: false,
                for_leader: false,
                at_replica: false,
                relayed: false,
                pick: None,
            };
            self.submit(request, writes, view);
        }
    }

    /// DBSIZE, KEYS, RANDOMKEY, SCAN, FLUSHALL, FLUSHDB: the whole cluster on the gateway, the
    /// shards that this node leads on the cluster port.
    fn whole(&mut self, client: ClientId, spec: &'static Spec, args: &[Bytes], view: &View) {
        let Some(connection) = self.connections.get(&client) else { return };
        let cluster = connection.port == Port::Cluster;
        let shards: Vec<ShardId> = view.all_shards().filter(|shard| !cluster || view.leads(*shard)).collect();
        let all = |operation: Operation| -> Vec<(Slot, Operation)> {
            let first = |shard: &ShardId| first_slot(*shard, view);
            shards.iter().map(|shard| (first(shard), operation.clone())).collect()
        };
        let wide = || Operation::Wide { cursor: 0, seed: view.seed, args: args.to_vec() };
        let (join, parts, writes) = match spec.name {
            "flushall" | "flushdb" => match Command::parse(args) {
                Ok(_) => (Join::AllOk, all(Operation::Command(args.to_vec())), true),
                Err(error) => return self.fail(client, error),
            },
            "scan" => match scan_start(args, &shards, view) {
                Ok((scan, part)) => (Join::Scan(scan), part.into_iter().collect(), false),
                Err(error) => return self.fail(client, error),
            },
            "keys" => (Join::Concat, all(wide()), false),
            "randomkey" => (Join::Pick { seed: view.seed }, all(wide()), false),
            _ => (Join::Sum, all(wide()), false),
        };
        if parts.is_empty() {
            let nothing = match join {
                Join::Sum => Value::Integer(0),
                Join::Concat => Value::Array(Vec::new()),
                Join::Pick { .. } => Value::Null,
                Join::Scan(scan) => scan.cut_short(),
                _ => Value::ok(),
            };
            if let Some(connection) = self.connections.get_mut(&client) {
                connection.answer(nothing);
            }
            return;
        }
        self.ask(client, join, parts, writes, view);
    }

    fn watch(&mut self, client: ClientId, keys: &[Bytes], view: &View) {
        let Some(connection) = self.connections.get(&client) else { return };
        if connection.port == Port::Cluster && are_of_many_slots(keys.iter()) {
            return self.fail(client, error::cross_slot());
        }
        let wanted: usize = keys.iter().map(|key| key.len() + WATCHED_KEY_BYTES).sum();
        if connection.watched_bytes() + wanted > WATCHED_BYTES_MAX {
            let text = "ERR the keys watched by this connection are larger than 16 MiB";
            return self.fail(client, Value::error(text));
        }
        let mut shards: BTreeMap<ShardId, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            shards.entry(shard_of(slot(key), view.map.shard_count)).or_default().push(key.clone());
        }
        let keys: Vec<Vec<Bytes>> = shards.into_values().collect();
        let parts = keys.iter().map(|keys| (slot(&keys[0]), Operation::Versions(keys.clone()))).collect();
        self.ask(client, Join::Watch { keys }, parts, false, view);
    }

    fn exec(&mut self, client: ClientId, view: &View) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let Some(multi) = connection.multi.take() else {
            return self.fail(client, Value::error("ERR EXEC without MULTI"));
        };
        let watched = core::mem::take(&mut connection.watched);
        if multi.failed {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return self.fail(client, Value::error(text));
        }
        let mut slots: Vec<Slot> = watched.iter().map(|(key, _)| slot(key)).collect();
        let mut local = Vec::with_capacity(multi.queued.len());
        let mut commands = Vec::new();
        let mut writes = false;
        for args in multi.queued {
            let Ok(spec) = table::resolve(&args) else { continue };
            if !spec.is_data() {
                local.push(Some(args));
                continue;
            }
            slots.extend(table::keys(spec, &args).map(|key| slot(key)));
            writes |= spec.flags.has(Flags::DENYOOM);
            local.push(None);
            commands.push(args);
        }
        slots.dedup();
        if slots.iter().any(|other| *other != slots[0]) {
            return self.fail(client, error::cross_slot());
        }
        if writes
            && let Some(first) = slots.first()
            && let Some(refusal) = over_memory(shard_of(*first, view.map.shard_count), view)
        {
            return self.fail(client, exec_abort(refusal));
        }
        match slots.first() {
            None => {
                let reply = self.weave(client, local, Vec::new(), view);
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.answer(reply);
                }
            }
            Some(first) => {
                let operation = Operation::Transaction { watched, commands };
                self.ask(client, Join::Exec { local }, alloc::vec![(*first, operation)], true, view);
            }
        }
    }

    /// EXEC's reply: runs the commands that are for the connection or the server, and puts the shard's replies
    /// among theirs. Only now, when it is known that no watched key had changed.
    pub(super) fn weave(
        &mut self,
        client: ClientId,
        local: Vec<Option<Vec<Bytes>>>,
        replies: Vec<Value>,
        view: &View,
    ) -> Value {
        let mut replies = replies.into_iter();
        let mut all = Vec::with_capacity(local.len());
        for args in local {
            let reply = match args {
                None => replies.next(),
                Some(args) => match table::resolve(&args) {
                    Ok(spec) => commands::run(self, client, spec, &args, view),
                    Err(error) => Some(error),
                },
            };
            all.push(reply.unwrap_or(Value::Null));
        }
        Value::Array(all)
    }

    /// WAIT and WAITAOF ask the leaders of the shards that this connection wrote (R32).
    fn wait(&mut self, client: ClientId, spec: &'static Spec, args: &[Bytes], view: &View) {
        let aof = spec.name == "waitaof";
        let (local, replicas, timeout) = match wait_numbers(aof, &args[1..]) {
            Ok(numbers) => numbers,
            Err(error) => return self.fail(client, error),
        };
        let Some(connection) = self.connections.get(&client) else { return };
        let mut shards: Vec<ShardId> =
            connection.lanes.iter().filter(|(_, lane)| lane.wrote).map(|(shard, _)| *shard).collect();
        shards.sort_unstable();
        if shards.is_empty() {
            // Nothing written: everything there is to wait for is on every replica.
            let others = i64::from(view.map.replicas).saturating_sub(1);
            let reply = match aof {
                true => Value::Array(alloc::vec![Value::Integer(1), Value::Integer(others)]),
                false => Value::Integer(others),
            };
            if let Some(connection) = self.connections.get_mut(&client) {
                connection.answer(reply);
            }
            return;
        }
        let operation = Operation::Durable { replicas, local, timeout };
        let first = |shard: ShardId| first_slot(shard, view);
        let parts = shards.into_iter().map(|shard| (first(shard), operation.clone())).collect();
        let extra = (timeout > 0).then_some(Millis(timeout));
        let join = if aof { Join::WaitAof } else { Join::Wait };
        self.ask_for(client, join, parts, false, extra, view);
    }
}

/// What WAIT and WAITAOF ask for, with the error texts of Redis 7.2: whether this node's disk is meant, how many
/// replicas, and how long to wait.
fn wait_numbers(aof: bool, args: &[Bytes]) -> Result<(bool, u64, u64), Value> {
    let number = |arg: Option<&Bytes>| arg.and_then(|arg| tholos_resp::parse_integer(arg));
    let (local, rest) = match aof {
        true => (number(args.first()).ok_or_else(error::not_an_integer)?, &args[1..]),
        false => (0, args),
    };
    if !(0..=1).contains(&local) {
        return Err(Value::error("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = match number(rest.first()) {
        Some(replicas) if replicas >= 0 || !aof => u64::try_from(replicas).unwrap_or(0),
        _ if aof => return Err(Value::error("ERR value is out of range, must be positive")),
        _ => return Err(error::not_an_integer()),
    };
    let timeout =
        number(rest.get(1)).ok_or_else(|| Value::error("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Value::error("ERR timeout is negative"))?;
    Ok((local > 0, replicas, timeout))
}

/// Commands that run at once although MULTI was said.
fn ends_queueing(spec: &Spec) -> bool {
    matches!(spec.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

fn no_auth(spec: &Spec) -> Value {
    let error = Value::error("NOAUTH Authentication required.");
    if spec.name == "exec" { exec_abort(error) } else { error }
}

/// How EXEC says that it was refused before it began.
fn exec_abort(reason: Value) -> Value {
    let Value::Error(reason) = reason else { return reason };
    let reason = reason.strip_prefix(b"ERR ").unwrap_or(&reason);
    let text = [b"EXECABORT Transaction discarded because of: ", reason].concat();
    Value::error(text)
}

/// Why MULTI does not queue a command; EXEC will then refuse.
fn not_queued(
    connection: &Connection,
    spec: &'static Spec,
    args: &[Bytes],
    view: &View,
) -> Result<(), Value> {
    let whole = matches!(spec.name, "dbsize" | "keys" | "randomkey" | "scan" | "flushall" | "flushdb");
    if whole || matches!(spec.name, "wait" | "waitaof") || commands::is_outside_multi(spec) {
        let name = spec.name.replace('|', " ").to_ascii_uppercase();
        let reason = if whole { "spans all shards and " } else { "" };
        return Err(Value::error(alloc::format!("ERR {name} {reason}cannot be part of a transaction")));
    }
    // One command over two slots can never be done, and is told so at once, as in Redis Cluster. Commands that are each of
    // one slot meet at EXEC.
    if are_of_many_slots(table::keys(spec, args)) {
        return Err(error::cross_slot());
    }
    if spec.flags.has(Flags::DENYOOM)
        && let Some(key) = table::keys(spec, args).next()
        && let Some(refusal) = over_memory(shard_of(slot(key), view.map.shard_count), view)
    {
        return Err(refusal);
    }
    // As in Redis Cluster, a client learns of the right node before it sends the rest.
    if connection.port == Port::Cluster
        && let Some(key) = table::keys(spec, args).next()
        && let Some((leader, _)) = view.leader(shard_of(slot(key), view.map.shard_count))
        && leader != view.config.me
    {
        return Err(view.moved(slot(key).number(), leader));
    }
    Ok(())
}

fn are_of_many_slots<'a>(keys: impl Iterator<Item = &'a Bytes>) -> bool {
    let mut slots = keys.map(|key| slot(key));
    slots.next().is_some_and(|first| slots.any(|other| other != first))
}

fn queue(connection: &mut Connection, args: Vec<Bytes>) -> Result<(), Value> {
    let Some(multi) = &mut connection.multi else { return Ok(()) };
    if multi.failed {
        // EXEC will refuse, so there is nothing to keep.
        return Ok(());
    }
    multi.bytes += args.iter().map(|arg| arg.len() + QUEUED_ARGUMENT_BYTES).sum::<usize>();
    if multi.bytes > QUEUED_BYTES_MAX {
        return Err(Value::error("ERR the transaction is larger than 64 MiB, nothing of it was written"));
    }
    multi.queued.push(args);
    Ok(())
}

fn start_multi(connection: &mut Connection) {
    if connection.multi.is_some() {
        return connection.answer(Value::error("ERR MULTI calls can not be nested"));
    }
    connection.multi = Some(Multi::default());
    connection.answer(Value::ok());
}

fn discard(connection: &mut Connection) {
    if connection.multi.take().is_none() {
        return connection.answer(Value::error("ERR DISCARD without MULTI"));
    }
    connection.watched.clear();
    connection.answer(Value::ok());
}

/// Tells what the shard's leader would say to a command that may need memory, as far as it is known here: MULTI tells
/// it early. What counts is that the leader refuses.
fn over_memory(shard: ShardId, view: &View) -> Option<Value> {
    let (leader, _) = view.leader(shard)?;
    crate::refusal::over_memory(view.replicas(shard), leader, |node| view.memory_full(node))
}

/// Where SCAN begins: in the shard of its cursor, or the first after it.
fn scan_start(
    args: &[Bytes],
    shards: &[ShardId],
    view: &View,
) -> Result<(Scan, Option<(Slot, Operation)>), Value> {
    let Wide::Scan { cursor, count, .. } = Wide::parse(args)? else { return Err(error::syntax()) };
    let wanted = ShardId(u16::try_from(cursor >> CURSOR_BITS).unwrap_or(u16::MAX));
    let shards = &shards[shards.partition_point(|shard| *shard < wanted)..];
    let (asked, rest) = shards.split_at(shards.len().min(1));
    let scan =
        Scan { args: args.to_vec(), count, asked: asked.to_vec(), rest: rest.to_vec(), found: Vec::new() };
    let part = asked.first().map(|shard| {
        let within = if *shard == wanted { cursor & ((1 << CURSOR_BITS) - 1) } else { 0 };
        (first_slot(*shard, view), Operation::Wide { cursor: within, seed: 0, args: args.to_vec() })
    });
    Ok((scan, part))
}

fn first_slot(shard: ShardId, view: &View) -> Slot {
    let first = tholos_ring::slots_of(shard, view.map.shard_count).start;
    Slot::new(first).expect("a shard's slots are slots")
}
