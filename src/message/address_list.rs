//! Address lists of header fields, undecoded, as IMAP's ENVELOPE gives them.
//!
//! RFC 5322 §3.4 with its obsolete forms (routes, missing commas' worth of junk); never fails: what is no address is
//! passed over. Encoded words stay as they are (RFC 9051 §7.5.2).

/// One entry of an address list; a group begins and ends with an entry of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An address.
    Address {
        /// Display name, or a comment behind the address.
        name: Option<Vec<u8>>,
        /// Obsolete source route, such as `@a,@b`.
        route: Option<Vec<u8>>,
        /// Local part, unquoted.
        local: Vec<u8>,
        /// Domain; empty where it is missing.
        domain: Vec<u8>,
    },
    /// `name:`
    GroupStart(Vec<u8>),
    /// `;`
    GroupEnd,
}

/// Entries of one list; what comes after is left out.
const ENTRIES_MAX: usize = 10_000;

/// Reads an address list; line ends count as white space.
pub fn parse(value: &[u8]) -> Vec<Entry> {
    let mut reader = Reader { rest: value, entries: Vec::new(), in_group: false };
    while !reader.rest.is_empty() && reader.entries.len() < ENTRIES_MAX {
        reader.entry();
    }
    if reader.in_group {
        reader.entries.push(Entry::GroupEnd);
    }
    reader.entries
}

struct Reader<'a> {
    rest: &'a [u8],
    entries: Vec<Entry>,
    in_group: bool,
}

/// What stands before a separator.
#[derive(Default)]
struct Words {
    /// Words in their order; whether white space stood before each.
    text: Vec<u8>,
    /// Text without white space between, for `a . b @ c`.
    joined: Vec<u8>,
    /// Where the last `@` outside quotes stands in `joined`.
    at_sign: Option<usize>,
    comment: Option<Vec<u8>>,
}

impl Words {
    fn push(&mut self, word: &[u8], space_before: bool) {
        if space_before && !self.text.is_empty() {
            self.text.push(b' ');
        }
        self.text.extend_from_slice(word);
        self.joined.extend_from_slice(word);
    }

    fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }
}

impl Reader<'_> {
    /// One entry up to a comma, semicolon or the end.
    fn entry(&mut self) {
        let mut words = Words::default();
        let mut angle = None;
        let mut space = false;
        while let Some((&byte, rest)) = self.rest.split_first() {
            match byte {
                b',' => {
                    self.rest = rest;
                    break;
                }
                b';' => {
                    self.rest = rest;
                    self.finish(words, angle);
                    if std::mem::take(&mut self.in_group) {
                        self.entries.push(Entry::GroupEnd);
                    }
                    return;
                }
                b':' if !self.in_group && angle.is_none() && words.at_sign.is_none() => {
                    self.rest = rest;
                    self.in_group = true;
                    self.entries.push(Entry::GroupStart(words.text));
                    return;
                }
                b'<' if angle.is_none() => {
                    self.rest = rest;
                    angle = Some(self.angle());
                }
                b'(' => {
                    let comment = self.comment();
                    words.comment = words.comment.or(Some(comment));
                    space = true;
                }
                b'"' => {
                    let quoted = self.quoted();
                    words.push(&quoted, space);
                    space = false;
                }
                b' ' | b'\t' | b'\r' | b'\n' | 0 => {
                    self.rest = rest;
                    space = true;
                }
                _ => {
                    if byte == b'@' {
                        words.at_sign = Some(words.joined.len());
                    }
                    words.push(&[byte], space);
                    self.rest = rest;
                    space = false;
                }
            }
        }
        self.finish(words, angle);
    }

    fn finish(&mut self, words: Words, angle: Option<Words>) {
        let (address, name) = match angle {
            Some(angle) => (angle, Some(words.text).filter(|text| !text.is_empty()).or(words.comment)),
            None if words.is_empty() => return,
            None => {
                let comment = words.comment.clone();
                (words, comment)
            }
        };
        let (route, address) = split_route(address);
        let (local, domain) = match address.at_sign {
            Some(at) => (address.joined[..at].to_vec(), address.joined[at + 1..].to_vec()),
            None => (address.text, Vec::new()),
        };
        self.entries.push(Entry::Address { name: name.filter(|n| !n.is_empty()), route, local, domain });
    }

    /// Behind `<`, up to `>`.
    fn angle(&mut self) -> Words {
        let mut words = Words::default();
        while let Some((&byte, rest)) = self.rest.split_first() {
            match byte {
                b'>' => {
                    self.rest = rest;
                    break;
                }
                b'"' => {
                    let quoted = self.quoted();
                    words.push(&quoted, false);
                }
                b'(' => drop(self.comment()),
                b' ' | b'\t' | b'\r' | b'\n' | 0 => self.rest = rest,
                _ => {
                    if byte == b'@' {
                        words.at_sign = Some(words.joined.len());
                    }
                    words.push(&[byte], false);
                    self.rest = rest;
                }
            }
        }
        words
    }

    /// At `"`: what is quoted, without the quotes.
    fn quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        self.rest = &self.rest[1..];
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => self.escaped(&mut text),
                b'\r' | b'\n' | 0 => {}
                _ => text.push(byte),
            }
        }
        text
    }

    /// At `(`: the comment, without the parentheses around it.
    fn comment(&mut self) -> Vec<u8> {
        let (mut text, mut depth) = (Vec::new(), 0usize);
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'(' => {
                    depth += 1;
                    if depth == 1 {
                        continue;
                    }
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                b'\\' => {
                    self.escaped(&mut text);
                    continue;
                }
                b'\r' | b'\n' | 0 => continue,
                _ => {}
            }
            text.push(byte);
        }
        text.trim_ascii().to_vec()
    }

    fn escaped(&mut self, text: &mut Vec<u8>) {
        if let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            if !matches!(byte, b'\r' | b'\n' | 0) {
                text.push(byte);
            }
        }
    }
}

