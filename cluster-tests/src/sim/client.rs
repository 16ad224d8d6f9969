//! Clients of a simulated cluster: idempotent producers with several batches under way, consumers that read on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use callboard_broker::controller::MetadataImage;
use callboard_common::record::{Batch, BatchBuilder, Compression};
use callboard_common::{LeaderEpoch, Offset, TopicName};

use super::committer::Committer;
use super::event::{Event, Message, NotFetched, NotProduced, OfClient, Place};
use super::hub::Hub;
use super::leading::is_out_of_order;
use super::member::Member;
use super::plan::{HEALED, MS};
use super::truth::number_of;
use super::view::{PATIENCE, View};

/// Batches of one partition under way.
const IN_FLIGHT: usize = 4;
/// Between two fetches of one partition.
const FETCH_PAUSE: u64 = 150 * MS;
/// Whoever waits for a new leader asks again after this.
const HUNT_PAUSE: u64 = 5 * MS;

#[derive(Debug)]
struct Sent {
    batch: Batch,
    records: u64,
    asked: Option<u64>,
    /// The node and the reign that were asked.
    at: Option<(usize, LeaderEpoch)>,
    /// It stays until those before it are acknowledged: brokers remember the last five.
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct Queue {
    next_sequence: i32,
    /// The node and reign that has acknowledged a batch: before, only one is sent to it.
    confirmed: Option<(usize, LeaderEpoch)>,
    /// The newest reign that has acknowledged a batch, as its leader says: who is asked may be in another than is known here.
    acknowledged_in: Option<LeaderEpoch>,
    unacknowledged: VecDeque<Sent>,
}

/// Writes to all partitions of a topic, until the faults are over.
#[derive(Debug)]
pub struct Producer {
    view: View,
    id: i64,
    next_number: u64,
    queues: BTreeMap<i32, Queue>,
}

impl Producer {
    /// Has written nothing yet.
    #[must_use]
    pub fn new(client: usize, topic: TopicName) -> Self {
        Self {
            view: View::new(client, topic),
            id: client as i64 + 1,
            next_number: (client as u64 + 1) << 40,
            queues: BTreeMap::new(),
        }
    }

    /// How many batches wait for their acknowledgement.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        let waits = |q: &Queue| q.unacknowledged.iter().filter(|s| !s.acknowledged).count();
        self.queues.values().map(waits).sum()
    }

    fn act(&mut self, hub: &mut Hub) {
        let client = self.view.client;
        if hub.now < HEALED {
            let pace = hub.plan.pace / 2 + hub.random.below(hub.plan.pace);
            hub.after(pace, Event::Client(client, OfClient::Act));
        }
        let number = hub.random.below(hub.plan.partitions as u64) as i32;
        let (id, now_ms) = (self.id, (hub.now / MS) as i64);
        let queue = self.queues.entry(number).or_default();
        if queue.unacknowledged.len() < IN_FLIGHT && self.view.topic_id.is_some() {
            let count = hub.random.between(1, 4);
            let builder = BatchBuilder::new(Compression::None);
            let mut builder = builder.producer(id, 0, queue.next_sequence);
            for _ in 0..count {
                self.next_number += 1;
                let mut value = self.next_number.to_be_bytes().to_vec();
                let more = hub.random.below(hub.plan.value_bytes) as usize;
                value.resize(value.len() + more, self.next_number as u8);
                builder.push(1_790_000_000_000 + now_ms, None, Some(&value), &[]);
            }
            queue.next_sequence += count as i32;
            queue.unacknowledged.push_back(Sent {
                batch: builder.build(),
                records: count,
                asked: None,
                at: None,
                acknowledged: false,
            });
        }
        self.pump(hub);
    }

