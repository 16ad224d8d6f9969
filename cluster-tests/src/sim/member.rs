//! Members of one group: they join, share the partitions, commit what they have done, and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use callboard_broker::controller::MetadataImage;
use callboard_broker::coordinator::state::Commit;
use callboard_broker::coordinator::{Answer, Question};
use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{
    Blob, Heartbeat, JoinGroup, JoinedGroup, LeaveGroup, SyncGroup, SyncedGroup,
};
use callboard_common::{ErrorCode, Offset, TopicName, TopicPartition};

use super::event::{Event, OfClient};
use super::hub::Hub;
use super::plan::{HEALED, MS, Micros};
use super::view::{PATIENCE, View};

/// The group of all members.
const GROUP: &str = "team";
/// Between two acts of a member.
const PAUSE: Micros = 150 * MS;
/// Between two heartbeats.
const HEARTBEAT_PAUSE: Micros = 700 * MS;
/// A session ends after this, and so long a rebalance waits for members.
const SESSION_MS: i32 = 3_000;
/// In so many of a hundred acts a member goes, until everything heals.
const GOES: u64 = 1;

/// What was asked, and is not answered.
#[derive(Clone, Debug)]
enum Asked {
    Join,
    Sync(i32),
    Heartbeat,
    Offsets(BTreeMap<i32, i64>),
    Commit(i32, i64, i32),
    Leave,
}

/// How far a member is in its group.
#[derive(Clone, Debug)]
enum Phase {
    Joins,
    Syncs(Box<JoinedGroup>),
    /// It knows its partitions, not yet how far they are.
    Assigned,
    /// Its partitions, and what of each is done.
    Works(BTreeMap<i32, i64>),
}

/// See the module.
#[derive(Debug)]
pub struct Member {
    view: View,
    topic: TopicName,
    member: Text,
    /// Counts the ids that it was given.
    ids: u64,
    generation: i32,
    partitions: Vec<i32>,
    phase: Phase,
    asked: Option<(u64, Asked)>,
    heartbeat_at: Micros,
}

fn assignment(partitions: &[i32]) -> Blob {
    let bytes: Vec<u8> = partitions.iter().map(|p| *p as u8).collect();
    Blob(Bytes::from(bytes))
}

/// The leader's part: partitions go around.
fn assign(joined: &JoinedGroup, partitions: i32) -> Vec<(Text, Blob)> {
    let count = joined.members.len().max(1) as i32;
    let given = |(at, (member, _, _)): (i32, &(Text, Option<Text>, Blob))| {
        let its: Vec<i32> = (0..partitions).filter(|p| p % count == at).collect();
        (member.clone(), assignment(&its))
    };
    (0..).zip(&joined.members).map(given).collect()
}

impl Member {
    /// Is in no group yet.
    #[must_use]
    pub fn new(client: usize, topic: TopicName) -> Self {
        Self {
            view: View::new(client, TopicName::consumer_offsets()),
            topic,
            member: Text::default(),
            ids: 0,
            generation: -1,
            partitions: Vec::new(),
            phase: Phase::Joins,
            asked: None,
            heartbeat_at: 0,
        }
    }

    /// The generation that it works in, and its partitions.
    #[must_use]
    pub fn works(&self) -> Option<(i32, &[i32])> {
        matches!(self.phase, Phase::Works(_)).then_some((self.generation, &self.partitions))
    }

    /// Asks what comes next, if nothing is asked.
    pub fn act(&mut self, hub: &mut Hub) {
        let client = self.view.client;
        let pause = PAUSE / 2 + hub.random.below(PAUSE);
        hub.after(pause, Event::Client(client, OfClient::Act));
        if self.asked.is_some() {
            return;
        }
        let Some((node, _, topic_id)) = self.view.leader(0) else {
            return self.view.refresh(hub);
        };
        let (question, asked) = self.next(hub);
        let patience = match asked {
            Asked::Join | Asked::Sync(_) => 2 * PATIENCE,
            Asked::Heartbeat | Asked::Offsets(_) | Asked::Commit(..) | Asked::Leave => PATIENCE,
        };
        let id = self.view.ask(hub, (node, topic_id), question, patience);
        self.asked = Some((id, asked));
    }

