//! The one door to cryptography: hashes, signatures and passwords.
//!
//! The provider is aws-lc, or ring with the feature of that name; both speak the same.

#[cfg(not(feature = "ring"))]
use aws_lc_rs as provider;
#[cfg(feature = "ring")]
use ring as provider;

use std::num::NonZeroU32;
use std::sync::Arc;

use provider::{digest, hmac, pbkdf2};
use rustls::crypto::CryptoProvider;

use crate::protocol::security::ScramMechanism;

/// What TLS is done with.
#[must_use]
pub fn tls_provider() -> Arc<CryptoProvider> {
    #[cfg(not(feature = "ring"))]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(feature = "ring")]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// The hash of a way of SCRAM.
#[must_use]
pub fn hash(mechanism: ScramMechanism, bytes: &[u8]) -> Vec<u8> {
    let algorithm = match mechanism {
        ScramMechanism::Sha256 => &digest::SHA256,
        ScramMechanism::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, bytes).as_ref().to_vec()
}

/// The signature of a way of SCRAM (RFC 2104).
#[must_use]
pub fn hmac(mechanism: ScramMechanism, key: &[u8], text: &[u8]) -> Vec<u8> {
    let algorithm = match mechanism {
        ScramMechanism::Sha256 => hmac::HMAC_SHA256,
        ScramMechanism::Sha512 => hmac::HMAC_SHA512,
    };
    let key = hmac::Key::new(algorithm, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

/// RFC 5802's `SaltedPassword`. Takes milliseconds on purpose.
#[must_use]
pub fn salted_password(
    mechanism: ScramMechanism,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
) -> Vec<u8> {
    let (algorithm, length) = match mechanism {
        ScramMechanism::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        ScramMechanism::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut out = vec![0; length];
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(algorithm, iterations, salt, password, &mut out);
    out
}

/// Compares secrets in a time that does not tell where they differ.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

/// The key with which a node signs what ends connections of an earlier life (RFC 9000, section 10.3).
#[must_use]
pub fn stateless_reset_key(key: &[u8]) -> Arc<dyn quinn_proto::crypto::HmacKey> {
    Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        // RFC 7914, section 11.
        let derived = salted_password(ScramMechanism::Sha256, b"passwd", b"salt", 1);
        assert!(hex(&derived).starts_with("55ac046e56e3089fec1691c22544b605"));
        assert!(equal(b"a", b"a") && !equal(b"a", b"b") && !equal(b"a", b"ab"));
    }
}
