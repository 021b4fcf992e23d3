//! Mail addresses: domains in their one comparable form, local parts without their quotes, mailboxes.
//!
//! RFC 5321 §4.1.2 (grammar), §4.5.3.1 (lengths), RFC 6531 §3.3 (UTF-8), RFC 5891 (A-labels).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// RFC 5321 §4.5.3.1.1.
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2; RFC 1035 leaves 253 for the text form.
pub const DOMAIN_BYTES_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// Why an address was refused, in words that can be sent to a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// No `@`.
    #[error("the address has no @domain")]
    NoDomain,
    /// The local part does not follow RFC 5321.
    #[error("the part before the @ is not valid")]
    LocalPart,
    /// The local part is over 64 bytes.
    #[error("the part before the @ is longer than 64 bytes")]
    LocalPartTooLong,
    /// The domain does not follow RFC 5321 or IDNA.
    #[error("the domain is not valid")]
    Domain,
    /// The address literal does not follow RFC 5321 §4.1.3.
    #[error("the address literal is not valid")]
    Literal,
}

/// A domain in lower-case A-label form without a trailing dot, or an address literal such as
/// `[192.0.2.1]` or `[IPv6:2001:db8::1]`. Equal domains are equal text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Arc<str>);

impl Domain {
    /// Reads a domain name, in any case, as U-labels or A-labels, with or without a trailing dot.
    /// An address literal is refused.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if is_plain(text) {
            return Ok(Self(text.into()));
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| AddressError::Domain)?;
        if is_plain(&ascii) { Ok(Self(ascii.into())) } else { Err(AddressError::Domain) }
    }

    /// Reads a domain name or an address literal (RFC 5321 §4.1.3).
    pub fn parse_or_literal(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('[') {
            None => Self::parse(text),
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(AddressError::Literal)?;
                Ok(Self::literal(parse_literal(inner).ok_or(AddressError::Literal)?))
            }
        }
    }

    /// The address literal for an address.
    pub fn literal(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(format!("[{v4}]").into()),
            IpAddr::V6(v6) => Self(format!("[IPv6:{v6}]").into()),
        }
    }

    /// The address, when this is an address literal.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_literal(self.0.strip_prefix('[')?.strip_suffix(']')?)
    }

    /// The text: lower-case, A-labels, no trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other` or a name below it.
    pub fn is_within(&self, other: &Domain) -> bool {
        match self.0.strip_suffix(other.as_str()) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }
}

/// Lower-case letters, digits, hyphens and underscores in labels of 1 to 63, at most 253 in all.
/// Underscores are no host names, but exist in mail domains, and refusing them would lose mail.
fn is_plain(text: &str) -> bool {
    let label_good = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    // A last label of digits alone would be an IPv4 address, which belongs in brackets (RFC 1123 §2.1).
    let last_good = text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()));
    let ace_good = !text.contains("xn--") || idna::domain_to_ascii_strict(text).is_ok_and(|a| a == text);
    text.len() <= DOMAIN_BYTES_MAX && last_good && text.split('.').all(label_good) && ace_good
}

fn parse_literal(inner: &str) -> Option<IpAddr> {
    if let Some(v6) = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("ipv6:")).map(|_| &inner[5..]) {
        return v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse_or_literal(text)
    }
}

impl TryFrom<String> for Domain {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse_or_literal(&text)
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> String {
        domain.0.to_string()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part before the `@`, without quotes and backslashes; its case is kept, for only its own
/// host may say that case does not matter (RFC 5321 §2.4).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Arc<str>);

impl LocalPart {
    /// The text without quoting.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes text that is not quoted; any character but controls may stand in it.
    pub fn from_unquoted(text: &str) -> Result<Self, AddressError> {
        if text.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self(text.into()))
    }
}

/// As on the wire: quoted where it must be.
impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 5321 §4.1.2 atext, with RFC 6531 §3.3 UTF-8.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5321 §4.1.2 Quoted-string, with the quotes.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"').filter(|_| quoted.len() >= 2)?;
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| (' '..='~').contains(c))?),
            '"' => return None,
            c if c.is_control() => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// A mailbox, `local-part@domain` (RFC 5321 §4.1.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox {
    /// The part before the `@`.
    pub local: LocalPart,
    /// The part after it.
    pub domain: Domain,
}

impl Mailbox {
    /// Reads `local-part@domain`, without angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let at = text.rfind('@').ok_or(AddressError::NoDomain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        let local = match local.starts_with('"') {
            true => LocalPart::from_unquoted(&unquote(local).ok_or(AddressError::LocalPart)?),
            false if is_dot_string(local) => LocalPart::from_unquoted(local),
            false => Err(AddressError::LocalPart),
        }?;
        Ok(Self { local, domain: Domain::parse_or_literal(domain)? })
    }

    /// Whether the address can only travel with SMTPUTF8 (RFC 6531). Domains never need it: they are A-labels here.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.as_str().is_ascii()
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Mailbox {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> String {
        mailbox.to_string()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn domains_have_one_form() {
        for (given, form) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.example.org", "_dmarc.example.org"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Domain::parse(given).unwrap().as_str(), form);
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let (label, name) = (format!("{}.org", "a".repeat(64)), "a.".repeat(127) + "org");
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "-a.org",
            "a-.org",
            "a b.org",
            "192.0.2.1",
            "a@b",
            "[192.0.2.1]",
            &label,
            &name,
        ] {
            assert!(Domain::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn address_literals() {
        assert_eq!(Domain::parse_or_literal("[192.0.2.1]").unwrap().ip(), "192.0.2.1".parse().ok());
        let v6 = Domain::parse_or_literal("[ipv6:2001:DB8::1]").unwrap();
        assert_eq!((v6.as_str(), v6.ip()), ("[IPv6:2001:db8::1]", "2001:db8::1".parse().ok()));
        for bad in ["[", "[]", "[192.0.2]", "[2001:db8::1]", "[x:y]", "[192.0.2.1", "192.0.2.1]"] {
            assert!(Domain::parse_or_literal(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mailboxes_are_read_and_written() {
        for (given, written) in [
            ("User@Example.org", "User@example.org"),
            ("\"user\"@example.org", "user@example.org"),
            ("\"a b\"@example.org", "\"a b\"@example.org"),
            ("\"a\\\"b\\\\\"@example.org", "\"a\\\"b\\\\\"@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"),
            ("\"a..b\"@example.org", "\"a..b\"@example.org"),
            ("üser@example.org", "üser@example.org"),
            ("a+b=c/d@[192.0.2.1]", "a+b=c/d@[192.0.2.1]"),
        ] {
            assert_eq!(Mailbox::parse(given).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_mailbox_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@example.org",
            "a b@example.org",
            ".a@example.org",
            "a.@example.org",
            "a..b@example.org",
            "\"@example.org",
            "\"a\"b@example.org",
            "\"a\u{0}\"@example.org",
            "a\r\n@example.org",
            "<a@example.org>",
            &long,
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(text in "\\PC{0,40}@[a-zA-Z0-9.-]{1,20}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
            }
        }

        #[test]
        fn any_text_as_local_part_survives_quoting(text in "[^\\p{C}]{1,16}") {
            let local = LocalPart::from_unquoted(&text).unwrap();
            let mailbox = Mailbox { local, domain: Domain::parse("example.org").unwrap() };
            prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
        }

        #[test]
        fn domains_are_stable(text in "\\PC{0,30}") {
            if let Ok(domain) = Domain::parse(&text) {
                prop_assert_eq!(Domain::parse(domain.as_str()).unwrap(), domain);
            }
        }
    }
}
