//! Other scripts, tried on mail that was: every attempt of the history and every message that waits is put to them, with
//! the facts as they were. Nothing is sent.
//!
//! A [`Tally`] takes one recipient after the other and counts what would have gone elsewhere; several can be filled by
//! several threads and then be added up. What it keeps is bounded, however long the history is.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::address::{Domain, Mailbox};
use crate::attempt::{Attempt, Level};
use crate::config::Config;
use crate::envelope::ReversePath;
use crate::names::{QueueId, TransportName};
use crate::queue::facts::Known;
use crate::queue::{WaitingRecipient, WayNow};
use crate::route::{ErrorKind, RouteError, ScriptSet, Trace};
use crate::store::FinishedRecipient;

/// Examples of a group that are kept.
const EXAMPLES_MAX: usize = 3;
/// Domains of a group that are counted each on its own.
const DOMAINS_MAX: usize = 10_000;
/// Groups of errors; a script that throws a new text each time must not fill the memory.
const ERRORS_MAX: usize = 100;

/// What replays need.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Which transports and domains there are, and how long mail is tried.
    pub config: &'a Config,
    /// The scripts that are tried.
    pub scripts: &'a ScriptSet,
}

/// What would have gone elsewhere, so far.
#[derive(Debug, Default)]
pub struct Tally {
    attempts: u64,
    waiting: u64,
    same: u64,
    left_out: LeftOut,
    differences: BTreeMap<(Way, Way), Group>,
    errors: BTreeMap<String, Failures>,
    not_known: BTreeMap<String, Failures>,
}

/// A way that was taken, or would be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Over a transport.
    Transport(TransportName),
    /// Nowhere: the running scripts fail.
    PutOff,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transport(name) => f.pad(name.as_str()),
            Self::PutOff => f.pad("put off"),
        }
    }
}

/// Attempts about which no script is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The recipient was ours.
    pub to_mailboxes: u64,
    /// The operator had set the transport.
    pub set_by_operator: u64,
    /// Nothing was written down of the way: the server was killed, or no way could be chosen.
    pub without_decision: u64,
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    waiting: u64,
    senders: Domains,
    recipients: Domains,
    examples: Vec<Example>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    examples: Vec<Example>,
}

/// How often each domain was seen; the null sender has none.
#[derive(Debug, Default)]
struct Domains {
    counts: BTreeMap<Option<Domain>, u64>,
    others: u64,
}

/// A delivery that one can look at with `route explain --id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The message.
    pub id: QueueId,
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipient.
    pub recipient: Mailbox,
    /// Number of the attempt.
    pub attempt: u32,
    /// It is still to be made.
    pub waiting: bool,
    /// Where the tried scripts decide: `global.rhai:3`; or why they do not.
    pub because: String,
}

impl Tally {
    /// Tries the candidate on all attempts of a recipient that is done, but on no more than `limit`; how many that were.
    pub fn finished(&mut self, candidate: Candidate<'_>, finished: &FinishedRecipient, limit: u64) -> u64 {
        let known = Known::of_finished(finished);
        self.made(candidate, finished.id, &known, &finished.attempts, limit)
    }

    /// Tries the candidate on the past attempts of a recipient that waits, and on the next, as if it were made now. `mx`
    /// are the hosts of its domain, for a candidate that asks for them.
    pub fn waiting(
        &mut self,
        candidate: Candidate<'_>,
        waiting: &WaitingRecipient,
        mx: Option<Vec<String>>,
        now: Timestamp,
    ) {
        let known = waiting.known();
        self.made(candidate, waiting.id, &known, &waiting.history, u64::MAX);
        let was = match &waiting.now {
            WayNow::Fixed => {
                self.left_out.set_by_operator += 1;
                return;
            }
            WayNow::Scripts(transport) => Way::Transport(transport.clone()),
            WayNow::Fails(_) => Way::PutOff,
        };
        self.waiting += 1;
        let history: Arc<[Attempt]> = waiting.history.as_slice().into();
        let mut facts = known.clone().facts(candidate.config, waiting.attempts + 1, history, now);
        facts.mx = mx;
        let trace = candidate.scripts.decide(&Arc::new(facts), candidate.config);
        let example = |because| Example {
            id: waiting.id,
            sender: known.sender.clone(),
            recipient: known.recipient.clone(),
            attempt: waiting.attempts + 1,
            waiting: true,
            because,
        };
        self.compare(was, &trace, example);
    }

