//! Membership in a group: join, sync, heartbeat, leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{
    Blob, Heartbeat, HeartbeatAnswer, JoinGroup, JoinedGroup, LeaveGroup, LeftGroup, SyncGroup,
    SyncedGroup,
};
use callboard_common::{ErrorCode, TopicName, TopicPartition};

use super::assignor::{self, ASSIGNORS};
use crate::Client;
use crate::config::ConsumerConfig;
use crate::connection::Lane;
use crate::error::{Error, check};
use crate::routing::Route;

/// Who the consumer is in its group.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    client: Client,
    pub(crate) group: Text,
    pub(crate) member: Text,
    pub(crate) instance: Option<Text>,
    pub(crate) generation: i32,
    session_timeout: Duration,
    rebalance_timeout: Duration,
}

fn ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Membership {
    pub(crate) fn new(client: &Client, group: &str, config: &ConsumerConfig) -> Self {
        Self {
            client: client.clone(),
            group: group.into(),
            member: Text::default(),
            instance: config.instance.as_deref().map(Text::from),
            generation: -1,
            session_timeout: config.session_timeout,
            rebalance_timeout: config.rebalance_timeout,
        }
    }

    fn route(&self) -> Route {
        Route::Coordinator(self.group.clone())
    }

    /// Joins the group, again until it is in a generation, and returns the partitions that are its own.
    pub(crate) async fn join(
        &mut self,
        topics: &BTreeSet<TopicName>,
    ) -> Result<Vec<TopicPartition>, Error> {
        loop {
            match self.join_once(topics).await {
                Ok(Some(partitions)) => return Ok(partitions),
                // The group changed meanwhile.
                Ok(None) => {}
                Err(error) if error.is_retriable() => {
                    self.client.lost(&self.route(), None);
                    tokio::time::sleep(self.client.config().retry_backoff).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error is handed on"
    )]
    async fn join_once(
        &mut self,
        topics: &BTreeSet<TopicName>,
    ) -> Result<Option<Vec<TopicPartition>>, Error> {
        let subscription = Blob(assignor::encode_subscription(topics, &[]));
        let request = JoinGroup {
            group: self.group.clone(),
            session_timeout_ms: ms(self.session_timeout),
            rebalance_timeout_ms: ms(self.rebalance_timeout),
            member: self.member.clone(),
            instance: self.instance.clone(),
            protocol_type: Text::from_static("consumer"),
            protocols: ASSIGNORS
                .map(|name| (Text::from_static(name), subscription.clone()))
                .to_vec(),
            member_id_required: self.instance.is_none(),
        };
        let joined: JoinedGroup = self
            .client
            .ask_at(
                &self.route(),
                Lane::Membership,
                request,
                self.rebalance_timeout,
            )
            .await?;
        match joined.error {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.member = joined.member;
                return Ok(None);
            }
            ErrorCode::UnknownMemberId => {
                self.member = Text::default();
                return Ok(None);
            }
            ErrorCode::RebalanceInProgress => return Ok(None),
            error => return Err(Error::refused(error)),
        }
        (self.member, self.generation) = (joined.member.clone(), joined.generation);
        let leads = joined.leader == joined.member && !joined.skip_assignment;
        let assignments = if leads {
            self.assign(&joined).await?
        } else {
            Vec::new()
        };
        self.sync(&joined, assignments).await
    }

    /// The leader's part: who reads what.
    async fn assign(&self, joined: &JoinedGroup) -> Result<Vec<(Text, Blob)>, Error> {
        let mut subscriptions = BTreeMap::new();
        let mut topics = BTreeSet::new();
        for (member, _, subscription) in &joined.members {
            let wanted = assignor::decode_subscription(subscription.0.clone()).unwrap_or_default();
            topics.extend(wanted.iter().cloned());
            drop(subscriptions.insert(member.to_string(), wanted));
        }
        let mut partitions = BTreeMap::new();
        for topic in topics {
            self.client.forget(topic.as_str());
            match self.client.partitions(topic.as_str()).await {
                Ok(count) => drop(partitions.insert(topic, count)),
                // A topic that is not there has nothing to give out.
                Err(Error::UnknownTopic(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let protocol = joined.protocol.clone().unwrap_or_default();
        let assignment = assignor::assign(&protocol, &subscriptions, &partitions);
        Ok(assignment
            .into_iter()
            .map(|(m, p)| (Text::from(m), Blob(assignor::encode_assignment(&p))))
            .collect())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error is handed on"
    )]
    async fn sync(
        &mut self,
        joined: &JoinedGroup,
        assignments: Vec<(Text, Blob)>,
    ) -> Result<Option<Vec<TopicPartition>>, Error> {
        let request = SyncGroup {
            group: self.group.clone(),
            generation: self.generation,
            member: self.member.clone(),
            instance: self.instance.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments,
        };
        let synced: SyncedGroup = self
            .client
            .ask_at(
                &self.route(),
                Lane::Membership,
                request,
                self.rebalance_timeout,
            )
            .await?;
        match synced.error {
            ErrorCode::None => {
                let partitions = assignor::decode_assignment(synced.assignment.0);
                Ok(Some(partitions.ok_or_else(|| {
                    Error::Corrupt("the assignment is malformed".into())
                })?))
            }
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(None),
            ErrorCode::UnknownMemberId => {
                self.member = Text::default();
                Ok(None)
            }
            error => Err(Error::refused(error)),
        }
    }

    /// Says that the member lives; `false` if it must join again.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error is handed on"
    )]
    pub(crate) async fn heartbeat(&mut self) -> Result<bool, Error> {
        let request = Heartbeat {
            group: self.group.clone(),
            generation: self.generation,
            member: self.member.clone(),
            instance: self.instance.clone(),
        };
        let answer: HeartbeatAnswer = self
            .client
            .ask_at(&self.route(), Lane::Group, request, Duration::ZERO)
            .await?;
        match answer.error {
            ErrorCode::None => Ok(true),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(false),
            ErrorCode::UnknownMemberId => {
                self.member = Text::default();
                Ok(false)
            }
            error => {
                let error = Error::refused(error);
                if error.is_retriable() {
                    self.client.lost(&self.route(), None);
                }
                Err(error)
            }
        }
    }

    /// Leaves, so that the others need not wait for the session to end. Static members keep their place.
    pub(crate) async fn leave(&self) -> Result<(), Error> {
        if self.member.is_empty() || self.instance.is_some() {
            return Ok(());
        }
        let request = LeaveGroup {
            group: self.group.clone(),
            members: vec![(self.member.clone(), None)],
        };
        let left: LeftGroup = self
            .client
            .ask_at(&self.route(), Lane::Group, request, Duration::ZERO)
            .await?;
        check(left.error)
    }
}
