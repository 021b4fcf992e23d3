//! How a session begins: connect, greeting, EHLO, STARTTLS, EHLO again.
//!
//! RFC 5321 §3.1, §3.2 (greeting, EHLO, HELO), RFC 3207 (STARTTLS), RFC 7435 (opportunistic security).
//!
//! Where TLS is opportunistic and fails, the same host is tried once more in clear text, within the same attempt.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use super::Inner;
use super::auth::authenticate;
use super::classify::{Cause, Failure, Seen};
use super::session::{Session, Timeouts};
use crate::address::Domain;
use crate::config::{
    Host, Login, Proxy, Service, Smarthost, TlsPolicy, Transport, TransportCommon, TransportKind,
};
use crate::dns::{DnsError, Resolver};
use crate::net::{DialError, Stream, Through, dial, dial_through};
use crate::outcome::Stage;
use crate::smtp::Extensions;
use crate::tls::{ClientTls, PeerName, Verify};

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// The name under which it was looked up; `None` for an address that the operator or the recipient gave.
    pub(super) host: Option<Domain>,
    /// Address and port.
    pub(super) address: SocketAddr,
}

impl Peer {
    /// Whom outcomes speak of, before there is TLS.
    pub(super) fn seen(&self) -> Seen {
        Seen { host: self.host.clone(), ip: Some(self.address.ip()), tls: None }
    }
}

/// How to open sessions.
pub(super) struct Opener<'a> {
    /// For the name of a proxy.
    pub(super) resolver: &'a Resolver,
    pub(super) tls: ClientTls,
    /// What we call ourselves.
    pub(super) ehlo: &'a Domain,
    pub(super) common: &'a TransportCommon,
    /// The transport's, or stricter where the message asks for it.
    pub(super) policy: TlsPolicy,
    /// Whether a peer that must speak TLS must also show who it is.
    pub(super) verify: Verify,
    /// TLS begins before the first word (RFC 8314 §3.3).
    pub(super) tls_at_once: bool,
    /// The message goes to nobody else than a verified peer that offers REQUIRETLS.
    pub(super) require_tls: bool,
    /// Who we are to the peer.
    pub(super) login: Option<&'a Login>,
    /// Who connects for us.
    pub(super) proxy: Option<&'a Proxy>,
}

impl<'a> Opener<'a> {
    /// What a transport says; `require_tls` is the message's own wish.
    pub(super) fn of(engine: &'a Inner, transport: &'a Transport, require_tls: bool) -> Self {
        let common = &transport.common;
        // RFC 8689 §4.2.1: REQUIRETLS wants a verified peer, whatever the transport would put up with.
        let policy = if require_tls { TlsPolicy::Required } else { common.tls };
        let verify = if require_tls || common.verify { Verify::Peer } else { Verify::Nothing };
        let (login, proxy, tls_at_once) = match &transport.kind {
            TransportKind::Smarthost(Smarthost { login, service, .. }) => {
                (login.as_ref(), None, *service == Service::Submissions)
            }
            TransportKind::Socks { proxy, .. } => (None, Some(proxy), false),
            TransportKind::Direct { .. } | TransportKind::Fail { .. } => (None, None, false),
        };
        Self {
            resolver: &engine.resolver,
            tls: engine.authorities.tls(&engine.tls, transport),
            ehlo: common.ehlo.as_ref().unwrap_or(&engine.hostname),
            common,
            policy,
            verify,
            tls_at_once,
            require_tls,
            login,
            proxy,
        }
    }

    /// A session with a peer, ready for MAIL.
    pub(super) async fn open(&self, peer: &Peer) -> Result<Session, Failure> {
        let opened = self.open_by_policy(peer).await;
        if self.require_tls { opened.map_err(Failure::under_require_tls) } else { opened }
    }

    async fn open_by_policy(&self, peer: &Peer) -> Result<Session, Failure> {
        match self.open_once(peer, self.policy).await {
            Err(failure) if failure.stage == Stage::Tls && self.policy == TlsPolicy::Opportunistic => {
                let why = failure.outcome(&peer.seen()).text;
                tracing::debug!(host = ?peer.host, ip = %peer.address.ip(), why, "TLS failed, trying in clear text");
                self.open_once(peer, TlsPolicy::None).await
            }
            result => result,
        }
    }

    async fn open_once(&self, peer: &Peer, policy: TlsPolicy) -> Result<Session, Failure> {
        let session = self.begin(peer, policy).await?;
        if self.require_tls && !session.extensions.require_tls {
            session.quit().await;
            return Err(Failure::new(Stage::Mail, Cause::NoRequireTls));
        }
        match self.login {
            Some(login) => authenticate(session, login).await,
            None => Ok(session),
        }
    }

