//! The queue's log: accepted messages and what became of them, in preallocated, recycled segments.
//!
//! Callers hand records to one writer thread, which writes all that waits in one go, syncs once and answers all;
//! a helper thread prepares and frees segments and copies what is left alive in old ones. What is in memory is
//! an index; envelopes and contents are read back when they are asked for.
//!
//! | file | what stands there |
//! | --- | --- |
//! | [`types`](self) | what goes in and out |
//! | [`labels`](Labels) | who sent a message and to whom, as hashes: what listings need without reading it |
//! | `record` | one record, byte by byte |
//! | `segment` | a file of records: header, footer, scan |
//! | `index` | what is in memory; which segments are still needed, and why |
//! | `writer` | the writer thread: group commit, failures, full disk |
//! | `helper` | the helper thread: spare segments, freeing, copying forward |
//! | `recover` | from the files to the index |
//! | `read` | a message with its history |
//! | `view` | reading a spool that no server has open |
//! | `large` | messages in files of their own |
//! | `aside` | what is left of messages that cannot be read |
//! | `disk` | the seam for tests |
//!
//! `docs/spool.md` describes the format and the rules of recovery.

mod aside;
mod disk;
mod helper;
mod index;
mod labels;
mod large;
mod read;
mod record;
mod recover;
mod segment;
mod types;
mod view;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::disk::{Disk, OsDisk};
use self::helper::Chores;
use self::index::Index;
pub use self::labels::{Hash, Labels, MessageLabels};
use self::record::{Draft, Event, MessageBrief};
use self::recover::Recovered;
pub use self::types::{
    Control, NewMessage, Next, Origin, RecipientState, Settlement, SpoolError, SpoolOptions, SpoolStats,
    Status, StoredMessage, Waiting,
};
pub use self::view::SpoolView;
use self::writer::{Answer, Inbox, Request};
use crate::attempt::Attempt;
use crate::names::QueueId;

const LOCK_FILE: &str = "lock";
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);

/// The queue's log. Clones are the same spool; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Locked as long as the spool is open.
    lock: Mutex<Option<File>>,
}

/// What callers, writer and helper share.
struct Shared {
    dir: PathBuf,
    options: SpoolOptions,
    disk: Arc<dyn Disk>,
    index: Mutex<Index>,
    inbox: Inbox,
    chores: Chores,
    next_id: AtomicU64,
    next_slot: AtomicU32,
    damaged: AtomicU64,
    failures: AtomicU64,
    /// Of the youngest segment whose header is durable.
    durable_sequence: AtomicU64,
    /// Bytes left in the segment being written, about.
    room: AtomicU64,
}

impl Spool {
    /// Opens the spool in `dir`, which is made if it is not there, and says who waits. Blocking.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] when it is open already, [`SpoolError::Io`] when it cannot be read or made.
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<(Self, Vec<Waiting>), SpoolError> {
        Self::open_on(dir, options, Arc::new(OsDisk))
    }

