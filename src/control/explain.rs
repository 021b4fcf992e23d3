//! Which way a message would go, and why: the scripts that the queue asks, on facts that are made up here.
//!
//! An attempt has a past. The attempts before it are gone through one by one: the scripts choose each one's way, and it
//! is taken to have ended as the question says. So the explained attempt sees the history that it would really see.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::handle::check_account;
use super::protocol::{Explained, Fault, FaultKind, PastAttempt, Question};
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::config::{Config, Lookup};
use crate::dns::Resolver;
use crate::names::TransportName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::queue::schedule::wait_after;
use crate::route::{Facts, ScriptSet};

/// Attempts gone through.
const ATTEMPTS_MAX: u32 = 1_000;
/// How attempts are taken to have ended unless the question says otherwise.
const OUTCOME_DEFAULT: &str = "451 4.3.0 assumed by route explain";

/// Explains.
pub async fn explain(
    config: &Config,
    scripts: &ScriptSet,
    resolver: &Resolver,
    question: &Question,
    now: Timestamp,
) -> Result<Explained, Fault> {
    if let Some(account) = &question.account {
        check_account(config, account)?;
    }
    let outcomes = question.last.iter().map(|text| asked_outcome(text)).collect::<Result<Vec<_>, _>>()?;
    let after_last = u32::try_from(outcomes.len()).unwrap_or(u32::MAX).saturating_add(1);
    let attempt = question.attempt.unwrap_or(after_last);
    if !(after_last..=ATTEMPTS_MAX).contains(&attempt) {
        let message = format!(
            "the attempt must be from {after_last} (one more than there are --last) to {ATTEMPTS_MAX}"
        );
        return Err(Fault::new(FaultKind::BadRequest, message));
    }
    let age = |number: u32| -> Duration { (1..number).map(|n| wait_after(&config.queue.retry, n)).sum() };
    let age_seconds = age(attempt).as_secs();
    let expired = age(attempt) > config.queue.retry.give_up_after;
    if !matches!(config.lookup(&question.to), Lookup::Foreign) {
        let transport = Some(TransportName::local());
        let explained = Explained {
            attempt,
            previous: vec![],
            age_seconds,
            expired,
            local: true,
            mx: None,
            trace: None,
            transport,
        };
        return Ok(explained);
    }
    let received = now.checked_sub(age(attempt)).unwrap_or(Timestamp::MIN);
    let base = facts(config, question, received);
    let (mut mx, mut previous, mut history) = (None, Vec::new(), Vec::new());
    for number in 1..attempt {
        let facts = at_attempt(config, &base, number, age(number), &history);
        let facts = with_mx(facts, scripts, resolver, &mut mx).await;
        let decision = scripts.decide(&facts, config).verdict().ok();
        let outcome = outcome_of(&outcomes, number, attempt)?;
        let transport = decision.as_ref().map(|decision| decision.transport.clone());
        previous.push(PastAttempt { number, transport, outcome: shown(&outcome) });
        let (at, ended) = (facts.now, Some(facts.now));
        history.push(Attempt { number, at, decision, outcome: Some(outcome), ended });
    }
    let facts = at_attempt(config, &base, attempt, age(attempt), &history);
    let facts = with_mx(facts, scripts, resolver, &mut mx).await;
    let trace = scripts.explain(&facts, config);
    let transport = trace.verdict().ok().map(|decision| decision.transport);
    Ok(Explained { attempt, previous, age_seconds, expired, local: false, mx, trace: Some(trace), transport })
}

/// Facts with the MX hosts, where a script asks for them; they are looked up once.
async fn with_mx(
    mut facts: Facts,
    scripts: &ScriptSet,
    resolver: &Resolver,
    known: &mut Option<Vec<String>>,
) -> Arc<Facts> {
    if known.is_none() && scripts.wants_mx(&facts) {
        *known = resolver.mx_names(&facts.recipient.domain).await;
    }
    facts.mx.clone_from(known);
    Arc::new(facts)
}

