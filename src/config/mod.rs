//! The checked configuration: what the rest of the server reads.
//!
//! `waypost.toml` is read and checked once, and becomes a [`Config`]; nobody interprets it again. [`Config::load`]
//! reports all that is wrong at once as [`ConfigProblems`].
//!
//! | file | what it does |
//! | --- | --- |
//! | `section` | reads the keys of one table, collects what is wrong, hints at misspelt keys |
//! | `read` | the top of the file, listeners, DNS, queue, limits |
//! | `tls` | certificates |
//! | `acme` | how a certificate is got from a CA |
//! | `ways` | transports |
//! | `login` | user names and passwords at other servers, and how users log in here |
//! | `directory` | domains, accounts, their addresses and fixed replies |
//! | `sendmail` | `sendmail.toml`, a file of its own: the server that `waypost sendmail` submits to |
//! | `units` | durations and sizes |
//! | `users` | which users of this machine may submit as which account |
//! | `problems` | shows what is wrong with file, line, column and a mark under the place |

mod acme;
mod directory;
mod login;
mod problems;
mod read;
mod section;
mod sendmail;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod users;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use crate::address::{Domain, Mailbox};
use crate::names::{AccountName, TransportName};
use crate::sasl::{self, Allowed};
use crate::smtp::Reply;

pub use acme::{Acme, AcmeChallenge, AcmeKeyType, AcmeListener, ExternalAccount};
pub use directory::parse_reply;
pub use login::Auth;
pub use problems::{ConfigProblems, Problem};
pub use read::{DATA_DIR_DEFAULT, SCRIPTS_DIR_DEFAULT, default_port};
pub use section::nearest;
pub(crate) use section::{Placed, Reader, Section, Wrong, read_number, read_size, read_value};
pub use sendmail::SendmailConfig;
pub use tls::{Tls, TlsFiles};
pub(crate) use units::SIZE_FORM;
pub use units::{parse_duration, parse_size};
pub use users::SystemUser;
pub use ways::direct as direct_transport;

/// The whole configuration. It is shared as `Arc<Config>` and replaced as a whole on reload.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name: greeting, EHLO, Received, Message-Id of reports.
    pub hostname: Domain,
    /// Queue, mailboxes, control socket.
    pub data_dir: PathBuf,
    /// Routing scripts.
    pub scripts_dir: PathBuf,
    /// Where we listen.
    pub listeners: Vec<Listener>,
    /// Certificates for all listeners; `None` makes STARTTLS unavailable.
    pub tls: Option<Tls>,
    /// How our users log in.
    pub auth: Auth,
    /// How names are looked up.
    pub dns: Dns,
    /// By name; `direct` is always there.
    pub transports: BTreeMap<TransportName, Arc<Transport>>,
    /// Domains whose mail ends here.
    pub domains: BTreeMap<Domain, LocalDomain>,
    /// Who logs in and owns mailboxes.
    pub accounts: BTreeMap<AccountName, Account>,
    /// Where reports to us go; mail for postmaster of any of our domains (RFC 5321 §4.5.1).
    pub postmaster: Option<AccountName>,
    /// Retry schedule and concurrency.
    pub queue: Queue,
    /// What one client may ask of us.
    pub limits: Limits,
    /// How an evaluation of a routing script is bounded.
    pub script_limits: ScriptLimits,
    /// Scripts that are asked beside those that decide, and decide nothing.
    pub shadow_dir: Option<PathBuf>,
    /// Whether changed routing scripts must pass the tests beside them before they run.
    pub require_tests: bool,
    /// Where Prometheus may read metrics.
    pub metrics: Metrics,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Mail from other servers (port 25).
    Smtp,
    /// Mail from our users, STARTTLS (port 587).
    Submission,
    /// Mail from our users, TLS at once (port 465).
    Submissions,
    /// IMAP, STARTTLS (port 143).
    Imap,
    /// IMAP, TLS at once (port 993).
    Imaps,
}

