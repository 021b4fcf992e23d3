//! What we say: each reply with its enhanced status code (RFC 3463) and a sentence that a person understands.
//!
//! None tells how we work inside.

use std::fmt::Write;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::address::{Domain, Mailbox};
use crate::config::SystemUser;
use crate::names::QueueId;
use crate::outcome::EnhancedCode;
use crate::sasl;
use crate::smtp::Reply;
use crate::smtp::data::Fault;
use crate::store::Suppression;

/// Characters of the reason in [`suppressed`], so that its line stays within the 512 octets of RFC 5321 §4.5.3.1.5.
const SUPPRESSION_REASON_MAX: usize = 400;

fn reply(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Reply {
    Reply::enhanced(code, EnhancedCode::new((code / 100) as u8, subject, detail), text)
}

/// The first line that a client sees (RFC 5321 §4.3.1).
pub fn greeting(hostname: &Domain) -> Reply {
    Reply::new(220, format!("{hostname} ESMTP Waypost"))
}

/// The answer to HELO.
pub fn helo(hostname: &Domain) -> Reply {
    Reply::new(250, hostname.as_str())
}

/// What an answer to EHLO depends on.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// Our name.
    pub hostname: &'a Domain,
    /// The client's address, which tells a person behind a NAT something.
    pub ip: IpAddr,
    /// SIZE; `None` when there is no limit.
    pub message_bytes_max: Option<u64>,
    /// STARTTLS.
    pub starttls: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// AUTH, if any.
    pub auth: &'a [sasl::Mechanism],
    /// What a process of this machine sends from where it names no address; told with [`LOCAL_SENDER`].
    pub local_sender: Option<Mailbox>,
}

/// Keyword of EHLO on the socket for processes of this machine: `XSENDER ann@example.org` (RFC 5321 §4.1.1.1: with an X,
/// by agreement between two sides; here both are ours).
pub const LOCAL_SENDER: &str = "XSENDER";

/// The answer to EHLO (RFC 5321 §4.1.1.1).
pub fn ehlo(offer: Offer<'_>) -> Reply {
    let mut text = format!("{} greets {}\n", offer.hostname, offer.ip);
    text.push_str("PIPELINING\n8BITMIME\nSMTPUTF8\nCHUNKING\nDSN\nENHANCEDSTATUSCODES\n");
    if offer.starttls {
        text.push_str("STARTTLS\n");
    }
    if offer.require_tls {
        text.push_str("REQUIRETLS\n");
    }
    if !offer.auth.is_empty() {
        text.push_str("AUTH");
        for mechanism in offer.auth {
            let _ = write!(text, " {mechanism}");
        }
        text.push('\n');
    }
    if let Some(sender) = offer.local_sender {
        let _ = writeln!(text, "{LOCAL_SENDER} {sender}");
    }
    // RFC 1870 §3: without a number, the limit is not told.
    match offer.message_bytes_max {
        Some(bytes) => drop(write!(text, "SIZE {bytes}")),
        None => text.push_str("SIZE"),
    }
    Reply::new(250, text)
}

/// Something was done.
pub fn done() -> Reply {
    reply(250, 0, 0, "Done")
}

/// QUIT.
pub fn bye() -> Reply {
    reply(221, 0, 0, "Bye")
}

/// VRFY; who has a mailbox here is nobody's business (RFC 5321 §7.3).
pub fn cannot_verify() -> Reply {
    reply(252, 1, 0, "I do not tell whether an address exists, but will try to deliver to it")
}

/// EXPN.
pub fn no_lists() -> Reply {
    reply(502, 5, 1, "There are no lists to expand here")
}

/// HELP.
pub fn help() -> Reply {
    reply(214, 0, 0, "EHLO, MAIL FROM:<you@your.domain>, RCPT TO:<someone@domain>, DATA, QUIT\nSee RFC 5321")
}

/// A command for which it is too early.
pub fn hello_first() -> Reply {
    reply(503, 5, 1, "Say EHLO first")
}

/// MAIL before any other of a transaction.
pub fn mail_first() -> Reply {
    reply(503, 5, 1, "Say MAIL FROM first")
}

