//! The MIME structure of a message as ranges of its octets: which part begins and ends where.
//!
//! RFC 2045, RFC 2046. IMAP hands out parts octet by octet (RFC 9051 §6.4.5.1), so nothing is decoded here: a tree of
//! header and body ranges, with the media type that decides how a part is read. Broken MIME never fails: a multipart
//! without a boundary is text, a missing end is the end of what surrounds it, and what nests too deep is a leaf.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};

use super::header_fields::{first, header_len, unfold};
use super::parameters::{ContentType, content_type};

/// Nesting over which a part is not opened any more.
const DEPTH_MAX: usize = 24;
/// Parts of one message; what comes after stays in the last.
const PARTS_MAX: usize = 2_000;

/// A message or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The header with the empty line that ends it.
    pub header: Range<usize>,
    /// What follows the header.
    pub body: Range<usize>,
    /// Media type and its parameters, or the default where there is none.
    pub content_type: ContentType,
    /// What it is made of.
    pub kind: Kind,
}

/// What a part is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Text, an attachment: nothing inside.
    Leaf,
    /// multipart/*; never empty.
    Multipart(Vec<Part>),
    /// message/rfc822 or message/global: the message inside.
    Message(Box<Part>),
}

impl Part {
    /// Reads the structure of a whole message.
    pub fn parse(message: &[u8]) -> Self {
        Parser { raw: message, parts: 0 }.part(0..message.len(), 0, false)
    }

    /// Header and body.
    pub fn whole(&self) -> Range<usize> {
        self.header.start..self.body.end
    }

    /// Lines of the body, as BODYSTRUCTURE counts them: line ends.
    pub fn lines(&self, message: &[u8]) -> usize {
        memchr_iter(b'\n', &message[self.body.clone()]).count()
    }

    /// The part of an IMAP part number such as `2.1` (RFC 9051 §6.4.5.1); the message itself is the empty number.
    ///
    /// Part 1 of something that has no parts is its own body.
    pub fn find(&self, number: &[u32]) -> Option<&Self> {
        let Some((&next, rest)) = number.split_first() else { return Some(self) };
        match &self.kind {
            Kind::Multipart(parts) => parts.get(usize::try_from(next).ok()?.checked_sub(1)?)?.find(rest),
            // The number of a message's part goes on in the message (RFC 9051: part 4.2.1 of a message/rfc822 4.2).
            Kind::Message(inner) => inner.inside(next, rest),
            Kind::Leaf => None,
        }
    }

    /// Resolves a number that stands inside this message.
    fn inside(&self, next: u32, rest: &[u32]) -> Option<&Self> {
        match &self.kind {
            Kind::Multipart(parts) => parts.get(usize::try_from(next).ok()?.checked_sub(1)?)?.find(rest),
            _ if next != 1 => None,
            _ => self.find(rest),
        }
    }

    /// The part of a number counted from the top message.
    pub fn find_from_top(&self, number: &[u32]) -> Option<&Self> {
        match number.split_first() {
            None => Some(self),
            Some((&next, rest)) => self.inside(next, rest),
        }
    }
}

struct Parser<'a> {
    raw: &'a [u8],
    parts: usize,
}

impl Parser<'_> {
    fn part(&mut self, range: Range<usize>, depth: usize, in_digest: bool) -> Part {
        self.parts += 1;
        let header = range.start..range.start + header_len(&self.raw[range.clone()]);
        let body = header.end..range.end;
        let field = first(&self.raw[header.clone()], "Content-Type").map(|field| unfold(field.value));
        // RFC 2045 §5.2, RFC 2046 §5.1.5: what has no Content-Type is text/plain, in a digest a message.
        let default = if in_digest { ContentType::message() } else { ContentType::text() };
        let content_type = field.as_deref().and_then(content_type).unwrap_or(default);
        let (content_type, kind) = self.open(content_type, &body, depth);
        Part { header, body, content_type, kind }
    }

    fn open(&mut self, content_type: ContentType, body: &Range<usize>, depth: usize) -> (ContentType, Kind) {
        if depth >= DEPTH_MAX {
            return (ContentType::text(), Kind::Leaf);
        }
        if content_type.is_message() {
            let inner = self.part(body.clone(), depth + 1, false);
            return (content_type, Kind::Message(Box::new(inner)));
        }
        if !content_type.is("multipart") {
            return (content_type, Kind::Leaf);
        }
        let Some(boundary) = content_type.parameter("boundary").filter(|b| !b.is_empty()) else {
            return (ContentType::text(), Kind::Leaf);
        };
        let in_digest = content_type.subtype.eq_ignore_ascii_case(b"digest");
        let ranges = self.split(body.clone(), &boundary);
        let mut parts: Vec<Part> =
            ranges.into_iter().map(|range| self.part(range, depth + 1, in_digest)).collect();
        if parts.is_empty() {
            // A multipart is never without parts in BODYSTRUCTURE (RFC 9051 §9, body-type-mpart).
            parts.push(self.part(body.end..body.end, depth + 1, false));
        }
        (content_type, Kind::Multipart(parts))
    }

    /// The parts between delimiter lines (RFC 2046 §5.1.1); the line end before a delimiter belongs to it.
    fn split(&self, body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
        let text = &self.raw[body.clone()];
        let delimiter = [b"--", boundary].concat();
        let (mut parts, mut open) = (Vec::new(), None);
        for at in memmem::find_iter(text, &delimiter) {
            if at > 0 && text[at - 1] != b'\n' {
                continue;
            }
            let line_end = memchr(b'\n', &text[at..]).map_or(text.len(), |lf| at + lf + 1);
            let rest = text[at + delimiter.len()..line_end].trim_ascii_end();
            let closes = rest.starts_with(b"--");
            if !rest.is_empty() && !closes {
                continue;
            }
            if let Some(start) = open.take() {
                parts.push(body.start + start..body.start + before_line_end(text, start, at));
            }
            if closes || self.parts + parts.len() >= PARTS_MAX {
                return parts;
            }
            open = Some(line_end);
        }
        if let Some(start) = open {
            parts.push(body.start + start..body.end);
        }
        parts
    }
}

