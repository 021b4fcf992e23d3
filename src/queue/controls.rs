//! What operators change: kick, hold, release, set a transport, set a time, give up, drop.
//!
//! All go page by page over what matches, as a listing does. A recipient whose attempt is under way takes a hold and
//! a transport for what comes after it; it cannot be given up or dropped meanwhile, and is counted as left alone.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounce::{self, ReportKind, Told};
use super::due::Key;
use super::listing::{Filter, ListedMessage, ListedRecipient, QueueError, STEP_MESSAGES};
use super::{Inner, Queue, finished, shown};
use crate::attempt::Attempt;
use crate::message::dsn::Fate;
use crate::names::{QueueId, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{Control, Next, Settlement, SpoolError, StoredMessage};

/// What is done to all recipients that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Try again now, and from now on over this transport if one is named.
    Kick {
        /// Beats all scripts until it is cleared.
        transport: Option<TransportName>,
    },
    /// Do not try until released.
    Hold,
    /// Let go what was held.
    Release,
    /// Set the transport, which beats all scripts; without a name, let the scripts decide again.
    Transport {
        /// Which.
        name: Option<TransportName>,
    },
    /// Make the next attempt then.
    Schedule {
        /// When.
        at: Timestamp,
    },
    /// Try no more, and tell the sender.
    Fail {
        /// What the sender is told.
        reason: String,
    },
    /// Try no more, and tell nobody.
    Drop,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Recipients that it was done to, or would have been.
    pub recipients: usize,
    /// Recipients that match but were left alone, for an attempt is under way.
    pub busy: usize,
}

