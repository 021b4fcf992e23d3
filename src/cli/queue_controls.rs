//! `waypost queue kick|hold|unhold|transport|schedule|fail|drop|dump`: what an operator does to what waits.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::error::CommandError;
use super::queue::FilterArgs;
use super::{Exit, ask, unexpected};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::names::{QueueId, TransportName};
use crate::queue::{Action, Filter};

/// Which recipients, and how to tell about it.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    filter: FilterArgs,
    /// Everything that waits
    #[arg(long)]
    all: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const KICK_HELP: &str = "\
The scripts are asked again, as on every attempt, unless a transport is set. What is
held stays held.

Examples:
  waypost queue kick 00002a 00002b
  waypost queue kick --to-domain example.net
  waypost queue kick --all --transport backup";

/// Try again now
#[derive(Debug, Args)]
#[command(after_help = KICK_HELP)]
pub(super) struct KickArgs {
    /// Which messages
    ids: Vec<QueueId>,
    /// Over this transport, whatever the scripts say, until it is cleared
    #[arg(long, value_name = "NAME")]
    transport: Option<TransportName>,
    #[command(flatten)]
    which: Which,
}

const HOLD_HELP: &str = "\
What is held is not tried and not given up; its age counts on. An attempt that is
under way is finished. For mail that is still to come, see `waypost queue hold-rule`.

Examples:
  waypost queue hold 00002a
  waypost queue hold --from-domain example.org --dry-run";

/// Keep back until released
#[derive(Debug, Args)]
#[command(after_help = HOLD_HELP)]
pub(super) struct HoldArgs {
    /// Which messages
    ids: Vec<QueueId>,
    #[command(flatten)]
    which: Which,
}

const UNHOLD_HELP: &str = "\
What was held by hand is tried when it is due. What a hold rule holds stays held as
long as there is the rule: see `waypost queue hold-rule`.

Examples:
  waypost queue unhold 00002a
  waypost queue unhold --all";

/// Release what is held
#[derive(Debug, Args)]
#[command(after_help = UNHOLD_HELP)]
pub(super) struct UnholdArgs {
    /// Which messages
    ids: Vec<QueueId>,
    #[command(flatten)]
    which: Which,
}

const TRANSPORT_HELP: &str = "\
The transport beats all scripts on every attempt until it is cleared. The next attempt
comes when it is due; `waypost queue kick --transport NAME` makes it now.

Examples:
  waypost queue transport backup 00002a
  waypost queue transport backup --to-domain example.net
  waypost queue transport --clear --all";

/// Set or clear the transport of what waits
#[derive(Debug, Args)]
#[command(after_help = TRANSPORT_HELP)]
pub(super) struct TransportArgs {
    /// The transport (not with --clear), then which messages
    #[arg(value_name = "NAME|ID")]
    words: Vec<String>,
    /// Let the scripts decide again
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    which: Which,
}

const SCHEDULE_HELP: &str = "\
TIME is a point in time, or a span from now.

Examples:
  waypost queue schedule 2h 00002a
  waypost queue schedule 2026-12-01T06:00:00Z --to-domain example.net";

/// Set when the next attempt is made
#[derive(Debug, Args)]
#[command(after_help = SCHEDULE_HELP)]
pub(super) struct ScheduleArgs {
    /// When
    #[arg(value_parser = time)]
    time: Timestamp,
    /// Which messages
    ids: Vec<QueueId>,
    #[command(flatten)]
    which: Which,
}

const FAIL_HELP: &str = "\
The sender gets a failure report with the reason. What is under way is left alone.

Examples:
  waypost queue fail 00002a --reason \"the account was closed\"
  waypost queue fail --to-domain exmaple.net --dry-run";

/// Give up: try no more, and tell the sender
#[derive(Debug, Args)]
#[command(after_help = FAIL_HELP)]
pub(super) struct FailArgs {
    /// Which messages
    ids: Vec<QueueId>,
    /// What the sender is told
    #[arg(long, value_name = "TEXT", default_value = "delivery was given up")]
    reason: String,
    #[command(flatten)]
    which: Which,
}

const DROP_HELP: &str = "\
Nobody is told. What is under way is left alone.

Examples:
  waypost queue drop 00002a
  waypost queue drop --from \"\" --older-than 1d";

/// Remove without telling anybody
#[derive(Debug, Args)]
#[command(after_help = DROP_HELP)]
pub(super) struct DropArgs {
    /// Which messages
    ids: Vec<QueueId>,
    #[command(flatten)]
    which: Which,
}

const DUMP_HELP: &str = "\
Examples:
  waypost queue dump 00002a
  waypost queue dump 00002a > message.eml";

/// Print a message as it will be sent
#[derive(Debug, Args)]
#[command(after_help = DUMP_HELP)]
pub(super) struct DumpArgs {
    /// Which
    id: QueueId,
}

