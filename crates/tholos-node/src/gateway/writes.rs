//! What clients' writes met while a job ran: whoever moves data wants to know what it cost others.

use tholos_paxos::Millis;
use tholos_resp::Value;

/// Words with which a write ends that the cluster did not do, or may not have done, whatever the client sent.
const FAILURES: [&[u8]; 3] = [b"CLUSTERDOWN ", b"DISKFULL ", b"INDOUBT "];

/// What this node's clients met since the latest job began, until it ended. It is kept until another begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobWrites {
    /// The job; 0 if none has run since this node started.
    pub job: u64,
    /// Writes that failed.
    pub failed: u64,
    /// How long the longest took, from the command's start to its reply, in milliseconds.
    pub longest: Millis,
    runs: bool,
}

impl JobWrites {
    /// The job that runs now, if one does.
    pub(crate) fn follow(&mut self, job: Option<u64>) {
        self.runs = job.is_some();
        if let Some(job) = job.filter(|job| *job != self.job) {
            *self = JobWrites { job, runs: true, ..JobWrites::default() };
        }
    }

    /// A write that began then has ended now.
    pub(super) fn note(&mut self, began: Millis, now: Millis, value: &Value) {
        if !self.runs {
            return;
        }
        self.longest = self.longest.max(now.since(began));
        if let Value::Error(text) = value {
            self.failed += u64::from(FAILURES.iter().any(|word| text.starts_with(word)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_while_a_job_runs_counts_and_the_next_job_begins_anew() {
        let mut writes = JobWrites::default();
        let (ok, failed) = (Value::ok(), Value::error("INDOUBT no answer in time"));
        writes.note(Millis(0), Millis(900), &failed);
        assert_eq!(writes, JobWrites::default());
        writes.follow(Some(4));
        writes.note(Millis(1000), Millis(1012), &ok);
        writes.note(Millis(1000), Millis(1007), &failed);
        writes.note(Millis(1000), Millis(1001), &Value::error("WRONGTYPE Operation against a key"));
        writes.follow(Some(4));
        writes.follow(None);
        writes.note(Millis(2000), Millis(4000), &failed);
        assert_eq!((writes.job, writes.failed, writes.longest), (4, 1, Millis(12)));
        writes.follow(Some(5));
        assert_eq!((writes.job, writes.failed, writes.longest), (5, 0, Millis(0)));
    }
}
