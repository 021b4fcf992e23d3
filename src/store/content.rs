//! The content of messages: written once, shared by all entries that name it, removed when none does.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::bodies::{Bodies, NewBody};
use super::types::{Content, EmailId, MailboxId};
use super::{StoreError, writer::Tx};

type Result<T> = std::result::Result<T, StoreError>;

/// A content ready to be written: its body, when it is large, stands in a file already.
pub(super) struct Prepared {
    size: u64,
    header: Bytes,
    body: PreparedBody,
}

enum PreparedBody {
    Row(Bytes),
    File(NewBody),
}

impl Prepared {
    /// Writes the file of a large body; blocks for it. A small one does nothing here.
    pub(super) fn new(content: Content, row_bytes_max: usize, bodies: &Bodies) -> Result<Self> {
        let size = content.len() as u64;
        let body = if content.body.len() > row_bytes_max {
            PreparedBody::File(bodies.write(&content.body)?)
        } else {
            PreparedBody::Row(content.body)
        };
        Ok(Self { size, header: content.header, body })
    }

    /// Bytes in all.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }
}

/// Writes the rows of a content.
pub(super) fn insert(tx: &Tx<'_>, content: Prepared) -> Result<EmailId> {
    let (row, file) = match &content.body {
        PreparedBody::Row(body) => (Some(&body[..]), None),
        PreparedBody::File(file) => (None, Some(file.name())),
    };
    tx.connection
        .prepare_cached("INSERT INTO content (size, file) VALUES (?1, ?2)")?
        .execute(params![content.size as i64, file])?;
    let id = tx.connection.last_insert_rowid();
    tx.connection
        .prepare_cached("INSERT INTO content_text (content, header, body) VALUES (?1, ?2, ?3)")?
        .execute(params![id, &content.header[..], row])?;
    // From here the file belongs to the row. Should the commit fail, the next start removes it: at once would be too
    // early, for a commit that reports an error may still have reached the disk.
    if let PreparedBody::File(file) = content.body {
        file.keep();
    }
    Ok(EmailId(id))
}

/// The header of a message with its empty line; the body is not touched.
pub(super) fn header(connection: &Connection, mailbox: MailboxId, uid: u32) -> Result<Option<Bytes>> {
    let header = connection
        .prepare_cached(
            "SELECT t.header FROM message m JOIN content_text t ON t.content = m.content
             WHERE m.mailbox = ?1 AND m.uid = ?2",
        )?
        .query_row(params![mailbox.0, uid], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(header.map(Bytes::from))
}

/// A whole message.
pub(super) fn whole(
    connection: &Connection,
    bodies: &Bodies,
    mailbox: MailboxId,
    uid: u32,
) -> Result<Option<Bytes>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.size, c.file, t.header, t.body
         FROM message m JOIN content c ON c.id = m.content JOIN content_text t ON t.content = m.content
         WHERE m.mailbox = ?1 AND m.uid = ?2",
    )?;
    let mut rows = statement.query(params![mailbox.0, uid])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut whole = Vec::with_capacity(row.get::<_, i64>(0)? as usize);
    whole.extend_from_slice(blob(row.get_ref(2)?)?);
    match row.get_ref(1)?.as_str_or_null().map_err(|_| StoreError::corrupt("a file name"))? {
        None => whole.extend_from_slice(blob(row.get_ref(3)?)?),
        Some(file) => {
            // Removed after this snapshot began, when the message was expunged: it is gone, then.
            if !bodies.read_into(file, &mut whole)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(Bytes::from(whole)))
}

fn blob(value: rusqlite::types::ValueRef<'_>) -> Result<&[u8]> {
    value.as_blob().map_err(|_| StoreError::corrupt("a message"))
}

/// What [`set_cached`] kept for messages, for those that have something.
pub(super) fn cached(connection: &Connection, mailbox: MailboxId, uids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.data FROM message m JOIN content_cache c ON c.content = m.content
         WHERE m.mailbox = ?1 AND m.uid = ?2",
    )?;
    let mut found = Vec::new();
    for uid in uids {
        let data = statement.query_row(params![mailbox.0, uid], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        found.extend(data.map(|data| (*uid, Bytes::from(data))));
    }
    Ok(found)
}

/// Keeps facts worked out of contents, with the contents.
pub(super) fn set_cached(tx: &Tx<'_>, mailbox: MailboxId, facts: &[(u32, Bytes)]) -> Result<()> {
    let mut statement = tx.connection.prepare_cached(
        "INSERT OR REPLACE INTO content_cache (content, data)
         SELECT content, ?3 FROM message WHERE mailbox = ?1 AND uid = ?2",
    )?;
    for (uid, data) in facts {
        statement.execute(params![mailbox.0, uid, &data[..]])?;
    }
    Ok(())
}

/// Removes up to `limit` of the contents that lost an entry and have none left; the names of their files are added
/// to `files`, to be removed after the commit. True when there may be more.
pub(super) fn remove_orphans(connection: &Connection, limit: usize, files: &mut Vec<String>) -> Result<bool> {
    let candidates = connection
        .prepare_cached("SELECT content FROM orphan LIMIT ?1")?
        .query_map([limit as i64], |row| row.get::<_, i64>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for id in &candidates {
        let used =
            connection.prepare_cached("SELECT 1 FROM message WHERE content = ?1 LIMIT 1")?.exists([id])?;
        if !used {
            let file = connection
                .prepare_cached("DELETE FROM content WHERE id = ?1 RETURNING file")?
                .query_row([id], |row| row.get::<_, Option<String>>(0))
                .optional()?;
            files.extend(file.flatten());
        }
        connection.prepare_cached("DELETE FROM orphan WHERE content = ?1")?.execute([id])?;
    }
    Ok(candidates.len() == limit)
}
