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
        // Marks of another topic of this name would call this one's beginning damaged, or deleted.
        self.checkpoints
            .remove(&self.partition)
            .map_err(|e| e.to_string())?;
        let written = meta_properties::write_topic_id(disk, dir, topic_id);
        written.map_err(|e| e.to_string())?;
        Ok(found)
    }

    /// Removes the log of a topic that was deleted, and its marks. Where one of it fails, as on a full disk, the rest is done:
    /// [`Directory::prepare`] begins nothing before the marks are gone. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; the next start removes a directory that has its new name.
    pub fn delete(&self, topic_id: Uuid) -> io::Result<()> {
        let disk = self.open.disk();
        // As Kafka names it.
        let name = format!("{}.{topic_id}-delete", self.partition);
        let doomed = self.dir.with_file_name(name);
        self.open.forget_below(&self.dir);
        disk.rename(&self.dir, &doomed)?;
        let forgotten = self.checkpoints.remove(&self.partition);
        disk.remove_dir(&doomed)?;
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use callboard_common::Offset;

    use super::*;
    use crate::storage::checkpoint::Marks;
    use crate::storage::disk::{Disk as _, SimulatedDisk, replace_whole};

    /// On a full disk the log goes although its marks cannot, and no other topic of that name begins before they have.
    #[test]
    fn a_full_disk_keeps_no_deleted_log_and_no_topic_gets_its_marks() {
        let disk = SimulatedDisk::new(1);
        let (data, shared) = (Path::new("/data"), Arc::new(disk.clone()));
        let dir = data.join("orders-0");
        shared.create_dir(data).expect("created");
        let partition = TopicPartition::parse("orders-0").expect("valid");
        let of_a_start = || Directory {
            partition: partition.clone(),
            dir: dir.clone(),
            open: Arc::new(OpenFiles::new(shared.clone(), 4)),
            checkpoints: Checkpoints::open(shared.clone(), data),
        };
        let directory = of_a_start();
        let (first, second) = (Uuid([1; 16]), Uuid([2; 16]));
        assert_eq!(directory.prepare(first), Ok(None));
        replace_whole(&disk, &dir.join("0.log"), &[7; 1000]).expect("written");
        let marks = Marks {
            recovery_point: Offset::new(9),
            ..Marks::default()
        };
        directory.checkpoints.set(&partition, marks);
        directory.checkpoints.write().expect("written");
        let used = disk.used_bytes();
        disk.set_capacity(used - 500);
        assert!(directory.delete(first).is_err(), "the marks stay");
        assert!(disk.used_bytes() < used - 500);
        assert!(
            !disk
                .list(data)
                .expect("listed")
                .iter()
                .any(|n| n.starts_with("orders-0"))
        );
        disk.set_capacity(disk.used_bytes());
        // As after a power loss: whoever is started now has read the old marks.
        for directory in [directory, of_a_start()] {
            assert!(directory.prepare(second).is_err());
            let durable = Checkpoints::open(shared.clone(), data).marks(&partition);
            assert_eq!(durable, marks);
        }
        disk.set_capacity(u64::MAX);
        assert_eq!(of_a_start().prepare(second), Ok(None));
        let durable = Checkpoints::open(shared.clone(), data).marks(&partition);
        assert_eq!(durable, Marks::default());
    }
}
