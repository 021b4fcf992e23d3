//! What a peer may do at each stage, and what comes of it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::peer::{HELLO, Peer, answers, closed_port, listeners};
use super::world::{CONTENT, common, engine, job, job_with, show, show_all, smtp, smtp_with};
use crate::config::TransportCommon;
use crate::envelope::{Envelope, ReversePath};
use crate::outcome::Outcome;

/// One recipient, one connection that goes as written.
async fn deliver_to(dialogue: &str) -> (Outcome, Vec<String>) {
    let (mut outcomes, messages) = deliver_all(&["b@x.test"], dialogue, common()).await;
    (outcomes.remove(0), messages)
}

async fn deliver_all(
    recipients: &[&str],
    dialogue: &str,
    common: TransportCommon,
) -> (Vec<Outcome>, Vec<String>) {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[dialogue], None);
    let engine = engine("");
    let outcomes = engine.deliver(&smtp_with(peer.address, common), &job(recipients)).await;
    engine.close_idle().await;
    (outcomes, peer.finish().await)
}

fn hello(rest: &str) -> String {
    format!("{HELLO}{rest}")
}

const ENVELOPE: &str = "C: MAIL FROM:<a@client.test> SIZE=32\nC: RCPT TO:<b@x.test>\nC: DATA\n";

#[tokio::test]
async fn a_message_is_delivered() {
    let dialogue = hello(ENVELOPE)
        + "S: 250 2.1.0 Ok\nS: 250 2.1.5 Ok\nS: 354 go\nM\nS: 250 2.0.0 Ok: queued as 1\nC: QUIT\nBYE";
    let (outcome, messages) = deliver_to(&dialogue).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 Ok: queued as 1");
    assert_eq!((outcome.ip, outcome.host, outcome.tls), ("127.0.0.1".parse().ok(), None, None));
    assert_eq!(messages, [CONTENT.replace(".dot", "..dot") + ".\r\n"]);
}

#[tokio::test]
async fn without_pipelining_each_reply_is_awaited() {
    let dialogue = "S: 220 hi\nC: EHLO client.test\nS: 250 peer.test\n\
        C: MAIL FROM:<a@client.test>\nS: 250 Ok\nC: RCPT TO:<b@x.test>\nS: 250 Ok\nC: RCPT TO:<c@x.test>\nS: 550 no\n\
        C: DATA\nS: 354 go\nM\nS: 250 Ok\nC: QUIT\nBYE";
    let (outcomes, messages) = deliver_all(&["b@x.test", "c@x.test"], dialogue, common()).await;
    assert_eq!(show_all(&outcomes), ["delivered data 250 2.0.0 Ok", "permanent rcpt 550 5.0.0 no"]);
    assert_eq!(messages.len(), 1);
}

#[tokio::test]
async fn a_recipient_that_needs_smtputf8_does_not_take_the_others_down() {
    let dialogue = hello(ENVELOPE) + "S: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 Ok\nC: QUIT\nBYE";
    for recipients in [["büro@x.test", "b@x.test"], ["b@x.test", "büro@x.test"]] {
        let (outcomes, messages) = deliver_all(&recipients, &dialogue, common()).await;
        let mut shown = show_all(&outcomes);
        shown.sort();
        let refused = "permanent mail - 5.6.7 the message needs SMTPUTF8, which the peer does not offer";
        assert_eq!(shown, ["delivered data 250 2.0.0 Ok", refused], "{recipients:?}");
        assert_eq!(messages.len(), 1);
    }
}

#[tokio::test]
async fn without_pipelining_nothing_is_said_in_vain() {
    let start = "S: 220 hi\nC: EHLO client.test\nS: 250 peer.test\nC: MAIL FROM:<a@client.test>\n";
    let (outcome, _) = deliver_to(&format!("{start}S: 550 5.7.1 not you\nC: QUIT\nBYE")).await;
    assert_eq!(show(&outcome), "permanent mail 550 5.7.1 not you");
    let (outcome, _) =
        deliver_to(&format!("{start}S: 250 Ok\nC: RCPT TO:<b@x.test>\nS: 450 later\nC: QUIT\nBYE")).await;
    assert_eq!(show(&outcome), "temporary rcpt 450 4.0.0 later");
}

