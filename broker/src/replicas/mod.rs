//! Which roles this node plays: follows the metadata and starts and stops leaders and coordinators.
//!
//! [`state`] compares what should run with what runs; [`actor`], one per worker, starts and stops it.

pub mod actor;
pub mod directories;
mod starting;
mod state;

pub use actor::{ReplicasActor, ReplicasStart};
pub use state::{Duty, Effect, Effects, Replicas, Role};
