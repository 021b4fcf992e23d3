//! What can go wrong in the store, by whose fault it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// Why the store could not do what was asked. The first three are the asker's, the others ours: a peer hears of
/// those only that we cannot do it now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no such account, mailbox or message.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The mailbox is there already.
    #[error("a mailbox with that name is there already")]
    AlreadyExists,
    /// What was asked breaks a rule or a limit; the words can be shown to a user.
    #[error("{0}")]
    Invalid(String),
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// SQLite failed, or what it holds makes no sense.
    #[error("the database failed: {0}")]
    Database(String),
    /// The database was written by a newer program.
    #[error(
        "the database has schema version {found}, but this program knows only up to {known}: run the newer program, \
         or restore the copy made before it ran"
    )]
    Newer {
        /// Version found.
        found: u32,
        /// Newest version this program knows.
        known: u32,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { path: path.display().to_string(), source: Arc::new(source) },
        }
    }

    pub(super) fn corrupt(what: &str) -> Self {
        Self::Database(format!("{what} in the database makes no sense"))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Database(error.to_string()),
        }
    }
}
