//! Waypost: a mail server whose queue asks scripts which way each message goes.
//!
//! The map of the house. Imports point downward only; `tests/tidy.rs` keeps it so.
//!
//! | floor | what stands there |
//! | --- | --- |
//! | 0 ground: values and codecs; no tokio, no files, no clock | [`names`], [`address`], [`envelope`], [`outcome`], [`attempt`], [`smtp`], [`sasl`], [`message`], [`metrics`] |
//! | 1 the outside world behind seams | [`clock`], [`config`], [`dns`], [`net`], [`tls`] |
//! | 2 storage | [`spool`], [`store`] |
//! | 3 engines | [`acme`], [`route`], [`mailauth`], [`transport`], [`local`], [`queue`] |
//! | 4 servers | [`smtp_server`], [`imap_server`], [`control`], [`http`] |
//! | 5 top | [`route_test`], [`server`], [`cli`] |

pub mod address;
pub mod attempt;
pub mod envelope;
pub mod message;
pub mod metrics;
pub mod names;
pub mod outcome;
pub mod sasl;
pub mod smtp;

pub mod clock;
pub mod config;
pub mod dns;
pub mod net;
pub mod tls;

pub mod spool;
pub mod store;

pub mod acme;
pub mod local;
pub mod mailauth;
pub mod queue;
pub mod route;
pub mod transport;

pub mod control;
pub mod http;
pub mod imap_server;
pub mod smtp_server;

pub mod cli;
pub mod route_test;
pub mod server;
