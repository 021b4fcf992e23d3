//! Hands a message to the server on this machine: SMTP over its socket `submit.sock` (RFC 5321), where the kernel says
//! who we are.
//!
//! All recipients are taken, or none: what a program is told to have failed has not been sent to anybody. Only a list
//! that is longer than the server takes at once is sent in several transactions.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::arguments::Reports;
use super::exit::{Failure, SysExit};
use super::message::Message;
use super::say;
use crate::address::Mailbox;
use crate::control::{SUBMIT_SOCKET_NAME, connect_submit};
use crate::envelope::{BodyType, ReversePath};
use crate::smtp::command::{ForwardPath, Mail, Rcpt};
use crate::smtp::dot_stuff::stuff;
use crate::smtp::reply::ReplyParser;
use crate::smtp::{Extensions, Reply};
use crate::smtp_server::replies::LOCAL_SENDER;

/// A server on the same machine that says nothing for so long says nothing at all (RFC 5321 §4.5.3.2.6).
const REPLY_TIMEOUT: Duration = Duration::from_mins(10);
const READ_BYTES: usize = 4096;

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sender {
    /// Nobody gets reports.
    Null,
    /// This address, or the message is refused.
    Address(Mailbox),
    /// Nobody was named: the message's author where this user may send as the author, else what the server says.
    Default {
        /// The From field.
        author: Option<Mailbox>,
        /// The user of this machine, if the server knows no address for it.
        user: Mailbox,
    },
}

/// What is handed over.
pub(super) struct Handover<'a> {
    pub(super) message: &'a Message,
    pub(super) sender: Sender,
    pub(super) full_name: Option<String>,
    pub(super) recipients: Vec<Mailbox>,
    pub(super) reports: Reports,
    /// Say what the server said.
    pub(super) verbose: bool,
}

/// Sends a message through the server of a data directory.
pub(super) fn hand_over(data_dir: &Path, handover: &Handover<'_>) -> Result<(), Failure> {
    let mut peer = Peer::connect(data_dir)?;
    let mut left = &handover.recipients[..];
    while !left.is_empty() {
        left = peer.transaction(handover, left)?;
    }
    // The message is the server's; what it says to QUIT changes nothing.
    let _ = peer.write(b"QUIT\r\n");
    Ok(())
}

/// Connects standard input and output with the server, for `-bs`.
pub(super) fn speak(data_dir: &Path) -> Result<(), Failure> {
    let stream = connect(data_dir)?;
    let mut from_server = stream.try_clone().map_err(broken)?;
    // Not waited for: when the server has said its last word, nothing more is to be read.
    std::thread::spawn(move || {
        let copied = copy_lines(io::stdin().lock(), &stream);
        let shut = stream.shutdown(Shutdown::Write);
        copied.and(shut)
    });
    let mut out = io::stdout().lock();
    let mut buffer = [0; READ_BYTES];
    loop {
        let length = from_server.read(&mut buffer).map_err(broken)?;
        if length == 0 {
            return Ok(());
        }
        let wrote = out.write_all(&buffer[..length]).and_then(|()| out.flush());
        wrote.map_err(|error| Failure::new(SysExit::IoErr, format!("standard output: {error}")))?;
    }
}

/// Copies lines, each with CR LF at its end.
fn copy_lines(mut from: impl BufRead, mut to: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limited = &mut (&mut from).take(READ_BYTES as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
            line.insert(line.len() - 1, b'\r');
        }
        to.write_all(&line)?;
    }
}

fn connect(data_dir: &Path) -> Result<UnixStream, Failure> {
    let dir = data_dir.display();
    connect_submit(data_dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            SysExit::TempFail,
            format!(
                "no Waypost server is running for {dir}\n\
                 to send through another server, name it in sendmail.toml: see sendmail --help"
            ),
        ),
        io::ErrorKind::PermissionDenied => {
            let closed = closed_dir(data_dir, |path| std::fs::metadata(path).map(drop));
            let closed = closed.display();
            Failure::new(
                SysExit::NoPerm,
                format!("cannot reach the socket in {dir}: {closed} is closed to this user\nas root: chmod o+x {closed}"),
            )
        }
        _ => Failure::new(SysExit::TempFail, format!("cannot speak to the server in {dir}: {error}")),
    })
}

