//! What goes into the spool and what comes out of it: messages, the state of their recipients, and the
//! events that change it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::labels::Labels;
use crate::attempt::Attempt;
use crate::envelope::Envelope;
use crate::names::{AccountName, QueueId, TransportName};

/// How a spool is laid out on disk, and when it says that it is full.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// Size of a segment of the log; from 64 KiB to 1 GiB, other values are moved into that range.
    pub segment_bytes: u64,
    /// A message of this size or more stands in a file of its own; never above a quarter of a segment.
    pub large_bytes_min: usize,
    /// Space that must stay free on the file system: with less, [`SpoolError::Full`] is answered.
    pub free_bytes_min: u64,
    /// The longest that an unsynced [`settle_later`](super::Spool::settle_later) waits for company.
    pub settle_delay: Duration,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            large_bytes_min: 1 << 20,
            free_bytes_min: 64 << 20,
            settle_delay: Duration::from_millis(20),
        }
    }
}

/// A message on its way into the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Sender, recipients and their parameters.
    pub envelope: Envelope,
    /// Who submitted it; `None` for mail from other servers and for our own reports.
    pub account: Option<AccountName>,
    /// When it was taken.
    pub received: Timestamp,
    /// How it came to us.
    pub origin: Origin,
    /// The whole message as it will be sent: added header fields in front, CR LF lines.
    pub content: Bytes,
}

/// How a message came to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The session that brought it, as in the log.
    pub session: String,
    /// As in Received: `ESMTPSA`, `ESMTP`...; `DSN` for our own reports.
    pub protocol: String,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The name the client gave itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
}

/// A recipient that still waits for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The message.
    pub id: QueueId,
    /// Index in `envelope.recipients`.
    pub recipient: u32,
    /// When the next attempt is due (microseconds are kept, what is finer is not).
    pub due: Timestamp,
    /// Attempts begun so far, the one that runs included.
    pub attempts: u32,
    /// The operator holds it.
    pub held: bool,
    /// What its record says of it: known at a start only, and not of messages that an early version wrote.
    pub labels: Option<Labels>,
}

/// A message read back, with the state of each recipient.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its number.
    pub id: QueueId,
    /// The message; from [`read_summary`](super::Spool::read_summary) its `content` is the header only.
    pub message: Arc<NewMessage>,
    /// Size of the whole content, bytes.
    pub size: u64,
    /// One for each of `envelope.recipients`.
    pub recipients: Vec<RecipientState>,
}

/// Where a recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    /// Waiting or done.
    pub status: Status,
    /// Attempts begun so far, the one that runs included.
    pub attempts: u32,
    /// All attempts, oldest first.
    pub history: Vec<Attempt>,
    /// The transport that the operator set for it.
    pub transport_override: Option<TransportName>,
    /// Why the last attempt was not even made (a script's error); `None` after an attempt.
    pub deferral: Option<String>,
    /// The sender has been told that it takes long.
    pub delay_reported: bool,
}

/// Whether anything is left to do for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The next attempt is due then; not while it is held.
    Waiting {
        /// When the next attempt is due.
        due: Timestamp,
        /// The operator holds it.
        held: bool,
    },
    /// Delivered, bounced or dropped.
    Done,
}

/// What became of one recipient's attempt, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Index in `envelope.recipients`.
    pub recipient: u32,
    /// The attempt with its outcome; takes the place of what `begin` wrote under the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// What follows.
    pub next: Next,
    /// The sender has been told that it takes long: not to be told again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delay_reported: bool,
}

/// What follows an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Next {
    /// Nothing: delivered, bounced or dropped.
    Done,
    /// Another attempt at that time.
    Retry(Timestamp),
    /// No attempt was made and no attempt number used up; ask the scripts again at that time.
    Deferred {
        /// When to ask again.
        until: Timestamp,
        /// What was wrong.
        error: String,
    },
}

/// What an operator changes. Fields that are `None` stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// Indices in `envelope.recipients`: these and no others.
    pub recipients: Vec<u32>,
    /// A new time for the next attempt.
    pub due: Option<Timestamp>,
    /// Hold (`true`) or release (`false`).
    pub hold: Option<bool>,
    /// Set a transport that beats all scripts, or (`Some(None)`) let the scripts decide again.
    pub transport: Option<Option<TransportName>>,
}

/// What the spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// Messages with a recipient that waits.
    pub messages: u64,
    /// Recipients that wait.
    pub recipients: u64,
    /// Segments in use, the one being written included.
    pub segments_used: u64,
    /// Segments ready for reuse.
    pub segments_free: u64,
    /// Bytes in the log that are still needed.
    pub live_bytes: u64,
    /// Bytes that the segments take on disk.
    pub disk_bytes: u64,
    /// Messages in files of their own.
    pub large_messages: u64,
    /// Damaged records and files found since the spool was opened.
    pub damaged: u64,
    /// Writes and syncs that failed since the spool was opened.
    pub failures: u64,
}

/// Why the spool did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// No space: try later (452).
    #[error("no space left for the queue")]
    Full,
    /// The disk failed; nothing was taken (451).
    #[error("the queue could not be written or read: {0}")]
    Io(Arc<std::io::Error>),
    /// More than the log can take in one record: too many recipients or too long addresses.
    #[error("the message is too large for the queue")]
    TooLarge,
    /// No message of this number waits here.
    #[error("no message {0} in the queue")]
    Unknown(QueueId),
    /// What was written before does not read back.
    #[error("message {0} is damaged on disk")]
    Damaged(QueueId),
    /// Another process has this spool open.
    #[error("the queue in {0} is in use by another process")]
    Locked(PathBuf),
    /// The spool was closed.
    #[error("the queue is closed")]
    Closed,
}

impl From<std::io::Error> for SpoolError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
