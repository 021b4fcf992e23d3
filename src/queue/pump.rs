//! Takes recipients out of the queue when their time has come, and sends them to be dispatched.
//!
//! One task; it sleeps until something is due. How many messages are read from disk at the same time is bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::dispatch::{self, Loaded, Subject};
use super::due::{Entry, Turn};
use super::schedule::add;
use super::{Inner, damaged, shown};
use crate::names::QueueId;
use crate::spool::{SpoolError, Status, StoredMessage};

/// Messages being read back from disk at the same time.
const READS_MAX: usize = 8;
/// Messages from disk being dispatched at the same time. A script that asks for MX names waits for DNS with the message
/// in memory: of a long queue, not all at once.
const DISPATCHES_MAX: usize = 256;
/// Recipients taken out of the queue in one step.
const TAKE_MAX: usize = 64;
/// A message that cannot be read is tried again after this.
const UNREADABLE_RETRY: Duration = Duration::from_mins(5);
/// The longest sleep, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// Runs until the queue stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let (reads, dispatches) = (Semaphore::new(READS_MAX), Semaphore::new(DISPATCHES_MAX));
    let (reads, dispatches) = (Arc::new(reads), Arc::new(dispatches));
    while !inner.stopping() {
        let now = crate::clock::now();
        let (turns, next) = {
            let mut due = inner.due.lock();
            let turns = due.take(now, TAKE_MAX);
            (turns, due.next_due())
        };
        if turns.is_empty() {
            let wait =
                next.map_or(SLEEP_MAX, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(wait.min(SLEEP_MAX)) => {}
                () = inner.wake.notified() => {}
            }
            continue;
        }
        for of_message in turns.chunk_by(|a, b| a.key.0 == b.key.0) {
            let Ok(dispatching) = dispatches.clone().acquire_owned().await else { return };
            let Ok(reading) = reads.clone().acquire_owned().await else { return };
            let (inner_of_task, turns) = (inner.clone(), of_message.to_vec());
            inner.tasks.spawn(async move {
                let loaded = load(&inner_of_task, &turns).await;
                drop(reading);
                if let Some(loaded) = loaded {
                    dispatch::dispatch(inner_of_task, loaded).await;
                }
                drop(dispatching);
            });
        }
    }
}

/// Reads a message back, for recipients that are due. What cannot be read stays in the queue and is reported.
pub(super) async fn load(inner: &Arc<Inner>, turns: &[Turn]) -> Option<Loaded> {
    let id = turns.first()?.key.0;
    match read(inner, id).await {
        Ok(Some(stored)) => Some(loaded(inner, &stored, turns)).filter(|loaded| !loaded.subjects.is_empty()),
        Ok(None) => {
            tracing::error!(id = shown(id), "a message in the queue is not in the spool any more");
            let mut due = inner.due.lock();
            for turn in turns {
                due.remove(*turn);
            }
            None
        }
        Err(SpoolError::Damaged(_)) if damaged::give_up(inner, id, turns).await => None,
        Err(error) => {
            tracing::error!(id = shown(id), %error, "cannot read a message back: it stays in the queue");
            inner.put_back(turns.iter().copied(), add(crate::clock::now(), UNREADABLE_RETRY));
            None
        }
    }
}

async fn read(inner: &Arc<Inner>, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
    let spool = inner.parts.spool.clone();
    match tokio::task::spawn_blocking(move || spool.read(id)).await {
        Ok(answer) => answer,
        Err(panicked) => Err(SpoolError::Io(std::io::Error::other(panicked).into())),
    }
}

fn loaded(inner: &Inner, stored: &StoredMessage, turns: &[Turn]) -> Loaded {
    let mut subjects = Vec::with_capacity(turns.len());
    for turn in turns {
        let recipient = turn.key.1;
        match stored.recipients.get(recipient as usize) {
            Some(state) if matches!(state.status, Status::Waiting { .. }) => {
                let unbegun = inner.due.lock().get(turn.key).is_some_and(Entry::is_unbegun);
                subjects.push(Subject::of(recipient, turn.number, state, unbegun));
            }
            _ => {
                inner.due.lock().remove(*turn);
            }
        }
    }
    Loaded { id: stored.id, message: stored.message.clone(), subjects, fresh: false }
}
