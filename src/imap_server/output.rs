//! What goes to the client: responses written piece by piece, large literals passed through without a copy.
//!
//! RFC 9051 §4 (data formats), §9 (formal syntax). Literals in responses never wait for anything.

use std::collections::VecDeque;
use std::fmt::{Display, Write as _};

use bytes::{BufMut, Bytes, BytesMut};

/// Data from which a literal is passed on instead of copied.
const SHARED_BYTES_MIN: usize = 4 * 1024;
/// Longest quoted string; longer text goes as a literal, which every client reads.
const QUOTED_BYTES_MAX: usize = 1_000;

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
pub struct Output {
    ready: VecDeque<Bytes>,
    open: BytesMut,
    queued: usize,
}

impl Output {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.queued + self.open.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next piece to send.
    pub fn pop(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.ready.pop_front() {
            self.queued -= piece.len();
            return Some(piece);
        }
        (!self.open.is_empty()).then(|| self.open.split().freeze())
    }

    /// Text as it is.
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.open.put_slice(text.as_bytes());
        self
    }

    /// Something that displays as an atom, a number or ready text.
    pub fn show(&mut self, value: impl Display) -> &mut Self {
        // Writing to a BytesMut fails only when its length would overflow.
        let _ = write!(self.open, "{value}");
        self
    }

    /// CR LF.
    pub fn end(&mut self) -> &mut Self {
        self.raw("\r\n")
    }

    /// A whole untagged line: `* text`.
    pub fn untagged(&mut self, text: impl Display) -> &mut Self {
        self.raw("* ").show(text).end()
    }

    /// A whole line with a tag.
    pub fn tagged(&mut self, tag: &str, text: impl Display) -> &mut Self {
        self.raw(tag).raw(" ").show(text).end()
    }

    /// A string: quoted where that is possible, else a literal.
    pub fn string(&mut self, text: &[u8]) -> &mut Self {
        // RFC 9051 §9 QUOTED-CHAR; 8-bit text is only allowed quoted once UTF-8 is enabled (RFC 6855 §3).
        let plain = |b: &u8| matches!(b, 1..=0x7f) && !matches!(b, b'\r' | b'\n');
        if text.len() > QUOTED_BYTES_MAX || !text.iter().all(plain) {
            return self.literal(text);
        }
        self.open.put_u8(b'"');
        for &byte in text {
            if matches!(byte, b'"' | b'\\') {
                self.open.put_u8(b'\\');
            }
            self.open.put_u8(byte);
        }
        self.open.put_u8(b'"');
        self
    }

    /// A string, or NIL.
    pub fn nstring(&mut self, text: Option<&[u8]>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.raw("NIL"),
        }
    }

    /// An atom where the text is one, else a string.
    pub fn astring(&mut self, text: &str) -> &mut Self {
        let special = |b: u8| !b.is_ascii_graphic() || b"(){%*\"\\".contains(&b);
        if text.is_empty() || text.bytes().any(special) || text.eq_ignore_ascii_case("NIL") {
            return self.string(text.as_bytes());
        }
        self.raw(text)
    }

    /// A literal, copied.
    pub fn literal(&mut self, data: &[u8]) -> &mut Self {
        self.show(format_args!("{{{}}}\r\n", data.len()));
        self.octets(data);
        self
    }

    /// A literal made of several pieces, which hold no NUL; large ones are not copied.
    pub fn literal_shared(&mut self, pieces: &[Bytes]) -> &mut Self {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        self.show(format_args!("{{{len}}}\r\n"));
        for piece in pieces {
            if piece.len() < SHARED_BYTES_MIN {
                self.octets(piece);
            } else {
                self.queued += self.open.len() + piece.len();
                self.ready.push_back(self.open.split().freeze());
                self.ready.push_back(piece.clone());
            }
        }
        self
    }

    /// Octets of a literal: NUL cannot be sent and becomes 0x80, which keeps every length (as other servers do).
    fn octets(&mut self, data: &[u8]) {
        let from = self.open.len();
        self.open.put_slice(data);
        if memchr::memchr(0, data).is_some() {
            self.open[from..].iter_mut().filter(|b| **b == 0).for_each(|b| *b = 0x80);
        }
    }
}

#[cfg(test)]
impl Output {
    /// All that waits, in one piece.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = self.pop() {
            all.extend_from_slice(&piece);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_take_the_form_that_fits() {
        for (text, expected) in [
            (&b"plain"[..], &b"\"plain\""[..]),
            (b"", b"\"\""),
            (b"a\"b\\c", b"\"a\\\"b\\\\c\""),
            (b"a\r\nb", b"{4}\r\na\r\nb"),
            (b"\xc3\xa4", b"{2}\r\n\xc3\xa4"),
            (b"a\0b", b"{3}\r\na\x80b"),
        ] {
            let mut output = Output::new();
            output.string(text);
            assert_eq!(output.drain(), expected, "{text:?}");
        }
    }

    #[test]
    fn names_are_atoms_where_they_can_be() {
        for (text, expected) in
            [("INBOX", "INBOX"), ("a b", "\"a b\""), ("", "\"\""), ("nil", "\"nil\""), ("a]", "a]")]
        {
            let mut output = Output::new();
            output.astring(text);
            assert_eq!(output.drain(), expected.as_bytes());
        }
    }

    #[test]
    fn pieces_stay_in_order() {
        let large = Bytes::from(vec![b'x'; SHARED_BYTES_MIN]);
        let mut output = Output::new();
        output.raw("(").literal_shared(&[Bytes::from_static(b"head"), large.clone()]).raw(")");
        assert_eq!(output.len(), 1 + 8 + 4 + large.len() + 1);
        let mut expected = format!("({{{}}}\r\nhead", 4 + large.len()).into_bytes();
        expected.extend_from_slice(&large);
        expected.push(b')');
        assert_eq!(output.drain(), expected);
        assert_eq!(output.len(), 0);
    }
}
