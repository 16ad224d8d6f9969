//! Which node is asked: any, a partition's leader, or a group's coordinator; and what happens when it is gone.
//!
//! What was handed to a node that has died is not waited for until its connection times out: while an answer is late,
//! the other nodes are asked whether somebody else has taken over. What anybody may answer is asked of another node when the
//! one that was asked does not say anything any more.

use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{CoordinatorKind, FindCoordinators, FoundCoordinators};
use callboard_common::protocol::metadata::{Metadata as MetadataRequest, MetadataAnswer};
use callboard_common::protocol::{Ask, Request, Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode, TopicPartition};
use tokio::sync::oneshot;

use crate::Client;
use crate::connection::{Connection, Lane};
use crate::error::{Error, check};

/// While there are other nodes, one that does not let the client in for so long is left out.
const TRY_ANOTHER_AFTER: Duration = Duration::from_secs(1);
/// A node that does not even say who is there for so long has fallen silent. Throttling does not delay that answer.
const SILENCE: Duration = Duration::from_secs(3);
/// How often is looked whether somebody else has taken over while an answer is late.
const LATE: Duration = Duration::from_millis(100);

/// To whom a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Any,
    Leader(TopicPartition),
    /// A replica that the leader has named (KIP-392).
    Replica(TopicPartition, BrokerId),
    Coordinator(Text),
}

type Answering = oneshot::Receiver<Result<Response, Error>>;

impl Client {
    /// Asks any node.
    pub(crate) async fn ask<A: Ask>(
        &self,
        lane: Lane,
        request: A,
        extra: Duration,
    ) -> Result<A::Answer, Error> {
        self.ask_at(&Route::Any, lane, request, extra).await
    }

