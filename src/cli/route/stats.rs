//! `waypost route stats`: what each script did since the server started.

use std::io::Write;

use clap::Args;

use super::super::error::CommandError;
use super::super::{Shared, ask, unexpected};
use crate::control::{Answer, Request};
use crate::route::ScriptStats;

const AFTER_HELP: &str = "\
For each script that was asked: how often, what it answered, how long it took
(on average, and what 99 of 100 evaluations stayed within). Besides the live set
there are the promoted one and the shadow, where they run.

Examples:
  waypost route stats
  waypost route stats --json | jq '.[] | select(.errors != {})'";

/// Show what each script did since the server started
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatsArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::RouteStats(stats) = ask(&shared.config()?, &Request::RouteStats)? else {
        return Err(unexpected());
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &stats)?;
        return Ok(writeln!(out)?);
    }
    if stats.is_empty() {
        return Ok(writeln!(out, "no script was asked since the server started")?);
    }
    Ok(stats.iter().try_for_each(|script| write!(out, "{}", text(script)))?)
}

fn text(script: &ScriptStats) -> String {
    let most = script.micros_99.map_or_else(|| "more than 100000".to_owned(), |micros| micros.to_string());
    let head = format!(
        "{} ({}): asked {} times, {:.1} µs on average, 99 % within {most} µs\n",
        script.script, script.set, script.evaluations, script.micros_mean
    );
    let transports = script.transports.iter().map(|(name, count)| (name.to_string(), *count));
    let nothing = (script.nothing > 0).then(|| ("nothing".to_owned(), script.nothing));
    let errors = script.errors.iter().map(|(kind, count)| (format!("error: {kind}"), *count));
    let answers = transports.chain(nothing).chain(errors);
    let lines = answers.map(|(answer, count)| format!("    {count:>10}  {answer}\n"));
    std::iter::once(head).chain(lines).collect()
}
