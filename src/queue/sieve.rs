//! What the index can tell about a filter without reading a message.
//!
//! Nearly all: names are compared by their hashes. Only what the last attempt said, and over which transport it went,
//! stands in the spool alone; and of messages that an early version wrote the index knows no names.

use super::due::Entry;
use super::listing::Filter;
use crate::envelope::ReversePath;
use crate::spool::{Hash, Labels};
use crate::store::{HoldFields, HoldRule};

/// A filter as the index sees it, and the hold rules of the moment.
pub(super) struct Sieve {
    names: Names,
    any_sender: bool,
    /// `None` is the null sender.
    sender: Option<Hash>,
    recipient: Option<Hash>,
    received_until: Option<i64>,
    held: Option<bool>,
    attempts_min: Option<u32>,
    attempts_max: Option<u32>,
    /// The filter asks for more than the index knows.
    asks_more: bool,
    rules: Vec<Names>,
}

/// The names that hold rules and filters have in common; `None` is any.
#[derive(Clone, Copy)]
struct Names {
    account: Option<Hash>,
    sender_domain: Option<Hash>,
    recipient_domain: Option<Hash>,
}

/// Whether a recipient matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// Its message must be read.
    Perhaps,
    Yes,
}

impl Sieve {
    /// For a filter, while these rules hold.
    pub fn new(filter: &Filter, rules: &[HoldRule]) -> Self {
        let fields = HoldFields {
            account: filter.account.clone(),
            sender_domain: filter.sender_domain.clone(),
            recipient_domain: filter.recipient_domain.clone(),
        };
        Self {
            names: Names::new(&fields),
            any_sender: filter.sender.is_none(),
            sender: filter.sender.as_ref().and_then(ReversePath::mailbox).map(Hash::mailbox),
            recipient: filter.recipient.as_ref().map(Hash::mailbox),
            received_until: filter.received_until.map(jiff::Timestamp::as_microsecond),
            held: filter.held,
            attempts_min: filter.attempts_min,
            attempts_max: filter.attempts_max,
            asks_more: filter.transport.is_some() || filter.error.is_some(),
            rules: rules.iter().map(|rule| Names::new(&rule.rule.fields)).collect(),
        }
    }

    /// Whether a filter is decided by the index, save for messages of which it knows no names.
    pub fn decides(&self) -> bool {
        !self.asks_more
    }

    /// Whether a recipient matches.
    pub fn matches(&self, entry: &Entry) -> Match {
        let attempts = self.attempts_min.is_none_or(|n| entry.attempts >= n)
            && self.attempts_max.is_none_or(|n| entry.attempts <= n);
        if !attempts {
            return Match::No;
        }
        let Some(labels) = &entry.labels else { return Match::Perhaps };
        let named = self.names.match_labels(labels)
            && (self.any_sender || labels.sender == self.sender)
            && self.recipient.is_none_or(|recipient| labels.recipient == recipient)
            && self.received_until.is_none_or(|until| labels.received <= until);
        let is_held = || entry.held || self.rules.iter().any(|rule| rule.match_labels(labels));
        match named && self.held.is_none_or(|held| held == is_held()) {
            false => Match::No,
            true if self.asks_more => Match::Perhaps,
            true => Match::Yes,
        }
    }

    /// How many rules hold a recipient.
    pub fn rules_holding(&self, labels: &Labels) -> usize {
        self.rules.iter().filter(|rule| rule.match_labels(labels)).count()
    }
}

impl Names {
    fn new(fields: &HoldFields) -> Self {
        Self {
            account: fields.account.as_ref().map(Hash::account),
            sender_domain: fields.sender_domain.as_ref().map(Hash::domain),
            recipient_domain: fields.recipient_domain.as_ref().map(Hash::domain),
        }
    }

    fn match_labels(&self, labels: &Labels) -> bool {
        self.recipient_domain.is_none_or(|domain| labels.recipient_domain == domain)
            && self.sender_domain.is_none_or(|domain| labels.sender_domain == Some(domain))
            && self.account.is_none_or(|account| labels.account == Some(account))
    }
}
