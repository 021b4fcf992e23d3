//! What an operator may set: families, our own addresses, waits; and the transport that only fails.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::plan::in_order;
use super::peer::{HELLO, Peer, listeners};
use super::world::{attempt, common, direct, engine, job, show};
use crate::config::{IpPolicy, Transport, TransportCommon, TransportKind, parse_reply};
use crate::names::TransportName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

const TAKES: &str = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\nBYE";

#[test]
fn families_in_their_order() {
    let parse = |text: &str| text.split_whitespace().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let both = "::1 192.0.2.1 ::2 192.0.2.2 192.0.2.3";
    for (policy, avoided, addresses, expected) in [
        (IpPolicy::Prefer6, None, both, "::1 192.0.2.1 ::2 192.0.2.2 192.0.2.3"),
        (IpPolicy::Prefer4, None, both, "192.0.2.1 ::1 192.0.2.2 ::2 192.0.2.3"),
        (IpPolicy::Only4, None, both, "192.0.2.1 192.0.2.2 192.0.2.3"),
        (IpPolicy::Only6, None, both, "::1 ::2"),
        // One of a family failed last time: the other family begins.
        (IpPolicy::Prefer6, Some("::1"), both, "192.0.2.1 ::1 192.0.2.2 ::2 192.0.2.3"),
        (IpPolicy::Prefer6, Some("192.0.2.1"), both, "::1 192.0.2.1 ::2 192.0.2.2 192.0.2.3"),
        (IpPolicy::Prefer4, Some("192.0.2.1"), both, "::1 192.0.2.1 ::2 192.0.2.2 192.0.2.3"),
        (IpPolicy::Only4, Some("192.0.2.1"), both, "192.0.2.1 192.0.2.2 192.0.2.3"),
        (IpPolicy::Only6, None, "192.0.2.1", ""),
        (IpPolicy::Prefer4, None, "::1", "::1"),
    ] {
        let avoided = avoided.map(|ip| ip.parse().unwrap());
        assert_eq!(in_order(&parse(addresses), policy, avoided), parse(expected), "{policy:?} {avoided:?}");
    }
}

#[tokio::test]
async fn only_one_family_is_used_where_the_operator_says_so() {
    let engine = engine("x.test MX 10 mx.test\nmx.test A ::1\nfour.test A 127.0.0.1");
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[&format!("{HELLO}{TAKES}")], None);
    let only4 = direct(port, TransportCommon { ip: IpPolicy::Only4, ..common() });
    let outcomes = engine.deliver(&only4, &job(&["b@x.test"])).await;
    let expected = "temporary dns - 4.4.4 mx.test has no IPv4 address, and this transport uses no other";
    assert_eq!((show(&outcomes[0]).as_str(), outcomes[0].host.as_deref()), (expected, Some("mx.test")));
    let outcomes = engine.deliver(&only4, &job(&["b@[IPv6:::1]"])).await;
    let expected = "temporary dns - 4.4.4 ::1 has no IPv4 address, and this transport uses no other";
    assert_eq!(show(&outcomes[0]), expected);
    let outcomes = engine.deliver(&only4, &job(&["b@four.test"])).await;
    assert_eq!(show(&outcomes[0]), "delivered data 250 2.0.0 taken");
    engine.close_idle().await;
    peer.finish().await;
}