impl Queue {
    /// Does something to all recipients that match; `dry_run` only counts them.
    pub async fn control(&self, filter: &Filter, action: &Action, dry_run: bool) -> Result<Done, QueueError> {
        let now = crate::clock::now();
        let (mut done, mut after) = (Done::default(), None);
        loop {
            let page = self.list(filter, after, STEP_MESSAGES).await?;
            for message in &page.messages {
                let ends = matches!(action, Action::Fail { .. } | Action::Drop);
                let acted = match action {
                    _ if dry_run && ends => {
                        let busy = message.recipients.iter().filter(|r| r.running).count();
                        Ok(Done { recipients: message.recipients.len() - busy, busy })
                    }
                    _ if dry_run => Ok(Done { recipients: message.recipients.len(), busy: 0 }),
                    Action::Fail { reason } => self.end(message, Some(reason), now).await,
                    Action::Drop => self.end(message, None, now).await,
                    action => self.inner.change(message, action, now).await,
                };
                match acted {
                    Ok(one) => {
                        done.recipients += one.recipients;
                        done.busy += one.busy;
                    }
                    // It was delivered in the meantime.
                    Err(QueueError::Spool(SpoolError::Unknown(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if !dry_run && done.recipients > 0 {
            if matches!(action, Action::Kick { transport: Some(_) } | Action::Transport { .. }) {
                // What waits in line has its way already: it is asked about again.
                self.routes_changed();
            }
            self.inner.wake.notify_one();
        }
        Ok(done)
    }

    /// The whole message as it will be sent, if it is in the queue.
    pub async fn dump(&self, id: QueueId) -> Result<Option<bytes::Bytes>, QueueError> {
        Ok(self.inner.read_whole(id).await?.map(|stored| stored.message.content.clone()))
    }

    /// Takes recipients out of the queue; with a reason, the sender is told.
    async fn end(
        &self,
        listed: &ListedMessage,
        reason: Option<&String>,
        now: Timestamp,
    ) -> Result<Done, QueueError> {
        let inner = &self.inner;
        let claim = Claim::take(inner, listed);
        let done = Done { recipients: claim.keys.len(), busy: listed.recipients.len() - claim.keys.len() };
        if claim.keys.is_empty() {
            return Ok(done);
        }
        let Some(stored) = inner.read_whole(listed.id).await? else {
            return Err(SpoolError::Unknown(listed.id).into());
        };
        let claimed = |r: &&ListedRecipient| claim.keys.iter().any(|key| key.1 == r.index);
        let recipients: Vec<&ListedRecipient> = listed.recipients.iter().filter(claimed).collect();
        let settlements: Vec<Settlement> =
            recipients.iter().map(|recipient| ending(recipient, reason, now)).collect();
        if let Some(reason) = reason {
            let told: Vec<Told> = recipients.iter().map(|recipient| told(recipient, reason)).collect();
            let config = inner.parts.config.load_full();
            bounce::report(inner, &config, &stored.message, ReportKind::Failed, &told, now).await?;
        }
        inner.parts.spool.settle(listed.id, settlements.clone()).await?;
        for (recipient, settlement) in recipients.iter().zip(&settlements) {
            let past = &recipient.history;
            inner.finished.record(finished::finished(listed.id, &stored.message, settlement, past, now));
            let (to, reason) = (&recipient.address, reason.map(String::as_str));
            tracing::warn!(id = shown(listed.id), %to, reason, "taken out of the queue by the operator");
        }
        claim.keep();
        Ok(done)
    }
}

/// The end that the operator sets to a recipient.
fn ending(recipient: &ListedRecipient, reason: Option<&String>, now: Timestamp) -> Settlement {
    let attempt = reason.map(|reason| Attempt {
        number: recipient.history.last().map_or(1, |last| last.number + 1),
        at: now,
        decision: None,
        outcome: Some(given_up(reason)),
        ended: Some(now),
    });
    Settlement { recipient: recipient.index, attempt, next: Next::Done, delay_reported: false }
}

fn told(recipient: &ListedRecipient, reason: &str) -> Told {
    Told {
        recipient: recipient.index,
        fate: Fate::GivenUp,
        outcome: given_up(reason),
        transport: None,
        earlier: recipient.history.clone(),
    }
}

fn given_up(reason: &str) -> Outcome {
    Outcome::ours(Verdict::Permanent, Stage::Dns, EnhancedCode::new(5, 3, 0), reason)
}

/// Recipients that are taken as if for an attempt, so that none begins; given back when dropped.
struct Claim<'a> {
    inner: &'a Arc<Inner>,
    keys: Vec<Key>,
}

impl<'a> Claim<'a> {
    /// Those of a message that are not taken already.
    fn take(inner: &'a Arc<Inner>, listed: &ListedMessage) -> Self {
        let mut due = inner.due.lock();
        let keys = listed.recipients.iter().map(|recipient| (listed.id, recipient.index));
        Self { inner, keys: keys.filter(|key| due.claim(*key)).collect() }
    }

    /// They are done.
    fn keep(mut self) {
        let mut due = self.inner.due.lock();
        for key in self.keys.drain(..) {
            due.remove(key);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.inner.put_back(self.keys.drain(..), crate::clock::now());
        }
    }
}

impl Inner {
    /// An action that leaves the recipients in the queue.
    async fn change(
        &self,
        message: &ListedMessage,
        action: &Action,
        now: Timestamp,
    ) -> Result<Done, QueueError> {
        let recipients: Vec<u32> = message.recipients.iter().map(|r| r.index).collect();
        let keys: Vec<Key> = recipients.iter().map(|r| (message.id, *r)).collect();
        let mut control = Control { recipients, ..Control::default() };
        match action {
            Action::Kick { transport } => {
                control.due = Some(now);
                control.transport = transport.clone().map(Some);
            }
            Action::Hold => control.hold = Some(true),
            Action::Release => control.hold = Some(false),
            Action::Transport { name } => control.transport = Some(name.clone()),
            Action::Schedule { at } => control.due = Some(*at),
            Action::Fail { .. } | Action::Drop => return Ok(Done::default()),
        }
        let (due_at, held) = (control.due, control.hold);
        self.parts.spool.control(message.id, control).await?;
        let mut due = self.due.lock();
        for key in &keys {
            due.change(*key, due_at, held);
        }
        Ok(Done { recipients: keys.len(), busy: 0 })
    }

    async fn read_whole(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        let spool = self.parts.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.read(id)).await;
        read.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))?
    }
}
