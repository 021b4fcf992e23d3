//! Local delivery: a recipient of the queue gets the message into the INBOX of an account of ours.
//!
//! RFC 5321 §4.4: the final delivery puts Return-Path at the head. Delivered-To stands with it: it tells which of an
//! account's addresses the message came to. The store wakes those who watch the mailbox.

use bytes::Bytes;

use crate::address::Mailbox;
use crate::config::{Config, Lookup};
use crate::envelope::ReversePath;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::Reply;
use crate::spool::NewMessage;
use crate::store::{Content, INBOX, Store, StoreError};

/// Delivers a message to one of its recipients, `recipient_index` of its envelope. Asked again for the same recipient
/// of the same message, it delivers no second time and says delivered.
pub async fn deliver(
    store: &Store,
    config: &Config,
    id: QueueId,
    recipient_index: u32,
    recipient: &Mailbox,
    message: &NewMessage,
) -> Outcome {
    // Asked anew for each attempt: the address may have gone, or moved to another account, since RCPT.
    let account = match config.lookup(recipient) {
        Lookup::Account(account) => account,
        Lookup::Reply(fixed) => return refused(&fixed.reply),
        Lookup::NoSuchMailbox | Lookup::Foreign => return no_such_mailbox(),
    };
    let content = with_trace(&message.envelope.sender, recipient, &message.content);
    match store.deliver(account, INBOX, (id, recipient_index), content, message.received).await {
        Ok(delivered) => {
            tracing::debug!(%id, %account, uid = delivered.uid, duplicate = delivered.duplicate, "delivered to INBOX");
            Outcome::ours(
                Verdict::Delivered,
                Stage::Data,
                EnhancedCode::new(2, 0, 0),
                "delivered to the mailbox",
            )
        }
        Err(error) => {
            tracing::warn!(%id, %account, %error, "delivery to INBOX failed");
            failed(&error)
        }
    }
}

/// The message as it stands in the mailbox: Return-Path and Delivered-To in front, the body shared. A Return-Path that
/// came with the message goes: exactly one stands there, and it is ours (RFC 5321 §4.4).
pub fn with_trace(sender: &ReversePath, recipient: &Mailbox, message: &Bytes) -> Content {
    let Content { header, body } = Content::from(message.clone());
    let trace = format!("Return-Path: <{sender}>\r\nDelivered-To: {recipient}\r\n");
    let mut whole = Vec::with_capacity(trace.len() + header.len());
    whole.extend_from_slice(trace.as_bytes());
    fields(&header).filter(|field| !is_return_path(field)).for_each(|field| whole.extend_from_slice(field));
    Content { header: whole.into(), body }
}

/// The header's fields, each with the lines that continue it; the empty line at the end is the last.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        // A line that begins with a space or a tab continues the one before (RFC 5322 §2.2.3).
        let ends = memchr::memchr_iter(b'\n', rest).map(|at| at + 1);
        let mut ends = ends.filter(|end| !matches!(rest.get(*end), Some(b' ' | b'\t')));
        let (field, more) = rest.split_at(ends.next().unwrap_or(rest.len()));
        rest = more;
        (!field.is_empty()).then_some(field)
    })
}

fn is_return_path(field: &[u8]) -> bool {
    let name = field.split(|b| *b == b':').next().unwrap_or_default();
    name.trim_ascii_end().eq_ignore_ascii_case(b"return-path")
}

fn no_such_mailbox() -> Outcome {
    Outcome::ours(
        Verdict::Permanent,
        Stage::Data,
        EnhancedCode::new(5, 1, 1),
        "there is no such mailbox here any more",
    )
}

/// An answer to RCPT that the operator wrote after the message had been taken.
fn refused(reply: &Reply) -> Outcome {
    let (verdict, enhanced) = if reply.is_temporary() {
        (Verdict::Temporary, EnhancedCode::new(4, 2, 1))
    } else {
        (Verdict::Permanent, EnhancedCode::new(5, 2, 1))
    };
    let outcome = Outcome::ours(verdict, Stage::Data, reply.enhanced.unwrap_or(enhanced), reply.text());
    Outcome { code: Some(reply.code), ..outcome }
}

/// What a failure of the store means for the recipient, in words that may go to the sender.
fn failed(error: &StoreError) -> Outcome {
    let (verdict, enhanced, text) = match error {
        StoreError::Full => (Verdict::Temporary, EnhancedCode::new(4, 3, 1), "mail storage is full"),
        // The message itself cannot be kept, now or later.
        StoreError::Invalid(_) => {
            (Verdict::Permanent, EnhancedCode::new(5, 2, 3), "the message is too large for the mailbox")
        }
        _ => (Verdict::Temporary, EnhancedCode::new(4, 3, 0), "the mailbox cannot be written now"),
    };
    Outcome::ours(verdict, Stage::Data, enhanced, text)
}

#[cfg(test)]
mod tests;
