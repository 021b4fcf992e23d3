//! From bytes to commands: lines are joined over the literals in them, within limits, before anything is parsed.
//!
//! RFC 9051 §2.2.1 and §4.3 (literals), RFC 7888 (LITERAL+), RFC 3516 and RFC 6855 (`~{n}`). Sans I/O: bytes go in,
//! [`Step`]s come out, and whoever drives it decides about each literal before a byte of it is kept. A literal that
//! is not wanted is counted down and thrown away, so that its octets are never taken for commands.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// Longest command without its literals, bytes. Some clients send sets of thousands of UIDs on one line.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Literals in one command.
const LITERALS_MAX: usize = 64;

/// A whole command as it came, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawCommand {
    /// Its lines, with the announcements (`{3}` CR LF) of the literals but without their octets; every line ends in
    /// CR LF.
    pub text: Vec<u8>,
    /// The literals in their order.
    pub literals: Vec<Literal>,
}

/// A literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// Where in [`RawCommand::text`] its octets belong: behind the CR LF of its announcement.
    pub at: usize,
    /// Its octets.
    pub data: Bytes,
    /// `~{n}`: any octets, NUL too (RFC 3516 §4.2).
    pub binary: bool,
}

impl RawCommand {
    /// The command as it was on the wire, literals in their places.
    pub fn flattened(&self) -> Vec<u8> {
        let literals: usize = self.literals.iter().map(|literal| literal.data.len()).sum();
        let mut whole = Vec::with_capacity(self.text.len() + literals);
        let mut from = 0;
        for literal in &self.literals {
            whole.extend_from_slice(&self.text[from..literal.at]);
            whole.extend_from_slice(&literal.data);
            from = literal.at;
        }
        whole.extend_from_slice(&self.text[from..]);
        whole
    }

    /// Octets of all literals.
    pub fn literal_bytes(&self) -> u64 {
        self.literals.iter().map(|literal| literal.data.len() as u64).sum()
    }
}

/// A literal that the client wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Octets.
    pub len: u64,
    /// The client waits for our `+` (a synchronising literal).
    pub waits: bool,
    /// `~{n}`.
    pub binary: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes.
    More,
    /// A literal: answer with [`Assembler::accept`] or [`Assembler::refuse`].
    Literal(Announcement),
    /// A command is there; the next begins.
    Command(RawCommand),
    /// A command was refused, and all that belonged to it has gone by; the next begins.
    Refused,
    /// The line is longer than [`LINE_BYTES_MAX`] or holds too many literals; the rest of it is passed over
    /// and ends with [`Step::Refused`].
    TooLong,
}

#[derive(Debug, Default)]
enum State {
    /// In a line; how much of the buffered bytes has no line end.
    #[default]
    Line,
    /// A literal was announced, nobody has decided about it.
    Asked(Announcement),
    /// In a literal that is wanted.
    Literal { announcement: Announcement, data: BytesMut },
    /// In a literal that is not: octets to go.
    Skip(u64),
}

/// Puts commands together.
#[derive(Debug, Default)]
pub struct Assembler {
    command: RawCommand,
    state: State,
    /// Bytes at the head of the input that are known to hold no line end.
    searched: usize,
    /// The rest of this command is thrown away.
    refused: bool,
}

impl Assembler {
    /// What has been read of the command so far, for the tag and the name in it.
    pub fn so_far(&self) -> &RawCommand {
        &self.command
    }

    /// Whether nothing of a command has been read.
    pub fn at_start(&self) -> bool {
        matches!(self.state, State::Line) && self.command.text.is_empty() && !self.refused
    }

    /// Takes the announced literal.
    pub fn accept(&mut self) {
        if let State::Asked(announcement) = self.state {
            // Grows with what arrives: an announcement costs us nothing.
            let data = BytesMut::with_capacity(usize::try_from(announcement.len.min(64 * 1024)).unwrap_or(0));
            self.state = State::Literal { announcement, data };
        }
    }

