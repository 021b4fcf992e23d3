//! One mail transaction: MAIL, RCPT and the content (RFC 5321 §3.3), and who may send what to whom.
//!
//! Everything here is a decision on values; nothing waits and nothing is looked up outside the configuration.

use std::collections::HashSet;
use std::time::Duration;

use crate::address::{Domain, LocalPart, Mailbox};
use crate::config::{Config, Lookup};
use crate::envelope::{BodyType, Envelope, Recipient, ReversePath};
use crate::names::AccountName;
use crate::smtp::Reply;
use crate::smtp::command::{ForwardPath, Mail, Rcpt};

use super::replies;

/// On whose behalf mail is sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender<'a> {
    /// Anybody: mail for our domains only.
    Anybody,
    /// A client whose network the operator trusts: mail for any domain.
    TrustedNetwork,
    /// An account: mail for any domain, from its own addresses.
    Account(&'a AccountName),
}

/// A refusal, perhaps after a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What to answer.
    pub reply: Reply,
    /// When.
    pub after: Duration,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self { reply, after: Duration::ZERO }
    }
}

/// A transaction under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    mail: Mail,
    recipients: Vec<Recipient>,
}

impl Transaction {
    /// Begins with MAIL, if this sender may.
    pub fn begin(mail: Mail, by: Sender<'_>, config: &Config) -> Result<Self, Refusal> {
        // Known, but not offered: binary content would have to be converted for servers without BINARYMIME.
        if mail.body == Some(BodyType::BinaryMime) {
            return Err(replies::not_offered("BODY=BINARYMIME").into());
        }
        if mail.path_is_utf8 && !mail.smtputf8 {
            return Err(replies::needs_smtputf8().into());
        }
        let bytes_max = config.limits.message_bytes_max;
        if mail.size.is_some_and(|size| size > bytes_max) {
            return Err(replies::too_big(bytes_max).into());
        }
        if let Sender::Account(account) = by {
            // RFC 6409 §6.1. A null sender belongs to nobody.
            let owned = mail.sender.mailbox().is_some_and(|sender| config.may_send_as(account, sender));
            if !owned {
                return Err(replies::not_your_address().into());
            }
        }
        Ok(Self { mail, recipients: Vec::new() })
    }

    /// Adds a recipient, if mail from this sender may go there.
    pub fn add(
        &mut self,
        rcpt: Rcpt,
        by: Sender<'_>,
        hostname: &Domain,
        config: &Config,
    ) -> Result<(), Refusal> {
        if rcpt.path_is_utf8 && !self.mail.smtputf8 {
            return Err(replies::needs_smtputf8().into());
        }
        let limit = config.limits.recipients_max.unwrap_or(usize::MAX).min(config.queue.recipients_max);
        if self.recipients.len() >= limit {
            return Err(replies::too_many_recipients().into());
        }
        let address = match rcpt.recipient {
            ForwardPath::Mailbox(mailbox) => mailbox,
            ForwardPath::Postmaster => postmaster(hostname, config).ok_or_else(replies::no_such_mailbox)?,
        };
        match config.lookup(&address) {
            Lookup::Account(_) => {}
            Lookup::Foreign if by != Sender::Anybody => {}
            Lookup::Foreign => return Err(replies::no_relay().into()),
            Lookup::NoSuchMailbox => return Err(replies::no_such_mailbox().into()),
            Lookup::Reply(fixed) => return Err(Refusal { reply: fixed.reply.clone(), after: fixed.after }),
        }
        self.recipients.push(Recipient { address, notify: rcpt.notify, orcpt: rcpt.orcpt });
        Ok(())
    }

    /// Takes back the recipient that was added last.
    pub fn remove_last(&mut self) {
        self.recipients.pop();
    }

    /// Who sends.
    pub fn sender(&self) -> &ReversePath {
        &self.mail.sender
    }

    /// Who gets it, so far.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// SIZE=.
    pub fn declared_size(&self) -> Option<u64> {
        self.mail.size
    }

