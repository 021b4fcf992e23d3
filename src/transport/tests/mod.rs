//! Transports against real sockets: scripted peers, smtp-sink, a real DNS server.

mod auth;
mod decisions;
mod direct;
mod options;
mod page;
mod peer;
mod require_tls;
mod reuse;
mod sink;
mod socks;
mod stages;
mod tls;
mod world;
