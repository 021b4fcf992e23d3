//! Scripts choose the way, on every attempt, while the server runs.

use crate::first_mail::account;
use crate::tools::{inbox, submit};
use crate::world::{Waypost, World, wait_for};

/// One server with an account and a smarthost beside it; `outside.test` has an MX where nobody listens.
fn server_with_smarthost(world: &World, extra: &str) -> Waypost {
    let config = format!(
        "{}\n[transports.smart]\nkind = \"smtp\"\nhost = \"{{net}}.30\"\nport = 2525\n{extra}",
        account("ann", "a.test")
    );
    let server = world.waypost("a", 10, &config);
    server.password("ann", "secret");
    server
}

fn world() -> World {
    World::new(
        "outside.test MX 10 mx.outside.test
         mx.outside.test A {net}.99
         direct.test MX 10 mx.direct.test
         mx.direct.test A {net}.40",
    )
}

/// A schedule whose attempts follow each other at once.
const SHORT: &str = "[queue]\nretry_first = \"100ms\"\nretry_factor = 1.0\nretry_jitter = 0.0\nscript_error_retry = \"200ms\"\n";

fn sent(server: &Waypost, to: &str, subject: &str) {
    submit(server, "ann", "ann@a.test", &[to], subject);
}

#[test]
fn without_scripts_mail_goes_direct_and_with_one_where_it_says() {
    let world = world();
    let (smarthost, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let mut server = server_with_smarthost(&world, SHORT);
    server.start();
    sent(&server, "user@direct.test", "by default");
    wait_for("direct delivery", || direct.count("by default") == 1);

    server.script("global.rhai", "fn route(delivery) { \"smart\" }");
    wait_for("the script to be loaded", || {
        sent(&server, "user@direct.test", "by script");
        smarthost.count("by script") > 0
    });
    assert_eq!(smarthost.count("by default"), 0);
}

#[test]
fn the_account_beats_the_domain_and_the_domain_beats_all() {
    let world = world();
    let smarthost = world.smtp_sink(30, &[]);
    let direct = world.smtp_sink(40, &[]);
    let mut server = server_with_smarthost(&world, SHORT);
    server.script("global.rhai", "fn route(delivery) { throw \"not to be asked\" }");
    server.script(
        "domain/a.test.rhai",
        "fn route(d) { if d.recipient_local == \"two\" { return \"smart\"; } \"direct\" }",
    );
    server
        .script("account/ann.rhai", "fn route(d) { if d.recipient_local == \"one\" { return \"smart\"; } }");
    server.start();
    for (local, subject) in [("one", "account"), ("two", "domain"), ("three", "domain says direct")] {
        sent(&server, &format!("{local}@direct.test"), subject);
    }
    wait_for("all three", || smarthost.messages().len() == 2 && direct.messages().len() == 1);
    assert_eq!((smarthost.count("Subject: account"), smarthost.count("Subject: domain\n")), (1, 1));
}

#[test]
fn the_fourth_attempt_takes_the_other_transport_because_the_script_says_so() {
    let world = world();
    let smarthost = world.smtp_sink(30, &[]);
    let mut server = server_with_smarthost(&world, SHORT);
    server
        .script("global.rhai", "fn route(delivery) {\n    if delivery.attempt >= 4 { return \"smart\"; }\n}");
    server.start();
    sent(&server, "user@outside.test", "fourth");
    wait_for("the smarthost to get it", || smarthost.count("Subject: fourth") == 1);
    wait_for("the log to say so", || server.log().contains("delivered"));
    let log = server.log();
    assert_eq!(
        log.lines().filter(|line| line.contains("deferred") && line.contains("direct")).count(),
        3,
        "{log}"
    );
}

#[test]
fn a_broken_script_is_reported_and_the_old_one_stays() {
    let world = world();
    let smarthost = world.smtp_sink(30, &[]);
    let mut server = server_with_smarthost(&world, SHORT);
    server.script("global.rhai", "fn route(delivery) { \"smart\" }");
    server.start();
    server.script("global.rhai", "fn route(delivery) { \"direct\"");
    wait_for("the broken script to be reported", || server.log().contains("global.rhai:1:"));
    sent(&server, "user@outside.test", "old script");
    wait_for("the old route", || smarthost.count("old script") == 1);
}

#[test]
fn a_script_that_errs_defers_and_never_goes_direct() {
    let world = world();
    let (smarthost, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let mut server = server_with_smarthost(&world, SHORT);
    server.script("global.rhai", "fn route(delivery) {\n    delivery.atempt\n}");
    server.start();
    for (to, subject) in [("user@direct.test", "misspelt"), ("nowhere@direct.test", "misspelt too")] {
        sent(&server, to, subject);
    }
    wait_for("the error in the log", || server.log().contains("global.rhai:2:"));
    let queue = server.queue();
    let recipient = &queue["messages"][0]["recipients"][0];
    assert_eq!(recipient["attempts"], 0, "no attempt is used up: {queue}");
    assert!(recipient["problem"].as_str().unwrap().contains("atempt"), "{queue}");
    assert_eq!(direct.messages().len(), 0);

    server.script(
        "global.rhai",
        "fn route(delivery) { if delivery.attempt == 1 { \"smart\" } else { throw \"asked again\" } }",
    );
    wait_for("both, as first attempts", || smarthost.messages().len() == 2);
    assert_eq!(direct.messages().len(), 0);
}

#[test]
fn a_script_that_breaks_its_limits_for_one_recipient_harms_no_other() {
    let world = world();
    let smarthost = world.smtp_sink(30, &[]);
    let mut server = server_with_smarthost(&world, SHORT);
    server.script(
        "global.rhai",
        "fn route(delivery) {
             if delivery.recipient_local == \"loop\" { loop {} }
             if delivery.recipient_local == \"deep\" { return route(delivery); }
             if delivery.recipient_local == \"grow\" { let s = \"x\"; loop { s += s; } }
             \"smart\"
         }",
    );
    server.start();
    for local in ["loop", "deep", "grow", "good", "loop", "better"] {
        sent(&server, &format!("{local}@direct.test"), local);
    }
    wait_for("those whose script comes to an end", || smarthost.messages().len() == 2);
    wait_for("each limit to be told with its line", || {
        ["global.rhai:2:", "global.rhai:3:", "global.rhai:4:"]
            .iter()
            .all(|place| server.log().contains(place))
    });
    let queue = server.queue();
    let waiting = queue["messages"].as_array().unwrap();
    assert_eq!(waiting.len(), 4, "{queue}");
    assert!(waiting.iter().all(|message| message["recipients"][0]["attempts"] == 0), "{queue}");
    assert_eq!((smarthost.count("Subject: good"), smarthost.count("Subject: better")), (1, 1));
}

#[test]
fn an_unknown_transport_defers_too() {
    let world = world();
    let direct = world.smtp_sink(40, &[]);
    let mut server = server_with_smarthost(&world, SHORT);
    server.script("global.rhai", "fn route(delivery) { \"smrat\" }");
    server.start();
    sent(&server, "user@direct.test", "unknown");
    wait_for("the operator to be told", || server.log().contains("smrat"));
    assert_eq!(server.queue()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(direct.messages().len(), 0);
}

#[test]
fn explain_tells_every_level_and_the_line() {
    let world = world();
    let mut server = server_with_smarthost(&world, SHORT);
    server.script("global.rhai", "// comment\nfn route(d) {\n    if d.attempt > 3 { return \"smart\"; }\n}");
    let explain = |attempt: &str| {
        let options =
            ["route", "explain", "--from", "ann@a.test", "--to", "x@outside.test", "--attempt", attempt];
        server.command(&options)
    };
    let offline = explain("4");
    assert!(offline.contains("global.rhai:3") && offline.contains("smart"), "{offline}");
    assert!(explain("3").contains("direct"));
    server.start();
    let online = {
        let options =
            ["route", "explain", "--from", "ann@a.test", "--to", "x@outside.test", "--attempt", "4"];
        server.command(&options)
    };
    assert!(online.contains("global.rhai:3") && online.contains("smart"), "{online}");
}

#[test]
fn a_restart_resumes_where_it_was() {
    let world = world();
    let mut server = server_with_smarthost(&world, "[queue]\nretry_first = \"1h\"\n");
    server.start();
    sent(&server, "user@outside.test", "waits");
    wait_for("the first attempt to fail", || {
        server.queue()["messages"][0]["recipients"][0]["attempts"] == 1
            && server.queue()["messages"][0]["recipients"][0]["running"] == false
    });
    let before = server.queue();
    server.stop();
    server.start();
    assert_eq!(server.queue(), before, "queue ids, attempts, history and due times are the same");

    let smarthost = world.smtp_sink(30, &[]);
    server.script(
        "global.rhai",
        "fn route(d) { if d.attempt >= 2 && d.last.stage == \"connect\" { \"smart\" } }",
    );
    wait_for("a kick to send it", || {
        server.command(&["queue", "kick", "--all"]);
        smarthost.count("Subject: waits") == 1
    });
    assert!(inbox(server.ip, "ann").is_empty(), "nothing bounced");
}