    /// Sends what is not under way, in order.
    fn pump(&mut self, hub: &mut Hub) {
        let mut lacks_leader = false;
        let client = self.view.client;
        for (number, queue) in &mut self.queues {
            let partition = self.view.of(*number);
            let leader = self.view.leader(*number);
            let mut goes_first = true;
            for sent in queue.unacknowledged.iter_mut().filter(|s| !s.acknowledged) {
                let at = leader.map(|(node, epoch, _)| (node, epoch));
                match sent.asked {
                    Some(_) if sent.at == at => {
                        goes_first = false;
                        continue;
                    }
                    // What follows must not overtake what somebody else was asked.
                    Some(_) => break,
                    None if goes_first || queue.confirmed == at => sent.at = at,
                    None => break,
                }
                goes_first = false;
                let Some((node, _, topic_id)) =
                    leader.filter(|(_, _, id)| Some(*id) == self.view.topic_id)
                else {
                    lacks_leader = true;
                    break;
                };
                let id = self.view.question();
                sent.asked = Some(id);
                let message = Message::Produce {
                    id,
                    partition: partition.clone(),
                    topic_id,
                    batch: sent.batch.clone(),
                };
                hub.send(Place::Client(client), Place::Node(node), message);
                hub.after(PATIENCE, Event::Client(client, OfClient::Unanswered(id)));
            }
        }
        if lacks_leader || self.view.topic_id.is_none() {
            self.again(hub);
        }
    }

    /// Looks who leads, and sends again in a while.
    fn again(&mut self, hub: &mut Hub) {
        self.view
            .refresh_once(hub, |hub| hub.random.between(20, 100) * MS);
    }

    fn described(&mut self, image: Arc<MetadataImage>) {
        if self.view.described(image) {
            self.queues.clear();
        }
    }

    fn produced(
        &mut self,
        hub: &mut Hub,
        id: u64,
        reign: Option<LeaderEpoch>,
        result: Result<Offset, NotProduced>,
    ) {
        let mut failed = false;
        for (number, queue) in &mut self.queues {
            let asked = |s: &Sent| s.asked == Some(id);
            let Some(at) = queue.unacknowledged.iter().position(asked) else {
                continue;
            };
            match &result {
                Ok(_) => {
                    let sent = &mut queue.unacknowledged[at];
                    (sent.acknowledged, sent.asked) = (true, None);
                    queue.confirmed = sent.at;
                    queue.acknowledged_in = queue.acknowledged_in.max(reign);
                    hub.coverage.acknowledged += sent.records;
                    while queue
                        .unacknowledged
                        .pop_front_if(|s| s.acknowledged)
                        .is_some()
                    {}
                }
                Err(error) => {
                    // Who was replaced before those before it were acknowledged need not have them.
                    let is_new = reign >= queue.acknowledged_in;
                    if at == 0 && is_new && is_out_of_order(error) {
                        let (producer, number) = (self.id, *number);
                        hub.truth.violate(|| format!("I12: producer {producer} is out of order with its first batch of partition {number}: {error:?}"));
                    }
                    queue.unacknowledged[at].asked = None;
                    failed = true;
                }
            }
            break;
        }
        match failed {
            true => self.again(hub),
            false => self.pump(hub),
        }
    }

    fn unanswered(&mut self, hub: &mut Hub, id: u64) {
        let sent = self.queues.values_mut().flat_map(|q| &mut q.unacknowledged);
        let mut failed = false;
        for sent in sent.filter(|s| s.asked == Some(id)) {
            sent.asked = None;
            failed = true;
        }
        if failed {
            self.again(hub);
        }
    }
}

/// Reads all partitions of a topic from their beginning.
#[derive(Debug)]
pub struct Consumer {
    view: View,
    positions: BTreeMap<i32, i64>,
    asked: BTreeMap<u64, i32>,
    /// The reign of what was read last, and where that ended: the position may be beyond, if records were deleted.
    last: BTreeMap<i32, (LeaderEpoch, i64)>,
    /// The reigns of all partitions, when it was told last.
    reigns: Vec<LeaderEpoch>,
    /// Whether a leader has died, and no other is known yet.
    hunts: bool,
    /// The reign whose leader has what was read.
    agreed: BTreeMap<i32, LeaderEpoch>,
}

