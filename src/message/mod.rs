//! Messages: header fields, delivery reports.

pub mod dsn;
