//! The resolver: fixed names, then hickory.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Answer, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::{DnsError, MxAnswer, MxHost, Nothing, Trouble, by_preference, in_turn};
use crate::address::Domain;
use crate::config;

/// Used when the configuration gives no timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Tries within one timeout: the first, and as many again as a lost datagram deserves.
const TRIES: u32 = 3;
/// A validated answer may take so many timeouts: it needs the keys of every zone above it.
const VALIDATION_TIMEOUTS: u32 = 4;
/// Answers kept, of all names together.
const CACHED_ANSWERS_MAX: u64 = 32 * 1024;
/// Longest that "there is nothing" is believed, whatever the zone says.
const NEGATIVE_TTL_MAX: Duration = Duration::from_mins(15);
/// Links of a CNAME chain looked at when we want to know why there is no answer.
const ALIASES_MAX: usize = 16;

/// Looks up names. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    fixed: BTreeMap<Domain, config::FixedName>,
    resolvers: Vec<SocketAddr>,
    timeout: Duration,
    /// Made at the first question: a machine without a usable resolver configuration can still serve fixed names,
    /// and one that gets its configuration late is served from then on.
    upstream: ArcSwapOption<TokioResolver>,
    /// The same with DNSSEC, for the few questions that need it.
    validating: ArcSwapOption<TokioResolver>,
    trusted: Arc<TrustAnchors>,
}

impl Resolver {
    /// A resolver for the configuration; nothing is asked yet.
    pub fn new(dns: &config::Dns) -> Self {
        Self::with_trust_anchors(dns, Arc::default())
    }

    /// A resolver that trusts other keys than those of the root zone.
    pub fn with_trust_anchors(dns: &config::Dns, trusted: Arc<TrustAnchors>) -> Self {
        let timeout = if dns.timeout.is_zero() { TIMEOUT_DEFAULT } else { dns.timeout };
        Self(Arc::new(Inner {
            fixed: dns.fixed.clone(),
            resolvers: dns.resolvers.clone(),
            timeout,
            upstream: ArcSwapOption::empty(),
            validating: ArcSwapOption::empty(),
            trusted,
        }))
    }

