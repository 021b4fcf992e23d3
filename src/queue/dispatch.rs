//! From due recipients to groups that share a transaction: the facts are gathered, the scripts asked, the way chosen.
//!
//! A script error, a broken limit or an unknown transport defers the recipient for a short while and uses up no attempt;
//! it never becomes direct delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::time::Instant;

use super::attempt::PutBack;
use super::due::{Place, Turn};
use super::facts::{Decides, Known};
use super::slots::{Bounds, Lane};
use super::{Inner, attempt, undecided};
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::config::{Config, Lookup, Rate, Transport, TransportKind};
use crate::names::{QueueId, TransportName};
use crate::route::{Facts, RouteError, ScriptSet};
use crate::smtp::Reply;
use crate::spool::{NewMessage, RecipientState};

/// A recipient that is due, with what is known of its past.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// Its index in the envelope.
    pub recipient: u32,
    /// Number of the turn in which it was taken.
    pub turn: u32,
    /// All attempts so far, oldest first.
    pub history: Vec<Attempt>,
    /// Attempts made.
    pub attempts: u32,
    /// The operator's choice.
    pub transport_override: Option<TransportName>,
    /// Why no way could be chosen when it was last asked, as the spool has it.
    pub deferral: Option<String>,
    /// The sender knows that it takes long.
    pub delay_reported: bool,
}

impl Subject {
    /// A recipient that has just been accepted.
    pub fn fresh(recipient: u32) -> Self {
        Self {
            recipient,
            turn: 0,
            history: Vec::new(),
            attempts: 0,
            transport_override: None,
            deferral: None,
            delay_reported: false,
        }
    }

    /// The right to attempt it.
    pub fn turn(&self, id: QueueId) -> Turn {
        Turn { key: (id, self.recipient), number: self.turn }
    }

    /// A recipient as the spool has it. `unbegun`: accepted in this run and not attempted yet: its record says that
    /// attempt 1 has begun, the queue knows better.
    pub fn of(recipient: u32, turn: u32, state: &RecipientState, unbegun: bool) -> Self {
        Self {
            recipient,
            turn,
            history: if unbegun { Vec::new() } else { state.history.clone() },
            attempts: if unbegun { 0 } else { state.attempts },
            transport_override: state.transport_override.clone(),
            deferral: state.deferral.clone(),
            delay_reported: state.delay_reported,
        }
    }
}

/// A message in memory, with its recipients that are due.
pub(super) struct Loaded {
    pub id: QueueId,
    pub message: Arc<NewMessage>,
    pub subjects: Vec<Subject>,
    /// Straight from acceptance: the accepting record says that attempt 1 has begun.
    pub fresh: bool,
}

/// Where a group goes.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Into a mailbox here.
    Local,
    /// Out.
    Transport(Arc<Transport>),
}

/// Recipients of one message that share a transaction.
pub(super) struct Group {
    pub id: QueueId,
    pub way: Way,
    /// With the decision for each.
    pub subjects: Vec<(Subject, Decision)>,
    /// `None` when memory was short: it is read back when its turn comes.
    pub message: Option<Arc<NewMessage>>,
    pub fresh: bool,
    memory: Option<MemoryShare>,
}

impl Group {
    pub fn turns(&self) -> impl Iterator<Item = Turn> + '_ {
        self.subjects.iter().map(|(subject, _)| subject.turn(self.id))
    }

    /// Lets go of the body and the history until there is a slot, unless there is memory for it.
    fn wait_in_line(&mut self, memory: &Arc<AtomicUsize>, bytes_max: usize) {
        let bytes = self.message.as_ref().map_or(0, |m| m.content.len() + 512);
        match MemoryShare::take(memory, bytes, bytes_max) {
            Some(share) => self.memory = Some(share),
            None => {
                self.message = None;
                for (subject, _) in &mut self.subjects {
                    subject.history = Vec::new();
                }
            }
        }
    }
}

