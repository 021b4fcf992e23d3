//! From a raw command to what the client asks for: imap-codec first, our own parser for what it does not know.
//!
//! RFC 9051 §9 and RFC 3501 §9 (formal syntax). Our own parser reads literals where they stand instead of pasting them
//! into the line, so a message that is appended is never copied; it is the place for forms that imap-codec lacks.

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder as _;
use imap_types::IntoStatic as _;
use imap_types::command::CommandBody;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use bytes::Bytes;

use super::assemble::{Literal, RawCommand};

/// Longest tag that is taken, bytes.
const TAG_BYTES_MAX: usize = 128;

/// A command with its tag.
#[derive(Debug)]
pub struct Request {
    /// Given by the client, sent back with the answer.
    pub tag: String,
    /// What is asked for.
    pub command: Command,
}

/// What a client asks for.
#[derive(Debug)]
pub enum Command {
    /// As imap-codec reads it.
    Standard(CommandBody<'static>),
    /// APPEND.
    Append(Append),
}

impl Command {
    /// Its name, for logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standard(body) => body.name(),
            Self::Append(_) => "APPEND",
        }
    }
}

/// The arguments of APPEND (RFC 9051 §6.3.12).
#[derive(Debug, PartialEq, Eq)]
pub struct Append {
    /// As on the wire.
    pub mailbox: Vec<u8>,
    /// As written: `\Seen`, `$Forwarded`.
    pub flags: Vec<String>,
    /// INTERNALDATE, if given.
    pub date: Option<Timestamp>,
    /// The message.
    pub content: Bytes,
    /// `~{n}`: any octets (RFC 3516 §4.4).
    pub binary: bool,
}

/// Why a command is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadCommand {
    /// The command's tag, where it has one.
    pub tag: Option<String>,
    /// What is wrong, for the client.
    pub problem: &'static str,
}

/// Tag and name of a command that may not be complete; the name in capitals.
pub fn tag_and_name(text: &[u8]) -> (Option<String>, String) {
    let mut words = text.split(|b| matches!(b, b' ' | b'\r' | b'\n'));
    let tag = words.next().filter(|tag| is_tag(tag)).map(|tag| String::from_utf8_lossy(tag).into_owned());
    let name = words.next().unwrap_or_default();
    (tag, String::from_utf8_lossy(&name[..name.len().min(32)]).to_ascii_uppercase())
}

/// RFC 9051 §9: a tag is ASTRING-CHARs without `+`.
fn is_tag(text: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_graphic() && !b"(){%*\"\\+".contains(b);
    !text.is_empty() && text.len() <= TAG_BYTES_MAX && text.iter().all(good)
}

/// Reads a command.
pub fn request(raw: &RawCommand) -> Result<Request, BadCommand> {
    let (tag, name) = tag_and_name(&raw.text);
    let Some(tag) = tag else {
        return Err(BadCommand { tag: None, problem: "Every command begins with a tag" });
    };
    let bad = |problem| BadCommand { tag: Some(tag.clone()), problem };
    if memchr::memchr(0, &raw.text).is_some() {
        return Err(bad("A command holds no NUL"));
    }
    let arguments = tag.len() + 1 + name.len();
    if name == "APPEND" {
        let append = append(raw, arguments).map_err(bad)?;
        return Ok(Request { tag, command: Command::Append(append) });
    }
    let read = |text: &[u8]| match CommandCodec::default().decode(text) {
        Ok(([], command)) => Some(command.body.into_static()),
        _ => None,
    };
    let body = if raw.literals.is_empty() { read(&raw.text) } else { read(&raw.flattened()) };
    match body {
        Some(body) => Ok(Request { tag, command: Command::Standard(body) }),
        None if KNOWN.contains(&name.as_str()) => Err(bad("The arguments of this command cannot be read")),
        None if name.is_empty() => Err(bad("There is no command behind the tag")),
        None => Err(bad("Unknown command")),
    }
}

/// Commands whose arguments can be wrong.
const KNOWN: &[&str] = &[
    "APPEND",
    "AUTHENTICATE",
    "CAPABILITY",
    "CHECK",
    "CLOSE",
    "COPY",
    "CREATE",
    "DELETE",
    "ENABLE",
    "EXAMINE",
    "EXPUNGE",
    "FETCH",
    "ID",
    "IDLE",
    "LIST",
    "LOGIN",
    "LOGOUT",
    "LSUB",
    "MOVE",
    "NAMESPACE",
    "NOOP",
    "RENAME",
    "SEARCH",
    "SELECT",
    "STARTTLS",
    "STATUS",
    "STORE",
    "SUBSCRIBE",
    "UID",
    "UNSELECT",
    "UNSUBSCRIBE",
];

