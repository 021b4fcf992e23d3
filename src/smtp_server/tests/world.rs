//! A listening SMTP server with a real queue, spool and store, in a folder of its own, and a client to speak to it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::address::Domain;
use crate::config::{Config, Listener, ListenerKind};
use crate::dns::Resolver;
use crate::names::AccountName;
use crate::net::{ConnectionLimits, Stream};
use crate::queue::{Parts, Queue};
use crate::route::Router;
use crate::smtp_server::{SmtpContext, serve};
use crate::spool::{Spool, SpoolOptions};
use crate::store::{INBOX, MailboxId, Store};
use crate::tls::{ClientTls, PeerName, ServerTls, Verify};
use crate::transport::Engine;

/// Nothing here takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Two accounts with the password `secret`, a domain with answers written by the operator, and nobody to ask for names.
const CONFIG: &str = r#"
hostname = "mx.example.org"
postmaster = "ann"
[dns]
resolvers = ["127.0.0.1:9"]
[domains."example.org"]
separator = "+"
[domains."example.org".replies]
full = "452 4.2.2 the mailbox is full"
slow = { reply = "550 5.7.1 go away", after = "10ms" }
[accounts.ann]
addresses = ["ann@example.org"]
[accounts.bob]
addresses = ["bob@example.org", "büro@example.org"]
[limits]
auth_failure_delay = "10ms"
"#;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub kind: ListenerKind,
    pub relay_from: Vec<ipnet::IpNet>,
    pub allow_plaintext_auth: bool,
    pub tls: bool,
    /// Lines for `[limits]`.
    pub limits: String,
}

impl Setup {
    pub fn of(kind: ListenerKind) -> Self {
        Self { kind, relay_from: Vec::new(), allow_plaintext_auth: false, tls: true, limits: String::new() }
    }
}

/// A running server.
pub struct World {
    pub address: SocketAddr,
    pub store: Store,
    pub connections: ConnectionLimits,
    pub shutdown: CancellationToken,
    pub server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn new(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse(&format!("{CONFIG}{}\n", setup.limits), Path::new("waypost.toml"))
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let store = Store::open(&dir.path().join("store")).unwrap();
        for account in config.accounts.keys() {
            store.set_password(account, "secret").await.unwrap();
        }
        let options = SpoolOptions { segment_bytes: 1 << 20, free_bytes_min: 0, ..SpoolOptions::default() };
        let (spool, waiting) = Spool::open(&dir.path().join("spool"), options).unwrap();
        let resolver = Resolver::new(&config.dns);
        let connections =
            ConnectionLimits::new(config.limits.connections_max, config.limits.connections_per_ip_max);
        let config = Arc::new(ArcSwap::from_pointee(config));
        let hostname = Domain::parse("mx.example.org").unwrap();
        std::fs::create_dir(dir.path().join("scripts")).unwrap();
        let limits = config.load().script_limits.clone();
        let router = Router::new(&dir.path().join("scripts"), limits)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let parts = Parts {
            config: config.clone(),
            spool,
            store: store.clone(),
            router: Arc::new(router),
            engine: Engine::new(resolver.clone(), hostname.clone()),
            resolver,
        };
        let queue = Queue::start(parts, waiting).await.unwrap();
        let tls = setup.tls.then(|| Arc::new(ServerTls::self_signed(&[hostname]).unwrap()));
        let ctx = SmtpContext { config, store: store.clone(), tls, limits: connections.clone(), queue };
        let socket = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Arc::new(Listener {
            kind: setup.kind,
            address,
            hostname: None,
            relay_from: setup.relay_from,
            required: true,
            allow_plaintext_auth: setup.allow_plaintext_auth,
        });
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, socket, ctx, shutdown.clone()));
        Self { address, store, connections, shutdown, server, _dir: dir }
    }

    pub async fn connect(&self) -> Client {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        Client { stream: Stream::Plain(tcp), input: Vec::new() }
    }

    async fn inbox(&self, account: &str) -> MailboxId {
        let account = AccountName::new(account).unwrap();
        self.store.ensure_account(&account).await.unwrap();
        self.store.mailbox(&account, INBOX).await.unwrap().id
    }

    /// The message of this number, from 1, in an account's INBOX, when it has come.
    pub async fn mail(&self, account: &str, uid: u32) -> String {
        let inbox = self.inbox(account).await;
        let mut changes = self.store.watch(inbox);
        let arrives = async {
            loop {
                if let Some(content) = self.store.content(inbox, uid).await.unwrap() {
                    return String::from_utf8(content.to_vec()).unwrap();
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, arrives).await.expect("mail arrives")
    }

    /// How much mail there is in an account's INBOX.
    pub async fn mails(&self, account: &str) -> usize {
        let inbox = self.inbox(account).await;
        self.store.open_view(inbox).await.unwrap().messages.len()
    }
}

/// A client that says exactly what it is told.
pub struct Client {
    stream: Stream,
    input: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Begins TLS, whoever the server is.
    pub async fn start_tls(self) -> Self {
        let Stream::Plain(tcp) = self.stream else { panic!("TLS already") };
        let name = Domain::parse("mx.example.org").unwrap();
        let stream = ClientTls::new().connect(tcp, PeerName::Host(&name), Verify::Nothing).await.unwrap();
        Self { stream, input: self.input }
    }

    /// The next line without its CR LF; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line = self.input.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            let mut more = [0; 4096];
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut more))
                .await
                .expect("an answer in time")
            {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.input.extend_from_slice(&more[..length]),
            }
        }
    }

    /// A whole reply, its lines joined by line feeds.
    pub async fn reply(&mut self) -> String {
        let mut reply = String::new();
        while let Some(line) = self.line().await {
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
            reply.push('\n');
        }
        reply
    }

    /// Sends a line and reads the reply.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }

    /// What one read gives, for tests of how replies are packed.
    pub async fn read_once(&mut self) -> Vec<u8> {
        let mut more = vec![0; 65_536];
        let length =
            tokio::time::timeout(PATIENCE, self.stream.read(&mut more)).await.expect("in time").unwrap();
        more.truncate(length);
        more
    }
}