impl Consumer {
    /// Has read nothing yet.
    #[must_use]
    pub fn new(client: usize, topic: TopicName) -> Self {
        Self {
            view: View::new(client, topic),
            positions: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: BTreeMap::new(),
            reigns: Vec::new(),
            hunts: false,
            agreed: BTreeMap::new(),
        }
    }

    fn act(&mut self, hub: &mut Hub) {
        let client = self.view.client;
        hub.after(FETCH_PAUSE, Event::Client(client, OfClient::Act));
        match self.view.topic_id {
            Some(_) => self.fetch(hub),
            None => self.view.refresh(hub),
        }
    }

    fn fetch(&mut self, hub: &mut Hub) {
        let client = self.view.client;
        for number in 0..hub.plan.partitions {
            if self.asked.values().any(|n| *n == number) {
                continue;
            }
            let Some((node, epoch, topic_id)) = self.view.leader(number) else {
                self.view.refresh(hub);
                continue;
            };
            let id = self.view.question();
            let _none = self.asked.insert(id, number);
            let partition = self.view.of(number);
            let agreed = !hub.plan.groups || self.agreed.get(&number) == Some(&epoch);
            let message = match self.last.get(&number).filter(|_| !agreed) {
                Some((last, _)) => Message::ReignEnd {
                    id,
                    partition,
                    topic_id,
                    current: epoch,
                    asked: *last,
                },
                None => Message::Fetch {
                    id,
                    partition,
                    topic_id,
                    from: self.positions.get(&number).copied().unwrap_or(0),
                    epoch,
                },
            };
            hub.send(Place::Client(client), Place::Node(node), message);
            hub.after(PATIENCE, Event::Client(client, OfClient::Unanswered(id)));
        }
    }

    fn described(&mut self, hub: &mut Hub, image: Arc<MetadataImage>) {
        if self.view.described(image) {
            self.positions.clear();
            self.asked.clear();
            self.last.clear();
            self.agreed.clear();
        }
        // New leaders are asked at once, before they have heard of their followers.
        let numbers = 0..hub.plan.partitions;
        let reigns: Option<Vec<LeaderEpoch>> = numbers
            .map(|n| self.view.leader(n).map(|(_, epoch, _)| epoch))
            .collect();
        if let Some(reigns) = reigns.filter(|r| hub.plan.groups && self.reigns != *r) {
            (self.reigns, self.hunts) = (reigns, false);
            self.fetch(hub);
        }
    }

    /// Looks who leads, until there is somebody.
    fn hunt(&mut self, hub: &mut Hub) {
        if self.hunts {
            self.view.refresh_once(hub, |_| HUNT_PAUSE);
        }
    }

    fn died(&mut self, hub: &mut Hub, node: usize) {
        let leads = |n: i32| self.view.leader(n).is_some_and(|(at, _, _)| at == node);
        self.asked.retain(|_, n| !leads(*n));
        self.hunts |= hub.plan.groups && (0..hub.plan.partitions).any(leads);
        self.hunt(hub);
    }

    /// I8: what was read is there in every reign (KIP-320).
    fn reign_ended(
        &mut self,
        hub: &mut Hub,
        id: u64,
        result: Result<Option<(LeaderEpoch, Offset)>, NotFetched>,
    ) {
        let Some(number) = self.asked.remove(&id) else {
            return;
        };
        let Ok(told) = result else {
            return self.view.refresh(hub);
        };
        let at = self.last.get(&number).map_or(0, |(_, end)| *end);
        if let Some((epoch, end)) = told.filter(|(_, end)| end.get() < at) {
            hub.truth.violate(|| {
                format!("I8: a consumer has read up to {at} of partition {number}, and is told that reign {epoch} ended at {end}")
            });
        }
        if let Some((_, epoch, _)) = self.view.leader(number) {
            let _before = self.agreed.insert(number, epoch);
        }
    }

