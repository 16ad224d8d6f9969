//! What a consumer commits for its group, and where it goes on.

use std::collections::BTreeMap;

use callboard_common::protocol::TopicRef;
use callboard_common::protocol::offsets::CommitOffsets;
use callboard_common::{ErrorCode, Offset, TopicName, TopicPartition};

use super::Consumer;
use crate::admin::{accept_commit, commit_topics};
use crate::connection::Lane;
use crate::error::Error;
use crate::routing::Route;

impl Consumer {
    pub(super) async fn fetch_committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        let Some(group) = &self.group else {
            return Ok(BTreeMap::new());
        };
        let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            topics
                .entry(&partition.topic)
                .or_default()
                .push(partition.partition);
        }
        let topics = topics
            .into_iter()
            .map(|(t, n)| (TopicRef::Name(t.as_str().into()), n))
            .collect();
        let admin = self.client.admin();
        admin.committed(&group.membership.group, Some(topics)).await
    }

    pub(super) async fn commit_by_time(&mut self) -> Result<(), Error> {
        self.commit_at = self
            .config
            .auto_commit
            .map(|every| tokio::time::Instant::now() + every);
        match self.commit_positions().await {
            // The rebalance that is under way decides; nothing is lost, some may be read again.
            Err(Error::Refused { .. } | Error::Connection { .. } | Error::Timeout) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn commit_positions(&mut self) -> Result<(), Error> {
        let changed = |(p, o): &(&TopicPartition, &Offset)| self.committed.get(*p) != Some(*o);
        let offsets: BTreeMap<TopicPartition, Offset> = self
            .positions
            .iter()
            .filter(changed)
            .map(|(p, o)| (p.clone(), *o))
            .collect();
        self.commit_offsets(offsets).await
    }

    /// Commits the offsets of all records that were received, the last one included.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] without a group; [`Error::Refused`] with `IllegalGeneration`, `UnknownMemberId` or
    /// `RebalanceInProgress` if the group has moved on: the records will be read again by whoever has them now.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the commit may happen although the future was dropped.
    pub async fn commit(&mut self) -> Result<(), Error> {
        self.finish_last();
        self.commit_positions().await
    }

    /// Commits these offsets: each is the next record to be read.
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit`].
    pub async fn commit_offsets(
        &mut self,
        offsets: BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let group = self
            .group
            .as_ref()
            .ok_or_else(|| Error::Config("offsets are committed for a group".into()))?;
        if offsets.is_empty() {
            return Ok(());
        }
        let m = &group.membership;
        let request = CommitOffsets {
            group: m.group.clone(),
            generation: m.generation,
            member: m.member.clone(),
            instance: m.instance.clone(),
            topics: commit_topics(&offsets),
        };
        let accept = |answer| match accept_commit(answer) {
            // Waiting does not help: the group has moved on.
            Err(Error::Refused {
                code: ErrorCode::RebalanceInProgress,
                ..
            }) => Ok(Err(ErrorCode::RebalanceInProgress)),
            other => other.map(Ok),
        };
        let route = Route::Coordinator(m.group.clone());
        let committed = self
            .client
            .ask_patiently_at(&route, Lane::Group, request, accept)
            .await?;
        committed.map_err(Error::refused)?;
        if let Some(interceptor) = &self.interceptor {
            interceptor.on_commit(&offsets);
        }
        self.committed.extend(offsets);
        Ok(())
    }
}
