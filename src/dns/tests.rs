use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::DNSKEY;
use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey, TrustAnchors};
use hickory_resolver::proto::rr::{Name, RData, Record, rdata};
use hickory_server::Server;
use hickory_server::dnssec::NxProofKind;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use proptest::prelude::*;

use super::testing::{DnsServer, free_port};
use super::*;
use crate::config;

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

const WORLD: &str = "
    several.test        MX    20 backup.several.test
    several.test        MX    10 a.several.test
    several.test        MX    10 b.several.test
    several.test        MX    10 a.several.test
    a.several.test      A     192.0.2.1
    a.several.test      A     192.0.2.2
    a.several.test      AAAA  2001:db8::1
    plain.test          A     192.0.2.3
    null.test           MX    0 .
    null-and-more.test  MX    0 .
    null-and-more.test  MX    10 a.several.test
    bad-mx.test         MX    10 192.0.2.9
    alias.test          CNAME target.test
    target.test         MX    10 a.several.test
    one.test            CNAME two.test
    two.test            CNAME three.test
    three.test          A     192.0.2.4
    loop-a.test         CNAME loop-b.test
    loop-b.test         CNAME loop-a.test
    self.test           CNAME self.test
    dangling.test       CNAME nowhere.test
    empty.test          EMPTY
    servfail.test       SERVFAIL
    silent.test         SILENT
";

#[tokio::test]
async fn mx_hosts_come_by_preference_with_equals_in_random_order() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    let mut orders = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let names = resolver.mx(&domain("several.test")).await.unwrap().host_names();
        assert_eq!((names.len(), names[2].as_str()), (3, "backup.several.test"));
        orders.insert(names);
    }
    assert_eq!(orders.len(), 2, "both orders of the two equals are seen");
    assert_eq!(dns.questions(), 1, "the answer is kept for its TTL");
}

#[tokio::test]
async fn scripts_learn_that_there_is_no_mx_only_where_that_is_sure() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    for (name, known) in [
        ("target.test", Some(vec!["a.several.test".to_owned()])),
        ("plain.test", Some(vec!["plain.test".to_owned()])),
        ("null.test", Some(Vec::new())),
        ("nowhere.test", Some(Vec::new())),
        ("bad-mx.test", Some(Vec::new())),
        ("servfail.test", None),
    ] {
        assert_eq!(resolver.mx_names(&domain(name)).await, known, "{name}");
    }
}

#[tokio::test]
async fn what_takes_a_domains_mail() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    let mx = async |name: &str| resolver.mx(&domain(name)).await;
    assert_eq!(mx("plain.test").await, Ok(MxAnswer::Implicit(domain("plain.test"))));
    assert_eq!(mx("empty.test").await, Ok(MxAnswer::Implicit(domain("empty.test"))));
    assert_eq!(mx("null.test").await, Ok(MxAnswer::Null));
    assert_eq!(mx("null-and-more.test").await.unwrap().host_names(), ["a.several.test"]);
    assert_eq!(mx("alias.test").await.unwrap().host_names(), ["a.several.test"]);
    assert_eq!(mx("[192.0.2.7]").await, Ok(MxAnswer::Literal("192.0.2.7".parse().unwrap())));
    assert_eq!(mx("[IPv6:2001:db8::7]").await.unwrap().host_names(), ["[IPv6:2001:db8::7]"]);
    assert_eq!(mx("nowhere.test").await, Err(Nothing::NoSuchDomain(domain("nowhere.test")).into()));
    assert_eq!(mx("dangling.test").await, Err(Nothing::NoSuchDomain(domain("dangling.test")).into()));
    assert_eq!(mx("bad-mx.test").await, Err(Nothing::NoUsableMx(domain("bad-mx.test")).into()));
    assert!(matches!(mx("servfail.test").await, Err(DnsError::Temporary(Trouble::Failed { .. }))));
}

