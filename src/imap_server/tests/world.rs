//! A server with a store in a temporary folder, and clients that speak to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::address::Domain;
use crate::config::{Config, ListenerKind};
use crate::imap_server::{ImapContext, serve};
use crate::names::AccountName;
use crate::net::ConnectionLimits;
use crate::store::{Flags, NewMail, Store};
use crate::tls::ServerTls;

const CONFIG: &str = r#"
hostname = "imap.example.org"
data_dir = "unused"
scripts_dir = "unused"
[[listeners]]
kind = "imap"
address = "127.0.0.1:0"
allow_plaintext_auth = true
[domains."example.org"]
[accounts.alice]
addresses = ["alice@example.org", "a.liddell@example.org"]
[accounts.bob]
addresses = ["bob@example.org"]
[limits]
message_bytes_max = 100000
bad_commands_max = 5
auth_failure_delay = "off"
"#;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection to the server.
pub struct Client {
    stream: BufReader<Box<dyn Io>>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed; what it said before tells why.
        let _ = self.stream.get_mut().write_all(bytes).await;
        let _ = self.stream.get_mut().flush().await;
    }

    /// The next line without CR LF; `None` at the end.
    pub async fn line(&mut self, place: &str) -> Option<String> {
        let mut line = Vec::new();
        let reading = self.stream.read_until(b'\n', &mut line);
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        let read = read.unwrap_or_else(|_| panic!("{place}: nothing comes from the server"));
        if read.unwrap_or(0) == 0 {
            return None;
        }
        assert_eq!(line.pop(), Some(b'\n'), "{place}: the line does not end");
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        // Octets that are no text can be expected as what Latin-1 makes of them.
        Some(match String::from_utf8(line) {
            Ok(line) => line,
            Err(error) => error.as_bytes().iter().map(|b| char::from(*b)).collect(),
        })
    }
}

/// A running server.
pub struct World {
    address: std::net::SocketAddr,
    tls_at_once: bool,
    tls: ServerTls,
    store: Store,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn new(listener: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse(CONFIG, Path::new("test.toml"));
        let config = config.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let mut how = config.listeners[0].clone();
        match listener {
            "plain" => {}
            "strict" => how.allow_plaintext_auth = false,
            "imaps" => (how.allow_plaintext_auth, how.kind) = (false, ListenerKind::Imaps),
            other => panic!("there is no listener {other}"),
        }
        let listener = Arc::new(how);
        let store = Store::open(folder.path()).unwrap();
        for name in ["alice", "bob"] {
            let account = AccountName::new(name).unwrap();
            store.set_password(&account, "secret").await.unwrap();
        }
        let tls = ServerTls::self_signed(&[Domain::parse("imap.example.org").unwrap()]).unwrap();
        let socket = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let ctx = ImapContext {
            config: Arc::new(ArcSwap::from_pointee(config)),
            store: store.clone(),
            tls: Some(tls.clone()),
            connections: ConnectionLimits::new(None, None),
        };
        let shutdown = CancellationToken::new();
        let tls_at_once = listener.kind.tls_at_once();
        let server = tokio::spawn(serve(listener, socket, ctx, shutdown.clone()));
        Self { address, tls_at_once, tls, store, shutdown, server, _folder: folder }
    }

    pub async fn connect(&self) -> Client {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let stream: Box<dyn Io> =
            if self.tls_at_once { Box::new(self.tls(tcp).await) } else { Box::new(tcp) };
        Client { stream: BufReader::new(stream) }
    }

    async fn tls<S: Io>(&self, stream: S) -> tokio_rustls::client::TlsStream<S> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.tls.chain()[0].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("imap.example.org").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    pub async fn start_tls(&self, client: &mut Client) {
        let nothing: Box<dyn Io> = Box::new(tokio::io::empty());
        let plain = std::mem::replace(&mut client.stream, BufReader::new(nothing));
        assert!(plain.buffer().is_empty(), "the server sent something behind the answer to STARTTLS");
        client.stream = BufReader::new(Box::new(self.tls(plain.into_inner()).await));
    }

    /// A message arrives, as local delivery brings it.
    pub async fn deliver(&self, mailbox: &str, subject: &str) {
        let account = AccountName::new("alice").unwrap();
        let info = self.store.mailbox(&account, mailbox).await.unwrap();
        let content = Bytes::from(format!("Subject: {subject}\r\n\r\nBody\r\n"));
        let internal_date = "2026-11-22T12:00:00Z".parse().unwrap();
        let mail = NewMail { content, flags: Flags::new(), internal_date };
        self.store.append(info.id, vec![mail]).await.unwrap();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap();
        self.store.close().await;
    }
}
