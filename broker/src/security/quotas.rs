//! How much a client may do: token buckets of one second (KIP-13, KIP-124, KIP-257); pure.

use std::collections::BTreeMap;

use callboard_common::kafka::Text;
use callboard_common::protocol::security::{DescribeQuotas, QuotaEntity, QuotaMatch};
use callboard_common::{Monotonic, Now};
use std::time::Duration;

use super::image::SecurityImage;

/// Clients that are remembered at most; those that have used nothing go first.
const BUCKETS_MAX: usize = 10_000;
/// Longest time that a client is told to wait.
const THROTTLE_MAX: Duration = Duration::from_secs(30);

/// What is counted, by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `producer_byte_rate`: bytes of produce requests per second.
    Produce,
    /// `consumer_byte_rate`: bytes of fetch answers per second.
    Fetch,
    /// `request_percentage`: time of the workers; 100 is one of them.
    Requests,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Produce, Self::Fetch, Self::Requests];

    /// Kafka's name of the quota.
    #[must_use]
    pub fn quota(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Requests => "request_percentage",
        }
    }
}

/// What shares a bucket.
type Owner = (Option<Text>, Option<Text>);

/// The quota that holds for a user's client, and who shares it; the first of Kafka's order that is there.
fn limit(
    image: &SecurityImage,
    user: &str,
    client: &str,
    resource: Resource,
) -> Option<(Owner, f64)> {
    let named = |kind: &'static str, name: &str| (Text::from_static(kind), Some(Text::from(name)));
    let default = |kind: &'static str| (Text::from_static(kind), None);
    let (u, c) = (|| named("user", user), || named("client-id", client));
    let (any_u, any_c) = (|| default("user"), || default("client-id"));
    // The pairs are sorted by kind.
    let order: [QuotaEntity; 8] = [
        vec![c(), u()],
        vec![any_c(), u()],
        vec![u()],
        vec![c(), any_u()],
        vec![any_c(), any_u()],
        vec![any_u()],
        vec![c()],
        vec![any_c()],
    ];
    order.into_iter().find_map(|entity| {
        let value = image.quotas.get(&entity)?.get(resource.quota())?.get();
        let has = |kind: &str| entity.iter().any(|(k, _)| k == kind);
        let owner = (
            has("user").then(|| user.into()),
            has("client-id").then(|| client.into()),
        );
        Some((owner, value))
    })
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What may be used at once; negative is owed.
    tokens: f64,
    filled: Monotonic,
}

/// Counts what clients use.
#[derive(Debug, Default)]
pub struct Quotas {
    buckets: BTreeMap<(Resource, Owner), Bucket>,
}

impl Quotas {
    /// Notes that a client used so much; how long it must wait.
    pub fn used(
        &mut self,
        now: Now,
        image: &SecurityImage,
        (user, client): (&str, &str),
        resource: Resource,
        amount: f64,
    ) -> Duration {
        let Some((owner, rate)) = limit(image, user, client, resource) else {
            return Duration::ZERO;
        };
        if self.buckets.len() >= BUCKETS_MAX {
            self.forget(now);
        }
        // A second's worth may be used at once.
        let fresh = Bucket {
            tokens: rate,
            filled: now.monotonic,
        };
        let bucket = self.buckets.entry((resource, owner)).or_insert(fresh);
        let passed = now.monotonic.since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(rate) - amount;
        bucket.filled = now.monotonic;
        if bucket.tokens >= 0.0 {
            return Duration::ZERO;
        }
        // What is owed is bounded too, or one large request would stop a client for ever.
        bucket.tokens = bucket.tokens.max(-rate * THROTTLE_MAX.as_secs_f64());
        Duration::try_from_secs_f64(-bucket.tokens / rate.max(f64::MIN_POSITIVE))
            .unwrap_or(THROTTLE_MAX)
            .min(THROTTLE_MAX)
    }

    /// Forgets buckets that have been full for long, or the one that was not used for longest.
    fn forget(&mut self, now: Now) {
        self.buckets
            .retain(|_, b| now.monotonic.since(b.filled) < THROTTLE_MAX);
        if self.buckets.len() >= BUCKETS_MAX {
            let oldest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.filled);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                let _forgotten = self.buckets.remove(&key);
            }
        }
    }
}

