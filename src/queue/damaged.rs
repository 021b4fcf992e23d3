//! A message that was taken and does not read back: the disk has lost a part of it. It cannot be delivered, and trying
//! again does not help. As long as its envelope and header are there, the sender is told; the operator is in any case.

use std::sync::Arc;

use super::bounce::{self, ReportKind, Told};
use super::due::{Entry, Turn};
use super::{Inner, finished, shown};
use crate::attempt::Attempt;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{Next, Settlement, Status, StoredMessage};

/// Gives recipients of a damaged message up. False when nothing of it could be read, or the report could not be queued:
/// then they stay.
pub(super) async fn give_up(inner: &Arc<Inner>, id: QueueId, turns: &[Turn]) -> bool {
    let spool = inner.parts.spool.clone();
    let read = tokio::task::spawn_blocking(move || spool.read_summary(id)).await;
    let Ok(Ok(Some(stored))) = read else { return false };
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

/// From here on nobody else ends the recipient; its history. `None` when it is not to be ended.
fn begin(inner: &Inner, stored: &StoredMessage, turn: Turn) -> Option<Vec<Attempt>> {
    let state = stored.recipients.get(turn.key.1 as usize)?;
    let waits = matches!(state.status, Status::Waiting { .. });
    let mut due = inner.due.lock();
    let unbegun = due.get(turn.key).is_some_and(Entry::is_unbegun);
    (waits && due.begin(turn)).then(|| if unbegun { Vec::new() } else { state.history.clone() })
}
