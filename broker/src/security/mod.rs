//! Who a client is, what it may do, and how much: pure.
//!
//! `image` is the part of the metadata that says so; `acls` decides, `scram` proves, `sasl` is one connection's way
//! from nobody to a user, `certificate` says whose a client's is, `quotas` counts. One authorizer serves all doors: [`crate::api`] asks it.
//!
//! Invariants:
//! - passwords are neither stored nor logged: what is kept proves them (RFC 5802);
//! - with authorization on, what no rule allows is refused, and a rule that denies beats all that allow;
//! - a user that is not there costs as much time as a wrong password.

pub mod acls;
pub mod certificate;
pub mod image;
pub mod quotas;
pub mod sasl;
pub mod scram;

use callboard_common::kafka::Text;

/// Who was authenticated on a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// Nobody in particular; Kafka calls it `User:ANONYMOUS`.
    Anonymous,
    /// A user.
    User(Text),
    /// This node itself, which may do everything.
    Node,
}

impl Principal {
    /// Its name, without `User:`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::User(name) => name,
            Self::Node => "callboard",
        }
    }

    /// Whether an ACL's principal or a setting's super user is this one.
    #[must_use]
    pub fn is_called(&self, principal: &str) -> bool {
        *self != Self::Node
            && principal
                .strip_prefix("User:")
                .is_some_and(|name| name == self.name())
    }
}
