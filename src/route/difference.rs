//! Where two script sets part: what was decided, what the other set would have decided, how often, for whom.
//!
//! [`Differences`] is told of each decision and keeps the differences by their sort: the way and the line on both
//! sides. It stays small however much it is told: sorts, domains and examples have a bound each, and what is beyond
//! is counted.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::trace::{RouteError, Trace};
use crate::address::Mailbox;
use crate::attempt::{Decision, Level};
use crate::names::{QueueId, TransportName};

/// Sorts of differences kept apart.
const SORTS_MAX: usize = 200;
/// Pairs of domains kept of each sort.
const DOMAINS_MAX: usize = 50;
/// Examples kept of each sort.
const EXAMPLES_MAX: usize = 5;
/// Errors kept apart.
const ERRORS_MAX: usize = 100;

/// Where a decision leads, and which line of which script said so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Direction {
    /// The transport; `None` when a script failed and no attempt would be made.
    pub transport: Option<TransportName>,
    /// Who decided, or failed.
    pub level: Level,
    /// The script, relative to its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Arc<str>>,
    /// Its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl Direction {
    /// That of a verdict.
    pub fn of(verdict: &Result<Decision, RouteError>) -> Self {
        match verdict {
            Ok(decision) => Self {
                transport: Some(decision.transport.clone()),
                level: decision.level,
                script: decision.script.as_ref().map(|place| place.file.as_str().into()),
                line: decision.script.as_ref().and_then(|place| place.line),
            },
            Err(failed) => Self {
                transport: None,
                level: failed.level,
                script: Some(failed.error.file.clone()),
                line: failed.error.line,
            },
        }
    }
}

/// `smarthost (global.rhai:3)`, `direct (no script decided)`, `no way (script error at global.rhai:3)`.
impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.transport {
            Some(transport) => write!(f, "{transport} (")?,
            None => f.write_str("no way (script error at ")?,
        }
        match (&self.script, self.line) {
            (Some(script), Some(line)) => write!(f, "{script}:{line})"),
            (Some(script), None) => write!(f, "{script})"),
            (None, _) => f.write_str("no script decided)"),
        }
    }
}

/// The differences of one sort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What was decided.
    pub from: Direction,
    /// What the other set would have decided.
    pub to: Direction,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// For whom, most often first.
    pub domains: Vec<DomainPair>,
    /// Of these, how often for domains that are not kept.
    pub other_domains: u64,
    /// A few of them, the first ones.
    pub examples: Vec<Example>,
}

/// Sender and recipient domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainPair {
    /// Empty for the null sender.
    pub sender: String,
    /// Of the recipient.
    pub recipient: String,
    /// How often.
    pub count: u64,
}

/// An attempt about which the sets differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The message.
    pub id: QueueId,
    /// The recipient.
    pub recipient: Mailbox,
    /// Number of the attempt.
    pub attempt: u32,
}

/// An error of the other set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Level, file, line, column and message.
    pub error: String,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// A few of them, the first ones.
    pub examples: Vec<Example>,
}

/// How the two sets compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Decisions compared.
    pub decisions: u64,
    /// Of these, those where the other set would have gone elsewhere.
    pub different: u64,
    /// Of these, those where the other set failed.
    pub errors: u64,
}

/// What is known of how two sets differ.
#[derive(Debug, Default)]
pub struct Differences {
    tally: Tally,
    sorts: HashMap<(Direction, Direction), Kept>,
    not_kept: u64,
    mistakes: HashMap<String, Mistake>,
}

#[derive(Debug)]
struct Kept {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    domains: HashMap<(String, String), u64>,
    other_domains: u64,
    examples: Vec<Example>,
}

impl Differences {
    /// Compares what was decided about an attempt of a message with what the other set says.
    pub fn compare(&mut self, id: QueueId, facts: &Facts, decided: &Trace, other: &Trace) {
        let (decided, other) = (decided.verdict(), other.verdict());
        self.tally.decisions += 1;
        let example = || Example { id, recipient: facts.recipient.clone(), attempt: facts.attempt };
        if let Err(error) = &other {
            self.tally.errors += 1;
            self.mistake(error.to_string(), facts.now, example());
        }
        let (from, to) = (Direction::of(&decided), Direction::of(&other));
        if from.transport == to.transport {
            return;
        }
        self.tally.different += 1;
        if self.sorts.len() >= SORTS_MAX && !self.sorts.contains_key(&(from.clone(), to.clone())) {
            self.not_kept += 1;
            return;
        }
        let now = facts.now;
        let kept = self.sorts.entry((from, to)).or_insert_with(|| Kept {
            count: 0,
            first: now,
            last: now,
            domains: HashMap::new(),
            other_domains: 0,
            examples: Vec::new(),
        });
        kept.count += 1;
        kept.last = now;
        let sender = facts.sender.mailbox().map_or_else(String::new, |m| m.domain.to_string());
        let pair = (sender, facts.recipient.domain.to_string());
        if kept.domains.len() < DOMAINS_MAX || kept.domains.contains_key(&pair) {
            *kept.domains.entry(pair).or_default() += 1;
        } else {
            kept.other_domains += 1;
        }
        if kept.examples.len() < EXAMPLES_MAX {
            kept.examples.push(example());
        }
    }

    fn mistake(&mut self, error: String, now: Timestamp, example: Example) {
        if self.mistakes.len() >= ERRORS_MAX && !self.mistakes.contains_key(&error) {
            return;
        }
        let new = || Mistake { error: error.clone(), count: 0, first: now, last: now, examples: Vec::new() };
        let mistake = self.mistakes.entry(error.clone()).or_insert_with(new);
        mistake.count += 1;
        mistake.last = now;
        if mistake.examples.len() < EXAMPLES_MAX {
            mistake.examples.push(example);
        }
    }

