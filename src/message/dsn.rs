//! Delivery status notifications: the message that tells a sender what became of a recipient.
//!
//! RFC 3464 (format), RFC 6522 (multipart/report), RFC 3461 §6 (what they quote), RFC 6533 (beyond ASCII), RFC 3834
//! (Auto-Submitted). A report that may have to go to a server without 8BITMIME is ASCII whatever it is about; else it
//! would be lost there.

mod returned;

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::address::{Domain, Mailbox};
use crate::attempt::Attempt;
use crate::envelope::{Ret, ReversePath};
use crate::message::transfer_encoding::quoted_printable;
use crate::outcome::{EnhancedCode, Outcome, Verdict};
use returned::{Returned, returned};

/// What a report tells. All recipients of a report share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They will not get the message.
    Failed,
    /// They do not have it yet; it is tried until then.
    Delayed {
        /// When it is given up.
        until: Timestamp,
    },
    /// They have it, or a peer that sends no reports took it.
    Succeeded,
}

/// What became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The peer, or we, said no.
    Refused,
    /// Given up because of age.
    Expired,
    /// Given up because of age, for no way could be chosen.
    Undecided,
    /// Given up by the operator.
    GivenUp,
    /// Given up, for the message does not read back from our disk.
    Damaged,
    /// Still waiting.
    Delayed,
    /// Still waiting, for no way could be chosen so far.
    Unrouted,
    /// In a mailbox here.
    Delivered,
    /// Taken by a peer that sends no reports.
    Relayed,
}

/// A recipient, as the report tells it.
#[derive(Debug, Clone)]
pub struct Reported {
    /// Whom the report is about.
    pub address: Mailbox,
    /// ORCPT as given by the sender.
    pub orcpt: Option<String>,
    /// What became of it.
    pub fate: Fate,
    /// The last attempt's outcome.
    pub outcome: Outcome,
    /// The last attempt's transport.
    pub transport: Option<String>,
    /// The attempts before the last, oldest first.
    pub earlier: Vec<Attempt>,
    /// When the last attempt ended; `None` when none was ever made.
    pub last_attempt: Option<Timestamp>,
}

/// A report to be written.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// What it tells.
    pub kind: Kind,
    /// Our name.
    pub reporting_mta: &'a Domain,
    /// The part of our Message-Id before the `@`; the boundary is made from it too.
    pub unique: &'a str,
    /// When the report is written.
    pub date: Timestamp,
    /// Who reads it: the sender of the message, or an administrator.
    pub to: &'a Mailbox,
    /// For an administrator: who sent the message.
    pub copy_about: Option<&'a ReversePath>,
    /// ENVID as given by the sender.
    pub envid: Option<&'a str>,
    /// When the message was accepted.
    pub arrival: Timestamp,
    /// What it is about; at least one.
    pub recipients: &'a [Reported],
    /// The message.
    pub original: &'a [u8],
    /// The report goes where eight bits can: into a mailbox here, or to an address that only servers with 8BITMIME take.
    pub eight_bit: bool,
    /// How much of it is returned; of what did not fail, never more than the header (RFC 3461 §4.3).
    pub ret: Ret,
}

/// Whole messages up to this size are returned when the sender did not ask for less.
pub const RETURNED_BYTES_MAX: usize = 64 * 1024;

/// Lines of header fields are folded before this column (RFC 5322 §2.1.1).
const FOLD_COLUMN: usize = 76;
/// A line has at most 998 octets (RFC 5322 §2.1.1); this leaves room for a field's name or an indent.
const PIECE_BYTES_MAX: usize = 900;
/// Attempts before the last that are told in words: the youngest.
const EARLIER_MAX: usize = 10;

