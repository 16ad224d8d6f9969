//! Users, rules and quotas.

use callboard_common::crypto::salted_password;
use callboard_common::kafka::Text;
use callboard_common::protocol::groups::Blob;
use callboard_common::protocol::security::{
    Acl, AclFilter, AlterQuotas, AlterUsers, AlteredQuotas, AlteredUsers, CreateAcls, CreatedAcls,
    DeleteAcls, DeletedAcls, DescribeAcls, DescribeQuotas, DescribeUsers, DescribedAcls,
    DescribedQuotas, DescribedUsers, NewCredential, QuotaChange, QuotaEntity, ScramMechanism,
};
use callboard_common::{ErrorCode, Uuid};

use super::{Admin, refused};
use crate::connection::Lane;
use crate::error::{Error, check};

/// Hash rounds of new passwords.
const ITERATIONS: u32 = 8192;

impl Admin {
    /// All users with the mechanisms by which they prove themselves, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `ClusterAuthorizationFailed` if the caller may not know.
    pub async fn users(&self) -> Result<Vec<(Text, Vec<ScramMechanism>)>, Error> {
        let accept = |described: DescribedUsers| {
            check(described.error)?;
            let user = |(user, _, mechanisms): (Text, ErrorCode, Vec<(ScramMechanism, i32)>)| {
                (user, mechanisms.into_iter().map(|(m, _)| m).collect())
            };
            Ok(described.users.into_iter().map(user).collect())
        };
        self.client
            .ask_patiently(Lane::Control, DescribeUsers { users: None }, accept)
            .await
    }

    /// Gives a user a password, for every mechanism; the password itself does not leave the client.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; the user is as before.
    pub async fn set_password(&self, user: &str, password: &str) -> Result<(), Error> {
        let credential = |mechanism: &ScramMechanism| {
            let salt = [Uuid::random().0, Uuid::random().0].concat();
            let salted = salted_password(*mechanism, password.as_bytes(), &salt, ITERATIONS);
            NewCredential {
                user: user.into(),
                mechanism: mechanism.number(),
                iterations: ITERATIONS as i32,
                salt: Blob(salt.into()),
                salted_password: Blob(salted.into()),
            }
        };
        let request = AlterUsers {
            deletions: Vec::new(),
            upsertions: ScramMechanism::ALL.iter().map(credential).collect(),
        };
        self.alter_users(request).await
    }

    /// Removes a user; its open connections go on.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `ResourceNotFound` if there is none.
    pub async fn delete_user(&self, user: &str) -> Result<(), Error> {
        let users = self.users().await?;
        let found = users.into_iter().find(|(name, _)| &**name == user);
        let (_, mechanisms) = found.ok_or(Error::refused(ErrorCode::ResourceNotFound))?;
        let deletions = mechanisms.into_iter().map(|m| (user.into(), m.number()));
        let request = AlterUsers {
            deletions: deletions.collect(),
            upsertions: Vec::new(),
        };
        self.alter_users(request).await
    }

    async fn alter_users(&self, request: AlterUsers) -> Result<(), Error> {
        let accept = |altered: AlteredUsers| {
            let mut users = altered.users.into_iter();
            users.try_for_each(|(_, error, detail)| refused(error, detail))
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// The rules that a filter finds, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `ClusterAuthorizationFailed` if the caller may not know.
    pub async fn acls(&self, filter: AclFilter) -> Result<Vec<Acl>, Error> {
        let accept = |described: DescribedAcls| check(described.error).map(|()| described.acls);
        self.client
            .ask_patiently(Lane::Control, DescribeAcls { filter }, accept)
            .await
    }

    /// Adds a rule; one that is there stays.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with what is wrong with it.
    pub async fn create_acl(&self, acl: Acl) -> Result<(), Error> {
        let accept = |mut created: CreatedAcls| match created.results.pop() {
            Some((error, detail)) => refused(error, detail),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        };
        let acls = vec![Ok(acl)];
        self.client
            .ask_patiently(Lane::Control, CreateAcls { acls }, accept)
            .await
    }

    /// Removes the rules that a filter finds and returns them.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; nothing is removed.
    pub async fn delete_acls(&self, filter: AclFilter) -> Result<Vec<Acl>, Error> {
        let accept = |mut deleted: DeletedAcls| match deleted.results.pop() {
            Some((error, detail, acls)) => refused(error, detail).map(|()| acls),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        };
        let filters = vec![Ok(filter)];
        self.client
            .ask_patiently(Lane::Control, DeleteAcls { filters }, accept)
            .await
    }

    /// All quotas, sorted by whose they are.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `ClusterAuthorizationFailed` if the caller may not know.
    pub async fn quotas(&self) -> Result<Vec<(QuotaEntity, Vec<(Text, f64)>)>, Error> {
        let request = DescribeQuotas {
            components: Vec::new(),
            strict: false,
        };
        let accept =
            |described: DescribedQuotas| check(described.error).map(|()| described.entries);
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Changes quotas of one entity: `producer_byte_rate` and `consumer_byte_rate` in bytes per second,
    /// `request_percentage` of a worker's time.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with what is wrong; nothing was changed.
    pub async fn alter_quotas(
        &self,
        entity: QuotaEntity,
        changes: Vec<QuotaChange>,
    ) -> Result<(), Error> {
        let request = AlterQuotas {
            entries: vec![(entity, changes)],
            validate_only: false,
        };
        let accept = |mut altered: AlteredQuotas| match altered.entries.pop() {
            Some((_, error, detail)) => refused(error, detail),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }
}
