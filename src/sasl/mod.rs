//! SASL (RFC 4422): the messages of each mechanism as pure state machines, server and client.
//!
//! A protocol (SMTP, IMAP) carries the messages in base64 lines; [`decode`] reads such a line. The server's
//! side ends with a password to be checked, or with a proof that it has checked itself; what follows from that is not
//! decided here. Passwords are kept in forms that let each mechanism work and give nobody the password.

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
pub use server::{Credentials, Exchange, FindKeys, KeyKind, Keys, Step, Terms, offered};

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

    const PASSWORD: &str = "pencil";

    /// A server that offers all that we speak.
    fn terms(bindings: &ChannelBindings) -> Terms<'_> {
        let plus: &[Mechanism] = if bindings.is_empty() { &[] } else { &Mechanism::ALL };
        Terms { offered: plus, bindings, hostname: "mx.test" }
    }

    fn keys(kind: KeyKind) -> Keys {
        let hash = match kind {
            KeyKind::ScramSha256 => Hash::Sha256,
            KeyKind::ScramSha1 => Hash::Sha1,
            KeyKind::CramMd5 => return Keys::CramMd5(CramState::derive(PASSWORD)),
        };
        Keys::Scram(StoredKeys::derive(hash, PASSWORD, vec![7; 16], ITERATIONS))
    }

    /// Lets both sides talk to the end; who the client is to the server, and what the client thinks of the server.
    fn talk(
        mut client: ClientExchange,
        bindings: &ChannelBindings,
        with_initial: bool,
    ) -> (Step, Result<(), ClientError>) {
        let initial = if with_initial { client.initial() } else { None };
        let mut step = Exchange::start(client.mechanism(), initial.as_deref(), &terms(bindings));
        loop {
            step = match step {
                Step::Challenge { text, exchange } => match client.step(&text) {
                    Ok(response) => exchange.respond(&response),
                    Err(error) => return (Step::Malformed, Err(error)),
                },
                Step::FindKeys(find) => {
                    let keys = keys(find.kind);
                    find.found(keys)
                }
                last => return (last, client.finish()),
            };
        }
    }

    const ITERATIONS: std::num::NonZeroU32 = std::num::NonZeroU32::MIN.saturating_add(4_095);
    const SCRAM: [Mechanism; 4] =
        [Mechanism::ScramSha256Plus, Mechanism::ScramSha1Plus, Mechanism::ScramSha256, Mechanism::ScramSha1];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn what_a_client_says_a_server_understands(
            user in "[^\0]{1,40}", password in "[^\0]{1,40}", plain: bool, with_initial: bool,
        ) {
            let mechanism = if plain { Mechanism::Plain } else { Mechanism::Login };
            let choice = Choice { mechanism, channel: Channel::Unsupported };
            let client = ClientExchange::new(&choice, &user, &password).unwrap();
            match talk(client, &ChannelBindings::default(), with_initial).0 {
                Step::Verify(credentials) => {
                    prop_assert_eq!(credentials.user, user);
                    prop_assert_eq!(credentials.password, password);
                    prop_assert_eq!(credentials.act_as, None);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn scram_knows_a_right_password_from_a_wrong_one(
            user in "[a-zA-Z0-9,=@. é]{1,20}",
            n in 0_usize..4, right: bool, with_initial: bool, exporter: bool, same_channel: bool,
        ) {
            let bytes = |byte| Some(vec![byte; 32]);
            let of = |byte| ChannelBindings {
                exporter: bytes(byte).filter(|_| exporter),
                server_end_point: bytes(byte),
            };
            // The client's channel may end at somebody else.
            let (ours, theirs) = (of(1), of(if same_channel { 1 } else { 2 }));
            let facts = Facts { tls: true, plaintext_allowed: false, bindings: &ours };
            let names = Mechanism::ALL.map(Mechanism::as_str);
            let choice = choose(&names, &Allowed::Exactly(SCRAM[n]), facts).unwrap();
            let password = if right { PASSWORD } else { "pencils" };
            let client = ClientExchange::new(&choice, &user, password).unwrap();
            let (step, finished) = talk(client, &theirs, with_initial);
            if right && (same_channel || !SCRAM[n].binds_channel()) {
                let user = prepare(&user).unwrap().into_owned();
                prop_assert_eq!(step, Step::Proved { user, act_as: None });
                prop_assert_eq!(finished, Ok(()));
            } else {
                prop_assert_eq!(step, Step::Refused);
                prop_assert_eq!(finished, Err(ClientError::Unproved));
            }
        }

        #[test]
        fn nothing_makes_the_server_panic(first: Option<Vec<u8>>, then: Vec<Vec<u8>>, n in 0_usize..7) {
            let mut step = Exchange::start(Mechanism::ALL[n], first.as_deref(), &terms(&ChannelBindings::default()));
            for response in then {
                step = match step {
                    Step::Challenge { exchange, .. } => exchange.respond(&response),
                    Step::FindKeys(find) => {
                        let keys = keys(find.kind);
                        find.found(keys)
                    }
                    _ => break,
                }
            }
        }

        #[test]
        fn cram_md5_knows_a_right_password_from_a_wrong_one(user in "[a-zA-Z0-9@. é]{1,20}", right: bool) {
            prop_assume!(!user.ends_with(' '));
            let choice = Choice { mechanism: Mechanism::CramMd5, channel: Channel::Unsupported };
            let password = if right { PASSWORD } else { "pencils" };
            let client = ClientExchange::new(&choice, &user, password).unwrap();
            let step = talk(client, &ChannelBindings::default(), true).0;
            let user = prepare(&user).unwrap().into_owned();
            prop_assert_eq!(step, if right { Step::Proved { user, act_as: None } } else { Step::Refused });
        }

        #[test]
        fn no_server_makes_the_client_panic(challenges: Vec<Vec<u8>>, n in 0_usize..7) {
            let choice = Choice { mechanism: Mechanism::ALL[n], channel: Channel::Unsupported };
            let mut client = ClientExchange::new(&choice, "tim", "secret").unwrap();
            let _ = client.initial();
            for challenge in challenges {
                if client.step(&challenge).is_err() {
                    break;
                }
            }
            // Such a server has proved nothing.
            prop_assert!(Mechanism::ALL[n].scram().is_none() || client.finish().is_err());
        }
    }

    #[test]
    fn an_exchange_cannot_be_played_again() {
        let bindings = ChannelBindings::default();
        let choice = Choice { mechanism: Mechanism::ScramSha256, channel: Channel::Unsupported };
        let mut client = ClientExchange::new(&choice, "tim", PASSWORD).unwrap();
        let first = client.initial().unwrap();
        let begin = || match Exchange::start(Mechanism::ScramSha256, Some(&first), &terms(&bindings)) {
            Step::FindKeys(find) => match find.found(keys(KeyKind::ScramSha256)) {
                Step::Challenge { text, exchange } => (text, exchange),
                step => panic!("{step:?}"),
            },
            step => panic!("{step:?}"),
        };
        let (text, exchange) = begin();
        let last = client.step(&text).unwrap();
        assert!(matches!(exchange.respond(&last), Step::Challenge { .. }));
        // The same words of the client to the same server, which has another nonce now.
        let (again, exchange) = begin();
        assert_ne!(again, text);
        assert_eq!(exchange.respond(&last), Step::Refused);
        // A server that gives an older nonce is none that a client goes on with.
        let mut client = ClientExchange::new(&choice, "tim", PASSWORD).unwrap();
        client.initial().unwrap();
        assert!(matches!(client.step(&text), Err(ClientError::Server { fault: ScramFault::Nonce, .. })));
    }

    #[test]
    fn a_list_without_plus_that_was_a_list_with_plus_is_found_out() {
        let bindings = ChannelBindings { exporter: Some(vec![1; 32]), server_end_point: None };
        let facts = Facts { tls: true, plaintext_allowed: false, bindings: &bindings };
        let choice = choose(&["SCRAM-SHA-256", "PLAIN"], &Allowed::Any, facts).unwrap();
        let client = ClientExchange::new(&choice, "tim", PASSWORD).unwrap();
        assert_eq!(talk(client, &bindings, true).0, Step::Refused);
    }
}
