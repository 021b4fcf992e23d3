//! Writes and syncs that fail, disks that are full, power that goes.

use std::io::ErrorKind;

use super::disk::{Op, kill, open_on};
use super::*;

fn ids_after_restart(dir: &TempDir) -> Vec<QueueId> {
    let (spool, waiting) = open(dir);
    for waiting in &waiting {
        assert!(spool.read(waiting.id).unwrap().is_some());
    }
    waiting.iter().map(|waiting| waiting.id).collect()
}

#[test]
fn after_a_failed_sync_another_segment_is_used() {
    for op in [Op::Sync, Op::Write] {
        let dir = folder();
        let (spool, disk) = open_on(&dir);
        let before = run(spool.accept(message(1, 1, 100), false)).unwrap();
        let slot = spool.shared().index.lock().messages[&before].message.slot;
        disk.fail(op, 1, ErrorKind::Other);
        assert!(matches!(run(spool.accept(message(2, 1, 100), false)), Err(SpoolError::Io(_))));
        let after = run(spool.accept(message(3, 1, 100), false)).unwrap();
        assert_ne!(spool.shared().index.lock().messages[&after].message.slot, slot);
        assert_eq!(spool.stats().failures, 1);
        assert_eq!(spool.stats().messages, 2);
        kill(spool, &disk);
        assert_eq!(ids_after_restart(&dir), [before, after], "{op:?}: what was refused does not come back");
    }
}

#[test]
fn a_failed_segment_is_emptied_and_removed() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let id = run(spool.accept(message(1, 1, 100), false)).unwrap();
    run(spool.settle(id, vec![retry(0, 1, 900)])).unwrap();
    let slot = spool.shared().index.lock().messages[&id].message.slot;
    disk.fail(Op::Sync, 1, ErrorKind::Other);
    assert!(run(spool.accept(message(2, 1, 100), false)).is_err());
    run(spool.accept(message(3, 1, 100), false)).unwrap();
    eventually("the failed segment is gone", || !segment::path(dir.path(), slot).exists());
    let stored = spool.read(id).unwrap().unwrap();
    assert_eq!(stored.recipients[0].history, [failed(1)]);
    kill(spool, &disk);
    assert_eq!(ids_after_restart(&dir).len(), 2);
}

#[test]
fn outcomes_that_nobody_waits_for_survive_a_failure() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let ids: Vec<_> = (0..3).map(|n| run(spool.accept(message(n, 1, 100), true)).unwrap()).collect();
    disk.fail(Op::Sync, 3, ErrorKind::Other);
    spool.settle_later(ids[0], vec![done(0)]);
    spool.settle_later(ids[1], vec![done(0)]);
    eventually("both are recorded", || spool.stats().messages == 1);
    assert!(spool.stats().failures >= 3);
    kill(spool, &disk);
    assert_eq!(ids_after_restart(&dir), ids[2..]);
}

#[test]
fn an_outcome_is_written_before_it_is_synced() {
    let dir = folder();
    let disk = Arc::new(disk::TestDisk::default());
    let options = SpoolOptions { settle_delay: Duration::from_hours(1), ..small() };
    let (spool, _) = Spool::open_on(dir.path(), options, disk.clone()).unwrap();
    let id = run(spool.accept(message(1, 1, 100), true)).unwrap();
    let operations = disk.operations();
    spool.settle_later(id, vec![done(0)]);
    eventually("it is written", || disk.operations() > operations);
    kill(spool, &disk);
    assert_eq!(ids_after_restart(&dir), []);
}

#[test]
fn errors_are_answered_until_the_disk_works_again() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let before = run(spool.accept(message(1, 1, 100), false)).unwrap();
    disk.fail(Op::Sync, u32::MAX, ErrorKind::Other);
    for number in 0..20 {
        assert!(matches!(run(spool.accept(message(number, 1, 100), false)), Err(SpoolError::Io(_))));
    }
    assert!(segments(dir.path()).len() < 8, "a broken disk does not fill up with segments");
    disk.work_again();
    let mut after = None;
    eventually("it works again", || {
        after = run(spool.accept(message(2, 1, 100), false)).ok();
        after.is_some()
    });
    kill(spool, &disk);
    assert_eq!(ids_after_restart(&dir), [before, after.unwrap()]);
}

