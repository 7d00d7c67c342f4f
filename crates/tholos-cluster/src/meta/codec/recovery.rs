//! The bytes of recoveries (R29), of what nodes say for a plan of one, and of what they are asked. Everything as in the state.
//!
//! ```text
//!   recovery id 8 | at 8 | epoch 8 | order | stages 2 × 1
//!   order    plan 8 | by | lost 2 × (id 2, name, incarnation 8) | groups 2 × rescue
//!   rescue   group 2 | replica 4 | decided 8 | loses nothing 1 | number 8 | accepted | length 8 | promised | config
//!   ballot   round 8 | replica 4                      so accepted and promised
//!   ask      version 1 | plan 8 | lost 2 × 2 | rescue
//!   inventory version 1 | epoch 8 | hears 2 × 2 | replicas 2 × (group 2, survivor) | next 1, 2 if there is one
//!   survivor replica 4 | promised | accepted | length 8 | decided 8 | origins 2 × (8, ballot)
//!            | configs 2 × (8, config) | mute 1
//! ```

use alloc::vec::Vec;

use tholos_paxos::{Ballot, Index, Millis, ReplicaId, Rescue, Survivor};
use tholos_ring::ShardId;

use super::{
    WITH_RECOVERIES, end, position, push_config, push_departed, push_list16, push_node, read_config,
    read_departed, read_flag, read_list16, read_one_of, read_version,
};
use crate::bytes::{Reader, push_string};
use crate::id::{Epoch, NodeId};
use crate::map::MapError;
use crate::meta::{RecoverOrder, Recovery, RescueAsk, RescueOrder, RescueStage};
use crate::recovery::Inventory;

const RESCUE_STAGES: [RescueStage; 3] = [RescueStage::Ordered, RescueStage::Done, RescueStage::Refused];

impl RescueAsk {
    /// What is asked, as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([WITH_RECOVERIES]);
        out.extend_from_slice(&self.plan.to_le_bytes());
        push_list16(&self.lost, &mut out, |node, out| push_node(Some(*node), out));
        push_rescue(&self.order, &mut out);
        out
    }

    /// Reads what is asked.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<RescueAsk, MapError> {
        let mut reader = Reader::new(bytes);
        read_version(&mut reader)?;
        let plan = reader.u64()?;
        let lost = read_list16(&mut reader, |reader| reader.u16().map(NodeId))?;
        let order = read_rescue(&mut reader)?;
        end(&reader)?;
        Ok(RescueAsk { plan, lost, order })
    }
}

impl Inventory {
    /// What the node says, as bytes.
    ///
    /// # Panics
    ///
    /// If a list in it has more than 65,535 members: of nodes and groups there are fewer, and a log changes its ballot
    /// less often before any of it is decided.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([WITH_RECOVERIES]);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        push_list16(&self.hears, &mut out, |node, out| push_node(Some(*node), out));
        push_list16(&self.replicas, &mut out, |(group, survivor), out| {
            out.extend_from_slice(&group.0.to_le_bytes());
            push_survivor(survivor, out);
        });
        out.push(u8::from(self.next.is_some()));
        if let Some(next) = self.next {
            out.extend_from_slice(&next.0.to_le_bytes());
        }
        out
    }

    /// Reads what a node says.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Inventory, MapError> {
        let mut reader = Reader::new(bytes);
        read_version(&mut reader)?;
        let inventory = Inventory {
            epoch: Epoch(reader.u64()?),
            hears: read_list16(&mut reader, |reader| reader.u16().map(NodeId))?,
            replicas: read_list16(&mut reader, |reader| {
                Ok((ShardId(reader.u16()?), read_survivor(reader)?))
            })?,
            next: match read_flag(&mut reader)? {
                true => Some(ShardId(reader.u16()?)),
                false => None,
            },
        };
        end(&reader)?;
        Ok(inventory)
    }
}

