//! Messages: header fields, MIME structure, delivery reports.

pub mod address_list;
pub mod dsn;
pub mod header;
pub mod header_fields;
pub mod parameters;
pub mod received;
pub mod structure;
pub mod transfer_encoding;
