//! Messages that stand in files of their own: `large/<id>.msg`, the content and nothing else. The record in the
//! log has envelope, size and CRC. The file is durable before its record is, and goes when the message is done;
//! a file without a record is removed at the next start, or put aside (`<id>.lost`) where records are damaged.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Shared, SpoolError};
use crate::names::QueueId;

const PUT_ASIDE: &str = "lost";

/// The folder.
pub(super) fn folder(spool: &Path) -> PathBuf {
    spool.join("large")
}

/// The file of a message.
pub(super) fn path(spool: &Path, id: QueueId) -> PathBuf {
    folder(spool).join(format!("{id}.msg"))
}

/// The message of a file.
pub(super) fn id_of(path: &Path) -> Option<QueueId> {
    (path.extension()? == "msg").then_some(())?;
    path.file_stem()?.to_str()?.parse().ok()
}

/// Where a file goes whose record may have been lost, for an operator to look at.
pub(super) fn put_aside(path: &Path) -> PathBuf {
    path.with_extension(PUT_ASIDE)
}

/// Whether a file was put aside.
pub(super) fn is_put_aside(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == PUT_ASIDE)
}

/// Writes a file; it and its name are durable on return.
pub(super) fn write(shared: &Shared, id: QueueId, content: &Bytes) -> Result<(), SpoolError> {
    let (disk, path) = (&shared.disk, path(&shared.dir, id));
    let needed = shared.options.free_bytes_min.saturating_add(content.len() as u64);
    if disk.available(&shared.dir)? < needed {
        return Err(SpoolError::Full);
    }
    let written = (|| {
        let file = disk.allocate(&path, content.len() as u64)?;
        disk.write_at(&file, content, 0)?;
        disk.sync(&file)?;
        disk.sync_dir(&folder(&shared.dir))
    })();
    written.map_err(|error: io::Error| {
        remove(shared, id);
        match error.kind() {
            io::ErrorKind::StorageFull => SpoolError::Full,
            _ => error.into(),
        }
    })
}

/// Removes a file; what cannot be removed now is removed at the next start.
pub(super) fn remove(shared: &Shared, id: QueueId) {
    match shared.disk.remove(&path(&shared.dir, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%id, %error, "the file of a large message could not be removed");
        }
        _ => {}
    }
}
