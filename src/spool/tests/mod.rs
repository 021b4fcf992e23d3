//! What the tests of the spool share: messages, attempts, a disk that fails when it is told to.

mod basics;
mod damage;
pub(super) mod disk;
mod failures;
mod large;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::address::Mailbox;
use crate::attempt::{Decision, Level};
use crate::envelope::{Envelope, ReversePath};
use crate::names::{AccountName, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

/// Runs something that waits.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A folder in memory where there is one: these tests sync a lot.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Small segments, and settlements that wait for company for a long time.
pub(super) fn small() -> SpoolOptions {
    SpoolOptions {
        segment_bytes: 64 << 10,
        large_bytes_min: 16 << 10,
        free_bytes_min: 0,
        settle_delay: Duration::from_millis(5),
    }
}

pub(super) fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// A message whose content tells its number and has so many bytes of body.
pub(super) fn message(number: u32, recipients: u32, body_bytes: usize) -> Arc<NewMessage> {
    let to = (0..recipients).map(|i| Mailbox::parse(&format!("r{i}@example.org")).unwrap());
    let sender = ReversePath::Mailbox(Mailbox::parse("me@example.com").unwrap());
    let body: String =
        (0..body_bytes).map(|i| char::from(b'a' + ((i as u32 * 7 + number) % 26) as u8)).collect();
    Arc::new(NewMessage {
        envelope: Envelope::new(sender, to),
        account: (!number.is_multiple_of(3)).then(|| AccountName::new("me").unwrap()),
        received: time(i64::from(number)),
        origin: Origin { session: format!("s{number}"), protocol: "ESMTPSA".into(), ip: None, helo: None },
        content: Bytes::from(format!("Subject: {number}\r\n\r\n{body}\r\n")),
    })
}

pub(super) fn attempt(number: u32) -> Attempt {
    let decision = Decision::without_script(Level::Global, TransportName::direct());
    Attempt { number, at: time(100), decision: Some(decision), outcome: None, ended: None }
}

pub(super) fn failed(number: u32) -> Attempt {
    let text = format!("try {number} failed");
    let outcome = Outcome::ours(Verdict::Temporary, Stage::Connect, EnhancedCode::new(4, 4, 1), text);
    Attempt { outcome: Some(outcome), ended: Some(time(101)), ..attempt(number) }
}

pub(super) fn retry(recipient: u32, number: u32, second: i64) -> Settlement {
    Settlement {
        recipient,
        attempt: Some(failed(number)),
        next: Next::Retry(time(second)),
        delay_reported: false,
    }
}

pub(super) fn done(recipient: u32) -> Settlement {
    Settlement { recipient, attempt: Some(failed(1)), next: Next::Done, delay_reported: false }
}

pub(super) fn open(dir: &TempDir) -> (Spool, Vec<Waiting>) {
    Spool::open(dir.path(), small()).unwrap()
}

/// A spool without its threads, as a start would find it.
pub(super) fn at_rest(dir: &Path) -> Shared {
    let recovered = recover::recover(dir, &small(), &OsDisk).unwrap();
    Shared::new(dir, small(), Arc::new(OsDisk), recovered)
}

/// What a start finds: each message with its content and what its recipients wait for.
pub(super) fn found(shared: &Shared) -> Vec<(QueueId, Arc<NewMessage>, Vec<RecipientState>)> {
    let ids: Vec<QueueId> = shared.index.lock().messages.keys().copied().collect();
    let read = |id| {
        read::read(shared, id, true).ok().flatten().map(|stored| (id, stored.message, stored.recipients))
    };
    ids.into_iter().filter_map(read).collect()
}

/// The files of all segments.
pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| segment::slot_of(path).is_some()).collect();
    files.sort();
    files
}

/// Waits until the helper has come so far.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("not within four seconds: {what}");
}