/// The first directory on the way to the socket that does not let us through; `look` at something in one fails then.
fn closed_dir(data_dir: &Path, look: impl Fn(&Path) -> io::Result<()>) -> &Path {
    let is_closed = |dir: &Path| {
        look(&dir.join(SUBMIT_SOCKET_NAME))
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let above: Vec<&Path> = data_dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    above.into_iter().rev().find(|dir| is_closed(dir)).unwrap_or(data_dir)
}

fn broken(error: io::Error) -> Failure {
    Failure::new(SysExit::TempFail, format!("the connection to the server broke: {error}"))
}

/// The server at the other end.
struct Peer {
    stream: BufReader<UnixStream>,
    input: BytesMut,
    parser: ReplyParser,
    extensions: Extensions,
    /// What we send from where nobody is named.
    default_sender: Option<Mailbox>,
}

impl Peer {
    fn connect(data_dir: &Path) -> Result<Self, Failure> {
        let stream = connect(data_dir)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).map_err(broken)?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT)).map_err(broken)?;
        let mut peer = Self {
            stream: BufReader::new(stream),
            input: BytesMut::new(),
            parser: ReplyParser::default(),
            extensions: Extensions::default(),
            default_sender: None,
        };
        expect("the server", peer.reply()?)?;
        let hello = expect("EHLO", peer.command("EHLO localhost")?)?;
        peer.extensions = Extensions::from_ehlo(&hello);
        let words = hello.lines.iter().filter_map(|line| line.split_once(' '));
        peer.default_sender = words
            .filter(|(keyword, _)| *keyword == LOCAL_SENDER)
            .find_map(|(_, address)| Mailbox::parse(address).ok());
        Ok(peer)
    }

    /// Sends to as many of the recipients as the server takes at once; the others are returned.
    fn transaction<'r>(
        &mut self,
        handover: &Handover<'_>,
        recipients: &'r [Mailbox],
    ) -> Result<&'r [Mailbox], Failure> {
        let sender = self.mail(handover)?;
        let content = handover.message.complete(sender.as_ref(), handover.full_name.as_deref());
        let (mut taken, mut refused) = (0, Vec::new());
        for recipient in recipients {
            let path = ForwardPath::Mailbox(recipient.clone());
            let notify = handover.reports.notify.filter(|_| self.extensions.dsn);
            let reply = self.command(&Rcpt { notify, ..Rcpt::new(path) }.to_string())?;
            // RFC 5321 §4.5.3.1.10: too many for one transaction.
            if reply.code == 452 && taken > 0 && refused.is_empty() && is_too_many(&reply) {
                break;
            }
            taken += 1;
            if !reply.is_positive() {
                refused.push(Failure::refused(without_this_machine(recipient), &reply));
            }
        }
        if let Some(failure) = Failure::joined(refused) {
            return Err(failure);
        }
        let go_on = self.command("DATA")?;
        if !go_on.is_intermediate() {
            return Err(Failure::refused("DATA", &go_on));
        }
        let stuffed = stuff(&Bytes::from(content));
        let sent = self.write(&stuffed.body).and_then(|()| self.write(stuffed.end));
        // A server that hangs up on a message has often said why.
        match (sent, self.reply()) {
            (_, Ok(reply)) => {
                let reply = expect("the message", reply)?;
                if handover.verbose {
                    say(&format!("sendmail: {} {}", reply.code, reply.lines.join(" ")));
                }
                Ok(&recipients[taken..])
            }
            (Err(failure), Err(_)) | (Ok(()), Err(failure)) => Err(failure),
        }
    }

    /// MAIL from the first sender that the server takes.
    fn mail(&mut self, handover: &Handover<'_>) -> Result<Option<Mailbox>, Failure> {
        let (first, second) = match &handover.sender {
            Sender::Null => (None, None),
            Sender::Address(address) => (Some(address.clone()), None),
            Sender::Default { author, user } => {
                let fallback = self.default_sender.clone().unwrap_or_else(|| user.clone());
                match author.clone().filter(|author| *author != fallback) {
                    Some(author) => (Some(author), Some(fallback)),
                    None => (Some(fallback), None),
                }
            }
        };
        let reply = self.mail_from(first.as_ref(), handover)?;
        let Some(second) = second.filter(|_| !reply.is_positive()) else {
            let shown = first.as_ref().map_or_else(|| "<>".to_owned(), without_this_machine);
            return expect(&format!("sender {shown}"), reply).map(|_| first);
        };
        let reply = self.mail_from(Some(&second), handover)?;
        expect(&format!("sender {}", without_this_machine(&second)), reply).map(|_| Some(second))
    }

    fn mail_from(&mut self, sender: Option<&Mailbox>, handover: &Handover<'_>) -> Result<Reply, Failure> {
        let offered = &self.extensions;
        let mut addresses = sender.into_iter().chain(&handover.recipients);
        let path = sender.cloned().map_or(ReversePath::Null, ReversePath::Mailbox);
        let eight_bit = offered.eight_bit_mime && !handover.message.is_ascii();
        let mail = Mail {
            body: eight_bit.then_some(BodyType::EightBitMime),
            smtputf8: offered.smtputf8 && addresses.any(Mailbox::needs_smtputf8),
            ret: handover.reports.ret.filter(|_| offered.dsn),
            envid: handover.reports.envid.clone().filter(|_| offered.dsn),
            ..Mail::new(path)
        };
        self.command(&mail.to_string())
    }

    fn command(&mut self, line: &str) -> Result<Reply, Failure> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.get_mut().write_all(bytes).map_err(broken)
    }

    fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            match self.parser.next(&mut self.input) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) => return Err(Failure::new(SysExit::Protocol, error)),
            }
            let read = self.stream.fill_buf().map_err(broken)?;
            if read.is_empty() {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(read);
            let length = read.len();
            self.stream.consume(length);
        }
    }
}

