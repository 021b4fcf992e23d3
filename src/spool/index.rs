//! What the spool keeps in memory: where each waiting message and its records stand, when its recipients are
//! due, and how much of each segment is still needed. No file is touched here; recovery and the writer both
//! bring records in, one after the other, in the order of their numbers.
//!
//! Why a segment is still needed: it holds the record of a waiting message, a record about one, or a *last*
//! record (a tombstone) of a message whose own record still stands in another segment; without the tombstone
//! that message would come back at the next start.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{Event, MessageBrief, NextBrief, SettleBrief};
use super::segment::Void;
use super::types::{Status, Waiting};
use crate::names::QueueId;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loc {
    pub slot: u32,
    pub offset: u32,
    pub bytes: u32,
}

/// One recipient of a waiting message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recipient {
    /// Microseconds since 1970.
    due: i64,
    pub attempts: u32,
    pub done: bool,
    pub held: bool,
    /// Attempt 1 began with the acceptance, in this run, and no record speaks of it yet.
    fresh: bool,
}

impl Recipient {
    pub(super) fn status(&self) -> Status {
        if self.done { Status::Done } else { Status::Waiting { due: timestamp(self.due), held: self.held } }
    }
}

/// A waiting message.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub message: Loc,
    /// The other records about it, in order.
    pub history: Vec<Loc>,
    pub recipients: Box<[Recipient]>,
    /// Recipients that are not done.
    waiting: u32,
    /// Copies of the message's record in segments that are not free.
    copies: u32,
    pub large: bool,
}

/// A message that is done while its record still stands in some segment.
#[derive(Debug, Clone, Copy)]
struct Tomb {
    /// The record that says so.
    done: Loc,
    copies: u32,
    /// One of the copies is in the same segment as `done`: they go together.
    own: bool,
}

impl Tomb {
    fn needed(&self) -> bool {
        self.copies > u32::from(self.own)
    }
}

/// What a segment is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being written.
    Active,
    /// Full, or left behind by an earlier run.
    Sealed,
    /// Nothing in it is needed; about to be marked as free.
    Drained,
}

/// A segment that is not free.
#[derive(Debug)]
pub(super) struct Segment {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub bytes: u64,
    pub sequence: u64,
    pub tag: u64,
    pub phase: Phase,
    /// A write or a sync failed: it is emptied and removed.
    pub failed: bool,
    /// Something live in it could not be read: it is not tried again.
    pub damaged: bool,
    /// Bytes that are still needed.
    pub live: u64,
    /// The messages whose records stand in it, done or not.
    pub ids: Vec<QueueId>,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub messages: BTreeMap<QueueId, Entry>,
    tombs: HashMap<QueueId, Tomb>,
    pub segments: BTreeMap<u32, Segment>,
    /// Failed segments that are still there.
    pub voids: Vec<Void>,
    /// Segments that became drained, for the helper.
    pub drained: Vec<u32>,
    /// Messages that became done and have a file of their own, for the helper.
    pub dead_large: Vec<QueueId>,
    /// A sealed segment has little left alive.
    pub ripe: bool,
    /// Recipients that wait.
    pub waiting: u64,
    pub large: u64,
}

/// A sealed segment is worth emptying when at most this part of it is live.
const RIPE_PART: u64 = 4;

impl Index {
    /// Takes a new record in. Returns whether its message has nothing left that waits though no record says so
    /// yet, so that a [`Done`](Event::Done) must be written.
    pub(super) fn apply(&mut self, id: QueueId, event: &Event, last: bool, loc: Loc) -> bool {
        if let Event::Message(brief) = event {
            self.insert(id, brief, loc, 1);
            return brief.recipients == 0;
        }
        let Some(entry) = self.messages.get_mut(&id) else { return false };
        let waited = entry.waiting;
        entry.change(event);
        let waits = entry.waiting;
        self.waiting -= u64::from(waited - waits);
        if last {
            self.finish(id, loc);
            return false;
        }
        entry.history.push(loc);
        self.add_live(loc);
        waits == 0
    }

    /// A message; `copies` of its record stand in segments that know of it already, save the one at `loc`.
    pub(super) fn insert(&mut self, id: QueueId, brief: &MessageBrief, loc: Loc, copies: u32) {
        let recipient = Recipient {
            due: brief.received,
            attempts: u32::from(brief.started),
            done: false,
            held: false,
            fresh: brief.started,
        };
        let entry = Entry {
            message: loc,
            history: Vec::new(),
            recipients: vec![recipient; brief.recipients as usize].into(),
            waiting: brief.recipients,
            copies,
            large: brief.large,
        };
        self.waiting += u64::from(brief.recipients);
        self.large += u64::from(brief.large);
        self.add_live(loc);
        if let Some(segment) = self.segments.get_mut(&loc.slot) {
            segment.ids.push(id);
        }
        self.messages.insert(id, entry);
    }

