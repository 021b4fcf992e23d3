//! The facts that a case gives, as they are written: every property of `delivery` under its own name.
//!
//! Only what matters needs to be given. What stands in the `[defaults]` of a file holds for all its cases, unless a case
//! says otherwise.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use toml::de::DeValue;

use crate::address::{Domain, LocalPart, Mailbox};
use crate::attempt::Level;
use crate::config::{
    Placed, Problem, Reader, SIZE_FORM, Section, Wrong, parse_duration, read_number, read_size, read_value,
};
use crate::control::assumed_outcome;
use crate::envelope::ReversePath;
use crate::names::{AccountName, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

/// Highest number of an attempt, and most attempts that one case stands for.
const ATTEMPT_MAX: u64 = 1_000;
const ATTEMPTS_IN_A_CASE_MAX: usize = 100;
/// The day of a case that says only the time of day: a Wednesday.
const DAY_DEFAULT: civil::Date = civil::date(2026, 1, 7);

/// Keys that people guess, and what is right.
pub(super) const GUESSES: &[(&str, &str)] = &[
    ("from", "did you mean `sender`?"),
    ("mail_from", "did you mean `sender`?"),
    ("to", "did you mean `recipient`?"),
    ("rcpt_to", "did you mean `recipient`?"),
    ("time", "did you mean `now`?"),
    ("date", "did you mean `now`?"),
    ("subject", "header fields stand in `header`: header = { Subject = \"hello\" }"),
    ("previous", "did you mean `last`?"),
    ("code", "how the previous attempt ended stands in `last`: last = { code = 451 }"),
    ("enhanced", "how the previous attempt ended stands in `last`: last = { enhanced = \"4.7.1\" }"),
    ("stage", "how the previous attempt ended stands in `last`: last = { stage = \"connect\" }"),
    ("transport", "what is expected stands in `expect`: expect = \"smarthost\""),
    (
        "level",
        "what is expected stands in `expect`: expect = { transport = \"smarthost\", level = \"domain\" }",
    ),
    ("nothing", "what is expected stands in `expect`: expect = \"nothing\""),
    ("error", "what is expected stands in `expect`: expect = { error = \"no property\" }"),
];

/// What is given. `None` means that nothing was said.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) attempts: Option<Placed<Vec<u32>>>,
    pub(super) account: Option<Placed<Option<AccountName>>>,
    pub(super) sender: Option<Placed<ReversePath>>,
    pub(super) sender_local: Option<Placed<LocalPart>>,
    pub(super) sender_domain: Option<Placed<Domain>>,
    pub(super) foreign_sender: Option<Placed<bool>>,
    pub(super) recipient: Option<Placed<Mailbox>>,
    pub(super) recipient_local: Option<Placed<LocalPart>>,
    pub(super) recipient_domain: Option<Placed<Domain>>,
    pub(super) size: Option<Placed<u64>>,
    pub(super) age: Option<Placed<Duration>>,
    pub(super) expires_in: Option<Placed<Duration>>,
    pub(super) message_id: Option<Placed<Option<String>>>,
    pub(super) is_dsn: Option<Placed<bool>>,
    pub(super) smtputf8: Option<Placed<bool>>,
    pub(super) require_tls: Option<Placed<bool>>,
    pub(super) mx: Option<Placed<Option<Vec<String>>>>,
    pub(super) header: Option<Placed<Vec<(String, String)>>>,
    pub(super) last: Option<Placed<Past>>,
    pub(super) history: Option<Placed<Vec<Past>>>,
    pub(super) now: Option<Placed<Timestamp>>,
}

/// A previous attempt.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) transport: Option<TransportName>,
    pub(super) level: Option<Level>,
    pub(super) at: Option<Timestamp>,
    pub(super) outcome: Outcome,
}

