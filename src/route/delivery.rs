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
use super::problem::{MESSAGE_BYTES_MAX, nearest, one_line};
use super::value_type::TextOf::{Account, Address, Transport, Word};
use super::value_type::ValueType::{self, List, Optional, Text};
use super::value_type::{DOMAIN, NUMBER, TEXT, TRUTH};
use super::way::Visit;
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
    /// What sort of value it is.
    pub value: ValueType,
    /// What it holds, in a line.
    pub doc: &'static str,
    /// An expression that reads it.
    pub example: &'static str,
}

/// All properties that scripts can read.
pub fn properties() -> Vec<PropertyDoc> {
    fn of<T>(of: &'static str, table: &[Property<T>]) -> impl Iterator<Item = PropertyDoc> {
        table.iter().map(move |property| {
            let Property { name, value, doc, example, .. } = *property;
            PropertyDoc { of, name, value, doc, example }
        })
    }
    of("delivery", DELIVERY).chain(of("attempt", ATTEMPT)).chain(of("time", TIME)).collect()
}

/// A property: its name, what it is for, and how it is computed.
pub(super) struct Property<T: 'static> {
    name: &'static str,
    value: ValueType,
    doc: &'static str,
    example: &'static str,
    get: fn(&mut T) -> Given,
}

/// One evaluation: the facts it reads, and the little that it leaves behind.
pub(super) struct Call {
    pub(super) facts: Arc<Facts>,
    pub(super) log: Mutex<Log>,
    pub(super) steps: Mutex<Option<Steps>>,
    /// The words of the last answer that nobody knows.
    not_known: Mutex<Option<String>>,
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
    /// Every place that was reached, when somebody wants to know.
    pub(super) visits: Option<Vec<Visit>>,
}

impl Call {
    pub(super) fn new(facts: Arc<Facts>, log_lines_max: usize, string_bytes_max: usize) -> Arc<Self> {
        let log = Log { lines_max: log_lines_max, ..Log::default() };
        let (steps, not_known) = (Mutex::new(None), Mutex::new(None));
        Arc::new(Self { facts, log: Mutex::new(log), steps, not_known, string_bytes_max })
    }

    /// Whether an evaluation failed in these words because it asked for what nobody knows.
    pub(super) fn was_not_known(&self, message: &str) -> bool {
        self.not_known.lock().as_deref() == Some(message)
    }

