//! DescribeConfigs, IncrementalAlterConfigs and the older AlterConfigs.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::alter_configs_response::AlterConfigsResourceResponse as AlteredResource;
use callboard_common::kafka::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use callboard_common::kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementallyAlteredResource;
use callboard_common::kafka::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request,
};
use callboard_common::protocol::Response;
use callboard_common::protocol::configs::{
    AlterConfigs, AlteredConfigs, ConfigChange, ConfigEntry, ConfigOp, ConfigResource,
    DescribeConfigs, DescribedConfigs, DescribedResource,
};

use super::{Answering, Converted, Message, expect};

/// Kafka's numbers of what is configured.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn resource(kind: i8, name: Text) -> ConfigResource {
    match kind {
        TOPIC => ConfigResource::Topic(name),
        BROKER => ConfigResource::Broker(name),
        other => ConfigResource::Other(other, name),
    }
}

fn parts(resource: ConfigResource) -> (i8, Text) {
    match resource {
        ConfigResource::Topic(name) => (TOPIC, name),
        ConfigResource::Broker(name) => (BROKER, name),
        ConfigResource::Other(kind, name) => (kind, name),
    }
}

pub(super) fn describe(request: DescribeConfigsRequest) -> Converted {
    let wanted = request.resources.into_iter().map(|r| {
        // An empty list asks for nothing in newer clients and for all in older ones: all does no harm.
        let names = r.configuration_keys.filter(|names| !names.is_empty());
        (resource(r.resource_type, r.resource_name), names)
    });
    let describe = DescribeConfigs {
        resources: wanted.collect(),
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    Converted::Request(describe.into(), Answering::DescribeConfigs)
}

pub(super) fn described(response: Response) -> Message {
    let resources =
        expect::<DescribedConfigs>(response).map_or_else(|_| Vec::new(), |d| d.resources);
    let synonym =
        |(name, value, source): (_, _, callboard_common::protocol::configs::ConfigSource)| {
            DescribeConfigsSynonym {
                name,
                value,
                source: source as i8,
            }
        };
    let config = |c: ConfigEntry| DescribeConfigsResourceResult {
        name: c.name,
        value: c.value,
        read_only: c.read_only,
        config_source: c.source as i8,
        is_sensitive: c.sensitive,
        synonyms: c.synonyms.into_iter().map(synonym).collect(),
        config_type: c.kind as i8,
        documentation: c.documentation,
    };
    let result = |r: DescribedResource| {
        let (resource_type, resource_name) = parts(r.resource);
        DescribeConfigsResult {
            error_code: r.error.number(),
            error_message: r.message,
            resource_type,
            resource_name,
            configs: r.configs.into_iter().map(config).collect(),
        }
    };
    Box::new(DescribeConfigsResponse {
        results: resources.into_iter().map(result).collect(),
        ..Default::default()
    })
}

/// The older request names all settings that are not to be the default.
pub(super) fn alter(request: AlterConfigsRequest) -> Converted {
    let changes = request.resources.into_iter().map(|r| {
        let change =
            |c: callboard_common::kafka::messages::alter_configs_request::AlterableConfig| {
                ConfigChange {
                    op: if c.value.is_some() {
                        ConfigOp::Set
                    } else {
                        ConfigOp::Delete
                    },
                    name: c.name,
                    value: c.value,
                }
            };
        let changes = r.configs.into_iter().map(change).collect();
        (resource(r.resource_type, r.resource_name), changes)
    });
    let alter = AlterConfigs {
        resources: changes.collect(),
        replace: true,
        validate_only: request.validate_only,
    };
    Converted::Request(alter.into(), Answering::AlterConfigs)
}

pub(super) fn alter_incrementally(request: IncrementalAlterConfigsRequest) -> Converted {
    let change = |c: incremental_alter_configs_request::AlterableConfig| ConfigChange {
        op: match c.config_operation {
            1 => ConfigOp::Delete,
            2 => ConfigOp::Append,
            3 => ConfigOp::Subtract,
            // An operation that nobody knows gives no value, and is refused for that.
            _ => ConfigOp::Set,
        },
        value: c.value.filter(|_| (0..=3).contains(&c.config_operation)),
        name: c.name,
    };
    let changes = request.resources.into_iter().map(|r| {
        let changes = r.configs.into_iter().map(change).collect();
        (resource(r.resource_type, r.resource_name), changes)
    });
    let alter = AlterConfigs {
        resources: changes.collect(),
        replace: false,
        validate_only: request.validate_only,
    };
    Converted::Request(alter.into(), Answering::IncrementalAlterConfigs)
}

pub(super) fn altered(response: Response) -> Message {
    let resources = expect::<AlteredConfigs>(response).map_or_else(|_| Vec::new(), |a| a.resources);
    let result =
        |(resource, error, error_message): (ConfigResource, callboard_common::ErrorCode, _)| {
            let (resource_type, resource_name) = parts(resource);
            AlteredResource {
                error_code: error.number(),
                error_message,
                resource_type,
                resource_name,
            }
        };
    Box::new(AlterConfigsResponse {
        responses: resources.into_iter().map(result).collect(),
        ..Default::default()
    })
}

pub(super) fn altered_incrementally(response: Response) -> Message {
    let resources = expect::<AlteredConfigs>(response).map_or_else(|_| Vec::new(), |a| a.resources);
    let result =
        |(resource, error, error_message): (ConfigResource, callboard_common::ErrorCode, _)| {
            let (resource_type, resource_name) = parts(resource);
            IncrementallyAlteredResource {
                error_code: error.number(),
                error_message,
                resource_type,
                resource_name,
            }
        };
    Box::new(IncrementalAlterConfigsResponse {
        responses: resources.into_iter().map(result).collect(),
        ..Default::default()
    })
}
