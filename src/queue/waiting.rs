//! What waits, as routing scripts may see it: for who puts other scripts to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::explain::Oracle;
use super::facts::{Decides, Known};
use super::{Queue, QueueError, finished};
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::spool::{SpoolError, Status, StoredMessage};
use crate::store::KeptFacts;

/// Some of what waits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WaitingPage {
    /// In order of queue id.
    pub recipients: Vec<WaitingRecipient>,
    /// Where the next page begins (pass it as `after`); `None` at the end.
    pub next: Option<QueueId>,
}

/// A recipient that waits, and which way it would go now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingRecipient {
    /// The message.
    pub id: QueueId,
    /// Its index in the envelope.
    pub index: u32,
    /// Who submitted it.
    pub account: Option<AccountName>,
    /// The reverse-path.
    pub sender: ReversePath,
    /// Who it is.
    pub recipient: Mailbox,
    /// Bytes.
    pub size: u64,
    /// When it was accepted.
    pub received: Timestamp,
    /// What else scripts may know; of the header, the fields that were asked for.
    pub kept: KeptFacts,
    /// Attempts made.
    pub attempts: u32,
    /// All attempts so far, oldest first.
    pub history: Vec<Attempt>,
    /// Who decides, and the way.
    pub now: WayNow,
}

/// Which way a recipient goes now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WayNow {
    /// No script is asked: into a mailbox here, or where the operator sends it.
    Fixed,
    /// The running scripts say so.
    Scripts(TransportName),
    /// The running scripts fail, and it is put off.
    Fails(String),
}

impl WaitingRecipient {
    /// What scripts may know, whichever attempt it is.
    pub fn known(&self) -> Known {
        let mut known = Known::new(self.sender.clone(), self.recipient.clone(), self.received);
        known.account.clone_from(&self.account);
        known.size = self.size;
        (known.is_dsn, known.smtputf8) = (self.kept.is_dsn, self.kept.smtputf8);
        known.require_tls = self.kept.require_tls;
        known.kept_header = Some(self.kept.header.clone());
        known
    }
}

impl Oracle<'_> {
    /// The recipients of a message that wait. `header`: the names of the fields that are wanted; `unbegun`: the indexes
    /// of recipients that this run has accepted and not begun to deliver.
    pub async fn waiting(
        &self,
        stored: &StoredMessage,
        header: &[String],
        unbegun: &[u32],
    ) -> Vec<WaitingRecipient> {
        let mut all = Vec::new();
        let mut mx = BTreeMap::new();
        for (index, state) in (0..).zip(&stored.recipients) {
            if !matches!(state.status, Status::Waiting { .. }) {
                continue;
            }
            let unbegun = unbegun.contains(&index);
            let history = if unbegun { Vec::new() } else { state.history.clone() };
            let attempts = if unbegun { 0 } else { state.attempts };
            let known = Known::of_message(&stored.message, stored.size, index);
            let set = state.transport_override.as_ref();
            let now = match Decides::about(self.config, &known.recipient, set) {
                Decides::Mailbox | Decides::Operator(_) => WayNow::Fixed,
                Decides::Scripts => {
                    let past = history.as_slice().into();
                    let mut facts = known.clone().facts(self.config, attempts + 1, past, self.now);
                    if self.scripts.wants_mx(&facts) {
                        let domain = &facts.recipient.domain;
                        if !mx.contains_key(domain) {
                            mx.insert(domain.clone(), self.resolver.mx_names(domain).await);
                        }
                        facts.mx = mx.get(domain).cloned().flatten();
                    }
                    match self.scripts.decide(&Arc::new(facts), self.config).verdict() {
                        Ok(decision) => WayNow::Scripts(decision.transport),
                        Err(error) => WayNow::Fails(error.to_string()),
                    }
                }
            };
            all.push(WaitingRecipient {
                id: stored.id,
                index,
                account: known.account,
                sender: known.sender,
                recipient: known.recipient,
                size: stored.size,
                received: known.received,
                kept: finished::kept(header.iter(), &stored.message),
                attempts,
                history,
                now,
            });
        }
        all
    }
}

impl Queue {
    /// What waits in at most `limit` messages after queue id `after`, with these fields of its header.
    pub async fn waiting(
        &self,
        after: Option<QueueId>,
        limit: usize,
        header: &[String],
    ) -> Result<WaitingPage, QueueError> {
        let inner = &self.inner;
        let config = inner.parts.config.load_full();
        let (resolver, now) = (&inner.parts.resolver, crate::clock::now());
        let mut page = WaitingPage::default();
        let mut ids: Vec<QueueId> = Vec::new();
        let mut unbegun: BTreeMap<QueueId, Vec<u32>> = BTreeMap::new();
        for (key, entry) in inner.due.lock().after(after.map(|id| (id, u32::MAX))) {
            if ids.last() != Some(&key.0) {
                if ids.len() == limit {
                    page.next = ids.last().copied();
                    break;
                }
                ids.push(key.0);
            }
            if entry.is_unbegun() {
                unbegun.entry(key.0).or_default().push(key.1);
            }
        }
        for id in ids {
            let stored = match inner.read_summary(id).await {
                Ok(Some(stored)) => stored,
                // Done in the meantime, or damaged: the log tells of it.
                Ok(None) | Err(SpoolError::Damaged(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let scripts = inner.parts.router.for_message(id).set;
            let oracle = Oracle { config: &config, scripts: &scripts, resolver, now };
            let unbegun = unbegun.get(&id).map_or(&[][..], Vec::as_slice);
            page.recipients.extend(oracle.waiting(&stored, header, unbegun).await);
        }
        Ok(page)
    }
}
