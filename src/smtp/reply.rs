//! SMTP replies, as a server writes them and as a client reads them.
//!
//! RFC 5321 §4.2 (replies), RFC 2034 and RFC 3463 (enhanced status codes).

use std::fmt;

use bytes::{Buf, BytesMut};

use crate::outcome::EnhancedCode;

/// Longest reply line read, with its line end. RFC 5321 §4.5.3.1.5 says 512; real peers explain themselves at length.
pub const REPLY_LINE_BYTES_MAX: usize = 4 * 1024;
/// Longest reply read, all lines together.
pub const REPLY_BYTES_MAX: usize = 32 * 1024;
/// Lines of one reply.
pub const REPLY_LINES_MAX: usize = 256;

/// A reply: code, enhanced status code, one or more lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Stands at the head of each line (RFC 2034 §4); `None` for 3xx, the greeting and EHLO.
    pub enhanced: Option<EnhancedCode>,
    /// Without code, separator, enhanced status code and line end; never empty.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply without an enhanced status code; the text's line breaks make it several lines.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, enhanced: None, lines: text.split('\n').map(str::to_owned).collect() }
    }

    /// A reply with an enhanced status code.
    pub fn enhanced(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self { enhanced: Some(enhanced), ..Self::new(code, text) }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 3xx.
    pub fn is_intermediate(&self) -> bool {
        (300..400).contains(&self.code)
    }

    /// 4xx.
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// All lines, joined by `\n`.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// As on the wire, with CR LF at the end of each line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.lines.iter().enumerate() {
            let separator = if number + 1 == self.lines.len() { ' ' } else { '-' };
            write!(f, "{}{separator}", self.code)?;
            if let Some(enhanced) = self.enhanced {
                write!(f, "{enhanced} ")?;
            }
            write!(f, "{line}\r\n")?;
        }
        Ok(())
    }
}

/// What a peer sent is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line without a code; its beginning, made printable.
    #[error("not an SMTP reply: {0:?}")]
    NotAReply(String),
    /// A line that does not end.
    #[error("a reply line is longer than {REPLY_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A reply that does not end.
    #[error("a reply is longer than {REPLY_BYTES_MAX} bytes or {REPLY_LINES_MAX} lines")]
    TooLong,
}

/// Reads replies out of a peer's bytes, however they are cut. Text is made printable: what is not UTF-8 becomes U+FFFD,
/// control characters become spaces.
#[derive(Debug, Default)]
pub struct ReplyParser {
    lines: Vec<String>,
    bytes: usize,
}

impl ReplyParser {
    /// Takes the next whole reply from the front of `input`; `None` when more bytes are needed. What follows the reply
    /// stays in `input`. After an error the stream cannot be understood any more.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return if input.len() > REPLY_LINE_BYTES_MAX {
                    Err(ReplyError::LineTooLong)
                } else {
                    Ok(None)
                };
            };
            if end >= REPLY_LINE_BYTES_MAX {
                return Err(ReplyError::LineTooLong);
            }
            self.bytes += end + 1;
            if self.bytes > REPLY_BYTES_MAX || self.lines.len() == REPLY_LINES_MAX {
                return Err(ReplyError::TooLong);
            }
            // A lone LF ends a line too: nothing can be smuggled past a client that only reads codes.
            let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
            let (code, last, text) = split_line(line)?;
            self.lines.push(printable(text));
            input.advance(end + 1);
            if last {
                self.bytes = 0;
                // The code of the last line counts where a peer contradicts itself (RFC 5321 §4.2.1 wants them equal).
                return Ok(Some(Reply::read(code, std::mem::take(&mut self.lines))));
            }
        }
    }
}

/// Code, whether this is the last line, text (RFC 5321 §4.2).
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ReplyError> {
    let wrong = || ReplyError::NotAReply(printable(&line[..line.len().min(80)]));
    let digit = |at: usize| line.get(at).filter(|b| b.is_ascii_digit()).map(|b| u16::from(b - b'0'));
    let (Some(a), Some(b), Some(c)) = (digit(0), digit(1), digit(2)) else { return Err(wrong()) };
    let code = a * 100 + b * 10 + c;
    if !(200..600).contains(&code) {
        return Err(wrong());
    }
    match line.get(3) {
        None => Ok((code, true, b"")),
        Some(b' ' | b'\t') => Ok((code, true, &line[4..])),
        Some(b'-') => Ok((code, false, &line[4..])),
        Some(_) => Err(wrong()),
    }
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.trim_ascii_end());
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text.into_owned()
    }
}

