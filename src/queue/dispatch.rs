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
use super::schedule::add;
use super::slots::{Bounds, Lane};
use super::{Inner, attempt, bounce, undecided};
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::config::{Config, Lookup, Rate, Transport, TransportKind};
use crate::envelope::ReversePath;
use crate::names::{QueueId, TransportName};
use crate::route::{Facts, ScriptSet, Trace};
use crate::smtp::Reply;
use crate::spool::NewMessage;

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
        let local = !matches!(config.lookup(recipient), Lookup::Foreign);
        let decided = match (local, &subject.transport_override) {
            (true, _) => Ok((Way::Local, Decision::without_script(Level::Local, TransportName::local()))),
            (false, Some(name)) => {
                transport_way(config, Decision::without_script(Level::Override, name.clone()))
            }
            (false, None) => {
                let facts = facts(inner, &chosen.set, config, &message, &subject, now).await;
                way(config, &router.decide(&chosen, &Arc::new(facts), config))
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
    let at_submission =
        |kind: &TransportKind| matches!(kind, TransportKind::Fail { at_submission: true, .. });
    // Without such a transport, which is the rule, nobody is asked twice.
    if !config.transports.values().any(|transport| at_submission(&transport.kind)) {
        return None;
    }
    let (now, scripts) = (crate::clock::now(), inner.parts.router.current());
    let mut refused = None;
    for (number, recipient) in message.envelope.recipients.iter().enumerate() {
        if !matches!(config.lookup(&recipient.address), Lookup::Foreign) {
            return None;
        }
        let subject = Subject::fresh(number as u32);
        let facts = facts(inner, &scripts, &config, message, &subject, now).await;
        // What cannot be decided now is deferred by the queue, and seen by the operator there.
        let (way, _) = way(&config, &scripts.decide(&Arc::new(facts), &*config)).ok()?;
        match way {
            Way::Transport(transport) if at_submission(&transport.kind) => {
                let TransportKind::Fail { reply, .. } = &transport.kind else { return None };
                refused.get_or_insert_with(|| reply.clone());
            }
            Way::Transport(_) | Way::Local => return None,
        }
    }
    refused
}

/// The way that the scripts chose.
fn way(config: &Config, trace: &Trace) -> Result<(Way, Decision), String> {
    let decision = trace.verdict().map_err(|error| error.to_string())?;
    transport_way(config, decision)
}

fn transport_way(config: &Config, decision: Decision) -> Result<(Way, Decision), String> {
    match config.transports.get(&decision.transport) {
        Some(transport) => Ok((Way::Transport(transport.clone()), decision)),
        None => Err(format!(
            "there is no transport {:?} (chosen by {} level): add [transports.{}] or choose another",
            decision.transport, decision.level, decision.transport
        )),
    }
}

/// What the scripts may know.
async fn facts(
    inner: &Inner,
    scripts: &ScriptSet,
    config: &Config,
    message: &NewMessage,
    subject: &Subject,
    now: Timestamp,
) -> Facts {
    let mut facts = facts_without_mx(config, message, subject, now);
    if scripts.wants_mx(&facts) {
        facts.mx = inner.parts.resolver.mx_names(&facts.recipient.domain).await;
    }
    facts
}

/// The facts of a recipient's next attempt, as far as they stand in message and queue.
pub(super) fn facts_without_mx(
    config: &Config,
    message: &NewMessage,
    subject: &Subject,
    now: Timestamp,
) -> Facts {
    let envelope = &message.envelope;
    let local_sender_domain =
        matches!(&envelope.sender, ReversePath::Mailbox(m) if config.domains.contains_key(&m.domain));
    let expires = add(message.received, config.queue.retry.give_up_after);
    Facts {
        attempt: subject.attempts + 1,
        account: message.account.clone(),
        sender: envelope.sender.clone(),
        local_sender_domain,
        recipient: envelope.recipients[subject.recipient as usize].address.clone(),
        size: message.content.len() as u64,
        age: now.duration_since(message.received).try_into().unwrap_or_default(),
        expires_in: expires.duration_since(now).try_into().unwrap_or_default(),
        message_id: None,
        is_dsn: message.origin.protocol == bounce::PROTOCOL,
        smtputf8: envelope.smtputf8,
        require_tls: envelope.require_tls,
        mx: None,
        header: message.content.clone(),
        history: subject.history.as_slice().into(),
        now,
    }
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
