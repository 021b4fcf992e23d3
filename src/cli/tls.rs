//! `waypost tls`: the certificates of the running server.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::error::CommandError;
use super::{Exit, Shared, ask, show, unexpected};
use crate::acme::AcmeStatus;
use crate::control::{Answer, Request, TlsStatus};
use crate::tls::{CertificateStatus, Origin};

const AFTER_HELP: &str = "\
Examples:
  waypost tls status
  waypost tls renew";

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
    Renew(RenewArgs),
}

const STATUS_HELP: &str = "\
The exit code is 1 when a certificate has expired, something is wrong with the files it
comes from, or the CA has issued none when it was last asked.

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

const RENEW_HELP: &str = "\
Needs [tls.acme]. The server does this by itself in good time; this is for trying out a
configuration, and after a failure was mended. CAs limit how many certificates they issue
for a name in a week.

The exit code is 4 when the CA issues none.

Examples:
  waypost tls renew";

/// Get a new certificate from the CA now, and wait for it
#[derive(Debug, Args)]
#[command(after_help = RENEW_HELP)]
struct RenewArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TlsArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        TlsCommand::Status(args) => status(args, shared, out),
        TlsCommand::Renew(args) => renew(args, shared, out),
    }
}

fn renew(args: &RenewArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::Renewed(facts) = ask(&shared.config()?, &Request::TlsRenew)? else {
        return Err(unexpected());
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &facts)?;
        return Ok(writeln!(out)?);
    }
    let until = show::time(facts.not_after);
    Ok(writeln!(out, "new certificate for {}, valid until {until}", facts.names.join(", "))?)
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
    let failed = status.acme.as_ref().is_some_and(|acme| acme.error.is_some());
    if failed || status.certificates.iter().any(bad) { Err(CommandError::silent(Exit::Bad)) } else { Ok(()) }
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
    })?;
    status.acme.as_ref().map_or(Ok(()), |status| acme(status, now, out))
}

fn acme(status: &AcmeStatus, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nACME")?;
    writeln!(out, "  CA      {}", status.directory)?;
    writeln!(out, "  for     {}, by {}", status.names.join(", "), status.challenge)?;
    writeln!(out, "  file    {}", status.file.display())?;
    if let Some(at) = status.issued_at {
        writeln!(out, "  issued  {}", show::time(at))?;
    }
    match status.next {
        _ if status.running => writeln!(out, "  next    asking the CA now")?,
        Some(at) => writeln!(out, "  next    {}, {}", show::time(at), show::when(at, now))?,
        None => {}
    }
    if let (Some(error), Some(at)) = (&status.error, status.failed_at) {
        // What the CA said is shown, not obeyed: no control character reaches the terminal.
        let error: String = error.chars().filter(|c| !c.is_control()).collect();
        let times = if status.failures == 1 { String::new() } else { format!(", {} times", status.failures) };
        writeln!(out, "  FAILED  {}{times}: {error}", show::when(at, now))?;
    }
    Ok(())
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
        Origin::Acme => writeln!(out, "  from    the CA, by ACME")?,
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