fn facts(config: &Config, question: &Question, received: Timestamp) -> Facts {
    let mut facts = Facts::new(question.from.clone(), question.to.clone(), received);
    let sender_domain = question.from.mailbox().map(|mailbox| &mailbox.domain);
    facts.account.clone_from(&question.account);
    facts.local_sender_domain = sender_domain.is_some_and(|domain| config.domains.contains_key(domain));
    facts.size = question.size.unwrap_or(facts.size);
    facts.smtputf8 =
        question.to.needs_smtputf8() || question.from.mailbox().is_some_and(Mailbox::needs_smtputf8);
    let mut header = String::new();
    for field in &question.header {
        // One field each: a line break in it would begin another.
        header.push_str(&field.replace(['\r', '\n'], " "));
        header.push_str("\r\n");
    }
    facts.header = Bytes::from(header + "\r\n");
    let message_id = facts.header_field("message-id");
    facts.message_id = message_id.map(|id| id.trim_matches(['<', '>']).to_owned());
    facts
}

fn at_attempt(config: &Config, base: &Facts, number: u32, age: Duration, history: &[Attempt]) -> Facts {
    let mut facts = base.clone();
    facts.attempt = number;
    facts.age = age;
    facts.expires_in = config.queue.retry.give_up_after.saturating_sub(age);
    facts.now = base.now.checked_add(age).unwrap_or(Timestamp::MAX);
    facts.history = Arc::from(history);
    facts
}

/// The outcomes stand for the attempts right before the explained one; the first also for all before those.
fn outcome_of(outcomes: &[Outcome], number: u32, attempt: u32) -> Result<Outcome, Fault> {
    let missing = (attempt - 1) as usize - outcomes.len();
    let at = (number as usize - 1).saturating_sub(missing);
    outcomes.get(at).cloned().map_or_else(|| asked_outcome(OUTCOME_DEFAULT), Ok)
}

fn asked_outcome(text: &str) -> Result<Outcome, Fault> {
    assumed_outcome(text).map_err(|error| Fault::new(FaultKind::BadRequest, format!("--last: {error}")))
}

/// How an earlier attempt is taken to have ended: `451 4.7.1 greylisted`, or a word for what happens before a peer
/// speaks, `dns`, `connect` or `tls`, with text. The message was not delivered and did not bounce, for then there would
/// be no further attempt.
pub fn assumed_outcome(text: &str) -> Result<Outcome, String> {
    let (first, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let silent = [("dns", Stage::Dns, 4, 3), ("connect", Stage::Connect, 4, 1), ("tls", Stage::Tls, 7, 5)];
    if let Some((word, stage, subject, detail)) = silent.into_iter().find(|(word, ..)| *word == first) {
        let words = if rest.is_empty() { format!("{word} failed") } else { rest.to_owned() };
        return Ok(Outcome::ours(Verdict::Temporary, stage, EnhancedCode::new(4, subject, detail), words));
    }
    let reply = crate::config::parse_reply(text.trim()).map_err(|error| {
        format!("{error}; write it like \"451 4.7.1 greylisted\", or \"connect\", \"dns\", \"tls\"")
    })?;
    if reply.is_permanent() {
        return Err(format!("after {text:?} the message bounces, and there is no further attempt"));
    }
    Ok(Outcome {
        verdict: Verdict::Temporary,
        stage: Stage::Rcpt,
        host: None,
        ip: None,
        tls: None,
        code: Some(reply.code),
        // As the queue keeps it where a peer gives none.
        enhanced: reply.enhanced.or(Some(EnhancedCode::new(4, 0, 0))),
        text: reply.text(),
        dsn_passed_on: false,
    })
}

fn shown(outcome: &Outcome) -> String {
    let code = outcome.code.map_or_else(|| outcome.stage.to_string(), |code| code.to_string());
    let enhanced = outcome.enhanced.map_or_else(String::new, |enhanced| format!(" {enhanced}"));
    format!("{code}{enhanced} {}", outcome.text)
}
