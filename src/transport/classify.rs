//! What replies and failures mean for the recipients: pure decisions, no I/O.
//!
//! RFC 5321 §4.2.1 (first digit), §4.5.3.1.10 (too many recipients), RFC 3463 (enhanced status codes of our own).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::Domain;
use crate::config::IpPolicy;
use crate::dns::{DnsError, Nothing, Trouble};
use crate::net::DialError;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::sasl::{ClientError, NoMechanism};
use crate::smtp::Reply;
use crate::smtp::reply::ReplyError;
use crate::tls::ClientTlsError;

/// Longest text kept of a reply, bytes. More is cut: it would be stored with every attempt.
pub(super) const TEXT_BYTES_MAX: usize = 2_000;

/// Whom an outcome speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) host: Option<Domain>,
    pub(super) ip: Option<IpAddr>,
    pub(super) tls: Option<String>,
}

/// A connection that came to nothing, or broke.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) cause: Cause,
}

/// How it broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// No connection.
    #[error("{0}")]
    Dial(DialError),
    /// No reply in time.
    #[error("timed out after {} s while waiting for {waiting_for}", .after.as_secs_f32())]
    Timeout { after: Duration, waiting_for: &'static str },
    /// The peer hung up.
    #[error("the peer closed the connection while we waited for {0}")]
    Closed(&'static str),
    /// The network broke, or the peer reset the connection.
    #[error("the connection was lost: {}", crate::net::reason(.0))]
    Lost(io::Error),
    /// The peer does not speak SMTP.
    #[error("{0}")]
    NotSmtp(ReplyError),
    /// The peer said no to the session as a whole.
    #[error("{0:?}")]
    Reply(Reply),
    /// TLS did not come about.
    #[error("{0}")]
    Tls(ClientTlsError),
    /// The policy wants TLS, the peer has none.
    #[error("TLS is required, but the peer does not offer it")]
    TlsNotOffered,
    /// The sender wants TLS with a peer that shows who it is.
    #[error("the sender requires TLS with a verified peer (REQUIRETLS): {0}")]
    NoVerifiedTls(String),
    /// The sender wants REQUIRETLS.
    #[error("the sender requires REQUIRETLS, which the peer does not offer")]
    NoRequireTls,
    /// Nobody can log in with what the peer offers.
    #[error("{0}")]
    NoMechanism(NoMechanism),
    /// The exchange cannot go on, or the peer did not prove who it is.
    #[error("{0}")]
    Sasl(ClientError),
    /// A challenge that is no base64.
    #[error("the peer sent a challenge that is not base64")]
    NotBase64,
    /// Clear text stood between STARTTLS and the handshake (CVE-2011-0411 and its kin).
    #[error("the peer sent clear text after STARTTLS")]
    TlsInjection,
}

impl Failure {
    pub(super) fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// For a message with REQUIRETLS, a peer without TLS or with a wrong certificate is one that cannot have it; what may
    /// be otherwise next time stays as it is (RFC 8689 §4.2.1).
    pub(super) fn under_require_tls(self) -> Self {
        let why = match &self.cause {
            Cause::TlsNotOffered => "the peer does not offer TLS".to_owned(),
            Cause::Tls(why @ ClientTlsError::Certificate(_)) => why.to_string(),
            Cause::Reply(reply) if self.stage == Stage::Tls && reply.is_permanent() => reply.text(),
            _ => return self,
        };
        Self::new(Stage::Mail, Cause::NoVerifiedTls(why))
    }

    /// What it means when nothing else was tried.
    pub(super) fn outcome(&self, seen: &Seen) -> Outcome {
        let ours = |enhanced: EnhancedCode| {
            let verdict = if enhanced.class == 5 { Verdict::Permanent } else { Verdict::Temporary };
            let outcome = Outcome::ours(verdict, self.stage, enhanced, cut(self.cause.to_string()));
            with_peer(outcome, seen)
        };
        match &self.cause {
            Cause::Dial(_) => ours(EnhancedCode::new(4, 4, 1)),
            Cause::Timeout { .. } | Cause::Closed(_) | Cause::Lost(_) => ours(EnhancedCode::new(4, 4, 2)),
            Cause::NotSmtp(_) | Cause::NotBase64 => ours(EnhancedCode::new(4, 5, 0)),
            Cause::TlsNotOffered => ours(EnhancedCode::new(4, 7, 4)),
            Cause::Tls(_) | Cause::TlsInjection => ours(EnhancedCode::new(4, 7, 5)),
            // RFC 4954 §6: 5.7.11, encryption needed for the requested mechanism.
            Cause::NoMechanism(NoMechanism::NeedsTls(_)) => ours(EnhancedCode::new(4, 7, 11)),
            Cause::NoMechanism(_) | Cause::Sasl(_) => ours(EnhancedCode::new(4, 7, 0)),
            // RFC 8689 §4.2.1 names both.
            Cause::NoVerifiedTls(_) => ours(EnhancedCode::new(5, 7, 10)),
            Cause::NoRequireTls => ours(EnhancedCode::new(5, 7, 30)),
            Cause::Reply(reply) => outcome_of_reply(self.stage, reply, seen),
        }
    }

    /// Whether it is the proxy that failed, so that another host would fare no better.
    pub(super) fn is_the_proxys(&self) -> bool {
        matches!(self.cause, Cause::Dial(DialError::Proxy { .. }))
    }
}

/// What a reply means for the recipients that it speaks of: a final reply to DATA that is positive delivers them; every
/// other reply that comes here refuses them.
pub(super) fn outcome_of_reply(stage: Stage, reply: &Reply, seen: &Seen) -> Outcome {
    let verdict = match reply.code / 100 {
        2 if stage == Stage::Data => Verdict::Delivered,
        // RFC 5321 §3.8: 421 says that the server goes away, whatever was asked. What a smarthost or a host says
        // about TLS is no word about the message.
        5 if stage != Stage::Tls => Verdict::Permanent,
        // 4xx, and replies that make no sense here.
        _ => Verdict::Temporary,
    };
    let class = class_of(verdict);
    let peers = reply.enhanced.filter(|enhanced| enhanced.class == class);
    let outcome = Outcome {
        verdict,
        stage,
        host: None,
        ip: None,
        tls: None,
        code: Some(reply.code),
        enhanced: Some(peers.unwrap_or(EnhancedCode::new(class, 0, 0))),
        text: cut(reply.text()),
        dsn_passed_on: false,
    };
    with_peer(outcome, seen)
}

const fn class_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Delivered => 2,
        Verdict::Temporary => 4,
        Verdict::Permanent => 5,
    }
}

