//! `waypost dkim`: signatures of domains over messages (RFC 6376), verified and made by hand.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::{CommandError, Exit};
use super::message_input::read_message;
use super::resolver::{ResolverArgs, dns_failed};
use super::{Shared, small_runtime};
use crate::address::Domain;
use crate::mailauth::Message;
use crate::mailauth::dkim::{self, Algorithm, Checked, PrivateKey, Signer, zone_line};

/// Verify and make DKIM signatures (RFC 6376)
#[derive(Debug, Args)]
pub(super) struct DkimArgs {
    #[command(subcommand)]
    command: DkimCommand,
}

#[derive(Debug, Subcommand)]
enum DkimCommand {
    Verify(VerifyArgs),
    Lookup(LookupArgs),
    Sign(SignArgs),
    Genkey(GenkeyArgs),
}

const VERIFY_HELP: &str = "\
The first word is the result of the best signature, in the words of RFC 8601: none,
pass, fail, policy, neutral, temperror, permerror. A line for each signature follows.
The exit code is 0 whenever there is a result.

Examples:
  waypost dkim verify < message.eml
  waypost dkim verify --json --resolver 127.0.0.1:5353 < message.eml";

/// Verify the signatures of the message on standard input
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
struct VerifyArgs {
    #[command(flatten)]
    resolver: ResolverArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const LOOKUP_HELP: &str = "\
Examples:
  waypost dkim lookup s2026 example.org";

/// Print the key record of a selector, and what is wrong with it
#[derive(Debug, Args)]
#[command(after_help = LOOKUP_HELP)]
struct LookupArgs {
    /// The selector: s= of a signature
    selector: String,
    /// The domain: d= of a signature
    domain: String,
    #[command(flatten)]
    resolver: ResolverArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const SIGN_HELP: &str = "\
Prints the message, signed. Several keys make several signatures: give --selector
and --key once for each.

Examples:
  waypost dkim sign --domain example.org --selector s1 --key s1.pem < message.eml";

/// Sign the message on standard input
#[derive(Debug, Args)]
#[command(after_help = SIGN_HELP)]
struct SignArgs {
    /// The domain that signs: d=
    #[arg(long)]
    domain: Domain,
    /// Where the domain shows the key: s=
    #[arg(long, required = true, value_parser = selector)]
    selector: Vec<String>,
    /// The private key, PEM
    #[arg(long, required = true)]
    key: Vec<PathBuf>,
}

const GENKEY_HELP: &str = "\
Prints the TXT record that others verify signatures by, ready for a zone file. Every
receiver verifies RSA; Ed25519 is shorter, and best used beside it.

Examples:
  waypost dkim genkey --domain example.org --selector s2026 /etc/waypost/dkim/s2026.pem
  waypost dkim genkey --ed25519 --domain example.org /etc/waypost/dkim/s2026e.pem";

/// Make a key to sign with
#[derive(Debug, Args)]
#[command(after_help = GENKEY_HELP)]
struct GenkeyArgs {
    /// An RSA key of 2048 bits (the default)
    #[arg(long, conflicts_with = "ed25519")]
    rsa: bool,
    /// An Ed25519 key
    #[arg(long)]
    ed25519: bool,
    /// The domain that will sign; without it, the record's name is relative to the zone
    #[arg(long)]
    domain: Option<Domain>,
    /// The selector; by default the name of the file, without its ending
    #[arg(long, value_parser = selector)]
    selector: Option<String>,
    /// Where the private key is written; only its owner can read it
    file: PathBuf,
}

pub(super) fn run(args: &DkimArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        DkimCommand::Verify(args) => verify(args, shared, out),
        DkimCommand::Lookup(args) => lookup(args, shared, out),
        DkimCommand::Sign(args) => sign(args, out),
        DkimCommand::Genkey(args) => genkey(args, out),
    }
}

fn verify(args: &VerifyArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let (resolver, _) = args.resolver.open(shared)?;
    let message = read_message()?;
    let message = Message::new(&message);
    let all = small_runtime()?.block_on(dkim::verify(&resolver, &message, crate::clock::now()));
    let result = dkim::best(&all);
    if args.json {
        let signatures: Vec<_> = all.iter().map(as_json).collect();
        return Ok(writeln!(out, "{:#}", json!({ "result": result.as_str(), "signatures": signatures }))?);
    }
    writeln!(out, "{result}")?;
    all.iter().try_for_each(|one| writeln!(out, "{}", as_line(one)))?;
    Ok(())
}

fn as_json(one: &Checked) -> serde_json::Value {
    json!({
        "result": one.verdict.as_str(), "domain": one.domain, "selector": one.selector,
        "algorithm": one.algorithm, "identity": one.identity, "b": one.signature, "reason": one.reason,
    })
}

fn as_line(one: &Checked) -> String {
    let parts = [("d", &one.domain), ("s", &one.selector), ("a", &one.algorithm), ("b", &one.signature)];
    let mut line = one.verdict.to_string();
    for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        // Nothing written into a String fails.
        let _ = write!(line, " {name}={value}");
    }
    match &one.reason {
        Some(reason) => format!("{line}: {reason}"),
        None => line,
    }
}

