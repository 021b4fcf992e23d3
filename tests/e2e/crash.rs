//! What was answered 250 is never lost, whatever dies and when.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::first_mail::account;
use crate::world::{World, wait_for};

const MESSAGES: usize = 2_000;
const SENDERS: usize = 20;

/// Sends numbered messages over one connection until it breaks; returns the numbers that were answered 250.
fn send_numbered(
    address: String,
    numbers: impl Iterator<Item = usize>,
    acknowledged: &Mutex<BTreeSet<usize>>,
) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reply = [0u8; 2048];
    let mut exchange = |stream: &mut TcpStream, text: &str| -> bool {
        let written = stream.write_all(text.as_bytes());
        written.is_ok() && stream.read(&mut reply).is_ok_and(|n| n > 0 && matches!(reply[0], b'2' | b'3'))
    };
    if !exchange(&mut stream, "") || !exchange(&mut stream, "EHLO load.test\r\n") {
        return;
    }
    for number in numbers {
        let content = format!("Subject: load\r\nX-Number: <{number}>\r\n\r\n{}\r\n.\r\n", "x".repeat(2000));
        let taken = exchange(&mut stream, "MAIL FROM:<load@load.test>\r\n")
            && exchange(&mut stream, "RCPT TO:<user@sink.test>\r\n")
            && exchange(&mut stream, "DATA\r\n")
            && exchange(&mut stream, &content);
        if !taken {
            return;
        }
        acknowledged.lock().unwrap().insert(number);
    }
}

#[test]
fn killing_the_server_under_load_loses_nothing_that_was_acknowledged() {
    let world = World::new("sink.test MX 10 mx.sink.test\nmx.sink.test A {net}.30");
    let config = account("ann", "a.test").replace("[domains", "[queue]\nretry_first = \"200ms\"\n[domains");
    let mut server = world.waypost("a", 10, &config);
    let path = server.dir.join("waypost.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let open = text.replacen("kind = \"smtp\"\n", "kind = \"smtp\"\nrelay_from = [\"127.0.0.0/8\"]\n", 1);
    std::fs::write(&path, open).unwrap();
    server.start();

    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (address, acknowledged) = (server.smtp(), acknowledged.clone());
            let numbers = (sender..MESSAGES).step_by(SENDERS);
            std::thread::spawn(move || send_numbered(address, numbers, &acknowledged))
        })
        .collect();
    wait_for("half of the load", || acknowledged.lock().unwrap().len() > MESSAGES / 2);
    server.kill();
    for sender in senders {
        sender.join().unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() < MESSAGES, "it was killed in the middle");

    // Nothing listened at sink.test so far: all that was acknowledged must be in the queue of the next server.
    let sink = world.smtp_sink(30, &[]);
    server.start();
    let arrived = || -> BTreeSet<usize> {
        let number = |message: &String| {
            let text = message.split("X-Number: <").nth(1)?;
            text.split('>').next()?.parse().ok()
        };
        sink.messages().iter().filter_map(number).collect()
    };
    wait_for("everything that was acknowledged to arrive", || acknowledged.is_subset(&arrived()));
}