impl Report<'_> {
    /// The report as a message with CR LF lines.
    pub fn to_message(&self) -> Vec<u8> {
        let host = self.reporting_mta;
        let boundary = format!("=_waypost_{}", self.unique);
        let ret = if self.kind == Kind::Failed { self.ret } else { Ret::Headers };
        let returned = returned(self.original, ret, self.eight_bit);
        let words = self.words(&returned);
        let (words_encoding, words) = match (words.is_ascii(), self.eight_bit) {
            (true, _) => ("7bit", words),
            (false, true) => ("8bit", words),
            (false, false) => ("quoted-printable", quoted_printable(words.as_bytes())),
        };
        let whole = if [words_encoding, returned.encoding].contains(&"8bit") { "8bit" } else { "7bit" };
        let mut head = String::with_capacity(2048);
        let _ = write!(
            head,
            "Date: {}\r\nFrom: Mail Delivery System <mailer-daemon@{host}>\r\nTo: <{}>\r\n\
             Subject: {}\r\nMessage-Id: <{}@{host}>\r\n{}\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {whole}\r\n\r\n\
             This is a delivery report in MIME format.\r\n",
            rfc5322_date(self.date),
            self.to,
            self.subject(),
            self.unique,
            self.in_reply_to(),
        );
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {words_encoding}\r\n\r\n{words}"
        );
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n{}",
            self.status()
        );
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
            returned.media_type, returned.encoding
        );
        let mut message = head.into_bytes();
        message.extend_from_slice(&returned.content);
        if !returned.content.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }

    fn subject(&self) -> &'static str {
        match (self.kind, self.copy_about) {
            (Kind::Failed, None) => "Undelivered mail: returned to you",
            (Kind::Failed, Some(_)) => "Undelivered mail: copy for the postmaster",
            (Kind::Delayed { .. }, _) => "Delayed mail: not delivered yet",
            (Kind::Succeeded, _) => "Delivered mail: the report that you asked for",
        }
    }

    fn in_reply_to(&self) -> String {
        match message_id_of(self.original) {
            Some(id) => format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"),
            None => String::new(),
        }
    }

    /// The part for people.
    fn words(&self, returned: &Returned<'_>) -> String {
        let what = match self.copy_about {
            None => "Your message".to_owned(),
            Some(sender) => format!("The message from <{sender}>"),
        };
        let became = match self.kind {
            Kind::Failed => "could not be delivered to",
            Kind::Delayed { .. } => "has not been delivered yet to",
            Kind::Succeeded if self.recipients.iter().any(|r| r.fate == Fate::Relayed) => {
                "has been passed on for"
            }
            Kind::Succeeded => "has been delivered to",
        };
        let (server, arrival) = (self.reporting_mta, rfc5322_date(self.arrival));
        let mut text = format!("This is the mail server {server}.\r\n\r\n{what} of {arrival} {became}:\r\n");
        for recipient in self.recipients {
            let _ = write!(text, "\r\n  <{}>\r\n", recipient.address);
            recipient.words(&mut text);
        }
        match self.kind {
            Kind::Failed => {
                let attached = match (returned.media_type, returned.body_left_out) {
                    (_, true) => {
                        "Its header is attached; its text is\r\nleft out, for not every mail server could pass it on."
                    }
                    ("message/rfc822" | "message/global", false) => "The message is attached.",
                    _ => "Its header is attached.",
                };
                let _ = write!(text, "\r\nNothing more will be tried. {attached}\r\n");
            }
            Kind::Delayed { until } => {
                let until = rfc5322_date(until);
                let _ = write!(
                    text,
                    "\r\nThere is nothing that you need to do. It is tried again until {until};\r\n\
                     if it cannot be delivered by then, you will be told. Its header is attached.\r\n"
                );
            }
            Kind::Succeeded => text.push_str("\r\nThe header of the message is attached.\r\n"),
        }
        text
    }

    /// RFC 3464 §2.2, §2.3.
    fn status(&self) -> String {
        let mut text = format!("Reporting-MTA: dns; {}\r\n", self.reporting_mta);
        if let Some(envid) = self.envid {
            field(&mut text, "Original-Envelope-Id", envid);
        }
        field(&mut text, "Arrival-Date", &rfc5322_date(self.arrival));
        for recipient in self.recipients {
            text.push_str("\r\n");
            recipient.status(&mut text);
            if let Kind::Delayed { until } = self.kind {
                field(&mut text, "Will-Retry-Until", &rfc5322_date(until));
            }
            if let Some(transport) = &recipient.transport {
                field(&mut text, "X-Waypost-Transport", transport);
            }
        }
        text
    }
}

