//! Does what is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::oneshot;

use super::explain::explain;
use super::protocol::{AccountInfo, Answer, Fault, FaultKind, Request, RouteStatus, Secret, TlsStatus};
use super::status::{metrics, status};
use super::{ControlContext, ReloadRequest};
use crate::acme::Renewals;
use crate::config::{Config, nearest};
use crate::names::{AccountName, QueueId, TransportName};
use crate::queue::{Action, Filter, QueueError};
use crate::route::{PromoteError, PromotionReport, Router};
use crate::sasl::{KeyKind, Mechanism};
use crate::store::{NewHoldRule, Store, StoreError, Suppression};
use crate::tls::ServerTls;

/// Messages on one page of a listing.
const PAGE_MESSAGES_MAX: usize = 1_000;
/// Shortest and longest password taken, bytes.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 1..=1_000;

pub(super) async fn handle(context: &ControlContext, request: Request) -> Result<Answer, Fault> {
    match request {
        Request::Status => Ok(Answer::Status(Box::new(status(context)))),
        Request::Metrics => Ok(Answer::Metrics(metrics(context))),
        Request::TlsStatus => Ok(Answer::Tls(tls_status(context))),
        Request::TlsRenew => renew(context).await,
        Request::RouteStats => Ok(Answer::RouteStats(context.router.counts().stats())),
        Request::QueueList { filter, after, limit } => {
            let limit = limit.clamp(1, PAGE_MESSAGES_MAX);
            context.queue.list(&filter, after, limit).await.map(Answer::Queue).map_err(queue_fault)
        }
        Request::QueueShow { id } => show(context, id).await,
        Request::QueueControl { filter, action, dry_run } => {
            control(context, &filter, &action, dry_run).await
        }
        Request::HoldRuleAdd { rule, all, dry_run } => add_hold_rule(context, rule, all, dry_run).await,
        Request::HoldRuleList => Ok(Answer::HoldRules(context.queue.hold_rules())),
        Request::HoldRuleRemove { number, dry_run } => remove_hold_rule(context, number, dry_run).await,
        Request::SuppressionList { filter, after, limit } => {
            let now = crate::clock::now();
            Ok(Answer::Suppressions(context.queue.suppressions(&filter, after.as_ref(), limit, now)))
        }
        Request::SuppressionAdd { account, addresses, reason, by, expires } => {
            check_account(&context.config.load(), &account)?;
            let since = crate::clock::now();
            if expires.is_some_and(|expires| expires <= since) {
                return Err(Fault::new(FaultKind::BadRequest, "it would have expired already"));
            }
            let entry = |address| Suppression {
                account: account.clone(),
                address,
                reason: reason.clone(),
                by: Some(by.clone()),
                since,
                expires,
            };
            let kept = context.queue.suppress(addresses.into_iter().map(entry).collect()).await;
            let kept = kept.map_err(queue_fault)?;
            tracing::info!(%account, recipients = kept, by, "suppression list: added by the operator");
            Ok(Answer::SuppressionsChanged(kept))
        }
        Request::SuppressionRemove { filter, dry_run } => {
            let removed = context.queue.unsuppress(&filter, dry_run).await.map_err(queue_fault)?;
            if !dry_run {
                tracing::info!(?filter, recipients = removed, "suppression list: removed by the operator");
            }
            Ok(Answer::SuppressionsChanged(removed))
        }
        Request::QueueDump { id } => {
            let content = context.queue.dump(id).await.map_err(queue_fault)?;
            let gone = || Fault::new(FaultKind::NotFound, format!("there is no message {id} in the queue"));
            Ok(Answer::Content(STANDARD.encode(content.ok_or_else(gone)?)))
        }
        Request::RouteExplain(question) => {
            let config = context.config.load_full();
            // A made-up message has no queue id: the set that decides about new mail, or about most of it, answers.
            let Some(chosen) = context.router.deciding().into_iter().next() else {
                return Err(Fault::new(FaultKind::Failed, "no scripts run"));
            };
            let now = crate::clock::now();
            let explained = explain(&config, &chosen.set, &context.resolver, &question, now).await?;
            Ok(Answer::Explained(Box::new(explained)))
        }
        Request::RouteShadow { reset } => Ok(Answer::RouteShadow(context.router.shadow(reset).map(Box::new))),
        Request::RoutePromotion => Ok(Answer::RoutePromotion(Box::new(context.router.promotion()))),
        Request::RoutePromote(promote) => promotion(context, move |router| router.promote(&promote)).await,
        Request::RouteRollback => promotion(context, Router::roll_back).await,
        Request::RouteExplainMessage(question) => {
            let explained = context.queue.explain(&question).await.map_err(queue_fault)?;
            let gone = || {
                let id = question.id;
                let message = format!("there is no message {id}, neither in the queue nor in the history");
                Fault::new(FaultKind::NotFound, message)
            };
            Ok(Answer::ExplainedMessage(Box::new(explained.ok_or_else(gone)?)))
        }
        Request::RouteWaiting { after, limit, header } => {
            let limit = limit.clamp(1, PAGE_MESSAGES_MAX);
            context.queue.waiting(after, limit, &header).await.map(Answer::Waiting).map_err(queue_fault)
        }
        Request::RouteStatus => {
            let status = RouteStatus { router: context.router.status(), rerouted: context.queue.rerouted() };
            Ok(Answer::RouteStatus(Box::new(status)))
        }
        Request::AccountList => {
            accounts(&context.config.load_full(), &context.store).await.map(Answer::Accounts)
        }
        Request::AccountPassword { account, password } => {
            set_password(&context.config.load_full(), &context.store, &account, &password).await?;
            tracing::info!(%account, "password set");
            Ok(Answer::PasswordSet)
        }
        Request::Reload => reload(context).await,
    }
}

