//! ApiVersions and UpdateFeatures: what is served, and the feature level of the cluster under a name of its own (KIP-584).

use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use callboard_common::kafka::messages::update_features_response::UpdatableFeatureResult;
use callboard_common::kafka::{ApiKey, Text};
use callboard_common::protocol::Response;
use callboard_common::protocol::cluster::{UpdateFeatures, UpdatedFeatures};
use callboard_common::{ErrorCode, FeatureLevel};

use super::{Answering, Converted, Message, expect};
use crate::api::FeatureLevels;

/// What the feature level is called among Kafka's features.
const FEATURE: &str = "callboard.version";
/// From here on a request may ask for what would be.
const ONE_ERROR_FROM_VERSION: i16 = 2;

fn number(level: FeatureLevel) -> i16 {
    i16::try_from(level.0).unwrap_or(i16::MAX)
}

/// What is served, in ranges without holes.
pub(in crate::net::kafka) fn api_versions(error: ErrorCode, levels: FeatureLevels) -> Message {
    let range = |key: &ApiKey| {
        let (min_version, max_version) = key.advertised();
        ApiVersion {
            api_key: key.number(),
            min_version,
            max_version,
        }
    };
    let name = || Text::from_static(FEATURE);
    let now = number(levels.now);
    Box::new(m::ApiVersionsResponse {
        error_code: error.number(),
        api_keys: ApiKey::ALL.iter().map(range).collect(),
        supported_features: vec![SupportedFeatureKey {
            name: name(),
            min_version: number(FeatureLevel::LOWEST),
            max_version: number(levels.newest),
        }],
        finalized_features_epoch: levels.as_of,
        finalized_features: vec![FinalizedFeatureKey {
            name: name(),
            max_version_level: now,
            min_version_level: now,
        }],
        ..Default::default()
    })
}

pub(super) fn update(request: m::UpdateFeaturesRequest, version: i16) -> Converted {
    let mut updates = request.feature_updates.into_iter();
    let (first, more) = (updates.next(), updates.next());
    let level = match (&first, more) {
        (Some(update), None) if &*update.feature == FEATURE => {
            u16::try_from(update.max_version_level).ok()
        }
        _ => None,
    };
    let Some(level) = level else {
        let why = format!("the one feature here is {FEATURE}");
        let refused = UpdatedFeatures {
            error: ErrorCode::FeatureUpdateFailed,
            message: Some(why.into()),
            level: FeatureLevel::LOWEST,
        };
        let feature = first.map(|f| f.feature).unwrap_or_default();
        return Converted::Answer(answer(refused, feature, version));
    };
    let update = UpdateFeatures {
        level: Some(FeatureLevel(level)),
        validate_only: request.validate_only,
    };
    Converted::Request(update.into(), Answering::UpdateFeatures)
}

pub(super) fn updated(response: Response, version: i16) -> Message {
    match expect::<UpdatedFeatures>(response) {
        Ok(updated) => answer(updated, Text::from_static(FEATURE), version),
        Err(error) => Box::new(m::UpdateFeaturesResponse {
            error_code: error.number(),
            error_message: Some(error.message().into()),
            ..Default::default()
        }),
    }
}

/// Earlier versions have an error for each feature, later ones have one for all.
fn answer(updated: UpdatedFeatures, feature: Text, version: i16) -> Message {
    let (error_code, error_message) = (updated.error.number(), updated.message);
    Box::new(match version < ONE_ERROR_FROM_VERSION {
        true => m::UpdateFeaturesResponse {
            results: vec![UpdatableFeatureResult {
                feature,
                error_code,
                error_message,
            }],
            ..Default::default()
        },
        false => m::UpdateFeaturesResponse {
            error_code,
            error_message,
            ..Default::default()
        },
    })
}
