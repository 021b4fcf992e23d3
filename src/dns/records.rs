//! Records by name and type, for who must tell an empty answer from a name that does not exist: SPF, DKIM, DMARC.
//!
//! Names are taken as they come, with any octets in their labels (RFC 2181 §11): what a policy's macros expand to is no
//! host name. Fixed names of the configuration answer for addresses and MX.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::resolver::Found;
use super::{Resolver, Trouble};
use crate::address::Domain;

/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// What DNS knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// Records of the type that was asked for; at least one.
    Records(Vec<T>),
    /// The name exists, but has no such record.
    NoRecords,
    /// NXDOMAIN, or a name that cannot exist.
    NoSuchName,
}

impl<T> Answer<T> {
    /// The records, none where there are none.
    pub fn into_records(self) -> Vec<T> {
        match self {
            Self::Records(records) => records,
            Self::NoRecords | Self::NoSuchName => Vec::new(),
        }
    }

    fn of(records: Vec<T>) -> Self {
        if records.is_empty() { Self::NoRecords } else { Self::Records(records) }
    }
}

impl Resolver {
    /// TXT records, the strings of each joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2).
    pub async fn texts(&self, name: &str) -> Result<Answer<Vec<u8>>, Trouble> {
        let text = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        };
        self.records(name, RecordType::TXT, text).await
    }

    /// A records.
    pub async fn ipv4(&self, name: &str) -> Result<Answer<Ipv4Addr>, Trouble> {
        if let Some(fixed) = self.fixed(name) {
            let v4 = |ip: &IpAddr| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None };
            return Ok(Answer::of(fixed.addresses.iter().filter_map(v4).collect()));
        }
        let address = |data: &RData| if let RData::A(a) = data { Some(a.0) } else { None };
        self.records(name, RecordType::A, address).await
    }

    /// AAAA records.
    pub async fn ipv6(&self, name: &str) -> Result<Answer<Ipv6Addr>, Trouble> {
        if let Some(fixed) = self.fixed(name) {
            let v6 = |ip: &IpAddr| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None };
            return Ok(Answer::of(fixed.addresses.iter().filter_map(v6).collect()));
        }
        let address = |data: &RData| if let RData::AAAA(aaaa) = data { Some(aaaa.0) } else { None };
        self.records(name, RecordType::AAAA, address).await
    }

    /// MX records as they stand: preference and host, lower-case, without a trailing dot; the root is "".
    pub async fn mx_records(&self, name: &str) -> Result<Answer<(u16, String)>, Trouble> {
        if let Some(fixed) = self.fixed(name) {
            let host = |(preference, name): &(u16, Domain)| (*preference, name.to_string());
            return Ok(Answer::of(fixed.mx.iter().map(host).collect()));
        }
        let host = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, plain(&mx.exchange))),
            _ => None,
        };
        self.records(name, RecordType::MX, host).await
    }

    /// Names that an address claims (PTR), lower-case, without a trailing dot.
    pub async fn names_of(&self, ip: IpAddr) -> Result<Answer<String>, Trouble> {
        let name = Name::from(ip);
        let target = |data: &RData| if let RData::PTR(ptr) = data { Some(plain(&ptr.0)) } else { None };
        self.records(&name.to_ascii(), RecordType::PTR, target).await
    }

    fn fixed(&self, name: &str) -> Option<&crate::config::FixedName> {
        self.fixed_name(&Domain::parse(name).ok()?)
    }

    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, Trouble> {
        let Some(owner) = dns_name(name) else { return Ok(Answer::NoSuchName) };
        Ok(match self.lookup_name(owner, kind).await? {
            Found::Records(lookup) => {
                // A resolver may put the links of a CNAME chain beside the records.
                Answer::of(lookup.answers().iter().filter_map(|record| pick(&record.data)).collect())
            }
            Found::NoSuchName => Answer::NoSuchName,
            Found::NoRecords => Answer::NoRecords,
        })
    }
}

/// The name in the form of DNS; `None` when DNS cannot hold it.
fn dns_name(text: &str) -> Option<Name> {
    let labels: Vec<&[u8]> = text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes).collect();
    if labels.iter().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return None;
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// As [`dns_name`] reads it: lower-case, and without the escapes of zone files.
fn plain(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
    labels.join(".").to_ascii_lowercase()
}
