//! Users, rules and quotas: checked here, kept in the metadata.

use std::collections::{BTreeMap, BTreeSet};

use callboard_common::ErrorCode;
use callboard_common::kafka::Text;
use callboard_common::protocol::Response;
use callboard_common::protocol::groups::Blob;
use callboard_common::protocol::security::{
    Acl, AclFilter, AlterQuotas, AlterUsers, AlteredQuotas, AlteredUsers, Authenticate,
    Authenticated, CLUSTER_NAME, CreateAcls, CreatedAcls, DeleteAcls, DeletedAcls, DescribeAcls,
    DescribeQuotas, DescribeUsers, DescribedAcls, DescribedQuotas, DescribedUsers, NewCredential,
    PatternKind, QuotaEntity, ResourceKind, ScramMechanism,
};

use super::topics::{Refused, refused};
use super::{Api, Caller, Operation, Resource};
use crate::controller::Command;
use crate::security::image::{SecurityChange, SecurityImage};
use crate::security::quotas;
use crate::security::sasl::Verification;
use crate::security::scram::{ITERATIONS_MAX, ITERATIONS_MIN, ScramCredential};

/// Longest name of a user, and longest text of a rule or quota.
const NAME_MAX_BYTES: usize = 255;
/// Most rules, users and entities with quotas: all of them together fit into one image.
const ENTRIES_MAX: usize = 20_000;
/// Filters of one request: each looks at every rule.
const FILTERS_MAX: usize = 100;

fn cluster(api: &Api, caller: &Caller, operation: Operation) -> Result<(), Refused> {
    match api.allows(caller, operation, Resource::Cluster) {
        true => Ok(()),
        false => Err(ErrorCode::ClusterAuthorizationFailed.into()),
    }
}

async fn change(api: &Api, change: SecurityChange) -> Result<(), Refused> {
    let _done = api.propose(Command::Security(change)).await?;
    Ok(())
}

fn split(result: Result<(), Refused>) -> (ErrorCode, Option<Text>) {
    match result {
        Ok(()) => (ErrorCode::None, None),
        Err(refused) => (refused.error, Some(refused.message.into())),
    }
}

pub(super) fn describe_acls(api: &Api, caller: &Caller, describe: &DescribeAcls) -> Response {
    Response::DescribeAcls(match cluster(api, caller, Operation::Describe) {
        Ok(()) => DescribedAcls {
            error: ErrorCode::None,
            acls: api.image().security.acls.find(&describe.filter),
        },
        Err(refused) => DescribedAcls {
            error: refused.error,
            acls: Vec::new(),
        },
    })
}

/// A rule that can be kept: nothing of the request's buffer, nothing that could never match.
fn checked_acl(acl: &Acl) -> Result<Acl, Refused> {
    let invalid = |message: &str| Err(refused(ErrorCode::InvalidRequest, message));
    if acl.name.is_empty() {
        return invalid("the resource has no name");
    }
    if [&acl.name, &acl.principal, &acl.host]
        .iter()
        .any(|t| t.len() > NAME_MAX_BYTES)
    {
        return invalid("a name is too long");
    }
    let user = acl.principal.strip_prefix("User:");
    if user.is_none_or(str::is_empty) {
        return invalid("a principal looks like User:name, or User:* for all");
    }
    let host = match acl.host.parse::<std::net::IpAddr>() {
        Ok(address) => Text::from(address.to_canonical().to_string()),
        Err(_) if &*acl.host == "*" => Text::from_static("*"),
        Err(_) => return invalid("a host is an IP address, or * for all"),
    };
    if acl.resource == ResourceKind::Cluster
        && (&*acl.name != CLUSTER_NAME || acl.pattern != PatternKind::Literal)
    {
        return invalid("the only cluster is called kafka-cluster, literally");
    }
    Ok(Acl {
        name: acl.name.detached(),
        principal: acl.principal.detached(),
        host,
        ..acl.clone()
    })
}