    /// Whether SMTPUTF8 was given.
    pub fn smtputf8(&self) -> bool {
        self.mail.smtputf8
    }

    /// The envelope; a mailbox that was named twice gets the message once.
    pub fn into_envelope(mut self) -> Envelope {
        if self.recipients.len() > 1 {
            let mut seen = HashSet::with_capacity(self.recipients.len());
            self.recipients.retain(|recipient| seen.insert(recipient.address.clone()));
        }
        Envelope {
            sender: self.mail.sender,
            recipients: self.recipients,
            body: self.mail.body.unwrap_or_default(),
            smtputf8: self.mail.smtputf8,
            require_tls: self.mail.require_tls,
            ret: self.mail.ret,
            envid: self.mail.envid,
        }
    }
}

/// `<postmaster>` without a domain (RFC 5321 §4.5.1): of the domain that bears our name, or of one that has one.
fn postmaster(hostname: &Domain, config: &Config) -> Option<Mailbox> {
    let domains = std::iter::once(hostname).chain(config.domains.keys());
    let local = LocalPart::from_unquoted("postmaster").ok()?;
    domains
        .map(|domain| Mailbox { local: local.clone(), domain: domain.clone() })
        .find(|mailbox| matches!(config.lookup(mailbox), Lookup::Account(_)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::smtp::Command;

    const CONFIG: &str = r#"
        hostname = "mx.example.org"
        postmaster = "ann"
        [domains."example.org"]
        separator = "+"
        [domains."example.org".replies]
        slow = { reply = "451 4.3.0 later", after = "10m" }
        [domains."caught.example"]
        catch_all = "bob"
        [accounts.ann]
        addresses = ["ann@example.org"]
        [accounts.bob]
        addresses = ["bob@example.org", "büro@example.org"]
        [limits]
        message_bytes_max = 1000
        recipients_max = 3
    "#;

    fn config() -> Config {
        Config::parse(CONFIG, Path::new("waypost.toml")).unwrap()
    }

    fn begin(line: &str, by: Sender<'_>) -> Result<Transaction, String> {
        let Command::Mail(mail) = Command::parse(line.as_bytes()).unwrap() else { panic!("{line}") };
        Transaction::begin(mail, by, &config()).map_err(|refusal| refusal.reply.to_string()[..9].to_owned())
    }

    fn rcpt(transaction: &mut Transaction, line: &str, by: Sender<'_>) -> Result<(), Refusal> {
        let Command::Rcpt(rcpt) = Command::parse(line.as_bytes()).unwrap() else { panic!("{line}") };
        transaction.add(rcpt, by, &Domain::parse("mx.example.org").unwrap(), &config())
    }

    #[test]
    fn who_may_send() {
        let ann = AccountName::new("ann").unwrap();
        let (anybody, trusted, ann) = (Sender::Anybody, Sender::TrustedNetwork, Sender::Account(&ann));
        for (line, by, answer) in [
            ("MAIL FROM:<>", anybody, Ok(())),
            ("MAIL FROM:<x@elsewhere.example>", anybody, Ok(())),
            ("MAIL FROM:<>", trusted, Ok(())),
            ("MAIL FROM:<x@elsewhere.example>", trusted, Ok(())),
            ("MAIL FROM:<ann@example.org>", ann, Ok(())),
            ("MAIL FROM:<Ann+tag@example.org>", ann, Ok(())),
            ("MAIL FROM:<bob@example.org>", ann, Err("553 5.7.1")),
            ("MAIL FROM:<x@elsewhere.example>", ann, Err("553 5.7.1")),
            ("MAIL FROM:<>", ann, Err("553 5.7.1")),
            ("MAIL FROM:<> SIZE=1000", anybody, Ok(())),
            ("MAIL FROM:<> SIZE=1001", anybody, Err("552 5.3.4")),
            ("MAIL FROM:<> BODY=BINARYMIME", anybody, Err("555 5.5.4")),
            ("MAIL FROM:<> REQUIRETLS", anybody, Ok(())),
            ("MAIL FROM:<ü@x.example> SMTPUTF8", anybody, Ok(())),
            ("MAIL FROM:<ü@x.example>", anybody, Err("553 5.6.7")),
            ("MAIL FROM:<u@ü.example>", anybody, Err("553 5.6.7")),
        ] {
            assert_eq!(begin(line, by).map(|_| ()), answer.map_err(str::to_owned), "{line} {by:?}");
        }
    }

    #[test]
    fn who_may_get_it() {
        let ann = AccountName::new("ann").unwrap();
        let (anybody, trusted, ann) = (Sender::Anybody, Sender::TrustedNetwork, Sender::Account(&ann));
        for (line, by, answer) in [
            ("RCPT TO:<ann@example.org>", anybody, "ann@example.org"),
            ("RCPT TO:<ANN+x@EXAMPLE.org>", anybody, "ANN+x@example.org"),
            ("RCPT TO:<who@caught.example>", anybody, "who@caught.example"),
            ("RCPT TO:<who@example.org>", anybody, "550 5.1.1"),
            ("RCPT TO:<who@example.org>", ann, "550 5.1.1"),
            ("RCPT TO:<slow@example.org>", anybody, "451 4.3.0"),
            ("RCPT TO:<x@elsewhere.example>", anybody, "550 5.7.1"),
            ("RCPT TO:<@example.org:x@elsewhere.example>", anybody, "550 5.7.1"),
            ("RCPT TO:<x%elsewhere.example@example.org>", anybody, "550 5.1.1"),
            ("RCPT TO:<\"x@elsewhere.example\"@example.org>", anybody, "550 5.1.1"),
            ("RCPT TO:<x@elsewhere.example>", trusted, "x@elsewhere.example"),
            ("RCPT TO:<x@elsewhere.example>", ann, "x@elsewhere.example"),
            ("RCPT TO:<ann@[127.0.0.1]>", anybody, "550 5.7.1"),
            ("RCPT TO:<Postmaster>", anybody, "postmaster@caught.example"),
            ("RCPT TO:<postmaster@example.org>", anybody, "postmaster@example.org"),
            ("RCPT TO:<büro@example.org>", anybody, "553 5.6.7"),
        ] {
            let mut transaction = begin("MAIL FROM:<ann@example.org>", by).unwrap();
            let seen = match rcpt(&mut transaction, line, by) {
                Ok(()) => transaction.recipients()[0].address.to_string(),
                Err(refusal) => refusal.reply.to_string()[..9].to_owned(),
            };
            assert_eq!(seen, answer, "{line} {by:?}");
        }
        let mut transaction = begin("MAIL FROM:<> SMTPUTF8", anybody).unwrap();
        assert_eq!(rcpt(&mut transaction, "RCPT TO:<büro@example.org>", anybody), Ok(()));
    }

    #[test]
    fn an_answer_may_take_its_time() {
        let mut transaction = begin("MAIL FROM:<>", Sender::Anybody).unwrap();
        let refusal = rcpt(&mut transaction, "RCPT TO:<slow@example.org>", Sender::Anybody).unwrap_err();
        assert_eq!(refusal.after, Duration::from_mins(10));
    }

    #[test]
    fn only_so_many_recipients_and_each_once() {
        let mut transaction = begin("MAIL FROM:<>", Sender::Anybody).unwrap();
        for line in ["RCPT TO:<ann@example.org>", "RCPT TO:<bob@example.org>", "RCPT TO:<ann@example.org>"] {
            assert_eq!(rcpt(&mut transaction, line, Sender::Anybody), Ok(()));
        }
        let refusal = rcpt(&mut transaction, "RCPT TO:<bob@example.org>", Sender::Anybody).unwrap_err();
        assert!(refusal.reply.to_string().starts_with("452 4.5.3"));
        let envelope = transaction.into_envelope();
        let names: Vec<_> = envelope.recipients.iter().map(|r| r.address.to_string()).collect();
        assert_eq!(names, ["ann@example.org", "bob@example.org"]);
    }
}
