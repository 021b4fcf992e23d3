//! xtext: how DSN and AUTH parameters carry characters that a command line cannot (RFC 3461 §4).

use std::fmt::Write;

/// Writes text as xtext. What is not ASCII stays as it is: it only travels with SMTPUTF8 (RFC 6533 §3).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '!'..='~') && c != '+' && c != '=' || !c.is_ascii() {
            out.push(c);
        } else {
            // Writing into a String does not fail.
            let _ = write!(out, "+{:02X}", c as u32);
        }
    }
    out
}

/// Reads xtext; `None` for what is none, and for what decodes to a control character, which could break the
/// lines of a report.
pub fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => {
                // hexchar = "+" and two digits, upper-case.
                let digit = |at: usize| match bytes.get(at) {
                    Some(b @ b'0'..=b'9') => Some(b - b'0'),
                    Some(b @ b'A'..=b'F') => Some(b - b'A' + 10),
                    _ => None,
                };
                out.push(digit(at)? << 4 | digit(at + 1)?);
                at += 2;
            }
            b'=' | ..=b' ' | 0x7f => return None,
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok().filter(|decoded| !decoded.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (plain, xtext) in [("", ""), ("QQ314159", "QQ314159"), ("a+b=c d", "a+2Bb+3Dc+20d"), ("ü", "ü")]
        {
            assert_eq!(encode(plain), xtext);
            assert_eq!(decode(xtext).as_deref(), Some(plain));
        }
        assert_eq!(decode("+C3+BC").as_deref(), Some("ü"));
        for bad in ["+", "+2", "+2b", "+G0", "a=b", "a b", "+0D+0A", "+FF", "+7F"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[^\\p{Cc}]{0,30}") {
            proptest::prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn reading_never_panics(text: String) {
            let _ = decode(&text);
        }
    }
}