/// Checks a change of quotas; the entity with its kinds sorted.
///
/// # Errors
///
/// What is wrong, for the client.
pub fn checked(
    entity: &QuotaEntity,
    values: &[(Text, Option<f64>)],
) -> Result<QuotaEntity, String> {
    let mut sorted = entity.clone();
    sorted.sort();
    let kinds: Vec<&str> = sorted.iter().map(|(kind, _)| &**kind).collect();
    if !matches!(kinds[..], ["client-id"] | ["user"] | ["client-id", "user"]) {
        return Err(format!(
            "quotas are of a user, a client-id or both, not of {kinds:?}"
        ));
    }
    if sorted
        .iter()
        .any(|(_, name)| name.as_ref().is_some_and(|n| n.is_empty()))
    {
        return Err("a name is empty".into());
    }
    for (name, value) in values {
        if !Resource::ALL.iter().any(|r| r.quota() == &**name) {
            let known: Vec<&str> = Resource::ALL.iter().map(|r| r.quota()).collect();
            return Err(format!(
                "the quota {name:?} is not supported; there are {}",
                known.join(", ")
            ));
        }
        if value.is_some_and(|v| !v.is_finite() || v <= 0.0) {
            return Err(format!("the quota {name} must be a number above 0"));
        }
    }
    Ok(sorted)
}

/// Whether a filter finds an entity.
#[must_use]
pub fn matches(filter: &DescribeQuotas, entity: &QuotaEntity) -> bool {
    let part = |(kind, wanted): &(Text, QuotaMatch)| {
        let name = entity.iter().find(|(k, _)| k == kind).map(|(_, name)| name);
        name.is_some_and(|name| match wanted {
            QuotaMatch::Exactly(wanted) => name.as_ref() == Some(wanted),
            QuotaMatch::Default => name.is_none(),
            QuotaMatch::Any => true,
        })
    };
    filter.components.iter().all(part)
        && (!filter.strict || entity.len() == filter.components.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::image::SecurityChange;
    use callboard_common::Timestamp;

    type Entity<'a> = &'a [(&'static str, Option<&'static str>)];

    fn image(quotas: &[(Entity<'_>, f64)]) -> SecurityImage {
        let mut image = SecurityImage::default();
        for (entity, value) in quotas {
            let entity = entity
                .iter()
                .map(|(k, n)| (Text::from_static(k), n.map(Text::from_static)));
            image.apply(SecurityChange::Quotas {
                entity: entity.collect(),
                values: vec![("producer_byte_rate".into(), Some((*value).into()))],
            });
        }
        image
    }

    fn at(ms: u64) -> Now {
        Now {
            monotonic: Monotonic::default().after(Duration::from_millis(ms)),
            wall: Timestamp(0),
        }
    }

    #[test]
    fn the_most_particular_quota_holds() {
        let image = image(&[
            (&[("client-id", None)], 1.0),
            (&[("client-id", Some("c"))], 2.0),
            (&[("user", None)], 3.0),
            (&[("user", Some("ann"))], 4.0),
            (&[("client-id", Some("c")), ("user", Some("ann"))], 5.0),
        ]);
        let of = |user, client| limit(&image, user, client, Resource::Produce).map(|(_, v)| v);
        assert_eq!(of("ann", "c"), Some(5.0));
        assert_eq!(of("ann", "d"), Some(4.0));
        assert_eq!(of("bob", "c"), Some(3.0), "any user goes before a client");
        assert_eq!(limit(&image, "ann", "c", Resource::Fetch), None);
    }

    #[test]
    fn who_uses_more_waits_until_it_is_paid_for() {
        let image = image(&[(&[("user", None)], 1000.0)]);
        let mut quotas = Quotas::default();
        let mut used = |ms, amount| {
            quotas
                .used(at(ms), &image, ("ann", "c"), Resource::Produce, amount)
                .as_millis()
        };
        assert_eq!(used(0, 1000.0), 0, "a second's worth at once");
        assert_eq!(used(0, 500.0), 500);
        assert_eq!(used(500, 0.0), 0, "it was paid for");
        assert_eq!(used(1000, 500.0), 0);
        assert_eq!(used(1000, 1e12), 30_000, "a debt is bounded");
    }

    #[test]
    fn entities_and_values_are_checked() {
        let user = || vec![(Text::from_static("user"), None)];
        assert!(checked(&user(), &[("request_percentage".into(), Some(50.0))]).is_ok());
        assert!(checked(&user(), &[("request_percentage".into(), Some(0.0))]).is_err());
        assert!(checked(&user(), &[("connection_creation_rate".into(), Some(5.0))]).is_err());
        assert!(checked(&vec![("ip".into(), None)], &[]).is_err());
        assert!(checked(&Vec::new(), &[]).is_err());
    }
}
