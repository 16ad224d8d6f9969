//! Describing and changing settings of topics; those of the node are described.

use std::collections::{BTreeMap, BTreeSet};

use callboard_common::kafka::Text;
use callboard_common::protocol::configs::{
    AlterConfigs, AlteredConfigs, ConfigChange, ConfigEntry, ConfigKind, ConfigOp, ConfigResource,
    ConfigSource, DescribeConfigs, DescribedConfigs, DescribedResource,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{ErrorCode, TopicName, Uuid};

use super::topics::{Refused, refused};
use super::{Api, Caller, Operation, Resource};
use crate::config::{ConfigDoc, NodeSetting, TOPIC_CONFIGS};
use crate::controller::Command;
use crate::topic_config::{TopicConfig, has_only_its_default};

pub(super) fn describe(api: &Api, caller: &Caller, describe: &DescribeConfigs) -> Response {
    if describe.resources.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut seen = BTreeSet::new();
    let mut one = |(resource, names): &(ConfigResource, Option<Vec<Text>>)| {
        let described = match resource {
            again if !seen.insert(again.clone()) => Err(refused(
                ErrorCode::InvalidRequest,
                "the resource is named twice",
            )),
            ConfigResource::Topic(topic) => describe_topic(api, caller, topic),
            ConfigResource::Broker(broker) => describe_broker(api, caller, broker),
            ConfigResource::Other(..) => Err(refused(
                ErrorCode::InvalidRequest,
                "topics and brokers have settings here, nothing else",
            )),
        };
        let (mut configs, error, message) = match described {
            Ok(configs) => (configs, ErrorCode::None, None),
            Err(refused) => (Vec::new(), refused.error, Some(refused.message.into())),
        };
        configs.retain(|c| names.as_ref().is_none_or(|names| names.contains(&c.name)));
        for config in &mut configs {
            if !describe.synonyms {
                config.synonyms = Vec::new();
            }
            if !describe.documentation {
                config.documentation = None;
            }
        }
        DescribedResource {
            resource: resource.clone(),
            error,
            message,
            configs,
        }
    };
    let resources = describe.resources.iter().map(&mut one).collect();
    Response::DescribeConfigs(DescribedConfigs { resources })
}

fn allowed(
    api: &Api,
    caller: &Caller,
    operation: Operation,
    topic: &TopicName,
) -> Result<(), Refused> {
    match api.allows(caller, operation, Resource::Topic(topic)) {
        true => Ok(()),
        false => Err(ErrorCode::TopicAuthorizationFailed.into()),
    }
}

fn describe_topic(api: &Api, caller: &Caller, topic: &Text) -> Result<Vec<ConfigEntry>, Refused> {
    let image = api.image();
    let name = TopicName::new(topic).map_err(|e| refused(ErrorCode::InvalidTopicException, e))?;
    allowed(api, caller, Operation::DescribeConfigs, &name)?;
    let topic = image
        .topics
        .get(&name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let (mut built_in, mut of_broker) = (
        TopicConfig::default().describe().into_iter(),
        api.config().topic_defaults.describe().into_iter(),
    );
    let entry = |doc: &ConfigDoc| {
        let (built_in, of_broker) = (built_in.next()?.1, of_broker.next()?.1);
        Some(topic_entry(
            doc,
            topic.configs.get(doc.name),
            of_broker,
            built_in,
        ))
    };
    Ok(TOPIC_CONFIGS.iter().filter_map(entry).collect())
}

fn topic_entry(
    doc: &ConfigDoc,
    own: Option<&String>,
    of_broker: String,
    built_in: String,
) -> ConfigEntry {
    let broker_name = Text::from_static(doc.broker_name);
    let mut synonyms = Vec::new();
    if let Some(own) = own {
        let own = Some(Text::from(own.as_str()));
        synonyms.push((Text::from_static(doc.name), own, ConfigSource::Topic));
    }
    if of_broker != built_in {
        synonyms.push((
            broker_name.clone(),
            Some(of_broker.into()),
            ConfigSource::StaticBroker,
        ));
    }
    synonyms.push((broker_name, Some(built_in.into()), ConfigSource::Default));
    let (value, source) = (synonyms[0].1.clone(), synonyms[0].2);
    ConfigEntry {
        name: Text::from_static(doc.name),
        value,
        source,
        kind: doc.kind,
        read_only: doc.kind == ConfigKind::Boolean,
        sensitive: false,
        synonyms,
        documentation: Some(Text::from_static(doc.documentation)),
    }
}

/// Whether a broker of this name is the one that is asked; the empty name is all of them.
fn is_me(api: &Api, broker: &Text) -> bool {
    broker.is_empty() || **broker == api.shared().broker.to_string()
}

fn describe_broker(api: &Api, caller: &Caller, broker: &Text) -> Result<Vec<ConfigEntry>, Refused> {
    if !api.allows(caller, Operation::DescribeConfigs, Resource::Cluster) {
        return Err(ErrorCode::ClusterAuthorizationFailed.into());
    }
    if !is_me(api, broker) {
        let message = format!("there is no broker {:?}", &**broker);
        return Err(refused(ErrorCode::InvalidRequest, message));
    }
    if broker.is_empty() {
        // Settings that were changed for all brokers at run time: there are none.
        return Ok(Vec::new());
    }
    let of_node = api.config().settings.iter().map(node_entry);
    let (built_in, of_broker) = (
        TopicConfig::default().describe(),
        api.config().topic_defaults.describe(),
    );
    let of_topics = TOPIC_CONFIGS
        .iter()
        .zip(built_in.into_iter().zip(of_broker));
    let of_topics = of_topics.map(|(doc, ((_, default), (_, value)))| {
        node_entry(&NodeSetting {
            name: doc.broker_name,
            value,
            default,
            kind: doc.kind,
            documentation: doc.documentation,
        })
    });
    let mut entries: Vec<ConfigEntry> = of_node.chain(of_topics).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn node_entry(setting: &NodeSetting) -> ConfigEntry {
    let name = Text::from_static(setting.name);
    let mut synonyms = Vec::new();
    if setting.value != setting.default {
        let value = Some(setting.value.as_str().into());
        synonyms.push((name.clone(), value, ConfigSource::StaticBroker));
    }
    let default = Some(setting.default.as_str().into());
    synonyms.push((name.clone(), default, ConfigSource::Default));
    ConfigEntry {
        name,
        value: synonyms[0].1.clone(),
        source: synonyms[0].2,
        kind: setting.kind,
        read_only: true,
        sensitive: false,
        synonyms,
        documentation: Some(Text::from_static(setting.documentation)),
    }
}

pub(super) async fn alter(api: &Api, caller: &Caller, alter: AlterConfigs) -> Response {
    if alter.resources.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut seen = BTreeSet::new();
    let mut resources = Vec::with_capacity(alter.resources.len());
    for (resource, changes) in alter.resources {
        let altered = if !seen.insert(resource.clone()) {
            Err(refused(
                ErrorCode::InvalidRequest,
                "the resource is named twice",
            ))
        } else {
            alter_one(
                api,
                caller,
                &resource,
                &changes,
                (alter.replace, alter.validate_only),
            )
            .await
        };
        let (error, message) = match altered {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.error, Some(refused.message.into())),
        };
        resources.push((resource, error, message));
    }
    Response::AlterConfigs(AlteredConfigs { resources })
}

async fn alter_one(
    api: &Api,
    caller: &Caller,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    (replace, validate_only): (bool, bool),
) -> Result<(), Refused> {
    let topic = match resource {
        ConfigResource::Topic(topic) => topic,
        ConfigResource::Broker(broker) => return alter_broker(api, caller, broker, changes),
        ConfigResource::Other(..) => {
            let message = "settings of topics can be changed, nothing else";
            return Err(refused(ErrorCode::InvalidRequest, message));
        }
    };
    let image = api.image();
    let name = TopicName::new(topic).map_err(|e| refused(ErrorCode::InvalidTopicException, e))?;
    let topic = TopicRef::Name(topic.clone());
    let (_, id): (_, Uuid) = api.topic(caller, Operation::AlterConfigs, &image, &topic)?;
    let own = image
        .topics
        .get(&name)
        .map(|t| t.configs.clone())
        .unwrap_or_default();
    let defaults = &api.config().topic_defaults;
    let changes = resolved(&own, defaults, changes, replace)?;
    let mut after = own;
    for (name, value) in &changes {
        match value {
            Some(value) => drop(after.insert(name.clone(), value.clone())),
            None => drop(after.remove(name)),
        }
    }
    let _valid = defaults
        .clone()
        .with(&after)
        .map_err(|e| refused(ErrorCode::InvalidConfig, e))?;
    if !validate_only && !changes.is_empty() {
        let _done = api
            .propose(Command::AlterTopicConfigs { id, changes })
            .await?;
    }
    Ok(())
}

/// Settings of the node come from its file and environment, so that a restart gives what was there before. Nothing is set
/// beside them, so to go back to them is always possible: Kafka's tools do that after a move.
fn alter_broker(
    api: &Api,
    caller: &Caller,
    broker: &Text,
    changes: &[ConfigChange],
) -> Result<(), Refused> {
    if !api.allows(caller, Operation::AlterConfigs, Resource::Cluster) {
        return Err(ErrorCode::ClusterAuthorizationFailed.into());
    }
    let only_defaults = changes.iter().all(|c| c.op == ConfigOp::Delete);
    if only_defaults && is_me(api, broker) {
        return Ok(());
    }
    let message = if is_me(api, broker) {
        "settings of a node do not change while it runs: set them in its configuration file and restart it".into()
    } else {
        format!("there is no broker {:?}", &**broker)
    };
    Err(refused(ErrorCode::InvalidRequest, message))
}

/// What becomes of which setting.
fn resolved(
    own: &BTreeMap<String, String>,
    defaults: &TopicConfig,
    changes: &[ConfigChange],
    replace: bool,
) -> Result<BTreeMap<String, Option<String>>, Refused> {
    let invalid = |message: String| refused(ErrorCode::InvalidConfig, message);
    let mut resolved = BTreeMap::new();
    if replace {
        resolved.extend(own.keys().map(|name| (name.clone(), None)));
    }
    let mut seen = BTreeSet::new();
    for change in changes {
        let name = change.name.to_string();
        if !seen.insert(name.clone()) {
            return Err(refused(
                ErrorCode::InvalidRequest,
                format!("{name} is named twice"),
            ));
        }
        let value = || {
            let missing = || refused(ErrorCode::InvalidRequest, format!("{name} has no value"));
            change
                .value
                .as_ref()
                .map(ToString::to_string)
                .ok_or_else(missing)
        };
        let doc = TOPIC_CONFIGS.iter().find(|d| d.name == name);
        let value = match change.op {
            ConfigOp::Set => Some(value()?),
            ConfigOp::Delete if has_only_its_default(&name) => continue,
            ConfigOp::Delete if doc.is_none() => {
                return Err(invalid(format!("there is no topic config {name:?}")));
            }
            ConfigOp::Delete => None,
            ConfigOp::Append | ConfigOp::Subtract => {
                if doc.is_none_or(|d| d.kind != ConfigKind::List) {
                    return Err(invalid(format!(
                        "{name} is no list: it takes neither append nor subtract"
                    )));
                }
                let default = || {
                    defaults
                        .describe()
                        .into_iter()
                        .find(|(n, _)| *n == name)
                        .map(|(_, v)| v)
                };
                let current = own.get(&name).cloned().or_else(default).unwrap_or_default();
                Some(listed(&current, change.op, &value()?))
            }
        };
        drop(resolved.insert(name, value));
    }
    Ok(resolved)
}

/// A list with elements more or fewer, in its order.
fn listed(current: &str, op: ConfigOp, value: &str) -> String {
    let split = |text: &str| -> Vec<String> {
        let trimmed = text.split(',').map(|e| e.trim().to_owned());
        trimmed.filter(|e| !e.is_empty()).collect()
    };
    let (mut elements, given) = (split(current), split(value));
    if op == ConfigOp::Append {
        for element in given {
            if !elements.contains(&element) {
                elements.push(element);
            }
        }
    } else {
        elements.retain(|e| !given.contains(e));
    }
    elements.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_and_shrink() {
        assert_eq!(listed("a,b", ConfigOp::Append, "b,c"), "a,b,c");
        assert_eq!(listed("a,b", ConfigOp::Subtract, "a"), "b");
        assert_eq!(listed("", ConfigOp::Append, "a"), "a");
    }

    #[test]
    fn changes_are_resolved_against_what_is_there() {
        let own: BTreeMap<String, String> = [("retention.ms".into(), "5".into())].into();
        let change = |name: &'static str, op, value: Option<&'static str>| ConfigChange {
            name: name.into(),
            op,
            value: value.map(Into::into),
        };
        let defaults = TopicConfig::default();
        let resolve = |changes: &[ConfigChange], replace| {
            resolved(&own, &defaults, changes, replace).map_err(|r| r.error)
        };
        let set = change("segment.ms", ConfigOp::Set, Some("9"));
        let expected = [("segment.ms".to_owned(), Some("9".to_owned()))].into();
        assert_eq!(resolve(std::slice::from_ref(&set), false), Ok(expected));
        let replaced = resolve(std::slice::from_ref(&set), true).expect("valid");
        assert_eq!(
            replaced["retention.ms"], None,
            "what is not named goes back to its default"
        );
        assert_eq!(
            resolve(&[set.clone(), set], false),
            Err(ErrorCode::InvalidRequest)
        );
        let append = change("cleanup.policy", ConfigOp::Append, Some("compact"));
        let appended = resolve(&[append], false).expect("a list");
        assert_eq!(
            appended["cleanup.policy"].as_deref(),
            Some("delete,compact")
        );
        let no_list = change("retention.ms", ConfigOp::Append, Some("1"));
        assert_eq!(resolve(&[no_list], false), Err(ErrorCode::InvalidConfig));
        let unknown = change("retension.ms", ConfigOp::Delete, None);
        assert_eq!(resolve(&[unknown], false), Err(ErrorCode::InvalidConfig));
        let empty = change("retention.ms", ConfigOp::Set, None);
        assert_eq!(resolve(&[empty], false), Err(ErrorCode::InvalidRequest));
    }
}
