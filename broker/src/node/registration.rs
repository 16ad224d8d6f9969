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
use crate::controller::{self, Command, ControllerActor, MetadataImage};

/// A registration that was dropped is tried again after this.
const REGISTER_PAUSE: Duration = Duration::from_millis(10);

/// What is to be said, as the metadata is then.
type Words<'a> = &'a (dyn Fn(&MetadataImage) -> Option<Command> + Sync);

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

    /// Registers this start with the controller, as long as it may: from then on leaders have new epochs. If the last one did not
    /// stop in order, that is said first.
    pub(super) async fn register(
        &self,
        controller: &Addr<ControllerActor>,
        command: &Command,
        published: &Published,
        fatal: watch::Receiver<Option<String>>,
    ) -> Result<(), StartError> {
        let by_default = self.config.topic_defaults()?.flush_messages > 1;
        // What a start restores may lack what was decided last. This changes nothing, and once it is answered the rest is known.
        let nothing = Command::AllocateProducerIds {
            broker: self.shared.broker,
            count: 0,
        };
        let words: [Words<'_>; 3] = [
            &|_| Some(nothing.clone()),
            &|image| self.unclean_start(image, by_default),
            &|_| Some(command.clone()),
        ];
        for what in words {
            let told = self.tell(controller, what, published, fatal.clone());
            told.await?;
        }
        self.tell_level(published);
        Ok(())
    }

    /// What the metadata must be told of the last start, if it did not stop in order.
    fn unclean_start(&self, image: &MetadataImage, by_default: bool) -> Option<Command> {
        let broker = self.shared.broker;
        let epoch = image.brokers.get(&broker)?.epoch;
        let is_understood = image.level.0 >= FeatureLevel::UNCLEAN_STARTS;
        if self.clean_mark.is_of(epoch) || !is_understood {
            return None;
        }
        info!(
            self.shared.logger,
            "the last run did not stop in order: where flush.messages is above 1, replicas here do not lead while others are whole"
        );
        Some(Command::StartUncleanly {
            broker,
            epoch,
            by_default,
        })
    }

    /// Proposes what is to be said until it is committed or there is nothing to say.
    async fn tell(
        &self,
        controller: &Addr<ControllerActor>,
        what: Words<'_>,
        published: &Published,
        mut fatal: watch::Receiver<Option<String>>,
    ) -> Result<(), StartError> {
        let logger = &self.shared.logger;
        loop {
            self.check_level(published)?;
            let Some(command) = what(&published.image.load()) else {
                return Ok(());
            };
            tokio::select! {
                answer = propose(controller, command) => match answer {
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
