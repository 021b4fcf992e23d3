//! The server as clients see it. Most is told in dialogues (`dialogue`); here stands what a dialogue cannot show.

mod dialogue;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::session::{Action, Session, Tls};
use crate::config::{Config, Listener, ListenerKind};
use crate::names::QueueId;
use crate::queue::AcceptError;
use crate::sasl::ChannelBindings;
use crate::smtp::data::Progress;
use crate::spool::NewMessage;
use world::{Client, PATIENCE, Setup, World};

const MESSAGE: &str = "EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n";

#[tokio::test]
async fn replies_to_a_batch_come_in_one_write() {
    let world = World::new(Setup::of(ListenerKind::Smtp)).await;
    let mut client = world.connect().await;
    client.reply().await;
    let batch = format!("{MESSAGE}NOOP\r\nVRFY x\r\nBDAT 6\r\na: b\r\nRCPT TO:<bob@example.org>\r\nRSET\r\n");
    client.send(batch.as_bytes()).await.unwrap();
    let written = String::from_utf8(client.read_once().await).unwrap();
    let codes: Vec<_> =
        written.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "250", "252", "250", "503", "250"]);
}

#[tokio::test]
async fn whole_sessions_sent_at_once_are_answered_in_order() {
    let world = World::new(Setup::of(ListenerKind::Smtp)).await;
    let mut client = world.connect().await;
    let again = "MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: 2\r\n\r\n.\r\nQUIT\r\n";
    client.send(format!("{MESSAGE}DATA\r\nSubject: 1\r\n\r\n.\r\n{again}").as_bytes()).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(client.reply().await[..3].to_owned());
    }
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "250", "250", "354", "250"]);
    assert!(client.reply().await.starts_with("221"));
    assert!(world.mail("ann", 1).await.contains("Subject: 1"));
    assert!(world.mail("bob", 1).await.contains("Subject: 2"));
}

