//! What nodes say to each other (docs/protocol/wire.md, "Messages").

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::{Epoch, NodeId, NodeSaid, ShardSaid};
use tholos_node::{
    Ask, CAPACITY_WHOLE, Counted, DigestNote, DigestSaid, Forward, Heartbeat, MoveOrder, MoveReport,
    NodeLoad, Outcome, PeerMessage, QueueReport, RescueReport, RescueSaid, SnapshotChunk, Wait,
};
use tholos_paxos::MoveId;
use tholos_ring::ShardId;

use crate::entry::{push_config, read_config};
use crate::paxos::{CANVASS, RENEWED, kind_of, push_message, read_message};
use crate::reader::Reader;
use crate::value::{push_value, read_value};
use crate::writer::{Out, push_ballot, push_bytes, push_number, push_shared, push_u64};
use crate::{VERSION, WireError, version};

const HEARTBEAT: u8 = 1;
const FORWARD_WRITE: u8 = 2;
const FORWARD_READ: u8 = 3;
const ANSWER: u8 = 4;
const SNAPSHOT_CHUNK: u8 = 5;
const SNAPSHOT_WANTED: u8 = 6;
const MAP_WANTED: u8 = 7;
const MAP: u8 = 8;
const MOVE_ORDER: u8 = 9;
const MOVE_REPORT: u8 = 10;
const COUNTED: u8 = 12;
const DIGEST_ASKED: u8 = 13;
const DIGEST_IS: u8 = 14;
const DIGEST_WRONG: u8 = 15;
// The kinds from 16 on are those of groups.
const FACTS_WANTED: u8 = 64;
const FACTS: u8 = 65;
const RESTART: u8 = 66;
const FORWARD_REPLICA_READ: u8 = 67;
const QUEUE: u8 = 68;
const RELAY: u8 = 69;
const RELAYED: u8 = 70;
const RELAYED_ANSWER: u8 = 71;
const RESCUE: u8 = 60;
const RESCUE_REPORT: u8 = 61;

const DONE: u8 = 0;
const NOT_LEADER: u8 = 1;
const NOT_LEADER_BUT: u8 = 2;
const GAP: u8 = 3;
const REFUSED: u8 = 4;
const UNKNOWN: u8 = 5;
const EXPIRED: u8 = 6;

const WAITS: u8 = 0;
const RESCUED: u8 = 1;
const NOT_RESCUED: u8 = 2;

/// Appends the bytes of a message.
pub fn encode_peer(message: &PeerMessage, out: &mut Vec<u8>) {
    Out::append(out, |out| push_peer(message, out));
}

pub(crate) fn push_peer(message: &PeerMessage, out: &mut Out) {
    let version = version::of_peer(message);
    out.push(version);
    match message {
        PeerMessage::Paxos { shard, from, to, message } => {
            out.push(kind_of(message));
            push_shard(*shard, out);
            if version > VERSION {
                push_number(u64::from(from.0), out);
                push_number(u64::from(to.0), out);
            }
            push_message(version, message, out);
        }
        PeerMessage::Heartbeat(heartbeat) => push_heartbeat(version, heartbeat, out),
        PeerMessage::MapWanted { have } => {
            out.push(MAP_WANTED);
            push_number(have.0, out);
        }
        PeerMessage::Map(state) => {
            out.push(MAP);
            push_bytes(state, out);
        }
        PeerMessage::MoveOrder(order) => push_order(order, out),
        PeerMessage::MoveReport(report) => push_report(version, report, out),
        PeerMessage::FactsWanted => out.push(FACTS_WANTED),
        PeerMessage::Facts(said) => push_facts(said, out),
        PeerMessage::Restart { boot } => {
            out.push(RESTART);
            push_u64(*boot, out);
        }
        PeerMessage::Rescue(ask) => {
            out.push(RESCUE);
            push_bytes(ask, out);
        }
        PeerMessage::RescueReport(report) => push_rescue_report(version, report, out),
        PeerMessage::Counted(counted) => push_counted(counted, out),
        PeerMessage::Digest(note) => push_digest(note, out),
        PeerMessage::Forward(forward) => push_forward(forward, out),
        PeerMessage::Relay(forward) => {
            out.push(RELAY);
            push_forward(forward, out);
        }
        PeerMessage::Relayed { gateway, forward } => {
            out.push(RELAYED);
            push_number(u64::from(gateway.0), out);
            push_forward(forward, out);
        }
        PeerMessage::RelayedAnswer { gateway, request, boot, outcome } => {
            out.push(RELAYED_ANSWER);
            push_number(u64::from(gateway.0), out);
            push_number(*request, out);
            push_u64(*boot, out);
            push_outcome(outcome, out);
        }
        PeerMessage::Queue(queue) => {
            out.push(QUEUE);
            push_queue(*queue, out);
        }
        PeerMessage::Answer { request, boot, outcome } => {
            out.push(ANSWER);
            push_number(*request, out);
            push_u64(*boot, out);
            push_outcome(outcome, out);
        }
        PeerMessage::SnapshotChunk(chunk) => {
            out.push(SNAPSHOT_CHUNK);
            push_shard(chunk.shard, out);
            push_ballot(chunk.ballot, out);
            push_number(chunk.index.0, out);
            push_number(u64::from(chunk.chunk), out);
            push_number(u64::from(chunk.chunks), out);
            if version > VERSION {
                push_u64(chunk.file, out);
                push_number(u64::from(chunk.checksum), out);
            }
            push_shared(&chunk.bytes, out);
        }
        PeerMessage::SnapshotWanted { shard, ballot, index, file, chunk } => {
            out.push(SNAPSHOT_WANTED);
            push_shard(*shard, out);
            push_ballot(*ballot, out);
            push_number(index.0, out);
            push_number(u64::from(*chunk), out);
            if version > VERSION {
                push_u64(*file, out);
            }
        }
    }
}

