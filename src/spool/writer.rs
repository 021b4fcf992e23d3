//! The writer thread: takes all that waits, writes it in one go, syncs once, updates the index, answers all.
//!
//! A record that nobody waits for (an outcome) is written with the next group and synced with the next one that
//! somebody waits for, or after the settle delay. A failed write or sync ends the use of the segment: whoever
//! waits gets the error, what nobody waits for is written again elsewhere, and the header of the next segment
//! says from where on the failed one does not count.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::index::{Loc, Phase, Segment};
use super::record::{Draft, Event, Kind};
use super::segment::{self, Footer, Header, RECORDS_FROM, Spare, VOIDS_MAX, Void};
use super::{Shared, SpoolError};
use crate::names::QueueId;

/// More than this is not written with one call, so that nobody waits for a very long one.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// A segment that has to be made on the spot gets so many bytes of zeroes; the helper fills whole ones.
const ZEROED_AT_ONCE_BYTES: u64 = 4 << 20;
/// When no spare segment is there, this part of the segment is kept for what is not new mail.
const RESERVE_PART: u64 = 4;
/// A spare segment is prepared when the one in use is so far.
const PREPARE_PART: u64 = 4;
/// After a group of so many callers a smaller one waits for company: this part of a sync, and not longer.
const GATHER_GROUP_MIN: usize = 8;
const GATHER_PART: u32 = 8;
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Pause after several failures in a row, at most; each failure doubles it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(20);

/// Who waits for a record.
pub(super) enum Answer {
    /// A caller; the record is synced for it.
    Ticket(oneshot::Sender<Result<(), SpoolError>>),
    /// The helper, which copies records; told whether it worked.
    Helper(mpsc::Sender<bool>),
    /// Nobody: written again when it fails.
    Nobody,
}

/// A record to be written.
pub(super) struct Request {
    pub draft: Draft,
    pub event: Event,
    pub answer: Answer,
    /// Where the original stands, for a copy; it keeps the original's number.
    pub copy_of: Option<Loc>,
}

impl Request {
    fn is_new_mail(&self) -> bool {
        self.draft.head.kind == Kind::Message && self.copy_of.is_none()
    }
}

/// Where requests wait for the writer.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    stopped: bool,
}

impl Inbox {
    pub(super) fn push(&self, request: Request) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(SpoolError::Closed);
        }
        state.requests.push(request);
        if state.requests.len() == 1 {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_one();
    }

    /// Waits for requests until then, takes all, and says whether the spool is being closed.
    fn take(&self, into: &mut Vec<Request>, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while state.requests.is_empty() && !state.stopped {
            match until {
                None => self.wake.wait(&mut state),
                Some(until) if self.wake.wait_until(&mut state, until).timed_out() => break,
                Some(_) => {}
            }
        }
        std::mem::swap(into, &mut state.requests);
        state.stopped
    }

    fn take_more(&self, into: &mut Vec<Request>) {
        into.append(&mut self.state.lock().requests);
    }
}

/// The segment being written.
struct Active {
    slot: u32,
    file: Arc<File>,
    tag: u64,
    bytes: u64,
    /// Everything before is written; what is in the buffer goes there.
    written: u64,
    /// Everything before is durable.
    synced: u64,
    footer: Footer,
}

impl Active {
    fn fits(&self, buffered: usize, draft: &Draft, bytes: usize, reserve: u64) -> bool {
        let footer = self.footer.total_bytes() + Footer::entry_bytes(draft.brief().len());
        self.written + (buffered + bytes + footer) as u64 <= self.bytes - reserve
    }
}

/// A record that is in the buffer or written, but not synced.
struct Pending {
    request: Request,
    loc: Loc,
    last: bool,
}

