//! The fields that a session puts in front of a message.

use jiff::Timestamp;

use super::super::transaction::Transaction;
use super::{Session, Tls};
use crate::message::header::HeaderSummary;
use crate::message::received::{
    Protocol, Received, write_date_field, write_local_received, write_message_id_field,
};

impl Session {
    pub(super) fn protocol(&self, transaction: &Transaction) -> Protocol {
        Protocol {
            extended: self.hello.as_ref().is_some_and(|hello| hello.extended),
            tls: self.in_tls(),
            authenticated: self.account.is_some(),
            utf8: transaction.smtputf8(),
        }
    }

    /// The fields that go in front.
    pub(super) fn head(
        &self,
        transaction: &Transaction,
        summary: &HeaderSummary,
        content: &[u8],
        now: Timestamp,
    ) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let id = format!("{}.{}", self.id, self.transactions);
        let only_recipient = match transaction.recipients() {
            [only] => Some(&only.address),
            _ => None,
        };
        match &self.user {
            Some(user) => {
                write_local_received(&user.to_string(), &self.hostname, &id, only_recipient, now, &mut head);
            }
            None => Received {
                helo: self.hello.as_ref().map_or("unknown", |hello| hello.name.as_str()),
                ip: self.ip,
                by: &self.hostname,
                protocol: self.protocol(transaction),
                tls: if let Tls::Active(tls) = &self.tls { Some(tls) } else { None },
                id: &id,
                only_recipient,
                at: now,
            }
            .write(&mut head),
        }
        if self.is_submission() {
            // RFC 6409 §8.
            if !summary.has_date {
                write_date_field(now, &mut head);
            }
            if !summary.has_message_id {
                let unique = format!("{:x}.{id}", now.as_microsecond());
                write_message_id_field(&unique, &self.hostname, &mut head);
            }
        }
        let no_header = summary.fields == 0 && !content.is_empty() && !content.starts_with(b"\r\n");
        if no_header || content.starts_with(b" ") || content.starts_with(b"\t") {
            // Text without any header: our fields must not run into it, nor a line that would continue the last of them.
            head.extend_from_slice(b"\r\n");
        }
        head
    }
}
