//! One connection's way from nobody to a user; pure.
//!
//! Sources: KIP-12 and KIP-43 (mechanisms), KIP-152 (SaslAuthenticate), RFC 4616 (PLAIN).

use callboard_common::kafka::Text;
use callboard_common::protocol::security::ScramMechanism;

use super::Principal;
use super::image::SecurityImage;
use super::scram::{ClientFirst, ScramCredential, ScramExchange};

/// What clients may prove themselves with, as Kafka names it.
pub const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// A chosen mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram(ScramMechanism),
}

/// How far a connection is.
#[derive(Debug)]
enum State {
    /// Nothing was said yet.
    Fresh,
    /// The mechanism is chosen.
    Chosen(Mechanism),
    /// The client was challenged.
    Challenged(Box<ScramExchange>),
    /// A certificate says who it is; what else it proves comes over that.
    Certified(Principal),
    /// It is over.
    Done(Principal),
}

/// See the module.
#[derive(Debug)]
pub struct Sasl {
    state: State,
    /// Makes up credentials of users that are not there.
    secret: [u8; 32],
}

/// What a client's token leads to.
#[derive(Debug)]
pub enum Step {
    /// Answer with these bytes and wait for more, or be done.
    Answer(Vec<u8>),
    /// Whether the password is right must be computed, which takes milliseconds; [`Sasl::verified`] goes on.
    Verify(Verification),
    /// It failed; the reason is for the log only.
    Failed(String),
}

/// A password to be checked, away from the arbiter.
pub struct Verification {
    user: Text,
    password: Vec<u8>,
    mechanism: ScramMechanism,
    credential: ScramCredential,
}

impl std::fmt::Debug for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verification of {:?}", self.user)
    }
}

impl Verification {
    /// A user's password against what the metadata holds; of a user that is not there against nothing.
    #[must_use]
    pub fn new(image: &SecurityImage, secret: &[u8], user: &Text, password: &[u8]) -> Self {
        let stored = image.users.get(user).and_then(|c| c.first_key_value());
        let (mechanism, credential) = match stored {
            Some((mechanism, credential)) => (*mechanism, credential.clone()),
            None => {
                let mechanism = ScramMechanism::Sha256;
                (mechanism, ScramCredential::nobody(mechanism, secret, user))
            }
        };
        Self {
            user: user.detached(),
            password: password.to_vec(),
            mechanism,
            credential,
        }
    }

    /// Blocks for milliseconds; the user if the password is right.
    #[must_use]
    pub fn run(self) -> Option<Principal> {
        let right = self.credential.proves(self.mechanism, &self.password);
        right.then(|| Principal::User(self.user))
    }
}

impl Sasl {
    /// A connection on which nobody has proved anything; `secret` is the node's, random at each start.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            state: State::Fresh,
            secret,
        }
    }

    /// A connection on which nobody needs to.
    #[must_use]
    pub fn not_required() -> Self {
        Self {
            state: State::Done(Principal::Anonymous),
            secret: [0; 32],
        }
    }

    /// A connection whose client has shown its certificate.
    #[must_use]
    pub fn certified(secret: [u8; 32], principal: Principal) -> Self {
        Self {
            state: State::Certified(principal),
            secret,
        }
    }

    /// Who it is, once that is proved or not asked for.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        match &self.state {
            State::Certified(principal) | State::Done(principal) => Some(principal),
            State::Fresh | State::Chosen(_) | State::Challenged(_) => None,
        }
    }

    /// The client chooses a mechanism; whether there is such a one and it is the time for it.
    pub fn choose(&mut self, name: &str) -> Choice {
        if !matches!(self.state, State::Fresh | State::Certified(_)) {
            return Choice::WrongState;
        }
        let mechanism = match name {
            "PLAIN" => Mechanism::Plain,
            "SCRAM-SHA-256" => Mechanism::Scram(ScramMechanism::Sha256),
            "SCRAM-SHA-512" => Mechanism::Scram(ScramMechanism::Sha512),
            _ => return Choice::Unknown,
        };
        self.state = State::Chosen(mechanism);
        Choice::Taken
    }

    /// The client's next token; `nonce` is random. `None` if it is not the time for one.
    pub fn token(&mut self, image: &SecurityImage, token: &[u8], nonce: &str) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Fresh) {
            State::Chosen(Mechanism::Plain) => Some(self.plain(image, token)),
            State::Chosen(Mechanism::Scram(mechanism)) => Some(match ClientFirst::parse(token) {
                Ok(first) => {
                    let stored = image.users.get(&first.user).and_then(|c| c.get(&mechanism));
                    let nobody = || ScramCredential::nobody(mechanism, &self.secret, &first.user);
                    let credential = stored.cloned().unwrap_or_else(nobody);
                    let (exchange, message) =
                        ScramExchange::challenge(first, mechanism, credential, nonce);
                    self.state = State::Challenged(Box::new(exchange));
                    Step::Answer(message.into_bytes())
                }
                Err(error) => Step::Failed(error.to_string()),
            }),
            State::Challenged(exchange) => Some(match exchange.finish(token) {
                Ok((user, message)) => {
                    self.state = State::Done(Principal::User(user.detached()));
                    Step::Answer(message.into_bytes())
                }
                Err(error) => Step::Failed(error.to_string()),
            }),
            state @ (State::Fresh | State::Certified(_) | State::Done(_)) => {
                self.state = state;
                None
            }
        }
    }

    /// `identity NUL user NUL password`.
    fn plain(&mut self, image: &SecurityImage, token: &[u8]) -> Step {
        let parts: Vec<&[u8]> = token.split(|b| *b == 0).collect();
        let [identity, user, password] = parts[..] else {
            return Step::Failed("the PLAIN token is malformed".into());
        };
        let Ok(user) = std::str::from_utf8(user) else {
            return Step::Failed("the user's name is no UTF-8".into());
        };
        if user.is_empty() || password.is_empty() {
            return Step::Failed("user or password is empty".into());
        }
        if !identity.is_empty() && identity != user.as_bytes() {
            return Step::Failed("one user cannot act as another".into());
        }
        Step::Verify(Verification::new(
            image,
            &self.secret,
            &Text::from(user),
            password,
        ))
    }

    /// The password of [`Step::Verify`] was right.
    pub fn verified(&mut self, principal: Principal) {
        self.state = State::Done(principal);
    }
}

