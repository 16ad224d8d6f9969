//! ACLs, users and quotas.

use callboard_common::ErrorCode;
use callboard_common::kafka::Text;
use callboard_common::kafka::messages as m;
use callboard_common::protocol::Response;
use callboard_common::protocol::groups::Blob;
use callboard_common::protocol::security::{
    Acl, AclFilter, AlterQuotas, AlterUsers, AlteredQuotas, AlteredUsers, CreateAcls, CreatedAcls,
    DeleteAcls, DeletedAcls, DescribeAcls, DescribeQuotas, DescribeUsers, DescribedAcls,
    DescribedQuotas, DescribedUsers, NewCredential, Operation, PatternFilter, PatternKind,
    Permission, QuotaEntity, QuotaMatch, ResourceKind, ScramMechanism,
};

use super::{Answering, Converted, Message, expect};

/// Kafka's number of any.
const ANY: i8 = 1;
/// Kafka's number of all patterns that a name falls under.
const MATCH: i8 = 2;

/// A filter's number: any, one of them, or one that nobody knows.
fn or_any<T>(number: i8, known: impl Fn(i8) -> Option<T>, what: &str) -> Result<Option<T>, Text> {
    match number {
        ANY => Ok(None),
        other => known(other)
            .map(Some)
            .ok_or_else(|| format!("unknown {what} {other}").into()),
    }
}

/// The numbers of a filter: resource, pattern, operation, permission.
type Numbers = (i8, i8, i8, i8);

fn filter(
    (resource, pattern, operation, permission): Numbers,
    name: Option<Text>,
    principal: Option<Text>,
    host: Option<Text>,
) -> Result<AclFilter, Text> {
    Ok(AclFilter {
        resource: or_any(resource, ResourceKind::from_number, "resource type")?,
        pattern: match pattern {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            other => PatternKind::from_number(other)
                .map(PatternFilter::Exactly)
                .ok_or_else(|| Text::from(format!("unknown pattern type {other}")))?,
        },
        name,
        principal,
        host,
        operation: or_any(operation, Operation::from_number, "operation")?,
        permission: or_any(permission, Permission::from_number, "permission type")?,
    })
}

pub(super) fn describe_acls(request: m::DescribeAclsRequest) -> Converted {
    let numbers = (
        request.resource_type_filter,
        request.pattern_type_filter,
        request.operation,
        request.permission_type,
    );
    let filter = filter(
        numbers,
        request.resource_name_filter,
        request.principal_filter,
        request.host_filter,
    );
    match filter {
        Ok(filter) => Converted::Request(DescribeAcls { filter }.into(), Answering::DescribeAcls),
        Err(reason) => Converted::Answer(Box::new(m::DescribeAclsResponse {
            error_code: ErrorCode::InvalidRequest.number(),
            error_message: Some(reason),
            ..Default::default()
        })),
    }
}

pub(super) fn described_acls(response: Response) -> Message {
    let described = expect::<DescribedAcls>(response).unwrap_or_else(|error| DescribedAcls {
        error,
        acls: Vec::new(),
    });
    let mut resources: Vec<m::describe_acls_response::DescribeAclsResource> = Vec::new();
    // Rules of one resource follow each other.
    for acl in described.acls {
        let (kind, pattern) = (acl.resource.number(), acl.pattern.number());
        let rule = m::describe_acls_response::AclDescription {
            principal: acl.principal,
            host: acl.host,
            operation: acl.operation.number(),
            permission_type: acl.permission.number(),
        };
        match resources.last_mut() {
            Some(last)
                if (last.resource_type, last.pattern_type) == (kind, pattern)
                    && last.resource_name == acl.name =>
            {
                last.acls.push(rule);
            }
            Some(_) | None => resources.push(m::describe_acls_response::DescribeAclsResource {
                resource_type: kind,
                resource_name: acl.name,
                pattern_type: pattern,
                acls: vec![rule],
            }),
        }
    }
    let failed = described.error != ErrorCode::None;
    Box::new(m::DescribeAclsResponse {
        error_code: described.error.number(),
        error_message: failed.then(|| described.error.message().into()),
        resources,
        ..Default::default()
    })
}