/// Reads what [`encode_peer`] wrote: all of `bytes`, neither less nor more.
pub fn decode_peer(bytes: Bytes) -> Result<PeerMessage, WireError> {
    let mut reader = Reader::new(bytes)?;
    let message = read_peer(&mut reader)?;
    reader.finish(version::of_peer(&message))?;
    Ok(message)
}

fn read_peer(reader: &mut Reader) -> Result<PeerMessage, WireError> {
    let message = match reader.u8()? {
        kind @ CANVASS..=RENEWED => {
            let shard = read_shard(reader)?;
            let plain = reader.version() == VERSION;
            let (from, to) = if plain { Default::default() } else { (reader.serial()?, reader.serial()?) };
            PeerMessage::Paxos { shard, from, to, message: read_message(kind, reader)? }
        }
        HEARTBEAT => PeerMessage::Heartbeat(read_heartbeat(reader)?),
        MAP_WANTED => PeerMessage::MapWanted { have: Epoch(reader.number()?) },
        MAP => PeerMessage::Map(reader.bytes()?),
        MOVE_ORDER => PeerMessage::MoveOrder(read_order(reader)?),
        MOVE_REPORT => PeerMessage::MoveReport(read_report(reader)?),
        FACTS_WANTED => PeerMessage::FactsWanted,
        FACTS => PeerMessage::Facts(read_facts(reader)?),
        RESTART => PeerMessage::Restart { boot: reader.u64()? },
        RESCUE => PeerMessage::Rescue(reader.bytes()?),
        RESCUE_REPORT => PeerMessage::RescueReport(read_rescue_report(reader)?),
        COUNTED => PeerMessage::Counted(read_counted(reader)?),
        kind @ DIGEST_ASKED..=DIGEST_WRONG => PeerMessage::Digest(read_digest(kind, reader)?),
        kind @ (FORWARD_WRITE | FORWARD_READ | FORWARD_REPLICA_READ) => {
            PeerMessage::Forward(read_forward(kind, reader)?)
        }
        RELAY => PeerMessage::Relay(read_relayed(reader)?),
        RELAYED => PeerMessage::Relayed { gateway: read_node(reader)?, forward: read_relayed(reader)? },
        RELAYED_ANSWER => PeerMessage::RelayedAnswer {
            gateway: read_node(reader)?,
            request: reader.number()?,
            boot: reader.u64()?,
            outcome: read_outcome(reader)?,
        },
        QUEUE => PeerMessage::Queue(read_queue(reader)?),
        ANSWER => PeerMessage::Answer {
            request: reader.number()?,
            boot: reader.u64()?,
            outcome: read_outcome(reader)?,
        },
        SNAPSHOT_CHUNK => PeerMessage::SnapshotChunk(read_chunk(reader)?),
        SNAPSHOT_WANTED => PeerMessage::SnapshotWanted {
            shard: read_shard(reader)?,
            ballot: reader.ballot()?,
            index: reader.index()?,
            chunk: reader.narrow()?,
            file: if reader.version() == VERSION { 0 } else { reader.u64()? },
        },
        byte => return Err(WireError::Kind { what: "message", byte }),
    };
    Ok(message)
}

