//! What is true of a whole council, checked as it is learnt.

use std::collections::{BTreeMap, BTreeSet};

use tholos_paxos::{Ballot, Config, Entry, Index, Millis, Payload, Record, ReplicaId};

use super::{Replica, number_of};

#[derive(Default)]
pub struct Facts {
    /// The configurations decided, the founding one first, each with its index.
    pub configs: Vec<(Index, Config)>,
    /// Agreement: one value at each index, whoever learns it and when.
    pub decided: Vec<Entry>,
    /// Validity: what was proposed.
    proposed: BTreeSet<u64>,
    /// One leader to a ballot, and once.
    elected: BTreeSet<Ballot>,
    /// Reads under way: what each must see at least.
    floors: BTreeMap<u64, Index>,
    pub reads_ready: Vec<u64>,
    pub reads_failed: Vec<u64>,
    /// Replicas that had lost everything and count again.
    pub repaired: u64,
    /// Those that count again under another id.
    pub renewed: u64,
    /// A disk was rotten in the middle of a change: those who are left may have to wait for somebody (schedules.md).
    pub may_stall: bool,
    /// Configurations that somebody has proposed.
    configs_proposed: Vec<Config>,
    /// Gone for good: what they say to be decided binds nobody (R29).
    pub gone: Vec<ReplicaId>,
    next_value: u64,
    next_token: u64,
}

impl Facts {
    pub fn new(founding: Config) -> Facts {
        Facts { configs: vec![(Index::ZERO, founding)], ..Facts::default() }
    }

    /// The configuration decided last, as far as anybody knows.
    pub fn config(&self) -> &Config {
        &self.configs.last().expect("the founding one").1
    }

    /// The last index that anybody knows to be decided.
    pub fn end(&self) -> Index {
        Index(self.decided.len() as u64)
    }

    /// The next value to propose.
    pub fn next_value(&mut self) -> u64 {
        self.next_value += 1;
        self.proposed.insert(self.next_value);
        self.next_value
    }

    /// For tests that make up messages: these values count as proposed.
    pub fn propose(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.proposed.extend(numbers);
    }

    /// The token of the next read, which must see everything that anybody knows to be decided by now (R15).
    pub fn next_read(&mut self) -> u64 {
        let token = self.next_token + 1;
        self.floors.insert(token, self.end());
        token
    }

    /// The next read was taken.
    pub fn read_taken(&mut self) {
        self.next_token += 1;
    }

    pub fn read_answered(&mut self, id: ReplicaId, token: u64, applied: Index) {
        let floor = self.floors[&token];
        assert!(applied >= floor, "{id} answers a stale read: {applied}, but {floor} was decided before");
        self.reads_ready.push(token);
    }

    pub fn elected(&mut self, id: ReplicaId, ballot: Ballot) {
        assert_eq!(ballot.replica, id, "{id} leads in another's ballot");
        assert!(self.elected.insert(ballot), "{ballot} leads twice");
    }

    /// `entry` is decided, says `id`: the first to say so sets it for all. Returns whether this is the first.
    pub fn learn(&mut self, id: ReplicaId, entry: Entry, replicas: &[Replica]) -> bool {
        if self.gone.contains(&id) {
            return false;
        }
        let at = entry.index.0 as usize - 1;
        if let Some(known) = self.decided.get(at) {
            assert_eq!(*known, entry, "agreement: {id} decided another value");
            return false;
        }
        assert_eq!(self.decided.len(), at, "{id} decided {} before what is below", entry.index);
        let last_time = self.decided.last().map_or(Millis(0), |last| last.time);
        assert!(entry.time >= last_time, "time runs back at {}", entry.index);
        if let Some(number) = number_of(&entry.payload) {
            assert!(self.proposed.remove(&number), "validity: {number} was not proposed, or twice");
        }
        check_on_majority(&entry, self.config(), replicas);
        if let Payload::Config(config) = &entry.payload {
            check_on_majority(&entry, config, replicas);
            let last = self.config();
            assert_eq!(config.number, last.number + 1, "R7: configurations are numbered");
            let old = |replica: &&ReplicaId| !last.names(**replica);
            for new in config.voters.iter().chain(&config.learners).filter(old) {
                assert!(*new > last.last_replica, "R7: the id {new} comes back");
            }
            self.configs.push((entry.index, Config::clone(config)));
        }
        self.decided.push(entry);
        true
    }