pub(super) fn create_acls(request: m::CreateAclsRequest) -> Converted {
    let acl = |c: m::create_acls_request::AclCreation| {
        let unknown = |what: &str| Text::from(format!("unknown {what}"));
        Ok(Acl {
            resource: ResourceKind::from_number(c.resource_type)
                .ok_or_else(|| unknown("resource type"))?,
            pattern: PatternKind::from_number(c.resource_pattern_type)
                .ok_or_else(|| unknown("pattern type"))?,
            name: c.resource_name,
            principal: c.principal,
            host: c.host,
            operation: Operation::from_number(c.operation).ok_or_else(|| unknown("operation"))?,
            permission: Permission::from_number(c.permission_type)
                .ok_or_else(|| unknown("permission type"))?,
        })
    };
    let acls = request.creations.into_iter().map(acl).collect();
    Converted::Request(CreateAcls { acls }.into(), Answering::CreateAcls)
}

pub(super) fn created_acls(response: Response) -> Message {
    let results = expect::<CreatedAcls>(response).map_or_else(|_| Vec::new(), |c| c.results);
    let result =
        |(error, error_message): (ErrorCode, _)| m::create_acls_response::AclCreationResult {
            error_code: error.number(),
            error_message,
        };
    Box::new(m::CreateAclsResponse {
        results: results.into_iter().map(result).collect(),
        ..Default::default()
    })
}

pub(super) fn delete_acls(request: m::DeleteAclsRequest) -> Converted {
    let one = |f: m::delete_acls_request::DeleteAclsFilter| {
        let numbers = (
            f.resource_type_filter,
            f.pattern_type_filter,
            f.operation,
            f.permission_type,
        );
        filter(
            numbers,
            f.resource_name_filter,
            f.principal_filter,
            f.host_filter,
        )
    };
    let filters = request.filters.into_iter().map(one).collect();
    Converted::Request(DeleteAcls { filters }.into(), Answering::DeleteAcls)
}

pub(super) fn deleted_acls(response: Response) -> Message {
    let results = expect::<DeletedAcls>(response).map_or_else(|_| Vec::new(), |d| d.results);
    let acl = |acl: Acl| m::delete_acls_response::DeleteAclsMatchingAcl {
        resource_type: acl.resource.number(),
        resource_name: acl.name,
        pattern_type: acl.pattern.number(),
        principal: acl.principal,
        host: acl.host,
        operation: acl.operation.number(),
        permission_type: acl.permission.number(),
        ..Default::default()
    };
    let result = |(error, error_message, acls): (ErrorCode, _, Vec<Acl>)| {
        m::delete_acls_response::DeleteAclsFilterResult {
            error_code: error.number(),
            error_message,
            matching_acls: acls.into_iter().map(acl).collect(),
        }
    };
    Box::new(m::DeleteAclsResponse {
        filter_results: results.into_iter().map(result).collect(),
        ..Default::default()
    })
}

pub(super) fn describe_users(request: m::DescribeUserScramCredentialsRequest) -> Converted {
    // Both null and an empty list ask for all.
    let users = request.users.filter(|users| !users.is_empty());
    let users = users.map(|users| users.into_iter().map(|u| u.name).collect());
    Converted::Request(DescribeUsers { users }.into(), Answering::DescribeUsers)
}

pub(super) fn described_users(response: Response) -> Message {
    use m::describe_user_scram_credentials_response as r;
    let described = expect::<DescribedUsers>(response).unwrap_or_else(|error| DescribedUsers {
        error,
        users: Vec::new(),
    });
    let message = |e: ErrorCode| (e != ErrorCode::None).then(|| Text::from_static(e.message()));
    let credential = |(mechanism, iterations): (ScramMechanism, i32)| r::CredentialInfo {
        mechanism: mechanism.number(),
        iterations,
    };
    let user = |(user, error, credentials): (Text, ErrorCode, Vec<_>)| {
        r::DescribeUserScramCredentialsResult {
            user,
            error_code: error.number(),
            error_message: message(error),
            credential_infos: credentials.into_iter().map(credential).collect(),
        }
    };
    Box::new(m::DescribeUserScramCredentialsResponse {
        error_code: described.error.number(),
        error_message: message(described.error),
        results: described.users.into_iter().map(user).collect(),
        ..Default::default()
    })
}

