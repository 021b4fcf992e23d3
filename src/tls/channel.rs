//! What both ends of a TLS channel know and nobody between them shares, for SASL to bind to.
//!
//! `tls-exporter` (RFC 9266) is taken from TLS 1.3 alone: before, it is safe only with an extension that cannot be asked
//! about here. `tls-server-end-point` (RFC 5929 §4) is a hash of the certificate that the server showed.

use aws_lc_rs::digest;
use rustls::ProtocolVersion;

use crate::net::Stream;
use crate::sasl::ChannelBindings;

/// Bytes of `tls-exporter` (RFC 9266 §2).
const EXPORTER_BYTES: usize = 32;

/// The bindings of a connection where we are the client; none in clear text.
pub fn client_bindings(stream: &Stream) -> ChannelBindings {
    let Stream::Tls(tls) = stream else { return ChannelBindings::default() };
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    bindings(stream, certificates.first().map(AsRef::as_ref))
}

/// The bindings of a connection where we are the server and have shown this certificate.
pub(super) fn server_bindings(stream: &Stream, certificate: Option<&[u8]>) -> ChannelBindings {
    bindings(stream, certificate)
}

fn bindings(stream: &Stream, certificate: Option<&[u8]>) -> ChannelBindings {
    let Stream::Tls(tls) = stream else { return ChannelBindings::default() };
    let is_new = tls.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let exported = || {
        let (output, label) = ([0; EXPORTER_BYTES], b"EXPORTER-Channel-Binding");
        match &**tls {
            tokio_rustls::TlsStream::Client(side) => {
                side.get_ref().1.export_keying_material(output, label, Some(b""))
            }
            tokio_rustls::TlsStream::Server(side) => {
                side.get_ref().1.export_keying_material(output, label, Some(b""))
            }
        }
    };
    ChannelBindings {
        exporter: is_new.then(exported).and_then(Result::ok).map(Vec::from),
        server_end_point: certificate.and_then(server_end_point),
    }
}

/// RFC 5929 §4.1: the certificate under the hash of its own signature, or SHA-256 where that is MD5 or SHA-1. `None`
/// for signatures without one hash of their own, for which the binding is undefined.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, .. }, .. } (RFC 5280 §4.1)
    let (body, _) = element(certificate, 0x30)?;
    let (_, rest) = element(body, 0x30)?;
    let (algorithm, _) = element(rest, 0x30)?;
    let (oid, _) = element(algorithm, 0x06)?;
    let hash = match oid {
        // md5, sha1 and sha256 WithRSAEncryption; ecdsa-with-SHA1 and -SHA256
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => {
            &digest::SHA384
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => {
            &digest::SHA512
        }
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The content of the DER element in front, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        let sha256 = digest::digest(&digest::SHA256, &p256).as_ref().to_vec();
        assert_eq!(server_end_point(&p256), Some(sha256));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        let sha384 = digest::digest(&digest::SHA384, &p384).as_ref().to_vec();
        assert_eq!(server_end_point(&p384), Some(sha384));
        assert_eq!(server_end_point(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        let good = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for length in 0..good.len().min(40) {
            assert_eq!(server_end_point(&good[..length]), None);
        }
        assert_eq!(server_end_point(&[0x30, 0xff, 1, 2, 3]), None);
    }
}
