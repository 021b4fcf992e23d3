//! The log cut at every byte, and damaged at every byte.

use super::disk::{kill, open_on};
use super::*;

/// The bytes of the one segment that has records, its path, and the records' places in order.
struct Log {
    dir: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    records: Vec<std::ops::Range<usize>>,
    ids: Vec<QueueId>,
    messages: Vec<Arc<NewMessage>>,
}

impl Log {
    /// Five messages, an attempt of the first, its outcome, the end of the second; closed properly or not.
    fn new(sealed: bool) -> Self {
        let dir = folder();
        let (spool, disk) = open_on(&dir);
        let messages: Vec<_> = (0..5).map(|n| message(n, 1, 5 + n as usize)).collect();
        let ids: Vec<_> = messages.iter().map(|m| run(spool.accept(m.clone(), false)).unwrap()).collect();
        run(spool.begin(ids[0], vec![(0, attempt(1))])).unwrap();
        run(spool.settle(ids[0], vec![retry(0, 1, 900)])).unwrap();
        run(spool.settle(ids[1], vec![done(0)])).unwrap();
        let (path, tag) = {
            let index = spool.shared().index.lock();
            let segment = index.segments.values().max_by_key(|segment| segment.sequence).unwrap();
            (segment.path.clone(), segment.tag)
        };
        if sealed {
            run(spool.close());
        } else {
            kill(spool, &disk);
        }
        let file = File::open(&path).unwrap();
        let place = |found: &segment::Found| {
            let from = found.offset as usize;
            from..from + found.head.front_bytes() + found.head.content_bytes as usize
        };
        let records = segment::scan(&file, tag).unwrap().found.iter().map(place).collect();
        let bytes = std::fs::read(&path).unwrap();
        Self { dir, path, bytes, records, ids, messages }
    }

    /// What a start finds when the segment's file is this, with what is expected when only the records that are
    /// whole in it were ever written.
    fn check(&self, bytes: &[u8], what: &str) {
        std::fs::write(&self.path, bytes).unwrap();
        let shared = at_rest(self.dir.path());
        let whole: Vec<bool> =
            self.records.iter().map(|r| bytes.get(r.clone()) == Some(&self.bytes[r.clone()])).collect();
        let found = found(&shared);
        let expected: Vec<usize> = (0..5).filter(|i| whole[*i] && !(*i == 1 && whole[7])).collect();
        let ids: Vec<_> = expected.iter().map(|i| self.ids[*i]).collect();
        assert_eq!(found.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), ids, "{what}");
        for ((_, message, recipients), index) in found.iter().zip(expected) {
            assert_eq!(**message, *self.messages[index], "{what}");
            let (history, due) = match (index, whole[5], whole[6]) {
                (0, _, true) => (vec![failed(1)], time(900)),
                (0, true, false) => (vec![attempt(1)], time(0)),
                (index, ..) => (vec![], time(index as i64)),
            };
            assert_eq!(recipients[0].history, history, "{what}");
            assert_eq!(recipients[0].status, Status::Waiting { due, held: false }, "{what}");
        }
        let next = shared.next_id.load(Ordering::Relaxed);
        assert!(next > self.ids[4].0, "{what}: {next} was given before");
    }
}

#[test]
fn whatever_was_whole_before_a_cut_is_there() {
    let log = Log::new(false);
    let end = log.records.last().unwrap().end + 16;
    assert_eq!(log.records.len(), 8);
    for cut in segment::RECORDS_FROM as usize..end {
        log.check(&log.bytes[..cut], &format!("truncated at {cut}"));
        let mut zeroed = log.bytes[..end + 512].to_vec();
        zeroed[cut..].fill(0);
        log.check(&zeroed, &format!("zeroed from {cut}"));
    }
}

#[test]
fn a_damaged_byte_costs_at_most_its_own_record() {
    let log = Log::new(false);
    let end = log.records.last().unwrap().end + 16;
    for at in 0..end {
        if (160..2048).contains(&at) || (2048 + 160..4096).contains(&at) {
            continue; // Nothing is there.
        }
        // What follows is zeroes; a short file is quicker to look through.
        let mut damaged = log.bytes[..end + 512].to_vec();
        damaged[at] ^= 1 << (at % 8);
        log.check(&damaged, &format!("damaged at {at}"));
    }
    let mut damaged = log.bytes.clone();
    damaged[log.records[2].start + 60] ^= 1;
    std::fs::write(&log.path, damaged).unwrap();
    assert_eq!(at_rest(log.dir.path()).damaged.load(Ordering::Relaxed), 1, "it is counted");
}

