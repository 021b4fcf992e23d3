use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::testing::DnsServer;
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
