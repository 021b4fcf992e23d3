//! REQUIRETLS (RFC 8689): nobody has the message but hosts that show who they are and promise the same. Only a report is
//! not lost for it.

use super::super::Engine;
use super::peer::{Peer, closed_port, listeners};
use super::tls::{INSIDE, OFFERS, STARTS, TAKES, certificate, deliver, in_tls};
use super::world::{CONTENT, common, direct, domain, engine, fixed, job_with, show, smtp};
use crate::config::TlsPolicy;
use crate::dns::Resolver;
use crate::dns::testing::DnsServer;
use crate::envelope::{Envelope, ReversePath};
use crate::tls::ClientTls;

/// The envelope of a message with REQUIRETLS; the empty text is the null sender.
fn from(sender: &str) -> Envelope {
    let sender = ReversePath::try_from(sender.to_owned()).unwrap();
    Envelope { require_tls: true, ..Envelope::new(sender, ["b@x.test".parse().unwrap()]) }
}

/// A peer that speaks TLS and offers no REQUIRETLS there.
fn unwilling() -> String {
    in_tls().replace("S: 250-REQUIRETLS\n", "").replace(TAKES, "C: QUIT\nBYE")
}

/// A peer that takes a message for which MAIL says exactly this.
fn takes(start: &str, mail: &str) -> String {
    format!("{start}{}", TAKES.replace("C: MAIL*", &format!("C: MAIL FROM:{mail}")))
}

#[tokio::test]
async fn the_parameter_goes_along_to_a_verified_peer_that_offers_it() {
    let inside = format!("{OFFERS}{STARTS}{INSIDE}");
    for (sender, mail) in [("a@client.test", "<a@client.test> REQUIRETLS"), ("", "<> REQUIRETLS")] {
        let dialogue = takes(&inside, mail);
        let outcome = deliver(TlsPolicy::None, "mx.test", true, &[&dialogue], Some(from(sender))).await;
        assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_offer_it_has_no_message() {
    let policy = TlsPolicy::None;
    let outcome = deliver(policy, "mx.test", true, &[&unwilling()], Some(from("a@client.test"))).await;
    let expected = "permanent mail - 5.7.30 the sender requires REQUIRETLS, which the peer does not offer";
    assert_eq!(show(&outcome), expected);
}

/// Each host is asked before the message is given up, and what may pass is tried again.
#[tokio::test]
async fn every_host_is_asked_before_the_message_is_given_up() {
    let without = "S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE";
    let unwilling = in_tls().replace("S: 250-REQUIRETLS\n", "").replace(TAKES, "C: QUIT\nBYE");
    let refused = format!("{OFFERS}C: STARTTLS\nS: 502 5.5.1 no\nBYE");
    let later = format!("{OFFERS}C: STARTTLS\nS: 454 4.7.0 not now\nBYE");
    for (first, second, expected) in [
        (without, in_tls(), "delivered data 250 2.0.0 taken"),
        (unwilling.as_str(), in_tls(), "delivered data 250 2.0.0 taken"),
        (without, unwilling.clone(), "permanent mail - 5.7.30 "),
        (refused.as_str(), without.to_owned(), "permanent mail - 5.7.10 the sender requires TLS"),
        (without, later.clone(), "temporary tls 454 4.7.0 not now"),
    ] {
        let (certificate, server) = certificate("mx.test");
        let (port, listeners) = listeners(&["127.0.0.1", "127.0.0.2"]).await;
        let dialogues = [first, second.as_str()];
        let peers = listeners.into_iter().zip(dialogues);
        let peers: Vec<Peer> = peers
            .map(|(listener, dialogue)| Peer::play(listener, &[dialogue], Some(server.clone())))
            .collect();
        let names = "x.test MX 10 mx.test\nmx.test A 127.0.0.1\nmx.test A 127.0.0.2";
        let tls = ClientTls::with_roots(vec![certificate]);
        let engine = Engine::with_tls(Resolver::new(&fixed(names)), domain("client.test"), tls);
        let outcomes =
            engine.deliver(&direct(port, common()), &job_with(from("a@client.test"), CONTENT)).await;
        engine.close_idle().await;
        assert!(show(&outcomes[0]).starts_with(expected), "{first}\n{second}: {}", show(&outcomes[0]));
        for peer in peers {
            peer.finish().await;
        }
    }
}

#[tokio::test]
async fn hosts_for_which_dnssec_does_not_vouch_are_not_even_connected_to() {
    let dns = DnsServer::start("x.test MX 10 mx.test\nmx.test A 127.0.0.1").await;
    let engine = Engine::new(Resolver::new(&dns.config()), domain("client.test"));
    let transport = direct(closed_port().await.port(), common());
    let outcomes = engine.deliver(&transport, &job_with(from("a@client.test"), CONTENT)).await;
    let expected = "permanent dns - 5.7.10 the sender requires REQUIRETLS, and DNSSEC vouches for no MX record of x.test";
    assert_eq!(show(&outcomes[0]), expected);
    // Another message would have gone there; and so does a report.
    for envelope in [Envelope { require_tls: false, ..from("a@client.test") }, from("")] {
        let outcomes = engine.deliver(&transport, &job_with(envelope, CONTENT)).await;
        assert_eq!(show(&outcomes[0]), "temporary connect - 4.4.1 connection refused");
    }
}

#[tokio::test]
async fn a_report_is_not_lost_where_the_way_back_has_no_requiretls() {
    let without = takes("S: 220 x\nC: EHLO*\nS: 250-x\nS: 250 PIPELINING\n", "<>");
    let no_tls = "S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE";
    let in_tls = takes(&format!("{OFFERS}{STARTS}{INSIDE}"), "<>").replace("S: 250-REQUIRETLS\n", "");
    for (policy, first, then) in [
        (TlsPolicy::None, no_tls, &without),
        (TlsPolicy::None, unwilling().as_str(), &without),
        (TlsPolicy::Opportunistic, no_tls, &without),
        (TlsPolicy::Opportunistic, unwilling().as_str(), &in_tls),
    ] {
        let outcome = deliver(policy, "mx.test", true, &[first, then], Some(from(""))).await;
        assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken", "{policy:?} {first}");
    }
    // What the transport itself requires still holds; and what may pass is waited for.
    let outcome = deliver(TlsPolicy::Required, "mx.test", true, &[no_tls, no_tls], Some(from(""))).await;
    assert_eq!(show(&outcome), "temporary tls - 4.7.4 TLS is required, but the peer does not offer it");
    let later = format!("{OFFERS}C: STARTTLS\nS: 454 4.7.0 not now\nBYE");
    let outcome = deliver(TlsPolicy::None, "mx.test", true, &[&later], Some(from(""))).await;
    assert_eq!(show(&outcome), "temporary tls 454 4.7.0 not now");
}

#[tokio::test]
async fn a_smarthost_that_does_not_offer_it_has_no_message_either() {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &["S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE"], None);
    let outcomes = engine("").deliver(&smtp(peer.address), &job_with(from("a@client.test"), CONTENT)).await;
    let expected = "permanent mail - 5.7.10 the sender requires TLS with a verified peer (REQUIRETLS): \
                    the peer does not offer TLS";
    assert_eq!(show(&outcomes[0]), expected);
    peer.finish().await;
}
