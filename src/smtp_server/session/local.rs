//! What is different when a process of this machine submits: its user stands in the place of a password, and mail for
//! `root` goes to whom the configuration says.
//!
//! Addresses of this machine (`ann@localhost`, or at our host name where that is no mail domain) stand for the
//! mailboxes of its users; they are replaced here, and never leave the machine.

use std::net::Ipv4Addr;

use super::super::replies;
use super::{Session, State, Tls};
use crate::address::Mailbox;
use crate::config::{Config, ListenerKind, SystemUser};
use crate::envelope::ReversePath;
use crate::names::AccountName;
use crate::sasl::ChannelBindings;
use crate::smtp::Reply;
use crate::smtp::command::{ForwardPath, Mail, Rcpt};

impl Session {
    /// A session with a process of this machine, whose user the kernel told us: a submission in which the sender's
    /// address decides about the account.
    pub fn local(id: String, user: SystemUser, config: &Config) -> Self {
        Self {
            id,
            ip: Ipv4Addr::LOCALHOST.into(),
            kind: ListenerKind::Submission,
            hostname: config.hostname.clone(),
            user: Some(user),
            trusted: false,
            allow_plaintext_auth: false,
            tls: Tls::Unavailable,
            bindings: ChannelBindings::default(),
            hello: None,
            account: None,
            state: State::Ready,
            transactions: 0,
            bad: 0,
            idle: 0,
            auth_failures: 0,
            attempt: None,
            failed_login: None,
        }
    }
}

/// The account that a user sends as with this MAIL, or the refusal.
pub(super) fn sender(user: &SystemUser, mail: &mut Mail, config: &Config) -> Result<AccountName, Reply> {
    if !config.may_submit(user) {
        return Err(replies::user_may_not_send(user));
    }
    if let ReversePath::Mailbox(mailbox) = &mut mail.sender {
        replace(mailbox, config);
    }
    let sender = mail.sender.mailbox();
    sender.and_then(|sender| config.sends_as(user, sender)).cloned().ok_or_else(replies::not_your_address)
}

/// A recipient on this machine becomes the mailbox of that user; who has none is refused as any unknown recipient.
pub(super) fn recipient(rcpt: &mut Rcpt, config: &Config) {
    if let ForwardPath::Mailbox(mailbox) = &mut rcpt.recipient {
        replace(mailbox, config);
    }
}

fn replace(mailbox: &mut Mailbox, config: &Config) {
    if config.is_this_machine(&mailbox.domain)
        && let Some(found) = config.mailbox_of(mailbox.local.as_str())
    {
        *mailbox = found;
    }
}
