//! Names to hosts and addresses: what mail needs of DNS, and nothing else.
//!
//! RFC 5321 §5.1 (MX, implicit MX, order), RFC 7505 (null MX), RFC 2181 §10.3 (MX targets).
//!
//! Fixed names of the configuration answer first, without asking anybody. Everything else goes to hickory-resolver,
//! which keeps answers for as long as their TTL says in a cache bounded by number, follows CNAME chains of at most
//! eight links, and asks the system's resolvers or those of the configuration. Errors say by their variant whether
//! another try can help.

mod error;
mod records;
mod resolver;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::address::Domain;

pub use error::{DnsError, Nothing, Trouble};
pub use records::Answer;
pub use resolver::Resolver;

/// MX hosts looked at of one domain; a domain that names more is served by the best of them.
pub const MX_HOSTS_MAX: usize = 32;

/// Which hosts take a domain's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxAnswer {
    /// MX hosts, the most preferred first, equals in random order; at least one.
    Hosts(Vec<MxHost>),
    /// No MX records: the domain itself is the host (RFC 5321 §5.1).
    Implicit(Domain),
    /// The domain is an address literal: nothing to look up.
    Literal(IpAddr),
    /// The domain says that it takes no mail (RFC 7505).
    Null,
}

impl MxAnswer {
    /// Host names in the order to try; an address literal in its brackets; empty for a null MX.
    pub fn host_names(&self) -> Vec<String> {
        match self {
            Self::Hosts(hosts) => hosts.iter().map(|host| host.name.to_string()).collect(),
            Self::Implicit(domain) => vec![domain.to_string()],
            Self::Literal(ip) => vec![Domain::literal(*ip).to_string()],
            Self::Null => Vec::new(),
        }
    }
}

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MxHost {
    /// Lower is better.
    pub preference: u16,
    /// The host.
    pub name: Domain,
}

/// Sorts MX hosts by preference, equals in random order (RFC 5321 §5.1: "MUST randomize them").
fn by_preference(mut hosts: Vec<MxHost>, rng: &mut impl rand::Rng) -> Vec<MxHost> {
    use rand::seq::SliceRandom;

    hosts.shuffle(rng);
    hosts.sort_by_key(|host| host.preference);
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.name.clone()));
    hosts.truncate(MX_HOSTS_MAX);
    hosts
}

/// IPv6 and IPv4 in turn, IPv6 first, each family in the order in which DNS gave it (RFC 5321 §5.1): a family that is
/// broken here or there costs one connection timeout before the other has its chance.
fn in_turn(v6: impl IntoIterator<Item = IpAddr>, v4: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}
