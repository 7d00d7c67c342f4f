//! What the cluster was like before a job, and the words of requests that are about jobs.

use alloc::boxed::Box;
use alloc::string::String;

use crate::meta::{Before, MetaState, NodeChange};
use crate::plan::request::{Former, PlanError, Request};

/// The word before a job's number.
pub(crate) const UNDO: &str = "undo";

impl MetaState {
    /// The request written as words, as people type them: `undo 4`, and whatever [`Request::parse`] takes.
    ///
    /// # Errors
    ///
    /// Those of [`Request::parse`] and of [`MetaState::before_job`].
    pub fn request(&self, text: &str) -> Result<Request, PlanError> {
        let mut words = text.split_whitespace();
        if words.next() != Some(UNDO) {
            return Request::parse(&self.map, text);
        }
        let number = words.next().and_then(|word| word.parse().ok()).filter(|_| words.next().is_none());
        let job = number.ok_or_else(|| PlanError::NotUnderstood(String::from(text)))?;
        Ok(Request::Undo { job, former: Box::new(self.before_job(job)?) })
    }

    /// What the cluster was like when a job was started: weights, zones, standings, and who held what. What later jobs
    /// did is taken back as well; nodes that have joined since are there, and those that have left are not.
    ///
    /// # Errors
    ///
    /// [`PlanError::UnknownJob`], [`PlanError::JobUnderWay`], [`PlanError::BeforeUnknown`].
    pub fn before_job(&self, id: u64) -> Result<Former, PlanError> {
        let first = self.jobs.iter().position(|job| job.id == id).ok_or(PlanError::UnknownJob(id))?;
        if let Some(job) = self.active_job() {
            return Err(PlanError::JobUnderWay(job.id));
        }
        let mut former = Former { map: self.map.clone(), standings: self.standings.clone() };
        for job in self.jobs[first..].iter().rev() {
            former.take_back(job.before.as_ref().ok_or(PlanError::BeforeUnknown(job.id))?);
        }
        Ok(former)
    }
}

impl Former {
    fn take_back(&mut self, before: &Before) {
        for was in &before.nodes {
            let Ok(at) = self.map.nodes.binary_search_by_key(&was.node(), |row| row.id) else { continue };
            match was {
                NodeChange::Standing(_, standing) => self.standings[at] = *standing,
                NodeChange::Weight(_, weight) => self.map.nodes[at].weight = *weight,
                NodeChange::Zone(_, zone) => self.map.nodes[at].zone.clone_from(zone),
            }
        }
        for (shard, set) in &before.sets {
            if let Some(held) = self.map.shards.get_mut(usize::from(shard.0)) {
                held.clone_from(set);
            }
        }
        self.map.replicas = before.replicas;
    }
}
