//! The server's side: initial response and responses in, challenges out, at the end who the client is.
//!
//! RFC 5802 and 7677 (SCRAM), RFC 2195 (CRAM-MD5), RFC 4616 (PLAIN). PLAIN and LOGIN end with [`Credentials`] whose
//! password is to be checked; SCRAM and CRAM-MD5 ask for the account's keys in between ([`Step::FindKeys`]) and check the
//! proof themselves. Whoever gives the keys has some for names that do not exist as well, so that the exchange looks the
//! same for them.

#[cfg(test)]
mod tests;

use std::fmt;

use super::scram::{self, Attributes, Hash, StoredKeys};
use super::{ChannelBindings, CramState, Facts, Mechanism, cram_md5, prepare};

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
    /// Find the user's keys and give them to [`FindKeys::found`].
    FindKeys(FindKeys),
    /// The client has proved that it knows the password, and knows that we do.
    Proved {
        /// Authentication identity.
        user: String,
        /// Authorization identity, when it is another one.
        act_as: Option<String>,
    },
    /// The proof is wrong, or somebody stands in between.
    Refused,
    /// The response does not follow the mechanism.
    Malformed,
}

/// The mechanisms that a server offers of those that its operator wants, strongest first. SCRAM and CRAM-MD5 also in
/// clear text, for they do not send the password; SCRAM bound to the channel where there is something to bind to.
pub fn offered(wanted: &[Mechanism], facts: Facts<'_>) -> Vec<Mechanism> {
    let bears = |mechanism: &Mechanism| match mechanism {
        Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus => facts.tls && !facts.bindings.is_empty(),
        Mechanism::ScramSha256 | Mechanism::ScramSha1 | Mechanism::CramMd5 => true,
        Mechanism::Plain | Mechanism::Login => facts.tls || facts.plaintext_allowed,
    };
    Mechanism::ALL.into_iter().filter(|mechanism| wanted.contains(mechanism) && bears(mechanism)).collect()
}

/// What an exchange depends on besides the client.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What was offered on this connection.
    pub offered: &'a [Mechanism],
    /// What the connection can be bound to.
    pub bindings: &'a ChannelBindings,
    /// Our name, which stands in the challenge of CRAM-MD5.
    pub hostname: &'a str,
}

/// Which keys of a password an exchange goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-1.
    ScramSha1,
    /// CRAM-MD5.
    CramMd5,
}

impl KeyKind {
    /// Those that a mechanism wants; `None` where it sends the password itself.
    pub const fn of(mechanism: Mechanism) -> Option<Self> {
        match mechanism {
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => Some(Self::ScramSha256),
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => Some(Self::ScramSha1),
            Mechanism::CramMd5 => Some(Self::CramMd5),
            Mechanism::Plain | Mechanism::Login => None,
        }
    }
}

impl From<Hash> for KeyKind {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Sha256 => Self::ScramSha256,
            Hash::Sha1 => Self::ScramSha1,
        }
    }
}

/// Keys of a password, or what stands in for them.
#[derive(Debug, Clone)]
pub enum Keys {
    /// For [`KeyKind::ScramSha256`] and [`KeyKind::ScramSha1`].
    Scram(StoredKeys),
    /// For [`KeyKind::CramMd5`].
    CramMd5(CramState),
}

/// An exchange that waits for the client's response.
#[derive(PartialEq, Eq)]
pub struct Exchange(State);

#[derive(PartialEq, Eq)]
enum State {
    Plain,
    LoginUser,
    LoginPassword {
        user: String,
    },
    Cram {
        challenge: String,
    },
    ScramFirst(ScramFirst),
    ScramFinal(Box<ScramFinal>),
    /// The client has our signature and says nothing more.
    ScramSigned {
        user: String,
        act_as: Option<String>,
    },
}

/// What the client's first message is read with.
#[derive(PartialEq, Eq)]
struct ScramFirst {
    hash: Hash,
    /// `-PLUS`.
    bound: bool,
    /// `-PLUS` was offered, of whatever hash function.
    bound_offered: bool,
    bindings: ChannelBindings,
    nonce: String,
}

