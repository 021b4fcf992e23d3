//! `waypost route replay`: other scripts, tried on the mail of the last days.
//!
//! The history is read from the database itself, which costs the running server nothing; what waits is asked of the
//! server, or read from its files when none runs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{SignedDuration, Timestamp};

use crate::cli::error::{CommandError, Exit};
use crate::cli::queue_controls::span;
use crate::cli::{Shared, load_scripts, show, small_runtime, unexpected};
use crate::config::Config;
use crate::control::{Answer, Client, ClientError, Request};
use crate::dns::Resolver;
use crate::names::QueueId;
use crate::queue::{Oracle, WaitingPage, WaitingRecipient};
use crate::route::ScriptSet;
use crate::route_test::replay::{Candidate, DomainCounts, Example, Failed, Report, Tally};
use crate::spool::SpoolView;
use crate::store::{HistoryReader, StoreError, StoredFinished};

/// Recipients read from the database in one go.
const BATCH: usize = 1_000;
/// Batches that wait for a thread that tries them.
const BATCHES_WAITING_MAX: usize = 8;
/// Threads that try scripts; one more reads.
const THREADS_MAX: usize = 8;
/// Messages of the queue fetched in one go.
const PAGE_MESSAGES: usize = 500;

const HELP: &str = "\
Every attempt that the history has (`history_kept` in [queue], 30 days), and every
message that waits, is put to the scripts of DIR with the facts as they were: attempt 3
sees the two attempts before it as they really went. What would have gone elsewhere is
counted by the way it went and the way it would go. Nothing is sent.

The exit code is 0, also when mail would go elsewhere; 1 when the scripts are bad or
fail on some mail, and with --fail-on-difference when some goes elsewhere.

Examples:
  waypost route replay --scripts new-scripts
  waypost route replay --scripts new-scripts --since 7d --json
  waypost route replay --scripts scripts --fail-on-difference";

/// Try other scripts on past and waiting mail
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ReplayArgs {
    /// The scripts to try
    #[arg(long, value_name = "DIR")]
    scripts: PathBuf,
    /// Only mail that was done so long ago at most, as 90m, 12h or 7d
    #[arg(long, value_name = "SPAN", value_parser = span)]
    since: Option<SignedDuration>,
    /// Only so many attempts, the latest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Exit with 1 when some mail would go elsewhere
    #[arg(long)]
    fail_on_difference: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    let scripts = ScriptSet::load(&args.scripts, &config.script_limits)?;
    let candidate = Candidate { config: &config, scripts: &scripts };
    let mut tally = history(args, candidate)?;
    small_runtime()?.block_on(waiting(candidate, &mut tally))?;
    let report = tally.report();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, &config, out)?;
    }
    let bad = !report.errors.is_empty() || (args.fail_on_difference && !report.different.is_empty());
    if bad { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

/// Tries what is done: one thread reads, the others try.
fn history(args: &ReplayArgs, candidate: Candidate<'_>) -> Result<Tally, CommandError> {
    let Some(reader) = HistoryReader::open(&candidate.config.store_dir())? else {
        return Ok(Tally::default());
    };
    let since = args.since.and_then(|span| crate::clock::now().checked_sub(span).ok());
    let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
    let progress = progress_bar(reader.count(since)?);
    let left = AtomicU64::new(args.limit.unwrap_or(u64::MAX));
    let failed = AtomicBool::new(false);
    let (sender, receiver) = sync_channel::<Vec<StoredFinished>>(BATCHES_WAITING_MAX);
    let receiver = Mutex::new(receiver);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX);
    let tally = std::thread::scope(|scope| {
        let work = || {
            let tally = try_batches(candidate, &receiver, &left, &progress);
            if tally.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            tally
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let read = reader.read(since, BATCH, |batch| {
            let enough = left.load(Ordering::Relaxed) == 0 || failed.load(Ordering::Relaxed);
            !enough && sender.send(batch).is_ok()
        });
        drop(sender);
        let mut all = Tally::default();
        for worker in workers {
            let panicked = || CommandError::new(Exit::Failed, "a thread that tried scripts panicked");
            all.merge(worker.join().map_err(|_| panicked())??);
        }
        read?;
        Ok::<_, CommandError>(all)
    });
    progress.finish_and_clear();
    tally
}

fn try_batches(
    candidate: Candidate<'_>,
    receiver: &Mutex<Receiver<Vec<StoredFinished>>>,
    left: &AtomicU64,
    progress: &ProgressBar,
) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    loop {
        let batch = receiver.lock().ok().and_then(|receiver| receiver.recv().ok());
        let Some(batch) = batch else { return Ok(tally) };
        let count = batch.len() as u64;
        for stored in batch {
            let finished = stored.parse()?;
            // Taken first, and what was not needed given back: other threads count down as well.
            let wanted = finished.attempts.len() as u64;
            let take = |n: u64| Some(n.saturating_sub(wanted));
            let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_else(|n| n);
            let taken = before.min(wanted);
            let tried = tally.finished(candidate, &finished, taken);
            left.fetch_add(taken - tried, Ordering::Relaxed);
        }
        progress.inc(count);
    }
}

