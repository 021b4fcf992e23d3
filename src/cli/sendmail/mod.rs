//! `waypost sendmail`, and the program called as `sendmail`: how cron, PHP, git and mail programs hand over mail.
//!
//! The message goes to the server on this machine, through its socket `submit.sock` (see [`crate::control`]), or to any
//! other that a `sendmail.toml` names. Exit codes are those of sysexits.h. What could not be sent is kept in a file.
//! docs/sendmail.md tells it to users.
//!
//! | file | what it does |
//! | --- | --- |
//! | `arguments` | reads the command line |
//! | `message` | reads the message: header, recipients; what is added and taken away |
//! | `way` | which server gets it |
//! | `handover` | speaks to the server on this machine |
//! | `remote` | submits to another |
//! | `dialogue` | speaks SMTP with the caller and another server |
//! | `exit` | failures and their codes |
//! | `dead_letter` | keeps what could not be sent |

mod arguments;
mod dead_letter;
mod dialogue;
mod exit;
mod handover;
mod message;
mod remote;
mod way;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use nix::unistd::{User, getuid};

use self::arguments::{Arguments, Send, Task};
use self::exit::{Failure, SysExit};
use self::handover::{Handover, Sender};
use self::message::{Message, THIS_MACHINE};
use self::remote::Remote;
use self::way::Way;
use crate::address::{Domain, LocalPart, Mailbox};

/// What is read from standard input at most; the server may take less, and says so.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

const HELP: &str = "\
Send the message on standard input: what cron, PHP, git and mail programs call
as sendmail.

Usage: waypost sendmail [OPTIONS] [RECIPIENT]...
       sendmail [OPTIONS] [RECIPIENT]...   (a link to waypost of this name)

  -t           send to the recipients in To, Cc and Bcc, too
  -i, -oi      a line with a dot alone does not end the message
  -f, -r ADDR  the sender, whom reports go to
  -F NAME      the name in a From field that is added
  -N WHEN      which reports come: never, or some of success,failure,delay
  -R WHAT      what of the message they return: full or hdrs
  -V ID        what they call the message
  -v           say what the server said
  -bs          speak SMTP on standard input and output

Other options of other sendmails are taken and ignored.

Which server gets the message: the first of these decides
  --sendmail-config FILE     the server that this file names
  --config FILE              the Waypost on this machine with this configuration
  $WAYPOST_SENDMAIL_CONFIG   as --sendmail-config
  $WAYPOST_CONFIG            as --config
  ~/.config/waypost/sendmail.toml, /etc/waypost/sendmail.toml
                             where one is there: the server that it names
  else                       the Waypost on this machine

On this machine, `users` in [accounts.NAME] of the server's configuration says
which system user may send as which account. For another server, sendmail.toml
holds no more than

  host = \"smtp.example.com\"              port 465, TLS at once
  username = \"ann@example.com\"
  password_file = \"password\"            one line; relative to this file
  from = \"ann@example.com\"
  local_users_to = \"ann@example.com\"    who gets mail for root and the like

Exit codes are those of sysexits.h: 0 sent, 64 usage, 65 bad message, 67 unknown
recipient, 68 no such server, 69 refused, 74 input or output failed, 75 try again
later, 76 no SMTP, 77 not allowed, 78 bad configuration. What could not be sent is
kept in a file that is named on standard error.

Examples:
  echo hello | waypost sendmail ann@example.org
  waypost sendmail -t -i < message.eml
  waypost sendmail --sendmail-config work.toml -i -v bob@example.net < message.eml
";

