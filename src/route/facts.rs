//! What a script may know about a delivery: values alone, nothing that could be asked twice and answer differently.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::AccountName;

/// The facts of one attempt of one recipient. The same facts always give the same answer.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Number of the attempt that is to be made, from 1.
    pub attempt: u32,
    /// Who sent it, when somebody logged in.
    pub account: Option<AccountName>,
    /// The reverse-path.
    pub sender: ReversePath,
    /// Whether the sender's domain is one of ours; only then is there a domain level.
    pub local_sender_domain: bool,
    /// The forward-path.
    pub recipient: Mailbox,
    /// Bytes of the message.
    pub size: u64,
    /// Time since the message was accepted.
    pub age: Duration,
    /// Time until it is given up.
    pub expires_in: Duration,
    /// Message-Id, without angle brackets; `None` for what the header says.
    pub message_id: Option<String>,
    /// Whether it is a report (RFC 3464) of ours.
    pub is_dsn: bool,
    /// Whether it needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether it was sent with REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// MX hosts of the recipient's domain, best first; `None` when they were not looked up or the lookup failed.
    pub mx: Option<Vec<String>>,
    /// The header, raw; what follows the first empty line is not looked at.
    pub header: Bytes,
    /// Of a message that is gone, in place of the header: the fields that were kept, by their names in lower case, with
    /// `None` where the message had no such field. A script that asks for another one fails.
    pub kept_header: Option<Arc<BTreeMap<String, Option<String>>>>,
    /// Previous attempts, oldest first.
    pub history: Arc<[Attempt]>,
    /// The time of the decision.
    pub now: Timestamp,
}

impl Facts {
    /// The first attempt of a small fresh message that nobody logged in to send; change what matters.
    pub fn new(sender: ReversePath, recipient: Mailbox, now: Timestamp) -> Self {
        const FOUR_DAYS: Duration = Duration::from_hours(4 * 24);
        Self {
            attempt: 1,
            account: None,
            sender,
            local_sender_domain: false,
            recipient,
            size: 1_000,
            age: Duration::ZERO,
            expires_in: FOUR_DAYS,
            message_id: None,
            is_dsn: false,
            smtputf8: false,
            require_tls: false,
            mx: None,
            header: Bytes::new(),
            kept_header: None,
            history: Arc::new([]),
            now,
        }
    }

    /// Whether [`Self::header_field`] can tell.
    pub fn knows_header_field(&self, name: &str) -> bool {
        self.kept_header.as_ref().is_none_or(|kept| kept.contains_key(&name.to_ascii_lowercase()))
    }

    /// The Message-Id, without angle brackets.
    pub fn message_id(&self) -> Option<String> {
        self.message_id.clone().or_else(|| {
            let field = self.header_field("message-id")?;
            Some(field.trim_matches(['<', '>']).to_owned())
        })
    }

    /// The first field of this name (any case), unfolded (RFC 5322 §2.2.3), without white space around it; octets
    /// that are no UTF-8 become U+FFFD. Encoded words (RFC 2047) are left as they are.
    pub fn header_field(&self, name: &str) -> Option<String> {
        if let Some(kept) = &self.kept_header {
            return kept.get(&name.to_ascii_lowercase()).cloned().flatten();
        }
        let mut lines = self.header.split_inclusive(|b| *b == b'\n').map(trim_line_end).peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() {
                return None;
            }
            let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
            if !line[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()) {
                continue;
            }
            let mut value = line[colon + 1..].to_vec();
            while let Some(more) = lines.next_if(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
                value.extend_from_slice(more);
            }
            return Some(String::from_utf8_lossy(value.trim_ascii()).into_owned());
        }
        None
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_with(header: &'static [u8]) -> Facts {
        let recipient = Mailbox::parse("to@example.org").unwrap();
        let mut facts = Facts::new(ReversePath::Null, recipient, Timestamp::UNIX_EPOCH);
        facts.header = Bytes::from_static(header);
        facts
    }

    #[test]
    fn the_first_field_of_a_name_is_read_unfolded() {
        let facts = facts_with(
            b"Subject: one\r\n\ttwo\r\n three \r\nsubject: second\r\nX-Empty:\r\nList-Id : <a.b>\r\n\xff: x\r\nBad: \xff!\r\n\r\nTo: body\r\n",
        );
        for (name, value) in [
            ("subject", Some("one\ttwo three")),
            ("SUBJECT", Some("one\ttwo three")),
            ("x-empty", Some("")),
            ("list-id", Some("<a.b>")),
            ("bad", Some("\u{fffd}!")),
            ("to", None),
            ("", None),
            ("subject:", None),
        ] {
            assert_eq!(facts.header_field(name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn a_header_without_an_end_is_read_too() {
        assert_eq!(facts_with(b"A: 1\nB: 2").header_field("b").as_deref(), Some("2"));
        assert_eq!(facts_with(b"").header_field("b"), None);
        assert_eq!(facts_with(b" folded\r\nA: 1").header_field("a").as_deref(), Some("1"));
    }
}