#[tokio::test]
async fn the_other_family_begins_after_a_failure() {
    let (v4, v6) = loop {
        let v4 = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        match tokio::net::TcpListener::bind(("::1", v4.local_addr().unwrap().port())).await {
            Ok(v6) => break (v4, v6),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            // A machine without IPv6 has nothing to show here.
            Err(_) => return,
        }
    };
    let port = v4.local_addr().unwrap().port();
    let takes = format!("{HELLO}{TAKES}");
    let (v4, v6) = (Peer::play(v4, &[&takes], None), Peer::play(v6, &[&takes], None));
    let engine = engine("x.test A 127.0.0.1\nx.test A ::1");
    let transport = direct(port, common());
    let first = engine.deliver(&transport, &job(&["b@x.test"])).await.remove(0);
    assert_eq!(first.ip, "::1".parse().ok());
    engine.close_idle().await;
    let failed = Outcome::ours(Verdict::Temporary, Stage::Connect, EnhancedCode::new(4, 4, 1), "x");
    let previous = vec![attempt(Outcome { ip: "::1".parse().ok(), ..failed })];
    let then =
        engine.deliver(&transport, &super::super::Job { previous, ..job(&["b@x.test"]) }).await.remove(0);
    assert_eq!(then.ip, "127.0.0.1".parse().ok());
    engine.close_idle().await;
    v4.finish().await;
    v6.finish().await;
}

#[tokio::test]
async fn connections_come_from_an_address_that_the_operator_chose() {
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let listener = listeners.remove(0);
    let transport = direct(port, TransportCommon { source_ipv4: "127.0.0.99".parse().ok(), ..common() });
    let engine = engine("x.test A 127.0.0.1");
    let came_from = async {
        let (tcp, from) = listener.accept().await.unwrap();
        drop(tcp);
        from.ip()
    };
    let job = job(&["b@x.test"]);
    let (from, _) = tokio::join!(came_from, engine.deliver(&transport, &job));
    assert_eq!(from, "127.0.0.99".parse::<IpAddr>().unwrap());
    // RFC 5737: no address of this machine.
    let source_ipv4 = "192.0.2.1".parse().ok();
    let transport = direct(port, TransportCommon { source_ipv4, ..common() });
    let shown = show(&engine.deliver(&transport, &job).await[0]);
    assert!(shown.starts_with("temporary connect - 4.4.1 cannot connect from 192.0.2.1: "), "{shown}");
}

#[tokio::test]
async fn each_wait_has_its_own_end() {
    let short = Duration::from_millis(200);
    let start = HELLO;
    let at_data = format!("{HELLO}C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nSTALL");
    for (common, dialogue, expected) in [
        (
            TransportCommon { greeting_timeout: short, ..common() },
            "STALL".to_owned(),
            "temporary greeting - 4.4.2 timed out after 0.2 s while waiting for the greeting",
        ),
        (
            TransportCommon { command_timeout: short, ..common() },
            format!("{start}STALL"),
            "temporary mail - 4.4.2 timed out after 0.2 s while waiting for the reply to MAIL",
        ),
        (
            TransportCommon { data_timeout: short, ..common() },
            at_data,
            "temporary data - 4.4.2 timed out after 0.2 s while waiting for the reply to the message",
        ),
    ] {
        let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
        let peer = Peer::play(listeners.remove(0), &[&dialogue], None);
        let outcomes = engine("x.test A 127.0.0.1").deliver(&direct(port, common), &job(&["b@x.test"])).await;
        assert_eq!(show(&outcomes[0]), expected);
        peer.finish().await;
    }
}

#[tokio::test]
async fn a_transport_may_do_nothing_but_fail() {
    for (reply, expected) in [
        ("550 5.7.1 not from here", "permanent mail 550 5.7.1 not from here"),
        ("554", "permanent mail 554 5.0.0 refused"),
        ("451 4.3.2 on holiday", "temporary mail 451 4.3.2 on holiday"),
    ] {
        let kind = TransportKind::Fail { reply: parse_reply(reply).unwrap(), at_submission: false };
        let transport = Transport { name: TransportName::new("no").unwrap(), kind, common: common() };
        let outcomes = engine("").deliver(&Arc::new(transport), &job(&["b@x.test", "c@y.test"])).await;
        assert_eq!(outcomes.iter().map(show).collect::<Vec<_>>(), [expected, expected]);
        assert_eq!((outcomes[0].host.as_deref(), outcomes[0].ip), (None, None));
    }
}
