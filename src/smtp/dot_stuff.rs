//! Content as DATA sends it: a dot before each dot that begins a line, and the end mark.
//!
//! RFC 5321 §4.5.2 (transparency), §4.1.1.4 (end of data).
//!
//! Most messages hold no line that begins with a dot. They are sent as they are, without a copy.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

/// Content ready for DATA: send `body`, then `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuffed {
    /// The content with its dots doubled; the given bytes themselves where there was nothing to double.
    pub body: Bytes,
    /// The end mark; it also ends a last line that has no end.
    pub end: &'static [u8],
}

/// Makes content ready for DATA. Content is expected in CR LF lines; a dot after a bare LF is doubled as well, so that a
/// peer that takes bare LF for a line end cannot be made to see the end of data inside a message (SMTP smuggling).
pub fn stuff(content: &Bytes) -> Stuffed {
    let end: &'static [u8] =
        if content.is_empty() || content.ends_with(b"\r\n") { b".\r\n" } else { b"\r\n.\r\n" };
    let finder = memmem::Finder::new(b"\n.");
    let first = if content.first() == Some(&b'.') { Some(0) } else { finder.find(content).map(|at| at + 1) };
    let Some(first) = first else { return Stuffed { body: content.clone(), end } };
    let mut body = BytesMut::with_capacity(content.len() + content.len() / 32 + 16);
    let (mut done, mut dot) = (0, Some(first));
    while let Some(at) = dot {
        body.extend_from_slice(&content[done..at]);
        body.put_u8(b'.');
        done = at;
        dot = finder.find(&content[done..]).map(|found| done + found + 1);
    }
    body.extend_from_slice(&content[done..]);
    Stuffed { body: body.freeze(), end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What goes over the wire between DATA's 354 and its final reply.
    fn on_the_wire(content: &str) -> String {
        let stuffed = stuff(&Bytes::copy_from_slice(content.as_bytes()));
        String::from_utf8([&stuffed.body[..], stuffed.end].concat()).unwrap()
    }

    /// A receiver after RFC 5321 §4.5.2, line by line; `None` when the data do not end where the bytes end.
    fn receive(wire: &str) -> Option<String> {
        let (mut content, mut rest) = (String::new(), wire);
        loop {
            let (line, after) = rest.split_once("\r\n")?;
            match line.strip_prefix('.') {
                Some("") => return after.is_empty().then_some(content),
                Some(line) => content += line,
                None => content += line,
            }
            content += "\r\n";
            rest = after;
        }
    }

    #[test]
    fn dots_at_the_head_of_lines_are_doubled() {
        for (content, wire) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r\n..b\r\n.c\r\n", "a\r\n...b\r\n..c\r\n.\r\n"),
            ("a.b\r\n .c\r\n", "a.b\r\n .c\r\n.\r\n"),
            ("a\n.\r\nb\r\n", "a\n..\r\nb\r\n.\r\n"),
            ("a\r", "a\r\r\n.\r\n"),
        ] {
            assert_eq!(on_the_wire(content), wire, "{content:?}");
        }
    }

    #[test]
    fn nothing_is_copied_where_nothing_is_doubled() {
        let content = Bytes::from_static(b"Subject: x\r\n\r\nHello.\r\n");
        assert_eq!(stuff(&content).body.as_ptr(), content.as_ptr());
    }

    proptest! {
        #[test]
        fn a_receiver_gets_what_was_sent(lines in proptest::collection::vec("[.a]{0,4}", 0..20)) {
            let content: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
            prop_assert_eq!(receive(&on_the_wire(&content)), Some(content));
        }

        #[test]
        fn no_content_ends_data_early(content in "[.\r\na]{0,40}") {
            prop_assert!(receive(&on_the_wire(&content)).is_some());
        }
    }
}