#[tokio::test]
async fn helo_is_said_where_ehlo_is_refused() {
    let dialogue = "S: 220 old\nC: EHLO client.test\nS: 502 what?\nC: HELO client.test\nS: 250 old.test\n\
        C: MAIL FROM:<a@client.test>\nS: 250 Ok\nC: RCPT TO:<b@x.test>\nS: 251 forwarded\nC: DATA\nS: 354 go\nM\nS: 250 Ok\nBYE";
    assert_eq!(show(&deliver_to(dialogue).await.0), "delivered data 250 2.0.0 Ok");
}

#[tokio::test]
async fn what_peers_answer_at_each_stage() {
    let ok = "S: 250 Ok\n";
    for (dialogue, expected) in [
        ("S: 421 4.3.2 not now\nBYE".to_owned(), "temporary greeting 421 4.3.2 not now"),
        ("S: 450 busy\nC: QUIT\nBYE".into(), "temporary greeting 450 4.0.0 busy"),
        // Words about us, not about the message: at a smarthost the operator must act, and the mail waits.
        ("S: 554 5.7.1 go away\nC: QUIT\nBYE".into(), "temporary greeting 554 4.7.1 go away"),
        ("S: 220 x\nC: EHLO*\nS: 451 hm\nBYE".into(), "temporary greeting 451 4.0.0 hm"),
        (
            "S: 220 x\nC: EHLO*\nS: 550 x\nC: HELO*\nS: 550 who?\nBYE".into(),
            "temporary greeting 550 4.0.0 who?",
        ),
        ("S: 220 x\nC: EHLO*\nS: 502 x\nC: HELO*\nS: 451 hm\nBYE".into(), "temporary greeting 451 4.0.0 hm"),
        (hello(ENVELOPE) + "S: 421 bye\nCLOSE", "temporary mail 421 4.0.0 bye"),
        (hello(ENVELOPE) + "S: 451 4.7.1 later\nS: 503 x\nS: 503 x\nBYE", "temporary mail 451 4.7.1 later"),
        (hello(ENVELOPE) + "S: 550 5.7.1 no\nS: 503 x\nS: 503 x\nBYE", "permanent mail 550 5.7.1 no"),
        (hello(ENVELOPE) + "S: 354 what\nS: 503 x\nS: 503 x\nBYE", "temporary mail 354 4.0.0 what"),
        (hello(ENVELOPE) + ok + "S: 450 4.2.0 grey\nS: 554 none\nBYE", "temporary rcpt 450 4.2.0 grey"),
        (hello(ENVELOPE) + ok + "S: 550 5.1.1 who\nS: 503 x\nBYE", "permanent rcpt 550 5.1.1 who"),
        (
            hello(ENVELOPE) + ok + "S: 550-5.1.1 who\nS: 550 5.1.1 else\nS: 503 x\nBYE",
            "permanent rcpt 550 5.1.1 who",
        ),
        (hello(ENVELOPE) + ok + "S: 421 bye\nCLOSE", "temporary rcpt 421 4.0.0 bye"),
        (hello(ENVELOPE) + ok + ok + "S: 451 4.3.0 hm\nBYE", "temporary data 451 4.3.0 hm"),
        (hello(ENVELOPE) + ok + ok + "S: 554 5.7.1 no\nBYE", "permanent data 554 5.7.1 no"),
        (
            hello(ENVELOPE) + ok + ok + "S: 250 what\nBYE",
            "temporary data 250 4.5.0 the peer answered 250 to DATA: what",
        ),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nS: 452 4.3.1 full\nBYE", "temporary data 452 4.3.1 full"),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nS: 554 5.6.0 spam\nBYE", "permanent data 554 5.6.0 spam"),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nS: 421 bye\nCLOSE", "temporary data 421 4.0.0 bye"),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nS: 354 again\nBYE", "temporary data 354 4.0.0 again"),
    ] {
        assert_eq!(show(&deliver_to(&dialogue).await.0), expected, "{dialogue}");
    }
}

