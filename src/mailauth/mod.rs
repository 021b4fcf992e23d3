//! Who mail is from: what a message and its way here prove about its sender.
//!
//! | folder or file | what it does |
//! | --- | --- |
//! | `spf` | may this client send for this domain (RFC 7208) |
//! | `dkim` | signatures of domains over messages: verifies and makes them (RFC 6376, 8301, 8463) |
//! | `verdict` | the words for results (RFC 8601) |
//! | `message` | a message as signatures see it |
//! | `canonical` | the forms in which header and body are hashed (RFC 6376 §3.4) |
//! | `tags` | lists such as `v=1; d=example.org` (RFC 6376 §3.2) |

pub mod canonical;
pub mod dkim;
pub mod message;
pub mod spf;
pub mod tags;
pub mod verdict;

pub use message::Message;
pub use verdict::Verdict;
