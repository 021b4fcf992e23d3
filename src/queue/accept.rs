//! Taking mail: durable first, then straight on to delivery with the body still in memory.

use std::sync::Arc;

use super::dispatch::{self, Loaded, Subject};
use super::due::{Entry, Place};
use super::{Queue, shown};
use crate::names::QueueId;
use crate::smtp::Reply;
use crate::spool::{MessageLabels, NewMessage, SpoolError};

/// Why a message was not taken; nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No space on disk: the sender should try later (452).
    #[error("no space left in the spool")]
    Full,
    /// The disk failed, or we are stopping: the sender should try later (451).
    #[error("the message could not be written: {0}")]
    Temporary(String),
    /// The message is larger than the spool takes (552).
    #[error("the message is too large")]
    TooLarge,
    /// The scripts send it to a transport that refuses at submission: this is the operator's answer.
    #[error("refused by a transport: {} {}", .0.code, .0.text())]
    Refused(Reply),
}

impl From<SpoolError> for AcceptError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full => Self::Full,
            SpoolError::TooLarge => Self::TooLarge,
            other => Self::Temporary(other.to_string()),
        }
    }
}

impl Queue {
    /// Takes responsibility for a message: when this returns `Ok`, it is on disk (RFC 5321 §6.1), and its first
    /// attempt has been set going. A message that the scripts send to a `fail` transport with `at_submission` is
    /// refused instead.
    pub async fn accept(&self, message: NewMessage) -> Result<QueueId, AcceptError> {
        if self.inner.stopping() {
            return Err(AcceptError::Temporary("the server is stopping".into()));
        }
        if let Some(reply) = dispatch::refusal(&self.inner, &message).await {
            return Err(AcceptError::Refused(reply));
        }
        self.take(message).await
    }

    /// As [`Queue::accept`]; what comes while the queue stops waits for the next start. So the reports of the last
    /// deliveries are not refused.
    pub(super) async fn take(&self, message: NewMessage) -> Result<QueueId, AcceptError> {
        let inner = &self.inner;
        let starts = !inner.stopping() && !self.holds_any_of(&message);
        let message = Arc::new(message);
        let id = inner.parts.spool.accept(message.clone(), starts).await?;
        let count = message.envelope.recipients.len() as u32;
        let (now, labels) = (crate::clock::now(), MessageLabels::of(&message));
        {
            let mut due = inner.due.lock();
            for recipient in 0..count {
                let address = &message.envelope.recipients[recipient as usize].address;
                let rule = inner.rules.holding(&message, address);
                let place = if starts && rule.is_none() { Place::InLine } else { Place::Waits };
                let labels = labels.recipient(recipient);
                let entry = Entry { rule, place, started: starts, labels, ..Entry::new(now, 0) };
                due.put((id, recipient), entry);
            }
        }
        inner.counts.messages.inc();
        inner.counts.recipients.add(count.into());
        tracing::debug!(id = shown(id), "queued");
        if !starts {
            inner.wake.notify_one();
            return Ok(id);
        }
        let subjects = (0..count).map(Subject::fresh).collect();
        let loaded = Loaded { id, message, subjects, fresh: true };
        inner.tasks.spawn(dispatch::dispatch(inner.clone(), loaded));
        Ok(id)
    }

    /// Whether a hold rule keeps some of its recipients back.
    fn holds_any_of(&self, message: &NewMessage) -> bool {
        let rules = &self.inner.rules;
        let mut recipients = message.envelope.recipients.iter();
        !rules.are_none() && recipients.any(|recipient| rules.holding(message, &recipient.address).is_some())
    }
}
