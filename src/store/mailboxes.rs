//! Accounts and their mailboxes: names, hierarchy, subscriptions, UIDVALIDITY.
//!
//! RFC 9051 §6.3.4 (CREATE), §6.3.5 (DELETE), §6.3.6 (RENAME), §6.3.7 (SUBSCRIBE); RFC 6154 (special use).

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::messages;
use super::name::{INBOX, Name};
use super::types::{MailboxId, MailboxInfo, SpecialUse};
use super::writer::Tx;
use super::{StoreError, micros, suppressions};
use crate::names::AccountName;

/// Most mailboxes of an account.
pub const MAILBOXES_PER_ACCOUNT_MAX: u32 = 10_000;
/// Most names an account subscribes to.
pub const SUBSCRIPTIONS_PER_ACCOUNT_MAX: u32 = 20_000;

/// What an account has from its first day, besides INBOX.
const FIRST_MAILBOXES: [(&str, SpecialUse); 5] = [
    ("Archive", SpecialUse::Archive),
    ("Drafts", SpecialUse::Drafts),
    ("Junk", SpecialUse::Junk),
    ("Sent", SpecialUse::Sent),
    ("Trash", SpecialUse::Trash),
];

type Result<T> = std::result::Result<T, StoreError>;

/// An account's row.
pub(super) fn find_account(connection: &Connection, account: &AccountName) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM account WHERE name = ?1")?;
    Ok(statement.query_row([account.as_str()], |row| row.get(0)).optional()?)
}

fn known_account(connection: &Connection, account: &AccountName) -> Result<i64> {
    find_account(connection, account)?.ok_or(StoreError::NotFound("account"))
}

/// An account's row; on first sight it is made, with its first mailboxes, all subscribed.
pub(super) fn ensure_account(tx: &mut Tx<'_>, account: &AccountName) -> Result<i64> {
    if let Some(id) = find_account(tx.connection, account)? {
        return Ok(id);
    }
    tx.connection
        .prepare_cached("INSERT INTO account (name, created) VALUES (?1, ?2)")?
        .execute(params![account.as_str(), micros(tx.now)])?;
    let id = tx.connection.last_insert_rowid();
    let first = FIRST_MAILBOXES.map(|(name, special_use)| (name, Some(special_use)));
    for (name, special_use) in [(INBOX, None)].into_iter().chain(first) {
        let name = Name::new(name)?;
        insert(tx, id, &name, special_use)?;
        set_subscribed(tx, id, &name, true)?;
    }
    tx.effects.accounts.push(account.clone());
    Ok(id)
}

/// Removes an account with all it has. False when there was none.
pub(super) fn remove_account(tx: &mut Tx<'_>, account: &AccountName) -> Result<bool> {
    let Some(id) = find_account(tx.connection, account)? else { return Ok(false) };
    let mailboxes = tx
        .connection
        .prepare_cached("SELECT id FROM mailbox WHERE account = ?1")?
        .query_map([id], |row| row.get(0).map(MailboxId))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for mailbox in mailboxes {
        messages::forget_all(tx, mailbox)?;
        tx.effects.gone.push(mailbox);
    }
    suppressions::remove_account(tx, account)?;
    tx.connection.prepare_cached("DELETE FROM account WHERE id = ?1")?.execute([id])?;
    tx.effects.accounts.push(account.clone());
    Ok(true)
}

/// All accounts, and whether each has a credential.
pub(super) fn accounts(connection: &Connection) -> Result<Vec<(AccountName, bool)>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, EXISTS (SELECT 1 FROM credential c WHERE c.account = a.id) FROM account a ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        let name = AccountName::new(&row.get::<_, String>(0)?)
            .map_err(|_| StoreError::corrupt("an account name"))?;
        accounts.push((name, row.get(1)?));
    }
    Ok(accounts)
}

/// A query for what [`info`] reads.
macro_rules! select_info {
    ($rest:literal) => {
        concat!(
            "SELECT m.id, m.name, m.uidvalidity, m.special_use,
                    EXISTS (SELECT 1 FROM subscription s WHERE s.account = m.account AND s.name = m.name),
                    EXISTS (SELECT 1 FROM mailbox c
                            WHERE c.account = m.account AND c.name > m.name || '/' AND c.name < m.name || '0')
             FROM mailbox m WHERE m.account = ?1 ",
            $rest
        )
    };
}

fn info(row: &Row<'_>) -> rusqlite::Result<MailboxInfo> {
    Ok(MailboxInfo {
        id: MailboxId(row.get(0)?),
        name: row.get(1)?,
        uidvalidity: row.get(2)?,
        // Only we write it; what is not known (any more) shows as none.
        special_use: row.get::<_, Option<String>>(3)?.and_then(|text| text.parse().ok()),
        subscribed: row.get(4)?,
        has_children: row.get(5)?,
    })
}

/// All mailboxes of an account, sorted by name.
pub(super) fn list(connection: &Connection, account: &AccountName) -> Result<Vec<MailboxInfo>> {
    let Some(id) = find_account(connection, account)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(select_info!("ORDER BY m.name"))?;
    Ok(statement.query_map([id], info)?.collect::<rusqlite::Result<_>>()?)
}

