//! `waypost queue list|show`: what waits, and why. It asks the running server; `queue_controls` changes it.

use std::io::Write;
use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::error::CommandError;
use super::queue_controls::{
    self, DropArgs, DumpArgs, FailArgs, HoldArgs, KickArgs, ScheduleArgs, TransportArgs, UnholdArgs,
};
use super::{Shared, ask, queue_hold_rules, queue_suppressions, show, unexpected};
use crate::address::{Domain, Mailbox};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::queue::{Filter, ListedMessage, ListedRecipient, Page};
use crate::store::FinishedRecipient;

/// Messages fetched in one go.
const PAGE_MESSAGES: usize = 200;

/// See and push what waits to be delivered
#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    List(ListArgs),
    Show(ShowArgs),
    Kick(KickArgs),
    Hold(HoldArgs),
    Unhold(UnholdArgs),
    Transport(TransportArgs),
    Schedule(ScheduleArgs),
    Fail(FailArgs),
    Drop(DropArgs),
    Dump(DumpArgs),
    HoldRule(queue_hold_rules::HoldRuleArgs),
    Suppression(queue_suppressions::SuppressionArgs),
}

/// Which messages: what is not given matches all.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Sent by this account
    #[arg(long)]
    account: Option<AccountName>,
    /// With this sender; "" is the null sender
    #[arg(long, value_parser = reverse_path)]
    from: Option<ReversePath>,
    /// To this recipient
    #[arg(long)]
    to: Option<Mailbox>,
    /// With a sender in this domain
    #[arg(long, value_name = "DOMAIN")]
    from_domain: Option<Domain>,
    /// To a recipient in this domain
    #[arg(long, value_name = "DOMAIN")]
    to_domain: Option<Domain>,
    /// After so many attempts: 3, 3.. (at least), ..5 (at most) or 3..5 (both included)
    #[arg(long, value_name = "RANGE", conflicts_with_all = ["attempts_min", "attempts_max"])]
    attempts: Option<AttemptsRange>,
    /// After at least so many attempts
    #[arg(long, value_name = "N")]
    attempts_min: Option<u32>,
    /// After at most so many attempts
    #[arg(long, value_name = "N")]
    attempts_max: Option<u32>,
    /// Whose last attempt went over this transport, or for which it is set
    #[arg(long, value_name = "TRANSPORT")]
    via: Option<TransportName>,
    /// Accepted at least so long ago, as 90s, 2h or 4d
    #[arg(long, value_name = "SPAN", value_parser = queue_controls::span)]
    older_than: Option<SignedDuration>,
    /// Whose last error has this text in it
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// What is held
    #[arg(long, conflicts_with = "not_held")]
    held: bool,
    /// What is not held
    #[arg(long)]
    not_held: bool,
}

impl FilterArgs {
    pub(super) fn filter(&self, ids: &[QueueId]) -> Filter {
        let attempts =
            self.attempts.unwrap_or(AttemptsRange { min: self.attempts_min, max: self.attempts_max });
        Filter {
            ids: ids.to_vec(),
            account: self.account.clone(),
            sender: self.from.clone(),
            recipient: self.to.clone(),
            sender_domain: self.from_domain.clone(),
            recipient_domain: self.to_domain.clone(),
            attempts_min: attempts.min,
            attempts_max: attempts.max,
            transport: self.via.clone(),
            received_until: self
                .older_than
                .map(|age| crate::clock::now().checked_sub(age).unwrap_or(Timestamp::MIN)),
            error: self.error.clone(),
            held: (self.held || self.not_held).then_some(self.held),
        }
    }
}

/// `3`, `3..`, `..5`, `3..5`; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AttemptsRange {
    min: Option<u32>,
    max: Option<u32>,
}

impl FromStr for AttemptsRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of attempts: write it like 3, 3.., ..5 or 3..5");
        let end = |text: &str| match text {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| wrong()),
        };
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let range = Self { min: end(min)?, max: end(max)? };
        match (range.min, range.max) {
            (None, None) => Err(wrong()),
            (Some(min), Some(max)) if min > max => Err(wrong()),
            _ => Ok(range),
        }
    }
}

const LIST_HELP: &str = "\
Each message with its recipients that wait: how many attempts were made, when the
next is due, which way the last one went and what came of it.

Examples:
  waypost queue list
  waypost queue list --to-domain example.net --attempts 3..
  waypost queue list --json | jq -r '.messages[].id'
  waypost queue list --limit 50 --after 00002a";

/// List what waits
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
struct ListArgs {
    /// Which messages; without them, all
    ids: Vec<QueueId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Messages at most; without it, all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Begin after this message
    #[arg(long, value_name = "ID")]
    after: Option<QueueId>,
    /// Print JSON, histories included
    #[arg(long)]
    json: bool,
}