impl Given {
    /// Reads the facts of a section, which may have other keys too.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let given = Self {
            attempts: read(section, "attempt", "a number such as 4, a range such as \"1..3\"", attempts),
            account: read(section, "account", "the name of an account, or false for none", |value| {
                or_none(value, AccountName::new)
            }),
            sender: section.placed("sender", "an address, or \"\" for the null sender", reverse_path),
            sender_local: section.placed("sender_local", LOCAL_FORM, LocalPart::from_unquoted),
            sender_domain: section.placed("sender_domain", DOMAIN_FORM, Domain::parse_or_literal),
            foreign_sender: read(section, "foreign_sender", "true or false", flag),
            recipient: section.placed("recipient", "an address such as \"bob@example.net\"", Mailbox::parse),
            recipient_local: section.placed("recipient_local", LOCAL_FORM, LocalPart::from_unquoted),
            recipient_domain: section.placed("recipient_domain", DOMAIN_FORM, Domain::parse_or_literal),
            size: read(section, "size", SIZE_FORM, read_size),
            age: read(section, "age", SECONDS_FORM, seconds),
            expires_in: read(section, "expires_in", SECONDS_FORM, seconds),
            message_id: read(section, "message_id", "text, or false for none", |value| {
                or_none(value, |text| Ok::<_, String>(text.trim_matches(['<', '>']).to_owned()))
            }),
            is_dsn: read(section, "is_dsn", "true or false", flag),
            smtputf8: read(section, "smtputf8", "true or false", flag),
            require_tls: read(section, "require_tls", "true or false", flag),
            mx: mx(section),
            header: header(section),
            last: past(section, "last"),
            history: history(section),
            now: read(section, "now", TIME_FORM, time),
        };
        given.check_parts(section.reader);
        given
    }

    /// An address and its parts say the same thing twice, and so do the history and its last attempt.
    fn check_parts(&self, reader: &Reader) {
        let place = |parts: [Option<Range<usize>>; 2]| parts.into_iter().flatten().next();
        let of = |part: &Option<Placed<LocalPart>>| part.as_ref().map(|part| part.place.clone());
        let domain = |part: &Option<Placed<Domain>>| part.as_ref().map(|part| part.place.clone());
        let twice = |whole: &str, at: &Range<usize>, part: Option<Range<usize>>| {
            let Some(part) = part else { return };
            let message = format!("`{whole}` is given as a whole and in parts");
            let problem = Problem::new(part, message, "a part of it").also(at.clone(), "the whole");
            reader.report(problem.help("leave one of them out: what is not given has a default"));
        };
        if let Some(whole) = &self.sender {
            twice("sender", &whole.place, place([of(&self.sender_local), domain(&self.sender_domain)]));
        }
        if let Some(whole) = &self.recipient {
            let parts = place([of(&self.recipient_local), domain(&self.recipient_domain)]);
            twice("recipient", &whole.place, parts);
        }
        if let (Some(whole), Some(last)) = (&self.history, &self.last) {
            twice("history", &whole.place, Some(last.place.clone()));
        }
    }

    /// What this says, and for all that it does not say, what `defaults` say.
    pub(super) fn or(self, defaults: &Self) -> Self {
        let mut under = defaults.clone();
        // A whole replaces whole and parts; a part replaces that part.
        if self.sender.is_some() {
            (under.sender_local, under.sender_domain) = (None, None);
        }
        if self.recipient.is_some() {
            (under.recipient_local, under.recipient_domain) = (None, None);
        }
        if self.last.is_some() || self.history.is_some() {
            (under.last, under.history) = (None, None);
        }
        Self {
            attempts: self.attempts.or(under.attempts),
            account: self.account.or(under.account),
            sender: self.sender.or(under.sender),
            sender_local: self.sender_local.or(under.sender_local),
            sender_domain: self.sender_domain.or(under.sender_domain),
            foreign_sender: self.foreign_sender.or(under.foreign_sender),
            recipient: self.recipient.or(under.recipient),
            recipient_local: self.recipient_local.or(under.recipient_local),
            recipient_domain: self.recipient_domain.or(under.recipient_domain),
            size: self.size.or(under.size),
            age: self.age.or(under.age),
            expires_in: self.expires_in.or(under.expires_in),
            message_id: self.message_id.or(under.message_id),
            is_dsn: self.is_dsn.or(under.is_dsn),
            smtputf8: self.smtputf8.or(under.smtputf8),
            require_tls: self.require_tls.or(under.require_tls),
            mx: self.mx.or(under.mx),
            header: self.header.or(under.header),
            last: self.last.or(under.last),
            history: self.history.or(under.history),
            now: self.now.or(under.now),
        }
    }
}