#[test]
fn a_full_disk_takes_no_mail_but_outcomes() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    disk.fail(Op::Allocate, u32::MAX, ErrorKind::StorageFull);
    let mut ids = Vec::new();
    let refused = loop {
        match run(spool.accept(message(1, 1, 2000), true)) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::Full), "{refused}");
    assert!(ids.len() > 10);
    for _ in 0..3 {
        assert!(matches!(run(spool.accept(message(1, 1, 2000), true)), Err(SpoolError::Full)));
    }
    for id in &ids[1..] {
        run(spool.settle(*id, vec![retry(0, 1, 900)])).unwrap();
    }
    disk.work_again();
    eventually("mail is taken again", || run(spool.accept(message(2, 1, 2000), true)).is_ok());
    kill(spool, &disk);
    assert_eq!(ids_after_restart(&dir).len(), ids.len() + 1);
}

#[test]
fn mail_is_refused_while_the_machine_needs_the_space() {
    let dir = folder();
    let disk = Arc::new(disk::TestDisk::default());
    let options = SpoolOptions { free_bytes_min: 1 << 20, ..small() };
    let (spool, _) = Spool::open_on(dir.path(), options, disk.clone()).unwrap();
    let id = run(spool.accept(message(1, 1, 100), false)).unwrap();
    disk.set_available((1 << 20) - 1);
    for body_bytes in [100, 20_000] {
        assert!(matches!(run(spool.accept(message(2, 1, body_bytes), false)), Err(SpoolError::Full)));
    }
    run(spool.settle(id, vec![done(0)])).unwrap();
    disk.set_available(1 << 30);
    run(spool.accept(message(3, 1, 100), false)).unwrap();
}

/// Fills several segments so that the first keeps one message with history and one tombstone.
fn mostly_dead(spool: &Spool) -> Vec<QueueId> {
    let mut kept = Vec::new();
    for number in 0..90 {
        let Ok(id) = run(spool.accept(message(number, 2, 3000), true)) else { return kept };
        let state = match number % 30 {
            0 => run(spool.settle(id, vec![retry(0, 1, 900), done(1)])).map(|()| kept.push(id)),
            _ => run(spool.settle(id, vec![done(0), done(1)])),
        };
        if state.is_err() {
            // Cut off in the middle: waiting or not, it must not matter.
            return kept;
        }
    }
    kept
}

#[test]
fn what_is_left_alive_is_copied_and_its_segment_used_again() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let kept = mostly_dead(&spool);
    assert_eq!(kept.len(), 3);
    eventually("old segments are free", || spool.stats().segments_used <= 4);
    let check = |spool: &Spool| {
        for (id, number) in kept.iter().zip([0, 30, 60]) {
            let stored = spool.read(*id).unwrap().unwrap();
            assert_eq!(*stored.message, *message(number, 2, 3000));
            assert_eq!(stored.recipients[0].history, [failed(1)]);
            assert_eq!(stored.recipients[1].status, Status::Done);
        }
        assert_eq!(spool.waiting(None, 10).len(), 3);
    };
    check(&spool);
    kill(spool, &disk);
    check(&open(&dir).0);
}

#[test]
fn a_power_cut_at_any_step_loses_and_invents_nothing() {
    let mut after = 4;
    let mut cut = true;
    let mut random = 1u64;
    while cut {
        let dir = folder();
        let (spool, disk) = open_on(&dir);
        disk.cut_after(after);
        let kept = mostly_dead(&spool);
        let known: Vec<QueueId> = spool.waiting(None, 1000).iter().map(|waiting| waiting.id).collect();
        if kept.len() == 3 {
            eventually("all is copied, or the power is gone", || {
                disk.is_cut() || spool.stats().segments_used <= 4
            });
        }
        cut = disk.is_cut();
        kill(spool, &disk);
        disk.lose_unsynced(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 63 == 0
        });
        let (spool, waiting) = open(&dir);
        for id in &kept {
            let stored = spool.read(*id).unwrap().unwrap_or_else(|| panic!("{id} lost, cut after {after}"));
            assert_eq!(stored.recipients[0].history, [failed(1)]);
            assert_eq!(stored.recipients[1].status, Status::Done);
        }
        // One more or less: the operation that the cut interrupted.
        let known_now: std::collections::BTreeSet<_> = waiting.iter().map(|waiting| waiting.id).collect();
        let differ = known_now.symmetric_difference(&known.iter().copied().collect()).count();
        assert!(differ <= 1, "cut after {after}: {known:?}, then {known_now:?}");
        after += 1 + after / 15;
    }
}
