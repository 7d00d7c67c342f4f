//! What goes into a [`Node`](crate::Node) and what comes out of it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::{Epoch, Incarnation, MetaCommand, MetaState, NodeId};
use tholos_paxos::{AppendSeq, Ballot, Index, Millis, MoveId, Record, ReplicaId};
use tholos_ring::ShardId;

use crate::load::{LoadSample, Round, Slowness};
use crate::peer::PeerMessage;
use crate::replicas::OrderError;
use crate::snapshot::{Discarded, LoadedSnapshot};

/// The time that the driver read just before it hands in an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Milliseconds of a clock that never jumps and goes on while the machine sleeps
    /// (CLOCK_BOOTTIME). Time-outs use it.
    pub mono: Millis,
    /// Unix milliseconds of the wall clock. Only shard time is made of it (R16).
    pub wall: Millis,
}

/// One client connection of one boot of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u64);

/// Which listener a client came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// Looks like one standalone Redis: any key, forwarded.
    Gateway,
    /// Speaks Redis Cluster: MOVED to the shard's leader.
    Cluster,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Time passed. Wanted about every 10 ms.
    Tick,
    /// A client connected.
    Connected {
        /// Its id, never used before in this boot.
        client: ClientId,
        /// The listener.
        port: Port,
        /// `host:port` of the client.
        remote: String,
        /// `host:port` it connected to.
        local: String,
        /// Whether the client's address is a loopback one (protected mode).
        loopback: bool,
    },
    /// A client sent commands: each an array of at least one argument, in order.
    Commands {
        /// Who.
        client: ClientId,
        /// The commands.
        commands: Vec<Vec<Bytes>>,
    },
    /// What a client sent is not the protocol: after the replies still due it gets this
    /// error (without the `-`) and is closed.
    Malformed {
        /// Who.
        client: ClientId,
        /// The text, beginning with `ERR Protocol error:`.
        text: Bytes,
    },
    /// A client is gone.
    Disconnected {
        /// Who.
        client: ClientId,
    },
    /// A message from another node.
    Peer {
        /// The sender, as authenticated by the connection.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// The connections to a node broke or were refused: what was sent may be lost.
    PeerDown {
        /// Which node.
        node: NodeId,
    },
    /// A connection to a node is (again) up.
    PeerUp {
        /// Which node.
        node: NodeId,
        /// The incarnation of the directory at its other end, as authenticated by the connection (R21).
        incarnation: Incarnation,
    },
    /// How far the log has come. Told beside [`Event::Durable`].
    DurableLsn {
        /// Up to here it is durable, for what others count of it (R21).
        lsn: u64,
        /// Bytes of its segments that are not released, of the last one as far as it is written, as far as is known.
        kept_bytes: u64,
    },
    /// Every append up to and including `seq` is durable.
    Durable {
        /// The last durable append.
        seq: AppendSeq,
    },
    /// What [`SnapshotJob::Write`] asked for is written, and the next may be asked for.
    SnapshotWritten {
        /// Which shard.
        shard: ShardId,
        /// The snapshot's last index.
        index: Index,
    },
    /// The snapshot that [`SnapshotJob::Finish`] asked for is durable, directory included (R22).
    SnapshotSaved {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// What [`SnapshotJob::Read`] asked for.
    SnapshotRead(ChunkRead),
    /// A snapshot that was to be sent cannot be read.
    SnapshotUnreadable {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// What [`SnapshotJob::Take`] asked for is written, and was not the last.
    SnapshotTaken {
        /// Which shard.
        shard: ShardId,
        /// The file that arrives, by a number that no other has in this boot.
        file: u64,
        /// The chunk.
        chunk: u32,
    },
    /// All of a received snapshot is durable under its own name, directory included, and has been read.
    SnapshotLoaded {
        /// Which shard.
        shard: ShardId,
        /// The file that arrives, by a number that no other has in this boot.
        file: u64,
        /// What it holds.
        snapshot: Box<LoadedSnapshot>,
    },
    /// A received snapshot could not be written, or is not what was sent; its file is given up.
    SnapshotRefused {
        /// Which shard.
        shard: ShardId,
        /// The file that arrives, by a number that no other has in this boot.
        file: u64,
    },
    /// A snapshot could not be written; its file is given up.
    SnapshotFailed {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// What the driver measured since it last told, about every 100 ms.
    Load(LoadSample),
    /// All that was handed in since the last one was a round of the worker, which has ended.
    Round(Round),
    /// Hand every leadership over (SIGTERM, drain). Proposals are refused from here on, with
    /// a hint to the heir.
    Resign,
    /// An order to change the replica set of a shard that is led here (R6, R7).
    ChangeReplicas(ReplicaOrder),
    /// What [`Effects::bar`] asked for is durable.
    BarKept,
    /// The map of [`Effects::map`] is durable, and the nodes in it are reached from here on.
    MapKept {
        /// Its epoch.
        epoch: Epoch,
    },
    /// Somebody wants the meta group to decide a command; answered by [`Effects::meta_answers`].
    AskMeta {
        /// Returned with the answer.
        asker: u64,
        /// The command.
        command: Box<MetaCommand>,
    },
    /// How much room there is for replicas that are to come, looked at now and then; `None` if nobody knows.
    Room {
        /// Bytes that may still be written to the disk, the reserve left out.
        disk_free: Option<u64>,
        /// Bytes of memory that the machine can give.
        memory_free: Option<u64>,
    },
    /// The log has so much room from now on.
    LogRoom(LogRoom),
}

/// What the log still takes. The driver starts with [`LogRoom::Ample`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogRoom {
    /// Everything.
    #[default]
    Ample,
    /// Less than its reserve: clients' writes are refused.
    Short,
    /// So little that entries of other leaders are not taken either, as if they were lost on the way: the checkpoints that
    /// release what the log holds would wait behind them for ever.
    Spent,
}

/// Why a command for the meta group has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaFailure {
    /// For whoever asked: why, and what to do.
    pub text: String,
    /// Whether to ask again: nobody has refused, and what was asked may still be done.
    pub retry: bool,
}

/// An order: the replica set of a shard shall be this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaOrder {
    /// The shard.
    pub shard: ShardId,
    /// The number of the configuration that the order was made for (R7).
    pub number: u64,
    /// The order's own number, for whoever gave it.
    pub move_id: MoveId,
    /// Who votes afterwards, in walk order.
    pub voters: Vec<NodeId>,
    /// Who learns.
    pub learners: Vec<NodeId>,
}

