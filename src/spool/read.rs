//! A message with its history, read back from the log. The index says where the records stand and what the
//! state of each recipient is; the records have the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::index::{Entry, Index, Loc};
use super::record::{
    ControlDetail, Event, HEADER_BYTES, Head, Kind, MessageBrief, MessageDetail, NextBrief, Override, Record,
};
use super::types::{NewMessage, Next, RecipientState, Settlement, SpoolError, StoredMessage};
use super::{Shared, large};
use crate::attempt::Attempt;
use crate::names::QueueId;

/// A summary is read with one call in most cases: heads, details and headers are shorter than this.
const SUMMARY_BYTES: usize = 16 << 10;
/// How often records may be copied forward under our eyes.
const TRIES_MAX: usize = 16;

/// An open segment and its generation, with a place in it.
pub(super) struct Place {
    pub file: Arc<File>,
    pub tag: u64,
    pub loc: Loc,
}

impl Place {
    pub(super) fn new(index: &Index, loc: Loc) -> Option<Self> {
        let segment = index.segments.get(&loc.slot)?;
        Some(Self { file: segment.file.clone(), tag: segment.tag, loc })
    }

    /// So many bytes, or fewer where the file was cut: the bytes that fill a record up may be missing.
    pub(super) fn bytes(&self, count: usize) -> io::Result<Bytes> {
        let rest = self.file.metadata()?.len().saturating_sub(u64::from(self.loc.offset));
        let mut bytes = vec![0; count.min(usize::try_from(rest).unwrap_or(count))];
        self.file.read_exact_at(&mut bytes, u64::from(self.loc.offset))?;
        Ok(bytes.into())
    }

    /// The whole record; `None` when it is damaged (or is not there any more).
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        Ok(Record::parse(self.bytes(self.loc.bytes as usize)?, self.tag))
    }

    /// The record of a message, its content cut off after the header.
    fn summary(&self) -> io::Result<Option<Record>> {
        let whole = self.loc.bytes as usize;
        let mut bytes = self.bytes(whole.min(SUMMARY_BYTES.max(HEADER_BYTES)))?;
        let Some(head) = Head::parse(&bytes).filter(|head| head.tag == self.tag) else { return Ok(None) };
        if head.record_bytes() != whole {
            return Ok(None);
        }
        if head.front_bytes() > bytes.len() {
            bytes = self.bytes(head.front_bytes())?;
        }
        let Some(record) = Record::parse_front(bytes, self.tag) else { return Ok(None) };
        let Some(Event::Message(brief)) = Event::parse(head.kind, record.brief()) else { return Ok(None) };
        let needed = head.front_bytes() + (brief.header_bytes as usize).min(head.content_bytes as usize);
        Ok(if record.content().len() + head.front_bytes() >= needed {
            Some(record)
        } else {
            Record::parse_front(self.bytes(needed)?, self.tag)
        })
    }
}

/// Reads a message; `None` when it is not in the index.
pub(super) fn read(shared: &Shared, id: QueueId, whole: bool) -> Result<Option<StoredMessage>, SpoolError> {
    let mut last_seen: Option<Vec<Loc>> = None;
    for _ in 0..TRIES_MAX {
        let Some((entry, places)) = look_up(shared, id) else { return Ok(None) };
        let locs: Vec<Loc> = places.iter().map(|place| place.loc).collect();
        let settled = last_seen.as_ref() == Some(&locs);
        if let Some(stored) = read_at(shared, id, &entry, &places, whole, settled)? {
            return Ok(Some(stored));
        }
        // A record that is not good where it was a moment ago may have been copied forward and its segment be in
        // new use. If it still stands at the same place, it is damaged.
        if settled {
            break;
        }
        last_seen = Some(locs);
    }
    shared.count_damage();
    tracing::error!(%id, "the record of a message is damaged");
    Err(SpoolError::Damaged(id))
}

pub(super) fn look_up(shared: &Shared, id: QueueId) -> Option<(Entry, Vec<Place>)> {
    let index = shared.index.lock();
    let entry = index.messages.get(&id)?.clone();
    let locs = std::iter::once(entry.message).chain(entry.history.iter().copied());
    let places = locs.map(|loc| Place::new(&index, loc)).collect::<Option<_>>()?;
    Some((entry, places))
}

