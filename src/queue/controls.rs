//! What operators change: kick, hold, release, set a transport, set a time, give up, drop.
//!
//! All go page by page over what matches, as a listing does; a dry run counts it without reading it. A recipient whose attempt is under way takes a hold and
//! a transport for what comes after it; it cannot be given up or dropped meanwhile, and is counted as left alone. One that
//! waits in line for a slot is not under way: whoever takes it out first has it, the attempt or the operator.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounce::{self, ReportKind, Told};
use super::due::{Entry, Key, Turn};
use super::listing::{Filter, ListedMessage, ListedRecipient, QueueError};
use super::walk::{STEP_MESSAGES, Standing};
use super::{Inner, Queue, finished, shown};
use crate::attempt::Attempt;
use crate::message::dsn::Fate;
use crate::names::{QueueId, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{Control, Next, Settlement, SpoolError, Status, StoredMessage};

/// Messages acted on at the same time: they share syncs of the spool, and of few the bodies are in memory.
const ACTED_ON_AT_ONCE: usize = 32;

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
    /// Of those released or kicked: recipients that stay held, by a hold rule or (when kicked) by hand.
    #[serde(default)]
    pub still_held: usize,
}

impl Action {
    /// It takes recipients out of the queue.
    fn ends(&self) -> bool {
        matches!(self, Self::Fail { .. } | Self::Drop)
    }

    /// A recipient that it would have tried stays held all the same.
    fn leaves_held(&self, standing: Standing) -> bool {
        match self {
            Self::Release => standing.rules > 0,
            Self::Kick { .. } => standing.by_hand || standing.rules > 0,
            _ => false,
        }
    }
}

impl Done {
    fn add(&mut self, other: Self) {
        self.recipients += other.recipients;
        self.busy += other.busy;
        self.still_held += other.still_held;
    }
}

impl Queue {
    /// Does something to all recipients that match; `dry_run` only counts them.
    pub async fn control(&self, filter: &Filter, action: &Action, dry_run: bool) -> Result<Done, QueueError> {
        if dry_run {
            return self.would_do(filter, action).await;
        }
        // What comes meanwhile is not meant; least of all the reports of what is given up here.
        let Some(last) = self.inner.due.lock().last() else { return Ok(Done::default()) };
        let (now, action) = (crate::clock::now(), Arc::new(action.clone()));
        let (mut done, mut after) = (Done::default(), None);
        loop {
            let mut page = self.list(filter, after, STEP_MESSAGES).await?;
            page.messages.retain(|message| message.id <= last);
            while !page.messages.is_empty() {
                let some = page.messages.drain(..page.messages.len().min(ACTED_ON_AT_ONCE));
                // Tasks of their own: what was begun is ended also when the operator has gone away.
                let act = |message| self.inner.tasks.spawn(self.clone().act(message, action.clone(), now));
                let tasks: Vec<_> = some.map(act).collect();
                let mut failed = None;
                for task in tasks {
                    let acted =
                        task.await.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)));
                    match acted.map_err(QueueError::from).flatten() {
                        Ok(one) => done.add(one),
                        // It was delivered in the meantime.
                        Err(QueueError::Spool(SpoolError::Unknown(_))) => {}
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            match page.next {
                Some(next) if next < last => after = Some(next),
                _ => break,
            }
        }
        if done.recipients > 0 {
            if matches!(*action, Action::Kick { transport: Some(_) } | Action::Transport { .. }) {
                // What waits in line has its way already: it is asked about again.
                self.routes_changed();
            }
            self.inner.wake.notify_one();
        }
        Ok(done)
    }

    /// Counts what an action would be done to.
    async fn would_do(&self, filter: &Filter, action: &Action) -> Result<Done, QueueError> {
        let mut done = Done::default();
        self.survey(filter, |found| {
            for (_, standing) in found {
                let busy = action.ends() && standing.running;
                done.recipients += usize::from(!busy);
                done.busy += usize::from(busy);
                done.still_held += usize::from(action.leaves_held(*standing));
            }
        })
        .await?;
        Ok(done)
    }