#[tokio::test]
async fn peers_that_hang_up() {
    let ok = "S: 250 Ok\n";
    let gone =
        |waiting_for: &str| format!("the peer closed the connection while we waited for {waiting_for}");
    for (dialogue, stage, text) in [
        ("CLOSE".to_owned(), "greeting", gone("the greeting")),
        ("RAW 220 half\nCLOSE".to_owned(), "greeting", gone("the greeting")),
        ("S: 220 x\nC: EHLO*\nCLOSE".to_owned(), "greeting", gone("the reply to EHLO")),
        ("S: 220 x\nC: EHLO*\nS: 502 x\nC: HELO*\nCLOSE".to_owned(), "greeting", gone("the reply to HELO")),
        (hello(ENVELOPE) + "CLOSE", "mail", gone("the reply to MAIL")),
        (hello(ENVELOPE) + ok + "CLOSE", "rcpt", gone("the reply to RCPT")),
        (hello(ENVELOPE) + ok + ok + "CLOSE", "data", gone("the reply to DATA")),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nCLOSE", "data", gone("the reply to the message")),
    ] {
        let outcome = deliver_to(&dialogue).await.0;
        assert_eq!(show(&outcome), format!("temporary {stage} - 4.4.2 {text}"), "{dialogue}");
    }
}

#[tokio::test]
async fn peers_that_stall() {
    let ok = "S: 250 Ok\n";
    let timeouts = TransportCommon {
        greeting_timeout: Duration::from_millis(200),
        command_timeout: Duration::from_millis(200),
        data_timeout: Duration::from_millis(300),
        ..common()
    };
    for (dialogue, stage, text) in [
        ("STALL".to_owned(), "greeting", "0.2 s while waiting for the greeting"),
        ("RAW 220-half\nSTALL".to_owned(), "greeting", "0.2 s while waiting for the greeting"),
        ("S: 220 x\nC: EHLO*\nSTALL".to_owned(), "greeting", "0.2 s while waiting for the reply to EHLO"),
        (hello(ENVELOPE) + "STALL", "mail", "0.2 s while waiting for the reply to MAIL"),
        (hello(ENVELOPE) + ok + "STALL", "rcpt", "0.2 s while waiting for the reply to RCPT"),
        (hello(ENVELOPE) + ok + ok + "STALL", "data", "0.2 s while waiting for the reply to DATA"),
        (
            hello(ENVELOPE) + ok + ok + "S: 354 go\nM\nSTALL",
            "data",
            "0.3 s while waiting for the reply to the message",
        ),
    ] {
        let (outcomes, _) = deliver_all(&["b@x.test"], &dialogue, timeouts.clone()).await;
        assert_eq!(show(&outcomes[0]), format!("temporary {stage} - 4.4.2 timed out after {text}"));
    }
}

#[tokio::test]
async fn peers_that_talk_nonsense() {
    for (dialogue, expected) in [
        ("S: HTTP/1.1 400 Bad Request\nBYE".to_owned(), "not an SMTP reply: \"HTTP/1.1 400 Bad Request\""),
        ("S: \u{1b}[31m\nBYE".to_owned(), "not an SMTP reply: \" [31m\""),
        (format!("RAW {}\nBYE", "x".repeat(5000)), "a reply line is longer than 4096 bytes"),
        ("FLOOD".to_owned(), "a reply is longer than 32768 bytes or 256 lines"),
    ] {
        let outcome = deliver_to(&dialogue).await.0;
        assert_eq!(show(&outcome), format!("temporary greeting - 4.5.0 {expected}"));
    }
    // The same at each later stage.
    let ok = "S: 250 Ok\n";
    let nonsense = "S: what?\nBYE";
    for (dialogue, stage) in [
        (format!("S: 220 x\nC: EHLO*\n{nonsense}"), "greeting"),
        (format!("S: 220 x\nC: EHLO*\nS: 502 x\nC: HELO*\n{nonsense}"), "greeting"),
        (hello(ENVELOPE) + nonsense, "mail"),
        (hello(ENVELOPE) + ok + nonsense, "rcpt"),
        (hello(ENVELOPE) + ok + ok + nonsense, "data"),
        (hello(ENVELOPE) + ok + ok + "S: 354 go\nM\n" + nonsense, "data"),
    ] {
        let outcome = deliver_to(&dialogue).await.0;
        assert_eq!(show(&outcome), format!("temporary {stage} - 4.5.0 not an SMTP reply: \"what?\""));
    }
}

