//! `waypost spf`: may a client send in a domain's name (RFC 7208), asked by hand.

use std::io::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::{CommandError, Exit};
use super::resolver::{ResolverArgs, dns_failed};
use super::{Shared, small_runtime};
use crate::mailauth::spf::{self, Check, Question};

/// Check senders by SPF (RFC 7208)
#[derive(Debug, Args)]
pub(super) struct SpfArgs {
    #[command(subcommand)]
    command: SpfCommand,
}

#[derive(Debug, Subcommand)]
enum SpfCommand {
    Check(CheckArgs),
    Lookup(LookupArgs),
}

const CHECK_HELP: &str = "\
The first word is the result, in the words of RFC 8601: none, neutral, pass, fail,
softfail, temperror, permerror. The exit code is 0 whenever there is a result.

Examples:
  waypost spf check --ip 192.0.2.7 --from ann@example.org --helo mail.example.org
  waypost spf check --ip 2001:db8::7 --from '' --helo mail.example.org
  waypost spf check --ip 192.0.2.7 --from ann@example.org --resolver 127.0.0.1:5353";

/// Say whether an address may send for a sender
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
struct CheckArgs {
    /// Address of the client
    #[arg(long)]
    ip: IpAddr,
    /// The reverse-path; '' is the null sender, for whom the name of HELO is checked
    #[arg(long)]
    from: String,
    /// What the client says in HELO or EHLO
    #[arg(long, default_value = "")]
    helo: String,
    #[command(flatten)]
    resolver: ResolverArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print the SPF records of a domain, and what is wrong with them
#[derive(Debug, Args)]
struct LookupArgs {
    /// The domain
    domain: String,
    #[command(flatten)]
    resolver: ResolverArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SpfArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        SpfCommand::Check(args) => check(args, shared, out),
        SpfCommand::Lookup(args) => lookup(args, shared, out),
    }
}

fn check(args: &CheckArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let (resolver, receiver) = args.resolver.open(shared)?;
    let question = Question {
        ip: args.ip,
        sender: args.from.trim_matches(['<', '>']).to_owned(),
        helo: args.helo.clone(),
        receiver,
        now: crate::clock::now(),
    };
    let Check { result, domain, mechanism, explanation, problem } =
        small_runtime()?.block_on(spf::check(&resolver, &question));
    if args.json {
        let answer = json!({
            "result": result.as_str(), "domain": domain, "mechanism": mechanism,
            "explanation": explanation, "problem": problem,
        });
        return Ok(writeln!(out, "{answer:#}")?);
    }
    writeln!(out, "{result}")?;
    writeln!(out, "domain: {domain}")?;
    let lines = [("mechanism", mechanism), ("explanation", explanation), ("problem", problem)];
    for (name, text) in lines.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        writeln!(out, "{name}: {text}")?;
    }
    Ok(())
}

fn lookup(args: &LookupArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let (resolver, _) = args.resolver.open(shared)?;
    let found = small_runtime()?.block_on(spf::lookup(&resolver, &args.domain));
    let found = found.map_err(|trouble| dns_failed(&trouble))?;
    if args.json {
        let answer = json!({ "domain": args.domain, "records": found.records, "problem": found.problem });
        writeln!(out, "{answer:#}")?;
    } else {
        found.records.iter().try_for_each(|record| writeln!(out, "{record}"))?;
    }
    match found.problem {
        None => Ok(()),
        Some(_) if args.json => Err(CommandError::silent(Exit::Bad)),
        Some(problem) => Err(CommandError::new(Exit::Bad, problem)),
    }
}
