//! What can be known about a waiting recipient without reading its message: who submitted it, from whom, to whom, and
//! when it came. Names are kept as hashes, so that a long queue can be searched in memory; they stand in the brief of
//! the message's record, so that a start has them from the footers.
//!
//! A hash is the beginning of a SHA-256: nobody finds a name that has the hash of another's, and equal hashes can be
//! taken for equal names.

use std::num::NonZeroU64;

use sha2::{Digest as _, Sha256};

use super::record::u64_at;
use super::types::NewMessage;
use crate::address::{Domain, Mailbox};
use crate::names::AccountName;

/// Of an account, a domain or a mailbox; never 0, which in records stands for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(NonZeroU64);

impl Hash {
    /// Of an account's name.
    pub fn account(account: &AccountName) -> Self {
        Self::of(&[account.as_str()])
    }

    /// Of a domain.
    pub fn domain(domain: &Domain) -> Self {
        Self::of(&[domain.as_str()])
    }

    /// Of a mailbox.
    pub fn mailbox(mailbox: &Mailbox) -> Self {
        // A domain has no `@`: no two mailboxes are written alike.
        Self::of(&[mailbox.local.as_str(), "@", mailbox.domain.as_str()])
    }

    fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        let first = digest.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self(NonZeroU64::MIN | first)
    }

    fn bytes(hash: Option<Self>) -> [u8; 8] {
        hash.map_or(0, |hash| hash.0.get()).to_le_bytes()
    }

    fn parse(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

/// What is known about a recipient and its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// When the message was taken, microseconds since 1970.
    pub received: i64,
    /// Who submitted it.
    pub account: Option<Hash>,
    /// The reverse-path; `None` is the null sender.
    pub sender: Option<Hash>,
    /// Its domain.
    pub sender_domain: Option<Hash>,
    /// The recipient.
    pub recipient: Hash,
    /// Its domain.
    pub recipient_domain: Hash,
}

/// What is known about all recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageLabels {
    received: i64,
    account: Option<Hash>,
    sender: Option<Hash>,
    sender_domain: Option<Hash>,
    /// Mailbox and domain of each.
    recipients: Box<[(Hash, Hash)]>,
}

const OF_MESSAGE_BYTES: usize = 24;
const OF_RECIPIENT_BYTES: usize = 16;

impl MessageLabels {
    /// Those of a message on its way into the queue.
    pub fn of(message: &NewMessage) -> Self {
        let sender = message.envelope.sender.mailbox();
        let recipients = message.envelope.recipients.iter().map(|recipient| &recipient.address);
        Self {
            received: message.received.as_microsecond(),
            account: message.account.as_ref().map(Hash::account),
            sender: sender.map(Hash::mailbox),
            sender_domain: sender.map(|sender| Hash::domain(&sender.domain)),
            recipients: recipients.map(|to| (Hash::mailbox(to), Hash::domain(&to.domain))).collect(),
        }
    }

    /// Those of one recipient, by its index in the envelope.
    pub fn recipient(&self, index: u32) -> Option<Labels> {
        let (recipient, recipient_domain) = *self.recipients.get(index as usize)?;
        let Self { received, account, sender, sender_domain, .. } = *self;
        Some(Labels { received, account, sender, sender_domain, recipient, recipient_domain })
    }

    /// Writes them behind the rest of a brief, which has the time.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for hash in [self.account, self.sender, self.sender_domain] {
            out.extend_from_slice(&Hash::bytes(hash));
        }
        for (recipient, domain) in &self.recipients {
            out.extend_from_slice(&Hash::bytes(Some(*recipient)));
            out.extend_from_slice(&Hash::bytes(Some(*domain)));
        }
    }

    /// Reads what [`put`](Self::put) wrote.
    pub(super) fn parse(bytes: &[u8], received: i64, recipients: u32) -> Option<Self> {
        let of_message = bytes.get(..OF_MESSAGE_BYTES)?;
        let (of_recipients, rest) = bytes[OF_MESSAGE_BYTES..].as_chunks::<OF_RECIPIENT_BYTES>();
        if !rest.is_empty() || of_recipients.len() != recipients as usize {
            return None;
        }
        let pair = |pair: &[u8; OF_RECIPIENT_BYTES]| {
            Some((Hash::parse(u64_at(pair, 0)?)?, Hash::parse(u64_at(pair, 8)?)?))
        };
        Some(Self {
            received,
            account: Hash::parse(u64_at(of_message, 0)?),
            sender: Hash::parse(u64_at(of_message, 8)?),
            sender_domain: Hash::parse(u64_at(of_message, 16)?),
            recipients: of_recipients.iter().map(pair).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_every_run_and_names_that_differ_have_others() {
        let mailbox = |text: &str| Hash::mailbox(&Mailbox::parse(text).unwrap());
        let domain = |text: &str| Hash::domain(&text.parse().unwrap());
        // `printf example.org | sha256sum`, the lowest bit set: what is on disk must be found by a later version.
        assert_eq!(domain("example.org").0.get(), 0xbfab_c374_3295_8b06 | 1);
        assert_eq!(mailbox("ann@EXAMPLE.org"), mailbox("ann@example.org"));
        assert_eq!(mailbox("\"ann\"@example.org"), mailbox("ann@example.org"));
        let names = ["ann@example.org", "Ann@example.org", "an@nexample.org", "\"ann@example\"@org.test"];
        for (at, name) in names.iter().enumerate() {
            assert!(names[..at].iter().all(|other| mailbox(other) != mailbox(name)), "{name}");
        }
    }
}