impl ListenerKind {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
        }
    }

    /// Whether TLS begins before the first byte of the protocol.
    pub const fn tls_at_once(self) -> bool {
        matches!(self, Self::Submissions | Self::Imaps)
    }
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What it speaks.
    pub kind: ListenerKind,
    /// Where.
    pub address: SocketAddr,
    /// Whether the server refuses to start without it. Where the configuration names no address, IPv6 is taken where
    /// the machine has it.
    pub required: bool,
    /// Name given in greeting and Received here, instead of [`Config::hostname`].
    pub hostname: Option<Domain>,
    /// Networks whose clients may send to any domain without authentication (smtp and submission).
    pub relay_from: Vec<IpNet>,
    /// Let passwords travel in clear text (a submission or imap listener behind something that encrypts).
    pub allow_plaintext_auth: bool,
}

/// How names are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Resolvers to ask; empty means those of the system (`/etc/resolv.conf`).
    pub resolvers: Vec<SocketAddr>,
    /// Answers given without asking anybody, by name.
    pub fixed: BTreeMap<Domain, FixedName>,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// What is known about a name without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FixedName {
    /// A and AAAA.
    pub addresses: Vec<IpAddr>,
    /// MX: preference, host.
    pub mx: Vec<(u16, Domain)>,
}

/// A domain whose mail ends here.
#[derive(Debug, Clone, Default)]
pub struct LocalDomain {
    /// By local part, lower-case.
    pub addresses: BTreeMap<String, AccountName>,
    /// Gets what no address takes.
    pub catch_all: Option<AccountName>,
    /// `user+tag@` is `user@` when this is `+`.
    pub separator: Option<char>,
    /// Fixed answers to RCPT, by local part, lower-case.
    pub replies: BTreeMap<String, FixedReply>,
}

/// An answer to RCPT that the operator wrote.
#[derive(Debug, Clone)]
pub struct FixedReply {
    /// 4xx or 5xx.
    pub reply: Reply,
    /// Time to wait before it.
    pub after: Duration,
}

/// Who logs in and owns mailboxes.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// What it receives, and may send as.
    pub addresses: BTreeSet<Mailbox>,
    /// The address that stands first in the file: the sender where none is named.
    pub first_address: Option<Mailbox>,
    /// Users of this machine, by name or number, who may submit as this account without a password.
    pub users: BTreeSet<String>,
}

/// A way out.
#[derive(Debug, Clone)]
pub struct Transport {
    /// What scripts return.
    pub name: TransportName,
    /// How it works.
    pub kind: TransportKind,
    /// What holds for every kind.
    pub common: TransportCommon,
}

/// The closed set of transports.
#[derive(Debug, Clone)]
pub enum TransportKind {
    /// To the recipient domain's MX hosts.
    Direct {
        /// 25, except in a test.
        port: u16,
    },
    /// To one host: a smarthost, or a service that sends for us.
    Smarthost(Smarthost),
    /// As `direct`, through a SOCKS5 proxy (RFC 1928).
    Socks {
        /// 25, except in a test.
        port: u16,
        /// Who connects for us.
        proxy: Proxy,
    },
    /// Nowhere: every message gets the operator's answer.
    Fail {
        /// 4xx or 5xx.
        reply: Reply,
        /// Whether a submission that the scripts would send here on its first attempt is refused at once.
        at_submission: bool,
    },
}

impl TransportKind {
    /// As in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Direct { .. } => "direct",
            Self::Smarthost(Smarthost { service: Service::Smtp, .. }) => "smtp",
            Self::Smarthost(Smarthost { service: Service::Submission, .. }) => "submission",
            Self::Smarthost(Smarthost { service: Service::Submissions, .. }) => "submissions",
            Self::Socks { .. } => "socks",
            Self::Fail { .. } => "fail",
        }
    }
}

