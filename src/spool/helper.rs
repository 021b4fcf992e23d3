//! The helper thread: what takes longer than a sync and need not be done at once.
//!
//! It fills new segments with zeroes, marks drained ones as free for their next use, removes the files of large
//! messages that are done, and empties segments with little left alive: it reads the live records, a bounded
//! amount at a time, and hands them to the writer, which writes them like any other and with the same sync.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index::{Loc, Phase};
use super::read::Place;
use super::record::Event;
use super::segment::{self, Found, Header, Spare};
use super::writer::{Answer, Request};
use super::{Shared, large};

/// Live records are copied so many bytes at a time.
const COPY_BYTES: usize = 256 << 10;
/// Of free segments so many are kept, and one more for each so many in use; the others are removed.
const SPARES_KEPT: u64 = 4;
/// The youngest sealed segments are not emptied: most of what is in them will be done soon.
const YOUNG_SEGMENTS: u64 = 2;
/// What failed is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the helper has to do, and the segments it has ready.
pub(super) struct Chores {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    look: bool,
    want_spare: bool,
    stop: bool,
    spares: Vec<Spare>,
}

impl Chores {
    pub(super) fn new(spares: Vec<Spare>) -> Self {
        Self { state: Mutex::new(State { look: true, spares, ..State::default() }), wake: Condvar::new() }
    }

    /// Something in the index wants to be looked at.
    pub(super) fn look(&self) {
        self.state.lock().look = true;
        self.wake.notify_one();
    }

    /// A segment will soon be needed.
    pub(super) fn want_spare(&self) {
        let mut state = self.state.lock();
        if state.spares.is_empty() && !state.want_spare {
            state.want_spare = true;
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    pub(super) fn has_spare(&self) -> bool {
        !self.state.lock().spares.is_empty()
    }

    pub(super) fn take_spare(&self) -> Option<Spare> {
        self.state.lock().spares.pop()
    }

    pub(super) fn add_spare(&self, spare: Spare) {
        self.state.lock().spares.push(spare);
    }

    /// How many segments are ready.
    pub(super) fn spares(&self) -> u64 {
        self.state.lock().spares.len() as u64
    }
}

/// A segment that is being emptied.
struct Emptying {
    slot: u32,
    records: std::vec::IntoIter<Found>,
    damaged: bool,
}

struct Helper<'a> {
    shared: &'a Shared,
    emptying: Option<Emptying>,
    /// Something did not work and is to be tried again.
    undone: bool,
}

/// Runs until the writer has ended.
pub(super) fn run(shared: &Shared) {
    let mut helper = Helper { shared, emptying: None, undone: false };
    loop {
        let (want_spare, stop) = helper.wait();
        helper.remove_large();
        helper.free_drained();
        if stop {
            break;
        }
        if want_spare {
            helper.prepare();
        }
        helper.copy_forward();
    }
}

impl Helper<'_> {
    fn wait(&mut self) -> (bool, bool) {
        let mut state = self.shared.chores.state.lock();
        while !(state.look || state.want_spare || state.stop || self.emptying.is_some()) {
            if !std::mem::take(&mut self.undone) {
                self.shared.chores.wake.wait(&mut state);
            } else if self.shared.chores.wake.wait_for(&mut state, RETRY_AFTER).timed_out() {
                break;
            }
        }
        state.look = false;
        (std::mem::take(&mut state.want_spare), state.stop)
    }

    fn remove_large(&self) {
        let dead = std::mem::take(&mut self.shared.index.lock().dead_large);
        for id in dead {
            large::remove(self.shared, id);
        }
    }

    /// Marks drained segments as free; only when that is durable may what they pinned go.
    fn free_drained(&mut self) {
        // Freeing one may drain another.
        loop {
            let drained = std::mem::take(&mut self.shared.index.lock().drained);
            let mut left = Vec::new();
            let any = !drained.is_empty();
            for slot in drained {
                match self.free(slot) {
                    Ok(true) => {}
                    Ok(false) => left.push(slot),
                    Err(error) => {
                        tracing::warn!(segment = slot, %error, "a segment of the queue could not be freed");
                        self.shared.failures.fetch_add(1, Ordering::Relaxed);
                        left.push(slot);
                    }
                }
            }
            if !left.is_empty() {
                self.undone = true;
                self.shared.index.lock().drained.extend(left);
                return;
            }
            if !any {
                return;
            }
        }
    }

