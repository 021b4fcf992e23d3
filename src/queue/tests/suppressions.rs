//! Recipients that do not exist, and what their senders are told the next time.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::spool::NewMessage;

/// A peer that gives one answer to every RCPT.
async fn peer(rcpt: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let replies = format!("220 x\r\n250 x\r\n250 from\r\n{rcpt}\r\n250 reset\r\n");
            // A client that has heard enough may be gone.
            let _ = peer.write_all(replies.as_bytes()).await;
            tokio::spawn(async move { tokio::io::copy(&mut peer, &mut tokio::io::sink()).await });
        }
    });
    port
}

async fn world_that_says(rcpt: &'static str, more: &str) -> World {
    let port = peer(rcpt).await;
    let config =
        format!("[transports.peer]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\n[queue]\n{more}");
    world(&config, Some("fn route(d) { \"peer\" }")).await
}

fn of_ann(to: &str) -> NewMessage {
    NewMessage { account: Some(ann()), ..message("ann@ours.test", &[to]) }
}

fn to(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

const UNKNOWN: &str = "550 5.1.1 no such user";

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_does_not_exist_is_remembered_for_the_account_that_wrote_to_it() {
    let world = world_that_says(UNKNOWN, "suppress_bounced_for = \"2d\"\n").await;
    let before = crate::clock::now();
    world.queue.accept(of_ann("user@outside.test")).await.unwrap();
    // Mail without an account is nobody's.
    world.queue.accept(message("x@elsewhere.test", &["other@outside.test"])).await.unwrap();
    world.until_empty().await;
    let at = |hours: u64| before + Duration::from_hours(hours);
    let entry = world.queue.suppression(&ann(), &to("user@outside.test"), at(47)).unwrap();
    assert!(entry.reason.ends_with("550 5.1.1 no such user") && entry.by.is_none(), "{entry:?}");
    let bob = AccountName::new("bob").unwrap();
    assert_eq!(world.queue.suppression(&bob, &to("user@outside.test"), at(0)), None, "it is ann's matter");
    assert_eq!(world.queue.suppression(&ann(), &to("other@outside.test"), at(0)), None);
    assert_eq!(world.queue.suppression(&ann(), &to("user@outside.test"), at(49)), None, "it has expired");
    assert_eq!(world.inbox().await.len(), 1, "the sender is told as ever");

    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), "").await;
    assert_eq!(queue.suppression(&ann(), &to("user@outside.test"), at(1)), Some(entry));
    assert_eq!(queue.inner.forget_expired_suppressions(at(49)).await.unwrap(), 1);
    assert_eq!(queue.suppression(&ann(), &to("user@outside.test"), at(1)), None);
    assert_eq!(parts.store.suppressions().await.unwrap(), []);
    World { dir, queue, parts }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_remembered_of_other_failures_or_where_it_is_switched_off() {
    for (says, more) in [("550 5.7.1 go away", ""), (UNKNOWN, "suppress_bounced_for = \"off\"\n")] {
        let world = world_that_says(says, more).await;
        world.queue.accept(of_ann("user@outside.test")).await.unwrap();
        world.until_empty().await;
        assert_eq!(world.parts.store.suppressions().await.unwrap(), [], "{says}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_add_list_and_remove() {
    let world = world("", None).await;
    let now = crate::clock::now();
    let entry = |address: &str| Suppression {
        account: ann(),
        address: to(address),
        reason: "they left".into(),
        by: Some("root".into()),
        since: now,
        expires: None,
    };
    let entries: Vec<_> = (0..5).map(|n| entry(&format!("user{n}@d{}.test", n % 2))).collect();
    assert_eq!(world.queue.suppress(entries).await.unwrap(), 5);
    let everything = SuppressionFilter::default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.queue.suppressions(&everything, after.as_ref(), 2, now);
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.iter().map(|entry| entry.address.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["user0@d0.test", "user1@d1.test", "user2@d0.test", "user3@d1.test", "user4@d0.test"]);
    let of_domain = SuppressionFilter { domain: "d0.test".parse().ok(), ..everything.clone() };
    assert_eq!(world.queue.unsuppress(&of_domain, true).await.unwrap(), 3);
    assert_eq!(world.queue.unsuppress(&of_domain, false).await.unwrap(), 3);
    let one = SuppressionFilter { addresses: vec![to("user1@d1.test")], ..everything.clone() };
    assert_eq!(world.queue.suppressions(&one, None, 9, now).entries.len(), 1);
    let of_bob = SuppressionFilter { account: AccountName::new("bob").ok(), ..one };
    assert_eq!(world.queue.unsuppress(&of_bob, false).await.unwrap(), 0);
    assert_eq!(world.queue.suppressions(&everything, None, 9, now).entries.len(), 2);
    assert_eq!(world.parts.store.suppressions().await.unwrap().len(), 2);
    world.stop().await;
}
