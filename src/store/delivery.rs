//! Deliveries from the queue into mailboxes, each made once: the key of a delivery is written in the same transaction as
//! the message, so that the queue may ask again after a crash.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::messages::{self, Entry};
use super::name::Name;
use super::types::{Delivered, MailboxId};
use super::writer::Tx;
use super::{StoreError, mailboxes, micros};
use crate::names::{AccountName, QueueId};

type Result<T> = std::result::Result<T, StoreError>;

/// A recipient of the queue, for a delivery that happens once.
pub(super) struct DeliveryKey {
    /// The message.
    pub id: QueueId,
    /// Which of its recipients.
    pub recipient: u32,
    /// When the message came: tells it from another with the same number, of a queue that was begun anew.
    pub received: Timestamp,
}

/// Puts a message into an account's mailbox, unless that was done before. The account is made on first sight.
pub(super) fn deliver(
    tx: &mut Tx<'_>,
    account: &AccountName,
    name: &Name,
    key: &DeliveryKey,
    entry: Entry,
) -> Result<Delivered> {
    let (queue_id, received) = (key.id.0 as i64, micros(key.received));
    let before = tx
        .connection
        .prepare_cached(
            "SELECT mailbox, uid FROM delivered WHERE queue_id = ?1 AND recipient = ?2 AND received = ?3",
        )?
        .query_row(params![queue_id, key.recipient, received], |row| {
            Ok(Delivered { mailbox: MailboxId(row.get(0)?), uid: row.get(1)?, duplicate: true })
        })
        .optional()?;
    if let Some(before) = before {
        return Ok(before);
    }
    let account = mailboxes::ensure_account(tx, account)?;
    let mailbox = mailboxes::find_id(tx.connection, account, name)?.ok_or(StoreError::NotFound("mailbox"))?;
    let appended = messages::append(tx, mailbox, vec![entry])?;
    let uid = appended.uids.first().copied().unwrap_or_default();
    tx.connection
        .prepare_cached(
            "INSERT INTO delivered (queue_id, recipient, received, mailbox, uid, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![queue_id, key.recipient, received, mailbox.0, uid, micros(tx.now)])?;
    Ok(Delivered { mailbox, uid, duplicate: false })
}

/// Forgets deliveries made before a time: those whose messages are long out of the queue.
pub(super) fn prune(tx: &mut Tx<'_>, before: Timestamp) -> Result<usize> {
    let mut statement = tx.connection.prepare_cached("DELETE FROM delivered WHERE at < ?1")?;
    Ok(statement.execute([micros(before)])?)
}
