//! UpdateFeatures, all versions, on a node whose cluster is at an older level than it speaks.

use callboard_cluster_tests::process::NodeProcess;
use callboard_cluster_tests::wire::Raw;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::update_features_request::FeatureUpdateKey;
use callboard_common::{ErrorCode, FeatureLevel};

const FEATURE: &str = "callboard.version";
const NEWEST: i16 = FeatureLevel::NEWEST.0.cast_signed();
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

fn update(feature: &str, level: i16, upgrade_type: i8) -> m::UpdateFeaturesRequest {
    let update = FeatureUpdateKey {
        feature: feature.to_owned().into(),
        max_version_level: level,
        upgrade_type,
        ..Default::default()
    };
    m::UpdateFeaturesRequest {
        feature_updates: vec![update],
        ..Default::default()
    }
}

/// What comes of it, whatever version has it where.
fn asked(connection: &mut Raw, request: &m::UpdateFeaturesRequest, version: i16) -> ErrorCode {
    let answer: m::UpdateFeaturesResponse = connection.ask(request, version);
    let of_feature = answer.results.first().map_or(0, |r| r.error_code);
    assert_eq!(answer.results.len(), usize::from(version < 2));
    ErrorCode::from_number(answer.error_code.max(of_feature))
}

fn level(connection: &mut Raw) -> i16 {
    let versions: m::ApiVersionsResponse = connection.ask(&m::ApiVersionsRequest::default(), 3);
    let (supported, finalized) = (&versions.supported_features, &versions.finalized_features);
    assert_eq!(&*supported[0].name, FEATURE);
    assert_eq!(
        (supported[0].min_version, supported[0].max_version),
        (3, NEWEST)
    );
    assert_eq!(&*finalized[0].name, FEATURE);
    finalized[0].max_version_level
}

#[test]
fn kip_584_the_level_is_raised_by_kafkas_request_and_never_lowered() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = ["--set", "cluster.max_feature_level=3"];
    let mut node = NodeProcess::start_with(dir.path(), &old);
    assert_eq!(node.terminate(), Some(0));
    node.restart_with(&["cluster.max_feature_level=0"]);
    let mut connection = Raw::connect(node.kafka);
    let c = &mut connection;
    assert_eq!(level(c), 3);
    let wrong = [
        update("metadata.version", NEWEST, UPGRADE),
        update(FEATURE, NEWEST + 1, UPGRADE),
        update(FEATURE, 2, UPGRADE),
        update(FEATURE, -1, UPGRADE),
        // What is called a downgrade must not raise it for good.
        update(FEATURE, NEWEST, SAFE_DOWNGRADE),
    ];
    for version in [1, 2] {
        for request in &wrong {
            let error = asked(c, request, version);
            assert_eq!(error, ErrorCode::InvalidUpdateVersion, "{request:?}");
        }
        let validated = m::UpdateFeaturesRequest {
            validate_only: true,
            ..update(FEATURE, NEWEST, UPGRADE)
        };
        assert_eq!(asked(c, &validated, version), ErrorCode::None);
        assert_eq!(level(c), 3, "nothing was done");
    }
    assert_eq!(
        asked(c, &update(FEATURE, NEWEST, UPGRADE), 0),
        ErrorCode::None
    );
    assert_eq!(level(c), NEWEST);
    let lower = asked(c, &update(FEATURE, 3, UPGRADE), 2);
    assert_eq!(lower, ErrorCode::InvalidUpdateVersion);
    node.kill();
    node.restart();
    assert_eq!(level(&mut Raw::connect(node.kafka)), NEWEST);
}