const SHOW_HELP: &str = "\
Every attempt of every recipient: when, which transport, which script and line
chose it, what the peer said.

Examples:
  waypost queue show 00002a
  waypost queue show 00002a --json";

/// Show one message with its whole history, also after it was delivered
#[derive(Debug, Args)]
#[command(after_help = SHOW_HELP)]
struct ShowArgs {
    /// Its id, as in `waypost queue list`, in log lines and in Received fields
    id: QueueId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `queue show --json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    id: QueueId,
    waiting: &'a Option<ListedMessage>,
    finished: &'a [FinishedRecipient],
}

pub(super) fn run(args: &QueueArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    match &args.command {
        QueueCommand::List(args) => list(args, &config, out),
        QueueCommand::Show(args) => show_one(args, &config, out),
        QueueCommand::Kick(args) => queue_controls::kick(args, &config, out),
        QueueCommand::Hold(args) => queue_controls::hold(args, &config, out),
        QueueCommand::Unhold(args) => queue_controls::unhold(args, &config, out),
        QueueCommand::Transport(args) => queue_controls::transport(args, &config, out),
        QueueCommand::Schedule(args) => queue_controls::schedule(args, &config, out),
        QueueCommand::Fail(args) => queue_controls::fail(args, &config, out),
        QueueCommand::Drop(args) => queue_controls::drop_waiting(args, &config, out),
        QueueCommand::Dump(args) => queue_controls::dump(args, &config, out),
        QueueCommand::HoldRule(args) => queue_hold_rules::run(args, &config, out),
        QueueCommand::Suppression(args) => queue_suppressions::run(args, &config, out),
    }
}

fn list(args: &ListArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let filter = args.filter.filter(&args.ids);
    let (mut after, mut left) = (args.after, args.limit.map_or(usize::MAX, |limit| limit as usize));
    let mut all = Page::default();
    let (mut messages, mut recipients) = (0usize, 0usize);
    let now = crate::clock::now();
    loop {
        let limit = left.min(PAGE_MESSAGES);
        let request = Request::QueueList { filter: filter.clone(), after, limit };
        let Answer::Queue(page) = ask(config, &request)? else { return Err(unexpected()) };
        left = left.saturating_sub(page.messages.len());
        messages += page.messages.len();
        recipients += page.messages.iter().map(|message| message.recipients.len()).sum::<usize>();
        all.next = page.next;
        if args.json {
            all.messages.extend(page.messages);
        } else {
            page.messages.iter().try_for_each(|message| write!(out, "{}", message_text(message, now)))?;
        }
        match page.next {
            Some(next) if left > 0 => after = Some(next),
            _ => break,
        }
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        return Ok(writeln!(out)?);
    }
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    match all.next {
        Some(next) => writeln!(out, "more: add --after {next}")?,
        None if messages == 0 => writeln!(out, "nothing waits")?,
        None => writeln!(
            out,
            "{messages} message{}, {recipients} recipient{}",
            plural(messages),
            plural(recipients)
        )?,
    }
    Ok(())
}

fn message_text(message: &ListedMessage, now: Timestamp) -> String {
    let recipients = message.recipients.iter().map(|recipient| recipient_text(recipient, now));
    std::iter::once(head_text(message, now)).chain(recipients).collect()
}

fn head_text(message: &ListedMessage, now: Timestamp) -> String {
    let account = message.account.as_ref().map_or_else(String::new, |name| format!(", account {name}"));
    let (size, when) = (show::size(message.size), show::when(message.received, now));
    format!("{}  from {}  {size}, {when}{account}\n", message.id, sender(&message.sender))
}

/// The null sender is written as in SMTP.
fn sender(sender: &ReversePath) -> String {
    sender.mailbox().map_or_else(|| "<>".to_owned(), ToString::to_string)
}

fn recipient_text(recipient: &ListedRecipient, now: Timestamp) -> String {
    let next = match recipient {
        ListedRecipient { running: true, .. } => "under way".to_owned(),
        _ if recipient.held || !recipient.held_by_rules.is_empty() => held(recipient),
        ListedRecipient { in_line: Some(line), .. } if line.rate => {
            format!("waits for the rate of transport {}", line.transport)
        }
        ListedRecipient { in_line: Some(line), .. } => {
            format!("waits in line for transport {}", line.transport)
        }
        _ => format!("next {}", show::when(recipient.due, now)),
    };
    let attempts = recipient.attempts;
    let plural = if attempts == 1 { "" } else { "s" };
    let last = match (&recipient.problem, recipient.history.last()) {
        (Some(problem), _) => format!("           no way could be chosen: {problem}\n"),
        (None, Some(last)) => {
            let way = last.decision.as_ref().map_or_else(|| "way unknown".to_owned(), show::decision);
            let end = last.outcome.as_ref().map_or_else(|| "no outcome yet".to_owned(), show::outcome);
            format!("           last: {way}: {end}\n")
        }
        (None, None) => String::new(),
    };
    let set = recipient.transport.as_ref();
    let set = set.map_or_else(String::new, |name| format!(", transport set to {name}"));
    format!("        to {}  {attempts} attempt{plural}, {next}{set}\n{last}", recipient.address)
}

/// By whom.
fn held(recipient: &ListedRecipient) -> String {
    let rules: Vec<String> = recipient.held_by_rules.iter().map(ToString::to_string).collect();
    match (&rules[..], recipient.held) {
        ([], _) => "held".to_owned(),
        ([rule], false) => format!("held by hold rule {rule}"),
        (rules, false) => format!("held by hold rules {}", rules.join(", ")),
        (rules, true) => format!("held, also by hold rule {}", rules.join(", ")),
    }
}

fn show_one(args: &ShowArgs, config: &Config, out: &mut dyn Write) -> Result<(), CommandError> {
    let request = Request::QueueShow { id: args.id };
    let Answer::Message { waiting, finished } = ask(config, &request)? else { return Err(unexpected()) };
    if args.json {
        serde_json::to_writer_pretty(
            &mut *out,
            &Shown { id: args.id, waiting: &waiting, finished: &finished },
        )?;
        return Ok(writeln!(out)?);
    }
    let now = crate::clock::now();
    if let Some(message) = &waiting {
        write!(out, "{}", head_text(message, now))?;
        for recipient in &message.recipients {
            let text = recipient_text(&ListedRecipient { history: Vec::new(), ..recipient.clone() }, now);
            write!(out, "{text}")?;
            recipient
                .history
                .iter()
                .try_for_each(|attempt| write!(out, "{}", show::attempt(attempt, "        ")))?;
        }
    } else if let Some(first) = finished.first() {
        let account = first.account.as_ref().map_or_else(String::new, |name| format!(", account {name}"));
        let (size, when) = (show::size(first.size), show::when(first.received, now));
        writeln!(out, "{}  from {}  {size}, {when}{account}", args.id, sender(&first.sender))?;
    }
    for recipient in &finished {
        let when = show::when(recipient.finished, now);
        writeln!(out, "        to {}  {} {when}", recipient.recipient, recipient.state)?;
        recipient
            .attempts
            .iter()
            .try_for_each(|attempt| write!(out, "{}", show::attempt(attempt, "        ")))?;
    }
    Ok(())
}

/// A sender as typed: an address, or nothing for the null sender; `<...>` is taken too.
pub(super) fn reverse_path(text: &str) -> Result<ReversePath, String> {
    let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    ReversePath::try_from(bare.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::Cli;
    use super::*;

    const PAGE: &str = include_str!("../../docs/queue.md");

    /// The words of a command line, as far as the page has it: quotes, and what is written behind it.
    fn words(line: &str) -> Vec<String> {
        let command = line.split(['|', '>']).next().unwrap();
        let mut words = Vec::new();
        for (at, part) in command.split('"').enumerate() {
            match at % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn what_the_page_says_can_be_typed() {
        let lines = PAGE.lines().filter(|line| line.starts_with("    waypost queue "));
        let mut count = 0;
        for line in lines {
            if let Err(error) = Cli::try_parse_from(words(line)) {
                panic!("{line}: {error}");
            }
            count += 1;
        }
        assert!(count > 20, "{count} command lines");
    }

    #[test]
    fn the_page_has_every_command_and_every_filter() {
        let cli = Cli::command();
        let queue = cli.find_subcommand("queue").unwrap();
        for command in queue.get_subcommands() {
            let line = format!("    waypost queue {} ", command.get_name());
            assert!(PAGE.contains(line.trim_end()), "{line}");
        }
        let list = queue.find_subcommand("list").unwrap();
        for option in list.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(option == "config" || PAGE.contains(&format!("--{option}")), "--{option}");
        }
    }

    #[test]
    fn ranges_of_attempts_as_people_write_them() {
        for (text, min, max) in [
            ("3", Some(3), Some(3)),
            ("3..", Some(3), None),
            ("..5", None, Some(5)),
            ("3..5", Some(3), Some(5)),
            ("0..0", Some(0), Some(0)),
        ] {
            assert_eq!(text.parse(), Ok(AttemptsRange { min, max }), "{text}");
        }
        for bad in ["", "..", "5..3", "x", "3-5", "-1..", "1..2..3"] {
            assert!(bad.parse::<AttemptsRange>().unwrap_err().contains("3..5"), "{bad}");
        }
    }
}