pub(super) async fn create_acls(api: &Api, caller: &Caller, create: CreateAcls) -> Response {
    let allowed = cluster(api, caller, Operation::Alter).map_err(|r| r.error);
    let there = api.image().security.acls.iter().count();
    let mut good = Vec::new();
    let mut results: Vec<Result<(), Refused>> = Vec::with_capacity(create.acls.len());
    for acl in create.acls {
        let acl = acl.map_err(|reason| refused(ErrorCode::InvalidRequest, reason));
        let checked = allowed
            .map_err(Refused::from)
            .and(acl)
            .and_then(|acl| checked_acl(&acl));
        results.push(match checked {
            Ok(_) if there + good.len() >= ENTRIES_MAX => Err(refused(
                ErrorCode::PolicyViolation,
                "there are too many ACLs",
            )),
            checked => checked.map(|acl| good.push(acl)),
        });
    }
    if !good.is_empty()
        && let Err(failed) = change(api, SecurityChange::AddAcls(good)).await
    {
        for result in results.iter_mut().filter(|r| r.is_ok()) {
            *result = Err(failed.clone());
        }
    }
    let results = results.into_iter().map(split).collect();
    Response::CreateAcls(CreatedAcls { results })
}

pub(super) async fn delete_acls(api: &Api, caller: &Caller, delete: DeleteAcls) -> Response {
    if delete.filters.len() > FILTERS_MAX {
        let refuse = |_| {
            let message = Text::from_static("too many filters in one request");
            (ErrorCode::InvalidRequest, Some(message), Vec::new())
        };
        let results = delete.filters.iter().map(refuse).collect();
        return Response::DeleteAcls(DeletedAcls { results });
    }
    let mut results = Vec::with_capacity(delete.filters.len());
    for filter in delete.filters {
        let deleted = delete_found(api, caller, filter).await;
        results.push(match deleted {
            Ok(acls) => (ErrorCode::None, None, acls),
            Err(refused) => (refused.error, Some(refused.message.into()), Vec::new()),
        });
    }
    Response::DeleteAcls(DeletedAcls { results })
}

async fn delete_found(
    api: &Api,
    caller: &Caller,
    filter: Result<AclFilter, Text>,
) -> Result<Vec<Acl>, Refused> {
    cluster(api, caller, Operation::Alter)?;
    let filter = filter.map_err(|reason| refused(ErrorCode::InvalidRequest, reason))?;
    let found = api.image().security.acls.find(&filter);
    if !found.is_empty() {
        change(api, SecurityChange::RemoveAcls(found.clone())).await?;
    }
    Ok(found)
}

pub(super) fn describe_users(api: &Api, caller: &Caller, describe: DescribeUsers) -> Response {
    let error = match cluster(api, caller, Operation::Describe) {
        Ok(()) => ErrorCode::None,
        Err(refused) => {
            let (error, users) = (refused.error, Vec::new());
            return Response::DescribeUsers(DescribedUsers { error, users });
        }
    };
    let image = api.image();
    let mut times = BTreeMap::new();
    let asked = describe
        .users
        .unwrap_or_else(|| image.security.users.keys().cloned().collect());
    asked
        .iter()
        .for_each(|user| *times.entry(user.clone()).or_insert(0) += 1);
    let one = |(user, times): (&Text, &i32)| {
        if *times > 1 {
            return (user.clone(), ErrorCode::DuplicateResource, Vec::new());
        }
        match image.security.users.get(user) {
            Some(credentials) => {
                let line = |(mechanism, c): (&ScramMechanism, &ScramCredential)| {
                    (*mechanism, i32::try_from(c.iterations).unwrap_or(i32::MAX))
                };
                (
                    user.clone(),
                    ErrorCode::None,
                    credentials.iter().map(line).collect(),
                )
            }
            None => (user.clone(), ErrorCode::ResourceNotFound, Vec::new()),
        }
    };
    let users = times.iter().map(one).collect();
    Response::DescribeUsers(DescribedUsers { error, users })
}

type Changes = Vec<(ScramMechanism, Option<ScramCredential>)>;

fn mechanism(number: i8) -> Result<ScramMechanism, Refused> {
    let unknown = || {
        refused(
            ErrorCode::UnsupportedSaslMechanism,
            "there is no such SCRAM mechanism",
        )
    };
    ScramMechanism::from_number(number).ok_or_else(unknown)
}

