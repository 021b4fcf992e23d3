//! What operators ask a running server, and what it answers.

use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::acme::AcmeStatus;
use crate::address::Mailbox;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId, TransportName};
use crate::queue::{
    Action, Done, ExplainedMessage, Filter, Held, ListedMessage, MessageQuestion, Page, Rerouted, Stats,
    SuppressionFilter, SuppressionPage, WaitingPage,
};
use crate::route::{
    FailedReload, Promote, PromotionReport, RouterStatus, ScriptStats, ShadowReport, Terms, Trace,
};
use crate::store::{FinishedRecipient, HoldRule, NewHoldRule};
use crate::tls::{CertificateFacts, CertificateStatus};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the server is.
    Status,
    /// What it counted, for Prometheus.
    Metrics,
    /// What each script did.
    RouteStats,
    /// Where the shadow would have gone elsewhere.
    RouteShadow {
        /// Count anew after this.
        #[serde(default)]
        reset: bool,
    },
    /// How the promotion stands.
    RoutePromotion,
    /// Let other scripts decide about a share of the mail.
    RoutePromote(Promote),
    /// Give all mail back to the scripts directory.
    RouteRollback,
    /// A page of the queue.
    QueueList {
        /// Which messages.
        #[serde(default)]
        filter: Filter,
        /// Those after this one.
        #[serde(default)]
        after: Option<QueueId>,
        /// How many messages at most.
        limit: usize,
    },
    /// All about one message, whether it waits or is done.
    QueueShow {
        /// Which.
        id: QueueId,
    },
    /// Change what waits.
    QueueControl {
        /// Which recipients.
        filter: Filter,
        /// What is done to them.
        action: Action,
        /// Only count them.
        #[serde(default)]
        dry_run: bool,
    },
    /// Hold from now on what matches.
    HoldRuleAdd {
        /// Which mail, who says so, why.
        #[serde(flatten)]
        rule: NewHoldRule,
        /// A rule that names nothing, and so holds everything, is meant.
        #[serde(default)]
        all: bool,
        /// Only count what would be held.
        #[serde(default)]
        dry_run: bool,
    },
    /// All hold rules.
    HoldRuleList,
    /// Removes a hold rule, and lets go what it held.
    HoldRuleRemove {
        /// Which.
        number: u32,
        /// Only count what would be let go.
        #[serde(default)]
        dry_run: bool,
    },
    /// A page of the suppression list.
    SuppressionList {
        /// Which entries.
        #[serde(default)]
        filter: SuppressionFilter,
        /// Those after this account and address.
        #[serde(default)]
        after: Option<(AccountName, String)>,
        /// How many at most.
        limit: usize,
    },
    /// Refuses an account's mail to recipients.
    SuppressionAdd {
        /// Whose mail.
        account: AccountName,
        /// To whom.
        addresses: Vec<Mailbox>,
        /// What the account is told.
        reason: String,
        /// Who says so.
        by: String,
        /// Until when; by default until it is removed.
        #[serde(default)]
        expires: Option<Timestamp>,
    },
    /// Takes recipients off the suppression list.
    SuppressionRemove {
        /// Which entries.
        filter: SuppressionFilter,
        /// Only count them.
        #[serde(default)]
        dry_run: bool,
    },
    /// A message as it will be sent.
    QueueDump {
        /// Which.
        id: QueueId,
    },
    /// Which way a message would go.
    RouteExplain(Question),
    /// Which way a message goes or went.
    RouteExplainMessage(MessageQuestion),
    /// What waits, as scripts may see it.
    RouteWaiting {
        /// Messages after this one.
        #[serde(default)]
        after: Option<QueueId>,
        /// How many messages at most.
        limit: usize,
        /// Names of header fields that are wanted.
        #[serde(default)]
        header: Vec<String>,
    },
    /// Which scripts run, and why the newest do not, if so.
    RouteStatus,
    /// All accounts.
    AccountList,
    /// Sets an account's password.
    AccountPassword {
        /// Whose.
        account: AccountName,
        /// The new one.
        password: Secret,
    },
    /// Load configuration and scripts again.
    Reload,
    /// Which certificates are shown, and how they are.
    TlsStatus,
    /// Get a new certificate from the CA, and wait for it.
    TlsRenew,
}

/// What comes back for each request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It was done.
    Ok(Answer),
    /// It was not.
    Error(Fault),
}