    fn next(&mut self, hub: &mut Hub) -> (Question, Asked) {
        let goes = hub.now < HEALED && hub.random.percent(GOES);
        match self.phase.clone() {
            Phase::Joins => (self.join(), Asked::Join),
            Phase::Syncs(joined) => {
                let sync = self.sync(&joined, hub.plan.partitions);
                (sync, Asked::Sync(joined.generation))
            }
            Phase::Assigned | Phase::Works(_) if goes => (self.leave(), Asked::Leave),
            Phase::Assigned | Phase::Works(_) if hub.now >= self.heartbeat_at => {
                self.heartbeat_at = hub.now + HEARTBEAT_PAUSE;
                (self.heartbeat(), Asked::Heartbeat)
            }
            Phase::Assigned => self.offsets(hub),
            Phase::Works(done) => self.commit(hub, &done),
        }
    }

    fn join(&mut self) -> Question {
        self.ids += 1;
        let new_member = format!("member-{}-{}", self.view.client, self.ids);
        let join = JoinGroup {
            group: GROUP.into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            member: self.member.clone(),
            instance: None,
            protocol_type: "consumer".into(),
            protocols: vec![("around".into(), Blob::default())],
            member_id_required: true,
        };
        Question::Join {
            join,
            client_id: "client".into(),
            client_host: "host".into(),
            new_member: new_member.into(),
        }
    }

    fn sync(&self, joined: &JoinedGroup, partitions: i32) -> Question {
        let leads = joined.leader == self.member && !joined.skip_assignment;
        Question::Sync(SyncGroup {
            group: GROUP.into(),
            generation: joined.generation,
            member: self.member.clone(),
            instance: None,
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments: match leads {
                true => assign(joined, partitions),
                false => Vec::new(),
            },
        })
    }

    fn heartbeat(&self) -> Question {
        Question::Heartbeat(Heartbeat {
            group: GROUP.into(),
            generation: self.generation,
            member: self.member.clone(),
            instance: None,
        })
    }

    fn leave(&self) -> Question {
        Question::Leave(LeaveGroup {
            group: GROUP.into(),
            members: vec![(self.member.clone(), None)],
        })
    }

