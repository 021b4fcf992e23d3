//! A session's view of its mailbox: which sequence number is which UID, and what the client has been told.
//!
//! RFC 9051 §2.3.1.2 (sequence numbers), §5.2 and §7.5.1 (when expunges may be told). What happens in the mailbox is
//! taken in at any time with [`View::apply`]; the client hears of it with [`View::take_news`], at a moment that allows
//! it. Until then an expunged message keeps its number. Pure.

use std::collections::BTreeSet;

use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use crate::store::{self, Changes, MessageRow};

/// A mailbox as one client sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// In UID order; with messages that are expunged, as long as the client has not been told.
    rows: Vec<MessageRow>,
    /// UIDs expunged, not told yet.
    gone: BTreeSet<u32>,
    /// UIDs whose flags are others than the client knows.
    news: BTreeSet<u32>,
    /// The number of messages that the client knows of.
    exists_told: usize,
    highest_modseq: u64,
}

/// What the client must hear.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Sequence number and UID of expunged messages, from the highest number down, so that each number holds when
    /// it is told.
    pub expunged: Vec<(u32, u32)>,
    /// The number of messages, if there are more.
    pub exists: Option<u32>,
    /// Sequence numbers of messages with other flags, rising.
    pub flags: Vec<u32>,
}

/// A sequence number that no message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("There is no message with that number")]
pub struct NoSuchNumber;

impl View {
    /// The mailbox as it is when it is selected.
    pub fn new(opened: store::View) -> Self {
        Self {
            exists_told: opened.messages.len(),
            rows: opened.messages,
            gone: BTreeSet::new(),
            news: BTreeSet::new(),
            highest_modseq: opened.highest_modseq,
        }
    }

    /// Messages, with those whose expunge was not told.
    pub fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// The moment up to which changes are in.
    pub fn highest_modseq(&self) -> u64 {
        self.highest_modseq
    }

    /// Messages and their sequence numbers.
    pub fn rows(&self) -> impl Iterator<Item = (u32, &MessageRow)> {
        (1..).zip(&self.rows)
    }

    /// The message with a sequence number.
    pub fn row(&self, number: u32) -> Option<&MessageRow> {
        self.rows.get((number as usize).checked_sub(1)?)
    }

    /// The sequence number of a UID.
    pub fn number(&self, uid: u32) -> Option<u32> {
        self.rows.binary_search_by_key(&uid, |row| row.uid).ok().map(|at| at as u32 + 1)
    }

    /// Whether a message is expunged, though the client does not know it yet.
    pub fn is_gone(&self, uid: u32) -> bool {
        self.gone.contains(&uid)
    }

    /// The sequence numbers that a set means, rising, each once. UIDs that no message has are passed over; numbers
    /// that no message has are an error (RFC 9051 §9, seq-number), unless `*` makes the range hold anyway.
    pub fn resolve(&self, set: &SequenceSet, uids: bool) -> Result<Vec<u32>, NoSuchNumber> {
        let mut ranges = Vec::with_capacity(set.0.as_ref().len());
        for sequence in set.0.as_ref() {
            let (from, to) = if uids { self.uid_range(sequence) } else { self.number_range(sequence)? };
            if from < to {
                ranges.push((from, to));
            }
        }
        Ok(merge(ranges).into_iter().flat_map(|(from, to)| from as u32 + 1..=to as u32).collect())
    }

    /// As [`View::resolve`], but what does not exist is passed over: so SEARCH takes its sets.
    pub fn resolve_lenient(&self, set: &SequenceSet, uids: bool) -> Vec<u32> {
        let mut ranges = Vec::new();
        for sequence in set.0.as_ref() {
            let (from, to) = if uids {
                self.uid_range(sequence)
            } else {
                self.number_range(sequence).unwrap_or_else(|NoSuchNumber| {
                    let (low, high) = bounds(sequence, self.len());
                    (
                        (low as usize).saturating_sub(1).min(self.rows.len()),
                        (high as usize).min(self.rows.len()),
                    )
                })
            };
            if from < to {
                ranges.push((from, to));
            }
        }
        merge(ranges).into_iter().flat_map(|(from, to)| from as u32 + 1..=to as u32).collect()
    }

