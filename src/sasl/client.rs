//! The client's side: what we say to a server that wants to know who we are.

use std::fmt;

use super::Mechanism;

/// The server asked more than the mechanism has to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a challenge that {0} does not know")]
pub struct UnexpectedChallenge(pub Mechanism);

/// An exchange from the client's side.
pub struct ClientExchange {
    mechanism: Mechanism,
    /// What is still to be said, in order.
    messages: std::vec::IntoIter<Vec<u8>>,
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl ClientExchange {
    /// Begins; neither text may hold a NUL, which PLAIN cannot carry.
    pub fn new(mechanism: Mechanism, user: &str, password: &str) -> Self {
        let messages = match mechanism {
            Mechanism::Plain => vec![format!("\0{user}\0{password}").into_bytes()],
            Mechanism::Login => vec![user.as_bytes().to_vec(), password.as_bytes().to_vec()],
        };
        Self { mechanism, messages: messages.into_iter() }
    }

    /// The mechanism to name in the command.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The initial response, for a mechanism in which the client speaks first.
    pub fn initial(&mut self) -> Option<Vec<u8>> {
        match self.mechanism {
            Mechanism::Plain => self.messages.next(),
            // Servers differ in whether they take one with LOGIN; all of them ask.
            Mechanism::Login => None,
        }
    }

    /// The response to a challenge. The prompts of LOGIN differ from server to server; only their order counts.
    pub fn respond(&mut self, _challenge: &[u8]) -> Result<Vec<u8>, UnexpectedChallenge> {
        self.messages.next().ok_or(UnexpectedChallenge(self.mechanism))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_says_all_at_once() {
        let mut client = ClientExchange::new(Mechanism::Plain, "tim", "secret");
        assert_eq!(client.initial().unwrap(), b"\0tim\0secret");
        assert_eq!(client.respond(b""), Err(UnexpectedChallenge(Mechanism::Plain)));
    }

    #[test]
    fn login_answers_two_questions() {
        let mut client = ClientExchange::new(Mechanism::Login, "tim", "secret");
        assert_eq!(client.initial(), None);
        assert_eq!(client.respond(b"User Name\0").unwrap(), b"tim");
        assert_eq!(client.respond(b"Password:").unwrap(), b"secret");
        assert!(client.respond(b"?").is_err());
    }
}
