//! Fields of the form `value; name=value`: Content-Type, Content-Disposition and their relatives.
//!
//! RFC 2045 §5.1 (syntax), RFC 2183. Parameters come as written: RFC 2231 continuations and encodings keep their names
//! (`filename*0*`), because IMAP passes them on like this.

/// A media type and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// As written, such as `text`.
    pub media: Vec<u8>,
    /// As written, such as `plain`.
    pub subtype: Vec<u8>,
    /// Name and value, in their order.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl ContentType {
    /// What has no (or no readable) Content-Type (RFC 2045 §5.2).
    pub fn text() -> Self {
        let charset = (b"charset".to_vec(), b"us-ascii".to_vec());
        Self { media: b"text".to_vec(), subtype: b"plain".to_vec(), parameters: vec![charset] }
    }

    /// The default in multipart/digest (RFC 2046 §5.1.5).
    pub fn message() -> Self {
        Self { media: b"message".to_vec(), subtype: b"rfc822".to_vec(), parameters: Vec::new() }
    }

    /// Whether the top-level type is this one.
    pub fn is(&self, media: &str) -> bool {
        self.media.eq_ignore_ascii_case(media.as_bytes())
    }

    /// Whether there is a message inside: message/rfc822, or message/global (RFC 6532).
    pub fn is_message(&self) -> bool {
        let subtype = |name: &[u8]| self.subtype.eq_ignore_ascii_case(name);
        self.is("message") && (subtype(b"rfc822") || subtype(b"global"))
    }

    /// The value of the first parameter of a name.
    pub fn parameter(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value.clone())
    }
}

/// Parameters over which the rest is left out.
const PARAMETERS_MAX: usize = 64;

/// Reads an unfolded Content-Type; `None` where it has no type and subtype.
pub fn content_type(value: &[u8]) -> Option<ContentType> {
    let mut cursor = Cursor { rest: value };
    let media = cursor.token()?;
    cursor.eat(b'/').then_some(())?;
    let subtype = cursor.token()?;
    Some(ContentType { media, subtype, parameters: cursor.parameters() })
}

/// A value, and its parameters as name and value in their order.
pub type Parameterised = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// Reads an unfolded field of the form `token; name=value`, such as Content-Disposition.
pub fn parameterised(value: &[u8]) -> Option<Parameterised> {
    let mut cursor = Cursor { rest: value };
    let token = cursor.token()?;
    Some((token, cursor.parameters()))
}

/// One token, comments and white space around it skipped; such as Content-Transfer-Encoding.
pub fn token(value: &[u8]) -> Option<Vec<u8>> {
    Cursor { rest: value }.token()
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// Skips white space and comments (RFC 5322 §3.2.2), nested ones too.
    fn skip(&mut self) {
        let mut depth = 0usize;
        while let Some((&byte, rest)) = self.rest.split_first() {
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => {
                    self.rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if depth > 0 => {}
                _ => return,
            }
            self.rest = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip();
        if self.rest.first() == Some(&byte) {
            self.rest = &self.rest[1..];
            return true;
        }
        false
    }

    fn token(&mut self) -> Option<Vec<u8>> {
        self.skip();
        let special = |b: &u8| b.is_ascii_control() || b" ()<>@,;:\\\"/[]?=".contains(b);
        let len = self.rest.iter().position(special).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        (!token.is_empty()).then(|| token.to_vec())
    }

    fn parameters(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        while all.len() < PARAMETERS_MAX {
            // Anything up to the next semicolon that is no parameter is passed over.
            self.skip();
            let Some(at) = memchr::memchr(b';', self.rest) else { break };
            self.rest = &self.rest[at + 1..];
            let Some(name) = self.token() else { continue };
            if !self.eat(b'=') {
                continue;
            }
            all.push((name, self.value()));
        }
        all
    }

    /// A quoted string, or everything up to the next semicolon or white space: unquoted values hold characters that
    /// they should not more often than not.
    fn value(&mut self) -> Vec<u8> {
        self.skip();
        if !self.eat(b'"') {
            let end =
                self.rest.iter().position(|b| matches!(b, b';' | b' ' | b'\t')).unwrap_or(self.rest.len());
            let (value, rest) = self.rest.split_at(end);
            self.rest = rest;
            return value.to_vec();
        }
        let mut value = Vec::new();
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => {
                    if let Some((&quoted, rest)) = rest.split_first() {
                        value.push(quoted);
                        self.rest = rest;
                    }
                }
                _ => value.push(byte),
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (text, media, subtype, parameters) in [
            ("text/plain", "text", "plain", vec![]),
            (" Text / HTML ; charset=utf-8", "Text", "HTML", vec![("charset", "utf-8")]),
            ("a/b; x=\"q\\\"; y\"; z=1", "a", "b", vec![("x", "q\"; y"), ("z", "1")]),
            ("a/b (c (d) \\) e); x=(f)1 (g)", "a", "b", vec![("x", "1")]),
            ("multipart/mixed; boundary=a=b:c/d;;", "multipart", "mixed", vec![("boundary", "a=b:c/d")]),
            ("a/b; junk; filename*0*=utf-8''x%20; x", "a", "b", vec![("filename*0*", "utf-8''x%20")]),
            ("a/b; x=\"open", "a", "b", vec![("x", "open")]),
        ] {
            let read = content_type(text.as_bytes()).unwrap();
            let bytes = |(n, v): (&str, &str)| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
            assert_eq!(read.media, media.as_bytes(), "{text}");
            assert_eq!(read.subtype, subtype.as_bytes(), "{text}");
            assert_eq!(read.parameters, parameters.into_iter().map(bytes).collect::<Vec<_>>(), "{text}");
        }
        for text in ["", "text", "/plain", "text/", ";"] {
            assert_eq!(content_type(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            content_type(&bytes);
            parameterised(&bytes);
        }
    }
}
