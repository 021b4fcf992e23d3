//! Content-Transfer-Encoding: octets as lines of ASCII that every server passes on.
//!
//! RFC 2045 §6.7 (quoted-printable), §6.8 (base64). Input and output have CR LF lines.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest line of either encoding, without its line end.
const LINE_BYTES_MAX: usize = 76;
/// Octets that fill a line of base64.
const BASE64_LINE_OCTETS: usize = LINE_BYTES_MAX / 4 * 3;

/// Text in quoted-printable: what is ASCII stays readable, line ends stay line ends.
pub fn quoted_printable(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut column = 0;
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        if text[at..].starts_with(b"\r\n") {
            out.push_str("\r\n");
            (column, at) = (0, at + 2);
            continue;
        }
        let ends_line = at + 1 == text.len() || text[at + 1..].starts_with(b"\r\n");
        // Rules 2 and 3: white space only where something follows it on its line.
        let plain =
            matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !ends_line);
        let width = if plain { 1 } else { 3 };
        // Rule 5: a soft line break, and room for its `=`.
        if column + width > LINE_BYTES_MAX - usize::from(!ends_line) {
            out.push_str("=\r\n");
            column = 0;
        }
        if plain {
            out.push(char::from(octet));
        } else {
            let _ = write!(out, "={octet:02X}");
        }
        column += width;
        at += 1;
    }
    out
}

/// Octets in base64, each line with its line end.
pub fn base64_lines(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len() / 2 * 3);
    for line in octets.chunks(BASE64_LINE_OCTETS) {
        STANDARD.encode_string(line, &mut out);
        out.push_str("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_printable_as_in_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("plain\r\n", "plain\r\n"),
            ("a=b", "a=3Db"),
            ("ends in space \r\nand tab\t", "ends in space=20\r\nand tab=09"),
            ("grün\r\n", "gr=C3=BCn\r\n"),
            ("bare \r and \n", "bare =0D and =0A"),
        ] {
            assert_eq!(quoted_printable(text.as_bytes()), expected, "{text:?}");
        }
        let full = "x".repeat(76);
        assert_eq!(quoted_printable(full.as_bytes()), full, "76 fit");
        assert_eq!(quoted_printable(format!("{full}y").as_bytes()), format!("{}=\r\nxy", &full[1..]));
    }

    /// Another's reading of it.
    fn decoded(encoding: &str, encoded: &str) -> Vec<u8> {
        let message =
            format!("Content-Type: application/x\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{encoded}");
        let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
        parsed.parts[0].contents().to_vec()
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back_and_no_line_is_too_long(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5)
        ) {
            let octets = lines.join(&b"\r\n"[..]);
            let (quoted, base64) = (quoted_printable(&octets), base64_lines(&octets));
            for encoded in [&quoted, &base64] {
                prop_assert!(encoded.is_ascii());
                prop_assert!(encoded.split("\r\n").all(|line| line.len() <= 76), "{}", encoded);
                prop_assert!(!encoded.replace("\r\n", "").contains(['\r', '\n']));
            }
            prop_assert_eq!(STANDARD.decode(base64.replace("\r\n", "")).unwrap(), octets.clone());
            if octets.last().is_some_and(|last| !last.is_ascii_whitespace()) {
                prop_assert_eq!(decoded("quoted-printable", &quoted), octets);
            }
        }
    }
}
