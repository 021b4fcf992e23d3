//! The native types that scripts see: `delivery`, a past attempt, a point in time.
//!
//! Each type's properties stand in one table that names, explains and computes them. What scripts can read, the
//! hints for misspelt names and the check of the documentation all come from that table, so they cannot disagree.
//! Whatever is not in the table is an error, never `()`: a misspelt property must not route mail.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rhai::{Dynamic, Engine, EvalAltResult, INT, ImmutableString, Position};

use super::facts::Facts;
use super::problem::{nearest, one_line};
use crate::attempt::Attempt;
use crate::outcome::Outcome;

/// What a getter or a function of ours gives a script.
pub(super) type Given = Result<Dynamic, Box<EvalAltResult>>;

/// Longest line kept of `log(text)`.
const LOG_LINE_BYTES_MAX: usize = 500;

/// What a property is for: the reference for the people who write scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PropertyDoc {
    /// The type that has it: `delivery`, `attempt` or `time`.
    pub of: &'static str,
    /// As scripts write it.
    pub name: &'static str,
    /// What it holds, in a line.
    pub doc: &'static str,
}

/// All properties that scripts can read.
pub fn properties() -> Vec<PropertyDoc> {
    fn of<T>(of: &'static str, table: &[Property<T>]) -> impl Iterator<Item = PropertyDoc> {
        table.iter().map(move |property| PropertyDoc { of, name: property.name, doc: property.doc })
    }
    of("delivery", DELIVERY).chain(of("attempt", ATTEMPT)).chain(of("time", TIME)).collect()
}

/// A property: its name, what it is for, and how it is computed.
pub(super) struct Property<T: 'static> {
    name: &'static str,
    doc: &'static str,
    get: fn(&mut T) -> Given,
}

/// One evaluation: the facts it reads, and the little that it leaves behind.
pub(super) struct Call {
    pub(super) facts: Arc<Facts>,
    pub(super) log: Mutex<Log>,
    pub(super) steps: Mutex<Option<Steps>>,
    string_bytes_max: usize,
}

/// Lines of `log(text)`, bounded.
#[derive(Default)]
pub(super) struct Log {
    lines: Vec<String>,
    dropped: usize,
    lines_max: usize,
}

/// Where an evaluation that is watched has been.
pub(super) struct Steps {
    /// The script's file.
    pub(super) file: Arc<str>,
    /// Where `route` can return.
    pub(super) exits: Arc<[Position]>,
    /// The last of them that was reached.
    pub(super) exit: Option<Position>,
    /// The last place that was reached at all, with its file.
    pub(super) last: Option<(Option<Arc<str>>, Position)>,
}

impl Call {
    pub(super) fn new(facts: Arc<Facts>, log_lines_max: usize, string_bytes_max: usize) -> Arc<Self> {
        let log = Log { lines_max: log_lines_max, ..Log::default() };
        Arc::new(Self { facts, log: Mutex::new(log), steps: Mutex::new(None), string_bytes_max })
    }

    pub(super) fn take_log(&self) -> Vec<String> {
        let mut log = self.log.lock();
        let dropped = std::mem::take(&mut log.dropped);
        let mut lines = std::mem::take(&mut log.lines);
        if dropped > 0 {
            lines.push(format!("({dropped} more lines were not kept)"));
        }
        lines
    }
}

impl Log {
    pub(super) fn push(&mut self, text: &str) {
        if self.lines.len() >= self.lines_max {
            self.dropped += 1;
            return;
        }
        self.lines.push(one_line(text, LOG_LINE_BYTES_MAX));
    }
}

/// What `route` is called with. A clone is the same evaluation.
#[derive(Clone)]
pub(super) struct Delivery(pub(super) Arc<Call>);

/// One of the previous attempts.
#[derive(Clone)]
pub(super) struct PastAttempt {
    facts: Arc<Facts>,
    index: usize,
}

/// A point in time, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Timestamp);

fn text(text: &str) -> Dynamic {
    ImmutableString::from(text).into()
}

fn optional(value: Option<&str>) -> Dynamic {
    value.map_or(Dynamic::UNIT, text)
}

fn number(number: u64) -> Dynamic {
    INT::try_from(number).unwrap_or(INT::MAX).into()
}

macro_rules! property {
    ($name:literal, $doc:literal, |$this:ident| $value:expr) => {
        Property { name: $name, doc: $doc, get: |$this| Ok($value) }
    };
    ($name:literal, $doc:literal, try $get:path) => {
        Property { name: $name, doc: $doc, get: $get }
    };
}

