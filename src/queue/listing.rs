//! What operators see of the queue.
//!
//! A listing goes page by page in order of queue id and reads only what it shows, so that it stays quick however long
//! the queue is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::Entry;
use super::{Inner, Queue};
use crate::address::{Domain, Mailbox};
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::spool::{RecipientState, SpoolError, Status, StoredMessage};
use crate::store::{FinishedRecipient, HISTORY_PAGE_MAX, HistoryFilter, StoreError};

/// Messages looked at in one step of a listing.
pub(super) const STEP_MESSAGES: usize = 256;

/// Which recipients are meant; fields that are not set match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// These messages.
    pub ids: Vec<QueueId>,
    /// Sent by this account.
    pub account: Option<AccountName>,
    /// With this reverse-path.
    pub sender: Option<ReversePath>,
    /// To this mailbox.
    pub recipient: Option<Mailbox>,
    /// With a reverse-path in this domain.
    pub sender_domain: Option<Domain>,
    /// To a mailbox in this domain.
    pub recipient_domain: Option<Domain>,
    /// Held, or not held.
    pub held: Option<bool>,
    /// After at least so many attempts.
    pub attempts_min: Option<u32>,
    /// Whose last attempt went over this transport, or for which it is set.
    pub transport: Option<TransportName>,
    /// Accepted at that time or before.
    pub received_until: Option<Timestamp>,
    /// Whose last attempt, or last look for a way, ended with this text in it; case does not matter.
    pub error: Option<String>,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In order of queue id.
    pub messages: Vec<ListedMessage>,
    /// Where the next page begins (pass it as `after`); `None` at the end.
    pub next: Option<QueueId>,
}

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMessage {
    /// Its number.
    pub id: QueueId,
    /// When it was accepted.
    pub received: Timestamp,
    /// Who submitted it.
    pub account: Option<AccountName>,
    /// The reverse-path; empty for the null sender.
    pub sender: ReversePath,
    /// Bytes.
    pub size: u64,
    /// Those that wait and match.
    pub recipients: Vec<ListedRecipient>,
}

/// A recipient in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRecipient {
    /// Its index in the envelope.
    pub index: u32,
    /// Who it is.
    pub address: Mailbox,
    /// When the next attempt is due.
    pub due: Timestamp,
    /// Held by the operator.
    pub held: bool,
    /// An attempt runs or waits for a slot.
    pub running: bool,
    /// It waits in line for a transport; no attempt has begun.
    #[serde(default)]
    pub in_line: Option<InLine>,
    /// Attempts made.
    pub attempts: u32,
    /// The transport that the operator set.
    pub transport: Option<TransportName>,
    /// Why no way could be chosen when it was last due.
    pub problem: Option<String>,
    /// All attempts so far, oldest first.
    pub history: Vec<Attempt>,
}

/// What a recipient waits for whose turn has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InLine {
    /// The transport that was chosen for it.
    pub transport: String,
    /// The transport has sent as many messages as its rate allows; else as many as may run at the same time are running.
    pub rate: bool,
}

/// Counts of the whole queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Recipients that wait.
    pub recipients: usize,
    /// Deliveries that run.
    pub running: usize,
    /// Groups of recipients that wait for a slot.
    pub in_line: usize,
}

/// Why the queue could not do what the operator asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A failure could not be reported to the sender.
    #[error("cannot report the failure: {0}")]
    Report(#[from] super::AcceptError),
    /// The history could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Filter {
    fn matches_message(&self, stored: &StoredMessage) -> bool {
        let message = &stored.message;
        let sender = message.envelope.sender.mailbox();
        self.account.as_ref().is_none_or(|a| message.account.as_ref() == Some(a))
            && self.sender.as_ref().is_none_or(|s| message.envelope.sender == *s)
            && self.sender_domain.as_ref().is_none_or(|d| sender.is_some_and(|s| s.domain == *d))
            && self.received_until.is_none_or(|until| message.received <= until)
    }

    fn matches_state(&self, state: &RecipientState) -> bool {
        let last = state.history.last();
        let over = |name: &TransportName| {
            state.transport_override.as_ref() == Some(name)
                || last.and_then(|a| a.decision.as_ref()).is_some_and(|d| d.transport == *name)
        };
        let said = |text: &String| {
            let text = text.to_lowercase();
            let outcome = last.and_then(|attempt| attempt.outcome.as_ref());
            let words = outcome.map(|o| match (o.code, o.enhanced) {
                (Some(code), Some(enhanced)) => format!("{code} {enhanced} {}", o.text),
                (Some(code), None) => format!("{code} {}", o.text),
                (None, _) => o.text.clone(),
            });
            words.iter().chain(&state.deferral).any(|words| words.to_lowercase().contains(&text))
        };
        self.transport.as_ref().is_none_or(over) && self.error.as_ref().is_none_or(said)
    }

    fn matches_recipient(&self, address: &Mailbox, entry: &Entry) -> bool {
        self.recipient.as_ref().is_none_or(|r| r == address)
            && self.recipient_domain.as_ref().is_none_or(|d| *d == address.domain)
            && self.held.is_none_or(|h| h == entry.held)
            && self.attempts_min.is_none_or(|n| entry.attempts >= n)
    }
}

