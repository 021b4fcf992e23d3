//! From what a case gives to all facts of a delivery: a default for the rest, and an error for what cannot be.
//!
//! The defaults are those of an everyday message: `sender@example.org` to `recipient@example.net`, small, sent by nobody
//! who logged in, on a Wednesday at noon. An account's script is asked for that account's mail, a domain's script for
//! that domain's. The attempts before are taken to have gone direct and to have ended with 451, as far apart as the
//! queue's schedule has them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::given::{Given, Past};
use crate::address::{Domain, LocalPart, Mailbox};
use crate::attempt::{Attempt, Decision, Level};
use crate::config::{Placed, Problem, RetrySchedule};
use crate::envelope::ReversePath;
use crate::names::{AccountName, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::queue::schedule::wait_after;
use crate::route::Facts;

/// 2026-01-07 12:00 UTC, a Wednesday.
const NOW_DEFAULT: Timestamp = Timestamp::constant(1_767_787_200, 0);
const SENDER: (&str, &str) = ("sender", "example.org");
const RECIPIENT: (&str, &str) = ("recipient", "example.net");
const MESSAGE_ID: &str = "message@example.org";

/// Whose script is asked: its mail is what the cases are about.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    /// With the script of an account.
    pub(super) account: Option<AccountName>,
    /// With the script of a domain.
    pub(super) domain: Option<Domain>,
    /// That script alone is asked, so that other mail makes no sense.
    pub(super) alone: bool,
}

/// All facts of one attempt.
pub(super) fn facts(given: &Given, subject: &Subject, attempt: u32) -> Result<Facts, Box<Problem>> {
    let is_dsn = given.is_dsn.as_ref().is_some_and(|flag| flag.value);
    let sender = sender(given, subject, is_dsn)?;
    let recipient = recipient(given)?;
    let mut facts = Facts::new(sender, recipient, value(given.now.as_ref()).unwrap_or(NOW_DEFAULT));
    facts.attempt = attempt;
    facts.account = account(given, subject, is_dsn)?;
    facts.is_dsn = is_dsn;
    facts.local_sender_domain = !value(given.foreign_sender.as_ref()).unwrap_or(false);
    facts.size = value(given.size.as_ref()).unwrap_or(facts.size);
    facts.require_tls = value(given.require_tls.as_ref()).unwrap_or(false);
    facts.smtputf8 = smtputf8(given, &facts)?;
    let mx = || Some(vec![format!("mx.{}", facts.recipient.domain)]);
    facts.mx = value(given.mx.as_ref()).unwrap_or_else(mx);
    facts.header = header(given);
    let message_id = facts.header_field("message-id").map(|id| id.trim_matches(['<', '>']).to_owned());
    facts.message_id = value(given.message_id.as_ref())
        .unwrap_or_else(|| Some(message_id.unwrap_or_else(|| MESSAGE_ID.to_owned())));
    let schedule = RetrySchedule::default();
    facts.age = value(given.age.as_ref()).unwrap_or_else(|| age_by(&schedule, attempt));
    let left = || schedule.give_up_after.saturating_sub(facts.age);
    facts.expires_in = value(given.expires_in.as_ref()).unwrap_or_else(left);
    facts.history = history(given, &facts, &schedule)?.into();
    Ok(facts)
}

fn value<T: Clone>(placed: Option<&Placed<T>>) -> Option<T> {
    placed.map(|placed| placed.value.clone())
}

fn place<T>(placed: Option<&Placed<T>>) -> Range<usize> {
    placed.map_or(0..0, |placed| placed.place.clone())
}

/// An address from its parts.
fn mailbox(
    default: (&str, &str),
    local: Option<LocalPart>,
    domain: Option<Domain>,
    at: Range<usize>,
) -> Result<Mailbox, Box<Problem>> {
    let wrong =
        |error| Box::new(Problem::new(at.clone(), format!("no address: {error}"), "from these parts"));
    let local = local.map_or_else(|| LocalPart::from_unquoted(default.0), Ok).map_err(wrong)?;
    let domain = domain.map_or_else(|| Domain::parse(default.1), Ok).map_err(wrong)?;
    Ok(Mailbox { local, domain })
}

