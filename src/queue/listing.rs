//! What operators see of the queue.
//!
//! A listing goes page by page in order of queue id and reads only what it shows, so that it stays quick however long
//! the queue is.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::{Entry, Key, Place};
use super::{Inner, Queue};
use crate::address::{Domain, Mailbox};
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::spool::{RecipientState, SpoolError, Status, StoredMessage};
use crate::store::{FinishedRecipient, HISTORY_PAGE_MAX, HistoryFilter, HoldRule, StoreError};

/// Messages looked at in one step of a listing.
pub(super) const STEP_MESSAGES: usize = 256;
/// Recipients of the index looked at in one step, so that the others who need it need not wait long.
const STEP_RECIPIENTS: usize = 4_096;

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

    /// What can be told without reading the message. Whether rules hold it cannot.
    fn may_match(&self, entry: &Entry, no_rules: bool) -> bool {
        self.held.is_none_or(|held| held == entry.held || (held && !no_rules))
            && self.attempts_min.is_none_or(|n| entry.attempts >= n)
            && self.attempts_max.is_none_or(|n| entry.attempts <= n)
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
        let (mut page, mut looked_at) = (Page::default(), after);
        let reader =
            Arc::new(Reader { inner: self.inner.clone(), rules: self.hold_rules(), filter: filter.clone() });
        loop {
            let step = self.inner.step(filter, reader.rules.is_empty(), looked_at);
            let (reader, left) = (reader.clone(), limit - page.messages.len());
            let read = tokio::task::spawn_blocking(move || reader.read(step.messages, looked_at, left)).await;
            let found = read.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))??;
            page.messages.extend(found.messages);
            // Enough was found before all was looked at; never before anything was.
            if found.enough {
                page.next = found.last;
                return Ok(page);
            }
            if step.end {
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

/// Some messages of the index, with those of their recipients that may match.
struct Step {
    messages: Vec<(QueueId, Vec<(u32, Entry)>)>,
    /// The last that was looked at.
    last: Option<QueueId>,
    /// There are no more.
    end: bool,
}

impl Inner {
    /// The next messages of the index; the lock is held for so many of them at most.
    fn step(&self, filter: &Filter, no_rules: bool, after: Option<QueueId>) -> Step {
        let due = self.due.lock();
        let mut step = Step { messages: Vec::new(), last: after, end: true };
        let add = |step: &mut Step, key: Key, entry: &Entry| {
            step.last = Some(key.0);
            if !filter.may_match(entry, no_rules) {
                return;
            }
            match step.messages.last_mut() {
                Some((id, entries)) if *id == key.0 => entries.push((key.1, *entry)),
                _ => step.messages.push((key.0, vec![(key.1, *entry)])),
            }
        };
        if !filter.ids.is_empty() {
            let mut ids: Vec<QueueId> =
                filter.ids.iter().copied().filter(|id| after.is_none_or(|a| *id > a)).collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                due.of_message(id).for_each(|(key, entry)| add(&mut step, *key, entry));
            }
            return step;
        }
        for (seen, (key, entry)) in due.after(after.map(|id| (id, u32::MAX))).enumerate() {
            let begins = step.last != Some(key.0);
            if begins && (step.messages.len() == STEP_MESSAGES || seen >= STEP_RECIPIENTS) {
                step.end = false;
                break;
            }
            add(&mut step, *key, entry);
        }
        step
    }

    fn in_line(&self, entry: &Entry) -> Option<InLine> {
        let transport = self.due.lock().transport(entry.in_line?)?.clone();
        let rate = self.slots.lock().is_held_by_rate(&transport, tokio::time::Instant::now());
        Some(InLine { transport: transport.to_string(), rate })
    }
}

/// Reads what a listing shows; blocking.
struct Reader {
    inner: Arc<Inner>,
    rules: Vec<HoldRule>,
    filter: Filter,
}

struct Found {
    messages: Vec<ListedMessage>,
    /// The last message that was looked at.
    last: Option<QueueId>,
    /// So many were wanted: what follows was not looked at.
    enough: bool,
}

impl Reader {
    fn read(
        &self,
        messages: Vec<(QueueId, Vec<(u32, Entry)>)>,
        looked_at: Option<QueueId>,
        wanted: usize,
    ) -> Result<Found, SpoolError> {
        let mut found = Found { messages: Vec::new(), last: looked_at, enough: false };
        for (id, entries) in messages {
            if found.messages.len() == wanted {
                found.enough = true;
                break;
            }
            match self.listed(id, &entries) {
                Ok(message) => found.messages.extend(message),
                // The log tells of it; it must not keep operators from all the others.
                Err(SpoolError::Damaged(_)) if self.filter.ids.is_empty() => {}
                Err(error) => return Err(error),
            }
            found.last = Some(id);
        }
        Ok(found)
    }

    fn listed(&self, id: QueueId, entries: &[(u32, Entry)]) -> Result<Option<ListedMessage>, SpoolError> {
        let stored = self.inner.parts.spool.read_summary(id)?;
        let Some(stored) = stored.filter(|stored| self.filter.matches_message(stored)) else {
            return Ok(None);
        };
        let recipients: Vec<ListedRecipient> =
            entries.iter().filter_map(|(index, entry)| self.recipient(&stored, *index, entry)).collect();
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
