//! Which way a message of the queue goes next, and why; and which way it went before, and why.
//!
//! The next attempt is asked about now, with the facts that the queue itself would use ([`Known`]). Of a past attempt
//! what was written down then is told, whatever the scripts say today; beside it stands what they say today.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dispatch::{self, Subject};
use super::due::Place;
use super::facts::{Decides, Known};
use super::{Inner, Queue, QueueError};
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::config::Config;
use crate::dns::Resolver;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::route::{ScriptSet, Trace};
use crate::spool::{SpoolError, Status, StoredMessage};
use crate::store::{FinalState, FinishedRecipient};

/// What is to be explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageQuestion {
    /// The message.
    pub id: QueueId,
    /// One of its recipients; all by default.
    #[serde(default)]
    pub recipient: Option<Mailbox>,
    /// Number of the attempt, from 1; by default the next one, or the last one of who is done.
    #[serde(default)]
    pub attempt: Option<u32>,
}

/// A message, explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainedMessage {
    /// Its number.
    pub id: QueueId,
    /// The reverse-path.
    pub sender: ReversePath,
    /// Who submitted it.
    pub account: Option<AccountName>,
    /// Bytes.
    pub size: u64,
    /// When it was accepted.
    pub received: Timestamp,
    /// Those that were asked about and have that attempt.
    pub recipients: Vec<ExplainedRecipient>,
}

/// A recipient, explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainedRecipient {
    /// Its index in the envelope.
    pub index: u32,
    /// Who it is.
    pub recipient: Mailbox,
    /// Attempts made.
    pub attempts: u32,
    /// How it ended, when it is done.
    pub state: Option<FinalState>,
    /// The attempt.
    #[serde(flatten)]
    pub attempt: ExplainedAttempt,
}

/// An attempt of a message that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedAttempt {
    /// It is still to be made.
    Next(Box<NextAttempt>),
    /// It was made.
    Past(Box<MadeAttempt>),
}

/// The next attempt, if it were made now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NextAttempt {
    /// Its number.
    pub number: u32,
    /// When it is due.
    pub due: Timestamp,
    /// The operator holds it.
    pub held: bool,
    /// It runs, or waits in line for a slot.
    pub running: bool,
    /// Age of the message now, seconds.
    pub age_seconds: u64,
    /// Who decides: a script's level, `default`, `override` or `local`; `None` when nobody can.
    pub level: Option<Level>,
    /// The way; `None` when there is none and the attempt is not made.
    pub transport: Option<TransportName>,
    /// Why there is no way.
    pub problem: Option<String>,
    /// What each level said, when scripts are asked.
    pub trace: Option<Trace>,
    /// The MX hosts that they were told.
    pub mx: Option<Vec<String>>,
    /// The way at the time when it is due, where that is another than now.
    pub transport_when_due: Option<TransportName>,
}

/// An attempt that was made, or is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MadeAttempt {
    /// As it was written down.
    pub attempt: Attempt,
    /// What has become of the script that decided; `None` when none did.
    pub script: Option<ScriptNow>,
    /// What the running scripts say about the same facts, when they are asked.
    pub today: Option<Trace>,
}

/// A script that decided, today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ScriptNow {
    /// It is the same.
    Same,
    /// It has been changed since.
    Changed {
        /// SHA-256 of its text today, first 16 hex digits.
        hash: String,
    },
    /// There is no such script any more.
    Gone,
}

/// What is known of a message, in the queue and in the history.
#[derive(Debug, Default)]
pub struct Records {
    /// As the spool has it, the content up to the end of the header.
    pub stored: Option<StoredMessage>,
    /// Recipients that are done.
    pub finished: Vec<FinishedRecipient>,
    /// Indexes of recipients that are being attempted, and of those that this run has accepted and not begun to deliver.
    pub running: Vec<u32>,
    /// See [`Self::running`].
    pub unbegun: Vec<u32>,
}