    /// Places in `rows`, the second excluded.
    fn number_range(&self, sequence: &Sequence) -> Result<(usize, usize), NoSuchNumber> {
        let count = self.len();
        let has_star = match sequence {
            Sequence::Single(one) => *one == SeqOrUid::Asterisk,
            Sequence::Range(a, b) => *a == SeqOrUid::Asterisk || *b == SeqOrUid::Asterisk,
        };
        if count == 0 && has_star {
            return Ok((0, 0));
        }
        let (low, high) = bounds(sequence, count);
        if high > count {
            // `6:*` with five messages: strictly no number at all, but clients ask so for what is new.
            return if has_star { Ok((self.rows.len() - 1, self.rows.len())) } else { Err(NoSuchNumber) };
        }
        Ok((low as usize - 1, high as usize))
    }

    fn uid_range(&self, sequence: &Sequence) -> (usize, usize) {
        let Some(last) = self.rows.last() else { return (0, 0) };
        // RFC 9051 §6.4.9: a range with `*` always holds the last message.
        let (low, high) = bounds(sequence, last.uid);
        let from = self.rows.partition_point(|row| row.uid < low);
        let to = self.rows.partition_point(|row| row.uid <= high);
        (from, to)
    }

    /// Takes in what happened in the mailbox.
    pub fn apply(&mut self, changes: Changes) {
        for row in changes.changed {
            match self.rows.binary_search_by_key(&row.uid, |known| known.uid) {
                Ok(at) => {
                    if self.rows[at].flags != row.flags {
                        self.news.insert(row.uid);
                    }
                    self.rows[at] = row;
                }
                Err(at) if at == self.rows.len() => self.rows.push(row),
                // UIDs rise: one that comes in between was expunged and told already.
                Err(_) => {}
            }
        }
        for uid in changes.expunged {
            if self.number(uid).is_some() {
                self.gone.insert(uid);
                self.news.remove(&uid);
            }
        }
        self.highest_modseq = self.highest_modseq.max(changes.highest_modseq);
    }

    /// The client has been told this message's flags, or knows them because it set them.
    pub fn knows_flags(&mut self, uid: u32) {
        self.news.remove(&uid);
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        !self.gone.is_empty() || !self.news.is_empty() || self.rows.len() > self.exists_told
    }

    /// Takes what the client must hear now. Without `expunges`, those wait (RFC 9051 §7.5.1: not during FETCH, STORE
    /// and SEARCH, nor while no command is in progress).
    pub fn take_news(&mut self, expunges: bool) -> News {
        let mut news = News::default();
        if expunges && !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            news.expunged = gone.iter().rev().filter_map(|uid| Some((self.number(*uid)?, *uid))).collect();
            // Of those that the client never heard of, it need not hear (their numbers are above what it knows).
            let told = self.exists_told;
            let unknown = news.expunged.iter().filter(|(number, _)| *number as usize > told).count();
            news.expunged.drain(..unknown);
            self.exists_told -= news.expunged.len();
            self.rows.retain(|row| !gone.contains(&row.uid));
        }
        if self.rows.len() > self.exists_told {
            self.exists_told = self.rows.len();
            news.exists = Some(self.len());
        }
        let changed = std::mem::take(&mut self.news);
        news.flags = changed.iter().filter_map(|uid| self.number(*uid)).collect();
        news
    }
}

/// Lowest and highest of a sequence, `*` being `star`.
fn bounds(sequence: &Sequence, star: u32) -> (u32, u32) {
    let value = |end: &SeqOrUid| match end {
        SeqOrUid::Value(number) => number.get(),
        SeqOrUid::Asterisk => star,
    };
    match sequence {
        Sequence::Single(one) => (value(one), value(one)),
        Sequence::Range(a, b) => (value(a).min(value(b)), value(a).max(value(b))),
    }
}

/// Ranges in order, without overlap: no set, however written, means more than there is.
fn merge(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Writes rising numbers as a set: `1:3,5`.
pub fn write_set(numbers: impl IntoIterator<Item = u32>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut numbers = numbers.into_iter().peekable();
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if(|next| *next == last + 1) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        let _ = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}:{last}")
        };
    }
    text
}

#[cfg(test)]
#[path = "tests/view.rs"]
mod tests;
