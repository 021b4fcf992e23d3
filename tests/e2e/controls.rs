//! The operator's hands on the queue, as they are typed: hold, set a transport, schedule, give up, drop, dump.

use serde_json::Value;

use crate::tools::{inbox, submit, swaks};
use crate::world::{Waypost, World, wait_for};

fn world() -> World {
    World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.30\n")
}

/// Nobody listens at outside.test; ann sends from a.test; `smart` takes everything, once it is there.
fn server(world: &World) -> Waypost {
    let config = r#"
[queue]
retry_first = "1h"
[transports.smart]
kind = "smtp"
host = "{net}.40"
port = 2525
[domains."a.test"]
[accounts.ann]
addresses = ["ann@a.test"]
"#;
    let mut server = world.waypost("a", 1, config);
    server.password("ann", "secret");
    server.start();
    server
}

/// Sends a message and waits until its first attempt has failed; returns its id.
fn waiting(server: &Waypost, to: &str, subject: &str) -> String {
    submit(server, "ann", "ann@a.test", &[to], subject);
    let found = || {
        let queue = server.queue();
        let messages = queue["messages"].as_array().unwrap().clone();
        messages.into_iter().find(|message| {
            let recipient = &message["recipients"][0];
            recipient["address"] == to && recipient["attempts"] == 1 && recipient["running"] == false
        })
    };
    wait_for("the first attempt to fail", || found().is_some());
    found().unwrap()["id"].as_str().unwrap().to_owned()
}

/// Whether the history, which is written a moment later, says this of a message.
fn history_says(server: &Waypost, id: &str, text: &str) -> bool {
    let output = server.command_with(&["queue", "show", id], "");
    String::from_utf8_lossy(&output.stdout).contains(text)
}

fn counts(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_operator_sends_a_message_another_way() {
    let world = world();
    let smarthost = world.smtp_sink(40, &[]);
    let server = server(&world);
    let id = waiting(&server, "user@outside.test", "another way");

    let dry = server.command(&["queue", "kick", "--to-domain", "outside.test", "--dry-run", "--json"]);
    assert_eq!(counts(&dry)["recipients"], 1);
    assert!(server.command(&["queue", "hold", &id]).contains("1 recipient held"));
    assert!(server.command(&["queue", "list", "--held"]).contains(&id));
    assert!(server.command(&["queue", "list", "--not-held"]).contains("nothing waits"));
    server.command(&["queue", "unhold", "--all"]);

    let misspelt = server.command_with(&["queue", "transport", "smrat", &id], "");
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains("did you mean smart?"), "{misspelt:?}");
    server.command(&["queue", "transport", "smart", &id]);
    assert!(server.command(&["queue", "list", "--via", "smart"]).contains("transport set to smart"));
    server.command(&["queue", "transport", "--clear", &id]);
    assert!(!server.command(&["queue", "list"]).contains("transport set"));

    server.command(&["queue", "kick", &id, "--transport", "smart"]);
    wait_for("the smarthost to have it", || smarthost.count("Subject: another way") == 1);
    wait_for("the history", || history_says(&server, &id, "smart (set by the operator)"));
}

#[test]
fn an_operator_gives_up_drops_and_looks_inside() {
    let world = world();
    let server = server(&world);
    let failed = waiting(&server, "a@outside.test", "given up");
    let dropped = waiting(&server, "b@outside.test", "dropped");
    let put_off = waiting(&server, "c@outside.test", "put off");

    assert!(server.command(&["queue", "dump", &failed]).contains("Subject: given up"));
    server.command(&["queue", "fail", &failed, "--reason", "the account was closed"]);
    server.command(&["queue", "drop", "--to", "b@outside.test", "--error", "refused"]);
    server.command(&["queue", "schedule", "2031-01-01T00:00:00Z", &put_off]);

    wait_for("the report", || inbox(server.ip, "ann").contains("the account was closed"));
    assert!(!inbox(server.ip, "ann").contains("Final-Recipient: rfc822; b@outside.test"), "nobody is told");
    let queue = server.queue();
    assert_eq!(queue["messages"].as_array().unwrap().len(), 1, "{queue}");
    assert_eq!(queue["messages"][0]["recipients"][0]["due"], "2031-01-01T00:00:00Z");
    wait_for("the history", || {
        history_says(&server, &failed, "the account was closed") && history_says(&server, &dropped, "removed")
    });
}

