//! Direct delivery: MX hosts, addresses, what is tried next, and in which order the next time.

use super::super::{Engine, Job};
use super::peer::{HELLO, Peer, listeners};
use super::world::{attempt, common, direct, domain, engine, fixed, job, show, show_all};
use crate::config::{Host, Service, Smarthost, TransportKind};
use crate::dns::Resolver;
use crate::dns::testing::DnsServer;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

const TAKES: &str = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\nBYE";
const NAMES: &str = "
    x.test    MX 10 mx1.test
    x.test    MX 20 mx2.test
    mx1.test  A  127.0.0.2
    mx2.test  A  127.0.0.3
";

/// Two MX hosts that play a dialogue each, and one delivery to them.
async fn two_hosts(first: &[&str], second: &[&str], job: Job) -> Outcome {
    let (port, mut listeners) = listeners(&["127.0.0.2", "127.0.0.3"]).await;
    let (one, two) = (listeners.remove(0), listeners.remove(0));
    let (one, two) = (Peer::play(one, first, None), Peer::play(two, second, None));
    let engine = engine(NAMES);
    let mut outcomes = engine.deliver(&direct(port, common()), &job).await;
    engine.close_idle().await;
    one.finish().await;
    two.finish().await;
    outcomes.remove(0)
}

fn takes() -> String {
    format!("{HELLO}{TAKES}")
}

#[tokio::test]
async fn the_best_host_gets_the_mail() {
    let outcome = two_hosts(&[&takes()], &[], job(&["b@x.test"])).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    assert_eq!((outcome.host.as_deref(), outcome.ip), (Some("mx1.test"), "127.0.0.2".parse().ok()));
}

#[tokio::test]
async fn a_host_that_cannot_begin_leads_to_the_next() {
    for first in [
        "CLOSE",
        "S: 421 busy\nBYE",
        "S: 554 go away\nC: QUIT\nBYE",
        "S: SSH-2.0\nBYE",
        "S: 220 x\nC: EHLO*\nS: 451 hm\nBYE",
        "S: 220 x\nC: EHLO*\nS: 550 hm\nC: HELO*\nS: 550 hm\nBYE",
        &format!("{HELLO}C: MAIL*\nC: RCPT*\nC: DATA\nS: 421 4.3.2 shutting down\nCLOSE"),
        &format!("{HELLO}C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nCLOSE"),
    ] {
        let outcome = two_hosts(&[first], &[&takes()], job(&["b@x.test"])).await;
        assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken", "{first}");
        assert_eq!(outcome.host.as_deref(), Some("mx2.test"));
    }
}

#[tokio::test]
async fn a_host_that_decides_ends_the_attempt() {
    let start = format!("{HELLO}C: MAIL*\nC: RCPT*\nC: DATA\n");
    for (first, expected) in [
        (format!("{start}S: 550 no\nS: 503 x\nS: 503 x\nBYE"), "permanent mail 550 5.0.0 no"),
        (format!("{start}S: 451 later\nS: 503 x\nS: 503 x\nBYE"), "temporary mail 451 4.0.0 later"),
        (format!("{start}S: 250 Ok\nS: 450 4.2.0 grey\nS: 503 x\nBYE"), "temporary rcpt 450 4.2.0 grey"),
        (format!("{start}S: 250 Ok\nS: 550 5.1.1 who\nS: 503 x\nBYE"), "permanent rcpt 550 5.1.1 who"),
        (format!("{start}S: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 451 hm\nBYE"), "temporary data 451 4.0.0 hm"),
    ] {
        let outcome = two_hosts(&[&first], &[], job(&["b@x.test"])).await;
        assert_eq!(show(&outcome), expected);
        assert_eq!(outcome.host.as_deref(), Some("mx1.test"));
    }
}

#[tokio::test]
async fn content_that_may_have_arrived_is_not_sent_elsewhere() {
    let first = format!("{HELLO}C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nCLOSE");
    let outcome = two_hosts(&[&first], &[], job(&["b@x.test"])).await;
    assert_eq!((outcome.verdict, outcome.stage), (Verdict::Temporary, Stage::Data));
}