pub(super) fn kick(args: &KickArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let action = Action::Kick { transport: args.transport.clone() };
    act(&args.ids, &args.which, action, "will be tried now", config, out)
}

pub(super) fn hold(args: &HoldArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    act(&args.ids, &args.which, Action::Hold, "held", config, out)
}

pub(super) fn unhold(args: &UnholdArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    act(&args.ids, &args.which, Action::Release, "released", config, out)
}

pub(super) fn transport(
    args: &TransportArgs,
    config: &Config,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let usage = |message: String| CommandError::new(Exit::Usage, message);
    let (name, ids) = match args.words.split_first() {
        _ if args.clear => (None, args.words.as_slice()),
        None => return Err(usage("which transport? give its name, or --clear".to_owned())),
        Some((name, ids)) => (Some(TransportName::new(name).map_err(|error| usage(error.to_string()))?), ids),
    };
    let ids: Result<Vec<QueueId>, _> = ids.iter().map(|id| id.parse::<QueueId>()).collect();
    let ids = ids.map_err(|error| usage(error.to_string()))?;
    let done = match &name {
        Some(name) => format!("will go over {name}"),
        None => "will go where the scripts say".to_owned(),
    };
    act(&ids, &args.which, Action::Transport { name }, &done, config, out)
}

pub(super) fn schedule(
    args: &ScheduleArgs,
    config: &Config,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let done = format!("will be tried at {}", super::show::time(args.time));
    act(&args.ids, &args.which, Action::Schedule { at: args.time }, &done, config, out)
}

pub(super) fn fail(args: &FailArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let action = Action::Fail { reason: args.reason.clone() };
    act(&args.ids, &args.which, action, "failed; the senders are told", config, out)
}

pub(super) fn drop_waiting(
    args: &DropArgs,
    config: &Config,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    act(&args.ids, &args.which, Action::Drop, "dropped", config, out)
}

pub(super) fn dump(args: &DumpArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::Content(text) = ask(config, &Request::QueueDump { id: args.id })? else {
        return Err(unexpected());
    };
    let content = STANDARD.decode(text).map_err(|error| CommandError::new(Exit::Failed, error))?;
    Ok(out.write_all(&content)?)
}

/// Asks the server to do it, and says to how many it was done.
fn act(
    ids: &[QueueId],
    which: &Which,
    action: Action,
    done: &str,
    config: &Config,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let filter = which.filter.filter(ids);
    if filter == Filter::default() && !which.all {
        return Err(CommandError::new(Exit::Usage, "which messages? give ids or a filter, or --all"));
    }
    let request = Request::QueueControl { filter, action, dry_run: which.dry_run };
    let Answer::Controlled(counts) = ask(config, &request)? else { return Err(unexpected()) };
    if which.json {
        let (recipients, busy) = (counts.recipients, counts.busy);
        let still_held = counts.still_held;
        let json = serde_json::json!({
            "recipients": recipients, "busy": busy, "still_held": still_held, "dry_run": which.dry_run,
        });
        return Ok(writeln!(out, "{json}")?);
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (recipients, busy) = (counts.recipients, counts.busy);
    if busy > 0 {
        writeln!(out, "{busy} recipient{} left alone: an attempt is under way", plural(busy))?;
    }
    if counts.still_held > 0 {
        let (number, stay) = (counts.still_held, if counts.still_held == 1 { "stays" } else { "stay" });
        writeln!(out, "{number} recipient{} {stay} held: see `waypost queue list --held`", plural(number))?;
    }
    match (recipients, busy, which.dry_run) {
        (0, 0, false) if which.all => Ok(writeln!(out, "nothing waits")?),
        (0, 0, false) => Err(CommandError::new(Exit::Bad, "nothing that waits is meant by that")),
        (_, _, true) => Ok(writeln!(out, "{recipients} recipient{} would be meant", plural(recipients))?),
        (_, _, false) => Ok(writeln!(out, "{recipients} recipient{} {done}", plural(recipients))?),
    }
}

/// A point in time, or a span from now.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let span =
        span(text).map_err(|_| "write a time like 2026-12-01T06:00:00Z, or a span like 2h".to_owned())?;
    crate::clock::now().checked_add(span).map_err(|error| error.to_string())
}

/// A span of time: `90s`, `2h 30m`, `4d`.
pub(super) fn span(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is no span of time: write it like 90s, 2h 30m or 4d");
    let seconds = |text: &str| {
        text.parse::<jiff::Span>().ok()?.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()
    };
    seconds(text).filter(|span| !span.is_negative()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(time("2026-12-01T06:00:00Z"), Ok("2026-12-01T06:00:00Z".parse().unwrap()));
        for (text, seconds) in [("90s", 90), ("2h 30m", 9_000), ("4d", 345_600)] {
            assert_eq!(span(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "soon", "12", "-1h"] {
            assert!(span(bad).is_err() && time(bad).is_err(), "{bad}");
        }
    }
}
