//! `waypost route explain`: which way a message would go, and which script said so at which line.
//!
//! The running server is asked, so that what is explained is what runs. Without one, configuration and scripts are
//! loaded here; the code that asks the scripts is the same.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::explain_message;
use crate::address::Mailbox;
use crate::cli::error::{CommandError, Exit};
use crate::cli::queue::reverse_path;
use crate::cli::{Shared, ask_if_running, load_scripts, show, small_runtime, unexpected};
use crate::config::Config;
use crate::control::{self, Answer, Explained, Question, Request};
use crate::dns::Resolver;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId};
use crate::queue::MessageQuestion;

const EXPLAIN_HELP: &str = "\
The three levels are asked as on a real attempt: the account's script, the sender
domain's, the global one; the first that returns a name decides. The attempts
before the explained one are gone through as well, each taken to have ended as
--last says, so that scripts see the history that they would see.

With --id it is a message of the queue or of the history: the next attempt, asked
about now with all that is known of the message; or one that was made, as it was
written down then, even when the scripts have been changed since.

A running server is asked, so that what is explained is what runs. The exit code
is 1 when a script fails, for then the attempt would not be made.

Examples:
  waypost route explain --from ann@example.org --to bob@example.net
  waypost route explain --from ann@example.org --to bob@example.net \\
          --account ann --attempt 4
  waypost route explain --from ann@example.org --to bob@example.net \\
          --last '451 4.7.1 greylisted'
  waypost route explain --from '' --to bob@example.net \\
          --last connect --last '450 4.2.1 busy'
  waypost route explain --id 00002a
  waypost route explain --id 00002a --recipient bob@example.net --attempt 2";

/// Say which way a message would go, and why
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
pub(super) struct ExplainArgs {
    /// The sender; '' is the null sender
    #[arg(long, value_parser = reverse_path, required_unless_present = "id")]
    from: Option<ReversePath>,
    /// The recipient
    #[arg(long, required_unless_present = "id")]
    to: Option<Mailbox>,
    /// A message in the queue or in the history, instead of one that is made up
    #[arg(long, conflicts_with_all = ["from", "to", "account", "last", "size", "header"])]
    id: Option<QueueId>,
    /// One recipient of that message
    #[arg(long, value_name = "ADDRESS", requires = "id")]
    recipient: Option<Mailbox>,
    /// Who logged in to send it
    #[arg(long)]
    account: Option<AccountName>,
    /// Number of the attempt; by default 1, or one more than there are --last; of a message that exists the next one,
    /// or the last one when it is done
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// How an earlier attempt ended, oldest first: a reply such as '451 4.7.1 greylisted', or dns, connect, tls
    #[arg(long, value_name = "REPLY")]
    last: Vec<String>,
    /// Size of the message in bytes
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// A header field such as 'Subject: hello'
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// Load configuration and scripts from disk even if a server runs
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExplainArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    if let Some(id) = args.id {
        let (recipient, attempt) = (args.recipient.clone(), args.attempt);
        let question = MessageQuestion { id, recipient, attempt };
        return explain_message::run(&question, &config, args.json, out);
    }
    let (Some(from), Some(to)) = (args.from.clone(), args.to.clone()) else {
        return Err(CommandError::new(Exit::Usage, "--from and --to, or --id, are needed"));
    };
    let question = Question {
        from,
        to,
        account: args.account.clone(),
        attempt: args.attempt,
        last: args.last.clone(),
        size: args.size,
        header: args.header.clone(),
    };
    let answer =
        if args.offline { None } else { ask_if_running(&config, &Request::RouteExplain(question.clone()))? };
    let explained = match answer {
        Some(Answer::Explained(explained)) => *explained,
        Some(_) => return Err(unexpected()),
        None => offline(&config, &question)?,
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &explained)?;
        writeln!(out)?;
    } else {
        print(&explained, out)?;
    }
    if explained.transport.is_none() { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

fn offline(config: &Config, question: &Question) -> Result<Explained, CommandError> {
    let scripts = load_scripts(config)?;
    let resolver = Resolver::new(&config.dns);
    let now = crate::clock::now();
    Ok(small_runtime()?.block_on(control::explain(config, &scripts, &resolver, question, now))?)
}

fn print(explained: &Explained, out: &mut dyn Write) -> std::io::Result<()> {
    if explained.local {
        return writeln!(out, "the recipient is ours: delivered to a mailbox here, no script is asked");
    }
    for past in &explained.previous {
        let way = past.transport.as_ref();
        let way = way.map_or_else(|| "no attempt: a script failed".to_owned(), ToString::to_string);
        writeln!(out, "attempt {}: {way}; taken to end with {}", past.number, past.outcome)?;
    }
    let age = match explained.age_seconds {
        0 => String::new(),
        seconds => format!(", {} after it came", show::span(Duration::from_secs(seconds))),
    };
    writeln!(out, "attempt {}{age}:", explained.attempt)?;
    if explained.expired {
        writeln!(out, "note: by the retry schedule the message bounces before this attempt")?;
    }
    if let Some(mx) = &explained.mx {
        writeln!(out, "mx: {}", if mx.is_empty() { "none".to_owned() } else { mx.join(", ") })?;
    }
    explained.trace.as_ref().map_or(Ok(()), |trace| writeln!(out, "{trace}"))
}