    fn finish(&mut self, id: QueueId, done: Loc) {
        let Some(entry) = self.messages.remove(&id) else { return };
        self.waiting -= u64::from(entry.waiting);
        if entry.large {
            self.large -= 1;
            self.dead_large.push(id);
        }
        let tomb = Tomb { done, copies: entry.copies, own: entry.message.slot == done.slot };
        if tomb.needed() {
            self.add_live(done);
            self.tombs.insert(id, tomb);
        }
        self.release(entry.message);
        entry.history.into_iter().for_each(|loc| self.release(loc));
    }

    /// A deferral of what began with the acceptance, in this run, takes that attempt back. (After a restart
    /// nobody knows whether it was made; then it stays.) Called in the order in which events are handed in: an outcome
    /// that is on its way to the disk, and not yet in this index, counts as known.
    pub(super) fn withdraw(&mut self, id: QueueId, event: &mut Event) {
        let (Some(entry), Event::Settle(settled)) = (self.messages.get_mut(&id), event) else { return };
        for settled in settled {
            let Some(recipient) = entry.recipients.get_mut(settled.recipient as usize) else { continue };
            let fresh = recipient.fresh;
            recipient.fresh &= settled.attempt == 0;
            if let NextBrief::Deferred(until) = settled.next
                && settled.attempt == 0
                && fresh
            {
                settled.next = NextBrief::Withdrawn(until);
                recipient.fresh = false;
            }
        }
    }

    /// The run that accepted what is here has ended.
    pub(super) fn age(&mut self) {
        for recipient in self.messages.values_mut().flat_map(|entry| entry.recipients.iter_mut()) {
            recipient.fresh = false;
        }
    }

    /// Whether a settlement leaves nothing that waits.
    pub(super) fn is_last(&self, id: QueueId, event: &Event) -> bool {
        let (Some(entry), Event::Settle(settled)) = (self.messages.get(&id), event) else { return false };
        let ends = |settled: &&SettleBrief| {
            let recipient = entry.recipients.get(settled.recipient as usize);
            settled.next == NextBrief::Done && recipient.is_some_and(|recipient| !recipient.done)
        };
        match &settled[..] {
            [one] => entry.waiting == 1 && ends(&one),
            many => {
                let mut ended: Vec<u32> = many.iter().filter(ends).map(|settled| settled.recipient).collect();
                ended.sort_unstable();
                ended.dedup();
                ended.len() == entry.waiting as usize
            }
        }
    }

    /// Whether the record at `loc` is needed there.
    pub(super) fn is_live(&self, id: QueueId, loc: Loc) -> bool {
        match self.messages.get(&id) {
            Some(entry) => entry.message == loc || entry.history.contains(&loc),
            None => self.tombs.get(&id).is_some_and(|tomb| tomb.done == loc && tomb.needed()),
        }
    }

