//! Delivery status notifications: the message that tells a sender what became of a recipient.
//!
//! RFC 3464 (format), RFC 6522 (multipart/report), RFC 3461 §6 (what they quote), RFC 3834 (Auto-Submitted).

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::address::{Domain, Mailbox};
use crate::envelope::Ret;
use crate::outcome::{EnhancedCode, Outcome, Verdict};

/// A failed recipient, as the report tells it.
#[derive(Debug, Clone)]
pub struct FailedRecipient {
    /// Who did not get the message.
    pub address: Mailbox,
    /// ORCPT as given by the sender.
    pub orcpt: Option<String>,
    /// The last attempt's outcome.
    pub outcome: Outcome,
    /// The last attempt's transport.
    pub transport: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// When the last attempt ended.
    pub last_attempt: Timestamp,
    /// Given up because of age, not because the peer said no.
    pub expired: bool,
}

/// A failure report to be written.
#[derive(Debug, Clone)]
pub struct FailureReport<'a> {
    /// Our name.
    pub reporting_mta: &'a Domain,
    /// The part of our Message-Id before the `@`; the boundary is made from it too.
    pub unique: &'a str,
    /// When the report is written.
    pub date: Timestamp,
    /// The sender of the message that failed.
    pub to: &'a Mailbox,
    /// ENVID as given by the sender.
    pub envid: Option<&'a str>,
    /// When the message that failed was accepted.
    pub arrival: Timestamp,
    /// Who did not get it; at least one.
    pub recipients: &'a [FailedRecipient],
    /// The message that failed.
    pub original: &'a [u8],
    /// How much of it is returned.
    pub ret: Ret,
}

/// Whole messages up to this size are returned when the sender did not ask for less.
pub const RETURNED_BYTES_MAX: usize = 64 * 1024;

/// Lines of header fields are folded before this column (RFC 5322 §2.1.1).
const FOLD_COLUMN: usize = 76;
/// A line has at most 998 octets (RFC 5322 §2.1.1); this leaves room for a field's name or an indent.
const PIECE_BYTES_MAX: usize = 900;

impl FailureReport<'_> {
    /// The report as a message with CR LF lines.
    pub fn to_message(&self) -> Vec<u8> {
        let host = self.reporting_mta;
        let boundary = format!("=_waypost_{}", self.unique);
        let words = self.words();
        let encoding_of = |ascii: bool| if ascii { "7bit" } else { "8bit" };
        let encoding = encoding_of(self.original.is_ascii());
        let whole = encoding_of(self.original.is_ascii() && words.is_ascii());
        let mut head = String::with_capacity(2048);
        let _ = write!(
            head,
            "Date: {}\r\nFrom: Mail Delivery System <mailer-daemon@{host}>\r\nTo: <{}>\r\n\
             Subject: Undelivered mail: returned to you\r\nMessage-Id: <{}@{host}>\r\n{}\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {whole}\r\n\r\n\
             This is a delivery report in MIME format.\r\n",
            rfc5322_date(self.date),
            self.to,
            self.unique,
            self.in_reply_to(),
        );
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {}\r\n\r\n{words}",
            encoding_of(words.is_ascii())
        );
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n{}",
            self.status()
        );
        let kind = if self.ret == Ret::Full { "message/rfc822" } else { "text/rfc822-headers" };
        let _ = write!(
            head,
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        let returned = match self.ret {
            Ret::Full => self.original,
            Ret::Headers => header_of(self.original),
        };
        let mut message = head.into_bytes();
        message.extend_from_slice(returned);
        if !returned.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }

    fn in_reply_to(&self) -> String {
        match message_id_of(self.original) {
            Some(id) => format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"),
            None => String::new(),
        }
    }

    /// The part for people.
    fn words(&self) -> String {
        let mut text = format!(
            "This is the mail server {}.\r\n\r\nYour message of {} could not be delivered to:\r\n",
            self.reporting_mta,
            rfc5322_date(self.arrival)
        );
        for recipient in self.recipients {
            let _ = write!(text, "\r\n  <{}>\r\n", recipient.address);
            let outcome = &recipient.outcome;
            match (recipient.expired, recipient.attempts) {
                (true, 0) => text.push_str("    was given up without an attempt:\r\n"),
                (true, n) => {
                    let _ = write!(
                        text,
                        "    was tried {n} times and given up. The last attempt ended with:\r\n"
                    );
                }
                (false, _) => text.push_str("    was refused for good:\r\n"),
            }
            let peer = match (&outcome.host, outcome.ip) {
                (Some(host), Some(ip)) => format!("{host} [{ip}] said: "),
                (Some(host), None) => format!("{host} said: "),
                (None, Some(ip)) => format!("[{ip}] said: "),
                (None, None) => String::new(),
            };
            let said = format!("{peer}{}", reply_text(outcome));
            let lines = said.split('\n').map(one_line);
            for (number, line) in lines.flat_map(|line| pieces(&line)).enumerate() {
                let _ = write!(text, "    {}{line}\r\n", if number == 0 { "" } else { "  " });
            }
        }
        text.push_str("\r\nNothing more will be tried. The message, or its header, is attached.\r\n");
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
            if let Some(orcpt) = &recipient.orcpt {
                let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
                field(&mut text, "Original-Recipient", &format!("{kind}; {}", utf8_in_ascii(address)));
            }
            let address = recipient.address.to_string();
            // RFC 6533 §3: another type for addresses beyond ASCII.
            let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
            field(&mut text, "Final-Recipient", &format!("{kind}; {}", utf8_in_ascii(&address)));
            field(&mut text, "Action", "failed");
            field(&mut text, "Status", &status_of(recipient).to_string());
            if let Some(host) = &recipient.outcome.host {
                field(&mut text, "Remote-MTA", &format!("dns; {host}"));
            }
            if let Some(code) = recipient.outcome.code {
                let diagnostic = format!("smtp; {code} {}", reply_words(&recipient.outcome));
                field(&mut text, "Diagnostic-Code", &diagnostic);
            } else {
                field(&mut text, "Diagnostic-Code", &format!("x-waypost; {}", recipient.outcome.text));
            }
            field(&mut text, "Last-Attempt-Date", &rfc5322_date(recipient.last_attempt));
            if let Some(transport) = &recipient.transport {
                field(&mut text, "X-Waypost-Transport", transport);
            }
        }
        text
    }
}

