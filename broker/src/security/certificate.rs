//! Who a client's certificate is of. That the right authority signed it was checked in the handshake.

use callboard_common::kafka::Text;
use callboard_common::transport::peer::node_of;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Principal;

/// The user of a client's certificate: its common name, as with Kafka's
/// `ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/`. A node's certificate is no user's, and neither is one with several common
/// names or none.
#[must_use]
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<Principal> {
    if node_of(certificate).is_some() {
        return None;
    }
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let (name, other) = (names.next()?.as_str().ok()?, names.next());
    let is_one = other.is_none() && !name.is_empty();
    is_one.then(|| Principal::User(Text::from(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::BrokerId;
    use callboard_common::transport::authority::Authority;
    use rustls_pki_types::pem::PemObject as _;

    fn user(pem: &str) -> Option<Principal> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        user_of(&certificate.expect("a certificate"))
    }

    #[test]
    fn the_common_name_is_the_user() {
        let authority = Authority::create("Wb_-1").expect("made");
        for name in ["ann", "Zoë Äß", "CN=ann,O=x"] {
            let pem = authority.client(name).expect("made");
            assert_eq!(user(&pem), Some(Principal::User(name.into())));
        }
        for name in ["", &"x".repeat(65), "a\nb"] {
            assert!(authority.client(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_nodes_certificate_is_no_users() {
        let authority = Authority::create("Wb_-1").expect("made");
        let node = authority.node(BrokerId(1), &[]).expect("made");
        assert_eq!(user(&node.certificate_pem), None);
    }
}
