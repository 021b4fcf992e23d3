//! Submits a message to the server of a `sendmail.toml`, through the transports' own engine: TLS, login and what replies
//! mean are the same as for the queue, only that nobody tries again.
//!
//! RFC 6409 §8: Date, Message-Id and a From are added here where they are missing. Recipients are taken one by one: some may
//! get the message although others were refused; then the failure tells how to send it to the others alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::distr::{Alphanumeric, SampleString};
use tokio::runtime::Runtime;

use super::arguments::Send;
use super::exit::{Failure, SysExit};
use super::message::{Message, THIS_MACHINE};
use super::say;
use crate::address::{Domain, Mailbox};
use crate::config::{ConfigProblems, SendmailConfig, Transport};
use crate::dns::Resolver;
use crate::envelope::{Envelope, Recipient, ReversePath};
use crate::message::header::HeaderSummary;
use crate::message::received::{write_date_field, write_message_id_field};
use crate::names::QueueId;
use crate::outcome::{Outcome, Stage, Verdict};
use crate::spool::{NewMessage, Origin};
use crate::transport::{Engine, Job};

/// Letters and digits before the `@` of a Message-Id: nobody gives the same twice.
const MESSAGE_ID_CHARS: usize = 24;

/// The server of a `sendmail.toml`.
pub(super) struct Remote {
    file: PathBuf,
    config: SendmailConfig,
}

impl Remote {
    /// Reads the file. Whoever could read a password in it is told of.
    pub(super) fn load(file: &Path) -> Result<Self, Failure> {
        let config = SendmailConfig::load(file).map_err(|problems| wrong(&problems))?;
        for secret in config.secrets.iter().filter(|secret| everybody_reads(secret)) {
            let path = secret.display();
            say(&format!("sendmail: warning: everybody can read the password in {path} (chmod o-r {path})"));
        }
        Ok(Self { file: file.to_owned(), config })
    }

    /// Sends a message to all recipients; users of this machine get it where the configuration says.
    pub(super) fn send(
        &self,
        send: &Send,
        message: &Message,
        full_name: Option<&str>,
        recipients: Vec<Mailbox>,
    ) -> Result<(), Failure> {
        let hostname = this_host();
        let (sender, author) = self.sender(send, message)?;
        let content = complete(message, &author, full_name, &hostname);
        let recipients = self.routed(recipients)?;
        let reverse_path = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
        let mut envelope = Envelope::new(reverse_path, recipients.iter().map(|(_, to)| to.clone()));
        (envelope.ret, envelope.envid) = (send.reports.ret, send.reports.envid.clone());
        for recipient in &mut envelope.recipients {
            recipient.notify = send.reports.notify;
        }
        let outcomes = self.deliver(hostname, envelope, content)?;
        self.report(send, &recipients, &outcomes)
    }

    /// Who gets reports, and who is the author of a message without one.
    fn sender(&self, send: &Send, message: &Message) -> Result<(Option<Mailbox>, Mailbox), Failure> {
        match &send.sender {
            None => {
                let usual = self.usual(message.author())?;
                Ok((Some(usual.clone()), usual))
            }
            Some(text) if super::is_null(text) => self.known(None, message.author()),
            Some(text) => self.known(Some(super::one_address(text)?), message.author()),
        }
    }

    /// The same where a sender was named; `None` is the null sender. A user of this machine has no address that others
    /// know.
    pub(super) fn known(
        &self,
        named: Option<Mailbox>,
        author: Option<Mailbox>,
    ) -> Result<(Option<Mailbox>, Mailbox), Failure> {
        match named {
            Some(named) if !self.config.from_always && !is_here(&named) => Ok((Some(named.clone()), named)),
            None if !self.config.from_always => self.usual(author).map(|usual| (None, usual)),
            _ => self.usual(author).map(|usual| (Some(usual.clone()), usual)),
        }
    }