/// One host that takes all mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smarthost {
    /// How it is spoken to.
    pub service: Service,
    /// Name or address.
    pub host: Host,
    /// That of the service by default.
    pub port: u16,
    /// Who we are to it; `None` where it does not ask.
    pub login: Option<Login>,
}

/// How a host that takes all mail is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// As servers speak to each other (port 25).
    Smtp,
    /// As users speak to their server: STARTTLS (port 587, RFC 6409).
    Submission,
    /// The same with TLS at once (port 465, RFC 8314).
    Submissions,
}

/// Who we are to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
    /// Which SASL mechanisms may be used.
    pub mechanisms: Allowed,
    /// Let the password travel without TLS.
    pub allow_plaintext: bool,
}

/// A password. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A SOCKS5 proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub host: Host,
    /// 1080 by default.
    pub port: u16,
    /// User name and password (RFC 1929), where it asks for them.
    pub login: Option<(String, Secret)>,
    /// Where its connections come from, for those who receive them. Families that it does not have are not used;
    /// empty where nothing is known.
    pub remote_ips: Vec<IpAddr>,
}

/// A host to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Looked up when needed (A and AAAA, no MX).
    Name(Domain),
    /// An address.
    Ip(IpAddr),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What holds for every kind of transport.
#[derive(Debug, Clone)]
pub struct TransportCommon {
    /// EHLO name instead of [`Config::hostname`].
    pub ehlo: Option<Domain>,
    /// How TLS is used.
    pub tls: TlsPolicy,
    /// Whether `required` TLS asks the peer to show who it is.
    pub verify: bool,
    /// Authorities that are trusted here instead of the system's.
    pub ca: Option<Arc<PrivateCa>>,
    /// Which address families are used, and in which order.
    pub ip: IpPolicy,
    /// The address of ours that connections over IPv4 come from; `None` leaves it to the system.
    pub source_ipv4: Option<Ipv4Addr>,
    /// The same over IPv6.
    pub source_ipv6: Option<Ipv6Addr>,
    /// Deliveries at the same time, all destinations together.
    pub concurrency: usize,
    /// Deliveries at the same time to one destination.
    pub concurrency_per_destination: usize,
    /// Messages over one connection before it is closed.
    pub messages_per_connection: usize,
    /// How many messages may begin in what time.
    pub rate: Rate,
    /// How long an unused connection is kept.
    pub keep_idle: Duration,
    /// TCP connect, each address.
    pub connect_timeout: Duration,
    /// RFC 5321 §4.5.3.2.1: the peer's first words.
    pub greeting_timeout: Duration,
    /// The TLS handshake.
    pub tls_timeout: Duration,
    /// RFC 5321 §4.5.3.2.2 to §4.5.3.2.4: EHLO, MAIL, RCPT, DATA and other commands.
    pub command_timeout: Duration,
    /// RFC 5321 §4.5.3.2.5: each block of the content.
    pub block_timeout: Duration,
    /// RFC 5321 §4.5.3.2.6: the reply to the content.
    pub data_timeout: Duration,
    /// Recipients in one transaction.
    pub recipients_max: usize,
}

/// How many messages a transport may begin to deliver in any second and in any minute; without a number, as many as there
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// In one second.
    pub per_second: Option<u32>,
    /// In one minute.
    pub per_minute: Option<u32>,
}

/// Which address families a transport uses, and in which order. IPv4 and IPv6 addresses of a host take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpPolicy {
    /// IPv4 first.
    Prefer4,
    /// IPv6 first.
    #[default]
    Prefer6,
    /// IPv4 alone.
    Only4,
    /// IPv6 alone.
    Only6,
}

/// Certificate authorities of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateCa {
    /// Where they stand, PEM.
    pub file: PathBuf,
    /// What was found there when the configuration was read. Where only its text was looked at this is empty, and
    /// nobody is trusted.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// How a transport uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS with a verified certificate, or no delivery.
    Required,
    /// TLS where offered, not verified; clear text when it fails.
    Opportunistic,
    /// Clear text.
    None,
}

