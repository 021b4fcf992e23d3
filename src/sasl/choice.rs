//! Which mechanism a client uses: the strongest that the server offers, the operator allows and the connection bears.
//!
//! The order is [`Mechanism::ALL`], never the server's. A mechanism that sends the password goes over TLS, or where
//! the operator has said that it may travel in clear text.

use std::fmt;

use super::Mechanism;

/// Bytes that both ends of a TLS channel know and nobody between them shares; none without TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    /// `tls-exporter` (RFC 9266): 32 bytes.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929 §4): a hash of the server's certificate.
    pub server_end_point: Option<Vec<u8>>,
}

impl ChannelBindings {
    /// There is nothing to bind to.
    pub fn is_empty(&self) -> bool {
        self.exporter.is_none() && self.server_end_point.is_none()
    }

    /// The bytes of a binding by its registered name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            EXPORTER => self.exporter.as_deref(),
            SERVER_END_POINT => self.server_end_point.as_deref(),
            _ => None,
        }
    }

    /// RFC 9266 §3: the exporter wherever it is there.
    fn best(&self) -> Option<Channel> {
        let bound = |name, data: &Option<Vec<u8>>| Some(Channel::Bound { name, data: data.clone()? });
        bound(EXPORTER, &self.exporter).or_else(|| bound(SERVER_END_POINT, &self.server_end_point))
    }
}

const EXPORTER: &str = "tls-exporter";
const SERVER_END_POINT: &str = "tls-server-end-point";

/// What the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Allowed {
    /// All that we speak.
    #[default]
    Any,
    /// Only these, in no order.
    Of(Vec<Mechanism>),
    /// This, or nothing.
    Exactly(Mechanism),
}

impl Allowed {
    fn allows(&self, mechanism: Mechanism) -> bool {
        match self {
            Self::Any => true,
            Self::Of(all) => all.contains(&mechanism),
            Self::Exactly(one) => *one == mechanism,
        }
    }
}

/// What the choice depends on besides names.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The connection is encrypted.
    pub tls: bool,
    /// The operator lets passwords travel in clear text.
    pub plaintext_allowed: bool,
    /// What the exchange can be bound to.
    pub bindings: &'a ChannelBindings,
}

/// What SCRAM tells about channel binding (RFC 5802 §6): signed along, so that who removes `-PLUS` from the server's
/// list is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// `n`: we cannot bind, or do not want to.
    Unsupported,
    /// `y`: we could, but the server does not offer it.
    NotOffered,
    /// `p=`: bound.
    Bound {
        /// The binding's registered name.
        name: &'static str,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// The mechanism to use, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub mechanism: Mechanism,
    /// What SCRAM says about channel binding; nothing to the others.
    pub channel: Channel,
}

/// Why there is no way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMechanism {
    /// The server has none at all.
    #[error("the server offers no authentication")]
    NothingOffered,
    /// What it has we do not speak or may not use.
    #[error("the server offers no authentication mechanism that is allowed here, only {0}")]
    NoneAllowed(Names),
    /// There would be one, but it would give the password away.
    #[error("the server offers only {0} without TLS, which would send the password in clear text")]
    NeedsTls(Names),
    /// It would have to be bound to a TLS channel that has nothing to bind to.
    #[error("the server offers only {0}, and this connection has nothing to bind it to")]
    NeedsBinding(Names),
}

