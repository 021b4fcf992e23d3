//! `-bs` through the server of a `sendmail.toml`: SMTP on standard input and output (RFC 5321), already logged in there.
//!
//! Each command goes to the server as it comes and its reply comes back, so that the program at our end learns of each
//! recipient what the server says. In between, addresses of this machine become those of the configuration, and the
//! message gets what it lacks.

use std::io::{self, BufRead, Read, Write};

use super::MESSAGE_BYTES_MAX;
use super::exit::{Failure, SysExit};
use super::message::Message;
use super::remote::{Remote, complete, is_here, this_host};
use crate::address::{Domain, Mailbox};
use crate::envelope::ReversePath;
use crate::outcome::{EnhancedCode, Outcome};
use crate::smtp::command::{Command, ForwardPath, Mail, Rcpt};
use crate::smtp::{Extensions, Reply};
use crate::transport::Conversation;

/// RFC 5321 §4.5.3.1.4 says 512; parameters make a line longer.
const LINE_BYTES_MAX: u64 = 4096;

/// Speaks until the program has nothing more to say.
pub(super) fn speak(remote: &Remote) -> Result<(), Failure> {
    let (input, output) = (io::stdin().lock(), io::stdout().lock());
    let runtime = super::remote::runtime()?;
    let host = this_host();
    match runtime.block_on(remote.engine(host.clone()).converse(remote.transport())) {
        Ok(server) => {
            let author = None;
            let mut dialogue = Dialogue { remote, runtime, server, host, author, input, output };
            let ended = dialogue.run();
            let Dialogue { runtime, server, .. } = dialogue;
            runtime.block_on(server.quit());
            ended
        }
        Err(outcome) => {
            let mut output = output;
            // The program at our end hears it as well as the person at standard error.
            let _ = output.write_all(gone(&outcome).to_string().as_bytes());
            Err(remote.failure(&outcome))
        }
    }
}

struct Dialogue<'a, I, O> {
    remote: &'a Remote,
    runtime: tokio::runtime::Runtime,
    server: Conversation,
    host: Domain,
    /// The sender of the transaction, who is the author where the message names none.
    author: Option<Mailbox>,
    input: I,
    output: O,
}