/// Send a message as cron, PHP and git do (sendmail)
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct SendmailArgs {
    /// As sendmail takes them; `waypost sendmail --help` tells more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// The arguments behind `sendmail`, when this is what the program was called as or for. They are not for the parser of
/// the other commands: `-c` and `-v` mean something else here.
pub(super) fn called(mut arguments: impl Iterator<Item = OsString>) -> Option<(PathBuf, Vec<OsString>)> {
    let program = PathBuf::from(arguments.next()?);
    if arguments::is_sendmail(&program) {
        return Some((program, arguments.collect()));
    }
    (arguments.next()? == "sendmail").then(|| ("sendmail".into(), arguments.collect()))
}

/// Runs it behind options of `waypost` itself.
pub(super) fn run(args: SendmailArgs, config: Option<PathBuf>) -> ExitCode {
    // What the environment says is looked at later, and counts for less.
    let config =
        config.filter(|file| std::env::var_os(way::CONFIG_VARIABLE).is_none_or(|named| *file != named));
    run_called(Path::new("sendmail"), args.arguments, config)
}

/// Runs what was called.
pub(super) fn run_called(program: &Path, arguments: Vec<OsString>, config: Option<PathBuf>) -> ExitCode {
    let shown = shown(&arguments);
    let result = match arguments::parse(program, arguments) {
        Ok(mut arguments) => {
            arguments.config = arguments.config.or(config);
            perform(&arguments, &shown)
        }
        Err(message) => Err(Failure::new(SysExit::Usage, message)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                say(&format!("sendmail: {line}"));
            }
            failure.exit.into()
        }
    }
}

fn perform(arguments: &Arguments, shown: &str) -> Result<(), Failure> {
    let way = || way::choose(arguments, |name| std::env::var_os(name), Path::exists);
    match &arguments.task {
        Task::Nothing => Ok(()),
        Task::Help => io::stdout()
            .write_all(HELP.as_bytes())
            .map_err(|error| Failure::new(SysExit::IoErr, format!("standard output: {error}"))),
        Task::Speak => match way() {
            Way::Local(config) => handover::speak(&way::data_dir(config.as_deref())?),
            Way::Remote(file) => dialogue::speak(&Remote::load(&file)?),
        },
        Task::Send(send) => {
            let mut input = Vec::new();
            let read = io::stdin().lock().take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut input);
            read.map_err(|error| Failure::new(SysExit::IoErr, format!("standard input: {error}")))?;
            send_by(&way(), send, &input).map_err(|failure| kept(failure, &input, shown))
        }
    }
}

/// Sends a message one way.
fn send_by(way: &Way, send: &Send, input: &[u8]) -> Result<(), Failure> {
    if input.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(Failure::new(
            SysExit::DataErr,
            format!("the message is larger than {MESSAGE_BYTES_MAX} bytes"),
        ));
    }
    let message = Message::read(input, send.dots_are_text);
    let recipients = recipients(send, &message)?;
    let me = User::from_uid(getuid()).ok().flatten();
    let gecos = || me.as_ref().and_then(|me| full_name(&me.name, &me.gecos.to_string_lossy()));
    let full_name = send.full_name.clone().or_else(|| std::env::var("NAME").ok()).or_else(gecos);
    let config = match way {
        Way::Remote(file) => {
            return Remote::load(file)?.send(send, &message, full_name.as_deref(), recipients);
        }
        Way::Local(config) => config.as_deref(),
    };
    let sender = match &send.sender {
        None => Sender::Default { author: message.author(), user: this_user(me.as_ref())? },
        Some(text) if is_null(text) => Sender::Null,
        Some(text) => Sender::Address(one_address(text)?),
    };
    let (message, reports, verbose) = (&message, send.reports.clone(), send.verbose);
    let handover = Handover { message, sender, full_name, recipients, reports, verbose };
    handover::hand_over(&way::data_dir(config)?, &handover)
}

/// Whether `-f` names nobody.
fn is_null(sender: &str) -> bool {
    matches!(sender.trim(), "" | "<>")
}

/// Recipients of the command line and, if asked for, of the header; each once.
fn recipients(send: &Send, message: &Message) -> Result<Vec<Mailbox>, Failure> {
    let mut all: Vec<Mailbox> = Vec::new();
    for argument in &send.recipients {
        all.extend(
            message::mailboxes(argument.as_bytes()).map_err(|error| Failure::new(SysExit::Usage, error))?,
        );
    }
    if send.recipients_in_header {
        all.extend(message.recipients().map_err(|error| Failure::new(SysExit::DataErr, error))?);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|recipient| seen.insert(recipient.clone()));
    if all.is_empty() {
        return Err(Failure::new(SysExit::DataErr, "the message names no recipient in To, Cc or Bcc"));
    }
    Ok(all)
}