    async fn act(
        self,
        message: ListedMessage,
        action: Arc<Action>,
        now: Timestamp,
    ) -> Result<Done, QueueError> {
        match &*action {
            Action::Fail { reason } => self.end(&message, Some(reason), now).await,
            Action::Drop => self.end(&message, None, now).await,
            action => self.inner.change(&message, action, now).await,
        }
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
        let taken = claim.turns.len();
        let done = Done { recipients: taken, busy: listed.recipients.len() - taken, ..Done::default() };
        if taken == 0 {
            return Ok(done);
        }
        let Some(stored) = inner.read_whole(listed.id).await? else {
            return Err(SpoolError::Unknown(listed.id).into());
        };
        let ended: Vec<Ended> = claim.turns.iter().filter_map(|taken| taken.ended(&stored, reason)).collect();
        let settlements: Vec<Settlement> = ended.iter().map(|one| one.settlement(now)).collect();
        if reason.is_some() {
            let told: Vec<Told> = ended.iter().map(Ended::told).collect();
            let config = inner.parts.config.load_full();
            bounce::report(inner, &config, &stored.message, ReportKind::Failed, &told, now).await?;
        }
        inner.parts.spool.settle(listed.id, settlements.clone()).await?;
        for (one, settlement) in ended.iter().zip(&settlements) {
            inner.finished.record(finished::finished(
                inner,
                listed.id,
                &stored.message,
                settlement,
                &one.history,
                now,
            ));
            let to = &stored.message.envelope.recipients[one.recipient as usize].address;
            let reason = reason.map(String::as_str);
            tracing::warn!(id = shown(listed.id), %to, reason, "taken out of the queue by the operator");
        }
        claim.keep();
        Ok(done)
    }
}

/// A recipient that the operator takes out, with what it went through.
struct Ended {
    recipient: u32,
    history: Vec<Attempt>,
    /// With words for the sender; without, nobody is told.
    outcome: Option<Outcome>,
}

impl Ended {
    /// The end that the operator sets to it.
    fn settlement(&self, now: Timestamp) -> Settlement {
        let attempt = self.outcome.clone().map(|outcome| Attempt {
            number: self.history.last().map_or(1, |last| last.number + 1),
            at: now,
            decision: None,
            outcome: Some(outcome),
            ended: Some(now),
        });
        Settlement { recipient: self.recipient, attempt, next: Next::Done, delay_reported: false }
    }

    fn told(&self) -> Told {
        Told {
            recipient: self.recipient,
            fate: Fate::GivenUp,
            outcome: self.outcome.clone().unwrap_or_else(|| given_up("")),
            transport: None,
            earlier: self.history.clone(),
        }
    }
}

fn given_up(reason: &str) -> Outcome {
    Outcome::ours(Verdict::Permanent, Stage::Dns, EnhancedCode::new(5, 3, 0), reason)
}

/// Recipients that are taken as if for an attempt, so that none begins; given back when dropped.
struct Claim<'a> {
    inner: &'a Arc<Inner>,
    turns: Vec<Taken>,
}

struct Taken {
    turn: Turn,
    /// Its record says that attempt 1 has begun, but it has not.
    unbegun: bool,
}

impl Taken {
    /// What is to be written about it; `None` when it is done.
    fn ended(&self, stored: &StoredMessage, reason: Option<&String>) -> Option<Ended> {
        let recipient = self.turn.key.1;
        let state = stored.recipients.get(recipient as usize)?;
        let history = if self.unbegun { Vec::new() } else { state.history.clone() };
        let waits = matches!(state.status, Status::Waiting { .. });
        waits.then(|| Ended { recipient, history, outcome: reason.map(|reason| given_up(reason)) })
    }
}

impl<'a> Claim<'a> {
    /// Those of a message that are not under way.
    fn take(inner: &'a Arc<Inner>, listed: &ListedMessage) -> Self {
        let mut due = inner.due.lock();
        let take = |recipient: &ListedRecipient| {
            let key = (listed.id, recipient.index);
            let unbegun = due.get(key).is_some_and(Entry::is_unbegun);
            due.claim(key).map(|turn| Taken { turn, unbegun })
        };
        Self { inner, turns: listed.recipients.iter().filter_map(take).collect() }
    }

    /// They are done.
    fn keep(mut self) {
        let mut due = self.inner.due.lock();
        for taken in self.turns.drain(..) {
            due.remove(taken.turn);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.turns.is_empty() {
            self.inner.put_back(self.turns.drain(..).map(|taken| taken.turn), crate::clock::now());
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
            due.change(*key, due_at, held, now);
        }
        drop(due);
        let stays_held = |recipient: &&ListedRecipient| action.leaves_held((*recipient).into());
        let still_held = message.recipients.iter().filter(stays_held).count();
        Ok(Done { recipients: message.recipients.len(), busy: 0, still_held })
    }

    async fn read_whole(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        let spool = self.parts.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.read(id)).await;
        read.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))?
    }
}