/// An append for the node's log. Appends are carried out in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// Numbers all appends of this node from 1 in this boot.
    pub seq: AppendSeq,
    /// The group.
    pub shard: ShardId,
    /// What to keep.
    pub record: Record,
}

/// A chunk of a snapshot, read to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRead {
    /// Which shard.
    pub shard: ShardId,
    /// The snapshot's last index.
    pub index: Index,
    /// For whom.
    pub to: NodeId,
    /// The chunk's number.
    pub chunk: u32,
    /// How many there are; 0 while the file is being written.
    pub chunks: u32,
    /// The chunk.
    pub bytes: Bytes,
    /// The checksum of everything up to its end.
    pub checksum: u32,
}

/// Work on the files of snapshots, and what takes a while like it. Carried out in the order given, on a thread of its
/// own: nobody waits for it but the next piece of the same work.
#[derive(Debug)]
pub enum SnapshotJob {
    /// Begin the file of a snapshot, in place of one begun earlier.
    Begin {
        /// Which shard.
        shard: ShardId,
        /// The last index that it covers.
        index: Index,
    },
    /// Write a chunk of it; answered by [`Event::SnapshotWritten`], or by [`Event::SnapshotFailed`] and then nothing more.
    Write {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
        /// The chunk. An empty one only wants the answer.
        bytes: Bytes,
        /// Whether the log waits for the snapshot: it is not to be slowed down for others' sake.
        hurry: bool,
    },
    /// Make the file durable with its directory, under its own name (R22); answered by [`Event::SnapshotSaved`].
    Finish {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// Give up the unfinished file.
    Abandon {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// Read a chunk of a snapshot, finished or begun, to be sent; answered by [`Event::SnapshotRead`] or
    /// [`Event::SnapshotUnreadable`].
    Read {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
        /// For whom.
        to: NodeId,
        /// The chunk's number.
        chunk: u32,
    },
    /// Write a chunk that came from a leader; the first begins a file beside those of [`SnapshotJob::Begin`], instead of
    /// one of the same shard. The chunk's checksum must be what the file's comes to. What is in it goes to a
    /// [`SnapshotLoader`](crate::SnapshotLoader). After the last, make the file durable under its own name (R22).
    ///
    /// Answered by [`Event::SnapshotTaken`], after the last by [`Event::SnapshotLoaded`], or by
    /// [`Event::SnapshotRefused`] and then nothing more.
    Take {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
        /// The file that arrives, by a number that no other has in this boot.
        file: u64,
        /// The chunk's number.
        chunk: u32,
        /// The checksum of everything up to its end.
        checksum: u32,
        /// The chunk.
        bytes: Bytes,
        /// Whether it is the last.
        last: bool,
    },
    /// Give up what has come of a snapshot.
    Forget {
        /// Which shard.
        shard: ShardId,
        /// The file that arrives, by a number that no other has in this boot.
        file: u64,
    },
    /// Snapshots of this shard below this index are not needed any more.
    RemoveBelow {
        /// Which shard.
        shard: ShardId,
        /// The oldest index still needed.
        index: Index,
    },
    /// Drop this: it takes a while to free.
    Drop(Discarded),
}

/// What the driver is to do. Appends in the order given; all else in any order, at once.
#[derive(Default, Debug)]
pub struct Effects {
    /// To the log.
    pub appends: Vec<Append>,
    /// To other nodes. Small and urgent unless [`PeerMessage::is_bulk`].
    pub sends: Vec<(NodeId, PeerMessage)>,
    /// Bytes to clients, each client's in order.
    pub replies: Vec<(ClientId, Bytes)>,
    /// How many of a client's commands the replies above complete, so that the driver can bound
    /// what it reads ahead.
    pub completed: Vec<(ClientId, u32)>,
    /// Clients to close once their replies are written.
    pub closes: Vec<ClientId>,
    /// Work on snapshots, in the order given.
    pub snapshots: Vec<SnapshotJob>,
    /// Appends below this are not needed any more: their segments may be recycled.
    pub release: Option<AppendSeq>,
    /// Keep durably that this directory begins no replicas any more, for
    /// [`Node::recover_barred`](crate::Node::recover_barred); answered by [`Event::BarKept`].
    pub bar: bool,
    /// A newer map: to be made durable, for [`Node::recover_map`](crate::Node::recover_map), and the nodes in it to be
    /// reached; answered by [`Event::MapKept`]. A later one replaces it.
    pub map: Option<Box<MetaState>>,
    /// The node is to hand its leaderships over, to end in order and to begin anew, by the program that is there then. Told
    /// once.
    pub restart: bool,
    /// What became of commands for the meta group: the number that it answered, or why nothing was done.
    pub meta_answers: Vec<(u64, Result<u64, MetaFailure>)>,
    /// What happened, for logs, metrics and the console.
    pub notices: Vec<Notice>,
}

/// Why a replica is mute: it promises and accepts nothing, does not stand, and confirms no read until it is repaired
/// (R20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// Records of its log that were durable once cannot be read any more.
    Log,
    /// The snapshot that its log names is damaged or gone.
    Snapshot,
    /// The log had less than a peer has counted of it: the directory is an old copy, or the end of the log is gone (R21).
    Restored,
    /// Its state differed from what a majority has (R24).
    Diverged,
    /// It was mute when the node stopped.
    Before,
}

impl core::fmt::Display for Loss {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Loss::Log => "records of its log cannot be read",
            Loss::Snapshot => "its snapshot is damaged or gone",
            Loss::Restored => "its directory is older than what the others have counted of it",
            Loss::Diverged => "its state differed from the others'",
            Loss::Before => "its data was found damaged at an earlier start",
        })
    }
}