    /// Who sends where nobody is named: `from`, else the author of the message, else the name that we log in with.
    fn usual(&self, author: Option<Mailbox>) -> Result<Mailbox, Failure> {
        let config = &self.config;
        let login = || config.server.login.as_ref().and_then(|login| Mailbox::parse(&login.username).ok());
        config.from.clone().or(author).or_else(login).ok_or_else(|| {
            let file = self.file.display();
            let what =
                format!("nobody is named as the sender: add `from = \"you@your.domain\"` to {file}, or -f");
            Failure::new(SysExit::Config, what)
        })
    }

    /// Who was named, and who gets the mail; each gets it once.
    pub(super) fn routed(&self, named: Vec<Mailbox>) -> Result<Vec<(Mailbox, Mailbox)>, Failure> {
        let mut all: Vec<(Mailbox, Mailbox)> = Vec::new();
        for recipient in named {
            let to = if is_here(&recipient) {
                self.config.mail_of_user(&recipient.local).to_vec()
            } else {
                vec![recipient.clone()]
            };
            if to.is_empty() {
                let file = self.file.display();
                let what = format!(
                    "{}: nobody gets the mail for users of this machine: `local_users_to` in {file} says who does",
                    recipient.local
                );
                return Err(Failure::new(SysExit::NoUser, what));
            }
            for to in to {
                if all.iter().all(|(_, known)| *known != to) {
                    all.push((recipient.clone(), to));
                }
            }
        }
        Ok(all)
    }

    fn deliver(
        &self,
        hostname: Domain,
        envelope: Envelope,
        content: Vec<u8>,
    ) -> Result<Vec<Outcome>, Failure> {
        let recipients: Vec<Recipient> = envelope.recipients.clone();
        let origin = Origin { session: "sendmail".into(), protocol: "local".into(), ip: None, helo: None };
        let received = crate::clock::now();
        let message =
            Arc::new(NewMessage { envelope, account: None, received, origin, content: content.into() });
        let job = Job { id: QueueId(0), message, recipients, previous: Vec::new() };
        let (runtime, engine) = (runtime()?, self.engine(hostname));
        Ok(runtime.block_on(async {
            let outcomes = engine.deliver(&self.config.transport, &job).await;
            engine.close_idle().await;
            outcomes
        }))
    }

    /// What speaks to the server.
    pub(super) fn engine(&self, hostname: Domain) -> Engine {
        Engine::new(Resolver::new(&self.config.dns), hostname)
    }

    /// The server as the engine knows it.
    pub(super) fn transport(&self) -> &Arc<Transport> {
        &self.config.transport
    }

    /// Why there is no session with the server.
    pub(super) fn failure(&self, outcome: &Outcome) -> Failure {
        let failure = Failure::outcome(self.shown(outcome), outcome);
        let hint = self.hint(outcome).map_or_else(String::new, |hint| format!("\n{hint}"));
        Failure { message: failure.message + hint.as_str(), ..failure }
    }

    /// All have it, or what became of it.
    fn report(
        &self,
        send: &Send,
        recipients: &[(Mailbox, Mailbox)],
        outcomes: &[Outcome],
    ) -> Result<(), Failure> {
        let (delivered, failed): (Vec<_>, Vec<_>) =
            recipients.iter().zip(outcomes).partition(|(_, outcome)| outcome.verdict == Verdict::Delivered);
        if send.verbose {
            for ((_, to), outcome) in &delivered {
                say(&format!("sendmail: {to}: {}", self.shown(outcome)));
            }
        }
        // What happened before anybody was named is said once.
        let same = delivered.is_empty() && failed.iter().all(|(_, outcome)| *outcome == failed[0].1);
        let session = failed.first().filter(|(_, outcome)| same && !names_a_recipient(outcome));
        let failures = match session {
            Some((_, outcome)) => vec![Failure::outcome(self.shown(outcome), outcome)],
            None => failed
                .iter()
                .map(|((_, to), o)| Failure::outcome(format!("{to}: {}", self.shown(o)), o))
                .collect(),
        };
        let Some(mut failure) = Failure::joined(failures) else { return Ok(()) };
        if let Some(hint) = failed.first().and_then(|(_, outcome)| self.hint(outcome)) {
            failure.message = format!("{}\n{hint}", failure.message);
        }
        if !delivered.is_empty() {
            let left = failed.iter().map(|((_, to), _)| to);
            failure.message = format!("{}\nthe others have it ({})", failure.message, delivered.len());
            failure.again = Some(send.again(&self.file, left));
        }
        Err(failure)
    }

