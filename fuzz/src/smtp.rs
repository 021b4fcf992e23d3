//! SMTP: commands, content, replies, addresses.

use bytes::{Bytes, BytesMut};
use waypost::address::{Domain, LocalPart, Mailbox};
use waypost::smtp::command::{Command, Mail, Rcpt};
use waypost::smtp::data::{ChunkChecker, DataDecoder, Fault, Progress};
use waypost::smtp::dot_stuff::stuff;
use waypost::smtp::reply::{Reply, ReplyError, ReplyParser};

/// Lengths of pieces that a peer may cut its bytes into.
const PIECES: [usize; 4] = [1, 2, 3, 7];

/// A line is a command that reads back the same when written, or an error whose reply is one short line.
pub fn smtp_command(line: &[u8]) {
    match Command::parse(line) {
        Ok(command) => {
            let written = command.to_string();
            assert!(!written.chars().any(char::is_control), "{written:?}");
            let again = Command::parse(written.as_bytes());
            assert_eq!(again.map(without_spelling), Ok(without_spelling(command)), "{written:?}");
        }
        Err(error) => {
            let reply = error.reply().to_string();
            let text = reply.strip_suffix("\r\n").expect("a reply ends in CR LF");
            assert!(!text.chars().any(char::is_control), "{reply:?}");
            assert!(reply.len() <= 512, "RFC 5321 §4.5.3.1.5: {reply:?}");
        }
    }
}

/// Whether the path was spelt with UTF-8 does not come back: domains are written as A-labels.
fn without_spelling(command: Command) -> Command {
    match command {
        Command::Mail(mail) => Command::Mail(Mail { path_is_utf8: false, ..mail }),
        Command::Rcpt(rcpt) => Command::Rcpt(Rcpt { path_is_utf8: false, ..rcpt }),
        other => other,
    }
}

/// What a server saw behind DATA. The content counts only when nothing was wrong with it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    End { content: Option<Vec<u8>>, fault: Option<Fault>, consumed: usize },
    More { content: Option<Vec<u8>>, fault: Option<Fault> },
    Uncertain,
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut decoder, mut out, mut before) = (DataDecoder::default(), BytesMut::new(), 0);
    for piece in pieces {
        match decoder.decode(piece, &mut out) {
            Progress::More => before += piece.len(),
            Progress::End { consumed } => {
                let fault = decoder.fault();
                let content = fault.is_none().then(|| out.to_vec());
                return Seen::End { content, fault, consumed: before + consumed };
            }
            Progress::Uncertain => return Seen::Uncertain,
        }
    }
    let fault = decoder.fault();
    Seen::More { content: fault.is_none().then(|| out.to_vec()), fault }
}

/// However the bytes are cut, the end of data is at the same place; content that is sent comes back, and no content
/// makes a receiver see the end before it.
pub fn smtp_data(bytes: &[u8]) {
    let whole = decode([bytes]);
    for piece in PIECES {
        assert_eq!(decode(bytes.chunks(piece)), whole, "in pieces of {piece}");
    }
    let middle = bytes.len() / 2;
    assert_eq!(decode([&bytes[..middle], &bytes[middle..]]), whole, "cut at {middle}");
    if let Seen::End { content: Some(content), .. } = &whole {
        assert_eq!(fault(content), None);
        assert!(content.is_empty() || content.ends_with(b"\r\n"));
    }

    let stuffed = stuff(&Bytes::copy_from_slice(bytes));
    let wire = [&stuffed.body[..], stuffed.end].concat();
    match (fault(bytes), decode([&wire[..]])) {
        (None, Seen::End { content: Some(content), fault: None, consumed }) => {
            assert_eq!(consumed, wire.len());
            let line_end: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\r\n") { b"" } else { b"\r\n" };
            assert_eq!(content, [bytes, line_end].concat());
        }
        (Some(_), Seen::End { fault: Some(_), consumed, .. }) => assert_eq!(consumed, wire.len()),
        (Some(_), Seen::Uncertain) => {}
        (fault, seen) => panic!("{fault:?} in what was sent, and {seen:?} was received"),
    }
}

/// What is wrong with content that comes by BDAT, the same in any pieces.
fn fault(content: &[u8]) -> Option<Fault> {
    let check = |piece: usize| {
        let mut checker = ChunkChecker::default();
        content.chunks(piece).for_each(|piece| checker.check(piece));
        checker.fault(true)
    };
    let whole = check(usize::MAX);
    for piece in PIECES {
        assert_eq!(check(piece), whole, "in pieces of {piece}");
    }
    whole
}

/// However the bytes are cut, the replies are the same; each is printable, and reads back the same when written.
pub fn smtp_reply(bytes: &[u8]) {
    let whole = replies(bytes, usize::MAX);
    for piece in PIECES {
        assert_eq!(replies(bytes, piece), whole, "in pieces of {piece}");
    }
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code) && !reply.lines.is_empty());
        assert!(!reply.lines.iter().flat_map(|line| line.chars()).any(char::is_control), "{reply:?}");
        match replies(reply.to_string().as_bytes(), usize::MAX) {
            (again, None) => {
                assert_eq!(again.len(), 1, "{again:?}");
                assert_eq!(without_spaces(&again[0]), without_spaces(&reply));
            }
            // What was just short enough may be longer now: U+FFFD for a byte, an enhanced status code on each line.
            (_, Some(ReplyError::TooLong | ReplyError::LineTooLong)) => {}
            (_, Some(error)) => panic!("{reply:?}: {error}"),
        }
    }
}

fn replies(bytes: &[u8], piece: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut input, mut replies) = (ReplyParser::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

/// White space at the ends of lines is nothing that a reply says.
fn without_spaces(reply: &Reply) -> Reply {
    Reply { lines: reply.lines.iter().map(|line| line.trim().to_owned()).collect(), ..reply.clone() }
}

/// An address has one form: what reads is written in it, and reads back the same.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(domain) = Domain::parse_or_literal(text) {
        assert_eq!(Domain::parse_or_literal(domain.as_str()).as_ref(), Ok(&domain));
        assert!(domain.as_str().is_ascii() && domain.is_within(&domain));
        assert_eq!(domain.as_str().starts_with('['), domain.ip().is_some());
    }
    if let Ok(mailbox) = Mailbox::parse(text) {
        let written = mailbox.to_string();
        assert!(!written.chars().any(char::is_control), "{written:?}");
        assert_eq!(Mailbox::parse(&written), Ok(mailbox), "{written:?}");
    }
    if let (Ok(local), Ok(domain)) = (LocalPart::from_unquoted(text), Domain::parse("example.org")) {
        let mailbox = Mailbox { local, domain };
        assert_eq!(Mailbox::parse(&mailbox.to_string()), Ok(mailbox));
    }
}
