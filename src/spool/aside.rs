//! What is left of messages that cannot be read: `damaged/<id>.records`, the records about one as they stand in the log, and
//! `damaged/<id>.msg` where its content has a file of its own. Nothing here is read again, and nothing is removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::{Shared, SpoolError, large, read};
use crate::names::QueueId;

/// Copies them; they are durable on return.
pub(super) fn copy(shared: &Shared, id: QueueId) -> Result<PathBuf, SpoolError> {
    let (entry, places) = read::look_up(shared, id).ok_or(SpoolError::Unknown(id))?;
    let folder = shared.dir.join("damaged");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{id}.records"));
    let mut file = File::create(&path)?;
    for place in &places {
        file.write_all(&place.bytes(place.loc.bytes as usize)?)?;
    }
    file.sync_all()?;
    if entry.large {
        // The same file under another name: the first one goes with the message.
        match fs::hard_link(large::path(&shared.dir, id), folder.join(format!("{id}.msg"))) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                return Err(error.into());
            }
            _ => {}
        }
    }
    shared.disk.sync_dir(&folder)?;
    shared.disk.sync_dir(&shared.dir)?;
    Ok(path)
}