/// What the client's last message is checked against.
#[derive(PartialEq, Eq)]
struct ScramFinal {
    user: String,
    act_as: Option<String>,
    keys: StoredKeys,
    nonce: String,
    /// Header and bytes of the binding, as they must come back.
    channel: Vec<u8>,
    client_first_bare: String,
    server_first: String,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// Begins, with the initial response if the client sent one along.
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>, terms: &Terms<'_>) -> Step {
        Self::start_with_nonce(mechanism, initial, terms, scram::nonce())
    }

    fn start_with_nonce(
        mechanism: Mechanism,
        initial: Option<&[u8]>,
        terms: &Terms<'_>,
        nonce: String,
    ) -> Step {
        let scram = |hash, nonce| {
            State::ScramFirst(ScramFirst {
                hash,
                bound: mechanism.binds_channel(),
                bound_offered: terms.offered.iter().any(|offered| offered.binds_channel()),
                bindings: terms.bindings.clone(),
                nonce,
            })
        };
        let (state, challenge) = match mechanism {
            // RFC 4616 §2, RFC 5802 §5: the client speaks first; without an initial response, the challenge is empty.
            Mechanism::Plain => (State::Plain, Vec::new()),
            Mechanism::Login => (State::LoginUser, b"Username:".to_vec()),
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => (scram(Hash::Sha256, nonce), Vec::new()),
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => (scram(Hash::Sha1, nonce), Vec::new()),
            // RFC 2195 §2: the server speaks first. A client that has spoken has not seen what it must answer.
            Mechanism::CramMd5 if initial.is_some() => return Step::Malformed,
            Mechanism::CramMd5 => {
                let challenge = cram_md5::challenge(&nonce, terms.hostname);
                (State::Cram { challenge: challenge.clone() }, challenge.into_bytes())
            }
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
            State::Cram { challenge } => cram(text, challenge),
            State::ScramFirst(first) => first.read(text),
            State::ScramFinal(last) => last.check(text),
            State::ScramSigned { user, act_as } if text.is_empty() => Step::Proved { user, act_as },
            State::ScramSigned { .. } => Step::Malformed,
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

/// RFC 2195 §2: the user, a space, and the digest in hexadecimal digits.
fn cram(text: &str, challenge: String) -> Step {
    // The user may hold spaces, the digest holds none.
    let Some((user, digest)) = text.rsplit_once(' ').filter(|(user, _)| !user.is_empty()) else {
        return Step::Malformed;
    };
    let user = prepare(user).map_or_else(|_| user.to_owned(), std::borrow::Cow::into_owned);
    let next = Next::CramMd5 { challenge, digest: digest.to_ascii_lowercase() };
    Step::FindKeys(FindKeys { user, kind: KeyKind::CramMd5, next })
}

/// An exchange that waits for the keys of a user.
#[derive(PartialEq, Eq)]
pub struct FindKeys {
    /// Whose, prepared.
    pub user: String,
    /// Which.
    pub kind: KeyKind,
    next: Next,
}

/// What follows once the keys are there.
#[derive(PartialEq, Eq)]
enum Next {
    Scram { act_as: Option<String>, nonce: String, channel: Vec<u8>, client_first_bare: String },
    CramMd5 { challenge: String, digest: String },
}

impl fmt::Debug for FindKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FindKeys").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl FindKeys {
    /// Goes on with the keys, or those that stand in for them.
    pub fn found(self, keys: Keys) -> Step {
        let user = self.user;
        match (self.next, keys) {
            (Next::Scram { act_as, nonce, channel, client_first_bare }, Keys::Scram(keys)) => {
                let salt = super::encode(&keys.salt);
                let server_first = format!("r={nonce},s={salt},i={}", keys.iterations);
                let text = server_first.clone().into_bytes();
                let last = ScramFinal { user, act_as, keys, nonce, channel, client_first_bare, server_first };
                Step::Challenge { text, exchange: Exchange(State::ScramFinal(Box::new(last))) }
            }
            (Next::CramMd5 { challenge, digest }, Keys::CramMd5(state)) => {
                let right = state.answer(challenge.as_bytes());
                if scram::equal(right.as_bytes(), digest.as_bytes()) {
                    Step::Proved { user, act_as: None }
                } else {
                    Step::Refused
                }
            }
            // Keys of another kind prove nothing.
            _ => Step::Refused,
        }
    }
}

impl ScramFirst {
    /// `client-first-message` (RFC 5802 §7).
    fn read(self, text: &str) -> Step {
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(act_as), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Step::Malformed;
        };
        let binding = match (flag, self.bound) {
            ("n", false) => &[][..],
            // RFC 5802 §6: the client could bind and believes that we cannot. Where we had said so, somebody took it
            // out of our list; where the operator does not offer it, the client is right.
            ("y", false) if self.bound_offered => return Step::Refused,
            ("y", false) => &[],
            (flag, true) => match flag.strip_prefix("p=") {
                Some(name) => match self.bindings.get(name) {
                    Some(data) => data,
                    None => return Step::Refused,
                },
                None => return Step::Malformed,
            },
            _ => return Step::Malformed,
        };
        let header_length = text.len() - bare.len();
        let channel = [&text.as_bytes()[..header_length], binding].concat();
        let act_as = match act_as {
            "" => None,
            name => match name.strip_prefix("a=").and_then(scram::unescape) {
                Some(name) => Some(name),
                None => return Step::Malformed,
            },
        };
        let mut attributes = Attributes::of(bare);
        let user = attributes.take('n').and_then(scram::unescape);
        let user = user.and_then(|user| prepare(&user).ok().map(std::borrow::Cow::into_owned));
        let theirs = attributes.take('r').filter(|nonce| scram::is_nonce(nonce));
        let (Some(user), Some(theirs), true) = (user, theirs, attributes.rest_is_optional()) else {
            return Step::Malformed;
        };
        let next = Next::Scram {
            act_as: act_as.filter(|other| *other != user),
            nonce: format!("{theirs}{}", self.nonce),
            channel,
            client_first_bare: bare.to_owned(),
        };
        Step::FindKeys(FindKeys { user, kind: self.hash.into(), next })
    }
}

impl ScramFinal {
    /// `client-final-message` (RFC 5802 §7): binding, nonce and proof must all be right.
    fn check(self, text: &str) -> Step {
        // The proof is the last attribute, and signs all before it.
        let Some((without_proof, proof)) = text.rsplit_once(",p=") else { return Step::Malformed };
        let mut attributes = Attributes::of(without_proof);
        let channel = attributes.take('c').and_then(|text| super::decode(text.as_bytes()).ok());
        let nonce = attributes.take('r');
        let proof = super::decode(proof.as_bytes()).ok();
        let (Some(channel), Some(nonce), Some(proof), true) =
            (channel, nonce, proof, attributes.rest_is_optional())
        else {
            return Step::Malformed;
        };
        let auth_message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let auth_message = auth_message.as_bytes();
        let right = self.keys.verify(auth_message, &proof);
        if !right || !scram::equal(&channel, &self.channel) || nonce != self.nonce {
            return Step::Refused;
        }
        let signature = super::encode(&self.keys.server_signature(auth_message));
        let Self { user, act_as, .. } = self;
        Step::Challenge {
            text: format!("v={signature}").into_bytes(),
            exchange: Exchange(State::ScramSigned { user, act_as }),
        }
    }
}