/// What a request brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Metrics`]: Prometheus' text format.
    Metrics(String),
    /// To [`Request::RouteStats`]: those that were asked.
    RouteStats(Vec<ScriptStats>),
    /// To [`Request::RouteShadow`]: nothing where no shadow runs.
    RouteShadow(Option<Box<ShadowReport>>),
    /// To [`Request::RoutePromotion`], [`Request::RoutePromote`] and [`Request::RouteRollback`].
    RoutePromotion(Box<PromotionReport>),
    /// To [`Request::QueueList`].
    Queue(Page),
    /// To [`Request::QueueShow`].
    Message {
        /// As far as it waits.
        waiting: Option<ListedMessage>,
        /// Recipients that are done.
        finished: Vec<FinishedRecipient>,
    },
    /// To [`Request::QueueControl`].
    Controlled(Done),
    /// To [`Request::HoldRuleAdd`] and [`Request::HoldRuleRemove`].
    HoldRule {
        /// The rule; `None` when one that might be added was only counted.
        rule: Option<HoldRule>,
        /// What waits and matches.
        held: Held,
    },
    /// To [`Request::HoldRuleList`].
    HoldRules(Vec<HoldRule>),
    /// To [`Request::SuppressionList`].
    Suppressions(SuppressionPage),
    /// To [`Request::SuppressionAdd`] and [`Request::SuppressionRemove`]: how many.
    SuppressionsChanged(usize),
    /// To [`Request::QueueDump`]: base64, for it may hold any octets.
    Content(String),
    /// To [`Request::RouteExplain`].
    Explained(Box<Explained>),
    /// To [`Request::RouteExplainMessage`].
    ExplainedMessage(Box<ExplainedMessage>),
    /// To [`Request::RouteWaiting`].
    Waiting(WaitingPage),
    /// To [`Request::RouteStatus`].
    RouteStatus(Box<RouteStatus>),
    /// To [`Request::AccountList`].
    Accounts(Vec<AccountInfo>),
    /// To [`Request::AccountPassword`].
    PasswordSet,
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::TlsStatus`].
    Tls(TlsStatus),
    /// To [`Request::TlsRenew`].
    Renewed(CertificateFacts),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Fault {
    /// Whose fault.
    pub kind: FaultKind,
    /// What to tell the operator.
    pub message: String,
}

/// Whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request makes no sense.
    BadRequest,
    /// What it is about does not exist.
    NotFound,
    /// What was to be loaded is wrong; nothing was changed.
    Refused,
    /// The server could not do it.
    Failed,
}

impl Fault {
    /// A fault in its words.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Its name.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub started: Timestamp,
    /// Where it listens.
    #[serde(default)]
    pub listeners: Vec<Listening>,
    /// Hash of the script set.
    pub scripts: String,
    /// Since when that set runs.
    #[serde(default)]
    pub scripts_since: Option<Timestamp>,
    /// Why the newest scripts on disk do not run, if so.
    #[serde(default)]
    pub failed_reload: Option<FailedReload>,
    /// The promotion that runs.
    #[serde(default)]
    pub promotion: Option<Terms>,
    /// Counts.
    pub queue: Stats,
}

/// A socket that takes connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// What it speaks.
    pub kind: String,
    /// Where.
    pub address: SocketAddr,
}

/// A message that may or may not exist: which way would it go?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// The reverse-path.
    pub from: ReversePath,
    /// The recipient.
    pub to: Mailbox,
    /// Who logged in to send it.
    #[serde(default)]
    pub account: Option<AccountName>,
    /// Number of the attempt, from 1; by default the one after those of `last`.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// How the attempts before it ended, oldest first: `451 4.7.1 greylisted`. The first stands for all that are
    /// missing before it.
    #[serde(default)]
    pub last: Vec<String>,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Header fields: `Subject: hello`.
    #[serde(default)]
    pub header: Vec<String>,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explained {
    /// The attempt that is explained.
    pub attempt: u32,
    /// The attempts before it, as they were assumed.
    pub previous: Vec<PastAttempt>,
    /// Age of the message at this attempt, seconds, by the retry schedule without its chance.
    pub age_seconds: u64,
    /// By then the message would have bounced.
    pub expired: bool,
    /// The recipient is ours: no script is asked.
    pub local: bool,
    /// The MX hosts that a script was told.
    pub mx: Option<Vec<String>>,
    /// What each level said; `None` when the recipient is ours.
    pub trace: Option<Trace>,
    /// The way; `None` when a script failed and the attempt would not be made.
    pub transport: Option<TransportName>,
}

/// Which scripts run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The running set, and what is wrong with the newest files.
    #[serde(flatten)]
    pub router: RouterStatus,
    /// What the last change meant for those who wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerouted: Option<Rerouted>,
}

/// An attempt that was assumed to have been made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PastAttempt {
    /// From 1.
    pub number: u32,
    /// The way that the scripts would have chosen for it; `None` when they failed.
    pub transport: Option<TransportName>,
    /// How it ended.
    pub outcome: String,
}

/// An account, as listings show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Its name.
    pub name: AccountName,
    /// What it receives.
    pub addresses: Vec<Mailbox>,
    /// Domains whose unknown addresses it receives.
    pub catch_all: Vec<String>,
    /// Whether it can log in.
    pub has_password: bool,
    /// The mechanisms that are offered and for which what they need is kept, strongest first.
    #[serde(default)]
    pub mechanisms: Vec<String>,
}

/// The certificates of a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TlsStatus {
    /// Those that are shown, in the order in which they are looked through; empty without TLS.
    pub certificates: Vec<CertificateStatus>,
    /// How things stand with the CA that one of them comes from.
    #[serde(default)]
    pub acme: Option<AcmeStatus>,
}

/// What a reload changed, a line each, for the operator.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// Lines.
    pub notes: Vec<String>,
}

/// A password: written on the socket, shown nowhere.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a password.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}
