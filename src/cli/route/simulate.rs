//! `waypost route simulate`: a message's life, attempt by attempt, in no time.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::table;
use crate::address::Mailbox;
use crate::attempt::Level;
use crate::cli::error::{CommandError, Exit};
use crate::cli::queue::reverse_path;
use crate::cli::{Shared, load_scripts, show, small_runtime};
use crate::config::{Config, nearest};
use crate::dns::Resolver;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId};
use crate::queue::facts::Known;
use crate::queue::life::Life;
use crate::route::ScriptSet;
use crate::route_test::simulate::{Answers, Attempted, End, Event, Simulated, What, simulate};

const HELP: &str = "\
Each attempt: when it comes by the retry schedule, which script and line decide,
which way it goes, what is answered, what follows. No server is needed and nothing is
sent; the code that decides is the queue's.

--answers are given in turn, and the last is repeated. An answer is a reply (451, '451
4.7.1 greylisted', '554@greeting go away') or a word: ok, greylisted, busy, full,
unknown, blocked, timeout, refused, connect, lost, dns, nxdomain, tls. NAME= before
answers keeps them for that transport. Without --answers every attempt ends with 451.

The schedule is that of the configuration; chance (retry_jitter) is left out, unless
--id names a message whose schedule is wanted. The exit code is 1 when a script fails.

Examples:
  waypost route simulate --from ann@example.org --to bob@example.net
  waypost route simulate --from ann@example.org --to bob@example.net \\
          --answers '451 greylisted, 451, timeout, 250'
  waypost route simulate --from ann@example.org --to bob@example.net --account ann \\
          --answers timeout --answers smart=421,250 --scripts new-scripts";

/// Foresee a message's life: every attempt, its way, and what follows
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct SimulateArgs {
    /// The sender; '' is the null sender
    #[arg(long, value_parser = reverse_path)]
    from: ReversePath,
    /// The recipient
    #[arg(long)]
    to: Mailbox,
    /// Who logged in to send it
    #[arg(long)]
    account: Option<AccountName>,
    /// What is answered, in turn: '451 greylisted, timeout, 250', or 'smart=250' for one transport
    #[arg(long, value_name = "ANSWERS")]
    answers: Vec<String>,
    /// Stop after so many attempts
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    attempts: u32,
    /// Scripts of this directory, instead of those of the configuration
    #[arg(long, value_name = "DIR")]
    scripts: Option<PathBuf>,
    /// Size of the message in bytes
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// A header field such as 'Subject: hello'
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// MX hosts of the recipient's domain, instead of asking DNS
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    mx: Vec<String>,
    /// When it is accepted, as 2026-11-22T02:30:00Z; now by default
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// A queue id, for the chance in its schedule
    #[arg(long)]
    id: Option<QueueId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SimulateArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    let scripts = match &args.scripts {
        Some(dir) => ScriptSet::load(dir, &config.script_limits)?,
        None => load_scripts(&config)?,
    };
    let answers = Answers::parse(&args.answers, &config)
        .map_err(|error| CommandError::new(Exit::Usage, format!("--answers: {error}")))?;
    let known = known(args, &config)?;
    let mut life = Life::new(&config, &scripts, known.clone(), args.id);
    if !args.mx.is_empty() {
        life.set_mx(Some(args.mx.iter().map(|host| host.to_ascii_lowercase()).collect()));
    }
    let resolver = Resolver::new(&config.dns);
    let simulated =
        small_runtime()?.block_on(simulate(life, &config, &known, answers, args.attempts, &resolver));
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &simulated)?;
        writeln!(out)?;
    } else {
        print(&simulated, &known, out)?;
    }
    if simulated.has_problems() { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

fn known(args: &SimulateArgs, config: &Config) -> Result<Known, CommandError> {
    if let Some(account) = args.account.as_ref().filter(|account| !config.accounts.contains_key(*account)) {
        let near = nearest(account.as_str(), config.accounts.keys().map(AccountName::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(CommandError::new(Exit::Bad, format!("there is no account {account}{hint}")));
    }
    let received = args.at.unwrap_or_else(crate::clock::now);
    let mut known = Known::new(args.from.clone(), args.to.clone(), received);
    known.account.clone_from(&args.account);
    known.size = args.size.unwrap_or(known.size);
    known.set_header(&args.header);
    Ok(known)
}

fn print(simulated: &Simulated, known: &Known, out: &mut dyn Write) -> std::io::Result<()> {
    if simulated.end == End::Mailbox {
        return writeln!(out, "the recipient is ours: delivered to a mailbox here, no script is asked");
    }
    let mut rows = vec![["", "when", "decided by", "transport", "answer", "then"].map(str::to_owned)];
    let mut notes: Vec<Vec<String>> = vec![Vec::new()];
    for event in &simulated.events {
        let (row, note) = row(event);
        rows.push(row);
        notes.push(note);
    }
    table::print(&rows, &notes, out)?;
    let last = simulated.events.last();
    let age = show::span(Duration::from_secs_f64(last.map_or(0.0, |event| event.age_seconds.max(0.0))));
    let attempts = simulated.events.iter().filter(|event| matches!(event.what, What::Attempt(_))).count();
    let plural = if attempts == 1 { "" } else { "s" };
    let told = if known.sender == ReversePath::Null { "nobody is told" } else { "the sender is told" };
    match simulated.end {
        End::Mailbox => Ok(()),
        End::Delivered => writeln!(out, "delivered on attempt {attempts}, {age} after it came"),
        End::RefusedAtSubmission => writeln!(out, "refused at submission: it is not taken at all"),
        End::Refused => writeln!(out, "bounced on attempt {attempts}, {age} after it came: {told}"),
        End::Expired => writeln!(out, "given up after {attempts} attempts, {age} after it came: {told}"),
        End::Undecided => writeln!(out, "given up: no way could be chosen in time; {told}"),
        End::Waiting => writeln!(out, "still waiting after {attempts} attempt{plural}"),
    }
}

fn row(event: &Event) -> ([String; 6], Vec<String>) {
    let when = match event.age_seconds {
        age if age < 1.0 => "at once".to_owned(),
        age => format!("+{}", show::span(Duration::from_secs_f64(age))),
    };
    match &event.what {
        What::PutOff { problem, times, delay_reported } => {
            let then = if *times == 1 { String::new() } else { format!("asked {times} times") };
            let told = delay_reported.then(|| "the sender is told that it waits".to_owned());
            let empty = String::new();
            let notes = std::iter::once(problem.clone()).chain(told).collect();
            (["-".to_owned(), when, empty.clone(), "no attempt".to_owned(), empty, then], notes)
        }
        What::Attempt(attempt) => {
            let then = match attempt.next {
                Some(next) => format!("again in {}", span(next.duration_since(event.at))),
                None if attempt.outcome.verdict == crate::outcome::Verdict::Delivered => "done".to_owned(),
                None => "bounce".to_owned(),
            };
            let mut notes: Vec<String> = attempt.log.iter().map(|line| format!("log: {line}")).collect();
            if attempt.delay_reported {
                notes.push("the sender is told that it waits".to_owned());
            }
            let transport = attempt.transport.to_string();
            ([attempt.number.to_string(), when, place(attempt), transport, answer(attempt), then], notes)
        }
    }
}

/// Seconds, and what is shorter where it matters.
fn span(span: jiff::SignedDuration) -> String {
    let span = Duration::try_from(span).unwrap_or_default();
    if span < Duration::from_secs(1) { format!("{} ms", span.as_millis()) } else { show::span(span) }
}

fn place(attempt: &Attempted) -> String {
    match (&attempt.script, attempt.level) {
        (Some(place), _) => {
            place.line.map_or_else(|| place.file.clone(), |line| format!("{}:{line}", place.file))
        }
        (None, Level::Default) => "no script".to_owned(),
        (None, level) => level.to_string(),
    }
}

fn answer(attempt: &Attempted) -> String {
    let outcome = &attempt.outcome;
    let code = outcome.code.map_or_else(String::new, |code| format!("{code} "));
    format!("{code}{} ({})", outcome.text.replace('\n', " / "), outcome.stage)
}
