//! Flags of a message: the system flags as bits, keywords as checked atoms.
//!
//! RFC 9051 §2.3.2 (flags), §9 `flag-keyword` (an atom). Keywords are compared without regard to case.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::StoreError;

/// Longest keyword.
pub const KEYWORD_BYTES_MAX: usize = 128;
/// Most keywords on one message.
pub const KEYWORDS_PER_MESSAGE_MAX: usize = 64;

/// The flags that RFC 9051 defines. `\Recent` is no property of a message (and gone in `IMAP4rev2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SystemFlag {
    /// `\Answered`
    Answered = 1,
    /// `\Flagged`
    Flagged = 2,
    /// `\Deleted`
    Deleted = 4,
    /// `\Seen`
    Seen = 8,
    /// `\Draft`
    Draft = 16,
}

impl SystemFlag {
    /// All of them, in the order of RFC 9051 §2.3.2.
    pub const ALL: [Self; 5] = [Self::Seen, Self::Answered, Self::Flagged, Self::Deleted, Self::Draft];

    /// With the backslash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Seen => "\\Seen",
            Self::Draft => "\\Draft",
        }
    }
}

impl fmt::Display for SystemFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A keyword such as `$Forwarded`: an atom, compared without regard to case, its spelling kept.
#[derive(Clone)]
pub struct Keyword(Arc<str>);

impl Keyword {
    /// Checks and takes a keyword.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        // RFC 9051 §9 ATOM-CHAR: no atom-specials.
        let good = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
        if text.is_empty() || text.len() > KEYWORD_BYTES_MAX || !text.bytes().all(good) {
            return Err(StoreError::invalid(format!(
                "not a keyword: 1 to {KEYWORD_BYTES_MAX} printable ASCII characters, none of ( ) {{ % * \" \\ ]"
            )));
        }
        Ok(Self(text.into()))
    }

    /// As it was spelt when it was first used.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn lower(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|b| b.to_ascii_lowercase())
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> Ordering {
        self.lower().cmp(other.lower())
    }
}

impl Hash for Keyword {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lower().for_each(|b| state.write_u8(b));
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of flags.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Flags {
    system: u8,
    /// Sorted, each once.
    keywords: Vec<Keyword>,
}

/// What to do with a set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlagOp {
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
    /// `FLAGS`
    Replace,
}

impl Flags {
    /// No flags.
    pub const fn new() -> Self {
        Self { system: 0, keywords: Vec::new() }
    }

    /// This set and one flag more.
    pub fn with(mut self, flag: SystemFlag) -> Self {
        self.insert(flag);
        self
    }