#[test]
fn a_damaged_footer_is_not_believed() {
    let log = Log::new(true);
    let footer = log.bytes.len() - 800;
    for at in (footer..log.bytes.len()).step_by(3) {
        let mut damaged = log.bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        log.check(&damaged, &format!("damaged at {at}"));
    }
}

#[test]
fn a_footer_spares_reading_the_records() {
    let log = Log::new(true);
    let mut damaged = log.bytes.clone();
    let from = log.records[2].start;
    damaged[from..log.records[2].end].fill(0x55);
    std::fs::write(&log.path, damaged).unwrap();
    let shared = at_rest(log.dir.path());
    assert_eq!(shared.damaged.load(Ordering::Relaxed), 0, "nobody looked");
    assert!(shared.index.lock().messages.contains_key(&log.ids[2]), "the footer knows it");
    assert!(
        matches!(read::read(&shared, log.ids[2], true), Err(SpoolError::Damaged(id)) if id == log.ids[2])
    );
    assert_eq!(shared.damaged.load(Ordering::Relaxed), 1);
    assert_eq!(found(&shared).len(), 3);
}

#[test]
fn a_start_after_a_kill_leaves_a_footer() {
    let log = Log::new(false);
    log.check(&log.bytes, "first start");
    let tag = segment::Header::parse(&log.bytes).unwrap().tag;
    let footer = segment::read_footer(&File::open(&log.path).unwrap(), tag).unwrap();
    assert_eq!(footer.unwrap().len(), 8);
    log.check(&std::fs::read(&log.path).unwrap(), "second start");
}

#[test]
fn numbers_that_no_spool_counts_to_are_damage() {
    let log = Log::new(false);
    let good = segment::Header::parse(&log.bytes).unwrap();
    let past = record::NUMBERS_END;
    for header in [
        segment::Header { next_id: u64::MAX, ..good.clone() },
        segment::Header { next_lsn: past, ..good.clone() },
        segment::Header { sequence: u64::MAX, ..good.clone() },
    ] {
        assert_eq!(segment::Header::parse(&header.page()), None, "{header:?}");
        let bytes = [&header.page()[..], &log.bytes[segment::RECORDS_FROM as usize..]].concat();
        std::fs::write(&log.path, bytes).unwrap();
        // It starts, and goes on with numbers that were not given before.
        let (spool, waiting) = open(&log.dir);
        assert_eq!((waiting.len(), spool.stats().damaged), (0, 1));
        let id = run(spool.accept(message(1, 1, 1), false)).unwrap();
        assert!(id > log.ids[4], "{id}");
        run(spool.drop_message(id)).unwrap();
    }
    let highest = segment::Header { next_id: past - 1, ..good };
    assert_eq!(segment::Header::parse(&highest.page()), Some(highest));
}

#[test]
fn what_a_body_holds_is_never_taken_for_a_record() {
    // A message that quotes the log itself, with a damaged beginning: all that follows it is looked at.
    let log = Log::new(false);
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    let mut quoting = (*message(9, 1, 0)).clone();
    quoting.content = log.bytes[4096..4096 + 4096].to_vec().into();
    let bad = run(spool.accept(Arc::new(quoting), false)).unwrap();
    let good = run(spool.accept(message(1, 1, 1), false)).unwrap();
    let entry = spool.shared().index.lock().messages.get(&bad).unwrap().message;
    let path = segment::path(dir.path(), entry.slot);
    kill(spool, &disk);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[entry.offset as usize + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(found(&at_rest(dir.path())).into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), [good]);
}

#[test]
fn what_a_segment_held_before_never_comes_back() {
    let dir = folder();
    let (spool, disk) = open_on(&dir);
    // Goes around several times; nothing stays.
    for number in 0..300 {
        let id = run(spool.accept(message(number, 1, 2000), true)).unwrap();
        run(spool.settle(id, vec![done(0)])).unwrap();
    }
    eventually("segments are free", || spool.stats().segments_used == 1);
    let kept = run(spool.accept(message(1, 1, 1), true)).unwrap();
    assert!(spool.stats().segments_free <= 5, "{:?}", spool.stats());
    kill(spool, &disk);
    let shared = at_rest(dir.path());
    assert_eq!(found(&shared).into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), [kept]);
    assert_eq!(shared.damaged.load(Ordering::Relaxed), 0);
}