#[test]
fn an_operator_holds_mail_that_waits_and_mail_that_comes() {
    let world = world();
    let mut server = server(&world);
    let waits = waiting(&server, "a@outside.test", "waits");

    let nothing = server.command_with(&["queue", "hold-rule", "add"], "");
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let rule = ["queue", "hold-rule", "add", "--account", "ann", "--to-domain", "outside.test"];
    let dry = server.command(&[&rule[..], &["--dry-run", "--json"]].concat());
    assert_eq!((&counts(&dry)["rule"], &counts(&dry)["held"]["recipients"]), (&Value::Null, &1.into()));
    let added = server.command(&[&rule[..], &["--reason", "password stolen"]].concat());
    assert!(
        added.contains("hold rule 1: account ann, to outside.test\n1 recipient that waited held"),
        "{added}"
    );
    submit(&server, "ann", "ann@a.test", &["b@outside.test"], "comes");
    let list = server.command(&["queue", "list", "--held"]);
    assert_eq!(list.matches("held by hold rule 1").count(), 2, "{list}");
    assert!(server.command(&["queue", "unhold", "--all"]).contains("2 recipients stay held"));

    server.stop();
    server.start();
    assert!(server.command(&["queue", "hold-rule", "list"]).contains("password stolen"));
    server.command(&["queue", "kick", "--all"]);
    let attempts = |to: &str| server.command(&["queue", "list", "--to", to, "--json", "--attempts", "..1"]);
    assert_eq!(counts(&attempts("a@outside.test"))["messages"][0]["id"], waits);
    assert_eq!(counts(&attempts("b@outside.test"))["messages"][0]["recipients"][0]["attempts"], 0);
    assert!(server.command(&["queue", "hold-rule", "rm", "1"]).contains("2 recipients released"));
    wait_for("both to be tried", || {
        let one_more = server.command(&["queue", "list", "--to", "b@outside.test", "--attempts", "1"]);
        one_more.contains("1 attempt")
            && server.command(&["queue", "list", "--attempts", "2.."]).contains(&waits)
    });
}

/// Says to everybody that it has no such user.
fn refuses_everybody(world: &World) {
    let address = std::net::SocketAddr::new(world.ip(30), 2525);
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let replies = "220 x\r\n250 x\r\n250 from\r\n550 5.1.1 no such user\r\n250 reset\r\n";
            std::io::Write::write_all(&mut stream, replies.as_bytes()).unwrap();
            // The client may hang up as it likes.
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
}

#[test]
fn an_address_that_does_not_exist_is_refused_the_next_time_and_can_be_tried_again() {
    let world = world();
    refuses_everybody(&world);
    let server = server(&world);
    submit(&server, "ann", "ann@a.test", &["typo@outside.test"], "first");
    let list = |more: &[&str]| server.command(&[&["queue", "suppression", "list"], more].concat());
    wait_for("the address to be remembered", || list(&[]).contains("typo@outside.test"));

    let said = |to: &str| {
        let output = swaks(&server, "ann", "ann@a.test", &[to], "again");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let refused = said("typo@outside.test");
    for words in [
        "550-5.1.1 Your mail to this recipient is refused until 20",
        "550 5.1.1 no such user",
        "suppression list",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let removed = server.command(&["queue", "suppression", "rm", "typo@outside.test"]);
    assert!(removed.contains("1 recipient taken off"), "{removed}");
    let add =
        ["queue", "suppression", "add", "--account", "ann", "boss@outside.test", "--reason", "on holiday"];
    server.command(&[&add[..], &["--for", "2d"]].concat());
    assert!(said("boss@outside.test").contains("on holiday"));
    submit(&server, "ann", "ann@a.test", &["typo@outside.test"], "taken again");
    let of_boss = list(&["--json", "--to", "boss@outside.test"]);
    assert_eq!(counts(&of_boss).as_array().unwrap().len(), 1);
    let unknown = server.command_with(&["queue", "suppression", "add", "--account", "anm", "x@y.test"], "");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean ann?"), "{unknown:?}");
}
