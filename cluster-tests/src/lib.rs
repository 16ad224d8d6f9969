//! Tests of whole Callboard nodes: the real binary, other people's clients, hostile bytes, the rules of the house.

pub mod actors;
pub mod chaos;
pub mod check;
pub mod cluster;
pub mod history;
pub mod hosts;
pub mod load;
pub mod process;
pub mod sim;
pub mod wire;
