//! What a node does for clients and for the nodes that follow its partitions.

use callboard_broker::controller::Input;
use callboard_broker::controller::Ticket;
use callboard_broker::leader::{Ends, reign_end};
use callboard_broker::peer::protocol::What;
use callboard_common::{BrokerId, ErrorCode, TopicName, TopicPartition, Uuid};

use super::{Feed, LEADER_PAUSE, Purpose, Running};
use crate::sim::event::{Lane, Message, NotFetched, NotProduced, OfNode, OfPartition, Place};
use crate::sim::hub::Hub;
use crate::sim::leading::{Fed, HIGH_WATERMARK_PAUSE};
use crate::sim::plan::{MS, Micros};
use crate::sim::replica::Replica;

/// A node that has heard of no voter for this long serves nothing: its lease, and a tick.
const LEASE: Micros = 3_100 * MS;

impl Running {
    /// Another place says something.
    #[expect(clippy::too_many_lines, reason = "a row of cases, each a few lines")]
    pub fn message(&mut self, hub: &mut Hub, from: Place, message: Message) {
        match (message, from) {
            (Message::Raft(member, message), _) => {
                self.heard_of_quorum = hub.now;
                self.step(hub, Input::Message(member, message));
            }
            (
                Message::Propose {
                    id,
                    proposal,
                    relay,
                },
                Place::Node(asker),
            ) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                drop(self.waiting.insert(ticket, Purpose::Peer(asker, id)));
                let input = match relay {
                    true => Input::Propose(ticket, proposal),
                    false => Input::ProposeHere(ticket, proposal),
                };
                self.step(hub, input);
            }
            (Message::Proposed { id, index, result }, _) => self.heard(hub, id, index, result),
            (Message::Metadata, client) => {
                let described = Message::Described(self.image.clone());
                hub.send(Place::Node(self.node), client, described);
            }
            (
                Message::Produce {
                    id,
                    partition,
                    topic_id,
                    batch,
                },
                client,
            ) => {
                let at = self.now_of(&partition);
                if !self.leads(hub, &partition, topic_id) {
                    let message = Message::Produced {
                        id,
                        reign: None,
                        result: Err(NotProduced::NotLeader),
                    };
                    return hub.send(Place::Node(self.node), client, message);
                }
                self.with(hub, at, |replica, cx| {
                    replica.act(cx, |leading, files, cx| {
                        leading.produce(files, cx, (client, id), batch)
                    });
                });
            }
            (
                Message::Fetch {
                    id,
                    partition,
                    topic_id,
                    from,
                    epoch,
                },
                client,
            ) => {
                let at = self.now_of(&partition);
                if !self.leads(hub, &partition, topic_id) {
                    let result = Err(NotFetched::NotLeader);
                    return hub.send(
                        Place::Node(self.node),
                        client,
                        Message::Fetched { id, result },
                    );
                }
                self.with(hub, at, |replica, cx| {
                    replica.act(cx, |leading, files, cx| {
                        leading.fetch(files, cx, (client, id), from, epoch)
                    });
                });
            }
            (
                Message::ReignEnd {
                    id,
                    partition,
                    topic_id,
                    current,
                    asked,
                },
                client,
            ) => {
                let leads = self.leads(hub, &partition, topic_id);
                let replica = self.partitions.get_mut(&partition).filter(|_| leads);
                let leading = replica.and_then(Replica::leading);
                let result = leading.ok_or(NotFetched::NotLeader).and_then(|(_, l)| {
                    reign_end(&l.leader, l.log.epochs(), Some(current), asked)
                        .map_err(|_| NotFetched::NotLeader)
                });
                let message = Message::ReignEnded { id, result };
                hub.send(Place::Node(self.node), client, message);
            }
            (
                Message::Ask {
                    id,
                    topic_id,
                    question,
                },
                client,
            ) => {
                let partition = TopicPartition::new(TopicName::consumer_offsets(), 0);
                let at = self.now_of(&partition);
                let now = hub.clock(self.skew_ms).monotonic;
                let is_old = question.reads_offsets() && self.published.may_be_replaced(now);
                if is_old || !self.leads(hub, &partition, topic_id) {
                    let answer = Err(ErrorCode::NotCoordinator);
                    let message = Message::Answered { id, answer };
                    return hub.send(Place::Node(self.node), client, message);
                }
                self.with(hub, at, |replica, cx| {
                    replica.act(cx, |leading, files, cx| {
                        leading.ask(files, cx, (client, id), *question)
                    });
                });
            }
            (
                Message::Propose { .. }
                | Message::Produced { .. }
                | Message::Fetched { .. }
                | Message::ReignEnded { .. }
                | Message::Answered { .. }
                | Message::Described(_)
                | Message::Position(..)
                | Message::Part(..),
                _,
            ) => {}
        }
    }

    /// Whether it leads a partition and may serve it: it has heard of the quorum lately.
    pub(super) fn leads(
        &mut self,
        hub: &mut Hub,
        partition: &TopicPartition,
        topic_id: Uuid,
    ) -> bool {
        let now = hub.clock(self.skew_ms).monotonic;
        let is_cut_off = self.published.is_cut_off(now);
        let replica = self.partitions.get_mut(partition);
        let serves = |r: &mut Replica| {
            let leading = r.leading();
            leading.is_some_and(|(_, l)| l.leader.ends().epoch.is_some())
        };
        let leads = replica.is_some_and(|r| r.files.topic_id == topic_id && serves(r));
        let serves = leads && !is_cut_off;
        // I9: whoever may have been replaced long ago serves nobody. A leader of the quorum hears itself.
        let silent = hub.now - self.heard_of_quorum;
        if serves && !self.leads_quorum && hub.plan.nodes > 1 && silent > LEASE {
            let node = self.node + 1;
            hub.truth.violate(|| {
                format!(
                    "I9: node {node} serves {partition} and has heard of no voter for {silent} us"
                )
            });
        }
        serves
    }

    /// Another node says something on a lane.
    pub fn on_lane(&mut self, hub: &mut Hub, lane: Lane, message: Message) {
        match message {
            Message::Position(partition, position) => {
                let key = (partition.clone(), lane.follower);
                let same = self.feeds.get(&key).filter(|f| f.lane == lane);
                let feed = Feed {
                    lane,
                    position,
                    told: same.map_or(0, |f| f.told),
                    waits: true,
                    fed_in: 0,
                    failed: false,
                    timer: same.is_some_and(|f| f.timer),
                };
                let _before = self.feeds.insert(key, feed);
                self.feed(hub, &partition, lane.follower);
            }
            Message::Part(partition, part) => {
                let at = self.now_of(&partition);
                self.with(hub, at, |replica, cx| {
                    let leader = BrokerId(lane.leader as i32 + 1);
                    if replica.files.topic_id == part.topic_id && replica.followed() == Some(leader)
                    {
                        replica.sent(cx, *part);
                    }
                });
            }
            Message::Raft(..)
            | Message::Propose { .. }
            | Message::Proposed { .. }
            | Message::Produce { .. }
            | Message::Produced { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::ReignEnd { .. }
            | Message::ReignEnded { .. }
            | Message::Ask { .. }
            | Message::Answered { .. }
            | Message::Metadata
            | Message::Described(_) => {}
        }
    }

    /// There is a lane to another node: whoever follows it says how far it is.
    pub fn connected(&mut self, hub: &mut Hub, leader: usize) {
        let leader = BrokerId(leader as i32 + 1);
        for partition in self.following(leader) {
            let at = self.now_of(&partition);
            self.with(hub, at, |replica, cx| replica.connected(cx));
        }
    }

    /// The partitions that follow a node.
    #[must_use]
    pub fn following(&self, leader: BrokerId) -> Vec<TopicPartition> {
        let follows = self
            .partitions
            .iter()
            .filter(|(_, r)| r.followed() == Some(leader));
        follows.map(|(p, _)| p.clone()).collect()
    }

    /// Tells a follower what there is for it.
    pub(super) fn feed(&mut self, hub: &mut Hub, partition: &TopicPartition, follower: usize) {
        let key = (partition.clone(), follower);
        let Some(feed) = self.feeds.get(&key) else {
            return;
        };
        if !hub.is_current(feed.lane) {
            let _gone = self.feeds.remove(&key);
            return;
        }
        let (position, lane) = (feed.position, feed.lane);
        // Nothing that follows from this feeds it once more.
        if let Some(feed) = self.feeds.get_mut(&key) {
            feed.waits = false;
        }
        let life = self.now_of(partition).1;
        let mut fed = Fed::Later;
        let _lives: bool = self.with_quietly(hub, (partition, life), |replica, cx| {
            if replica.files.topic_id != position.topic_id {
                return;
            }
            let broker = BrokerId(follower as i32 + 1);
            replica.act(cx, |leading, files, cx| {
                fed = leading.feed(files, cx, broker, &position)?;
                Ok(())
            });
        });
        let committed = self.committed(partition);
        let life = self.now_of(partition).1;
        let Some(feed) = self.feeds.get_mut(&key) else {
            return;
        };
        (feed.fed_in, feed.failed) = (life, false);
        match fed {
            Fed::Part(part) => {
                (feed.waits, feed.told) = (false, part.high_watermark.get());
                let message = Message::Part(partition.clone(), part);
                hub.send_on(lane, false, message);
            }
            Fed::Nothing => {
                feed.waits = true;
                let news = committed > feed.told;
                self.arm_feed(hub, &key, if news { HIGH_WATERMARK_PAUSE } else { 0 });
            }
            Fed::Later => {
                (feed.waits, feed.failed) = (true, true);
                self.arm_feed(hub, &key, LEADER_PAUSE);
            }
        }
        self.feed_waiting(hub, partition);
    }

    pub(super) fn arm_feed(&mut self, hub: &mut Hub, key: &(TopicPartition, usize), wait: u64) {
        let Some(feed) = self.feeds.get_mut(key).filter(|f| wait > 0 && !f.timer) else {
            return;
        };
        feed.timer = true;
        let event = OfNode::Partition(key.0.clone(), 0, OfPartition::Feed(key.1));
        self.later(hub, wait, event);
    }

    /// The ends of a log that is led here.
    fn ends(&mut self, partition: &TopicPartition) -> Option<Ends> {
        let (_, leading) = self.partitions.get_mut(partition)?.leading()?;
        Some(leading.leader.ends())
    }

    pub(super) fn committed(&mut self, partition: &TopicPartition) -> i64 {
        let ends = self.ends(partition);
        ends.map_or(0, |ends| ends.high_watermark.get())
    }

    /// Whoever waits for more of a partition gets it, if there is more.
    pub(super) fn feed_waiting(&mut self, hub: &mut Hub, partition: &TopicPartition) {
        let Some(ends) = self.ends(partition) else {
            return;
        };
        let life = self.now_of(partition).1;
        let first = (partition.clone(), 0);
        let last = (partition.clone(), usize::MAX);
        let waiting: Vec<usize> = self
            .feeds
            .range(first..=last)
            .filter(|(_, f)| f.waits)
            .map(|((_, n), _)| *n)
            .collect();
        for follower in waiting {
            let key = (partition.clone(), follower);
            let Some(feed) = self.feeds.get(&key) else {
                continue;
            };
            let more = ends.log_end > feed.position.end
                || ends.epoch.or(ends.in_doubt) > Some(feed.position.epoch);
            // A new life of the leader has heard of nobody yet.
            if feed.fed_in != life || (more && !feed.failed) {
                self.feed(hub, partition, follower);
            } else if ends.high_watermark.get() > feed.told {
                self.arm_feed(hub, &key, HIGH_WATERMARK_PAUSE);
            }
        }
    }

    pub(super) fn feed_later(
        &mut self,
        hub: &mut Hub,
        partition: &TopicPartition,
        follower: usize,
    ) {
        let key = (partition.clone(), follower);
        let Some(feed) = self.feeds.get_mut(&key) else {
            return;
        };
        feed.timer = false;
        if !feed.waits {
            return;
        }
        let (position, lane) = (feed.position, feed.lane);
        let replica = self.partitions.get_mut(partition);
        let leading = replica.and_then(Replica::leading).map(|(_, l)| l);
        let idle = leading.filter(|l| feed.is_idle(l.leader.ends()));
        let Some(leading) = idle else {
            return self.feed(hub, partition, follower);
        };
        let committed = leading.leader.ends().high_watermark.get();
        if committed > feed.told {
            feed.told = committed;
            let part = leading.part(&position, What::HighWatermark);
            hub.send_on(lane, false, Message::Part(partition.clone(), part));
        }
    }
}
