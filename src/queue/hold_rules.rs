//! Hold rules: mail that an operator keeps back by what it is, also mail that is still to come.
//!
//! The store keeps the rules, a list in memory is what mail is held against: at acceptance, when a way is chosen, and
//! once more when the attempt begins, each time under the lock of the index. A rule that is added stands in that list
//! before the mail that waits is gone through, so nothing slips by: what is not found waiting is found when it is about
//! to be attempted. What a rule holds is written nowhere: after a restart the rules say it again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::dispatch::Subject;
use super::listing::{Filter, QueueError};
use super::{Inner, Queue};
use crate::address::Mailbox;
use crate::names::QueueId;
use crate::spool::NewMessage;
use crate::store::{HoldFields, HoldRule, NewHoldRule, Store, StoreError};

/// Recipients of the index looked at under one lock when a rule goes.
const RELEASE_STEP: usize = 10_000;

/// The rules of the moment.
pub(super) struct HoldRules {
    list: ArcSwap<Vec<HoldRule>>,
    /// Held while a rule is added or removed.
    changing: tokio::sync::Mutex<()>,
}

impl HoldRules {
    /// Those that the store keeps.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let list = ArcSwap::from_pointee(store.hold_rules().await?);
        Ok(Self { list, changing: tokio::sync::Mutex::new(()) })
    }

    /// Whether there is none, which is the rule.
    pub fn are_none(&self) -> bool {
        self.list.load().is_empty()
    }

    /// The first rule that holds a recipient of a message.
    pub fn holding(&self, message: &NewMessage, recipient: &Mailbox) -> Option<u32> {
        let list = self.list.load();
        let (account, sender) = (message.account.as_ref(), &message.envelope.sender);
        let rule = list.iter().find(|rule| rule.rule.fields.match_mail(account, sender, recipient));
        rule.map(|rule| rule.number)
    }
}

/// What a hold rule did, or would do, to what waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Recipients that it holds, or, where it goes, that it held.
    pub recipients: usize,
    /// Of them, those that stay held without it: by hand or by another rule.
    pub otherwise: usize,
    /// Of them, those whose attempt is under way; they are held if it does not deliver them.
    pub running: usize,
}

impl Queue {
    /// All hold rules in the order of their numbers.
    pub fn hold_rules(&self) -> Vec<HoldRule> {
        self.inner.rules.list.load().to_vec()
    }

    /// Holds from now on what matches: what comes, and what waits. When this returns, nothing that matches is attempted
    /// any more, save what is under way.
    pub async fn add_hold_rule(&self, rule: NewHoldRule) -> Result<(HoldRule, Held), QueueError> {
        let _changing = self.inner.rules.changing.lock().await;
        let rule = self.inner.parts.store.add_hold_rule(rule).await?;
        let mut list = self.hold_rules();
        list.push(rule.clone());
        self.inner.rules.list.store(Arc::new(list));
        let held = self.matching(&rule.rule.fields, Some(rule.number), true).await?;
        Ok((rule, held))
    }

    /// Counts what waits and would be held by a rule.
    pub async fn would_hold(&self, fields: &HoldFields) -> Result<Held, QueueError> {
        self.matching(fields, None, false).await
    }

    /// Removes a rule, and lets go what it alone held; `None` when there is none of that number. `dry_run` only counts.
    pub async fn remove_hold_rule(
        &self,
        number: u32,
        dry_run: bool,
    ) -> Result<Option<(HoldRule, Held)>, QueueError> {
        let _changing = self.inner.rules.changing.lock().await;
        let mut list = self.hold_rules();
        let Some(at) = list.iter().position(|rule| rule.number == number) else { return Ok(None) };
        let rule = list.remove(at);
        // Counted before it is let go: then it would be on its way.
        let held = self.matching(&rule.rule.fields, Some(number), false).await?;
        if !dry_run {
            self.inner.parts.store.remove_hold_rule(number).await?;
            self.inner.rules.list.store(Arc::new(list));
            self.inner.release(number);
        }
        Ok(Some((rule, held)))
    }

    /// Goes through what waits and matches; with `hold`, the rule holds it from now on.
    async fn matching(&self, fields: &HoldFields, rule: Option<u32>, hold: bool) -> Result<Held, QueueError> {
        let filter = Filter {
            account: fields.account.clone(),
            sender_domain: fields.sender_domain.clone(),
            recipient_domain: fields.recipient_domain.clone(),
            ..Filter::default()
        };
        let (mut held, hold) = (Held::default(), rule.filter(|_| hold));
        self.survey(&filter, |found| {
            for (_, standing) in found {
                held.recipients += 1;
                held.otherwise +=
                    usize::from(standing.by_hand || standing.rules > usize::from(rule.is_some()));
                held.running += usize::from(hold.is_none() && standing.running);
            }
            if let Some(rule) = hold {
                let mut due = self.inner.due.lock();
                held.running += found.iter().filter(|(key, _)| !due.hold_by_rule(*key, rule)).count();
            }
        })
        .await?;
        Ok(held)
    }
}

impl Inner {
    /// A rule is not in the list any more: what it kept back waits for its time again.
    fn release(&self, number: u32) {
        let mut after = None;
        loop {
            after = self.due.lock().release_rule(number, after, RELEASE_STEP);
            if after.is_none() {
                break;
            }
        }
        self.wake.notify_one();
    }

    /// Leaves out those that a rule holds; they go back into the queue, and stay there as long as the rule does.
    pub(super) fn without_held(
        &self,
        id: QueueId,
        message: &NewMessage,
        mut subjects: Vec<Subject>,
    ) -> Vec<Subject> {
        if self.rules.are_none() {
            return subjects;
        }
        // Under the lock: a rule that has been let go is not found, one that is found has not been let go.
        let mut due = self.due.lock();
        subjects.retain(|subject| {
            let address = &message.envelope.recipients[subject.recipient as usize].address;
            let Some(rule) = self.rules.holding(message, address) else { return true };
            if due.has(subject.turn(id)) {
                due.hold_by_rule((id, subject.recipient), rule);
            }
            false
        });
        subjects
    }
}
