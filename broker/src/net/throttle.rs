//! Quotas at the doors: what requests used, and clients that are not read for a while.

use std::sync::Arc;
use std::time::Duration;

use callboard_common::Monotonic;
use callboard_common::kafka::Text;
use callboard_common::time::Clock;
use parking_lot::Mutex;

use crate::api::{Api, Caller};
use crate::security::quotas::{Quotas, Resource};

/// Client ids that begin alike for so long share a quota.
const CLIENT_ID_CHARS: usize = 255;

/// What one request uses, as far as it is known when it begins.
#[derive(Clone, Debug)]
pub struct Used {
    user: Text,
    client: Text,
    produced_bytes: usize,
    fetches: bool,
}

impl Used {
    /// A request of so many bytes.
    #[must_use]
    pub fn new(caller: &Caller, produces: bool, fetches: bool, bytes: usize) -> Self {
        Self {
            user: Text::from(caller.principal.name()),
            client: caller
                .client_id
                .chars()
                .take(CLIENT_ID_CHARS)
                .collect::<String>()
                .into(),
            produced_bytes: if produces { bytes } else { 0 },
            fetches,
        }
    }
}

/// Counts what clients use, all doors together; clones share it.
#[derive(Clone, Debug)]
pub struct Throttle {
    api: Api,
    quotas: Arc<Mutex<Quotas>>,
}

impl Throttle {
    /// Nothing was used yet.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self {
            api,
            quotas: Arc::default(),
        }
    }

    /// How long a client must wait after a request whose answer has so many bytes and that kept a worker busy.
    #[must_use]
    pub fn after(&self, used: &Used, sent_bytes: usize, busy: Duration) -> Duration {
        let image = self.api.image();
        if image.security.quotas.is_empty() {
            return Duration::ZERO;
        }
        let fetched_bytes = if used.fetches { sent_bytes } else { 0 };
        let amounts = [
            (Resource::Produce, used.produced_bytes as f64),
            (Resource::Fetch, fetched_bytes as f64),
            (Resource::Requests, busy.as_secs_f64() * 100.0),
        ];
        let (now, who) = (self.api.shared().clock.now(), (&*used.user, &*used.client));
        let mut quotas = self.quotas.lock();
        let of = |(resource, amount): (Resource, f64)| match amount > 0.0 {
            true => quotas.used(now, &image.security, who, resource, amount),
            false => Duration::ZERO,
        };
        amounts.map(of).into_iter().max().unwrap_or_default()
    }
}

/// Until when a connection is not read; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Mute(Arc<Mutex<Monotonic>>);

impl Mute {
    /// Not before this.
    pub fn until(&self, moment: Monotonic) {
        let mut until = self.0.lock();
        *until = (*until).max(moment);
    }

    /// Waits until then.
    pub async fn wait(&self, clock: &Clock) {
        let until = *self.0.lock();
        if clock.now().monotonic < until {
            clock.sleep_until(until).await;
        }
    }
}
