//! The file operations that the spool depends on, as a seam: tests put a disk here that fails or stops at a
//! chosen operation. Reading is not part of it: damage is put into the files themselves.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fs2::FileExt as _;

/// What changes files.
pub(super) trait Disk: Send + Sync {
    /// Makes a new file whose space is reserved; it must not exist.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<File>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written to the file is durable.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Returns when the names in a directory are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file within a directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be allocated on the file system of `dir`.
    fn available(&self, dir: &Path) -> io::Result<u64>;
}

/// The operating system's files.
pub(super) struct OsDisk;

impl Disk for OsDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.allocate(bytes)?;
        Ok(file)
    }

    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }
}