    /// Returns false when it is too early.
    fn free(&self, slot: u32) -> io::Result<bool> {
        let shared = self.shared;
        let mut index = shared.index.lock();
        let spares = shared.chores.spares();
        let enough = spares >= SPARES_KEPT + index.segments.len() as u64 / SPARES_KEPT;
        let Some(segment) = index.segments.get_mut(&slot).filter(|segment| segment.phase == Phase::Drained)
        else {
            return Ok(true);
        };
        let (file, path) = (segment.file.clone(), segment.path.clone());
        let reuse = !segment.failed && !enough && segment.bytes == shared.options.segment_bytes;
        // Its records may be the only ones that tell which numbers were given, until a younger header is durable.
        if !reuse && segment.sequence >= shared.durable_sequence.load(Ordering::Acquire) {
            return Ok(false);
        }
        // A mark that fails makes it a failed segment: the next try removes it.
        segment.failed = true;
        let header = Header {
            free: true,
            sequence: segment.sequence,
            tag: segment.tag,
            next_id: shared.next_id.load(Ordering::Relaxed),
            next_lsn: 0,
            voids: Vec::new(),
        };
        drop(index);
        if reuse {
            shared.disk.write_at(&file, &header.page(), 0)?;
            shared.disk.sync(&file)?;
        } else {
            match shared.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => shared.disk.sync_dir(&shared.dir)?,
            }
        }
        shared.index.lock().freed(slot);
        if reuse {
            shared.chores.add_spare(Spare { slot, file });
        }
        Ok(true)
    }

    /// Makes a segment and fills it with zeroes, unless one became free in the meantime.
    fn prepare(&mut self) {
        let shared = self.shared;
        let bytes = shared.options.segment_bytes;
        if shared.chores.has_spare() || !self.has_space() {
            return;
        }
        let slot = shared.next_slot.fetch_add(1, Ordering::Relaxed);
        match segment::create(shared.disk.as_ref(), &shared.dir, slot, bytes, bytes) {
            Ok(spare) => shared.chores.add_spare(spare),
            // The writer asks again, and makes one itself when it must.
            Err(error) => tracing::warn!(%error, "a segment of the queue could not be prepared"),
        }
    }

    /// Copies some of what is live in a segment with little left alive.
    fn copy_forward(&mut self) {
        let Some(mut emptying) = self.emptying.take().or_else(|| self.choose()) else { return };
        let (answer, answers) = mpsc::channel();
        let (mut copied, mut sent) = (0, 0);
        while copied < COPY_BYTES {
            let Some(found) = emptying.records.next() else { break };
            let loc =
                Loc { slot: emptying.slot, offset: found.offset, bytes: found.head.record_bytes() as u32 };
            let place = {
                let index = self.shared.index.lock();
                if index.is_live(found.head.id, loc) { Place::new(&index, loc) } else { None }
            };
            let Some(place) = place else { continue };
            let Ok(Some(record)) = place.record() else {
                emptying.damaged = true;
                self.shared.count_damage();
                tracing::error!(id = %found.head.id, segment = loc.slot, offset = loc.offset, "a record is damaged and stays where it is");
                continue;
            };
            let Some(event) = Event::parse(record.head.kind, record.brief()) else { continue };
            copied += loc.bytes as usize;
            sent += 1;
            let draft = record.into_draft();
            let request =
                Request { draft, event, answer: Answer::Helper(answer.clone()), copy_of: Some(loc) };
            if self.shared.inbox.push(request).is_err() {
                return;
            }
        }
        drop(answer);
        let good = (0..sent).all(|_| answers.recv() == Ok(true));
        if !good {
            // The writer has failed, or ends. Chosen again later.
            self.undone = true;
        } else if emptying.records.len() > 0 {
            self.emptying = Some(emptying);
        } else {
            let mut index = self.shared.index.lock();
            if let Some(segment) = index.segments.get_mut(&emptying.slot) {
                // What is still live now will stay: it would be chosen for ever.
                segment.damaged |= emptying.damaged || segment.phase == Phase::Sealed;
            }
            drop(index);
            self.shared.chores.look();
        }
    }

    /// Whether the file system has space for another segment.
    fn has_space(&self) -> bool {
        let options = &self.shared.options;
        let needed = options.free_bytes_min.saturating_add(options.segment_bytes);
        self.shared.disk.available(&self.shared.dir).is_ok_and(|available| available >= needed)
    }

    /// On a full disk copies must leave room for outcomes: those come first.
    fn has_room_for(&self, live: u64) -> bool {
        let room = self.shared.room.load(Ordering::Relaxed);
        live <= room / 2 || self.shared.chores.has_spare() || self.has_space()
    }

    fn choose(&mut self) -> Option<Emptying> {
        let (slot, file, tag, live) = {
            let index = self.shared.index.lock();
            let slot = index.victim(YOUNG_SEGMENTS)?;
            let segment = index.segments.get(&slot)?;
            (slot, segment.file.clone(), segment.tag, segment.live)
        };
        if !self.has_room_for(live) {
            self.undone = true;
            return None;
        }
        let records = segment::read_footer(&file, tag).and_then(|footer| match footer {
            Some(found) => Ok(found),
            None => segment::scan(&file, tag).map(|scan| scan.found),
        });
        match records {
            Ok(records) => Some(Emptying { slot, records: records.into_iter(), damaged: false }),
            Err(error) => {
                tracing::warn!(segment = slot, %error, "a segment of the queue could not be read");
                self.undone = true;
                None
            }
        }
    }
}