/// What questions are answered with.
#[derive(Clone, Copy)]
pub struct Oracle<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The running scripts.
    pub scripts: &'a ScriptSet,
    /// For MX hosts that a script asks for.
    pub resolver: &'a Resolver,
    /// The time.
    pub now: Timestamp,
}

impl Queue {
    /// Explains a message; `None` when there is none of this number, neither in the queue nor in the history.
    pub async fn explain(&self, question: &MessageQuestion) -> Result<Option<ExplainedMessage>, QueueError> {
        let inner = &self.inner;
        let records = inner.records(question.id).await?;
        let (config, scripts) =
            (inner.parts.config.load_full(), inner.parts.router.for_message(question.id).set);
        let (resolver, now) = (&inner.parts.resolver, crate::clock::now());
        Ok(Oracle { config: &config, scripts: &scripts, resolver, now }.explain(&records, question).await)
    }
}

impl Inner {
    pub(super) async fn read_summary(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        let spool = self.parts.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.read_summary(id)).await;
        read.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))?
    }

    async fn records(self: &Arc<Self>, id: QueueId) -> Result<Records, QueueError> {
        let stored = self.read_summary(id).await?;
        let finished = Queue { inner: self.clone() }.finished(id).await?;
        let (mut running, mut unbegun) = (Vec::new(), Vec::new());
        for (key, entry) in self.due.lock().of_message(id) {
            running.extend((entry.place != Place::Waits).then_some(key.1));
            unbegun.extend(entry.is_unbegun().then_some(key.1));
        }
        Ok(Records { stored, finished, running, unbegun })
    }
}

/// One recipient of the records.
struct Found {
    index: u32,
    known: Known,
    history: Vec<Attempt>,
    /// What waits.
    waits: Option<(Subject, Timestamp, bool)>,
    state: Option<FinalState>,
}

impl Records {
    fn recipients(&self) -> Vec<Found> {
        let done = self.finished.iter().map(|finished| Found {
            index: finished.index,
            known: Known::of_finished(finished),
            history: finished.attempts.clone(),
            waits: None,
            state: Some(finished.state),
        });
        let mut all: Vec<Found> = done.collect();
        for (index, state) in self.stored.iter().flat_map(|stored| (0..).zip(&stored.recipients)) {
            let Some(stored) = self.stored.as_ref().filter(|_| all.iter().all(|found| found.index != index))
            else {
                continue;
            };
            let subject = Subject::of(index, 0, state, self.unbegun.contains(&index));
            all.push(Found {
                index,
                known: Known::of_message(&stored.message, stored.size, index),
                history: subject.history.clone(),
                waits: match state.status {
                    Status::Waiting { due, held } => Some((subject, due, held)),
                    Status::Done => None,
                },
                state: None,
            });
        }
        all.sort_by_key(|found| found.index);
        all
    }
}