    fn fetched(
        &mut self,
        hub: &mut Hub,
        id: u64,
        result: Result<(bytes::Bytes, i64, i64), NotFetched>,
    ) {
        let (Some(number), Some(topic_id)) = (self.asked.remove(&id), self.view.topic_id) else {
            return;
        };
        let partition = self.view.of(number);
        let position = self.positions.entry(number).or_insert(0);
        match result {
            Ok((mut bytes, _, _)) => {
                while !bytes.is_empty() {
                    let Ok((batch, rest)) = Batch::split(bytes) else {
                        hub.truth.violate(|| {
                            format!("A5: a consumer is sent no whole batch of {partition}")
                        });
                        return;
                    };
                    bytes = rest;
                    let next = batch.header().next_offset();
                    if next <= *position {
                        continue;
                    }
                    let (base, at) = (batch.header().base_offset, *position);
                    if base > at && at >= hub.truth.start(topic_id, number) {
                        hub.truth.violate(|| {
                            format!("A7: a consumer at {at} of {partition} is sent {base}")
                        });
                    }
                    for record in batch.records(1 << 20).unwrap_or_default() {
                        let shown = record.value.as_deref().and_then(number_of);
                        let shown = shown.unwrap_or(0);
                        hub.truth
                            .shows((topic_id, &partition), record.offset, shown);
                    }
                    *position = next;
                    let epoch = LeaderEpoch(batch.header().leader_epoch);
                    let _before = self.last.insert(number, (epoch, next));
                }
            }
            Err(NotFetched::OutOfRange(start, committed)) => {
                let at = *position;
                // The reader is beyond what a leader knows to be committed, which is no more than its log.
                if at > committed && at <= hub.truth.end(topic_id, number) {
                    hub.truth.violate(|| format!("I8: a consumer has read up to {at} of {partition}, its leader has {committed}"));
                }
                *position = at.max(start);
            }
            Err(NotFetched::NotLeader | NotFetched::Damaged) => self.view.refresh(hub),
        }
    }
}

/// One of them.
#[derive(Debug)]
pub enum Client {
    /// Writes.
    Producer(Producer),
    /// Reads.
    Consumer(Consumer),
    /// Commits.
    Committer(Committer),
    /// Shares partitions with others.
    Member(Member),
}

impl Client {
    /// Something happens to it.
    pub fn event(&mut self, hub: &mut Hub, what: OfClient) {
        match (self, what) {
            (Self::Producer(p), OfClient::Act) => p.act(hub),
            (Self::Producer(p), OfClient::Retry) => {
                p.view.asks_metadata = false;
                p.pump(hub);
            }
            (Self::Producer(p), OfClient::Unanswered(id)) => p.unanswered(hub, id),
            (Self::Consumer(c), OfClient::Act) => c.act(hub),
            (Self::Consumer(c), OfClient::Retry) => {
                c.view.asks_metadata = false;
                c.hunt(hub);
            }
            (Self::Consumer(c), OfClient::Died(node)) => c.died(hub, node),
            (Self::Producer(_) | Self::Committer(_) | Self::Member(_), OfClient::Died(_)) => {}
            (Self::Consumer(c), OfClient::Unanswered(id)) => {
                if c.asked.remove(&id).is_some() {
                    c.view.refresh(hub);
                }
            }
            (Self::Committer(c), OfClient::Act | OfClient::Retry) => c.act(hub),
            (Self::Committer(c), OfClient::Unanswered(id)) => c.unanswered(hub, id),
            (Self::Member(m), OfClient::Act | OfClient::Retry) => m.act(hub),
            (Self::Member(m), OfClient::Unanswered(id)) => m.unanswered(hub, id),
        }
    }