impl Queue {
    /// Counts.
    pub fn stats(&self) -> Stats {
        let recipients = self.inner.due.lock().count();
        let slots = self.inner.slots.lock();
        Stats { recipients, running: slots.running(), in_line: slots.waiting() }
    }

    /// A page of what matches, at most `limit` messages, after queue id `after`.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let mut page = Page::default();
        let mut at = after;
        loop {
            let step = self.inner.step(filter, at);
            for (id, entries) in step.messages {
                if page.messages.len() >= limit {
                    page.next = at;
                    return Ok(page);
                }
                match self.inner.listed(filter, id, &entries).await {
                    Ok(message) => page.messages.extend(message),
                    // The log tells of it; it must not keep operators from all the others.
                    Err(QueueError::Spool(SpoolError::Damaged(_))) if filter.ids.is_empty() => {}
                    Err(error) => return Err(error),
                }
                at = Some(id);
            }
            if step.end {
                return Ok(page);
            }
        }
    }

    /// One message with its whole history, if it is in the queue.
    pub async fn show(&self, id: QueueId) -> Result<Option<ListedMessage>, QueueError> {
        let filter = Filter { ids: vec![id], ..Filter::default() };
        Ok(self.list(&filter, None, 1).await?.messages.pop())
    }

    /// The recipients of a message that are done, with their attempts.
    pub async fn finished(&self, id: QueueId) -> Result<Vec<FinishedRecipient>, QueueError> {
        let filter = HistoryFilter { id: Some(id), ..HistoryFilter::default() };
        Ok(self.inner.parts.store.history(filter, None, HISTORY_PAGE_MAX).await?.recipients)
    }
}

struct Step {
    messages: Vec<(QueueId, Vec<(u32, Entry)>)>,
    end: bool,
}

/// A recipient as operators see it.
fn shown(
    index: u32,
    address: &Mailbox,
    entry: &Entry,
    state: &RecipientState,
    in_line: Option<InLine>,
) -> ListedRecipient {
    // The record of a message that was just accepted says that attempt 1 has begun; in line, it has not.
    let unbegun = in_line.is_some() && entry.attempts == 0;
    ListedRecipient {
        index,
        address: address.clone(),
        due: entry.due,
        held: entry.held,
        running: entry.busy,
        in_line,
        attempts: if unbegun { 0 } else { state.attempts },
        transport: state.transport_override.clone(),
        // In line, a way was chosen.
        problem: state.deferral.clone().filter(|_| entry.in_line.is_none()),
        history: if unbegun { Vec::new() } else { state.history.clone() },
    }
}

impl Inner {
    /// The next messages of the index; the lock is held only while they are copied.
    fn step(&self, filter: &Filter, after: Option<QueueId>) -> Step {
        let due = self.due.lock();
        let mut messages: Vec<(QueueId, Vec<(u32, Entry)>)> = Vec::new();
        if !filter.ids.is_empty() {
            for id in filter.ids.iter().filter(|id| after.is_none_or(|a| **id > a)) {
                let entries: Vec<_> = due.of_message(*id).map(|(key, entry)| (key.1, *entry)).collect();
                if !entries.is_empty() {
                    messages.push((*id, entries));
                }
            }
            messages.sort_by_key(|(id, _)| *id);
            messages.dedup_by_key(|(id, _)| *id);
            return Step { messages, end: true };
        }
        for (key, entry) in due.after(after.map(|id| (id, u32::MAX))) {
            if let Some((id, entries)) = messages.last_mut()
                && *id == key.0
            {
                entries.push((key.1, *entry));
            } else if messages.len() == STEP_MESSAGES {
                return Step { messages, end: false };
            } else {
                messages.push((key.0, vec![(key.1, *entry)]));
            }
        }
        Step { messages, end: true }
    }

    fn in_line(&self, entry: &Entry) -> Option<InLine> {
        let transport = self.due.lock().transport(entry.in_line?)?.clone();
        let rate = self.slots.lock().is_held_by_rate(&transport, tokio::time::Instant::now());
        Some(InLine { transport: transport.to_string(), rate })
    }

    async fn listed(
        &self,
        filter: &Filter,
        id: QueueId,
        entries: &[(u32, Entry)],
    ) -> Result<Option<ListedMessage>, QueueError> {
        let spool = self.parts.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.read_summary(id)).await;
        let stored = read.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))??;
        let Some(stored) = stored.filter(|stored| filter.matches_message(stored)) else { return Ok(None) };
        let recipients: Vec<ListedRecipient> = entries
            .iter()
            .filter_map(|(index, entry)| {
                let address = &stored.message.envelope.recipients.get(*index as usize)?.address;
                let state = stored.recipients.get(*index as usize)?;
                let waits = matches!(state.status, Status::Waiting { .. });
                (waits && filter.matches_recipient(address, entry) && filter.matches_state(state))
                    .then(|| shown(*index, address, entry, state, self.in_line(entry)))
            })
            .collect();
        let message = &stored.message;
        Ok((!recipients.is_empty()).then(|| ListedMessage {
            id,
            received: message.received,
            account: message.account.clone(),
            sender: message.envelope.sender.clone(),
            size: stored.size,
            recipients,
        }))
    }
}
