//! Which hosts and addresses are tried, in which order.
//!
//! RFC 5321 §5.1: MX hosts by preference, and each host's addresses in the order of DNS, the families taking turns.
//! History moves one address: where the last attempt could not connect, that address comes last and the other family
//! first; where it was put off with 4xx, the same address comes first, for greylisting remembers who asked whom.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::classify::{
    outcome_of_dns, outcome_of_null_mx, outcome_of_refusal, outcome_of_unvouched_mx, outcome_of_wrong_family,
};
use super::open::Peer;
use crate::address::Domain;
use crate::attempt::Attempt;
use crate::config::{Host, IpPolicy, Smarthost, Transport, TransportKind};
use crate::dns::{MxAnswer, Resolver};
use crate::outcome::{Outcome, Stage, Verdict};

/// Addresses tried in one attempt, of all hosts together.
const ADDRESSES_MAX: usize = 10;

/// What the last attempt says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    First(IpAddr),
    Last(IpAddr),
}

impl Hint {
    /// Reads it from the history, oldest first.
    pub(super) fn from_history(previous: &[Attempt]) -> Option<Self> {
        let last = previous.last()?.outcome.as_ref()?;
        let ip = last.ip?;
        match last.stage {
            Stage::Dns => None,
            Stage::Connect | Stage::Tls | Stage::Greeting | Stage::Auth => Some(Self::Last(ip)),
            // Somebody was there, and said: later.
            Stage::Mail | Stage::Rcpt | Stage::Data if last.code.is_some() => {
                (last.verdict == Verdict::Temporary).then_some(Self::First(ip))
            }
            Stage::Mail | Stage::Rcpt | Stage::Data => Some(Self::Last(ip)),
        }
    }
}

/// A host still to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    Name(Domain),
    Ip(IpAddr),
}

/// The places of one attempt, worked out as far as they are needed.
#[derive(Debug)]
pub(super) struct Plan {
    hosts: VecDeque<Candidate>,
    ready: VecDeque<Peer>,
    held_back: VecDeque<Peer>,
    /// Every address that ever stood in the plan.
    named: Vec<IpAddr>,
    hint: Option<Hint>,
    families: IpPolicy,
    port: u16,
    left: usize,
}

impl Plan {
    /// The plan for a domain's mail through a transport; an outcome where there is nowhere to go. With `require_tls`
    /// only to hosts that nobody can have made up on the way (RFC 8689 §4.2.1).
    pub(super) async fn make(
        resolver: &Resolver,
        transport: &Transport,
        domain: &Domain,
        previous: &[Attempt],
        require_tls: bool,
    ) -> Result<Self, Outcome> {
        let (hosts, port) = match &transport.kind {
            TransportKind::Smarthost(Smarthost { host, port, .. }) => {
                let candidate = match host {
                    Host::Ip(ip) => Candidate::Ip(*ip),
                    Host::Name(name) => Candidate::Name(name.clone()),
                };
                (vec![candidate], *port)
            }
            TransportKind::Direct { port } | TransportKind::Socks { port, .. } => {
                (mx_hosts(resolver, domain, require_tls).await?, *port)
            }
            TransportKind::Fail { reply, .. } => return Err(outcome_of_refusal(reply)),
        };
        let hint = Hint::from_history(previous);
        let last_host = previous.last().and_then(|last| last.outcome.as_ref()?.host.as_deref());
        let plan = Self {
            hosts: hosts.into(),
            ready: VecDeque::new(),
            held_back: VecDeque::new(),
            named: Vec::new(),
            hint,
            families: families(transport),
            port,
            left: ADDRESSES_MAX,
        };
        Ok(plan.with_last_host(last_host))
    }

    fn with_last_host(mut self, last_host: Option<&str>) -> Self {
        // Greylisting: the host that said "later" is asked again first, whatever chance made of the order.
        let again = last_host.filter(|_| matches!(self.hint, Some(Hint::First(_))));
        let same = |host: &Candidate| matches!(host, Candidate::Name(name) if Some(name.as_str()) == again);
        if let Some(host) = self.hosts.iter().position(same).and_then(|at| self.hosts.remove(at)) {
            self.hosts.push_front(host);
        }
        self
    }

