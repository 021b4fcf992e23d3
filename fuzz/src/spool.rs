//! The spool's log: a start on damaged segments, and on segments that no Waypost wrote.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use waypost::address::Mailbox;
use waypost::attempt::Attempt;
use waypost::envelope::{Envelope, ReversePath};
use waypost::names::QueueId;
use waypost::spool::{NewMessage, Next, Origin, Settlement, Spool, SpoolError, SpoolOptions};

/// The smallest there is.
const SEGMENT_BYTES: u64 = 64 << 10;
const RECORDS_FROM: usize = 4096;
const HEADER_BYTES: usize = 48;
const TAG: u64 = 0x5741_5950_4f53_5421;

/// A start never panics, whatever is in the segments. The first byte says what is in them:
///
/// - 0: the rest of the input, as a segment.
/// - 1: a log that was closed, damaged as [`damage`] reads it from the rest; 2: the log of a run that was killed.
///   What is found is what was written, and no number is given twice.
/// - 3: records that are whole but say anything, as [`records`] reads them from the rest.
pub fn spool_recover(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let log = Log::get();
    let dir = folder();
    let put = |files: &Files| {
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).expect("a segment can be written");
        }
    };
    match kind % 4 {
        0 => put(&vec![("00000000.seg".to_owned(), rest.to_vec())]),
        1 => put(&damage(&log.closed, rest)),
        2 => put(&damage(&log.killed, rest)),
        _ => put(&vec![("00000000.seg".to_owned(), records(rest, &log.detail))]),
    }
    let known = matches!(kind % 4, 1 | 2).then_some(log);
    let first = start(dir.path(), known);
    let second = start(dir.path(), known);
    assert_eq!(first, second, "the second start finds what the first one found");
}

/// Starts, reads all, and takes a message; gives what waited.
fn start(dir: &Path, known: Option<&Log>) -> Vec<(QueueId, u32)> {
    let (spool, waiting) = Spool::open(dir, options()).expect("the spool opens");
    let mut ids: Vec<QueueId> = waiting.iter().map(|waiting| waiting.id).collect();
    ids.dedup();
    for id in &ids {
        let _ = spool.read_summary(*id);
        let stored = match spool.read(*id) {
            Ok(Some(stored)) => stored,
            Ok(None) => panic!("{id} waits and is not there"),
            Err(SpoolError::Damaged(damaged)) => {
                assert_eq!(damaged, *id);
                continue;
            }
            Err(error) => panic!("{id}: {error}"),
        };
        let Some(log) = known else { continue };
        let written = log.messages.iter().find(|(written, _)| written == id);
        let (_, message) = written.unwrap_or_else(|| panic!("{id} was never written"));
        assert_eq!(stored.message, *message);
        assert_eq!(stored.recipients.len(), message.envelope.recipients.len());
        for attempt in stored.recipients.iter().flat_map(|recipient| &recipient.history) {
            assert!([begun(), ended()].contains(attempt), "{attempt:?} was never written");
        }
    }
    let new = run(spool.accept(message(99), false)).expect("a new message is taken");
    assert!(!ids.contains(&new), "{new} was given twice");
    if let Some(log) = known {
        assert!(log.messages.iter().all(|(id, _)| *id != new), "{new} was given before");
    }
    run(spool.drop_message(new)).expect("the new message is removed");
    run(spool.close());
    waiting.into_iter().map(|waiting| (waiting.id, waiting.recipient)).collect()
}

/// Names and contents of segments.
type Files = Vec<(String, Vec<u8>)>;

/// Five messages, an attempt of the first and its outcome, the end of the second.
struct Log {
    closed: Files,
    killed: Files,
    messages: Vec<(QueueId, Arc<NewMessage>)>,
    /// The detail of a message's record.
    detail: Vec<u8>,
}

impl Log {
    fn get() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(Self::write)
    }

    fn write() -> Self {
        let dir = folder();
        let (spool, _) = Spool::open(dir.path(), options()).expect("a new spool opens");
        let messages = (0..5).map(|number| {
            let message = message(number);
            (run(spool.accept(message.clone(), false)).expect("a message is taken"), message)
        });
        let messages: Vec<_> = messages.collect();
        run(spool.begin(messages[0].0, vec![(0, begun())])).expect("an attempt is recorded");
        let retry = Next::Retry(time(900));
        for (id, next) in [(messages[0].0, retry), (messages[1].0, Next::Done)] {
            let settlement = Settlement { recipient: 0, attempt: Some(ended()), next, delay_reported: false };
            run(spool.settle(id, vec![settlement])).expect("an outcome is recorded");
        }
        let killed = used_segments(dir.path());
        run(spool.close());
        let closed = used_segments(dir.path());
        let detail = detail(&closed[0].1);
        Self { closed, killed, messages, detail }
    }
}

fn used_segments(dir: &Path) -> Files {
    let entries = std::fs::read_dir(dir).expect("the folder can be read");
    let files = entries.map(|entry| entry.expect("an entry can be read").path());
    let segments = files.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let read = segments.map(|path| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("a segment can be read"))
    });
    // Byte 12: free.
    let used: Files = read.filter(|(_, bytes)| bytes[12] == 0).collect();
    assert_eq!(used.len(), 1, "all of it stands in one segment");
    used
}

