//! `meta.properties` of a data directory and `partition.metadata` of a partition's, as Kafka writes them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use callboard_common::{BrokerId, Uuid};

use super::StorageError;
use super::disk::{Disk, read_whole, replace_whole, write_whole};

/// Name of the data directory's file.
pub const META_PROPERTIES: &str = "meta.properties";
/// Name of the partition directory's file.
pub const PARTITION_METADATA: &str = "partition.metadata";
const LIMIT_BYTES: u64 = 64 << 10;

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's identifier.
    pub cluster_id: String,
    /// The node's number.
    pub node_id: BrokerId,
    /// This directory's identifier; a wiped directory gets another one.
    pub directory_id: Uuid,
}

fn text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, StorageError> {
    match read_whole(disk, path, LIMIT_BYTES) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StorageError::Contradiction {
                path: path.into(),
                what: "this is not text".into(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("reading", path)(error)),
    }
}

/// `key=value` or `key: value` lines; comments begin with `#`.
fn pairs(text: &str, separator: char) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|l| l.split_once(separator))
        .map(|(k, v)| (k.trim(), v.trim()))
        .collect()
}

impl MetaProperties {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError::Contradiction`] if it is of another version or lacks something.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, StorageError> {
        let path = dir.join(META_PROPERTIES);
        let Some(text) = text(disk, &path)? else {
            return Ok(None);
        };
        let pairs = pairs(&text, '=');
        let wrong = |what: &str| StorageError::Contradiction {
            path: path.clone(),
            what: what.into(),
        };
        if pairs.get("version") != Some(&"1") {
            return Err(wrong(
                "its version is not 1: the directory is of a newer or another program",
            ));
        }
        let node_id = pairs
            .get("node.id")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| wrong("node.id is missing"))?;
        let directory_id = pairs.get("directory.id").and_then(|id| Uuid::parse(id));
        Ok(Some(Self {
            cluster_id: (*pairs
                .get("cluster.id")
                .ok_or_else(|| wrong("cluster.id is missing"))?)
            .to_owned(),
            node_id: BrokerId(node_id),
            directory_id: directory_id.ok_or_else(|| wrong("directory.id is missing"))?,
        }))
    }

    /// Writes the file. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        let path = dir.join(META_PROPERTIES);
        let text = format!(
            "#\nversion=1\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.directory_id
        );
        replace_whole(disk, &path, text.as_bytes()).map_err(StorageError::io("writing", &path))
    }
}

/// Reads the topic id of a partition's directory; `None` if the file is missing.
///
/// # Errors
///
/// [`StorageError::Contradiction`] if it is malformed.
pub fn read_topic_id(disk: &dyn Disk, dir: &Path) -> Result<Option<Uuid>, StorageError> {
    let path = dir.join(PARTITION_METADATA);
    let Some(text) = text(disk, &path)? else {
        return Ok(None);
    };
    let pairs = pairs(&text, ':');
    match (
        pairs.get("version"),
        pairs.get("topic_id").and_then(|id| Uuid::parse(id)),
    ) {
        (Some(&"0"), Some(id)) => Ok(Some(id)),
        _ => Err(StorageError::Contradiction {
            path,
            what: "no version 0 with a topic id".into(),
        }),
    }
}

/// Writes the topic id of a partition's directory. Its name is durable with the log's first sync, which covers all names
/// of the directory. Blocks.
///
/// # Errors
///
/// What the disk says.
pub fn write_topic_id(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> Result<(), StorageError> {
    let path = dir.join(PARTITION_METADATA);
    let text = format!("version: 0\ntopic_id: {topic_id}\n");
    write_whole(disk, &path, text.as_bytes()).map_err(StorageError::io("writing", &path))
}

#[cfg(test)]
mod tests {
    use super::super::disk::MemoryDisk;
    use super::*;

    #[test]
    fn files_round_trip() {
        let (disk, dir) = (MemoryDisk::default(), Path::new("/d"));
        disk.create_dir(dir).expect("created");
        assert_eq!(MetaProperties::read(&disk, dir).expect("readable"), None);
        let meta = MetaProperties {
            cluster_id: "c".into(),
            node_id: BrokerId(3),
            directory_id: Uuid([7; 16]),
        };
        meta.write(&disk, dir).expect("written");
        assert_eq!(
            MetaProperties::read(&disk, dir).expect("readable"),
            Some(meta)
        );
        assert_eq!(read_topic_id(&disk, dir).expect("readable"), None);
        write_topic_id(&disk, dir, Uuid([9; 16])).expect("written");
        assert_eq!(
            read_topic_id(&disk, dir).expect("readable"),
            Some(Uuid([9; 16]))
        );
        replace_whole(&disk, &dir.join(META_PROPERTIES), b"version=2\n").expect("written");
        assert!(MetaProperties::read(&disk, dir).is_err());
    }
}
