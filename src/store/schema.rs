//! The database file: how it is opened, its schema, and the steps that bring an older one up to date.
//!
//! The schema's version stands in SQLite's `user_version`. Each step of [`MIGRATIONS`] brings the database one
//! version further, in a transaction of its own; a step that has been released is never changed again. All times
//! are microseconds since 1970, UTC.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

/// Step n brings a database from version n to n + 1; their number is the version this program reads and writes.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4];

/// Log size at which SQLite copies it back into the database, pages of 4 KiB: copying more at a time writes a page
/// that changed often once instead of many times.
const CHECKPOINT_PAGES: u32 = 4_000;
/// What the log file is cut down to after it has grown beyond.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// Page cache of the writer; readers have a quarter.
const CACHE_KIB: i64 = 32 << 10;

const VERSION_1: &str = "
    -- One row. UIDVALIDITY counts up over all mailboxes of all times, never behind the clock (seconds since 1970), so
    -- that a name never sees one again, not even after the account or the database was made anew.
    CREATE TABLE counter (
        id          INTEGER PRIMARY KEY CHECK (id = 1),
        uidvalidity INTEGER NOT NULL
    );
    INSERT INTO counter VALUES (1, 0);

    CREATE TABLE account (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        name    TEXT NOT NULL UNIQUE,
        created INTEGER NOT NULL
    );

    -- What an account proves itself with; kind 'argon2id' holds a PHC string, 'scram-...' SCRAM's keys.
    CREATE TABLE credential (
        account INTEGER NOT NULL REFERENCES account(id) ON DELETE CASCADE,
        kind    TEXT NOT NULL,
        data    TEXT NOT NULL,
        changed INTEGER NOT NULL,
        PRIMARY KEY (account, kind)
    ) WITHOUT ROWID;

    -- The counts are kept with every change, so that STATUS reads one row.
    CREATE TABLE mailbox (
        id             INTEGER PRIMARY KEY AUTOINCREMENT,
        account        INTEGER NOT NULL REFERENCES account(id) ON DELETE CASCADE,
        name           TEXT NOT NULL,
        special_use    TEXT,
        uidvalidity    INTEGER NOT NULL,
        uidnext        INTEGER NOT NULL DEFAULT 1,
        highest_modseq INTEGER NOT NULL DEFAULT 1,
        messages       INTEGER NOT NULL DEFAULT 0,
        unseen         INTEGER NOT NULL DEFAULT 0,
        deleted        INTEGER NOT NULL DEFAULT 0,
        size           INTEGER NOT NULL DEFAULT 0,
        created        INTEGER NOT NULL,
        UNIQUE (account, name)
    );

    -- Names that had a mailbox which was deleted or renamed, with its UIDVALIDITY.
    CREATE TABLE former_name (
        account     INTEGER NOT NULL REFERENCES account(id) ON DELETE CASCADE,
        name        TEXT NOT NULL,
        uidvalidity INTEGER NOT NULL,
        PRIMARY KEY (account, name)
    ) WITHOUT ROWID;

    CREATE TABLE subscription (
        account INTEGER NOT NULL REFERENCES account(id) ON DELETE CASCADE,
        name    TEXT NOT NULL,
        PRIMARY KEY (account, name)
    ) WITHOUT ROWID;

    -- Keywords ever used in a mailbox, as they were first spelt.
    CREATE TABLE keyword (
        mailbox INTEGER NOT NULL REFERENCES mailbox(id) ON DELETE CASCADE,
        name    TEXT NOT NULL COLLATE NOCASE,
        PRIMARY KEY (mailbox, name)
    ) WITHOUT ROWID;

    -- A message's content, shared by all entries of mailboxes that name it; never changed. The text stands in a table
    -- of its own so that these rows stay small.
    CREATE TABLE content (
        id     INTEGER PRIMARY KEY AUTOINCREMENT,
        size   INTEGER NOT NULL,
        thread INTEGER,
        file   TEXT
    );
    CREATE UNIQUE INDEX content_file ON content (file) WHERE file IS NOT NULL;

    -- The header stands before the body: reading it alone touches no page of the body. The body is NULL when it
    -- stands in the file that content names.
    CREATE TABLE content_text (
        content INTEGER PRIMARY KEY REFERENCES content(id) ON DELETE CASCADE,
        header  BLOB NOT NULL,
        body    BLOB
    );

    -- What the IMAP server worked out of a content.
    CREATE TABLE content_cache (
        content INTEGER PRIMARY KEY REFERENCES content(id) ON DELETE CASCADE,
        data    BLOB NOT NULL
    );

    -- Contents that lost an entry, to be removed when none is left.
    CREATE TABLE orphan (content INTEGER PRIMARY KEY);

    CREATE TABLE message (
        mailbox       INTEGER NOT NULL REFERENCES mailbox(id) ON DELETE CASCADE,
        uid           INTEGER NOT NULL,
        modseq        INTEGER NOT NULL,
        flags         INTEGER NOT NULL,
        keywords      TEXT,
        internal_date INTEGER NOT NULL,
        saved         INTEGER NOT NULL,
        size          INTEGER NOT NULL,
        content       INTEGER NOT NULL REFERENCES content(id),
        PRIMARY KEY (mailbox, uid)
    ) WITHOUT ROWID;
    CREATE INDEX message_modseq ON message (mailbox, modseq);
    CREATE INDEX message_content ON message (content);

    -- UIDs that went, and when (RFC 7162 VANISHED).
    CREATE TABLE expunged (
        mailbox INTEGER NOT NULL REFERENCES mailbox(id) ON DELETE CASCADE,
        uid     INTEGER NOT NULL,
        modseq  INTEGER NOT NULL,
        PRIMARY KEY (mailbox, uid)
    ) WITHOUT ROWID;
    CREATE INDEX expunged_modseq ON expunged (mailbox, modseq);

    -- Recipients of the queue that were delivered. The time of receipt belongs to the key: a queue that was begun
    -- anew gives its numbers again, and must not have its mail taken for delivered.
    CREATE TABLE delivered (
        queue_id  INTEGER NOT NULL,
        recipient INTEGER NOT NULL,
        received  INTEGER NOT NULL,
        mailbox   INTEGER NOT NULL,
        uid       INTEGER NOT NULL,
        at        INTEGER NOT NULL,
        PRIMARY KEY (queue_id, recipient, received)
    ) WITHOUT ROWID;

    -- Recipients that are done, with all their attempts (JSON).
    CREATE TABLE history (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        queue_id  INTEGER NOT NULL,
        recipient INTEGER NOT NULL,
        received  INTEGER NOT NULL,
        finished  INTEGER NOT NULL,
        account   TEXT,
        sender    TEXT NOT NULL,
        address   TEXT NOT NULL,
        size      INTEGER NOT NULL,
        state     TEXT NOT NULL,
        attempts  TEXT NOT NULL,
        UNIQUE (queue_id, recipient, received)
    );
    CREATE INDEX history_finished ON history (finished);
