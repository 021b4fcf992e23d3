//! `waypost route test`: runs the tests that stand beside the routing scripts.
//!
//! It needs no server and no configuration, only scripts. Where there is a configuration, its transports are those that
//! exist; without one, every name is taken for a transport unless a file of tests says which there are.

mod coverage;
mod formats;
mod inputs;
mod print;
mod watch;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Shared;
use crate::cli::error::{CommandError, Exit};
use crate::route::ScriptProblem;
use crate::route_test::{Coverage, Options, Report, run as run_tests};
use inputs::{Inputs, Suite};

const TEST_HELP: &str = "\
Tests stand beside the script that has their name: global.test.toml beside
global.rhai, domain/example.org.test.toml beside domain/example.org.rhai; tests
in Rhai are called *.test.rhai. They ask that script alone. Tests at the top with
any other name, such as chain.test.toml, ask all three levels, as the queue does.

A PATH is a scripts directory, a folder of single scripts, a script, or a file of
tests. Without one it is the configured scripts directory, else ./scripts, else
the current directory.

Exit codes: 0 when all tests pass, 1 when one fails or --fail-under is not
reached, 2 when scripts or tests cannot be used at all.

Examples:
  waypost route test
  waypost route test scripts/global.rhai --filter greylist
  waypost route test --watch
  waypost route test --coverage --fail-under 90
  waypost route test --coverage --lcov coverage.info
  waypost route test --format junit > report.xml";

/// Run the tests beside the routing scripts
#[derive(Debug, Args)]
#[command(after_help = TEST_HELP)]
pub(super) struct TestArgs {
    /// Scripts directories, scripts, or files of tests
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only tests whose name or file contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Also say which lines and branches no test reached
    #[arg(long)]
    coverage: bool,
    /// Write the coverage to a file, as lcov and genhtml read it
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
    /// Fail when less than this part of lines and branches is reached
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_under: Option<f64>,
    /// Run again whenever a file is saved
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// JSON, everything
    Json,
    /// JUnit XML, for continuous integration
    Junit,
    /// Test Anything Protocol
    Tap,
}

fn percent(text: &str) -> Result<f64, String> {
    let number =
        text.trim_end_matches('%').parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 100".to_owned())
}

/// What came of everything that was asked for.
struct Outcome {
    /// What was run, with what came of it.
    suites: Vec<(Suite, Report)>,
    /// Scripts that do not load.
    unusable: Vec<ScriptProblem>,
    /// What is odd, but no failure.
    notes: Vec<String>,
}

impl Outcome {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.suites.iter().map(|(_, report)| report)
    }

    fn is_usable(&self) -> bool {
        self.unusable.is_empty() && self.reports().all(|report| report.broken.is_empty())
    }

    /// Of all files together.
    fn percent(&self) -> f64 {
        let mut all = Coverage::default();
        for coverage in self.reports().filter_map(|report| report.coverage.clone()) {
            all.append(coverage);
        }
        all.percent()
    }
}

pub(super) fn run(args: &TestArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    if !args.watch {
        return once(args, shared, out);
    }
    let roots = inputs::roots(args, shared)?;
    watch::on_changes(&roots, || {
        let result = once(args, shared, out);
        out.flush()?;
        match result {
            Err(error) => {
                let text = error.render(colours(shared));
                std::io::stderr().write_all(text.as_bytes())
            }
            Ok(()) => Ok(()),
        }
    })
}

/// Reads, runs and reports once.
fn once(args: &TestArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let inputs = inputs::read(args, shared)?;
    let outcome = run_all(args, inputs);
    let wants_coverage = args.coverage || args.lcov.is_some() || args.fail_under.is_some();
    match args.format {
        Format::Text => print::print(&outcome, colours(shared), out)?,
        Format::Json => formats::json(&outcome, wants_coverage, out)?,
        Format::Junit => formats::junit(&outcome, out)?,
        Format::Tap => formats::tap(&outcome, out)?,
    }
    if let Some(file) = &args.lcov {
        std::fs::write(file, coverage::lcov(&outcome))
            .map_err(|error| CommandError::new(Exit::Failed, format!("{}: {error}", file.display())))?;
    }
    if args.coverage || args.fail_under.is_some() {
        let text = coverage::text(&outcome, args.coverage, colours(shared));
        // What programs read must stay what it is.
        if args.format == Format::Text {
            out.write_all(text.as_bytes())?;
        } else {
            std::io::stderr().write_all(text.as_bytes())?;
        }
    }
    verdict(args, &outcome)
}

fn run_all(args: &TestArgs, inputs: Inputs) -> Outcome {
    let mut outcome = Outcome { suites: Vec::new(), unusable: inputs.unusable, notes: inputs.notes };
    let coverage = args.coverage || args.lcov.is_some() || args.fail_under.is_some();
    for suite in inputs.suites {
        let options = Options {
            filter: args.filter.clone(),
            files: suite.files.clone(),
            accounts: inputs.known.accounts(),
            any_transport: inputs.known.is_any(),
            shown_under: suite.shown_under.clone(),
            coverage,
            ..Options::default()
        };
        let report = run_tests(&suite.set, &inputs.known, &options);
        outcome.suites.push((suite, report));
    }
    outcome
}

fn verdict(args: &TestArgs, outcome: &Outcome) -> Result<(), CommandError> {
    if !outcome.is_usable() {
        return Err(CommandError::silent(Exit::Usage));
    }
    if outcome.reports().any(|report| !report.is_good()) {
        return Err(CommandError::silent(Exit::Bad));
    }
    if outcome.reports().all(|report| report.cases.is_empty()) {
        let left_out: usize = outcome.reports().map(|report| report.left_out).sum();
        return Err(match &args.filter {
            Some(filter) if left_out > 0 => {
                CommandError::new(Exit::Usage, format!("no test's name or file contains {filter:?}"))
                    .hint(format!("without --filter there are {left_out} tests"))
            }
            _ => CommandError::new(Exit::Usage, "there are no tests")
                .hint("`waypost route new global` writes a first script with its first test"),
        });
    }
    let reached = outcome.percent();
    match args.fail_under {
        Some(wanted) if reached < wanted => {
            let message = format!("{reached:.1} % of lines and branches are reached, less than {wanted} %");
            Err(CommandError::new(Exit::Bad, message).hint("--coverage shows which are not"))
        }
        _ => Ok(()),
    }
}

/// Colours are for a terminal whose user did not forbid them (<https://no-color.org>).
fn colours(shared: &Shared) -> bool {
    shared.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