/// On a terminal alone, and only for what takes a while.
fn progress_bar(recipients: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(recipients), ProgressDrawTarget::stderr_with_hz(10));
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} deliveries, {per_sec}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Tries what waits.
async fn waiting(candidate: Candidate<'_>, tally: &mut Tally) -> Result<(), CommandError> {
    let header: Vec<String> = candidate.scripts.header_fields().iter().cloned().collect();
    let resolver = Resolver::new(&candidate.config.dns);
    let mut mx = MxHosts { resolver: &resolver, known: BTreeMap::new() };
    match Client::connect(&candidate.config.data_dir) {
        Ok(mut server) => {
            let mut after = None;
            loop {
                let request = Request::RouteWaiting { after, limit: PAGE_MESSAGES, header: header.clone() };
                let Answer::Waiting(page) = server.call(&request)? else { return Err(unexpected()) };
                let WaitingPage { recipients, next } = page;
                try_waiting(candidate, &recipients, &mut mx, tally).await;
                match next {
                    Some(_) => after = next,
                    None => return Ok(()),
                }
            }
        }
        Err(ClientError::NotRunning { .. }) => from_files(candidate, &header, &mut mx, tally).await,
        Err(error) => Err(error.into()),
    }
}

/// What waits, from the files of a server that does not run.
async fn from_files(
    candidate: Candidate<'_>,
    header: &[String],
    mx: &mut MxHosts<'_>,
    tally: &mut Tally,
) -> Result<(), CommandError> {
    let config = candidate.config;
    let failed = |error| CommandError::new(Exit::Failed, error);
    let Some(spool) = SpoolView::open(&config.queue_dir()).map_err(failed)? else { return Ok(()) };
    let scripts = load_scripts(config)?;
    let mut after: Option<QueueId> = None;
    loop {
        let page = spool.waiting(after, PAGE_MESSAGES);
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        let mut ids: Vec<QueueId> = page.iter().map(|waiting| waiting.id).collect();
        ids.dedup();
        for id in ids {
            let Some(stored) = spool.read_summary(id).map_err(failed)? else { continue };
            let oracle =
                Oracle { config, scripts: &scripts, resolver: mx.resolver, now: crate::clock::now() };
            let recipients = oracle.waiting(&stored, header, &[]).await;
            try_waiting(candidate, &recipients, mx, tally).await;
        }
    }
}

async fn try_waiting(
    candidate: Candidate<'_>,
    recipients: &[WaitingRecipient],
    mx: &mut MxHosts<'_>,
    tally: &mut Tally,
) {
    let now = crate::clock::now();
    for recipient in recipients {
        let facts = recipient.known().facts(candidate.config, recipient.attempts + 1, [].into(), now);
        let hosts = if candidate.scripts.wants_mx(&facts) { mx.of(recipient).await } else { None };
        tally.waiting(candidate, recipient, hosts, now);
    }
}