/// One mailbox of an account.
pub(super) fn find(connection: &Connection, account: &AccountName, name: &Name) -> Result<MailboxInfo> {
    let id = known_account(connection, account)?;
    let mut statement = connection.prepare_cached(select_info!("AND m.name = ?2"))?;
    let found = statement.query_row(params![id, name.as_str()], info).optional()?;
    found.ok_or(StoreError::NotFound("mailbox"))
}

/// The id of one mailbox of an account.
pub(super) fn find_id(connection: &Connection, account: i64, name: &Name) -> Result<Option<MailboxId>> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM mailbox WHERE account = ?1 AND name = ?2")?;
    Ok(statement.query_row(params![account, name.as_str()], |row| row.get(0)).optional()?.map(MailboxId))
}

/// A UIDVALIDITY that no mailbox ever had.
fn next_uidvalidity(tx: &Tx<'_>) -> Result<u32> {
    let now = tx.now.as_second().clamp(1, i64::from(u32::MAX));
    let mut statement = tx
        .connection
        .prepare_cached("UPDATE counter SET uidvalidity = max(uidvalidity + 1, ?1) RETURNING uidvalidity")?;
    let next: i64 = statement.query_row([now], |row| row.get(0))?;
    u32::try_from(next).map_err(|_| StoreError::invalid("no more mailboxes can be made"))
}

