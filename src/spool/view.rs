//! A spool that no server has open, for who only wants to read it: nothing in it is changed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, OsDisk};
use super::types::{SpoolError, SpoolOptions, StoredMessage, Waiting};
use super::{Shared, lock, read, recover};
use crate::names::QueueId;

/// The messages of a spool. It is locked meanwhile: no server starts with it.
pub struct SpoolView {
    shared: Arc<Shared>,
    _lock: File,
}

impl SpoolView {
    /// Opens the spool in `dir`; `None` when there is none. Blocking.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] when a server has it open, [`SpoolError::Io`] when it cannot be read.
    pub fn open(dir: &Path) -> Result<Option<Self>, SpoolError> {
        if !dir.join(super::LOCK_FILE).exists() {
            return Ok(None);
        }
        let lock = lock(dir)?;
        let (options, disk) = (SpoolOptions::default(), Arc::new(Untouched));
        let recovered = recover::recover(dir, &options, disk.as_ref())?;
        let shared = Arc::new(Shared::new(dir, options, disk, recovered));
        Ok(Some(Self { shared, _lock: lock }))
    }

    /// As [`Spool::waiting`](super::Spool::waiting).
    pub fn waiting(&self, after: Option<QueueId>, limit: usize) -> Vec<Waiting> {
        self.shared.index.lock().page(after, limit)
    }

    /// As [`Spool::read_summary`](super::Spool::read_summary).
    pub fn read_summary(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        read::read(&self.shared, id, false)
    }
}

/// A disk on which nothing is changed: what a recovery would tidy up stays for the next start of a server.
struct Untouched;

impl Disk for Untouched {
    fn allocate(&self, _: &Path, _: u64) -> io::Result<File> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_at(&self, _: &File, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.available(dir)
    }
}
