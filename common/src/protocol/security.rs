//! Users, what they may do, and how much.
//!
//! The numbers of the enums are Kafka's. Sources: Kafka protocol guide; RFC 5802 and KIP-84 (SCRAM), KIP-554 (users),
//! KIP-140 and KIP-290 (ACLs), KIP-546 (quotas).

use bincode::{Decode, Encode};

use super::groups::Blob;
use crate::ErrorCode;
use crate::kafka::Text;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Kafka's number.
            #[must_use]
            pub fn number(self) -> i8 {
                match self { $(Self::$variant => $number),* }
            }

            /// The one with Kafka's number.
            #[must_use]
            pub fn from_number(number: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.number() == number)
            }

            /// Kafka's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

numbered! {
    /// A way of SCRAM.
    ScramMechanism {
        /// With SHA-256.
        Sha256 = 1 "SCRAM-SHA-256",
        /// With SHA-512.
        Sha512 = 2 "SCRAM-SHA-512",
    }
}

numbered! {
    /// What may be done.
    Operation {
        /// Everything.
        All = 2 "All",
        /// Read records or a group's work.
        Read = 3 "Read",
        /// Append records.
        Write = 4 "Write",
        /// Create topics.
        Create = 5 "Create",
        /// Delete topics, records or groups.
        Delete = 6 "Delete",
        /// Change partitions, users or ACLs.
        Alter = 7 "Alter",
        /// See that something exists, and how it is.
        Describe = 8 "Describe",
        /// What brokers do among themselves.
        ClusterAction = 9 "ClusterAction",
        /// See settings.
        DescribeConfigs = 10 "DescribeConfigs",
        /// Change settings.
        AlterConfigs = 11 "AlterConfigs",
        /// Be an idempotent producer.
        IdempotentWrite = 12 "IdempotentWrite",
    }
}

numbered! {
    /// What it may be done to.
    ResourceKind {
        /// A topic.
        Topic = 2 "Topic",
        /// A group.
        Group = 3 "Group",
        /// The cluster.
        Cluster = 4 "Cluster",
        /// A transactional id.
        TransactionalId = 5 "TransactionalId",
        /// A delegation token.
        DelegationToken = 6 "DelegationToken",
        /// A user.
        User = 7 "User",
    }
}

numbered! {
    /// How an ACL names its resource.
    PatternKind {
        /// By its name; `*` is all of them.
        Literal = 3 "Literal",
        /// By how its name begins.
        Prefixed = 4 "Prefixed",
    }
}

numbered! {
    /// What an ACL says.
    Permission {
        /// No, whatever else is allowed.
        Deny = 2 "Deny",
        /// Yes.
        Allow = 3 "Allow",
    }
}

/// The only resource of its kind is called so.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// One rule. The order is that of its fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Acl {
    /// The kind of resource.
    pub resource: ResourceKind,
    /// How the resource is named.
    pub pattern: PatternKind,
    /// Its name or how it begins.
    pub name: Text,
    /// `User:name`, or `User:*` for all.
    pub principal: Text,
    /// An address, or `*` for all.
    pub host: Text,
    /// What.
    pub operation: Operation,
    /// Whether.
    pub permission: Permission,
}

/// How a filter compares patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PatternFilter {
    /// Both kinds, by the name as it is written.
    Any,
    /// All patterns that the name of a resource falls under.
    Match,
    /// This kind, by the name as it is written.
    Exactly(PatternKind),
}

/// Which rules; `None` is any.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AclFilter {
    /// The kind of resource.
    pub resource: Option<ResourceKind>,
    /// How the name is compared.
    pub pattern: PatternFilter,
    /// The name.
    pub name: Option<Text>,
    /// Who.
    pub principal: Option<Text>,
    /// From where.
    pub host: Option<Text>,
    /// What.
    pub operation: Option<Operation>,
    /// Whether.
    pub permission: Option<Permission>,
}