fn new_credential(new: &NewCredential) -> Result<ScramCredential, Refused> {
    let mechanism = mechanism(new.mechanism)?;
    let unacceptable = |message: String| Err(refused(ErrorCode::UnacceptableCredential, message));
    let iterations = u32::try_from(new.iterations).unwrap_or(0);
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return unacceptable(format!(
            "{} iterations; allowed are {ITERATIONS_MIN} to {ITERATIONS_MAX}",
            new.iterations
        ));
    }
    if new.user.is_empty() || new.user.len() > NAME_MAX_BYTES {
        return unacceptable("a user's name has 1 to 255 bytes".into());
    }
    let (Blob(salt), Blob(salted)) = (&new.salt, &new.salted_password);
    if salt.is_empty()
        || salt.len() > NAME_MAX_BYTES
        || salted.is_empty()
        || salted.len() > NAME_MAX_BYTES
    {
        return unacceptable("salt and salted password have 1 to 255 bytes".into());
    }
    Ok(ScramCredential::from_salted(
        mechanism, salt, iterations, salted,
    ))
}

/// What changes of which user, or why nothing of it does.
fn user_changes(
    image: &SecurityImage,
    alter: &AlterUsers,
) -> BTreeMap<Text, Result<Changes, Refused>> {
    let mut users: BTreeMap<Text, Result<Changes, Refused>> = BTreeMap::new();
    let mut note =
        |user: &Text, change: Result<(ScramMechanism, Option<ScramCredential>), Refused>| {
            let of_user = users
                .entry(user.detached())
                .or_insert_with(|| Ok(Vec::new()));
            match (of_user, change) {
                (Ok(changes), Ok((mechanism, _)))
                    if changes.iter().any(|(m, _)| *m == mechanism) =>
                {
                    let twice = refused(
                        ErrorCode::DuplicateResource,
                        "a credential is changed twice",
                    );
                    drop(users.insert(user.detached(), Err(twice)));
                }
                (Ok(changes), Ok(change)) => changes.push(change),
                (of_user @ Ok(_), Err(refused)) => *of_user = Err(refused),
                (Err(_), _) => {}
            }
        };
    for (user, number) in &alter.deletions {
        let there = |m: &ScramMechanism| image.users.get(user).is_some_and(|c| c.contains_key(m));
        let missing = || {
            refused(
                ErrorCode::ResourceNotFound,
                "the user has no such credential",
            )
        };
        let change =
            mechanism(*number).and_then(|m| there(&m).then_some((m, None)).ok_or_else(missing));
        note(user, change);
    }
    for new in &alter.upsertions {
        let credential = new_credential(new).and_then(|c| Ok((mechanism(new.mechanism)?, Some(c))));
        note(&new.user, credential);
    }
    users
}

pub(super) async fn alter_users(api: &Api, caller: &Caller, alter: AlterUsers) -> Response {
    let allowed = cluster(api, caller, Operation::Alter).map_err(|r| r.error);
    let image = api.image();
    let mut users = Vec::new();
    for (user, changes) in user_changes(&image.security, &alter) {
        let is_new = !image.security.users.contains_key(&user);
        let altered = match allowed.map_err(Refused::from).and(changes) {
            Ok(_) if is_new && image.security.users.len() + users.len() >= ENTRIES_MAX => Err(
                refused(ErrorCode::PolicyViolation, "there are too many users"),
            ),
            Ok(credentials) => {
                let user = user.clone();
                change(api, SecurityChange::Credentials { user, credentials }).await
            }
            Err(refused) => Err(refused),
        };
        let (error, message) = split(altered);
        users.push((user, error, message));
    }
    Response::AlterUsers(AlteredUsers { users })
}

