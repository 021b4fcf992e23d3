//! `waypost route promote`: gives new scripts a share of the mail, then all of it, or takes it back.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::error::{CommandError, Exit};
use super::super::{Shared, ask, ask_if_running, show, unexpected};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::route::{Promote, PromotionDir, PromotionReport};
use crate::server::DataDirLock;

const AFTER_HELP: &str = "\
The server checks the new scripts as it checks a reload, keeps a copy of them, and
lets that copy decide about so many percent of the messages. Which messages is
told by their queue id: all recipients and all attempts of a message stay with one
set, and a larger share keeps those of a smaller one. `waypost queue show` says
which set decided. A restart goes on with the promotion.

At 100 percent the new scripts decide about all mail. Then copy them into the
scripts directory: as soon as the same files stand there, the promotion ends by
itself. --rollback gives all mail back to the scripts directory at once.

A script error of the new set defers the message, as any script error does; it is
never left to the old set. With --rollback-on-errors N the promotion is rolled back
after the Nth, and the message is asked about again.

Examples:
  waypost route promote                          how it stands
  waypost route promote new-scripts --percent 10
  waypost route promote new-scripts --percent 1 --rollback-on-errors 5
  waypost route promote --percent 100
  waypost route promote --rollback";

/// Let new scripts decide about a share of the mail
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PromoteArgs {
    /// The directory with the new scripts; without it, those that are being promoted
    #[arg(requires = "percent")]
    dir: Option<PathBuf>,
    /// The share of messages they decide about, above 0 and at most 100
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    percent: Option<f64>,
    /// Roll back by itself after so many script errors
    #[arg(long, value_name = "N", requires = "percent", value_parser = clap::value_parser!(u64).range(1..))]
    rollback_on_errors: Option<u64>,
    /// Give all mail back to the scripts directory; also when no server runs
    #[arg(long, conflicts_with_all = ["dir", "percent"])]
    rollback: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 =
        text.trim_end_matches('%').parse().map_err(|_| "a number such as 10 or 0.5".to_owned())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("above 0 and at most 100".to_owned()) }
}

pub(super) fn run(args: &PromoteArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    let report = match (args.rollback, args.percent) {
        (true, _) => match ask_if_running(&config, &Request::RouteRollback)? {
            Some(answer) => report(answer)?,
            None => return roll_back_offline(&config, out),
        },
        (false, Some(percent)) => {
            // The server has another working directory.
            let dir = args.dir.as_ref().map(std::fs::canonicalize).transpose().map_err(|error| {
                let dir = args.dir.as_deref().unwrap_or_else(|| std::path::Path::new(""));
                CommandError::new(Exit::Bad, format!("{}: {error}", dir.display()))
            })?;
            let promote = Promote { dir, percent, rollback_on_errors: args.rollback_on_errors };
            report(ask(&config, &Request::RoutePromote(promote))?)?
        }
        (false, None) => report(ask(&config, &Request::RoutePromotion)?)?,
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        return Ok(writeln!(out)?);
    }
    Ok(print(&report, out)?)
}

fn report(answer: Answer) -> Result<PromotionReport, CommandError> {
    let Answer::RoutePromotion(report) = answer else { return Err(unexpected()) };
    Ok(*report)
}

/// A server that cannot start because of what was promoted is helped like that.
fn roll_back_offline(config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let _lock = DataDirLock::take(&config.data_dir)?;
    let dir = PromotionDir::new(&config.data_dir);
    let failed = |error| CommandError::new(Exit::Failed, error);
    match dir.roll_back(crate::clock::now()).map_err(failed)? {
        Some(terms) => writeln!(out, "{} was rolled back; no server is running", terms.hash)?,
        None => return Err(CommandError::new(Exit::Bad, "no promotion runs")),
    }
    Ok(())
}

fn print(report: &PromotionReport, out: &mut dyn Write) -> std::io::Result<()> {
    let now = crate::clock::now();
    let PromotionReport { live, dir, running, errors, last } = report;
    let Some(terms) = running else {
        writeln!(out, "no promotion runs: {live} ({}) decides about all mail", dir.display())?;
        return last.as_ref().map_or(Ok(()), |last| {
            let (hash, from) = (&last.terms.hash, last.terms.from.display());
            writeln!(
                out,
                "the last one, {hash} from {from}, ended {}: {}",
                show::when(last.at, now),
                last.why
            )
        });
    };
    let (hash, percent) = (&terms.hash, terms.percent);
    if percent >= 100.0 {
        writeln!(out, "{hash} decides about all messages, {live} ({}) about none", dir.display())?;
    } else {
        writeln!(out, "{hash} decides about {percent} % of the messages, {live} about the rest")?;
    }
    writeln!(out, "from     {}, promoted {}", terms.from.display(), show::when(terms.since, now))?;
    let limit = terms.rollback_on_errors;
    let limit = limit.map_or_else(String::new, |limit| format!("; rolled back by itself at {limit}"));
    writeln!(out, "errors   {errors}{limit}")?;
    let (from, dir) = (terms.from.display(), dir.display());
    if percent >= 100.0 {
        writeln!(
            out,
            "to end   copy {from} to {dir}: the promotion ends by itself when the same files stand there"
        )
    } else {
        writeln!(
            out,
            "next     waypost route promote --percent 100, or --rollback; see also waypost route stats"
        )
    }
}