    fn made(
        &mut self,
        candidate: Candidate<'_>,
        id: QueueId,
        known: &Known,
        attempts: &[Attempt],
        limit: u64,
    ) -> u64 {
        let mut tried = 0;
        for (at, attempt) in attempts.iter().enumerate() {
            if tried == limit {
                break;
            }
            let Some(decision) = &attempt.decision else {
                self.left_out.without_decision += 1;
                continue;
            };
            match decision.level {
                Level::Local => {
                    self.left_out.to_mailboxes += 1;
                    continue;
                }
                Level::Override => {
                    self.left_out.set_by_operator += 1;
                    continue;
                }
                Level::Account | Level::Domain | Level::Global | Level::Default => {}
            }
            let past = attempts[..at].into();
            let mut facts = known.clone().facts(candidate.config, attempt.number, past, attempt.at);
            facts.mx.clone_from(&decision.mx);
            let trace = candidate.scripts.decide(&Arc::new(facts), candidate.config);
            self.attempts += 1;
            tried += 1;
            let example = |because| Example {
                id,
                sender: known.sender.clone(),
                recipient: known.recipient.clone(),
                attempt: attempt.number,
                waiting: false,
                because,
            };
            self.compare(Way::Transport(decision.transport.clone()), &trace, example);
        }
        tried
    }

    fn compare(&mut self, was: Way, trace: &Trace, example: impl FnOnce(String) -> Example) {
        match trace.verdict() {
            Ok(decision) if was == Way::Transport(decision.transport.clone()) => self.same += 1,
            Ok(decision) => {
                let because = match decision.script {
                    Some(place) => place.line.map_or(place.file.clone(), |n| format!("{}:{n}", place.file)),
                    None => "no script decides".to_owned(),
                };
                let way = (was, Way::Transport(decision.transport));
                self.differences.entry(way).or_default().add(example(because));
            }
            Err(error) => self.failed(&error, example),
        }
    }

    fn failed(&mut self, error: &RouteError, example: impl FnOnce(String) -> Example) {
        let groups = match error.kind() {
            ErrorKind::NotKnown => &mut self.not_known,
            _ => &mut self.errors,
        };
        let text = error.error.to_string();
        // The place without the words, when there are too many words.
        let key = if groups.contains_key(&text) || groups.len() < ERRORS_MAX {
            text
        } else {
            format!("{}:{} and other errors", error.error.file, error.error.line.unwrap_or(0))
        };
        let group = groups.entry(key).or_default();
        group.count += 1;
        if group.examples.len() < EXAMPLES_MAX {
            group.examples.push(example(error.to_string()));
        }
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.waiting += other.waiting;
        self.same += other.same;
        self.left_out.to_mailboxes += other.left_out.to_mailboxes;
        self.left_out.set_by_operator += other.left_out.set_by_operator;
        self.left_out.without_decision += other.left_out.without_decision;
        for (ways, group) in other.differences {
            self.differences.entry(ways).or_default().merge(group);
        }
        for (mine, theirs) in [(&mut self.errors, other.errors), (&mut self.not_known, other.not_known)] {
            for (text, failures) in theirs {
                let group = mine.entry(text).or_default();
                group.count += failures.count;
                group.examples.extend(failures.examples);
                group.examples.truncate(EXAMPLES_MAX);
            }
        }
    }

