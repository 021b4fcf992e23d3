//! New scripts beside the old ones: as a shadow that changes nothing, then for a share of the mail, then for all.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::first_mail::account;
use crate::tools::{python, submit};
use crate::world::{SMTP, SUBMISSION, Waypost, World, wait_for};

/// Mail for `direct.test` goes direct; a smarthost stands beside.
fn server(world: &World, more: &str) -> Waypost {
    let config = format!(
        "{}[transports.smart]\nkind = \"smtp\"\nhost = \"{{net}}.30\"\nport = {SMTP}\n\
         [queue]\nscript_error_retry = \"200ms\"\n{more}",
        account("ann", "a.test")
    );
    let server = world.waypost("a", 10, &config);
    server.password("ann", "secret");
    server
}

fn world() -> World {
    World::new("direct.test MX 10 mx.direct.test\nmx.direct.test A {net}.40")
}

/// Starts the server, and waits until it answers commands as well.
fn start(server: &mut Waypost) {
    server.start();
    wait_for("the control socket", || server.command_with(&["status"], "").status.success());
}

/// Writes scripts into a directory beside the configuration.
fn scripts(server: &Waypost, dir: &str, global: &str) -> PathBuf {
    let dir = server.dir.join(dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("global.rhai"), global).unwrap();
    dir
}

fn json(server: &Waypost, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.command(arguments)).unwrap()
}

/// Messages over one connection, each with two recipients; the server answers each with its queue id.
fn messages(server: &Waypost, count: usize) -> Vec<String> {
    let printed = python(
        r#"
import smtplib, ssl, sys
s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
s.starttls(context=ssl._create_unverified_context())
s.login("ann", "secret")
for number in range(int(sys.argv[3])):
    s.mail("ann@a.test")
    s.rcpt("one@direct.test")
    s.rcpt("two@direct.test")
    code, words = s.data(f"Subject: {number}\r\n\r\nbody\r\n")
    assert code == 250, words
    print(words.decode().split()[-1])
"#,
        &[&server.ip.to_string(), &SUBMISSION.to_string(), &count.to_string()],
    );
    printed.lines().map(str::to_owned).collect()
}

/// The sets that decided about the recipients of a message that is done, and the transports they chose.
fn decided(server: &Waypost, id: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    wait_for("both recipients to be in the history", || {
        // In the moment between the queue and the history it is in neither.
        let shown = server.command_with(&["queue", "show", id, "--json"], "").stdout;
        let shown: Value = serde_json::from_slice(&shown).unwrap_or_default();
        let decision = |recipient: &Value| {
            let decision = &recipient["attempts"][0]["decision"];
            let text = |key: &str| decision[key].as_str().unwrap_or_default().to_owned();
            (text("set"), text("transport"))
        };
        all = shown["finished"].as_array().into_iter().flatten().map(decision).collect();
        all.len() == 2
    });
    all
}

#[test]
fn a_shadow_is_compared_with_every_decision_and_changes_nothing() {
    let world = world();
    let (smart, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let mut server = server(&world, "[scripts]\nshadow = \"next\"\n");
    server
        .script("global.rhai", "fn route(delivery) {\n    if delivery.attempt > 1 { return \"smart\"; }\n}");
    scripts(
        &server,
        "next",
        "fn route(delivery) {\n    if delivery.recipient_local == \"one\" { return \"smart\"; }\n}",
    );
    start(&mut server);
    for (to, subject) in
        [("one@direct.test", "first"), ("two@direct.test", "second"), ("one@direct.test", "third")]
    {
        submit(&server, "ann", "ann@a.test", &[to], subject);
    }
    wait_for("direct delivery of all", || direct.messages().len() == 3);
    let report = || json(&server, &["route", "shadow", "--json"]);
    wait_for("all to be compared", || report()["tally"]["decisions"] == 3);
    let seen = report();
    assert_eq!((&seen["tally"]["different"], &seen["tally"]["errors"]), (&2.into(), &0.into()), "{seen}");
    let difference = &seen["differences"][0];
    assert_eq!(
        (&difference["from"]["transport"], &difference["from"]["level"]),
        (&"direct".into(), &"default".into())
    );
    assert_eq!((&difference["to"]["transport"], &difference["to"]["line"]), (&"smart".into(), &2.into()));
    assert_eq!(difference["domains"][0]["recipient"], "direct.test");
    assert_eq!(difference["examples"].as_array().unwrap().len(), 2);
    let text = server.command(&["route", "shadow", "--reset"]);
    assert!(text.contains("direct (no script decided) -> smart (global.rhai:2): 2 times"), "{text}");
    assert_eq!(report()["tally"]["decisions"], 0, "counted anew");

    // A shadow that fails, then one that does not even compile: mail goes its way.
    scripts(&server, "next", "fn route(delivery) {\n    delivery.nonsense\n}");
    let first_hash = seen["hash"].clone();
    wait_for("the new shadow", || report()["hash"] != first_hash);
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "fourth");
    wait_for("the error", || report()["errors"][0]["count"] == 1);
    assert!(report()["errors"][0]["error"].as_str().unwrap().contains("global.rhai:2:"));
    scripts(&server, "next", "fn route(delivery) {");
    wait_for("the refusal", || server.command(&["route", "shadow"]).contains("global.rhai:1:"));
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "fifth");
    wait_for("direct delivery of these", || direct.messages().len() == 5);
    assert_eq!(smart.messages().len(), 0);
    let log = server.log();
    assert!(
        log.lines().any(|line| line.contains("shadow scripts") && line.contains("global.rhai:1:")),
        "{log}"
    );
}

