//! What operators see of the queue.
//!
//! A listing goes page by page in order of queue id. What the index tells is asked of the index, and only what is shown is
//! read, so that it stays quick however long the queue is; see `sieve` and `walk`.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::{Entry, Place};
use super::walk::{Candidate, STEP_MESSAGES, Walk};
use super::{Inner, Queue};
use crate::address::{Domain, Mailbox};
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::spool::{RecipientState, SpoolError, Status, StoredMessage};
use crate::store::{FinishedRecipient, HISTORY_PAGE_MAX, HistoryFilter, HoldRule, StoreError};

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
    /// After at most so many attempts.
    pub attempts_max: Option<u32>,
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
    /// Numbers of the hold rules that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by_rules: Vec<u32>,
    /// An attempt is under way.
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

    fn matches_address(&self, address: &Mailbox) -> bool {
        self.recipient.as_ref().is_none_or(|r| r == address)
            && self.recipient_domain.as_ref().is_none_or(|d| *d == address.domain)
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
        let walk = Walk::new(self, filter);
        let (mut page, mut looked_at) = (Page::default(), after);
        loop {
            let left = limit - page.messages.len();
            let step = walk.step(looked_at, left.clamp(1, STEP_MESSAGES)).await?;
            if left == 0 && !step.candidates.is_empty() {
                page.next = looked_at;
                return Ok(page);
            }
            let mut found = walk.read(step.candidates).await?;
            let enough = found.len() > left;
            found.truncate(left);
            page.messages.extend(found);
            if enough {
                page.next = page.messages.last().map(|message| message.id);
            }
            if enough || step.end {
                return Ok(page);
            }
            looked_at = step.last;
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

impl Inner {
    fn in_line(&self, entry: &Entry) -> Option<InLine> {
        let transport = self.due.lock().transport(entry.in_line?)?.clone();
        let rate = self.slots.lock().is_held_by_rate(&transport, tokio::time::Instant::now());
        Some(InLine { transport: transport.to_string(), rate })
    }
}

/// Reads what a listing shows; blocking.
pub(super) struct Reader {
    pub inner: Arc<Inner>,
    pub rules: Vec<HoldRule>,
    pub filter: Filter,
}

impl Reader {
    /// Those that match, each of its own recipients that match.
    pub fn read(&self, messages: &[Vec<Candidate>]) -> Result<Vec<ListedMessage>, SpoolError> {
        let mut found = Vec::with_capacity(messages.len());
        for candidates in messages {
            match self.listed(candidates) {
                Ok(message) => found.extend(message),
                // The log tells of it; it must not keep operators from all the others.
                Err(SpoolError::Damaged(_)) if self.filter.ids.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn listed(&self, candidates: &[Candidate]) -> Result<Option<ListedMessage>, SpoolError> {
        let Some(first) = candidates.first() else { return Ok(None) };
        let id = first.key.0;
        let stored = self.inner.parts.spool.read_summary(id)?;
        let Some(stored) = stored.filter(|stored| self.filter.matches_message(stored)) else {
            return Ok(None);
        };
        let recipients = candidates.iter().filter_map(|one| self.recipient(&stored, one.key.1, &one.entry));
        let recipients: Vec<ListedRecipient> = recipients.collect();
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

    /// A recipient as it is shown, if it waits and matches.
    fn recipient(&self, stored: &StoredMessage, index: u32, entry: &Entry) -> Option<ListedRecipient> {
        let message = &stored.message;
        let address = &message.envelope.recipients.get(index as usize)?.address;
        let state = stored.recipients.get(index as usize)?;
        let waits = matches!(state.status, Status::Waiting { .. });
        if !(waits && self.filter.matches_address(address) && self.filter.matches_state(state)) {
            return None;
        }
        let (account, sender) = (message.account.as_ref(), &message.envelope.sender);
        let holding = self.rules.iter().filter(|r| r.rule.fields.match_mail(account, sender, address));
        let held_by_rules: Vec<u32> = holding.map(|rule| rule.number).collect();
        let held = entry.held || !held_by_rules.is_empty();
        if self.filter.held.is_some_and(|wanted| wanted != held) {
            return None;
        }
        // Accepted in this run and not attempted yet: its record says that attempt 1 has begun, we know better.
        let unbegun = entry.is_unbegun();
        Some(ListedRecipient {
            index,
            address: address.clone(),
            due: entry.due,
            held: entry.held,
            held_by_rules,
            in_line: self.inner.in_line(entry),
            running: entry.place == Place::UnderWay,
            attempts: if unbegun { 0 } else { state.attempts },
            transport: state.transport_override.clone(),
            // In line, a way was chosen.
            problem: state.deferral.clone().filter(|_| entry.in_line.is_none()),
            history: if unbegun { Vec::new() } else { state.history.clone() },
        })
    }
}