fn tls_status(context: &ControlContext) -> TlsStatus {
    TlsStatus {
        certificates: context.tls.as_ref().map(ServerTls::status).unwrap_or_default(),
        acme: context.renewals.as_ref().and_then(Renewals::status),
    }
}

async fn renew(context: &ControlContext) -> Result<Answer, Fault> {
    let Some(renewals) = &context.renewals else {
        let message = "no certificate comes from a CA here: the server was started without [tls.acme]";
        return Err(Fault::new(FaultKind::NotFound, message));
    };
    let renewed = renewals.renew().await.map(Answer::Renewed);
    renewed.map_err(|error| Fault::new(FaultKind::Failed, format!("no new certificate: {error}")))
}

async fn show(context: &ControlContext, id: QueueId) -> Result<Answer, Fault> {
    let waiting = context.queue.show(id).await.map_err(queue_fault)?;
    let finished = context.queue.finished(id).await.map_err(queue_fault)?;
    if waiting.is_none() && finished.is_empty() {
        let message = format!("there is no message {id}, neither in the queue nor in the history");
        return Err(Fault::new(FaultKind::NotFound, message));
    }
    Ok(Answer::Message { waiting, finished })
}

async fn control(
    context: &ControlContext,
    filter: &Filter,
    action: &Action,
    dry_run: bool,
) -> Result<Answer, Fault> {
    if let Action::Kick { transport: Some(name) } | Action::Transport { name: Some(name) } = action {
        check_transport(&context.config.load(), name)?;
    }
    let done = context.queue.control(filter, action, dry_run).await.map_err(queue_fault)?;
    if !dry_run {
        tracing::info!(
            ?action,
            recipients = done.recipients,
            busy = done.busy,
            "queue changed by the operator"
        );
    }
    Ok(Answer::Controlled(done))
}

async fn add_hold_rule(
    context: &ControlContext,
    rule: NewHoldRule,
    all: bool,
    dry_run: bool,
) -> Result<Answer, Fault> {
    if rule.fields.name_nothing() != all {
        let message = "a hold rule names an account, a sender domain or a recipient domain; one that holds everything \
                       names nothing, and has to be asked for with --all";
        return Err(Fault::new(FaultKind::BadRequest, message));
    }
    if let Some(account) = &rule.fields.account {
        check_account(&context.config.load(), account)?;
    }
    if dry_run {
        let held = context.queue.would_hold(&rule.fields).await.map_err(queue_fault)?;
        return Ok(Answer::HoldRule { rule: None, held });
    }
    let (rule, held) = context.queue.add_hold_rule(rule).await.map_err(queue_fault)?;
    tracing::info!(rule = rule.number, fields = ?rule.rule.fields, by = rule.rule.by, recipients = held.recipients, "hold rule added");
    Ok(Answer::HoldRule { rule: Some(rule), held })
}

