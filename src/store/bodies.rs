//! Large bodies, in files of their own beside the database.
//!
//! A file is written and synced, and its folder synced, before the row that names it is committed; it is removed
//! after the row that named it is gone. What a crash leaves between the two is a file without a row: the next start
//! removes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// The folder of large bodies.
pub(super) struct Bodies {
    dir: PathBuf,
}

/// A file that no committed row names yet: dropping it removes the file.
pub(super) struct NewBody {
    name: Option<String>,
    path: PathBuf,
}

impl Bodies {
    /// Makes the folder.
    pub(super) fn open(dir: PathBuf) -> Result<Self, StoreError> {
        make_dir(&dir).map_err(|error| StoreError::io(&dir, error))?;
        Ok(Self { dir })
    }

    /// 256 folders, so that none gets too long.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name.get(..2).unwrap_or("00")).join(name)
    }

    /// Writes and syncs a new file.
    pub(super) fn write(&self, body: &[u8]) -> Result<NewBody, StoreError> {
        let name = format!("{:032x}", rand::random::<u128>());
        let path = self.path(&name);
        let new = NewBody { name: Some(name), path };
        let folder = new.path.parent().unwrap_or(&self.dir);
        let written = (|| {
            make_dir(folder)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new.path)?;
            file.write_all(body)?;
            file.sync_all()?;
            sync_dir(folder)
        })();
        written.map_err(|error| StoreError::io(&new.path, error))?;
        Ok(new)
    }

    /// Reads a body behind what `whole` holds already; false when the file is gone.
    pub(super) fn read_into(&self, name: &str, whole: &mut Vec<u8>) -> Result<bool, StoreError> {
        let path = self.path(name);
        match File::open(&path).and_then(|mut file| file.read_to_end(whole)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Removes files whose rows are gone. A failure is told in the log; the next start tries again.
    pub(super) fn remove(&self, names: &[String]) {
        for name in names {
            remove_file(&self.path(name));
        }
    }

    /// Removes every body that `known` does not know; the number removed. Called before anybody writes.
    pub(super) fn sweep(
        &self,
        mut known: impl FnMut(&str) -> Result<bool, StoreError>,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for folder in entries(&self.dir)? {
            if !folder.is_dir() {
                continue;
            }
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                // What an operator put there is not ours to remove.
                if is_name(name) && !known(name)? {
                    remove_file(&path);
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

impl NewBody {
    /// The name to write into the row.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The row is written: the file stays.
    pub(super) fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for NewBody {
    fn drop(&mut self) {
        if self.name.is_some() {
            remove_file(&self.path);
        }
    }
}

/// Whether a file's name is one that [`Bodies::write`] gives.
fn is_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|error| StoreError::io(dir, error))
}

/// Makes a folder that only we can look into, and syncs the one it stands in.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the file of a body");
        }
        _ => {}
    }
}