";

const VERSION_2: &str = "
    -- One row: what salts of names that are no account are made from.
    CREATE TABLE secret (
        id   INTEGER PRIMARY KEY CHECK (id = 1),
        data BLOB NOT NULL
    );
    INSERT INTO secret VALUES (1, randomblob(32));
";

const VERSION_3: &str = "
    -- Mail that the operator keeps back: what is not NULL must match.
    CREATE TABLE hold_rule (
        number           INTEGER PRIMARY KEY AUTOINCREMENT,
        account          TEXT,
        sender_domain    TEXT,
        recipient_domain TEXT,
        made_by          TEXT NOT NULL,
        reason           TEXT NOT NULL,
        since            INTEGER NOT NULL
    );

    -- Recipients to which an account's mail is refused; made_by is NULL when a bounce put them there. The account may be
    -- one of the configuration that was not seen here yet.
    CREATE TABLE suppression (
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        reason  TEXT NOT NULL,
        made_by TEXT,
        since   INTEGER NOT NULL,
        expires INTEGER,
        PRIMARY KEY (account, address)
    ) WITHOUT ROWID;
    CREATE INDEX suppression_expires ON suppression (expires) WHERE expires IS NOT NULL;
";

const VERSION_4: &str = "
    -- What else routing scripts may have known of the message (JSON); NULL in what is older.
    ALTER TABLE history ADD COLUMN facts TEXT;