/// A status of class 5: what ends in a report has failed for good (RFC 3464 §2.3.4).
fn status_of(recipient: &FailedRecipient) -> EnhancedCode {
    match recipient.outcome.enhanced {
        // RFC 3463: 4.4.7, delivery time expired, is what a queue says that has given up.
        _ if recipient.expired => EnhancedCode::new(5, 4, 7),
        Some(code) if code.class == 5 => code,
        Some(code) => EnhancedCode { class: 5, ..code },
        None if recipient.outcome.verdict == Verdict::Delivered => EnhancedCode::new(2, 0, 0),
        None => EnhancedCode::new(5, 0, 0),
    }
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
mod tests {
    use super::*;
    use crate::outcome::Stage;

    fn failed(verdict: Verdict, code: Option<u16>, enhanced: Option<&str>, text: &str) -> FailedRecipient {
        FailedRecipient {
            address: "user@outside.test".parse().unwrap(),
            orcpt: Some("rfc822;alias@example.org".into()),
            outcome: Outcome {
                host: Some("mx.outside.test".into()),
                ip: "192.0.2.1".parse().ok(),
                code,
                enhanced: enhanced.map(|e| e.parse().unwrap()),
                ..Outcome::ours(verdict, Stage::Rcpt, EnhancedCode::new(5, 0, 0), text)
            },
            transport: Some("direct".into()),
            attempts: 3,
            last_attempt: Timestamp::from_second(1_800_000_060).unwrap(),
            expired: verdict == Verdict::Temporary,
        }
    }

    fn report(recipients: &[FailedRecipient], original: &[u8], ret: Ret) -> String {
        let message = FailureReport {
            reporting_mta: &"mail.example.org".parse().unwrap(),
            unique: "000001.dsn",
            date: Timestamp::from_second(1_800_000_100).unwrap(),
            to: &"sender@example.org".parse().unwrap(),
            envid: Some("QQ314159"),
            arrival: Timestamp::from_second(1_800_000_000).unwrap(),
            recipients,
            original,
            ret,
        }
        .to_message();
        String::from_utf8(message).unwrap()
    }

    const ORIGINAL: &[u8] = b"Subject: hello\r\nMessage-ID: <x@example.org>\r\n\r\nbody\r\n";

    #[test]
    fn a_failure_report_as_a_golden_text() {
        let text = report(
            &[failed(Verdict::Permanent, Some(550), Some("5.1.1"), "no such user\nsorry")],
            ORIGINAL,
            Ret::Full,
        );
        assert_eq!(text, include_str!("golden/failed.eml").replace('\n', "\r\n"));
    }

    #[test]
    fn other_mail_software_reads_it() {
        let failures = [
            failed(Verdict::Permanent, Some(550), None, "no\r\nX-Injected: yes\u{1b}[0m"),
            failed(Verdict::Temporary, None, Some("4.4.1"), &"connection timed out ".repeat(20)),
        ];
        let text = report(&failures, "Subject: grüße\r\n\r\nkörper\r\n".as_bytes(), Ret::Headers);
        let parsed = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.parts.len(), 4);
        assert!(!text.contains("\nX-Injected"), "a peer's words cannot add fields:\n{text}");
        assert!(text.contains("Status: 5.0.0\r\n") && text.contains("Status: 5.4.7\r\n"), "{text}");
        assert!(text.contains("Subject: grüße") && !text.contains("körper"), "header only:\n{text}");
        assert!(text.lines().all(|l| l.len() <= 998), "{text}");
    }

    #[test]
    fn no_line_grows_too_long_whatever_a_peer_says() {
        for said in ["x".repeat(2_000), "ü".repeat(1_000), "two words ".repeat(200)] {
            let text = report(&[failed(Verdict::Permanent, Some(550), None, &said)], ORIGINAL, Ret::Full);
            assert!(text.lines().all(|l| l.len() <= 998), "RFC 5322 §2.1.1: {text}");
        }
    }

    #[test]
    fn an_address_beyond_ascii_is_told_as_rfc_6533_wants_it() {
        let mut failure = failed(Verdict::Permanent, Some(550), None, "no");
        failure.address = "büro+x@outside.test".parse().unwrap();
        failure.orcpt = Some("utf-8;bü@example.org".into());
        let text = report(&[failure], ORIGINAL, Ret::Full);
        assert!(text.contains("Final-Recipient: utf-8; b\\x{FC}ro\\x{2B}x@outside.test\r\n"), "{text}");
        assert!(text.contains("Original-Recipient: utf-8; b\\x{FC}@example.org\r\n"), "{text}");
    }
}
