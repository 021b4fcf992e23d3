//! The forms in which header fields and bodies are hashed (RFC 6376 §3.4).

use memchr::memchr;

use crate::message::header_fields::RawField;

/// Octets that are handed on in one piece.
const PIECE_BYTES: usize = 16 * 1024;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Canonical {
    /// As it is.
    Simple,
    /// Changes of white space and of a field name's case do not matter.
    Relaxed,
}

impl Canonical {
    /// `simple` or `relaxed`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "simple" => Some(Self::Simple),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Relaxed => "relaxed",
        }
    }

    /// Writes a field, CR LF at its end.
    pub fn field(self, field: &RawField<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Simple => out.extend_from_slice(without_line_end(field.whole)),
            Self::Relaxed => relaxed_field(field.name, field.value, out),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the field of a signature with another value instead of its own, without a line end (RFC 6376 §3.7).
    pub fn own_field(self, field: &RawField<'_>, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Simple => {
                let colon = memchr(b':', field.whole).map_or(field.whole.len(), |colon| colon + 1);
                out.extend_from_slice(&field.whole[..colon]);
                out.extend_from_slice(value);
            }
            Self::Relaxed => relaxed_field(field.name, value, out),
        }
    }

    /// Hands the body on, piece by piece.
    pub fn body(self, body: &[u8], mut piece: impl FnMut(&[u8])) {
        match self {
            Self::Simple => {
                // §3.4.3: empty lines at the end do not count, and a body ends with CR LF, even an empty one.
                let mut rest = body;
                while let Some(shorter) = rest.strip_suffix(b"\r\n") {
                    rest = shorter;
                }
                piece(rest);
                piece(b"\r\n");
            }
            Self::Relaxed => relaxed_body(body, piece),
        }
    }
}

fn without_line_end(whole: &[u8]) -> &[u8] {
    let whole = whole.strip_suffix(b"\n").unwrap_or(whole);
    whole.strip_suffix(b"\r").unwrap_or(whole)
}

/// §3.4.2.
fn relaxed_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut space = false;
    for &byte in value {
        match byte {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => space = true,
            _ => {
                if std::mem::take(&mut space) && out.len() > start {
                    out.push(b' ');
                }
                out.push(byte);
            }
        }
    }
}

/// §3.4.4.
fn relaxed_body(body: &[u8], mut piece: impl FnMut(&[u8])) {
    let mut out = Vec::with_capacity(PIECE_BYTES + 1024);
    let (mut rest, mut empty_lines) = (body, 0_u64);
    while !rest.is_empty() {
        // Only CR LF ends a line; a bare LF is an octet like any other.
        let (line, behind) = split_line(rest);
        rest = behind;
        let line = trim_end(line);
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            out.extend_from_slice(b"\r\n");
            flush(&mut out, &mut piece);
        }
        let mut words = line;
        while !words.is_empty() {
            let space = words.iter().take_while(|byte| is_wsp(**byte)).count();
            if space > 0 {
                out.push(b' ');
            }
            words = &words[space..];
            let word = words.iter().take_while(|byte| !is_wsp(**byte)).count();
            out.extend_from_slice(&words[..word]);
            words = &words[word..];
            flush(&mut out, &mut piece);
        }
        out.extend_from_slice(b"\r\n");
    }
    piece(&out);
}

fn flush(out: &mut Vec<u8>, piece: &mut impl FnMut(&[u8])) {
    if out.len() >= PIECE_BYTES {
        piece(out);
        out.clear();
    }
}

fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    while let Some(cr) = memchr(b'\r', &text[from..]).map(|at| from + at) {
        if text.get(cr + 1) == Some(&b'\n') {
            return (&text[..cr], &text[cr + 2..]);
        }
        from = cr + 1;
    }
    (text, &[])
}

fn trim_end(line: &[u8]) -> &[u8] {
    let kept = line.iter().rposition(|byte| !is_wsp(*byte)).map_or(0, |at| at + 1);
    &line[..kept]
}

const fn is_wsp(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::header_fields::fields;

    fn body(form: Canonical, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        form.body(text, |piece| out.extend_from_slice(piece));
        out
    }

    fn header(form: Canonical, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        fields(text).for_each(|field| form.field(&field, &mut out));
        out
    }

    /// RFC 6376 §3.4.5.
    #[test]
    fn the_examples_of_the_standard() {
        let (head, text) = (b"A: X\r\nB : Y\t\r\n\tZ  \r\n", b" C \r\nD \t E\r\n\r\n\r\n");
        assert_eq!(header(Canonical::Relaxed, head), b"a:X\r\nb:Y Z\r\n");
        assert_eq!(header(Canonical::Simple, head), head);
        assert_eq!(body(Canonical::Relaxed, text), b" C\r\nD E\r\n");
        assert_eq!(body(Canonical::Simple, text), b" C \r\nD \t E\r\n");
    }

    #[test]
    fn ends_of_bodies() {
        for (text, simple, relaxed) in [
            (&b""[..], &b"\r\n"[..], &b""[..]),
            (b"\r\n", b"\r\n", b""),
            (b"\r\n\r\n", b"\r\n", b""),
            (b" \r\n\t\r\n", b" \r\n\t\r\n", b""),
            (b"a", b"a\r\n", b"a\r\n"),
            (b"a\r\n", b"a\r\n", b"a\r\n"),
            (b"a\r\n \r\n\r\n", b"a\r\n \r\n", b"a\r\n"),
            (b"\r\n\r\na \r\n", b"\r\n\r\na \r\n", b"\r\n\r\na\r\n"),
            (b"a \r\n \r\n\tb\t c", b"a \r\n \r\n\tb\t c\r\n", b"a\r\n\r\n b c\r\n"),
            (b"a\nb\rc\r\n", b"a\nb\rc\r\n", b"a\nb\rc\r\n"),
        ] {
            assert_eq!(body(Canonical::Simple, text), simple, "{text:?}");
            assert_eq!(body(Canonical::Relaxed, text), relaxed, "{text:?}");
        }
    }

    #[test]
    fn a_field_without_value_and_one_without_line_end() {
        assert_eq!(header(Canonical::Relaxed, b"Subject:\r\nX:  a"), b"subject:\r\nx:a\r\n");
        assert_eq!(header(Canonical::Simple, b"Subject:\r\nX:  a"), b"Subject:\r\nX:  a\r\n");
    }

    proptest::proptest! {
        #[test]
        fn relaxing_twice_changes_nothing_more(text in proptest::collection::vec("[ \ta\r\n]|\r\n", 0..60)) {
            let once = body(Canonical::Relaxed, text.concat().as_bytes());
            proptest::prop_assert_eq!(&body(Canonical::Relaxed, &once), &once);
        }
    }
}