    /// The next place; an outcome for a host that has no address; `None` when all were named, or enough.
    pub(super) async fn next(&mut self, resolver: &Resolver) -> Option<Result<Peer, Outcome>> {
        loop {
            if self.left == 0 {
                return None;
            }
            if let Some(peer) = self.ready.pop_front() {
                self.left -= 1;
                return Some(Ok(peer));
            }
            let Some(host) = self.hosts.pop_front() else {
                self.left -= 1;
                return self.held_back.pop_front().map(Ok);
            };
            let (name, addresses) = match host {
                Candidate::Ip(ip) => (None, Ok(vec![ip])),
                Candidate::Name(name) => {
                    let addresses = resolver.addresses(&name).await;
                    (Some(name), addresses)
                }
            };
            match addresses {
                Ok(addresses) => {
                    let allowed = in_order(&addresses, self.families, self.avoided());
                    if allowed.is_empty() {
                        self.left -= 1;
                        return Some(Err(outcome_of_wrong_family(name.as_ref(), &addresses, self.families)));
                    }
                    self.take_addresses(name.as_ref(), &allowed);
                }
                Err(error) => {
                    // Names cost as much as addresses.
                    self.left -= 1;
                    return Some(Err(outcome_of_dns(&error, name.as_ref())));
                }
            }
        }
    }

    /// The address that failed last time.
    fn avoided(&self) -> Option<IpAddr> {
        match self.hint {
            Some(Hint::Last(ip)) => Some(ip),
            _ => None,
        }
    }

    fn take_addresses(&mut self, host: Option<&Domain>, addresses: &[IpAddr]) {
        for &ip in addresses {
            // Two MX hosts with one address are one place.
            if self.named.contains(&ip) {
                continue;
            }
            self.named.push(ip);
            let peer = Peer { host: host.cloned(), address: SocketAddr::new(ip, self.port) };
            match self.hint {
                Some(Hint::First(first)) if first == ip => self.ready.push_front(peer),
                Some(Hint::Last(last)) if last == ip => self.held_back.push_back(peer),
                _ => self.ready.push_back(peer),
            }
        }
    }
}

/// The families that a transport can use. Through a proxy these are the proxy's, where they are known.
fn families(transport: &Transport) -> IpPolicy {
    let TransportKind::Socks { proxy, .. } = &transport.kind else { return transport.common.ip };
    let has = |v6: bool| proxy.remote_ips.iter().any(|ip| ip.is_ipv6() == v6);
    match (has(false), has(true)) {
        (true, false) => IpPolicy::Only4,
        (false, true) => IpPolicy::Only6,
        _ => transport.common.ip,
    }
}

/// The addresses that a policy allows, the families taking turns. Where one of a family failed last time, the other
/// family begins.
pub(super) fn in_order(addresses: &[IpAddr], families: IpPolicy, avoided: Option<IpAddr>) -> Vec<IpAddr> {
    let (mut v6, mut v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|ip| ip.is_ipv6());
    match families {
        IpPolicy::Only4 => v6.clear(),
        IpPolicy::Only6 => v4.clear(),
        IpPolicy::Prefer4 | IpPolicy::Prefer6 => {}
    }
    let v6_first = avoided.map_or(families != IpPolicy::Prefer4, |ip| ip.is_ipv4());
    let (mut first, mut second) = if v6_first { (v6, v4) } else { (v4, v6) };
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.drain(..), second.drain(..));
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return ordered;
        }
        ordered.extend(one.into_iter().chain(other));
    }
}

async fn mx_hosts(
    resolver: &Resolver,
    domain: &Domain,
    require_tls: bool,
) -> Result<Vec<Candidate>, Outcome> {
    let answer = if require_tls {
        match resolver.mx_vouched(domain).await {
            Ok((MxAnswer::Hosts(_), false)) => return Err(outcome_of_unvouched_mx(domain)),
            // The domain itself is the host: its certificate must hold that very name.
            answer => answer.map(|(answer, _)| answer),
        }
    } else {
        resolver.mx(domain).await
    };
    match answer {
        Ok(MxAnswer::Hosts(hosts)) => Ok(hosts.into_iter().map(|host| Candidate::Name(host.name)).collect()),
        Ok(MxAnswer::Implicit(domain)) => Ok(vec![Candidate::Name(domain)]),
        Ok(MxAnswer::Literal(ip)) => Ok(vec![Candidate::Ip(ip)]),
        Ok(MxAnswer::Null) => Err(outcome_of_null_mx(domain)),
        Err(error) => Err(outcome_of_dns(&error, None)),
    }
}
