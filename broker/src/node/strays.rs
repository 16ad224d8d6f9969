//! Directories of partitions that are not kept here any more: the topic was deleted, or the replica moved, while the node was down.
//! As with Kafka they get the ending `-stray` and stay for people to look at.

use callboard_common::TopicPartition;
use slog::warn;

use super::Shared;
use crate::controller::MetadataImage;
use crate::storage::meta_properties;

/// Renames, of the names in the data directory, those of partitions that the metadata does not want here. What is no partition's is left alone. Blocks.
pub(super) fn set_aside(shared: &Shared, names: &[String], image: &MetadataImage) {
    let disk = &**shared.open.disk();
    let is_wanted = |partition: &TopicPartition| {
        let kept = image.partition(partition);
        kept.is_some_and(|p| p.replicas.contains(&shared.broker))
    };
    let mut renamed = false;
    for name in names {
        if TopicPartition::parse(name).is_none_or(|p| is_wanted(&p)) {
            continue;
        }
        let dir = shared.dir.join(name);
        let Ok(Some(topic_id)) = meta_properties::read_topic_id(disk, &dir) else {
            continue;
        };
        let aside = shared.dir.join(format!("{name}.{topic_id}-stray"));
        match disk.rename(&dir, &aside) {
            Ok(()) => {
                renamed = true;
                warn!(shared.logger, "this partition is not kept here any more; its directory can be removed"; "path" => %aside.display());
            }
            Err(error) => {
                warn!(shared.logger, "this partition is not kept here any more, and its directory cannot be renamed"; "path" => %dir.display(), "error" => %error);
            }
        }
    }
    if renamed && let Err(error) = disk.sync_dir(&shared.dir) {
        warn!(shared.logger, "new names are not synced"; "path" => %shared.dir.display(), "error" => %error);
    }
}