/// The detail of the first record.
fn detail(segment: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("four bytes")) as usize;
    let from = RECORDS_FROM + HEADER_BYTES + number(RECORDS_FROM + 32);
    segment[from..from + number(RECORDS_FROM + 36)].to_vec()
}

/// Damages the segments, four bytes of input at a time: where (two bytes), what happens there, with which byte.
fn damage(files: &Files, input: &[u8]) -> Files {
    let mut files = files.clone();
    for (_, bytes) in &mut files {
        for step in input.chunks_exact(4) {
            let at = usize::from(u16::from_le_bytes([step[0], step[1]])).min(bytes.len());
            let (what, byte) = (step[2], step[3]);
            let end = (at + usize::from(byte)).min(bytes.len());
            match what % 6 {
                0 => bytes[at..].iter_mut().take(1).for_each(|there| *there ^= byte),
                1 => bytes[at..].fill(0),
                2 => bytes.truncate(at),
                3 => bytes[at..end].fill(what),
                4 => bytes[at..].iter_mut().take(16).for_each(|there| *there = byte),
                _ => {
                    let to = RECORDS_FROM.min(bytes.len() - (end - at));
                    bytes.copy_within(at..end, to);
                }
            }
        }
    }
    files
}

/// A segment after docs/spool.md with good checksums. Each record is made of eight bytes of input (kind, flags, number of
/// the message, number of the record, bytes of brief, detail and content, 0) and of what they announce.
fn records(mut input: &[u8], message_detail: &[u8]) -> Vec<u8> {
    let mut segment = header_page(input.first().copied().unwrap_or_default());
    while let Some((head, rest)) = input.split_first_chunk::<8>() {
        let mut rest = rest;
        let mut take = |bytes: u8| {
            let (taken, left) = rest.split_at(rest.len().min(usize::from(bytes)));
            rest = left;
            taken.to_vec()
        };
        let [kind, flags, id, lsn, brief, detail, content, _] = *head;
        let mut brief = take(brief);
        if kind == 1 && brief.len() > 3 {
            // A message of four thousand million recipients needs more memory than there is.
            brief[1..4].fill(0);
        }
        let detail = if detail == 0 { message_detail.to_vec() } else { take(detail) };
        let content = take(content);
        let mut record = vec![kind, flags & 1, 0, 0];
        record.extend(TAG.to_le_bytes());
        record.extend(u64::from(lsn).to_le_bytes());
        record.extend(u64::from(id).to_le_bytes());
        for bytes in [&brief, &detail, &content] {
            record.extend((bytes.len() as u32).to_le_bytes());
        }
        let spoilt = u32::from(flags & 2);
        record.extend((crc32c::crc32c(&content) ^ spoilt).to_le_bytes());
        record.extend(brief);
        record.extend(detail);
        segment.extend(crc32c::crc32c(&record).to_le_bytes());
        segment.extend(record);
        segment.extend(content);
        segment.resize(segment.len().next_multiple_of(8), 0);
        input = rest;
    }
    segment.truncate(SEGMENT_BYTES as usize);
    segment.resize(SEGMENT_BYTES as usize, 0);
    segment
}

fn header_page(byte: u8) -> Vec<u8> {
    let mut page = b"WAYSPOOL".to_vec();
    page.extend(1_u32.to_le_bytes());
    page.extend(0_u32.to_le_bytes());
    // The highest numbers there are, now and then.
    let next = if byte & 0xf0 == 0xf0 { u64::MAX - u64::from(byte & 0xf) } else { 1 };
    for number in [1, TAG, next, next, 0, 0] {
        page.extend(number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&page);
    page[60..64].copy_from_slice(&crc.to_le_bytes());
    page.resize(RECORDS_FROM, 0);
    page
}

fn options() -> SpoolOptions {
    SpoolOptions {
        segment_bytes: SEGMENT_BYTES,
        large_bytes_min: 16 << 10,
        free_bytes_min: 0,
        settle_delay: Duration::from_millis(1),
    }
}

/// A folder in memory where there is one.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder can be made")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    runtime.block_on(future)
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).expect("a time")
}

fn message(number: i64) -> Arc<NewMessage> {
    let mailbox = |text| Mailbox::parse(text).expect("an address");
    let sender = ReversePath::Mailbox(mailbox("me@example.com"));
    Arc::new(NewMessage {
        envelope: Envelope::new(sender, [mailbox("you@example.org")]),
        account: None,
        received: time(number),
        origin: Origin { session: format!("s{number}"), protocol: "ESMTP".into(), ip: None, helo: None },
        content: Bytes::from(format!("Subject: {number}\r\n\r\nText\r\n")),
    })
}

fn begun() -> Attempt {
    Attempt { number: 1, at: time(100), decision: None, outcome: None, ended: None }
}

fn ended() -> Attempt {
    Attempt { ended: Some(time(101)), ..begun() }
}
