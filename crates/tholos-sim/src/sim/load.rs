//! What a machine's driver measures of its load, and tells its node.

use tholos_node::{Event, LoadSample, Round};

use super::Sim;
use crate::random::Random;

/// How often a node is told, in microseconds.
const TELL_US: u64 = 100_000;
/// Every machine works for so much of the time, in percent of a processor: enough to be judged by.
const WORK_PERCENT: u64 = 20;

/// A machine has much or little to do for so long, in microseconds.
const MOOD_US: u64 = 2_000_000;
/// One in so many has much to do.
const BUSY_ONE_IN: u64 = 3;

impl Sim {
    /// A sync of the log has ended.
    pub(super) fn note_synced(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        machine.synced.0 += 1;
        machine.synced.1 += self.now - machine.write_began;
    }

    /// Tells a node what was measured since it was told last, if it is time.
    pub(super) fn tell_load(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let span_us = self.now - machine.load_told_at;
        if span_us < TELL_US || machine.paused_until > self.now {
            return;
        }
        machine.load_told_at = self.now;
        let (syncs, syncs_us) = std::mem::take(&mut machine.synced);
        let processor_us = span_us * WORK_PERCENT / 100;
        let rounds_us = processor_us * machine.stretch / 100;
        let mood = self.busy_salt ^ (self.now / MOOD_US * 16 + host as u64);
        let busy_us = if Random::new(mood).below(BUSY_ONE_IN) == 0 { span_us } else { span_us / 100 };
        let (took_us, idle_us) = (busy_us as u32, (span_us - busy_us) as u32);
        self.give(host, Event::Round(Round { took_us, idle_us }));
        self.give(host, Event::Load(LoadSample { span_us, rounds_us, processor_us, syncs, syncs_us }));
    }
}
