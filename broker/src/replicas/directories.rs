//! The directories of partitions: made, checked and deleted on the pool.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use callboard_common::{TopicPartition, Uuid};

use crate::storage::checkpoint::Checkpoints;
use crate::storage::meta_properties;
use crate::storage::open_files::OpenFiles;

/// The directory of one partition.
#[derive(Debug)]
pub struct Directory {
    /// The partition.
    pub partition: TopicPartition,
    /// Where it is.
    pub dir: PathBuf,
    /// Files and disk.
    pub open: Arc<OpenFiles>,
    /// The data directory's checkpoints.
    pub checkpoints: Checkpoints,
}

impl Directory {
    /// Makes the directory, or checks that it is this topic's. What an earlier topic of this name left here, which was
    /// deleted while the node was down, goes: its identifier is the answer. The name is durable once the directory above
    /// is synced. Blocks.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub fn prepare(&self, topic_id: Uuid) -> Result<Option<Uuid>, String> {
        let (disk, dir) = (&**self.open.disk(), &self.dir);
        disk.create_dir(dir).map_err(|e| e.to_string())?;
        let found = meta_properties::read_topic_id(disk, dir).map_err(|e| e.to_string())?;
        if found == Some(topic_id) {
            return Ok(None);
        }
        if let Some(earlier) = found {
            self.delete(earlier).map_err(|e| e.to_string())?;
            disk.create_dir(dir).map_err(|e| e.to_string())?;
        }
        let written = meta_properties::write_topic_id(disk, dir, topic_id);
        written.map_err(|e| e.to_string())?;
        Ok(found)
    }

    /// Removes the log of a topic that was deleted. Its marks go first: they are not another topic's. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; the next start removes what is left.
    pub fn delete(&self, topic_id: Uuid) -> io::Result<()> {
        let disk = self.open.disk();
        // As Kafka names it.
        let name = format!("{}.{topic_id}-delete", self.partition);
        let doomed = self.dir.with_file_name(name);
        self.open.forget_below(&self.dir);
        self.checkpoints.remove(&self.partition)?;
        disk.rename(&self.dir, &doomed)?;
        disk.remove_dir(&doomed)
    }
}
