//! Messages in mailboxes: UIDs, flags, MODSEQ, what changed since.
//!
//! RFC 9051 §2.3.1.1 (UID), RFC 7162 (CONDSTORE, QRESYNC). Every call that changes a mailbox takes the next MODSEQ
//! for all that it changes there; the UIDs it expunges are kept with that MODSEQ.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::content::{self, Prepared};
use super::flags::{FlagOp, Flags, KEYWORDS_PER_MESSAGE_MAX, Keyword, SystemFlag};
use super::types::{
    Appended, Changes, Copied, EmailId, MailboxId, MailboxStatus, MessageRow, StoreResult, View,
};
use super::writer::Tx;
use super::{StoreError, micros, timestamp};

/// Most keywords in a mailbox: each stands in the FLAGS response of every SELECT.
pub const KEYWORDS_PER_MAILBOX_MAX: usize = 500;

type Result<T> = std::result::Result<T, StoreError>;

/// A mailbox that a job changes: its counters, written back by [`Change::finish`].
struct Change {
    id: MailboxId,
    status: MailboxStatus,
    /// What everything that changes gets; becomes the highest MODSEQ when something does.
    modseq: u64,
    touched: bool,
    /// The mailbox's keywords as they are spelt, read when first needed.
    keywords: Option<HashMap<Keyword, Keyword>>,
}

pub(super) fn status(connection: &Connection, mailbox: MailboxId) -> Result<MailboxStatus> {
    let mut statement = connection.prepare_cached(
        "SELECT messages, unseen, deleted, size, uidnext, uidvalidity, highest_modseq FROM mailbox WHERE id = ?1",
    )?;
    let found = statement.query_row([mailbox.0], |row| {
        Ok(MailboxStatus {
            messages: row.get(0)?,
            unseen: row.get(1)?,
            deleted: row.get(2)?,
            size: row.get::<_, i64>(3)? as u64,
            uidnext: row.get(4)?,
            uidvalidity: row.get(5)?,
            highest_modseq: row.get::<_, i64>(6)? as u64,
        })
    });
    found.optional()?.ok_or(StoreError::NotFound("mailbox"))
}

impl Change {
    fn begin(tx: &Tx<'_>, mailbox: MailboxId) -> Result<Self> {
        let status = status(tx.connection, mailbox)?;
        Ok(Self { id: mailbox, status, modseq: status.highest_modseq + 1, touched: false, keywords: None })
    }

    /// Counts a message in.
    fn count_in(&mut self, flags: &Flags, size: u64) {
        let status = &mut self.status;
        status.messages += 1;
        status.unseen += u32::from(!flags.contains(SystemFlag::Seen));
        status.deleted += u32::from(flags.contains(SystemFlag::Deleted));
        status.size += size;
        self.touched = true;
    }

    /// Counts a message out.
    fn count_out(&mut self, flags: &Flags, size: u64) {
        let status = &mut self.status;
        status.messages = status.messages.saturating_sub(1);
        status.unseen = status.unseen.saturating_sub(u32::from(!flags.contains(SystemFlag::Seen)));
        status.deleted = status.deleted.saturating_sub(u32::from(flags.contains(SystemFlag::Deleted)));
        status.size = status.size.saturating_sub(size);
        self.touched = true;
    }