/// Retry schedule and concurrency of the queue.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Waits between attempts.
    pub retry: RetrySchedule,
    /// Deliveries at the same time, all transports together.
    pub concurrency: usize,
    /// Message bodies kept in memory between acceptance and delivery; beyond it they are read back from disk.
    pub memory_bytes_max: usize,
    /// Wait after a script error or an unknown transport.
    pub script_error_retry: Duration,
    /// Recipients of one message.
    pub recipients_max: usize,
    /// How long finished attempts are kept in the history.
    pub history_kept: Duration,
    /// Names in lower case of the header fields that the history keeps, beside those that the scripts ask for.
    pub history_header: Vec<String>,
    /// Age at which a sender is told that a message waits; `None` for never.
    pub delay_report_after: Option<Duration>,
    /// Who gets a copy of every failure report, and word of failures that nobody else is told of.
    pub failure_copies_to: Option<Mailbox>,
    /// How long an account's mail to a recipient that does not exist is refused; `None` for not at all.
    pub suppress_bounced_for: Option<Duration>,
    /// Disk space that must stay free for mail to be taken (452 otherwise).
    pub free_bytes_min: u64,
}

/// Waits between attempts: the first, then each twice the one before, up to a cap, with jitter, until given up.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySchedule {
    /// After the first attempt.
    pub first: Duration,
    /// Each wait is the one before times this.
    pub factor: f64,
    /// No wait is longer.
    pub max: Duration,
    /// Part of the wait that chance may add or take, 0 to 1.
    pub jitter: f64,
    /// Age of a message at which it bounces.
    pub give_up_after: Duration,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(450),
            factor: 2.0,
            max: Duration::from_hours(8),
            jitter: 0.1,
            give_up_after: Duration::from_hours(96),
        }
    }
}

/// What one client may ask of us. `None` switches a limit off.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message taken (SIZE), bytes.
    pub message_bytes_max: u64,
    /// Largest header, bytes.
    pub header_bytes_max: Option<u64>,
    /// Recipients in one transaction (RFC 5321 §4.5.3.1.8: at least 100).
    pub recipients_max: Option<usize>,
    /// Connections at the same time, all listeners together.
    pub connections_max: Option<usize>,
    /// Connections at the same time from one address.
    pub connections_per_ip_max: Option<usize>,
    /// Commands in a row that bring a transaction no further.
    pub idle_commands_max: Option<usize>,
    /// Commands in a row that are wrong.
    pub bad_commands_max: Option<usize>,
    /// Wait for the next command.
    pub command_timeout: Duration,
    /// Longest session.
    pub session_timeout: Option<Duration>,
    /// Delay before the answer to a failed authentication.
    pub auth_failure_delay: Option<Duration>,
    /// Received fields over which a message is taken for a loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// IDLE and other quiet time in IMAP (RFC 9051 §5.4: at least 30 minutes).
    pub imap_idle_timeout: Duration,
}

/// Where metrics are given to whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Addresses that `GET /metrics` is answered on, to everybody who reaches them.
    pub listen: Vec<SocketAddr>,
}

/// How an evaluation of a routing script is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptLimits {
    /// Rhai operations.
    pub operations_max: u64,
    /// Nested function calls.
    pub call_depth_max: usize,
    /// Bytes in a string.
    pub string_bytes_max: usize,
    /// Elements in an array.
    pub array_elements_max: usize,
    /// Entries in an object map.
    pub map_entries_max: usize,
    /// Wall time of one script.
    pub time_max: Duration,
    /// Lines kept of `log(text)`.
    pub log_lines_max: usize,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            operations_max: 100_000,
            call_depth_max: 32,
            string_bytes_max: 64 * 1024,
            array_elements_max: 1_000,
            map_entries_max: 1_000,
            time_max: Duration::from_millis(50),
            log_lines_max: 50,
        }
    }
}

