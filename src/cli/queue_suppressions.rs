//! `waypost queue suppression list|add|rm`: recipients to which an account's mail is refused when it is submitted.

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::error::{CommandError, Exit};
use super::queue_controls::span;
use super::queue_hold_rules::{operator, printable};
use super::{ask, show, unexpected};
use crate::address::{Domain, Mailbox};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::names::AccountName;
use crate::queue::SuppressionFilter;
use crate::store::Suppression;

/// Entries fetched in one go.
const PAGE: usize = 1_000;

/// Recipients that bounced, to which mail of the account is refused
#[derive(Debug, Args)]
pub(super) struct SuppressionArgs {
    #[command(subcommand)]
    command: SuppressionCommand,
}

#[derive(Debug, Subcommand)]
enum SuppressionCommand {
    List(ListArgs),
    Add(AddArgs),
    Rm(RmArgs),
}

const LIST_HELP: &str = "\
A recipient comes here when its server says that there is no such one, for as long as
`suppress_bounced_for` of [queue] says. Only submission is refused, only for the account
whose mail bounced.

Examples:
  waypost queue suppression list
  waypost queue suppression list --account ann --to-domain example.net
  waypost queue suppression list --json | jq -r '.[].address'";

/// List the recipients
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
struct ListArgs {
    /// Of this account
    #[arg(long)]
    account: Option<AccountName>,
    /// This recipient
    #[arg(long)]
    to: Option<Mailbox>,
    /// In this domain
    #[arg(long, value_name = "DOMAIN")]
    to_domain: Option<Domain>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const ADD_HELP: &str = "\
Examples:
  waypost queue suppression add --account ann bob@example.net --reason \"he left\"
  waypost queue suppression add --account ann bob@example.net --for 2d";

/// Refuse an account's mail to recipients
#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
struct AddArgs {
    /// Whose mail
    #[arg(long, required = true)]
    account: Option<AccountName>,
    /// To whom
    #[arg(required = true)]
    addresses: Vec<Mailbox>,
    /// For how long, as 12h or 30d; by default until it is removed
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<SignedDuration>,
    /// What the account is told
    #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
    reason: String,
    /// Who; by default you
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const RM_HELP: &str = "\
Examples:
  waypost queue suppression rm bob@example.net
  waypost queue suppression rm --account ann --to-domain example.net --dry-run";

/// Let mail go to recipients again
#[derive(Debug, Args)]
#[command(after_help = RM_HELP)]
struct RmArgs {
    /// Which recipients
    addresses: Vec<Mailbox>,
    /// Of this account; by default of all
    #[arg(long)]
    account: Option<AccountName>,
    /// In this domain
    #[arg(long, value_name = "DOMAIN")]
    to_domain: Option<Domain>,
    /// The whole list
    #[arg(long, conflicts_with_all = ["addresses", "account", "to_domain"])]
    all: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SuppressionArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        SuppressionCommand::List(args) => list(args, config, out),
        SuppressionCommand::Add(args) => add(args, config, out),
        SuppressionCommand::Rm(args) => rm(args, config, out),
    }
}

fn list(args: &ListArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let filter = SuppressionFilter {
        account: args.account.clone(),
        addresses: args.to.iter().cloned().collect(),
        domain: args.to_domain.clone(),
    };
    let (mut all, mut after): (Vec<Suppression>, _) = (Vec::new(), None);
    loop {
        let request = Request::SuppressionList { filter: filter.clone(), after, limit: PAGE };
        let Answer::Suppressions(page) = ask(config, &request)? else { return Err(unexpected()) };
        all.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        return Ok(writeln!(out)?);
    }
    let now = crate::clock::now();
    for entry in &all {
        let by = entry.by.as_ref().map_or_else(|| "bounced".to_owned(), |by| format!("by {}", printable(by)));
        let ends = entry.expires.map_or_else(
            || "until it is removed".to_owned(),
            |expires| format!("expires {}", show::when(expires, now)),
        );
        let (since, reason) = (show::when(entry.since, now), printable(&entry.reason));
        writeln!(out, "{}  account {}\n    {by} {since}, {ends}: {reason}", entry.address, entry.account)?;
    }
    match all.len() {
        0 => Ok(writeln!(out, "nobody is on the suppression list")?),
        count => Ok(writeln!(out, "{}", recipients(count))?),
    }
}

fn add(args: &AddArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let Some(account) = args.account.clone() else {
        return Err(CommandError::new(Exit::Usage, "whose mail? give --account"));
    };
    let expires = args.span.map(|span| crate::clock::now().checked_add(span)).transpose();
    let request = Request::SuppressionAdd {
        account,
        addresses: args.addresses.clone(),
        reason: args.reason.clone(),
        by: args.by.clone().unwrap_or_else(operator),
        expires: expires.map_err(|error| CommandError::new(Exit::Usage, error))?,
    };
    let Answer::SuppressionsChanged(count) = ask(config, &request)? else { return Err(unexpected()) };
    if count < args.addresses.len() {
        return Err(CommandError::new(Exit::Failed, "the account's suppression list is full"));
    }
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::json!({ "recipients": count }))?);
    }
    Ok(writeln!(out, "mail to {} is refused from now on", recipients(count))?)
}

fn rm(args: &RmArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let filter = SuppressionFilter {
        account: args.account.clone(),
        addresses: args.addresses.clone(),
        domain: args.to_domain.clone(),
    };
    if filter == SuppressionFilter::default() && !args.all {
        return Err(CommandError::new(Exit::Usage, "which recipients? give addresses or a filter, or --all"));
    }
    let request = Request::SuppressionRemove { filter, dry_run: args.dry_run };
    let Answer::SuppressionsChanged(count) = ask(config, &request)? else { return Err(unexpected()) };
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::json!({ "recipients": count, "dry_run": args.dry_run }))?);
    }
    match (count, args.dry_run) {
        (0, false) => Err(CommandError::new(Exit::Bad, "none of them is on the suppression list")),
        (_, true) => Ok(writeln!(out, "{} would be taken off the list", recipients(count))?),
        (_, false) => Ok(writeln!(out, "{} taken off the suppression list", recipients(count))?),
    }
}

fn recipients(count: usize) -> String {
    format!("{count} recipient{}", if count == 1 { "" } else { "s" })
}
