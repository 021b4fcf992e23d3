//! `waypost route explain --id`: which way a message of the queue goes next, or went before, and why.

use std::io::Write;
use std::time::Duration;

use crate::cli::error::{CommandError, Exit};
use crate::cli::{ask_if_running, load_scripts, show, small_runtime, unexpected};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::dns::Resolver;
use crate::queue::{
    ExplainedAttempt, ExplainedMessage, ExplainedRecipient, MadeAttempt, MessageQuestion, NextAttempt,
    Oracle, Records, ScriptNow,
};
use crate::spool::SpoolView;
use crate::store::HistoryReader;

pub(super) fn run(
    question: &MessageQuestion,
    config: &Config,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let explained = match ask_if_running(config, &Request::RouteExplainMessage(question.clone()))? {
        Some(Answer::ExplainedMessage(explained)) => *explained,
        Some(_) => return Err(unexpected()),
        None => offline(config, question)?,
    };
    if explained.recipients.is_empty() {
        let to = question.recipient.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
        let words = format!("message {}{to}", explained.id);
        let what = question.attempt.map_or_else(String::new, |number| format!(" with attempt {number}"));
        return Err(CommandError::new(Exit::Bad, format!("there is no {words}{what}"))
            .hint(format!("`waypost queue show {}` shows its recipients and attempts", explained.id)));
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &explained)?;
        writeln!(out)?;
    } else {
        print(&explained, out)?;
    }
    let fails = |one: &ExplainedRecipient| match &one.attempt {
        ExplainedAttempt::Next(next) => next.transport.is_none(),
        ExplainedAttempt::Past(_) => false,
    };
    if explained.recipients.iter().any(fails) { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

/// Without a server: from its files, which stay as they are.
fn offline(config: &Config, question: &MessageQuestion) -> Result<ExplainedMessage, CommandError> {
    let failed = |error| CommandError::new(Exit::Failed, error);
    let mut records = Records::default();
    if let Some(spool) = SpoolView::open(&config.queue_dir()).map_err(failed)? {
        records.stored = spool.read_summary(question.id).map_err(failed)?;
    }
    if let Some(history) = HistoryReader::open(&config.store_dir())? {
        records.finished = history.of_message(question.id)?;
    }
    let scripts = load_scripts(config)?;
    let (resolver, now) = (Resolver::new(&config.dns), crate::clock::now());
    let oracle = Oracle { config, scripts: &scripts, resolver: &resolver, now };
    let explained = small_runtime()?.block_on(oracle.explain(&records, question));
    explained.ok_or_else(|| {
        let id = question.id;
        CommandError::new(
            Exit::Bad,
            format!("there is no message {id}, neither in the queue nor in the history"),
        )
    })
}

fn print(explained: &ExplainedMessage, out: &mut dyn Write) -> std::io::Result<()> {
    let now = crate::clock::now();
    let account = explained.account.as_ref().map_or_else(String::new, |name| format!(", account {name}"));
    let sender = explained.sender.mailbox().map_or_else(|| "<>".to_owned(), ToString::to_string);
    let (size, when) = (show::size(explained.size), show::when(explained.received, now));
    writeln!(out, "{}  from {sender}  {size}, {when}{account}", explained.id)?;
    for recipient in &explained.recipients {
        let state = recipient.state.map_or_else(String::new, |state| format!("  {state}"));
        writeln!(out, "to {}{state}", recipient.recipient)?;
        match &recipient.attempt {
            ExplainedAttempt::Next(next) => print_next(next, out)?,
            ExplainedAttempt::Past(made) => print_made(made, out)?,
        }
    }
    Ok(())
}

fn print_next(next: &NextAttempt, out: &mut dyn Write) -> std::io::Result<()> {
    let now = crate::clock::now();
    let due = match (next.running, next.held) {
        (true, _) => "under way, or in line".to_owned(),
        (false, true) => "held".to_owned(),
        (false, false) => format!("due {}", show::when(next.due, now)),
    };
    let age = show::span(Duration::from_secs(next.age_seconds));
    writeln!(out, "attempt {}, {due}; if it were made now, {age} after the message came:", next.number)?;
    if let Some(mx) = &next.mx {
        writeln!(out, "mx: {}", if mx.is_empty() { "none".to_owned() } else { mx.join(", ") })?;
    }
    match (&next.trace, &next.transport, next.level) {
        (Some(trace), ..) => writeln!(out, "{trace}")?,
        (None, Some(transport), Some(crate::attempt::Level::Local)) => {
            writeln!(out, "=> {transport} (a mailbox here; no script is asked)")?;
        }
        (None, Some(transport), _) => {
            writeln!(out, "=> {transport} (set by the operator; no script is asked)")?;
        }
        (None, None, _) => {}
    }
    if let (Some(problem), None) = (&next.problem, &next.trace) {
        writeln!(out, "=> no attempt: {problem}")?;
    }
    if let Some(then) = &next.transport_when_due {
        writeln!(out, "note: at {}, when it is due, it would be {then}", show::time(next.due))?;
    }
    Ok(())
}

fn print_made(made: &MadeAttempt, out: &mut dyn Write) -> std::io::Result<()> {
    write!(out, "{}", show::attempt(&made.attempt, ""))?;
    let decision = made.attempt.decision.as_ref();
    if let Some(mx) = decision.and_then(|decision| decision.mx.as_ref()) {
        writeln!(out, "     mx then: {}", if mx.is_empty() { "none".to_owned() } else { mx.join(", ") })?;
    }
    if let (Some(place), Some(script)) =
        (decision.and_then(|decision| decision.script.as_ref()), &made.script)
    {
        let (file, then) = (&place.file, &place.hash);
        match script {
            ScriptNow::Same => writeln!(out, "     {file} is the same today ({then})")?,
            ScriptNow::Changed { hash } => {
                writeln!(out, "     {file} has been changed since: it was {then}, it is {hash}")?;
            }
            ScriptNow::Gone => writeln!(out, "     {file} is gone; it was {then}")?,
        }
    }
    let today = made.today.as_ref().map(crate::route::Trace::verdict);
    match (today, decision) {
        (Some(Ok(today)), Some(then)) if today.transport != then.transport => {
            writeln!(out, "     the scripts of today would say: {}", show::decision(&today))
        }
        (Some(Err(error)), _) => writeln!(out, "     the scripts of today would fail: {error}"),
        _ => Ok(()),
    }
}
