//! The world of a test: names, a transport, a message.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Engine, Job};
use crate::address::Domain;
use crate::attempt::Attempt;
use crate::config::{
    self, FixedName, Host, Login, Service, Smarthost, TlsPolicy, Transport, TransportCommon, TransportKind,
};
use crate::dns::Resolver;
use crate::envelope::{Envelope, Recipient, ReversePath};
use crate::names::{QueueId, TransportName};
use crate::outcome::Outcome;
use crate::spool::{NewMessage, Origin};

pub(crate) fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

pub(crate) fn common() -> TransportCommon {
    TransportCommon {
        ehlo: None,
        tls: TlsPolicy::None,
        verify: true,
        ca: None,
        ip: config::IpPolicy::Prefer6,
        source_ipv4: None,
        source_ipv6: None,
        concurrency: 10,
        concurrency_per_destination: 10,
        messages_per_connection: 100,
        rate: config::Rate::default(),
        keep_idle: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(3),
        greeting_timeout: Duration::from_secs(3),
        tls_timeout: Duration::from_secs(3),
        command_timeout: Duration::from_secs(3),
        block_timeout: Duration::from_secs(3),
        data_timeout: Duration::from_secs(3),
        recipients_max: 100,
    }
}

pub(crate) fn smtp(address: std::net::SocketAddr) -> Arc<Transport> {
    smtp_with(address, common())
}

pub(crate) fn smtp_with(address: std::net::SocketAddr, common: TransportCommon) -> Arc<Transport> {
    smarthost(address, Service::Smtp, None, common)
}

pub(crate) fn smarthost(
    address: std::net::SocketAddr,
    service: Service,
    login: Option<Login>,
    common: TransportCommon,
) -> Arc<Transport> {
    let (host, port) = (Host::Ip(address.ip()), address.port());
    let kind = TransportKind::Smarthost(Smarthost { service, host, port, login });
    Arc::new(Transport { name: TransportName::new("smart").unwrap(), kind, common })
}

pub(crate) fn direct(port: u16, common: TransportCommon) -> Arc<Transport> {
    Arc::new(Transport { name: TransportName::direct(), kind: TransportKind::Direct { port }, common })
}

/// An engine that knows names from lines of `name MX 10 host` and `name A 127.0.0.1`, and asks no DNS.
pub(crate) fn engine(names: &str) -> Engine {
    Engine::new(Resolver::new(&fixed(names)), domain("client.test"))
}

pub(crate) fn fixed(names: &str) -> config::Dns {
    let mut dns = config::Dns { timeout: Duration::from_secs(1), ..config::Dns::default() };
    for line in names.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let entry: &mut FixedName = dns.fixed.entry(domain(words[0])).or_default();
        match words[1] {
            "A" => entry.addresses.push(words[2].parse::<IpAddr>().unwrap()),
            "MX" => entry.mx.push((words[2].parse().unwrap(), domain(words[3]))),
            other => panic!("unknown kind {other}"),
        }
    }
    dns
}

pub(crate) const CONTENT: &str = "Subject: hello\r\n\r\nHello.\r\n.dot\r\n";

pub(crate) fn job(recipients: &[&str]) -> Job {
    let addresses = recipients.iter().map(|recipient| recipient.parse().unwrap());
    job_with(Envelope::new(ReversePath::Mailbox("a@client.test".parse().unwrap()), addresses), CONTENT)
}

pub(crate) fn job_with(envelope: Envelope, content: &str) -> Job {
    let recipients: Vec<Recipient> = envelope.recipients.clone();
    let origin = Origin { session: "s".into(), protocol: "ESMTP".into(), ip: None, helo: None };
    let received = jiff::Timestamp::UNIX_EPOCH;
    let content = Bytes::copy_from_slice(content.as_bytes());
    let message = Arc::new(NewMessage { envelope, account: None, received, origin, content });
    Job { id: QueueId(1), message, recipients, previous: Vec::new() }
}

/// An earlier attempt that ended so.
pub(crate) fn attempt(outcome: Outcome) -> Attempt {
    let at = jiff::Timestamp::UNIX_EPOCH;
    Attempt { number: 1, at, decision: None, outcome: Some(outcome), ended: Some(at) }
}

/// `verdict stage code enhanced text`, the first line of it.
pub(crate) fn show(outcome: &Outcome) -> String {
    let code = outcome.code.map_or("-".to_owned(), |code| code.to_string());
    let enhanced = outcome.enhanced.map_or("-".to_owned(), |enhanced| enhanced.to_string());
    let verdict = format!("{:?}", outcome.verdict).to_lowercase();
    format!(
        "{verdict} {} {code} {enhanced} {}",
        outcome.stage,
        outcome.text.lines().next().unwrap_or_default()
    )
}

pub(crate) fn show_all(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(show).collect()
}
