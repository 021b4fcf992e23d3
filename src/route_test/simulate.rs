//! A message's life, foreseen: every attempt with its way, the answer that is made up for it, and what follows.
//!
//! Schedule, settlement, facts and scripts are those of the queue ([`Life`]). The answers come from the operator: they
//! are given in turn, and the last is repeated.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::attempt::{Decision, Level, ScriptPlace};
use crate::config::{Config, TransportKind, nearest};
use crate::dns::Resolver;
use crate::message::dsn::Fate;
use crate::names::TransportName;
use crate::outcome::Outcome;
use crate::queue::answer::PeerAnswer;
use crate::queue::facts::Known;
use crate::queue::life::Life;
use crate::queue::settle::{Next, Why};

/// What peers answer unless the operator says something else.
const ANSWER_DEFAULT: &str = "451 4.3.0 assumed by route simulate";
/// Times that scripts are asked in one simulation, put-off attempts included.
const ASKED_MAX: u32 = 20_000;

/// What peers will answer: in turn for all transports together, but for those that have answers of their own.
#[derive(Debug, Clone)]
pub struct Answers {
    common: Turns,
    own: BTreeMap<TransportName, Turns>,
}

#[derive(Debug, Clone, Default)]
struct Turns {
    answers: Vec<PeerAnswer>,
    given: usize,
}

impl Turns {
    /// The last is repeated.
    fn next(&mut self) -> Option<&PeerAnswer> {
        let at = self.given.min(self.answers.len().checked_sub(1)?);
        self.given += 1;
        self.answers.get(at)
    }
}

impl Answers {
    /// Reads texts such as `451 greylisted, timeout, 250` and `smart=250`. A name with `=` holds for what follows it in
    /// the same text.
    pub fn parse(texts: &[String], config: &Config) -> Result<Self, String> {
        let mut answers = Self { common: Turns::default(), own: BTreeMap::new() };
        for text in texts {
            let mut of: Option<TransportName> = None;
            for part in text.split(',') {
                let (name, answer) = part.split_once('=').map_or((None, part), |(n, a)| (Some(n.trim()), a));
                if let Some(name) = name {
                    of = Some(transport(name, config)?);
                }
                let answer = PeerAnswer::parse(answer)?;
                let turns = match &of {
                    Some(name) => answers.own.entry(name.clone()).or_default(),
                    None => &mut answers.common,
                };
                turns.answers.push(answer);
            }
        }
        if answers.common.answers.is_empty() {
            answers.common.answers.push(PeerAnswer::parse(ANSWER_DEFAULT)?);
        }
        Ok(answers)
    }

    fn next(&mut self, transport: &TransportName) -> Option<&PeerAnswer> {
        match self.own.get_mut(transport) {
            Some(turns) => turns.next(),
            None => self.common.next(),
        }
    }
}

