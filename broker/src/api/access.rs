//! Who may do what: one authorizer for all doors.
//!
//! There is no authentication yet, so everybody is [`Principal::Anonymous`] and everything is allowed; the calls
//! stand where the rules will be asked.

use callboard_common::TopicName;
use callboard_common::kafka::Text;

/// Who was authenticated on a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// A user.
    User(Text),
}

/// What is to be done (Kafka's `AclOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Read records or a group's work.
    Read,
    /// Append records.
    Write,
    /// Create topics.
    Create,
    /// Delete topics, records or groups.
    Delete,
    /// See that something exists, and how it is.
    Describe,
}

/// What it is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a TopicName),
    /// A group.
    Group(&'a str),
    /// The cluster.
    Cluster,
}

/// Answers whether something is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Authorizer(());

impl Authorizer {
    /// Everybody may do everything, except that clients write to no internal topic and delete none.
    #[must_use]
    pub fn allow_all() -> Self {
        Self(())
    }

    /// Whether `principal` may do `operation` to `resource`.
    #[must_use]
    pub fn allows(
        &self,
        _principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        match (operation, resource) {
            (Operation::Write | Operation::Create | Operation::Delete, Resource::Topic(topic)) => {
                !topic.is_internal()
            }
            (
                Operation::Read
                | Operation::Describe
                | Operation::Write
                | Operation::Create
                | Operation::Delete,
                Resource::Topic(_) | Resource::Group(_) | Resource::Cluster,
            ) => true,
        }
    }
}