pub(super) fn describe_quotas(api: &Api, caller: &Caller, describe: &DescribeQuotas) -> Response {
    let refuse = |error: ErrorCode| DescribedQuotas {
        error,
        message: Some(error.message().into()),
        entries: Vec::new(),
    };
    if let Err(refused) = cluster(api, caller, Operation::DescribeConfigs) {
        return Response::DescribeQuotas(refuse(refused.error));
    }
    let image = api.image();
    let found = image
        .security
        .quotas
        .iter()
        .filter(|(e, _)| quotas::matches(describe, e));
    let entries = found.map(|(entity, values)| {
        let values = values
            .iter()
            .map(|(name, value)| (name.clone(), value.get()));
        (entity.clone(), values.collect())
    });
    Response::DescribeQuotas(DescribedQuotas {
        error: ErrorCode::None,
        message: None,
        entries: entries.collect(),
    })
}

pub(super) async fn alter_quotas(api: &Api, caller: &Caller, alter: AlterQuotas) -> Response {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(alter.entries.len());
    for (entity, values) in alter.entries {
        let altered = alter_quota(
            api,
            caller,
            &entity,
            values,
            (&mut seen, alter.validate_only),
        )
        .await;
        let (error, message) = split(altered);
        entries.push((entity, error, message));
    }
    Response::AlterQuotas(AlteredQuotas { entries })
}

async fn alter_quota(
    api: &Api,
    caller: &Caller,
    entity: &QuotaEntity,
    values: Vec<(Text, Option<f64>)>,
    (seen, validate_only): (&mut BTreeSet<QuotaEntity>, bool),
) -> Result<(), Refused> {
    cluster(api, caller, Operation::AlterConfigs)?;
    let entity = quotas::checked(entity, &values)
        .map_err(|message| refused(ErrorCode::InvalidRequest, message))?;
    if entity
        .iter()
        .any(|(_, name)| name.as_ref().is_some_and(|n| n.len() > NAME_MAX_BYTES))
    {
        return Err(refused(ErrorCode::InvalidRequest, "a name is too long"));
    }
    if !seen.insert(entity.clone()) {
        return Err(refused(
            ErrorCode::InvalidRequest,
            "the entity is named twice",
        ));
    }
    let image = api.image();
    if !image.security.quotas.contains_key(&entity) && image.security.quotas.len() >= ENTRIES_MAX {
        return Err(refused(
            ErrorCode::PolicyViolation,
            "there are too many quotas",
        ));
    }
    if validate_only {
        return Ok(());
    }
    let detached =
        |(kind, name): (Text, Option<Text>)| (kind.detached(), name.map(|n| n.detached()));
    let values = values
        .into_iter()
        .map(|(name, value)| (name.detached(), value.map(Into::into)));
    let (entity, values) = (entity.into_iter().map(detached).collect(), values.collect());
    change(api, SecurityChange::Quotas { entity, values }).await
}

/// Checks a password of the QUIC door; the connection notes who it is.
pub(super) async fn authenticate(api: &Api, caller: &Caller, asked: Authenticate) -> Response {
    if !api.config().authenticate || caller.became.is_proved() {
        let error = ErrorCode::IllegalSaslState;
        return Response::Authenticate(Authenticated { error });
    }
    let principal = api.verified(&asked.user, asked.password.as_bytes()).await;
    let error = match principal {
        Some(principal) => {
            caller.became.note(principal);
            ErrorCode::None
        }
        None => ErrorCode::SaslAuthenticationFailed,
    };
    Response::Authenticate(Authenticated { error })
}

impl Api {
    /// Whether a user's password is right; takes milliseconds of a background thread, and longer if it is wrong.
    pub async fn verified(
        &self,
        user: &Text,
        password: &[u8],
    ) -> Option<crate::security::Principal> {
        let image = self.image();
        let verification = Verification::new(&image.security, self.secret(), user, password);
        self.run_verification(verification).await
    }

    /// As [`Api::verified`].
    pub async fn run_verification(
        &self,
        verification: Verification,
    ) -> Option<crate::security::Principal> {
        // A flood of guesses waits here, not in front of the reads of the same pool.
        let _turn = self.0.verifications.acquire().await;
        let pool = self.shared().runtime.background();
        let principal = pool.ask(move || verification.run()).await.flatten();
        if principal.is_none() {
            self.delay_failure().await;
        }
        principal
    }

    /// Guessing takes time.
    pub async fn delay_failure(&self) {
        self.shared()
            .clock
            .sleep(super::FAILED_AUTHENTICATION_DELAY)
            .await;
    }
}
