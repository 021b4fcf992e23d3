//! For the tests of other rooms: a spool on a disk that fails when it is told to.

use std::path::Path;
use std::sync::Arc;

pub(crate) use super::tests::disk::{Op, TestDisk};
use super::{Spool, SpoolOptions, Waiting};

/// A spool in `dir` on this disk, and who waits in it.
pub(crate) fn open(dir: &Path, disk: Arc<TestDisk>) -> (Spool, Vec<Waiting>) {
    let options = SpoolOptions { segment_bytes: 1 << 20, free_bytes_min: 0, ..SpoolOptions::default() };
    Spool::open_on(dir, options, disk).unwrap()
}