/// What a name without an answer means: a recipient's domain, or a `host` that should take its mail. That the domain
/// does not exist is the address's fault (5.1.2); that its hosts lead nowhere is its postmaster's (5.4.4).
pub(super) fn outcome_of_dns(error: &DnsError, host: Option<&Domain>) -> Outcome {
    let (verdict, enhanced) = match error {
        DnsError::Permanent(Nothing::NoSuchDomain(_)) if host.is_none() => {
            (Verdict::Permanent, EnhancedCode::new(5, 1, 2))
        }
        DnsError::Permanent(_) => (Verdict::Permanent, EnhancedCode::new(5, 4, 4)),
        DnsError::Temporary(Trouble::AliasLoop(_)) => (Verdict::Temporary, EnhancedCode::new(4, 4, 6)),
        DnsError::Temporary(_) => (Verdict::Temporary, EnhancedCode::new(4, 4, 3)),
    };
    let mut outcome = Outcome::ours(verdict, Stage::Dns, enhanced, cut(error.to_string()));
    outcome.host = host.map(ToString::to_string);
    outcome
}

/// What stands between us and a smarthost is never the message's fault: that its name does not exist or that it turns us
/// away as a client is for the operator to mend, and the mail waits for it.
pub(super) fn at_smarthost(outcome: Outcome) -> Outcome {
    // RFC 4954 §6: it wants to know who we are, or knows and does not like it.
    let about_us = matches!(outcome.code, Some(530 | 534 | 535 | 538));
    let about_the_message = matches!(outcome.stage, Stage::Mail | Stage::Rcpt | Stage::Data);
    if (about_the_message && !about_us) || outcome.verdict != Verdict::Permanent {
        return outcome;
    }
    let enhanced = outcome.enhanced.map(|enhanced| EnhancedCode { class: 4, ..enhanced });
    Outcome { verdict: Verdict::Temporary, enhanced, ..outcome }
}

/// The answer that the operator wrote for a transport that delivers nowhere.
pub(super) fn outcome_of_refusal(reply: &Reply) -> Outcome {
    outcome_of_reply(Stage::Mail, reply, &Seen::default())
}

