//! The feature level that a node speaks and the one that its cluster is at.

use actix::Addr;
use callboard_common::FeatureLevel;
use slog::{info, warn};

use super::builder::StartError;
use super::prepare::Starting;
use crate::controller::actor::{Published, propose};
use crate::controller::{self, ControllerActor, MetadataImage, log_file};

impl Starting {
    /// Whether this node forms a cluster with this start.
    pub(super) fn forms(&self, identity: controller::Identity) -> bool {
        let (disk, dir) = (self.shared.open.disk(), &self.shared.dir);
        !identity.joins && !log_file::has_content(&**disk, dir)
    }

    /// Who forms a cluster puts it at the level that it speaks, before anybody else can join it.
    pub(super) async fn begin_at_newest(&self, controller: &Addr<ControllerActor>) {
        let level = self.config.cluster.newest_level();
        if level == FeatureLevel::BEFORE_LEVELS {
            return;
        }
        let nobody_is_there = MetadataImage::default();
        match propose(controller, nobody_is_there.raise_to(level)).await {
            Ok(_) => info!(self.shared.logger, "forms a cluster"; "feature_level" => %level),
            // It can be raised later.
            Err(refusal) => {
                warn!(self.shared.logger, "the feature level is not set"; "reason" => %refusal);
            }
        }
    }

    /// A node that is held back from the level of its cluster does not start: the others would not listen to it.
    pub(super) fn check_level(&self, published: &Published) -> Result<(), StartError> {
        let newest = self.config.cluster.newest_level();
        let level = published.image.load().level.0;
        match level > newest {
            true => Err(StartError::FeatureLevel { level, newest }),
            false => Ok(()),
        }
    }

    /// Says that there is more to be had.
    pub(super) fn tell_level(&self, published: &Published) {
        let newest = self.config.cluster.newest_level();
        let level = published.image.load().level.0;
        if level < newest {
            info!(self.shared.logger, "this node speaks more than its cluster is at: when all nodes do, callboard cluster upgrade";
                "feature_level" => %level, "newest" => %newest);
        }
    }
}
