//! Who may do what: one authorizer for all doors.

use callboard_common::TopicName;
pub use callboard_common::protocol::security::Operation;
use callboard_common::protocol::security::{CLUSTER_NAME, ResourceKind};

use crate::security::Principal;
use crate::security::acls::Question;
use crate::security::image::SecurityImage;

/// What something is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a TopicName),
    /// A group.
    Group(&'a str),
    /// The cluster.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
}

impl<'a> Resource<'a> {
    fn parts(self) -> (ResourceKind, &'a str) {
        match self {
            Self::Topic(topic) => (ResourceKind::Topic, topic.as_str()),
            Self::Group(group) => (ResourceKind::Group, group),
            Self::Cluster => (ResourceKind::Cluster, CLUSTER_NAME),
            Self::TransactionalId(id) => (ResourceKind::TransactionalId, id),
        }
    }
}

/// Answers whether something is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    enabled: bool,
    super_users: Vec<String>,
}

impl Authorizer {
    /// If `enabled`, only what a rule allows may be done; super users, like `User:admin`, may do all.
    #[must_use]
    pub fn new(enabled: bool, super_users: Vec<String>) -> Self {
        Self {
            enabled,
            super_users,
        }
    }

    fn is_unbound(&self, principal: &Principal) -> bool {
        !self.enabled
            || *principal == Principal::Node
            || self.super_users.iter().any(|u| principal.is_called(u))
    }

    /// Whether `principal` at the address `host` may do `operation` to `resource`. Nobody changes the topics that
    /// the broker owns.
    #[must_use]
    pub fn allows(
        &self,
        image: &SecurityImage,
        (principal, host): (&Principal, &str),
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        let changes = matches!(
            operation,
            Operation::Write
                | Operation::Create
                | Operation::Delete
                | Operation::Alter
                | Operation::AlterConfigs
        );
        if changes && matches!(resource, Resource::Topic(topic) if topic.is_internal()) {
            return false;
        }
        let (kind, name) = resource.parts();
        let question = Question {
            principal,
            host,
            operation,
            resource: kind,
        };
        self.is_unbound(principal) || image.acls.allow(&question, name)
    }

    /// Whether `principal` may do `operation` to at least one resource of a kind.
    #[must_use]
    pub fn allows_any(
        &self,
        image: &SecurityImage,
        (principal, host): (&Principal, &str),
        operation: Operation,
        resource: ResourceKind,
    ) -> bool {
        let question = Question {
            principal,
            host,
            operation,
            resource,
        };
        self.is_unbound(principal) || image.acls.allow_any(&question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_changes_what_the_broker_owns() {
        let (image, nobody) = (SecurityImage::default(), Principal::Anonymous);
        let authorizer = Authorizer::new(false, Vec::new());
        let offsets = TopicName::consumer_offsets();
        let allows = |operation| {
            authorizer.allows(&image, (&nobody, "h"), operation, Resource::Topic(&offsets))
        };
        assert!(allows(Operation::Read) && allows(Operation::DescribeConfigs));
        let changes = [Operation::Write, Operation::Alter, Operation::AlterConfigs];
        assert!(changes.iter().all(|operation| !allows(*operation)));
    }

    #[test]
    fn without_rules_only_super_users_may_do_anything() {
        let image = SecurityImage::default();
        let authorizer = Authorizer::new(true, vec!["User:admin".into()]);
        let allows = |who: Principal| {
            authorizer.allows(&image, (&who, "h"), Operation::Alter, Resource::Cluster)
        };
        assert!(allows(Principal::User("admin".into())));
        assert!(!allows(Principal::User("Admin".into())));
        assert!(!allows(Principal::Anonymous));
    }
}
