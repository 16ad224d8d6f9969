//! Leader of one partition: judges batches, appends them, acknowledges producers, serves fetches.
//!
//! Data flows one way. [`actor`] turns a message into an [`Input`], [`Leader::step`] answers with [`Effect`]s,
//! the actor performs them in order on the [`Log`](crate::storage::Log). What an append came to is an input
//! again, so the core is never ahead of the log.
//!
//! Invariants, asserted after every step:
//! - `log_start <= high_watermark <= log_end`;
//! - the high watermark never moves back;
//! - while `flush.messages` is 1 it is not above the synced end, here and on every in-sync replica: nothing is
//!   acknowledged or shown that is not durable there.
//!
//! A long poll does not wait here: who waits watches [`Ends`], which the leader publishes after every step.
//!
//! Sources: Kafka replication protocol; KIP-98 (idempotence); KIP-101 (leader epochs).

pub mod actor;
mod delayed;
mod ends;
mod error;
mod judging;
mod lookup;
mod messages;
pub mod opening;
mod pace;
mod reading;
mod replicating;
mod replication;
mod state;
mod syncing;
mod upkeep;

pub use actor::LeaderActor;
pub use ends::{Ends, same_reign};
pub use error::{FetchError, ProduceError};
pub use lookup::reign_end;
pub use opening::LeaderStart;
pub(crate) use reading::Reading;
pub use replication::{IsrChange, Replication};
pub use state::{Acks, Appended, Effect, Effects, Input, Leader, Refused, Ticket};
