//! One attempt of one group: written down, handed to the transport, settled.
//!
//! The attempt is on disk before the dial (for a fresh message the accepting record says so), the outcome after it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::bounce::{self, ReportKind, Told};
use super::dispatch::{self, Group, Way};
use super::due::{Place, Turn};
use super::schedule::add;
use super::settle::{self, Item};
use super::slots::Lane;
use super::{Inner, finished, pump, shown, suppressions};
use crate::attempt::{Attempt, Decision};
use crate::config::Config;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{Outcome, Verdict};
use crate::spool::{NewMessage, Next, Settlement};
use crate::transport::Job;

/// A slot that is held while a group is being delivered; given back when dropped, whatever happens.
struct Slot {
    inner: Arc<Inner>,
    lane: Lane,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.slots.lock().leave(&self.lane, Instant::now());
        start_waiting(&self.inner);
    }
}

/// Starts all that may run now, and sees to it that what only a rate holds back is looked at again.
pub(super) fn start_waiting(inner: &Arc<Inner>) {
    if inner.stopping() {
        return;
    }
    loop {
        let mut slots = inner.slots.lock();
        let Some((lane, group)) = slots.take_next(Instant::now()) else {
            let held_back = slots.held_by_rates();
            drop(slots);
            for (transport, at) in held_back {
                inner.tasks.spawn(resume(inner.clone(), transport, at));
            }
            return;
        };
        drop(slots);
        start(inner, lane, group);
    }
}

/// Waits until a transport's rate allows the next.
async fn resume(inner: Arc<Inner>, transport: Arc<str>, at: Instant) {
    tokio::select! {
        () = tokio::time::sleep_until(at) => {}
        () = inner.stopping.cancelled() => return,
    }
    inner.slots.lock().resume(&transport, Instant::now());
    start_waiting(&inner);
}

/// Starts a group whose slot is taken.
pub(super) fn start(inner: &Arc<Inner>, lane: Lane, group: Group) {
    let slot = Slot { inner: inner.clone(), lane };
    inner.tasks.spawn(async move {
        let group = if group.message.is_some() { Some(group) } else { read_back(&slot, &group).await };
        if let Some(group) = group {
            run(&slot.inner, group).await;
        }
    });
}

/// Memory was short when the group got in line: it is read back and asked about anew, for the scripts may have changed.
/// What still goes the way of the slot is returned; the rest goes its own.
async fn read_back(slot: &Slot, group: &Group) -> Option<Group> {
    let inner = &slot.inner;
    let turns: Vec<Turn> = {
        let due = inner.due.lock();
        group.turns().filter(|turn| due.has(*turn)).collect()
    };
    let _guard = PutBack::new(inner, turns.clone(), Place::InLine);
    let loaded = pump::load(inner, &turns).await?;
    let config = inner.parts.config.load_full();
    let mut for_slot = None;
    for (lane, group) in dispatch::choose(inner, &config, loaded).await {
        if for_slot.is_none() && lane.destination == slot.lane.destination {
            for_slot = Some(group);
        } else {
            dispatch::place(inner, &config, lane, group);
        }
    }
    for_slot
}

async fn run(inner: &Arc<Inner>, mut group: Group) {
    let Some(message) = group.message.take() else { return };
    leave_out(inner, &mut group, &message);
    if group.subjects.is_empty() {
        return;
    }
    let _guard = PutBack::new(inner, group.turns().collect(), Place::UnderWay);
    let began = crate::clock::now();
    if group.fresh || write_down(inner, &group, began).await {
        let outcomes = tokio::select! {
            biased;
            outcomes = deliver(inner, &group, &message) => outcomes,
            // The spool is about to close. What is cut off here has begun, as the record says, and is tried again.
            () = inner.cut_off.cancelled() => return,
        };
        settle_all(inner, &group, &message, began, outcomes).await;
    }
}

/// Who was held or taken out while the group waited in line is not attempted; for the others the attempt begins here.
fn leave_out(inner: &Inner, group: &mut Group, message: &NewMessage) {
    let id = group.id;
    let mut due = inner.due.lock();
    let any_rules = !inner.rules.are_none();
    group.subjects.retain(|(subject, _)| {
        let turn = subject.turn(id);
        let address = &message.envelope.recipients[subject.recipient as usize].address;
        if any_rules
            && due.has(turn)
            && let Some(rule) = inner.rules.holding(message, address)
        {
            due.hold_by_rule(turn.key, rule);
        }
        due.begin(turn)
    });
}

/// If choosing a way or an attempt ends as nobody foresaw (a panic), its recipients must not stay taken for ever.
pub(super) struct PutBack {
    inner: Arc<Inner>,
    turns: Vec<Turn>,
    /// Who has come further is somebody else's by now.
    up_to: Place,
}