/// A part of the memory that messages in line may take; given back when dropped.
struct MemoryShare {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl MemoryShare {
    fn take(of: &Arc<AtomicUsize>, bytes: usize, bytes_max: usize) -> Option<Self> {
        let before = of.fetch_add(bytes, Ordering::Relaxed);
        let share = Self { of: of.clone(), bytes };
        (before + bytes <= bytes_max).then_some(share)
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Chooses the way of each recipient, and sends the groups on their way or into line.
pub(super) async fn dispatch(inner: Arc<Inner>, loaded: Loaded) {
    let config = inner.parts.config.load_full();
    let turns = loaded.subjects.iter().map(|subject| subject.turn(loaded.id)).collect();
    let _guard = PutBack::new(&inner, turns, Place::InLine);
    for (lane, group) in choose(&inner, &config, loaded).await {
        place(&inner, &config, lane, group);
    }
}

/// Starts a group if there is a slot for it, else puts it in line.
pub(super) fn place(inner: &Arc<Inner>, config: &Config, lane: Lane, mut group: Group) {
    let now = Instant::now();
    let free = inner.slots.lock().is_free(&lane, now);
    if !free {
        group.wait_in_line(&inner.memory_bytes, config.queue.memory_bytes_max);
        // Before it can have its turn, so that the mark is off when it has.
        inner.due.lock().put_in_line(group.turns(), &lane.transport);
    }
    let ready = inner.slots.lock().enter(&lane, group, now);
    if let Some(group) = ready {
        attempt::start(inner, lane, group);
    } else if lane.bounds.rate != Rate::default() {
        // It may be that nobody runs whose end would call for the next.
        attempt::start_waiting(inner);
    }
}

/// Asks for each recipient which way it goes; recipients that go the same way to the same place come out together.
/// Those for which nobody can say are deferred here.
pub(super) async fn choose(inner: &Arc<Inner>, config: &Config, loaded: Loaded) -> Vec<(Lane, Group)> {
    let now = crate::clock::now();
    let mut groups: Vec<(Lane, Group)> = Vec::with_capacity(1);
    let mut undecided = Vec::new();
    let Loaded { id, message, subjects, fresh } = loaded;
    // One set for all questions: what it wants to know is gathered for it, and it decides.
    let router = &inner.parts.router;
    let chosen = router.for_message(id);
    for subject in inner.without_held(id, &message, subjects) {
        let recipient = &message.envelope.recipients[subject.recipient as usize].address;
        let decided = match Decides::about(config, recipient, subject.transport_override.as_ref()) {
            Decides::Mailbox => {
                Ok((Way::Local, Decision::without_script(Level::Local, TransportName::local())))
            }
            Decides::Operator(name) => {
                transport_way(config, Decision::without_script(Level::Override, name.clone()))
            }
            Decides::Scripts => {
                let facts = Arc::new(facts(inner, &chosen.set, config, &message, &subject, now).await);
                way(config, router.decide(&chosen, id, &facts, config), &facts)
            }
        };
        match decided {
            Ok((way, decision)) => {
                let lane = lane(inner, config, &way, recipient);
                match groups.iter_mut().find(|(of, _)| of.destination == lane.destination) {
                    Some((_, group)) => group.subjects.push((subject, decision)),
                    None => groups.push((
                        lane,
                        Group {
                            id,
                            way,
                            subjects: vec![(subject, decision)],
                            message: Some(message.clone()),
                            fresh,
                            memory: None,
                        },
                    )),
                }
            }
            Err(problem) => undecided.push((subject, problem)),
        }
    }
    if !undecided.is_empty() {
        undecided::put_off(inner, config, id, &message, undecided).await;
    }
    groups
}

/// The answer to a message that the scripts would send, on its first attempt, to a transport that refuses at submission:
/// for every recipient, since one reply speaks for all of them. Where some would go another way the message is taken,
/// and the others bounce.
pub(super) async fn refusal(inner: &Inner, message: &NewMessage) -> Option<Reply> {
    let config = inner.parts.config.load_full();
    let refuses = |kind: &TransportKind| matches!(kind, TransportKind::Fail { at_submission: true, .. });
    // Without such a transport, which is the rule, nobody is asked twice.
    if !config.transports.values().any(|transport| refuses(&transport.kind)) {
        return None;
    }
    // Which set decides is told by the queue id, which the message has not got yet: all of them must refuse it.
    let (now, sets) = (crate::clock::now(), inner.parts.router.deciding());
    let mut refused = None;
    for (number, recipient) in message.envelope.recipients.iter().enumerate() {
        if !matches!(config.lookup(&recipient.address), Lookup::Foreign) {
            return None;
        }
        let subject = Subject::fresh(number as u32);
        for chosen in &sets {
            let facts = facts(inner, &chosen.set, &config, message, &subject, now).await;
            // What cannot be decided now is deferred by the queue, and seen by the operator there.
            let decision = chosen.set.decide(&Arc::new(facts), &*config).verdict().ok()?;
            match &config.transports.get(&decision.transport)?.kind {
                TransportKind::Fail { reply, at_submission: true } => {
                    refused.get_or_insert_with(|| reply.clone());
                }
                _ => return None,
            }
        }
    }
    refused
}

/// The way that the scripts chose.
fn way(
    config: &Config,
    verdict: Result<Decision, RouteError>,
    facts: &Facts,
) -> Result<(Way, Decision), String> {
    let mut decision = verdict.map_err(|error| error.to_string())?;
    decision.mx.clone_from(&facts.mx);
    transport_way(config, decision)
}

/// The transport of a decision, as long as there is one of that name.
pub(super) fn transport_way(config: &Config, decision: Decision) -> Result<(Way, Decision), String> {
    match config.transports.get(&decision.transport) {
        Some(transport) => Ok((Way::Transport(transport.clone()), decision)),
        None => Err(format!(
            "there is no transport {:?} (chosen by {} level): add [transports.{}] or choose another",
            decision.transport, decision.level, decision.transport
        )),
    }
}

/// What the scripts may know of a recipient's next attempt.
async fn facts(
    inner: &Inner,
    scripts: &ScriptSet,
    config: &Config,
    message: &NewMessage,
    subject: &Subject,
    now: Timestamp,
) -> Facts {
    let known = Known::of_message(message, message.content.len() as u64, subject.recipient);
    let mut facts = known.facts(config, subject.attempts + 1, subject.history.as_slice().into(), now);
    if scripts.wants_mx(&facts) {
        facts.mx = inner.parts.resolver.mx_names(&facts.recipient.domain).await;
    }
    facts
}

/// What bounds deliveries over this way.
fn lane(inner: &Inner, config: &Config, way: &Way, recipient: &Mailbox) -> Lane {
    match way {
        Way::Local => Lane {
            transport: TransportName::LOCAL.into(),
            destination: TransportName::LOCAL.into(),
            bounds: Bounds {
                transport: config.queue.concurrency,
                destination: config.queue.concurrency,
                rate: Rate::default(),
            },
        },
        Way::Transport(transport) => Lane {
            transport: transport.name.as_str().into(),
            destination: inner.parts.engine.destination(transport, &recipient.domain).to_string().into(),
            bounds: Bounds {
                transport: transport.common.concurrency,
                destination: transport.common.concurrency_per_destination,
                rate: transport.common.rate,
            },
        },
    }
}
