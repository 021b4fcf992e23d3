//! The message on standard input: where it ends, what is its header, who gets it, and what is added and taken away.
//!
//! RFC 5322 §3.6.3 (Bcc), §3.6.6 (resent fields), §3.6.2 (From), RFC 2047 (names beyond ASCII), RFC 5321 §4.4
//! (Return-Path). What programs hand over has LF at the ends of lines, or CR LF, or both, and often no header at all.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;

use crate::address::{Domain, LocalPart, Mailbox};
use crate::message::address_list::{self, Entry};
use crate::message::header_fields::{RawField, fields};

/// The domain that stands for this machine: a recipient without one is a user here.
pub(super) const THIS_MACHINE: &str = "localhost";
/// Bytes of text in an encoded word, so that it stays under 75 characters (RFC 2047 §2).
const ENCODED_WORD_BYTES_MAX: usize = 45;

/// A message as it was handed over, lines ended by CR LF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Fields only, without the empty line.
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a message. A line with a dot alone ends it, unless dots are text.
    pub(super) fn read(input: &[u8], dots_are_text: bool) -> Self {
        let mut message = Self { header: Vec::with_capacity(1024), body: Vec::with_capacity(input.len()) };
        let (mut in_header, mut rest, mut first) = (true, input, true);
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let line = clean(&rest[..end.unwrap_or(rest.len())]);
            rest = end.map_or(&[][..], |end| &rest[end + 1..]);
            if line == b"." && !dots_are_text {
                break;
            }
            // The line that begins a message in an mbox.
            if std::mem::take(&mut first) && line.starts_with(b"From ") {
                continue;
            }
            if in_header && !belongs_to_header(&line, message.header.is_empty()) {
                in_header = false;
                if line.is_empty() {
                    continue;
                }
            }
            let part = if in_header { &mut message.header } else { &mut message.body };
            part.extend_from_slice(&line);
            part.extend_from_slice(b"\r\n");
        }
        message
    }

    /// Whether every byte is ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        self.header.is_ascii() && self.body.is_ascii()
    }

    /// The recipients that the header names: To, Cc and Bcc, or those of a resent message where there are any.
    pub(super) fn recipients(&self) -> Result<Vec<Mailbox>, String> {
        let resent = fields(&self.header).any(|field| is_one_of(&field, &RESENT_TO));
        let wanted = if resent { &RESENT_TO } else { &TO };
        let mut all = Vec::new();
        for field in fields(&self.header).filter(|field| is_one_of(field, wanted)) {
            all.extend(mailboxes(field.value)?);
        }
        Ok(all)
    }

    /// The address of the author, if there is one alone and it has a domain.
    pub(super) fn author(&self) -> Option<Mailbox> {
        let from = fields(&self.header).find(|field| field.is("From"))?;
        let entries = address_list::parse(from.value);
        match entries.as_slice() {
            [Entry::Address { local, domain, .. }] if !domain.is_empty() => mailbox(local, domain).ok(),
            _ => None,
        }
    }

    /// The message as it is sent: blind copies are blind, and there is an author whom people can answer.
    pub(super) fn complete(&self, sender: Option<&Mailbox>, full_name: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.header.len() + self.body.len() + 128);
        let mut has_from = false;
        for field in fields(&self.header) {
            if is_one_of(&field, &TAKEN_AWAY) {
                continue;
            }
            if field.is("From") {
                has_from = true;
                if let Some((sender, name)) = sender.zip(author_without_domain(field.value)) {
                    write_from(sender, Some(&name), &mut out);
                    continue;
                }
            }
            out.extend_from_slice(field.whole);
        }
        if let Some(sender) = sender.filter(|_| !has_from) {
            write_from(sender, full_name, &mut out);
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

const TO: [&str; 3] = ["To", "Cc", "Bcc"];
const RESENT_TO: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
const TAKEN_AWAY: [&str; 3] = ["Bcc", "Resent-Bcc", "Return-Path"];

fn is_one_of(field: &RawField<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| field.is(name))
}

/// A line without what SMTP cannot carry: NUL goes, CR at its end too, and a CR within is white space, not the
/// beginning of a line that nobody looked at.
fn clean(line: &[u8]) -> Vec<u8> {
    let end = line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
    let kept = line[..end].iter().filter(|&&byte| byte != 0);
    kept.map(|&byte| if byte == b'\r' { b' ' } else { byte }).collect()
}

