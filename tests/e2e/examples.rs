//! The set-ups in `examples/`, each as it stands there, moved to loopback addresses: mail goes the ways that its README
//! says.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::tools::swaks;
use crate::world::{SMTP, Sink, Waypost, World, wait_for};

/// A server with the configuration and the scripts of an example. What belongs to a place changes: addresses, ports,
/// certificate. Its transports to other hosts go to the given addresses, in clear text and without a login, for a sink
/// knows neither; retries follow each other at once.
fn example(world: &World, name: &str, hosts: &[(&str, u8)], accounts: &[&str]) -> Waypost {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let mut server = world.waypost(name, 10, "");
    let local: Table = fs::read_to_string(server.dir.join("waypost.toml")).unwrap().parse().unwrap();
    let mut config: Table = fs::read_to_string(source.join("waypost.toml")).unwrap().parse().unwrap();
    for key in ["data_dir", "tls", "dns", "listeners", "limits"] {
        config.insert(key.to_owned(), local[key].clone());
    }
    let queue = config.entry("queue").or_insert(Table::new().into()).as_table_mut().unwrap();
    queue.insert("retry_first".to_owned(), "100ms".into());
    queue.insert("retry_factor".to_owned(), 1.into());
    let transports = config.entry("transports").or_insert(Table::new().into()).as_table_mut().unwrap();
    transports.entry("direct").or_insert(Table::new().into());
    for (name, transport) in transports.iter_mut() {
        let transport = transport.as_table_mut().unwrap();
        transport.insert("port".to_owned(), i64::from(SMTP).into());
        if let Some((_, last)) = hosts.iter().find(|(of, _)| of == name) {
            transport.insert("kind".to_owned(), "smtp".into());
            transport.insert("host".to_owned(), world.ip(*last).to_string().into());
            transport.insert("tls".to_owned(), "none".into());
            transport.remove("username");
            transport.remove("password_file");
        } else {
            assert!(!transport.contains_key("host"), "{name} goes into the world");
        }
    }
    move_addresses(world, transports);
    fs::write(server.dir.join("waypost.toml"), toml::to_string(&config).unwrap()).unwrap();
    fs::remove_dir_all(server.dir.join("scripts")).unwrap();
    copy(&source.join("scripts"), &server.dir.join("scripts"));
    for account in accounts {
        server.password(account, "secret");
    }
    server.command(&["check"]);
    server.start();
    server
}