const LOCAL_FORM: &str = "the part of an address before the @";
const DOMAIN_FORM: &str = "a domain such as \"example.net\"";
const TIME_FORM: &str = "a time such as \"2026-11-22T03:00:00Z\", \"2026-11-22\" or \"03:00\"";
const PAST_FORM: &str = "an answer such as \"451 4.7.1 greylisted\" or \"connect\", or a table such as { transport = \"direct\", code = 451 }";
/// Seconds as scripts see them, or with a unit.
const SECONDS_FORM: &str = "a number of seconds, or a duration such as \"20m\" or \"4h\"";

/// Reads a key and keeps its place.
fn read<'a, T>(
    section: &mut Section<'a>,
    key: &'static str,
    expected: &str,
    read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Wrong>,
) -> Option<Placed<T>> {
    let place = section.get(key)?.span();
    section.read(key, expected, read).map(|value| Placed { value, place })
}

fn flag(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or(Wrong::Kind)
}

/// Text, or `false` for "there is none".
fn or_none<T, E: std::fmt::Display>(
    value: &DeValue<'_>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, Wrong> {
    if value.as_bool() == Some(false) {
        return Ok(None);
    }
    let text = value.as_str().ok_or(Wrong::Kind)?;
    parse(text).map(Some).map_err(|error| Wrong::Value(Some(error.to_string())))
}

/// The null sender is written as scripts see it, `""`, or as SMTP writes it, `"<>"`.
fn reverse_path(text: &str) -> Result<ReversePath, String> {
    if matches!(text, "" | "<>") {
        return Ok(ReversePath::Null);
    }
    Mailbox::parse(text).map(ReversePath::Mailbox).map_err(|error| format!("{text:?}: {error}"))
}

/// `4`, `"1..3"` with both ends, or `[1, 4]`.
fn attempts(value: &DeValue<'_>) -> Result<Vec<u32>, Wrong> {
    let range = || 1..=ATTEMPT_MAX;
    if let Some(array) = value.as_array() {
        let numbers = array.iter().map(|item| Ok(read_number(item.get_ref(), &range())? as u32));
        let numbers = numbers.collect::<Result<Vec<u32>, Wrong>>()?;
        return if numbers.is_empty() {
            Err(Wrong::Value(Some("no attempt at all".to_owned())))
        } else {
            few(numbers)
        };
    }
    let Some(text) = value.as_str() else {
        let outside = || Wrong::Value(Some(format!("attempts count from 1 to {ATTEMPT_MAX}")));
        let number = read_number(value, &range());
        return match number {
            Ok(number) => Ok(vec![number as u32]),
            Err(Wrong::Value(_)) => Err(outside()),
            Err(Wrong::Kind) => Err(Wrong::Kind),
        };
    };
    let Some(range) = attempt_range(text) else { return Err(Wrong::Value(None)) };
    if range.is_empty() {
        return Err(Wrong::Value(Some(format!("{text:?} has no attempt in it"))));
    }
    few(range.take(ATTEMPTS_IN_A_CASE_MAX + 1).collect())
}

fn few(numbers: Vec<u32>) -> Result<Vec<u32>, Wrong> {
    if numbers.len() > ATTEMPTS_IN_A_CASE_MAX {
        return Err(Wrong::Value(Some(format!("more than {ATTEMPTS_IN_A_CASE_MAX} attempts in one case"))));
    }
    Ok(numbers)
}

fn attempt_range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        text.trim().parse::<u32>().ok().filter(|number| (1..=ATTEMPT_MAX).contains(&u64::from(*number)))
    };
    match text.split_once("..").or_else(|| text.split_once('-')) {
        Some((from, to)) => Some(number(from)?..=number(to.strip_prefix('=').unwrap_or(to))?),
        None => number(text).map(|number| number..=number),
    }
}

fn seconds(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    if value.is_integer() {
        return read_number(value, &(0..=u64::from(u32::MAX))).map(Duration::from_secs);
    }
    parse_duration(value.as_str().ok_or(Wrong::Kind)?).ok_or(Wrong::Value(None))
}