pub(super) fn alter_users(request: m::AlterUserScramCredentialsRequest) -> Converted {
    let new =
        |u: m::alter_user_scram_credentials_request::ScramCredentialUpsertion| NewCredential {
            user: u.name,
            mechanism: u.mechanism,
            iterations: u.iterations,
            salt: Blob(u.salt),
            salted_password: Blob(u.salted_password),
        };
    let deletions = request.deletions.into_iter().map(|d| (d.name, d.mechanism));
    let alter = AlterUsers {
        deletions: deletions.collect(),
        upsertions: request.upsertions.into_iter().map(new).collect(),
    };
    Converted::Request(alter.into(), Answering::AlterUsers)
}

pub(super) fn altered_users(response: Response) -> Message {
    use m::alter_user_scram_credentials_response as r;
    let users = expect::<AlteredUsers>(response).map_or_else(|_| Vec::new(), |a| a.users);
    let user =
        |(user, error, error_message): (Text, ErrorCode, _)| r::AlterUserScramCredentialsResult {
            user,
            error_code: error.number(),
            error_message,
        };
    Box::new(m::AlterUserScramCredentialsResponse {
        results: users.into_iter().map(user).collect(),
        ..Default::default()
    })
}

pub(super) fn describe_quotas(request: m::DescribeClientQuotasRequest) -> Converted {
    let component = |c: m::describe_client_quotas_request::ComponentData| {
        let wanted = match (c.match_type, c.r#match) {
            (0, Some(name)) => QuotaMatch::Exactly(name),
            (1, _) => QuotaMatch::Default,
            _ => QuotaMatch::Any,
        };
        (c.entity_type, wanted)
    };
    let describe = DescribeQuotas {
        components: request.components.into_iter().map(component).collect(),
        strict: request.strict,
    };
    Converted::Request(describe.into(), Answering::DescribeQuotas)
}

pub(super) fn described_quotas(response: Response) -> Message {
    use m::describe_client_quotas_response as r;
    let described = match expect::<DescribedQuotas>(response) {
        Ok(described) => described,
        Err(error) => DescribedQuotas {
            error,
            message: Some(error.message().into()),
            entries: Vec::new(),
        },
    };
    let value = |(key, value)| r::ValueData { key, value };
    let part = |(entity_type, entity_name)| r::EntityData {
        entity_type,
        entity_name,
    };
    let entry = |(entity, values): (QuotaEntity, Vec<(Text, f64)>)| r::EntryData {
        entity: entity.into_iter().map(part).collect(),
        values: values.into_iter().map(value).collect(),
    };
    let failed = described.error != ErrorCode::None;
    let entries = described.entries.into_iter().map(entry).collect();
    Box::new(m::DescribeClientQuotasResponse {
        error_code: described.error.number(),
        error_message: described.message,
        entries: (!failed).then_some(entries),
        ..Default::default()
    })
}

pub(super) fn alter_quotas(request: m::AlterClientQuotasRequest) -> Converted {
    let entry = |e: m::alter_client_quotas_request::EntryData| {
        let entity = e.entity.into_iter().map(|p| (p.entity_type, p.entity_name));
        let ops = e
            .ops
            .into_iter()
            .map(|op| (op.key, (!op.remove).then_some(op.value)));
        (entity.collect(), ops.collect())
    };
    let alter = AlterQuotas {
        entries: request.entries.into_iter().map(entry).collect(),
        validate_only: request.validate_only,
    };
    Converted::Request(alter.into(), Answering::AlterQuotas)
}

pub(super) fn altered_quotas(response: Response) -> Message {
    use m::alter_client_quotas_response as r;
    let entries = expect::<AlteredQuotas>(response).map_or_else(|_| Vec::new(), |a| a.entries);
    let part = |(entity_type, entity_name)| r::EntityData {
        entity_type,
        entity_name,
    };
    let entry = |(entity, error, error_message): (QuotaEntity, ErrorCode, _)| r::EntryData {
        error_code: error.number(),
        error_message,
        entity: entity.into_iter().map(part).collect(),
    };
    Box::new(m::AlterClientQuotasResponse {
        entries: entries.into_iter().map(entry).collect(),
        ..Default::default()
    })
}
