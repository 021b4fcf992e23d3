//! Finished recipients go to the history in batches, so that the history costs a delivery next to nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::metrics::Counts;
use super::{Inner, bounce};
use crate::attempt::Attempt;
use crate::message::header_fields;
use crate::names::QueueId;
use crate::outcome::Verdict;
use crate::spool::{NewMessage, Settlement};
use crate::store::{FinalState, FinishedRecipient, KeptFacts, KeptHeader, Store, StoreError};

/// Waiting records over which new ones are dropped: the history may have gaps, the queue must not grow.
const WAITING_MAX: usize = 100_000;
/// Records written in one go.
const BATCH_MAX: usize = 2_000;
/// A batch waits so long for company.
const BATCH_WAIT: Duration = Duration::from_millis(500);
/// How often old history is looked for.
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// How long the mailboxes remember which queue recipients they have; longer than anything waits in the queue.
const DELIVERED_KEYS_KEPT: Duration = Duration::from_hours(24 * 60);
/// Longest value kept of a header field.
const HEADER_VALUE_BYTES_MAX: usize = 1_000;
/// When the store fails, the batch is tried again after this.
const RETRY_WAIT: Duration = Duration::from_secs(5);

/// Takes finished recipients and writes them to the store.
pub(super) struct Recorder {
    sender: Mutex<Option<mpsc::Sender<FinishedRecipient>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

impl Recorder {
    pub fn start(store: Store, counts: Arc<Counts>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = tokio::spawn(write(store, receiver));
        Self { sender: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)), counts }
    }

    /// Takes a record; never waits.
    pub fn record(&self, finished: FinishedRecipient) {
        self.counts.finished(finished.state);
        if let Some(sender) = &*self.sender.lock()
            && let Err(error) = sender.try_send(finished)
        {
            tracing::warn!(%error, "a finished attempt is missing from the history");
        }
    }

    /// Takes no more; returns when what it has is written.
    pub async fn close(&self) {
        self.sender.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the history failed");
        }
    }
}

async fn write(store: Store, mut receiver: mpsc::Receiver<FinishedRecipient>) {
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let patience = tokio::time::sleep(BATCH_WAIT);
        tokio::pin!(patience);
        while batch.len() < BATCH_MAX {
            tokio::select! {
                () = &mut patience => break,
                n = receiver.recv_many(&mut batch, BATCH_MAX) => if n == 0 { break },
            }
        }
        keep(&store, &receiver, &batch).await;
        batch.clear();
    }
}

/// Writes a batch, again and again while the database fails; what it refuses for good is reported and given up.
async fn keep(store: &Store, receiver: &mpsc::Receiver<FinishedRecipient>, batch: &[FinishedRecipient]) {
    while let Err(error) = store.record_history(batch.to_vec()).await {
        let given_up = receiver.is_closed() || matches!(error, StoreError::Invalid(_) | StoreError::Closed);
        tracing::error!(%error, records = batch.len(), given_up, "cannot write the history of attempts");
        if given_up {
            return;
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// Forgets, once an hour, what was finished longer ago than the configuration keeps it, and other things past their time.
pub(super) async fn forget_old(inner: Arc<Inner>) {
    let mut hours = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            () = inner.stopping.cancelled() => return,
        }
        let kept = inner.parts.config.load().queue.history_kept;
        let now = crate::clock::now();
        let before = |span: Duration| now.checked_sub(span).unwrap_or(Timestamp::MIN);
        let store = &inner.parts.store;
        let history = store.prune_history(before(kept)).await;
        // A key must outlive its message in the queue, or a crash could deliver twice.
        let keys = store.prune_delivered(before(DELIVERED_KEYS_KEPT)).await;
        let suppressions = inner.forget_expired_suppressions(now).await;
        for error in [history.err(), keys.err(), suppressions.err()].into_iter().flatten() {
            tracing::error!(%error, "cannot forget old history");
        }
    }
}

/// The record of a finished recipient.
pub(super) fn finished(
    inner: &Inner,
    id: QueueId,
    message: &NewMessage,
    settlement: &Settlement,
    history: &[Attempt],
    now: Timestamp,
) -> FinishedRecipient {
    let (config, scripts) = (inner.parts.config.load(), inner.parts.router.for_message(id).set);
    let envelope = &message.envelope;
    let outcome = settlement.attempt.as_ref().and_then(|attempt| attempt.outcome.as_ref());
    let state = match outcome.map(|outcome| outcome.verdict) {
        Some(Verdict::Delivered) => FinalState::Delivered,
        Some(Verdict::Temporary) => FinalState::Expired,
        Some(Verdict::Permanent) => FinalState::Failed,
        None => FinalState::Removed,
    };
    FinishedRecipient {
        id,
        index: settlement.recipient,
        account: message.account.clone(),
        sender: envelope.sender.clone(),
        recipient: envelope.recipients[settlement.recipient as usize].address.clone(),
        size: message.content.len() as u64,
        received: message.received,
        finished: now,
        state,
        attempts: history.iter().chain(&settlement.attempt).cloned().collect(),
        // Those that the operator wants kept, and those that the scripts ask for.
        kept: Some(kept(config.queue.history_header.iter().chain(scripts.header_fields()), message)),
    }
}

/// Of the header these fields, and Message-Id.
pub(super) fn kept<'a>(names: impl Iterator<Item = &'a String>, message: &NewMessage) -> KeptFacts {
    let mut header: KeptHeader = names.map(|name| (name.clone(), None)).collect();
    header.insert("message-id".to_owned(), None);
    let mut missing = header.len();
    let whole = &message.content[..header_fields::header_len(&message.content)];
    for field in header_fields::fields(whole) {
        let wanted = header.iter_mut().find(|(name, value)| value.is_none() && field.is(name));
        let Some((_, value)) = wanted else { continue };
        let text = header_fields::unfold(field.value);
        let text = String::from_utf8_lossy(&text[..text.len().min(HEADER_VALUE_BYTES_MAX)]);
        *value = Some(text.into_owned());
        missing -= 1;
        if missing == 0 {
            break;
        }
    }
    let (envelope, origin) = (&message.envelope, &message.origin);
    KeptFacts {
        is_dsn: origin.protocol == bounce::PROTOCOL,
        smtputf8: envelope.smtputf8,
        require_tls: envelope.require_tls,
        header: Arc::new(header),
    }
}