impl Reply {
    /// Takes the enhanced status code out of lines as read. It counts only where its class is the code's
    /// (RFC 2034 §4); otherwise it stays in the text.
    fn read(code: u16, mut lines: Vec<String>) -> Self {
        let split = |line: &str| {
            let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
            Some((head.parse::<EnhancedCode>().ok()?, rest.trim_start().to_owned()))
        };
        let enhanced = lines.first().and_then(|line| split(line)).map(|(enhanced, _)| enhanced);
        let enhanced = enhanced.filter(|enhanced| u16::from(enhanced.class) == code / 100);
        if let Some(enhanced) = enhanced {
            for line in &mut lines {
                if let Some((same, rest)) = split(line)
                    && same == enhanced
                {
                    *line = rest;
                }
            }
        }
        Self { code, enhanced, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All replies in the bytes, given in pieces of a length.
    fn read_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Reply>, ReplyError> {
        let (mut parser, mut input, mut replies) = (ReplyParser::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            input.extend_from_slice(piece);
            while let Some(reply) = parser.next(&mut input)? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    fn read(text: &str) -> Result<Vec<Reply>, ReplyError> {
        read_in_pieces(text.as_bytes(), usize::MAX)
    }

    fn reply(code: u16, enhanced: Option<&str>, lines: &[&str]) -> Reply {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Reply { code, enhanced: enhanced.map(|e| e.parse().unwrap()), lines }
    }

    #[test]
    fn replies_as_peers_send_them() {
        for (wire, read_as) in [
            ("250 2.1.0 Ok\r\n", reply(250, Some("2.1.0"), &["Ok"])),
            ("250 Ok\r\n", reply(250, None, &["Ok"])),
            ("250\r\n", reply(250, None, &[""])),
            ("250 \r\n", reply(250, None, &[""])),
            ("354 go\n", reply(354, None, &["go"])),
            ("550 5.1.1\r\n", reply(550, Some("5.1.1"), &[""])),
            (
                "550-5.7.1 No.\r\n550-5.7.1\r\n550 5.7.1 See x\r\n",
                reply(550, Some("5.7.1"), &["No.", "", "See x"]),
            ),
            ("550-5.7.1 No.\r\n550 Sorry\r\n", reply(550, Some("5.7.1"), &["No.", "Sorry"])),
            ("550-No.\r\n550 5.7.1 Sorry\r\n", reply(550, None, &["No.", "5.7.1 Sorry"])),
            ("550 4.7.1 Hm\r\n", reply(550, None, &["4.7.1 Hm"])),
            ("550 5.7.1: x\r\n", reply(550, None, &["5.7.1: x"])),
            ("250-a\r\n550 b\r\n", reply(550, None, &["a", "b"])),
            ("220 \x1b[31mred\x07\u{85}\r\n", reply(220, None, &[" [31mred  "])),
        ] {
            assert_eq!(read(wire), Ok(vec![read_as]), "{wire:?}");
        }
        assert_eq!(read_in_pieces(b"220 \xff\xfe\r\n", 100).unwrap()[0].lines, ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn what_is_no_reply() {
        for wire in
            ["\r\n", "25\r\n", "HTTP/1.1 400\r\n", "199 x\r\n", "600 x\r\n", "2500 x\r\n", "250-a\r\nb\r\n"]
        {
            assert!(matches!(read(wire), Err(ReplyError::NotAReply(_))), "{wire:?}");
        }
        let long = |n: usize| format!("250 {}\r\n", "x".repeat(n - 6));
        assert!(read(&long(REPLY_LINE_BYTES_MAX)).is_ok());
        assert_eq!(read(&long(REPLY_LINE_BYTES_MAX + 1)), Err(ReplyError::LineTooLong));
        assert_eq!(read(&"x".repeat(REPLY_LINE_BYTES_MAX + 1)), Err(ReplyError::LineTooLong));
        assert_eq!(read(&"250-x\r\n".repeat(REPLY_LINES_MAX + 1)), Err(ReplyError::TooLong));
        assert_eq!(read(&long(1000).replace("250 ", "250-").repeat(40)), Err(ReplyError::TooLong));
        assert_eq!(
            read(&"250 fine\r\n".repeat(10_000)).map(|r| r.len()),
            Ok(10_000),
            "the limit is for one reply"
        );
    }

    #[test]
    fn cut_anywhere_a_conversation_reads_the_same() {
        let wire =
            "220 x\r\n250-mail.test\r\n250-SIZE 1000\n250 DSN\r\n250 2.1.0 Ok\r\n354 go\r\n550 5.1.1 no\r\n";
        let whole = read(wire).unwrap();
        assert_eq!(whole.len(), 5);
        for piece in 1..wire.len() {
            assert_eq!(read_in_pieces(wire.as_bytes(), piece), Ok(whole.clone()), "in pieces of {piece}");
        }
    }

    proptest! {
        #[test]
        fn what_a_server_writes_a_client_reads(
            code in 200u16..600,
            enhanced in proptest::option::of((0u16..999, 0u16..999)),
            lines in proptest::collection::vec("[a-zA-Z<>@.!éß-][a-zA-Z <>@.!éß-]{0,20}[a-z]", 1..5),
        ) {
            let class = (code / 100) as u8;
            let enhanced = enhanced.filter(|_| class != 3).map(|(s, d)| EnhancedCode::new(class, s, d));
            let reply = Reply { code, enhanced, lines };
            prop_assert_eq!(read(&reply.to_string()), Ok(vec![reply]));
        }

        #[test]
        fn any_bytes_in_any_pieces_are_read_the_same_or_refused(
            bytes in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            piece in 1usize..20,
        ) {
            prop_assert_eq!(read_in_pieces(&bytes, piece), read_in_pieces(&bytes, usize::MAX));
        }
    }

    #[test]
    fn replies_as_on_the_wire() {
        assert_eq!(Reply::new(354, "go ahead").to_string(), "354 go ahead\r\n");
        let two = Reply::enhanced(550, EnhancedCode::new(5, 1, 1), "no such user\nsorry");
        assert_eq!(two.to_string(), "550-5.1.1 no such user\r\n550 5.1.1 sorry\r\n");
    }
}