impl<I: BufRead, O: Write> Dialogue<'_, I, O> {
    fn run(&mut self) -> Result<(), Failure> {
        self.say(&Reply::new(220, format!("{} ESMTP Waypost", self.host)))?;
        while let Some(line) = self.line(LINE_BYTES_MAX)? {
            let command = Command::parse(&line);
            let quits = command == Ok(Command::Quit);
            let reply = match command {
                Ok(Command::Data) => self.data()?,
                Ok(command) => self.answer(command),
                Err(error) => Ok(error.reply()),
            };
            match reply {
                Ok(reply) => self.say(&reply)?,
                Err(outcome) => {
                    self.say(&gone(&outcome))?;
                    return Err(self.remote.failure(&outcome));
                }
            }
            if quits {
                break;
            }
        }
        Ok(())
    }

    /// The reply to a command; an error where the server is gone.
    fn answer(&mut self, command: Command) -> Result<Reply, Outcome> {
        match command {
            Command::Ehlo(_) => {
                self.ask("RSET")?;
                Ok(hello(&self.host, self.server.extensions()))
            }
            Command::Helo(_) => {
                self.ask("RSET")?;
                Ok(Reply::new(250, self.host.as_str()))
            }
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Rset => self.ask("RSET"),
            Command::Noop => self.ask("NOOP"),
            Command::Quit => Ok(Reply::enhanced(221, EnhancedCode::new(2, 0, 0), "Bye")),
            // We are logged in; DATA is the only way for content; who has a mailbox is the server's to know.
            _ => Ok(Reply::enhanced(
                502,
                EnhancedCode::new(5, 5, 1),
                "Not here: EHLO, MAIL, RCPT, DATA, RSET, QUIT",
            )),
        }
    }

    fn mail(&mut self, mail: Mail) -> Result<Reply, Outcome> {
        let (sender, author) = match self.remote.known(mail.sender.mailbox().cloned(), None) {
            Ok(known) => known,
            Err(failure) => return Ok(Reply::enhanced(550, EnhancedCode::new(5, 1, 8), failure.message)),
        };
        let sender = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
        let path_is_utf8 = sender.mailbox().is_some_and(Mailbox::needs_smtputf8);
        self.author = Some(author);
        // The size changes on the way.
        self.ask(&Mail { sender, path_is_utf8, size: None, ..mail }.to_string())
    }

    /// A user of this machine may stand for several: all of them, or the first refusal.
    fn rcpt(&mut self, rcpt: Rcpt) -> Result<Reply, Outcome> {
        let all = match &rcpt.recipient {
            ForwardPath::Mailbox(mailbox) if is_here(mailbox) => match self
                .remote
                .routed(vec![mailbox.clone()])
            {
                Ok(all) => all.into_iter().map(|(_, to)| ForwardPath::Mailbox(to)).collect(),
                Err(failure) => return Ok(Reply::enhanced(550, EnhancedCode::new(5, 1, 1), failure.message)),
            },
            other => vec![other.clone()],
        };
        let mut reply = None;
        for recipient in all {
            let said = self.ask(&Rcpt { recipient, ..rcpt.clone() }.to_string())?;
            if reply.as_ref().is_none_or(Reply::is_positive) {
                reply = Some(said);
            }
        }
        Ok(reply.unwrap_or_else(|| Reply::enhanced(550, EnhancedCode::new(5, 1, 1), "Nobody")))
    }

    /// DATA, the content and the last reply. What cannot be read or written ends it all.
    fn data(&mut self) -> Result<Result<Reply, Outcome>, Failure> {
        match self.ask("DATA") {
            Ok(reply) if reply.is_intermediate() => self.say(&reply)?,
            refused => return Ok(refused),
        }
        let mut content = Vec::new();
        loop {
            let Some(line) = self.line(MESSAGE_BYTES_MAX)? else {
                // Without the end of the data, nothing was sent.
                return Err(Failure::new(SysExit::IoErr, "standard input ended within a message"));
            };
            if line == b"." {
                break;
            }
            // RFC 5321 §4.5.2.
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            content.extend_from_slice(b"\r\n");
            if content.len() as u64 > MESSAGE_BYTES_MAX {
                return Err(Failure::new(SysExit::DataErr, "the message is too large"));
            }
        }
        let message = Message::read(&content, true);
        let content = match &self.author {
            Some(author) => complete(&message, author, None, &self.host),
            None => content,
        };
        Ok(self.runtime.block_on(self.server.content(&content.into())))
    }

    fn ask(&mut self, line: &str) -> Result<Reply, Outcome> {
        self.runtime.block_on(self.server.command(line))
    }

    fn say(&mut self, reply: &Reply) -> Result<(), Failure> {
        let wrote = self.output.write_all(reply.to_string().as_bytes()).and_then(|()| self.output.flush());
        wrote.map_err(|error| Failure::new(SysExit::IoErr, format!("standard output: {error}")))
    }

    /// A line without its end; `None` when there is no more.
    fn line(&mut self, bytes_max: u64) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(bytes_max).read_until(b'\n', &mut line);
        let length =
            read.map_err(|error| Failure::new(SysExit::IoErr, format!("standard input: {error}")))?;
        if length as u64 == bytes_max && !line.ends_with(b"\n") {
            return Err(Failure::new(SysExit::DataErr, "a line on standard input is too long"));
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Ok((length > 0).then_some(line))
    }
}

/// What the server offers and passes through us.
fn hello(host: &Domain, offered: &Extensions) -> Reply {
    let mut text = format!("{host}\nPIPELINING");
    for (there, keyword) in
        [(offered.eight_bit_mime, "8BITMIME"), (offered.smtputf8, "SMTPUTF8"), (offered.dsn, "DSN")]
    {
        if there {
            text = format!("{text}\n{keyword}");
        }
    }
    match offered.size {
        Some(0) => text.push_str("\nSIZE"),
        Some(bytes) => text = format!("{text}\nSIZE {bytes}"),
        None => {}
    }
    Reply::new(250, text)
}

/// The server is gone, or was never there.
fn gone(outcome: &Outcome) -> Reply {
    Reply::enhanced(421, EnhancedCode::new(4, 4, 2), outcome.text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_offers_is_offered() {
        let host = Domain::parse("h.test").unwrap();
        let offered = |ehlo: &str| {
            hello(&host, &Extensions::from_ehlo(&Reply::new(250, format!("x\n{ehlo}")))).lines.join(" ")
        };
        for (ehlo, expected) in [
            ("STARTTLS\nAUTH PLAIN\nCHUNKING", "h.test PIPELINING"),
            ("SIZE 5000\nDSN\n8BITMIME", "h.test PIPELINING 8BITMIME DSN SIZE 5000"),
            ("SIZE\nSMTPUTF8", "h.test PIPELINING SMTPUTF8 SIZE"),
        ] {
            assert_eq!(offered(ehlo), expected, "{ehlo}");
        }
    }
}
