//! Keeps the certificate fresh: asks for it in good time, tries again when that fails, and tells how things stand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::challenges::Challenges;
use super::https::Https;
use super::order::Ca;
use super::storage::{Failure, Record, Storage, StorageError};
use super::when;
use crate::config::{Acme, AcmeChallenge, Config};
use crate::dns::Resolver;
use crate::tls::{Certificate, CertificateFacts, ClientTls, ServerTls};

/// The longest attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(10);
/// The wall clock may be set: when an attempt is due is asked again so often.
const LOOK_EVERY: Duration = Duration::from_mins(10);

/// What renewals work with.
pub struct Parts {
    /// The settings of the moment.
    pub config: Arc<ArcSwap<Config>>,
    /// How the CA is found.
    pub resolver: Resolver,
    /// Who shows the certificate.
    pub tls: ServerTls,
    /// What is kept between starts.
    pub storage: Storage,
    /// What the CA is shown.
    pub challenges: Challenges,
    /// How it is shown: what the listeners serve, whatever a newer configuration says.
    pub challenge: AcmeChallenge,
}

/// How things stand with the CA, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeStatus {
    /// The CA's directory.
    pub directory: String,
    /// `tls-alpn-01` or `http-01`.
    pub challenge: String,
    /// The names that are asked for.
    pub names: Vec<String>,
    /// Where chain and key stand.
    pub file: PathBuf,
    /// Whether an attempt is under way.
    pub running: bool,
    /// When the certificate that is shown was issued; `None` where there is none yet.
    pub issued_at: Option<Timestamp>,
    /// When the next attempt is due.
    pub next: Option<Timestamp>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
    /// When the last of them ended.
    pub failed_at: Option<Timestamp>,
    /// Why.
    pub error: Option<String>,
}

type Answer = oneshot::Sender<Result<CertificateFacts, String>>;

/// The renewals that run. Cheap to clone.
#[derive(Clone)]
pub struct Renewals {
    status: Arc<Mutex<Option<AcmeStatus>>>,
    asked: mpsc::Sender<Answer>,
    changed: Arc<Notify>,
}

impl Renewals {
    /// How things stand.
    pub fn status(&self) -> Option<AcmeStatus> {
        self.status.lock().clone()
    }

    /// Asks for a new certificate now, and waits for it; the error is for the operator.
    pub async fn renew(&self) -> Result<CertificateFacts, String> {
        let stopping = || "the server is stopping".to_owned();
        let (answer, answered) = oneshot::channel();
        self.asked.send(answer).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Another configuration is there: what is due may be so at once.
    pub fn settings_changed(&self) {
        self.changed.notify_one();
    }
}

/// Prepares renewals; the future does the work until told to stop.
pub fn start(
    parts: Parts,
    stopping: CancellationToken,
) -> Result<(Renewals, impl Future<Output = ()> + Send), StorageError> {
    let record = parts.storage.record()?;
    let (asked, requests) = mpsc::channel(1);
    let renewals = Renewals { status: Arc::default(), asked, changed: Arc::default() };
    let worker = Worker { parts, record, requests, renewals: renewals.clone() };
    Ok((renewals, worker.run(stopping)))
}

struct Worker {
    parts: Parts,
    record: Record,
    requests: mpsc::Receiver<Answer>,
    renewals: Renewals,
}

impl Worker {
    async fn run(mut self, stopping: CancellationToken) {
        let changed = self.renewals.changed.clone();
        loop {
            let now = crate::clock::now();
            let settings = self.settings();
            let due = settings
                .as_ref()
                .map(|settings| when::due(self.parts.tls.issued().as_ref(), settings, &self.record, now));
            self.publish(settings.as_ref(), due, false);
            let wait = due.map_or(LOOK_EVERY, |due| until(due, now).min(LOOK_EVERY));
            let answer = tokio::select! {
                () = stopping.cancelled() => return,
                request = self.requests.recv() => match request {
                    Some(answer) => Some(answer),
                    None => return,
                },
                () = changed.notified() => continue,
                () = tokio::time::sleep(wait) => None,
            };
            let is_due = due.is_some_and(|due| due <= crate::clock::now());
            let Some(settings) = settings.filter(|_| is_due || answer.is_some()) else { continue };
            self.publish(Some(&settings), due, true);
            let result = tokio::select! {
                () = stopping.cancelled() => return,
                result = self.attempt(&settings) => result,
            };
            let result = self.settle(&settings, result);
            // Whoever asked while it ran gets what it brought, and no attempt of his own.
            let waiting = std::iter::from_fn(|| self.requests.try_recv().ok());
            for answer in answer.into_iter().chain(waiting) {
                // He may have gone in the meantime; log and status have it too.
                let _ = answer.send(result.clone());
            }
        }
    }

