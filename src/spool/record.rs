//! One record of the log, byte by byte.
//!
//! A record is a header of 48 bytes, a *brief* (binary: what the index in memory needs), a *detail* (JSON: what
//! a reader needs besides) and, for a message that has no file of its own, the content. The header's CRC covers
//! header, brief and detail; the content has its own, so that a listing can read a message without its body.
//! All numbers are little-endian; a record begins at a multiple of 8. `docs/spool.md` has the table.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::labels::MessageLabels;
use super::types::{Control, NewMessage, Next, Origin, Settlement, SpoolError};
use crate::attempt::Attempt;
use crate::envelope::Envelope;
use crate::names::{AccountName, QueueId, TransportName};

/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 48;
/// Numbers of messages, records and uses of segments are below this: at a million a second it takes longer than there
/// have been people. A higher one is damage that no checksum saw, and counting on from it would overflow.
pub(super) const NUMBERS_END: u64 = 1 << 62;
/// Flag: after this record nothing waits in the message any more, whatever else is found about it.
const FLAG_LAST: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Message = 1,
    Begin = 2,
    Settle = 3,
    Control = 4,
    Done = 5,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Message,
            2 => Self::Begin,
            3 => Self::Settle,
            4 => Self::Control,
            5 => Self::Done,
            _ => return None,
        })
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    /// After this record nothing waits in the message any more.
    pub last: bool,
    /// The segment's generation: random, so that nothing in a message's body can pass for a record.
    pub tag: u64,
    /// Counts all records ever; a copy keeps the number of its original, and numbers give the order.
    pub lsn: u64,
    pub id: QueueId,
    pub brief_bytes: u32,
    pub detail_bytes: u32,
    pub content_bytes: u32,
    pub content_crc: u32,
}

impl Head {
    /// Header, brief and detail.
    pub(super) fn front_bytes(&self) -> usize {
        HEADER_BYTES + self.brief_bytes as usize + self.detail_bytes as usize
    }

    /// The whole record with the bytes that fill it up to a multiple of 8.
    pub(super) fn record_bytes(&self) -> usize {
        (self.front_bytes() + self.content_bytes as usize).next_multiple_of(8)
    }

    /// Puts the header into the first 48 bytes of `front` and the CRC of all of `front` before it.
    fn seal(&self, front: &mut [u8]) {
        front[4] = self.kind as u8;
        front[5] = if self.last { FLAG_LAST } else { 0 };
        front[6..8].fill(0);
        front[8..16].copy_from_slice(&self.tag.to_le_bytes());
        front[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        front[24..32].copy_from_slice(&self.id.0.to_le_bytes());
        front[32..36].copy_from_slice(&self.brief_bytes.to_le_bytes());
        front[36..40].copy_from_slice(&self.detail_bytes.to_le_bytes());
        front[40..44].copy_from_slice(&self.content_bytes.to_le_bytes());
        front[44..48].copy_from_slice(&self.content_crc.to_le_bytes());
        let crc = crc32c::crc32c(&front[4..]);
        front[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header without looking at the CRC.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || bytes[6..8] != [0, 0] || bytes[5] & !FLAG_LAST != 0 {
            return None;
        }
        let head = Self {
            kind: Kind::parse(bytes[4])?,
            last: bytes[5] & FLAG_LAST != 0,
            tag: u64_at(bytes, 8)?,
            lsn: u64_at(bytes, 16)?,
            id: QueueId(u64_at(bytes, 24)?),
            brief_bytes: u32_at(bytes, 32)?,
            detail_bytes: u32_at(bytes, 36)?,
            content_bytes: u32_at(bytes, 40)?,
            content_crc: u32_at(bytes, 44)?,
        };
        (head.lsn < NUMBERS_END && head.id.0 < NUMBERS_END).then_some(head)
    }

    /// Reads the header and checks the CRC of header, brief and detail, all of which must be in `bytes`.
    pub(super) fn parse_checked(bytes: &[u8], tag: u64) -> Option<Self> {
        let head = Self::parse(bytes).filter(|head| head.tag == tag)?;
        let front = bytes.get(4..head.front_bytes())?;
        (Some(crc32c::crc32c(front)) == u32_at(bytes, 0)).then_some(head)
    }
}

/// A record as read from the log.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub head: Head,
    bytes: Bytes,
}

impl Record {
    /// Takes a whole record and checks both CRCs.
    pub(super) fn parse(bytes: Bytes, tag: u64) -> Option<Self> {
        let record = Self::parse_front(bytes, tag)?;
        let content = record.content();
        let whole = content.len() == record.head.content_bytes as usize;
        (whole && crc32c::crc32c(&content) == record.head.content_crc).then_some(record)
    }