fn lookup(args: &LookupArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let (resolver, _) = args.resolver.open(shared)?;
    let found = small_runtime()?.block_on(dkim::lookup(&resolver, &args.selector, &args.domain));
    let found = found.map_err(|trouble| dns_failed(&trouble))?;
    if args.json {
        let answer = json!({ "name": found.name, "records": found.records, "keys": found.keys, "problem": found.problem });
        writeln!(out, "{answer:#}")?;
    } else {
        found.records.iter().try_for_each(|record| writeln!(out, "{record}"))?;
        found.keys.iter().try_for_each(|key| writeln!(out, "key: {key}"))?;
    }
    match found.problem {
        None => Ok(()),
        Some(_) if args.json => Err(CommandError::silent(Exit::Bad)),
        Some(problem) => Err(CommandError::new(Exit::Bad, problem)),
    }
}

fn sign(args: &SignArgs, out: &mut dyn Write) -> Result<(), CommandError> {
    if args.selector.len() != args.key.len() {
        let (selectors, keys) = (args.selector.len(), args.key.len());
        let problem = format!("{selectors} selectors, but {keys} keys: each key needs its selector");
        return Err(CommandError::new(Exit::Usage, problem));
    }
    let mut signers = Vec::new();
    for (selector, file) in args.selector.iter().zip(&args.key) {
        let text = std::fs::read(file)
            .map_err(|error| CommandError::new(Exit::Failed, format!("{}: {error}", file.display())))?;
        let key = PrivateKey::from_pem(&text)
            .map_err(|error| CommandError::new(Exit::Bad, format!("{}: {error}", file.display())))?;
        signers.push(Signer { domain: args.domain.to_string(), selector: selector.clone(), key });
    }
    let message = read_message()?;
    let fields = dkim::sign(&Message::new(&message), &signers, crate::clock::now())
        .map_err(|error| CommandError::new(Exit::Failed, error))?;
    out.write_all(&fields)?;
    Ok(out.write_all(&message)?)
}

fn genkey(args: &GenkeyArgs, out: &mut dyn Write) -> Result<(), CommandError> {
    let stem = args.file.file_stem().and_then(|stem| stem.to_str());
    let selector = match (&args.selector, stem) {
        (Some(selector), _) => selector.clone(),
        (None, stem) => selector(stem.unwrap_or_default()).map_err(|problem| {
            CommandError::new(Exit::Usage, format!("the name of the file makes no selector: {problem}"))
                .hint("--selector NAME says which one is meant")
        })?,
    };
    let algorithm = if args.ed25519 { Algorithm::Ed25519Sha256 } else { Algorithm::RsaSha256 };
    let failed = |error| CommandError::new(Exit::Failed, error);
    let (key, pem) = PrivateKey::generate(algorithm).map_err(failed)?;
    let record = key.record().map_err(failed)?;
    write_private(&args.file, pem.as_bytes())
        .map_err(|error| CommandError::new(Exit::Failed, format!("{}: {error}", args.file.display())))?;
    let name = match &args.domain {
        Some(domain) => format!("{selector}._domainkey.{domain}."),
        None => format!("{selector}._domainkey"),
    };
    Ok(writeln!(out, "{}", zone_line(&name, &record))?)
}

/// A file that was not there before: a key that is in use is not written over.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn selector(text: &str) -> Result<String, String> {
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= 100 && text.split('.').all(good) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?}: a selector has letters, digits and hyphens, such as s2026"))
}