/// MX hosts, each domain's looked up once.
struct MxHosts<'a> {
    resolver: &'a Resolver,
    known: BTreeMap<crate::address::Domain, Option<Vec<String>>>,
}

impl MxHosts<'_> {
    async fn of(&mut self, recipient: &WaitingRecipient) -> Option<Vec<String>> {
        let domain = &recipient.recipient.domain;
        if !self.known.contains_key(domain) {
            let found = self.resolver.mx_names(domain).await;
            self.known.insert(domain.clone(), found);
        }
        self.known.get(domain).cloned().flatten()
    }
}

fn print(report: &Report, config: &Config, out: &mut dyn Write) -> std::io::Result<()> {
    let waiting = match report.waiting {
        0 => String::new(),
        1 => " and 1 that waits".to_owned(),
        n => format!(" and {n} that wait"),
    };
    let plural = if report.attempts == 1 { "" } else { "s" };
    writeln!(
        out,
        "{} attempt{plural}{waiting} tried: {} the same way, {} elsewhere",
        report.attempts,
        report.same,
        report.differing()
    )?;
    for difference in &report.different {
        let of_them = match difference.waiting {
            0 => String::new(),
            n => format!(", {n} of them waiting"),
        };
        let (from, to) = (&difference.from, &difference.to);
        writeln!(out, "\n{from} -> {to}: {}{of_them}", difference.count)?;
        writeln!(out, "  from  {}", domains(&difference.sender_domains))?;
        writeln!(out, "  to    {}", domains(&difference.recipient_domains))?;
        difference.examples.iter().try_for_each(|one| example(one, &one.because, out))?;
    }
    failed("the scripts fail", &report.errors, out)?;
    failed("could not be tried: what the scripts ask is not known any more", &report.not_known, out)?;
    let left = report.left_out;
    for (count, what) in [
        (left.to_mailboxes, "went into mailboxes here"),
        (left.set_by_operator, "go into mailboxes here or where the operator sends them"),
        (left.without_decision, "have no decision that was written down"),
    ] {
        if count > 0 {
            writeln!(out, "\nnot tried: {count} that {what}")?;
        }
    }
    if report.attempts + report.waiting == 0 {
        let kept = show::span(Duration::from_secs(config.queue.history_kept.as_secs()));
        writeln!(out, "there is nothing to try: the history of the last {kept} and the queue are empty")?;
    }
    Ok(())
}

fn failed(what: &str, groups: &[Failed], out: &mut dyn Write) -> std::io::Result<()> {
    let count: u64 = groups.iter().map(|group| group.count).sum();
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "\n{what}: {count}")?;
    for group in groups {
        writeln!(out, "  {} times: {}", group.count, group.error)?;
        group.examples.iter().take(1).try_for_each(|one| example(one, "", out))?;
    }
    Ok(())
}

fn domains(counts: &DomainCounts) -> String {
    let name = |domain: &Option<crate::address::Domain>| {
        domain.as_ref().map_or_else(|| "<>".to_owned(), ToString::to_string)
    };
    let most = counts.most.iter().map(|one| format!("{} {}", name(&one.domain), one.count));
    let others = (counts.others > 0).then(|| format!("others {}", counts.others));
    most.chain(others).collect::<Vec<_>>().join(", ")
}

fn example(one: &Example, because: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let sender = one.sender.mailbox().map_or_else(|| "<>".to_owned(), ToString::to_string);
    let because = if because.is_empty() { String::new() } else { format!(": {because}") };
    let waits = if one.waiting { ", waits" } else { "" };
    writeln!(out, "  {}  {sender} to {}, attempt {}{waits}{because}", one.id, one.recipient, one.attempt)
}