impl Reported {
    /// What became of it, for people.
    fn words(&self, text: &mut String) {
        let attempts = self.earlier.len() + 1;
        let times = if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
        let over = self.transport.as_ref().map_or_else(String::new, |name| format!(" (transport {name})"));
        let _ = match self.fate {
            Fate::Refused => write!(text, "    was refused for good{over}:\r\n"),
            Fate::Expired => {
                write!(text, "    was tried {times} and given up. The last attempt{over} ended with:\r\n")
            }
            Fate::Undecided if self.earlier.is_empty() => {
                write!(text, "    was given up without an attempt:\r\n")
            }
            Fate::Undecided => write!(text, "    was given up:\r\n"),
            Fate::Damaged => {
                write!(text, "    was given up, through no fault of yours or of the recipient:\r\n")
            }
            Fate::GivenUp => write!(text, "    was given up by the operator of this server:\r\n"),
            Fate::Unrouted if self.earlier.is_empty() => write!(text, "    has not been tried yet:\r\n"),
            Fate::Unrouted => write!(text, "    was tried before, but not now:\r\n"),
            Fate::Delayed => {
                write!(text, "    was tried {times}. The last attempt{over} ended with:\r\n")
            }
            Fate::Delivered => write!(text, "    has the message in the mailbox.\r\n"),
            Fate::Relayed => write!(
                text,
                "    The next mail server has it{over}. That server sends no reports:\r\n\
                 \x20   whether the message reaches the mailbox is not known here.\r\n"
            ),
        };
        if self.fate == Fate::Delivered {
            return;
        }
        let said = said(&self.outcome);
        let lines = said.split('\n').map(one_line);
        for (number, line) in lines.flat_map(|line| pieces(&line)).enumerate() {
            let _ = write!(text, "    {}{line}\r\n", if number == 0 { "" } else { "  " });
        }
        if self.fate != Fate::Relayed {
            self.earlier_words(text);
        }
    }

    fn earlier_words(&self, text: &mut String) {
        let left_out = self.earlier.len().saturating_sub(EARLIER_MAX);
        if self.earlier.is_empty() {
            return;
        }
        text.push_str("    Before that:\r\n");
        if left_out > 0 {
            let _ = write!(text, "      ({left_out} older attempts are left out)\r\n");
        }
        for attempt in self.earlier.iter().skip(left_out) {
            let over = attempt.decision.as_ref().map_or_else(String::new, |d| format!(", {}", d.transport));
            let end = attempt.outcome.as_ref().map_or_else(|| "was interrupted".to_owned(), said);
            let line = format!("{}{over}: {end}", attempt.at.strftime("%d %b %Y %H:%M UTC"));
            if let Some(piece) = pieces(&one_line(&line)).first() {
                let _ = write!(text, "      {piece}\r\n");
            }
        }
    }

    /// The fields of one recipient (RFC 3464 §2.3).
    fn status(&self, text: &mut String) {
        if let Some(orcpt) = &self.orcpt {
            let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
            field(text, "Original-Recipient", &format!("{kind}; {}", utf8_in_ascii(address)));
        }
        let address = self.address.to_string();
        // RFC 6533 §3: another type for addresses beyond ASCII.
        let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
        field(text, "Final-Recipient", &format!("{kind}; {}", utf8_in_ascii(&address)));
        let action = match self.fate {
            Fate::Refused | Fate::Expired | Fate::Undecided | Fate::GivenUp | Fate::Damaged => "failed",
            Fate::Delayed | Fate::Unrouted => "delayed",
            Fate::Delivered => "delivered",
            Fate::Relayed => "relayed",
        };
        field(text, "Action", action);
        field(text, "Status", &self.status_code().to_string());
        if let Some(host) = &self.outcome.host {
            field(text, "Remote-MTA", &format!("dns; {host}"));
        }
        if let Some(code) = self.outcome.code {
            field(text, "Diagnostic-Code", &format!("smtp; {code} {}", reply_words(&self.outcome)));
        } else if self.outcome.verdict != Verdict::Delivered {
            field(text, "Diagnostic-Code", &format!("x-waypost; {}", self.outcome.text));
        }
        // RFC 3464 §2.3.6: only of an attempt that was made.
        if let Some(at) = self.last_attempt {
            field(text, "Last-Attempt-Date", &rfc5322_date(at));
        }
    }

