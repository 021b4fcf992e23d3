//! Fields that a server puts in front of a message: Received, and Date and Message-Id where a submission lacks them.
//!
//! RFC 5321 §4.4 (Received), RFC 3848 and RFC 6531 §4.3 (names of protocols), RFC 5322 §3.3 (dates), §3.6.4.

use std::io::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::address::{Domain, Mailbox};

/// How the client spoke to us; decides the protocol's registered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// EHLO, not HELO.
    pub extended: bool,
    /// Within TLS.
    pub tls: bool,
    /// After AUTH.
    pub authenticated: bool,
    /// The transaction uses SMTPUTF8.
    pub utf8: bool,
}

impl Protocol {
    /// The name in the `with` clause.
    pub const fn name(self) -> &'static str {
        let Self { extended, tls, authenticated, utf8 } = self;
        match (utf8, extended, tls, authenticated) {
            // Only ESMTP has variants.
            (_, false, _, _) => "SMTP",
            (false, true, false, false) => "ESMTP",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, false) => "ESMTPS",
            (false, true, true, true) => "ESMTPSA",
            (true, true, false, false) => "UTF8SMTP",
            (true, true, false, true) => "UTF8SMTPA",
            (true, true, true, false) => "UTF8SMTPS",
            (true, true, true, true) => "UTF8SMTPSA",
        }
    }
}

/// What a Received field tells.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client called itself; it holds no character that could end the clause.
    pub helo: &'a str,
    /// From where it connected.
    pub ip: IpAddr,
    /// Our name.
    pub by: &'a Domain,
    /// How it spoke.
    pub protocol: Protocol,
    /// TLS version and cipher suite, for people who look for how a message travelled.
    pub tls: Option<&'a str>,
    /// Ties the field to our log.
    pub id: &'a str,
    /// The recipient, when there is only one: naming several would tell each of the others (RFC 5321 §7.6).
    pub only_recipient: Option<&'a Mailbox>,
    /// When.
    pub at: Timestamp,
}

impl Received<'_> {
    /// Writes the field, folded, with CR LF at the end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { helo, ip, by, protocol, tls, id, only_recipient, at } = self;
        // Nothing written into a Vec fails.
        let _ = write!(
            out,
            "Received: from {helo} ({})\r\n\tby {by} with {}",
            Domain::literal(*ip),
            protocol.name()
        );
        if let Some(tls) = tls {
            let _ = write!(out, " ({tls})");
        }
        let _ = write!(out, "\r\n\tid {id}");
        if let Some(recipient) = only_recipient {
            let _ = write!(out, "\r\n\tfor <{recipient}>");
        }
        out.extend_from_slice(b"; ");
        write_date(*at, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the Received field of a message that a process of this machine handed over: there is no host that it came
/// from, only a user (RFC 5321 §4.4 asks for `from` in SMTP alone).
pub fn write_local_received(
    user: &str,
    by: &Domain,
    id: &str,
    only_recipient: Option<&Mailbox>,
    at: Timestamp,
    out: &mut Vec<u8>,
) {
    // What could end the comment is left out.
    let user: String =
        user.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\')).collect();
    // Nothing written into a Vec fails.
    let _ = write!(out, "Received: by {by} (from user {user})\r\n\tid {id}");
    if let Some(recipient) = only_recipient {
        let _ = write!(out, "\r\n\tfor <{recipient}>");
    }
    out.extend_from_slice(b"; ");
    write_date(at, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a Date field.
pub fn write_date_field(at: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    write_date(at, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a Message-Id field; the pair of `id` and our name must never be given twice.
pub fn write_message_id_field(id: &str, by: &Domain, out: &mut Vec<u8>) {
    // An address literal is a valid right side as it stands (RFC 5322 §3.6.4 no-fold-literal).
    let _ = write!(out, "Message-Id: <{id}@{by}>\r\n");
}

/// RFC 5322 §3.3, in UTC: `Sun, 22 Nov 2026 15:57:18 +0000`.
pub fn write_date(at: Timestamp, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let t = Offset::UTC.to_datetime(at);
    let day = DAYS[t.weekday().to_monday_zero_offset() as usize % 7];
    let month = MONTHS[(t.month() as usize + 11) % 12];
    let (date, year, hour, minute, second) = (t.day(), t.year(), t.hour(), t.minute(), t.second());
    let _ = write!(out, "{day}, {date} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates() {
        for (at, text) in [
            ("2026-11-22T15:57:18.9Z", "Sun, 22 Nov 2026 15:57:18 +0000"),
            ("1970-01-01T00:00:00Z", "Thu, 1 Jan 1970 00:00:00 +0000"),
            ("2024-02-29T23:59:59Z", "Thu, 29 Feb 2024 23:59:59 +0000"),
        ] {
            assert_eq!(written(|out| write_date(at.parse().unwrap(), out)), text);
        }
    }

    #[test]
    fn received() {
        let (by, recipient) =
            (Domain::parse("mx.example.org").unwrap(), Mailbox::parse("\"a b\"@example.org").unwrap());
        let field = Received {
            helo: "client.example",
            ip: "192.0.2.1".parse().unwrap(),
            by: &by,
            protocol: Protocol { extended: true, tls: true, ..Protocol::default() },
            tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384"),
            id: "3fk2.1",
            only_recipient: Some(&recipient),
            at: "2026-11-22T15:57:18Z".parse().unwrap(),
        };
        assert_eq!(
            written(|out| field.write(out)),
            "Received: from client.example ([192.0.2.1])\r\n\
             \tby mx.example.org with ESMTPS (TLSv1.3 TLS13_AES_256_GCM_SHA384)\r\n\
             \tid 3fk2.1\r\n\
             \tfor <\"a b\"@example.org>; Sun, 22 Nov 2026 15:57:18 +0000\r\n"
        );
        let plain = Received {
            ip: "2001:db8::1".parse().unwrap(),
            protocol: Protocol::default(),
            tls: None,
            only_recipient: None,
            ..field
        };
        assert_eq!(
            written(|out| plain.write(out)),
            "Received: from client.example ([IPv6:2001:db8::1])\r\n\tby mx.example.org with SMTP\r\n\
             \tid 3fk2.1; Sun, 22 Nov 2026 15:57:18 +0000\r\n"
        );
    }

    #[test]
    fn received_from_a_user_of_this_machine() {
        let by = Domain::parse("mx.example.org").unwrap();
        let at = "2026-11-22T15:57:18Z".parse().unwrap();
        assert_eq!(
            written(|out| write_local_received("www-data)\\", &by, "3fk2.1", None, at, out)),
            "Received: by mx.example.org (from user www-data)\r\n\tid 3fk2.1; Sun, 22 Nov 2026 15:57:18 +0000\r\n"
        );
    }

    #[test]
    fn names_of_protocols() {
        for (extended, tls, authenticated, utf8, name) in [
            (false, true, false, false, "SMTP"),
            (true, false, false, false, "ESMTP"),
            (true, true, true, false, "ESMTPSA"),
            (true, true, false, true, "UTF8SMTPS"),
            (true, false, true, true, "UTF8SMTPA"),
        ] {
            assert_eq!(Protocol { extended, tls, authenticated, utf8 }.name(), name);
        }
    }
}