    fn of(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), number)
    }

    fn offsets(&self, hub: &Hub) -> (Question, Asked) {
        let all = self.partitions.iter().map(|p| self.of(*p)).collect();
        let question = Question::Offsets {
            group: GROUP.into(),
            partitions: Some(all),
        };
        (question, Asked::Offsets(hub.truth.group.committed.clone()))
    }

    fn commit(&self, hub: &mut Hub, done: &BTreeMap<i32, i64>) -> (Question, Asked) {
        if done.is_empty() {
            return (self.heartbeat(), Asked::Heartbeat);
        }
        let at = hub.random.below(done.len() as u64) as usize;
        let (number, next) = done.iter().nth(at).map_or((0, 1), |(p, d)| (*p, d + 1));
        let commit = Commit {
            group: GROUP.into(),
            generation: self.generation,
            member: self.member.clone(),
            instance: None,
            offsets: vec![(self.of(number), Offset::new(next), None, Text::default())],
        };
        let known = hub.truth.group.newest;
        (Question::Commit(commit), Asked::Commit(number, next, known))
    }

    /// Metadata came.
    pub fn described(&mut self, image: Arc<MetadataImage>) {
        let _is_another_topic: bool = self.view.described(image);
    }

    /// A coordinator answers, or a node that is none.
    pub fn answered(&mut self, hub: &mut Hub, id: u64, answer: Result<Answer, ErrorCode>) {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == id) else {
            return;
        };
        let Ok(answer) = answer else {
            return self.view.refresh(hub);
        };
        match (asked, answer) {
            (Asked::Join, Answer::Joined(joined)) => self.joined(joined),
            (Asked::Sync(generation), Answer::Synced(synced)) => {
                self.synced(hub, generation, &synced);
            }
            (Asked::Heartbeat, Answer::Heartbeat(told)) => self.heard(told.error),
            (Asked::Offsets(known), Answer::Offsets(offsets)) => self.told(hub, &known, &offsets),
            (Asked::Commit(number, offset, newest), Answer::Committed(errors)) => {
                self.committed(hub, (number, offset, newest), &errors);
            }
            (Asked::Leave, Answer::Left(_)) => self.begin_anew(),
            (asked, answer) => hub
                .truth
                .violate(|| format!("I16: {asked:?} was answered with {answer:?}")),
        }
    }

    fn begin_anew(&mut self) {
        self.member = Text::default();
        self.phase = Phase::Joins;
    }

    /// What an answer says of the membership.
    fn heard(&mut self, error: ErrorCode) {
        let rejoins = [ErrorCode::RebalanceInProgress, ErrorCode::IllegalGeneration];
        if error == ErrorCode::UnknownMemberId {
            self.begin_anew();
        } else if rejoins.contains(&error) {
            self.phase = Phase::Joins;
        }
        // Otherwise nothing is wrong, or the coordinator could not: it is asked again.
    }

    fn joined(&mut self, joined: JoinedGroup) {
        if joined.error == ErrorCode::None {
            self.member = joined.member.clone();
            self.phase = Phase::Syncs(Box::new(joined));
        } else if joined.error == ErrorCode::MemberIdRequired {
            self.member = joined.member;
        } else {
            self.heard(joined.error);
        }
    }

    fn synced(&mut self, hub: &mut Hub, generation: i32, synced: &SyncedGroup) {
        if synced.error != ErrorCode::None {
            // Who cannot sync joins again.
            self.phase = Phase::Joins;
            return self.heard(synced.error);
        }
        self.partitions = synced.assignment.0.iter().map(|p| i32::from(*p)).collect();
        self.generation = generation;
        hub.truth
            .assigned((generation, &self.member), &self.partitions);
        self.phase = Phase::Assigned;
    }

    /// It is told how far its partitions are; `known` was acknowledged when it asked.
    fn told(
        &mut self,
        hub: &mut Hub,
        known: &BTreeMap<i32, i64>,
        offsets: &[(
            TopicPartition,
            Option<callboard_broker::coordinator::offsets::CommittedOffset>,
        )],
    ) {
        let mut done = BTreeMap::new();
        for (partition, told) in offsets {
            let number = partition.partition;
            let told = told.as_ref().map(|o| o.offset.get());
            let known = known.get(&number).copied();
            if told < known {
                hub.truth.violate(|| {
                    format!("I16: {GROUP} is told that {told:?} of {number} is committed, {known:?} was known to be")
                });
            }
            let _none = done.insert(number, told.unwrap_or(0));
        }
        self.phase = Phase::Works(done);
    }

    fn committed(
        &mut self,
        hub: &mut Hub,
        (number, offset, newest): (i32, i64, i32),
        errors: &[ErrorCode],
    ) {
        match errors {
            [ErrorCode::None] => {
                hub.coverage.commits += 1;
                hub.truth
                    .group_commits((number, offset), self.generation, newest);
                if let Phase::Works(done) = &mut self.phase {
                    let _before = done.insert(number, offset);
                }
            }
            [error] => self.heard(*error),
            _ => {}
        }
    }

    /// A question was not answered for long.
    pub fn unanswered(&mut self, hub: &mut Hub, id: u64) {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == id) else {
            return;
        };
        match asked {
            // It may be done, or not: what is next says.
            Asked::Commit(number, offset, _) => {
                if let Phase::Works(done) = &mut self.phase {
                    let _before = done.insert(number, offset);
                }
            }
            Asked::Sync(_) => self.phase = Phase::Joins,
            Asked::Leave => self.begin_anew(),
            Asked::Join | Asked::Heartbeat | Asked::Offsets(_) => {}
        }
        self.view.refresh(hub);
    }
}