#[test]
fn a_promoted_set_decides_about_its_share_then_about_all_and_then_is_the_live_one() {
    let world = world();
    let (smart, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let mut server = server(&world, "");
    server.script("global.rhai", "fn route(delivery) { \"direct\" }");
    start(&mut server);
    let next = scripts(&server, "next", "fn route(delivery) { \"smart\" }");
    let next = next.to_str().unwrap();
    let promoted = json(&server, &["route", "promote", next, "--percent", "40", "--json"]);
    let (live, new) = (promoted["live"].as_str().unwrap(), promoted["running"]["hash"].as_str().unwrap());
    assert_ne!(live, new);

    // Both sets decide, each about whole messages, and say so.
    let by_set = |server: &Waypost, ids: &[String]| {
        let sets: Vec<_> = ids.iter().map(|id| decided(server, id)).collect();
        for of_message in &sets {
            let way = if of_message[0].0 == new { "smart" } else { "direct" };
            assert!(of_message.iter().all(|(set, transport)| *set == of_message[0].0 && transport == way));
            assert!(of_message[0].0 == new || of_message[0].0 == live, "{of_message:?}");
        }
        sets.iter().filter(|of_message| of_message[0].0 == new).count()
    };
    let ids = messages(&server, 40);
    let share = by_set(&server, &ids);
    assert!((4..=36).contains(&share), "{share} of 40");
    assert_eq!((smart.messages().len(), direct.messages().len()), (share, 40 - share));
    // The directory that it came from does not matter any more.
    scripts(&server, "next", "fn route(delivery) {");

    server.kill();
    start(&mut server);
    let resumed = json(&server, &["route", "promote", "--json"]);
    assert_eq!((&resumed["running"]["hash"], &resumed["running"]["percent"]), (&new.into(), &40.0.into()));
    let other = scripts(&server, "other", "fn route(delivery) { \"smart\"; }");
    let refused = server.command_with(&["route", "promote", other.to_str().unwrap(), "--percent", "5"], "");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("roll it back first"), "{words}");

    let all = server.command(&["route", "promote", "--percent", "100"]);
    assert!(
        all.contains("decides about all messages") && all.contains("the promotion ends by itself"),
        "{all}"
    );
    assert_eq!(by_set(&server, &messages(&server, 5)), 5);
    server.script("global.rhai", "fn route(delivery) { \"smart\" }");
    wait_for("the promotion to end", || {
        server.command(&["route", "promote"]).contains("it is the live set now")
    });
    assert_eq!(by_set(&server, &messages(&server, 3)), 3, "the same set, live now");
}

#[test]
fn a_promotion_is_rolled_back_by_hand_or_by_its_errors_and_a_bad_set_is_not_even_promoted() {
    let world = world();
    let (smart, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let mut server = server(&world, "");
    server.script("global.rhai", "fn route(delivery) { \"direct\" }");
    start(&mut server);
    let dir = scripts(&server, "next", "fn route(delivery) {");
    let next = dir.to_str().unwrap();
    for (arguments, words) in [
        (vec!["route", "promote", next, "--percent", "10"], "global.rhai:1:"),
        (vec!["route", "promote", next, "--percent", "0"], "above 0"),
        (vec!["route", "promote", "/nowhere", "--percent", "10"], "/nowhere"),
        (vec!["route", "promote", "--percent", "10"], "name the directory"),
        (vec!["route", "promote", "--rollback"], "no promotion runs"),
    ] {
        let output = server.command_with(&arguments, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }

    scripts(&server, "next", "fn route(delivery) { \"smart\" }");
    server.command(&["route", "promote", next, "--percent", "100"]);
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "promoted");
    wait_for("the new way", || smart.count("Subject: promoted") == 1);
    let back = server.command(&["route", "promote", "--rollback"]);
    assert!(back.contains("rolled back by the operator"), "{back}");
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "after that");
    wait_for("the old way", || direct.count("Subject: after that") == 1);

    // An error of the new set never falls to the old one; but so many end the promotion.
    scripts(&server, "next", "fn route(delivery) {\n    if delivery.size > 1 { throw \"not yet\"; }\n}");
    server.command(&["route", "promote", next, "--percent", "100", "--rollback-on-errors", "3"]);
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "through errors");
    wait_for("the old way, after the third error", || direct.count("Subject: through errors") == 1);
    let ended = server.command(&["route", "promote"]);
    assert!(ended.contains("after 3 script errors") && ended.contains("not yet"), "{ended}");

    // A server that does not run is helped as well.
    server.command(&["route", "promote", next, "--percent", "100"]);
    server.stop();
    let offline = server.command(&["route", "promote", "--rollback"]);
    assert!(offline.contains("no server is running"), "{offline}");
    start(&mut server);
    submit(&server, "ann", "ann@a.test", &["one@direct.test"], "started anew");
    wait_for("the old way again", || direct.count("Subject: started anew") == 1);
}