    /// Takes the front of a record (or more of it) and checks the front's CRC; the content may be cut off.
    pub(super) fn parse_front(bytes: Bytes, tag: u64) -> Option<Self> {
        let head = Head::parse_checked(&bytes, tag)?;
        Some(Self { head, bytes })
    }

    pub(super) fn brief(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.head.brief_bytes as usize]
    }

    pub(super) fn detail(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES + self.head.brief_bytes as usize..self.head.front_bytes()]
    }

    /// What is there of the content.
    pub(super) fn content(&self) -> Bytes {
        let from = self.head.front_bytes();
        self.bytes.slice(from..self.bytes.len().min(from + self.head.content_bytes as usize))
    }

    /// The same record, to be written elsewhere.
    pub(super) fn into_draft(self) -> Draft {
        let content = self.content();
        Draft { head: self.head, front: self.bytes[..self.head.front_bytes()].to_vec(), content }
    }
}

/// A record that waits to be written: all but its place, and (for new ones) its number.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub head: Head,
    front: Vec<u8>,
    content: Bytes,
}

impl Draft {
    fn new(
        kind: Kind,
        id: QueueId,
        event: &Event,
        detail: &(impl Serialize + ?Sized),
    ) -> Result<Self, SpoolError> {
        let mut front = Vec::with_capacity(512);
        front.resize(HEADER_BYTES, 0);
        event.put(&mut front);
        let brief_bytes = front.len() - HEADER_BYTES;
        serde_json::to_writer(&mut front, detail).map_err(std::io::Error::other)?;
        let head = Head {
            kind,
            last: false,
            tag: 0,
            lsn: 0,
            id,
            brief_bytes: brief_bytes as u32,
            detail_bytes: (front.len() - HEADER_BYTES - brief_bytes) as u32,
            content_bytes: 0,
            content_crc: 0,
        };
        Ok(Self { head, front, content: Bytes::new() })
    }

    /// A message. Its content, whose CRC is given, is part of the record unless it stands in a file of its own.
    pub(super) fn message(
        id: QueueId,
        event: &Event,
        message: &NewMessage,
        inline_crc: Option<u32>,
    ) -> Result<Self, SpoolError> {
        let detail = MessageDetailRef {
            envelope: &message.envelope,
            account: message.account.as_ref(),
            received: message.received,
            origin: &message.origin,
        };
        let mut draft = Self::new(Kind::Message, id, event, &detail)?;
        if let Some(crc) = inline_crc {
            draft.content = message.content.clone();
            draft.head.content_bytes = draft.content.len() as u32;
            draft.head.content_crc = crc;
        }
        Ok(draft)
    }

    /// Attempts that begin.
    pub(super) fn begin(id: QueueId, event: &Event, attempts: &[(u32, Attempt)]) -> Result<Self, SpoolError> {
        Self::new(Kind::Begin, id, event, attempts)
    }

    /// What came of attempts.
    pub(super) fn settle(id: QueueId, event: &Event, settlements: &[Settlement]) -> Result<Self, SpoolError> {
        Self::new(Kind::Settle, id, event, settlements)
    }

    /// What the operator changed.
    pub(super) fn control(id: QueueId, event: &Event, control: &Control) -> Result<Self, SpoolError> {
        let detail = ControlDetail {
            recipients: control.recipients.clone(),
            transport: control.transport.clone().map(|name| name.map_or(Override::Clear, Override::Set)),
        };
        Self::new(Kind::Control, id, event, &detail)
    }

    /// Nothing waits in this message any more.
    pub(super) fn done(id: QueueId) -> Result<Self, SpoolError> {
        let mut draft = Self::new(Kind::Done, id, &Event::Done, &())?;
        draft.head.last = true;
        Ok(draft)
    }