/// The example's addresses for the documentation become addresses of this world.
fn move_addresses(world: &World, transports: &mut Table) {
    let sources = transports.iter_mut().filter_map(|(_, transport)| transport.get_mut("source_ipv4"));
    for source in sources {
        let last = source.as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap();
        *source = Value::from(world.ip(last).to_string());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Sends a message with swaks; its subject tells it apart.
fn send(server: &Waypost, account: &str, from: &str, to: &str, subject: &str) {
    let output = swaks(server, account, from, &[to], subject);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn arrives(sink: &Sink, subject: &str) {
    wait_for(subject, || sink.count(&format!("Subject: {subject}\n")) == 1);
}

const DNS: &str = "example.net MX 10 mx.example.net
    mx.example.net A {net}.40
    bank.example MX 10 mx.bank.example
    mx.bank.example A {net}.40
    dead.example MX 10 mx.dead.example
    mx.dead.example A {net}.99
    large-provider.example MX 10 mx.large-provider.example
    mx.large-provider.example A {net}.99";

#[test]
fn smarthost_of_last_resort() {
    let world = World::new(DNS);
    let (service, direct) = (world.smtp_sink(30, &[]), world.smtp_sink(40, &[]));
    let server = example(&world, "smarthost-of-last-resort", &[("sending-service", 30)], &["ann"]);
    for (to, subject) in [
        ("x@example.net", "direct"),
        ("x@dead.example", "last resort"),
        ("x@large-provider.example", "at once"),
    ] {
        send(&server, "ann", "ann@example.org", to, subject);
    }
    arrives(&direct, "direct");
    arrives(&service, "last resort");
    arrives(&service, "at once");
    let tried = |to: &str| {
        let log = server.log();
        log.lines().filter(|line| line.contains("deferred") && line.contains(to)).count()
    };
    assert_eq!((tried("x@dead.example"), tried("x@large-provider.example")), (3, 0), "{}", server.log());
}

#[test]
fn two_sending_services() {
    let world = World::new(DNS);
    let hosts = [("first-service", 30), ("second-service", 31)];
    let second = world.smtp_sink(31, &[]);
    let server = example(&world, "two-sending-services", &hosts, &["ann"]);
    send(&server, "ann", "ann@example.org", "x@example.net", "while the first is down");
    arrives(&second, "while the first is down");
    let first = world.smtp_sink(30, &[]);
    send(&server, "ann", "ann@example.org", "x@example.net", "while both are up");
    arrives(&first, "while both are up");
    assert_eq!((first.messages().len(), second.messages().len()), (1, 1));
}

#[test]
fn several_customers() {
    let world = World::new(DNS);
    let hosts = [("alpha-relay", 30), ("beta-newsletters", 31), ("house-relay", 32)];
    let [alpha, newsletters, house, direct] = [30, 31, 32, 40].map(|last| world.smtp_sink(last, &[]));
    let accounts = ["alpha-office", "beta-office", "beta-shop"];
    let server = example(&world, "several-customers", &hosts, &accounts);
    let [office, shop] = ["office@beta.example", "shop@beta.example"];
    send(&server, "alpha-office", "office@alpha.example", "x@example.net", "from Alpha");
    send(&server, "beta-office", office, "x@example.net", "from Beta");
    send(&server, "beta-office", office, "x@dead.example", "not through");
    send(&server, "beta-office", office, "x@bank.example", "to the bank");
    send(&server, "beta-shop", shop, "x@example.net", "an order");
    send(&server, "beta-shop", shop, "x@example.net", "news\nList-Unsubscribe: <https://beta.example/bye>");
    arrives(&alpha, "from Alpha");
    for subject in ["from Beta", "to the bank", "an order"] {
        arrives(&direct, subject);
    }
    arrives(&house, "not through");
    arrives(&newsletters, "news");
    let counts = [&alpha, &newsletters, &house, &direct].map(|sink| sink.messages().len());
    assert_eq!(counts, [1, 1, 1, 3]);
}

#[test]
fn warming_up_a_new_address() {
    let world = World::new(DNS);
    let sink = world.smtp_sink(40, &[]);
    let server = example(&world, "warming-up-a-new-address", &[], &["ann"]);
    // The twelfth day of the plan is today: half of the recipients.
    let script = server.dir.join("scripts/global.rhai");
    let text = fs::read_to_string(&script).unwrap();
    let first_day = jiff::Timestamp::now().as_second() - 11 * 86_400 - 3_600;
    let changed = text.replace("1_796_083_200", &first_day.to_string());
    assert_ne!(text, changed);
    // Its tests are about the plan as it stood.
    fs::remove_file(server.dir.join("scripts/global.test.toml")).unwrap();
    fs::write(&script, changed).unwrap();
    let way = |to: &str| {
        let asked = ["route", "explain", "--from", "ann@example.org", "--to", to, "--json"];
        let explained: serde_json::Value = serde_json::from_str(&server.command(&asked)).unwrap();
        explained["transport"].as_str().unwrap().to_owned()
    };
    let recipients: Vec<String> = (0..12).map(|number| format!("user{number}@example.net")).collect();
    wait_for("the plan of today", || recipients.iter().any(|to| way(to) == "new-address"));
    let mut new = 0;
    for (number, to) in recipients.iter().enumerate() {
        let subject = format!("number {number}.");
        send(&server, "ann", "ann@example.org", to, &subject);
        arrives(&sink, &subject);
        let messages = sink.messages();
        let message = messages.iter().find(|message| message.contains(&subject)).unwrap();
        let is_new = way(to) == "new-address";
        new += usize::from(is_new);
        let (from, name) = if is_new { (20, "out2.example.org") } else { (10, "mail.example.org") };
        for words in [format!("X-Client-Addr: {}", world.ip(from)), format!("X-Helo-Args: {name}")] {
            assert!(message.contains(&words), "{to}: no {words:?} in {message}");
        }
    }
    assert!((1..12).contains(&new), "{new} of 12 from the new address");
}
