//! A client that commits how far it is and asks how far it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_broker::controller::MetadataImage;
use callboard_broker::coordinator::state::Commit;
use callboard_broker::coordinator::{Answer, Question};
use callboard_common::kafka::Text;
use callboard_common::{ErrorCode, Offset, TopicName, TopicPartition};

use super::event::{Event, OfClient};
use super::hub::Hub;
use super::plan::{HEALED, MS, Micros};
use super::view::{PATIENCE, View};

/// Between two questions.
const PAUSE: Micros = 120 * MS;

/// What was asked, and is not answered.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// To commit this.
    Commit(i64),
    /// What is committed, when this was known to be.
    Offset(Option<i64>),
}

/// Commits rising offsets under a group of its own.
#[derive(Debug)]
pub struct Committer {
    view: View,
    group: Text,
    /// Whether it only asks how far others are.
    watches: bool,
    of: TopicPartition,
    next: i64,
    asked: BTreeMap<u64, Asked>,
    /// When it was told how far it is.
    pub told_at: Micros,
}

impl Committer {
    /// Has committed nothing yet of a partition.
    #[must_use]
    pub fn new(client: usize, (group, watches): (Text, bool), of: TopicPartition) -> Self {
        Self {
            view: View::new(client, TopicName::consumer_offsets()),
            group,
            watches,
            of,
            next: 0,
            asked: BTreeMap::new(),
            told_at: 0,
        }
    }

    /// Asks something, if nothing is asked.
    pub fn act(&mut self, hub: &mut Hub) {
        let client = self.view.client;
        let pause = PAUSE / 2 + hub.random.below(PAUSE);
        hub.after(pause, Event::Client(client, OfClient::Act));
        if !self.asked.is_empty() {
            return;
        }
        let Some((node, _, topic_id)) = self.view.leader(0) else {
            return self.view.refresh(hub);
        };
        let (question, asked) = match hub.now < HEALED && hub.random.percent(60) && !self.watches {
            true => self.commit(),
            false => self.offset(hub),
        };
        let id = self.view.ask(hub, (node, topic_id), question, PATIENCE);
        let _none = self.asked.insert(id, asked);
    }

    fn commit(&mut self) -> (Question, Asked) {
        self.next += 1;
        let commit = Commit {
            group: self.group.clone(),
            generation: -1,
            member: Text::default(),
            instance: None,
            offsets: vec![(
                self.of.clone(),
                Offset::new(self.next),
                None,
                Text::default(),
            )],
        };
        (Question::Commit(commit), Asked::Commit(self.next))
    }

    fn offset(&self, hub: &Hub) -> (Question, Asked) {
        let (group, partitions) = (self.group.clone(), Some(vec![self.of.clone()]));
        let known = hub.truth.committed.get(&self.group).copied();
        let question = Question::Offsets { group, partitions };
        (question, Asked::Offset(known))
    }

    /// Metadata came.
    pub fn described(&mut self, image: Arc<MetadataImage>) {
        let _is_another_topic: bool = self.view.described(image);
    }

    /// A coordinator answers, or a node that is none.
    pub fn answered(&mut self, hub: &mut Hub, id: u64, answer: Result<Answer, ErrorCode>) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        match (asked, answer) {
            (Asked::Commit(offset), Ok(Answer::Committed(errors)))
                if errors == [ErrorCode::None] =>
            {
                let _before = hub.truth.committed.insert(self.group.clone(), offset);
                hub.coverage.commits += 1;
            }
            (Asked::Offset(known), Ok(Answer::Offsets(offsets))) => {
                let told = offsets.first().and_then(|(_, o)| o.as_ref());
                self.judge(hub, known, told.map(|o| o.offset.get()));
            }
            (Asked::Commit(_) | Asked::Offset(_), _) => {
                self.uncertain(hub, asked);
            }
        }
    }

    fn uncertain(&mut self, hub: &mut Hub, asked: Asked) {
        if let Asked::Commit(offset) = asked {
            let _new = hub.truth.uncertain.insert((self.group.clone(), offset));
        }
        self.view.refresh(hub);
    }

    /// A question was not answered for long.
    pub fn unanswered(&mut self, hub: &mut Hub, id: u64) {
        if let Some(asked) = self.asked.remove(&id) {
            self.uncertain(hub, asked);
        }
    }

    /// I16: what was acknowledged is answered, until something later was committed.
    fn judge(&mut self, hub: &mut Hub, known: Option<i64>, told: Option<i64>) {
        self.told_at = hub.now;
        let is_right = match told {
            Some(told) => {
                let late = (self.group.clone(), told);
                told >= known.unwrap_or(0) || hub.truth.uncertain.contains(&late)
            }
            None => known.is_none(),
        };
        if !is_right {
            let group = &self.group;
            hub.truth.violate(|| {
                format!(
                    "I16: {group} is told that {told:?} is committed, {known:?} was known to be"
                )
            });
        }
    }
}
