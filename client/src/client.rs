//! The client: connections to a cluster and what it knows of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_common::protocol::metadata::{Metadata as MetadataRequest, MetadataAnswer};
use tokio::sync::Mutex;

use crate::Admin;
use crate::config::ClientConfig;
use crate::connection::{Connection, Lane};
use crate::error::Error;
use crate::metadata::Metadata;
use crate::metrics::{ClientMetrics, Counters};

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    /// Nodes that were met, by address.
    nodes: Mutex<BTreeMap<String, Connection>>,
    metadata: Metadata,
    counters: Arc<Counters>,
}

/// Connections to a cluster; clones share them. Producers and consumers are made from it.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

impl Client {
    /// Connects to a cluster by one of the nodes that are named; the others are found by it.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] if none of them can be reached and is trusted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self(Arc::new(Inner {
            config,
            nodes: Mutex::default(),
            metadata: Metadata::default(),
            counters: Arc::default(),
        }));
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            auto_create: false,
        };
        let answer: MetadataAnswer = client.ask(Lane::Control, request, Duration::ZERO).await?;
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
    }

    pub(crate) fn known(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Where any node may be: the one that answered last, those that were given, those that were heard of.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let mut candidates: Vec<String> = self.known().preferred().into_iter().collect();
        for server in self.0.config.servers().chain(self.known().brokers()) {
            if !candidates.contains(&server) {
                candidates.push(server);
            }
        }
        self.known().in_order(candidates)
    }

    /// The connection to a node.
    pub(crate) async fn node(&self, server: &str) -> Connection {
        let mut nodes = self.0.nodes.lock().await;
        let connect = || Connection::new(server.to_owned(), &self.0.config);
        nodes
            .entry(server.to_owned())
            .or_insert_with(connect)
            .clone()
    }

    /// Closes the connection to a node that does not answer; what waits on it fails.
    pub(crate) async fn drop_node(&self, server: &str) {
        let node = self.0.nodes.lock().await.remove(server);
        if let Some(node) = node {
            node.abandon().await;
        }
    }
}
