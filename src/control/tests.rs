//! Explaining, and the socket from end to end on a queue of its own.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::address::Mailbox;
use crate::attempt::Level;
use crate::envelope::ReversePath;
use crate::names::AccountName;
use crate::queue::{Filter, Parts};
use crate::spool::{Spool, SpoolOptions};
use crate::store::HoldFields;
use crate::transport::Engine;

const CONFIG: &str = r#"
hostname = "mail.example.org"
data_dir = "data"
[dns]
resolvers = ["127.0.0.1:9"]
timeout = "1s"
[dns.fixed."example.net"]
mx = ["10 mx.example.net"]
[transports.backup]
kind = "smtp"
host = "127.0.0.1"
[domains."example.org"]
catch_all = "bob"
[accounts.ann]
addresses = ["ann@example.org"]
[accounts.bob]
"#;

const GLOBAL: &str = r#"
fn route(delivery) {
    if delivery.last != () && delivery.last.code == 451 { return "backup"; }
    if delivery.recipient_local == "broken" { return delivery.nonsense; }
    if delivery.header("Subject") == "slow" { return "backup"; }
}
"#;

/// A server without listeners: queue, scripts, store, control socket.
struct World {
    /// Removed when the world ends.
    _dir: tempfile::TempDir,
    config: Arc<ArcSwap<Config>>,
    queue: Queue,
    reloads: mpsc::Receiver<ReloadRequest>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("scripts")).unwrap();
        std::fs::write(dir.path().join("scripts/global.rhai"), GLOBAL).unwrap();
        let config = Config::parse(CONFIG, &dir.path().join("waypost.toml")).unwrap();
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let (spool, waiting) = Spool::open(&config.spool_dir(), SpoolOptions::default()).unwrap();
        let store = Store::open(&config.store_dir()).unwrap();
        let router = Arc::new(Router::new(&config.scripts_dir, config.script_limits.clone()).unwrap());
        let resolver = Resolver::new(&config.dns);
        let engine = Engine::new(resolver.clone(), config.hostname.clone());
        let config = Arc::new(ArcSwap::from_pointee(config));
        let parts = Parts {
            config: config.clone(),
            spool,
            store: store.clone(),
            router: router.clone(),
            engine,
            resolver: resolver.clone(),
        };
        let queue = Queue::start(parts, waiting).await.unwrap();
        let (reload, reloads) = mpsc::channel(1);
        let started = Timestamp::UNIX_EPOCH;
        let context = ControlContext {
            queue: queue.clone(),
            router,
            store,
            resolver,
            config: config.clone(),
            reload,
            started,
            listeners: Arc::new([]),
            tls: None,
            renewals: None,
        };
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        serve(context, stopping.clone(), &tasks).unwrap();
        Self { _dir: dir, config, queue, reloads, stopping, tasks }
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.config.load().data_dir.clone()
    }

    /// Asks from a thread of its own, as another process would.
    async fn ask(&self, request: Request) -> Result<Answer, ClientError> {
        ask(self.data_dir(), request).await
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.queue.stop(Duration::from_secs(5)).await;
    }
}

async fn ask(data_dir: std::path::PathBuf, request: Request) -> Result<Answer, ClientError> {
    tokio::task::spawn_blocking(move || Client::connect(&data_dir)?.call(&request)).await.unwrap()
}

fn question(to: &str) -> Question {
    let from = ReversePath::try_from("ann@example.org".to_owned()).unwrap();
    let to = Mailbox::parse(to).unwrap();
    Question { from, to, account: None, attempt: None, last: vec![], size: None, header: vec![] }
}

fn name(text: &str) -> AccountName {
    AccountName::new(text).unwrap()
}

