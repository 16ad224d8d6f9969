//! The feature level of the cluster (KIP-584): what it is, and raising it when all nodes speak more.

use callboard_common::protocol::Response;
use callboard_common::protocol::cluster::{DescribedFeatures, UpdateFeatures, UpdatedFeatures};
use callboard_common::{BrokerId, ErrorCode, FeatureLevel};
use tokio::sync::oneshot;

use super::topics::{Refused, refused};
use super::{Api, Caller, Operation, Resource};
use crate::controller::Refusal;
use crate::controller::survey::{self, Features};
use crate::supervision;

/// The feature level as one node knows it.
#[derive(Clone, Copy, Debug)]
pub struct FeatureLevels {
    /// The highest that the node speaks.
    pub newest: FeatureLevel,
    /// The one that the cluster is at.
    pub now: FeatureLevel,
    /// As of this entry of the metadata.
    pub as_of: i64,
}

impl Api {
    /// The feature level.
    #[must_use]
    pub fn feature_levels(&self) -> FeatureLevels {
        let image = self.0.published.image.load();
        FeatureLevels {
            newest: self.0.config.newest_level,
            now: image.level.0,
            as_of: i64::try_from(image.applied).unwrap_or(i64::MAX),
        }
    }
}

async fn survey(api: &Api) -> Result<Features, Refused> {
    let (newest, (reply, told)) = (api.config().newest_level, oneshot::channel());
    let describe = survey::DescribeFeatures { newest, reply };
    supervision::tell(&api.0.controller, describe);
    told.await.map_err(|_| Refusal::Stopped.into())
}

pub(super) async fn describe(api: &Api, caller: &Caller) -> Response {
    if !api.allows(caller, Operation::Describe, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    match survey(api).await {
        Ok(features) => Response::DescribeFeatures(DescribedFeatures {
            error: ErrorCode::None,
            level: features.image.level.0,
            lowest: FeatureLevel::LOWEST,
            newest: api.config().newest_level,
            nodes: features.nodes.into_iter().collect(),
        }),
        Err(refused) => Response::Refused(refused.error),
    }
}

pub(super) async fn update(api: &Api, caller: &Caller, update: UpdateFeatures) -> Response {
    let updated = match api.allows(caller, Operation::Alter, Resource::Cluster) {
        true => updated(api, &update).await,
        false => Err(ErrorCode::ClusterAuthorizationFailed.into()),
    };
    let (error, message, level) = match updated {
        Ok(level) => (ErrorCode::None, None, level),
        Err(refused) => {
            let now = api.image().level.0;
            (refused.error, Some(refused.message.into()), now)
        }
    };
    Response::UpdateFeatures(UpdatedFeatures {
        error,
        message,
        level,
    })
}

/// The level that all nodes speak.
fn common(features: &Features, newest: FeatureLevel) -> Result<FeatureLevel, Refused> {
    let silent = features.nodes.iter().find(|(_, level)| level.is_none());
    if let Some((broker, _)) = silent {
        let why = format!(
            "node {broker} does not answer: what it speaks is not known. Start it, or take it out (callboard cluster remove)"
        );
        return Err(refused(ErrorCode::FeatureUpdateFailed, why));
    }
    let levels = features.nodes.values().flatten();
    Ok(levels.copied().min().unwrap_or(newest))
}

fn too_low(features: &Features, newest: FeatureLevel, wanted: FeatureLevel) -> String {
    let is_low = |level: &Option<FeatureLevel>| level.is_none_or(|l| l < wanted);
    let low = features.nodes.iter().filter(|(_, level)| is_low(level));
    let low: Vec<String> = low.map(|(id, _): (&BrokerId, _)| id.to_string()).collect();
    match wanted > newest {
        true => format!("this node speaks {newest} at most"),
        false => format!(
            "these nodes do not speak feature level {wanted}: {}. Start a newer release there first",
            low.join(", ")
        ),
    }
}

async fn updated(api: &Api, update: &UpdateFeatures) -> Result<FeatureLevel, Refused> {
    let features = survey(api).await?;
    let newest = api.config().newest_level;
    let common = common(&features, newest)?;
    let wanted = update.level.unwrap_or(common);
    if wanted > common {
        let why = too_low(&features, newest, wanted);
        return Err(refused(ErrorCode::InvalidUpdateVersion, why));
    }
    let now = features.image.level.0;
    if wanted < now {
        let why = format!("the cluster is at feature level {now} and does not go back to {wanted}");
        return Err(refused(ErrorCode::InvalidUpdateVersion, why));
    }
    if wanted > now && !update.validate_only {
        let _done = api.propose(features.image.raise_to(wanted)).await?;
    }
    Ok(wanted)
}