fn transport(name: &str, config: &Config) -> Result<TransportName, String> {
    let found = config.transports.keys().find(|known| known.as_str() == name);
    found.cloned().ok_or_else(|| {
        let near = nearest(name, config.transports.keys().map(TransportName::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("there is no transport {name}{hint}")
    })
}

/// A foreseen life.
#[derive(Debug, Clone, Serialize)]
pub struct Simulated {
    /// What happens, in order.
    pub events: Vec<Event>,
    /// How it ends.
    pub end: End,
}

/// A time when the message is looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Time since the message was accepted, seconds.
    pub age_seconds: f64,
    /// What happens then.
    #[serde(flatten)]
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum What {
    /// An attempt.
    Attempt(Box<Attempted>),
    /// Nobody can say which way: no attempt is made.
    PutOff {
        /// Why.
        problem: String,
        /// How often that happens one after the other, until the next event.
        times: u32,
        /// At the first of these times the sender is told that the message waits.
        delay_reported: bool,
    },
}

/// A foreseen attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Attempted {
    /// From 1.
    pub number: u32,
    /// Who decides.
    pub level: Level,
    /// The way.
    pub transport: TransportName,
    /// Script and line.
    pub script: Option<ScriptPlace>,
    /// What the scripts log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// When the next attempt is due.
    pub next: Option<Timestamp>,
    /// The sender is told now that the message waits.
    pub delay_reported: bool,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The recipient is ours: a mailbox here, and no script is asked.
    Mailbox,
    /// Delivered.
    Delivered,
    /// It is not even taken: the transport refuses at submission.
    RefusedAtSubmission,
    /// Bounced because of the last answer.
    Refused,
    /// Bounced because it grew too old.
    Expired,
    /// Bounced because it grew too old while nobody could say which way.
    Undecided,
    /// As many attempts as were asked for have been made, and it waits.
    Waiting,
}

/// Goes through the life of a message, for so many attempts at most. MX hosts are looked up where a script asks for them,
/// unless they are given.
pub async fn simulate(
    mut life: Life<'_>,
    config: &Config,
    known: &Known,
    mut answers: Answers,
    attempts_max: u32,
    resolver: &Resolver,
) -> Simulated {
    let mut simulated = Simulated { events: Vec::new(), end: End::Waiting };
    if life.is_local() {
        simulated.end = End::Mailbox;
        return simulated;
    }
    for _ in 0..ASKED_MAX {
        if life.number() > attempts_max {
            return simulated;
        }
        if life.wants_mx() {
            life.set_mx(resolver.mx_names(&known.recipient.domain).await);
        }
        let at = life.now();
        let age_seconds = at.duration_since(known.received).as_secs_f64();
        let decision = match life.decide().verdict() {
            Ok(decision) => decision,
            Err(error) => {
                let again = life.put_off();
                let told = again.is_some_and(|(told, _)| told);
                simulated.put_off(at, age_seconds, error.to_string(), told);
                if again.is_none() {
                    simulated.end = End::Undecided;
                    return simulated;
                }
                continue;
            }
        };
        let (event, end) = attempt(&mut life, config, &mut answers, decision);
        simulated.events.push(Event { at, age_seconds, what: What::Attempt(Box::new(event)) });
        if let Some(end) = end {
            simulated.end = end;
            return simulated;
        }
    }
    simulated
}

impl Simulated {
    /// The same problem again and again is one event.
    fn put_off(&mut self, at: Timestamp, age_seconds: f64, problem: String, delay_reported: bool) {
        if !delay_reported
            && let Some(Event { what: What::PutOff { problem: last, times, .. }, .. }) =
                self.events.last_mut()
            && *last == problem
        {
            *times += 1;
            return;
        }
        self.events.push(Event { at, age_seconds, what: What::PutOff { problem, times: 1, delay_reported } });
    }

    /// Whether a script failed somewhere.
    pub fn has_problems(&self) -> bool {
        self.events.iter().any(|event| matches!(event.what, What::PutOff { .. }))
    }
}

fn attempt(
    life: &mut Life<'_>,
    config: &Config,
    answers: &mut Answers,
    decision: Decision,
) -> (Attempted, Option<End>) {
    let number = life.number();
    let way = config.transports.get(&decision.transport).map(|way| &**way);
    let refuses = matches!(way.map(|way| &way.kind), Some(TransportKind::Fail { at_submission: true, .. }));
    let outcome = match answers.next(&decision.transport) {
        Some(answer) => answer.over(way),
        None => PeerAnswer::Reply(crate::outcome::Stage::Rcpt, crate::smtp::Reply::new(451, "")).over(way),
    };
    let ended = life.attempt(Some(decision.clone()), outcome.clone());
    let (next, end) = match ended.next {
        Next::Retry(at) => (Some(at), None),
        Next::Done => (None, Some(End::Delivered)),
        Next::Bounce(_) if number == 1 && refuses => (None, Some(End::RefusedAtSubmission)),
        Next::Bounce(Why::Permanent) => (None, Some(End::Refused)),
        Next::Bounce(Why::Expired) => (None, Some(End::Expired)),
    };
    let attempted = Attempted {
        number,
        level: decision.level,
        transport: decision.transport,
        script: decision.script,
        log: decision.log,
        outcome,
        next,
        delay_reported: ended.told == Some(Fate::Delayed),
    };
    (attempted, end)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::address::Mailbox;
    use crate::envelope::ReversePath;
    use crate::route::ScriptSet;

    const CONFIG: &str = r#"
hostname = "mx.ours.test"
[domains."ours.test"]
[accounts.ann]
addresses = ["ann@ours.test"]
[transports.smart]
kind = "smtp"
host = "smart.test"
[transports.never]
kind = "fail"
reply = "550 5.7.1 we do not send there"
[transports.no-way]
kind = "fail"
reply = "550 5.7.1 not even taken"
at_submission = true
"#;

    fn config(more: &str) -> Config {
        Config::parse(&format!("{CONFIG}{more}"), Path::new("/tmp/waypost.toml")).unwrap()
    }

    fn life_of(config: &Config, script: &str, to: &str, answers: &[&str], attempts_max: u32) -> Simulated {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("global.rhai"), format!("fn route(d) {{ {script} }}")).unwrap();
        let scripts = ScriptSet::load(dir.path(), &config.script_limits).unwrap();
        let sender = ReversePath::Mailbox(Mailbox::parse("ann@ours.test").unwrap());
        let known = Known::new(sender, Mailbox::parse(to).unwrap(), "2026-11-22T12:00:00Z".parse().unwrap());
        let answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        let answers = Answers::parse(&answers, config).unwrap();
        let life = Life::new(config, &scripts, known.clone(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolver = Resolver::new(&config.dns);
        runtime.block_on(simulate(life, config, &known, answers, attempts_max, &resolver))
    }

    fn attempts(simulated: &Simulated) -> Vec<(u64, &str, Option<u16>)> {
        let each = simulated.events.iter().filter_map(|event| match &event.what {
            What::Attempt(one) => {
                Some((event.age_seconds as u64 / 60, one.transport.as_str(), one.outcome.code))
            }
            What::PutOff { .. } => None,
        });
        each.collect()
    }

    #[test]
    fn answers_are_given_in_turn_and_a_transport_may_have_its_own() {
        let config = config("");
        let script = "if d.attempt >= 4 { return \"smart\"; }";
        let to = "x@far.test";
        let life = life_of(&config, script, to, &["451 greylisted, timeout, 450", "smart=421, 250"], 100);
        assert_eq!(
            attempts(&life),
            [
                (0, "direct", Some(451)),
                (7, "direct", None),
                (22, "direct", Some(450)),
                (52, "smart", Some(421)),
                (112, "smart", Some(250))
            ]
        );
        assert_eq!(life.end, End::Delivered);
    }

    #[test]
    fn the_last_answer_is_repeated_until_the_bounce_and_the_sender_is_told_of_the_delay_once() {
        let config = config("");
        let life = life_of(&config, "", "x@far.test", &[], 100);
        assert_eq!(life.end, End::Expired);
        let minutes: Vec<u64> = attempts(&life).iter().map(|attempt| attempt.0).collect();
        assert_eq!(&minutes[..8], [0, 7, 22, 52, 112, 232, 240, 720], "the one at 4 hours is for the report");
        assert_eq!(minutes.last(), Some(&(4 * 24 * 60)));
        let told = life.events.iter().filter(|event| match &event.what {
            What::Attempt(one) => one.delay_reported,
            What::PutOff { .. } => false,
        });
        let ages: Vec<u64> = told.map(|event| event.age_seconds as u64).collect();
        assert_eq!(ages, [4 * 3600]);
    }

    #[test]
    fn each_way_to_end_is_told_apart() {
        let config = config("");
        for (script, to, answers, attempts_max, end) in [
            ("", "ann@ours.test", "451", 9, End::Mailbox),
            ("", "x@far.test", "550 5.1.1 no such user", 9, End::Refused),
            ("", "x@far.test", "451", 3, End::Waiting),
            ("\"never\"", "x@far.test", "250", 9, End::Refused),
            ("\"no-way\"", "x@far.test", "250", 9, End::RefusedAtSubmission),
            ("if d.attempt > 1 { \"no-way\" }", "x@far.test", "451", 9, End::Refused),
            // A smarthost that refuses us is not the message's fault.
            ("\"smart\"", "x@far.test", "554@greeting blocked, 250", 9, End::Delivered),
            ("", "x@far.test", "554@greeting blocked, 250", 9, End::Refused),
        ] {
            assert_eq!(life_of(&config, script, to, &[answers], attempts_max).end, end, "{script} {answers}");
        }
    }

    #[test]
    fn a_script_that_fails_puts_off_and_uses_up_no_attempt() {
        let config = config("[queue]\nscript_error_retry = \"10m\"\ngive_up_after = \"2h\"\n");
        let life =
            life_of(&config, "if d.attempt == 2 { d.nothing } else { \"direct\" }", "x@far.test", &[], 9);
        assert_eq!((life.end, attempts(&life).len()), (End::Undecided, 1));
        let What::PutOff { problem, times, .. } = &life.events[1].what else { panic!("{life:?}") };
        assert!(problem.contains("global.rhai:1") && problem.contains("nothing"), "{problem}");
        assert_eq!(
            (*times, life.events.len()),
            (13, 2),
            "every 10 minutes from 7m30s on, until 2 hours are over"
        );
        assert!(life.has_problems());

        // At another time of the day it works again.
        let mended = "if now().hour == 12 { throw \"noon\" } \"direct\"";
        let life = life_of(&config, mended, "x@far.test", &["250"], 9);
        assert_eq!((life.end, attempts(&life)), (End::Delivered, vec![(60, "direct", Some(250))]));
    }

    #[test]
    fn what_is_no_answer_and_no_transport_is_said() {
        let config = config("");
        for (text, part) in [
            ("451, fish", "\"fish\" is no answer"),
            ("smrat=250", "did you mean smart?"),
            ("", "is no answer"),
        ] {
            let error = Answers::parse(&[text.to_owned()], &config).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