    /// `smtp.example.com:587: 550 5.1.1 no such user`
    fn shown(&self, outcome: &Outcome) -> String {
        let server = &self.config.server;
        let code = outcome.code.map_or_else(String::new, |code| format!("{code} "));
        // Codes of our own making would pass for the server's words.
        let enhanced = outcome.enhanced.filter(|_| outcome.code.is_some());
        let enhanced = enhanced.map_or_else(String::new, |enhanced| format!("{enhanced} "));
        format!("{}:{}: {code}{enhanced}{}", server.host, server.port, outcome.text)
    }

    /// What the operator can do about it.
    fn hint(&self, outcome: &Outcome) -> Option<String> {
        let file = self.file.display();
        let keys = match outcome.stage {
            Stage::Dns | Stage::Connect => "`host` and `port`",
            Stage::Greeting => "`host`, `port` and `kind`",
            Stage::Tls => "`port` and `kind`; `ca_file` names an authority of your own",
            Stage::Auth => "`username` and the password",
            Stage::Mail if outcome.code == Some(530) => "`username` and a password",
            Stage::Mail => "`from`",
            Stage::Rcpt | Stage::Data => return None,
        };
        Some(format!("see {file}: {keys}"))
    }
}

/// Whether it was said of a recipient rather than of the whole message.
fn names_a_recipient(outcome: &Outcome) -> bool {
    outcome.stage == Stage::Rcpt
}

/// One line for each problem, as compilers write them.
fn wrong(problems: &ConfigProblems) -> Failure {
    let file = problems.file();
    let lines = problems.problems().iter().map(|problem| {
        let place = problems.line_and_column(problem);
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        let label = Some(&problem.label).filter(|label| !label.is_empty());
        let label = label.map_or_else(String::new, |label| format!(" ({label})"));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
        format!("{file}{place}: {}{label}{help}", problem.message)
    });
    Failure::new(SysExit::Config, lines.collect::<Vec<_>>().join("\n"))
}

fn everybody_reads(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

pub(super) fn is_here(mailbox: &Mailbox) -> bool {
    mailbox.domain.as_str() == THIS_MACHINE
}

/// For one thing at a time.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(SysExit::TempFail, format!("cannot begin: {error}")))
}

/// What this machine calls itself.
pub(super) fn this_host() -> Domain {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.and_then(|name| Domain::parse(&name).ok())
        .unwrap_or_else(|| Domain::literal(std::net::Ipv4Addr::LOCALHOST.into()))
}

