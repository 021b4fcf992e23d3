//! Walking over a raw header: its fields, where each begins and ends, exactly as they came.
//!
//! RFC 5322 §2.2 (fields, folding). Works on bytes as received: 8-bit text, bare LF and lines that are no field are
//! passed over, not refused, because mail that was accepted must be shown.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

/// One field of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawField<'a> {
    /// Before the colon, without white space.
    pub name: &'a [u8],
    /// After the colon up to the last line end, still folded; see [`unfold`].
    pub value: &'a [u8],
    /// Name, colon, value and line end: the octets as they came.
    pub whole: &'a [u8],
}

impl RawField<'_> {
    /// Whether this is the field asked for (names are compared without regard to case).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Where the header of a message or body part ends: behind the empty line, or at the end if there is none.
pub fn header_len(message: &[u8]) -> usize {
    let mut line = 0;
    for lf in memchr_iter(b'\n', message) {
        if matches!(&message[line..lf], b"" | b"\r") {
            return lf + 1;
        }
        line = lf + 1;
    }
    message.len()
}

/// The fields of a header, in their order.
pub fn fields(header: &[u8]) -> impl Iterator<Item = RawField<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < header.len() {
            let range = logical_line(header, at);
            at = range.end;
            let whole = &header[range];
            if let Some(field) = split_field(whole) {
                return Some(field);
            }
        }
        None
    })
}

/// The first field of a name.
pub fn first<'a>(header: &'a [u8], name: &str) -> Option<RawField<'a>> {
    fields(header).find(|field| field.is(name))
}

/// A line with its continuation lines.
fn logical_line(header: &[u8], from: usize) -> Range<usize> {
    let mut end = from;
    loop {
        end = memchr(b'\n', &header[end..]).map_or(header.len(), |lf| end + lf + 1);
        // A continuation is a line that begins with white space and holds more than that (RFC 5322 §2.2.3); a line of
        // white space alone is obsolete folding and still belongs to the field (RFC 5322 §4.2).
        if !matches!(header.get(end), Some(b' ' | b'\t')) {
            return from..end;
        }
    }
}

fn split_field(whole: &[u8]) -> Option<RawField<'_>> {
    let colon = memchr(b':', whole)?;
    let name = whole[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(|b| (33..=126).contains(b)) {
        return None;
    }
    let mut end = whole.len();
    if whole[..end].last() == Some(&b'\n') {
        end -= 1;
    }
    if whole[..end].last() == Some(&b'\r') {
        end -= 1;
    }
    Some(RawField { name, value: &whole[(colon + 1).min(end)..end], whole })
}

/// A field's value on one line: line ends taken out, white space around it trimmed.
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    if !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_octets() {
        let header = b"A: 1\r\nB:two\r\n lines\r\nno field here\r\nC : \xe4\n\r\n";
        let all: Vec<_> = fields(header).collect();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].name, all[0].value, all[0].whole), (&b"A"[..], &b" 1"[..], &b"A: 1\r\n"[..]));
        assert_eq!(all[1].whole, b"B:two\r\n lines\r\n");
        assert_eq!(&*unfold(all[1].value), b"two lines");
        assert_eq!((all[2].name, all[2].value), (&b"C"[..], &b" \xe4"[..]));
    }

    #[test]
    fn the_header_ends_behind_the_empty_line() {
        for (message, len) in [
            (&b"A: 1\r\n\r\nbody"[..], 8),
            (b"A: 1\n\nbody", 6),
            (b"\r\nbody", 2),
            (b"A: 1\r\n", 6),
            (b"A: 1", 4),
            (b"", 0),
        ] {
            assert_eq!(header_len(message), len, "{message:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_without_loss(bytes: Vec<u8>) {
            let header = &bytes[..header_len(&bytes)];
            let together: usize = fields(header).map(|field| field.whole.len()).sum();
            proptest::prop_assert!(together <= header.len());
        }
    }
}