impl PutBack {
    pub(super) fn new(inner: &Arc<Inner>, turns: Vec<Turn>, up_to: Place) -> Self {
        Self { inner: inner.clone(), turns, up_to }
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let config = self.inner.parts.config.load();
            let at = add(crate::clock::now(), config.queue.script_error_retry);
            let mut turns = std::mem::take(&mut self.turns);
            {
                let due = self.inner.due.lock();
                turns.retain(|turn| due.get(turn.key).is_some_and(|entry| entry.place <= self.up_to));
            }
            tracing::error!(recipients = turns.len(), %at, "a delivery ended in a panic: it is tried again");
            self.inner.put_back(turns.into_iter(), at);
        }
    }
}

/// Puts the attempts on disk, before the dial. If that fails no attempt is made.
async fn write_down(inner: &Inner, group: &Group, began: Timestamp) -> bool {
    let attempts = group
        .subjects
        .iter()
        .map(|(subject, decision)| {
            (subject.recipient, attempt_of(subject.attempts + 1, began, decision.clone(), None, None))
        })
        .collect();
    match inner.parts.spool.begin(group.id, attempts).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(id = shown(group.id), %error, "cannot write an attempt down: it is put off");
            let config = inner.parts.config.load();
            inner.put_back(group.turns(), add(began, config.queue.script_error_retry));
            false
        }
    }
}

fn attempt_of(
    number: u32,
    at: Timestamp,
    decision: Decision,
    outcome: Option<Outcome>,
    ended: Option<Timestamp>,
) -> Attempt {
    Attempt { number, at, decision: Some(decision), outcome, ended }
}

/// One outcome for each recipient of the group, in order.
async fn deliver(inner: &Inner, group: &Group, message: &Arc<NewMessage>) -> Vec<Outcome> {
    let recipients =
        group.subjects.iter().map(|(s, _)| message.envelope.recipients[s.recipient as usize].clone());
    match &group.way {
        Way::Local => {
            let config = inner.parts.config.load_full();
            let mut outcomes = Vec::with_capacity(group.subjects.len());
            for ((subject, _), recipient) in group.subjects.iter().zip(recipients) {
                let (store, index) = (&inner.parts.store, subject.recipient);
                let outcome =
                    crate::local::deliver(store, &config, group.id, index, &recipient.address, message).await;
                outcomes.push(outcome);
            }
            outcomes
        }
        Way::Transport(transport) => {
            let previous = group.subjects.first().map_or_else(Vec::new, |(s, _)| s.history.clone());
            let job =
                Job { id: group.id, message: message.clone(), recipients: recipients.collect(), previous };
            inner.parts.engine.deliver(transport, &job).await
        }
    }
}

/// Writes down what came of each recipient, and what follows.
async fn settle_all(
    inner: &Arc<Inner>,
    group: &Group,
    message: &Arc<NewMessage>,
    began: Timestamp,
    outcomes: Vec<Outcome>,
) {
    let config = inner.parts.config.load_full();
    let now = crate::clock::now();
    let mut settlements = Vec::with_capacity(outcomes.len());
    let mut told: Vec<Told> = Vec::new();
    let mut suppressed = Vec::new();
    for ((subject, decision), outcome) in group.subjects.iter().zip(outcomes) {
        inner.counts.attempt(&decision.transport, outcome.verdict);
        let attempts = subject.attempts + 1;
        let item = Item { id: group.id, attempts, received: message.received };
        let next = settle::settle(item, &outcome, &config.queue.retry, now);
        log(group.id, message, subject.recipient, attempts, decision, &outcome, next);
        let party = settle::Party {
            sender: &message.envelope.sender,
            recipient: &message.envelope.recipients[subject.recipient as usize],
            received: message.received,
            delay_reported: subject.delay_reported,
            level: decision.level,
        };
        let (next, fate) = settle::follows(party, &outcome, next, &config.queue, now);
        if fate == Some(Fate::Refused) {
            suppressed.extend(suppressions::of_failure(&config, message, subject.recipient, &outcome, now));
        }
        if let Some(fate) = fate {
            told.push(Told {
                recipient: subject.recipient,
                fate,
                outcome: outcome.clone(),
                transport: Some(decision.transport.to_string()),
                earlier: subject.history.iter().filter(|a| a.number < attempts).cloned().collect(),
            });
        }
        let attempt = attempt_of(attempts, began, decision.clone(), Some(outcome), Some(now));
        let (recipient, attempt) = (subject.recipient, Some(attempt));
        settlements.push(Settlement {
            recipient,
            attempt,
            next,
            delay_reported: fate == Some(Fate::Delayed),
        });
    }
    if !told.is_empty() {
        tell(inner, &config, group.id, message, told, &mut settlements, now).await;
    }
    if !suppressed.is_empty() {
        inner.suppressions.learn(&inner.parts.store, suppressed).await;
    }
    finish(inner, group, message, settlements, now).await;
}