    /// Does not take the announced literal, nor the command. A client that waits for `+` sends neither the literal
    /// nor the rest (RFC 9051 §4.3); from another, both are still to come and end with [`Step::Refused`].
    pub fn refuse(&mut self) {
        if let State::Asked(announcement) = self.state {
            self.command = RawCommand::default();
            self.refused = !announcement.waits;
            self.state = if announcement.waits { State::Line } else { State::Skip(announcement.len) };
        }
    }

    /// Where the octets of a literal can be read to directly, and how many it still needs.
    pub fn literal_room(&mut self) -> Option<(&mut BytesMut, usize)> {
        match &mut self.state {
            State::Literal { announcement, data } => {
                let missing = announcement.len.saturating_sub(data.len() as u64);
                Some((data, usize::try_from(missing).unwrap_or(usize::MAX)))
                    .filter(|(_, missing)| *missing > 0)
            }
            _ => None,
        }
    }

    /// Goes on with what has been received; takes from `input` what it used.
    pub fn step(&mut self, input: &mut BytesMut) -> Step {
        loop {
            match &mut self.state {
                State::Asked(announcement) => return Step::Literal(*announcement),
                State::Skip(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    input.advance(now);
                    *left -= now as u64;
                    if *left > 0 {
                        return Step::More;
                    }
                    self.state = State::Line;
                }
                State::Literal { announcement, data } => {
                    let missing = announcement.len.saturating_sub(data.len() as u64);
                    let now = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
                    data.extend_from_slice(&input[..now]);
                    input.advance(now);
                    if (data.len() as u64) < announcement.len {
                        return Step::More;
                    }
                    let data = std::mem::take(data).freeze();
                    let literal = Literal { at: self.command.text.len(), data, binary: announcement.binary };
                    self.command.literals.push(literal);
                    self.state = State::Line;
                }
                State::Line => {
                    if let Some(step) = self.line(input) {
                        return step;
                    }
                }
            }
        }
    }

    /// A line, or what there is of it; `None` goes round again.
    fn line(&mut self, input: &mut BytesMut) -> Option<Step> {
        let Some(lf) = memchr(b'\n', &input[self.searched..]).map(|at| self.searched + at) else {
            self.searched = input.len();
            if self.refused {
                // Only the end matters: it may announce a literal.
                let keep = input.len().min(32);
                input.advance(input.len() - keep);
                self.searched = keep;
            } else if self.command.text.len() + input.len() > LINE_BYTES_MAX {
                return Some(self.too_long());
            }
            return Some(Step::More);
        };
        self.searched = 0;
        let line = input.split_to(lf + 1);
        let line = &line[..lf];
        // A line may end in LF alone: refusing it would help nobody, and no other line end is taken for one.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let announcement = announcement(line);
        if self.refused {
            return match announcement {
                Some(Announcement { waits: false, len, .. }) => {
                    self.state = State::Skip(len);
                    None
                }
                _ => {
                    self.refused = false;
                    Some(Step::Refused)
                }
            };
        }
        self.command.text.extend_from_slice(line);
        self.command.text.extend_from_slice(b"\r\n");
        let too_many = announcement.is_some() && self.command.literals.len() >= LITERALS_MAX;
        if self.command.text.len() > LINE_BYTES_MAX || too_many {
            let step = self.too_long();
            match announcement {
                Some(Announcement { waits: false, len, .. }) => self.state = State::Skip(len),
                // The line is over, nothing of it is still to come; a client that waits will not send more.
                _ => self.refused = false,
            }
            return Some(step);
        }
        match announcement {
            Some(announcement) => {
                self.state = State::Asked(announcement);
                None
            }
            None => Some(Step::Command(std::mem::take(&mut self.command))),
        }
    }

    fn too_long(&mut self) -> Step {
        self.command.literals.clear();
        self.command.text.clear();
        self.refused = true;
        Step::TooLong
    }
}

