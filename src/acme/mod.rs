//! A certificate from a CA, got and renewed without anybody's help (ACME, RFC 8555).
//!
//! At the start the stored certificate is shown, if it is still good; else one that is signed by itself, until the CA has
//! issued one. [`start`] gives the future that asks for it, and again after two thirds of its life. A failure is told in
//! log and status, kept, and tried again with growing waits; whatever is shown stays.
//!
//! | file | what it does |
//! | --- | --- |
//! | `renewal` | when an attempt is due it makes one, and keeps what it brings |
//! | `when` | when that is |
//! | `order` | the attempt: account, order, challenges, request, chain |
//! | `challenges` | what the CA is shown when it comes to see that the names are ours |
//! | `https` | how the CA is spoken to |
//! | `storage` | what is kept between starts |

mod challenges;
mod https;
mod order;
mod renewal;
mod storage;
mod when;

pub use challenges::{Challenges, serve_tls_alpn};
pub use renewal::{AcmeStatus, Parts, Renewals, start};
pub use storage::{Storage, StorageError};

use jiff::Timestamp;

use crate::tls::Certificate;

/// The certificate that was issued before, unless it has expired. What cannot be used is told, and a new one is asked for.
pub fn stored_certificate(storage: &Storage, now: Timestamp) -> Result<Option<Certificate>, StorageError> {
    let Some(pem) = storage.certificate()? else { return Ok(None) };
    match Certificate::from_pem(&pem) {
        Ok(certificate) if certificate.facts().not_after > now => Ok(Some(certificate)),
        Ok(certificate) => {
            tracing::warn!(not_after = %certificate.facts().not_after, "the stored certificate has expired");
            Ok(None)
        }
        Err(error) => {
            let file = storage.certificate_file();
            tracing::error!(file = %file.display(), error, "the stored certificate cannot be used");
            Ok(None)
        }
    }
}
