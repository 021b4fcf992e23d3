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

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_reported_also_where_no_way_can_be_chosen_once_and_in_words() {
    let config = "[queue]\nscript_error_retry = \"20ms\"\ndelay_report_after = \"100ms\"\n";
    let world = world(config, Some("fn route(d) { d.nonsense }")).await;
    let both = message("ann@ours.test", &["a@outside.test", "b@outside.test"]);
    let id = world.queue.accept(both).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    for part in
        ["Action: delayed", "Status: 4.3.5", "a@outside.test", "b@outside.test", "has not been tried yet"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(!report.contains("nonsense"), "how we are set up is not for senders: {report}");
    let due = async |queue: &Queue| queue.show(id).await.unwrap().unwrap().recipients[0].due;
    let before = due(&world.queue).await;
    until(async || due(&world.queue).await > before + Duration::from_millis(100)).await;
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), config).await;
    let world = World { dir, queue, parts };
    let before = due(&world.queue).await;
    until(async || due(&world.queue).await > before + Duration::from_millis(100)).await;
    assert_eq!(world.inbox().await.len(), 1, "one report for both, told once");
    world.stop().await;
}

/// A peer without 8BITMIME; what it is sent comes back.
async fn old_peer() -> (u16, tokio::sync::oneshot::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"220 x\r\n250 x\r\n250 from\r\n250 to\r\n354 go\r\n250 2.0.0 taken\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n.\r\n") {
            tokio::io::AsyncReadExt::read_buf(&mut peer, &mut seen).await.unwrap();
        }
        sender.send(seen).unwrap();
    });
    (port, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_about_mail_beyond_ascii_reaches_a_sender_behind_an_old_server() {
    let (port, taken) = old_peer().await;
    let config = format!(
        "[transports.old]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         [transports.no]\nkind = \"fail\"\nreply = \"550 5.7.1 no\"\n"
    );
    let world = world(&config, Some("fn route(d) { if d.is_dsn { \"old\" } else { \"no\" } }")).await;
    let mut sent = message("far@away.test", &["user@outside.test"]);
    sent.envelope.body = crate::envelope::BodyType::EightBitMime;
    sent.content = "Subject: hello\r\n\r\nViele Gr\u{fc}\u{df}e\r\n".into();
    world.queue.accept(sent).await.unwrap();
    let taken = String::from_utf8(taken.await.unwrap()).unwrap();
    assert!(taken.is_ascii() && taken.contains("MAIL FROM:<>") && !taken.contains("BODY="), "{taken}");
    assert!(
        taken.contains("Content-Type: text/rfc822-headers") && taken.contains("Subject: hello"),
        "{taken}"
    );
    world.until_empty().await;
    world.stop().await;
}

/// RFC 8689 §5.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_about_mail_that_requires_tls_requires_it_too_and_holds_the_header_only() {
    let config = "[transports.no]\nkind = \"fail\"\nreply = \"550 5.7.1 no\"\n";
    let world = world(config, Some("fn route(d) { \"no\" }")).await;
    for (require_tls, returned) in [(false, "message/rfc822"), (true, "text/rfc822-headers")] {
        let sent = async |sender: &str| {
            let mut message = message(sender, &["user@outside.test"]);
            message.envelope.require_tls = require_tls;
            message.envelope.ret = Some(crate::envelope::Ret::Full);
            world.queue.accept(message).await.unwrap()
        };
        let before = world.inbox().await.len();
        sent("ann@ours.test").await;
        until(async || world.inbox().await.len() > before).await;
        let report = world.inbox().await.pop().unwrap();
        assert!(report.contains(&format!("Content-Type: {returned}")), "{report}");
        assert_eq!(report.contains("\r\nbody\r\n"), !require_tls, "{report}");
        // To a sender elsewhere it goes with what the message had.
        let report = QueueId(sent("far@away.test").await.0 + 1);
        until(async || !world.queue.finished(report).await.unwrap().is_empty()).await;
        let finished = world.queue.finished(report).await.unwrap().remove(0);
        assert_eq!(finished.kept.unwrap().require_tls, require_tls);
    }
    world.stop().await;
}

/// A null sender from elsewhere is no report of ours: scripts are told the difference, and it is not reported about.
#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_reports_are_reports_and_neither_comes_back() {
    let config = "[transports.ours]\nkind = \"fail\"\nreply = \"550 5.7.1 a report of ours\"\n\
                  [transports.theirs]\nkind = \"fail\"\nreply = \"550 5.7.1 not ours\"\n";
    let world = world(config, Some("fn route(d) { if d.is_dsn { \"ours\" } else { \"theirs\" } }")).await;
    let from_null = world.queue.accept(message("", &["user@outside.test"])).await.unwrap();
    // It fails, and the report about it, to a sender elsewhere, fails too.
    let from_afar = world.queue.accept(message("far@away.test", &["user@outside.test"])).await.unwrap();
    world.until_empty().await;
    let said = async |id| {
        until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
        let last = world.queue.finished(id).await.unwrap().remove(0).attempts.pop().unwrap();
        last.outcome.unwrap().text
    };
    assert_eq!((said(from_null).await.as_str(), said(from_afar).await.as_str()), ("not ours", "not ours"));
    let report = QueueId(from_afar.0 + 1);
    assert_eq!(said(report).await, "a report of ours");
    let next = world.queue.accept(message("ann@ours.test", &["ann@ours.test"])).await.unwrap();
    assert_eq!(next.0, report.0 + 1, "there was one report, and none about it");
    world.stop().await;
}