";

/// Opens the database for writing, makes it or brings it up to date.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    configure(&connection, CACHE_KIB)?;
    // FULL: a commit returns only after its log frames are on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

/// Opens the database, which is there and up to date, for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
    )?;
    configure(&connection, CACHE_KIB / 4)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Whether a database that is only read has the schema of this program.
pub(super) fn check_current(connection: &Connection) -> Result<(), StoreError> {
    let (found, known) = (version_of(connection)?, MIGRATIONS.len() as u32);
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { found, known }),
        std::cmp::Ordering::Less => Err(StoreError::invalid(
            "the database is that of an older program: start the server once, which brings it up to date",
        )),
    }
}

fn version_of(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn configure(connection: &Connection, cache_kib: i64) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Negative: KiB, not pages.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(())
}

fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let known = steps.len() as u32;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        let Some(step) = steps.get(found as usize) else { return Ok(()) };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
        if found > 0 {
            tracing::info!(from = found, to = found + 1, "mailbox database brought up to date");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_new_database_has_what_we_ask_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_writer(&dir.path().join("x")).unwrap();
        assert_eq!(version(&connection), MIGRATIONS.len() as u32);
        let pragma = |name| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (2.into(), 1.into()));
    }

    #[test]
    fn an_older_database_is_brought_up_to_date_and_keeps_what_it_has() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.execute("INSERT INTO account (name, created) VALUES ('ann', 0)", []).unwrap();
        let steps =
            [MIGRATIONS, &["ALTER TABLE account ADD COLUMN note TEXT", "UPDATE account SET note = 'new'"]]
                .concat();
        migrate(&mut connection, &steps).unwrap();
        let note: (String, String) = connection
            .query_row("SELECT name, note FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(
            (note.0.as_str(), note.1.as_str(), version(&connection)),
            ("ann", "new", steps.len() as u32)
        );
        // What is up to date stays as it is.
        migrate(&mut connection, &steps).unwrap();
    }

    /// A data directory of the first version: passwords, and no keys of them.
    #[tokio::test]
    async fn passwords_of_the_first_version_work_and_bring_their_keys() {
        use argon2::password_hash::PasswordHasher;
        let dir = tempfile::tempdir().unwrap();
        let mut old = Connection::open(dir.path().join("mail.sqlite")).unwrap();
        migrate(&mut old, &MIGRATIONS[..1]).unwrap();
        let hash = argon2::Argon2::default().hash_password(b"secret").unwrap().to_string();
        old.execute("INSERT INTO account (name, created) VALUES ('ann', 0)", []).unwrap();
        old.execute("INSERT INTO credential VALUES (1, 'argon2id', ?1, 0)", [hash]).unwrap();
        drop(old);
        let store = super::super::Store::open(dir.path()).unwrap();
        let ann = crate::names::AccountName::new("ann").unwrap();
        assert_eq!(store.key_kinds(&ann).await.unwrap(), []);
        store.keep_cram_md5(true);
        assert!(!store.check_password(&ann, "wrong").await.unwrap());
        assert_eq!(store.key_kinds(&ann).await.unwrap(), []);
        assert!(store.check_password(&ann, "secret").await.unwrap());
        assert_eq!(store.key_kinds(&ann).await.unwrap().len(), 3);
        store.close().await;
    }

    #[test]
    fn a_step_that_fails_is_undone_whole() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let steps = [MIGRATIONS, &["CREATE TABLE half (x); CREATE TABLE account (x)"]].concat();
        assert!(matches!(migrate(&mut connection, &steps), Err(StoreError::Database(_))));
        assert_eq!(version(&connection), MIGRATIONS.len() as u32);
        assert!(connection.prepare("SELECT * FROM half").is_err());
    }
}
