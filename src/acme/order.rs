//! One certificate from the CA: account, order, challenges, request, chain (RFC 8555 §7).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::challenges::{Challenges, Shown};
use super::https::Https;
use super::storage::{Storage, StorageError, StoredAccount};
use crate::address::Domain;
use crate::config::{Acme, AcmeChallenge, AcmeKeyType};

/// How long the CA may take to look at the challenges, and to issue.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(3));
/// RFC 8555 §6.7.
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    /// The CA is not there, or refuses.
    #[error("{during}: {}", said(.error))]
    Ca { during: &'static str, error: instant_acme::Error },
    /// The CA is not convinced that a name is ours.
    #[error("the CA could not validate {0}")]
    Validation(String),
    /// The CA does not validate in the way that the configuration asks for.
    #[error("the CA does not offer {challenge} for {name}, only {offered}")]
    NoChallenge { name: String, challenge: &'static str, offered: String },
    /// Key or request cannot be made.
    #[error("cannot make the request: {0}")]
    Request(String),
    /// The account cannot be kept.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What the CA says, or why it says nothing.
fn said(error: &instant_acme::Error) -> String {
    let instant_acme::Error::Api(problem) = error else { return error.to_string() };
    problem_text(problem)
}

fn problem_text(problem: &instant_acme::Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "it refuses without a reason".to_owned());
    for part in &problem.subproblems {
        text = format!("{text}; {part}");
    }
    match &problem.r#type {
        Some(kind) => format!("{text} ({})", kind.rsplit(':').next().unwrap_or(kind)),
        None => text,
    }
}

fn during(during: &'static str) -> impl Fn(instant_acme::Error) -> IssueError {
    move |error| IssueError::Ca { during, error }
}

/// The CA, for one attempt.
pub(super) struct Ca<'a> {
    pub(super) settings: &'a Acme,
    pub(super) storage: &'a Storage,
    pub(super) challenges: &'a Challenges,
    pub(super) https: Https,
}

