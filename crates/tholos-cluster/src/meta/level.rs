//! The feature level: which of the cluster's nodes know which, and when it rises.
//!
//! - E7: it never falls, and rises only to what every node of the map is recorded to know. Whoever is put back to a program that
//!   does not know it is refused, and stops.

use alloc::vec::Vec;

use crate::id::{Incarnation, Level, NodeId};
use crate::map::{MapError, NodeRow};
use crate::meta::{MetaState, Refusal, Standing};

impl MetaState {
    /// The highest level that a node's program knows, as it has said itself.
    #[must_use]
    pub fn level_of(&self, node: NodeId) -> Level {
        let known = self.levels.iter().find(|(of, _)| *of == node);
        known.map_or(Level::FIRST, |(_, level)| *level)
    }

    /// The nodes whose programs do not know a level; who is lost does not count.
    pub fn behind(&self, level: Level) -> impl Iterator<Item = &NodeRow> + '_ {
        let rows = self.map.nodes.iter().zip(&self.standings);
        let counts = rows.filter(|(_, standing)| **standing != Standing::Lost).map(|(row, _)| row);
        counts.filter(move |row| self.level_of(row.id) < level)
    }

    /// A node says what its program knows.
    pub(super) fn know(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        level: Level,
    ) -> Result<(), Refusal> {
        let is_it = |row: &&NodeRow| row.incarnation == incarnation;
        self.map.node(node).filter(is_it).ok_or(Refusal::UnknownNode(node))?;
        if level < self.level {
            return Err(Refusal::LevelTooLow { node, known: level, level: self.level });
        }
        self.levels.retain(|(of, _)| *of != node);
        if level > Level::FIRST {
            let at = self.levels.partition_point(|(of, _)| *of < node);
            self.levels.insert(at, (node, level));
        }
        Ok(())
    }

    /// E7.
    pub(super) fn raise(&mut self, level: Level) -> Result<(), Refusal> {
        let nodes: Vec<NodeId> = self.behind(level).map(|row| row.id).collect();
        if level > self.level && !nodes.is_empty() {
            return Err(Refusal::NodesBehind { level, nodes });
        }
        self.level = self.level.max(level);
        Ok(())
    }

    pub(super) fn check_levels(&self) -> Result<(), MapError> {
        let ascend = self.levels.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let known = |(node, level): &(NodeId, Level)| self.map.node(*node).is_some() && *level > Level::FIRST;
        if !ascend || !self.levels.iter().all(known) || self.level < Level::FIRST {
            return Err(MapError::BadMeta("the feature levels are out of bounds"));
        }
        Ok(())
    }
}