fn sender(given: &Given, subject: &Subject, is_dsn: bool) -> Result<ReversePath, Box<Problem>> {
    let parts = given.sender_local.is_some() || given.sender_domain.is_some();
    let sender = match &given.sender {
        Some(whole) if !parts || whole.value == ReversePath::Null => whole.value.clone(),
        None if is_dsn && !parts => ReversePath::Null,
        whole => {
            let whole = whole.as_ref().and_then(|whole| whole.value.mailbox());
            let local = value(given.sender_local.as_ref()).or_else(|| whole.map(|whole| whole.local.clone()));
            let domain =
                value(given.sender_domain.as_ref()).or_else(|| whole.map(|whole| whole.domain.clone()));
            let domain = domain.or_else(|| subject.domain.clone());
            ReversePath::Mailbox(mailbox(SENDER, local, domain, place(given.sender_local.as_ref()))?)
        }
    };
    let at = [
        place(given.sender.as_ref()),
        place(given.sender_domain.as_ref()),
        place(given.sender_local.as_ref()),
    ];
    let at = at.into_iter().find(|place| !place.is_empty()).unwrap_or(0..0);
    if is_dsn && sender != ReversePath::Null {
        let message = "a delivery report of this server has the null sender";
        let problem = Problem::new(at, message, "not null");
        return Err(problem.also(place(given.is_dsn.as_ref()), "a delivery report").into());
    }
    let domain = sender.mailbox().map(|mailbox| &mailbox.domain);
    if let Some(ours) = subject.domain.as_ref().filter(|ours| subject.alone && domain != Some(ours)) {
        let message = format!("the script of {ours} is not asked for this sender");
        let problem = Problem::new(at, message, format!("expected an address in {ours}"));
        return Err(problem.help("with `ask = \"chain\"` a case asks all levels, for any sender").into());
    }
    if subject.alone && subject.domain.is_some() && value(given.foreign_sender.as_ref()) == Some(true) {
        let message = "the script of a domain is not asked when the sender's domain is foreign";
        return Err(Problem::new(place(given.foreign_sender.as_ref()), message, "foreign").into());
    }
    Ok(sender)
}

fn recipient(given: &Given) -> Result<Mailbox, Box<Problem>> {
    let whole = given.recipient.as_ref().map(|whole| &whole.value);
    let local = value(given.recipient_local.as_ref()).or_else(|| whole.map(|whole| whole.local.clone()));
    let domain = value(given.recipient_domain.as_ref()).or_else(|| whole.map(|whole| whole.domain.clone()));
    mailbox(RECIPIENT, local, domain, place(given.recipient_local.as_ref()))
}

fn account(given: &Given, subject: &Subject, is_dsn: bool) -> Result<Option<AccountName>, Box<Problem>> {
    let default = || subject.account.clone().filter(|_| subject.alone || !is_dsn);
    let account = value(given.account.as_ref()).unwrap_or_else(default);
    if is_dsn && account.is_some() {
        let message = "a delivery report of this server is sent by no account";
        let at = if given.account.is_some() {
            place(given.account.as_ref())
        } else {
            place(given.is_dsn.as_ref())
        };
        return Err(Problem::new(at, message, "has no account").into());
    }
    match &subject.account {
        Some(ours) if subject.alone && account.as_ref() != Some(ours) => {
            let message = format!("the script of account {ours} is asked for mail of that account alone");
            let problem =
                Problem::new(place(given.account.as_ref()), message, format!("expected {:?}", ours.as_str()));
            Err(problem.help("with `ask = \"chain\"` a case asks all levels, for any account").into())
        }
        _ => Ok(account),
    }
}

/// RFC 6531 §3.4: a message needs SMTPUTF8 when an address does, and may need it for its header.
fn smtputf8(given: &Given, facts: &Facts) -> Result<bool, Box<Problem>> {
    let needed =
        facts.recipient.needs_smtputf8() || facts.sender.mailbox().is_some_and(Mailbox::needs_smtputf8);
    match &given.smtputf8 {
        Some(flag) if needed && !flag.value => {
            let message = "an address with letters beyond ASCII needs SMTPUTF8";
            Err(Problem::new(flag.place.clone(), message, "expected true").into())
        }
        flag => Ok(flag.as_ref().map_or(needed, |flag| flag.value)),
    }
}

