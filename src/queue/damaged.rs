//! A message that was taken and does not read back: the disk has lost a part of it. It cannot be delivered, and trying
//! again does not help. As long as its envelope and header are there, the sender is told; else what is left of it is put
//! aside. The operator is told in any case.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bounce::{self, ReportKind, Told};
use super::due::{Entry, Key, Place, Turn};
use super::schedule::add;
use super::{Inner, finished, shown};
use crate::attempt::Attempt;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{Next, Settlement, SpoolError, Status, StoredMessage};

/// What could not be put aside is tried again after this.
const RETRY: Duration = Duration::from_mins(5);

/// Gives recipients of a damaged message up. False when they stay: the report could not be queued, or an attempt is under
/// way that has the message in memory.
pub(super) async fn give_up(inner: &Arc<Inner>, id: QueueId, turns: &[Turn]) -> bool {
    let spool = inner.parts.spool.clone();
    let read = tokio::task::spawn_blocking(move || spool.read_summary(id)).await;
    let stored = match read {
        Ok(Ok(Some(stored))) => stored,
        Ok(Err(SpoolError::Damaged(_))) => return put_aside(inner, id).await,
        _ => return false,
    };
    let (now, config) = (crate::clock::now(), inner.parts.config.load_full());
    let text = "the message was damaged in the storage of this server";
    let outcome = Outcome::ours(Verdict::Permanent, Stage::Data, EnhancedCode::new(5, 3, 0), text);
    let mut told = Vec::with_capacity(turns.len());
    for turn in turns {
        let Some(history) = begin(inner, &stored, *turn) else { continue };
        let recipient = turn.key.1;
        told.push(Told {
            recipient,
            fate: Fate::Damaged,
            outcome: outcome.clone(),
            transport: None,
            earlier: history,
        });
    }
    if told.is_empty() {
        return true;
    }
    tracing::error!(id = shown(id), recipients = told.len(), "a message is damaged on disk: given up");
    let message = &stored.message;
    if let Err(error) = bounce::report(inner, &config, message, ReportKind::Failed, &told, now).await {
        tracing::error!(id = shown(id), %error, "cannot queue a failure report: the recipients stay");
        return false;
    }
    let mut settlements = Vec::with_capacity(told.len());
    for told in told {
        let number = told.earlier.last().map_or(1, |last| last.number + 1);
        let outcome = Some(told.outcome);
        let attempt = Attempt { number, at: now, decision: None, outcome, ended: Some(now) };
        let done = Settlement {
            recipient: told.recipient,
            attempt: Some(attempt),
            next: Next::Done,
            delay_reported: false,
        };
        inner.finished.record(finished::finished(inner, id, message, &done, &told.earlier, now));
        settlements.push(done);
    }
    inner.parts.spool.settle_later(id, settlements);
    let mut due = inner.due.lock();
    for turn in turns {
        due.remove(*turn);
    }
    true
}

/// Not even the envelope can be read: nobody but the operator can be told, and nothing can be delivered.
async fn put_aside(inner: &Arc<Inner>, id: QueueId) -> bool {
    let claimed: Vec<Turn> = {
        let mut due = inner.due.lock();
        if due.of_message(id).any(|(_, entry)| entry.place == Place::UnderWay) {
            return false;
        }
        let keys: Vec<Key> = due.of_message(id).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| due.claim(key)).collect()
    };
    match copy_and_drop(inner, id).await {
        Ok(path) => {
            let (recipients, path) = (claimed.len(), path.display());
            tracing::error!(id = shown(id), recipients, %path, "a message is damaged on disk, its envelope too: it is not tried any more; what is left of it was put aside");
            let mut due = inner.due.lock();
            for turn in claimed {
                due.remove(turn);
            }
        }
        Err(error) => {
            tracing::error!(id = shown(id), %error, "a message is damaged on disk and cannot be put aside: it stays in the queue");
            inner.put_back(claimed.into_iter(), add(crate::clock::now(), RETRY));
        }
    }
    true
}

async fn copy_and_drop(inner: &Inner, id: QueueId) -> Result<PathBuf, SpoolError> {
    let spool = inner.parts.spool.clone();
    let copied = tokio::task::spawn_blocking(move || spool.copy_aside(id)).await;
    let path = copied.map_err(|panicked| SpoolError::from(std::io::Error::other(panicked)))??;
    inner.parts.spool.drop_message(id).await?;
    Ok(path)
}

/// From here on nobody else ends the recipient; its history. `None` when it is not to be ended.
fn begin(inner: &Inner, stored: &StoredMessage, turn: Turn) -> Option<Vec<Attempt>> {
    let state = stored.recipients.get(turn.key.1 as usize)?;
    let waits = matches!(state.status, Status::Waiting { .. });
    let mut due = inner.due.lock();
    let unbegun = due.get(turn.key).is_some_and(Entry::is_unbegun);
    (waits && due.begin(turn)).then(|| if unbegun { Vec::new() } else { state.history.clone() })
}