/// The writer.
pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    buffer: Vec<u8>,
    pending: Vec<Pending>,
    /// What nobody waits for and could not be written yet.
    redo: VecDeque<Request>,
    /// Somebody waits for the sync.
    urgent: bool,
    /// Something was written since the last sync.
    dirty: bool,
    sync_due: Option<Instant>,
    next_lsn: u64,
    sequence: u64,
    full: bool,
    failures_in_a_row: u32,
    /// Callers that the last sync answered.
    last_group: usize,
    /// What it took.
    last_sync: Duration,
    pause: Option<(Instant, SpoolError)>,
    /// No segment could be allocated; not tried again before.
    no_space_until: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sequence: u64, next_lsn: u64) -> Self {
        Self {
            shared,
            active: None,
            buffer: Vec::with_capacity(1 << 20),
            pending: Vec::new(),
            redo: VecDeque::new(),
            urgent: false,
            dirty: false,
            sync_due: None,
            next_lsn,
            sequence,
            full: false,
            failures_in_a_row: 0,
            last_group: 0,
            last_sync: Duration::ZERO,
            pause: None,
            no_space_until: None,
        }
    }

    /// Messages of which nothing waits, though no record says so.
    pub(super) fn finish_later(&mut self, ids: &[QueueId]) {
        for id in ids {
            match Draft::done(*id) {
                Ok(draft) => self.redo.push_back(Request {
                    draft,
                    event: Event::Done,
                    answer: Answer::Nobody,
                    copy_of: None,
                }),
                Err(error) => tracing::error!(%id, %error, "the end of a message could not be recorded"),
            }
        }
    }

    /// Begins the use of a segment, so that its header, and the numbers in it, are durable before any other
    /// segment goes.
    pub(super) fn start(&mut self) -> Result<(), SpoolError> {
        loop {
            self.activate(false)?;
            self.write_out();
            self.sync();
            if self.active.is_some() {
                return Ok(());
            }
        }
    }

    /// Runs until the spool is closed.
    pub(super) fn run(mut self) {
        let _end = End(self.shared.clone());
        let mut batch = Vec::new();
        loop {
            let stop = self.shared.inbox.take(&mut batch, self.wake_at());
            self.gather(&mut batch);
            self.serve(&mut batch);
            if stop {
                break;
            }
        }
        self.finish();
    }

    /// Callers that were just answered come back one after the other; the first of them would have a sync to
    /// itself and the others wait for it. After a large group a small one waits for a part of what a sync takes.
    fn gather(&self, batch: &mut Vec<Request>) {
        let tickets = batch.iter().filter(|request| matches!(request.answer, Answer::Ticket(_))).count();
        if tickets > 0 && self.last_group >= GATHER_GROUP_MIN && tickets < self.last_group / 2 {
            std::thread::sleep((self.last_sync / GATHER_PART).min(GATHER_MAX));
            self.shared.inbox.take_more(batch);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let paused_until = self.pause.as_ref().map(|pause| pause.0).max(self.no_space_until);
        let redo_at = (!self.redo.is_empty()).then(|| paused_until.unwrap_or_else(Instant::now));
        [self.sync_due, redo_at].into_iter().flatten().min()
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        if batch.iter().any(Request::is_new_mail) {
            self.look_at_space();
        }
        if !self.pausing() {
            for request in std::mem::take(&mut self.redo) {
                self.stage(request);
            }
        }
        for request in batch.drain(..) {
            self.stage(request);
        }
        self.write_out();
        if self.urgent || self.sync_due.is_some_and(|due| due <= Instant::now()) {
            self.sync();
        } else if self.dirty && self.sync_due.is_none() {
            self.sync_due = Some(Instant::now() + self.shared.options.settle_delay);
        }
    }

    fn pausing(&mut self) -> bool {
        let now = Instant::now();
        self.pause.take_if(|pause| pause.0 <= now);
        self.no_space_until.take_if(|until| *until <= now);
        self.pause.is_some() || self.no_space_until.is_some()
    }

    /// Whether mail can be taken. Space for it is allocated, but the rest of the machine needs some as well.
    fn look_at_space(&mut self) {
        let needed = self.shared.options.free_bytes_min;
        let full = self.shared.disk.available(&self.shared.dir).is_ok_and(|available| available < needed);
        if full != std::mem::replace(&mut self.full, full) {
            tracing::warn!(full, needed, "free space for the queue");
        }
    }

    /// Puts a record into the buffer, or refuses it.
    fn stage(&mut self, request: Request) {
        if self.buffer.len() >= GROUP_BYTES_MAX {
            self.write_out();
        }
        let last = match self.admit(&request) {
            Ok(last) => last,
            Err(error) => return Self::refuse(request, &error),
        };
        if let Err(error) = self.make_room(&request) {
            return match (&request.answer, &error) {
                (Answer::Nobody, SpoolError::Io(_) | SpoolError::Full) => self.redo.push_back(request),
                _ => Self::refuse(request, &error),
            };
        }
        let Some(active) = &mut self.active else { return Self::refuse(request, &SpoolError::Closed) };
        let mut head = request.draft.head;
        head.tag = active.tag;
        head.last = last;
        if request.copy_of.is_none() {
            head.lsn = self.next_lsn;
            self.next_lsn += 1;
        }
        let offset = active.written as usize + self.buffer.len();
        let loc = Loc { slot: active.slot, offset: offset as u32, bytes: head.record_bytes() as u32 };
        request.draft.write(&head, &mut self.buffer);
        active.footer.push(loc.offset, &head, request.draft.brief());
        self.urgent |= matches!(request.answer, Answer::Ticket(_));
        self.pending.push(Pending { request, loc, last });
    }

    /// Whether a record makes sense, and whether it is the last of its message.
    fn admit(&self, request: &Request) -> Result<bool, SpoolError> {
        let (head, index) = (&request.draft.head, self.shared.index.lock());
        if let Some(from) = request.copy_of {
            return if index.is_live(head.id, from) {
                Ok(head.last)
            } else {
                Err(SpoolError::Unknown(head.id))
            };
        }
        match head.kind {
            Kind::Message if self.full => Err(SpoolError::Full),
            Kind::Message => Ok(false),
            _ if !index.messages.contains_key(&head.id) => Err(SpoolError::Unknown(head.id)),
            _ => Ok(head.last || index.is_last(head.id, &request.event)),
        }
    }

    fn refuse(request: Request, error: &SpoolError) {
        match request.answer {
            // Whoever does not listen any more has no use for the answer.
            Answer::Ticket(ticket) => drop(ticket.send(Err(error.clone()))),
            Answer::Helper(helper) => drop(helper.send(matches!(error, SpoolError::Unknown(_)))),
            Answer::Nobody => {
                let id = request.draft.head.id;
                tracing::warn!(%id, %error, "an outcome was not recorded");
            }
        }
    }

    /// Sees to it that there is a segment with room for a record.
    fn make_room(&mut self, request: &Request) -> Result<(), SpoolError> {
        let bytes = request.draft.head.record_bytes();
        if self.active.is_none() {
            self.activate(request.is_new_mail())?;
        }
        let fits = |writer: &Self, reserve| {
            let active = writer.active.as_ref();
            active.is_some_and(|active| active.fits(writer.buffer.len(), &request.draft, bytes, reserve))
        };
        let reserve = self.shared.options.segment_bytes / RESERVE_PART;
        if request.is_new_mail() && !fits(self, reserve) && !self.shared.chores.has_spare() {
            let spare = self.create(true)?;
            self.shared.chores.add_spare(spare);
        }
        if !fits(self, 0) {
            self.roll();
            self.activate(request.is_new_mail())?;
        }
        if fits(self, 0) { Ok(()) } else { Err(SpoolError::TooLarge) }
    }

    /// Ends the use of the segment: everything in it is synced, the footer too.
    fn roll(&mut self) {
        self.write_out();
        let Some(active) = &self.active else { return };
        let footer = active.footer.seal(active.tag);
        self.dirty = true;
        if let Err(error) =
            self.shared.disk.write_at(&active.file, &footer, active.bytes - footer.len() as u64)
        {
            return self.fail(error);
        }
        self.sync();
        if let Some(active) = self.active.take() {
            self.shared.index.lock().sealed(active.slot, false);
            self.shared.chores.look();
        }
    }

    /// Begins the use of another segment; its header goes out with the first records.
    fn activate(&mut self, new_mail: bool) -> Result<(), SpoolError> {
        if let Some((until, error)) = &self.pause
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let spare = match self.shared.chores.take_spare() {
            Some(spare) => spare,
            None => self.create(new_mail)?,
        };
        self.sequence += 1;
        let tag = rand::random();
        let bytes = self.shared.options.segment_bytes;
        let mut index = self.shared.index.lock();
        let header = Header {
            free: false,
            sequence: self.sequence,
            tag,
            next_id: self.shared.next_id.load(Ordering::Relaxed),
            next_lsn: self.next_lsn,
            voids: index.voids.clone(),
        };
        let used = Segment {
            file: spare.file.clone(),
            path: segment::path(&self.shared.dir, spare.slot),
            bytes,
            sequence: self.sequence,
            tag,
            phase: Phase::Active,
            failed: false,
            damaged: false,
            live: 0,
            ids: Vec::new(),
        };
        index.segments.insert(spare.slot, used);
        self.buffer.extend_from_slice(&header.page());
        let (slot, file) = (spare.slot, spare.file);
        self.active =
            Some(Active { slot, file, tag, bytes, written: 0, synced: 0, footer: Footer::default() });
        Ok(())
    }

    /// Makes a segment on the spot.
    fn create(&mut self, new_mail: bool) -> Result<Spare, SpoolError> {
        if let Some((until, error)) = &self.pause
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        if self.no_space_until.is_some_and(|until| Instant::now() < until) {
            return Err(SpoolError::Full);
        }
        let (disk, bytes) = (&self.shared.disk, self.shared.options.segment_bytes);
        let needed = self.shared.options.free_bytes_min.saturating_add(bytes);
        if new_mail && disk.available(&self.shared.dir).is_ok_and(|available| available < needed) {
            return Err(SpoolError::Full);
        }
        if self.shared.index.lock().voids.len() >= VOIDS_MAX {
            let error = io::Error::other("too many segments have failed");
            self.count_failure(&error);
            return Err(error.into());
        }
        let slot = self.shared.next_slot.fetch_add(1, Ordering::Relaxed);
        segment::create(disk.as_ref(), &self.shared.dir, slot, bytes, ZEROED_AT_ONCE_BYTES).map_err(|error| {
            if error.kind() == io::ErrorKind::StorageFull {
                self.no_space_until = Some(Instant::now() + PAUSE_FIRST);
                return SpoolError::Full;
            }
            self.count_failure(&error);
            error.into()
        })
    }

    /// Writes the buffer.
    fn write_out(&mut self) {
        let Some(active) = self.active.as_mut().filter(|_| !self.buffer.is_empty()) else { return };
        self.dirty = true;
        match self.shared.disk.write_at(&active.file, &self.buffer, active.written) {
            Ok(()) => {
                active.written += self.buffer.len() as u64;
                self.buffer.clear();
            }
            Err(error) => self.fail(error),
        }
    }

    /// Syncs what was written, then brings it into the index and answers.
    fn sync(&mut self) {
        self.sync_due = None;
        self.urgent = false;
        let Some(active) = self.active.as_mut().filter(|_| std::mem::take(&mut self.dirty)) else { return };
        let began = Instant::now();
        if let Err(error) = self.shared.disk.sync(&active.file) {
            return self.fail(error);
        }
        self.last_sync = began.elapsed();
        active.synced = active.written;
        self.shared.durable_sequence.store(self.sequence, Ordering::Release);
        self.shared.room.store(active.bytes - active.written, Ordering::Relaxed);
        self.failures_in_a_row = 0;
        self.pause = None;
        let want_spare = active.written > active.bytes / PREPARE_PART;
        let mut unfinished = Vec::new();
        let mut index = self.shared.index.lock();
        for Pending { request, loc, last } in &self.pending {
            let head = &request.draft.head;
            match request.copy_of {
                Some(from) => index.moved(head.id, head.kind == Kind::Message, from, *loc),
                None if index.apply(head.id, &request.event, *last, *loc) => unfinished.push(head.id),
                None => {}
            }
        }
        let look = index.ripe || !index.drained.is_empty() || !index.dead_large.is_empty();
        index.ripe = false;
        drop(index);
        let mut tickets = 0;
        for pending in self.pending.drain(..) {
            match pending.request.answer {
                // Whoever does not listen any more has no use for the answer.
                Answer::Ticket(ticket) => {
                    tickets += 1;
                    drop(ticket.send(Ok(())));
                }
                Answer::Helper(helper) => drop(helper.send(true)),
                Answer::Nobody => {}
            }
        }
        if tickets > 0 {
            self.last_group = tickets;
        }
        self.finish_later(&unfinished);
        if look {
            self.shared.chores.look();
        }
        if want_spare {
            self.shared.chores.want_spare();
        }
    }

    /// A write or a sync failed: nothing is tried again on this segment, for after a failed sync the kernel may
    /// take pages for written that are not.
    fn fail(&mut self, error: io::Error) {
        self.count_failure(&error);
        let error = SpoolError::from(error);
        (self.urgent, self.dirty, self.sync_due) = (false, false, None);
        self.buffer.clear();
        if let Some(active) = self.active.take() {
            tracing::error!(segment = active.slot, %error, "a segment of the queue failed; moving to another");
            let from = (active.synced as u32).max(RECORDS_FROM);
            let mut index = self.shared.index.lock();
            index.voids.push(Void { tag: active.tag, from });
            index.sealed(active.slot, true);
            drop(index);
            self.shared.chores.look();
        }
        for pending in std::mem::take(&mut self.pending) {
            match pending.request.answer {
                Answer::Nobody => self.redo.push_back(pending.request),
                _ => Self::refuse(pending.request, &error),
            }
        }
    }

    /// The first failure moves to another segment at once; more in a row make a pause.
    fn count_failure(&mut self, error: &io::Error) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row += 1;
        if self.failures_in_a_row > 1 {
            let doubled = PAUSE_FIRST * 2u32.saturating_pow(self.failures_in_a_row.min(16));
            let error = io::Error::new(error.kind(), error.to_string());
            self.pause = Some((Instant::now() + doubled.min(PAUSE_MAX), error.into()));
        }
    }

    /// The spool is being closed: the footer makes the next start quick.
    fn finish(mut self) {
        self.pause = None;
        let mut nothing_new = Vec::new();
        self.serve(&mut nothing_new);
        self.roll();
        if !self.redo.is_empty() {
            tracing::error!(
                records = self.redo.len(),
                "outcomes could not be recorded before the queue was closed"
            );
        }
    }
}

/// However the writer ends, nobody waits for it afterwards.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.inbox.stop();
        self.0.inbox.state.lock().requests.clear();
        self.0.chores.stop();
    }
}
