//! Messages in files of their own.

use std::io::ErrorKind;

use super::disk::{Op, kill, open_on};
use super::*;

fn files(dir: &TempDir) -> Vec<PathBuf> {
    std::fs::read_dir(super::super::large::folder(dir.path()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn a_large_message_has_a_file_until_it_is_done() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let big = message(1, 1, 200_000);
    let id = run(spool.accept(big.clone(), false)).unwrap();
    assert_eq!(files(&dir), [super::super::large::path(dir.path(), id)]);
    assert!(spool.stats().live_bytes < 2000);
    kill(spool, &disk);

    let (spool, _) = open(&dir);
    assert_eq!(*spool.read(id).unwrap().unwrap().message, *big);
    let summary = spool.read_summary(id).unwrap().unwrap();
    assert_eq!(
        (&summary.message.content[..], summary.size),
        (&b"Subject: 1\r\n\r\n"[..], big.content.len() as u64)
    );
    run(spool.settle(id, vec![done(0)])).unwrap();
    eventually("the file is gone", || files(&dir).is_empty());
    assert_eq!(spool.stats().large_messages, 0);
}

#[test]
fn files_without_a_message_are_removed_at_the_start() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let kept = run(spool.accept(message(1, 1, 20_000), false)).unwrap();
    let settled = run(spool.accept(message(2, 1, 20_000), false)).unwrap();
    disk.fail(Op::Remove, u32::MAX, ErrorKind::Other);
    run(spool.settle(settled, vec![done(0)])).unwrap();
    kill(spool, &disk);
    std::fs::write(super::super::large::path(dir.path(), QueueId(77)), "never recorded").unwrap();
    assert_eq!(files(&dir).len(), 3);
    let (spool, _) = open(&dir);
    assert_eq!(files(&dir), [super::super::large::path(dir.path(), kept)]);
    assert!(spool.read(kept).unwrap().is_some());
}

#[test]
fn a_file_whose_record_may_be_damaged_is_put_aside_and_not_removed() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let id = run(spool.accept(message(1, 1, 20_000), false)).unwrap();
    run(spool.accept(message(2, 1, 10), false)).unwrap();
    kill(spool, &disk);
    let segments = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for path in segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg")) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, b"r0@example.org") {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let lost = super::super::large::path(dir.path(), id).with_extension("lost");
    for _ in 0..2 {
        let (spool, waiting) = open(&dir);
        assert_eq!(waiting.len(), 1, "the other message is there");
        assert_eq!(files(&dir), std::slice::from_ref(&lost));
        drop(spool);
    }
}

#[test]
fn a_large_message_that_cannot_be_recorded_leaves_no_file() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    for (op, kind) in [(Op::Allocate, ErrorKind::StorageFull), (Op::SyncDir, ErrorKind::Other)] {
        disk.fail(op, 1, kind);
        let refused = run(spool.accept(message(1, 1, 20_000), false)).unwrap_err();
        assert_eq!(matches!(refused, SpoolError::Full), kind == ErrorKind::StorageFull, "{refused}");
        assert!(files(&dir).is_empty());
    }
    run(spool.accept(message(1, 1, 20_000), false)).unwrap();
}

#[test]
fn a_damaged_or_missing_file_is_told() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let id = run(spool.accept(message(1, 1, 20_000), false)).unwrap();
    let path = super::super::large::path(dir.path(), id);
    let mut content = std::fs::read(&path).unwrap();
    content[15_000] ^= 1;
    std::fs::write(&path, content).unwrap();
    assert!(matches!(spool.read(id), Err(SpoolError::Damaged(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(spool.read(id), Err(SpoolError::Damaged(_))));
    drop(spool);
    let (spool, waiting) = open(&dir);
    assert_eq!((waiting.len(), spool.stats().damaged), (1, 1));
}