    /// Gives the next UID to an entry and writes it.
    fn add(
        &mut self,
        tx: &Tx<'_>,
        mut flags: Flags,
        internal_date: i64,
        size: u64,
        email: EmailId,
    ) -> Result<u32> {
        self.spell(tx, &mut flags)?;
        let uid = self.status.uidnext;
        self.status.uidnext =
            uid.checked_add(1).ok_or_else(|| StoreError::invalid("the mailbox has no more UIDs"))?;
        tx.connection
            .prepare_cached(
                "INSERT INTO message (mailbox, uid, modseq, flags, keywords, internal_date, saved, size, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                self.id.0,
                uid,
                self.modseq as i64,
                flags.bits(),
                flags.keywords_text(),
                internal_date,
                micros(tx.now),
                size as i64,
                email.0
            ])?;
        self.count_in(&flags, size);
        Ok(uid)
    }

    /// Takes an entry away and keeps its UID among the expunged.
    fn expunge(&mut self, tx: &mut Tx<'_>, entry: &MessageRow) -> Result<()> {
        let connection = tx.connection;
        connection
            .prepare_cached("DELETE FROM message WHERE mailbox = ?1 AND uid = ?2")?
            .execute(params![self.id.0, entry.uid])?;
        connection
            .prepare_cached("INSERT INTO expunged (mailbox, uid, modseq) VALUES (?1, ?2, ?3)")?
            .execute(params![self.id.0, entry.uid, self.modseq as i64])?;
        connection.prepare_cached("INSERT OR IGNORE INTO orphan VALUES (?1)")?.execute([entry.email.0])?;
        tx.effects.orphans = true;
        self.count_out(&entry.flags, entry.size);
        Ok(())
    }

    /// Spells keywords as the mailbox does, and takes up new ones.
    fn spell(&mut self, tx: &Tx<'_>, flags: &mut Flags) -> Result<()> {
        if flags.keywords().is_empty() {
            return Ok(());
        }
        if flags.keywords().len() > KEYWORDS_PER_MESSAGE_MAX {
            return Err(StoreError::invalid(format!(
                "a message has at most {KEYWORDS_PER_MESSAGE_MAX} keywords"
            )));
        }
        let known = match &mut self.keywords {
            Some(known) => known,
            None => {
                let known = keywords(tx.connection, self.id)?;
                self.keywords.insert(known.into_iter().map(|word| (word.clone(), word)).collect())
            }
        };
        let mailbox = self.id;
        flags.respell(|word| {
            if let Some(word) = known.get(word) {
                return Ok(word.clone());
            }
            if known.len() >= KEYWORDS_PER_MAILBOX_MAX {
                return Err(StoreError::invalid(format!(
                    "a mailbox has at most {KEYWORDS_PER_MAILBOX_MAX} keywords"
                )));
            }
            tx.connection
                .prepare_cached("INSERT INTO keyword (mailbox, name) VALUES (?1, ?2)")?
                .execute(params![mailbox.0, word.as_str()])?;
            known.insert(word.clone(), word.clone());
            Ok(word.clone())
        })
    }

    /// Writes the counters back and has the change told.
    fn finish(self, tx: &mut Tx<'_>) -> Result<MailboxStatus> {
        if !self.touched {
            return Ok(self.status);
        }
        let status = MailboxStatus { highest_modseq: self.modseq, ..self.status };
        tx.connection
            .prepare_cached(
                "UPDATE mailbox SET messages = ?2, unseen = ?3, deleted = ?4, size = ?5, uidnext = ?6, highest_modseq = ?7
                 WHERE id = ?1",
            )?
            .execute(params![
                self.id.0,
                status.messages,
                status.unseen,
                status.deleted,
                status.size as i64,
                status.uidnext,
                status.highest_modseq as i64
            ])?;
        tx.effects.mailboxes.push((self.id, self.modseq));
        Ok(status)
    }
}

/// Keywords ever used in a mailbox, sorted.
pub(super) fn keywords(connection: &Connection, mailbox: MailboxId) -> Result<Vec<Keyword>> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM keyword WHERE mailbox = ?1 ORDER BY name")?;
    let mut rows = statement.query([mailbox.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let word = Keyword::new(&row.get::<_, String>(0)?);
        found.push(word.map_err(|_| StoreError::corrupt("a keyword"))?);
    }
    Ok(found)
}

/// A query for what [`RowReader`] reads.
macro_rules! select_messages {
    ($rest:literal) => {
        concat!(
            "SELECT uid, modseq, flags, keywords, internal_date, saved, size, content FROM message ",
            $rest
        )
    };
}

/// Reads rows of [`select_messages`]; equal keywords of many rows share one text.
#[derive(Default)]
struct RowReader {
    keywords: HashMap<Arc<str>, Flags>,
}

impl RowReader {
    fn read(&mut self, row: &Row<'_>) -> Result<MessageRow> {
        let keywords = row.get_ref(3)?.as_str_or_null().map_err(|_| StoreError::corrupt("keywords"))?;
        Ok(MessageRow {
            uid: row.get(0)?,
            modseq: row.get::<_, i64>(1)? as u64,
            flags: self.flags(row.get(2)?, keywords),
            internal_date: timestamp(row.get(4)?)?,
            saved: timestamp(row.get(5)?)?,
            size: row.get::<_, i64>(6)? as u64,
            email: EmailId(row.get(7)?),
        })
    }

