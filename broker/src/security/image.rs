//! Users, rules and quotas in the committed metadata.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use callboard_common::kafka::Text;
use callboard_common::protocol::security::{Acl, QuotaEntity, ScramMechanism};

use super::acls::AclSet;
use super::scram::ScramCredential;

/// A quota's value; the bits of an `f64`, so that images can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuotaValue(u64);

impl From<f64> for QuotaValue {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl QuotaValue {
    /// The value.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// A change of users, rules or quotas.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SecurityChange {
    /// A user's credentials by mechanism; `None` goes.
    Credentials {
        /// The user.
        user: Text,
        /// What changes.
        credentials: Vec<(ScramMechanism, Option<ScramCredential>)>,
    },
    /// Rules are added.
    AddAcls(Vec<Acl>),
    /// Rules go.
    RemoveAcls(Vec<Acl>),
    /// Quotas of one entity by name; `None` goes.
    Quotas {
        /// Whose.
        entity: QuotaEntity,
        /// What changes.
        values: Vec<(Text, Option<QuotaValue>)>,
    },
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SecurityImage {
    /// Credentials by user and mechanism.
    pub users: BTreeMap<Text, BTreeMap<ScramMechanism, ScramCredential>>,
    /// The rules.
    pub acls: AclSet,
    /// Quotas by entity and name.
    pub quotas: BTreeMap<QuotaEntity, BTreeMap<Text, QuotaValue>>,
}

impl SecurityImage {
    /// Applies a committed change.
    pub fn apply(&mut self, change: SecurityChange) {
        match change {
            SecurityChange::Credentials { user, credentials } => {
                let of_user = self.users.entry(user.clone()).or_default();
                change_map(of_user, credentials);
                if of_user.is_empty() {
                    drop(self.users.remove(&user));
                }
            }
            SecurityChange::AddAcls(acls) => acls.into_iter().for_each(|acl| self.acls.add(acl)),
            SecurityChange::RemoveAcls(acls) => acls.iter().for_each(|acl| self.acls.remove(acl)),
            SecurityChange::Quotas { entity, values } => {
                let of_entity = self.quotas.entry(entity.clone()).or_default();
                change_map(of_entity, values);
                if of_entity.is_empty() {
                    drop(self.quotas.remove(&entity));
                }
            }
        }
    }
}

fn change_map<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: Vec<(K, Option<V>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata that was written before there were users ends earlier: an empty image is all zeros.
    #[test]
    fn an_empty_image_is_all_zeros() {
        let bytes = bincode::encode_to_vec(SecurityImage::default(), bincode::config::standard());
        assert_eq!(bytes.expect("encodes"), [0; 3]);
    }

    #[test]
    fn what_is_empty_is_gone() {
        let mut image = SecurityImage::default();
        let entity = vec![("user".into(), Some(Text::from_static("ann")))];
        let set = |value| SecurityChange::Quotas {
            entity: entity.clone(),
            values: vec![("producer_byte_rate".into(), value)],
        };
        image.apply(set(Some(1.5.into())));
        assert_eq!(image.quotas[&entity]["producer_byte_rate"].get(), 1.5);
        image.apply(set(None));
        assert_eq!(image, SecurityImage::default());
    }
}