/// Takes the source route off: `@a,@b:user@domain`.
fn split_route(mut address: Words) -> (Option<Vec<u8>>, Words) {
    if address.joined.first() != Some(&b'@') {
        return (None, address);
    }
    let Some(colon) = memchr::memchr(b':', &address.joined) else { return (None, address) };
    let route = address.joined[..colon].to_vec();
    address.joined.drain(..=colon);
    address.text.clone_from(&address.joined);
    address.at_sign = address.at_sign.and_then(|at| at.checked_sub(colon + 1));
    (Some(route), address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |entry: Entry| match entry {
            Entry::Address { name, route, local, domain } => format!(
                "{}|{}|{}|{}",
                name.map_or("-".into(), |n| text(&n)),
                route.map_or("-".into(), |r| text(&r)),
                text(&local),
                text(&domain)
            ),
            Entry::GroupStart(name) => format!("{}:", text(&name)),
            Entry::GroupEnd => ";".into(),
        };
        parse(value.as_bytes()).into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_and_what_they_mean() {
        for (value, expected) in [
            ("a@b", "-|-|a|b"),
            ("Real Name <a@b>", "Real Name|-|a|b"),
            ("\"Name, Real\" <a@b>, c@d", "Name, Real|-|a|b -|-|c|d"),
            ("a@b (Real Name)", "Real Name|-|a|b"),
            ("<@r1,@r2:a@b>", "-|@r1,@r2|a|b"),
            ("=?utf-8?q?=C3=A9?=\r\n\t=?utf-8?q?x?= <a@b>", "=?utf-8?q?=C3=A9?= =?utf-8?q?x?=|-|a|b"),
            ("g: a@b, c@d;, e@f", "g: -|-|a|b -|-|c|d ; -|-|e|f"),
            ("g1:;, g2: (foo) ;", "g1: ; g2: ;"),
            ("undisclosed-recipients:;", "undisclosed-recipients: ;"),
            ("open: a@b", "open: -|-|a|b ;"),
            ("\"quoted local\"@b", "-|-|quoted local|b"),
            ("\"a@x\"@b", "-|-|a@x|b"),
            ("a . b @ c . d", "-|-|a.b|c.d"),
            ("postmaster", "-|-|postmaster|"),
            ("Only Words", "-|-|Only Words|"),
            ("", ""),
            (" , ,", ""),
            ("a@[192.0.2.1]", "-|-|a|[192.0.2.1]"),
            ("a@[IPv6:2001:db8::1]", "-|-|a|[IPv6:2001:db8::1]"),
            ("J\u{e4}ger <j@x>", "J\u{e4}ger|-|j|x"),
            ("(a \\) (b) c) x@y", "a ) (b) c|-|x|y"),
            ("<>", "-|-||"),
        ] {
            assert_eq!(written(value), expected, "{value:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            parse(&bytes);
        }

        #[test]
        fn anything_that_looks_like_a_list_is_read(text in "[a@<>:;,()\"\\\\ .]{0,60}") {
            parse(text.as_bytes());
        }
    }
}