impl Ca<'_> {
    /// Asks for a certificate; returns key and chain, PEM.
    pub(super) async fn issue(&self) -> Result<String, IssueError> {
        let key = self.key()?;
        let request = self.request(&key)?;
        let mut order = self.order().await?;
        // Shown until the CA has looked.
        let shown = self.show(&mut order).await?;
        let ready = order.poll_ready(&POLLING).await;
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            return Err(refused(&mut order, ready).await);
        }
        drop(shown);
        order.finalize_csr(&request).await.map_err(during("asking for the certificate"))?;
        let chain = order.poll_certificate(&POLLING).await.map_err(during("waiting for the certificate"))?;
        Ok(format!("{}{chain}", key.serialize_pem()))
    }

    /// The key of the last certificate, where it is kept; else a new one.
    fn key(&self) -> Result<rcgen::KeyPair, IssueError> {
        let wrong = |error: rcgen::Error| IssueError::Request(error.to_string());
        let kind = match self.settings.key_type {
            AcmeKeyType::Ecdsa => &rcgen::PKCS_ECDSA_P256_SHA256,
            AcmeKeyType::Rsa => &rcgen::PKCS_RSA_SHA256,
        };
        let stored = if self.settings.keep_key { self.storage.certificate()? } else { None };
        if let Some(pem) = stored {
            let der = PrivateKeyDer::from_pem_slice(pem.as_bytes());
            let key = der.ok().and_then(|der| rcgen::KeyPair::try_from(&der).ok());
            match key {
                Some(key) if key.algorithm() == kind => return Ok(key),
                _ => tracing::warn!("the key of the last certificate cannot be kept: there is a new one"),
            }
        }
        rcgen::KeyPair::generate_for(kind).map_err(wrong)
    }

    /// RFC 8555 §7.4: the names stand in subjectAltName.
    fn request(&self, key: &rcgen::KeyPair) -> Result<Vec<u8>, IssueError> {
        let wrong = |error: rcgen::Error| IssueError::Request(error.to_string());
        let names: Vec<String> = self.settings.names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).map_err(wrong)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(key).map_err(wrong)?.der().to_vec())
    }

    async fn order(&self) -> Result<Order, IssueError> {
        let names = self.settings.names.iter().map(|name| Identifier::Dns(name.to_string()));
        let names: Vec<Identifier> = names.collect();
        let order = NewOrder::new(&names);
        let ordering = during("ordering");
        let Some(account) = self.known_account().await? else {
            return self.register().await?.new_order(&order).await.map_err(ordering);
        };
        match account.new_order(&order).await {
            // A private CA that begins anew has forgotten us.
            Err(instant_acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT) => {
                tracing::warn!(
                    ca = self.settings.directory,
                    "the CA does not know our account: making a new one"
                );
                self.register().await?.new_order(&order).await.map_err(ordering)
            }
            ordered => ordered.map_err(ordering),
        }
    }

    async fn known_account(&self) -> Result<Option<Account>, IssueError> {
        let Some(stored) = self.storage.account(self.settings)? else { return Ok(None) };
        let opened =
            Account::builder_with_http(Box::new(self.https.clone())).from_credentials(stored.credentials);
        let account = opened.await.map_err(during("opening the account"))?;
        if stored.contact != self.settings.contact {
            let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await.map_err(during("changing the contact"))?;
            // The credentials went into the account; they stand in the file as before.
            if let Some(stored) = self.storage.account(self.settings)? {
                self.keep(stored.credentials)?;
            }
        }
        Ok(Some(account))
    }

    /// RFC 8555 §7.3. Whoever configures a CA agrees to its terms; docs/tls.md says so.
    async fn register(&self) -> Result<Account, IssueError> {
        let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = self.settings.external_account.as_ref();
        let external = external.map(|given| ExternalAccountKey::new(given.key_id.clone(), &given.hmac_key));
        let builder = Account::builder_with_http(Box::new(self.https.clone()));
        let made = builder.create(&wanted, self.settings.directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(during("making an account"))?;
        self.keep(credentials)?;
        tracing::info!(ca = self.settings.directory, "account with the CA made");
        Ok(account)
    }

    fn keep(&self, credentials: instant_acme::AccountCredentials) -> Result<(), StorageError> {
        let contact = self.settings.contact.clone();
        self.storage.put_account(self.settings, &StoredAccount { contact, credentials })
    }

    /// Shows what the CA wants to see, and asks it to look.
    async fn show(&self, order: &mut Order) -> Result<Vec<Shown>, IssueError> {
        let mut all = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(during("reading what the CA wants to see"))?;
            // The CA may remember that the name is ours.
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let offered =
                authorization.challenges.iter().map(|one| type_name(&one.r#type)).collect::<Vec<_>>();
            let wanted = match self.settings.challenge {
                AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
                AcmeChallenge::Http01 => ChallengeType::Http01,
            };
            let Some(mut challenge) = authorization.challenge(wanted) else {
                let (challenge, offered) = (self.settings.challenge.as_str(), offered.join(", "));
                return Err(IssueError::NoChallenge { name, challenge, offered });
            };
            let proof = challenge.key_authorization();
            all.push(match self.settings.challenge {
                AcmeChallenge::Http01 => self.challenges.show_file(&challenge.token, proof.as_str()),
                AcmeChallenge::TlsAlpn01 => {
                    let name =
                        Domain::parse(&name).map_err(|error| IssueError::Request(error.to_string()))?;
                    let shown = self.challenges.show_certificate(&name, proof.digest().as_ref());
                    shown.map_err(IssueError::Request)?
                }
            });
            challenge.set_ready().await.map_err(during("asking the CA to look"))?;
        }
        Ok(all)
    }
}

fn type_name(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        ChallengeType::Unknown(name) => name.clone(),
        other => format!("{other:?}"),
    }
}

/// RFC 8555 §7.1.6: what the CA saw stands with each name's challenges, not with the order.
async fn refused(order: &mut Order, ready: Result<OrderStatus, instant_acme::Error>) -> IssueError {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let Ok(mut authorization) = next else { continue };
        if authorization.refresh().await.is_err() || authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|problem| format!("{name}: {}", problem_text(problem))));
    }
    match ready {
        _ if !found.is_empty() => IssueError::Validation(found.join("; ")),
        Err(error) => IssueError::Ca { during: "waiting for the CA to look", error },
        Ok(status) => IssueError::Validation(format!("the names: the order is {status:?}").to_lowercase()),
    }
}
