//! `waypost check`: everything that is wrong with configuration, certificate and scripts, before anything runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::error::{CommandError, Exit};
use super::{Shared, config_file, diagnostics, load_scripts};
use crate::config::{Config, ConfigProblems, ListenerKind};
use crate::route::{ScriptProblem, ScriptSet, Surroundings};
use crate::tls::ServerTls;

const AFTER_HELP: &str = "\
Nothing is started and nothing is changed. Problems make the exit code 1, notes
do not.

Examples:
  waypost check
  waypost check --config /etc/waypost/waypost.toml --json
  waypost check && systemctl reload waypost";

/// Say what is wrong with configuration and scripts
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckArgs {
    /// Print JSON: problems with their places, and notes
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Where the configuration is.
    file: String,
    /// The configuration's own problems.
    config: Vec<PlacedProblem>,
    /// The scripts' problems.
    scripts: Vec<ScriptProblem>,
    /// Where the scripts are.
    #[serde(skip)]
    scripts_dir: PathBuf,
    /// Problems of certificate and key.
    tls: Vec<String>,
    /// What works, but is probably not meant.
    notes: Vec<String>,
    /// What is there, in one line.
    summary: Option<String>,
}

#[derive(Debug, Serialize)]
struct PlacedProblem {
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    expected: String,
    help: Option<String>,
}

pub(super) fn run(args: &CheckArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let file = config_file::find(shared.config.as_deref(), Path::is_file)?;
    let (report, problems) = check(&file);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        if let Some(problems) = &problems {
            write!(out, "{}", problems.render(shared.terminal))?;
        }
        print(&report, shared.terminal, out)?;
    }
    let bad_scripts = report.scripts.iter().any(ScriptProblem::is_error);
    let bad = problems.is_some() || bad_scripts || !report.tls.is_empty();
    if bad { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

fn check(file: &Path) -> (Report, Option<ConfigProblems>) {
    let mut report = Report { file: file.display().to_string(), ..Report::default() };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(problems) => {
            report.config = placed(&problems);
            // The scripts are looked at all the same, where they probably are: all problems in one run.
            let scripts = file.parent().unwrap_or(Path::new("")).join(crate::config::SCRIPTS_DIR_DEFAULT);
            if scripts.is_dir() {
                let limits = crate::config::ScriptLimits::default();
                let checked = ScriptSet::check(&scripts, &limits, &Surroundings::default());
                report.scripts = checked.map_or_else(|problems| problems, |(_, problems)| problems);
                report.scripts_dir = scripts;
            }
            return (report, Some(problems));
        }
    };
    if let Some(error) = config.tls.as_ref().and_then(|tls| ServerTls::load(&tls.files).err()) {
        report.tls.push(error.to_string());
    }
    report.notes = notes(&config);
    report.scripts_dir.clone_from(&config.scripts_dir);
    match checked_scripts(&config) {
        Ok((scripts, problems)) => {
            report.scripts = problems;
            if !report.scripts.iter().any(ScriptProblem::is_error) {
                report.summary = Some(summary(&config, &scripts));
            }
        }
        Err(problems) => report.scripts = problems,
    }
    (report, None)
}

/// The scripts, what the lint finds in them, and which of their tests fail.
fn checked_scripts(config: &Config) -> Result<(ScriptSet, Vec<ScriptProblem>), Vec<ScriptProblem>> {
    // Before the server's first start their directory may be missing: no scripts.
    if !config.scripts_dir.exists() {
        return Ok((load_scripts(config)?, Vec::new()));
    }
    let around = Surroundings::from(config);
    let (set, mut problems) = ScriptSet::check(&config.scripts_dir, &config.script_limits, &around)?;
    if config.require_tests && !problems.iter().any(ScriptProblem::is_error) {
        problems.extend(crate::route_test::guard()(&set, &around));
    }
    Ok((set, problems))
}

fn placed(problems: &ConfigProblems) -> Vec<PlacedProblem> {
    let place = |problem| problems.line_and_column(problem).map_or((None, None), |(l, c)| (Some(l), Some(c)));
    let all = problems.problems().iter().map(|problem| {
        let (line, column) = place(problem);
        let (message, expected, help) =
            (problem.message.clone(), problem.label.clone(), problem.help.clone());
        PlacedProblem { line, column, message, expected, help }
    });
    all.collect()
}

fn print(report: &Report, terminal: bool, out: &mut dyn Write) -> std::io::Result<()> {
    for problem in &report.tls {
        writeln!(out, "tls: {problem}")?;
    }
    write!(out, "{}", diagnostics::render(&report.scripts, &report.scripts_dir, terminal))?;
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(summary) = report.summary.as_ref().filter(|_| report.tls.is_empty()) {
        writeln!(out, "{} is good: {summary}", report.file)?;
    }
    Ok(())
}

/// What works, but is probably not what the operator wants.
fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let listens = |kind| config.listeners.iter().any(|listener| listener.kind == kind);
    if !listens(ListenerKind::Submission) && !listens(ListenerKind::Submissions) {
        notes.push("no listener of kind submission or submissions: users cannot send".to_owned());
    }
    if !listens(ListenerKind::Imap) && !listens(ListenerKind::Imaps) {
        notes.push("no listener of kind imap or imaps: users cannot read their mail".to_owned());
    }
    if config.tls.is_none() {
        notes.push("no [tls]: mail comes in unencrypted, and passwords are not taken".to_owned());
    }
    for listener in config.listeners.iter().filter(|listener| listener.allow_plaintext_auth) {
        notes.push(format!("{}: passwords may travel unencrypted (allow_plaintext_auth)", listener.address));
    }
    for net in config.listeners.iter().flat_map(|l| &l.relay_from).filter(|net| net.prefix_len() == 0) {
        notes.push(format!(
            "relay_from = {net}: an open relay; everybody may send to everybody through this server"
        ));
    }
    for address in config.metrics.listen.iter().filter(|address| !address.ip().is_loopback()) {
        notes.push(format!(
            "[metrics] {address}: whoever reaches it reads the metrics, names of scripts included"
        ));
    }
    if config.accounts.is_empty() {
        notes.push("no accounts: add one with `waypost account add NAME ADDRESS`".to_owned());
    }
    if config.postmaster.is_none() && config.domains.values().any(|d| !d.addresses.contains_key("postmaster"))
    {
        notes.push("no postmaster: every mail domain must take mail for it (RFC 5321 §4.5.1)".to_owned());
    }
    notes
}

fn summary(config: &Config, scripts: &ScriptSet) -> String {
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    [
        count(config.listeners.len(), "listener"),
        count(config.transports.len(), "transport"),
        count(config.domains.len(), "domain"),
        count(config.accounts.len(), "account"),
        count(scripts.scripts().len(), "script"),
    ]
    .join(", ")
}