/// MAIL within a transaction.
pub fn nested_mail() -> Reply {
    reply(503, 5, 1, "There is a message under way already; RSET gives it up")
}

/// DATA or BDAT without recipients.
pub fn no_recipients() -> Reply {
    reply(554, 5, 1, "No recipient was accepted")
}

/// A command that cannot stand between chunks (RFC 3030 §2).
pub fn chunks_under_way() -> Reply {
    reply(503, 5, 1, "A message is coming by BDAT; finish it with BDAT LAST or give it up with RSET")
}

/// MAIL taken.
pub fn sender_ok() -> Reply {
    reply(250, 1, 0, "Sender taken")
}

/// RCPT taken.
pub fn recipient_ok() -> Reply {
    reply(250, 1, 5, "Recipient taken")
}

/// DATA.
pub fn send_data() -> Reply {
    Reply::new(354, "Send the message, then a line with a dot alone")
}

/// A chunk that is not the last.
pub fn chunk_ok(bytes: u64) -> Reply {
    reply(250, 0, 0, format!("{bytes} octets taken"))
}

/// The message is ours now.
pub fn queued(id: QueueId) -> Reply {
    reply(250, 0, 0, format!("Taken, queued as {id}"))
}

/// An address with UTF-8 without SMTPUTF8 (RFC 6531 §3.5).
pub fn needs_smtputf8() -> Reply {
    reply(553, 6, 7, "An address with characters beyond ASCII needs the SMTPUTF8 parameter of MAIL")
}

/// A parameter of an extension that is known but not offered.
pub fn not_offered(parameter: &str) -> Reply {
    reply(555, 5, 4, format!("{parameter} is not offered here"))
}

/// REQUIRETLS in clear text (RFC 8689 §2).
pub fn require_tls_within_tls() -> Reply {
    reply(555, 5, 4, "REQUIRETLS is only offered within TLS")
}

/// Over SIZE, told or found.
pub fn too_big(bytes_max: u64) -> Reply {
    reply(552, 3, 4, format!("The message is larger than {bytes_max} bytes, the most that is taken here"))
}

/// Header over its limit.
pub fn header_too_big(bytes_max: u64) -> Reply {
    reply(552, 3, 4, format!("The header is larger than {bytes_max} bytes, the most that is taken here"))
}

/// More recipients than one transaction may have (RFC 5321 §4.5.3.1.10).
pub fn too_many_recipients() -> Reply {
    reply(452, 5, 3, "No more recipients for this message; send it again for the others")
}

/// A domain that is not ours, for a client that may not relay.
pub fn no_relay() -> Reply {
    reply(550, 7, 1, "Mail for this domain is not taken here from you: it is none of ours")
}

/// A local domain, but nobody there.
pub fn no_such_mailbox() -> Reply {
    reply(550, 1, 1, "There is no such mailbox here")
}

/// The recipient is on the account's suppression list: why, until when, and what can be done.
pub fn suppressed(entry: &Suppression) -> Reply {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    let until = entry.expires.map_or_else(String::new, |expires| format!(" until {}", day(expires)));
    let since = day(entry.since);
    let why = match entry.by {
        None => format!("mail to it came back on {since}"),
        Some(_) => format!("the operator of this server wrote on {since}"),
    };
    let printable = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let reason: String = entry.reason.chars().take(SUPPRESSION_REASON_MAX).map(printable).collect();
    let text = format!(
        "Your mail to this recipient is refused{until}: {why}\n{reason}\n\
         Check the address. If it is right, ask the postmaster here to take it off the suppression list"
    );
    reply(550, 1, 1, text)
}

/// Submission without authentication.
pub fn authenticate_first(tls_first: bool) -> Reply {
    let how = if tls_first { "Use STARTTLS and then AUTH" } else { "Use AUTH" };
    reply(530, 7, 0, format!("Authentication is required to send mail here. {how}"))
}

/// A sender address of somebody else.
pub fn not_your_address() -> Reply {
    reply(553, 7, 1, "You may only send from an address of your account")
}

/// A user of this machine whom no account lists.
pub fn user_may_not_send(user: &SystemUser) -> Reply {
    let text =
        format!("No account lets the system user {user} send mail: name it in `users` of [accounts.NAME]");
    reply(550, 7, 1, text)
}

