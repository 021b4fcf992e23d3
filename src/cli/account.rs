//! `waypost account add|list|password`: who logs in.
//!
//! Accounts and their addresses stand in the configuration file; passwords, hashed, in the data directory. With a
//! server running, it is asked; without, the data directory is locked and changed directly.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};

use super::error::{CommandError, Exit};
use super::{Shared, ask_if_running, edit, small_runtime, unexpected};
use crate::address::Mailbox;
use crate::config::{Auth, Config};
use crate::control::{self, AccountInfo, Answer, Request, Secret};
use crate::names::AccountName;
use crate::sasl::Mechanism;
use crate::server::DataDirLock;
use crate::store::{PASSWORD_BYTES_MAX, Store};

/// Manage who logs in
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    Add(AddArgs),
    List(ListArgs),
    Password(PasswordArgs),
}

const ADD_HELP: &str = "\
The account is written into the configuration file, whose comments stay; its
password, hashed, into the data directory. A running server takes it up at once.
The addresses' domains must be in the configuration.

The password is asked for twice on a terminal, else it is the first line of
standard input.

Examples:
  waypost account add ann ann@example.org info@example.org
  printf '%s\\n' \"$PASSWORD\" | waypost account add ann ann@example.org";

/// Add an account with its addresses, and set its password
#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
struct AddArgs {
    /// Its name: what a mail program logs in with
    name: AccountName,
    /// What it receives, and may send as
    #[arg(required = true)]
    addresses: Vec<Mailbox>,
    /// Take the password from standard input even on a terminal
    #[arg(long)]
    stdin: bool,
}

const LIST_HELP: &str = "\
Examples:
  waypost account list
  waypost account list --json | jq -r '.[] | select(.has_password | not) | .name'
  waypost account list --json | jq -r '.[] | select(.mechanisms | index(\"CRAM-MD5\")) | .name'";

/// List accounts, their addresses, and whether and how they can log in
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PASSWORD_HELP: &str = "\
The password is asked for twice on a terminal, else it is the first line of
standard input. Sessions that are open stay open.

Examples:
  waypost account password ann
  printf '%s\\n' \"$PASSWORD\" | waypost account password ann";

/// Set an account's password
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP)]
struct PasswordArgs {
    /// Whose
    name: AccountName,
    /// Take the password from standard input even on a terminal
    #[arg(long)]
    stdin: bool,
}

pub(super) fn run(args: &AccountArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        AccountCommand::Add(args) => add(args, shared, out),
        AccountCommand::List(args) => list(args, shared, out),
        AccountCommand::Password(args) => {
            let config = shared.config()?;
            if !config.accounts.contains_key(&args.name) {
                return Err(CommandError::new(Exit::Bad, format!("there is no account {}", args.name))
                    .hint(format!("add it with `waypost account add {} ADDRESS`", args.name)));
            }
            set_password(&config, &args.name, password(args.stdin)?)?;
            Ok(writeln!(out, "{}: password set", args.name)?)
        }
    }
}

fn add(args: &AddArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let file = shared.config_file()?;
    let old = Config::load(&file)?;
    if old.accounts.contains_key(&args.name) {
        return Err(CommandError::new(Exit::Bad, format!("the account {} is there already", args.name))
            .hint(format!(
                "`waypost account password {}` sets its password; addresses stand in the configuration",
                args.name
            )));
    }
    let text = std::fs::read_to_string(&file)?;
    let new = edit::with_account(&text, &args.name, &args.addresses)?;
    // Before the password is asked for: a domain that is not ours is said at once.
    Config::parse(&new, &file)?;
    let password = password(args.stdin)?;
    let config = edit::replace(&file, &new)?;
    // The file's directory is what relative paths begin at, wherever this command runs.
    let config = Config { data_dir: old.data_dir, ..config };
    let half_done = |error: CommandError| {
        error.hint(format!(
            "the account is in the configuration; then: `waypost account password {}`",
            args.name
        ))
    };
    let running = ask_if_running(&config, &Request::Reload).map_err(half_done)?.is_some();
    set_password(&config, &args.name, password).map_err(half_done)?;
    let addresses: Vec<String> = args.addresses.iter().map(ToString::to_string).collect();
    let taken_up = if running { "; the running server knows it" } else { "" };
    Ok(writeln!(out, "{}: added with {}{taken_up}", args.name, addresses.join(", "))?)
}

