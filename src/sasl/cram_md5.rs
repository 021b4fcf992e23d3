//! CRAM-MD5 (RFC 2195): the digest of a challenge under the password.
//!
//! A server need not keep the password: [`CramState`] is what HMAC makes of it before any text, and all that it takes
//! to answer a challenge. So it is as good as the password for this mechanism, which is why an operator must ask for
//! it to be kept.

use md5::digest::common::hazmat::SerializableState;
use md5::{Digest, Md5};

/// Block of MD5.
const BLOCK_BYTES: usize = 64;

/// RFC 2195 §2: a message identifier that never comes again. What stands for its random digits and time is long enough
/// that chance alone sees to that.
pub(super) fn challenge(nonce: &str, hostname: &str) -> String {
    format!("<{nonce}@{hostname}>")
}

/// HMAC-MD5 with the key in it and no text yet (RFC 2104 §4).
#[derive(Clone)]
pub struct CramState {
    inner: Md5,
    outer: Md5,
}

impl std::fmt::Debug for CramState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CramState").finish_non_exhaustive()
    }
}

impl CramState {
    /// Of a password.
    pub fn derive(password: &str) -> Self {
        let mut key = [0; BLOCK_BYTES];
        let digest;
        let bytes = if password.len() > BLOCK_BYTES {
            digest = Md5::digest(password.as_bytes());
            &digest[..]
        } else {
            password.as_bytes()
        };
        key[..bytes.len()].copy_from_slice(bytes);
        let begun = |pad: u8| Md5::new_with_prefix(key.map(|byte| byte ^ pad));
        Self { inner: begun(0x36), outer: begun(0x5c) }
    }

    /// To be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.inner.serialize(), self.outer.serialize()].concat()
    }

    /// As it was kept.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (inner, outer) = bytes.split_at_checked(bytes.len() / 2)?;
        let begun = |half: &[u8]| Md5::deserialize(half.try_into().ok()?).ok();
        Some(Self { inner: begun(inner)?, outer: begun(outer)? })
    }

    /// The digest of a challenge, in hexadecimal digits.
    pub(super) fn answer(&self, challenge: &[u8]) -> String {
        let inner = self.inner.clone().chain_update(challenge).finalize();
        let digest = self.outer.clone().chain_update(inner).finalize();
        let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
        digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_2195() {
        let state = CramState::derive("tanstaaftanstaaf");
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        assert_eq!(state.answer(challenge), "b913a602c7eda7a495b4e6e7334d3890");
        let kept = CramState::from_bytes(&state.to_bytes()).unwrap();
        assert_eq!(kept.answer(challenge), "b913a602c7eda7a495b4e6e7334d3890");
    }

    #[test]
    fn a_key_longer_than_a_block() {
        // As Python's hmac computes it.
        let state = CramState::derive(&"a".repeat(80));
        assert_eq!(
            state.answer(b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "5b5e54a607b25660adedca07830c80c5"
        );
    }

    #[test]
    fn what_is_damaged_is_no_state() {
        let bytes = CramState::derive("x").to_bytes();
        for length in 0..bytes.len() {
            assert!(CramState::from_bytes(&bytes[..length]).is_none());
        }
    }
}