    fn not_known(&self, what: &str) -> Given {
        let what = one_line(what, MESSAGE_BYTES_MAX);
        *self.not_known.lock() = Some(what.clone());
        Err(what.into())
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
    ($name:literal, $value:expr, $doc:literal, $example:literal, |$this:ident| $get:expr) => {
        Property { name: $name, value: $value, doc: $doc, example: $example, get: |$this| Ok($get) }
    };
    ($name:literal, $value:expr, $doc:literal, $example:literal, try $get:path) => {
        Property { name: $name, value: $value, doc: $doc, example: $example, get: $get }
    };
}

/// Properties of `delivery`.
const DELIVERY: &[Property<Delivery>] = &[
    property!(
        "attempt",
        NUMBER,
        "number of the attempt that is to be made, from 1",
        "delivery.attempt >= 4",
        |d| number(d.0.facts.attempt.into())
    ),
    property!(
        "account",
        Optional(&Text(Account)),
        "account that sent it, or () when nobody logged in",
        "delivery.account == \"billing\"",
        |d| optional(d.0.facts.account.as_ref().map(crate::names::AccountName::as_str))
    ),
    property!(
        "sender",
        Text(Address),
        "reverse-path; \"\" for the null sender",
        "delivery.sender == \"news@example.org\"",
        |d| text(&d.0.facts.sender.to_string())
    ),
    property!(
        "sender_local",
        TEXT,
        "part of the sender before the @, without quotes; \"\" for the null sender",
        "delivery.sender_local == \"news\"",
        |d| text(d.0.facts.sender.mailbox().map_or("", |m| m.local.as_str()))
    ),
    property!(
        "sender_domain",
        DOMAIN,
        "part of the sender after the @; \"\" for the null sender",
        "delivery.sender_domain == \"example.org\"",
        |d| text(d.0.facts.sender.mailbox().map_or("", |m| m.domain.as_str()))
    ),
    property!("recipient", Text(Address), "forward-path", "delivery.recipient == \"ann@example.net\"", |d| {
        text(&d.0.facts.recipient.to_string())
    }),
    property!(
        "recipient_local",
        TEXT,
        "part of the recipient before the @, without quotes",
        "delivery.recipient_local == \"postmaster\"",
        |d| text(d.0.facts.recipient.local.as_str())
    ),
    property!(
        "recipient_domain",
        DOMAIN,
        "part of the recipient after the @",
        "delivery.recipient_domain == \"example.net\"",
        |d| text(d.0.facts.recipient.domain.as_str())
    ),
    property!("size", NUMBER, "bytes of the message", "delivery.size > 20_000_000", |d| number(
        d.0.facts.size
    )),
    property!("age", NUMBER, "seconds since the message was accepted", "delivery.age > 3600", |d| number(
        d.0.facts.age.as_secs()
    )),
    property!("expires_in", NUMBER, "seconds until it is given up", "delivery.expires_in < 6 * 3600", |d| {
        number(d.0.facts.expires_in.as_secs())
    }),
    property!(
        "message_id",
        Optional(&TEXT),
        "Message-Id without angle brackets, or ()",
        "delivery.message_id != ()",
        |d| optional(d.0.facts.message_id().as_deref())
    ),
    property!("is_dsn", TRUTH, "whether it is a delivery report of this server", "delivery.is_dsn", |d| d
        .0
        .facts
        .is_dsn
        .into()),
    property!("smtputf8", TRUTH, "whether it needs SMTPUTF8", "!delivery.smtputf8", |d| d
        .0
        .facts
        .smtputf8
        .into()),
    property!("require_tls", TRUTH, "whether it was sent with REQUIRETLS", "delivery.require_tls", |d| d
        .0
        .facts
        .require_tls
        .into()),
    property!("mx", List(&DOMAIN), "host names of the recipient domain's MX, best first", "delivery.mx.some(|host| in_domain(host, \".mail.example\"))", try mx),
    property!(
        "last",
        Optional(&ValueType::Attempt),
        "the previous attempt, or ()",
        "delivery.last != () && delivery.last.code == 451",
        |d| {
            let count = d.0.facts.history.len();
            count.checked_sub(1).map_or(Dynamic::UNIT, |last| past(d, last))
        }
    ),
    property!(
        "history",
        List(&ValueType::Attempt),
        "all previous attempts, oldest first",
        "delivery.history.len() >= 3",
        |d| {
            let all: Vec<Dynamic> = (0..d.0.facts.history.len()).map(|index| past(d, index)).collect();
            all.into()
        }
    ),
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
        None => {
            let domain = &facts.recipient.domain;
            delivery.0.not_known(&format!("delivery.mx is not known: no MX answer for {domain}"))
        }
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
    property!(
        "transport",
        Optional(&Text(Transport)),
        "name of the transport that was used",
        "attempt.transport == \"direct\"",
        |a| {
            let decision = a.record().and_then(|r| r.decision.as_ref());
            optional(decision.map(|d| d.transport.as_str()))
        }
    ),
    property!(
        "level",
        Optional(&Text(Word(&["account", "domain", "global", "default", "override", "local"]))),
        "who decided: \"account\", \"domain\", \"global\", \"default\", \"override\" or \"local\"",
        "attempt.level == \"override\"",
        |a| optional(a.record().and_then(|r| r.decision.as_ref()).map(|d| d.level.as_str()))
    ),
    property!("at", ValueType::Time, "when it began", "now() - attempt.at > 600", |a| a
        .record()
        .map_or(Dynamic::UNIT, |r| Dynamic::from(Time(r.at)))),
    property!("host", Optional(&TEXT), "name of the peer", "attempt.host == \"mx1.example.net\"", |a| {
        optional(a.outcome().and_then(|o| o.host.as_deref()))
    }),
    property!("ip", Optional(&TEXT), "address of the peer", "attempt.ip == \"192.0.2.7\"", |a| {
        let ip = a.outcome().and_then(|o| o.ip).map(|ip| ip.to_string());
        optional(ip.as_deref())
    }),
    property!("tls", Optional(&TEXT), "protocol and cipher; () in clear text", "attempt.tls == ()", |a| {
        optional(a.outcome().and_then(|o| o.tls.as_deref()))
    }),
    property!(
        "stage",
        Optional(&Text(Word(&["dns", "connect", "tls", "greeting", "auth", "mail", "rcpt", "data"]))),
        "how far it came: \"dns\", \"connect\", \"tls\", \"greeting\", \"auth\", \"mail\", \"rcpt\" or \"data\"",
        "attempt.stage == \"connect\"",
        |a| optional(a.outcome().map(|o| o.stage.as_str()))
    ),
    property!(
        "code",
        Optional(&NUMBER),
        "the peer's reply code, or () when it never answered",
        "attempt.code == 451",
        |a| a.outcome().and_then(|o| o.code).map_or(Dynamic::UNIT, |code| INT::from(code).into())
    ),
    property!(
        "enhanced",
        Optional(&TEXT),
        "enhanced status code such as \"4.7.1\"",
        "attempt.enhanced == \"4.7.1\"",
        |a| {
            let code = a.outcome().and_then(|o| o.enhanced).map(|code| code.to_string());
            optional(code.as_deref())
        }
    ),
    property!(
        "text",
        Optional(&TEXT),
        "the peer's words, or ours when it never answered",
        "attempt.text != () && attempt.text.contains(\"greylist\")",
        |a| optional(a.outcome().map(|o| o.text.as_str()))
    ),
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
    property!("unix", NUMBER, "seconds since 1970-01-01 00:00 UTC", "now().unix > 1_700_000_000", |t| part(
        t.0.as_second()
    )),
    property!("year", NUMBER, "year", "now().year >= 2026", |t| part(t.civil().year())),
    property!("month", NUMBER, "month, 1 to 12", "now().month == 12", |t| part(t.civil().month())),
    property!("day", NUMBER, "day of the month, 1 to 31", "now().day == 1", |t| part(t.civil().day())),
    property!("hour", NUMBER, "hour, 0 to 23", "now().hour < 6", |t| part(t.civil().hour())),
    property!("minute", NUMBER, "minute, 0 to 59", "now().minute >= 30", |t| part(t.civil().minute())),
    property!("second", NUMBER, "second, 0 to 59", "now().second < 10", |t| part(t.civil().second())),
    property!(
        "weekday",
        NUMBER,
        "day of the week, 1 for Monday to 7 for Sunday (ISO 8601)",
        "now().weekday >= 6",
        |t| part(t.civil().weekday().to_monday_one_offset())
    ),
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
    let unknown = move |name: &str| -> Given {
        if properties.iter().any(|property| property.name == name) {
            return Err(format!("write {type_name}.{name} for the property '{name}'").into());
        }
        let (message, hint) = unknown_property(type_name, name);
        Err(hint.map_or_else(|| message.clone(), |hint| format!("{message}: {hint}")).into())
    };
    engine.register_get("tag", move |_: &mut T| unknown("tag"));
    // Rhai asks the indexer when there is no getter.
    engine.register_indexer_get(move |_: &mut T, name: &str| unknown(name));
}

/// In the words that scripts are written in: what is wrong, and what was probably meant.
pub(super) fn unknown_property(type_name: &str, name: &str) -> (String, Option<String>) {
    let all = properties();
    let hint = if (type_name, name) == ("delivery", "header") {
        Some("it is a function: write delivery.header(name)".to_owned())
    } else {
        let names = all.iter().filter(|property| property.of == type_name).map(|property| property.name);
        nearest(name, names).map(|right| format!("did you mean '{right}'?"))
    };
    (format!("{type_name} has no property '{name}'"), hint)
}

/// The sender of a message chooses its header: what is too long for a script is cut, so that it is no error.
fn header(delivery: &mut Delivery, name: &str) -> Given {
    let call = &delivery.0;
    if !call.facts.knows_header_field(name) {
        let what = format!("delivery.header({name:?}) is not known: the history did not keep this field");
        return call.not_known(&what);
    }
    let Some(mut value) = call.facts.header_field(name) else { return Ok(Dynamic::UNIT) };
    value.truncate(value.floor_char_boundary(call.string_bytes_max));
    Ok(value.into())
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
