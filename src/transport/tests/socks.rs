//! Through a SOCKS5 proxy that a test plays: what it is asked for, and what each of its answers means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::peer::{HELLO, Peer, closed_port, listeners};
use super::world::{common, engine, job, show};
use crate::config::{Host, Proxy, Secret, Transport, TransportCommon, TransportKind};
use crate::names::TransportName;

const TAKES: &str = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\nBYE";
const NAMES: &str = "x.test MX 10 mx.test\nmx.test A 127.0.0.1\nsix.test A ::1";
/// RFC 1928 §6: succeeded.
const SUCCEEDED: u8 = 0;

/// Answers one client: asks for the login where there is one, and connects, or says that it cannot. Gives where it was
/// asked to connect to.
fn play(listener: TcpListener, login: Option<&'static [u8]>, reply: u8) -> JoinHandle<Option<SocketAddr>> {
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = [0; 2];
        client.read_exact(&mut head).await.unwrap();
        let mut methods = vec![0; usize::from(head[1])];
        client.read_exact(&mut methods).await.unwrap();
        let method = if login.is_some() { 2 } else { 0 };
        if !methods.contains(&method) {
            client.write_all(&[5, 0xff]).await.unwrap();
            return None;
        }
        client.write_all(&[5, method]).await.unwrap();
        if let Some(expected) = login {
            let mut said = vec![0; expected.len()];
            client.read_exact(&mut said).await.unwrap();
            client.write_all(&[1, u8::from(said != expected)]).await.unwrap();
            if said != expected {
                return None;
            }
        }
        let mut request = [0; 10];
        client.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], [5, 1, 0, 1], "an address, not a name: {request:?}");
        let target = SocketAddr::from((
            [request[4], request[5], request[6], request[7]],
            u16::from_be_bytes([request[8], request[9]]),
        ));
        client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        if reply == SUCCEEDED {
            let mut peer = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut peer).await;
        }
        Some(target)
    })
}

async fn listener() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

fn through(proxy: SocketAddr, login: Option<(&str, &str)>, port: u16) -> Transport {
    let login = login.map(|(name, password)| (name.to_owned(), Secret::new(password)));
    let proxy = Proxy { host: Host::Ip(proxy.ip()), port: proxy.port(), login, remote_ips: Vec::new() };
    let common = TransportCommon { connect_timeout: Duration::from_millis(500), ..common() };
    let kind = TransportKind::Socks { port, proxy };
    Transport { name: TransportName::new("away").unwrap(), kind, common }
}

async fn deliver(transport: Transport, recipient: &str) -> String {
    let engine = engine(NAMES);
    let outcome = engine.deliver(&Arc::new(transport), &job(&[recipient])).await.remove(0);
    engine.close_idle().await;
    let place = outcome.ip.map_or("-".to_owned(), |ip| ip.to_string());
    format!("{} @{place}", show(&outcome))
}

#[tokio::test]
async fn mail_goes_through_the_proxy_to_the_address_of_the_mx() {
    for login in [None, Some(&b"\x01\x03tim\x06secret"[..])] {
        let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
        let peer = Peer::play(listeners.remove(0), &[&format!("{HELLO}{TAKES}")], None);
        let (address, listening) = listener().await;
        let proxy = play(listening, login, SUCCEEDED);
        let transport = through(address, login.map(|_| ("tim", "secret")), port);
        assert_eq!(deliver(transport, "b@x.test").await, "delivered data 250 2.0.0 taken @127.0.0.1");
        peer.finish().await;
        assert_eq!(proxy.await.unwrap(), Some(SocketAddr::from(([127, 0, 0, 1], port))));
    }
}

#[tokio::test]
async fn what_the_proxy_says_of_the_peer_is_the_peers() {
    for (reply, words) in [
        (1, "general socks server failure"),
        (2, "connection not allowed by ruleset"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "ttl expired"),
        (8, "address type not supported"),
    ] {
        let (address, listening) = listener().await;
        let proxy = play(listening, None, reply);
        let shown = deliver(through(address, None, 25), "b@x.test").await;
        assert_eq!(shown, format!("temporary connect - 4.4.1 through the proxy: {words} @127.0.0.1"));
        proxy.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_proxy_is_not_the_peers() {
    for (asks, login, words) in [
        (Some(&b"\x01\x03tim\x06secret"[..]), Some(("tim", "Secret")), "wrong user name or password"),
        (Some(&b"\x01\x03tim\x06secret"[..]), None, "it wants a user name and password"),
    ] {
        let (address, listening) = listener().await;
        let proxy = play(listening, asks, SUCCEEDED);
        let shown = deliver(through(address, login, 25), "b@x.test").await;
        assert_eq!(shown, format!("temporary connect - 4.4.1 the proxy {address}: {words} @-"));
        proxy.await.unwrap();
    }
    let nobody = closed_port().await;
    let shown = deliver(through(nobody, None, 25), "b@x.test").await;
    assert_eq!(shown, format!("temporary connect - 4.4.1 the proxy {nobody}: connection refused @-"));
}

#[tokio::test]
async fn a_proxy_that_stalls_is_not_waited_for() {
    let (address, listening) = listener().await;
    let shown = deliver(through(address, None, 25), "b@x.test").await;
    assert_eq!(shown, "temporary connect - 4.4.1 connection timed out after 0.5 s @127.0.0.1");
    drop(listening);
}

#[tokio::test]
async fn families_that_the_proxy_does_not_have_are_not_asked_for() {
    let (address, _listening) = listener().await;
    let mut transport = through(address, None, 25);
    if let TransportKind::Socks { proxy, .. } = &mut transport.kind {
        proxy.remote_ips = vec!["192.0.2.1".parse().unwrap()];
    }
    let shown = deliver(transport, "b@six.test").await;
    let expected = "temporary dns - 4.4.4 six.test has no IPv4 address, and this transport uses no other @-";
    assert_eq!(shown, expected);
}