/// What came of choosing a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a word")]
pub enum Choice {
    Taken,
    Unknown,
    WrongState,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::image::SecurityChange;

    fn image() -> SecurityImage {
        let mut image = SecurityImage::default();
        let of = |mechanism| {
            (
                mechanism,
                Some(ScramCredential::from_password(
                    mechanism, b"salt", 4096, b"secret",
                )),
            )
        };
        image.apply(SecurityChange::Credentials {
            user: "ann".into(),
            credentials: vec![of(ScramMechanism::Sha256)],
        });
        image
    }

    fn plain(token: &[u8]) -> Option<Principal> {
        let mut sasl = Sasl::new([1; 32]);
        assert_eq!(sasl.choose("PLAIN"), Choice::Taken);
        match sasl.token(&image(), token, "nonce") {
            Some(Step::Verify(verification)) => verification.run(),
            Some(Step::Failed(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_takes_the_right_password_only() {
        assert_eq!(plain(b"\0ann\0secret"), Some(Principal::User("ann".into())));
        assert_eq!(
            plain(b"ann\0ann\0secret"),
            Some(Principal::User("ann".into()))
        );
        for bad in [
            &b"\0ann\0wrong"[..],
            b"\0bob\0secret",
            b"bob\0ann\0secret",
            b"ann\0secret",
            b"\0\0secret",
            b"\0ann\0",
            b"",
            b"\0ann\0secret\0",
        ] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tokens_have_their_time() {
        let mut sasl = Sasl::new([1; 32]);
        assert!(
            sasl.token(&image(), b"\0ann\0secret", "n").is_none(),
            "before the handshake"
        );
        assert_eq!(sasl.choose("GSSAPI"), Choice::Unknown);
        assert_eq!(sasl.choose("SCRAM-SHA-256"), Choice::Taken);
        assert_eq!(sasl.choose("PLAIN"), Choice::WrongState);
        assert_eq!(sasl.principal(), None);
    }

    /// A user that is not there is challenged like any other, with the same salt each time.
    #[test]
    fn users_cannot_be_told_from_nobody() {
        let challenge = |user: &str| {
            let mut sasl = Sasl::new([1; 32]);
            let _taken = sasl.choose("SCRAM-SHA-256");
            match sasl.token(&image(), format!("n,,n={user},r=abc").as_bytes(), "xyz") {
                Some(Step::Answer(bytes)) => String::from_utf8(bytes).expect("text"),
                other => panic!("{other:?}"),
            }
        };
        assert!(challenge("ann").starts_with("r=abcxyz,s="));
        assert!(
            challenge("ghost").starts_with("r=abcxyz,s=")
                && challenge("ghost").ends_with(",i=8192")
        );
        assert_eq!(challenge("ghost"), challenge("ghost"));
        assert_ne!(challenge("ghost"), challenge("phantom"));
    }
}