    fn open_on(
        dir: &Path,
        mut options: SpoolOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Vec<Waiting>), SpoolError> {
        let segment_bytes = options.segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        options.segment_bytes = segment_bytes.next_multiple_of(4096);
        options.large_bytes_min = options.large_bytes_min.min((options.segment_bytes / 4) as usize);
        std::fs::create_dir_all(large::folder(dir))?;
        let lock = lock(dir)?;
        let mut recovered = recover::recover(dir, &options, disk.as_ref())?;
        let mut waiting = recovered.index.page(None, usize::MAX);
        let labels = std::mem::take(&mut recovered.labels);
        for waiting in &mut waiting {
            waiting.labels = labels.get(&waiting.id).and_then(|labels| labels.recipient(waiting.recipient));
        }
        let (sequence, next_lsn) = (recovered.sequence, recovered.next_lsn);
        let obsolete = std::mem::take(&mut recovered.obsolete);
        let unfinished = std::mem::take(&mut recovered.unfinished);
        let shared = Arc::new(Shared::new(dir, options, disk, recovered));
        let mut writer = writer::Writer::new(shared.clone(), sequence, next_lsn);
        writer.start()?;
        for path in obsolete {
            shared.disk.remove(&path)?;
        }
        writer.finish_later(&unfinished);
        let for_helper = shared.clone();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(format!("spool-{name}")).spawn(run)
        };
        let threads = vec![
            spawn("writer", Box::new(move || writer.run()))?,
            spawn("helper", Box::new(move || helper::run(&for_helper)))?,
        ];
        let handle = Handle { shared, threads: Mutex::new(threads), lock: Mutex::new(Some(lock)) };
        Ok((Self { handle: Arc::new(handle) }, waiting))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Takes a message; it is durable on return. With `started`, attempt 1 of every recipient begins at once:
    /// after a crash a recipient about which nothing more was recorded has that attempt in its history, without
    /// a decision and an outcome.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::TooLarge`], [`SpoolError::Io`]: the message was not taken.
    pub async fn accept(&self, message: Arc<NewMessage>, started: bool) -> Result<QueueId, SpoolError> {
        let shared = self.shared();
        let content = &message.content;
        let large = content.len() >= shared.options.large_bytes_min;
        let id = QueueId(shared.next_id.fetch_add(1, Ordering::Relaxed));
        let crc = crc32c::crc32c(content);
        let header_bytes = memchr::memmem::find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 4);
        let event = Event::Message(MessageBrief {
            recipients: message.envelope.recipients.len() as u32,
            started,
            large,
            received: message.received.as_microsecond(),
            size: content.len() as u64,
            header_bytes: u32::try_from(header_bytes).map_err(|_| SpoolError::TooLarge)?,
            file_crc: if large { crc } else { 0 },
            labels: Some(MessageLabels::of(&message).into()),
        });
        let draft = Draft::message(id, &event, &message, (!large).then_some(crc))?;
        if !large {
            self.write(draft, event).await?;
            return Ok(id);
        }
        // All of it in one closure: when the caller goes away in the middle, no file is left without its record.
        let shared = shared.clone();
        let taken = tokio::task::spawn_blocking(move || {
            large::write(&shared, id, &message.content)?;
            let done = shared
                .submit(draft, event)
                .and_then(|answer| answer.blocking_recv().unwrap_or(Err(SpoolError::Closed)));
            if done.is_err() {
                large::remove(&shared, id);
            }
            done
        });
        taken.await.map_err(|_| SpoolError::Closed)??;
        Ok(id)
    }

    /// Records that attempts begin; durable on return. Each entry is a recipient's index and its attempt.
    pub async fn begin(&self, id: QueueId, attempts: Vec<(u32, Attempt)>) -> Result<(), SpoolError> {
        let event =
            Event::Begin(attempts.iter().map(|(recipient, attempt)| (*recipient, attempt.number)).collect());
        self.write(Draft::begin(id, &event, &attempts)?, event).await
    }

    /// Records what came of attempts; durable on return. When nothing in the message waits any more, it is gone
    /// from the spool.
    pub async fn settle(&self, id: QueueId, settlements: Vec<Settlement>) -> Result<(), SpoolError> {
        let event = self.settle_event(id, &settlements);
        self.write(Draft::settle(id, &event, &settlements)?, event).await
    }

    /// As [`settle`](Self::settle) without waiting: written at once, so that it outlives this process, and synced
    /// with the next group or after [`SpoolOptions::settle_delay`].
    pub fn settle_later(&self, id: QueueId, settlements: Vec<Settlement>) {
        let event = self.settle_event(id, &settlements);
        let sent = Draft::settle(id, &event, &settlements).and_then(|draft| {
            self.shared().check_size(&draft)?;
            self.shared().inbox.push(Request { draft, event, answer: Answer::Nobody, copy_of: None })
        });
        if let Err(error) = sent {
            tracing::error!(%id, %error, "an outcome could not be recorded");
        }
    }

    /// Records what the operator changed; durable on return.
    pub async fn control(&self, id: QueueId, control: Control) -> Result<(), SpoolError> {
        let event = Event::Control {
            recipients: control.recipients.clone(),
            due: control.due.map(jiff::Timestamp::as_microsecond),
            hold: control.hold,
        };
        self.write(Draft::control(id, &event, &control)?, event).await
    }

    /// Removes a message, whatever waits in it; durable on return. No report is sent.
    pub async fn drop_message(&self, id: QueueId) -> Result<(), SpoolError> {
        self.write(Draft::done(id)?, Event::Done).await
    }

    /// Reads a message with the state of its recipients; `None` when nothing in it waits. Blocking.
    pub fn read(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        read::read(self.shared(), id, true)
    }

    /// As [`read`](Self::read), without the body: the content is the header only. Blocking.
    pub fn read_summary(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        read::read(self.shared(), id, false)
    }

    /// Copies what is left of a message that is damaged to a file of its own, for an operator to look at, and says where.
    /// The message stays. Blocking.
    pub fn copy_aside(&self, id: QueueId) -> Result<PathBuf, SpoolError> {
        aside::copy(self.shared(), id)
    }

    /// The waiting recipients of up to `limit` messages with numbers above `after`, in order. To page, go on
    /// after the last number; an empty page is the end.
    pub fn waiting(&self, after: Option<QueueId>, limit: usize) -> Vec<Waiting> {
        self.shared().index.lock().page(after, limit)
    }

    /// What the spool holds.
    pub fn stats(&self) -> SpoolStats {
        let shared = self.shared();
        let spares = shared.chores.spares();
        let index = shared.index.lock();
        let segments = index.segments.values();
        SpoolStats {
            messages: index.messages.len() as u64,
            recipients: index.waiting,
            segments_used: index.segments.len() as u64,
            segments_free: spares,
            live_bytes: segments.clone().map(|segment| segment.live).sum(),
            disk_bytes: segments.map(|segment| segment.bytes).sum::<u64>()
                + spares * shared.options.segment_bytes,
            large_messages: index.large,
            damaged: shared.damaged.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
        }
    }

    /// Writes and syncs what waits, and ends the threads. Later calls get [`SpoolError::Closed`].
    pub async fn close(&self) {
        let handle = self.handle.clone();
        // The only failure is a panic of that closure, which has none.
        let _ = tokio::task::spawn_blocking(move || handle.stop()).await;
    }

    fn settle_event(&self, id: QueueId, settlements: &[Settlement]) -> Event {
        let mut event = Event::settle(settlements);
        self.shared().index.lock().withdraw(id, &mut event);
        event
    }

    async fn write(&self, draft: Draft, event: Event) -> Result<(), SpoolError> {
        self.shared().submit(draft, event)?.await.unwrap_or(Err(SpoolError::Closed))
    }
}

