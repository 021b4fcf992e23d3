//! Transports against real sockets: scripted peers, smtp-sink, a real DNS server.

mod decisions;
mod direct;
mod options;
mod peer;
mod reuse;
mod sink;
mod stages;
mod tls;
mod world;
