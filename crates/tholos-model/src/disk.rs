//! The disk of one replica: what would come back if its machine lost its power now.
//!
//! A disk is kept as the replicas that it would bring back, not as the records that led there. There may be several of
//! them, for a log is released late, if at all: that of all records, and, once a checkpoint and the file of the snapshot that
//! it names are both durable, that of the records from the checkpoint on (R22). Which one it is shows only when the machine
//! starts again.

use tholos_paxos::{Base, Checkpoint, Config, Group, Index, Record};

/// A snapshot: all that was applied up to an index. What that is the index and its origin say.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Image {
    pub(crate) base: Base,
    pub(crate) config: Config,
}

impl Image {
    /// All that `group` has applied.
    pub(crate) fn of(group: &Group) -> Image {
        Image { base: group.applied_base(), config: group.applied_config().clone() }
    }
}

/// What is durable of one replica.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Disk {
    /// What comes back if nothing was released.
    pub(crate) whole: Group,
    /// What comes back if all before a checkpoint was released, for each that is on the disk and that no later one that
    /// counts has replaced.
    heads: Vec<Head>,
    /// The last durable snapshot of which this boot knows.
    pub(crate) file: Option<Image>,
    /// Planted: records are released before the file is durable.
    releases_early: bool,
}

/// The records from a checkpoint on.
#[derive(Clone, Hash, Debug)]
struct Head {
    group: Group,
    /// Records that belong to the checkpoint and are not durable yet.
    awaited: u64,
    /// The snapshot that the checkpoint names.
    file: Index,
    /// Whether its file is durable.
    file_whole: bool,
}

impl Head {
    fn counts(&self) -> bool {
        self.file_whole && self.awaited == 0
    }
}

impl Disk {
    pub(crate) fn new(whole: Group, releases_early: bool) -> Disk {
        Disk { whole, heads: Vec::new(), file: None, releases_early }
    }

    /// One more record is durable. An error says why it cannot follow what is there. If it is a checkpoint, `belong` records
    /// more belong to it.
    pub(crate) fn write(&mut self, record: Record, blank: &Group, belong: u64) -> Result<(), &'static str> {
        let Record::Checkpoint(checkpoint) = record else {
            for head in &mut self.heads {
                head.group.recover(record.clone())?;
                head.awaited = head.awaited.saturating_sub(1);
            }
            self.forget_replaced();
            return self.whole.recover(record);
        };
        let file_whole = self.has_file(checkpoint.snapshot);
        let groups = self.heads.iter_mut().map(|head| &mut head.group);
        for group in groups.chain([&mut self.whole]) {
            take_back(group, &checkpoint, file_whole)?;
        }
        let (mut group, file) = (blank.clone(), checkpoint.snapshot);
        group.recover(Record::Checkpoint(checkpoint))?;
        self.heads.push(Head { group, awaited: belong, file, file_whole });
        self.forget_replaced();
        Ok(())
    }

    /// The file of `image` is durable.
    pub(crate) fn save(&mut self, image: Image) {
        let heads = self.heads.iter_mut().filter(|head| head.file == image.base.index);
        heads.for_each(|head| head.file_whole = true);
        self.file = Some(image);
        self.forget_replaced();
    }

    fn has_file(&self, index: Index) -> bool {
        index == Index::ZERO || self.file.as_ref().is_some_and(|file| file.base.index == index)
    }

    /// Of the checkpoints that count only the last one does.
    fn forget_replaced(&mut self) {
        let last = self.heads.iter().rposition(Head::counts);
        self.heads.drain(..last.unwrap_or(0));
    }

    fn releasable(&self) -> Option<&Head> {
        self.heads.iter().rfind(|head| head.counts() || self.releases_early)
    }

    /// Whether the records before a checkpoint may be gone.
    pub(crate) fn may_be_released(&self) -> bool {
        self.releasable().is_some()
    }

    /// The records before the last checkpoint that counts are gone.
    pub(crate) fn release(&mut self) -> Result<(), &'static str> {
        let Some(head) = self.releasable() else { return Ok(()) };
        if !head.file_whole {
            return Err("a checkpoint whose snapshot is not there");
        }
        self.whole = head.group.clone();
        self.heads.clear();
        Ok(())
    }

    /// Power is lost: which of the two came back has shown. Older files are known no more.
    pub(crate) fn reopen(&mut self) {
        self.heads.clear();
        let restored = self.whole.base().index > Index::ZERO;
        self.file = restored.then(|| Image::of(&self.whole));
    }

    /// All that may come back.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Group> {
        let released = self.heads.iter().rfind(|head| head.counts()).map(|head| &head.group);
        released.into_iter().chain([&self.whole])
    }
}

