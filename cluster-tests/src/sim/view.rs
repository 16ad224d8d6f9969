//! What a simulated client knows of the cluster, and how it asks.

use std::sync::Arc;

use callboard_broker::controller::MetadataImage;
use callboard_broker::coordinator::Question;
use callboard_common::{LeaderEpoch, TopicName, TopicPartition, Uuid};

use super::event::{Event, Message, OfClient, Place};
use super::hub::Hub;
use super::plan::{MS, Micros};

/// A question is asked again after this.
pub(super) const PATIENCE: Micros = 1_500 * MS;

/// What all kinds of clients know of the cluster.
#[derive(Debug)]
pub(super) struct View {
    pub(super) client: usize,
    pub(super) image: Arc<MetadataImage>,
    pub(super) topic: TopicName,
    /// The topic of this name that is written or read.
    pub(super) topic_id: Option<Uuid>,
    next_question: u64,
    pub(super) asks_metadata: bool,
}

impl View {
    pub(super) fn new(client: usize, topic: TopicName) -> Self {
        Self {
            client,
            image: Arc::default(),
            topic,
            topic_id: None,
            next_question: 0,
            asks_metadata: false,
        }
    }

    /// The node that leads a partition, as far as is known, with its reign.
    pub(super) fn leader(&self, number: i32) -> Option<(usize, LeaderEpoch, Uuid)> {
        let topic = self.image.topics.get(&self.topic)?;
        let partition = topic.partitions.get(usize::try_from(number).ok()?)?;
        Some((partition.leader?.0 as usize - 1, partition.epoch, topic.id))
    }

    pub(super) fn of(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), number)
    }

    /// Asks some node who leads.
    pub(super) fn refresh(&mut self, hub: &mut Hub) {
        let node = hub.random.below(hub.plan.nodes as u64) as usize;
        hub.send(
            Place::Client(self.client),
            Place::Node(node),
            Message::Metadata,
        );
    }

    /// Asks who leads, unless it was asked since the last [`OfClient::Retry`], which comes after a pause: whatever is answered.
    pub(super) fn refresh_once(&mut self, hub: &mut Hub, pause: impl FnOnce(&mut Hub) -> Micros) {
        if !std::mem::replace(&mut self.asks_metadata, true) {
            self.refresh(hub);
            let pause = pause(hub);
            hub.after(pause, Event::Client(self.client, OfClient::Retry));
        }
    }

    /// Takes newer metadata; whether the topic is another one of its name: what was meant for the old one is gone with it.
    pub(super) fn described(&mut self, image: Arc<MetadataImage>) -> bool {
        // A node may be behind.
        if image.applied >= self.image.applied {
            self.image = image;
        }
        let topic_id = self.image.topics.get(&self.topic).map(|t| t.id);
        let is_another = topic_id.is_some() && topic_id != self.topic_id;
        if is_another {
            self.topic_id = topic_id;
        }
        is_another
    }

    pub(super) fn question(&mut self) -> u64 {
        self.next_question += 1;
        self.next_question
    }

    /// Asks a coordinator, which leads the offsets as far as is known; names the question, which is given up after `patience`.
    pub(super) fn ask(
        &mut self,
        hub: &mut Hub,
        (node, topic_id): (usize, Uuid),
        question: Question,
        patience: Micros,
    ) -> u64 {
        let (id, client) = (self.question(), self.client);
        let question = Box::new(question);
        let message = Message::Ask {
            id,
            topic_id,
            question,
        };
        hub.send(Place::Client(client), Place::Node(node), message);
        hub.after(patience, Event::Client(client, OfClient::Unanswered(id)));
        id
    }
}
