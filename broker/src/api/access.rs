//! Who may do what: one authorizer for all doors.

use callboard_common::kafka::Text;
pub use callboard_common::protocol::security::Operation;
use callboard_common::protocol::security::{CLUSTER_NAME, ResourceKind};
use callboard_common::{BrokerId, TopicName};

use super::{Api, Caller};
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
    /// What can be done to something of this kind, as Kafka tells it (`AclEntry.supportedOperations`).
    fn operations(self) -> &'static [Operation] {
        match self {
            Self::Topic(_) => &[
                Operation::Read,
                Operation::Write,
                Operation::Create,
                Operation::Describe,
                Operation::Delete,
                Operation::Alter,
                Operation::DescribeConfigs,
                Operation::AlterConfigs,
            ],
            Self::Group(_) => &[
                Operation::Read,
                Operation::Describe,
                Operation::Delete,
                Operation::DescribeConfigs,
                Operation::AlterConfigs,
            ],
            Self::Cluster => &[
                Operation::Create,
                Operation::ClusterAction,
                Operation::DescribeConfigs,
                Operation::AlterConfigs,
                Operation::IdempotentWrite,
                Operation::Alter,
                Operation::Describe,
            ],
            Self::TransactionalId(_) => &[Operation::Describe, Operation::Write],
        }
    }

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

    /// All that `principal` may do to a resource: a bit for each of Kafka's numbers of operations (KIP-430). Of the cluster only who
    /// may see how it is learns it.
    #[must_use]
    pub fn rights(
        &self,
        image: &SecurityImage,
        who: (&Principal, &str),
        resource: Resource<'_>,
    ) -> i32 {
        let may_know =
            resource != Resource::Cluster || self.allows(image, who, Operation::Describe, resource);
        let operations = resource.operations().iter().filter(|_| may_know);
        let may = operations.filter(|o| self.allows(image, who, **o, resource));
        may.fold(0, |bits, operation| bits | 1 << operation.number())
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

impl Api {
    pub(super) fn allows_any(
        &self,
        caller: &Caller,
        operation: Operation,
        resource: ResourceKind,
    ) -> bool {
        let image = self.0.published.image.load();
        let who = (&caller.principal, caller.address());
        let authorizer = &self.0.config.authorizer;
        authorizer.allows_any(&image.security, who, operation, resource)
    }

    /// All that somebody at an address, as Kafka writes it, may do to a resource; see [`Authorizer::rights`].
    #[must_use]
    pub fn rights(&self, who: &Principal, host: &str, resource: Resource<'_>) -> i32 {
        let image = self.0.published.image.load();
        let authorizer = &self.0.config.authorizer;
        let host = host.strip_prefix('/').unwrap_or(host);
        authorizer.rights(&image.security, (who, host), resource)
    }

    /// Where a node stands.
    #[must_use]
    pub fn rack(&self, broker: BrokerId) -> Option<Text> {
        let image = self.0.published.image.load();
        let rack = image.brokers.get(&broker)?.rack.as_deref();
        rack.map(Text::from)
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
    fn rights_are_bits_of_kafkas_numbers() {
        let (image, nobody) = (SecurityImage::default(), Principal::Anonymous);
        let topic = TopicName::new("t").expect("valid");
        let rights = |enabled: bool, resource: Resource<'_>| {
            let authorizer = Authorizer::new(enabled, Vec::new());
            authorizer.rights(&image, (&nobody, "h"), resource)
        };
        // Numbers 3 to 8, 10 and 11.
        assert_eq!(rights(false, Resource::Topic(&topic)), 0b1101_1111_1000);
        assert_eq!(rights(false, Resource::Group("g")), 0b1101_0100_1000);
        assert_eq!(rights(false, Resource::Cluster), 0b1_1111_1010_0000);
        assert_eq!(rights(true, Resource::Topic(&topic)), 0);
        // Nobody writes what the broker owns.
        let offsets = TopicName::consumer_offsets();
        assert_eq!(rights(false, Resource::Topic(&offsets)), 0b0101_0000_1000);
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
