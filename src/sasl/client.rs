//! The client's side: what we say to a server that wants to know who we are.
//!
//! RFC 5802 and 7677 (SCRAM), RFC 2195 (CRAM-MD5), RFC 4616 (PLAIN). SCRAM is mutual: [`ClientExchange::finish`]
//! refuses a success whose server has not proved that it knows the password's keys.

use std::fmt;

use super::cram_md5::CramState;
use super::scram::{self, Attributes, ClientKeys, Hash, ScramFault, ServerFirst};
use super::{Channel, Choice, Mechanism, Unprepared, prepare};

/// Longest challenge that we read.
const CHALLENGE_BYTES_MAX: usize = 8 << 10;

/// Why an exchange cannot go on; it must be given up (RFC 4422 §5, in SMTP with `*`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The configured user name or password cannot be used with this mechanism.
    #[error("the configured login cannot be used with {0}: {1}")]
    Login(Mechanism, Unprepared),
    /// The server asked more than the mechanism has to say.
    #[error("the server sent a challenge that {0} does not know")]
    UnexpectedChallenge(Mechanism),
    /// The server's message is none that may be answered.
    #[error("the server does not follow {mechanism}: {fault}")]
    Server {
        /// Which.
        mechanism: Mechanism,
        /// What is wrong.
        fault: ScramFault,
    },
    /// The server says no, in SCRAM's own words.
    #[error("the server refused the proof: {0}")]
    Refused(String),
    /// The server does not know the password's keys: it is another one than it says.
    #[error("the server could not prove that it knows the password: its signature is wrong")]
    WrongSignature,
    /// It said yes without any proof of itself.
    #[error("the server says that it knows us, but did not prove itself")]
    Unproved,
}

/// An exchange from the client's side.
pub struct ClientExchange {
    mechanism: Mechanism,
    state: State,
}

enum State {
    /// What is still to be said, in order.
    Say(std::vec::IntoIter<Vec<u8>>),
    Cram {
        user: String,
        state: CramState,
    },
    Scram(ScramFirst),
    /// The server must sign; this is what it must say.
    ScramSigned {
        signature: Vec<u8>,
    },
    /// All is said, and the server has proved itself where the mechanism lets it.
    Done,
    /// Not to be gone on with, whatever the server says.
    Failed,
}

/// What is known before the server's first message.
struct ScramFirst {
    hash: Hash,
    password: String,
    nonce: String,
    /// `gs2-header`.
    header: String,
    /// `client-first-message-bare`.
    bare: String,
    /// Bytes of the channel binding.
    binding: Vec<u8>,
    /// It has gone out.
    said: bool,
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl ClientExchange {
    /// Begins; neither text may hold a NUL, which PLAIN cannot carry.
    pub fn new(choice: &Choice, user: &str, password: &str) -> Result<Self, ClientError> {
        Self::with_nonce(choice, user, password, scram::nonce())
    }

    fn with_nonce(choice: &Choice, user: &str, password: &str, nonce: String) -> Result<Self, ClientError> {
        let mechanism = choice.mechanism;
        let wrong = |error| ClientError::Login(mechanism, error);
        if user.contains('\0') || password.contains('\0') {
            return Err(wrong(Unprepared));
        }
        let state = match mechanism {
            // RFC 4616 §2: it is the server that prepares them.
            Mechanism::Plain => State::Say(vec![format!("\0{user}\0{password}").into_bytes()].into_iter()),
            Mechanism::Login => {
                State::Say(vec![user.as_bytes().to_vec(), password.as_bytes().to_vec()].into_iter())
            }
            Mechanism::CramMd5 => State::Cram {
                user: prepare(user).map_err(wrong)?.into_owned(),
                state: CramState::derive(&prepare(password).map_err(wrong)?),
            },
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => State::Scram(
                ScramFirst::new(Hash::Sha256, &choice.channel, user, password, nonce).map_err(wrong)?,
            ),
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => State::Scram(
                ScramFirst::new(Hash::Sha1, &choice.channel, user, password, nonce).map_err(wrong)?,
            ),
        };
        Ok(Self { mechanism, state })
    }

    /// The mechanism to name in the command.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The initial response, for a mechanism in which the client speaks first.
    pub fn initial(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Scram(first) if !first.said => Some(first.say()),
            State::Say(messages) if self.mechanism == Mechanism::Plain => messages.next(),
            // Servers differ in whether they take one with LOGIN; all of them ask.
            _ => None,
        }
    }

