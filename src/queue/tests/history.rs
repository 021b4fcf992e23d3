//! What is left of a message when it is done: enough to ask scripts what they would have done with it.

use super::*;
use crate::address::Domain;
use crate::queue::facts::Known;

const LETTER: &[u8] = b"Subject: secret\r\nList-Id: <news.test>\r\nX-Campaign: spring\r\n folded\r\n\
    X-Other: 1\r\nMessage-Id: <7@ours.test>\r\n\r\nPrecedence: bulk\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_history_keeps_what_scripts_may_ask_and_no_more() {
    let script = "fn route(d) { if d.message_id != \"7@ours.test\" || d.is_dsn { throw d.message_id } \
        if d.header(\"x-campaign\") == \"winter\" { \"smart\" } }";
    let world = world(&format!("{SHORT}give_up_after = \"50ms\"\n"), Some(script)).await;
    let mut message = message("ann@ours.test", &["user@outside.test"]);
    message.content = Bytes::from_static(LETTER);
    message.envelope.require_tls = true;
    let size = message.content.len() as u64;
    let id = world.queue.accept(message.clone()).await.unwrap();
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;

    let finished = world.queue.finished(id).await.unwrap().remove(0);
    let kept = finished.kept.clone().unwrap();
    assert!(kept.require_tls && !kept.smtputf8 && !kept.is_dsn, "{kept:?}");
    let fields: Vec<(&str, Option<&str>)> =
        kept.header.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(
        fields,
        [
            ("auto-submitted", None),
            ("list-id", Some("<news.test>")),
            ("list-unsubscribe", None),
            ("message-id", Some("<7@ours.test>")),
            ("precedence", None),
            ("x-campaign", Some("spring folded")),
        ],
        "the default, what the script asks for, and Message-Id; the body is not looked at"
    );

    // From what is kept come the facts that the queue itself had.
    let (config, now) = (world.parts.config.load(), crate::clock::now());
    let mut then = Known::of_message(&message, size, 0).facts(&config, 1, Vec::new().into(), now);
    let mut again = Known::of_finished(&finished).facts(&config, 1, Vec::new().into(), now);
    assert_eq!(again.header_field("X-Campaign"), then.header_field("X-Campaign"));
    (then.header, then.age, then.expires_in) = (Bytes::new(), Duration::ZERO, Duration::ZERO);
    (again.kept_header, again.age, again.expires_in) = (None, Duration::ZERO, Duration::ZERO);
    assert_eq!(format!("{again:?}"), format!("{then:?}"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mx_hosts_that_a_script_was_told_are_kept_with_its_decision() {
    let world =
        world("", Some("fn route(d) { if d.mx.is_empty() { \"direct\" } else { \"direct\" } }")).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    let decided = async || {
        let waiting = world.queue.show(id).await.unwrap()?;
        waiting.recipients[0].history.first()?.decision.clone()
    };
    until(async || decided().await.is_some()).await;
    let told = world.parts.resolver.mx_names(&Domain::parse("outside.test").unwrap()).await;
    assert!(told.is_some());
    assert_eq!(decided().await.unwrap().mx, told);
    world.stop().await;
}
