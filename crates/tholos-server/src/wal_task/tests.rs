use super::*;

use tholos_paxos::{Ballot, ReplicaId};
use tholos_ring::ShardId;
use tholos_wal::{Log, MemDisk, Options};

fn append(seq: u64) -> Append {
    let ballot = Ballot { round: seq, replica: ReplicaId(1) };
    Append { seq: AppendSeq(seq), shard: ShardId(7), record: Record::Promised { ballot } }
}

fn large(seq: u64, bytes: usize) -> Append {
    let entry = Entry {
        index: tholos_paxos::Index(seq),
        origin: Ballot::default(),
        time: tholos_paxos::Millis(0),
        seed: 0,
        payload: tholos_paxos::Payload::Batch(vec![0; bytes].into()),
    };
    let record =
        Record::Accepted { ballot: Ballot::default(), decided: tholos_paxos::Index(0), entries: vec![entry] };
    Append { seq: AppendSeq(seq), shard: ShardId(1), record }
}

struct Harness {
    disk: MemDisk,
    queue: Arc<WalQueue>,
    state: watch::Receiver<WalState>,
    control: mpsc::Receiver<Input>,
    thread: std::thread::JoinHandle<()>,
}

fn start(disk: MemDisk) -> Harness {
    start_with(disk, Options::small())
}

fn start_with(disk: MemDisk, options: Options) -> Harness {
    let (log, _) = Log::open(disk.clone(), options, |_, _, _| {}).unwrap();
    let log = NumberedLog::new(log);
    let queue = Arc::new(WalQueue::new());
    let (sender, state) = watch::channel(WalState::Durable(AppendSeq(0)));
    let (control_sender, control) = mpsc::channel(8);
    let task = WalTask { log, queue: Arc::clone(&queue), state: sender, control: control_sender };
    Harness { disk, queue, state, control, thread: std::thread::spawn(move || task.run()) }
}

impl Harness {
    fn wait_for(&mut self, wanted: impl FnMut(&WalState) -> bool) -> WalState {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let waited = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), self.state.wait_for(wanted)).await
        });
        waited.expect("the thread moves on").expect("the thread tells").clone()
    }
}

fn rounds_in(disk: MemDisk) -> Vec<u64> {
    let mut rounds = Vec::new();
    let visit = |_, _, payload: &[u8]| {
        let record = tholos_wire::decode_record(bytes::Bytes::copy_from_slice(payload)).unwrap();
        let Record::Promised { ballot } = record else { panic!("{record:?}") };
        rounds.push(ballot.round);
    };
    Log::open(disk, Options::small(), visit).unwrap();
    rounds
}

#[test]
fn appends_are_durable_in_order_when_reported() {
    let mut harness = start(MemDisk::new());
    for first in [1, 4] {
        harness.queue.push(&mut vec![append(first), append(first + 1), append(first + 2)], None);
    }
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(6)));
    harness.disk.crash(tholos_wal::Crash::Power(7));
    harness.queue.stop(Stop::Abandon);
    harness.thread.join().unwrap();
    assert_eq!(rounds_in(harness.disk), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn clean_stop_writes_what_waits() {
    let harness = start(MemDisk::new());
    harness.queue.push(&mut vec![append(1)], None);
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
    assert_eq!(rounds_in(harness.disk), [1]);
}

#[test]
fn failed_disk_is_told_and_nothing_more_is_durable() {
    let mut harness = start(MemDisk::new());
    harness.queue.push(&mut vec![append(1)], None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(1)));
    // Its open files are stale from here on, as after a disk that went away.
    harness.disk.crash(tholos_wal::Crash::Process);
    harness.queue.push(&mut vec![append(2)], None);
    harness.thread.join().unwrap();
    assert!(matches!(&*harness.state.borrow(), WalState::Failed(why) if why.contains("log")));
}

#[test]
fn large_records_go_alone() {
    let mut options = Options::small();
    options.log_bytes_max = 1 << 30;
    let mut harness = start_with(MemDisk::new(), options);
    // Together they are far more than one batch should have.
    harness.queue.push(&mut vec![append(1), large(2, 15 << 20), large(3, 120 << 20), append(4)], None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(4)));
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}