    /// What the record takes in the log; `None` when that cannot be written down.
    pub(super) fn record_bytes(&self) -> Option<usize> {
        u32::try_from(self.front.len() + self.content.len() + 8).ok().map(|_| self.head.record_bytes())
    }

    /// The brief, as it stands in the record and in a footer.
    pub(super) fn brief(&self) -> &[u8] {
        &self.front[HEADER_BYTES..HEADER_BYTES + self.head.brief_bytes as usize]
    }

    /// Appends the record to `out`, under the head that is given.
    pub(super) fn write(&self, head: &Head, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.front);
        head.seal(&mut out[start..]);
        out.extend_from_slice(&self.content);
        out.resize(start + head.record_bytes(), 0);
    }
}

/// What the index in memory learns from a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Message(MessageBrief),
    /// Recipient, attempt number.
    Begin(Vec<(u32, u32)>),
    Settle(Vec<SettleBrief>),
    Control {
        recipients: Vec<u32>,
        due: Option<i64>,
        hold: Option<bool>,
    },
    Done,
}

/// A message, as the index sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessageBrief {
    pub recipients: u32,
    /// Attempt 1 of every recipient began with the acceptance.
    pub started: bool,
    /// The content stands in a file of its own.
    pub large: bool,
    /// Microseconds since 1970.
    pub received: i64,
    /// Of the whole content.
    pub size: u64,
    /// Of the header within the content, the empty line included.
    pub header_bytes: u32,
    /// Of a file of its own; 0 where the content is part of the record, whose header has it.
    pub file_crc: u32,
    /// Who sent it and to whom; an early version wrote records without.
    pub labels: Option<Arc<MessageLabels>>,
}

/// What came of one recipient's attempt, as the index sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettleBrief {
    pub recipient: u32,
    /// 0 when none was made.
    pub attempt: u32,
    pub next: NextBrief,
}

/// What follows; times in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextBrief {
    Done,
    Retry(i64),
    Deferred(i64),
    /// Deferred, and attempt 1, which began with the acceptance, was not made after all.
    Withdrawn(i64),
}

const MESSAGE_BRIEF_BYTES: usize = 32;
const SETTLE_BRIEF_BYTES: usize = 20;

impl Event {
    /// What a settlement means for the index.
    pub(super) fn settle(settlements: &[Settlement]) -> Self {
        let brief = |settlement: &Settlement| SettleBrief {
            recipient: settlement.recipient,
            attempt: settlement.attempt.as_ref().map_or(0, |attempt| attempt.number),
            next: match &settlement.next {
                Next::Done => NextBrief::Done,
                Next::Retry(at) => NextBrief::Retry(at.as_microsecond()),
                Next::Deferred { until, .. } => NextBrief::Deferred(until.as_microsecond()),
            },
        };
        Self::Settle(settlements.iter().map(brief).collect())
    }