async fn remove_hold_rule(context: &ControlContext, number: u32, dry_run: bool) -> Result<Answer, Fault> {
    let removed = context.queue.remove_hold_rule(number, dry_run).await.map_err(queue_fault)?;
    let Some((rule, held)) = removed else {
        return Err(Fault::new(FaultKind::NotFound, format!("there is no hold rule {number}")));
    };
    if !dry_run {
        tracing::info!(rule = number, recipients = held.recipients, "hold rule removed");
    }
    Ok(Answer::HoldRule { rule: Some(rule), held })
}

/// Changes the promotion: compiling, testing and writing take their time.
async fn promotion(
    context: &ControlContext,
    change: impl FnOnce(&Router) -> Result<PromotionReport, PromoteError> + Send + 'static,
) -> Result<Answer, Fault> {
    let router = context.router.clone();
    let changed = tokio::task::spawn_blocking(move || change(&router)).await;
    let changed = changed.map_err(|panicked| Fault::new(FaultKind::Failed, panicked.to_string()))?;
    changed.map(|report| Answer::RoutePromotion(Box::new(report))).map_err(|error| {
        let kind = match &error {
            PromoteError::Percent(_) => FaultKind::BadRequest,
            PromoteError::NoDirectory | PromoteError::NothingRuns => FaultKind::NotFound,
            PromoteError::Io(_) | PromoteError::NotKept => FaultKind::Failed,
            _ => FaultKind::Refused,
        };
        Fault::new(kind, error.to_string())
    })
}

/// A transport that the configuration has.
fn check_transport(config: &Config, name: &TransportName) -> Result<(), Fault> {
    if config.transports.contains_key(name) {
        return Ok(());
    }
    let near = nearest(name.as_str(), config.transports.keys().map(TransportName::as_str));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Err(Fault::new(FaultKind::NotFound, format!("there is no transport {name}{hint}")))
}

async fn reload(context: &ControlContext) -> Result<Answer, Fault> {
    let gone = || Fault::new(FaultKind::Failed, "the server is stopping");
    let (answer, reloaded) = oneshot::channel();
    context.reload.send(ReloadRequest { answer }).await.map_err(|_| gone())?;
    let reloaded = reloaded.await.map_err(|_| gone())?;
    reloaded.map(Answer::Reloaded).map_err(|problems| Fault::new(FaultKind::Refused, problems))
}

/// All accounts of the configuration. Commands without a server use it as well.
pub async fn accounts(config: &Config, store: &Store) -> Result<Vec<AccountInfo>, Fault> {
    let mut all = Vec::with_capacity(config.accounts.len());
    for (name, account) in &config.accounts {
        let caught = config.domains.iter().filter(|(_, domain)| domain.catch_all.as_ref() == Some(name));
        let has_password = store.has_password(name).await.map_err(store_fault)?;
        let kinds = store.key_kinds(name).await.map_err(store_fault)?;
        let works = |mechanism: &&Mechanism| match KeyKind::of(**mechanism) {
            Some(kind) => kinds.contains(&kind),
            None => has_password,
        };
        all.push(AccountInfo {
            name: name.clone(),
            addresses: account.addresses.iter().cloned().collect(),
            catch_all: caught.map(|(domain, _)| domain.to_string()).collect(),
            has_password,
            mechanisms: config.auth.mechanisms().filter(works).map(ToString::to_string).collect(),
        });
    }
    Ok(all)
}

/// Sets the password of an account of the configuration. Commands without a server use it as well.
pub async fn set_password(
    config: &Config,
    store: &Store,
    account: &AccountName,
    password: &Secret,
) -> Result<(), Fault> {
    check_account(config, account)?;
    if !PASSWORD_BYTES.contains(&password.reveal().len()) {
        let message = format!("a password has {} to {} bytes", PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
        return Err(Fault::new(FaultKind::BadRequest, message));
    }
    store.set_password(account, password.reveal()).await.map_err(store_fault)
}

/// An account that the configuration has.
pub(super) fn check_account(config: &Config, account: &AccountName) -> Result<(), Fault> {
    if config.accounts.contains_key(account) {
        return Ok(());
    }
    let near = nearest(account.as_str(), config.accounts.keys().map(AccountName::as_str));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Err(Fault::new(FaultKind::NotFound, format!("there is no account {account}{hint}")))
}

fn queue_fault(error: QueueError) -> Fault {
    let kind = match error {
        QueueError::Store(StoreError::Invalid(_)) => FaultKind::BadRequest,
        _ => FaultKind::Failed,
    };
    Fault::new(kind, error.to_string())
}

fn store_fault(error: StoreError) -> Fault {
    Fault::new(FaultKind::Failed, error.to_string())
}
