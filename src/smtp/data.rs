//! Reading message content: where it ends, dots taken off again, and the discipline of line ends.
//!
//! RFC 5321 §4.5.2 (transparency), §2.3.8 (lines end in CR LF, and CR and LF stand nowhere alone), RFC 3030 (BDAT).
//!
//! **Smuggling.** Two servers that disagree about where a message ends let a sender hide a second message, with any
//! envelope, in the first. So only CR LF `.` CR LF ends data here, and content with a bare CR, a bare LF or a NUL is
//! never passed on. What happens to such content depends on whether the sender may believe that it ended elsewhere:
//!
//! - Usually not: a stray CR or LF stands in some line. [`DataDecoder`] reads on to the true end and reports the
//!   [`Fault`]; the message is refused there, and the session goes on in step.
//! - A dot alone between two line ends of which one is not CR LF (`LF . LF`, `LF . CR LF`, `CR . CR`, `CR LF . LF`)
//!   is where another implementation would have stopped. What follows may be commands or data, nobody knows, and a
//!   client that really ends its data so would wait for our reply for ever. [`Progress::Uncertain`] says to refuse at
//!   once and to close: nothing behind that point is ever read as a command.

use bytes::BytesMut;
use memchr::{memchr2, memchr3};

/// What content may not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// CR without LF.
    #[error("a CR without LF")]
    BareCr,
    /// LF without CR.
    #[error("an LF without CR")]
    BareLf,
    /// NUL, which RFC 5322 §2.2 and IMAP literals do not know.
    #[error("a NUL byte")]
    Nul,
}

/// How far decoding came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All input was taken, and there is more to come.
    More,
    /// The end of data; so many bytes of the input belong to it, the rest are commands.
    End {
        /// Bytes of this input, the line of the dot included.
        consumed: usize,
    },
    /// Here the sender may believe that it ended its data: refuse, close, and read no command any more.
    Uncertain,
}

/// Decodes what follows DATA, in pieces of any size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataDecoder {
    at: At,
    fault: Option<Fault>,
}

/// Where in a line we stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Behind CR LF, or at the beginning.
    #[default]
    LineStart,
    /// Behind a dot at the beginning of a line, which was taken off.
    Dot,
    /// Behind that and a CR.
    DotCr,
    /// Within a line.
    Text,
    /// Behind a CR within a line.
    Cr,
    /// Behind a bare CR or LF: what others take for the beginning of a line.
    LooseStart,
    /// Behind that and a dot.
    LooseDot,
}

impl DataDecoder {
    /// What was wrong so far; the first of its kind.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Takes the next piece. The content goes to `out`, each line with its CR LF; once there is a fault, nothing
    /// more does, because the message is lost anyway.
    pub fn decode(&mut self, input: &[u8], out: &mut BytesMut) -> Progress {
        let (mut at, mut copied) = (0, 0);
        while let Some(&byte) = input.get(at) {
            match (self.at, byte) {
                (At::LineStart, b'.') => {
                    self.copy(&input[copied..at], out);
                    copied = at + 1;
                    self.at = At::Dot;
                    at += 1;
                }
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    at += 1;
                }
                (At::DotCr, b'\n') => return Progress::End { consumed: at + 1 },
                (At::DotCr, _) => return self.uncertain(Fault::BareCr),
                (At::Dot, b'\n') => return self.uncertain(Fault::BareLf),
                (At::LooseDot, b'\r' | b'\n') => return Progress::Uncertain,
                (At::LooseStart, b'.') => {
                    self.at = At::LooseDot;
                    at += 1;
                }
                (At::Cr, b'\n') => {
                    self.at = At::LineStart;
                    at += 1;
                }
                (At::Cr, _) => {
                    self.note(Fault::BareCr);
                    self.at = At::LooseStart;
                }
                (At::LineStart | At::Dot | At::Text | At::LooseStart | At::LooseDot, _) => {
                    at = self.text(input, at);
                }
            }
        }
        // A CR behind a lone dot is either part of the end or the last that is read.
        if self.at != At::DotCr {
            self.copy(&input[copied..], out);
        }
        Progress::More
    }

    /// Runs through the line up to what needs a decision.
    fn text(&mut self, input: &[u8], from: usize) -> usize {
        self.at = At::Text;
        let Some(found) = memchr3(b'\r', b'\n', 0, &input[from..]) else { return input.len() };
        let at = from + found;
        match input[at] {
            b'\r' if input.get(at + 1) == Some(&b'\n') => {
                self.at = At::LineStart;
                return at + 2;
            }
            b'\r' => self.at = At::Cr,
            b'\n' => {
                self.note(Fault::BareLf);
                self.at = At::LooseStart;
            }
            _ => self.note(Fault::Nul),
        }
        at + 1
    }

    fn copy(&self, text: &[u8], out: &mut BytesMut) {
        if self.fault.is_none() {
            out.extend_from_slice(text);
        }
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn uncertain(&mut self, fault: Fault) -> Progress {
        self.note(fault);
        Progress::Uncertain
    }
}

