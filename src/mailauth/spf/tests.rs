//! SPF against a DNS server with the records of a small world.

use super::*;
use crate::dns::testing::DnsServer;

const WORLD: &str = "
    example.test        TXT  unrelated
    example.test        TXT  v=spf1 mx ip4:192.0.2.0/28 include:_spf.service.test -all exp=why.example.test
    example.test        MX   10 mail.example.test
    mail.example.test   A    192.0.2.99
    mail.example.test   AAAA 2001:db8::99
    why.example.test    TXT  %{i} may not send for|%_%{d} as %{l}, says %{r}
    _spf.service.test   TXT  v=spf1 ip6:2001:db8:5::/48 ~all exp=never.shown.test
    moved.test          TXT  v=spf1 exp=why.example.test redirect=example.test
    two.test            TXT  v=spf1 -all
    two.test            TXT  v=spf1 +all
    wrong.test          TXT  v=spf1 a:192.0.2.1 -all
    loop.test           TXT  v=spf1 include:loop.test -all
    hole.test           TXT  v=spf1 include:nothing.test -all
    voids.test          TXT  v=spf1 a:1.nothing.test a:2.nothing.test a:3.nothing.test -all
    twovoids.test       TXT  v=spf1 a:1.nothing.test a:2.nothing.test -all
    broken.test         SERVFAIL
    needs.test          TXT  v=spf1 a:broken.test -all
    exists.test         TXT  v=spf1 exists:%{ir}.%{l}.list.test ?all
    7.2.0.192.ann.list.test A 127.0.0.2
    name.test           TXT  v=spf1 ptr -all
    8.2.0.192.in-addr.arpa PTR liar.name.test
    8.2.0.192.in-addr.arpa PTR Host.Name.test
    host.name.test      A    192.0.2.8
    liar.name.test      A    192.0.2.77
    mail.helo.test      TXT  v=spf1 ip4:192.0.2.5 -all
    empty.test          TXT  v=spf1
    many.test           TXT  v=spf1 mx -all
    many.test           MX   1 h1.test
    many.test           MX   2 h2.test
    many.test           MX   3 h3.test
    many.test           MX   4 h4.test
    many.test           MX   5 h5.test
    many.test           MX   6 h6.test
    many.test           MX   7 h7.test
    many.test           MX   8 h8.test
    many.test           MX   9 h9.test
    many.test           MX   10 h10.test
    many.test           MX   11 h11.test
";