    /// This is decided from here on, and nothing else (R29): what only those who are gone knew is forgotten, and what
    /// nobody knew to be decided counts if it is in this log.
    pub fn rescued(&mut self, log: Vec<Entry>) {
        let numbers = log.iter().filter_map(|entry| number_of(&entry.payload));
        numbers.for_each(|number| _ = self.proposed.remove(&number));
        self.configs.truncate(1);
        self.configs.extend(log.iter().filter_map(|entry| match &entry.payload {
            Payload::Config(config) => Some((entry.index, Config::clone(config))),
            _ => None,
        }));
        self.decided = log;
        // Who asks for them is gone, or was told that they failed.
        self.floors.values_mut().for_each(|floor| *floor = Index::ZERO);
    }

    /// R6: a leader proposes a Config only when the last one is decided.
    pub fn check_change(&mut self, id: ReplicaId, record: &Record) {
        let Record::Accepted { entries, .. } = record else { return };
        for entry in entries.iter().filter(|entry| entry.origin.replica == id) {
            if let Payload::Config(config) = &entry.payload {
                let last = self.config().number;
                self.configs_proposed.push(Config::clone(config));
                assert!(
                    config.number <= last + 1,
                    "R6: {} is proposed before {last} is decided",
                    config.number
                );
            }
        }
    }

    /// Whether a majority is left without `id`, of all configurations that ever were: nobody can tell which of them somebody
    /// still takes to count.
    pub fn goes_on_without(&self, id: ReplicaId) -> bool {
        let decided = self.configs.iter().map(|(_, config)| config);
        decided.chain(&self.configs_proposed).all(|config| config.majority(|voter| voter != id))
    }

    /// Whether no change is under way, and all its voters but `id` know, durably, that the last one is decided.
    pub fn is_settled_without(&self, id: ReplicaId, replicas: &[Replica]) -> bool {
        let (index, config) = self.configs.last().expect("the founding one");
        let knows = |voter: &ReplicaId| replicas[voter.0 as usize - 1].disk.knows_decided(*index);
        let others = config.voters.iter().filter(|voter| **voter != id);
        self.configs_proposed.iter().all(|proposed| proposed.number <= config.number)
            && (config.number == 0 || others.into_iter().all(knows))
    }

    /// Durability: everything decided is on the disks of a majority of the configuration in force.
    pub fn check_all_on_majority(&self, replicas: &[Replica]) {
        for entry in &self.decided {
            check_on_majority(entry, self.config(), replicas);
        }
    }
}

fn check_on_majority(entry: &Entry, config: &Config, replicas: &[Replica]) {
    let holds = |replica: ReplicaId| replicas[replica.0 as usize - 1].disk.holds(entry);
    assert!(config.majority(holds), "{} is decided but not on a majority's disks", entry.index);
}

/// Two logs accepted in one ballot: one is a prefix of the other (R1).
pub fn check_prefix(id: ReplicaId, replicas: &[Replica]) {
    let Some(group) = &replicas[id.0 as usize - 1].group else { return };
    for other in replicas.iter().filter(|other| other.id != id) {
        let Some(their) = &other.group else { continue };
        let ballot = group.accepted_ballot();
        if their.accepted_ballot() != ballot {
            continue;
        }
        let first = group.base().index.max(their.base().index).0;
        let last = group.accepted_index().min(their.accepted_index()).0;
        for at in (first + 1..=last).map(Index) {
            let (mine, yours) = (group.entry(at), their.entry(at));
            assert_eq!(mine, yours, "{id} and {} differ at {at} in {ballot}", other.id);
        }
    }
}