/// Watches the content that comes by BDAT: no dots, and a known length, but the same discipline of line ends, for
/// it is text (RFC 3030 §2; BINARYMIME is another matter).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkChecker {
    behind_cr: bool,
    fault: Option<Fault>,
}

impl ChunkChecker {
    /// Looks at the next piece.
    pub fn check(&mut self, input: &[u8]) {
        let mut at = 0;
        if self.behind_cr && !input.is_empty() {
            self.behind_cr = false;
            if input[0] == b'\n' {
                at = 1;
            } else {
                self.fault.get_or_insert(Fault::BareCr);
            }
        }
        while self.fault.is_none() {
            let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..]) else { return };
            at += found + 1;
            match (input[at - 1], input.get(at)) {
                (b'\r', Some(b'\n')) => at += 1,
                (b'\r', None) => self.behind_cr = true,
                (b'\r', Some(_)) => self.fault = Some(Fault::BareCr),
                (b'\n', _) => self.fault = Some(Fault::BareLf),
                _ => self.fault = Some(Fault::Nul),
            }
        }
    }

    /// What was wrong so far; at the `end` of the message, a CR that waits for its LF is wrong too.
    pub fn fault(&self, end: bool) -> Option<Fault> {
        self.fault.or((end && self.behind_cr).then_some(Fault::BareCr))
    }
}

/// The first line in a buffer of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// None is complete yet.
    Incomplete,
    /// A line of so many bytes, followed by CR LF.
    Complete(usize),
    /// A CR without LF, or an LF without CR, stands before the line ends.
    Bare(Fault),
}