/// Asks the running server, else changes the store itself.
fn set_password(config: &Config, name: &AccountName, password: Secret) -> Result<(), CommandError> {
    let request = Request::AccountPassword { account: name.clone(), password: password.clone() };
    match ask_if_running(config, &request)? {
        Some(Answer::PasswordSet) => Ok(()),
        Some(_) => Err(unexpected()),
        None => {
            with_store(config, async |store| Ok(control::set_password(config, store, name, &password).await?))
        }
    }
}

fn list(args: &ListArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = shared.config()?;
    let accounts = match ask_if_running(&config, &Request::AccountList)? {
        Some(Answer::Accounts(accounts)) => accounts,
        Some(_) => return Err(unexpected()),
        None => with_store(&config, async |store| Ok(control::accounts(&config, store).await?))?,
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &accounts)?;
        return Ok(writeln!(out)?);
    }
    print(&accounts, &config.auth, out)
}

fn print(accounts: &[AccountInfo], auth: &Auth, out: &mut dyn Write) -> Result<(), CommandError> {
    let width = accounts.iter().map(|account| account.name.as_str().len()).max().unwrap_or(0);
    for account in accounts {
        let mut words: Vec<String> = account.addresses.iter().map(ToString::to_string).collect();
        words.extend(account.catch_all.iter().map(|domain| format!("*@{domain}")));
        writeln!(out, "{:width$}  {}{}", account.name, words.join(" "), note(account, auth))?;
    }
    if accounts.is_empty() {
        writeln!(out, "no accounts: add one with `waypost account add NAME ADDRESS`")?;
    }
    Ok(())
}

/// What does not work for an account.
fn note(account: &AccountInfo, auth: &Auth) -> String {
    if !account.has_password {
        return "  (no password: cannot log in)".to_owned();
    }
    let works =
        |mechanism: &&'static Mechanism| account.mechanisms.iter().any(|name| *name == mechanism.as_str());
    let missing: Vec<&str> =
        auth.mechanisms().filter(|mechanism| !works(mechanism)).map(|mechanism| mechanism.as_str()).collect();
    match (&missing[..], auth.takes_passwords()) {
        ([], _) => String::new(),
        (_, true) => format!("  (no {} before a login with the password itself)", missing.join(", ")),
        (_, false) => format!("  (no {} before the password is set again)", missing.join(", ")),
    }
}

/// Opens the store of a data directory that no server uses.
fn with_store<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Store) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let _lock = DataDirLock::take(&config.data_dir)?;
    small_runtime()?.block_on(async {
        let store = Store::open(&config.store_dir())?;
        store.keep_cram_md5(config.auth.wants_cram_md5());
        let result = work(&store).await;
        store.close().await;
        result
    })
}

/// Asks for a password on a terminal, else reads one line.
fn password(from_stdin: bool) -> Result<Secret, CommandError> {
    let text = if io::stdin().is_terminal() && !from_stdin {
        let first = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != first {
            return Err(CommandError::new(Exit::Bad, "the two passwords differ"));
        }
        first
    } else {
        first_line(&mut io::stdin().lock())?
    };
    if text.is_empty() || text.len() > PASSWORD_BYTES_MAX {
        return Err(CommandError::new(Exit::Bad, format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(Secret::new(text))
}

/// Without its line end; a password may end in a space.
fn first_line(input: &mut dyn BufRead) -> Result<String, CommandError> {
    let mut line = String::new();
    // Longer than any password, so that a wrong file does not fill the memory.
    io::Read::take(input, PASSWORD_BYTES_MAX as u64 + 3).read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_for_an_account_is_noted() {
        let note = |offered: &[Mechanism], has_password, works: &[&str]| {
            let account = AccountInfo {
                name: AccountName::new("ann").unwrap(),
                addresses: Vec::new(),
                catch_all: Vec::new(),
                has_password,
                mechanisms: works.iter().map(ToString::to_string).collect(),
            };
            note(&account, &Auth { mechanisms: offered.into() })
        };
        let (cram, plain) = (Mechanism::CramMd5, Mechanism::Plain);
        assert_eq!(note(&[plain, cram], true, &["CRAM-MD5", "PLAIN"]), "");
        assert_eq!(note(&[plain], false, &[]), "  (no password: cannot log in)");
        assert_eq!(
            note(&[plain, cram], true, &["PLAIN"]),
            "  (no CRAM-MD5 before a login with the password itself)"
        );
        assert_eq!(note(&[cram], true, &[]), "  (no CRAM-MD5 before the password is set again)");
    }

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for (input, password) in [("secret\nmore", "secret"), ("a b \r\n", "a b "), ("x", "x"), ("", "")] {
            assert_eq!(first_line(&mut input.as_bytes()).unwrap(), password);
        }
    }
}
