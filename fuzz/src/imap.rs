//! IMAP: commands, and what FETCH says about messages.

use bytes::{Bytes, BytesMut};
use imap_types::command::CommandBody;
use waypost::imap_server::assemble::{Assembler, RawCommand, Step};
use waypost::imap_server::fetch::{Items, Text, write_next, write_start};
use waypost::imap_server::output::Output;
use waypost::imap_server::parse::{Command, request};
use waypost::message::structure::{Kind, Part};
use waypost::store::{EmailId, Flags, MessageRow, SystemFlag};

/// Longest literal that is taken here.
const LITERAL_BYTES_MAX: u64 = 1_000;

const MESSAGE: &[u8] =
    b"From: Bob <bob@example.org>\r\nSubject: Hello\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ntwo\r\n--b--\r\n";

/// However the bytes are cut, the same commands come out of them; each is whole, and is a request or an error.
pub fn imap_command(bytes: &[u8]) {
    let whole = assemble(bytes, usize::MAX);
    for piece in [1, 2, 7] {
        assert_eq!(assemble(bytes, piece), whole, "in pieces of {piece}");
    }
    for seen in whole {
        let Seen::Command(raw) = seen else { continue };
        assert!(raw.text.ends_with(b"\r\n"));
        let wire = raw.flattened();
        let Ok(request) = request(&raw) else {
            assert_eq!(assemble(&wire, usize::MAX), [Seen::Command(raw)]);
            continue;
        };
        assert!(raw.text.starts_with(request.tag.as_bytes()) && !request.tag.is_empty());
        match request.command {
            Command::Append(append) => {
                assert!(raw.literals.iter().any(|literal| literal.data == append.content));
            }
            Command::Standard(CommandBody::Fetch { macro_or_item_names, uid, .. }) => {
                fetch(&Items::new(macro_or_item_names, uid), MESSAGE);
            }
            Command::Standard(_) => {}
        }
        assert_eq!(assemble(&wire, usize::MAX), [Seen::Command(raw)]);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Command(RawCommand),
    LiteralRefused(u64),
    Refused,
    TooLong,
}

fn assemble(bytes: &[u8], piece: usize) -> Vec<Seen> {
    let (mut assembler, mut buffer, mut seen) = (Assembler::default(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match assembler.step(&mut buffer) {
            Step::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return seen,
            },
            Step::Literal(announced) if announced.len <= LITERAL_BYTES_MAX => assembler.accept(),
            Step::Literal(announced) => {
                seen.push(Seen::LiteralRefused(announced.len));
                assembler.refuse();
            }
            Step::Command(command) => seen.push(Seen::Command(command)),
            Step::Refused => seen.push(Seen::Refused),
            Step::TooLong => seen.push(Seen::TooLong),
        }
    }
}

/// Any octets have a structure whose parts lie within each other and have numbers; all that FETCH says about them can
/// be read. The first line is what is asked for, the rest is the message.
pub fn mime_structure(bytes: &[u8]) {
    let (asked, message) = match memchr::memchr(b'\n', bytes) {
        Some(lf) => (&bytes[..lf], &bytes[lf + 1..]),
        None => (&b""[..], bytes),
    };
    let top = Part::parse(message);
    assert_eq!(top.whole(), 0..message.len());
    within(&top, message.len());
    numbered_message(&top, &top, &[]);
    let all = b"(ENVELOPE BODY BODYSTRUCTURE RFC822 RFC822.HEADER RFC822.TEXT BODY.PEEK[HEADER.FIELDS.NOT (Subject)]<2.9> \
        BODY[1] BODY[1.1.MIME] BODY[2.HEADER] BODY[2.TEXT]<0.5> BODY[1.HEADER.FIELDS (To From)])";
    for asked in [&all[..], asked] {
        let text = [b"a FETCH 1 ", asked, b"\r\n"].concat();
        let Ok(asked) = request(&RawCommand { text, literals: Vec::new() }) else { continue };
        if let Command::Standard(CommandBody::Fetch { macro_or_item_names, uid, .. }) = asked.command {
            fetch(&Items::new(macro_or_item_names, uid), message);
        }
    }
}

/// What FETCH says can be read by a client.
fn fetch(items: &Items, message: &[u8]) {
    let row = MessageRow {
        uid: 7,
        modseq: 9,
        flags: Flags::new().with(SystemFlag::Seen),
        internal_date: jiff::Timestamp::UNIX_EPOCH,
        saved: jiff::Timestamp::UNIX_EPOCH,
        size: message.len() as u64,
        email: EmailId::default(),
    };
    let (mut output, text) = (Output::new(), Text::new(Bytes::copy_from_slice(message)));
    let mut response = Vec::new();
    write_start(&mut output, 1);
    let mut at = 0;
    while write_next(&mut output, at, &row, items, &text) {
        at += 1;
    }
    while let Some(piece) = output.pop() {
        response.extend_from_slice(&piece);
    }
    readable(&response);
}

/// Strings end, literals are as long as they say, parentheses match, and there is one line end, at the end.
fn readable(response: &[u8]) {
    let shown = || String::from_utf8_lossy(response).into_owned();
    let (mut at, mut depth) = (0, 0);
    while let Some(&byte) = response.get(at) {
        at += 1;
        match byte {
            b'"' => {
                at = quoted_end(response, at).unwrap_or_else(|| panic!("a string without end: {}", shown()));
            }
            b'{' => at = literal_end(response, at).unwrap_or_else(|| panic!("a wrong literal: {}", shown())),
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\r' => {
                assert_eq!(&response[at..], b"\n", "a line end inside: {}", shown());
                assert_eq!(depth, 0, "{}", shown());
                return;
            }
            b' '..=b'~' => {}
            _ => panic!("byte {byte:#x} at {at}: {}", shown()),
        }
        assert!(depth >= 0, "{}", shown());
    }
    panic!("no line end: {}", shown());
}