/// The literal that a line announces at its end: `{n}`, `{n+}`, `{n-}`, `~{n}`.
fn announcement(line: &[u8]) -> Option<Announcement> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|b| *b == b'{')?;
    let (before, digits) = (&inner[..open], &inner[open + 1..]);
    let (digits, waits) = match digits.strip_suffix(b"+").or_else(|| digits.strip_suffix(b"-")) {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let len = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Announcement { len, waits, binary: before.ends_with(b"~") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a conversation in pieces, takes literals up to `literal_max`, and writes down what came out.
    fn run(input: &[u8], piece: usize, literal_max: u64) -> Vec<String> {
        let (mut assembler, mut buffer, mut seen) = (Assembler::default(), BytesMut::new(), Vec::new());
        let mut pieces = input.chunks(piece.max(1));
        loop {
            match assembler.step(&mut buffer) {
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return seen,
                },
                Step::Literal(announced) if announced.len <= literal_max => assembler.accept(),
                Step::Literal(announced) => {
                    seen.push(format!("no {}", announced.len));
                    assembler.refuse();
                }
                Step::Command(command) => seen.push(String::from_utf8(command.flattened()).unwrap()),
                Step::Refused => seen.push("refused".into()),
                Step::TooLong => seen.push("too long".into()),
            }
        }
    }

    #[test]
    fn commands_come_out_whole() {
        let input = b"a NOOP\r\nb LOGIN {3}\r\njoe {4+}\r\n\r\n{}\r\nc X ~{2-}\r\n\0\xff".map(|b| b & 0x7f);
        let expected = ["a NOOP\r\n", "b LOGIN {3}\r\njoe {4+}\r\n\r\n{}\r\n", "c X ~{2-}\r\n\0\x7f\r\n"];
        let mut input = input.to_vec();
        input.extend_from_slice(b"\n");
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(run(&input, piece, 10), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_refused_literal_is_never_taken_for_a_command() {
        let input =
            b"a LOGIN {30+}\r\nx LOGOUT\r\nx LOGOUT\r\nx LOGOUT\r\n {9+}\r\nx LOGOUT\n z\r\nb NOOP\r\n";
        for piece in [1, 5, 1000] {
            assert_eq!(run(input, piece, 10), ["no 30", "refused", "b NOOP\r\n"]);
        }
    }

    #[test]
    fn after_a_refused_literal_that_waits_comes_the_next_command() {
        assert_eq!(run(b"a LOGIN {30}\r\nb NOOP\r\n", 1000, 10), ["no 30", "b NOOP\r\n"]);
    }

    #[test]
    fn long_lines_are_passed_over() {
        let mut input = b"a ".to_vec();
        input.resize(LINE_BYTES_MAX * 3, b'x');
        input.extend_from_slice(b" {12+}\r\nx LOGOUT\r\n\r\n\r\nb NOOP\r\n");
        for piece in [1000, 100_000, 1_000_000] {
            let seen = run(&input, piece, 100);
            assert_eq!(seen.first().map(String::as_str), Some("too long"), "pieces of {piece}");
            assert_eq!(seen.last().map(String::as_str), Some("b NOOP\r\n"), "pieces of {piece}");
            assert!(!seen.iter().any(|s| s.contains("LOGOUT")));
        }
    }

    #[test]
    fn announcements() {
        let some = |len, waits, binary| Some(Announcement { len, waits, binary });
        for (line, expected) in [
            (&b"a {3}"[..], some(3, true, false)),
            (b"a {0+}", some(0, false, false)),
            (b"a ~{3-}", some(3, false, true)),
            (b"a {}", None),
            (b"a {+}", None),
            (b"a {3", None),
            (b"a {-3}", None),
            (b"a {3}x", None),
            (b"a {9999999999999999999999}", None),
        ] {
            assert_eq!(announcement(line), expected, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(text in "([a-c] |\\{[0-9]\\+?\\}\r\n|\r\n|\n){0,40}", piece in 1usize..9) {
            proptest::prop_assert_eq!(run(text.as_bytes(), piece, 5), run(text.as_bytes(), 10_000, 5));
        }
    }
}