/// The message as it is sent: RFC 6409 §8.1 to §8.3.
pub(super) fn complete(
    message: &Message,
    author: &Mailbox,
    full_name: Option<&str>,
    host: &Domain,
) -> Vec<u8> {
    let content = message.complete(Some(author), full_name);
    let header = HeaderSummary::of(&content);
    let mut out = Vec::with_capacity(content.len() + 128);
    if !header.has_date {
        write_date_field(crate::clock::now(), &mut out);
    }
    if !header.has_message_id {
        let id = Alphanumeric.sample_string(&mut rand::rng(), MESSAGE_ID_CHARS);
        // A name that is not this machine's alone tells less, but the part before it is never given twice.
        let by = if host.as_str().contains('.') { host } else { &author.domain };
        write_message_id_field(&id, by, &mut out);
    }
    out.extend_from_slice(&content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(more: &str) -> Remote {
        let file = PathBuf::from("/etc/waypost/sendmail.toml");
        let config = SendmailConfig::parse(&format!("host = \"smtp.example.com\"\n{more}"), &file).unwrap();
        Remote { file, config }
    }

    fn all(text: &str) -> Vec<Mailbox> {
        super::super::message::mailboxes(text.as_bytes()).unwrap()
    }

    #[test]
    fn who_sends() {
        let from = "from = \"box@example.com\"";
        let login = "username = \"ann@example.com\"\npassword = \"x\"";
        for (config, option, message, expected) in [
            (from, None, "From: x@y.test\n\n", "box@example.com box@example.com"),
            (from, Some("ann@a.test"), "\n", "ann@a.test ann@a.test"),
            (from, Some("www-data"), "\n", "box@example.com box@example.com"),
            (from, Some("<>"), "\n", "- box@example.com"),
            ("", None, "From: x@y.test\n\n", "x@y.test x@y.test"),
            (login, None, "From: root (Cron Daemon)\n\n", "ann@example.com ann@example.com"),
            (login, None, "From: x@y.test\n\n", "x@y.test x@y.test"),
            ("", Some("ann@a.test"), "\n", "ann@a.test ann@a.test"),
            ("", None, "\n", "nobody is named"),
            ("", Some("root"), "\n", "nobody is named"),
            (&format!("{from}\nfrom_always = true"), Some("<>"), "\n", "box@example.com box@example.com"),
            (
                &format!("{from}\nfrom_always = true"),
                Some("a@b.test"),
                "\n",
                "box@example.com box@example.com",
            ),
        ] {
            let send = Send { sender: option.map(str::to_owned), ..Send::default() };
            let found = remote(config).sender(&send, &Message::read(message.as_bytes(), false));
            let found = match found {
                Ok((sender, author)) => {
                    format!("{} {author}", sender.map_or_else(|| "-".to_owned(), |sender| sender.to_string()))
                }
                Err(failure) => failure.message,
            };
            assert!(found.starts_with(expected), "{config} {option:?} {message:?}: {found}");
        }
    }

    #[test]
    fn where_mail_for_users_of_this_machine_goes() {
        let text =
            "local_users_to = \"rest@example.com\"\n[aliases]\nroot = [\"ann@example.com\", \"bob@b.test\"]";
        for (config, named, expected) in [
            (text, "root", "ann@example.com bob@b.test"),
            (text, "Root@localhost, nobody", "ann@example.com bob@b.test rest@example.com"),
            (text, "bob@b.test, root, root", "bob@b.test ann@example.com"),
            ("", "bob@b.test", "bob@b.test"),
            ("", "bob@b.test, root", "root: nobody gets"),
        ] {
            let found = match remote(config).routed(all(named)) {
                Ok(routed) => routed.iter().map(|(_, to)| to.to_string()).collect::<Vec<_>>().join(" "),
                Err(failure) => failure.message,
            };
            assert!(found.starts_with(expected), "{config} {named}: {found}");
        }
    }

    #[test]
    fn what_a_message_lacks_is_added() {
        let author = Mailbox::parse("ann@a.test").unwrap();
        let sent = |input: &str, host: &str| {
            let host = Domain::parse(host).unwrap();
            let sent = complete(&Message::read(input.as_bytes(), false), &author, Some("Ann"), &host);
            String::from_utf8(sent).unwrap()
        };
        let whole = "Date: d\r\nMessage-ID: <m>\r\nFrom: x@y\r\n\r\nb\r\n";
        assert_eq!(sent(whole, "h.test"), whole);
        let bare = sent("b\n", "h.test");
        assert!(
            bare.starts_with("Date: ") && bare.contains("@h.test>\r\nFrom: Ann <ann@a.test>\r\n\r\nb"),
            "{bare}"
        );
        assert!(sent("b\n", "vm").contains("@a.test>\r\nFrom"), "a name without a dot is nobody's");
        assert_ne!(sent("b\n", "h.test"), bare);
    }
}