fn read_chunk(reader: &mut Reader) -> Result<SnapshotChunk, WireError> {
    let (shard, ballot, index) = (read_shard(reader)?, reader.ballot()?, reader.index()?);
    let (chunk, chunks) = (reader.narrow()?, reader.narrow()?);
    let plain = reader.version() == VERSION;
    let (file, checksum) = if plain { (0, 0) } else { (reader.u64()?, reader.narrow()?) };
    Ok(SnapshotChunk { shard, ballot, index, file, chunk, chunks, checksum, bytes: reader.bytes()? })
}

fn push_shard(shard: ShardId, out: &mut Out) {
    push_number(u64::from(shard.0), out);
}

fn read_shard(reader: &mut Reader) -> Result<ShardId, WireError> {
    reader.narrow().map(ShardId)
}

fn read_node(reader: &mut Reader) -> Result<NodeId, WireError> {
    reader.narrow().map(NodeId)
}

fn push_heartbeat(version: u8, heartbeat: &Heartbeat, out: &mut Out) {
    out.push(HEARTBEAT);
    push_u64(heartbeat.boot, out);
    push_number(heartbeat.heard.len() as u64, out);
    for node in &heartbeat.heard {
        push_number(u64::from(node.0), out);
    }
    push_number(heartbeat.wall.0, out);
    push_number(u64::from(heartbeat.disk_stall_ms), out);
    out.push(u8::from(heartbeat.memory_full));
    if version > VERSION {
        push_number(heartbeat.epoch.0, out);
        out.push(u8::from(heartbeat.disk_full));
        out.push(heartbeat.load.capacity);
        push_number(u64::from(heartbeat.load.leads), out);
        push_number(u64::from(heartbeat.load.rate), out);
        push_number(u64::from(heartbeat.load.stretch), out);
        push_number(u64::from(heartbeat.load.sync_us), out);
        out.push(heartbeat.load.busy);
        push_queue(heartbeat.load.queue, out);
    }
}

fn read_heartbeat(reader: &mut Reader) -> Result<Heartbeat, WireError> {
    let plain = reader.version() == VERSION;
    Ok(Heartbeat {
        boot: reader.u64()?,
        heard: reader.list(read_node)?,
        wall: reader.millis()?,
        disk_stall_ms: reader.narrow()?,
        memory_full: reader.flag("heartbeat flag")?,
        epoch: if plain { Epoch(1) } else { Epoch(reader.number()?) },
        disk_full: !plain && reader.flag("heartbeat flag")?,
        load: if plain { NodeLoad::default() } else { read_load(reader)? },
    })
}

fn read_load(reader: &mut Reader) -> Result<NodeLoad, WireError> {
    Ok(NodeLoad {
        capacity: read_percent(reader)?,
        leads: reader.narrow()?,
        rate: reader.narrow()?,
        stretch: reader.narrow()?,
        sync_us: reader.narrow()?,
        busy: read_percent(reader)?,
        queue: read_queue(reader)?,
    })
}

fn read_percent(reader: &mut Reader) -> Result<u8, WireError> {
    match reader.u8()? {
        percent @ 0..=CAPACITY_WHOLE => Ok(percent),
        byte => Err(WireError::Kind { what: "percentage", byte }),
    }
}

fn push_queue(queue: QueueReport, out: &mut Out) {
    push_number(u64::from(queue.waiting), out);
    push_number(u64::from(queue.service_ns), out);
}

fn read_queue(reader: &mut Reader) -> Result<QueueReport, WireError> {
    Ok(QueueReport { waiting: reader.narrow()?, service_ns: reader.narrow()? })
}

fn push_order(order: &MoveOrder, out: &mut Out) {
    out.push(MOVE_ORDER);
    push_shard(order.shard, out);
    push_number(order.move_id.0, out);
    push_number(order.number, out);
    push_somebody(order.from, out);
    push_somebody(order.to, out);
    out.push(u8::from(order.back));
    push_number(order.share, out);
}

fn read_order(reader: &mut Reader) -> Result<MoveOrder, WireError> {
    Ok(MoveOrder {
        shard: read_shard(reader)?,
        move_id: MoveId(reader.number()?),
        number: reader.number()?,
        from: read_somebody(reader)?,
        to: read_somebody(reader)?,
        back: reader.flag("order flag")?,
        share: reader.number()?,
    })
}

/// Nodes count from 1, so 0 is nobody.
fn push_somebody(node: Option<NodeId>, out: &mut Out) {
    push_number(node.map_or(0, |node| u64::from(node.0)), out);
}

