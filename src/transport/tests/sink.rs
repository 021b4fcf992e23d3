//! Postfix's smtp-sink as a peer that nobody here has written.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::peer::{answers, closed_port};
use super::world::{common, engine, job, job_with, show_all, smtp_with};
use crate::config::TransportCommon;
use crate::envelope::{Envelope, ReversePath};

const SMTP_SINK: &str = "/usr/sbin/smtp-sink";

struct Sink {
    child: Child,
    address: std::net::SocketAddr,
}

impl Sink {
    async fn start(options: &[&str]) -> Self {
        assert!(Path::new(SMTP_SINK).exists(), "{SMTP_SINK} is not there: install Debian's package postfix");
        let address = closed_port().await;
        let child = Command::new(SMTP_SINK)
            .args(if runs_as_root() { &["-u", "nobody"][..] } else { &[] })
            .args(options)
            .args([&address.to_string(), "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sink = Self { child, address };
        for _ in 0..500 {
            if answers(address).await {
                return sink;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("smtp-sink does not listen");
    }
}

/// Then smtp-sink wants to be told whom to become.
fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn smtp_sink_takes_messages_over_kept_and_single_connections() {
    // With and without pipelining, with and without EHLO.
    for options in [&[][..], &["-p"], &["-e"]] {
        let sink = Sink::start(options).await;
        for messages_per_connection in [1, 7] {
            let transport = smtp_with(sink.address, TransportCommon { messages_per_connection, ..common() });
            let engine = engine("");
            let deliveries = (0..10).map(|_| {
                let (engine, transport) = (engine.clone(), Arc::clone(&transport));
                tokio::spawn(async move {
                    for _ in 0..10 {
                        let outcomes = engine.deliver(&transport, &job(&["b@x.test", "c@x.test"])).await;
                        assert_eq!(show_all(&outcomes), ["delivered data 250 2.0.0 Ok"; 2]);
                    }
                })
            });
            for delivery in deliveries.collect::<Vec<_>>() {
                delivery.await.unwrap();
            }
            engine.close_idle().await;
        }
    }
}

#[tokio::test]
async fn smtp_sink_takes_a_large_message() {
    let sink = Sink::start(&[]).await;
    let envelope = Envelope::new(ReversePath::Null, ["b@x.test".parse().unwrap()]);
    let content = ".a line that begins with a dot\r\n".repeat(100_000);
    let outcomes =
        engine("").deliver(&smtp_with(sink.address, common()), &job_with(envelope, &content)).await;
    assert_eq!(show_all(&outcomes), ["delivered data 250 2.0.0 Ok"]);
}

#[tokio::test]
async fn smtp_sink_refuses_as_it_is_told() {
    for (options, expected) in [
        (["-f", "CONNECT"], "temporary greeting 500 4.3.0 Error: command failed"),
        (["-r", "MAIL"], "temporary mail 450 4.3.0 Error: command failed"),
        (["-f", "MAIL"], "permanent mail 500 5.3.0 Error: command failed"),
        (["-r", "RCPT"], "temporary rcpt 450 4.3.0 Error: command failed"),
        (["-f", "RCPT"], "permanent rcpt 500 5.3.0 Error: command failed"),
        (["-f", "."], "permanent data 500 5.3.0 Error: command failed"),
        (["-q", "RCPT"], "temporary rcpt"),
        (["-q", "DATA"], "temporary data"),
    ] {
        let sink = Sink::start(&options).await;
        let outcomes = engine("").deliver(&smtp_with(sink.address, common()), &job(&["b@x.test"])).await;
        let shown = show_all(&outcomes);
        assert!(shown[0].starts_with(expected), "{options:?}: {shown:?}");
    }
}
