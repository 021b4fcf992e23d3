//! A message's life in virtual time: its attempts one after the other, as the queue would make them.
//!
//! Facts, scripts, schedule and settlement are the queue's own ([`Known`], [`ScriptSet`], [`settle`]); only the answers
//! of peers are made up by the caller, and the clock goes where the next attempt is due. An attempt takes no time.

use std::sync::Arc;

use jiff::Timestamp;

use super::facts::{Decides, Known};
use super::settle::{self, Item, Next, Party};
use crate::attempt::{Attempt, Decision, Level};
use crate::config::{self, Config};
use crate::envelope::Recipient;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::Outcome;
use crate::route::{Facts, ScriptSet, Trace};
use crate::spool;

/// A recipient on its way through time.
pub struct Life<'a> {
    config: &'a Config,
    queue: config::Queue,
    scripts: &'a ScriptSet,
    known: Known,
    recipient: Recipient,
    id: QueueId,
    attempts: u32,
    history: Vec<Attempt>,
    now: Timestamp,
    delay_reported: bool,
    mx: Option<Vec<String>>,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What follows; life goes on at the time of a retry.
    pub next: Next,
    /// What the sender is told.
    pub told: Option<Fate>,
}

impl<'a> Life<'a> {
    /// A message that has just been accepted. Chance takes part in the schedule only for a message whose id is known.
    pub fn new(config: &'a Config, scripts: &'a ScriptSet, known: Known, id: Option<QueueId>) -> Self {
        let mut queue = config.queue.clone();
        if id.is_none() {
            queue.retry.jitter = 0.0;
        }
        Self {
            config,
            queue,
            scripts,
            recipient: Recipient::from(known.recipient.clone()),
            id: id.unwrap_or(QueueId(0)),
            attempts: 0,
            history: Vec::new(),
            now: known.received,
            delay_reported: false,
            mx: None,
            known,
        }
    }

    /// The recipient is ours: no script is asked.
    pub fn is_local(&self) -> bool {
        Decides::about(self.config, &self.known.recipient, None) == Decides::Mailbox
    }

    /// Virtual time: that of the next attempt.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Number of the next attempt.
    pub fn number(&self) -> u32 {
        self.attempts + 1
    }

    /// Whether a script may ask for MX hosts that [`Self::set_mx`] has not told yet.
    pub fn wants_mx(&self) -> bool {
        self.mx.is_none() && self.scripts.wants_mx(&self.facts())
    }

    /// Tells the MX hosts of the recipient's domain.
    pub fn set_mx(&mut self, mx: Option<Vec<String>>) {
        self.mx = mx;
    }

    /// The MX hosts as they were told.
    pub fn mx(&self) -> Option<&Vec<String>> {
        self.mx.as_ref()
    }

    fn facts(&self) -> Facts {
        let history = self.history.as_slice().into();
        let facts = self.known.clone().facts(self.config, self.number(), history, self.now);
        Facts { mx: self.mx.clone(), ..facts }
    }

    /// Asks the scripts about the next attempt, as the queue does.
    pub fn decide(&self) -> Trace {
        self.scripts.decide(&Arc::new(self.facts()), self.config)
    }

    /// The same with every line.
    pub fn explain(&self) -> Trace {
        self.scripts.explain(&Arc::new(self.facts()), self.config)
    }

    /// The next attempt is made and ends so. It has no decision when nobody wants to know the way.
    pub fn attempt(&mut self, decision: Option<Decision>, outcome: Outcome) -> Ended {
        self.attempts += 1;
        let item = Item { id: self.id, attempts: self.attempts, received: self.known.received };
        let next = settle::settle(item, &outcome, &self.queue.retry, self.now);
        let party = self.party(decision.as_ref().map_or(Level::Default, |decision| decision.level));
        let (follows, told) = settle::follows(party, &outcome, next, &self.queue, self.now);
        self.delay_reported |= told == Some(Fate::Delayed);
        let (at, ended) = (self.now, Some(self.now));
        self.history.push(Attempt { number: self.attempts, at, decision, outcome: Some(outcome), ended });
        match follows {
            spool::Next::Retry(at) => {
                self.now = at;
                Ended { next: Next::Retry(at), told }
            }
            spool::Next::Done | spool::Next::Deferred { .. } => Ended { next, told },
        }
    }

    /// No way could be chosen: whether the sender is told that it waits, and when the scripts are asked again; virtual
    /// time goes there. `None` when it is given up.
    pub fn put_off(&mut self) -> Option<(bool, Timestamp)> {
        let again = settle::ask_again(&self.queue, self.known.received, self.now)?;
        let told = settle::tells_of_delay(self.party(Level::Default), &self.queue, self.now);
        self.delay_reported |= told;
        self.now = again;
        Some((told, again))
    }

    fn party(&self, level: Level) -> Party<'_> {
        Party {
            sender: &self.known.sender,
            recipient: &self.recipient,
            received: self.known.received,
            delay_reported: self.delay_reported,
            level,
        }
    }

    /// Virtual time goes on although the message was given up, for who wants to know what would come then.
    pub fn go_on(&mut self) {
        let wait = super::schedule::wait_after(&self.queue.retry, self.attempts);
        self.now = super::schedule::add(self.now, wait);
    }
}
