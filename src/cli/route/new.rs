//! `waypost route new`: a first script and its first test, to begin with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::address::Domain;
use crate::cli::Shared;
use crate::cli::error::{CommandError, Exit};
use crate::config::{Config, SCRIPTS_DIR_DEFAULT, TransportKind, nearest};
use crate::names::{AccountName, TransportName};

const NEW_HELP: &str = "\
Writes a script with comments, and a test that passes. Nothing is overwritten.
They go to the configured scripts directory, else to ./scripts.

Examples:
  waypost route new global
  waypost route new domain example.org
  waypost route new account ann
  waypost route new global --scripts /etc/waypost/scripts";

/// Write a first script and its first test
#[derive(Debug, Args)]
#[command(after_help = NEW_HELP)]
pub(super) struct NewArgs {
    /// Where scripts are; made when it is not there
    #[arg(long, global = true, value_name = "DIR")]
    scripts: Option<PathBuf>,
    #[command(subcommand)]
    whose: Whose,
}

#[derive(Debug, Subcommand)]
enum Whose {
    /// The script that is asked for all mail
    Global,
    /// The script of one of your domains, asked before the global one
    Domain {
        /// The domain
        #[arg(value_parser = Domain::parse)]
        name: Domain,
    },
    /// The script of an account, asked first of all
    Account {
        /// The account
        name: AccountName,
    },
}

impl Whose {
    /// File without ending, relative to the scripts directory.
    fn stem(&self) -> String {
        match self {
            Self::Global => "global".to_owned(),
            Self::Domain { name } => format!("domain/{name}"),
            Self::Account { name } => format!("account/{name}"),
        }
    }

    /// When it is asked.
    fn asked(&self) -> String {
        match self {
            Self::Global => {
                "Waypost asks it before every attempt to deliver a message, once for each recipient, unless the script of the\n\
                 // account or of the sender's domain has decided already."
                    .to_owned()
            }
            Self::Domain { name } => format!(
                "Waypost asks it before every attempt to deliver a message that comes from an address in {name}, once for\n\
                 // each recipient, unless the script of the account has decided already."
            ),
            Self::Account { name } => format!(
                "Waypost asks it before every attempt to deliver a message that the account {name} sent, once for each\n\
                 // recipient. It is the first that is asked."
            ),
        }
    }

    /// What happens when the script does not decide.
    fn next(&self) -> &'static str {
        match self {
            Self::Global => "mail goes direct, to the servers of the recipient's domain",
            Self::Domain { .. } => "global.rhai is asked",
            Self::Account { .. } => "the script of the sender's domain is asked, then global.rhai",
        }
    }
}

pub(super) fn run(args: &NewArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let config = match shared.config_file() {
        Ok(file) => Some(Config::load(&file)?),
        Err(error) if shared.config.is_some() => return Err(error),
        Err(_) => None,
    };
    let configured = config.as_ref().map(|config| config.scripts_dir.clone());
    let dir = args.scripts.clone().or(configured).unwrap_or_else(|| PathBuf::from(SCRIPTS_DIR_DEFAULT));
    let stem = args.whose.stem();
    let (script, test) = (dir.join(format!("{stem}.rhai")), dir.join(format!("{stem}.test.toml")));
    for file in [&script, &test] {
        if file.symlink_metadata().is_ok() {
            let message = format!("{} is there already; nothing was changed", file.display());
            return Err(CommandError::new(Exit::Bad, message).hint("`waypost route test` runs what is there"));
        }
    }
    let transport = transport(config.as_ref());
    write(&script, &script_text(&args.whose, &transport, config.is_some()))?;
    write(&test, &test_text(&args.whose, &transport, config.is_some()))?;
    writeln!(out, "wrote {}\nwrote {}", script.display(), test.display())?;
    for note in notes(&args.whose, config.as_ref(), &transport) {
        writeln!(out, "note: {note}")?;
    }
    let path = if args.scripts.is_some() { format!(" {}", dir.display()) } else { String::new() };
    writeln!(out, "\nNext:\n  waypost route test{path:<24} run the test: it passes")?;
    writeln!(
        out,
        "  waypost route test{:<24} run it again whenever a file is saved",
        format!("{path} --watch")
    )?;
    writeln!(out, "then change the script, and what the test expects of it.")?;
    Ok(())
}