/// Content that no one may pass on.
pub fn bad_content(fault: Fault) -> Reply {
    reply(554, 6, 0, format!("The message holds {fault}; lines must end in CR LF"))
}

/// A loop (RFC 5321 §6.3).
pub fn loops() -> Reply {
    reply(554, 4, 6, "The message has been through too many servers: it goes round in circles")
}

/// A command's line with a bare CR or LF.
pub fn bare_line_end(fault: Fault) -> Reply {
    reply(500, 5, 2, format!("The command holds {fault}; lines must end in CR LF. Closing the connection"))
}

/// A command's line over its limit.
pub fn line_too_long() -> Reply {
    reply(500, 5, 2, "The line is too long")
}

/// A browser, or somebody who uses one as a weapon.
pub fn not_http() -> Reply {
    reply(554, 7, 0, "This is a mail server, not a web server")
}

/// Spool full.
pub fn no_space() -> Reply {
    reply(452, 3, 1, "There is no space for mail at the moment; try again later")
}

/// The disk, or something like it.
pub fn cannot_take_now() -> Reply {
    reply(451, 3, 0, "The message cannot be taken at the moment; try again later")
}

/// STARTTLS.
pub fn begin_tls() -> Reply {
    reply(220, 0, 0, "Begin TLS")
}

/// STARTTLS without a certificate.
pub fn no_tls() -> Reply {
    reply(502, 5, 1, "TLS is not offered here")
}

/// STARTTLS within TLS.
pub fn tls_already() -> Reply {
    reply(503, 5, 1, "TLS is in use already")
}

/// A SASL challenge.
pub fn challenge(text: &[u8]) -> Reply {
    Reply::new(334, sasl::encode(text))
}

/// AUTH where nobody logs in.
pub fn no_auth() -> Reply {
    reply(502, 5, 1, "Nobody logs in here; submit mail on port 587 or 465")
}

/// AUTH in clear text (RFC 4954 §6).
pub fn encryption_first() -> Reply {
    reply(538, 7, 11, "A password may only be sent within TLS")
}

/// AUTH with a mechanism that we do not know.
pub fn no_such_mechanism() -> Reply {
    reply(504, 5, 4, "This authentication mechanism is not offered")
}

/// AUTH at a wrong time.
pub fn auth_out_of_place() -> Reply {
    reply(503, 5, 1, "AUTH comes once, before MAIL")
}

/// The client gave up (RFC 4954 §4).
pub fn auth_cancelled() -> Reply {
    reply(501, 7, 0, "Authentication cancelled")
}

/// A response that is no base64, or does not follow the mechanism.
pub fn auth_malformed() -> Reply {
    reply(501, 5, 2, "The response is not one of this mechanism in valid base64")
}

/// Wrong user or wrong password: which of them is not told.
pub fn auth_failed() -> Reply {
    reply(535, 7, 8, "User name or password is wrong")
}

/// Passwords cannot be checked.
pub fn auth_unavailable() -> Reply {
    reply(454, 7, 0, "Passwords cannot be checked at the moment; try again later")
}

/// In.
pub fn authenticated() -> Reply {
    reply(235, 7, 0, "Welcome")
}

/// RFC 5321 §3.8: the server may close for reasons of its own, and says so with 421.
fn closing(subject: u16, detail: u16, why: &str) -> Reply {
    reply(421, subject, detail, format!("{why}; closing the connection"))
}

/// No command for long.
pub fn timed_out() -> Reply {
    closing(4, 2, "Nothing came for too long")
}

/// A session over its time.
pub fn session_too_long() -> Reply {
    closing(4, 2, "This session has lasted long enough")
}

/// We are stopping.
pub fn stopping() -> Reply {
    closing(3, 2, "The server is stopping")
}

/// Wrong commands over the limit.
pub fn too_many_errors() -> Reply {
    closing(7, 0, "Too many errors")
}

/// Commands without progress over the limit.
pub fn no_progress() -> Reply {
    closing(7, 0, "Too many commands that lead to no message")
}

/// Connections over a limit.
pub fn too_many_connections(why: crate::net::TooManyConnections) -> Reply {
    closing(7, 0, &why.to_string())
}