    /// Writes the brief.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(brief) => {
                let flags = u32::from(brief.started) | u32::from(brief.large) << 1;
                put_u32s(out, &[brief.recipients, flags, brief.header_bytes, brief.file_crc]);
                out.extend_from_slice(&brief.received.to_le_bytes());
                out.extend_from_slice(&brief.size.to_le_bytes());
                brief.labels.iter().for_each(|labels| labels.put(out));
            }
            Self::Begin(attempts) => {
                for (recipient, number) in attempts {
                    put_u32s(out, &[*recipient, *number]);
                }
            }
            Self::Settle(settlements) => {
                for settled in settlements {
                    let (next, time) = match settled.next {
                        NextBrief::Done => (0, 0),
                        NextBrief::Retry(time) => (1, time),
                        NextBrief::Deferred(time) => (2, time),
                        NextBrief::Withdrawn(time) => (3, time),
                    };
                    put_u32s(out, &[settled.recipient, settled.attempt, next]);
                    out.extend_from_slice(&time.to_le_bytes());
                }
            }
            Self::Control { recipients, due, hold } => {
                let given = u32::from(due.is_some()) | u32::from(hold.is_some()) << 1;
                put_u32s(out, &[given | u32::from(*hold == Some(true)) << 2]);
                out.extend_from_slice(&due.unwrap_or_default().to_le_bytes());
                put_u32s(out, recipients);
            }
            Self::Done => {}
        }
    }

    /// Reads a brief.
    pub(super) fn parse(kind: Kind, brief: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Message => {
                let (brief, labels) = brief.split_at_checked(MESSAGE_BRIEF_BYTES)?;
                let flags = u32_at(brief, 4)?;
                let (recipients, received) = (u32_at(brief, 0)?, i64_at(brief, 16)?);
                let labels = match labels {
                    [] => None,
                    labels => Some(MessageLabels::parse(labels, received, recipients)?.into()),
                };
                Self::Message(MessageBrief {
                    recipients,
                    started: flags & 1 != 0,
                    large: flags & 2 != 0,
                    header_bytes: u32_at(brief, 8)?,
                    file_crc: u32_at(brief, 12)?,
                    received,
                    size: u64_at(brief, 24)?,
                    labels,
                })
            }
            Kind::Begin if brief.len().is_multiple_of(8) => {
                let pair = |pair: &[u8]| Some((u32_at(pair, 0)?, u32_at(pair, 4)?));
                Self::Begin(brief.chunks_exact(8).map(pair).collect::<Option<_>>()?)
            }
            Kind::Settle if brief.len().is_multiple_of(SETTLE_BRIEF_BYTES) => {
                let settled = |bytes: &[u8]| {
                    let time = i64_at(bytes, 12)?;
                    let next = match u32_at(bytes, 8)? {
                        0 => NextBrief::Done,
                        1 => NextBrief::Retry(time),
                        2 => NextBrief::Deferred(time),
                        3 => NextBrief::Withdrawn(time),
                        _ => return None,
                    };
                    Some(SettleBrief { recipient: u32_at(bytes, 0)?, attempt: u32_at(bytes, 4)?, next })
                };
                Self::Settle(brief.chunks_exact(SETTLE_BRIEF_BYTES).map(settled).collect::<Option<_>>()?)
            }
            Kind::Control if brief.len() >= 12 && brief.len().is_multiple_of(4) => {
                let flags = u32_at(brief, 0)?;
                let due = i64_at(brief, 4)?;
                Self::Control {
                    recipients: brief[12..].chunks_exact(4).map(|r| u32_at(r, 0)).collect::<Option<_>>()?,
                    due: (flags & 1 != 0).then_some(due),
                    hold: (flags & 2 != 0).then_some(flags & 4 != 0),
                }
            }
            Kind::Done if brief.is_empty() => Self::Done,
            _ => return None,
        })
    }
}

#[derive(Serialize)]
struct MessageDetailRef<'a> {
    envelope: &'a Envelope,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a AccountName>,
    received: Timestamp,
    origin: &'a Origin,
}

/// The detail of a message.
#[derive(Deserialize)]
pub(super) struct MessageDetail {
    pub envelope: Envelope,
    #[serde(default)]
    pub account: Option<AccountName>,
    pub received: Timestamp,
    pub origin: Origin,
}

/// The detail of a control record, beyond its brief.
#[derive(Serialize, Deserialize)]
pub(super) struct ControlDetail {
    pub recipients: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Override>,
}

/// What the operator did about the transport.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Override {
    Set(TransportName),
    Clear,
}

fn put_u32s(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// A number at a place in bytes that may be too few.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brief_of_a_message_reads_back_also_without_labels_as_early_versions_wrote_it() {
        let message = super::super::tests::message(1, 3, 10);
        let brief = MessageBrief {
            recipients: 3,
            started: true,
            large: false,
            received: message.received.as_microsecond(),
            size: 10,
            header_bytes: 7,
            file_crc: 0,
            labels: Some(MessageLabels::of(&message).into()),
        };
        let mut bytes = Vec::new();
        let event = Event::Message(brief.clone());
        event.put(&mut bytes);
        assert_eq!(Event::parse(Kind::Message, &bytes), Some(event));
        let early = Event::Message(MessageBrief { labels: None, ..brief });
        assert_eq!(Event::parse(Kind::Message, &bytes[..MESSAGE_BRIEF_BYTES]), Some(early));
        for wrong in (0..bytes.len()).filter(|bytes| *bytes != MESSAGE_BRIEF_BYTES) {
            assert_eq!(Event::parse(Kind::Message, &bytes[..wrong]), None, "{wrong} bytes");
        }
    }
}