/// Queues the reports. They are in the queue before what they tell is written down: a crash between the two reports
/// twice, not never. Where a failure cannot be reported, the recipient stays.
async fn tell(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    told: Vec<Told>,
    settlements: &mut [Settlement],
    now: Timestamp,
) {
    let kind_of = |told: &Told| match told.fate {
        Fate::Refused | Fate::Expired | Fate::Undecided | Fate::GivenUp | Fate::Damaged => ReportKind::Failed,
        Fate::Delayed | Fate::Unrouted => ReportKind::Delayed,
        Fate::Delivered | Fate::Relayed => ReportKind::Succeeded,
    };
    for kind in [ReportKind::Failed, ReportKind::Delayed, ReportKind::Succeeded] {
        let told: Vec<Told> = told.iter().filter(|t| kind_of(t) == kind).cloned().collect();
        if told.is_empty() {
            continue;
        }
        let Err(error) = bounce::report(inner, config, message, kind, &told, now).await else { continue };
        tracing::error!(id = shown(id), %error, ?kind, "cannot queue a report");
        for settlement in settlements.iter_mut().filter(|s| told.iter().any(|t| t.recipient == s.recipient)) {
            match kind {
                ReportKind::Failed => {
                    settlement.next = Next::Retry(add(now, config.queue.script_error_retry));
                }
                ReportKind::Delayed => settlement.delay_reported = false,
                // It has the message; that nobody is told is the lesser evil.
                ReportKind::Succeeded => {}
            }
        }
    }
}

/// History, spool and index learn what follows.
async fn finish(
    inner: &Arc<Inner>,
    group: &Group,
    message: &Arc<NewMessage>,
    settlements: Vec<Settlement>,
    now: Timestamp,
) {
    let (mut done, mut again) = (Vec::new(), Vec::new());
    for ((subject, _), settlement) in settlements
        .iter()
        .filter_map(|s| Some((group.subjects.iter().find(|(of, _)| of.recipient == s.recipient)?, s)))
    {
        let turn = subject.turn(group.id);
        match &settlement.next {
            Next::Done => {
                inner.finished.record(finished::finished(
                    inner,
                    group.id,
                    message,
                    settlement,
                    &subject.history,
                    now,
                ));
                done.push(turn);
            }
            Next::Retry(at) | Next::Deferred { until: at, .. } => {
                again.push((turn, *at, subject.attempts + 1));
            }
        }
    }
    if again.is_empty() {
        inner.parts.spool.settle_later(group.id, settlements);
    } else if let Err(error) = inner.parts.spool.settle(group.id, settlements.clone()).await {
        tracing::error!(id = shown(group.id), %error, "cannot write down what came of an attempt: it is kept for later");
        // The writer keeps it until the disk takes it; else those who are done would be tried again after a restart.
        inner.parts.spool.settle_later(group.id, settlements);
    }
    // After the spool: whoever takes a recipient out of the queue next must read there what came of this attempt.
    let mut due = inner.due.lock();
    for turn in done {
        due.remove(turn);
    }
    for (turn, at, attempts) in &again {
        due.put_back(*turn, *at, *attempts);
    }
    drop(due);
    inner.counts.deferred.add(again.len() as u64);
    if !again.is_empty() {
        inner.wake.notify_one();
    }
}

fn log(
    id: QueueId,
    message: &NewMessage,
    recipient: u32,
    attempt: u32,
    decision: &Decision,
    outcome: &Outcome,
    next: settle::Next,
) {
    let to = &message.envelope.recipients[recipient as usize].address;
    let (transport, level) = (&decision.transport, decision.level);
    let host = outcome.host.as_deref().unwrap_or_default();
    let ip = outcome.ip.map(tracing::field::display);
    let (code, text) = (outcome.code, outcome.text.as_str());
    match (outcome.verdict, next) {
        (Verdict::Delivered, _) => {
            let tls = outcome.tls.as_deref();
            tracing::info!(id = shown(id), %to, attempt, %transport, %level, host, ip, tls, code, "delivered");
        }
        (_, settle::Next::Retry(at)) => {
            let stage = outcome.stage.as_str();
            tracing::info!(id = shown(id), %to, attempt, %transport, %level, host, ip, stage, code, text, next = %at, "deferred");
        }
        _ => {
            let stage = outcome.stage.as_str();
            tracing::warn!(id = shown(id), %to, attempt, %transport, %level, host, ip, stage, code, text, "failed for good");
        }
    }
}
