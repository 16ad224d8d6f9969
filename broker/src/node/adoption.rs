//! Topics whose logs another program wrote: given to a node that was started on them.

use std::collections::BTreeMap;

use callboard_common::{LeaderEpoch, TopicName, TopicPartition, Uuid};

use super::Node;
use crate::controller::actor::propose;
use crate::controller::{Command, Outcome, Refusal};

/// Why a topic is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The metadata refuse it.
    #[error("{0}")]
    Refused(String),
    /// A log cannot be opened: the node's log says why.
    #[error("partition {0} cannot be led")]
    NotLed(i32),
    /// The node was stopped.
    #[error("the node was stopped")]
    Stopped,
}

fn proposed(result: Result<Outcome, Refusal>) -> Result<(), AdoptError> {
    match result {
        Ok(_) => Ok(()),
        Err(Refusal::Stopped) => Err(AdoptError::Stopped),
        Err(refusal) => Err(AdoptError::Refused(refusal.to_string())),
    }
}

impl Node {
    /// Takes over a topic whose partitions' directories are in the node's data directory. `epochs` are the first
    /// reigns here, above all that are in the logs.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; nothing is taken over.
    pub async fn adopt_topic(
        &self,
        name: TopicName,
        id: Uuid,
        epochs: Vec<LeaderEpoch>,
        configs: BTreeMap<String, String>,
    ) -> Result<(), AdoptError> {
        let (controller, leader) = {
            let running = self.running.lock();
            let running = running.as_ref().ok_or(AdoptError::Stopped)?;
            (running.controller.clone(), running.shared.broker)
        };
        let command = Command::AdoptTopic {
            name,
            id,
            epochs,
            leader,
            configs,
        };
        proposed(propose(&controller, command).await)
    }

    /// Gives out no producer id below `next`: another program did.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; ids begin where they would have.
    pub async fn skip_producer_ids(&self, next: i64) -> Result<(), AdoptError> {
        let (controller, broker) = {
            let running = self.running.lock();
            let running = running.as_ref().ok_or(AdoptError::Stopped)?;
            (running.controller.clone(), running.shared.broker)
        };
        let command = Command::AllocateProducerIds {
            broker,
            count: next,
        };
        proposed(propose(&controller, command).await)
    }

    /// Waits until all partitions of a topic are led; how many offsets they hold together.
    ///
    /// # Errors
    ///
    /// [`AdoptError::NotLed`] if a log cannot be opened.
    pub async fn wait_for_ends(
        &self,
        name: &TopicName,
        partitions: usize,
    ) -> Result<i64, AdoptError> {
        let metrics = {
            let running = self.running.lock();
            running
                .as_ref()
                .ok_or(AdoptError::Stopped)?
                .shared
                .metrics
                .clone()
        };
        let mut changes = self.directory.changes();
        let mut held = 0;
        for number in (0..).take(partitions) {
            let partition = TopicPartition::new(name.clone(), number);
            let leader = loop {
                if let Some(leader) = self.directory.leader(&partition) {
                    break leader;
                }
                if metrics.offline_partitions.get() > 0 || changes.changed().await.is_err() {
                    return Err(AdoptError::NotLed(number));
                }
            };
            let mut ends = leader.ends.clone();
            let ends = *ends
                .wait_for(|e| e.epoch.is_some())
                .await
                .map_err(|_| AdoptError::NotLed(number))?;
            held += ends.high_watermark - ends.log_start;
        }
        Ok(held)
    }
}