#[tokio::test]
async fn a_session_sent_byte_by_byte_is_the_same() {
    let world = World::new(Setup::of(ListenerKind::Smtp)).await;
    let mut client = world.connect().await;
    for byte in format!("{MESSAGE}DATA\r\nSubject: 1\r\n\r\n..\r\n.\r\n").bytes() {
        client.send(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(world.mail("ann", 1).await.ends_with("Subject: 1\r\n\r\n.\r\n"));
}

#[tokio::test]
async fn what_was_not_ended_is_not_taken() {
    let world = World::new(Setup::of(ListenerKind::Smtp)).await;
    for unfinished in ["DATA\r\nSubject: 1\r\n\r\n.\r", "BDAT 100 LAST\r\nSubject: 1\r\n\r\n"] {
        let mut client = world.connect().await;
        client.send(format!("{MESSAGE}{unfinished}").as_bytes()).await.unwrap();
        while !client.reply().await.contains("Recipient taken") {}
    }
    // The clients are gone; a later message is the first.
    let mut client = world.connect().await;
    client.send(format!("{MESSAGE}DATA\r\nSubject: 2\r\n\r\n.\r\n").as_bytes()).await.unwrap();
    assert!(world.mail("ann", 1).await.contains("Subject: 2"));
    assert_eq!(world.mails("ann").await, 1);
}

#[tokio::test]
async fn connections_are_limited_and_counted_until_they_end() {
    let mut setup = Setup::of(ListenerKind::Smtp);
    setup.limits = "connections_per_ip_max = 1".to_owned();
    let world = World::new(setup).await;
    let mut first = world.connect().await;
    assert!(first.reply().await.starts_with("220"));
    let mut second = world.connect().await;
    assert_eq!(
        second.reply().await,
        "421 4.7.0 too many connections from your address; closing the connection"
    );
    assert_eq!(second.line().await, None);
    assert!(first.ask("QUIT").await.starts_with("221"));
    drop(first);
    // The server notices in its own time.
    tokio::time::timeout(PATIENCE, async {
        while world.connections.total() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    assert!(world.connect().await.reply().await.starts_with("220"));
}

#[tokio::test]
async fn a_stopping_server_says_so_but_finishes_the_message_under_way() {
    let world = World::new(Setup::of(ListenerKind::Smtp)).await;
    let (mut idle, mut busy) = (world.connect().await, world.connect().await);
    assert!(idle.reply().await.starts_with("220"));
    busy.send(format!("{MESSAGE}DATA\r\nSubject: 1\r\n").as_bytes()).await.unwrap();
    while !busy.reply().await.starts_with("354") {}
    world.shutdown.cancel();
    assert_eq!(idle.reply().await, "421 4.3.2 The server is stopping; closing the connection");
    assert_eq!(idle.line().await, None);
    busy.send(b"\r\n.\r\n").await.unwrap();
    assert!(busy.reply().await.starts_with("250 2.0.0 Taken"));
    assert!(busy.reply().await.starts_with("421 4.3.2"));
    drop((idle, busy));
    assert!(world.mail("ann", 1).await.contains("Subject: 1"));
    tokio::time::timeout(PATIENCE, world.server).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn garbage_instead_of_tls_ends_the_connection() {
    let world = World::new(Setup::of(ListenerKind::Submissions)).await;
    let mut client: Client = world.connect().await;
    client.send(b"EHLO client.example\r\n").await.unwrap();
    // A TLS alert at most.
    let answer = client.read_once().await;
    assert!(!answer.starts_with(b"220"), "{answer:?}");
}

/// A session on its own, without a connection, up to the point where a message goes to the queue.
fn message_for_the_queue(session: &mut Session, config: &Config) -> NewMessage {
    for line in
        ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<ann@example.org>", "RCPT TO:<bob@example.org>"]
    {
        assert!(
            matches!(session.line(config, line.as_bytes()), Action::Reply(reply) if reply.code == 250),
            "{line}"
        );
    }
    let Action::ReadData(reply, mut body) = session.line(config, b"DATA") else { panic!("no data wanted") };
    assert_eq!(reply.code, 354);
    assert_eq!(body.push_data(b"a: b\r\n\r\n.\r\n"), Progress::End { consumed: 11 });
    match session.data_read(config, "2026-11-22T15:57:18Z".parse().unwrap(), body) {
        Action::Accept(message) => *message,
        other => panic!("{other:?}"),
    }
}

fn config() -> Config {
    let text = "hostname = \"mx.example.org\"\n[domains.\"example.org\"]\n[accounts.ann]\n\
                addresses = [\"ann@example.org\", \"bob@example.org\"]\n";
    Config::parse(text, Path::new("waypost.toml")).unwrap()
}

fn session(config: &Config, kind: ListenerKind) -> Session {
    let listener = Listener {
        kind,
        address: "127.0.0.1:0".parse().unwrap(),
        hostname: None,
        relay_from: Vec::new(),
        required: true,
        allow_plaintext_auth: false,
    };
    Session::new("s1".to_owned(), "192.0.2.1".parse().unwrap(), &Arc::new(listener), config, Tls::Unavailable)
}

#[test]
fn one_message_for_all_recipients_goes_to_the_queue() {
    let config = config();
    let message = message_for_the_queue(&mut session(&config, ListenerKind::Smtp), &config);
    assert_eq!(message.envelope.recipients.len(), 2);
    assert_eq!(message.account, None);
    assert_eq!((message.origin.session.as_str(), message.origin.protocol.as_str()), ("s1", "ESMTP"));
    assert_eq!(message.origin.helo.as_deref(), Some("client.example"));
    assert_eq!(
        message.content,
        "Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org with ESMTP\r\n\
         \tid s1.1; Sun, 22 Nov 2026 15:57:18 +0000\r\na: b\r\n\r\n"
    );
}

#[test]
fn what_the_queue_says_is_what_the_client_hears() {
    let config = config();
    for (result, reply) in [
        (Ok(QueueId(33)), "250 2.0.0 Taken, queued as 000011\r\n"),
        (Err(AcceptError::Refused(crate::smtp::Reply::new(554, "not from here"))), "554 not from here\r\n"),
        (Err(AcceptError::Full), "452 4.3.1 There is no space for mail at the moment; try again later\r\n"),
        (
            Err(AcceptError::Temporary("/var/spool: EIO".to_owned())),
            "451 4.3.0 The message cannot be taken at the moment; try again later\r\n",
        ),
        (
            Err(AcceptError::TooLarge),
            "552 5.3.4 The message is larger than 52428800 bytes, the most that is taken here\r\n",
        ),
    ] {
        let mut session = session(&config, ListenerKind::Smtp);
        message_for_the_queue(&mut session, &config);
        let Action::Reply(said) = session.queued(&result, &config) else { panic!("{result:?}") };
        assert_eq!(said.to_string(), reply);
        // Whatever it was, the next transaction begins anew.
        assert!(matches!(session.line(&config, b"DATA"), Action::Reply(reply) if reply.code == 503));
    }
}

#[test]
fn results_that_nobody_asked_for_change_nothing() {
    let config = config();
    let mut session = session(&config, ListenerKind::Submission);
    assert!(matches!(session.verified(&config, Some(true)), Action::Reply(reply) if reply.code == 503));
    assert_eq!(session.account(), None);
    let now = "2026-11-22T15:57:18Z".parse().unwrap();
    let action = session.data_read(&config, now, Body::new(None, 10));
    assert!(matches!(action, Action::Reply(reply) if reply.code == 503));
}

proptest::proptest! {
    /// Any lines at all, pieces of good ones among them: every one is answered, and no session is left in a state that
    /// has no answer.
    #[test]
    fn any_lines_are_answered(lines in proptest::collection::vec(
        proptest::prop_oneof![
            "(EHLO a|HELO a|RSET|NOOP|QUIT|DATA|STARTTLS|HELP|VRFY a|EXPN a)",
            "(MAIL FROM:<>|MAIL FROM:<ann@example.org>) ?(SIZE=[0-9]{1,9}|SMTPUTF8|RET=FULL)?",
            "RCPT TO:<(ann|bob|nobody)@(example.org|elsewhere.example)>",
            "AUTH (PLAIN|LOGIN|X) ?(=|AGFubgBzZWNyZXQ=)?",
            "BDAT [0-9]{1,4}( LAST)?",
            "[ -~]{0,20}",
        ], 0..40), submission: bool)
    {
        let mut config = config();
        config.limits.idle_commands_max = None;
        config.limits.bad_commands_max = None;
        let mut session = session(&config, if submission { ListenerKind::Submission } else { ListenerKind::Smtp });
        if submission {
            session.tls_established("TLSv1.3".to_owned(), ChannelBindings::default());
        }
        let now = "2026-11-22T15:57:18Z".parse().unwrap();
        for line in lines {
            let mut action = session.line(&config, line.as_bytes());
            for _ in 0..3 {
                action = match action {
                    Action::ReadData(_, mut body) => {
                        body.push_data(b"a: b\r\n.\r\n");
                        session.data_read(&config, now, body)
                    }
                    Action::ReadChunk(bdat, mut body) => {
                        body.push_chunk(&vec![b'x'; bdat.size as usize]);
                        session.chunk_read(&config, now, bdat, body)
                    }
                    Action::FindKeys(_) => session.keys_found(&config, None),
                    Action::Verify(claim) => session.verified(&config, Some(claim.account.is_some())),
                    Action::CheckSuppression(account, _) => {
                        proptest::prop_assert!(submission && account.as_str() == "ann");
                        session.suppression_checked(None)
                    }
                    Action::Accept(message) => {
                        proptest::prop_assert!(!message.envelope.recipients.is_empty());
                        proptest::prop_assert!(!submission || message.account.is_some());
                        for recipient in &message.envelope.recipients {
                            let ours = recipient.address.domain.as_str() == "example.org";
                            proptest::prop_assert!(ours || message.account.is_some(), "an open relay");
                        }
                        session.queued(&Ok(QueueId(1)), &config)
                    }
                    done => {
                        action = done;
                        break;
                    }
                };
            }
            let settled = matches!(
                action,
                Action::Reply(_) | Action::ReplyAfter(..) | Action::Close(_) | Action::SkipChunk(..) | Action::StartTls(_)
            );
            proptest::prop_assert!(settled, "{:?}", action);
        }
    }
}