/// TOML's own times, or text. Times are in UTC, as scripts see them.
fn time(value: &DeValue<'_>) -> Result<Timestamp, Wrong> {
    let text = match value {
        DeValue::Datetime(time) => time.to_string(),
        DeValue::String(text) => text.to_string(),
        _ => return Err(Wrong::Kind),
    };
    let utc = |time: civil::DateTime| TimeZone::UTC.to_timestamp(time).ok();
    let point = text.parse::<Timestamp>().ok();
    let point = point.or_else(|| utc(DAY_DEFAULT.to_datetime(text.parse::<civil::Time>().ok()?)));
    point.or_else(|| utc(text.parse::<civil::DateTime>().ok()?)).ok_or(Wrong::Value(None))
}

/// Host names; none at all; or `false`: there was no answer, so that a script that reads them fails.
fn mx(section: &mut Section<'_>) -> Option<Placed<Option<Vec<String>>>> {
    let place = section.get("mx")?.span();
    if section.get("mx")?.get_ref().as_bool() == Some(false) {
        return Some(Placed { value: None, place });
    }
    let form = "host names such as [\"mx1.example.net\"], [] for none, or false for no answer";
    let hosts = section.list("mx", form, Domain::parse);
    let hosts = hosts.into_iter().map(|host| host.value.to_string()).collect();
    Some(Placed { value: Some(hosts), place })
}

/// `header = { Subject = "hello", Received = ["one", "two"] }`
fn header(section: &mut Section<'_>) -> Option<Placed<Vec<(String, String)>>> {
    let value = section.get("header")?;
    let (reader, place) = (section.reader, value.span());
    let table = reader.table("header", place.clone(), value)?;
    let mut fields = Vec::new();
    for (name, name_place, value) in table.entries() {
        // RFC 5322 §2.2: printable ASCII without the colon.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            let message = format!("{name:?} is not the name of a header field");
            reader.report(Problem::new(name_place, message, "printable ASCII without a colon"));
            continue;
        }
        let items = value.get_ref().as_array().map_or_else(|| vec![value], |array| array.iter().collect());
        for item in items {
            let text = read_value(reader, name, "text, or an array of texts", item, |value| {
                value.as_str().map(str::to_owned).ok_or(Wrong::Kind)
            });
            fields.extend(text.map(|text| (name.to_owned(), text)));
        }
    }
    Some(Placed { value: fields, place })
}

fn past(section: &mut Section<'_>, key: &'static str) -> Option<Placed<Past>> {
    let value = section.get(key)?;
    Some(Placed { value: one_past(section.reader, key, value)?, place: value.span() })
}

fn history(section: &mut Section<'_>) -> Option<Placed<Vec<Past>>> {
    let value = section.get("history")?;
    let Some(array) = value.get_ref().as_array() else {
        let message = "`history` must be an array, oldest attempt first";
        section.reader.report(
            Problem::new(value.span(), message, "expected [ ... ]")
                .help("for the previous attempt alone write `last`"),
        );
        return None;
    };
    let all: Vec<Past> = array.iter().filter_map(|item| one_past(section.reader, "history", item)).collect();
    Some(Placed { value: all, place: value.span() })
}

/// A previous attempt in short form (its answer) or as a table.
fn one_past(reader: &Reader, key: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Past> {
    if value.get_ref().is_table() {
        return past_table(reader, key, value);
    }
    let outcome = read_value(reader, key, PAST_FORM, value, |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        assumed_outcome(text).map_err(|error| Wrong::Value(Some(error)))
    })?;
    Some(Past { transport: None, level: None, at: None, outcome })
}