/// Whether a line is a field, or goes on with one. The first that is not ends the header, even without an empty line.
fn belongs_to_header(line: &[u8], is_first: bool) -> bool {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return !is_first;
    }
    memchr(b':', line).is_some_and(|colon| {
        let name = line[..colon].trim_ascii_end();
        !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
    })
}

/// All addresses of a list; one without a domain is a user of this machine.
pub(super) fn mailboxes(list: &[u8]) -> Result<Vec<Mailbox>, String> {
    let mut all = Vec::new();
    for entry in address_list::parse(list) {
        if let Entry::Address { local, domain, .. } = entry {
            all.push(mailbox(&local, &domain)?);
        }
    }
    Ok(all)
}

fn mailbox(local: &[u8], domain: &[u8]) -> Result<Mailbox, String> {
    let shown = || String::from_utf8_lossy(&[local, b"@", domain].concat()).trim_end_matches('@').to_owned();
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8", shown()));
    let domain = if domain.is_empty() { THIS_MACHINE } else { text(domain)? };
    let domain = Domain::parse_or_literal(domain).map_err(|error| format!("{}: {error}", shown()))?;
    let local = LocalPart::from_unquoted(text(local)?).map_err(|error| format!("{}: {error}", shown()))?;
    Ok(Mailbox { local, domain })
}

/// The name of an author whose address has no domain (`root (Cron Daemon)`), who could not be answered from elsewhere.
fn author_without_domain(value: &[u8]) -> Option<String> {
    match address_list::parse(value).as_slice() {
        [Entry::Address { local, domain, name, .. }] if domain.is_empty() => {
            Some(String::from_utf8_lossy(name.as_ref().unwrap_or(local)).into_owned())
        }
        _ => None,
    }
}