fn expect(what: &str, reply: Reply) -> Result<Reply, Failure> {
    if reply.is_positive() { Ok(reply) } else { Err(Failure::refused(what, &reply)) }
}

/// RFC 3463 §3.6: 4.5.3.
fn is_too_many(reply: &Reply) -> bool {
    reply.enhanced.is_some_and(|enhanced| (enhanced.subject, enhanced.detail) == (5, 3))
}

/// A user of this machine as it was named.
fn without_this_machine(mailbox: &Mailbox) -> String {
    if mailbox.domain.as_str() == super::message::THIS_MACHINE {
        mailbox.local.to_string()
    } else {
        mailbox.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_keeps_a_user_out_is_named() {
        for (closed, named) in [("/srv/mail", "/srv/mail"), ("/srv", "/srv"), ("/nowhere", "/srv/mail/data")]
        {
            let look = |path: &Path| {
                let denied = path.starts_with(closed);
                if denied {
                    Err(io::ErrorKind::PermissionDenied.into())
                } else {
                    Err(io::ErrorKind::NotFound.into())
                }
            };
            assert_eq!(closed_dir(Path::new("/srv/mail/data"), look), Path::new(named), "{closed}");
        }
    }

    #[test]
    fn lines_of_a_dialogue_get_their_ends() {
        let mut out = Vec::new();
        copy_lines(&b"EHLO x\nQUIT\r\nlast"[..], &mut out).unwrap();
        assert_eq!(out, b"EHLO x\r\nQUIT\r\nlast");
    }
}
