//! The server's side: initial response and responses in, challenges out, at the end who the client is.
//!
//! RFC 5802 and 7677 (SCRAM), RFC 2195 (CRAM-MD5), RFC 4616 (PLAIN). PLAIN and LOGIN end with [`Credentials`] whose
//! password is to be checked; SCRAM and CRAM-MD5 ask for the account's keys in between ([`Step::FindKeys`]) and check the
//! proof themselves. Whoever gives the keys has some for names that do not exist as well, so that the exchange looks the
//! same for them.

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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> Step {
        let terms = Terms { offered: &[], bindings: &ChannelBindings::default(), hostname: "mx.test" };
        Exchange::start(mechanism, initial, &terms)
    }

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
            assert_eq!(start(Mechanism::Plain, Some(message)), step, "{message:?}");
        }
    }

    #[test]
    fn login_asks_twice() {
        let Step::Challenge { text, exchange } = start(Mechanism::Login, None) else { panic!() };
        assert_eq!(text, b"Username:");
        let Step::Challenge { text, exchange } = exchange.respond(b"tim") else { panic!() };
        assert_eq!(text, b"Password:");
        assert_eq!(exchange.respond(b"secret"), verify("tim", None, "secret"));
        assert_eq!(start(Mechanism::Login, Some(b"")), Step::Malformed);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let step = start(Mechanism::Plain, Some(b"\0tim\0hunter2"));
        let printed = format!("{step:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("tim"), "{printed}");
    }

    /// The exchange of RFC 7677 §3 up to the server's first message.
    fn example() -> Exchange {
        let first = start_scram(Mechanism::ScramSha256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", bindings(false));
        let Step::FindKeys(find) = first else { panic!("{first:?}") };
        assert_eq!((find.user.as_str(), find.kind), ("user", KeyKind::ScramSha256));
        let salt = crate::sasl::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = StoredKeys::derive(Hash::Sha256, "pencil", salt, NonZeroU32::new(4096).unwrap());
        let Step::Challenge { text, exchange } = find.found(Keys::Scram(keys)) else { panic!() };
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        exchange
    }

    fn start_scram(mechanism: Mechanism, first: &[u8], bindings: ChannelBindings) -> Step {
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        let facts = Facts { tls: true, plaintext_allowed: false, bindings: &bindings };
        let offered = offered(&Mechanism::ALL, facts);
        let terms = Terms { offered: &offered, bindings: &bindings, hostname: "mx.test" };
        Exchange::start_with_nonce(mechanism, Some(first), &terms, nonce)
    }

    fn bindings(some: bool) -> ChannelBindings {
        ChannelBindings { exporter: some.then(|| b"channel".to_vec()), server_end_point: None }
    }

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn scram_as_in_rfc_7677() {
        let step = example().respond(format!("c=biws,r={NONCE},p={PROOF}").as_bytes());
        let Step::Challenge { text, exchange } = step else { panic!("{step:?}") };
        assert_eq!(text, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.respond(b""), Step::Proved { user: "user".to_owned(), act_as: None });
    }

    #[test]
    fn last_messages_that_are_refused() {
        let short = &NONCE[..NONCE.len() - 1];
        for (message, step) in [
            (format!("c=biws,r={NONCE},p=AAAA"), Step::Refused),
            (format!("c=biws,r={NONCE},p="), Step::Refused),
            (format!("c=biws,r={short},p={PROOF}"), Step::Refused),
            (format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={PROOF}"), Step::Refused),
            (format!("c=eSws,r={NONCE},p={PROOF}"), Step::Refused),
            (format!("c=biws,r={NONCE},x=1,p={PROOF}"), Step::Refused),
            (format!("c=biws,r={NONCE},m=1,p={PROOF}"), Step::Malformed),
            (format!("r={NONCE},c=biws,p={PROOF}"), Step::Malformed),
            (format!("c=biws,r={NONCE}"), Step::Malformed),
            (String::new(), Step::Malformed),
        ] {
            assert_eq!(example().respond(message.as_bytes()), step, "{message}");
        }
    }

    #[test]
    fn first_messages() {
        let is = |mechanism, text: &str, bound| match start_scram(mechanism, text.as_bytes(), bindings(bound))
        {
            Step::FindKeys(_) => "goes on",
            Step::Refused => "refused",
            Step::Malformed => "malformed",
            other => panic!("{other:?}"),
        };
        let (plus, bare) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
        for (mechanism, text, bound, expected) in [
            (bare, "n,,n=tim,r=abc", false, "goes on"),
            (bare, "n,,n=tim,r=abc,x=extension", false, "goes on"),
            (bare, "n,a=ann,n=tim,r=abc", false, "goes on"),
            (bare, "y,,n=tim,r=abc", false, "goes on"),
            (bare, "n,,n=tim,r=abc", true, "goes on"),
            // Somebody took -PLUS out of our list.
            (bare, "y,,n=tim,r=abc", true, "refused"),
            (bare, "p=tls-exporter,,n=tim,r=abc", true, "malformed"),
            (plus, "p=tls-exporter,,n=tim,r=abc", true, "goes on"),
            (plus, "p=tls-unique,,n=tim,r=abc", true, "refused"),
            (plus, "p=tls-server-end-point,,n=tim,r=abc", true, "refused"),
            (plus, "n,,n=tim,r=abc", true, "malformed"),
            (plus, "y,,n=tim,r=abc", true, "malformed"),
            (bare, "n,,n=,r=abc", false, "malformed"),
            (bare, "n,,n=a=b,r=abc", false, "malformed"),
            (bare, "n,,n=tim,r=", false, "malformed"),
            (bare, "n,,m=1,n=tim,r=abc", false, "malformed"),
            (bare, "n,,n=tim", false, "malformed"),
            (bare, "n,tim,n=tim,r=abc", false, "malformed"),
            (bare, "x,,n=tim,r=abc", false, "malformed"),
            (bare, "n", false, "malformed"),
        ] {
            assert_eq!(is(mechanism, text, bound), expected, "{mechanism} {text}");
        }
    }

    /// RFC 5802 §6 speaks of what the client was told, which is the operator's choice.
    #[test]
    fn a_client_that_heard_of_no_binding_is_right_where_none_is_offered() {
        let bindings = bindings(true);
        for (offered, goes_on) in [
            (&[Mechanism::ScramSha256, Mechanism::Plain][..], true),
            (&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256], false),
            // It could have taken the other one.
            (&[Mechanism::ScramSha1Plus, Mechanism::ScramSha256], false),
        ] {
            let terms = Terms { offered, bindings: &bindings, hostname: "mx.test" };
            let step = Exchange::start(Mechanism::ScramSha256, Some(b"y,,n=tim,r=abc"), &terms);
            assert_eq!(matches!(step, Step::FindKeys(_)), goes_on, "{offered:?} {step:?}");
        }
    }

    #[test]
    fn what_is_offered_where() {
        let offered = |wanted: &[Mechanism], tls, plaintext_allowed, bound| {
            let bindings = bindings(bound);
            let names = offered(wanted, Facts { tls, plaintext_allowed, bindings: &bindings });
            names.iter().map(Mechanism::to_string).collect::<Vec<_>>().join(" ")
        };
        let usual = |tls, plaintext, bound| offered(&Mechanism::OFFERED_BY_DEFAULT, tls, plaintext, bound);
        assert_eq!(
            usual(true, false, true),
            "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"
        );
        assert_eq!(usual(true, false, false), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN");
        assert_eq!(usual(false, true, false), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN");
        assert_eq!(usual(false, false, false), "SCRAM-SHA-256 SCRAM-SHA-1");
        // By the operator's choice, strongest first whatever the order of the choice.
        let chosen = [Mechanism::Login, Mechanism::CramMd5, Mechanism::ScramSha1Plus];
        assert_eq!(offered(&chosen, true, false, true), "SCRAM-SHA-1-PLUS CRAM-MD5 LOGIN");
        assert_eq!(offered(&chosen, false, false, false), "CRAM-MD5");
    }

    #[test]
    fn cram_md5_knows_a_right_digest_from_a_wrong_one() {
        let begin = || {
            let Step::Challenge { text, exchange } = start(Mechanism::CramMd5, None) else { panic!() };
            (String::from_utf8(text).unwrap(), exchange)
        };
        let (challenge, other) = (begin().0, begin().0);
        assert!(challenge.starts_with('<') && challenge.ends_with("@mx.test>"), "{challenge}");
        assert_ne!(challenge, other);
        let state = CramState::derive("secret");
        let ends = |make: &dyn Fn(&str) -> String, keys: Keys| {
            let (challenge, exchange) = begin();
            match exchange.respond(make(&challenge).as_bytes()) {
                Step::FindKeys(find) => {
                    assert_eq!(find.kind, KeyKind::CramMd5);
                    find.found(keys)
                }
                step => step,
            }
        };
        let keys = || Keys::CramMd5(CramState::derive("secret"));
        let proved = |user: &str| Step::Proved { user: user.to_owned(), act_as: None };
        let digest = |challenge: &str| state.answer(challenge.as_bytes());
        assert_eq!(ends(&|c| format!("tim {}", digest(c)), keys()), proved("tim"));
        assert_eq!(ends(&|c| format!("tim tom {}", digest(c).to_uppercase()), keys()), proved("tim tom"));
        for wrong in [
            &(|_: &str| format!("tim {}", digest("<another@mx.test>"))) as &dyn Fn(&str) -> String,
            &|c| format!("tim {}", &digest(c)[1..]),
            &|_| "tim ".to_owned(),
        ] {
            assert_eq!(ends(wrong, keys()), Step::Refused);
        }
        let other = Keys::CramMd5(CramState::derive("secrets"));
        assert_eq!(ends(&|c| format!("tim {}", digest(c)), other), Step::Refused);
        for malformed in ["", "tim", " 0123"] {
            assert_eq!(ends(&|_| malformed.to_owned(), keys()), Step::Malformed, "{malformed:?}");
        }
        // An answer before the question is none to it.
        assert_eq!(start(Mechanism::CramMd5, Some(b"tim 0123")), Step::Malformed);
    }
}
