//! The whole server: starts its parts in order, reloads what can change while it runs, and stops without losing a
//! delivery that is under way.

use std::fs::{File, OpenOptions, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fs2::FileExt;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acme::{Challenges, Renewals, Storage, StorageError};
use crate::config::{AcmeChallenge, AcmeListener, Config, Listener, ListenerKind, Tls};
use crate::control::{ControlContext, ReloadRequest, Reloaded};
use crate::dns::Resolver;
use crate::http::Site;
use crate::imap_server::{self, ImapContext};
use crate::net::{ConnectionLimits, ListenError};
use crate::queue::{self, Queue};
use crate::route::{Router, ScriptProblem, ShadowParts, Surroundings};
use crate::sasl::KeyKind;
use crate::smtp_server::{self, SmtpContext};
use crate::spool::{Spool, SpoolError, SpoolOptions};
use crate::store::{Store, StoreError};
use crate::tls::{ServerTls, ServerTlsError};
use crate::transport::Engine;

/// How long a stop waits for sessions and deliveries that are under way.
pub const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Why the server did not start; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be made or opened.
    #[error("cannot use the data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process works in the data directory.
    #[error("another Waypost is running in the data directory {0}: stop it first, or set another data_dir")]
    DataDirInUse(PathBuf),
    /// The queue cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The mailboxes cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// What is kept for the CA cannot be used.
    #[error(transparent)]
    Acme(#[from] StorageError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The scripts directory is not there and cannot be made.
    #[error("cannot make the scripts directory {path}: {source}")]
    ScriptsDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The routing scripts do not load.
    #[error("the routing scripts have problems:\n{}", listed(.0))]
    Scripts(Vec<ScriptProblem>),
    /// What was promoted cannot run.
    #[error(transparent)]
    Promotion(#[from] crate::route::ResumeError),
    /// Looking at the routing scripts ended in a way that nobody foresaw.
    #[error("the routing scripts could not be looked at: the log says more")]
    Examined,
    /// The scripts directory cannot be watched.
    #[error(transparent)]
    Watch(#[from] crate::route::WatchError),
    /// The control socket cannot be made.
    #[error("cannot open the control socket: {0}")]
    Control(std::io::Error),
    /// The socket for mail of this machine's users cannot be made.
    #[error("cannot open the socket for sendmail: {0}")]
    Submit(std::io::Error),
    /// Signals cannot be taken.
    #[error("cannot take signals: {0}")]
    Signals(std::io::Error),
}

fn listed(problems: &[ScriptProblem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error());
    errors.map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// The right to work in a data directory: one process at a time (fs2). Given back when dropped.
#[derive(Debug)]
pub struct DataDirLock(#[expect(dead_code)] File);

impl DataDirLock {
    /// Makes the directory where it is missing, and takes it.
    pub fn take(dir: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::DataDir { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
        let file = file.map_err(failed)?;
        match file.try_lock_exclusive() {
            Ok(()) => Ok(Self(file)),
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
                Err(StartError::DataDirInUse(dir.to_owned()))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// A running server.
pub struct Server {
    config: Arc<ArcSwap<Config>>,
    queue: Queue,
    spool: Spool,
    store: Store,
    router: Arc<Router>,
    engine: Engine,
    resolver: Resolver,
    tls: Option<ServerTls>,
    renewals: Option<Renewals>,
    reload_sender: mpsc::Sender<ReloadRequest>,
    reload_requests: mpsc::Receiver<ReloadRequest>,
    started: Timestamp,
    limits: ConnectionLimits,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    metrics_addresses: Vec<SocketAddr>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    _watch: crate::route::Watch,
    _lock: DataDirLock,
}

impl Server {
    /// Starts everything. `tls` takes the place of the configuration's certificate files.
    pub async fn start(config: Config, tls: Option<ServerTls>) -> Result<Self, StartError> {
        let lock = DataDirLock::take(&config.data_dir)?;
        let acme = config.tls.as_ref().and_then(|tls| tls.acme.clone());
        let storage = acme.as_ref().map(|_| Storage::open(&config.data_dir)).transpose()?;
        let tls = match (tls, &config.tls) {
            (Some(given), _) => Some(given),
            (None, Some(tls)) => Some(certificates(tls, storage.as_ref())?),
            (None, None) => None,
        };
        let options = SpoolOptions { free_bytes_min: config.queue.free_bytes_min, ..SpoolOptions::default() };
        let (spool, waiting) = Spool::open(&config.queue_dir(), options)?;
        let store = Store::open(&config.data_dir.join("store"))?;
        // Users of this machine go through the data directory to the socket for their mail; what is stored is not theirs.
        for dir in [config.spool_dir(), config.store_dir()] {
            std::fs::set_permissions(&dir, Permissions::from_mode(0o700))
                .map_err(|source| StartError::DataDir { path: dir, source })?;
        }
        // The default directory need not be there yet: no scripts is a way to begin. Once there, its loss is an error.
        std::fs::create_dir_all(&config.scripts_dir)
            .map_err(|source| StartError::ScriptsDir { path: config.scripts_dir.clone(), source })?;
        let tests = config.require_tests.then(crate::route_test::guard);
        let limits = config.script_limits.clone();
        let router = Router::guarded(&config.scripts_dir, limits, Surroundings::from(&config), tests);
        let router = Arc::new(router.map_err(StartError::Scripts)?);
        router.resume_promotion(&config.data_dir)?;
        let resolver = Resolver::new(&config.dns);
        let engine = Engine::new(resolver.clone(), config.hostname.clone());
        let sockets = listen(&config.listeners)?;
        let listen = |address: &SocketAddr| crate::net::listen(*address);
        let metrics_sockets = config.metrics.listen.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let for_ca = match &acme {
            Some(acme) => Some((acme.challenge, listen_for_ca(&acme.listen)?)),
            None => None,
        };
        let limits =
            ConnectionLimits::new(config.limits.connections_max, config.limits.connections_per_ip_max);
        for account in config.accounts.keys() {
            store.ensure_account(account).await?;
        }
        for note in keep_keys(&store, &config).await? {
            tracing::warn!("{note}");
        }

        let waiting_count = waiting.len();
        let config = Arc::new(ArcSwap::from_pointee(config));
        shadow(&router, &config, &resolver);
        let parts = queue::Parts {
            config: config.clone(),
            spool: spool.clone(),
            store: store.clone(),
            router: router.clone(),
            engine: engine.clone(),
            resolver: resolver.clone(),
        };
        let queue = Queue::start(parts, waiting).await?;
        let watch = crate::route::watch(router.clone())?;
        let (reload_sender, reload_requests) = mpsc::channel(8);
        let mut server = Self {
            resolver,
            reload_sender,
            reload_requests,
            started: crate::clock::now(),
            config,
            queue,
            spool,
            store,
            router,
            engine,
            tls,
            limits,
            addresses: Vec::new(),
            metrics_addresses: Vec::new(),
            renewals: None,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _watch: watch,
            _lock: lock,
        };
        server.serve(sockets);
        if let Some(tls) = server.tls.clone() {
            server.tasks.spawn(crate::tls::watch(tls, server.stopping.clone()));
        }
        if let (Some((challenge, sockets)), Some(storage)) = (for_ca, storage) {
            server.renew_certificate(challenge, sockets, storage)?;
        }
        server.serve_metrics(metrics_sockets);
        crate::control::serve(server.control(), server.stopping.clone(), &server.tasks)
            .map_err(StartError::Control)?;
        server.serve_submit().map_err(StartError::Submit)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            hostname = %server.config.load().hostname,
            scripts = %server.router.current().hash(),
            queued = waiting_count,
            "started"
        );
        Ok(server)
    }

    fn serve(&mut self, sockets: Vec<(Arc<Listener>, tokio::net::TcpListener)>) {
        for (listener, socket) in sockets {
            let address = socket.local_addr().unwrap_or(listener.address);
            tracing::info!(kind = listener.kind.as_str(), %address, "listening");
            self.addresses.push((listener.kind, address));
            let stopping = self.stopping.clone();
            match listener.kind {
                ListenerKind::Smtp | ListenerKind::Submission | ListenerKind::Submissions => {
                    self.tasks.spawn(smtp_server::serve(listener, socket, self.smtp(), stopping));
                }
                ListenerKind::Imap | ListenerKind::Imaps => {
                    let context = ImapContext {
                        config: self.config.clone(),
                        store: self.store.clone(),
                        tls: self.tls.clone(),
                        connections: self.limits.clone(),
                    };
                    self.tasks.spawn(imap_server::serve(listener, socket, context, stopping));
                }
            }
        }
    }

    /// Prometheus reads what was counted.
    fn serve_metrics(&mut self, sockets: Vec<tokio::net::TcpListener>) {
        for socket in sockets {
            let address = socket.local_addr().ok();
            tracing::info!(address = address.map(tracing::field::display), "metrics over HTTP");
            self.metrics_addresses.extend(address);
            let context = self.control();
            let site = Site::metrics(move || crate::control::metrics(&context));
            self.tasks.spawn(crate::http::serve(socket, site, self.stopping.clone()));
        }
    }

    /// Gets the certificate from a CA, which comes to these sockets to see that the names are ours.
    fn renew_certificate(
        &mut self,
        challenge: AcmeChallenge,
        sockets: Vec<tokio::net::TcpListener>,
        storage: Storage,
    ) -> Result<(), StorageError> {
        let Some(tls) = self.tls.clone() else { return Ok(()) };
        let challenges = Challenges::default();
        for socket in sockets {
            let address = socket.local_addr().ok();
            tracing::info!(
                kind = challenge.as_str(),
                address = address.map(tracing::field::display),
                "listening"
            );
            let (challenges, stopping) = (challenges.clone(), self.stopping.clone());
            match challenge {
                AcmeChallenge::TlsAlpn01 => {
                    self.tasks.spawn(crate::acme::serve_tls_alpn(socket, challenges, stopping));
                }
                AcmeChallenge::Http01 => {
                    self.tasks.spawn(crate::http::serve(socket, Site::challenges(challenges), stopping));
                }
            }
        }
        let (config, resolver) = (self.config.clone(), self.resolver.clone());
        let parts = crate::acme::Parts { config, resolver, tls, storage, challenges, challenge };
        let (renewals, run) = crate::acme::start(parts, self.stopping.clone())?;
        self.tasks.spawn(run);
        self.renewals = Some(renewals);
        Ok(())
    }

    /// Users of this machine submit through a socket, where the kernel says who they are.
    fn serve_submit(&self) -> std::io::Result<()> {
        let (context, stopping) = (self.smtp(), self.stopping.clone());
        let speak =
            move |stream, user| smtp_server::serve_local(stream, user, context.clone(), stopping.clone());
        let data_dir = self.config.load().data_dir.clone();
        crate::control::serve_submit(data_dir, speak, self.stopping.clone(), &self.tasks)
    }

    fn smtp(&self) -> SmtpContext {
        SmtpContext {
            config: self.config.clone(),
            store: self.store.clone(),
            queue: self.queue.clone(),
            tls: self.tls.clone().map(Arc::new),
            limits: self.limits.clone(),
        }
    }

    /// Where it listens, in the order of the configuration (a port of 0 is shown as what it became).
    pub fn addresses(&self) -> &[(ListenerKind, SocketAddr)] {
        &self.addresses
    }

    /// Where it answers `GET /metrics`, in the order of the configuration.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics_addresses
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Mailboxes and accounts.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the control socket works with.
    pub fn control(&self) -> ControlContext {
        ControlContext {
            config: self.config.clone(),
            queue: self.queue.clone(),
            store: self.store.clone(),
            router: self.router.clone(),
            resolver: self.resolver.clone(),
            reload: self.reload_sender.clone(),
            started: self.started,
            listeners: self.addresses.as_slice().into(),
            renewals: self.renewals.clone(),
            tls: self.tls.clone(),
        }
    }

    /// Serves until SIGTERM or SIGINT, then stops. SIGHUP and the control socket load `config_file` again; a bad one is
    /// reported and changes nothing.
    pub async fn run(mut self, config_file: &Path) -> Result<(), StartError> {
        let take = |kind| signal(kind).map_err(StartError::Signals);
        let (mut terminate, mut interrupt, mut hang_up) =
            (take(SignalKind::terminate())?, take(SignalKind::interrupt())?, take(SignalKind::hangup())?);
        tell_supervisor(NotifyState::Ready);
        loop {
            let request = tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => None,
                request = self.reload_requests.recv() => request,
            };
            let reloaded = self.reload_file(config_file).await;
            match &reloaded {
                Ok(reloaded) => tracing::info!(notes = ?reloaded.notes, "reloaded"),
                Err(problems) => tracing::error!(problems, "not reloaded: all stays as it was"),
            }
            if let Some(request) = request {
                // Whoever asked may have gone in the meantime; the log has it too.
                let _ = request.answer.send(reloaded);
            }
        }
        tell_supervisor(NotifyState::Stopping);
        self.stop().await;
        Ok(())
    }

    async fn reload_file(&self, config_file: &Path) -> Result<Reloaded, String> {
        let config = Config::load(config_file).map_err(|problems| problems.to_string())?;
        self.reload(config).await.map_err(|error| error.to_string())
    }

    /// Takes a new configuration: transports, domains, accounts, limits, certificates and scripts change without a
    /// connection being dropped. Notes say what changed, and what needs a restart.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, StartError> {
        let old = self.config.load_full();
        let mut notes: Vec<String> = [
            ("data_dir", old.data_dir != config.data_dir),
            ("scripts_dir", old.scripts_dir != config.scripts_dir),
            (
                "[scripts]",
                old.script_limits != config.script_limits || old.require_tests != config.require_tests,
            ),
            ("hostname", old.hostname != config.hostname),
            ("listeners", !same_listeners(&old.listeners, &config.listeners)),
            ("[dns]", old.dns != config.dns),
            ("[metrics]", old.metrics != config.metrics),
            ("[tls]", old.tls.is_some() != config.tls.is_some()),
            ("[tls.acme]", !same_way_to_prove(old.tls.as_ref(), config.tls.as_ref())),
        ]
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(what, _)| format!("{what} has changed: this takes effect at the next start"))
        .collect();
        // What may fail comes before the first change.
        let (router, surroundings) = (self.router.clone(), Surroundings::from(&config));
        let examined = tokio::task::spawn_blocking(move || router.read_anew(Some(surroundings))).await;
        let passed = examined.map_err(|_| StartError::Examined)?.map_err(StartError::Scripts)?;
        for account in config.accounts.keys() {
            self.store.ensure_account(account).await?;
        }
        if let (Some(shown), Some(tls)) = (&self.tls, &config.tls) {
            shown.reload(&tls.files)?;
        }
        // Right before the rest of the configuration: the scripts may name transports that only it has.
        let scripts = self.router.adopt(passed);
        if !scripts.is_same() {
            notes.push(format!("routing scripts {} run now", scripts.hash));
        }
        notes.extend(keep_keys(&self.store, &config).await?);
        self.limits.set(config.limits.connections_max, config.limits.connections_per_ip_max);
        self.config.store(Arc::new(config));
        shadow(&self.router, &self.config, &self.resolver);
        self.queue.routes_changed();
        if let Some(renewals) = &self.renewals {
            renewals.settings_changed();
        }
        Ok(Reloaded { notes })
    }

    /// Stops: no new sessions, no new attempts; waits for what is under way, at most [`STOP_PATIENCE`].
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopping while sessions are still open");
        }
        self.queue.stop(STOP_PATIENCE).await;
        self.engine.close_idle().await;
        self.spool.close().await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// Sees to it that of passwords is kept what the offered mechanisms need, and nothing of CRAM-MD5 once that is no longer
/// offered. What the operator should know comes back, a line each.
async fn keep_keys(store: &Store, config: &Config) -> Result<Vec<String>, StoreError> {
    store.keep_cram_md5(config.auth.wants_cram_md5());
    if !config.auth.wants_cram_md5() {
        let forgotten = store.forget_cram_md5().await?;
        let note = format!("CRAM-MD5 is not offered: what was kept for it is removed, accounts: {forgotten}");
        return Ok(if forgotten > 0 { vec![note] } else { Vec::new() });
    }
    let mut without = Vec::new();
    for account in config.accounts.keys() {
        if store.has_password(account).await? && !store.key_kinds(account).await?.contains(&KeyKind::CramMd5)
        {
            without.push(account.to_string());
        }
    }
    if without.is_empty() {
        return Ok(without);
    }
    let until = if config.auth.takes_passwords() {
        "they next log in with PLAIN or LOGIN, or their passwords are set again"
    } else {
        "their passwords are set again"
    };
    Ok(vec![format!("CRAM-MD5 does not work yet for {}, until {until}", without.join(", "))])
}

/// Runs the scripts that are only compared, or no more. Mail goes its way without them.
fn shadow(router: &Router, config: &Arc<ArcSwap<Config>>, resolver: &Resolver) {
    let dir = config.load().shadow_dir.clone();
    let parts = ShadowParts { known: config.clone(), resolver: resolver.clone() };
    if let Err(error) = router.set_shadow(dir.as_deref(), &parts) {
        tracing::error!(%error, dir = ?dir, "no shadow scripts are compared");
    }
}

/// The certificates that the server begins with.
fn certificates(tls: &Tls, storage: Option<&Storage>) -> Result<ServerTls, StartError> {
    let (Some(acme), Some(storage)) = (&tls.acme, storage) else { return Ok(ServerTls::load(&tls.files)?) };
    let issued = crate::acme::stored_certificate(storage, crate::clock::now())?;
    if issued.is_none() {
        tracing::warn!("no certificate of the CA yet: until it comes, one that nobody vouches for is shown");
    }
    Ok(ServerTls::by_acme(issued, &acme.names, &tls.files)?)
}

fn listen_for_ca(listeners: &[AcmeListener]) -> Result<Vec<tokio::net::TcpListener>, ListenError> {
    let sockets =
        listeners.iter().filter_map(|listener| listen_on(listener.address, listener.required).transpose());
    sockets.collect()
}

/// A socket; `None` where it is not required and the machine has no IPv6.
fn listen_on(address: SocketAddr, required: bool) -> Result<Option<tokio::net::TcpListener>, ListenError> {
    match crate::net::listen(address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if !required && error.no_such_family() => {
            tracing::info!(%address, "this machine has no IPv6: not listening there");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn listen(listeners: &[Listener]) -> Result<Vec<(Arc<Listener>, tokio::net::TcpListener)>, ListenError> {
    let mut sockets = Vec::with_capacity(listeners.len());
    for listener in listeners {
        if let Some(socket) = listen_on(listener.address, listener.required)? {
            sockets.push((Arc::new(listener.clone()), socket));
        }
    }
    Ok(sockets)
}

/// Tells systemd (Type=notify) how we are; without it this does nothing.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

fn same_listeners(old: &[Listener], new: &[Listener]) -> bool {
    let key = |l: &Listener| (l.kind, l.address);
    old.iter().map(key).eq(new.iter().map(key))
}

/// Whether the CA is shown in the same way, at the same places, that names are ours; the rest of `[tls.acme]` may change
/// while the server runs.
fn same_way_to_prove(old: Option<&Tls>, new: Option<&Tls>) -> bool {
    let way = |tls: Option<&Tls>| {
        tls.and_then(|tls| tls.acme.as_ref()).map(|acme| (acme.challenge, acme.listen.clone()))
    };
    way(old) == way(new)
}
