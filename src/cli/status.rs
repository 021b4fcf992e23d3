//! `waypost status`: how the running server is, on a few lines.

use std::io::Write;

use clap::Args;

use super::error::CommandError;
use super::{Shared, ask, show, unexpected};
use crate::control::{Answer, Request, Status};

const AFTER_HELP: &str = "\
The exit code is 3 when no server runs for the data directory.

Examples:
  waypost status
  waypost status --json | jq .queue
  waypost status > /dev/null || echo 'Waypost does not run'";

/// Say how the running server is
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::Status(status) = ask(&shared.config()?, &Request::Status)? else { return Err(unexpected()) };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &status)?;
        return Ok(writeln!(out)?);
    }
    Ok(print(&status, out)?)
}

fn print(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let now = crate::clock::now();
    let started = show::when(status.started, now);
    let Status { version, hostname, pid, queue, scripts, .. } = status;
    writeln!(out, "waypost {version} on {hostname}, started {started} (process {pid})")?;
    let listeners: Vec<_> = status.listeners.iter().map(|l| format!("{} {}", l.kind, l.address)).collect();
    writeln!(
        out,
        "listens  {}",
        if listeners.is_empty() { "nowhere".to_owned() } else { listeners.join(", ") }
    )?;
    let in_line = queue.in_line;
    let recipients = show::count(queue.recipients, "recipient");
    writeln!(
        out,
        "queue    {recipients}, {} under way, {in_line} in line",
        show::count(queue.running, "delivery")
    )?;
    let since =
        status.scripts_since.map_or_else(String::new, |at| format!(", running since {}", show::time(at)));
    writeln!(out, "scripts  {scripts}{since}")?;
    if let Some(terms) = &status.promotion {
        let (hash, from) = (&terms.hash, terms.from.display());
        writeln!(out, "         promoted {hash} from {from}: {} % of the messages", terms.percent)?;
    }
    if let Some(failed) = &status.failed_reload {
        let (when, count) = (show::when(failed.at, now), failed.problems.len());
        writeln!(
            out,
            "         the newest files do not run: refused {when}, {}",
            show::count(count, "problem")
        )?;
        failed
            .problems
            .iter()
            .take(PROBLEMS_SHOWN)
            .try_for_each(|problem| writeln!(out, "           {problem}"))?;
        if count > PROBLEMS_SHOWN {
            writeln!(out, "           and {} more: waypost check", count - PROBLEMS_SHOWN)?;
        }
    }
    Ok(())
}

/// Problems of a refused reload that are shown here.
const PROBLEMS_SHOWN: usize = 5;