fn question(ip: &str, sender: &str) -> Question {
    Question {
        ip: ip.parse().unwrap(),
        sender: sender.to_owned(),
        helo: "mail.helo.test".to_owned(),
        receiver: "here.test".to_owned(),
        now: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn senders_are_judged_by_their_domains_record() {
    use SpfResult::{Fail, Neutral, None, Pass, PermError, TempError};
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    for (ip, sender, result, mechanism) in [
        ("192.0.2.99", "ann@example.test", Pass, "mx"),
        ("2001:db8::99", "ann@example.test", Pass, "mx"),
        ("::ffff:192.0.2.99", "ann@example.test", Pass, "mx"),
        ("192.0.2.5", "ann@EXAMPLE.test", Pass, "ip4:192.0.2.0/28"),
        ("192.0.2.77", "ann@example.test", Fail, "-all"),
        ("2001:db8:5::1", "ann@example.test", Pass, "include:_spf.service.test"),
        ("2001:db8:6::1", "ann@example.test", Fail, "-all"),
        ("192.0.2.5", "ann@moved.test", Pass, "ip4:192.0.2.0/28"),
        ("192.0.2.77", "ann@moved.test", Fail, "-all"),
        ("192.0.2.77", "ann@two.test", PermError, ""),
        ("192.0.2.77", "ann@wrong.test", PermError, ""),
        ("192.0.2.77", "ann@loop.test", PermError, ""),
        ("192.0.2.77", "ann@hole.test", PermError, ""),
        ("192.0.2.77", "ann@voids.test", PermError, ""),
        ("192.0.2.77", "ann@twovoids.test", Fail, "-all"),
        ("192.0.2.77", "ann@many.test", PermError, ""),
        ("192.0.2.77", "ann@broken.test", TempError, ""),
        ("192.0.2.77", "ann@needs.test", TempError, ""),
        ("192.0.2.7", "ann@exists.test", Pass, "exists:%{ir}.%{l}.list.test"),
        ("192.0.2.7", "bob@exists.test", Neutral, "?all"),
        ("192.0.2.8", "ann@name.test", Pass, "ptr"),
        ("192.0.2.77", "ann@name.test", Fail, "-all"),
        ("192.0.2.77", "ann@empty.test", Neutral, ""),
        ("192.0.2.77", "ann@nothing.test", None, ""),
        ("192.0.2.77", "ann@mail.example.test", None, ""),
        ("192.0.2.77", "ann@[192.0.2.77]", None, ""),
        ("192.0.2.77", "ann@localhost", None, ""),
        ("192.0.2.77", "ann@a..example.test", None, ""),
        ("192.0.2.5", "", Pass, "ip4:192.0.2.5"),
        ("192.0.2.77", "", Fail, "-all"),
    ] {
        let check = check(&resolver, &question(ip, sender)).await;
        let got = (check.result, check.mechanism.as_deref().unwrap_or(""));
        assert_eq!(got, (result, mechanism), "{sender} from {ip}: {check:?}");
        assert_eq!(check.problem.is_some(), matches!(result, None | PermError | TempError), "{check:?}");
    }
}

#[tokio::test]
async fn a_failure_is_explained_in_the_words_of_the_record_that_decided() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    let failed = check(&resolver, &question("192.0.2.77", "ann@example.test")).await;
    let words = failed.explanation.unwrap();
    assert_eq!(words, "192.0.2.77 may not send for example.test as ann, says here.test");
    // The explanation of the record that redirects is not used (§6.1): the target's is.
    let moved = check(&resolver, &question("192.0.2.77", "@moved.test")).await;
    assert_eq!(
        moved.explanation.unwrap(),
        "192.0.2.77 may not send for example.test as postmaster, says here.test"
    );
    let without = check(&resolver, &question("192.0.2.77", "ann@twovoids.test")).await;
    assert_eq!(without.explanation, None);
}

#[tokio::test]
async fn an_error_says_what_is_wrong_with_which_record() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    for (sender, words) in [
        ("ann@two.test", "two.test has more than one SPF record"),
        ("ann@wrong.test", "the SPF record of wrong.test: \"a:192.0.2.1\""),
        ("ann@loop.test", "more than 10 terms that need DNS"),
        ("ann@hole.test", "include:nothing.test: there is no SPF record"),
        ("ann@voids.test", "more than 2 lookups that found nothing"),
        ("ann@broken.test", "looking up broken.test failed"),
    ] {
        let problem = check(&resolver, &question("192.0.2.77", sender)).await.problem.unwrap();
        assert!(problem.contains(words), "{sender}: {problem}");
    }
}

#[tokio::test]
async fn helo_is_judged_by_its_own_record() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    let mut question = question("192.0.2.5", "ann@example.test");
    assert_eq!(check_helo(&resolver, &question).await.result, SpfResult::Pass);
    for literal in ["[192.0.2.5]", "OEMCOMPUTER", ""] {
        question.helo = literal.to_owned();
        assert_eq!(check_helo(&resolver, &question).await.result, SpfResult::None, "{literal}");
    }
}

#[tokio::test]
async fn records_are_looked_up_with_what_is_wrong_with_them() {
    let dns = DnsServer::start(WORLD).await;
    let resolver = Resolver::new(&dns.config());
    for (domain, records, problem) in [
        ("exists.test", 1, None),
        ("mail.example.test", 0, Some("no SPF record")),
        ("two.test", 2, Some("more than one")),
        ("wrong.test", 1, Some("write ip4:")),
    ] {
        let found = lookup(&resolver, domain).await.unwrap();
        assert_eq!(found.records.len(), records, "{found:?}");
        match (&found.problem, problem) {
            (Some(got), Some(words)) => assert!(got.contains(words), "{got}"),
            (got, expected) => assert_eq!(got.as_deref(), expected),
        }
    }
    lookup(&resolver, "broken.test").await.unwrap_err();
}