#[test]
fn room_that_a_release_makes_is_told_without_a_further_append() {
    let mut options = Options::small();
    options.log_bytes_max = 1 << 20;
    let mut harness = start_with(MemDisk::new(), options);
    let mut seq = 0;
    while harness.control.is_empty() {
        seq += 1;
        assert!(seq < 200, "the log never gets short of room");
        harness.queue.push(&mut vec![large(seq, 14 << 10)], None);
        harness.wait_for(|state| *state == WalState::Durable(AppendSeq(seq)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut told = || {
        let next = async { tokio::time::timeout(Duration::from_secs(20), harness.control.recv()).await };
        match runtime.block_on(next).expect("the thread tells") {
            Some(Input::Event(Event::LogRoom(room))) => room,
            other => panic!("{}", other.is_some()),
        }
    };
    assert_ne!(told(), LogRoom::Ample);
    // As after a checkpoint; writes are refused, so nothing follows it.
    harness.queue.push(&mut Vec::new(), Some(AppendSeq(seq)));
    while told() != LogRoom::Ample {}
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}

/// Records of the largest values that came when the log was nearly full waited for room, and the checkpoints that would have made it
/// waited behind them.
#[test]
fn what_is_under_way_when_the_log_is_full_is_written() {
    let mut options = Options::small();
    (options.log_bytes_max, options.overdraft_bytes) = (1 << 20, 3 << 20);
    let mut harness = start_with(MemDisk::new(), options);
    harness.queue.push(&mut (1..=6).map(|seq| large(seq, 300 << 10)).collect(), None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(6)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let told = runtime.block_on(harness.control.recv());
    assert!(
        matches!(told, Some(Input::Event(Event::LogRoom(LogRoom::Short)))),
        "clients are refused all the same"
    );
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}

/// A round that had room for its beginning only told nothing of that until all of it was written: its checkpoint could release nothing.
#[test]
fn what_is_written_before_the_log_is_full_is_durable_and_told() {
    let mut harness = start_with(MemDisk::new(), Options::small());
    harness.queue.push(&mut vec![large(1, 30 << 20), large(2, 20 << 20), large(3, 40 << 20)], None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(2)));
    // As if the second were a checkpoint.
    harness.queue.push(&mut Vec::new(), Some(AppendSeq(2)));
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(3)));
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}

/// Clients' writes went on to gather behind a record that waited for room, and were in doubt, until the worker took no more.
#[test]
fn that_something_waits_for_room_is_told() {
    let disk = MemDisk::new();
    let options = Options { writer_reserve_bytes: 1, ..Options::small() };
    let mut harness = start_with(disk.clone(), options);
    harness.queue.push(&mut vec![append(1)], None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(1)));
    disk.set_capacity_bytes(Some(0));
    // It needs a segment of its own; there is room for many others in the one that is written.
    harness.queue.push(&mut vec![large(2, 20 << 10)], None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut told = || {
        let next = async { tokio::time::timeout(Duration::from_secs(20), harness.control.recv()).await };
        match runtime.block_on(next).expect("the thread tells") {
            Some(Input::Event(Event::LogRoom(room))) => room,
            other => panic!("{}", other.is_some()),
        }
    };
    assert_ne!(told(), LogRoom::Ample);
    disk.set_capacity_bytes(None);
    while told() != LogRoom::Ample {}
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(2)));
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}

/// A node that led every shard refused writes for ever after its disk had been full once: nothing woke the thread.
#[test]
fn room_that_others_make_is_told_without_any_append() {
    let disk = MemDisk::new();
    let mut harness = start(disk.clone());
    harness.queue.push(&mut vec![append(1)], None);
    harness.wait_for(|state| *state == WalState::Durable(AppendSeq(1)));
    disk.set_capacity_bytes(Some(0));
    // So large that the file system is asked again before the seal.
    harness.queue.push(&mut vec![large(2, 1500)], None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut told = || {
        let next = async { tokio::time::timeout(Duration::from_secs(20), harness.control.recv()).await };
        match runtime.block_on(next).expect("the thread tells") {
            Some(Input::Event(Event::LogRoom(room))) => room,
            other => panic!("{}", other.is_some()),
        }
    };
    assert_ne!(told(), LogRoom::Ample);
    // The seal is the last that the thread does by itself.
    let changes = disk.changes();
    while disk.changes() < changes + 2 {
        std::thread::yield_now();
    }
    disk.set_capacity_bytes(None);
    while told() != LogRoom::Ample {}
    harness.queue.stop(Stop::Clean);
    harness.thread.join().unwrap();
}
