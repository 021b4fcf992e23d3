//! An operator looks at the server: status, metrics, what the scripts did.

use std::process::Command;

use crate::first_mail::account;
use crate::tools::submit;
use crate::world::{SMTP, World, run, wait_for};

#[test]
fn what_happened_is_counted_and_told_in_each_way() {
    let world = World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.99");
    let smarthost = world.smtp_sink(30, &[]);
    let config = format!(
        "{}[transports.smart]\nkind = \"smtp\"\nhost = \"{{net}}.30\"\nport = {SMTP}\n\
         [queue]\nretry_first = \"100ms\"\nretry_factor = 1.0\n[metrics]\nlisten = \"{{net}}.10:9100\"\n",
        account("ann", "a.test")
    );
    let mut server = world.waypost("a", 10, &config);
    server.password("ann", "secret");
    server
        .script("global.rhai", "fn route(delivery) {\n    if delivery.attempt >= 3 { return \"smart\"; }\n}");
    server.start();
    let status = server.command(&["status"]);
    for words in [format!("smtp {}:{SMTP}", world.ip(10)), "0 recipients".to_owned(), "waypost ".to_owned()] {
        assert!(status.contains(&words), "{words:?} in {status}");
    }

    submit(&server, "ann", "ann@a.test", &["user@outside.test"], "counted");
    wait_for("the third attempt", || smarthost.count("Subject: counted") == 1);
    wait_for("its outcome", || {
        server.command(&["metrics"]).contains("finished_total{state=\"delivered\"} 1")
    });
    let address = format!("http://{}:9100/metrics", world.ip(10));
    let curl = run(Command::new("curl").args(["-s", "--fail", &address]), "");
    let (by_http, by_socket) = (String::from_utf8(curl.stdout).unwrap(), server.command(&["metrics"]));
    for line in [
        "waypost_queue_messages_accepted_total 1",
        "waypost_queue_recipients_finished_total{state=\"delivered\"} 1",
        "waypost_queue_deferred_total 2",
        "waypost_queue_recipients 0",
        "waypost_delivery_attempts_total{transport=\"direct\",result=\"temporary\"} 2",
        "waypost_delivery_attempts_total{transport=\"smart\",result=\"delivered\"} 1",
        "waypost_script_decisions_total{set=\"live\",script=\"global.rhai\",transport=\"smart\"} 1",
        "waypost_script_nothing_total{set=\"live\",script=\"global.rhai\"} 2",
        "waypost_script_duration_seconds_count{set=\"live\",script=\"global.rhai\"} 3",
        "waypost_scripts_last_reload_successful 1",
    ] {
        assert!(by_http.lines().any(|l| l == line), "{line} in\n{by_http}");
        assert!(by_socket.lines().any(|l| l == line), "{line} in\n{by_socket}");
    }
    let stats = server.command(&["route", "stats"]);
    assert!(stats.starts_with("global.rhai (live): asked 3 times"), "{stats}");

    server.script("global.rhai", "fn route(delivery) {");
    wait_for("the refusal in the status", || server.command(&["status"]).contains("global.rhai:1:"));
    assert!(server.command(&["metrics"]).contains("waypost_scripts_last_reload_successful 0"));
    let json: serde_json::Value = serde_json::from_str(&server.command(&["status", "--json"])).unwrap();
    assert_eq!(json["failed_reload"]["problems"][0]["line"], 1, "{json}");
    assert_eq!(json["listeners"].as_array().unwrap().len(), 3, "{json}");
}
