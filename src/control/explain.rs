//! Which way a message would go, and why: the scripts that the queue asks, on facts that are made up here.
//!
//! An attempt has a past. The attempts before it are gone through one by one: the scripts choose each one's way, and it
//! is taken to have ended as the question says. So the explained attempt sees the history that it would really see.

use std::time::Duration;

use jiff::Timestamp;

use super::handle::check_account;
use super::protocol::{Explained, Fault, FaultKind, PastAttempt, Question};
use crate::address::Mailbox;
use crate::config::Config;
use crate::dns::Resolver;
use crate::names::TransportName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::queue::answer::PeerAnswer;
use crate::queue::facts::Known;
use crate::queue::life::Life;
use crate::queue::settle::Next;
use crate::route::ScriptSet;

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
    let answers = answers(question)?;
    let after_last = u32::try_from(question.last.len()).unwrap_or(u32::MAX).saturating_add(1);
    let attempt = question.attempt.unwrap_or(after_last);
    if !(after_last..=ATTEMPTS_MAX).contains(&attempt) {
        let message = format!(
            "the attempt must be from {after_last} (one more than there are --last) to {ATTEMPTS_MAX}"
        );
        return Err(Fault::new(FaultKind::BadRequest, message));
    }
    let mut known = known(question, now);
    let (age, expired) = age_at(Life::new(config, scripts, known.clone(), None), attempt, known.received);
    known.received = now.checked_sub(age).unwrap_or(Timestamp::MIN);
    let mut life = Life::new(config, scripts, known, None);
    if life.is_local() {
        let transport = Some(TransportName::local());
        let (previous, age_seconds) = (vec![], age.as_secs());
        let (mx, trace) = (None, None);
        return Ok(Explained { attempt, previous, age_seconds, expired, local: true, mx, trace, transport });
    }
    let mut previous = Vec::new();
    for number in 1..attempt {
        look_up_mx(&mut life, &question.to, resolver).await;
        let decision = life.decide().verdict().ok();
        let way = decision.as_ref().and_then(|decision| config.transports.get(&decision.transport));
        let outcome = answer_to(&answers, number, attempt).over(way.map(|way| &**way));
        if outcome.verdict != Verdict::Temporary {
            let message =
                format!("after {:?} on attempt {number} there is no further attempt", shown(&outcome));
            return Err(Fault::new(FaultKind::BadRequest, message));
        }
        let transport = decision.as_ref().map(|decision| decision.transport.clone());
        previous.push(PastAttempt { number, transport, outcome: shown(&outcome) });
        if !matches!(life.attempt(decision, outcome).next, Next::Retry(_)) {
            life.go_on();
        }
    }
    look_up_mx(&mut life, &question.to, resolver).await;
    let trace = life.explain();
    let transport = trace.verdict().ok().map(|decision| decision.transport);
    let (age_seconds, mx) = (age.as_secs(), life.mx().cloned());
    Ok(Explained { attempt, previous, age_seconds, expired, local: false, mx, trace: Some(trace), transport })
}

/// The age of a message at an attempt, by the retry schedule without its chance, and whether it was given up before.
fn age_at(mut life: Life<'_>, attempt: u32, received: Timestamp) -> (Duration, bool) {
    let mut expired = false;
    for _ in 1..attempt {
        let outcome = Outcome::ours(Verdict::Temporary, Stage::Rcpt, EnhancedCode::new(4, 3, 0), "");
        if !matches!(life.attempt(None, outcome).next, Next::Retry(_)) {
            expired = true;
            life.go_on();
        }
    }
    (life.now().duration_since(received).try_into().unwrap_or_default(), expired)
}

/// Where a script asks for MX hosts; they are looked up once.
async fn look_up_mx(life: &mut Life<'_>, to: &Mailbox, resolver: &Resolver) {
    if life.wants_mx() {
        life.set_mx(resolver.mx_names(&to.domain).await);
    }
}

fn known(question: &Question, received: Timestamp) -> Known {
    let mut known = Known::new(question.from.clone(), question.to.clone(), received);
    known.account.clone_from(&question.account);
    known.size = question.size.unwrap_or(known.size);
    known.set_header(&question.header);
    known
}

/// How the attempts before the explained one ended; never empty.
fn answers(question: &Question) -> Result<Vec<PeerAnswer>, Fault> {
    let default = [OUTCOME_DEFAULT.to_owned()];
    let given = if question.last.is_empty() { &default[..] } else { &question.last };
    let read = given.iter().map(|text| PeerAnswer::parse(text));
    let all: Result<Vec<PeerAnswer>, String> = read.collect();
    all.map_err(|error| Fault::new(FaultKind::BadRequest, format!("--last: {error}")))
}

/// The answers stand for the attempts right before the explained one; the first also for all before those.
fn answer_to(answers: &[PeerAnswer], number: u32, attempt: u32) -> &PeerAnswer {
    let missing = (attempt as usize - 1).saturating_sub(answers.len());
    &answers[(number as usize - 1).saturating_sub(missing).min(answers.len() - 1)]
}

/// How an earlier attempt is taken to have ended: `451 4.7.1 greylisted`, `connect`... The message was not delivered and
/// did not bounce, for then there would be no further attempt.
pub fn assumed_outcome(text: &str) -> Result<Outcome, String> {
    let outcome = PeerAnswer::parse(text)?.over(None);
    match outcome.verdict {
        Verdict::Temporary => Ok(outcome),
        Verdict::Delivered => Err(format!("after {text:?} there is no further attempt")),
        Verdict::Permanent => {
            Err(format!("after {text:?} the message bounces, and there is no further attempt"))
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    let code = outcome.code.map_or_else(|| outcome.stage.to_string(), |code| code.to_string());
    let enhanced = outcome.enhanced.map_or_else(String::new, |enhanced| format!(" {enhanced}"));
    format!("{code}{enhanced} {}", outcome.text)
}
