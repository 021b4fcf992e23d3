//! Going through the queue for an operator: over the index, which tells most, and into the spool for the rest.
//!
//! The index is looked at a part at a time, so that deliveries never wait long for its lock; messages are read by a few
//! threads, and no more of them than are asked for. All of it is off the threads that serve connections.

use std::sync::Arc;

use super::due::{Entry, Key, Place};
use super::listing::{Filter, ListedMessage, ListedRecipient, QueueError, Reader};
use super::sieve::{Match, Sieve};
use super::{Inner, Queue};
use crate::names::QueueId;
use crate::spool::SpoolError;

/// Messages read in one step.
pub(super) const STEP_MESSAGES: usize = 256;
/// Messages counted in one step.
const STEP_COUNTED: usize = 4_096;
/// Recipients of the index looked at under one lock.
const LOCKED_RECIPIENTS: usize = 4_096;
/// Threads that read, and how many messages make another one worth its while.
const READERS_MAX: usize = 4;
const READS_MIN: usize = 32;

/// A way through all that matches a filter.
pub(super) struct Walk {
    inner: Arc<Inner>,
    sieve: Arc<Sieve>,
    /// When these are meant and no others: in order.
    ids: Arc<[QueueId]>,
    reader: Arc<Reader>,
}

/// Some of the index.
pub(super) struct Step {
    /// Recipients that match, or may.
    pub candidates: Vec<Candidate>,
    /// How many messages that are.
    messages: usize,
    /// The last message that was looked at.
    pub last: Option<QueueId>,
    /// There are no more.
    pub end: bool,
}

/// A recipient that matches, or may match.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub key: Key,
    pub entry: Entry,
    /// It does: nothing must be read to say so.
    pub sure: bool,
}

/// How a recipient stands that matches: what counts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Held by hand.
    pub by_hand: bool,
    /// So many hold rules hold it.
    pub rules: usize,
    /// An attempt is under way.
    pub running: bool,
}

impl From<&ListedRecipient> for Standing {
    fn from(recipient: &ListedRecipient) -> Self {
        Self { by_hand: recipient.held, rules: recipient.held_by_rules.len(), running: recipient.running }
    }
}

impl Queue {
    /// Goes through all that matches and hands it on in parts, as it stands; reads only what the index cannot tell.
    pub(super) async fn survey(
        &self,
        filter: &Filter,
        mut each: impl FnMut(&[(Key, Standing)]) + Send,
    ) -> Result<(), QueueError> {
        let walk = Walk::new(self, filter);
        let mut after = None;
        loop {
            let step = walk.step(after, STEP_COUNTED).await?;
            let (sure, unsure): (Vec<_>, Vec<_>) = step.candidates.into_iter().partition(|one| one.sure);
            let mut found: Vec<_> = sure.iter().map(|one| (one.key, walk.standing(&one.entry))).collect();
            for message in walk.read(unsure).await? {
                let of = |one: &ListedRecipient| ((message.id, one.index), Standing::from(one));
                found.extend(message.recipients.iter().map(of));
            }
            each(&found);
            if step.end {
                return Ok(());
            }
            after = step.last;
        }
    }
}

impl Walk {
    pub fn new(queue: &Queue, filter: &Filter) -> Self {
        let rules = queue.hold_rules();
        let mut ids = filter.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let inner = queue.inner.clone();
        Self {
            sieve: Arc::new(Sieve::new(filter, &rules)),
            ids: ids.into(),
            reader: Arc::new(Reader { inner: inner.clone(), rules, filter: filter.clone() }),
            inner,
        }
    }

    /// The next candidates: of `messages_max` messages, or fewer where they must be read.
    pub async fn step(&self, after: Option<QueueId>, messages_max: usize) -> Result<Step, QueueError> {
        let (inner, sieve, ids) = (self.inner.clone(), self.sieve.clone(), self.ids.clone());
        let messages_max = if sieve.decides() { messages_max } else { STEP_MESSAGES };
        let step = tokio::task::spawn_blocking(move || {
            if ids.is_empty() {
                inner.next_candidates(&sieve, after, messages_max)
            } else {
                inner.candidates_of(&ids, &sieve, after, messages_max)
            }
        });
        Ok(step.await.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))?)
    }

    /// Reads what a step found, in order; of what was no more than likely, what does match.
    pub async fn read(&self, candidates: Vec<Candidate>) -> Result<Vec<ListedMessage>, QueueError> {
        let same_message = |a: &Candidate, b: &Candidate| a.key.0 == b.key.0;
        let mut messages: Vec<_> = candidates.chunk_by(same_message).map(<[_]>::to_vec).collect();
        let share = messages.len().div_ceil(READERS_MAX).max(READS_MIN);
        let mut tasks = Vec::with_capacity(READERS_MAX);
        while !messages.is_empty() {
            let rest = messages.split_off(share.min(messages.len()));
            let (reader, part) = (self.reader.clone(), std::mem::replace(&mut messages, rest));
            tasks.push(tokio::task::spawn_blocking(move || reader.read(&part)));
        }
        let mut found = Vec::new();
        for task in tasks {
            let read = task.await.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))?;
            found.extend(read?);
        }
        Ok(found)
    }

    fn standing(&self, entry: &Entry) -> Standing {
        Standing {
            by_hand: entry.held,
            rules: entry.labels.as_ref().map_or(0, |labels| self.sieve.rules_holding(labels)),
            running: entry.place == Place::UnderWay,
        }
    }
}

impl Step {
    fn new(after: Option<QueueId>) -> Self {
        Self { candidates: Vec::new(), messages: 0, last: after, end: false }
    }

    fn look_at(&mut self, sieve: &Sieve, key: Key, entry: &Entry) {
        self.last = Some(key.0);
        let matches = sieve.matches(entry);
        if matches == Match::No {
            return;
        }
        let begins = self.candidates.last().is_none_or(|last| last.key.0 != key.0);
        self.messages += usize::from(begins);
        self.candidates.push(Candidate { key, entry: *entry, sure: matches == Match::Yes });
    }
}

impl Inner {
    /// Blocking: of a long queue in which little matches, all may have to be looked at.
    fn next_candidates(&self, sieve: &Sieve, after: Option<QueueId>, messages_max: usize) -> Step {
        let mut step = Step::new(after);
        while !step.end && step.messages < messages_max {
            let due = self.due.lock();
            step.end = true;
            for (seen, (key, entry)) in due.after(step.last.map(|id| (id, u32::MAX))).enumerate() {
                let begins = step.last != Some(key.0);
                if begins && (seen >= LOCKED_RECIPIENTS || step.messages == messages_max) {
                    step.end = false;
                    break;
                }
                step.look_at(sieve, *key, entry);
            }
            // To whoever waits for it.
            parking_lot::MutexGuard::unlock_fair(due);
        }
        step
    }

    /// The same of messages that are named, in order.
    fn candidates_of(
        &self,
        ids: &[QueueId],
        sieve: &Sieve,
        after: Option<QueueId>,
        messages_max: usize,
    ) -> Step {
        let mut step = Step::new(after);
        for id in ids.iter().filter(|id| after.is_none_or(|after| **id > after)) {
            if step.messages == messages_max {
                return step;
            }
            let due = self.due.lock();
            due.of_message(*id).for_each(|(key, entry)| step.look_at(sieve, *key, entry));
            step.last = Some(*id);
        }
        step.end = true;
        step
    }
}