/// Asks for rules.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeAcls {
    /// Which.
    pub filter: AclFilter,
}

/// Answer to [`DescribeAcls`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedAcls {
    /// Whether they may be seen.
    pub error: ErrorCode,
    /// The rules, sorted.
    pub acls: Vec<Acl>,
}

/// Adds rules.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateAcls {
    /// The rules; one that could not be read is an error with its reason.
    pub acls: Vec<Result<Acl, Text>>,
}

/// Answer to [`CreateAcls`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatedAcls {
    /// By rule, with more about the error.
    pub results: Vec<(ErrorCode, Option<Text>)>,
}

/// Removes rules.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteAcls {
    /// Which; one that could not be read is an error with its reason.
    pub filters: Vec<Result<AclFilter, Text>>,
}

/// Answer to [`DeleteAcls`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedAcls {
    /// By filter: the rules that are gone.
    pub results: Vec<(ErrorCode, Option<Text>, Vec<Acl>)>,
}

/// Asks for users.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeUsers {
    /// Their names; `None` is all.
    pub users: Option<Vec<Text>>,
}

/// Answer to [`DescribeUsers`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedUsers {
    /// Whether they may be seen.
    pub error: ErrorCode,
    /// By user, with mechanisms and their iterations.
    pub users: Vec<(Text, ErrorCode, Vec<Iterations>)>,
}

/// How often a mechanism's password was hashed.
pub type Iterations = (ScramMechanism, i32);

/// How a user proves itself from now on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewCredential {
    /// The user.
    pub user: Text,
    /// Kafka's number of the mechanism.
    pub mechanism: i8,
    /// How often the password was hashed.
    pub iterations: i32,
    /// With what salt.
    pub salt: Blob,
    /// RFC 5802's `SaltedPassword`; the password itself never travels.
    pub salted_password: Blob,
}

/// Adds, changes and removes credentials; those of one user together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlterUsers {
    /// User and Kafka's number of the mechanism.
    pub deletions: Vec<(Text, i8)>,
    /// New credentials.
    pub upsertions: Vec<NewCredential>,
}

/// Answer to [`AlterUsers`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlteredUsers {
    /// By user, sorted, with more about the error.
    pub users: Vec<(Text, ErrorCode, Option<Text>)>,
}

/// Whose quota: pairs of kind (`user`, `client-id`) and name; `None` is the default of the kind. Sorted.
pub type QuotaEntity = Vec<(Text, Option<Text>)>;

/// How a filter compares names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum QuotaMatch {
    /// This one.
    Exactly(Text),
    /// The default.
    Default,
    /// Any, if it is named at all.
    Any,
}

/// Asks for quotas.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeQuotas {
    /// What an entity must have.
    pub components: Vec<(Text, QuotaMatch)>,
    /// Whether it may have nothing else.
    pub strict: bool,
}

/// Answer to [`DescribeQuotas`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DescribedQuotas {
    /// Whether they may be seen.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
    /// By entity, sorted: names and values.
    pub entries: Vec<(QuotaEntity, Vec<(Text, f64)>)>,
}

/// Changes quotas; those of one entity together or not at all.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct AlterQuotas {
    /// The changes by entity.
    pub entries: Vec<(QuotaEntity, Vec<QuotaChange>)>,
    /// Whether to check only.
    pub validate_only: bool,
}

/// A quota's name and its value; `None` removes it.
pub type QuotaChange = (Text, Option<f64>);

/// Answer to [`AlterQuotas`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlteredQuotas {
    /// By entity, with more about the error.
    pub entries: Vec<(QuotaEntity, ErrorCode, Option<Text>)>,
}

/// Proves who uses a connection of the QUIC door, once, before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Authenticate {
    /// The user.
    pub user: Text,
    /// The password; the connection is encrypted and the node has proved itself.
    pub password: Text,
}

/// Answer to [`Authenticate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Authenticated {
    /// Whether the connection is that user's now.
    pub error: ErrorCode,
}