fn quoted_end(response: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match response.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                matches!(response.get(at + 1)?, b'"' | b'\\').then_some(())?;
                at += 2;
            }
            0 | b'\r' | b'\n' | 0x80.. => return None,
            _ => at += 1,
        }
    }
}

fn literal_end(response: &[u8], at: usize) -> Option<usize> {
    let digits = response[at..].split(|b| *b == b'}').next()?;
    let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let octets = response[at + digits.len()..].strip_prefix(b"}\r\n")?.get(..len)?;
    (!octets.contains(&0)).then_some(at + digits.len() + 3 + len)
}

fn within(part: &Part, end: usize) {
    assert!(part.header.end == part.body.start && part.header.start <= part.header.end);
    assert!(part.body.start <= part.body.end && part.body.end <= end);
    let children = match &part.kind {
        Kind::Leaf => &[][..],
        Kind::Multipart(parts) => parts,
        Kind::Message(inner) => std::slice::from_ref(&**inner),
    };
    for child in children {
        assert!(part.body.start <= child.header.start);
        within(child, part.body.end);
    }
}

/// The parts of a message have their numbers (RFC 9051 §6.4.5.1): those of a multipart, or the message itself as 1.
fn numbered_message(top: &Part, message: &Part, number: &[u32]) {
    match &message.kind {
        Kind::Multipart(_) => numbered_below(top, message, number),
        _ => numbered(top, message, &[number, &[1]].concat()),
    }
}

fn numbered(top: &Part, part: &Part, number: &[u32]) {
    let found = top.find_from_top(number);
    assert!(found.is_some_and(|found| std::ptr::eq(found, part)), "{number:?}");
    numbered_below(top, part, number);
}

fn numbered_below(top: &Part, part: &Part, number: &[u32]) {
    let below = |n: usize| [number, &[n as u32]].concat();
    match &part.kind {
        Kind::Leaf => assert!(top.find_from_top(&below(1)).is_none(), "{number:?}.1"),
        Kind::Message(inner) => numbered_message(top, inner, number),
        Kind::Multipart(parts) => {
            parts.iter().enumerate().for_each(|(at, part)| numbered(top, part, &below(at + 1)));
            assert!(
                top.find_from_top(&below(0)).is_none()
                    && top.find_from_top(&below(parts.len() + 1)).is_none()
            );
        }
    }
}
