//! SCRAM, the server's side (RFC 5802, RFC 7677, KIP-84).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bincode::{Decode, Encode};
use callboard_common::crypto::{equal, hash, hmac, salted_password};
use callboard_common::kafka::Text;
use callboard_common::protocol::security::ScramMechanism;

/// Fewest hash rounds of a credential, as in Kafka.
pub const ITERATIONS_MIN: u32 = 4096;
/// Hash rounds of passwords that are made here, and of users that are not there.
pub const ITERATIONS: u32 = 8192;
/// Bytes of their salt.
pub const SALT_BYTES: usize = 32;
/// Most of them, as in Kafka: more would be an attack on this node.
pub const ITERATIONS_MAX: u32 = 16_384;
/// Longest message of a client.
const MESSAGE_MAX_BYTES: usize = 4096;

/// What proves a password without knowing it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ScramCredential {
    /// The salt.
    pub salt: Vec<u8>,
    /// RFC 5802's `StoredKey`.
    pub stored_key: Vec<u8>,
    /// RFC 5802's `ServerKey`.
    pub server_key: Vec<u8>,
    /// Hash rounds.
    pub iterations: u32,
}

impl std::fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramCredential({} iterations)", self.iterations)
    }
}

impl ScramCredential {
    /// From what a client computed of the password.
    #[must_use]
    pub fn from_salted(
        mechanism: ScramMechanism,
        salt: &[u8],
        iterations: u32,
        salted: &[u8],
    ) -> Self {
        let client_key = hmac(mechanism, salted, b"Client Key");
        Self {
            salt: salt.to_vec(),
            stored_key: hash(mechanism, &client_key),
            server_key: hmac(mechanism, salted, b"Server Key"),
            iterations,
        }
    }

    /// From a password. Takes milliseconds.
    #[must_use]
    pub fn from_password(
        mechanism: ScramMechanism,
        salt: &[u8],
        iterations: u32,
        password: &[u8],
    ) -> Self {
        let salted = salted_password(mechanism, password, salt, iterations);
        Self::from_salted(mechanism, salt, iterations, &salted)
    }

    /// The credential of a user that is not there: always the same for the same name, proven by no password.
    #[must_use]
    pub fn nobody(mechanism: ScramMechanism, secret: &[u8], user: &str) -> Self {
        let made_up = hmac(mechanism, secret, user.as_bytes());
        Self {
            salt: made_up[..SALT_BYTES].to_vec(),
            stored_key: made_up.clone(),
            server_key: made_up,
            iterations: ITERATIONS,
        }
    }

    /// Whether this is the password. Takes milliseconds, the same for right and wrong ones.
    #[must_use]
    pub fn proves(&self, mechanism: ScramMechanism, password: &[u8]) -> bool {
        let other = Self::from_password(mechanism, &self.salt, self.iterations, password);
        equal(&self.stored_key, &other.stored_key)
    }
}

/// Why a client did not prove itself; clients are not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is a sentence")]
pub enum ScramError {
    #[error("a message is malformed")]
    Malformed,
    #[error("channel binding and token authentication are not supported")]
    Unsupported,
    #[error("one user cannot act as another")]
    OtherIdentity,
    #[error("the nonce is another one")]
    Nonce,
    #[error("the proof is wrong")]
    Proof,
}

/// A client's first message, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user that it claims to be.
    pub user: Text,
    nonce: String,
    header: String,
    bare: String,
}

impl ClientFirst {
    /// Parses `n,,n=user,r=nonce`.
    ///
    /// # Errors
    ///
    /// [`ScramError`], except for a wrong nonce or proof.
    pub fn parse(bytes: &[u8]) -> Result<Self, ScramError> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(ScramError::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(identity), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError::Malformed);
        };
        if binding != "n" && binding != "y" {
            return Err(ScramError::Unsupported);
        }
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|a| a.strip_prefix("n="));
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r="));
        let (Some(name), Some(nonce)) = (name, nonce.filter(|n| !n.is_empty())) else {
            return Err(ScramError::Malformed);
        };
        if attributes.next().is_some() {
            return Err(ScramError::Unsupported);
        }
        let user = unescaped(name).ok_or(ScramError::Malformed)?;
        let acts_as = identity.strip_prefix("a=").map(unescaped);
        match acts_as {
            None if identity.is_empty() => {}
            Some(Some(other)) if other == user => {}
            _ => return Err(ScramError::OtherIdentity),
        }
        Ok(Self {
            user: user.into(),
            nonce: nonce.into(),
            header: format!("{binding},{identity},"),
            bare: bare.into(),
        })
    }
}

/// `=2C` and `=3D` stand for `,` and `=`; nothing else begins with `=`.
fn unescaped(name: &str) -> Option<String> {
    let plain = name.replace("=2C", ",").replace("=3D", "\u{0}");
    (!plain.contains('=') && !name.contains('\u{0}') && !name.is_empty())
        .then(|| plain.replace('\u{0}', "="))
}

