//! The facts of an attempt, put together in one place: the queue, explanations, simulations and replays ask the scripts
//! with the same facts, so that what is explained is what happens.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::bounce;
use super::schedule::add;
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::config::{Config, Lookup};
use crate::envelope::ReversePath;
use crate::names::{AccountName, TransportName};
use crate::route::Facts;
use crate::spool::NewMessage;
use crate::store::{FinishedRecipient, KeptHeader};

/// What scripts may know of a message and one of its recipients, whichever attempt it is.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who submitted it.
    pub account: Option<AccountName>,
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipient.
    pub recipient: Mailbox,
    /// Of the whole message, bytes.
    pub size: u64,
    /// When it was accepted.
    pub received: Timestamp,
    /// It is a report of ours.
    pub is_dsn: bool,
    /// SMTPUTF8 was given.
    pub smtputf8: bool,
    /// REQUIRETLS was given.
    pub require_tls: bool,
    /// The header; what follows it is not looked at.
    pub header: Bytes,
    /// In place of the header, when the message is gone: what the history kept of it.
    pub kept_header: Option<Arc<KeptHeader>>,
}

impl Known {
    /// A small message that nobody logged in to send; change what matters.
    pub fn new(sender: ReversePath, recipient: Mailbox, received: Timestamp) -> Self {
        let smtputf8 = recipient.needs_smtputf8() || sender.mailbox().is_some_and(Mailbox::needs_smtputf8);
        Self {
            account: None,
            is_dsn: sender == ReversePath::Null,
            sender,
            recipient,
            size: 1_000,
            // Whole microseconds, as the spool keeps it.
            received: add(received, std::time::Duration::ZERO),
            smtputf8,
            require_tls: false,
            header: Bytes::new(),
            kept_header: None,
        }
    }

    /// Gives it these header fields, such as `Subject: hello`.
    pub fn set_header(&mut self, fields: &[String]) {
        let mut header = String::new();
        for field in fields {
            // One field each: a line break in it would begin another.
            header.push_str(&field.replace(['\r', '\n'], " "));
            header.push_str("\r\n");
        }
        self.header = Bytes::from(header + "\r\n");
    }

    /// A recipient of a message in the queue, by its index in the envelope. `size` is that of the whole message: its
    /// content may have been read up to the end of the header only.
    pub fn of_message(message: &NewMessage, size: u64, recipient: u32) -> Self {
        let envelope = &message.envelope;
        Self {
            account: message.account.clone(),
            sender: envelope.sender.clone(),
            recipient: envelope.recipients[recipient as usize].address.clone(),
            size,
            received: message.received,
            is_dsn: message.origin.protocol == bounce::PROTOCOL,
            smtputf8: envelope.smtputf8,
            require_tls: envelope.require_tls,
            header: message.content.clone(),
            kept_header: None,
        }
    }

    /// A recipient that is done, as far as the history kept what scripts may ask.
    pub fn of_finished(finished: &FinishedRecipient) -> Self {
        let kept = finished.kept.clone().unwrap_or_default();
        Self {
            account: finished.account.clone(),
            sender: finished.sender.clone(),
            recipient: finished.recipient.clone(),
            size: finished.size,
            received: finished.received,
            is_dsn: kept.is_dsn,
            smtputf8: kept.smtputf8,
            require_tls: kept.require_tls,
            header: Bytes::new(),
            kept_header: Some(kept.header),
        }
    }

    /// The facts of an attempt that is to be made now. MX hosts are not among them: see
    /// [`ScriptSet::wants_mx`](crate::route::ScriptSet::wants_mx).
    pub fn facts(self, config: &Config, attempt: u32, history: Arc<[Attempt]>, now: Timestamp) -> Facts {
        let ours = |mailbox: &Mailbox| config.domains.contains_key(&mailbox.domain);
        let expires = add(self.received, config.queue.retry.give_up_after);
        Facts {
            attempt,
            local_sender_domain: self.sender.mailbox().is_some_and(ours),
            age: now.duration_since(self.received).try_into().unwrap_or_default(),
            expires_in: expires.duration_since(now).try_into().unwrap_or_default(),
            account: self.account,
            sender: self.sender,
            recipient: self.recipient,
            size: self.size,
            message_id: None,
            is_dsn: self.is_dsn,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            mx: None,
            header: self.header,
            kept_header: self.kept_header,
            history,
            now,
        }
    }
}

/// Who says which way a recipient goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decides<'a> {
    /// Nobody: it is ours.
    Mailbox,
    /// The operator.
    Operator(&'a TransportName),
    /// The scripts.
    Scripts,
}

impl<'a> Decides<'a> {
    /// About a recipient for which the operator may have set a transport.
    pub fn about(config: &Config, recipient: &Mailbox, set: Option<&'a TransportName>) -> Self {
        match (config.lookup(recipient), set) {
            (Lookup::Foreign, None) => Self::Scripts,
            (Lookup::Foreign, Some(name)) => Self::Operator(name),
            _ => Self::Mailbox,
        }
    }
}