/// Something worth a log line or a counter.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A node has another incarnation than the map says, and is not heard (R21): its directory is a copy, or an old one put back.
    OtherIncarnation {
        /// Which node.
        node: NodeId,
    },
    /// This node now leads a shard and serves it.
    LeaderElected {
        /// Which shard.
        shard: ShardId,
        /// The ballot it leads in.
        ballot: Ballot,
    },
    /// This node no longer leads a shard.
    LeaderStoppedLeading {
        /// Which shard.
        shard: ShardId,
        /// The ballot it led in.
        ballot: Ballot,
    },
    /// A node has not been heard for an election time-out.
    NodeLost {
        /// Which node.
        node: NodeId,
    },
    /// A node is heard again.
    NodeHeard {
        /// Which node.
        node: NodeId,
    },
    /// A snapshot from the leader replaced this replica's state.
    SnapshotInstalled {
        /// Which shard.
        shard: ShardId,
        /// Its last index.
        index: Index,
    },
    /// A replica of this node has lost data and is mute until it is repaired (R20).
    ReplicaMuted {
        /// Which shard.
        shard: ShardId,
        /// What it has lost.
        loss: Loss,
    },
    /// A replica that was mute has what it lacked and votes again.
    ReplicaRepaired {
        /// Which shard.
        shard: ShardId,
    },
    /// A replica elsewhere that has lost data cannot be repaired as it is: it is given another id, by a change of the set.
    ReplicaRenewed {
        /// Which shard.
        shard: ShardId,
        /// It lived under this one.
        lost: ReplicaId,
        /// It is to begin anew under this one.
        by: ReplicaId,
    },
    /// A transfer of a snapshot to another node goes on where it broke off.
    SnapshotResumed {
        /// Which shard.
        shard: ShardId,
        /// To which node.
        node: NodeId,
        /// The first chunk that it lacks.
        chunk: u32,
    },
    /// This node recovered less than a peer has counted of its log: all its replicas are mute (R21).
    WentBack {
        /// The peer.
        counted_by: NodeId,
        /// Where the log ended.
        recovered: u64,
        /// Where it had been durable to.
        counted: u64,
    },
    /// A peer recovered less than this node has counted of its log: its word does not count until it says that it knows.
    PeerWentBack {
        /// The peer.
        node: NodeId,
    },
    /// A replica has another state than a majority at the same index: it is repaired, a leader after it has handed over
    /// (R24). Told by the leader.
    ReplicaDiverged {
        /// Which shard.
        shard: ShardId,
        /// Whose replica.
        node: NodeId,
        /// At which index.
        index: Index,
    },
    /// The replicas of a shard have different states at the same index, and no majority agrees: somebody must look (R24).
    StatesDiffer {
        /// Which shard.
        shard: ShardId,
        /// At which index, about.
        index: Index,
    },
    /// An order was taken: the replica set changes, if this ballot decides it.
    ReplicasChanging {
        /// Which shard.
        shard: ShardId,
        /// The order.
        move_id: MoveId,
    },
    /// An order was refused; nothing changed.
    ChangeRefused {
        /// Which shard.
        shard: ShardId,
        /// The order.
        move_id: MoveId,
        /// Why.
        error: OrderError,
    },
    /// A change of a replica set is decided, as this node has learnt.
    ReplicasChanged {
        /// Which shard.
        shard: ShardId,
        /// The number of its configuration now.
        number: u64,
        /// The order that it carries out.
        move_id: MoveId,
    },
    /// This node begins a replica of a shard.
    ReplicaJoined {
        /// Which shard.
        shard: ShardId,
        /// The id under which it joins.
        replica: ReplicaId,
    },
    /// A replica that is retired was dropped with its state.
    ReplicaDropped {
        /// Which shard.
        shard: ShardId,
        /// The id that is retired.
        replica: ReplicaId,
    },
    /// A group has lost its majority for good, and the replica here goes on with the log that it has (R29).
    GroupRescued {
        /// Which group.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The number of the configuration that it goes on with.
        number: u64,
    },
    /// A replica cannot go on as a recovery wanted it. Told by the leader of the meta group.
    RescueRefused {
        /// Which group.
        shard: ShardId,
        /// Whose replica.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// This node has a newer map.
    MapChanged {
        /// Its epoch.
        epoch: Epoch,
    },
    /// A job starts by itself; told by the leader of the meta group.
    JobStarts {
        /// What it does.
        title: String,
    },
    /// This node restarts, as the running job wants it.
    RestartOrdered,
    /// This node can do less of what it should than before, or more again: leaderships follow.
    CapacityChanged {
        /// What it could do before, in percent of what it should.
        before: u8,
        /// What it can do now, likewise.
        capacity: u8,
        /// Why it is not all.
        slowness: Option<Slowness>,
    },
    /// A peer's message made no sense and was dropped.
    MessageDropped {
        /// The sender.
        node: NodeId,
        /// Why, in a few words.
        reason: &'static str,
    },
}