    /// Asks any node, as [`Client::ask_patiently_at`].
    pub(crate) async fn ask_patiently<A, T>(
        &self,
        lane: Lane,
        request: A,
        accept: impl Fn(A::Answer) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        A: Ask + Clone,
    {
        self.ask_patiently_at(&Route::Any, lane, request, accept)
            .await
    }

    /// Asks the node that the route leads to, which is found out anew the next time if this fails.
    pub(crate) async fn ask_at<A: Ask>(
        &self,
        route: &Route,
        lane: Lane,
        request: A,
        extra: Duration,
    ) -> Result<A::Answer, Error> {
        let asked = async {
            let (node, answer) = self.start_at(route, lane, request.into()).await?;
            let answer = tokio::select! {
                answer = node.wait(answer, extra) => answer?,
                error = self.overtaken(route, node.server(), extra) => return Err(error),
            };
            self.known().trust(node.server());
            Ok(answer)
        };
        let asked = asked.await;
        if let Err(Error::Connection { server, .. }) = &asked {
            self.lost(route, Some(server));
        }
        asked
    }

    /// As [`Client::ask_at`], again and again while the error may pass and the time is not up.
    pub(crate) async fn ask_patiently_at<A, T>(
        &self,
        route: &Route,
        lane: Lane,
        request: A,
        accept: impl Fn(A::Answer) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        A: Ask + Clone,
    {
        let trying = async {
            loop {
                let asked = self.ask_at(route, lane.clone(), request.clone(), Duration::ZERO);
                match asked.await.and_then(&accept) {
                    Err(error) if error.is_retriable() => {
                        self.lost(route, None);
                        tokio::time::sleep(self.config().retry_backoff).await;
                    }
                    other => return other,
                }
            }
        };
        tokio::time::timeout(self.config().api_timeout, trying)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// Hands a request to the node of a route. If it fails, nothing was sent.
    pub(crate) async fn start_at(
        &self,
        route: &Route,
        lane: Lane,
        request: Request,
    ) -> Result<(Connection, Answering), Error> {
        let node = match route {
            Route::Any => return self.start_anywhere(lane, request, None).await,
            Route::Leader(partition) => self.leader(partition).await?,
            Route::Replica(_, replica) => self.replica(*replica).await?,
            Route::Coordinator(group) => self.coordinator(group).await?,
        };
        let started = tokio::select! {
            started = node.start(lane, request) => started,
            error = self.overtaken(route, node.server(), Duration::ZERO) => Err(error),
        };
        Ok((node, started?))
    }

    /// Hands a request to the first node that takes it, but not to `except`.
    async fn start_anywhere(
        &self,
        lane: Lane,
        request: Request,
        except: Option<&str>,
    ) -> Result<(Connection, Answering), Error> {
        let mut candidates = self.candidates();
        candidates.retain(|c| except != Some(c));
        let others = candidates.len() > 1;
        let mut failed = Error::Closed;
        for server in candidates {
            let node = self.node(&server).await;
            let started = node.start(lane.clone(), request.clone());
            let started = match others {
                true => tokio::time::timeout(TRY_ANOTHER_AFTER, started)
                    .await
                    .unwrap_or(Err(Error::Timeout)),
                false => started.await,
            };
            match started {
                Ok(answer) => {
                    self.known().prefer(server);
                    return Ok((node, answer));
                }
                Err(error @ (Error::Connection { .. } | Error::Timeout)) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// What is known of the node is not true any more.
    pub(crate) fn lost(&self, route: &Route, server: Option<&str>) {
        match route {
            Route::Any | Route::Replica(..) => {}
            Route::Leader(partition) => self.forget(partition.topic.as_str()),
            Route::Coordinator(group) => self.known().forget_coordinator(group),
        }
        if let Some(server) = server {
            self.known().avoid(server);
        }
    }

    /// Waits until another node has what `server` was asked for; never returns while none has. An answer that may take
    /// `extra` is not late before that.
    pub(crate) async fn overtaken(&self, route: &Route, server: &str, extra: Duration) -> Error {
        tokio::time::sleep(extra).await;
        loop {
            tokio::time::sleep(LATE).await;
            let now = match route {
                Route::Any => return self.silent(server).await,
                Route::Leader(partition) => self.leader_now(partition, server).await,
                Route::Replica(partition, replica) => {
                    self.instead_of(partition, *replica, server).await
                }
                Route::Coordinator(group) => self.coordinator_now(group, server).await,
            };
            if now.is_some_and(|now| now != server) {
                self.drop_node(server).await;
                return Error::Connection {
                    server: server.to_owned(),
                    reason: "another node has taken over".into(),
                };
            }
        }
    }

    /// Waits until a node that anybody could stand in for does not say anything any more. What it was asked may take its time.
    async fn silent(&self, server: &str) -> Error {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            auto_create: false,
        };
        loop {
            let node = self.node(server).await;
            let asking = node.ask(Lane::Alive, request.clone(), Duration::ZERO);
            let answered = tokio::time::timeout(SILENCE, asking).await;
            // A refusal is an answer.
            let is_silent = matches!(
                answered,
                Err(_) | Ok(Err(Error::Timeout | Error::Connection { .. }))
            );
            // One node may have several names.
            if is_silent && self.known().brokers().len() > 1 {
                self.drop_node(server).await;
                return Error::Connection {
                    server: server.to_owned(),
                    reason: "it has fallen silent".into(),
                };
            }
            tokio::time::sleep(TRY_ANOTHER_AFTER).await;
        }
    }

    /// Asks another node than `except`, once.
    async fn ask_another<A: Ask>(&self, request: A, except: &str) -> Result<A::Answer, Error> {
        let (node, answer) = self
            .start_anywhere(Lane::Control, request.into(), Some(except))
            .await?;
        let waiting = node.wait(answer, Duration::ZERO);
        match tokio::time::timeout(TRY_ANOTHER_AFTER, waiting).await {
            Ok(answer) => {
                self.known().trust(node.server());
                answer
            }
            Err(_) => {
                self.known().avoid(node.server());
                Err(Error::Timeout)
            }
        }
    }

    /// Who leads a partition, as another node knows.
    async fn leader_now(&self, partition: &TopicPartition, except: &str) -> Option<String> {
        let _answer = self.metadata_now(partition, except).await?;
        self.known()
            .leader(partition.topic.as_str(), partition.partition)
    }

    /// Who leads a partition, if a replica is not in sync any more, as another node knows.
    async fn instead_of(
        &self,
        partition: &TopicPartition,
        replica: BrokerId,
        except: &str,
    ) -> Option<String> {
        let answer = self.metadata_now(partition, except).await?;
        let mut partitions = answer.topics.iter().flat_map(|t| &t.partitions);
        let told = partitions.find(|p| p.partition == partition.partition)?;
        match told.isr.contains(&replica) {
            true => None,
            false => self
                .known()
                .leader(partition.topic.as_str(), partition.partition),
        }
    }

    /// What another node knows of a partition's topic.
    async fn metadata_now(
        &self,
        partition: &TopicPartition,
        except: &str,
    ) -> Option<MetadataAnswer> {
        let request = MetadataRequest {
            topics: Some(vec![TopicRef::Name(partition.topic.as_str().into())]),
            auto_create: false,
        };
        let answer = self.ask_another(request, except).await.ok()?;
        self.known().learn(&answer);
        Some(answer)
    }

    async fn coordinator_now(&self, group: &Text, except: &str) -> Option<String> {
        let answer = self.ask_another(find_coordinator(group), except).await;
        found(answer.ok()?).ok()
    }

    /// The connection to a partition's leader.
    async fn leader(&self, partition: &TopicPartition) -> Result<Connection, Error> {
        let topic = partition.topic.as_str();
        if self.known().leader(topic, partition.partition).is_none() {
            // Who reads or writes a partition has seen the topic: if it is gone, that is for the user to know.
            let _count = self.refresh(topic, false).await?;
        }
        let address = self.known().leader(topic, partition.partition);
        let address = address.ok_or_else(|| {
            self.forget(topic);
            Error::refused(ErrorCode::LeaderNotAvailable)
        })?;
        Ok(self.node(&address).await)
    }

    /// The connection to a node that a leader has named.
    async fn replica(&self, replica: BrokerId) -> Result<Connection, Error> {
        let address = self.known().broker(replica);
        let address = address.ok_or(Error::refused(ErrorCode::LeaderNotAvailable))?;
        Ok(self.node(&address).await)
    }

    /// The connection to a group's coordinator.
    async fn coordinator(&self, group: &Text) -> Result<Connection, Error> {
        if let Some(address) = self.known().coordinator(group) {
            return Ok(self.node(&address).await);
        }
        let request = find_coordinator(group);
        let address = Box::pin(self.ask_patiently(Lane::Control, request, found)).await?;
        self.known().learn_coordinator(group, &address);
        Ok(self.node(&address).await)
    }

    /// How many partitions a topic has; asked for if it is not known, which may create it.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<usize, Error> {
        match self.known().partitions(topic) {
            Some(count) => Ok(count),
            None => self.refresh(topic, true).await,
        }
    }

    /// Asks for a topic anew.
    async fn refresh(&self, topic: &str, auto_create: bool) -> Result<usize, Error> {
        let name = Text::from(topic);
        let request = MetadataRequest {
            topics: Some(vec![TopicRef::Name(name.clone())]),
            auto_create,
        };
        let asking = self.ask_patiently(Lane::Control, request, |answer: MetadataAnswer| {
            self.known().learn(&answer);
            let topic = answer.topics.first();
            let topic = topic.ok_or(Error::refused(ErrorCode::UnknownTopicOrPartition))?;
            // A topic that is not there will not be there soon either: it would have been created.
            if topic.error == ErrorCode::UnknownTopicOrPartition {
                return Err(Error::UnknownTopic(name.to_string()));
            }
            check(topic.error)?;
            Ok(topic.partitions.len())
        });
        Box::pin(asking).await
    }

    /// Forgets what is known of a topic.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().forget(topic);
    }
}

fn find_coordinator(group: &Text) -> FindCoordinators {
    FindCoordinators {
        kind: CoordinatorKind::Group,
        keys: vec![group.clone()],
    }
}

/// The address in an answer.
fn found(answer: FoundCoordinators) -> Result<String, Error> {
    let first = answer.coordinators.into_iter().next();
    let first = first.ok_or(Error::refused(ErrorCode::CoordinatorNotAvailable))?;
    check(first.error)?;
    Ok(format!("{}:{}", first.host, first.port))
}