fn header(given: &Given) -> Bytes {
    let mut header = String::new();
    for (name, value) in given.header.iter().flat_map(|fields| &fields.value) {
        // One field each: a line break in it would begin another.
        let value = value.replace(['\r', '\n'], " ");
        header.extend([name.as_str(), ": ", &value, "\r\n"]);
    }
    Bytes::from(header + "\r\n")
}

/// How old a message is when an attempt is made, by the queue's schedule without chance.
fn age_by(schedule: &RetrySchedule, attempt: u32) -> Duration {
    (1..attempt).map(|number| wait_after(schedule, number)).sum()
}

/// The attempts before this one: as many as its number says.
fn history(given: &Given, facts: &Facts, schedule: &RetrySchedule) -> Result<Vec<Attempt>, Box<Problem>> {
    let before = facts.attempt - 1;
    if let Some(last) = given.last.as_ref().filter(|_| before == 0) {
        let problem =
            Problem::new(last.place.clone(), "the first attempt has none before it", "the last one");
        return Err(match &given.attempts {
            Some(attempts) => problem.also(attempts.place.clone(), "the first attempt").into(),
            None => problem.into(),
        });
    }
    if let Some(history) = given.history.as_ref().filter(|history| history.value.len() != before as usize) {
        let number = history.value.len() + 1;
        let message = format!("with this history it is attempt {number}, not attempt {}", facts.attempt);
        let problem = Problem::new(history.place.clone(), message, "the attempts before")
            .help("`attempt` may be left out: it is one more than the history has");
        return Err(match &given.attempts {
            Some(attempts) => problem.also(attempts.place.clone(), "the attempt").into(),
            None => problem.into(),
        });
    }
    let total = age_by(schedule, facts.attempt).as_secs_f64();
    let at = |number: u32| {
        let part = if total > 0.0 { age_by(schedule, number).as_secs_f64() / total } else { 0.0 };
        let ago = facts.age.mul_f64(1.0 - part);
        facts.now.checked_sub(Duration::from_secs(ago.as_secs())).unwrap_or(Timestamp::MIN)
    };
    let mut all = Vec::new();
    for number in 1..=before {
        let said = match (&given.history, &given.last) {
            (Some(history), _) => history.value.get(number as usize - 1),
            (None, Some(last)) if number == before => Some(&last.value),
            _ => None,
        };
        all.push(attempt(number, said, at(number)));
    }
    Ok(all)
}

fn attempt(number: u32, said: Option<&Past>, at: Timestamp) -> Attempt {
    let transport = said.and_then(|past| past.transport.clone()).unwrap_or_else(TransportName::direct);
    let usual = if transport == TransportName::direct() { Level::Default } else { Level::Global };
    let level = said.and_then(|past| past.level).unwrap_or(usual);
    let at = said.and_then(|past| past.at).unwrap_or(at);
    let outcome = said.map_or_else(deferred, |past| past.outcome.clone());
    let decision = Some(Decision::without_script(level, transport));
    Attempt { number, at, decision, outcome: Some(outcome), ended: Some(at) }
}

/// How an attempt ended of which nothing is said.
fn deferred() -> Outcome {
    let enhanced = EnhancedCode::new(4, 3, 0);
    Outcome { code: Some(451), ..Outcome::ours(Verdict::Temporary, Stage::Rcpt, enhanced, "try again later") }
}

/// The attempts that a case stands for.
pub(super) fn attempts(given: &Given) -> Vec<u32> {
    match (&given.attempts, &given.history, &given.last) {
        (Some(attempts), ..) => attempts.value.clone(),
        (None, Some(history), _) => {
            vec![u32::try_from(history.value.len()).unwrap_or(u32::MAX).saturating_add(1)]
        }
        (None, None, Some(_)) => vec![2],
        (None, None, None) => vec![1],
    }
}
