//! Mailbox names: UTF-8, levels separated by `/`, `INBOX` in any case.
//!
//! RFC 9051 §5.1 (naming), §5.1.1 (hierarchy), §6.3.4 (CREATE); RFC 5198 §2 (no control characters).

use super::StoreError;

/// The name every account has (RFC 9051 §5.1), in the only form the store keeps.
pub const INBOX: &str = "INBOX";
/// What separates levels.
pub const SEPARATOR: char = '/';
/// Longest name, all levels together.
pub const NAME_BYTES_MAX: usize = 1_000;
/// Deepest nesting.
pub const NAME_LEVELS_MAX: usize = 32;

/// A checked mailbox name in its one form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// Checks a name. One separator at the end is dropped: CREATE may carry it (RFC 9051 §6.3.4).
    pub(super) fn new(text: &str) -> Result<Self, StoreError> {
        let text = text.strip_suffix(SEPARATOR).unwrap_or(text);
        if text.is_empty() {
            return Err(StoreError::invalid("a mailbox name cannot be empty"));
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(StoreError::invalid(format!("a mailbox name has at most {NAME_BYTES_MAX} bytes")));
        }
        if text.split(SEPARATOR).count() > NAME_LEVELS_MAX {
            return Err(StoreError::invalid(format!("mailboxes nest at most {NAME_LEVELS_MAX} deep")));
        }
        if text.split(SEPARATOR).any(str::is_empty) {
            return Err(StoreError::invalid("a mailbox name has something before and after each /"));
        }
        // `*` and `%` are wildcards of LIST (RFC 9051 §6.3.9); U+2028 and U+2029 are line ends (RFC 5198 §2).
        let bad = |c: char| c.is_control() || matches!(c, '*' | '%' | '\u{2028}' | '\u{2029}');
        if text.contains(bad) {
            return Err(StoreError::invalid("a mailbox name has no control characters, * or %"));
        }
        let (first, rest) =
            text.split_once(SEPARATOR).map_or((text, None), |(first, rest)| (first, Some(rest)));
        let first = if first.eq_ignore_ascii_case(INBOX) { INBOX } else { first };
        Ok(Self(rest.map_or_else(|| first.to_owned(), |rest| format!("{first}{SEPARATOR}{rest}"))))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_inbox(&self) -> bool {
        self.0 == INBOX
    }

    /// The levels above, highest first.
    pub(super) fn parents(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.match_indices(SEPARATOR).map(|(end, _)| Name(self.0[..end].to_owned()))
    }

    /// Whether this name stands below `other`.
    pub(super) fn is_below(&self, other: &Name) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with(SEPARATOR))
    }

    /// The bounds, both excluded, between which all names below this one sort, and no others.
    pub(super) fn below(&self) -> (String, String) {
        // '0' follows '/' in ASCII, and SQLite compares TEXT by its UTF-8 bytes.
        (format!("{}/", self.0), format!("{}0", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (given, form) in [
            ("inbox", "INBOX"),
            ("Inbox/Lists", "INBOX/Lists"),
            ("Work/", "Work"),
            ("a/b/c", "a/b/c"),
            ("Entwürfe", "Entwürfe"),
            ("a/inbox", "a/inbox"),
            ("inboxes", "inboxes"),
        ] {
            assert_eq!(Name::new(given).unwrap().as_str(), form);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let (long, deep) = ("x".repeat(NAME_BYTES_MAX + 1), "x/".repeat(NAME_LEVELS_MAX) + "x");
        for bad in [
            "",
            "/",
            "/a",
            "a//b",
            "a//",
            "a*",
            "%",
            "a\r\nb",
            "a\u{0}",
            "a\u{85}b",
            "a\u{2028}b",
            &long,
            &deep,
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hierarchy() {
        let name = Name::new("a/b/c").unwrap();
        assert_eq!(name.parents().map(|p| p.0).collect::<Vec<_>>(), ["a", "a/b"]);
        assert!(name.is_below(&Name::new("a/b").unwrap()));
        assert!(!name.is_below(&name) && !Name::new("ab").unwrap().is_below(&Name::new("a").unwrap()));
        let (low, high) = Name::new("a").unwrap().below();
        for (other, inside) in
            [("a/b", true), ("a/\u{10ffff}", true), ("a", false), ("a-b", false), ("ab", false)]
        {
            assert_eq!(low.as_str() < other && other < high.as_str(), inside, "{other}");
        }
    }
}