fn fault(result: Result<Answer, ClientError>) -> (FaultKind, String) {
    match result {
        Err(ClientError::Fault(fault)) => (fault.kind, fault.message),
        other => panic!("a fault was expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_server_answers() {
    let world = World::start().await;
    let Ok(Answer::Status(status)) = world.ask(Request::Status).await else { panic!("no status") };
    assert_eq!((status.hostname.as_str(), status.pid), ("mail.example.org", std::process::id()));

    let list = Request::QueueList { filter: Filter::default(), after: None, limit: 10 };
    assert!(matches!(world.ask(list).await, Ok(Answer::Queue(page)) if page.messages.is_empty()));
    let (kind, message) = fault(world.ask(Request::QueueShow { id: crate::names::QueueId(5) }).await);
    assert_eq!(kind, FaultKind::NotFound);
    assert!(message.contains("000005"), "{message}");

    let password = Secret::new("sesame".to_owned());
    let set = |account| Request::AccountPassword { account: name(account), password: password.clone() };
    assert!(matches!(world.ask(set("ann")).await, Ok(Answer::PasswordSet)));
    let (kind, message) = fault(world.ask(set("anm")).await);
    assert_eq!((kind, message.as_str()), (FaultKind::NotFound, "there is no account anm; did you mean ann?"));
    let Ok(Answer::Accounts(accounts)) = world.ask(Request::AccountList).await else { panic!("no accounts") };
    let seen: Vec<_> =
        accounts.iter().map(|a| (a.name.as_str(), a.has_password, a.catch_all.len())).collect();
    assert_eq!(seen, [("ann", true, 0), ("bob", false, 1)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_that_are_documented() {
    let world = World::start().await;
    let Ok(Answer::Metrics(text)) = world.ask(Request::Metrics).await else { panic!("no metrics") };
    let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let told: std::collections::BTreeSet<&str> = told.collect();
    let rows = include_str!("../../docs/metrics.md").lines().filter(|line| line.contains("`waypost_"));
    let documented = rows.flat_map(|line| line.split('`')).filter(|word| word.starts_with("waypost_"));
    assert_eq!(told, documented.collect(), "docs/metrics.md has others");
    assert!(text.contains("\nwaypost_queue_recipients 0\n"), "{text}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_rule_names_something_or_is_meant_for_everything() {
    let world = World::start().await;
    let add = |fields, all, dry_run| {
        let rule = crate::store::NewHoldRule { fields, by: "root".into(), reason: String::new() };
        world.ask(Request::HoldRuleAdd { rule, all, dry_run })
    };
    let of = |account: &str| HoldFields { account: Some(name(account)), ..HoldFields::default() };
    let everything = HoldFields::default;
    assert_eq!(fault(add(everything(), false, false).await).0, FaultKind::BadRequest);
    assert_eq!(fault(add(of("ann"), true, false).await).0, FaultKind::BadRequest);
    let (kind, message) = fault(add(of("anm"), false, false).await);
    assert_eq!((kind, message.as_str()), (FaultKind::NotFound, "there is no account anm; did you mean ann?"));
    assert!(matches!(add(of("ann"), false, true).await, Ok(Answer::HoldRule { rule: None, .. })));
    assert!(matches!(add(of("ann"), false, false).await, Ok(Answer::HoldRule { rule: Some(_), .. })));
    assert!(matches!(add(everything(), true, false).await, Ok(Answer::HoldRule { rule: Some(_), .. })));
    let (kind, message) = fault(add(of("ann"), false, false).await);
    assert_eq!(kind, FaultKind::BadRequest);
    assert!(message.contains("hold rule 1 names the same mail"), "{message}");
    let Ok(Answer::HoldRules(rules)) = world.ask(Request::HoldRuleList).await else { panic!("no rules") };
    assert_eq!(rules.iter().map(|rule| rule.number).collect::<Vec<_>>(), [1, 2]);
    let remove = |number| world.ask(Request::HoldRuleRemove { number, dry_run: false });
    assert!(matches!(remove(1).await, Ok(Answer::HoldRule { rule: Some(_), .. })));
    assert_eq!(fault(remove(1).await), (FaultKind::NotFound, "there is no hold rule 1".to_owned()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_handed_on_and_its_problems_come_back() {
    let mut world = World::start().await;
    let asked = tokio::spawn(ask(world.data_dir(), Request::Reload));
    let request = world.reloads.recv().await.unwrap();
    request.answer.send(Err("line 3 is wrong".to_owned())).unwrap();
    assert_eq!(fault(asked.await.unwrap()), (FaultKind::Refused, "line 3 is wrong".to_owned()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_may_speak_and_a_stopped_server_leaves_no_socket() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let (data_dir, socket) = (world.data_dir(), world.data_dir().join(SOCKET_NAME));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    world.stop().await;
    assert!(!socket.exists());
    let refused = ask(data_dir.clone(), Request::Status).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotRunning { .. }), "{refused}");
    // A server that was killed leaves a socket that nobody listens on.
    std::fs::create_dir_all(&data_dir).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let refused = ask(data_dir, Request::Status).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotRunning { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_no_requests_are_answered_and_tell_no_secrets() {
    use std::io::{BufRead, BufReader, Write};
    let world = World::start().await;
    let socket = world.data_dir().join(SOCKET_NAME);
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = BufReader::new(std::os::unix::net::UnixStream::connect(socket).unwrap());
        let lines =
            ["{\"request\":\"account_password\",\"account\":\"A B\",\"password\":\"sesame\"}", "x", "", "{}"];
        for line in lines {
            writeln!(stream.get_mut(), "{line}").unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).unwrap();
            assert!(answer.contains("bad_request") && !answer.contains("sesame"), "{line}: {answer}");
        }
        // The connection is still good.
        writeln!(stream.get_mut(), "{{\"request\":\"status\"}}").unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"ok\":{\"status\":"), "{answer}");
        // A line without end is cut off; the server may hang up before it is all sent.
        let long = vec![b'x'; 2 << 20];
        let _ = stream.get_mut().write_all(&long);
        let mut answer = String::new();
        let _ = stream.read_line(&mut answer);
        assert!(answer.is_empty() || answer.contains("bad_request"), "{answer}");
    });
    talk.await.unwrap();
    world.stop().await;
}

#[test]
fn a_password_is_not_shown() {
    let request =
        Request::AccountPassword { account: name("ann"), password: Secret::new("sesame".to_owned()) };
    assert!(!format!("{request:?}").contains("sesame"));
}

#[tokio::test]
async fn a_directory_with_a_very_long_name_has_its_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let listener = socket::bind(&long, SOCKET_NAME, 0o600).unwrap();
    let connected = tokio::task::spawn_blocking(move || Client::connect(&long).map(|_| ()));
    listener.accept().await.unwrap();
    connected.await.unwrap().unwrap();
}

/// Explains with the scripts of [`World`].
async fn explained(question: Question) -> Result<Explained, Fault> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("global.rhai"), GLOBAL).unwrap();
    let config = Config::parse(CONFIG, Path::new("waypost.toml")).unwrap();
    let scripts = crate::route::ScriptSet::load(dir.path(), &config.script_limits).unwrap();
    let resolver = Resolver::new(&config.dns);
    explain(&config, &scripts, &resolver, &question, Timestamp::from_second(1_800_000_000).unwrap()).await
}

#[tokio::test]
async fn the_past_of_an_attempt_is_gone_through() {
    let first = explained(question("x@example.net")).await.unwrap();
    assert_eq!((first.attempt, first.transport.unwrap().as_str(), first.age_seconds), (1, "direct", 0));

    let last = vec!["450 4.2.1 busy".to_owned(), "451 4.7.1 greylisted".to_owned()];
    let third = explained(Question { last: last.clone(), ..question("x@example.net") }).await.unwrap();
    assert_eq!((third.attempt, third.transport.unwrap().as_str()), (3, "backup"));
    assert_eq!(third.age_seconds, 450 + 900, "7m30s, then twice as long");
    let trace = third.trace.unwrap();
    assert_eq!(trace.verdict().unwrap().level, Level::Global);
    assert_eq!(trace.verdict().unwrap().script.unwrap().line, Some(3));

    let fifth = explained(Question { attempt: Some(5), last, ..question("x@example.net") }).await.unwrap();
    let past: Vec<_> = fifth.previous.iter().map(|p| (p.number, p.outcome.as_str())).collect();
    let busy = "450 4.2.1 busy";
    assert_eq!(past, [(1, busy), (2, busy), (3, busy), (4, "451 4.7.1 greylisted")]);

    // What happened before anybody spoke has no code.
    let dropped =
        explained(Question { last: vec!["connect".to_owned()], ..question("x@example.net") }).await.unwrap();
    assert_eq!(dropped.transport.unwrap().as_str(), "direct");
    let old = explained(Question { attempt: Some(50), ..question("x@example.net") }).await.unwrap();
    assert!(old.expired);
}

#[tokio::test]
async fn local_broken_and_nonsense() {
    let local = explained(question("anybody@example.org")).await.unwrap();
    assert!(local.local && local.trace.is_none());
    let broken = explained(question("broken@example.net")).await.unwrap();
    assert!(broken.transport.is_none(), "an error is never a way");
    let header = vec!["Subject: slow\r\nX-Not: a field of its own".to_owned()];
    let header = explained(Question { header, ..question("x@example.net") }).await.unwrap();
    assert_eq!(header.transport.unwrap().as_str(), "direct", "a line break in a field begins no other");
    let slow =
        explained(Question { header: vec!["Subject: slow".to_owned()], ..question("x@example.net") }).await;
    assert_eq!(slow.unwrap().transport.unwrap().as_str(), "backup");

    for (bad, kind) in [
        (Question { account: Some(name("nobody")), ..question("x@example.net") }, FaultKind::NotFound),
        (Question { attempt: Some(0), ..question("x@example.net") }, FaultKind::BadRequest),
        (Question { attempt: Some(5_000), ..question("x@example.net") }, FaultKind::BadRequest),
        (Question { last: vec!["550 no".to_owned()], ..question("x@example.net") }, FaultKind::BadRequest),
        (Question { last: vec!["hello".to_owned()], ..question("x@example.net") }, FaultKind::BadRequest),
        (
            Question { attempt: Some(1), last: vec!["451".to_owned()], ..question("x@example.net") },
            FaultKind::BadRequest,
        ),
    ] {
        assert_eq!(explained(bad).await.unwrap_err().kind, kind);
    }
}