fn past_table(reader: &Reader, key: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Past> {
    let mut table = reader.table(key, value.span(), value)?;
    let transport = table.parsed("transport", "the name of a transport", TransportName::new);
    let level = table.parsed("level", "who decided", level);
    let at = table.read("at", TIME_FORM, time);
    let host =
        table.parsed("host", "the name of the peer", |text| Domain::parse(text).map(|d| d.to_string()));
    let ip = table.parsed("ip", "the address of the peer", str::parse::<IpAddr>);
    let tls = table.parsed("tls", "protocol and cipher", |text| Ok::<_, String>(text.to_owned()));
    let stage = table.placed("stage", "how far it came", stage);
    let code = read(&mut table, "code", "a reply code from 400 to 599, or false for no answer", |value| {
        if value.as_bool() == Some(false) {
            return Ok(None);
        }
        read_number(value, &(400..=599)).map(|code| Some(code as u16))
    });
    let enhanced =
        table.placed("enhanced", "an enhanced status code such as \"4.7.1\"", str::parse::<EnhancedCode>);
    let text = table.parsed("text", "text", |text| Ok::<_, String>(text.to_owned()));
    table.finish();
    check_past(reader, stage.as_ref(), code.as_ref(), enhanced.as_ref());
    let spoke = code.as_ref().is_some_and(|code| code.value.is_some());
    let stage = stage.map_or(Stage::Rcpt, |stage| stage.value);
    let silent = matches!(stage, Stage::Dns | Stage::Connect | Stage::Tls) && !spoke;
    let ours = match stage {
        Stage::Dns => (EnhancedCode::new(4, 4, 3), "dns failed"),
        Stage::Connect => (EnhancedCode::new(4, 4, 1), "connect failed"),
        Stage::Tls => (EnhancedCode::new(4, 7, 5), "tls failed"),
        _ if code.is_none() || spoke => (EnhancedCode::new(4, 0, 0), "try again later"),
        _ => (EnhancedCode::new(4, 4, 2), "timed out"),
    };
    let outcome = Outcome {
        host,
        ip,
        tls,
        code: code.map_or(if silent { None } else { Some(451) }, |code| code.value),
        ..Outcome::ours(
            Verdict::Temporary,
            stage,
            enhanced.map_or(ours.0, |enhanced| enhanced.value),
            text.unwrap_or_else(|| ours.1.to_owned()),
        )
    };
    Some(Past { transport, level, at, outcome })
}

/// After a permanent failure there is no further attempt, and what an attempt ended with is 4.x.x.
fn check_past(
    reader: &Reader,
    stage: Option<&Placed<Stage>>,
    code: Option<&Placed<Option<u16>>>,
    enhanced: Option<&Placed<EnhancedCode>>,
) {
    // What is said before MAIL, or about the login, is between two servers and no word about the message.
    let before_mail = stage.is_some_and(|stage| {
        matches!(stage.value, Stage::Connect | Stage::Tls | Stage::Greeting | Stage::Auth)
    });
    let about_login = |code: u16| matches!(code, 530 | 534 | 535 | 538);
    if let Some(Placed { value: Some(number), place }) = code
        && *number >= 500
        && !before_mail
        && !about_login(*number)
    {
        let message = format!("after {number} the message bounces, and there is no further attempt");
        let problem = Problem::new(place.clone(), message, "a reply for good");
        reader.report(problem.help("a previous attempt ended with 4xx, or with no answer: code = false"));
    }
    if let Some(Placed { value, place }) = enhanced
        && value.class != 4
    {
        let message = format!("after {value} there is no further attempt");
        let problem = Problem::new(place.clone(), message, "for good");
        reader.report(
            problem.help(format!("a previous attempt ended with 4.{}.{}", value.subject, value.detail)),
        );
    }
}

/// A level by its name.
pub(super) fn level(text: &str) -> Result<Level, String> {
    let all = [Level::Account, Level::Domain, Level::Global, Level::Default, Level::Override, Level::Local];
    named(text, &all, Level::as_str)
}

fn stage(text: &str) -> Result<Stage, String> {
    let all = [
        Stage::Dns,
        Stage::Connect,
        Stage::Tls,
        Stage::Greeting,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
    ];
    named(text, &all, Stage::as_str)
}

/// One of a closed set by its name.
pub(super) fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        match crate::config::nearest(text, names.iter().copied()) {
            Some(near) => format!("{text:?} is unknown; did you mean {near:?}?"),
            None => format!("{text:?} is none of {}", names.join(", ")),
        }
    })
}
