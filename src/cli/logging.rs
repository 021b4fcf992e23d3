//! Log lines: one an event, to standard error, for people or as JSON.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::error::{CommandError, Exit};

/// What servers log when nobody says otherwise.
const SERVER_DEFAULT: &str = "info";
/// What short commands log when nobody says otherwise: what they have to say is their output.
const COMMAND_DEFAULT: &str = "error";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: coloured on a terminal.
    Pretty,
    /// For programs: a JSON object a line.
    Json,
}

/// Starts logging for the whole process.
pub fn start(filter: Option<&str>, format: LogFormat, long_running: bool) -> Result<(), CommandError> {
    let default = if long_running { SERVER_DEFAULT } else { COMMAND_DEFAULT };
    let text = filter.filter(|text| !text.trim().is_empty()).unwrap_or(default);
    let filter = EnvFilter::builder().parse(text).map_err(|error| {
        CommandError::new(Exit::Usage, format!("--log: {text:?} is no log level: {error}"))
            .hint("levels are error, warn, info, debug, trace; or by part: info,waypost::queue=debug")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Pretty => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CommandError::new(Exit::Failed, format!("cannot start the log: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_a_wrong_command_line() {
        let error = start(Some("waypost=loud"), LogFormat::Pretty, false).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.render(false).contains("loud"), "{}", error.render(false));
    }
}
