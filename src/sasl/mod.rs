//! SASL (RFC 4422): the messages of each mechanism as pure state machines, server and client.
//!
//! A protocol (SMTP, IMAP) carries the messages in base64 lines; [`decode`] reads such a line. What the server
//! side ends with is [`Credentials`] to be checked; what is done with them is not decided here.

mod choice;
mod client;
mod cram_md5;
mod mechanism;
mod prepare;
mod scram;
mod server;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use choice::{Allowed, Channel, ChannelBindings, Choice, Facts, Names, NoMechanism, choose};
pub use client::{ClientError, ClientExchange};
pub use cram_md5::CramState;
pub use mechanism::{Mechanism, UnknownMechanism};
pub use prepare::{Unprepared, prepare};
pub use scram::{Hash, ITERATIONS_MAX, ITERATIONS_MIN, ScramFault, StoredKeys};
pub use server::{Credentials, Exchange, Step};

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

    /// Lets both sides talk until the server knows what to check.
    fn talk(mut client: ClientExchange, with_initial: bool) -> Step {
        let mechanism = client.mechanism();
        let initial = if with_initial { client.initial() } else { None };
        let mut step = Exchange::start(mechanism, initial.as_deref());
        while let Step::Challenge { text, exchange } = step {
            step = match client.step(&text) {
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
            let choice = Choice { mechanism, channel: Channel::Unsupported };
            let client = ClientExchange::new(&choice, &user, &password).unwrap();
            match talk(client, with_initial) {
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
