//! The directories of partitions.

use std::path::Path;

use callboard_common::Uuid;

use crate::storage::{Disk, meta_properties};

/// Makes a partition's directory, or checks that it is this topic's. The name is durable once the directory above is
/// synced. Blocks.
///
/// # Errors
///
/// Says what is wrong.
pub fn prepare(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> Result<(), String> {
    disk.create_dir(dir).map_err(|e| e.to_string())?;
    let found = meta_properties::read_topic_id(disk, dir);
    match found.map_err(|e| e.to_string())? {
        Some(id) if id == topic_id => Ok(()),
        Some(id) => Err(format!(
            "{} belongs to topic {id}, not {topic_id}",
            dir.display()
        )),
        None => {
            meta_properties::write_topic_id(disk, dir, topic_id).map_err(|e| e.to_string())
        }
    }
}