/// What our directory says about an address.
#[derive(Debug, Clone)]
pub enum Lookup<'a> {
    /// Not one of our domains.
    Foreign,
    /// Goes to this account's Inbox.
    Account(&'a AccountName),
    /// The operator wrote an answer for it.
    Reply(&'a FixedReply),
    /// Our domain, but nobody there.
    NoSuchMailbox,
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are relative to the directory it stands in; the
    /// files it names must be there.
    pub fn load(file: &Path) -> Result<Self, ConfigProblems> {
        let hint = "name the configuration with --config FILE, or try `waypost localserve`, which needs none";
        let (text, base) = read::file(file, hint)?;
        read::config(&text, file, &base, read::Look::Files)
    }

    /// Reads and checks a configuration that is at hand as text. `file` gives its name in problems, and its directory
    /// is what paths are relative to; no file is looked at.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigProblems> {
        read::config(text, file, file.parent().unwrap_or(Path::new("")), read::Look::Text)
    }

    /// Where the queue's log stands: the spool's folder in the data directory.
    pub fn spool_dir(&self) -> PathBuf {
        self.data_dir.join("queue")
    }

    /// Where the queue stands: the spool's folder in the data directory.
    pub fn queue_dir(&self) -> PathBuf {
        self.data_dir.join("queue")
    }

    /// Where accounts, mailboxes and history stand: the store's folder in the data directory.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Where mail for an address goes. The local part is compared without regard to case, with and then without
    /// what follows the domain's separator; then `postmaster` goes to [`Config::postmaster`], then the catch-all.
    pub fn lookup(&self, mailbox: &Mailbox) -> Lookup<'_> {
        let Some(domain) = self.domains.get(&mailbox.domain) else { return Lookup::Foreign };
        let whole = mailbox.local.as_str().to_lowercase();
        let base = domain
            .separator
            .and_then(|s| whole.split_once(s))
            .map(|(base, _)| base)
            .filter(|b| !b.is_empty());
        for local in [Some(whole.as_str()), base].into_iter().flatten() {
            if let Some(reply) = domain.replies.get(local) {
                return Lookup::Reply(reply);
            }
            if let Some(account) = domain.addresses.get(local) {
                return Lookup::Account(account);
            }
        }
        let postmaster = self.postmaster.as_ref().filter(|_| whole == "postmaster");
        postmaster.or(domain.catch_all.as_ref()).map_or(Lookup::NoSuchMailbox, Lookup::Account)
    }

    /// The account that a user name means: by its name, or by one of its addresses, which is what mail programs suggest.
    /// RFC 4616 §2: also in the form that SASLprep gives it, for clients that did not prepare it.
    pub fn account_of(&self, user: &str) -> Option<&AccountName> {
        let name = AccountName::new(&user.to_ascii_lowercase()).ok();
        let by_name = name.and_then(|name| self.accounts.get_key_value(&name)).map(|(name, _)| name);
        let by_address = |user: &str| match self.lookup(&Mailbox::parse(user).ok()?) {
            Lookup::Account(account) if self.accounts.contains_key(account) => Some(account),
            _ => None,
        };
        let prepared = || sasl::prepare(user).ok().and_then(|user| by_address(&user));
        by_name.or_else(|| by_address(user)).or_else(prepared)
    }

    /// Whether an account may use an address as its sender: one that it receives.
    pub fn may_send_as(&self, account: &AccountName, sender: &Mailbox) -> bool {
        matches!(self.lookup(sender), Lookup::Account(owner) if owner == account)
    }

    /// A transport by the name that a script returned.
    pub fn transport(&self, name: &str) -> Option<&Arc<Transport>> {
        TransportName::new(name).ok().and_then(|name| self.transports.get(&name))
    }
}
