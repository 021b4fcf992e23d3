//! The suppression list: recipients to which an account's mail is refused, for it bounced, or because the operator says so.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::writer::Tx;
use super::{StoreError, micros, timestamp};
use crate::address::Mailbox;
use crate::names::AccountName;

/// Longest reason kept, bytes; what is longer is cut.
const REASON_BYTES_MAX: usize = 1_000;
/// Recipients of one account.
pub const SUPPRESSED_PER_ACCOUNT_MAX: usize = 100_000;

type Result<T> = std::result::Result<T, StoreError>;

/// A recipient to which an account's mail is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// Whose mail.
    pub account: AccountName,
    /// To whom.
    pub address: Mailbox,
    /// What is told to the account: what the recipient's server said, or what the operator wrote.
    pub reason: String,
    /// The operator who put it there; `None` when it was a bounce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` for as long as nobody removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Suppression {
    /// Whether it holds at that time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Keeps entries; one for the same account and address takes the place of the older. Returns those that were kept:
/// beyond [`SUPPRESSED_PER_ACCOUNT_MAX`] of an account nothing new is.
pub(super) fn add(tx: &mut Tx<'_>, entries: Vec<Suppression>) -> Result<Vec<Suppression>> {
    let mut kept = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let end = entry.reason.floor_char_boundary(REASON_BYTES_MAX);
        entry.reason.truncate(end);
        // As it will be read back.
        entry.since = timestamp(micros(entry.since))?;
        entry.expires = entry.expires.map(|at| timestamp(micros(at))).transpose()?;
        let inserted = tx
            .connection
            .prepare_cached(
                "INSERT INTO suppression (account, address, reason, made_by, since, expires)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6
                 WHERE EXISTS (SELECT 1 FROM suppression WHERE account = ?1 AND address = ?2)
                    OR (SELECT count(*) FROM suppression WHERE account = ?1) < ?7
                 ON CONFLICT (account, address) DO UPDATE SET
                    reason = excluded.reason, made_by = excluded.made_by,
                    since = excluded.since, expires = excluded.expires",
            )?
            .execute(params![
                entry.account.as_str(),
                entry.address.to_string(),
                entry.reason,
                entry.by,
                micros(entry.since),
                entry.expires.map(micros),
                SUPPRESSED_PER_ACCOUNT_MAX as i64,
            ])?;
        if inserted > 0 {
            kept.push(entry);
        }
    }
    Ok(kept)
}

/// Forgets entries, by account and address; the number forgotten.
pub(super) fn remove(tx: &mut Tx<'_>, entries: &[(AccountName, Mailbox)]) -> Result<usize> {
    let mut statement =
        tx.connection.prepare_cached("DELETE FROM suppression WHERE account = ?1 AND address = ?2")?;
    let mut removed = 0;
    for (account, address) in entries {
        removed += statement.execute(params![account.as_str(), address.to_string()])?;
    }
    Ok(removed)
}

/// Forgets all entries of an account.
pub(super) fn remove_account(tx: &mut Tx<'_>, account: &AccountName) -> Result<()> {
    let mut statement = tx.connection.prepare_cached("DELETE FROM suppression WHERE account = ?1")?;
    statement.execute([account.as_str()])?;
    Ok(())
}

/// Forgets entries that hold no more; the number forgotten.
pub(super) fn prune(tx: &mut Tx<'_>, now: Timestamp) -> Result<usize> {
    let mut statement = tx.connection.prepare_cached("DELETE FROM suppression WHERE expires <= ?1")?;
    Ok(statement.execute([micros(now)])?)
}

/// All entries.
pub(super) fn all(connection: &Connection) -> Result<Vec<Suppression>> {
    let mut statement = connection.prepare_cached(
        "SELECT account, address, reason, made_by, since, expires FROM suppression ORDER BY account, address",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok(entries)
}

fn read(row: &Row<'_>) -> Result<Suppression> {
    let corrupt = || StoreError::corrupt("a suppressed recipient");
    Ok(Suppression {
        account: AccountName::new(&row.get::<_, String>(0)?).map_err(|_| corrupt())?,
        address: Mailbox::parse(&row.get::<_, String>(1)?).map_err(|_| corrupt())?,
        reason: row.get(2)?,
        by: row.get(3)?,
        since: timestamp(row.get(4)?)?,
        expires: row.get::<_, Option<i64>>(5)?.map(timestamp).transpose()?,
    })
}