#[tokio::test]
async fn recipients_without_an_answer_go_to_the_next_host_alone() {
    let first = format!(
        "{HELLO}C: MAIL*\nC: RCPT*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 550 5.1.1 who\nS: 421 bye\nCLOSE"
    );
    let second = format!(
        "{HELLO}C: MAIL*\nC: RCPT TO:<c@x.test>\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 two\nBYE"
    );
    let (port, mut listeners) = listeners(&["127.0.0.2", "127.0.0.3"]).await;
    let (one, two) = (listeners.remove(0), listeners.remove(0));
    let (one, two) = (Peer::play(one, &[&first], None), Peer::play(two, &[&second], None));
    let engine = engine(NAMES);
    let outcomes = engine.deliver(&direct(port, common()), &job(&["b@x.test", "c@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["permanent rcpt 550 5.1.1 who", "delivered data 250 2.0.0 two"]);
    engine.close_idle().await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn when_all_hosts_fail_the_one_that_came_furthest_is_shown() {
    let (refused, busy) = ("S: 554 5.7.1 no\nC: QUIT\nBYE", "S: 220 x\nC: EHLO*\nS: 451 busy\nBYE");
    let outcome = two_hosts(&[refused], &[busy], job(&["b@x.test"])).await;
    assert_eq!(show(&outcome), "temporary greeting 451 4.0.0 busy");
    assert_eq!(outcome.text, "busy\nalso tried mx1.test [127.0.0.2]: 554 no");
    let outcome = two_hosts(&[busy], &[refused], job(&["b@x.test"])).await;
    assert_eq!(show(&outcome), "temporary greeting 451 4.0.0 busy");
    let outcome = two_hosts(&[refused], &[refused], job(&["b@x.test"])).await;
    assert_eq!(show(&outcome), "permanent greeting 554 5.7.1 no");
    assert_eq!(outcome.host.as_deref(), Some("mx2.test"));
}

#[tokio::test]
async fn history_moves_an_address() {
    let last = |stage, code, host: &str, ip: &str, verdict| {
        let outcome = Outcome::ours(verdict, stage, EnhancedCode::new(4, 0, 0), "x");
        attempt(Outcome { code, host: Some(host.into()), ip: ip.parse().ok(), ..outcome })
    };
    let with = |attempt| Job { previous: vec![attempt], ..job(&["b@x.test"]) };
    // It could not be reached: the other one first.
    let unreachable = last(Stage::Connect, None, "mx1.test", "127.0.0.2", Verdict::Temporary);
    let outcome = two_hosts(&[], &[&takes()], with(unreachable)).await;
    assert_eq!(outcome.host.as_deref(), Some("mx2.test"));
    // It put us off: it again, even if it is the worse one.
    let grey = last(Stage::Rcpt, Some(450), "mx2.test", "127.0.0.3", Verdict::Temporary);
    let outcome = two_hosts(&[], &[&takes()], with(grey)).await;
    assert_eq!(outcome.host.as_deref(), Some("mx2.test"));
}

#[tokio::test]
async fn an_address_that_failed_last_time_is_still_tried_in_the_end() {
    let outcome = Outcome::ours(Verdict::Temporary, Stage::Connect, EnhancedCode::new(4, 4, 1), "x");
    let failed = attempt(Outcome { ip: "127.0.0.2".parse().ok(), ..outcome });
    let job = Job { previous: vec![failed], ..job(&["b@x.test"]) };
    let outcome = two_hosts(&[&takes()], &["CLOSE"], job).await;
    assert_eq!(outcome.host.as_deref(), Some("mx1.test"));
}

#[tokio::test]
async fn names_and_what_they_lead_to() {
    let dns = DnsServer::start(
        "
        null.test      MX 0 .
        empty.test     EMPTY
        broken.test    SERVFAIL
        far.test       MX 10 empty.test
        far.test       MX 20 nowhere.test
        half.test      MX 10 nowhere.test
        half.test      MX 20 broken.test
        loop.test      CNAME loop.test
        alias.test     CNAME real.test
        real.test      MX 10 nowhere.test
        real.test      MX 20 host.test
        host.test      A  127.0.0.1
        plain.test     A  127.0.0.1
        ",
    )
    .await;
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let takes = takes();
    let peer = Peer::play(listeners.remove(0), &[&takes, &takes, &takes], None);
    let engine = Engine::new(Resolver::new(&dns.config()), domain("client.test"));
    let transport = direct(port, common());
    for (recipient, expected) in [
        ("b@null.test", "permanent dns - 5.1.10 the domain null.test takes no mail (null MX)"),
        ("b@nowhere.test", "permanent dns - 5.1.2 the domain nowhere.test does not exist"),
        ("b@empty.test", "permanent dns - 5.4.4 empty.test has no address"),
        ("b@broken.test", "temporary dns - 4.4.3 looking up broken.test failed"),
        ("b@far.test", "permanent dns - 5.4.4 the domain nowhere.test does not exist"),
        ("b@half.test", "temporary dns - 4.4.3 looking up broken.test failed"),
        ("b@loop.test", "temporary dns - 4.4.6 loop.test is an alias that leads nowhere"),
        ("b@alias.test", "delivered data 250 2.0.0 taken"),
        ("b@plain.test", "delivered data 250 2.0.0 taken"),
        ("b@[127.0.0.1]", "delivered data 250 2.0.0 taken"),
    ] {
        let shown = show(&engine.deliver(&transport, &job(&[recipient])).await[0]);
        assert!(shown.starts_with(expected), "{recipient}: {shown}");
        engine.close_idle().await;
    }
    peer.finish().await;
}

#[tokio::test]
async fn a_smarthost_without_a_name_keeps_the_mail_waiting() {
    let dns = DnsServer::start("").await;
    let engine = Engine::new(Resolver::new(&dns.config()), domain("client.test"));
    let kind = TransportKind::Smarthost(Smarthost {
        service: Service::Smtp,
        host: Host::Name(domain("smart.test")),
        port: 25,
        login: None,
    });
    let transport = crate::config::Transport { kind, ..(*direct(25, common())).clone() };
    let outcomes = engine.deliver(&transport.into(), &job(&["b@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["temporary dns - 4.4.4 the domain smart.test does not exist"]);
}

#[tokio::test]
async fn only_so_many_addresses_are_tried() {
    let names = (1..30).map(|n| format!("x.test A 127.0.9.{n}")).collect::<Vec<_>>().join("\n");
    let (port, listening) = listeners(&["127.0.9.1"]).await;
    drop(listening);
    let engine = Engine::new(Resolver::new(&fixed(&names)), domain("client.test"));
    let outcomes = engine.deliver(&direct(port, common()), &job(&["b@x.test"])).await;
    assert_eq!(outcomes[0].text.lines().count(), 10, "{}", outcomes[0].text);
    assert_eq!(outcomes[0].ip, "127.0.9.10".parse().ok());
}