/// `APPEND SP mailbox [SP flag-list] [SP date-time] SP literal`.
fn append(raw: &RawCommand, from: usize) -> Result<Append, &'static str> {
    let mut cursor = Cursor { text: &raw.text, at: from, literals: &raw.literals };
    cursor.space()?;
    let mailbox = cursor.astring().ok_or("APPEND needs a mailbox")?;
    cursor.space()?;
    let flags = if cursor.next_is(b'(') {
        let flags = cursor.flags().ok_or("The flags cannot be read")?;
        cursor.space()?;
        flags
    } else {
        Vec::new()
    };
    let date = if cursor.next_is(b'"') {
        let date = cursor.quoted().as_deref().and_then(date_time).ok_or("The date cannot be read")?;
        cursor.space()?;
        Some(date)
    } else {
        None
    };
    let literal = cursor.literal().ok_or("APPEND needs a message as a literal")?;
    if !cursor.finished() {
        return Err("There is something behind the message");
    }
    if !literal.binary && memchr::memchr(0, &literal.data).is_some() {
        return Err("A literal holds no NUL"); // RFC 9051 §9: CHAR8; §4.3: literal8 is for these
    }
    Ok(Append { mailbox, flags, date, content: literal.data.clone(), binary: literal.binary })
}

/// Reads a date-time such as `17-Jul-1996 02:44:25 -0700` (RFC 9051 §9); the day may have a space before it.
fn date_time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
    let mut date = date.split('-');
    let (day, month, year) = (date.next()?.parse().ok()?, date.next()?, date.next()?.parse().ok()?);
    let month = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(month))?;
    let mut time = time.split(':').map(|part| (part.len() == 2).then(|| part.parse::<i8>().ok())?);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let zone = zone.strip_prefix('+').map(|z| (1, z)).or_else(|| zone.strip_prefix('-').map(|z| (-1, z)))?;
    let (sign, digits) = zone;
    if digits.len() != 4 || words.next().is_some() || date.next().is_some() {
        return None;
    }
    let number: i32 = digits.parse().ok()?;
    let offset = Offset::from_seconds(sign * (number / 100 * 3600 + number % 100 * 60)).ok()?;
    let day = Date::new(year, i8::try_from(month).ok()? + 1, day).ok()?;
    // A leap second is the last second before it.
    let time = jiff::civil::Time::new(hour, minute, second.min(59), 0).ok()?;
    offset.to_timestamp(day.to_datetime(time)).ok()
}

