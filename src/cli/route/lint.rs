//! `waypost route lint`: what is wrong with scripts before they carry mail.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::error::{CommandError, Exit};
use super::super::{Shared, diagnostics};
use crate::config::{Config, ScriptLimits};
use crate::route::{ScriptProblem, ScriptSet, Surroundings};

const HELP: &str = "\
Errors are what fails when it runs, or can never be what was meant: such scripts
do not go live. Warnings are what works and is probably not meant. Nothing is
run and nothing is changed.

With a configuration it is also known which transports, accounts and domains
there are. Errors make the exit code 1, warnings do so with --deny-warnings.

Examples:
  waypost route lint
  waypost route lint scripts/ --deny-warnings
  waypost route lint --json | jq '.problems[].message'";

/// Say what is wrong with scripts, before they run
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct LintArgs {
    /// The scripts directory; by default that of the configuration
    dir: Option<PathBuf>,
    /// Warnings make the exit code 1 too
    #[arg(long)]
    deny_warnings: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    dir: &'a Path,
    /// Whether a configuration said which transports, accounts and domains there are.
    configuration: bool,
    problems: &'a [ScriptProblem],
}

pub(super) fn run(args: &LintArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = config(args, shared)?;
    let dir = match (&args.dir, &config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => config.scripts_dir.clone(),
        (None, None) => return Err(CommandError::new(Exit::Bad, "no scripts directory")),
    };
    if args.dir.is_none() && !dir.exists() {
        // As the server sees it before its first start.
        return Ok(writeln!(out, "{}: no scripts, nothing wrong; all mail goes direct", dir.display())?);
    }
    let around = config.as_ref().map_or_else(Surroundings::default, Surroundings::from);
    let limits = config.as_ref().map_or_else(ScriptLimits::default, |config| config.script_limits.clone());
    let (files, problems) = match ScriptSet::check(&dir, &limits, &around) {
        Ok((set, problems)) => (Some(set.scripts().len()), problems),
        Err(problems) => (None, problems),
    };
    if args.json {
        let report = Report { dir: &dir, configuration: config.is_some(), problems: &problems };
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", diagnostics::render(&problems, &dir, shared.terminal))?;
        let result = diagnostics::count(&problems).unwrap_or_else(|| match files {
            Some(1) => "1 script, nothing wrong".to_owned(),
            files => format!("{} scripts, nothing wrong", files.unwrap_or(0)),
        });
        let unknown =
            if config.is_some() { "" } else { " (no configuration: names of transports were not checked)" };
        writeln!(out, "{}: {result}{unknown}", dir.display())?;
    }
    let bad = problems.iter().any(|problem| problem.is_error() || args.deny_warnings);
    if bad { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

/// A directory can be looked at without a configuration, unless one was named.
fn config(args: &LintArgs, shared: &Shared) -> Result<Option<Config>, CommandError> {
    if args.dir.is_none() || shared.config.is_some() {
        return Ok(Some(shared.config()?));
    }
    match shared.config_file() {
        Ok(file) => Ok(Some(Config::load(&file)?)),
        Err(_) => Ok(None),
    }
}
