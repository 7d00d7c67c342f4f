//! Three replicas in memory: the three phases of a decision and a change of leader, message by message.
//!
//! `cargo run -p tholos-paxos --example council`
//!
//! Notation: replica `n2`, ballot `3.n2` (the third round, led by n2), index `@2`. "n2 appends …" goes to n2's
//! log; what it says after that waits until its disk has it.

use std::fmt::Write;

use tholos_paxos::Options;

#[path = "../tests/common/mod.rs"]
mod common;
use common::{Council, replica};

#[allow(dead_code, reason = "the test of this example calls story() alone")]
fn main() {
    print!("{}", story());
}

/// The whole output.
pub(crate) fn story() -> String {
    let mut teller = Teller { council: Council::traced(3, Options::default()), text: String::new() };
    teller.election();
    teller.decision();
    teller.change_of_leader();
    teller.return_of_the_first();
    teller.text
}

struct Teller {
    council: Council,
    text: String,
}

impl Teller {
    fn say(&mut self, prose: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{gap}{prose}").expect("a string takes everything");
    }

    /// Tells what has happened since the last call.
    fn tell(&mut self) {
        for line in self.council.take_trace() {
            writeln!(self.text, "    {line}").expect("a string takes everything");
        }
    }

    /// All that is under way arrives, then all disks are done, and it is told.
    fn step(&mut self) {
        self.council.deliver_where(|_| true);
        self.council.sync_all();
        self.tell();
    }

    fn election(&mut self) {
        self.say("Three replicas, an empty log, no leader. n1 asks whether the others miss one, too. That binds nobody.");
        self.council.tick_all(10);
        self.tell();
        self.step();
        self.say("They do. Phase 1, prepare: n1 promises its own ballot, and asks for promises once its disk has that.");
        self.step();
        self.say("Phase 1, promise: n2 and n3 will heed no lower ballot, and tell what their logs are like.");
        self.step();
        self.say("A quorum has promised; no log is ahead of n1's. n1 takes its log over under 1.n1, with a no-op on top.");
        self.step();
        self.say("Phase 2, accept and accepted: the others take n1's whole log over.");
        self.step();
        self.say("A quorum has it: the no-op is decided, and n1 serves. The others are told.");
        self.step();
        self.council.tick_all(10);
        self.step();
    }

    fn decision(&mut self) {
        self.say("A decision. Phase 2, accept: one message to each follower, while n1's own disk writes.");
        self.council.propose(replica(1));
        self.tell();
        self.say("Phase 2, accepted: each follower answers when its disk has the entry.");
        self.step();
        self.say("A quorum has it: @2 is decided.");
        self.step();
        self.say("The third message, decide, tells the followers; with more to do, the next accept would carry it.");
        self.council.tick_all(10);
        self.tell();
        self.step();
    }

    fn change_of_leader(&mut self) {
        self.say("n1 proposes once more. Only n3 gets it, and n1 crashes before anybody knows that a quorum has it.");
        self.council.propose(replica(1));
        self.council.deliver_where(|envelope| envelope.to == replica(3));
        self.council.sync_all();
        self.tell();
        self.council.crash(replica(1));
        self.council.deliver_where(|_| false);
        self.tell();
        self.say("n2 and n3 hear n1 no more. n2 is the next in walk order, and stands.");
        while self.council.network.is_empty() {
            self.council.tick_all(10);
        }
        self.tell();
        self.step();
        self.say("n3 has lost n1, too. Phase 1 again, in a higher ballot.");
        for _ in 0..2 {
            self.step();
        }
        self.say(
            "n3's log is longer than n2's: what it has more may have been decided, so n2 must adopt it.",
        );
        for _ in 0..2 {
            self.step();
        }
        self.say("Now n2 takes the whole over under 2.n2, adds its no-op, and brings n3 to it.");
        for _ in 0..2 {
            self.step();
        }
        self.say("Both are decided: what n1 had proposed, unchanged, and the no-op.");
        self.step();
        self.council.tick_all(10);
        self.step();
    }

    fn return_of_the_first(&mut self) {
        self.say("n1 comes back. It remembers what its disk has, and knows no leader until n2 asks where it stands.");
        self.council.restart(replica(1));
        self.council.run(300);
        self.tell();
        self.say("All three hold the same log:");
        for number in 1..=3 {
            let state = self.council.at(replica(number)).state.clone();
            writeln!(self.text, "    n{number} {}", common::entries(&state))
                .expect("a string takes everything");
        }
    }
}