    /// A status of the class that belongs to the action (RFC 3464 §2.3.4).
    fn status_code(&self) -> EnhancedCode {
        let class = match self.fate {
            // RFC 3463: 4.4.7, delivery time expired, is what a queue says that has given up.
            Fate::Expired | Fate::Undecided => return EnhancedCode::new(5, 4, 7),
            Fate::Refused | Fate::GivenUp | Fate::Damaged => 5,
            Fate::Delayed | Fate::Unrouted => 4,
            Fate::Delivered | Fate::Relayed => 2,
        };
        let code = self.outcome.enhanced.unwrap_or(EnhancedCode::new(class, 0, 0));
        EnhancedCode { class, ..code }
    }
}

/// Who said what; where nobody spoke, what happened there.
fn said(outcome: &Outcome) -> String {
    let verb = if outcome.code.is_some() { " said" } else { "" };
    let peer = match (&outcome.host, outcome.ip) {
        (Some(host), Some(ip)) => format!("{host} [{ip}]{verb}: "),
        (Some(host), None) => format!("{host}{verb}: "),
        (None, Some(ip)) => format!("[{ip}]{verb}: "),
        (None, None) => String::new(),
    };
    format!("{peer}{}", reply_text(outcome))
}

fn reply_words(outcome: &Outcome) -> String {
    match outcome.enhanced {
        Some(enhanced) => format!("{enhanced} {}", outcome.text),
        None => outcome.text.clone(),
    }
}

fn reply_text(outcome: &Outcome) -> String {
    match outcome.code {
        Some(code) => format!("{code} {}", reply_words(outcome)),
        None => outcome.text.clone(),
    }
}

/// No control characters: what a peer said must not break out of its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An address beyond ASCII as a report in ASCII has it: utf-8-addr-xtext (RFC 6533 §3).
fn utf8_in_ascii(address: &str) -> String {
    if address.is_ascii() {
        return address.to_owned();
    }
    address.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\') {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
        out
    })
}

/// Cuts what a peer said into pieces that are short enough for a line (RFC 5322 §2.1.1); one at least.
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    for c in text.chars() {
        if piece.len() + c.len_utf8() > PIECE_BYTES_MAX {
            pieces.push(std::mem::take(&mut piece));
        }
        piece.push(c);
    }
    pieces.push(piece);
    pieces
}

/// A field in ASCII, folded at white space; a word that no line could hold is cut.
fn field(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, "{name}:");
    let mut column = name.len() + 1;
    let value: String = one_line(value).chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    for word in value.split(' ').filter(|w| !w.is_empty()).flat_map(pieces) {
        if column + 1 + word.len() > FOLD_COLUMN && column > name.len() + 1 {
            out.push_str("\r\n");
            column = 0;
        }
        let _ = write!(out, " {word}");
        column += 1 + word.len();
    }
    out.push_str("\r\n");
}

/// The header, with the empty line cut off.
fn header_of(message: &[u8]) -> &[u8] {
    memchr::memmem::find(message, b"\r\n\r\n").map_or(message, |at| &message[..at + 2])
}

fn message_id_of(message: &[u8]) -> Option<String> {
    let header = header_of(message);
    let line = header
        .split(|b| *b == b'\n')
        .find(|line| line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"message-id:")))?;
    let text = std::str::from_utf8(&line[11..]).ok()?.trim();
    let good = text.starts_with('<') && text.ends_with('>') && text.is_ascii() && !text.contains(' ');
    good.then(|| text.to_owned())
}

/// RFC 5322 §3.3, in UTC.
pub fn rfc5322_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests;
