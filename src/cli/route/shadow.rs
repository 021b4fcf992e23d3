//! `waypost route shadow`: where the scripts that run beside would have gone elsewhere.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;

use super::super::error::{CommandError, Exit};
use super::super::{Shared, ask, show, unexpected};
use crate::control::{Answer, Request};
use crate::route::{Difference, Example, ShadowReport};

const AFTER_HELP: &str = "\
A shadow is a second scripts directory, named in the configuration:

  [scripts]
  shadow = \"new-scripts\"

It is asked about every real decision after this was made, and changes nothing.
What it would have done otherwise is kept until its files change, --reset, or the
server stops.

Examples:
  waypost route shadow
  waypost route shadow --json | jq '.differences[] | {from, to, count}'
  waypost route shadow --reset";

/// Say what the shadow would have done otherwise
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ShadowArgs {
    /// Count anew after this
    #[arg(long)]
    reset: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Pairs of domains shown of each sort of difference.
const DOMAINS_SHOWN: usize = 5;

pub(super) fn run(args: &ShadowArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let answer = ask(&shared.config()?, &Request::RouteShadow { reset: args.reset })?;
    let Answer::RouteShadow(report) = answer else { return Err(unexpected()) };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        return Ok(writeln!(out)?);
    }
    let Some(report) = report else {
        let error = CommandError::new(Exit::Bad, "no shadow runs");
        return Err(error.hint("name one in the configuration, [scripts] shadow = \"DIR\", and reload"));
    };
    print(&report, out)?;
    if args.reset {
        writeln!(out, "counting begins anew")?;
    }
    Ok(())
}

fn print(report: &ShadowReport, out: &mut dyn Write) -> std::io::Result<()> {
    let now = crate::clock::now();
    let dir = report.dir.display();
    match &report.hash {
        Some(hash) => writeln!(out, "{dir} ({hash}), compared since {}", show::time(report.since)),
        None => writeln!(out, "{dir}: nothing there that can be asked"),
    }?;
    if let Some(failed) = &report.failed {
        writeln!(out, "its newest files are not asked, refused {}:", show::when(failed.at, now))?;
        failed.problems.iter().try_for_each(|problem| writeln!(out, "    {problem}"))?;
    }
    let tally = report.tally;
    let skipped = match report.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} skipped because it could not keep up"),
    };
    let decisions = show::count(tally.decisions as usize, "decision");
    writeln!(out, "{decisions}: {} different, {} with errors{skipped}", tally.different, tally.errors)?;
    report.differences.iter().try_for_each(|difference| difference_text(difference, now, out))?;
    if report.differences_not_kept > 0 {
        writeln!(out, "and {} differences of further sorts", report.differences_not_kept)?;
    }
    for mistake in &report.errors {
        writeln!(
            out,
            "\nerror, {}: {}",
            times(mistake.count, mistake.first, mistake.last, now),
            mistake.error
        )?;
        writeln!(out, "    such as {}", examples(&mistake.examples))?;
    }
    Ok(())
}

fn difference_text(difference: &Difference, now: Timestamp, out: &mut dyn Write) -> std::io::Result<()> {
    let Difference { from, to, count, first, last, domains, other_domains, examples: some } = difference;
    writeln!(out, "\n{from} -> {to}: {}", times(*count, *first, *last, now))?;
    let shown: u64 = domains.iter().take(DOMAINS_SHOWN).map(|pair| pair.count).sum();
    for pair in domains.iter().take(DOMAINS_SHOWN) {
        let sender = if pair.sender.is_empty() { "<>" } else { &pair.sender };
        writeln!(out, "    {:>8}  {sender} to {}", pair.count, pair.recipient)?;
    }
    let rest = domains.iter().map(|pair| pair.count).sum::<u64>() + other_domains - shown;
    if rest > 0 {
        writeln!(out, "    {rest:>8}  other domains")?;
    }
    writeln!(out, "    such as {}", examples(some))
}

fn times(count: u64, first: Timestamp, last: Timestamp, now: Timestamp) -> String {
    let many = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let first = if count == 1 { String::new() } else { format!("first {}, ", show::when(first, now)) };
    format!("{many}, {first}last {}", show::when(last, now))
}

fn examples(some: &[Example]) -> String {
    let text = |e: &Example| format!("{} to {} (attempt {})", e.id, e.recipient, e.attempt);
    some.iter().map(text).collect::<Vec<_>>().join(", ")
}