    fn settings(&self) -> Option<Acme> {
        let config = self.parts.config.load();
        let acme = config.tls.as_ref().and_then(|tls| tls.acme.clone());
        acme.map(|acme| Acme { challenge: self.parts.challenge, ..acme })
    }

    /// The certificate with its PEM, or what went wrong.
    async fn attempt(&self, settings: &Acme) -> Result<(Certificate, String), String> {
        let names = settings.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        tracing::info!(ca = settings.directory, names, "asking for a certificate");
        let tls = match &settings.ca {
            Some(ca) => ClientTls::with_roots(ca.certificates.clone()),
            None => ClientTls::new(),
        };
        let ca = Ca {
            settings,
            storage: &self.parts.storage,
            challenges: &self.parts.challenges,
            https: Https { tls, resolver: self.parts.resolver.clone() },
        };
        let pem = tokio::time::timeout(ATTEMPT_TIMEOUT, ca.issue())
            .await
            .map_err(|_| "the CA took too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let certificate = Certificate::from_pem(&pem).map_err(|e| format!("the CA's certificate: {e}"))?;
        Ok((certificate, pem))
    }

    /// Keeps what an attempt brought, and shows it.
    fn settle(
        &mut self,
        settings: &Acme,
        result: Result<(Certificate, String), String>,
    ) -> Result<CertificateFacts, String> {
        let now = crate::clock::now();
        let kept = result.and_then(|(certificate, pem)| {
            self.parts.storage.put_certificate(&pem).map_err(|error| error.to_string())?;
            Ok(certificate)
        });
        let settled = match kept {
            Ok(certificate) => {
                let facts = certificate.facts().clone();
                self.parts.tls.set_issued(certificate);
                let issued_by = Some(settings.directory.clone());
                self.record = Record { issued_by, issued_at: Some(now), failure: None };
                tracing::info!(names = facts.names.join(", "), not_after = %facts.not_after, "new certificate");
                Ok(facts)
            }
            Err(error) => {
                self.failed(settings, &error, now);
                Err(error)
            }
        };
        if let Err(error) = self.parts.storage.put_record(&self.record) {
            tracing::error!(%error, "how the renewal stands cannot be kept");
        }
        settled
    }

    fn failed(&mut self, settings: &Acme, error: &str, now: Timestamp) {
        let fingerprint = when::fingerprint(settings);
        let before = self.record.failure.take().filter(|failure| failure.settings == fingerprint);
        let count = before.map_or(0, |failure| failure.count).saturating_add(1);
        let wait = when::wait(count, rand::random());
        let next = now + jiff::SignedDuration::try_from(wait).unwrap_or_default();
        tracing::error!(error, failures = count, next_attempt = %next, "no new certificate");
        let error = error.to_owned();
        self.record.failure = Some(Failure { count, at: now, next, error, settings: fingerprint });
    }

    fn publish(&self, settings: Option<&Acme>, next: Option<Timestamp>, running: bool) {
        let failure = self.record.failure.as_ref();
        let status = settings.map(|settings| AcmeStatus {
            directory: settings.directory.clone(),
            challenge: settings.challenge.as_str().to_owned(),
            names: settings.names.iter().map(ToString::to_string).collect(),
            file: self.parts.storage.certificate_file(),
            running,
            issued_at: self.record.issued_at.filter(|_| self.parts.tls.issued().is_some()),
            next,
            failures: failure.map_or(0, |failure| failure.count),
            failed_at: failure.map(|failure| failure.at),
            error: failure.map(|failure| failure.error.clone()),
        });
        *self.renewals.status.lock() = status;
    }
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}
