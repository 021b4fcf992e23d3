//! Whom each transport trusts: the system's authorities, or those of a file that the operator names.
//!
//! What is made of a file is kept as long as the transport is the same: a reload brings new ones.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{PrivateCa, Transport};
use crate::names::TransportName;
use crate::tls::ClientTls;

/// The trust of transports with authorities of their own.
#[derive(Default)]
pub(super) struct Authorities(Mutex<HashMap<TransportName, (Arc<PrivateCa>, ClientTls)>>);

impl Authorities {
    /// What a transport makes TLS with; `usual` where it has no authorities of its own.
    pub(super) fn tls(&self, usual: &ClientTls, transport: &Transport) -> ClientTls {
        let Some(ca) = &transport.common.ca else { return usual.clone() };
        let mut known = self.0.lock();
        match known.get(&transport.name) {
            Some((of, tls)) if Arc::ptr_eq(of, ca) => tls.clone(),
            _ => {
                let tls = ClientTls::with_roots(ca.certificates.clone());
                known.insert(transport.name.clone(), (ca.clone(), tls.clone()));
                tls
            }
        }
    }
}