/// Properties of `delivery`.
const DELIVERY: &[Property<Delivery>] = &[
    property!("attempt", "number of the attempt that is to be made, from 1", |d| number(
        d.0.facts.attempt.into()
    )),
    property!("account", "account that sent it, or () when nobody logged in", |d| {
        optional(d.0.facts.account.as_ref().map(crate::names::AccountName::as_str))
    }),
    property!("sender", "reverse-path; \"\" for the null sender", |d| text(&d.0.facts.sender.to_string())),
    property!(
        "sender_local",
        "part of the sender before the @, without quotes; \"\" for the null sender",
        |d| text(d.0.facts.sender.mailbox().map_or("", |m| m.local.as_str()))
    ),
    property!("sender_domain", "part of the sender after the @; \"\" for the null sender", |d| {
        text(d.0.facts.sender.mailbox().map_or("", |m| m.domain.as_str()))
    }),
    property!("recipient", "forward-path", |d| text(&d.0.facts.recipient.to_string())),
    property!("recipient_local", "part of the recipient before the @, without quotes", |d| {
        text(d.0.facts.recipient.local.as_str())
    }),
    property!("recipient_domain", "part of the recipient after the @", |d| {
        text(d.0.facts.recipient.domain.as_str())
    }),
    property!("size", "bytes of the message", |d| number(d.0.facts.size)),
    property!("age", "seconds since the message was accepted", |d| number(d.0.facts.age.as_secs())),
    property!("expires_in", "seconds until it is given up", |d| number(d.0.facts.expires_in.as_secs())),
    property!("message_id", "Message-Id without angle brackets, or ()", |d| optional(
        d.0.facts.message_id.as_deref()
    )),
    property!("is_dsn", "whether it is a delivery report of this server", |d| d.0.facts.is_dsn.into()),
    property!("smtputf8", "whether it needs SMTPUTF8", |d| d.0.facts.smtputf8.into()),
    property!("require_tls", "whether it was sent with REQUIRETLS", |d| d.0.facts.require_tls.into()),
    property!("mx", "host names of the recipient domain's MX, best first", try mx),
    property!("last", "the previous attempt, or ()", |d| {
        let count = d.0.facts.history.len();
        count.checked_sub(1).map_or(Dynamic::UNIT, |last| past(d, last))
    }),
    property!("history", "all previous attempts, oldest first", |d| {
        let all: Vec<Dynamic> = (0..d.0.facts.history.len()).map(|index| past(d, index)).collect();
        all.into()
    }),
];

fn past(delivery: &Delivery, index: usize) -> Dynamic {
    Dynamic::from(PastAttempt { facts: delivery.0.facts.clone(), index })
}

/// An empty list says "this domain has no MX"; not knowing is an error instead.
fn mx(delivery: &mut Delivery) -> Given {
    let facts = &delivery.0.facts;
    match &facts.mx {
        Some(hosts) => {
            let hosts: Vec<Dynamic> =
                hosts.iter().map(|host| Dynamic::from(ImmutableString::from(host.as_str()))).collect();
            Ok(hosts.into())
        }
        None => Err(format!("delivery.mx is not known: no MX answer for {}", facts.recipient.domain).into()),
    }
}

impl PastAttempt {
    fn record(&self) -> Option<&Attempt> {
        self.facts.history.get(self.index)
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.record()?.outcome.as_ref()
    }
}

/// Properties of a past attempt.
const ATTEMPT: &[Property<PastAttempt>] = &[
    property!("transport", "name of the transport that was used", |a| {
        let decision = a.record().and_then(|r| r.decision.as_ref());
        optional(decision.map(|d| d.transport.as_str()))
    }),
    property!(
        "level",
        "who decided: \"account\", \"domain\", \"global\", \"default\", \"override\" or \"local\"",
        |a| optional(a.record().and_then(|r| r.decision.as_ref()).map(|d| d.level.as_str()))
    ),
    property!("at", "when it began", |a| a.record().map_or(Dynamic::UNIT, |r| Dynamic::from(Time(r.at)))),
    property!("host", "name of the peer", |a| optional(a.outcome().and_then(|o| o.host.as_deref()))),
    property!("ip", "address of the peer", |a| {
        let ip = a.outcome().and_then(|o| o.ip).map(|ip| ip.to_string());
        optional(ip.as_deref())
    }),
    property!("tls", "protocol and cipher; () in clear text", |a| {
        optional(a.outcome().and_then(|o| o.tls.as_deref()))
    }),
    property!(
        "stage",
        "how far it came: \"dns\", \"connect\", \"tls\", \"greeting\", \"auth\", \"mail\", \"rcpt\" or \"data\"",
        |a| optional(a.outcome().map(|o| o.stage.as_str()))
    ),
    property!("code", "the peer's reply code, or () when it never answered", |a| {
        a.outcome().and_then(|o| o.code).map_or(Dynamic::UNIT, |code| INT::from(code).into())
    }),
    property!("enhanced", "enhanced status code such as \"4.7.1\"", |a| {
        let code = a.outcome().and_then(|o| o.enhanced).map(|code| code.to_string());
        optional(code.as_deref())
    }),
    property!("text", "the peer's words, or ours when it never answered", |a| {
        optional(a.outcome().map(|o| o.text.as_str()))
    }),
];

