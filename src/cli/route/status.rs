//! `waypost route status`: which scripts run, since when, and why the newest files do not, if so.

use std::io::Write;

use clap::Args;

use super::super::error::{CommandError, Exit};
use super::super::{Shared, ask, show, unexpected};
use crate::control::{Answer, Request, RouteStatus};
use crate::route::ScriptProblem;

const HELP: &str = "\
The exit code is 1 when the newest files on disk are not what runs: they were
refused, and the scripts that ran before still run.

Examples:
  waypost route status
  waypost route status --json | jq .hash";

/// Show which scripts run, and why the newest do not
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::RouteStatus(status) = ask(&shared.config()?, &Request::RouteStatus)? else {
        return Err(unexpected());
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &status)?;
        writeln!(out)?;
    } else {
        print(&status, out)?;
    }
    if status.router.failed.is_some() { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

fn print(status: &RouteStatus, out: &mut dyn Write) -> std::io::Result<()> {
    let (router, now) = (&status.router, crate::clock::now());
    writeln!(out, "running: {} from {}", router.hash, router.dir.display())?;
    writeln!(out, "since:   {} ({})", show::time(router.since), show::when(router.since, now))?;
    if router.scripts.is_empty() {
        writeln!(out, "scripts: none; all mail goes direct")?;
    }
    let width = router.scripts.iter().map(|script| script.file.len()).max().unwrap_or(0);
    for script in &router.scripts {
        writeln!(out, "  {:width$}  {}", script.file, script.hash)?;
    }
    if let Some(rerouted) = &status.rerouted {
        let more = if rerouted.more { " (there were more)" } else { "" };
        let moved: usize = rerouted.moved.iter().map(|moved| moved.recipients).sum();
        let looked_at = rerouted.looked_at;
        writeln!(out, "of {looked_at} recipients that waited{more}, {moved} go another way than before:")?;
        for moved in &rerouted.moved {
            writeln!(out, "  {moved}")?;
        }
    }
    if !router.problems.is_empty() {
        writeln!(out, "they run although:")?;
        list(&router.problems, out)?;
    }
    if let Some(failed) = &router.failed {
        writeln!(out, "the newest files do not run, refused {}:", show::when(failed.at, now))?;
        list(&failed.problems, out)?;
    }
    Ok(())
}

fn list(problems: &[ScriptProblem], out: &mut dyn Write) -> std::io::Result<()> {
    for problem in problems {
        let word = if problem.is_error() { "error" } else { "warning" };
        writeln!(out, "  {word}: {problem}")?;
    }
    Ok(())
}