/// A transport to write into the script: one that exists, where that is known.
fn transport(config: Option<&Config>) -> TransportName {
    let usual = || TransportName::new("smarthost").unwrap_or_else(|_| TransportName::direct());
    let Some(config) = config else { return usual() };
    let sends = |kind: &TransportKind| !matches!(kind, TransportKind::Fail { .. });
    let mut names = config
        .transports
        .iter()
        .filter(|(name, transport)| name.as_str() != TransportName::DIRECT && sends(&transport.kind));
    names.next().map_or_else(TransportName::direct, |(name, _)| name.clone())
}

fn notes(whose: &Whose, config: Option<&Config>, transport: &TransportName) -> Vec<String> {
    let Some(config) = config else {
        let about = "no waypost.toml was found: the test says itself which transports there are";
        return vec![about.to_owned()];
    };
    let mut notes = Vec::new();
    let near = |near: Option<&str>| near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    match whose {
        Whose::Domain { name } if !config.domains.contains_key(name) => {
            let near = near(nearest(name.as_str(), config.domains.keys().map(Domain::as_str)));
            notes.push(format!("{name} is none of your domains, so that nobody asks this script{near}"));
        }
        Whose::Account { name } if !config.accounts.contains_key(name) => {
            let near = near(nearest(name.as_str(), config.accounts.keys().map(AccountName::as_str)));
            notes.push(format!("there is no account {name}, so that nobody asks this script{near}"));
        }
        _ => {}
    }
    if transport.as_str() == TransportName::DIRECT {
        notes.push(
            "there is no transport but direct yet: add one to waypost.toml ([transports.NAME]), then put its name into \
             the script and its test"
                .to_owned(),
        );
    }
    notes
}

fn script_text(whose: &Whose, transport: &TransportName, configured: bool) -> String {
    let (asked, next) = (whose.asked(), whose.next());
    let name = if transport.as_str() == TransportName::DIRECT {
        "\"direct\" is always there; [transports.NAME] in waypost.toml makes others."
    } else if configured {
        "It is one of the transports in waypost.toml."
    } else {
        "It must be one of the transports in waypost.toml."
    };
    format!(
        "// {stem}.rhai: which way mail goes.
//
// {asked}
// It returns the name of a transport, or nothing: then {next}.
//
// `delivery` says what there is to know: delivery.attempt, delivery.sender, delivery.recipient_domain, delivery.size
// and more. `waypost route test` runs the tests beside this file.

fn route(delivery) {{
    // Three attempts have failed: try another way. {name}
    if delivery.attempt >= 4 {{
        return \"{transport}\";
    }}

    // Nothing is returned here, so that the attempts before that are not decided by this script.
}}
",
        stem = whose.stem(),
    )
}

fn test_text(whose: &Whose, transport: &TransportName, configured: bool) -> String {
    let stem = whose.stem();
    let next = whose.next();
    let transports = if configured {
        String::new()
    } else {
        format!(
            "\n# The transports that there are. With a waypost.toml this can go: its transports are taken.\ntransports = [\"{transport}\"]\n"
        )
    };
    format!(
        "# Tests of {stem}.rhai. Run them with: waypost route test
#
# A case describes a delivery and says what the script must answer. Only what matters needs to be said: everything that
# a script can read has a default, and can be given by its name (attempt, sender, recipient, size, header, last, ...).
{transports}
[[case]]
name = \"the first three attempts are not decided here\"
attempt = \"1..3\"
expect = \"nothing\" # then {next}

[[case]]
name = \"from the fourth attempt on another way is taken\"
attempt = \"4..6\"
expect = \"{transport}\"
"
    )
}

/// Writes a file that must not be there yet.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::new(Exit::Failed, format!("{}: {error}", path.display()));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
