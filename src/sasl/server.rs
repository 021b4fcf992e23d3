//! The server's side: initial response and responses in, challenges out, credentials at the end.

use std::fmt;

use super::Mechanism;

/// What a client claims; to be checked against the account's password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Authentication identity: whose password it is.
    pub user: String,
    /// Authorization identity, when it is another one: as whom the client wants to act (RFC 4422 §2).
    pub act_as: Option<String>,
    /// The password.
    pub password: String,
}

/// Without the password, so that no log can hold it; without the user, who may have typed it there.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// What follows from what the client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and give the answer to [`Exchange::respond`].
    Challenge {
        /// Not yet in base64.
        text: Vec<u8>,
        /// The exchange as it goes on.
        exchange: Exchange,
    },
    /// The client has said all it has to say.
    Verify(Credentials),
    /// The response does not follow the mechanism.
    Malformed,
}

/// An exchange that waits for the client's response.
#[derive(PartialEq, Eq)]
pub struct Exchange(State);

#[derive(PartialEq, Eq)]
enum State {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// Begins, with the initial response if the client sent one along.
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> Step {
        let (state, challenge) = match mechanism {
            // RFC 4616 §2: the client speaks first; without an initial response, the challenge is empty.
            Mechanism::Plain => (State::Plain, Vec::new()),
            Mechanism::Login => (State::LoginUser, b"Username:".to_vec()),
            // Not offered yet.
            _ => return Step::Malformed,
        };
        match initial {
            Some(response) => Self(state).respond(response),
            None => Step::Challenge { text: challenge, exchange: Self(state) },
        }
    }

    /// Takes the client's response.
    pub fn respond(self, response: &[u8]) -> Step {
        let Ok(text) = std::str::from_utf8(response) else { return Step::Malformed };
        match self.0 {
            State::Plain => plain(text).map_or(Step::Malformed, Step::Verify),
            State::LoginUser if text.is_empty() || text.contains('\0') => Step::Malformed,
            State::LoginUser => Step::Challenge {
                text: b"Password:".to_vec(),
                exchange: Self(State::LoginPassword { user: text.to_owned() }),
            },
            State::LoginPassword { .. } if text.is_empty() || text.contains('\0') => Step::Malformed,
            State::LoginPassword { user } => {
                Step::Verify(Credentials { user, act_as: None, password: text.to_owned() })
            }
        }
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`, none of the latter two empty.
fn plain(text: &str) -> Option<Credentials> {
    let mut parts = text.split('\0');
    let (act_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() || password.is_empty() {
        return None;
    }
    let act_as = (!act_as.is_empty() && act_as != user).then(|| act_as.to_owned());
    Some(Credentials { user: user.to_owned(), act_as, password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(user: &str, act_as: Option<&str>, password: &str) -> Step {
        let act_as = act_as.map(str::to_owned);
        Step::Verify(Credentials { user: user.to_owned(), act_as, password: password.to_owned() })
    }

    #[test]
    fn plain_messages() {
        for (message, step) in [
            (&b"\0tim\0tanstaaftanstaaf"[..], verify("tim", None, "tanstaaftanstaaf")),
            (b"tim\0tim\0secret", verify("tim", None, "secret")),
            (b"Ursel\0Kurt\0xipj3plmq", verify("Kurt", Some("Ursel"), "xipj3plmq")),
            (b"", Step::Malformed),
            (b"tim", Step::Malformed),
            (b"\0tim", Step::Malformed),
            (b"\0\0secret", Step::Malformed),
            (b"\0tim\0", Step::Malformed),
            (b"\0tim\0a\0b", Step::Malformed),
            (b"\0tim\0\xff", Step::Malformed),
        ] {
            assert_eq!(Exchange::start(Mechanism::Plain, Some(message)), step, "{message:?}");
        }
    }

    #[test]
    fn login_asks_twice() {
        let Step::Challenge { text, exchange } = Exchange::start(Mechanism::Login, None) else { panic!() };
        assert_eq!(text, b"Username:");
        let Step::Challenge { text, exchange } = exchange.respond(b"tim") else { panic!() };
        assert_eq!(text, b"Password:");
        assert_eq!(exchange.respond(b"secret"), verify("tim", None, "secret"));
        assert_eq!(Exchange::start(Mechanism::Login, Some(b"")), Step::Malformed);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let step = Exchange::start(Mechanism::Plain, Some(b"\0tim\0hunter2"));
        let printed = format!("{step:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("tim"), "{printed}");
    }
}