fn write_from(address: &Mailbox, name: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"From: ");
    match name.map(phrase).filter(|phrase| !phrase.is_empty()) {
        Some(phrase) => out.extend_from_slice(format!("{phrase} <{address}>").as_bytes()),
        None => out.extend_from_slice(address.to_string().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

/// A display name (RFC 5322 §3.2.5): as it is, quoted, or in encoded words.
fn phrase(name: &str) -> String {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    if name.chars().all(plain) {
        return name;
    }
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let (mut words, mut word) = (Vec::new(), String::new());
    for c in name.chars() {
        if word.len() + c.len_utf8() > ENCODED_WORD_BYTES_MAX {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded: Vec<_> = words.iter().map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word))).collect();
    encoded.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(input: &str) -> String {
        let sender = Mailbox::parse("ann@a.test").unwrap();
        let message = Message::read(input.as_bytes(), false).complete(Some(&sender), Some("Ann"));
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn lines_and_header_are_made_right() {
        let from = "From: Ann <ann@a.test>\r\n";
        for (input, expected) in [
            ("From: x@y\n\nb\n", "From: x@y\r\n\r\nb\r\n".to_owned()),
            ("From: x@y\r\n\r\nb\r\n", "From: x@y\r\n\r\nb\r\n".to_owned()),
            ("Subject: s\n\nb", format!("Subject: s\r\n{from}\r\nb\r\n")),
            (
                "Subject: s\n folded\nno field\nb\n",
                format!("Subject: s\r\n folded\r\n{from}\r\nno field\r\nb\r\n"),
            ),
            ("just text\n", format!("{from}\r\njust text\r\n")),
            ("\nbody: not a field\n", format!("{from}\r\nbody: not a field\r\n")),
            (" indented\n", format!("{from}\r\n indented\r\n")),
            ("", format!("{from}\r\n")),
            ("From ann Mon Nov 23\nSubject: s\n\nFrom b\n", format!("Subject: s\r\n{from}\r\nFrom b\r\n")),
            ("Subject: a\rBcc: x@y\r\r\n\nb\0c\n", format!("Subject: a Bcc: x@y\r\n{from}\r\nbc\r\n")),
            ("BCC: x@y,\n z@y\nReturn-Path: <a>\nTo: t@y\n\n", format!("To: t@y\r\n{from}\r\n")),
            ("From: root (Cron Daemon)\n\n", "From: Cron Daemon <ann@a.test>\r\n\r\n".to_owned()),
            ("From: root\n\n", "From: root <ann@a.test>\r\n\r\n".to_owned()),
        ] {
            assert_eq!(sent(input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_dot_alone_ends_the_message_or_not() {
        let body = |input: &str, text| {
            let message = Message::read(input.as_bytes(), text);
            String::from_utf8(message.body).unwrap()
        };
        for (input, ended, whole) in [
            ("\na\n.\nb\n", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("\na\r\n.\r\nb\r\n", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("\n..\n.b\n", "..\r\n.b\r\n", "..\r\n.b\r\n"),
            ("\na\n.", "a\r\n", "a\r\n.\r\n"),
        ] {
            assert_eq!(
                (body(input, false).as_str(), body(input, true).as_str()),
                (ended, whole),
                "{input:?}"
            );
        }
        assert_eq!(Message::read(b"To: a@b\n.\nCc: c@d\n", false).recipients().unwrap().len(), 1);
    }

    #[test]
    fn who_gets_it() {
        for (input, expected) in [
            ("To: a@b\nCc: C <c@d>, \"e, f\" <g@h> (x)\nbcc: i@j\n\nTo: k@l\n", "a@b c@d g@h i@j"),
            ("To: a@b,\n\tc@d\nTo: e@f\n\n", "a@b c@d e@f"),
            ("To: root\n\n", "root@localhost"),
            ("To: undisclosed-recipients:;\nBcc: a@b\n\n", "a@b"),
            ("To: team: a@b, c@d;\n\n", "a@b c@d"),
            ("To: a@b\nResent-To: c@d\nResent-Bcc: e@f\n\n", "c@d e@f"),
            ("Subject: none\n\n", ""),
            ("To: \"a b\"@c.test, x@B\u{fc}cher.example\n\n", "\"a b\"@c.test x@xn--bcher-kva.example"),
        ] {
            let all = Message::read(input.as_bytes(), false).recipients().unwrap();
            let all: Vec<_> = all.iter().map(ToString::to_string).collect();
            assert_eq!(all.join(" "), expected, "{input:?}");
        }
        for (input, words) in [
            ("To: a@b..c\n\n", "a@b..c: the domain"),
            ("To: @b\n\n", "@b: the part before"),
            ("To: a@\u{0}b c\n\n", ""),
        ] {
            let error = Message::read(input.as_bytes(), false).recipients().err();
            assert!(
                words.is_empty() || error.as_ref().is_some_and(|e| e.contains(words)),
                "{input:?}: {error:?}"
            );
        }
    }

    #[test]
    fn the_author() {
        for (input, expected) in [
            ("From: Ann <ann@a.test>\n\n", Some("ann@a.test")),
            ("From: a@b, c@d\n\n", None),
            ("From: root\n\n", None),
            ("\nFrom: a@b\n", None),
        ] {
            let author = Message::read(input.as_bytes(), false).author().map(|author| author.to_string());
            assert_eq!(author.as_deref(), expected, "{input:?}");
        }
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("Ann B", "Ann B"),
            ("B., Ann \"x\" \\", "\"B., Ann \\\"x\\\" \\\\\""),
            ("Änn", "=?UTF-8?B?w4Rubg==?="),
            (" a\r\nb ", "ab"),
        ] {
            assert_eq!(phrase(name), expected, "{name:?}");
        }
        assert!(phrase(&"ü".repeat(60)).split("\r\n ").all(|word| word.len() <= 75));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_goes_out_in_lines_that_smtp_carries(input: Vec<u8>) {
            let sender = Mailbox::parse("ann@a.test").unwrap();
            let out = Message::read(&input, true).complete(Some(&sender), Some("Ann"));
            for (at, _) in out.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                proptest::prop_assert!(at > 0 && out[at - 1] == b'\r');
            }
            for (at, _) in out.iter().enumerate().filter(|(_, byte)| **byte == b'\r') {
                proptest::prop_assert!(out.get(at + 1) == Some(&b'\n'));
            }
            proptest::prop_assert!(!out.contains(&0));
        }

        #[test]
        fn no_blind_copy_is_ever_told(names in proptest::collection::vec("(To|Bcc|bCC|Resent-Bcc|X) ?", 0..6)) {
            let lines: Vec<_> = names.iter().map(|name| format!("{name}: {}@y\n", name.trim())).collect();
            let input = lines.concat();
            let out = String::from_utf8(Message::read(input.as_bytes(), false).complete(None, None)).unwrap();
            proptest::prop_assert!(!out.to_ascii_lowercase().contains("bcc"));
        }
    }
}