fn insert(tx: &Tx<'_>, account: i64, name: &Name, special_use: Option<SpecialUse>) -> Result<MailboxId> {
    let uidvalidity = next_uidvalidity(tx)?;
    tx.connection
        .prepare_cached(
            "INSERT INTO mailbox (account, name, special_use, uidvalidity, created) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![account, name.as_str(), special_use.map(SpecialUse::as_str), uidvalidity, micros(tx.now)])?;
    Ok(MailboxId(tx.connection.last_insert_rowid()))
}

/// RFC 9051 §6.3.4: names above a new one that do not exist are made too.
fn insert_parents(tx: &Tx<'_>, account: i64, name: &Name) -> Result<()> {
    for parent in name.parents() {
        if find_id(tx.connection, account, &parent)?.is_none() {
            insert(tx, account, &parent, None)?;
        }
    }
    Ok(())
}

/// Fails when an account has come to have too many mailboxes.
fn check_count(tx: &Tx<'_>, account: i64) -> Result<()> {
    let mut statement = tx.connection.prepare_cached("SELECT count(*) FROM mailbox WHERE account = ?1")?;
    if statement.query_row([account], |row| row.get::<_, u32>(0))? > MAILBOXES_PER_ACCOUNT_MAX {
        return Err(StoreError::invalid(format!(
            "an account has at most {MAILBOXES_PER_ACCOUNT_MAX} mailboxes"
        )));
    }
    Ok(())
}

/// Makes a mailbox.
pub(super) fn create(
    tx: &mut Tx<'_>,
    account: &AccountName,
    name: &Name,
    special_use: Option<SpecialUse>,
) -> Result<MailboxInfo> {
    let id = ensure_account(tx, account)?;
    if find_id(tx.connection, id, name)?.is_some() {
        return Err(StoreError::AlreadyExists);
    }
    insert_parents(tx, id, name)?;
    insert(tx, id, name, special_use)?;
    check_count(tx, id)?;
    tx.effects.accounts.push(account.clone());
    find(tx.connection, account, name)
}

/// Removes a mailbox with its messages; mailboxes below it stay (RFC 9051 §6.3.5).
pub(super) fn delete(tx: &mut Tx<'_>, account: &AccountName, name: &Name) -> Result<()> {
    if name.is_inbox() {
        return Err(StoreError::invalid("INBOX cannot be deleted"));
    }
    let account_id = known_account(tx.connection, account)?;
    let id = find_id(tx.connection, account_id, name)?.ok_or(StoreError::NotFound("mailbox"))?;
    remember_name(tx, id)?;
    messages::forget_all(tx, id)?;
    tx.connection.prepare_cached("DELETE FROM mailbox WHERE id = ?1")?.execute([id.0])?;
    tx.effects.gone.push(id);
    tx.effects.accounts.push(account.clone());
    Ok(())
}

/// Notes the UIDVALIDITY that a name had, before its mailbox loses the name.
fn remember_name(tx: &Tx<'_>, mailbox: MailboxId) -> Result<()> {
    tx.connection
        .prepare_cached(
            "INSERT INTO former_name (account, name, uidvalidity) SELECT account, name, uidvalidity FROM mailbox WHERE id = ?1
             ON CONFLICT DO UPDATE SET uidvalidity = max(uidvalidity, excluded.uidvalidity)",
        )?
        .execute([mailbox.0])?;
    Ok(())
}

/// Renames a mailbox and all below it; INBOX instead gives its messages to a new mailbox (RFC 9051 §6.3.6).
/// Subscriptions stay with the names.
pub(super) fn rename(tx: &mut Tx<'_>, account: &AccountName, from: &Name, to: &Name) -> Result<()> {
    let account_id = known_account(tx.connection, account)?;
    if find_id(tx.connection, account_id, to)?.is_some() {
        return Err(StoreError::AlreadyExists);
    }
    insert_parents(tx, account_id, to)?;
    if from.is_inbox() {
        rename_inbox(tx, account_id, to)?;
    } else {
        rename_tree(tx, account_id, from, to)?;
    }
    check_count(tx, account_id)?;
    tx.effects.accounts.push(account.clone());
    Ok(())
}

fn rename_inbox(tx: &mut Tx<'_>, account: i64, to: &Name) -> Result<()> {
    let inbox =
        find_id(tx.connection, account, &Name::new(INBOX)?)?.ok_or(StoreError::NotFound("mailbox"))?;
    let target = insert(tx, account, to, None)?;
    let all = messages::uids(tx.connection, inbox)?;
    messages::move_to(tx, inbox, &all, target)?;
    Ok(())
}

fn rename_tree(tx: &mut Tx<'_>, account: i64, from: &Name, to: &Name) -> Result<()> {
    if to.is_below(from) {
        return Err(StoreError::invalid("a mailbox cannot be moved below itself"));
    }
    let (low, high) = from.below();
    let moved = tx
        .connection
        .prepare_cached(
            "SELECT id, name FROM mailbox WHERE account = ?1 AND (name = ?2 OR (name > ?3 AND name < ?4)) ORDER BY name",
        )?
        .query_map(params![account, from.as_str(), low, high], |row| {
            Ok((MailboxId(row.get(0)?), row.get::<_, String>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if moved.is_empty() {
        return Err(StoreError::NotFound("mailbox"));
    }
    for (id, old) in moved {
        let new =
            Name::new(&format!("{}{}", to.as_str(), old.strip_prefix(from.as_str()).unwrap_or_default()))?;
        if find_id(tx.connection, account, &new)?.is_some() {
            return Err(StoreError::AlreadyExists);
        }
        remember_name(tx, id)?;
        tx.connection
            .prepare_cached("UPDATE mailbox SET name = ?2 WHERE id = ?1")?
            .execute(params![id.0, new.as_str()])?;
        renew_uidvalidity(tx, id)?;
    }
    Ok(())
}

/// Where the new name once had a higher UIDVALIDITY than the mailbox brings along, it gets a new one: for a client
/// that knew the name before, it must rise (RFC 9051 §2.3.1.1).
fn renew_uidvalidity(tx: &mut Tx<'_>, mailbox: MailboxId) -> Result<()> {
    let falls = tx
        .connection
        .prepare_cached(
            "SELECT 1 FROM mailbox m JOIN former_name f ON f.account = m.account AND f.name = m.name
             WHERE m.id = ?1 AND f.uidvalidity > m.uidvalidity",
        )?
        .exists([mailbox.0])?;
    if falls {
        let new = next_uidvalidity(tx)?;
        tx.connection
            .prepare_cached("UPDATE mailbox SET uidvalidity = ?2 WHERE id = ?1")?
            .execute(params![mailbox.0, new])?;
        // Sessions that have it open hold UIDs of the old validity.
        tx.effects.gone.push(mailbox);
    }
    Ok(())
}

fn set_subscribed(tx: &Tx<'_>, account: i64, name: &Name, subscribed: bool) -> Result<()> {
    let sql = if subscribed {
        "INSERT OR IGNORE INTO subscription (account, name) VALUES (?1, ?2)"
    } else {
        "DELETE FROM subscription WHERE account = ?1 AND name = ?2"
    };
    tx.connection.prepare_cached(sql)?.execute(params![account, name.as_str()])?;
    Ok(())
}

/// Subscribes to a name or ends it, whether there is such a mailbox or not (RFC 9051 §6.3.7).
pub(super) fn subscribe(tx: &mut Tx<'_>, account: &AccountName, name: &Name, subscribed: bool) -> Result<()> {
    let id = ensure_account(tx, account)?;
    set_subscribed(tx, id, name, subscribed)?;
    let mut statement =
        tx.connection.prepare_cached("SELECT count(*) FROM subscription WHERE account = ?1")?;
    if statement.query_row([id], |row| row.get::<_, u32>(0))? > SUBSCRIPTIONS_PER_ACCOUNT_MAX {
        return Err(StoreError::invalid(format!(
            "an account subscribes to at most {SUBSCRIPTIONS_PER_ACCOUNT_MAX} names"
        )));
    }
    tx.effects.accounts.push(account.clone());
    Ok(())
}

/// All names an account subscribes to, sorted.
pub(super) fn subscriptions(connection: &Connection, account: &AccountName) -> Result<Vec<String>> {
    let Some(id) = find_account(connection, account)? else { return Ok(Vec::new()) };
    let mut statement =
        connection.prepare_cached("SELECT name FROM subscription WHERE account = ?1 ORDER BY name")?;
    Ok(statement.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