impl Time {
    fn civil(self) -> jiff::civil::DateTime {
        TimeZone::UTC.to_datetime(self.0)
    }
}

fn part(number: impl Into<INT>) -> Dynamic {
    number.into().into()
}

/// Properties of a point in time.
const TIME: &[Property<Time>] = &[
    property!("unix", "seconds since 1970-01-01 00:00 UTC", |t| part(t.0.as_second())),
    property!("year", "year", |t| part(t.civil().year())),
    property!("month", "month, 1 to 12", |t| part(t.civil().month())),
    property!("day", "day of the month, 1 to 31", |t| part(t.civil().day())),
    property!("hour", "hour, 0 to 23", |t| part(t.civil().hour())),
    property!("minute", "minute, 0 to 59", |t| part(t.civil().minute())),
    property!("second", "second, 0 to 59", |t| part(t.civil().second())),
    property!("weekday", "day of the week, 1 for Monday to 7 for Sunday (ISO 8601)", |t| {
        part(t.civil().weekday().to_monday_one_offset())
    }),
];

/// Tells an engine about the three types.
pub(super) fn register(engine: &mut Engine) {
    register_type(engine, "delivery", DELIVERY);
    register_type(engine, "attempt", ATTEMPT);
    register_type(engine, "time", TIME);
    engine.register_fn("header", |delivery: &mut Delivery, name: &str| header(delivery, name));
    register_time_operators(engine);
}

fn register_type<T: Clone + Send + Sync + 'static>(
    engine: &mut Engine,
    type_name: &'static str,
    properties: &'static [Property<T>],
) {
    engine.register_type_with_name::<T>(type_name);
    for property in properties {
        engine.register_get(property.name, property.get);
    }
    // Rhai gives every value a property `tag`, which would be 0 here.
    let unknown = move |name: &str| -> Given { Err(unknown_property(type_name, properties, name).into()) };
    engine.register_get("tag", move |_: &mut T| unknown("tag"));
    // Rhai asks the indexer when there is no getter.
    engine.register_indexer_get(move |_: &mut T, name: &str| unknown(name));
}

/// In the words that scripts are written in.
fn unknown_property<T>(type_name: &str, properties: &[Property<T>], name: &str) -> String {
    let names = properties.iter().map(|p| p.name);
    match nearest(name, names) {
        Some(right) if right == name => format!("write {type_name}.{name} for the property '{name}'"),
        Some(right) => format!("{type_name} has no property '{name}': did you mean '{right}'?"),
        None => format!("{type_name} has no property '{name}'"),
    }
}

/// The sender of a message chooses its header: what is too long for a script is cut, so that it is no error.
fn header(delivery: &mut Delivery, name: &str) -> Dynamic {
    let Some(mut value) = delivery.0.facts.header_field(name) else { return Dynamic::UNIT };
    value.truncate(value.floor_char_boundary(delivery.0.string_bytes_max));
    value.into()
}

fn register_time_operators(engine: &mut Engine) {
    engine.register_fn("==", |a: Time, b: Time| a == b);
    engine.register_fn("!=", |a: Time, b: Time| a != b);
    engine.register_fn("<", |a: Time, b: Time| a < b);
    engine.register_fn("<=", |a: Time, b: Time| a <= b);
    engine.register_fn(">", |a: Time, b: Time| a > b);
    engine.register_fn(">=", |a: Time, b: Time| a >= b);
    engine.register_fn("-", |a: Time, b: Time| a.0.as_second() - b.0.as_second());
    engine.register_fn("to_string", |time: &mut Time| time.0.to_string());
    engine.register_fn("to_debug", |time: &mut Time| time.0.to_string());
}
