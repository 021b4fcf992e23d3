//! A message as signatures see it: fields with their octets, and a body.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::{memchr, memchr_iter};

use super::canonical::Canonical;
use crate::message::header_fields::{RawField, fields, header_len};

/// A message that is taken apart once for all its signatures.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// All fields, in their order.
    pub fields: Vec<RawField<'a>>,
    /// What stands behind the empty line.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes a whole message apart. Lines end with CR LF.
    pub fn new(message: &'a [u8]) -> Self {
        let (header, body) = message.split_at(header_len(message));
        Self { fields: fields(header).collect(), body }
    }

    /// The fields of a name, the last one first: the order in which signatures take them (RFC 6376 §5.4.2).
    pub fn named<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m RawField<'a>> {
        self.fields.iter().rev().filter(move |field| field.is(name))
    }

    /// The fields that a list of lower-case names signs, in canonical form: for each mention of a name the last field of
    /// that name that was not taken yet, and nothing when there is none (RFC 6376 §5.4.2).
    pub fn signed_fields(&self, names: &[String], form: Canonical) -> Vec<u8> {
        let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, field) in self.fields.iter().enumerate() {
            places.entry(field.name.to_ascii_lowercase()).or_default().push(at);
        }
        let mut out = Vec::with_capacity(2048);
        for name in names {
            let taken = places.get_mut(name.as_bytes()).and_then(Vec::pop).and_then(|at| self.fields.get(at));
            if let Some(field) = taken {
                form.field(field, &mut out);
            }
        }
        out
    }
}

/// A message from a file: where no line ends with CR LF, each LF becomes one.
pub fn with_crlf(message: &[u8]) -> Cow<'_, [u8]> {
    let mail_has_crlf = memchr(b'\n', message).is_none_or(|lf| message[..lf].ends_with(b"\r"));
    if mail_has_crlf {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() + message.len() / 32);
    let mut from = 0;
    for lf in memchr_iter(b'\n', message) {
        let line = &message[from..lf];
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
        from = lf + 1;
    }
    out.extend_from_slice(&message[from..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_from_the_last_upward_and_each_once() {
        let message = Message::new(b"A: 1\r\nB: x\r\na: 2\r\n\r\nbody");
        let names: Vec<String> = ["a", "c", "a", "a", "b"].map(str::to_owned).to_vec();
        assert_eq!(message.signed_fields(&names, Canonical::Relaxed), b"a:2\r\na:1\r\nb:x\r\n");
        assert_eq!(message.body, b"body");
        let last_first: Vec<_> = message.named("A").map(|field| field.value).collect();
        assert_eq!(last_first, [b" 2", b" 1"]);
    }

    #[test]
    fn messages_from_files_get_the_line_ends_of_mail() {
        for (file, mail) in [
            (&b"A: 1\n\nbody\n"[..], &b"A: 1\r\n\r\nbody\r\n"[..]),
            (b"A: 1\r\n\r\na\nb", b"A: 1\r\n\r\na\nb"),
            (b"A: 1\n\r\nb\r\n\n", b"A: 1\r\n\r\nb\r\n\r\n"),
            (b"A", b"A"),
        ] {
            assert_eq!(&*with_crlf(file), mail, "{file:?}");
        }
    }
}