/// Between the server's first message and the client's final one.
#[derive(Clone, Debug)]
pub struct ScramExchange {
    first: ClientFirst,
    mechanism: ScramMechanism,
    credential: ScramCredential,
    nonce: String,
    server_first: String,
}

impl ScramExchange {
    /// Challenges a client; `server_nonce` is random and printable. Returns the server's first message.
    #[must_use]
    pub fn challenge(
        first: ClientFirst,
        mechanism: ScramMechanism,
        credential: ScramCredential,
        server_nonce: &str,
    ) -> (Self, String) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = STANDARD.encode(&credential.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        let message = server_first.clone();
        (
            Self {
                first,
                mechanism,
                credential,
                nonce,
                server_first,
            },
            message,
        )
    }

    /// Checks `c=header,r=nonce,p=proof`; gives the user and the server's final message.
    ///
    /// # Errors
    ///
    /// [`ScramError`]: the client did not prove itself.
    pub fn finish(self, bytes: &[u8]) -> Result<(Text, String), ScramError> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(ScramError::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|a| a.strip_prefix("c="));
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r="));
        let binding = binding.and_then(|b| STANDARD.decode(b).ok());
        if binding.as_deref() != Some(self.first.header.as_bytes()) {
            return Err(ScramError::Malformed);
        }
        if nonce != Some(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let signed = format!("{},{},{without_proof}", self.first.bare, self.server_first);
        let credential = &self.credential;
        let signature = hmac(self.mechanism, &credential.stored_key, signed.as_bytes());
        if signature.len() != proof.len() {
            return Err(ScramError::Proof);
        }
        let client_key: Vec<u8> = signature.iter().zip(&proof).map(|(a, b)| a ^ b).collect();
        let stored = hash(self.mechanism, &client_key);
        if !equal(&stored, &credential.stored_key) {
            return Err(ScramError::Proof);
        }
        let proof = hmac(self.mechanism, &credential.server_key, signed.as_bytes());
        Ok((self.first.user, format!("v={}", STANDARD.encode(proof))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let credential =
            ScramCredential::from_password(ScramMechanism::Sha256, &salt, 4096, b"pencil");
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").expect("well formed");
        let (exchange, challenge) = ScramExchange::challenge(
            first,
            ScramMechanism::Sha256,
            credential,
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        );
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let answer = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let replayed = exchange.clone();
        let (user, last) = exchange.finish(answer).expect("proven");
        assert_eq!(
            (&*user, &*last),
            ("user", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
        let wrong = String::from_utf8_lossy(answer).replace("p=dH", "p=eH");
        assert_eq!(
            replayed.clone().finish(wrong.as_bytes()),
            Err(ScramError::Proof)
        );
        let replay = String::from_utf8_lossy(answer).replace("r=rO", "r=sO");
        assert_eq!(replayed.finish(replay.as_bytes()), Err(ScramError::Nonce));
    }

    #[test]
    fn hostile_first_messages_are_refused() {
        let parse = |text: &str| ClientFirst::parse(text.as_bytes()).map(|f| f.user.to_string());
        assert_eq!(parse("n,,n=a=2Cb=3Dc,r=x"), Ok("a,b=c".into()));
        assert_eq!(parse("n,a=ann,n=ann,r=x"), Ok("ann".into()));
        assert_eq!(parse("n,a=bob,n=ann,r=x"), Err(ScramError::OtherIdentity));
        assert_eq!(
            parse("p=tls-unique,,n=ann,r=x"),
            Err(ScramError::Unsupported)
        );
        assert_eq!(
            parse("n,,n=ann,r=x,tokenauth=true"),
            Err(ScramError::Unsupported)
        );
        for bad in [
            "",
            "n,,",
            "n,,n=,r=x",
            "n,,n=a=b,r=x",
            "n,,n=a,r=",
            "n,,r=x,n=a",
        ] {
            assert_eq!(parse(bad), Err(ScramError::Malformed), "{bad:?}");
        }
        assert_eq!(
            parse(&format!("n,,n={},r=x", "a".repeat(1 << 20))),
            Err(ScramError::Malformed)
        );
    }

    #[test]
    fn a_password_is_proven_and_nobody_has_one() {
        for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
            let credential = ScramCredential::from_password(mechanism, b"salt", 4096, b"secret");
            assert!(
                credential.proves(mechanism, b"secret") && !credential.proves(mechanism, b"Secret")
            );
            let nobody = ScramCredential::nobody(mechanism, b"key", "ghost");
            assert_eq!(nobody, ScramCredential::nobody(mechanism, b"key", "ghost"));
            assert!(!nobody.proves(mechanism, b""));
        }
    }
}