    /// A live record was copied.
    pub(super) fn moved(&mut self, id: QueueId, is_message: bool, from: Loc, to: Loc) {
        if is_message {
            // The copy is there whether the message still waits or not.
            if let Some(segment) = self.segments.get_mut(&to.slot) {
                segment.ids.push(id);
            }
            if let Some(tomb) = self.tombs.get_mut(&id) {
                tomb.copies += 1;
                tomb.own |= tomb.done.slot == to.slot;
            }
        }
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.copies += u32::from(is_message);
            let records = std::iter::once(&mut entry.message).chain(&mut entry.history);
            let place = records.into_iter().find(|loc| **loc == from);
            let Some(place) = place else { return };
            *place = to;
        } else if let Some(tomb) = self.tombs.get_mut(&id).filter(|tomb| tomb.done == from) {
            tomb.done = to;
            tomb.own = false;
        } else {
            return;
        }
        self.add_live(to);
        self.release(from);
    }

    /// A segment was marked as free, or is gone: nothing in it will be found again.
    pub(super) fn freed(&mut self, slot: u32) -> Option<Segment> {
        let segment = self.segments.remove(&slot)?;
        self.voids.retain(|void| void.tag != segment.tag);
        for id in &segment.ids {
            if let Some(entry) = self.messages.get_mut(id) {
                entry.copies -= 1;
            } else if let Some(tomb) = self.tombs.get_mut(id) {
                tomb.copies -= 1;
                let tomb = *tomb;
                if !tomb.needed() {
                    self.tombs.remove(id);
                    self.release(tomb.done);
                }
            }
        }
        Some(segment)
    }

    /// A segment will not be written any more.
    pub(super) fn sealed(&mut self, slot: u32, failed: bool) {
        if let Some(segment) = self.segments.get_mut(&slot) {
            segment.phase = Phase::Sealed;
            segment.failed |= failed;
            self.look_at(slot);
        }
    }

    fn add_live(&mut self, loc: Loc) {
        if let Some(segment) = self.segments.get_mut(&loc.slot) {
            segment.live += u64::from(loc.bytes);
        }
    }

    fn release(&mut self, loc: Loc) {
        if let Some(segment) = self.segments.get_mut(&loc.slot) {
            segment.live -= u64::from(loc.bytes);
            self.look_at(loc.slot);
        }
    }

    fn look_at(&mut self, slot: u32) {
        let Some(segment) = self.segments.get_mut(&slot).filter(|segment| segment.phase == Phase::Sealed)
        else {
            return;
        };
        if segment.live == 0 {
            segment.phase = Phase::Drained;
            self.drained.push(slot);
        } else if segment.failed || segment.live * RIPE_PART <= segment.bytes {
            self.ripe = true;
        }
    }

    /// The sealed segment to be emptied next: a failed one, else the one with least alive if that is little.
    /// The youngest ones are left alone, for most mail in them will be done soon.
    pub(super) fn victim(&self, young: u64) -> Option<u32> {
        let newest = self.segments.values().map(|segment| segment.sequence).max()?;
        let sealed =
            self.segments.iter().filter(|(_, segment)| segment.phase == Phase::Sealed && !segment.damaged);
        let fit = sealed.filter(|(_, segment)| {
            let old = segment.sequence + young < newest;
            segment.failed || (old && segment.live * RIPE_PART <= segment.bytes)
        });
        fit.min_by_key(|(_, segment)| (!segment.failed, segment.live)).map(|(slot, _)| *slot)
    }

    /// Waiting recipients of up to `limit` messages with numbers above `after`.
    pub(super) fn page(&self, after: Option<QueueId>, limit: usize) -> Vec<Waiting> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::new();
        for (id, entry) in self.messages.range((from, Bound::Unbounded)).take(limit) {
            page.extend(entry.waiting_recipients(*id));
        }
        page
    }
}

impl Entry {
    fn waiting_recipients(&self, id: QueueId) -> impl Iterator<Item = Waiting> + '_ {
        let waiting = self.recipients.iter().enumerate().filter(|(_, recipient)| !recipient.done);
        waiting.map(move |(index, recipient)| Waiting {
            id,
            recipient: index as u32,
            due: timestamp(recipient.due),
            attempts: recipient.attempts,
            held: recipient.held,
            labels: None,
        })
    }

    /// What a record changes about the recipients.
    fn change(&mut self, event: &Event) {
        match event {
            Event::Message(_) | Event::Done => {}
            Event::Begin(attempts) => {
                for (index, number) in attempts {
                    if let Some(recipient) = self.recipients.get_mut(*index as usize) {
                        recipient.attempts = recipient.attempts.max(*number);
                        recipient.fresh = false;
                    }
                }
            }
            Event::Settle(settled) => {
                for settled in settled {
                    if let Some(recipient) = self.recipients.get_mut(settled.recipient as usize) {
                        self.waiting -= u32::from(recipient.settle(settled.attempt, settled.next));
                    }
                }
            }
            Event::Control { recipients, due, hold } => {
                for index in recipients {
                    if let Some(recipient) = self.recipients.get_mut(*index as usize) {
                        recipient.due = due.unwrap_or(recipient.due);
                        recipient.held = hold.unwrap_or(recipient.held);
                    }
                }
            }
        }
    }
}

impl Recipient {
    /// Returns whether it became done by this.
    fn settle(&mut self, attempt: u32, next: NextBrief) -> bool {
        self.attempts = self.attempts.max(attempt);
        self.fresh &= attempt == 0;
        match next {
            NextBrief::Retry(due) | NextBrief::Deferred(due) => {
                self.due = due;
                false
            }
            NextBrief::Withdrawn(due) => {
                (self.due, self.attempts, self.fresh) = (due, 0, false);
                false
            }
            NextBrief::Done => !std::mem::replace(&mut self.done, true),
        }
    }
}

/// A time as records have it.
pub(super) fn timestamp(microseconds: i64) -> Timestamp {
    let outside = if microseconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(microseconds).unwrap_or(outside)
}
