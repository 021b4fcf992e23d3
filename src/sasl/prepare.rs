//! SASLprep (RFC 4013): the one form of a user name or password that is written in several ways.

use std::borrow::Cow;

/// The text holds characters that SASLprep forbids, or nothing that it keeps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user name or password that holds control or other characters which SASLprep forbids, or nothing")]
pub struct Unprepared;

/// Prepares a user name or password. One that is made of ASCII stays as it is.
pub fn prepare(text: &str) -> Result<Cow<'_, str>, Unprepared> {
    match stringprep::saslprep(text) {
        Ok(prepared) if !prepared.is_empty() => Ok(prepared),
        _ => Err(Unprepared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_4013() {
        for (text, prepared) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("\u{627}1", None),
            ("\u{ad}", None),
            ("", None),
        ] {
            assert_eq!(prepare(text).ok().as_deref(), prepared, "{text:?}");
        }
    }
}