fn push_survivor(survivor: &Survivor, out: &mut Vec<u8>) {
    let Survivor { replica, promised, accepted, length, decided, origins, configs, mute } = survivor;
    out.extend_from_slice(&replica.0.to_le_bytes());
    push_ballot(*promised, out);
    push_ballot(*accepted, out);
    out.extend_from_slice(&length.0.to_le_bytes());
    out.extend_from_slice(&decided.0.to_le_bytes());
    push_list16(origins, out, |(first, origin), out| {
        out.extend_from_slice(&first.0.to_le_bytes());
        push_ballot(*origin, out);
    });
    push_list16(configs, out, |(at, config), out| {
        out.extend_from_slice(&at.0.to_le_bytes());
        push_config(config, out);
    });
    out.push(u8::from(*mute));
}

fn read_survivor(reader: &mut Reader<'_>) -> Result<Survivor, MapError> {
    Ok(Survivor {
        replica: ReplicaId(reader.u32()?),
        promised: read_ballot(reader)?,
        accepted: read_ballot(reader)?,
        length: Index(reader.u64()?),
        decided: Index(reader.u64()?),
        origins: read_list16(reader, |reader| Ok((Index(reader.u64()?), read_ballot(reader)?)))?,
        configs: read_list16(reader, |reader| Ok((Index(reader.u64()?), read_config(reader)?)))?,
        mute: read_flag(reader)?,
    })
}

fn push_ballot(ballot: Ballot, out: &mut Vec<u8>) {
    out.extend_from_slice(&ballot.round.to_le_bytes());
    out.extend_from_slice(&ballot.replica.0.to_le_bytes());
}

fn read_ballot(reader: &mut Reader<'_>) -> Result<Ballot, MapError> {
    Ok(Ballot { round: reader.u64()?, replica: ReplicaId(reader.u32()?) })
}

pub(super) fn push_recovery(recovery: &Recovery, out: &mut Vec<u8>) {
    out.extend_from_slice(&recovery.id.to_le_bytes());
    out.extend_from_slice(&recovery.at.0.to_le_bytes());
    out.extend_from_slice(&recovery.epoch.0.to_le_bytes());
    push_recover(&recovery.order, out);
    push_list16(&recovery.stages, out, |stage, out| out.push(position(&RESCUE_STAGES, *stage)));
}

pub(super) fn read_recovery(reader: &mut Reader<'_>) -> Result<Recovery, MapError> {
    let (id, at, epoch) = (reader.u64()?, Millis(reader.u64()?), Epoch(reader.u64()?));
    let order = read_recover(reader)?;
    let stages = read_list16(reader, |reader| read_one_of(&RESCUE_STAGES, reader))?;
    Ok(Recovery { id, at, epoch, order, stages })
}

pub(super) fn push_recover(order: &RecoverOrder, out: &mut Vec<u8>) {
    out.extend_from_slice(&order.plan.to_le_bytes());
    push_string(&order.by, out);
    push_list16(&order.lost, out, push_departed);
    push_list16(&order.groups, out, push_rescue);
}

pub(super) fn read_recover(reader: &mut Reader<'_>) -> Result<RecoverOrder, MapError> {
    let (plan, by) = (reader.u64()?, reader.string()?);
    let lost = read_list16(reader, read_departed)?;
    let groups = read_list16(reader, read_rescue)?;
    Ok(RecoverOrder { plan, by, lost, groups })
}

fn push_rescue(order: &RescueOrder, out: &mut Vec<u8>) {
    let Rescue { number, accepted, length, promised, config } = &order.rescue;
    out.extend_from_slice(&order.group.0.to_le_bytes());
    out.extend_from_slice(&order.replica.0.to_le_bytes());
    out.extend_from_slice(&order.decided.0.to_le_bytes());
    out.push(u8::from(order.loses_nothing));
    out.extend_from_slice(&number.to_le_bytes());
    push_ballot(*accepted, out);
    out.extend_from_slice(&length.0.to_le_bytes());
    push_ballot(*promised, out);
    push_config(config, out);
}

fn read_rescue(reader: &mut Reader<'_>) -> Result<RescueOrder, MapError> {
    Ok(RescueOrder {
        group: ShardId(reader.u16()?),
        replica: ReplicaId(reader.u32()?),
        decided: Index(reader.u64()?),
        loses_nothing: read_flag(reader)?,
        rescue: Rescue {
            number: reader.u64()?,
            accepted: read_ballot(reader)?,
            length: Index(reader.u64()?),
            promised: read_ballot(reader)?,
            config: read_config(reader)?,
        },
    })
}