#[tokio::test]
async fn a_peer_that_does_not_even_answer_the_connection() {
    // The kernel lets connections wait only so many: the next gets no answer at all.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await
    {
        waiting.push(connected.unwrap());
    }
    let short = TransportCommon { connect_timeout: Duration::from_millis(200), ..common() };
    let outcomes = engine("").deliver(&smtp_with(address, short), &job(&["b@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["temporary connect - 4.4.1 connection timed out after 0.2 s"]);
}

#[tokio::test]
async fn a_peer_that_stops_reading() {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let listener = listeners.remove(0);
    let address = listener.local_addr().unwrap();
    let peer = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"220 x\r\n250-x\r\n250 PIPELINING\r\n250 Ok\r\n250 Ok\r\n354 go\r\n").await.unwrap();
        tcp
    });
    let short = TransportCommon { block_timeout: Duration::from_millis(200), ..common() };
    // More than any buffer between us holds.
    let content = "line\r\n".repeat(10_000_000);
    let job = job_with(job(&["b@x.test"]).message.envelope.clone(), &content);
    let outcomes = engine("").deliver(&smtp_with(address, short), &job).await;
    let expected =
        "temporary data - 4.4.2 timed out after 0.2 s while waiting for the peer to read the message";
    assert_eq!(show_all(&outcomes), [expected]);
    drop(peer.await.unwrap());
}

#[tokio::test]
async fn nobody_there() {
    let address = closed_port().await;
    let outcomes = engine("").deliver(&smtp(address), &job(&["b@x.test", "c@x.test"])).await;
    assert_eq!(show_all(&outcomes), ["temporary connect - 4.4.1 connection refused"; 2]);
    assert!(!answers(address).await);
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    let dialogue = hello(
        "C: MAIL*\nC: RCPT TO:<a@x.test>\nC: RCPT TO:<b@x.test>\nC: RCPT TO:<c@x.test>\nC: DATA\n",
    ) + "S: 250 Ok\nS: 550 5.1.1 who\nS: 250 Ok\nS: 450 4.2.2 full\nS: 354 go\nM\nS: 250 2.6.0 fine\nBYE";
    let (outcomes, _) = deliver_all(&["a@x.test", "b@x.test", "c@x.test"], &dialogue, common()).await;
    assert_eq!(
        show_all(&outcomes),
        ["permanent rcpt 550 5.1.1 who", "delivered data 250 2.6.0 fine", "temporary rcpt 450 4.2.2 full"]
    );
}

#[tokio::test]
async fn a_dot_alone_ends_data_that_was_accepted_for_nobody() {
    // RFC 2920 §3.1. The session goes on, and nothing is said to have been delivered.
    let dialogue = hello(ENVELOPE)
        + "S: 250 Ok\nS: 550 no\nS: 354 go\nDOT\nS: 250 Ok, an empty message\n\
        C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 second\nBYE";
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[&dialogue], None);
    let (engine, transport) = (engine(""), smtp(peer.address));
    let first = engine.deliver(&transport, &job(&["b@x.test"])).await;
    assert_eq!(show_all(&first), ["permanent rcpt 550 5.0.0 no"]);
    let second = engine.deliver(&transport, &job(&["b@x.test"])).await;
    assert_eq!(show_all(&second), ["delivered data 250 2.0.0 second"]);
    engine.close_idle().await;
    peer.finish().await;
}

#[tokio::test]
async fn recipients_beyond_a_transaction_go_into_the_next() {
    let dialogue = hello("C: MAIL*\nC: RCPT TO:<a@x.test>\nC: RCPT TO:<b@x.test>\nC: DATA\n")
        + "S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 one\n"
        + "C: MAIL*\nC: RCPT TO:<c@x.test>\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 two\nBYE";
    let two = TransportCommon { recipients_max: 2, ..common() };
    let (outcomes, _) = deliver_all(&["a@x.test", "b@x.test", "c@x.test"], &dialogue, two).await;
    let expected = ["one", "one", "two"].map(|text| format!("delivered data 250 2.0.0 {text}"));
    assert_eq!(show_all(&outcomes), expected);

    // The peer says so itself: by RFC 9422, or by 452 in the middle.
    let limits = "S: 220 x\nC: EHLO*\nS: 250-x\nS: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=2\n";
    let dialogue = dialogue.replace(HELLO, limits);
    let (outcomes, _) = deliver_all(&["a@x.test", "b@x.test", "c@x.test"], &dialogue, common()).await;
    assert_eq!(show_all(&outcomes), expected);

    let dialogue = hello("C: MAIL*\nC: RCPT*\nC: RCPT*\nC: RCPT*\nC: DATA\n")
        + "S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 452 4.5.3 too many\nS: 354 go\nM\nS: 250 one\n"
        + "C: MAIL*\nC: RCPT TO:<c@x.test>\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 two\nBYE";
    let (outcomes, _) = deliver_all(&["a@x.test", "b@x.test", "c@x.test"], &dialogue, common()).await;
    assert_eq!(show_all(&outcomes), expected);
}

