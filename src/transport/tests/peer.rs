//! A peer that plays a script: one dialogue for each connection, in order.
//!
//! | line | meaning |
//! | --- | --- |
//! | `S: text` | say it |
//! | `C: text` | hear exactly this; `C: text*` hears what begins so |
//! | `M` | take a message up to its end mark |
//! | `DOT` | hear a dot alone |
//! | `RAW text` | say it without a line end; `\r\n` in it is one |
//! | `TLS` | make the handshake |
//! | `BYE` | the client closes; QUIT may come first |
//! | `CLOSE` | close |
//! | `STALL` | say nothing more until the client closes |
//! | `FLOOD` | talk without end, until the client closes |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::net::Stream;

/// What EHLO brings from a usual peer.
pub(crate) const HELLO: &str = "S: 220 peer.test ESMTP
C: EHLO client.test
S: 250-peer.test
S: 250-PIPELINING
S: 250-SIZE 100000
S: 250 8BITMIME
";

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    playing: JoinHandle<Vec<String>>,
}

impl Peer {
    pub(crate) fn play(
        listener: TcpListener,
        dialogues: &[&str],
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let dialogues: Vec<String> = dialogues.iter().map(|&dialogue| dialogue.to_owned()).collect();
        let playing = tokio::spawn(async move {
            let mut messages = Vec::new();
            for dialogue in dialogues {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let mut actor =
                    Actor { stream: Some(Stream::Plain(tcp)), heard: Vec::new(), tls: tls.clone() };
                for line in dialogue.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    messages.extend(actor.play(line).await);
                }
            }
            messages
        });
        Self { address, playing }
    }

    /// Waits for the end of the script; panics where the client did not keep to it. Gives the messages taken.
    pub(crate) async fn finish(self) -> Vec<String> {
        let address = self.address;
        let played = tokio::time::timeout(Duration::from_secs(8), self.playing).await;
        played.unwrap_or_else(|_| panic!("the script of {address} was not played to its end")).unwrap()
    }
}

struct Actor {
    stream: Option<Stream>,
    heard: Vec<u8>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Actor {
    async fn play(&mut self, line: &str) -> Option<String> {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "S:" => self.say(&format!("{text}\r\n")).await,
            "RAW" => self.say(&text.replace("\\r\\n", "\r\n")).await,
            "C:" => {
                let heard = self.hear(b"\r\n").await;
                let heard = heard.trim_end();
                match text.strip_suffix('*') {
                    Some(start) => assert!(heard.starts_with(start), "expected {text:?}, heard {heard:?}"),
                    None => assert_eq!(heard, text),
                }
            }
            "M" => return Some(self.hear(b"\r\n.\r\n").await),
            "DOT" => assert_eq!(self.hear(b"\r\n").await, ".\r\n"),
            "TLS" => self.start_tls().await,
            "BYE" => {
                self.until_close().await;
                let rest = String::from_utf8_lossy(&self.heard);
                assert!(matches!(&*rest, "" | "QUIT\r\n"), "the client said more than expected: {rest:?}");
            }
            "STALL" => self.until_close().await,
            "CLOSE" => self.stream = None,
            "FLOOD" => {
                let stream = self.stream.as_mut().unwrap();
                while stream.write_all(&b"250-more\r\n".repeat(100)).await.is_ok() {}
            }
            other => panic!("no such line in a script: {other}"),
        }
        None
    }

    async fn say(&mut self, text: &str) {
        let stream = self.stream.as_mut().unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }

    async fn hear(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.heard, end) {
                let heard = self.heard.drain(..at + end.len()).collect();
                return String::from_utf8(heard).unwrap();
            }
            let read = self.stream.as_mut().unwrap().read_buf(&mut self.heard).await.unwrap();
            let so_far = String::from_utf8_lossy(&self.heard);
            assert!(read > 0, "the client closed; expected an end {end:?}, heard {so_far:?}");
        }
    }

    async fn until_close(&mut self) {
        let stream = self.stream.as_mut().unwrap();
        while stream.read_buf(&mut self.heard).await.is_ok_and(|read| read > 0) {}
    }

    async fn start_tls(&mut self) {
        let Some(Stream::Plain(tcp)) = self.stream.take() else { panic!("already in TLS") };
        let acceptor = TlsAcceptor::from(self.tls.clone().unwrap());
        // A client that refuses our certificate breaks the handshake off: then the script ends here.
        if let Ok(stream) = acceptor.accept(tcp).await {
            self.stream = Some(Stream::Tls(Box::new(stream.into())));
        }
    }
}

/// Listeners on one port of several loopback addresses.
pub(crate) async fn listeners(addresses: &[&str]) -> (u16, Vec<TcpListener>) {
    for _ in 0..50 {
        let mut listeners = Vec::new();
        let mut port = 0;
        for address in addresses {
            let Ok(listener) = TcpListener::bind(format!("{address}:{port}")).await else { break };
            port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        if listeners.len() == addresses.len() {
            return (port, listeners);
        }
    }
    panic!("no free port");
}

/// A port where nobody listens.
pub(crate) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Whether anybody is there.
pub(crate) async fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}
