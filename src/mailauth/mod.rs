//! Who mail is from: what a message and its way here prove about its sender.
//!
//! | folder | what it does |
//! | --- | --- |
//! | `spf` | may this client send for this domain (RFC 7208) |

pub mod spf;
