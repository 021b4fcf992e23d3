//! The command line: one file a subcommand.
//!
//! What was typed becomes a [`Command`], a command runs with what all commands share ([`Shared`]), writes to `out`, and
//! ends well or in a [`CommandError`] that carries its exit code and what to do. Exit codes are for scripts to rely on:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done, and the answer is good |
//! | 1 | what was asked about is bad, or is not there |
//! | 2 | the command line is wrong |
//! | 3 | no server is running for the data directory |
//! | 4 | it could not be done: a file, the network, the server failed |
//!
//! `sendmail` alone has the codes of sysexits.h.

mod account;
mod check;
mod config_file;
mod diagnostics;
mod dkim;
mod edit;
mod error;
mod localserve;
pub mod logging;
mod message_input;
mod metrics;
mod queue;
mod queue_controls;
mod queue_hold_rules;
mod queue_suppressions;
mod resolver;
mod route;
mod sendmail;
mod serve;
mod show;
mod spf;
mod status;
mod tls;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use error::{CommandError, Exit};

use crate::config::Config;
use crate::control::{Answer, Client, ClientError, Request};
use crate::route::{ScriptProblem, ScriptSet};
use logging::LogFormat;

const AFTER_HELP: &str = "\
Configuration: the file of --config, else of $WAYPOST_CONFIG, else
./waypost.toml, else /etc/waypost/waypost.toml.

Exit codes:
  0  done, and the answer is good
  1  what was asked about is bad, or is not there
  2  the command line is wrong
  3  no server is running for the data directory
  4  it could not be done: a file, the network, the server failed

Examples:
  waypost localserve           a mail server to play with, and a world to send to
  waypost check                what is wrong with configuration and scripts
  waypost serve                run the server
  waypost account add ann ann@example.org
  waypost status               how the running server is
  waypost queue list           what waits, and why
  waypost route new global     a first routing script, and a test for it
  waypost route test           the tests of the routing scripts
  waypost route explain --from ann@example.org --to bob@example.net --attempt 4";

/// A mail server whose queue asks your scripts which way each message goes.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, after_help = AFTER_HELP, max_term_width = 90, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What all commands share.
#[derive(Debug, Args)]
struct Global {
    /// The configuration file
    #[arg(long, short, global = true, value_name = "FILE", env = "WAYPOST_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// What is logged: a level (error, warn, info, debug, trace), or levels by part such as
    /// `info,waypost::queue=debug`
    #[arg(long, global = true, value_name = "LEVEL", env = "WAYPOST_LOG", hide_env_values = true)]
    log: Option<String>,
    /// How log lines look: for people or for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Localserve(localserve::LocalserveArgs),
    Check(check::CheckArgs),
    Account(account::AccountArgs),
    Queue(queue::QueueArgs),
    Route(route::RouteArgs),
    Sendmail(sendmail::SendmailArgs),
    Spf(spf::SpfArgs),
    Status(status::StatusArgs),
    Metrics(metrics::MetricsArgs),
    Dkim(dkim::DkimArgs),
    Tls(tls::TlsArgs),
}

/// What a command runs with.
struct Shared {
    config: Option<PathBuf>,
    /// Whether somebody reads the output on a terminal.
    terminal: bool,
}

impl Shared {
    /// The configuration file that is meant.
    fn config_file(&self) -> Result<PathBuf, CommandError> {
        config_file::find(self.config.as_deref(), std::path::Path::is_file)
    }

    /// Reads and checks the configuration.
    fn config(&self) -> Result<Config, CommandError> {
        Ok(Config::load(&self.config_file()?)?)
    }
}

/// Runs what was typed.
pub fn main() -> ExitCode {
    if let Some((program, arguments)) = sendmail::called(std::env::args_os()) {
        return sendmail::run_called(&program, arguments, None);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed pipe is not worth a word.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let long_running = matches!(cli.command, Command::Serve(_) | Command::Localserve(_));
    let filter = cli.global.log.as_deref();
    if let Err(error) = logging::start(filter, cli.global.log_format, long_running) {
        return report(&error);
    }
    let shared = Shared { config: cli.global.config, terminal: io::stdout().is_terminal() };
    let mut out = io::stdout();
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args, &shared),
        Command::Localserve(args) => localserve::run(&args, &mut out),
        Command::Check(args) => check::run(&args, &shared, &mut out),
        Command::Account(args) => account::run(&args, &shared, &mut out),
        Command::Queue(args) => queue::run(&args, &shared, &mut out),
        Command::Route(args) => route::run(&args, &shared, &mut out),
        Command::Spf(args) => spf::run(&args, &shared, &mut out),
        Command::Status(args) => status::run(&args, &shared, &mut out),
        Command::Metrics(args) => metrics::run(&args, &shared, &mut out),
        Command::Dkim(args) => dkim::run(&args, &shared, &mut out),
        Command::Tls(args) => tls::run(&args, &shared, &mut out),
        // It has exit codes and words of its own, those of every other sendmail.
        Command::Sendmail(args) => return sendmail::run(args, shared.config),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &CommandError) -> ExitCode {
    let text = error.render(io::stderr().is_terminal());
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
    error.exit().into()
}

/// A runtime for commands that run beside no server: one thread is enough.
fn small_runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A runtime for servers.
fn server_runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Asks the running server of a configuration.
fn ask(config: &Config, request: &Request) -> Result<Answer, CommandError> {
    Ok(Client::connect(&config.data_dir)?.call(request)?)
}

/// Asks the running server, if there is one.
fn ask_if_running(config: &Config, request: &Request) -> Result<Option<Answer>, CommandError> {
    match Client::connect(&config.data_dir) {
        Ok(mut client) => Ok(Some(client.call(request)?)),
        Err(ClientError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The scripts of a configuration. Before the server's first start their directory may be missing: no scripts.
fn load_scripts(config: &Config) -> Result<ScriptSet, Vec<ScriptProblem>> {
    if config.scripts_dir.exists() {
        return ScriptSet::load(&config.scripts_dir, &config.script_limits);
    }
    let problem = |error: io::Error| {
        vec![ScriptProblem::whole(config.scripts_dir.display().to_string(), error.to_string())]
    };
    let empty = tempfile::tempdir().map_err(problem)?;
    ScriptSet::load(empty.path(), &config.script_limits)
}

/// An answer to another question than was asked.
fn unexpected() -> CommandError {
    ClientError::Strange("an answer to another question".to_owned()).into()
}