fn read_somebody(reader: &mut Reader) -> Result<Option<NodeId>, WireError> {
    Ok(Some(read_node(reader)?).filter(|node| node.0 > 0))
}

fn push_report(version: u8, report: &MoveReport, out: &mut Out) {
    out.push(MOVE_REPORT);
    push_shard(report.shard, out);
    out.push(u8::from(report.behind.is_some()));
    if let Some(behind) = report.behind {
        push_number(behind, out);
    }
    out.push(u8::from(report.config.is_some()));
    if let Some(config) = &report.config {
        push_config(version, config, out);
    }
    for number in [report.number, report.sent, report.total] {
        push_number(number, out);
    }
    let wait = Wait::ALL.iter().position(|wait| *wait == report.wait).expect("all of them are listed");
    out.push(wait as u8);
}

fn read_report(reader: &mut Reader) -> Result<MoveReport, WireError> {
    let shard = read_shard(reader)?;
    let behind = if reader.flag("report flag")? { Some(reader.number()?) } else { None };
    let config = if reader.flag("report flag")? { Some(read_config(reader)?) } else { None };
    let (number, sent, total) = (reader.number()?, reader.number()?, reader.number()?);
    let byte = reader.u8()?;
    let wait = Wait::ALL.get(usize::from(byte)).copied();
    let wait = wait.ok_or(WireError::Kind { what: "wait", byte })?;
    Ok(MoveReport { shard, config, behind, number, sent, total, wait })
}

fn push_facts(said: &NodeSaid, out: &mut Out) {
    out.push(FACTS);
    push_perhaps(said.disk_free, out);
    push_perhaps(said.memory_free, out);
    push_number(said.shards.len() as u64, out);
    for own in &said.shards {
        push_shard(own.shard, out);
        push_perhaps(own.leads, out);
        push_number(own.decided, out);
        push_number(own.bytes, out);
        push_number(own.data_bytes, out);
        push_number(own.config, out);
        push_number(own.voters.len() as u64, out);
        for node in &own.voters {
            push_number(u64::from(node.0), out);
        }
        out.push(u8::from(own.mute));
    }
}

fn read_facts(reader: &mut Reader) -> Result<NodeSaid, WireError> {
    Ok(NodeSaid {
        disk_free: read_perhaps(reader)?,
        memory_free: read_perhaps(reader)?,
        shards: reader.list(|reader| {
            Ok(ShardSaid {
                shard: read_shard(reader)?,
                leads: read_perhaps(reader)?,
                decided: reader.number()?,
                bytes: reader.number()?,
                data_bytes: reader.number()?,
                config: reader.number()?,
                voters: reader.list(read_node)?,
                mute: reader.flag("facts flag")?,
            })
        })?,
    })
}

fn push_perhaps(number: Option<u64>, out: &mut Out) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        push_number(number, out);
    }
}

fn read_perhaps(reader: &mut Reader) -> Result<Option<u64>, WireError> {
    Ok(if reader.flag("facts flag")? { Some(reader.number()?) } else { None })
}

fn push_rescue_report(version: u8, report: &RescueReport, out: &mut Out) {
    out.push(RESCUE_REPORT);
    push_u64(report.plan, out);
    push_shard(report.group, out);
    match &report.said {
        RescueSaid::Waits(why) => {
            out.push(WAITS);
            push_bytes(why.as_bytes(), out);
        }
        RescueSaid::Done(config) => {
            out.push(RESCUED);
            push_config(version, config, out);
        }
        RescueSaid::Refused(why) => {
            out.push(NOT_RESCUED);
            push_bytes(why.as_bytes(), out);
        }
    }
}

fn read_rescue_report(reader: &mut Reader) -> Result<RescueReport, WireError> {
    let (plan, group) = (reader.u64()?, read_shard(reader)?);
    let said = match reader.u8()? {
        WAITS => RescueSaid::Waits(read_text(reader)?),
        RESCUED => RescueSaid::Done(read_config(reader)?),
        NOT_RESCUED => RescueSaid::Refused(read_text(reader)?),
        byte => return Err(WireError::Kind { what: "rescue report", byte }),
    };
    Ok(RescueReport { plan, group, said })
}

fn read_text(reader: &mut Reader) -> Result<String, WireError> {
    String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| WireError::NotText)
}

fn push_digest(note: &DigestNote, out: &mut Out) {
    out.push(match note.said {
        DigestSaid::Asked => DIGEST_ASKED,
        DigestSaid::Is(_) => DIGEST_IS,
        DigestSaid::Wrong => DIGEST_WRONG,
    });
    push_shard(note.shard, out);
    push_number(note.index.0, out);
    if let DigestSaid::Is(digest) = note.said {
        push_u64(digest, out);
    }
}