/// Where a part ends whose delimiter line begins at `at`.
fn before_line_end(text: &[u8], start: usize, at: usize) -> usize {
    let mut end = at;
    if end > start && text[end - 1] == b'\n' {
        end -= 1;
        if end > start && text[end - 1] == b'\r' {
            end -= 1;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The octets of a numbered part's body.
    fn body<'a>(message: &'a [u8], number: &[u32]) -> Option<&'a str> {
        let part = Part::parse(message);
        part.find_from_top(number).map(|part| std::str::from_utf8(&message[part.body.clone()]).unwrap())
    }

    const NESTED: &[u8] = b"Content-Type: multipart/mixed; boundary=\"a\"\r\n\r\nprologue\r\n--a\r\n\r\none\r\n--a\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n\
        --a--\r\nepilogue\r\n";

    #[test]
    fn numbers_lead_into_multiparts_and_messages() {
        assert_eq!(body(NESTED, &[1]), Some("one"));
        assert_eq!(body(NESTED, &[2, 1]), Some("plain"));
        assert_eq!(body(NESTED, &[2, 2]), Some("<p>"));
        assert_eq!(body(NESTED, &[3]), None);
        assert_eq!(body(NESTED, &[1, 1]), None);
        assert_eq!(body(NESTED, &[2, 3]), None);
    }

    #[test]
    fn a_message_that_has_no_parts_is_its_own_part_1() {
        assert_eq!(body(b"A: b\r\n\r\ntext", &[1]), Some("text"));
        assert_eq!(body(b"A: b\r\n\r\ntext", &[2]), None);
        let forwarded = b"Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\ntext";
        assert_eq!(body(forwarded, &[1]), Some("A: b\r\n\r\ntext"));
        assert_eq!(body(forwarded, &[1, 1]), Some("text"));
        assert_eq!(body(forwarded, &[1, 2]), None);
    }

    #[test]
    fn broken_multiparts_are_shown_anyway() {
        let unclosed =
            b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\none\r\n--a\r\n\r\ntwo\r\n";
        assert_eq!(body(unclosed, &[2]), Some("two\r\n"));
        let without_boundary = b"Content-Type: multipart/mixed\r\n\r\n--a\r\n\r\none";
        assert_eq!(body(without_boundary, &[1]), Some("--a\r\n\r\none"));
        let never_used = b"Content-Type: multipart/mixed; boundary=a\r\n\r\nnothing";
        assert_eq!(body(never_used, &[1]), Some(""));
        let longer_boundary =
            b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\none\r\n--ab\r\n--a--";
        assert_eq!(body(longer_boundary, &[1]), Some("one\r\n--ab"));
        let empty = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n--a--\r\n";
        assert_eq!(body(empty, &[1]), Some(""));
    }

    #[test]
    fn nesting_ends_somewhere() {
        let mut message = Vec::new();
        for _ in 0..10_000 {
            message.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\n");
        }
        let (mut part, mut depth) = (&Part::parse(&message), 0);
        while let Kind::Message(inner) = &part.kind {
            (part, depth) = (inner, depth + 1);
        }
        assert_eq!(depth, DEPTH_MAX);
    }

    proptest::proptest! {
        #[test]
        fn ranges_lie_within_their_parent(text in "(Content-Type: (multipart/(mixed|digest); boundary=a|message/rfc822)\r\n|\r\n|--a(--)?\r\n|x|b\n){0,40}") {
            fn check(part: &Part) -> Result<(), proptest::test_runner::TestCaseError> {
                let children = match &part.kind {
                    Kind::Leaf => &[][..],
                    Kind::Multipart(parts) => parts,
                    Kind::Message(inner) => std::slice::from_ref(&**inner),
                };
                for child in children {
                    proptest::prop_assert!(part.body.start <= child.header.start && child.body.end <= part.body.end);
                    proptest::prop_assert!(child.header.end == child.body.start);
                    check(child)?;
                }
                Ok(())
            }
            check(&Part::parse(text.as_bytes()))?;
        }
    }
}
