//! Coordinator of consumer groups: the groups of one `__consumer_offsets` partition.
//!
//! [`state`] decides, [`group`] is one group's state machine, [`records`] is what is written to the offsets
//! partition in Kafka's formats, [`actor`] is the shell: it appends records through the partition's leader and
//! feeds back when they are durable.
//!
//! Invariants:
//! - an answer that promises something durable leaves when its records are durable;
//! - `Coordinator::replay` over the partition gives the same groups and offsets again;
//! - what is not known is answered as unknown, never as offset 0.
//!
//! Sources: Kafka's group protocol; KIP-345 (static members); KIP-394 (member ids); KIP-814 (skipped assignment).

pub mod actor;
mod commit;
mod deletion;
mod expiry;
mod group;
mod io;
mod join;
mod member;
pub mod offsets;
pub mod records;
pub mod replay;
pub mod state;
mod writes;

pub use actor::{Ask, CoordinatorActor, CoordinatorStart};
pub use state::{
    Answer, Coordinator, Effect, Effects, GroupConfig, Input, Question, Ticket, WriteId,
};
