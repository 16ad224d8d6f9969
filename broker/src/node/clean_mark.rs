//! The mark of a stop in order, as Kafka has it: all logs are closed, so what they had is on the medium. It names the incarnation that
//! stopped: one that is found beside other data, as when a copy is put back, says nothing of them.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::storage::disk::{Disk, read_whole, replace_whole};

const NAME: &str = ".kafka_cleanshutdown";
/// What releases wrote that did not name it, and Kafka where it knows none.
const ANY: i64 = -1;

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    version: i32,
    broker_epoch: i64,
}

/// Who stopped in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CleanMark(Option<i64>);

impl CleanMark {
    /// What the last run left; one that cannot be read is none.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Self {
        let bytes = read_whole(disk, &dir.join(NAME), 1 << 10).ok();
        let content = bytes.and_then(|b| serde_json::from_slice::<Content>(&b).ok());
        Self(content.map(|c| c.broker_epoch))
    }

    /// Whether the incarnation with this broker epoch stopped in order.
    pub(super) fn is_of(self, epoch: i64) -> bool {
        self.0.is_some_and(|of| of == epoch || of == ANY)
    }

    /// Takes it away for good, before a log is opened.
    pub(super) fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.remove(&dir.join(NAME))?;
        disk.sync_dir(dir)
    }

    /// The incarnation with this broker epoch has closed all logs.
    pub(super) fn write(disk: &dyn Disk, dir: &Path, broker_epoch: i64) -> io::Result<()> {
        let content = Content {
            version: 0,
            broker_epoch,
        };
        let bytes = serde_json::to_vec(&content).map_err(io::Error::other)?;
        replace_whole(disk, &dir.join(NAME), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::SimulatedDisk;

    #[test]
    fn it_speaks_of_one_incarnation_and_only_once() {
        let (disk, dir) = (SimulatedDisk::new(1), Path::new("/data"));
        disk.create_dir(dir).expect("created");
        let is_of = |epoch| CleanMark::read(&disk, dir).is_of(epoch);
        assert!(!is_of(7), "there is none");
        CleanMark::write(&disk, dir, 7).expect("written");
        assert!(is_of(7) && !is_of(8));
        let content = read_whole(&disk, &dir.join(NAME), 99).expect("there");
        assert_eq!(
            content, br#"{"version":0,"brokerEpoch":7}"#,
            "as Kafka writes it"
        );
        CleanMark::remove(&disk, dir).expect("removed");
        disk.crash();
        assert!(!is_of(7), "for good");
        for (content, is_any) in [
            (r#"{"version":0,"brokerEpoch":-1}"#, true),
            ("{", false),
            ("", false),
        ] {
            replace_whole(&disk, &dir.join(NAME), content.as_bytes()).expect("written");
            assert_eq!(is_of(8), is_any, "{content}");
        }
    }
}
