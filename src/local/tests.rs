use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::envelope::Envelope;
use crate::spool::Origin;
use crate::store::StoreOptions;

const CONFIG: &str = r#"
hostname = "mail.example.org"
postmaster = "ann"

[domains."example.org"]
separator = "+"

[domains."example.org".replies]
"moved" = "551 5.1.6 moved away"
"later" = "451 come back"

[accounts.ann]
addresses = ["ann@example.org"]

[accounts.bob]
addresses = ["bob@example.org"]
"#;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    config: Config,
}

impl World {
    fn new(options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), options).unwrap();
        Self { store, config: Config::parse(CONFIG, Path::new("waypost.toml")).unwrap(), _dir: dir }
    }

    async fn deliver(&self, id: u64, index: u32, recipient: &str) -> Outcome {
        let (recipient, message) = (mailbox(recipient), message("Subject: hello\r\n\r\nbody\r\n"));
        deliver(&self.store, &self.config, QueueId(id), index, &recipient, &message).await
    }

    /// All messages in an account's INBOX.
    async fn inbox(&self, account: &str) -> Vec<String> {
        let inbox = self.store.mailbox(&account.parse().unwrap(), INBOX).await.unwrap().id;
        let mut messages = Vec::new();
        for row in self.store.open_view(inbox).await.unwrap().messages {
            let content = self.store.content(inbox, row.uid).await.unwrap().unwrap();
            messages.push(String::from_utf8(content.to_vec()).unwrap());
        }
        messages
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn message(content: &str) -> NewMessage {
    NewMessage {
        envelope: Envelope::new(ReversePath::Mailbox(mailbox("s@example.net")), [mailbox("ann@example.org")]),
        account: None,
        received: Timestamp::UNIX_EPOCH,
        origin: Origin { session: "s1".to_owned(), protocol: "ESMTP".to_owned(), ip: None, helo: None },
        content: Bytes::from(content.to_owned()),
    }
}

fn said(outcome: &Outcome) -> (Verdict, String) {
    (outcome.verdict, outcome.enhanced.unwrap().to_string())
}

#[tokio::test]
async fn each_recipient_gets_the_message_once() {
    let world = World::new(StoreOptions::default());
    for _ in 0..2 {
        for (index, recipient) in [(0, "ann@example.org"), (1, "bob@example.org"), (2, "Ann+x@example.org")] {
            let outcome = world.deliver(1, index, recipient).await;
            assert_eq!(said(&outcome), (Verdict::Delivered, "2.0.0".to_owned()));
            assert_eq!(outcome.stage, Stage::Data);
        }
    }
    let stored = |recipient: &str| {
        format!("Return-Path: <s@example.net>\r\nDelivered-To: {recipient}\r\nSubject: hello\r\n\r\nbody\r\n")
    };
    assert_eq!(world.inbox("ann").await, [stored("ann@example.org"), stored("Ann+x@example.org")]);
    assert_eq!(world.inbox("bob").await, [stored("bob@example.org")]);
}

#[tokio::test]
async fn an_address_that_has_gone_fails_for_good() {
    let world = World::new(StoreOptions::default());
    for gone in ["carol@example.org", "ann@example.net"] {
        assert_eq!(said(&world.deliver(1, 0, gone).await), (Verdict::Permanent, "5.1.1".to_owned()));
    }
}

#[tokio::test]
async fn an_answer_that_the_operator_wrote_is_given() {
    let world = World::new(StoreOptions::default());
    let moved = world.deliver(1, 0, "moved@example.org").await;
    assert_eq!(said(&moved), (Verdict::Permanent, "5.1.6".to_owned()));
    assert_eq!((moved.code, moved.text.as_str()), (Some(551), "moved away"));
    assert_eq!(world.deliver(1, 0, "later@example.org").await.verdict, Verdict::Temporary);
}

#[tokio::test]
async fn a_store_that_fails_delays_and_tells_the_sender_nothing_of_why() {
    let world = World::new(StoreOptions::default());
    world.store.close().await;
    let outcome = world.deliver(1, 0, "ann@example.org").await;
    assert_eq!(said(&outcome), (Verdict::Temporary, "4.3.0".to_owned()));
    assert_eq!(outcome.text, "the mailbox cannot be written now");
    assert_eq!(said(&failed(&StoreError::Full)), (Verdict::Temporary, "4.3.1".to_owned()));
}

#[tokio::test]
async fn a_message_that_no_mailbox_takes_fails_for_good() {
    let world = World::new(StoreOptions { message_bytes_max: 10, ..StoreOptions::default() });
    assert_eq!(said(&world.deliver(1, 0, "ann@example.org").await), (Verdict::Permanent, "5.2.3".to_owned()));
}

#[test]
fn the_envelope_stands_at_the_head_and_no_other_return_path_anywhere() {
    for (sender, given, stored) in [
        (
            "bob@example.net",
            "A: 1\r\n\r\nbody",
            "Return-Path: <bob@example.net>\r\nDelivered-To: ann@example.org\r\nA: 1\r\n\r\nbody",
        ),
        ("", "\r\nbody", "Return-Path: <>\r\nDelivered-To: ann@example.org\r\n\r\nbody"),
        (
            "",
            "return-path :\r\n <a@b>\r\n\t(c)\r\nA: 1\r\n 2\r\nReturn-Path: <x@y>\r\nReturn-Path-2: z\r\n\r\nReturn-Path: <>\r\n",
            "Return-Path: <>\r\nDelivered-To: ann@example.org\r\nA: 1\r\n 2\r\nReturn-Path-2: z\r\n\r\nReturn-Path: <>\r\n",
        ),
        ("", "A: 1", "Return-Path: <>\r\nDelivered-To: ann@example.org\r\nA: 1"),
    ] {
        let sender = ReversePath::try_from(sender.to_owned()).unwrap();
        let content = with_trace(&sender, &mailbox("ann@example.org"), &Bytes::from(given.to_owned()));
        assert_eq!(String::from_utf8([content.header, content.body].concat()).unwrap(), stored);
    }
}
