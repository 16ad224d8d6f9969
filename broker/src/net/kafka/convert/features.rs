//! ApiVersions and UpdateFeatures: what is served, and the feature level of the cluster under a name of its own (KIP-584).

use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use callboard_common::kafka::messages::update_features_request::FeatureUpdateKey;
use callboard_common::kafka::messages::update_features_response::UpdatableFeatureResult;
use callboard_common::kafka::{ApiKey, Text};
use callboard_common::protocol::Response;
use callboard_common::protocol::cluster::{UpdateFeatures, UpdatedFeatures};
use callboard_common::{ErrorCode, FeatureLevel};

use super::{Answering, Converted, Message, expect};
use crate::api::FeatureLevels;

/// What the feature level is called among Kafka's features.
const FEATURE: &str = "callboard.version";
/// Kafka's number of an upgrade; the others are downgrades.
const UPGRADE: i8 = 1;
/// From here on an answer has one error for all that was asked.
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
    match asked(&request.feature_updates) {
        Ok(level) => {
            let update = UpdateFeatures {
                level: Some(level),
                validate_only: request.validate_only,
            };
            Converted::Request(update.into(), Answering::UpdateFeatures)
        }
        Err(why) => {
            let names = request.feature_updates.into_iter().map(|u| u.feature);
            let error = (ErrorCode::InvalidUpdateVersion, Some(why.into()));
            Converted::Answer(answer(names.collect(), error, version))
        }
    }
}

/// The level that is asked for, if it is that and nothing else.
fn asked(updates: &[FeatureUpdateKey]) -> Result<FeatureLevel, String> {
    let update = match updates {
        [update] if &*update.feature == FEATURE => update,
        _ => return Err(format!("the one feature here is {FEATURE}")),
    };
    if update.upgrade_type != UPGRADE {
        return Err(format!("{FEATURE} does not go back"));
    }
    let level = u16::try_from(update.max_version_level);
    let level = level.map_err(|_| format!("{} is no level", update.max_version_level))?;
    Ok(FeatureLevel(level))
}

pub(super) fn updated(response: Response, version: i16) -> Message {
    match expect::<UpdatedFeatures>(response) {
        Ok(updated) => {
            let error = (updated.error, updated.message);
            answer(vec![Text::from_static(FEATURE)], error, version)
        }
        Err(error) => Box::new(m::UpdateFeaturesResponse {
            error_code: error.number(),
            error_message: Some(error.message().into()),
            ..Default::default()
        }),
    }
}

/// Earlier versions have an error for each feature, later ones have one for all.
fn answer(
    features: Vec<Text>,
    (error, error_message): (ErrorCode, Option<Text>),
    version: i16,
) -> Message {
    let error_code = error.number();
    let result = |feature| UpdatableFeatureResult {
        feature,
        error_code,
        error_message: error_message.clone(),
    };
    Box::new(match version < ONE_ERROR_FROM_VERSION {
        true => m::UpdateFeaturesResponse {
            results: features.into_iter().map(result).collect(),
            ..Default::default()
        },
        false => m::UpdateFeaturesResponse {
            error_code,
            error_message,
            ..Default::default()
        },
    })
}