    /// How the sets compare.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Differences that are of no sort that is kept.
    pub fn not_kept(&self) -> u64 {
        self.not_kept
    }

    /// The differences by sort, most often first.
    pub fn list(&self) -> Vec<Difference> {
        let mut all: Vec<_> = self.sorts.iter().map(|((from, to), kept)| kept.shown(from, to)).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then(a.first.cmp(&b.first)));
        all
    }

    /// The other set's errors, most often first.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut all: Vec<_> = self.mistakes.values().cloned().collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then(a.error.cmp(&b.error)));
        all
    }
}

impl Kept {
    fn shown(&self, from: &Direction, to: &Direction) -> Difference {
        let pair = |((sender, recipient), count): (&(String, String), &u64)| DomainPair {
            sender: sender.clone(),
            recipient: recipient.clone(),
            count: *count,
        };
        let mut domains: Vec<_> = self.domains.iter().map(pair).collect();
        domains.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.recipient.cmp(&b.recipient)));
        Difference {
            from: from.clone(),
            to: to.clone(),
            count: self.count,
            first: self.first,
            last: self.last,
            domains,
            other_domains: self.other_domains,
            examples: self.examples.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScriptLimits;
    use crate::envelope::ReversePath;
    use crate::route::ScriptSet;

    fn set(script: &str) -> ScriptSet {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("global.rhai"), script).unwrap();
        ScriptSet::load(dir.path(), &ScriptLimits::default()).unwrap()
    }

    fn facts(to: &str, second: i64) -> Arc<Facts> {
        let sender = ReversePath::try_from("ann@a.test".to_owned()).unwrap();
        let now = Timestamp::from_second(second).unwrap();
        Arc::new(Facts::new(sender, Mailbox::parse(to).unwrap(), now))
    }

    /// Compares two scripts over mail to these recipients, one a second.
    fn compared(live: &str, other: &str, to: impl IntoIterator<Item = String>) -> Differences {
        let (live, other) = (set(live), set(other));
        let mut differences = Differences::default();
        for (number, to) in to.into_iter().enumerate() {
            let facts = facts(&to, number as i64);
            let known = |_: &str| true;
            let (decided, would) = (live.decide(&facts, &known), other.decide(&facts, &known));
            differences.compare(QueueId(number as u64), &facts, &decided, &would);
        }
        differences
    }

    const BY_DOMAIN: &str = "fn route(d) {\n if d.recipient_domain == \"b.test\" { return \"smart\"; }\n}";

    #[test]
    fn differences_are_gathered_by_way_and_line() {
        let to = ["x@b.test", "y@b.test", "x@c.test", "z@b.test"].map(str::to_owned);
        let differences = compared("fn route(d) { }", BY_DOMAIN, to);
        assert_eq!(differences.tally(), Tally { decisions: 4, different: 3, errors: 0 });
        let list = differences.list();
        assert_eq!(list.len(), 1);
        let difference = &list[0];
        assert_eq!(difference.from.to_string(), "direct (no script decided)");
        assert_eq!(difference.to.to_string(), "smart (global.rhai:2)");
        assert_eq!((difference.count, difference.first.as_second(), difference.last.as_second()), (3, 0, 3));
        let pair = DomainPair { sender: "a.test".into(), recipient: "b.test".into(), count: 3 };
        assert_eq!(difference.domains, [pair]);
        let seen: Vec<_> = difference.examples.iter().map(|e| (e.id.0, e.recipient.to_string())).collect();
        assert_eq!(seen, [(0, "x@b.test".into()), (1, "y@b.test".into()), (3, "z@b.test".into())]);
    }

    #[test]
    fn an_error_is_told_with_its_place_and_counts_as_another_way() {
        let to = ["x@b.test".to_owned(), "y@c.test".to_owned()];
        let broken = "fn route(d) {\n    d.nonsense\n}";
        let differences = compared(BY_DOMAIN, broken, to.clone());
        assert_eq!(differences.tally(), Tally { decisions: 2, different: 2, errors: 2 });
        let mistakes = differences.mistakes();
        assert_eq!((mistakes.len(), mistakes[0].count), (1, 2));
        assert!(mistakes[0].error.starts_with("global script: global.rhai:2:"), "{}", mistakes[0].error);
        assert_eq!(differences.list()[0].to.to_string(), "no way (script error at global.rhai:2)");
        // Both fail: neither makes the attempt.
        let both = compared(broken, broken, to);
        assert_eq!((both.tally().different, both.tally().errors), (0, 2));
    }

    #[test]
    fn however_much_differs_little_is_kept() {
        let many = (0..2_000).map(|n| format!("user@domain{n}.test"));
        let one = compared("fn route(d) { }", "fn route(d) { \"smart\" }", many.clone()).list().remove(0);
        assert_eq!((one.count, one.domains.len(), one.other_domains), (2_000, DOMAINS_MAX, 1_950));
        assert_eq!(one.examples.len(), EXAMPLES_MAX);
        let by_domain = "fn route(d) { d.recipient_domain }";
        let sorts = compared("fn route(d) { }", by_domain, many.clone());
        assert_eq!((sorts.list().len(), sorts.not_kept()), (SORTS_MAX, 1_800));
        let throws = compared("fn route(d) { }", "fn route(d) { throw d.recipient_domain }", many);
        assert_eq!((throws.mistakes().len(), throws.tally().errors), (ERRORS_MAX, 2_000));
    }
}
