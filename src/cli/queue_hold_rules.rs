//! `waypost queue hold-rule add|list|rm`: mail that is kept back by what it is, also mail that is still to come.

use std::io::Write;

use clap::{Args, Subcommand};
use nix::unistd::{Uid, User};

use super::error::{CommandError, Exit};
use super::{ask, show, unexpected};
use crate::address::Domain;
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::names::AccountName;
use crate::queue::Held;
use crate::store::{HoldFields, HoldRule, NewHoldRule};

/// Hold new and waiting mail by account, sender domain, recipient domain
#[derive(Debug, Args)]
pub(super) struct HoldRuleArgs {
    #[command(subcommand)]
    command: HoldRuleCommand,
}

#[derive(Debug, Subcommand)]
enum HoldRuleCommand {
    Add(AddArgs),
    List(ListArgs),
    Rm(RmArgs),
}

const ADD_HELP: &str = "\
All that is named must match. What waits and matches is held at once, what comes is
held from its first moment; an attempt that is under way is finished.

Examples:
  waypost queue hold-rule add --account ann --reason \"password was stolen\"
  waypost queue hold-rule add --from-domain example.org --to-domain example.net
  waypost queue hold-rule add --to-domain example.net --dry-run";

/// Hold what matches from now on
#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
struct AddArgs {
    /// Sent by this account
    #[arg(long)]
    account: Option<AccountName>,
    /// With a sender in this domain
    #[arg(long, value_name = "DOMAIN")]
    from_domain: Option<Domain>,
    /// To a recipient in this domain
    #[arg(long, value_name = "DOMAIN")]
    to_domain: Option<Domain>,
    /// Everything: nothing is delivered any more
    #[arg(long, conflicts_with_all = ["account", "from_domain", "to_domain"])]
    all: bool,
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who; by default you
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only count what would be held
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const LIST_HELP: &str = "\
Examples:
  waypost queue hold-rule list
  waypost queue hold-rule list --json | jq -r '.[].number'";

/// List the rules
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const RM_HELP: &str = "\
What the rule held is tried when it is due. What is held by hand, or by another rule,
stays held.

Examples:
  waypost queue hold-rule rm 3
  waypost queue hold-rule rm 3 --dry-run";

/// Remove a rule, and let go what it held
#[derive(Debug, Args)]
#[command(after_help = RM_HELP)]
struct RmArgs {
    /// Its number, as in the list
    number: u32,
    /// Only count what would be let go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &HoldRuleArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        HoldRuleCommand::Add(args) => add(args, config, out),
        HoldRuleCommand::List(args) => list(args, config, out),
        HoldRuleCommand::Rm(args) => rm(args, config, out),
    }
}

fn add(args: &AddArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let fields = HoldFields {
        account: args.account.clone(),
        sender_domain: args.from_domain.clone(),
        recipient_domain: args.to_domain.clone(),
    };
    if fields.name_nothing() && !args.all {
        let usage = "which mail? give --account, --from-domain or --to-domain, or --all for everything";
        return Err(CommandError::new(Exit::Usage, usage));
    }
    let rule =
        NewHoldRule { fields, by: args.by.clone().unwrap_or_else(operator), reason: args.reason.clone() };
    let request = Request::HoldRuleAdd { rule, all: args.all, dry_run: args.dry_run };
    let Answer::HoldRule { rule, held } = ask(config, &request)? else { return Err(unexpected()) };
    if args.json {
        return json(rule.as_ref(), held, out);
    }
    match rule {
        Some(rule) => writeln!(out, "hold rule {}: {}", rule.number, meant(&rule.rule.fields))?,
        None => writeln!(out, "nothing was changed")?,
    }
    let would = if args.dry_run { "would be held" } else { "held" };
    writeln!(out, "{} that waited {would}", recipients(held.recipients))?;
    if held.running > 0 {
        let running = recipients(held.running);
        writeln!(out, "of them {running} under way: held if the attempt does not deliver")?;
    }
    Ok(())
}

fn list(args: &ListArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::HoldRules(rules) = ask(config, &Request::HoldRuleList)? else { return Err(unexpected()) };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &rules)?;
        return Ok(writeln!(out)?);
    }
    if rules.is_empty() {
        return Ok(writeln!(out, "there are no hold rules")?);
    }
    let now = crate::clock::now();
    for HoldRule { number, since, rule } in &rules {
        let reason =
            if rule.reason.is_empty() { String::new() } else { format!(": {}", printable(&rule.reason)) };
        let (by, when) = (printable(&rule.by), show::when(*since, now));
        writeln!(out, "{number:>4}  {}\n      {by}, {when}{reason}", meant(&rule.fields))?;
    }
    Ok(())
}

fn rm(args: &RmArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let request = Request::HoldRuleRemove { number: args.number, dry_run: args.dry_run };
    let Answer::HoldRule { rule, held } = ask(config, &request)? else { return Err(unexpected()) };
    if args.json {
        return json(rule.as_ref(), held, out);
    }
    let released = recipients(held.recipients - held.otherwise);
    if args.dry_run {
        writeln!(out, "{released} would be released")?;
    } else {
        writeln!(out, "hold rule {} removed, {released} released", args.number)?;
    }
    if held.otherwise > 0 {
        writeln!(out, "{} held by hand or by another rule", recipients(held.otherwise))?;
    }
    Ok(())
}

fn json(rule: Option<&HoldRule>, held: Held, out: &mut dyn Write) -> Result<(), CommandError> {
    serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "rule": rule, "held": held }))?;
    Ok(writeln!(out)?)
}

/// The mail that a rule means, in words.
fn meant(fields: &HoldFields) -> String {
    if fields.name_nothing() {
        return "everything".to_owned();
    }
    let words = [
        fields.account.as_ref().map(|name| format!("account {name}")),
        fields.sender_domain.as_ref().map(|domain| format!("from {domain}")),
        fields.recipient_domain.as_ref().map(|domain| format!("to {domain}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn recipients(count: usize) -> String {
    format!("{count} recipient{}", if count == 1 { "" } else { "s" })
}

/// What one operator wrote must not drive the terminal of another.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Who typed the command: before sudo, if that was used.
pub(super) fn operator() -> String {
    let before_sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let uid = Uid::current();
    let of_system = || User::from_uid(uid).ok().flatten().map(|user| user.name);
    before_sudo.or_else(of_system).unwrap_or_else(|| format!("uid {uid}"))
}