impl Oracle<'_> {
    /// Explains a message from its records.
    pub async fn explain(&self, records: &Records, question: &MessageQuestion) -> Option<ExplainedMessage> {
        let all = records.recipients();
        let first = all.first()?.known.clone();
        let mut recipients = Vec::new();
        for found in all {
            if question.recipient.as_ref().is_some_and(|wanted| *wanted != found.known.recipient) {
                continue;
            }
            let running = records.running.contains(&found.index);
            let (index, recipient, state) = (found.index, found.known.recipient.clone(), found.state);
            let attempts = found.history.last().map_or(0, |last| last.number);
            if let Some(attempt) = self.attempt(found, question.attempt, running).await {
                recipients.push(ExplainedRecipient { index, recipient, attempts, state, attempt });
            }
        }
        Some(ExplainedMessage {
            id: question.id,
            sender: first.sender,
            account: first.account,
            size: first.size,
            received: first.received,
            recipients,
        })
    }

    async fn attempt(&self, found: Found, asked: Option<u32>, running: bool) -> Option<ExplainedAttempt> {
        let under_way = found.history.last().filter(|last| running && last.outcome.is_none());
        let wanted = asked.or(under_way.map(|attempt| attempt.number));
        match (wanted, found.waits) {
            (None, Some((subject, due, held))) => {
                let next = self.next(found.known, &subject, due).await;
                Some(ExplainedAttempt::Next(Box::new(NextAttempt { held, running, ..next })))
            }
            (Some(number), Some((subject, due, held))) if number == subject.attempts + 1 => {
                let next = self.next(found.known, &subject, due).await;
                Some(ExplainedAttempt::Next(Box::new(NextAttempt { held, running, ..next })))
            }
            (wanted, _) => {
                let number = wanted.or(found.history.last().map(|last| last.number))?;
                let at = found.history.iter().position(|attempt| attempt.number == number)?;
                Some(ExplainedAttempt::Past(Box::new(self.past(found.known, &found.history, at))))
            }
        }
    }

    async fn next(&self, known: Known, subject: &Subject, due: Timestamp) -> NextAttempt {
        let (config, now) = (self.config, self.now);
        let mut next = NextAttempt {
            number: subject.attempts + 1,
            due,
            held: false,
            running: false,
            age_seconds: u64::try_from(now.duration_since(known.received).as_secs()).unwrap_or(0),
            level: None,
            transport: None,
            problem: None,
            trace: None,
            mx: None,
            transport_when_due: None,
        };
        let set = subject.transport_override.as_ref();
        let decided = match Decides::about(config, &known.recipient, set) {
            Decides::Mailbox => Ok(Decision::without_script(Level::Local, TransportName::local())),
            Decides::Operator(name) => Ok(Decision::without_script(Level::Override, name.clone())),
            Decides::Scripts => {
                let history: Arc<[Attempt]> = subject.history.as_slice().into();
                let mut facts = known.clone().facts(config, next.number, history.clone(), now);
                if self.scripts.wants_mx(&facts) {
                    facts.mx = self.resolver.mx_names(&facts.recipient.domain).await;
                }
                next.mx.clone_from(&facts.mx);
                let trace = self.scripts.explain(&Arc::new(facts), config);
                let decided = trace.verdict().map_err(|error| error.to_string());
                next.trace = Some(trace);
                if due > now {
                    let mut facts = known.facts(config, next.number, history, due);
                    facts.mx.clone_from(&next.mx);
                    let then = self.scripts.decide(&Arc::new(facts), config).verdict().ok();
                    next.transport_when_due = then.map(|decision| decision.transport);
                }
                decided
            }
        };
        let local = decided.as_ref().is_ok_and(|decision| decision.level == Level::Local);
        let decided = decided.and_then(|decision| {
            if local { Ok(decision) } else { dispatch::transport_way(config, decision).map(|(_, way)| way) }
        });
        match decided {
            Ok(decision) => {
                next.level = Some(decision.level);
                next.transport = Some(decision.transport);
            }
            Err(problem) => next.problem = Some(problem),
        }
        if next.transport_when_due == next.transport {
            next.transport_when_due = None;
        }
        next
    }

    fn past(&self, known: Known, history: &[Attempt], at: usize) -> MadeAttempt {
        let attempt = history[at].clone();
        let script = attempt.decision.as_ref().and_then(|decision| decision.script.as_ref());
        let script = script.map(|place| {
            let now = self.scripts.scripts().iter().find(|id| *id.file == *place.file);
            match now {
                Some(id) if *id.hash == *place.hash => ScriptNow::Same,
                Some(id) => ScriptNow::Changed { hash: id.hash.to_string() },
                None => ScriptNow::Gone,
            }
        });
        let scripts_decided = attempt
            .decision
            .as_ref()
            .filter(|decision| !matches!(decision.level, Level::Local | Level::Override));
        let today = scripts_decided.map(|decision| {
            let mut facts = known.facts(self.config, attempt.number, history[..at].into(), attempt.at);
            facts.mx.clone_from(&decision.mx);
            self.scripts.explain(&Arc::new(facts), self.config)
        });
        MadeAttempt { attempt, script, today }
    }
}
