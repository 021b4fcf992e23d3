//! The paths of MAIL and RCPT, and the name that a client gives itself.
//!
//! RFC 5321 §4.1.2. Source routes (`@a,@b:user@c`) are obsolete: they are read, and only the mailbox is kept, as
//! RFC 5321 §3.6.1 and appendix C tell a server to do.

use std::fmt;
use std::sync::Arc;

use super::CommandError;
use crate::address::{AddressError, Domain, Mailbox};

/// Names in EHLO and HELO are at most as long as a domain may be.
const HELLO_BYTES_MAX: usize = 255;

/// What a client calls itself. Its form is checked so far that it can stand in a header field and in a log; it may
/// be no domain at all, for RFC 5321 §4.1.4 forbids to refuse mail for that.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HelloName(Arc<str>);

impl HelloName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.split(' ').next().filter(|text| !text.is_empty())?;
        if !text.is_ascii() {
            // RFC 6531 §3.7.1 wants A-labels; that it is a domain is all that is asked of U-labels.
            return Domain::parse(text).ok().map(|domain| Self(domain.as_str().into()));
        }
        let good = |b: u8| b.is_ascii_graphic() && !b"()<>@,;\"\\".contains(&b);
        (text.len() <= HELLO_BYTES_MAX && text.bytes().all(good)).then(|| Self(text.into()))
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Domain> for HelloName {
    fn from(domain: &Domain) -> Self {
        Self(domain.as_str().into())
    }
}

impl fmt::Display for HelloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HelloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// To whom a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// A mailbox.
    Mailbox(Mailbox),
    /// `<postmaster>`, the one recipient that needs no domain (RFC 5321 §4.1.1.3).
    Postmaster,
}

impl ForwardPath {
    pub(super) fn parse(path: &str) -> Result<Self, AddressError> {
        if path.eq_ignore_ascii_case("postmaster") {
            Ok(Self::Postmaster)
        } else {
            mailbox(path).map(Self::Mailbox)
        }
    }

    /// The mailbox, unless this is the postmaster of nowhere.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Mailbox(mailbox) => Some(mailbox),
            Self::Postmaster => None,
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Postmaster => f.write_str("postmaster"),
        }
    }
}

/// Splits `<path> parameters` into the two; a `>` within quotes does not end the path.
pub(super) fn split<'a>(text: &'a str, usage: &'static str) -> Result<(&'a str, &'a str), CommandError> {
    let syntax = CommandError::Syntax(usage);
    let Some(inner) = text.strip_prefix('<') else { return Err(syntax) };
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let rest = &inner[at + 1..];
                let separate = rest.is_empty() || rest.starts_with(' ');
                return if separate { Ok((&inner[..at], rest)) } else { Err(syntax) };
            }
            _ => {}
        }
    }
    Err(syntax)
}

/// Reads a path without its brackets; the source route, if there is one, is checked and left out.
pub(super) fn mailbox(path: &str) -> Result<Mailbox, AddressError> {
    let Some(routed) = path.strip_prefix('@') else { return Mailbox::parse(path) };
    let (route, mailbox) = route_end(routed).ok_or(AddressError::Domain)?;
    for (at, hop) in route.split(',').enumerate() {
        let domain = if at == 0 { hop } else { hop.strip_prefix('@').ok_or(AddressError::Domain)? };
        Domain::parse_or_literal(domain)?;
    }
    Mailbox::parse(mailbox)
}

/// The colon that ends a source route is the first one outside the brackets of an address literal.
fn route_end(routed: &str) -> Option<(&str, &str)> {
    let mut bracketed = false;
    for (at, byte) in routed.bytes().enumerate() {
        match byte {
            b'[' => bracketed = true,
            b']' => bracketed = false,
            b':' if !bracketed => return Some((&routed[..at], &routed[at + 1..])),
            _ => {}
        }
    }
    None
}
