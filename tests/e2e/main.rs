//! End to end: the real binary in processes of its own, on loopback addresses of its own, spoken to by the clients and
//! servers that people have: swaks, msmtp, GNU SASL, Python's smtplib and imaplib, mbsync, Dovecot, Postfix, Exim, SOCKS
//! proxies, a real DNS server.
//! And, because they need a test binary, the seeds of the fuzzers.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The DNS server of the library's own tests; it reads `crate::config`.
use waypost::config;

#[path = "../../src/dns/testing.rs"]
#[allow(dead_code)]
mod dns;
mod pebble;
mod peers;
#[path = "../../fuzz/src/lib.rs"]
mod properties;
mod tools;
mod world;

mod acme;
mod auth;
mod certificates;
mod controls;
mod crash;
mod examples;
mod first_mail;
mod foresight;
mod monitoring;
mod rollout;
mod routing;
mod sasl;
mod seeds;
mod sendmail;
mod sendmail_remote;
mod transports;