    /// The response to a challenge, both without base64. With SCRAM the first takes as long as the server's count of
    /// iterations wants, some milliseconds to half a second.
    pub fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mechanism = self.mechanism;
        let malformed = ClientError::Server { mechanism, fault: ScramFault::Malformed };
        if challenge.len() > CHALLENGE_BYTES_MAX {
            return Err(malformed);
        }
        match std::mem::replace(&mut self.state, State::Failed) {
            // The prompts of LOGIN differ from server to server; only their order counts.
            State::Say(mut messages) => {
                let message = messages.next().ok_or(ClientError::UnexpectedChallenge(mechanism))?;
                self.state = State::Say(messages);
                Ok(message)
            }
            State::Cram { user, state } => {
                self.state = State::Done;
                Ok(format!("{user} {}", state.answer(challenge)).into_bytes())
            }
            // A server that took no initial response asks for it with nothing.
            State::Scram(mut first) if !first.said => {
                if !challenge.is_empty() {
                    return Err(ClientError::UnexpectedChallenge(mechanism));
                }
                let message = first.say();
                self.state = State::Scram(first);
                Ok(message)
            }
            State::Scram(first) => {
                let text = std::str::from_utf8(challenge).map_err(|_| malformed)?;
                let (message, signature) =
                    first.answer(text).map_err(|fault| ClientError::Server { mechanism, fault })?;
                self.state = State::ScramSigned { signature };
                Ok(message)
            }
            State::ScramSigned { signature } => {
                let text = std::str::from_utf8(challenge).map_err(|_| malformed.clone())?;
                if let Some(error) = Attributes::of(text).take('e') {
                    return Err(ClientError::Refused(
                        error.chars().filter(|c| !c.is_control()).take(80).collect(),
                    ));
                }
                let shown = Attributes::of(text).take('v').ok_or(malformed.clone())?;
                let shown = super::decode(shown.as_bytes()).map_err(|_| malformed)?;
                if !scram::equal(&shown, &signature) {
                    return Err(ClientError::WrongSignature);
                }
                self.state = State::Done;
                Ok(Vec::new())
            }
            State::Done | State::Failed => Err(ClientError::UnexpectedChallenge(mechanism)),
        }
    }

    /// To be asked when the server says that we are in: whether it may be believed.
    pub fn finish(&self) -> Result<(), ClientError> {
        match self.state {
            State::Say(_) | State::Done => Ok(()),
            State::Cram { .. } | State::Scram(_) | State::ScramSigned { .. } | State::Failed => {
                Err(ClientError::Unproved)
            }
        }
    }
}

impl ScramFirst {
    fn new(
        hash: Hash,
        channel: &Channel,
        user: &str,
        password: &str,
        nonce: String,
    ) -> Result<Self, Unprepared> {
        let (header, binding) = match channel {
            Channel::Unsupported => ("n,,".to_owned(), Vec::new()),
            Channel::NotOffered => ("y,,".to_owned(), Vec::new()),
            Channel::Bound { name, data } => (format!("p={name},,"), data.clone()),
        };
        let bare = format!("n={},r={nonce}", scram::escape(&prepare(user)?));
        let password = prepare(password)?.into_owned();
        Ok(Self { hash, password, nonce, header, bare, binding, said: false })
    }

    /// `client-first-message`.
    fn say(&mut self) -> Vec<u8> {
        self.said = true;
        format!("{}{}", self.header, self.bare).into_bytes()
    }