    /// Up to the last EHLO.
    async fn begin(&self, peer: &Peer, policy: TlsPolicy) -> Result<Session, Failure> {
        let tcp =
            self.connect(peer).await.map_err(|error| Failure::new(Stage::Connect, Cause::Dial(error)))?;
        let mut stream = Stream::Plain(tcp);
        if self.tls_at_once {
            stream = self.handshake(stream, peer, self.verify).await?;
        }
        let seen = Seen { tls: stream.tls_summary(), ..peer.seen() };
        let mut session = Session::new(stream, seen, self.timeouts());
        session.verified = self.tls_at_once && self.verify == Verify::Peer;
        let greeting = session.greeting().await?;
        if !greeting.is_positive() {
            session.quit().await;
            return Err(Failure::new(Stage::Greeting, Cause::Reply(greeting)));
        }
        self.hello(&mut session, Stage::Greeting).await?;
        match policy {
            _ if self.tls_at_once => Ok(session),
            TlsPolicy::None => Ok(session),
            TlsPolicy::Opportunistic if !session.extensions.starttls => Ok(session),
            TlsPolicy::Opportunistic => self.start_tls(session, peer, Verify::Nothing).await,
            TlsPolicy::Required if !session.extensions.starttls => {
                session.quit().await;
                Err(Failure::new(Stage::Tls, Cause::TlsNotOffered))
            }
            TlsPolicy::Required => self.start_tls(session, peer, self.verify).await,
        }
    }

    async fn connect(&self, peer: &Peer) -> Result<TcpStream, DialError> {
        let limit = self.common.connect_timeout;
        let Some(proxy) = self.proxy else {
            return dial(peer.address, self.source(peer.address), limit).await;
        };
        let login = proxy.login.as_ref().map(|(name, password)| (name.as_str(), password.reveal()));
        let mut failed = None;
        for address in self.proxy_addresses(proxy).await? {
            let through = Through { proxy: address, login, source: self.source(address) };
            match dial_through(through, peer.address, limit).await {
                // Another address of it may answer.
                Err(error @ DialError::Proxy { .. }) => failed = Some(error),
                result => return result,
            }
        }
        let no_address =
            || DialError::Proxy { proxy: proxy.host.to_string(), why: "it has no address".into() };
        Err(failed.unwrap_or_else(no_address))
    }

    async fn proxy_addresses(&self, proxy: &Proxy) -> Result<Vec<SocketAddr>, DialError> {
        let ips = match &proxy.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let why =
                    |error: DnsError| DialError::Proxy { proxy: name.to_string(), why: error.to_string() };
                self.resolver.addresses(name).await.map_err(why)?
            }
        };
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, proxy.port)).collect())
    }

    /// The address of ours that a connection to a peer, or to the proxy, comes from.
    fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        match to {
            SocketAddr::V4(_) => self.common.source_ipv4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.common.source_ipv6.map(IpAddr::V6),
        }
    }

    fn timeouts(&self) -> Timeouts {
        let common = self.common;
        Timeouts {
            greeting: common.greeting_timeout,
            command: common.command_timeout,
            block: common.block_timeout,
            data: common.data_timeout,
        }
    }

    /// EHLO, and HELO where EHLO is refused (RFC 5321 §3.2).
    async fn hello(&self, session: &mut Session, stage: Stage) -> Result<(), Failure> {
        let reply = session.command(&format!("EHLO {}", self.ehlo), stage, "the reply to EHLO").await?;
        if reply.is_positive() {
            session.extensions = Extensions::from_ehlo(&reply);
            return Ok(());
        }
        if !reply.is_permanent() {
            return Err(Failure::new(stage, Cause::Reply(reply)));
        }
        let reply = session.command(&format!("HELO {}", self.ehlo), stage, "the reply to HELO").await?;
        session.extensions = Extensions::default();
        if reply.is_positive() { Ok(()) } else { Err(Failure::new(stage, Cause::Reply(reply))) }
    }

    async fn start_tls(&self, mut session: Session, peer: &Peer, verify: Verify) -> Result<Session, Failure> {
        let reply = session.command("STARTTLS", Stage::Tls, "the reply to STARTTLS").await?;
        if reply.code != 220 {
            // RFC 3207 §4: after a refusal the session goes on; without TLS, where that will do.
            return match self.policy {
                TlsPolicy::Opportunistic if !session.has_ended() => Ok(session),
                _ => Err(Failure::new(Stage::Tls, Cause::Reply(reply))),
            };
        }
        if session.has_unread() {
            return Err(Failure::new(Stage::Tls, Cause::TlsInjection));
        }
        let seen = session.seen.clone();
        let stream = self.handshake(session.into_stream(), peer, verify).await?;
        let seen = Seen { tls: stream.tls_summary(), ..seen };
        // RFC 3207 §4.2: what was said before TLS is forgotten.
        let mut session = Session::new(stream, seen, self.timeouts());
        session.verified = verify == Verify::Peer;
        // With TLS 1.3 a peer's refusal comes only now; so this still counts as TLS.
        self.hello(&mut session, Stage::Tls).await?;
        Ok(session)
    }

    async fn handshake(&self, stream: Stream, peer: &Peer, verify: Verify) -> Result<Stream, Failure> {
        let Stream::Plain(tcp) = stream else { return Ok(stream) };
        let name = peer.host.as_ref().map_or(PeerName::Ip(peer.address.ip()), PeerName::Host);
        let limit = self.common.tls_timeout;
        let handshake = tokio::time::timeout(limit, self.tls.connect(tcp, name, verify)).await;
        let waiting_for = "the TLS handshake";
        let result = handshake.map_err(|_| Cause::Timeout { after: limit, waiting_for });
        result.and_then(|done| done.map_err(Cause::Tls)).map_err(|cause| Failure::new(Stage::Tls, cause))
    }
}