impl Shared {
    fn new(dir: &Path, options: SpoolOptions, disk: Arc<dyn Disk>, recovered: Recovered) -> Self {
        Self {
            dir: dir.to_owned(),
            options,
            disk,
            index: Mutex::new(recovered.index),
            inbox: Inbox::default(),
            chores: Chores::new(recovered.spares),
            next_id: AtomicU64::new(recovered.next_id),
            next_slot: AtomicU32::new(recovered.next_slot),
            damaged: AtomicU64::new(recovered.damaged),
            failures: AtomicU64::new(0),
            durable_sequence: AtomicU64::new(0),
            room: AtomicU64::new(0),
        }
    }

    fn submit(
        &self,
        draft: Draft,
        event: Event,
    ) -> Result<oneshot::Receiver<Result<(), SpoolError>>, SpoolError> {
        self.check_size(&draft)?;
        let (ticket, answer) = oneshot::channel();
        self.inbox.push(Request { draft, event, answer: Answer::Ticket(ticket), copy_of: None })?;
        Ok(answer)
    }

    /// A record takes at most half a segment, so that it always fits into an empty one.
    fn check_size(&self, draft: &Draft) -> Result<(), SpoolError> {
        let bytes = draft.record_bytes().ok_or(SpoolError::TooLarge)?;
        if bytes as u64 > self.options.segment_bytes / 2 { Err(SpoolError::TooLarge) } else { Ok(()) }
    }

    fn count_damage(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }
}

impl Handle {
    fn stop(&self) {
        self.shared.inbox.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the spool panicked");
            }
        }
        self.lock.lock().take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))?;
    match fs2::FileExt::try_lock_exclusive(&file) {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
            Err(SpoolError::Locked(dir.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}
