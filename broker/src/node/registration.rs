//! A start of a node makes itself known to the cluster: a new incarnation, and where it is found.

use std::time::Duration;

use actix::Addr;
use callboard_common::FeatureLevel;
use slog::info;
use tokio::sync::watch;

use super::Addresses;
use super::builder::StartError;
use super::cluster::Membership;
use super::prepare::Starting;
use super::renewal;
use crate::controller::actor::{Published, propose};
use crate::controller::{self, Command, ControllerActor};

/// A registration that was dropped is tried again after this.
const REGISTER_PAUSE: Duration = Duration::from_millis(10);

impl Starting {
    /// What the metadata is told of this start.
    pub(super) fn registration(
        &self,
        at: &Addresses,
        membership: Option<&Membership>,
    ) -> Result<Command, StartError> {
        let config = &self.config;
        let kafka: controller::Endpoint = config.advertised_kafka(at.kafka)?.into();
        let kafka_tls = match at.kafka_tls {
            Some(bound) => config.advertised_kafka_tls(bound)?.into(),
            None => kafka.clone(),
        };
        let endpoints = controller::Endpoints {
            kafka,
            kafka_tls,
            quic: config.advertised_quic(at.quic)?.into(),
            peer: membership.map(|m| m.own.clone()),
        };
        let rack = &config.cluster.rack;
        Ok(Command::RegisterNode {
            broker: self.shared.broker,
            directory: self.meta.directory_id,
            incarnation: self.shared.incarnation,
            endpoints,
            rack: (!rack.is_empty()).then(|| rack.clone()),
        })
    }

    /// What the metadata is told first if this directory was not left in order.
    fn unclean_start(&self, published: &Published) -> Result<Option<Command>, StartError> {
        let image = published.image.load();
        let known = image.brokers.get(&self.shared.broker);
        let was_here = known.is_some_and(|b| b.directory == self.meta.directory_id);
        let is_understood = image.level.0 >= FeatureLevel::UNCLEAN_STARTS;
        if self.stopped_in_order || !was_here || !is_understood {
            return Ok(None);
        }
        Ok(Some(Command::StartUncleanly {
            broker: self.shared.broker,
            incarnation: self.shared.incarnation,
            by_default: self.config.topic_defaults()?.flush_messages > 1,
        }))
    }

    /// Registers this start with the controller, as long as it may: from then on leaders have new epochs.
    pub(super) async fn register(
        &self,
        controller: &Addr<ControllerActor>,
        command: &Command,
        published: &Published,
        fatal: watch::Receiver<Option<String>>,
    ) -> Result<(), StartError> {
        if let Some(unclean) = self.unclean_start(published)? {
            let told = self.tell(controller, &unclean, published, fatal.clone());
            told.await?;
        }
        self.tell(controller, command, published, fatal).await?;
        self.tell_level(published);
        Ok(())
    }

    /// Proposes a command until it is committed.
    async fn tell(
        &self,
        controller: &Addr<ControllerActor>,
        command: &Command,
        published: &Published,
        mut fatal: watch::Receiver<Option<String>>,
    ) -> Result<(), StartError> {
        let logger = &self.shared.logger;
        loop {
            self.check_level(published)?;
            tokio::select! {
                answer = propose(controller, command.clone()) => match answer {
                    Ok(_) => return Ok(()),
                    Err(refusal) => info!(logger, "registers with the controller"; "waits_for" => %refusal),
                },
                ended = renewal::ended(&mut fatal) => return Err(ended),
            }
            // The controller restarts with growing waits and gives up at last.
            tokio::time::sleep(REGISTER_PAUSE).await;
            if !controller.connected() {
                return Err(StartError::Metadata);
            }
        }
    }
}