    /// Which hosts take a domain's mail. That the domain does not exist is an error; that it has no MX is not.
    pub async fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        if let Some(ip) = domain.ip() {
            return Ok(MxAnswer::Literal(ip));
        }
        if let Some(fixed) = self.0.fixed.get(domain) {
            return Ok(fixed_mx(domain, fixed));
        }
        match self.lookup(domain, RecordType::MX).await? {
            Found::Records(lookup) => mx_of_records(domain, &lookup),
            Found::NoSuchName => Err(Nothing::NoSuchDomain(domain.clone()).into()),
            Found::NoRecords => Ok(MxAnswer::Implicit(domain.clone())),
        }
    }

    /// As [`Resolver::mx`], and whether DNSSEC vouches for what the records say (RFC 4035 §4.3: secure). The
    /// configuration vouches for its own names.
    pub async fn mx_vouched(&self, domain: &Domain) -> Result<(MxAnswer, bool), DnsError> {
        if domain.ip().is_none() && !self.0.fixed.contains_key(domain) {
            let validating = self.0.validating()?;
            let limit = self.0.timeout * VALIDATION_TIMEOUTS;
            match self.ask(&validating, absolute(domain)?, RecordType::MX, limit).await {
                Ok(Found::Records(lookup)) if lookup.answers().iter().all(|r| r.proof.is_secure()) => {
                    return Ok((mx_of_records(domain, &lookup)?, true));
                }
                Err(timeout @ Trouble::Timeout { .. }) => return Err(timeout.into()),
                // Nobody vouches for it; what is there all the same?
                _ => return Ok((self.mx(domain).await?, false)),
            }
        }
        Ok((self.mx(domain).await?, true))
    }

    /// The names of a domain's MX hosts, for scripts; none where the domain surely has none (a transport will say so to
    /// the sender), `None` where that is not known now.
    pub async fn mx_names(&self, domain: &Domain) -> Option<Vec<String>> {
        match self.mx(domain).await {
            Ok(answer) => Some(answer.host_names()),
            Err(DnsError::Permanent(_)) => Some(Vec::new()),
            Err(DnsError::Temporary(_)) => None,
        }
    }

    /// A host's addresses, in the order to try; at least one.
    pub async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        if let Some(ip) = host.ip() {
            return Ok(vec![ip]);
        }
        if let Some(fixed) = self.0.fixed.get(host) {
            let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = fixed.addresses.iter().partition(|ip| ip.is_ipv6());
            let all = in_turn(v6, v4);
            return if all.is_empty() { Err(Nothing::NoAddress(host.clone()).into()) } else { Ok(all) };
        }
        let (v6, v4) = tokio::join!(self.lookup(host, RecordType::AAAA), self.lookup(host, RecordType::A));
        let all = in_turn(addresses_of(&v6), addresses_of(&v4));
        if !all.is_empty() {
            return Ok(all);
        }
        // One family without a word leaves open whether there is an address.
        let (v6, v4) = (v6?, v4?);
        if self.is_alias_loop(host).await {
            return Err(Trouble::AliasLoop(host.clone()).into());
        }
        let gone = matches!((v6, v4), (Found::NoSuchName, _) | (_, Found::NoSuchName));
        Err(if gone { Nothing::NoSuchDomain(host.clone()) } else { Nothing::NoAddress(host.clone()) }.into())
    }

    async fn lookup(&self, domain: &Domain, kind: RecordType) -> Result<Found, Trouble> {
        self.lookup_name(absolute(domain)?, kind).await
    }

    pub(super) async fn lookup_name(&self, name: Name, kind: RecordType) -> Result<Found, Trouble> {
        let upstream = self.0.upstream()?;
        self.ask(&upstream, name, kind, self.0.timeout).await
    }

    async fn ask(
        &self,
        upstream: &TokioResolver,
        name: Name,
        kind: RecordType,
        limit: Duration,
    ) -> Result<Found, Trouble> {
        let shown = || name.to_string().trim_end_matches('.').to_owned();
        let failed = |why: String| Trouble::Failed { name: shown(), why };
        let timeout = || Trouble::Timeout { name: shown(), after: limit };
        let answer = tokio::time::timeout(limit, upstream.lookup(name.clone(), kind));
        match answer.await.map_err(|_| timeout())? {
            Ok(lookup) => Ok(Found::Records(lookup)),
            Err(NetError::Dns(Answer::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(Found::NoSuchName),
                _ => Ok(Found::NoRecords),
            },
            Err(NetError::Timeout) => Err(timeout()),
            Err(NetError::Dns(Answer::ResponseCode(code))) => {
                Err(failed(format!("the resolver answered {code}")))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// What the configuration says about a name, which beats DNS.
    pub(super) fn fixed_name(&self, name: &Domain) -> Option<&config::FixedName> {
        self.0.fixed.get(name)
    }

    /// Whether a name without addresses is so because its aliases never end. Asked only then.
    async fn is_alias_loop(&self, host: &Domain) -> bool {
        let (mut seen, mut name) = (HashSet::from([host.clone()]), host.clone());
        while let Ok(Found::Records(lookup)) = self.lookup(&name, RecordType::CNAME).await {
            let target = lookup.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Domain::parse(&target.0.to_ascii()).ok(),
                _ => None,
            });
            match target {
                Some(target) if seen.len() < ALIASES_MAX && seen.insert(target.clone()) => name = target,
                Some(_) => return true,
                None => return false,
            }
        }
        false
    }
}

impl Inner {
    fn upstream(&self) -> Result<Arc<TokioResolver>, Trouble> {
        if let Some(upstream) = self.upstream.load_full() {
            return Ok(upstream);
        }
        let built = build(&self.resolvers, self.timeout, None);
        let built = Arc::new(built.map_err(|e| Trouble::NoResolver(e.to_string()))?);
        self.upstream.store(Some(built.clone()));
        Ok(built)
    }

    fn validating(&self) -> Result<Arc<TokioResolver>, Trouble> {
        if let Some(validating) = self.validating.load_full() {
            return Ok(validating);
        }
        let built = build(&self.resolvers, self.timeout, Some(self.trusted.clone()));
        let built = Arc::new(built.map_err(|e| Trouble::NoResolver(e.to_string()))?);
        self.validating.store(Some(built.clone()));
        Ok(built)
    }
}

/// Fully qualified: the search list of /etc/resolv.conf is for people at a keyboard.
fn absolute(domain: &Domain) -> Result<Name, Trouble> {
    let name = Name::from_ascii(domain.as_str());
    let failed = |why: String| Trouble::Failed { name: domain.to_string(), why };
    let mut name = name.map_err(|error| failed(error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

/// What an answer held.
pub(super) enum Found {
    Records(Lookup),
    NoRecords,
    NoSuchName,
}

/// With trust anchors, answers are validated.
fn build(
    resolvers: &[SocketAddr],
    timeout: Duration,
    trusted: Option<Arc<TrustAnchors>>,
) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if resolvers.is_empty() {
        TokioResolver::builder(provider)?
    } else {
        let servers = resolvers.iter().map(|address| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, provider);
        // Resolvers that the operator names answer alone: /etc/hosts belongs to the system's own set-up.
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    limit(builder.options_mut(), timeout);
    if let Some(trusted) = trusted {
        builder = builder.with_trust_anchor(trusted);
    }
    builder.build()
}

fn limit(options: &mut ResolverOpts, timeout: Duration) {
    options.timeout = timeout / TRIES;
    options.attempts = (TRIES - 1) as usize;
    options.cache_size = CACHED_ANSWERS_MAX;
    options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    options.max_active_requests = 1024;
}

fn fixed_mx(domain: &Domain, fixed: &config::FixedName) -> MxAnswer {
    let host = |(preference, name): &(u16, Domain)| MxHost { preference: *preference, name: name.clone() };
    let hosts = by_preference(fixed.mx.iter().map(host).collect(), &mut rand::rng());
    if hosts.is_empty() { MxAnswer::Implicit(domain.clone()) } else { MxAnswer::Hosts(hosts) }
}

fn mx_of_records(domain: &Domain, lookup: &Lookup) -> Result<MxAnswer, DnsError> {
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::MX(mx) => Some(mx),
        _ => None,
    });
    let (mut hosts, mut null, mut any) = (Vec::new(), false, false);
    for mx in records {
        any = true;
        // RFC 7505 §3: preference 0 and the root; beside other MX records it means nothing.
        null |= mx.exchange.is_root();
        if let Ok(name) = Domain::parse(&mx.exchange.to_ascii()) {
            hosts.push(MxHost { preference: mx.preference, name });
        }
    }
    match (hosts.is_empty(), null, any) {
        (false, _, _) => Ok(MxAnswer::Hosts(by_preference(hosts, &mut rand::rng()))),
        (true, true, _) => Ok(MxAnswer::Null),
        (true, false, true) => Err(Nothing::NoUsableMx(domain.clone()).into()),
        (true, false, false) => Ok(MxAnswer::Implicit(domain.clone())),
    }
}

fn addresses_of(found: &Result<Found, Trouble>) -> Vec<IpAddr> {
    let Ok(Found::Records(lookup)) = found else { return Vec::new() };
    let ip = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    lookup.answers().iter().filter_map(|record| ip(&record.data)).collect()
}
