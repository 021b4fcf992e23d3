//! What senders are told of their mail: failures, delays, successes, and to whom nothing is told.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// The sender asked for this.
fn asking(notify: Notify, to: &str) -> NewMessage {
    let mut message = message("ann@ours.test", &[to]);
    message.envelope.recipients[0].notify = Some(notify);
    message
}

const ONLY_SUCCESS: Notify = Notify { success: true, failure: false, delay: false };

/// A peer that takes one message; `ehlo` is what it offers.
async fn peer(ehlo: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let replies = format!("220 x\r\n{ehlo}250 from\r\n250 to\r\n354 go\r\n250 2.0.0 taken\r\n");
        peer.write_all(replies.as_bytes()).await.unwrap();
        // Until it is closed on the other side.
        let _ = tokio::io::copy(&mut peer, &mut tokio::io::sink()).await;
    });
    port
}

async fn world_with_peer(ehlo: &'static str) -> World {
    let port = peer(ehlo).await;
    let peer = format!("[transports.peer]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    world(&peer, Some("fn route(d) { \"peer\" }")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_reported_once_and_a_restart_does_not_report_it_again() {
    let config = format!("{SHORT}delay_report_after = \"100ms\"\n");
    let world = world(&config, None).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    for part in ["Action: delayed", "Status: 4.", "Will-Retry-Until: ", "Before that:", "text/rfc822-headers"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    let attempts = async |queue: &Queue| queue.show(id).await.unwrap().unwrap().recipients[0].attempts;
    let before = attempts(&world.queue).await;
    until(async || attempts(&world.queue).await > before + 2).await;
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), &config).await;
    let world = World { dir, queue, parts };
    let before = attempts(&world.queue).await;
    until(async || attempts(&world.queue).await > before + 2).await;
    assert_eq!(world.inbox().await.len(), 1, "told once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_made_when_a_delay_is_to_be_reported() {
    let world = world("[queue]\nretry_first = \"8h\"\nretry_max = \"8h\"\n", None).await;
    let sent = message("ann@ours.test", &["user@outside.test"]);
    let received = sent.received;
    let id = world.queue.accept(sent).await.unwrap();
    let recipient = async || world.queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    until(async || recipient().await.attempts == 1 && !recipient().await.running).await;
    let age = recipient().await.due.duration_since(received);
    let minutes = (Duration::try_from(age).unwrap().as_secs() + 30) / 60;
    assert_eq!(minutes, 240);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_know_is_told_of_a_local_delivery() {
    let world = world("", None).await;
    let mut asked = asking(ONLY_SUCCESS, "ann@ours.test");
    asked.envelope.envid = Some("QQ314159".into());
    asked.envelope.recipients[0].orcpt = Some("rfc822;alias@ours.test".into());
    world.queue.accept(asked).await.unwrap();
    world.queue.accept(message("ann@ours.test", &["ann@ours.test"])).await.unwrap();
    until(async || world.inbox().await.len() == 3).await;
    world.until_empty().await;
    let inbox = world.inbox().await;
    let reports: Vec<_> = inbox.iter().filter(|mail| mail.contains("Action: delivered")).collect();
    assert_eq!((inbox.len(), reports.len()), (3, 1), "nobody asked about the second: {inbox:?}");
    for part in
        ["Status: 2.0.0", "Original-Envelope-Id: QQ314159", "Original-Recipient: rfc822; alias@ours.test"]
    {
        assert!(reports[0].contains(part), "{part} in {}", reports[0]);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_dsn_makes_the_message_relayed() {
    let world = world_with_peer("250 x\r\n").await;
    world.queue.accept(asking(ONLY_SUCCESS, "user@outside.test")).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    for part in [
        "Action: relayed",
        "Status: 2.0.0",
        "Diagnostic-Code: smtp; 250 2.0.0 taken",
        "X-Waypost-Transport: peer",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_dsn_reports_itself() {
    let world = world_with_peer("250-x\r\n250 DSN\r\n").await;
    let id = world.queue.accept(asking(ONLY_SUCCESS, "user@outside.test")).await.unwrap();
    world.until_empty().await;
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
    let finished = world.queue.finished(id).await.unwrap().remove(0);
    assert!(finished.attempts[0].outcome.as_ref().unwrap().dsn_passed_on, "{finished:?}");
    assert_eq!(world.inbox().await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_has_a_copy_of_failures_and_of_none_about_such_copies() {
    let config = format!("{SHORT}give_up_after = \"1ms\"\nfailure_copies_to = \"ann@ours.test\"\n");
    let world = world(&config, None).await;
    // The null sender is told nothing; the administrator is.
    world.queue.accept(message("", &["user@outside.test"])).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let copy = world.inbox().await.remove(0);
    assert!(copy.contains("Subject: Undelivered mail: copy for the postmaster"), "{copy}");
    assert!(copy.contains("The message from <> of"), "{copy}");
    assert!(copy.contains("Subject: hello") && !copy.contains("\r\nbody"), "the header only: {copy}");
    world.stop().await;

    let config = config.replace("ann@ours.test", "admin@outside.test");
    let away = super::world(&config, None).await;
    away.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    away.until_empty().await;
    assert_eq!(away.inbox().await.len(), 1, "the copy failed too, and that was the end of it");
    away.stop().await;
}