/// Names of mechanisms, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Chooses among the names that a server offers, in whatever order and case.
pub fn choose<S: AsRef<str>>(
    offered: &[S],
    allowed: &Allowed,
    facts: Facts<'_>,
) -> Result<Choice, NoMechanism> {
    if offered.is_empty() {
        return Err(NoMechanism::NothingOffered);
    }
    let is_offered = |mechanism: Mechanism| {
        offered.iter().any(|name| name.as_ref().eq_ignore_ascii_case(mechanism.as_str()))
    };
    let best = facts.bindings.best().filter(|_| facts.tls);
    let bears = |mechanism: Mechanism| {
        (!mechanism.sends_password() || facts.tls || facts.plaintext_allowed)
            && (!mechanism.binds_channel() || best.is_some())
    };
    let wanted: Vec<Mechanism> =
        Mechanism::ALL.into_iter().filter(|m| is_offered(*m) && allowed.allows(*m)).collect();
    let Some(mechanism) = wanted.iter().copied().find(|m| bears(*m)) else {
        let names = |all: &[Mechanism]| Names(all.iter().map(Mechanism::to_string).collect());
        return Err(if wanted.is_empty() {
            NoMechanism::NoneAllowed(Names(offered.iter().map(|name| name.as_ref().to_owned()).collect()))
        } else if wanted.iter().any(|m| m.sends_password()) {
            NoMechanism::NeedsTls(names(&wanted))
        } else {
            NoMechanism::NeedsBinding(names(&wanted))
        });
    };
    let plus_offered = Mechanism::ALL.into_iter().any(|m| m.binds_channel() && is_offered(m));
    let channel = match best {
        Some(bound) if mechanism.binds_channel() => bound,
        // RFC 5802 §6: with `y` a server that does offer it ends the exchange, as it must when somebody hid that.
        Some(_) if !plus_offered => Channel::NotOffered,
        _ => Channel::Unsupported,
    };
    Ok(Choice { mechanism, channel })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the order is specified, written out once more.
    const ORDER: [&str; 7] = [
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ];

    fn bindings(exporter: bool, end_point: bool) -> ChannelBindings {
        ChannelBindings {
            exporter: exporter.then(|| vec![1; 32]),
            server_end_point: end_point.then(|| vec![2; 32]),
        }
    }

    fn subset(bits: usize) -> Vec<&'static str> {
        (0..ORDER.len()).filter(|n| bits & 1 << n != 0).map(|n| ORDER[n]).collect()
    }

    /// What the choice must be, told from the names alone.
    fn expected(offered: &[&str], tls: bool, plaintext: bool, bound: bool) -> Option<&'static str> {
        ORDER.into_iter().find(|name| {
            offered.contains(name)
                && match *name {
                    "PLAIN" | "LOGIN" => tls || plaintext,
                    plus if plus.ends_with("-PLUS") => tls && bound,
                    _ => true,
                }
        })
    }

    #[test]
    fn the_strongest_of_every_subset_in_every_order() {
        for bits in 0..1 << ORDER.len() {
            for facts in 0..8 {
                let (tls, plaintext_allowed, bound) = (facts & 1 != 0, facts & 2 != 0, facts & 4 != 0);
                let bindings = bindings(bound, bound);
                let offered = subset(bits);
                let expected = expected(&offered, tls, plaintext_allowed, bound);
                // Every rotation, and each backwards, between mechanisms that we do not speak.
                for turn in 0..offered.len().max(1) {
                    for backwards in [false, true] {
                        let mut names = offered.clone();
                        names.rotate_left(turn.min(offered.len()));
                        if backwards {
                            names.reverse();
                        }
                        names.insert(0, "GSSAPI");
                        names.push("XOAUTH2");
                        let facts = Facts { tls, plaintext_allowed, bindings: &bindings };
                        let chosen = choose(&names, &Allowed::Any, facts);
                        assert_eq!(
                            chosen.as_ref().ok().map(|choice| choice.mechanism.as_str()),
                            expected,
                            "{names:?} {facts:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_the_operator_allows_of_every_subset_and_connection() {
        for facts in 0..8 {
            let (tls, plaintext_allowed, bound) = (facts & 1 != 0, facts & 2 != 0, facts & 4 != 0);
            let bindings = bindings(bound, bound);
            let facts = Facts { tls, plaintext_allowed, bindings: &bindings };
            for allowed_bits in 0..1 << ORDER.len() {
                let allowed = subset(allowed_bits).into_iter().map(|name| name.parse().unwrap()).collect();
                let allowed = Allowed::Of(allowed);
                for offered_bits in 0..1 << ORDER.len() {
                    let mut offered = subset(offered_bits);
                    offered.reverse();
                    let both = subset(offered_bits & allowed_bits);
                    let expected = expected(&both, tls, plaintext_allowed, bound);
                    let chosen = choose(&offered, &allowed, facts).ok();
                    assert_eq!(chosen.map(|choice| choice.mechanism.as_str()), expected);
                }
            }
        }
    }

    #[test]
    fn a_configured_mechanism_wins_over_stronger_ones_and_never_gives_way() {
        for facts in 0..8 {
            let (tls, plaintext_allowed, bound) = (facts & 1 != 0, facts & 2 != 0, facts & 4 != 0);
            let bindings = bindings(bound, bound);
            let facts = Facts { tls, plaintext_allowed, bindings: &bindings };
            for mechanism in Mechanism::ALL {
                let named = mechanism.as_str();
                for bits in 0..1 << ORDER.len() {
                    let offered = subset(bits);
                    let chosen = choose(&offered, &Allowed::Exactly(mechanism), facts);
                    // Named or not: no password in clear text, and nothing bound to nothing.
                    let alone: &[&str] = if offered.contains(&named) { &[named] } else { &[] };
                    let expected = expected(alone, tls, plaintext_allowed, bound);
                    let found = chosen.as_ref().ok().map(|choice| choice.mechanism.as_str());
                    assert_eq!(found, expected, "{named} of {offered:?}, {facts:?}");
                    if expected.is_none() && !offered.is_empty() {
                        let why = chosen.unwrap_err();
                        assert_eq!(matches!(why, NoMechanism::NoneAllowed(_)), alone.is_empty(), "{why}");
                        assert_eq!(
                            matches!(why, NoMechanism::NeedsTls(_)),
                            !alone.is_empty() && mechanism.sends_password(),
                            "{why}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_scram_says_about_the_channel() {
        let channel = |offered: &[&str], allowed: &Allowed, tls, exporter, end_point| {
            let bindings = bindings(exporter, end_point);
            let facts = Facts { tls, plaintext_allowed: false, bindings: &bindings };
            choose(offered, allowed, facts).unwrap().channel
        };
        let any = &Allowed::Any;
        let bound = |name, byte| Channel::Bound { name, data: vec![byte; 32] };
        assert_eq!(channel(&ORDER, any, true, true, true), bound("tls-exporter", 1));
        assert_eq!(channel(&ORDER, any, true, false, true), bound("tls-server-end-point", 2));
        assert_eq!(channel(&ORDER, any, true, false, false), Channel::Unsupported);
        assert_eq!(channel(&["SCRAM-SHA-256"], any, true, true, true), Channel::NotOffered);
        assert_eq!(channel(&["SCRAM-SHA-256"], any, true, false, false), Channel::Unsupported);
        assert_eq!(channel(&["SCRAM-SHA-256"], any, false, true, true), Channel::Unsupported);
        // The operator forbids what the server offers: no claim that it does not.
        let weak = Allowed::Exactly(Mechanism::ScramSha256);
        assert_eq!(channel(&ORDER, &weak, true, true, true), Channel::Unsupported);
    }

    #[test]
    fn why_there_is_none() {
        let say = |offered: &[&str], tls| {
            let bindings = ChannelBindings::default();
            let facts = Facts { tls, plaintext_allowed: false, bindings: &bindings };
            choose(offered, &Allowed::Any, facts).unwrap_err().to_string()
        };
        assert_eq!(say(&[], true), "the server offers no authentication");
        assert_eq!(
            say(&["GSSAPI", "NTLM"], true),
            "the server offers no authentication mechanism that is allowed here, only GSSAPI, NTLM"
        );
        assert_eq!(
            say(&["LOGIN", "plain", "NTLM"], false),
            "the server offers only PLAIN, LOGIN without TLS, which would send the password in clear text"
        );
        assert_eq!(
            say(&["SCRAM-SHA-1-PLUS"], true),
            "the server offers only SCRAM-SHA-1-PLUS, and this connection has nothing to bind it to"
        );
    }
}