#[tokio::test]
async fn recipients_of_more_domains_than_the_peer_takes_go_into_the_next_transaction() {
    // RFC 9422 §4.3.
    let dialogue = "S: 220 x\nC: EHLO*\nS: 250-x\nS: 250-PIPELINING\nS: 250 LIMITS RCPTDOMAINMAX=1\n\
        C: MAIL*\nC: RCPT TO:<a@x.test>\nC: RCPT TO:<c@x.test>\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 one\n\
        C: MAIL*\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 two\nBYE";
    let (outcomes, _) = deliver_all(&["a@x.test", "b@y.test", "c@x.test"], dialogue, common()).await;
    let expected = ["one", "two", "one"].map(|text| format!("delivered data 250 2.0.0 {text}"));
    assert_eq!(show_all(&outcomes), expected);
}

#[tokio::test]
async fn many_recipients_are_written_in_groups() {
    let recipients: Vec<String> = (0..250).map(|n| format!("r{n}@x.test")).collect();
    let rcpts = |range: std::ops::Range<usize>| -> String {
        range.flat_map(|n| ["C: RCPT TO:<r".to_owned(), n.to_string(), "@x.test>\n".to_owned()]).collect()
    };
    let ok = |count: usize| "S: 250 Ok\n".repeat(count);
    let (first, second, third) = (rcpts(0..99), rcpts(99..199), rcpts(199..250));
    let (hundred, rest) = (ok(100), ok(51));
    let dialogue = hello(&format!(
        "C: MAIL*\n{first}{hundred}{second}{hundred}{third}C: DATA\n{rest}S: 354 go\nM\nS: 250 all\nBYE"
    ));
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let many = TransportCommon { recipients_max: 1000, ..common() };
    let (outcomes, _) = deliver_all(&recipients, &dialogue, many).await;
    assert_eq!(show_all(&outcomes), vec!["delivered data 250 2.0.0 all"; 250]);
}

#[tokio::test]
async fn a_message_that_the_peer_cannot_take_is_not_sent() {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[&hello("BYE")], None);
    let engine = engine("");
    let utf8 = Envelope::new(ReversePath::Null, ["ü@x.test".parse().unwrap()]);
    let outcomes = engine.deliver(&smtp(peer.address), &job_with(utf8, CONTENT)).await;
    engine.close_idle().await;
    let expected = "permanent mail - 5.6.7 the message needs SMTPUTF8, which the peer does not offer";
    assert_eq!(show_all(&outcomes), [expected]);
    peer.finish().await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_on_the_content_is_heard_out() {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let start = "S: 220 x\nC: EHLO*\nS: 250-x\nS: 250 PIPELINING\n";
    let dialogue = format!(
        "{start}{}S: 250 Ok\nS: 250 Ok\nS: 354 go\nS: 552 5.3.4 far too big\nCLOSE",
        ENVELOPE.replace(" SIZE=32", "")
    );
    let peer = Peer::play(listeners.remove(0), &[&dialogue], None);
    let content = "x".repeat(70).replace('x', "line\r\n").repeat(100_000);
    let envelope =
        Envelope::new(ReversePath::Mailbox("a@client.test".parse().unwrap()), ["b@x.test".parse().unwrap()]);
    let outcomes = engine("").deliver(&smtp(peer.address), &job_with(envelope, &content)).await;
    // What the peer said may have been lost with the connection; that it cannot have the message is certain.
    let shown = show(&outcomes[0]);
    assert!(
        shown == "permanent data 552 5.3.4 far too big"
            || shown.starts_with("temporary data - 4.4.2 the connection was lost"),
        "{shown}"
    );
}