/// Finds the end of a command's line (RFC 5321 §2.3.8).
pub fn find_line(buffer: &[u8]) -> Line {
    match memchr2(b'\r', b'\n', buffer) {
        None => Line::Incomplete,
        Some(at) if buffer[at] == b'\n' => Line::Bare(Fault::BareLf),
        Some(at) => match buffer.get(at + 1) {
            None => Line::Incomplete,
            Some(b'\n') => Line::Complete(at),
            Some(_) => Line::Bare(Fault::BareCr),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        End { content: Vec<u8>, fault: Option<Fault>, rest: Vec<u8> },
        More { content: Vec<u8>, fault: Option<Fault> },
        Uncertain,
    }

    /// Decodes pieces one after the other; what is left of them behind the end of data is the rest.
    fn decode(pieces: &[&[u8]]) -> Seen {
        let (mut decoder, mut out) = (DataDecoder::default(), BytesMut::new());
        for (number, piece) in pieces.iter().enumerate() {
            match decoder.decode(piece, &mut out) {
                Progress::More => {}
                Progress::End { consumed } => {
                    let mut rest = piece[consumed..].to_vec();
                    rest.extend(pieces[number + 1..].concat());
                    return Seen::End { content: out.to_vec(), fault: decoder.fault(), rest };
                }
                Progress::Uncertain => return Seen::Uncertain,
            }
        }
        Seen::More { content: out.to_vec(), fault: decoder.fault() }
    }

    fn end(content: &[u8], fault: Option<Fault>, rest: &[u8]) -> Seen {
        Seen::End { content: content.to_vec(), fault, rest: rest.to_vec() }
    }

    fn table() -> Vec<(&'static [u8], Seen)> {
        let (cr, lf, nul) = (Some(Fault::BareCr), Some(Fault::BareLf), Some(Fault::Nul));
        vec![
            (b".\r\n", end(b"", None, b"")),
            (b"a\r\n.\r\n", end(b"a\r\n", None, b"")),
            (b"a\r\n.\r\nQUIT\r\n", end(b"a\r\n", None, b"QUIT\r\n")),
            (b"\r\n.\r\n", end(b"\r\n", None, b"")),
            (b"..\r\n.\r\n", end(b".\r\n", None, b"")),
            (b".a\r\n..b\r\n...\r\n.\r\n", end(b"a\r\n.b\r\n..\r\n", None, b"")),
            (b"a.\r\n b\r\n. \r\n.\r\n", end(b"a.\r\n b\r\n \r\n", None, b"")),
            (b"a\r\n", Seen::More { content: b"a\r\n".to_vec(), fault: None }),
            (b"a\r\n.\r", Seen::More { content: b"a\r\n".to_vec(), fault: None }),
            // Stray line ends: refused at the true end.
            (b"a\nb\r\n.\r\nX", end(b"", lf, b"X")),
            (b"a\rb\r\n.\r\nX", end(b"", cr, b"X")),
            (b"a\r\r\n.\r\nX", end(b"", cr, b"X")),
            (b"\n\r\n.\r\nX", end(b"", lf, b"X")),
            (b"a\n.b\r\n.\r\nX", end(b"", lf, b"X")),
            (b"a\0b\r\n.\r\nX", end(b"", nul, b"X")),
            (b"a\r\n.\0\r\n.\r\nX", end(b"a\r\n", nul, b"X")),
            // Where somebody else would have seen the end (SMTP smuggling).
            (b"a\n.\nX", Seen::Uncertain),
            (b"a\n.\r\nX", Seen::Uncertain),
            (b"a\n.\rX", Seen::Uncertain),
            (b"a\r.\rX", Seen::Uncertain),
            (b"a\r.\r\nX", Seen::Uncertain),
            (b"a\r.\nX", Seen::Uncertain),
            (b"a\r\n.\nX", Seen::Uncertain),
            (b"a\r\n.\rX", Seen::Uncertain),
            (b"a\r\n.\r\rX", Seen::Uncertain),
            (b"a\r\r\n\r.\r\nX", Seen::Uncertain),
            (b".\nX", Seen::Uncertain),
        ]
    }

    /// The content that reached `out` before a fault is nobody's business.
    fn without_lost_content(seen: Seen) -> Seen {
        match seen {
            Seen::End { fault: Some(fault), rest, .. } => end(b"", Some(fault), &rest),
            Seen::More { fault: Some(fault), .. } => Seen::More { content: Vec::new(), fault: Some(fault) },
            other => other,
        }
    }

    #[test]
    fn where_data_ends_and_what_it_holds_in_any_two_or_three_pieces() {
        for (input, expected) in table() {
            let expected = without_lost_content(expected);
            assert_eq!(without_lost_content(decode(&[input])), expected, "{input:?}");
            for first in 0..=input.len() {
                let (head, tail) = input.split_at(first);
                assert_eq!(without_lost_content(decode(&[head, tail])), expected, "{input:?} at {first}");
                for second in 0..=tail.len() {
                    let pieces = [head, &tail[..second], &tail[second..]];
                    assert_eq!(
                        without_lost_content(decode(&pieces)),
                        expected,
                        "{input:?} at {first}+{second}"
                    );
                }
            }
        }
    }

    #[test]
    fn byte_by_byte() {
        for (input, expected) in table() {
            let pieces: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(without_lost_content(decode(&pieces)), without_lost_content(expected), "{input:?}");
        }
    }

    /// RFC 5321 §4.5.2, as simply as it can be said.
    fn stuff(content: &str) -> Vec<u8> {
        let mut out = String::new();
        for line in content.split_inclusive("\r\n") {
            if line.starts_with('.') {
                out.push('.');
            }
            out.push_str(line);
        }
        out.push_str(".\r\n");
        out.into_bytes()
    }

    proptest! {
        #[test]
        fn stuffed_content_comes_back_in_any_pieces(
            lines in proptest::collection::vec("[.a\\u{80}-\\u{ff}]{0,6}", 0..8), cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let content = lines.join("\r\n") + if lines.is_empty() { "" } else { "\r\n" };
            let mut wire = stuff(&content);
            wire.extend_from_slice(b"NOOP\r\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &wire[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&pieces), end(content.as_bytes(), None, b"NOOP\r\n"));
        }

        #[test]
        fn pieces_never_change_what_is_seen(input in "[.a\r\n\0]{0,24}", cut in 0usize..24) {
            let bytes = input.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(without_lost_content(decode(&[bytes])), without_lost_content(decode(&[head, tail])));
        }

        #[test]
        fn content_without_fault_has_no_stray_line_end(input in "[.a\r\n\0]{0,24}") {
            if let Seen::End { content, fault: None, .. } = decode(&[input.as_bytes()]) {
                let text = String::from_utf8(content).unwrap();
                let bare = text.replace("\r\n", "");
                prop_assert!(!bare.contains(['\r', '\n', '\0']), "{:?}", text);
                prop_assert!(text.is_empty() || text.ends_with("\r\n"));
            }
        }

        #[test]
        fn chunks_are_judged_the_same_in_any_pieces(input in "[a\r\n\0]{0,12}", cut in 0usize..12) {
            let bytes = input.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let (mut whole, mut pieces) = (ChunkChecker::default(), ChunkChecker::default());
            whole.check(bytes);
            pieces.check(head);
            pieces.check(tail);
            prop_assert_eq!(whole.fault(true), pieces.fault(true));
            prop_assert_eq!(whole.fault(true).is_some(), input.replace("\r\n", "").contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn lines_of_commands() {
        for (buffer, line) in [
            (&b""[..], Line::Incomplete),
            (b"NOOP", Line::Incomplete),
            (b"NOOP\r", Line::Incomplete),
            (b"NOOP\r\nQUIT\r\n", Line::Complete(4)),
            (b"\r\n", Line::Complete(0)),
            (b"NOOP\n", Line::Bare(Fault::BareLf)),
            (b"NO\rOP\r\n", Line::Bare(Fault::BareCr)),
            (b"\r\r\n", Line::Bare(Fault::BareCr)),
        ] {
            assert_eq!(find_line(buffer), line, "{buffer:?}");
        }
    }
}