/// As a driver does at start: with all records before the checkpoint there, neither it nor its snapshot is needed.
fn take_back(group: &mut Group, checkpoint: &Checkpoint, file_whole: bool) -> Result<(), &'static str> {
    if group.recover_known(checkpoint) {
        return Ok(());
    }
    if !file_whole {
        return Err("a checkpoint whose snapshot is not there, and not all records before it");
    }
    group.recover(Record::Checkpoint(Box::new(checkpoint.clone())))
}

#[cfg(test)]
mod tests {
    use tholos_paxos::ReplicaId;

    use super::*;
    use crate::Council;
    use crate::configs::{self, Start};
    use crate::state::{Budget, Replica};

    /// n1 leads, with two entries decided; what it appends for a snapshot of them.
    fn saving() -> (Replica, Image, Record) {
        let start = Start::Led { commands: 1, without: None, tail: false };
        let state = Council::new(3, configs::options(), start, Budget::default()).begin();
        let mut replica = state.replica(ReplicaId(1)).clone();
        let image = Image::of(&replica.group);
        replica.group.append_checkpoint(image.base, image.config.clone(), &mut replica.outbox);
        let record = replica.outbox.appends.remove(0);
        (replica, image, record)
    }

    fn bases(disk: &Disk) -> Vec<u64> {
        disk.outcomes().map(|group| group.base().index.0).collect()
    }

    #[test]
    fn a_checkpoint_may_stand_alone_when_its_file_is_durable() {
        let (Replica { mut disk, blank, .. }, image, checkpoint) = saving();
        let whole = disk.whole.accepted_index();
        disk.write(checkpoint, &blank, 0).expect("all before it is there");
        assert_eq!((bases(&disk), disk.may_be_released()), (vec![0], false));
        disk.save(image.clone());
        assert_eq!((bases(&disk), disk.may_be_released()), (vec![2, 0], true));
        // Nothing was released: all is there, and the snapshot is not needed.
        let mut kept = disk.clone();
        kept.reopen();
        assert_eq!((bases(&kept), kept.whole.accepted_index(), kept.file), (vec![0], whole, None));
        disk.release().expect("its file is there");
        disk.reopen();
        assert_eq!((bases(&disk), disk.whole.accepted_index(), disk.file), (vec![2], whole, Some(image)));
    }

    #[test]
    fn a_checkpoint_waits_for_the_records_that_belong_to_it() {
        let (Replica { mut disk, blank, group, .. }, image, checkpoint) = saving();
        disk.save(image);
        disk.write(checkpoint, &blank, 1).expect("all before it is there");
        assert!(!disk.may_be_released());
        disk.write(Record::Promised { ballot: group.promised() }, &blank, 0).expect("a promise follows");
        assert!(disk.may_be_released());
    }

    #[test]
    fn a_snapshot_that_is_not_there_is_missed() {
        let (Replica { disk, blank, .. }, image, checkpoint) = saving();
        let mut lacks = Disk::new(Group::clone(&blank), false);
        let missed = "a checkpoint whose snapshot is not there, and not all records before it";
        assert_eq!(lacks.write(checkpoint.clone(), &blank, 0), Err(missed));
        lacks.save(image);
        assert_eq!(lacks.write(checkpoint.clone(), &blank, 0), Ok(()));
        let mut early = Disk::new(disk.whole, true);
        early.write(checkpoint, &blank, 0).expect("all before it is there");
        assert_eq!(early.release(), Err("a checkpoint whose snapshot is not there"));
    }
}