    /// A node answers.
    pub fn message(&mut self, hub: &mut Hub, message: Message) {
        match (self, message) {
            (Self::Producer(p), Message::Described(image)) => p.described(image),
            (Self::Consumer(c), Message::Described(image)) => c.described(hub, image),
            (Self::Producer(p), Message::Produced { id, reign, result }) => {
                p.produced(hub, id, reign, result);
            }
            (Self::Consumer(c), Message::Fetched { id, result }) => c.fetched(hub, id, result),
            (Self::Consumer(c), Message::ReignEnded { id, result }) => {
                c.reign_ended(hub, id, result);
            }
            (Self::Committer(c), Message::Described(image)) => c.described(image),
            (Self::Committer(c), Message::Answered { id, answer }) => c.answered(hub, id, answer),
            (Self::Member(m), Message::Described(image)) => m.described(image),
            (Self::Member(m), Message::Answered { id, answer }) => m.answered(hub, id, answer),
            (
                _,
                Message::Raft(..)
                | Message::Propose { .. }
                | Message::Proposed { .. }
                | Message::Position(..)
                | Message::Part(..)
                | Message::Produce { .. }
                | Message::Produced { .. }
                | Message::Fetch { .. }
                | Message::Fetched { .. }
                | Message::ReignEnd { .. }
                | Message::ReignEnded { .. }
                | Message::Ask { .. }
                | Message::Answered { .. }
                | Message::Metadata,
            ) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use callboard_broker::leader::ProduceError;
    use callboard_common::record::producers::SequenceError;

    use super::*;
    use crate::sim::plan::Plan;

    /// Whether it is a violation that a batch is out of order, when the one before it was acknowledged: both with the reign
    /// that the producer knew, and the one that the leader was in.
    fn is_violated(acknowledged: (i32, i32), refused: (i32, i32)) -> bool {
        let mut hub = Hub::new(Plan::draw(1, Some(3)));
        let topic = TopicName::new("orders").expect("a valid name");
        let mut producer = Producer::new(0, topic);
        let sent = |id, node, known, sequence| {
            let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, sequence);
            builder.push(1000, None, None, &[]);
            Sent {
                batch: builder.build(),
                records: 1,
                asked: Some(id),
                at: Some((node, LeaderEpoch(known))),
                acknowledged: false,
            }
        };
        let before = sent(8, 0, acknowledged.0, 116);
        let after = sent(9, 1, refused.0, 117);
        let queue = Queue {
            next_sequence: 118,
            unacknowledged: VecDeque::from([before, after]),
            ..Queue::default()
        };
        drop(producer.queues.insert(0, queue));
        let reign = |epoch| Some(LeaderEpoch(epoch));
        producer.produced(&mut hub, 8, reign(acknowledged.1), Ok(Offset::new(459)));
        let error = SequenceError::OutOfOrder {
            found: 117,
            expected: 116,
        };
        let error = NotProduced::Refused(ProduceError::Sequence(error));
        producer.produced(&mut hub, 9, reign(refused.1), Err(error));
        hub.truth.violation().is_some()
    }

    /// Whether it is a violation that reign 1, which was read up to 230, ended here, after records up to 233 were deleted.
    fn is_lost(end: i64) -> bool {
        let mut hub = Hub::new(Plan::draw(1, Some(3)));
        let mut consumer = Consumer::new(0, TopicName::new("orders").expect("a valid name"));
        consumer.view.topic_id = Some(callboard_common::Uuid([1; 16]));
        let _none = consumer.positions.insert(0, 230);
        let _none = consumer.last.insert(0, (LeaderEpoch(1), 230));
        let _none = consumer.asked.insert(8, 0);
        consumer.fetched(&mut hub, 8, Err(NotFetched::OutOfRange(233, 233)));
        assert_eq!(consumer.positions[&0], 233);
        let _none = consumer.asked.insert(9, 0);
        let told = Some((LeaderEpoch(1), Offset::new(end)));
        consumer.reign_ended(&mut hub, 9, Ok(told));
        hub.truth.violation().is_some()
    }

    #[test]
    fn what_was_deleted_unread_was_not_read() {
        assert!(!is_lost(230));
        assert!(is_lost(229));
    }

    #[test]
    fn who_was_replaced_need_not_have_what_its_successor_acknowledged() {
        assert!(!is_violated((7, 7), (6, 6)));
        assert!(is_violated((7, 7), (7, 7)));
        assert!(is_violated((7, 7), (8, 8)));
        // Who acknowledged was in a newer reign than the producer knew, or who refused in an older or a newer one.
        assert!(!is_violated((1, 3), (2, 2)));
        assert!(!is_violated((3, 3), (4, 2)));
        assert!(is_violated((1, 3), (2, 3)));
    }
}