/// `settled`: the places did not change since a read from them failed, so that history which cannot be read is
/// damaged, and is left out.
fn read_at(
    shared: &Shared,
    id: QueueId,
    entry: &Entry,
    places: &[Place],
    whole: bool,
    settled: bool,
) -> Result<Option<StoredMessage>, SpoolError> {
    let Some((first, rest)) = places.split_first() else { return Ok(None) };
    let record = if whole { first.record()? } else { first.summary()? };
    let Some(record) = record.filter(|record| record.head.id == id) else { return Ok(None) };
    let Some(Event::Message(brief)) = Event::parse(record.head.kind, record.brief()) else { return Ok(None) };
    let Ok(detail) = serde_json::from_slice::<MessageDetail>(record.detail()) else { return Ok(None) };
    let content = match (brief.large, whole) {
        (true, _) => match read_large(shared, id, &brief, whole) {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(None),
            // Done, and removed, while we read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        },
        (false, true) => record.content(),
        (false, false) => {
            let content = record.content();
            content.slice(..content.len().min(brief.header_bytes as usize))
        }
    };
    let at = detail.received;
    let begun = Attempt { number: 1, at, decision: None, outcome: None, ended: None };
    let first: Vec<Attempt> = brief.started.then_some(begun).into_iter().collect();
    let mut recipients: Vec<RecipientState> = entry
        .recipients
        .iter()
        .map(|recipient| RecipientState {
            status: recipient.status(),
            attempts: recipient.attempts,
            history: first.clone(),
            transport_override: None,
            deferral: None,
            delay_reported: false,
        })
        .collect();
    for place in rest {
        let record = place.record()?.filter(|record| record.head.id == id);
        if record.is_none() && !settled {
            return Ok(None);
        }
        if record.is_none_or(|record| recall(&mut recipients, &record).is_none()) {
            shared.count_damage();
            tracing::error!(%id, segment = place.loc.slot, offset = place.loc.offset, "a record of a message's history is damaged");
        }
    }
    let message = NewMessage {
        envelope: detail.envelope,
        account: detail.account,
        received: detail.received,
        origin: detail.origin,
        content,
    };
    Ok(Some(StoredMessage { id, message: Arc::new(message), size: brief.size, recipients }))
}

fn read_large(shared: &Shared, id: QueueId, brief: &MessageBrief, whole: bool) -> io::Result<Option<Bytes>> {
    let file = File::open(large::path(&shared.dir, id))?;
    let size = if whole { brief.size } else { u64::from(brief.header_bytes).min(brief.size) };
    if file.metadata()?.len() != brief.size {
        return Ok(None);
    }
    let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut content, 0)?;
    Ok((!whole || crc32c::crc32c(&content) == brief.file_crc).then(|| content.into()))
}

/// What a record adds to the recipients' history; `None` when it cannot be understood.
fn recall(recipients: &mut [RecipientState], record: &Record) -> Option<()> {
    let detail = record.detail();
    match record.head.kind {
        Kind::Begin => {
            for (index, attempt) in serde_json::from_slice::<Vec<(u32, Attempt)>>(detail).ok()? {
                if let Some(state) = recipients.get_mut(index as usize) {
                    state.deferral = None;
                    remember(state, attempt);
                }
            }
        }
        Kind::Settle => {
            let Some(Event::Settle(briefs)) = Event::parse(Kind::Settle, record.brief()) else { return None };
            for (settlement, brief) in
                serde_json::from_slice::<Vec<Settlement>>(detail).ok()?.into_iter().zip(briefs)
            {
                let Some(state) = recipients.get_mut(settlement.recipient as usize) else { continue };
                state.delay_reported |= settlement.delay_reported;
                state.deferral = match settlement.next {
                    Next::Deferred { error, .. } => Some(error),
                    Next::Done | Next::Retry(_) => None,
                };
                if let NextBrief::Withdrawn(_) = brief.next {
                    state.history.retain(|attempt| attempt.number != 1);
                }
                if let Some(attempt) = settlement.attempt {
                    remember(state, attempt);
                }
            }
        }
        Kind::Control => {
            let control: ControlDetail = serde_json::from_slice(detail).ok()?;
            let set = match control.transport {
                None => return Some(()),
                Some(Override::Clear) => None,
                Some(Override::Set(name)) => Some(name),
            };
            for index in control.recipients {
                if let Some(state) = recipients.get_mut(index as usize) {
                    state.transport_override.clone_from(&set);
                }
            }
        }
        Kind::Message | Kind::Done => {}
    }
    Some(())
}

/// An attempt takes the place of the one with the same number: its beginning.
fn remember(state: &mut RecipientState, attempt: Attempt) {
    match state.history.iter_mut().rev().find(|known| known.number == attempt.number) {
        Some(known) => *known = attempt,
        None => state.history.push(attempt),
    }
}