/// As dates are written in IMAP.
pub const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A place in a raw command.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    literals: &'a [Literal],
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next_is(&self, byte: u8) -> bool {
        self.rest().first() == Some(&byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.next_is(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) -> Result<(), &'static str> {
        if self.eat(b' ') { Ok(()) } else { Err("An argument is missing") }
    }

    fn finished(&self) -> bool {
        self.rest() == b"\r\n"
    }

    fn take_while(&mut self, good: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().position(|b| !good(*b)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The literal announced here.
    fn literal(&mut self) -> Option<&'a Literal> {
        let lf = memchr::memchr(b'\n', self.rest())?;
        let end = self.at + lf + 1;
        let literal = self.literals.iter().find(|literal| literal.at == end)?;
        let announced = self.rest().strip_prefix(b"~").unwrap_or(self.rest());
        let digits = announced.strip_prefix(b"{")?;
        let digits = &digits[..memchr::memchr(b'\r', digits)?];
        // Nothing but the announcement may stand between here and the line's end.
        digits.iter().all(|b| b.is_ascii_digit() || b"+-}".contains(b)).then_some(())?;
        self.at = end;
        Some(literal)
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        self.eat(b'"').then_some(())?;
        let mut text = Vec::new();
        loop {
            let (&byte, _) = self.rest().split_first()?;
            self.at += 1;
            match byte {
                b'"' => return Some(text),
                b'\\' => {
                    let (&quoted, _) = self.rest().split_first()?;
                    matches!(quoted, b'"' | b'\\').then_some(())?;
                    self.at += 1;
                    text.push(quoted);
                }
                b'\r' | b'\n' => return None,
                _ => text.push(byte),
            }
        }
    }

    fn astring(&mut self) -> Option<Vec<u8>> {
        if self.next_is(b'"') {
            return self.quoted();
        }
        if self.next_is(b'{') {
            let literal = self.literal()?;
            return memchr::memchr(0, &literal.data).is_none().then(|| literal.data.to_vec());
        }
        let atom = self.take_while(|b| b.is_ascii_graphic() && !b"(){%*\"\\".contains(&b));
        (!atom.is_empty()).then(|| atom.to_vec())
    }

    /// `"(" [flag *(SP flag)] ")"`
    fn flags(&mut self) -> Option<Vec<String>> {
        self.eat(b'(').then_some(())?;
        let mut flags = Vec::new();
        while !self.eat(b')') {
            if !flags.is_empty() {
                self.eat(b' ').then_some(())?;
            }
            let start = self.at;
            self.eat(b'\\');
            let atom = self.take_while(|b| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b));
            (!atom.is_empty()).then_some(())?;
            flags.push(String::from_utf8_lossy(&self.text[start..self.at]).into_owned());
        }
        Some(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap_server::assemble::{Assembler, Step};
    use bytes::BytesMut;

    fn raw(wire: &str) -> RawCommand {
        let (mut assembler, mut input) = (Assembler::default(), BytesMut::from(wire));
        loop {
            match assembler.step(&mut input) {
                Step::Literal(_) => assembler.accept(),
                Step::Command(command) => return command,
                other => panic!("{other:?}"),
            }
        }
    }

    fn problem(wire: &str) -> &'static str {
        request(&raw(wire)).map_or_else(|bad| bad.problem, |request| request.command.name())
    }

    #[test]
    fn commands_of_imap_codec() {
        for (wire, name) in [
            ("a NOOP\r\n", "NOOP"),
            ("a login joe {3}\r\npwd\r\n", "LOGIN"),
            ("a UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (From {2}\r\nTo)])\r\n", "FETCH"),
            ("a SEARCH CHARSET UTF-8 SUBJECT {2+}\r\n\u{e4}\r\n", "SEARCH"),
            ("a SELECT INBOX (CONDSTORE)\r\n", "SELECT"),
        ] {
            assert_eq!(problem(wire), name, "{wire:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wire, expected) in [
            ("\r\n", "Every command begins with a tag"),
            ("+ NOOP\r\n", "Every command begins with a tag"),
            ("a\r\n", "There is no command behind the tag"),
            ("a FROBNICATE\r\n", "Unknown command"),
            ("a FETCH\r\n", "The arguments of this command cannot be read"),
            ("a NOOP x\r\n", "The arguments of this command cannot be read"),
            ("a NO\0OP\r\n", "A command holds no NUL"),
            ("a APPEND\r\n", "An argument is missing"),
            ("a APPEND x\r\n", "An argument is missing"),
            ("a APPEND x y\r\n", "APPEND needs a message as a literal"),
            ("a APPEND x (\\Seen) \"yesterday\" {1}\r\nx\r\n", "The date cannot be read"),
            ("a APPEND x (\\Seen {1}\r\nx\r\n", "The flags cannot be read"),
            ("a APPEND x {1}\r\nx y\r\n", "There is something behind the message"),
            ("a APPEND x {1}\r\n\0\r\n", "A literal holds no NUL"),
        ] {
            assert_eq!(problem(wire), expected, "{wire:?}");
        }
    }

    #[test]
    fn append_takes_its_message_as_it_is() {
        let wire = "t1 append {2}\r\na& (\\Seen $X) \" 7-Feb-1994 21:52:25 -0800\" {6+}\r\nA: b\r\n\r\n";
        let Command::Append(append) = request(&raw(wire)).unwrap().command else { panic!("not APPEND") };
        assert_eq!(append.mailbox, b"a&");
        assert_eq!(append.flags, ["\\Seen", "$X"]);
        assert_eq!(append.date.unwrap().to_string(), "1994-02-08T05:52:25Z");
        assert_eq!(append.content, "A: b\r\n");
        assert!(!append.binary);
        let Command::Append(binary) = request(&raw("t append x ~{1}\r\n\0\r\n")).unwrap().command else {
            panic!("not APPEND")
        };
        assert!(binary.binary && binary.flags.is_empty() && binary.date.is_none());
    }

    #[test]
    fn dates() {
        for (text, expected) in [
            ("17-Jul-1996 02:44:25 -0700", Some("1996-07-17T09:44:25Z")),
            ("01-jan-2024 23:59:60 +0000", Some("2024-01-01T23:59:59Z")),
            ("31-Feb-2024 00:00:00 +0000", None),
            ("1-Jan-2024 00:00:00", None),
            ("1-Jan-2024 00:00 +0000", None),
            ("1-Jan-2024 00:00:00 +00:00", None),
        ] {
            assert_eq!(date_time(text.as_bytes()).map(|t| t.to_string()).as_deref(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(a|APPEND|UID|FETCH|SEARCH|BODY|[ ()\\[\\]{}\"\\\\*%0-9:,<>.\0])*") {
            let _ = request(&RawCommand { text: format!("t {text}\r\n").into_bytes(), literals: Vec::new() });
        }
    }
}
