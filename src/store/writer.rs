//! The one thread that writes: it takes all jobs that wait, runs them in one transaction, commits once, and then
//! answers all of them.
//!
//! Each job runs inside a savepoint: one that fails is undone alone and does not fail the others. What others are to
//! hear of a change ([`Effects`]) is told after the commit. Contents that no mailbox names any more are removed a few
//! at a time, along with jobs and while there are none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::bodies::Bodies;
use super::content;
use super::types::MailboxId;
use super::watch::Watchers;
use crate::names::AccountName;

/// Jobs that may wait before those who bring more have to.
const JOBS_WAITING_MAX: usize = 4_096;
/// Jobs in one transaction.
const JOBS_PER_COMMIT_MAX: usize = 512;
/// Contents removed in one transaction.
const REMOVALS_PER_COMMIT_MAX: usize = 64;

type Result<T> = std::result::Result<T, StoreError>;

/// What a job works with.
pub(super) struct Tx<'a> {
    /// Inside the transaction.
    pub connection: &'a Connection,
    /// When the job began.
    pub now: Timestamp,
    /// What to tell after the commit.
    pub effects: Effects,
}

/// What a job changed that others hear of.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Mailboxes, with their highest MODSEQ now.
    pub mailboxes: Vec<(MailboxId, u64)>,
    /// Mailboxes that are gone.
    pub gone: Vec<MailboxId>,
    /// Accounts whose list of mailboxes changed.
    pub accounts: Vec<AccountName>,
    /// Contents may have lost their last entry.
    pub orphans: bool,
}

/// The writer's end that everybody holds.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        bodies: Arc<Bodies>,
        watchers: Arc<Watchers>,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(JOBS_WAITING_MAX);
        let work = Work { connection, bodies, watchers, jobs: receiver, orphans: true };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work.run())
            .map_err(|error| StoreError::Database(format!("cannot start the writer thread: {error}")))?;
        Ok(Self { jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Runs a job; returns after its commit. The job runs even if the caller stops waiting.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.lock().clone().ok_or(StoreError::Closed)?;
        let job = TypedJob { work: Some(work), result: None, answer };
        jobs.send(Box::new(job)).await.map_err(|_| StoreError::Closed)?;
        drop(jobs);
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Takes no more jobs, finishes those that wait. Blocks until the thread has ended.
    pub(super) fn close(&self) {
        self.jobs.lock().take();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

/// A job without its type.
trait Job: Send {
    /// Does the work and keeps its result; whether it shall be committed.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers who asked; `failed` replaces the result of a job whose commit failed.
    fn answer(self: Box<Self>, failed: Option<&StoreError>);
}

struct TypedJob<F, T> {
    work: Option<F>,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for TypedJob<F, T>
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A panic in one job must not end the thread that all others need.
        let result = catch_unwind(AssertUnwindSafe(|| work(tx)));
        let result = result.unwrap_or_else(|_| Err(StoreError::Database("a job panicked".to_owned())));
        let good = result.is_ok();
        self.result = Some(result);
        good
    }

    fn answer(self: Box<Self>, failed: Option<&StoreError>) {
        let result = match (self.result, failed) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(error.clone()),
            (Some(result), None) => result,
            (None, None) => Err(StoreError::Closed),
        };
        // Who asked may have stopped waiting; that is no fault.
        drop(self.answer.send(result));
    }
}

struct Work {
    connection: Connection,
    bodies: Arc<Bodies>,
    watchers: Arc<Watchers>,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    /// Contents may wait to be removed.
    orphans: bool,
}

impl Work {
    fn run(mut self) {
        let mut batch: Vec<Box<dyn Job>> = Vec::new();
        loop {
            // While there is something to remove, do not wait for jobs.
            let first = if self.orphans {
                match self.jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                match self.jobs.blocking_recv() {
                    Some(job) => Some(job),
                    None => break,
                }
            };
            batch.extend(first);
            while batch.len() < JOBS_PER_COMMIT_MAX {
                let Ok(job) = self.jobs.try_recv() else { break };
                batch.push(job);
            }
            self.commit(&mut batch);
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::error!(%error, "cannot close the mailbox database");
        }
    }

    /// Runs a batch in one transaction, tells and answers.
    fn commit(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        let done = self.transact(batch);
        let failed = match done {
            Ok((effects, files)) => {
                self.watchers.publish(effects);
                self.bodies.remove(&files);
                None
            }
            Err(error) => {
                tracing::error!(%error, jobs = batch.len(), "mailbox database: commit failed");
                // Removal is tried again with the next job, not in a busy loop.
                self.orphans = false;
                Some(error)
            }
        };
        for job in batch.drain(..) {
            job.answer(failed.as_ref());
        }
    }

    fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(Vec<Effects>, Vec<String>)> {
        let mut effects = Vec::with_capacity(batch.len());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in batch {
            if let Some(told) = run_alone(&transaction, job.as_mut())? {
                self.orphans |= told.orphans;
                effects.push(told);
            }
        }
        let mut files = Vec::new();
        if self.orphans {
            (self.orphans, files) = remove_alone(&transaction)?;
        }
        transaction.commit()?;
        Ok((effects, files))
    }
}

/// Runs one job inside a savepoint; `None` when it failed and was undone. An error means that the whole transaction
/// is lost.
fn run_alone(connection: &Connection, job: &mut dyn Job) -> Result<Option<Effects>> {
    connection.prepare_cached("SAVEPOINT alone")?.execute([])?;
    let mut tx = Tx { connection, now: crate::clock::now(), effects: Effects::default() };
    let good = job.run(&mut tx);
    let effects = tx.effects;
    end_alone(connection, good)?;
    Ok(good.then_some(effects))
}

/// Removes some contents that nobody uses; whether there may be more, and the files to remove after the commit. What
/// fails here fails no job: it is undone, and tried again when the next content loses an entry.
fn remove_alone(connection: &Connection) -> Result<(bool, Vec<String>)> {
    connection.prepare_cached("SAVEPOINT alone")?.execute([])?;
    let mut files = Vec::new();
    let removed = content::remove_orphans(connection, REMOVALS_PER_COMMIT_MAX, &mut files);
    end_alone(connection, removed.is_ok())?;
    Ok(removed.map_or_else(
        |error| {
            tracing::error!(%error, "mailbox database: contents that nobody uses cannot be removed");
            (false, Vec::new())
        },
        |more| (more, files),
    ))
}

/// Keeps or undoes what was done since the savepoint.
fn end_alone(connection: &Connection, good: bool) -> Result<()> {
    if connection.is_autocommit() {
        // SQLite gives up the whole transaction on some errors: full disk, failed I/O, no memory.
        return Err(StoreError::Database("the transaction was rolled back".to_owned()));
    }
    if !good {
        connection.prepare_cached("ROLLBACK TO alone")?.execute([])?;
    }
    connection.prepare_cached("RELEASE alone")?.execute([])?;
    Ok(())
}
