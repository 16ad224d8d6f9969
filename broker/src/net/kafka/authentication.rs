//! SaslHandshake and SaslAuthenticate on one connection: the shell of [`Sasl`].

use bytes::Bytes;
use callboard_common::ErrorCode;
use callboard_common::Uuid;
use callboard_common::kafka::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use callboard_common::kafka::{ApiKey, Text};

use super::connection::{At, Closed};
use super::convert::Message;
use crate::api::Api;
use crate::security::Principal;
use crate::security::sasl::{Choice, MECHANISMS, Sasl, Step};

/// Largest request of a client that has not proved who it is.
const UNAUTHENTICATED_MAX_BYTES: u32 = 64 << 10;

/// Who uses a connection.
#[derive(Debug)]
pub(super) struct Authentication {
    sasl: Sasl,
    /// After a handshake of version 0 tokens come without header, as before KIP-152.
    raw: bool,
}

/// What a client wants answered about who it is.
pub(super) struct Reply {
    version: i16,
    correlation_id: i32,
    about: About,
}

enum About {
    Handshake(Text),
    Token(Bytes),
    RawToken(Bytes),
}

impl Reply {
    pub(super) fn handshake(version: i16, correlation_id: i32, mechanism: Text) -> Self {
        let about = About::Handshake(mechanism);
        Self {
            version,
            correlation_id,
            about,
        }
    }

    pub(super) fn token(version: i16, correlation_id: i32, token: Bytes) -> Self {
        let about = About::Token(token);
        Self {
            version,
            correlation_id,
            about,
        }
    }

    pub(super) fn raw(token: Bytes) -> Self {
        let about = About::RawToken(token);
        Self {
            version: 0,
            correlation_id: 0,
            about,
        }
    }
}

/// What a token came to.
enum Outcome {
    Answer(Vec<u8>),
    NotNow,
    Failed(String),
}

impl Authentication {
    /// Of a connection whose client has shown the certificate of `certified`, if it has.
    pub(super) fn new(api: &Api, certified: Option<Principal>) -> Self {
        let sasl = match (certified, api.config().authenticate) {
            (Some(principal), _) => Sasl::certified(*api.secret(), principal),
            (None, true) => Sasl::new(*api.secret()),
            (None, false) => Sasl::not_required(),
        };
        Self { sasl, raw: false }
    }

    /// Whether a request may be served now.
    pub(super) fn admits(&self, key: ApiKey) -> bool {
        let always = [
            ApiKey::ApiVersions,
            ApiKey::SaslHandshake,
            ApiKey::SaslAuthenticate,
        ];
        self.sasl.principal().is_some() || always.contains(&key)
    }

    /// Largest request that may come now.
    pub(super) fn request_max_bytes(&self, limit: u32) -> u32 {
        match self.sasl.principal() {
            Some(_) => limit,
            None => limit.min(UNAUTHENTICATED_MAX_BYTES),
        }
    }

    pub(super) fn takes_raw_tokens(&self) -> bool {
        self.raw && self.sasl.principal().is_none()
    }

    /// Who it is; nobody before that is proved.
    pub(super) fn principal(&self) -> Principal {
        self.sasl
            .principal()
            .cloned()
            .unwrap_or(Principal::Anonymous)
    }

    /// The answer, and why the connection must be closed after it.
    pub(super) async fn reply(
        &mut self,
        api: &Api,
        reply: Reply,
    ) -> (Result<Vec<Bytes>, Closed>, Option<String>) {
        let (version, correlation_id) = (reply.version, reply.correlation_id);
        let at = |key| At {
            key,
            version,
            correlation_id,
        };
        match reply.about {
            About::Handshake(mechanism) => {
                let (answer, failed) = self.handshake(version, &mechanism);
                (at(ApiKey::SaslHandshake).frame(&answer), failed)
            }
            About::Token(token) => {
                let (answer, failed) = answer(self.token(api, &token).await);
                (at(ApiKey::SaslAuthenticate).frame(&answer), failed)
            }
            About::RawToken(token) => match self.token(api, &token).await {
                Outcome::Answer(bytes) => {
                    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                    (Ok(vec![[&length, &bytes[..]].concat().into()]), None)
                }
                Outcome::NotNow | Outcome::Failed(_) => (
                    Err(Closed::AuthenticationFailed(
                        "a token without header failed".into(),
                    )),
                    None,
                ),
            },
        }
    }

    fn handshake(&mut self, version: i16, mechanism: &str) -> (Message, Option<String>) {
        let choice = self.sasl.choose(mechanism);
        self.raw = version == 0 && choice == Choice::Taken;
        let (error, failed) = match choice {
            Choice::Taken => (ErrorCode::None, None),
            Choice::Unknown => {
                let reason = "the mechanism is not supported".to_owned();
                (ErrorCode::UnsupportedSaslMechanism, Some(reason))
            }
            Choice::WrongState => (ErrorCode::IllegalSaslState, None),
        };
        let answer = SaslHandshakeResponse {
            error_code: error.number(),
            mechanisms: MECHANISMS.iter().map(|m| Text::from_static(m)).collect(),
        };
        (Box::new(answer), failed)
    }

    async fn token(&mut self, api: &Api, token: &[u8]) -> Outcome {
        let nonce = Uuid::random().to_string();
        let image = api.image();
        match self.sasl.token(&image.security, token, &nonce) {
            None => Outcome::NotNow,
            Some(Step::Answer(bytes)) => Outcome::Answer(bytes),
            Some(Step::Verify(verification)) => match api.run_verification(verification).await {
                Some(principal) => {
                    self.sasl.verified(principal);
                    Outcome::Answer(Vec::new())
                }
                None => Outcome::Failed("user or password is wrong".into()),
            },
            Some(Step::Failed(reason)) => {
                api.delay_failure().await;
                Outcome::Failed(reason)
            }
        }
    }
}

/// The answer to a token; a client is never told more than that it failed.
fn answer(outcome: Outcome) -> (Message, Option<String>) {
    let refuse = |error: ErrorCode, message: &'static str| SaslAuthenticateResponse {
        error_code: error.number(),
        error_message: Some(Text::from_static(message)),
        ..Default::default()
    };
    match outcome {
        Outcome::Answer(bytes) => {
            let auth_bytes = bytes.into();
            (
                Box::new(SaslAuthenticateResponse {
                    auth_bytes,
                    ..Default::default()
                }),
                None,
            )
        }
        Outcome::NotNow => {
            let message = "SaslAuthenticate comes after SaslHandshake, once";
            (Box::new(refuse(ErrorCode::IllegalSaslState, message)), None)
        }
        Outcome::Failed(reason) => {
            let message = "Authentication failed: user or credentials are wrong";
            (
                Box::new(refuse(ErrorCode::SaslAuthenticationFailed, message)),
                Some(reason),
            )
        }
    }
}
