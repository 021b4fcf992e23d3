//! Connections kept for the next message.

use std::sync::Arc;
use std::time::Duration;

use super::peer::{HELLO, Peer, listeners};
use super::world::{common, engine, job, show_all, smtp, smtp_with};
use crate::config::{Transport, TransportCommon};
use crate::transport::Engine;

const TAKES: &str = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\n";

async fn peer(dialogues: &[&str]) -> Peer {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    Peer::play(listeners.remove(0), dialogues, None)
}

async fn delivered(engine: &Engine, transport: &Arc<Transport>) {
    let outcomes = engine.deliver(transport, &job(&["b@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["delivered data 250 2.0.0 taken"]);
}

#[tokio::test]
async fn messages_to_one_place_share_a_connection() {
    let peer = peer(&[&format!("{HELLO}{TAKES}{TAKES}{TAKES}C: QUIT\nBYE")]).await;
    let (engine, transport) = (engine(""), smtp(peer.address));
    for _ in 0..3 {
        delivered(&engine, &transport).await;
    }
    engine.close_idle().await;
    assert_eq!(peer.finish().await.len(), 3);
}

#[tokio::test]
async fn a_connection_carries_so_many_messages_and_says_quit_with_the_last() {
    let two = format!(
        "{HELLO}{TAKES}C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nC: QUIT\nS: 250 taken\nS: 221 bye\nBYE"
    );
    let peer = peer(&[&two, &format!("{HELLO}{TAKES}BYE")]).await;
    let transport = smtp_with(peer.address, TransportCommon { messages_per_connection: 2, ..common() });
    let engine = engine("");
    for _ in 0..3 {
        delivered(&engine, &transport).await;
    }
    engine.close_idle().await;
    peer.finish().await;
}

#[tokio::test]
async fn the_peers_own_limit_holds_too() {
    let limited = "S: 220 x\nC: EHLO*\nS: 250-x\nS: 250 LIMITS MAILMAX=1\nC: MAIL*\nS: 250 Ok\nC: RCPT*\nS: 250 Ok\n\
        C: DATA\nS: 354 go\nM\nS: 250 taken\nC: QUIT\nBYE";
    let peer = peer(&[limited, limited]).await;
    let (engine, transport) = (engine(""), smtp(peer.address));
    delivered(&engine, &transport).await;
    delivered(&engine, &transport).await;
    peer.finish().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_left_is_no_failed_attempt() {
    let again = format!("{HELLO}{TAKES}BYE");
    for leaves in [
        // Closed while nobody looked.
        "CLOSE",
        // Said so before.
        "S: 421 4.4.2 idle too long\nCLOSE",
        // Closed just when the next message came.
        "C: MAIL*\nCLOSE",
        "C: MAIL*\nC: RCPT*\nC: DATA\nS: 421 4.4.2 too late\nCLOSE",
        // There no longer, but nobody has told us.
        "C: MAIL*\nSTALL",
        // Said something that nobody can understand.
        "C: MAIL*\nC: RCPT*\nC: DATA\nS: what?\nCLOSE",
    ] {
        let peer = peer(&[&format!("{HELLO}{TAKES}{leaves}"), &again]).await;
        let (engine, transport) = (engine(""), smtp(peer.address));
        delivered(&engine, &transport).await;
        delivered(&engine, &transport).await;
        engine.close_idle().await;
        assert_eq!(peer.finish().await.len(), 2, "{leaves}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_later_is_a_failure_like_any_other() {
    let breaks =
        format!("{HELLO}{TAKES}C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nCLOSE");
    let peer = peer(&[&breaks]).await;
    let (engine, transport) = (engine(""), smtp(peer.address));
    delivered(&engine, &transport).await;
    let outcomes = engine.deliver(&transport, &job(&["b@x.test"])).await;
    let expected =
        "temporary data - 4.4.2 the peer closed the connection while we waited for the reply to the message";
    assert_eq!(show_all(&outcomes), [expected]);
    peer.finish().await;
}

#[tokio::test]
async fn a_transaction_left_open_is_reset_before_the_next() {
    let refused = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 550 no\nS: 554 nobody\n";
    let reset = "C: RSET\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 reset\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\n";
    let peer = peer(&[&format!("{HELLO}{refused}{reset}{TAKES}BYE")]).await;
    let (engine, transport) = (engine(""), smtp(peer.address));
    let outcomes = engine.deliver(&transport, &job(&["b@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["permanent rcpt 550 5.0.0 no"]);
    delivered(&engine, &transport).await;
    delivered(&engine, &transport).await;
    engine.close_idle().await;
    peer.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let peer = peer(&[&format!("{HELLO}{TAKES}C: QUIT\nBYE")]).await;
    let transport =
        smtp_with(peer.address, TransportCommon { keep_idle: Duration::from_millis(50), ..common() });
    let engine = engine("");
    delivered(&engine, &transport).await;
    // Nobody closes it but the engine itself.
    peer.finish().await;
}

#[tokio::test]
async fn a_transport_that_was_reloaded_starts_anew() {
    let one = format!("{HELLO}{TAKES}C: QUIT\nBYE");
    let peer = peer(&[&one, &one]).await;
    let engine = engine("");
    delivered(&engine, &smtp(peer.address)).await;
    delivered(&engine, &smtp(peer.address)).await;
    engine.close_idle().await;
    peer.finish().await;
}

#[tokio::test]
async fn destinations_do_not_share() {
    let engine = engine("");
    let smart = smtp("127.0.0.1:2525".parse().unwrap());
    let direct = super::world::direct(25, common());
    let key = |transport: &Arc<Transport>, domain: &str| {
        engine.destination(transport, &super::world::domain(domain)).to_string()
    };
    assert_eq!(key(&direct, "a.test"), "direct/a.test");
    assert_eq!(key(&smart, "a.test"), "smart/127.0.0.1:2525");
    assert_eq!(key(&smart, "a.test"), key(&smart, "b.test"));
}
