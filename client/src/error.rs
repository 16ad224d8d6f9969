//! What can go wrong for a client.

use callboard_common::ErrorCode;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server could not be reached, or the connection broke; what was asked may have happened.
    #[error("no connection to {server}: {reason}; is the node running, and is the address right?")]
    Connection {
        /// The server's address.
        server: String,
        /// What is known.
        reason: String,
    },
    /// The server refused; nothing happened.
    #[error("{code}{}", detail.as_ref().map(|d| format!(" {d}")).unwrap_or_default())]
    Refused {
        /// Kafka's code.
        code: ErrorCode,
        /// More, if the server said more.
        detail: Option<String>,
    },
    /// The node does not believe that the client is this user.
    #[error("the server did not accept user {user:?} with this password")]
    Authentication {
        /// The user.
        user: String,
    },
    /// The topic is not there and was not created.
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    /// No answer in time; what was asked may have happened.
    #[error("no answer in time")]
    Timeout,
    /// The record does not fit the limits; nothing was sent.
    #[error("a record of {size_bytes} bytes exceeds the limit of {limit_bytes}")]
    RecordTooLarge {
        /// The record's size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The handle was closed.
    #[error("it was closed")]
    Closed,
    /// A position was lost and the settings forbid to choose another one.
    #[error(
        "there is no committed offset for {partition}, or it is out of range, and offset_reset is None"
    )]
    NoOffset {
        /// The partition.
        partition: String,
    },
    /// Records cannot be read.
    #[error("records cannot be read: {0}")]
    Corrupt(String),
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// A refusal without more to say.
    #[must_use]
    pub fn refused(code: ErrorCode) -> Self {
        Self::Refused { code, detail: None }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout => true,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::UnknownTopic(_)
            | Self::Authentication { .. }
            | Self::RecordTooLarge { .. }
            | Self::Closed
            | Self::NoOffset { .. }
            | Self::Corrupt(_)
            | Self::Config(_) => false,
        }
    }

    /// Kafka's code, if the server refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::UnknownTopic(_) => Some(ErrorCode::UnknownTopicOrPartition),
            Self::Authentication { .. } => Some(ErrorCode::SaslAuthenticationFailed),
            Self::Connection { .. }
            | Self::Timeout
            | Self::RecordTooLarge { .. }
            | Self::Closed
            | Self::NoOffset { .. }
            | Self::Corrupt(_)
            | Self::Config(_) => None,
        }
    }
}

/// `Ok` for [`ErrorCode::None`].
pub(crate) fn check(code: ErrorCode) -> Result<(), Error> {
    if code == ErrorCode::None {
        Ok(())
    } else {
        Err(Error::refused(code))
    }
}