    /// `client-final-message`, and the signature that must come back.
    fn answer(self, server_first: &str) -> Result<(Vec<u8>, Vec<u8>), ScramFault> {
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(server_first, &self.nonce)?;
        let bound = super::encode(&[self.header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={bound},r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let keys = ClientKeys::derive(self.hash, &self.password, &salt, iterations);
        let proof = super::encode(&keys.proof(auth_message.as_bytes()));
        let message = format!("{without_proof},p={proof}").into_bytes();
        Ok((message, keys.server_signature(auth_message.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(mechanism: Mechanism) -> Choice {
        Choice { mechanism, channel: Channel::Unsupported }
    }

    fn client(mechanism: Mechanism, user: &str, password: &str) -> ClientExchange {
        ClientExchange::new(&choice(mechanism), user, password).unwrap()
    }

    #[test]
    fn plain_says_all_at_once() {
        let mut client = client(Mechanism::Plain, "tim", "secret");
        assert_eq!(client.initial().unwrap(), b"\0tim\0secret");
        assert_eq!(client.finish(), Ok(()));
        assert_eq!(client.step(b""), Err(ClientError::UnexpectedChallenge(Mechanism::Plain)));
    }

    #[test]
    fn login_answers_two_questions() {
        let mut client = client(Mechanism::Login, "tim", "secret");
        assert_eq!(client.initial(), None);
        assert_eq!(client.step(b"User Name\0").unwrap(), b"tim");
        assert_eq!(client.step(b"Password:").unwrap(), b"secret");
        assert!(client.step(b"?").is_err());
    }

    #[test]
    fn cram_md5_as_in_rfc_2195() {
        let mut client = client(Mechanism::CramMd5, "tim", "tanstaaftanstaaf");
        assert_eq!(client.initial(), None);
        assert_eq!(
            client.step(b"<1896.697170952@postoffice.reston.mci.net>").unwrap(),
            b"tim b913a602c7eda7a495b4e6e7334d3890"
        );
        assert!(client.step(b"<again>").is_err());
    }

    /// RFC 5802 §5 and RFC 7677 §3: nonce, server's first, client's final, server's final.
    const EXAMPLES: [(Mechanism, &str, &str, &str, &str); 2] = [
        (
            Mechanism::ScramSha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Mechanism::ScramSha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ];

    fn example(n: usize) -> (ClientExchange, &'static str, &'static str, &'static str) {
        let (mechanism, nonce, first, last, signed) = EXAMPLES[n];
        let mut client =
            ClientExchange::with_nonce(&choice(mechanism), "user", "pencil", nonce.to_owned()).unwrap();
        assert_eq!(client.initial().unwrap(), format!("n,,n=user,r={nonce}").as_bytes());
        (client, first, last, signed)
    }

    #[test]
    fn scram_as_in_its_rfcs() {
        for n in 0..EXAMPLES.len() {
            let (mut client, first, last, signed) = example(n);
            assert_eq!(client.step(first.as_bytes()).unwrap(), last.as_bytes());
            assert_eq!(client.finish(), Err(ClientError::Unproved));
            assert_eq!(client.step(signed.as_bytes()).unwrap(), b"");
            assert_eq!(client.finish(), Ok(()));
        }
    }

    #[test]
    fn without_the_right_signature_no_success_counts() {
        for (said, error) in [
            ("v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", ClientError::WrongSignature),
            ("v=", ClientError::WrongSignature),
            ("e=invalid-proof", ClientError::Refused("invalid-proof".to_owned())),
            ("", ClientError::Server { mechanism: Mechanism::ScramSha1, fault: ScramFault::Malformed }),
        ] {
            let (mut client, first, ..) = example(0);
            client.step(first.as_bytes()).unwrap();
            assert_eq!(client.step(said.as_bytes()), Err(error));
            assert_eq!(client.finish(), Err(ClientError::Unproved));
            assert!(client.step(EXAMPLES[0].4.as_bytes()).is_err());
        }
        let (mut client, first, ..) = example(0);
        assert_eq!(client.finish(), Err(ClientError::Unproved));
        client.step(first.as_bytes()).unwrap();
        client.step(b"v=AAAA").unwrap_err();
        assert_eq!(client.finish(), Err(ClientError::Unproved));
    }

    #[test]
    fn a_server_that_asks_first_gets_the_first_message_then() {
        let mut client = client(Mechanism::ScramSha256, "a,b=c", "pencil");
        let first = client.step(b"").unwrap();
        assert!(first.starts_with(b"n,,n=a=2Cb=3Dc,r="));
        // Its own challenge is no answer to what we have not said.
        let mut client = self::client(Mechanism::ScramSha256, "tim", "pencil");
        assert!(client.step(b"r=x,s=QSXC,i=4096").is_err());
    }

    #[test]
    fn logins_that_cannot_be_said() {
        assert!(ClientExchange::new(&choice(Mechanism::Plain), "a\0b", "x").is_err());
        assert!(ClientExchange::new(&choice(Mechanism::ScramSha1), "tim", "a\u{7}").is_err());
        assert!(ClientExchange::new(&choice(Mechanism::Plain), "tim", "a\u{7}").is_ok());
    }
}
