//! A disk that fails when it is told to, and that can lose what was not synced.

use std::io;
use std::os::unix::fs::FileExt as _;

use super::*;

/// The operations, as tests name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Allocate,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

#[derive(Default)]
struct Plan {
    /// Fail the next so many of a kind, with this error.
    failing: Vec<(Op, u32, io::ErrorKind)>,
    /// After so many operations nothing works any more.
    cut_after: Option<u64>,
    operations: u64,
    available: Option<u64>,
    /// What was there before each write that is not synced: file, offset, bytes.
    unsynced: Vec<(File, u64, Vec<u8>)>,
}

/// The disk.
#[derive(Default)]
pub(crate) struct TestDisk {
    plan: Mutex<Plan>,
}

/// Writes are kept or lost in pieces of this size.
const PAGE: usize = 512;

impl TestDisk {
    pub(crate) fn fail(&self, op: Op, times: u32, kind: io::ErrorKind) {
        self.plan.lock().failing.push((op, times, kind));
    }

    pub(crate) fn work_again(&self) {
        self.plan.lock().failing.clear();
    }

    /// From now on, after so many more operations, nothing works.
    pub(super) fn cut_after(&self, operations: u64) {
        let mut plan = self.plan.lock();
        plan.cut_after = Some(plan.operations + operations);
    }

    pub(super) fn operations(&self) -> u64 {
        self.plan.lock().operations
    }

    pub(super) fn is_cut(&self) -> bool {
        let plan = self.plan.lock();
        plan.cut_after.is_some_and(|after| plan.operations >= after)
    }

    pub(super) fn set_available(&self, bytes: u64) {
        self.plan.lock().available = Some(bytes);
    }

    /// Takes back writes that were not synced, all but the pieces that are to be kept.
    pub(super) fn lose_unsynced(&self, mut keep: impl FnMut() -> bool) {
        for (file, offset, before) in self.plan.lock().unsynced.drain(..).rev() {
            for (index, piece) in before.chunks(PAGE).enumerate() {
                if !keep() {
                    file.write_all_at(piece, offset + (index * PAGE) as u64).unwrap();
                }
            }
        }
    }

    fn step(&self, op: Op) -> io::Result<()> {
        let mut plan = self.plan.lock();
        if plan.cut_after.is_some_and(|after| plan.operations >= after) {
            return Err(io::Error::other("power cut"));
        }
        plan.operations += 1;
        let failing = plan.failing.iter_mut().find(|(failing, times, _)| *failing == op && *times > 0);
        match failing {
            None => Ok(()),
            Some((_, times, kind)) => {
                *times -= 1;
                Err((*kind).into())
            }
        }
    }
}

fn same(a: &File, b: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    a.metadata().unwrap().ino() == b.metadata().unwrap().ino()
}

impl Disk for TestDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<File> {
        self.step(Op::Allocate)?;
        OsDisk.allocate(path, bytes)
    }

    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        self.step(Op::Write)?;
        let mut before = vec![0; data.len()];
        file.read_exact_at(&mut before, offset)?;
        self.plan.lock().unsynced.push((file.try_clone()?, offset, before));
        OsDisk.write_at(file, data, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step(Op::Sync)?;
        self.plan.lock().unsynced.retain(|(unsynced, ..)| !same(unsynced, file));
        OsDisk.sync(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::SyncDir)?;
        OsDisk.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename)?;
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Op::Remove)?;
        OsDisk.remove(path)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        let set = self.plan.lock().available;
        set.map_or_else(|| OsDisk.available(dir), Ok)
    }
}

/// A spool on such a disk.
pub(super) fn open_on(dir: &TempDir) -> (Spool, Arc<TestDisk>) {
    let disk = Arc::new(TestDisk::default());
    (Spool::open_on(dir.path(), small(), disk.clone()).unwrap().0, disk)
}

/// Ends as `kill -9` does: nothing is written any more, what was written is there.
pub(super) fn kill(spool: Spool, disk: &TestDisk) {
    disk.cut_after(0);
    drop(spool);
}