    /// What was found, the most frequent first.
    pub fn report(self) -> Report {
        let mut different: Vec<Difference> =
            self.differences.into_iter().map(|((from, to), group)| group.report(from, to)).collect();
        different.sort_by_key(|difference| std::cmp::Reverse(difference.count));
        Report {
            attempts: self.attempts,
            waiting: self.waiting,
            same: self.same,
            different,
            errors: failures(self.errors),
            not_known: failures(self.not_known),
            left_out: self.left_out,
        }
    }
}

impl Group {
    fn add(&mut self, example: Example) {
        self.count += 1;
        self.waiting += u64::from(example.waiting);
        self.senders.add(example.sender.mailbox().map(|mailbox| &mailbox.domain));
        self.recipients.add(Some(&example.recipient.domain));
        let another = self.examples.last().is_none_or(|last| last.id != example.id);
        if another && self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.waiting += other.waiting;
        self.senders.merge(other.senders);
        self.recipients.merge(other.recipients);
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn report(self, from: Way, to: Way) -> Difference {
        Difference {
            from,
            to,
            count: self.count,
            waiting: self.waiting,
            sender_domains: self.senders.report(),
            recipient_domains: self.recipients.report(),
            examples: self.examples,
        }
    }
}

impl Domains {
    fn add(&mut self, domain: Option<&Domain>) {
        let key = domain.cloned();
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < DOMAINS_MAX {
            self.counts.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.others += other.others;
        for (domain, count) in other.counts {
            if self.counts.contains_key(&domain) || self.counts.len() < DOMAINS_MAX {
                *self.counts.entry(domain).or_default() += count;
            } else {
                self.others += count;
            }
        }
    }

    fn report(self) -> DomainCounts {
        let mut counts: Vec<DomainCount> =
            self.counts.into_iter().map(|(domain, count)| DomainCount { domain, count }).collect();
        counts.sort_by(|a, b| (b.count, &a.domain).cmp(&(a.count, &b.domain)));
        let shown = counts.len().min(DomainCounts::SHOWN_MAX);
        let others = self.others + counts.drain(shown..).map(|one| one.count).sum::<u64>();
        DomainCounts { most: counts, others }
    }
}

fn failures(groups: BTreeMap<String, Failures>) -> Vec<Failed> {
    let all = groups.into_iter();
    let mut all: Vec<Failed> =
        all.map(|(error, group)| Failed { error, count: group.count, examples: group.examples }).collect();
    all.sort_by_key(|failed| std::cmp::Reverse(failed.count));
    all
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Past attempts that were tried.
    pub attempts: u64,
    /// Attempts that are still to be made, and were tried.
    pub waiting: u64,
    /// Of all those, how many go the same way.
    pub same: u64,
    /// What goes elsewhere, by its ways, the most frequent first.
    pub different: Vec<Difference>,
    /// What the tried scripts fail at.
    pub errors: Vec<Failed>,
    /// What could not be tried, because the scripts ask for what nobody knows any more.
    pub not_known: Vec<Failed>,
    /// About what no script is asked.
    pub left_out: LeftOut,
}

impl Report {
    /// How many go elsewhere.
    pub fn differing(&self) -> u64 {
        self.different.iter().map(|difference| difference.count).sum()
    }
}

/// Attempts that went one way and would go another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How they went, or would go with the running scripts.
    pub from: Way,
    /// How they would go with the tried scripts.
    pub to: Way,
    /// How many.
    pub count: u64,
    /// How many of them are still to be made.
    pub waiting: u64,
    /// Where they come from.
    pub sender_domains: DomainCounts,
    /// Where they go.
    pub recipient_domains: DomainCounts,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// The most frequent domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainCounts {
    /// The most frequent first.
    pub most: Vec<DomainCount>,
    /// Attempts of all other domains together.
    pub others: u64,
}

impl DomainCounts {
    const SHOWN_MAX: usize = 5;
}

/// How often a domain was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainCount {
    /// Which; `None` for the null sender.
    pub domain: Option<Domain>,
    /// Attempts.
    pub count: u64,
}

/// An error, with all that it happens to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// File, line, column, message.
    pub error: String,
    /// How many attempts.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}