#[tokio::test]
async fn a_hosts_addresses() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    let addresses = async |name: &str| resolver.addresses(&domain(name)).await;
    assert_eq!(addresses("a.several.test").await, Ok(ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"])));
    assert_eq!(addresses("one.test").await, Ok(ips(&["192.0.2.4"])), "a CNAME chain is followed");
    assert_eq!(addresses("[192.0.2.7]").await, Ok(ips(&["192.0.2.7"])));
    assert_eq!(addresses("empty.test").await, Err(Nothing::NoAddress(domain("empty.test")).into()));
    assert_eq!(addresses("nowhere.test").await, Err(Nothing::NoSuchDomain(domain("nowhere.test")).into()));
    for name in ["loop-a.test", "self.test"] {
        assert_eq!(addresses(name).await, Err(Trouble::AliasLoop(domain(name)).into()));
    }
    assert!(matches!(addresses("servfail.test").await, Err(DnsError::Temporary(Trouble::Failed { .. }))));
}

#[tokio::test]
async fn a_resolver_that_stays_silent_is_a_temporary_failure() {
    let dns = DnsServer::start(WORLD).await;
    let timeout = Duration::from_millis(300);
    let resolver = Resolver::new(&config::Dns { timeout, ..dns.config() });
    let answer = resolver.mx(&domain("silent.test")).await;
    assert_eq!(answer, Err(Trouble::Timeout { name: "silent.test".to_owned(), after: timeout }.into()));
}

#[tokio::test]
async fn fixed_names_answer_without_asking() {
    let dns = DnsServer::start(WORLD).await;
    let fixed = |addresses: &[&str], mx: &[(u16, &str)]| config::FixedName {
        addresses: ips(addresses),
        mx: mx.iter().map(|(preference, name)| (*preference, domain(name))).collect(),
    };
    let config = config::Dns {
        fixed: [
            (domain("plain.test"), fixed(&["127.0.0.9"], &[])),
            (domain("mail.test"), fixed(&[], &[(20, "b.test"), (10, "a.test")])),
        ]
        .into(),
        ..dns.config()
    };
    let resolver = Resolver::new(&config);
    assert_eq!(resolver.mx(&domain("plain.test")).await, Ok(MxAnswer::Implicit(domain("plain.test"))));
    assert_eq!(resolver.addresses(&domain("plain.test")).await, Ok(ips(&["127.0.0.9"])));
    assert_eq!(resolver.mx(&domain("mail.test")).await.unwrap().host_names(), ["a.test", "b.test"]);
    let none = resolver.addresses(&domain("mail.test")).await;
    assert_eq!(none, Err(Nothing::NoAddress(domain("mail.test")).into()));
    assert_eq!(dns.questions(), 0);
}

#[test]
fn families_take_turns() {
    let v6 = ips(&["2001:db8::1", "2001:db8::2"]);
    let v4 = ips(&["192.0.2.1"]);
    assert_eq!(in_turn(v6.clone(), v4.clone()), ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2"]));
    assert_eq!(in_turn([], v4.clone()), v4);
    assert_eq!(in_turn([], []), Vec::<IpAddr>::new());
}

proptest! {
    #[test]
    fn preference_always_wins(preferences in proptest::collection::vec(0u16..5, 0..60)) {
        let hosts = preferences.iter().enumerate();
        let hosts = hosts.map(|(n, p)| MxHost { preference: *p, name: domain(&format!("h{n}.test")) });
        let ordered = by_preference(hosts.collect(), &mut rand::rng());
        prop_assert!(ordered.is_sorted_by_key(|host| host.preference));
        prop_assert_eq!(ordered.len(), preferences.len().min(MX_HOSTS_MAX));
    }
}

/// A server for a root zone signed with a key of its own, and who trusts that key.
async fn signed_root(records: &[(&str, RData)]) -> (Server<Catalog>, config::Dns, Arc<TrustAnchors>) {
    let (root, ttl) = (Name::root(), 300);
    let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8().unwrap()).unwrap();
    let public = key.to_public_key().unwrap();
    let mut trusted = TrustAnchors::empty();
    trusted.insert(&public);
    let proofs = Some(NxProofKind::Nsec);
    let mut zone = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
        root.clone(),
        ZoneType::Primary,
        AxfrPolicy::Deny,
        proofs,
    );
    let soa = RData::SOA(rdata::SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86400, ttl));
    zone.upsert_mut(Record::from_rdata(root.clone(), ttl, soa), 1);
    for (name, data) in records {
        zone.upsert_mut(Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data.clone()), 1);
    }
    let signer =
        DnssecSigner::new(DNSKEY::from_key(&public), Box::new(key), root.clone(), Duration::from_hours(1));
    zone.add_zone_signing_key_mut(signer).unwrap();
    zone.secure_zone_mut().unwrap();
    let mut catalog = Catalog::new();
    catalog.upsert(root.into(), vec![Arc::new(zone)]);
    let mut server = Server::new(catalog);
    let (udp, tcp, address) = free_port().await;
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(5), 16);
    let timeout = Duration::from_secs(2);
    (server, config::Dns { resolvers: vec![address], timeout, ..config::Dns::default() }, Arc::new(trusted))
}

#[tokio::test]
async fn dnssec_vouches_for_mx_records_that_a_trusted_key_has_signed() {
    let mx = RData::MX(rdata::MX::new(10, Name::from_ascii("mx.signed.test.").unwrap()));
    let address = RData::A(rdata::A::new(192, 0, 2, 1));
    let (_server, dns, trusted) = signed_root(&[("signed.test.", mx), ("plain.test.", address)]).await;
    let vouched = async |resolver: &Resolver, name: &str| {
        let (answer, vouched) = resolver.mx_vouched(&domain(name)).await.unwrap();
        (answer.host_names(), vouched)
    };
    let trusting = Resolver::with_trust_anchors(&dns, trusted);
    assert_eq!(vouched(&trusting, "signed.test").await, (vec!["mx.signed.test".to_owned()], true));
    assert_eq!(vouched(&trusting, "plain.test").await, (vec!["plain.test".to_owned()], false));
    assert!(matches!(trusting.mx_vouched(&domain("gone.test")).await, Err(DnsError::Permanent(_))));
    // Signed, but by somebody whom nobody knows; and not signed at all.
    let wary = Resolver::new(&dns);
    assert_eq!(vouched(&wary, "signed.test").await, (vec!["mx.signed.test".to_owned()], false));
    let unsigned = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&unsigned.config());
    assert_eq!(vouched(&resolver, "alias.test").await, (vec!["a.several.test".to_owned()], false));
    // The configuration vouches for what it says itself; an address needs no look-up.
    let mut dns = unsigned.config();
    let fixed = config::FixedName { mx: vec![(10, domain("mx.test"))], ..config::FixedName::default() };
    dns.fixed.insert(domain("fixed.test"), fixed);
    assert_eq!(vouched(&Resolver::new(&dns), "fixed.test").await, (vec!["mx.test".to_owned()], true));
    assert!(vouched(&resolver, "[192.0.2.1]").await.1);
}