    /// Reads flags as they are written in IMAP: `\Seen`, `$Forwarded`. System flags in any case.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, StoreError> {
        let mut flags = Self::new();
        for text in texts {
            if text.starts_with('\\') {
                let known = SystemFlag::ALL.into_iter().find(|flag| flag.as_str().eq_ignore_ascii_case(text));
                flags.insert(known.ok_or_else(|| StoreError::invalid("no such system flag"))?);
            } else {
                flags.insert_keyword(Keyword::new(text)?);
            }
        }
        Ok(flags)
    }

    /// Whether a system flag is set.
    pub const fn contains(&self, flag: SystemFlag) -> bool {
        self.system & flag as u8 != 0
    }

    /// Whether a keyword is set.
    pub fn contains_keyword(&self, keyword: &Keyword) -> bool {
        self.keywords.binary_search(keyword).is_ok()
    }

    /// Sets a system flag.
    pub fn insert(&mut self, flag: SystemFlag) {
        self.system |= flag as u8;
    }

    /// Takes a system flag away.
    pub fn remove(&mut self, flag: SystemFlag) {
        self.system &= !(flag as u8);
    }

    /// Sets a keyword; one that is there already keeps its spelling.
    pub fn insert_keyword(&mut self, keyword: Keyword) {
        if let Err(place) = self.keywords.binary_search(&keyword) {
            self.keywords.insert(place, keyword);
        }
    }

    /// The system flags that are set.
    pub fn system(&self) -> impl Iterator<Item = SystemFlag> + '_ {
        SystemFlag::ALL.into_iter().filter(|flag| self.contains(*flag))
    }

    /// The keywords that are set, sorted.
    pub fn keywords(&self) -> &[Keyword] {
        &self.keywords
    }

    /// All flags as they are written in IMAP.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.system().map(|flag| -> &str { flag.as_str() }).chain(self.keywords.iter().map(Keyword::as_str))
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.system == 0 && self.keywords.is_empty()
    }

    /// What becomes of this set when `op` is done with `other`.
    pub fn apply(&self, op: FlagOp, other: &Flags) -> Flags {
        match op {
            FlagOp::Add => {
                let mut sum = self.clone();
                sum.system |= other.system;
                other.keywords.iter().for_each(|keyword| sum.insert_keyword(keyword.clone()));
                sum
            }
            FlagOp::Remove => Flags {
                system: self.system & !other.system,
                keywords: self.keywords.iter().filter(|k| !other.contains_keyword(k)).cloned().collect(),
            },
            FlagOp::Replace => other.clone(),
        }
    }

    /// The bits kept in the database. Their meaning never changes.
    pub(super) const fn bits(&self) -> u8 {
        self.system
    }

    /// The keywords kept in the database: sorted, separated by one space; `None` for none.
    pub(super) fn keywords_text(&self) -> Option<String> {
        if self.keywords.is_empty() {
            return None;
        }
        let words: Vec<&str> = self.keywords.iter().map(Keyword::as_str).collect();
        Some(words.join(" "))
    }

    /// What [`Flags::bits`] and [`Flags::keywords_text`] wrote.
    pub(super) fn from_stored(bits: u8, keywords: Option<&str>) -> Self {
        let mut flags = Self { system: bits, keywords: Vec::new() };
        for word in keywords.into_iter().flat_map(|text| text.split(' ')) {
            flags.insert_keyword(Keyword(word.into()));
        }
        flags
    }

    /// These keywords with other system flags.
    pub(super) fn with_bits(mut self, bits: u8) -> Self {
        self.system = bits;
        self
    }

    /// Replaces each keyword by what `spelling` says of it.
    pub(super) fn respell(
        &mut self,
        mut spelling: impl FnMut(&Keyword) -> Result<Keyword, StoreError>,
    ) -> Result<(), StoreError> {
        for keyword in &mut self.keywords {
            *keyword = spelling(keyword)?;
        }
        Ok(())
    }
}

impl FromStr for Flags {
    type Err = StoreError;
    /// Flags separated by white space.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse(text.split_ascii_whitespace())
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.names().enumerate() {
            if number > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Flags {
        text.parse().unwrap()
    }

    #[test]
    fn flags_are_added_removed_and_replaced() {
        for (before, op, with, after) in [
            ("", FlagOp::Add, "\\Seen $A", "\\Seen $A"),
            ("\\Seen b", FlagOp::Add, "\\DELETED B a", "\\Seen \\Deleted a b"),
            ("\\Seen \\Draft x Y", FlagOp::Remove, "\\seen y", "\\Draft x"),
            ("\\Seen x", FlagOp::Replace, "\\Flagged", "\\Flagged"),
            ("\\Seen x", FlagOp::Replace, "", ""),
        ] {
            assert_eq!(flags(before).apply(op, &flags(with)).to_string(), after, "{before} {op:?} {with}");
        }
    }

    #[test]
    fn what_is_stored_reads_back() {
        for text in ["", "\\Seen", "$Forwarded", "\\Answered \\Flagged a b c"] {
            let flags = flags(text);
            assert_eq!(Flags::from_stored(flags.bits(), flags.keywords_text().as_deref()).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        let long = "x".repeat(KEYWORD_BYTES_MAX + 1);
        for bad in ["\\Recent", "\\", "a(b", "a{", "50%", "*", "\"a\"", "a\\b", "]", "é", &long] {
            assert!(Flags::parse([bad]).is_err(), "{bad}");
        }
    }
}
