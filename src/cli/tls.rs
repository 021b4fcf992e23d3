//! `waypost tls`: the certificates of the running server.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::error::CommandError;
use super::{Exit, Shared, ask, show, unexpected};
use crate::control::{Answer, Request, TlsStatus};
use crate::tls::{CertificateStatus, Origin};

const AFTER_HELP: &str = "\
Examples:
  waypost tls status";

/// The certificates of the running server
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, arg_required_else_help = true)]
pub(super) struct TlsArgs {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Debug, Subcommand)]
enum TlsCommand {
    Status(StatusArgs),
}

const STATUS_HELP: &str = "\
The exit code is 1 when a certificate has expired, or something is wrong with the files
it comes from.

Examples:
  waypost tls status
  waypost tls status --json | jq '.certificates[] | {names, days_left}'
  waypost tls status > /dev/null || echo 'a certificate needs care'";

/// Say which certificates are shown, how long they live, and what is wrong with them
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TlsArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        TlsCommand::Status(args) => status(args, shared, out),
    }
}

fn status(args: &StatusArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::Tls(status) = ask(&shared.config()?, &Request::TlsStatus)? else { return Err(unexpected()) };
    let now = crate::clock::now();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &json(&status, now)?)?;
        writeln!(out)?;
    } else {
        print(&status, now, out)?;
    }
    let bad = |one: &CertificateStatus| one.problem.is_some() || one.facts.not_after <= now;
    if status.certificates.iter().any(bad) { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
}

/// The status as it is, and how many days each certificate has left.
fn json(status: &TlsStatus, now: Timestamp) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(status)?;
    let shown = value["certificates"].as_array_mut().into_iter().flatten();
    for (value, certificate) in shown.zip(&status.certificates) {
        value["days_left"] = days_left(certificate, now).into();
    }
    Ok(value)
}

/// Whole days; negative when it has expired.
fn days_left(certificate: &CertificateStatus, now: Timestamp) -> i64 {
    certificate.facts.not_after.duration_since(now).as_secs().div_euclid(24 * 60 * 60)
}

fn print(status: &TlsStatus, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    if status.certificates.is_empty() {
        writeln!(out, "no TLS: the configuration has no [tls]")?;
    }
    status.certificates.iter().enumerate().try_for_each(|(number, one)| {
        if number > 0 {
            writeln!(out)?;
        }
        certificate(one, now, out)
    })
}

fn certificate(one: &CertificateStatus, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let facts = &one.facts;
    let names =
        if facts.names.is_empty() { "a certificate without names".into() } else { facts.names.join(", ") };
    writeln!(out, "{names}")?;
    match &one.origin {
        Origin::Files { certificate, key } => {
            writeln!(out, "  from    {}", certificate.display())?;
            writeln!(out, "  key     {}", key.display())?;
        }
        Origin::SelfSigned => writeln!(out, "  from    made here")?,
    }
    let by = if facts.self_signed { "itself: nobody else vouches for it" } else { &facts.issuer };
    writeln!(out, "  issuer  {by}")?;
    let left = match days_left(one, now) {
        _ if facts.not_after <= now => format!("EXPIRED {}", show::when(facts.not_after, now)),
        _ if facts.not_before > now => "NOT YET VALID".to_owned(),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    };
    let (from, to) = (show::time(facts.not_before), show::time(facts.not_after));
    writeln!(out, "  valid   {from} to {to}, {left}")?;
    writeln!(out, "  TLSA    {}", facts.tlsa)?;
    match &one.problem {
        Some(problem) => writeln!(out, "  PROBLEM new files not taken: {problem}"),
        None => Ok(()),
    }
}
