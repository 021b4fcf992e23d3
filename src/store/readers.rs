//! Reading: a few connections that work beside the writer, each read in a snapshot of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use super::{StoreError, schema};

type Result<T> = std::result::Result<T, StoreError>;

/// Connections for reading, opened when first needed.
pub(super) struct Readers {
    pool: Arc<Pool>,
    /// As many permits as there may be connections.
    free: Arc<Semaphore>,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// A connection on loan; it goes back also when the reader panics.
struct Loan<'a> {
    connection: Option<Connection>,
    pool: &'a Pool,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().push(connection);
        }
    }
}

impl Readers {
    /// At most `connections_max` reads at the same time.
    pub(super) fn new(path: &Path, connections_max: usize) -> Self {
        let pool = Pool { path: path.to_owned(), idle: Mutex::new(Vec::new()) };
        Self { pool: Arc::new(pool), free: Arc::new(Semaphore::new(connections_max.max(1))) }
    }

    /// Reads in one snapshot, on a blocking thread.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let pool = Arc::clone(&self.pool);
        let read = tokio::task::spawn_blocking(move || {
            let result = pool.read(work);
            drop(permit);
            result
        });
        read.await.map_err(|error| {
            if error.is_cancelled() {
                StoreError::Closed
            } else {
                StoreError::Database("a read panicked".to_owned())
            }
        })?
    }

    /// Lets no more reads begin, and closes what is idle once the last has ended.
    pub(super) async fn close(&self, connections_max: usize) {
        let all = self.free.acquire_many(connections_max.max(1) as u32).await;
        if all.is_ok() {
            self.free.close();
            self.pool.idle.lock().clear();
        }
    }
}

impl Pool {
    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let mut loan = Loan { connection: Some(connection), pool: self };
        let Some(connection) = loan.connection.as_mut() else { return Err(StoreError::Closed) };
        let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&snapshot)
    }
}