/// A host whose addresses the transport may not use. That is our doing: another transport may be chosen next time.
pub(super) fn outcome_of_wrong_family(
    host: Option<&Domain>,
    addresses: &[IpAddr],
    families: IpPolicy,
) -> Outcome {
    let used = if families == IpPolicy::Only6 { "IPv6" } else { "IPv4" };
    let named = host.map(ToString::to_string).or_else(|| addresses.first().map(ToString::to_string));
    let text =
        format!("{} has no {used} address, and this transport uses no other", named.unwrap_or_default());
    let outcome = Outcome::ours(Verdict::Temporary, Stage::Dns, EnhancedCode::new(4, 4, 4), text);
    Outcome { host: host.map(ToString::to_string), ..outcome }
}

/// RFC 8689 §4.2.1: whoever can forge the MX records would be shown the certificate of a host of his own.
pub(super) fn outcome_of_unvouched_mx(domain: &Domain) -> Outcome {
    let text = format!("the sender requires REQUIRETLS, and DNSSEC vouches for no MX record of {domain}");
    Outcome::ours(Verdict::Permanent, Stage::Dns, EnhancedCode::new(5, 7, 10), text)
}

/// Whether it is REQUIRETLS alone that kept the message from its way (RFC 8689 §4.2.1).
pub(super) fn failed_of_require_tls(outcome: &Outcome) -> bool {
    let codes = [EnhancedCode::new(5, 7, 10), EnhancedCode::new(5, 7, 30)];
    let ours = outcome.verdict == Verdict::Permanent && outcome.code.is_none();
    ours && outcome.enhanced.is_some_and(|enhanced| codes.contains(&enhanced))
}

/// RFC 7505 §4.2: 5.1.10.
pub(super) fn outcome_of_null_mx(domain: &Domain) -> Outcome {
    let text = format!("the domain {domain} takes no mail (null MX)");
    Outcome::ours(Verdict::Permanent, Stage::Dns, EnhancedCode::new(5, 1, 10), text)
}

/// Whether a reply to RCPT says that this transaction has recipients enough, and another may take this one
/// (RFC 5321 §4.5.3.1.10: 452, or the 552 of RFC 821). Only sensible when an earlier recipient was accepted.
pub(super) fn says_too_many_recipients(reply: &Reply) -> bool {
    let detail = reply.enhanced.map(|enhanced| (enhanced.subject, enhanced.detail));
    match reply.code {
        452 => matches!(detail, None | Some((5, 3) | (3, 0 | 1))),
        552 => matches!(detail, None | Some((5, 3))),
        _ => false,
    }
}

/// What is shown of several hosts that all failed: temporary unless all refused for good, and of those that agree with
/// it the one that came furthest, the last where several did. The others are named in its text.
pub(super) fn sum_up(mut failed: Vec<Outcome>) -> Option<Outcome> {
    let temporary = failed.iter().any(|outcome| outcome.verdict == Verdict::Temporary);
    let verdict = if temporary { Verdict::Temporary } else { Verdict::Permanent };
    let agrees = failed.iter().enumerate().filter(|(_, outcome)| outcome.verdict == verdict);
    let (shown, _) = agrees.max_by_key(|(at, outcome)| (progress(outcome.stage), *at))?;
    let mut chosen = failed.remove(shown);
    for other in &failed {
        chosen.text += "\nalso tried ";
        chosen.text += &place(other);
        chosen.text += ": ";
        chosen.text += &one_line(other);
    }
    chosen.text = cut(chosen.text);
    Some(chosen)
}

/// Stages in the order of a session.
const fn progress(stage: Stage) -> u8 {
    match stage {
        Stage::Dns => 0,
        Stage::Connect => 1,
        Stage::Greeting => 2,
        Stage::Tls => 3,
        Stage::Auth => 4,
        Stage::Mail => 5,
        Stage::Rcpt => 6,
        Stage::Data => 7,
    }
}

fn place(outcome: &Outcome) -> String {
    match (&outcome.host, outcome.ip) {
        (Some(host), Some(ip)) => format!("{host} [{ip}]"),
        (Some(host), None) => host.clone(),
        (None, Some(ip)) => format!("[{ip}]"),
        (None, None) => "the domain".into(),
    }
}

fn one_line(outcome: &Outcome) -> String {
    let text = outcome.text.lines().next().unwrap_or_default();
    outcome.code.map_or_else(|| text.to_owned(), |code| format!("{code} {text}"))
}

pub(super) fn with_peer(outcome: Outcome, seen: &Seen) -> Outcome {
    Outcome {
        host: seen.host.as_ref().map(ToString::to_string),
        ip: seen.ip,
        tls: seen.tls.clone(),
        ..outcome
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}