fn one_address(text: &str) -> Result<Mailbox, Failure> {
    let mut all = message::mailboxes(text.as_bytes()).map_err(|error| Failure::new(SysExit::Usage, error))?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Failure::new(SysExit::Usage, format!("{text:?} is not one address"))),
    }
}

/// The calling user as an address of this machine.
fn this_user(me: Option<&User>) -> Result<Mailbox, Failure> {
    let name = me.map_or_else(|| getuid().to_string(), |me| me.name.clone());
    let failed = |error| Failure::new(SysExit::NoPerm, format!("user {name}: {error}"));
    let local = LocalPart::from_unquoted(&name).map_err(failed)?;
    Ok(Mailbox { local, domain: Domain::parse(THIS_MACHINE).map_err(failed)? })
}

/// The name of a person in passwd(5): up to the comma, with `&` for the user's name.
fn full_name(user: &str, gecos: &str) -> Option<String> {
    let mut letters = user.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let name = gecos.split(',').next().unwrap_or_default().trim().replace('&', &capital);
    Some(name).filter(|name| !name.is_empty())
}

/// Keeps a message that was not sent, and says where.
fn kept(failure: Failure, input: &[u8], given: &str) -> Failure {
    let again = failure.again.as_deref().map(shown);
    let whom = if again.is_some() { "sent to these" } else { "sent" };
    let words = match dead_letter::keep(input) {
        Ok(path) => {
            let (path, again) = (path.display(), again.as_deref().unwrap_or(given));
            format!(
                "the message was not {whom}; it is kept in {path}\nto send it again: sendmail {again} < {path}"
            )
        }
        Err(error) => format!("the message was not {whom}, and could not be kept: {error}"),
    };
    Failure { message: format!("{}\n{words}", failure.message), ..failure }
}

/// Arguments as a shell takes them.
fn shown(arguments: &[OsString]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    let word = |word: &OsString| {
        let text = OsStr::to_string_lossy(word);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
    };
    arguments.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn say(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn called_by_name_or_as_a_command() {
        let (_, arguments) = called(words("/usr/sbin/sendmail -t -i")).unwrap();
        assert_eq!(arguments, ["-t", "-i"]);
        let (_, arguments) = called(words("waypost sendmail -c root")).unwrap();
        assert_eq!(arguments, ["-c", "root"]);
        assert!(called(words("waypost queue list")).is_none());
        assert!(called(words("waypost --config sendmail check")).is_none());
    }

    #[test]
    fn recipients_of_command_line_and_header() {
        let message = Message::read(b"To: a@b.test, c@d.test\nBcc: root\n\n", false);
        let all = |header, arguments: &[&str]| {
            let recipients = arguments.iter().map(|&argument| argument.to_owned()).collect();
            let send = Send { recipients_in_header: header, recipients, ..Send::default() };
            recipients_text(super::recipients(&send, &message))
        };
        assert_eq!(all(true, &[]), Ok("a@b.test c@d.test root@localhost".to_owned()));
        assert_eq!(all(true, &["c@d.test"]), Ok("c@d.test a@b.test root@localhost".to_owned()));
        assert_eq!(
            all(false, &["X <x@y.test>, z@y.test", "ann"]),
            Ok("x@y.test z@y.test ann@localhost".to_owned())
        );
        assert_eq!(all(false, &["x@y..test"]), Err(SysExit::Usage));
        assert_eq!(all(false, &[","]), Err(SysExit::DataErr));
    }

    fn recipients_text(result: Result<Vec<Mailbox>, Failure>) -> Result<String, SysExit> {
        let text = |all: Vec<Mailbox>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        result.map(text).map_err(|failure| failure.exit)
    }

    #[test]
    fn names_and_words() {
        assert_eq!(full_name("ann", "Ann B,,,"), Some("Ann B".to_owned()));
        assert_eq!(full_name("ann", "& B"), Some("Ann B".to_owned()));
        assert_eq!(full_name("ann", ""), None);
        let arguments = ["-f", "a@b", "-F", "it's me", ""].map(OsString::from);
        assert_eq!(shown(&arguments), "-f a@b -F 'it'\\''s me' ''");
    }
}