    fn flags(&mut self, bits: u8, keywords: Option<&str>) -> Flags {
        let Some(text) = keywords else { return Flags::from_stored(bits, None) };
        if let Some(known) = self.keywords.get(text) {
            return known.clone().with_bits(bits);
        }
        let flags = Flags::from_stored(bits, Some(text));
        self.keywords.insert(text.into(), flags.clone());
        flags
    }
}

fn entry(
    connection: &Connection,
    reader: &mut RowReader,
    mailbox: MailboxId,
    uid: u32,
) -> Result<Option<MessageRow>> {
    let mut statement = connection.prepare_cached(select_messages!("WHERE mailbox = ?1 AND uid = ?2"))?;
    let mut rows = statement.query(params![mailbox.0, uid])?;
    rows.next()?.map(|row| reader.read(row)).transpose()
}

/// Sorted, each once: the order in which messages are changed, copied and told.
fn in_order(uids: &[u32]) -> Vec<u32> {
    let mut uids = uids.to_vec();
    uids.sort_unstable();
    uids.dedup();
    uids
}

/// All messages, in UID order.
pub(super) fn view(connection: &Connection, mailbox: MailboxId) -> Result<View> {
    let status = status(connection, mailbox)?;
    let mut statement = connection.prepare_cached(select_messages!("WHERE mailbox = ?1 ORDER BY uid"))?;
    let mut messages = Vec::with_capacity(status.messages as usize);
    let mut reader = RowReader::default();
    let mut rows = statement.query([mailbox.0])?;
    while let Some(row) = rows.next()? {
        messages.push(reader.read(row)?);
    }
    Ok(View {
        uidvalidity: status.uidvalidity,
        uidnext: status.uidnext,
        highest_modseq: status.highest_modseq,
        messages,
    })
}

