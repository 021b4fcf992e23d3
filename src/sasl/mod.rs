//! SASL (RFC 4422): the messages of each mechanism as pure state machines, server and client.
//!
//! A protocol (SMTP, IMAP) carries the messages in base64 lines; [`decode`] reads such a line. What the server
//! side ends with is [`Credentials`] to be checked; what is done with them is not decided here.

mod client;
mod server;

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use client::{ClientExchange, UnexpectedChallenge};
pub use server::{Credentials, Exchange, Step};

/// A mechanism that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised (draft-murchison-sasl-login), still the only one that some programs know.
    Login,
}

impl Mechanism {
    /// Those that a server offers, best first.
    pub const OFFERED: [Self; 2] = [Self::Plain, Self::Login];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name is none of our mechanisms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this authentication mechanism is not offered")]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    /// Case does not matter (RFC 4954 §4, RFC 9051 §6.2.2 take the name as an atom).
    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        Self::OFFERED.into_iter().find(|m| m.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownMechanism)
    }
}

/// A line that is not the base64 of RFC 4648 §4: alphabet, padding and unused bits are all checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not valid base64")]
pub struct NotBase64;

/// Reads a base64 line of an exchange.
pub fn decode(line: &[u8]) -> Result<Vec<u8>, NotBase64> {
    STANDARD.decode(line).map_err(|_| NotBase64)
}

/// Reads an initial response, in which `=` stands for an empty one (RFC 4954 §4, RFC 4959 §3).
pub fn decode_initial(text: &[u8]) -> Result<Vec<u8>, NotBase64> {
    if text == b"=" { Ok(Vec::new()) } else { decode(text) }
}

/// Writes a base64 line of an exchange.
pub fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode(b"AGEAYg==").unwrap(), b"\0a\0b");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode_initial(b"=").unwrap(), b"");
        for bad in ["=", "AGEAYg", "AGEAYg=", "AGEAYh==", "AGEA Yg==", "AGEAYg==\r", "AGE_Yg==", "é"] {
            assert_eq!(decode(bad.as_bytes()), Err(NotBase64), "{bad:?}");
        }
    }

    #[test]
    fn mechanisms_by_name() {
        assert_eq!("plain".parse(), Ok(Mechanism::Plain));
        assert_eq!("LOGIN".parse(), Ok(Mechanism::Login));
        assert_eq!("CRAM-MD5".parse::<Mechanism>(), Err(UnknownMechanism));
    }

    /// Lets both sides talk until the server knows what to check.
    fn talk(mut client: ClientExchange, with_initial: bool) -> Step {
        let mechanism = client.mechanism();
        let initial = if with_initial { client.initial() } else { None };
        let mut step = Exchange::start(mechanism, initial.as_deref());
        while let Step::Challenge { text, exchange } = step {
            step = match client.respond(&text) {
                Ok(response) => exchange.respond(&response),
                Err(_) => return Step::Malformed,
            };
        }
        step
    }

    proptest! {
        #[test]
        fn what_a_client_says_a_server_understands(
            user in "[^\0]{1,40}", password in "[^\0]{1,40}", plain: bool, with_initial: bool,
        ) {
            let mechanism = if plain { Mechanism::Plain } else { Mechanism::Login };
            match talk(ClientExchange::new(mechanism, &user, &password), with_initial) {
                Step::Verify(credentials) => {
                    prop_assert_eq!(credentials.user, user);
                    prop_assert_eq!(credentials.password, password);
                    prop_assert_eq!(credentials.act_as, None);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn nothing_makes_the_server_panic(first: Option<Vec<u8>>, then: Vec<Vec<u8>>, plain: bool) {
            let mechanism = if plain { Mechanism::Plain } else { Mechanism::Login };
            let mut step = Exchange::start(mechanism, first.as_deref());
            for response in then {
                match step {
                    Step::Challenge { exchange, .. } => step = exchange.respond(&response),
                    _ => break,
                }
            }
        }
    }
}