fn read_digest(kind: u8, reader: &mut Reader) -> Result<DigestNote, WireError> {
    let (shard, index) = (read_shard(reader)?, reader.index()?);
    let said = match kind {
        DIGEST_ASKED => DigestSaid::Asked,
        DIGEST_IS => DigestSaid::Is(reader.u64()?),
        _ => DigestSaid::Wrong,
    };
    Ok(DigestNote { shard, index, said })
}

fn push_counted(counted: &Counted, out: &mut Out) {
    out.push(COUNTED);
    push_u64(counted.boot, out);
    push_u64(counted.of_boot, out);
    for lsn in [counted.recovered, counted.durable, counted.owned_up, counted.of_before] {
        push_number(lsn, out);
    }
}

fn read_counted(reader: &mut Reader) -> Result<Counted, WireError> {
    Ok(Counted {
        boot: reader.u64()?,
        of_boot: reader.u64()?,
        recovered: reader.number()?,
        durable: reader.number()?,
        owned_up: reader.number()?,
        of_before: reader.number()?,
    })
}

fn push_forward(forward: &Forward, out: &mut Out) {
    out.push(match forward.ask {
        Ask::Write { .. } => FORWARD_WRITE,
        Ask::Read { .. } => FORWARD_READ,
        Ask::ReplicaRead { .. } => FORWARD_REPLICA_READ,
    });
    push_number(forward.request, out);
    push_u64(forward.boot, out);
    push_shard(forward.shard, out);
    match &forward.ask {
        Ask::Write { session, sequence, acknowledged, expires_at, operation } => {
            push_u64(*session, out);
            push_number(*sequence, out);
            push_number(*acknowledged, out);
            push_number(expires_at.0, out);
            push_shared(operation, out);
        }
        Ask::Read { operation } | Ask::ReplicaRead { operation } => push_shared(operation, out),
    }
}

fn read_forward(kind: u8, reader: &mut Reader) -> Result<Forward, WireError> {
    let (request, boot, shard) = (reader.number()?, reader.u64()?, read_shard(reader)?);
    let ask = if kind == FORWARD_WRITE {
        Ask::Write {
            session: reader.u64()?,
            sequence: reader.number()?,
            acknowledged: reader.number()?,
            expires_at: reader.millis()?,
            operation: reader.bytes()?,
        }
    } else if kind == FORWARD_REPLICA_READ {
        Ask::ReplicaRead { operation: reader.bytes()? }
    } else {
        Ask::Read { operation: reader.bytes()? }
    };
    Ok(Forward { request, boot, shard, ask })
}

/// A request within a message that passes it on.
fn read_relayed(reader: &mut Reader) -> Result<Forward, WireError> {
    match reader.u8()? {
        kind @ (FORWARD_WRITE | FORWARD_READ) => read_forward(kind, reader),
        byte => Err(WireError::Kind { what: "request", byte }),
    }
}

fn push_outcome(outcome: &Outcome, out: &mut Out) {
    match outcome {
        Outcome::Done(value) => {
            out.push(DONE);
            push_value(value, out);
        }
        Outcome::NotLeader { leader: None } => out.push(NOT_LEADER),
        Outcome::NotLeader { leader: Some((node, ballot)) } => {
            out.push(NOT_LEADER_BUT);
            push_number(u64::from(node.0), out);
            push_ballot(*ballot, out);
        }
        Outcome::Gap { expected } => {
            out.push(GAP);
            push_number(*expected, out);
        }
        Outcome::Refused(value) => {
            out.push(REFUSED);
            push_value(value, out);
        }
        Outcome::Unknown => out.push(UNKNOWN),
        Outcome::Expired => out.push(EXPIRED),
    }
}

fn read_outcome(reader: &mut Reader) -> Result<Outcome, WireError> {
    let outcome = match reader.u8()? {
        DONE => Outcome::Done(read_value(reader)?),
        NOT_LEADER => Outcome::NotLeader { leader: None },
        NOT_LEADER_BUT => Outcome::NotLeader { leader: Some((read_node(reader)?, reader.ballot()?)) },
        GAP => Outcome::Gap { expected: reader.number()? },
        REFUSED => Outcome::Refused(read_value(reader)?),
        UNKNOWN => Outcome::Unknown,
        EXPIRED => Outcome::Expired,
        byte => return Err(WireError::Kind { what: "outcome", byte }),
    };
    Ok(outcome)
}
