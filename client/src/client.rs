//! The client: connections to a cluster and what it knows of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_common::TopicPartition;
use callboard_common::kafka::Text;
use callboard_common::protocol::metadata::{Metadata as MetadataRequest, MetadataAnswer};
use callboard_common::protocol::{Ask, TopicRef};
use tokio::sync::Mutex;

use crate::Admin;
use crate::config::ClientConfig;
use crate::connection::{Connection, Lane};
use crate::error::{Error, check};
use crate::metadata::Metadata;
use crate::metrics::{ClientMetrics, Counters};

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    bootstrap: Connection,
    /// Nodes that were met, by address.
    nodes: Mutex<BTreeMap<String, Connection>>,
    metadata: Metadata,
    counters: Arc<Counters>,
}

/// Connections to a cluster; clones share them. Producers and consumers are made from it.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

impl Client {
    /// Connects to a cluster by one of its nodes.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] if the node cannot be reached or is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let bootstrap = Connection::new(config.server.clone(), &config);
        let client = Self(Arc::new(Inner {
            config,
            bootstrap,
            nodes: Mutex::default(),
            metadata: Metadata::default(),
            counters: Arc::default(),
        }));
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            auto_create: false,
        };
        let answer: MetadataAnswer = client
            .0
            .bootstrap
            .ask(Lane::Control, request, Duration::ZERO)
            .await?;
        client.0.metadata.learn(&answer);
        Ok(client)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// What was done with this client so far.
    #[must_use]
    pub fn metrics(&self) -> ClientMetrics {
        self.0.counters.read()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Administrative calls.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Closes all connections; producers and consumers of this client fail afterwards.
    pub async fn close(&self) {
        for node in self.0.nodes.lock().await.values() {
            node.close().await;
        }
        self.0.bootstrap.close().await;
    }

    /// Asks any node.
    pub(crate) async fn ask<A: Ask>(
        &self,
        lane: Lane,
        request: A,
        extra: Duration,
    ) -> Result<A::Answer, Error> {
        self.0.bootstrap.ask(lane, request, extra).await
    }

    /// Asks any node, again and again while the error may pass and the time is not up.
    pub(crate) async fn ask_patiently<A, T>(
        &self,
        lane: Lane,
        request: A,
        accept: impl Fn(A::Answer) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        A: Ask + Clone,
    {
        let trying = async {
            loop {
                match self
                    .ask(lane.clone(), request.clone(), Duration::ZERO)
                    .await
                    .and_then(&accept)
                {
                    Err(error) if error.is_retriable() => {
                        tokio::time::sleep(self.0.config.retry_backoff).await
                    }
                    other => return other,
                }
            }
        };
        tokio::time::timeout(self.0.config.api_timeout, trying)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// The connection to a partition's leader.
    pub(crate) async fn leader(&self, partition: &TopicPartition) -> Result<Connection, Error> {
        let topic = partition.topic.as_str();
        if self.0.metadata.leader(topic, partition.partition).is_none() {
            // Who reads or writes a partition has seen the topic: if it is gone, that is for the user to know.
            let _count = self.refresh(topic, false).await?;
        }
        let address = self.0.metadata.leader(topic, partition.partition);
        let address = address.ok_or(Error::refused(
            callboard_common::ErrorCode::LeaderNotAvailable,
        ))?;
        if address == self.0.config.server {
            return Ok(self.0.bootstrap.clone());
        }
        let mut nodes = self.0.nodes.lock().await;
        let connect = || Connection::new(address.clone(), &self.0.config);
        Ok(nodes.entry(address.clone()).or_insert_with(connect).clone())
    }

    /// How many partitions a topic has; asked for if it is not known, which may create it.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<usize, Error> {
        match self.0.metadata.partitions(topic) {
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
        self.ask_patiently(Lane::Control, request, |answer: MetadataAnswer| {
            self.0.metadata.learn(&answer);
            let topic = answer.topics.first().ok_or(Error::refused(
                callboard_common::ErrorCode::UnknownTopicOrPartition,
            ))?;
            // A topic that is not there will not be there soon either: it would have been created.
            if topic.error == callboard_common::ErrorCode::UnknownTopicOrPartition {
                return Err(Error::UnknownTopic(name.to_string()));
            }
            check(topic.error)?;
            Ok(topic.partitions.len())
        })
        .await
    }

    /// Forgets what is known of a topic.
    pub(crate) fn forget(&self, topic: &str) {
        self.0.metadata.forget(topic);
    }
}
