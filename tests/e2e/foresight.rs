//! What is foreseen and what is looked back upon, against what really happens: simulate, replay, explain.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::first_mail::account;
use crate::tools::submit;
use crate::world::{SMTP, Waypost, World, wait_for};

const SHORT: &str = "[queue]\nretry_first = \"100ms\"\nretry_factor = 2.0\nretry_jitter = 0.0\ndelay_report_after = \"off\"\n";

/// A peer that answers RCPT as it was told, one reply after the other; the last is repeated.
fn scripted_peer(ip: IpAddr, replies: &'static [&'static str]) {
    let listener = TcpListener::bind(SocketAddr::new(ip, SMTP)).unwrap();
    let given = Arc::new(Mutex::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, given) = (stream.unwrap(), given.clone());
            thread::spawn(move || {
                let next = || {
                    let mut given = given.lock().unwrap();
                    *given += 1;
                    replies[(*given - 1).min(replies.len() - 1)]
                };
                // The other side may close whenever it likes.
                let _ = converse(stream, next);
            });
        }
    });
}

fn converse(mut stream: TcpStream, mut next: impl FnMut() -> &'static str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    write!(stream, "220 peer.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "RCPT" => next(),
            "DATA" => {
                write!(stream, "354 go on\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                "250 2.0.0 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        write!(stream, "{reply}\r\n")?;
    }
    Ok(())
}

/// ann at a.test; mail for outside.test goes to `.99`, and `smart` is at `.30`.
fn server(world: &World, extra: &str) -> Waypost {
    let smart = "[transports.smart]\nkind = \"smtp\"\nhost = \"{net}.30\"\nport = 2525\n";
    let server = world.waypost("a", 10, &format!("{}\n{smart}{extra}", account("ann", "a.test")));
    server.password("ann", "secret");
    server
}

fn world() -> World {
    World::new(
        "outside.test MX 10 mx.outside.test
         mx.outside.test A {net}.99
         dead.test MX 10 mx.dead.test
         mx.dead.test A {net}.98",
    )
}

fn json(server: &Waypost, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = server.command_with(arguments, "");
    let read = serde_json::from_slice(&output.stdout);
    (output.status.code(), read.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}")))
}

/// The id of the only message of a sender, once all its recipients are done.
fn done(server: &Waypost, id: &str) -> Value {
    let mut found = Value::Null;
    wait_for("the history", || {
        let output = server.command_with(&["queue", "show", id, "--json"], "");
        found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        found["waiting"].is_null() && found["finished"].as_array().is_some_and(|all| !all.is_empty())
    });
    found["finished"][0].clone()
}

/// What a decision and its outcome have in common in a record and in a simulation.
fn essence(decision: &Value, outcome: &Value) -> Value {
    json!([
        decision["level"],
        decision["transport"],
        decision["script"],
        decision["log"].as_array(),
        outcome["verdict"],
        outcome["stage"],
        outcome["code"],
        outcome["enhanced"],
        outcome["text"],
    ])
}

#[test]
fn a_simulation_foresees_what_the_queue_then_does() {
    let world = world();
    scripted_peer(world.ip(99), &["451 4.7.1 greylisted", "450 4.2.1 busy"]);
    scripted_peer(world.ip(30), &["451 4.3.2 not yet", "250 2.1.5 fine"]);
    let mut server = server(&world, SHORT);
    server.script(
        "global.rhai",
        "fn route(d) {\n    if d.last != () && d.last.code == 450 { log(\"busy\"); return \"smart\"; }\n    \
         if d.attempt >= 3 { return \"smart\"; }\n}",
    );
    let question = ["--from", "ann@a.test", "--to", "x@outside.test", "--account", "ann", "--json"];
    let answers = [
        "--answers",
        "451 4.7.1 greylisted, 450 4.2.1 busy",
        "--answers",
        "smart=451 4.3.2 not yet, 250 2.0.0 taken",
    ];
    let arguments = [&["route", "simulate"][..], &question, &answers].concat();
    let (code, foreseen) = json(&server, &arguments);
    assert_eq!((code, &foreseen["end"]), (Some(0), &json!("delivered")), "{foreseen}");

    server.start();
    submit(&server, "ann", "ann@a.test", &["x@outside.test"], "foreseen");
    let mut id = String::new();
    wait_for("the log to name it", || {
        let log = server.log();
        let named = log.split("deferred id=").nth(1).and_then(|rest| rest.split_whitespace().next());
        id = named.unwrap_or_default().to_owned();
        !id.is_empty()
    });
    let finished = done(&server, &id);
    let really = finished["attempts"].as_array().unwrap();
    let foreseen = foreseen["events"].as_array().unwrap();
    assert_eq!(really.len(), foreseen.len(), "{finished}");
    for (one, other) in really.iter().zip(foreseen) {
        assert_eq!(one["number"], other["number"]);
        assert_eq!(essence(&one["decision"], &one["outcome"]), essence(other, &other["outcome"]));
    }
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for (real, planned) in really.windows(2).zip(foreseen.windows(2)) {
        let waited = time(&real[1]["at"]).duration_since(time(&real[0]["ended"]));
        let planned = time(&planned[1]["at"]).duration_since(time(&planned[0]["at"]));
        assert!(waited.as_millis() >= planned.as_millis(), "{waited} {planned}");
    }

    // What was decided then is told also when the script is another, or gone.
    let explain = |attempt: &str| server.command(&["route", "explain", "--id", &id, "--attempt", attempt]);
    assert!(
        explain("3").contains("smart (global.rhai:2)") && explain("3").contains("log: busy"),
        "{}",
        explain("3")
    );
    assert!(explain("3").contains("is the same today"), "{}", explain("3"));
    server.script("global.rhai", "// other\nfn route(d) { \"direct\" }");
    wait_for("the other script to run", || explain("3").contains("has been changed since"));
    let text = explain("3");
    assert!(text.contains("smart (global.rhai:2)") && text.contains("451 4.3.2 not yet"), "{text}");
    assert!(text.contains("the scripts of today would say: direct (global.rhai:2)"), "{text}");
    let last = server.command(&["route", "explain", "--id", &id]);
    assert!(last.contains("delivered") && last.contains("  4  "), "{last}");
    server.stop();
    // But for the first line, which tells how long ago that was.
    let tail = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        tail(&server.command(&["route", "explain", "--id", &id])),
        tail(&last),
        "without a server too"
    );
    let missing = server.command_with(&["route", "explain", "--id", &id, "--attempt", "9"], "");
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

#[test]
fn a_replay_tells_what_would_have_gone_elsewhere_with_a_server_and_without() {
    let world = world();
    scripted_peer(world.ip(99), &["451 4.7.1 greylisted", "250 2.1.5 fine"]);
    scripted_peer(world.ip(30), &["250 2.1.5 fine"]);
    let mut server = server(&world, "[queue]\nretry_first = \"1h\"\n");
    server.script("global.rhai", "fn route(d) { if d.recipient_local == \"s\" { \"smart\" } }");
    server.start();
    for (to, subject) in [
        ("x@outside.test", "one"),
        ("s@outside.test", "two"),
        ("y@dead.test", "three"),
        ("ann@a.test", "four"),
    ] {
        submit(&server, "ann", "ann@a.test", &[to], subject);
    }
    let replay = |server: &Waypost, text: &str, more: &[&str]| {
        let dir = server.dir.join("candidate");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("global.rhai"), text).unwrap();
        let arguments = ["route", "replay", "--json", "--scripts", dir.to_str().unwrap()];
        json(server, &[&arguments[..], more].concat())
    };
    let same = "fn route(d) { if d.recipient_local == \"s\" { \"smart\" } }";
    let after_attempts = |number: u32| {
        let queue = server.queue();
        let messages = queue["messages"].as_array().unwrap();
        messages.iter().all(|message| {
            let recipient = &message["recipients"][0];
            recipient["attempts"] == number && recipient["running"] == false
        })
    };
    wait_for("the first attempts", || {
        server.queue()["messages"].as_array().unwrap().len() == 2 && after_attempts(1)
    });
    server.command(&["queue", "kick", "--all"]);
    // Twice to x, once to s, twice to the one that is dead and waits.
    wait_for("the second attempts, and the history", || {
        let (_, report) = replay(&server, same, &[]);
        report["left_out"]["to_mailboxes"] == 1 && report["attempts"] == 5 && after_attempts(2)
    });
    let (code, report) = replay(&server, same, &["--fail-on-difference"]);
    assert_eq!((code, &report["same"], &report["different"]), (Some(0), &json!(6), &json!([])), "{report}");

    // As it was: the second attempt knows of the greylisting, the first does not.
    let other = "fn route(d) {\n    if d.last != () && d.last.code == 451 { return \"smart\"; }\n    \
        if d.recipient_domain == \"dead.test\" { return \"smart\"; }\n    \
        if d.recipient_local == \"s\" { \"smart\" }\n}";
    let (code, report) = replay(&server, other, &[]);
    assert_eq!(code, Some(0));
    let way = &report["different"][0];
    assert_eq!((&way["from"]["transport"], &way["to"]["transport"]), (&json!("direct"), &json!("smart")));
    assert_eq!((&way["count"], &way["waiting"]), (&json!(4), &json!(1)), "{report}");
    assert_eq!(way["sender_domains"]["most"], json!([{"domain": "a.test", "count": 4}]));
    assert_eq!(way["recipient_domains"]["most"][0], json!({"domain": "dead.test", "count": 3}));
    assert_eq!(replay(&server, other, &["--fail-on-difference"]).0, Some(1));

    let (code, broken) = replay(&server, "fn route(d) { if d.attempt == 2 { d.nothing } }", &[]);
    assert_eq!(code, Some(1));
    assert!(broken["errors"][0]["error"].as_str().unwrap().contains("nothing"), "{broken}");
    let (code, unknown) = replay(&server, "fn route(d) { if d.header(\"X-New\") != () { \"smart\" } }", &[]);
    assert_eq!((code, &unknown["errors"]), (Some(0), &json!([])), "{unknown}");
    assert_eq!(unknown["not_known"][0]["count"], 3, "the one that waits has its header still: {unknown}");

    let queue = server.queue();
    server.stop();
    assert_eq!(replay(&server, other, &[]).1, report, "the files say the same as the server");
    server.start();
    assert_eq!(server.queue(), queue, "and reading them has changed nothing");
}