/// All UIDs, in order.
pub(super) fn uids(connection: &Connection, mailbox: MailboxId) -> Result<Vec<u32>> {
    let mut statement =
        connection.prepare_cached("SELECT uid FROM message WHERE mailbox = ?1 ORDER BY uid")?;
    Ok(statement.query_map([mailbox.0], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// What happened after the moment `modseq`.
pub(super) fn changes_since(connection: &Connection, mailbox: MailboxId, modseq: u64) -> Result<Changes> {
    let status = status(connection, mailbox)?;
    let since = i64::try_from(modseq).unwrap_or(i64::MAX);
    let mut changed = Vec::new();
    let mut reader = RowReader::default();
    let mut statement = connection
        .prepare_cached(select_messages!("INDEXED BY message_modseq WHERE mailbox = ?1 AND modseq > ?2"))?;
    let mut rows = statement.query(params![mailbox.0, since])?;
    while let Some(row) = rows.next()? {
        changed.push(reader.read(row)?);
    }
    changed.sort_unstable_by_key(|row| row.uid);
    let mut expunged = connection
        .prepare_cached("SELECT uid FROM expunged WHERE mailbox = ?1 AND modseq > ?2")?
        .query_map(params![mailbox.0, since], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<u32>>>()?;
    expunged.sort_unstable();
    Ok(Changes { highest_modseq: status.highest_modseq, uidnext: status.uidnext, changed, expunged })
}

/// A message about to be written.
pub(super) struct Entry {
    /// Its text.
    pub content: Prepared,
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE.
    pub internal_date: Timestamp,
}

/// Appends messages, all or none.
pub(super) fn append(tx: &mut Tx<'_>, mailbox: MailboxId, entries: Vec<Entry>) -> Result<Appended> {
    let mut change = Change::begin(tx, mailbox)?;
    let mut uids = Vec::with_capacity(entries.len());
    for entry in entries {
        let size = entry.content.size();
        let email = content::insert(tx, entry.content)?;
        uids.push(change.add(tx, entry.flags, micros(entry.internal_date), size, email)?);
    }
    let status = change.finish(tx)?;
    Ok(Appended { uidvalidity: status.uidvalidity, uids })
}

/// Changes flags of messages; those changed after `unchanged_since` are left alone and named.
pub(super) fn store_flags(
    tx: &mut Tx<'_>,
    mailbox: MailboxId,
    uids: &[u32],
    op: FlagOp,
    flags: &Flags,
    unchanged_since: Option<u64>,
) -> Result<StoreResult> {
    let mut change = Change::begin(tx, mailbox)?;
    let mut flags = flags.clone();
    if op != FlagOp::Remove {
        change.spell(tx, &mut flags)?;
    }
    let mut reader = RowReader::default();
    let mut result = StoreResult::default();
    for uid in in_order(uids) {
        let Some(mut row) = entry(tx.connection, &mut reader, mailbox, uid)? else { continue };
        if unchanged_since.is_some_and(|since| row.modseq > since) {
            result.modified.push(uid);
            continue;
        }
        let after = row.flags.apply(op, &flags);
        if after == row.flags {
            continue;
        }
        if after.keywords().len() > KEYWORDS_PER_MESSAGE_MAX {
            return Err(StoreError::invalid(format!(
                "a message has at most {KEYWORDS_PER_MESSAGE_MAX} keywords"
            )));
        }
        tx.connection
            .prepare_cached(
                "UPDATE message SET modseq = ?3, flags = ?4, keywords = ?5 WHERE mailbox = ?1 AND uid = ?2",
            )?
            .execute(params![mailbox.0, uid, change.modseq as i64, after.bits(), after.keywords_text()])?;
        change.count_out(&row.flags, row.size);
        change.count_in(&after, row.size);
        row.modseq = change.modseq;
        row.flags = after;
        result.changed.push(row);
    }
    change.finish(tx)?;
    Ok(result)
}

/// Copies messages, all or none, with their flags and dates; the content is shared.
pub(super) fn copy_to(tx: &mut Tx<'_>, from: MailboxId, uids: &[u32], to: MailboxId) -> Result<Copied> {
    status(tx.connection, from)?;
    let mut change = Change::begin(tx, to)?;
    let mut reader = RowReader::default();
    let mut pairs = Vec::with_capacity(uids.len());
    for uid in in_order(uids) {
        let Some(row) = entry(tx.connection, &mut reader, from, uid)? else { continue };
        pairs.push((uid, change.add(tx, row.flags, micros(row.internal_date), row.size, row.email)?));
    }
    let status = change.finish(tx)?;
    Ok(Copied { uidvalidity: status.uidvalidity, pairs })
}

/// Moves messages, all or none (RFC 6851). Within one mailbox they get new UIDs.
pub(super) fn move_to(tx: &mut Tx<'_>, from: MailboxId, uids: &[u32], to: MailboxId) -> Result<Copied> {
    let copied = copy_to(tx, from, uids, to)?;
    let mut change = Change::begin(tx, from)?;
    let mut reader = RowReader::default();
    for (uid, _) in &copied.pairs {
        if let Some(row) = entry(tx.connection, &mut reader, from, *uid)? {
            change.expunge(tx, &row)?;
        }
    }
    change.finish(tx)?;
    Ok(copied)
}

/// Expunges messages that have `\Deleted`: all of them, or those among `only`.
pub(super) fn expunge(tx: &mut Tx<'_>, mailbox: MailboxId, only: Option<&[u32]>) -> Result<Vec<u32>> {
    let mut change = Change::begin(tx, mailbox)?;
    let candidates = match only {
        Some(uids) => in_order(uids),
        None if change.status.deleted == 0 => Vec::new(),
        None => deleted(tx.connection, mailbox)?,
    };
    let mut reader = RowReader::default();
    let mut gone = Vec::new();
    for uid in candidates {
        let Some(row) = entry(tx.connection, &mut reader, mailbox, uid)? else { continue };
        if row.flags.contains(SystemFlag::Deleted) {
            change.expunge(tx, &row)?;
            gone.push(uid);
        }
    }
    change.finish(tx)?;
    Ok(gone)
}

fn deleted(connection: &Connection, mailbox: MailboxId) -> Result<Vec<u32>> {
    let mut statement = connection
        .prepare_cached("SELECT uid FROM message WHERE mailbox = ?1 AND flags & ?2 <> 0 ORDER BY uid")?;
    let found = statement.query_map(params![mailbox.0, SystemFlag::Deleted as u8], |row| row.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Marks the contents of a mailbox that is about to go, so that those used nowhere else are removed.
pub(super) fn forget_all(tx: &mut Tx<'_>, mailbox: MailboxId) -> Result<()> {
    tx.connection
        .prepare_cached("INSERT OR IGNORE INTO orphan SELECT content FROM message WHERE mailbox = ?1")?
        .execute([mailbox.0])?;
    tx.effects.orphans = true;
    Ok(())
}
