//! A24, without a node: the data directories of a cluster hold the same bytes below the high watermark (I11).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};

use callboard_broker::storage::checkpoint;
use callboard_common::record::file::{BatchReader, ReadError, segments};
use callboard_common::{Offset, TopicPartition};

use super::{Anomaly, Findings};

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Partitions that more than one directory holds.
    pub partitions: usize,
    /// Batches of them that are below the high watermark in all of them.
    pub batches: usize,
}

/// One batch of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    next: i64,
    epoch: i32,
    crc: u32,
    digest: u64,
}

/// One replica's log: its batches by base offset, and where it cannot be read, if so.
#[derive(Debug, Default)]
struct Replica {
    batches: BTreeMap<i64, Written>,
    damage: Option<String>,
}

fn marks(dir: &Path, name: &str) -> io::Result<BTreeMap<TopicPartition, Offset>> {
    let path = dir.join(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let wrong = || {
        let said = format!("{} is no checkpoint", path.display());
        io::Error::new(io::ErrorKind::InvalidData, said)
    };
    checkpoint::parse(&text).ok_or_else(wrong)
}

fn read(dir: &Path, end: i64) -> io::Result<Replica> {
    let mut replica = Replica::default();
    for path in segments(dir)? {
        let mut batches = BatchReader::new(BufReader::with_capacity(1 << 20, File::open(&path)?));
        while let Some(batch) = batches.next() {
            let (_, batch) = match batch {
                Ok(batch) => batch,
                Err(ReadError::Io(error)) => return Err(error),
                Err(error @ (ReadError::Cut | ReadError::Batch(_))) => {
                    let at = batches.position();
                    replica.damage = Some(format!("{} at byte {at}: {error}", path.display()));
                    break;
                }
            };
            let header = batch.header();
            if header.base_offset >= end {
                break;
            }
            let mut digest = DefaultHasher::new();
            batch.bytes().hash(&mut digest);
            let written = Written {
                next: header.next_offset(),
                epoch: header.leader_epoch,
                crc: header.checksum,
                digest: digest.finish(),
            };
            let _once = replica.batches.insert(header.base_offset, written);
        }
    }
    Ok(replica)
}

/// Compares every partition that several of the data directories hold, up to the lowest high watermark that any of them
/// noted. The nodes should have been stopped in order, so that what they noted is recent.
///
/// # Errors
///
/// What reading a directory failed with. Damage in a log is a finding, not an error.
pub fn compare(dirs: &[PathBuf], findings: &mut Findings) -> io::Result<Compared> {
    let (mut ends, mut starts) = (Vec::new(), Vec::new());
    for dir in dirs {
        ends.push(marks(dir, "replication-offset-checkpoint")?);
        starts.push(marks(dir, "log-start-offset-checkpoint")?);
    }
    let all: BTreeSet<&TopicPartition> = ends.iter().flat_map(BTreeMap::keys).collect();
    let mut compared = Compared::default();
    for partition in all {
        let name = format!("{}-{}", partition.topic, partition.partition);
        let held = dirs
            .iter()
            .zip(&ends)
            .filter(|(dir, _)| dir.join(&name).is_dir());
        let held: Vec<_> = held
            .filter_map(|(dir, m)| Some((dir, m.get(partition)?.get())))
            .collect();
        let Some(end) = held
            .iter()
            .map(|(_, end)| *end)
            .min()
            .filter(|_| held.len() > 1)
        else {
            continue;
        };
        // What one of them has deleted already the others may still have.
        let start = starts.iter().filter_map(|m| m.get(partition)).max();
        let start = start.map_or(0, |s| s.get()).min(end);
        let mut replicas = Vec::new();
        for (dir, _) in held {
            replicas.push((dir.as_path(), read(&dir.join(&name), end)?));
        }
        compared.partitions += 1;
        compared.batches += one_partition(&name, start..end, &replicas, findings);
    }
    Ok(compared)
}

fn one_partition(
    name: &str,
    range: Range<i64>,
    replicas: &[(&Path, Replica)],
    findings: &mut Findings,
) -> usize {
    for (dir, replica) in replicas {
        if let Some(damage) = &replica.damage {
            findings.note(Anomaly::ReplicaBytes, || {
                format!("{}: {damage}", dir.display())
            });
        }
    }
    let (first_dir, first) = &replicas[0];
    for (dir, other) in &replicas[1..] {
        let bases: BTreeSet<i64> = first
            .batches
            .range(range.clone())
            .chain(other.batches.range(range.clone()))
            .map(|(base, _)| *base)
            .collect();
        for base in bases {
            let (a, b) = (first.batches.get(&base), other.batches.get(&base));
            if a == b {
                continue;
            }
            findings.note(Anomaly::ReplicaBytes, || {
                let said = |b: Option<&Written>| {
                    b.map_or("nothing".to_owned(), |b| {
                        format!(
                            "epoch {} up to {} with checksum {:08x}",
                            b.epoch, b.next, b.crc
                        )
                    })
                };
                format!(
                    "{name} at offset {base}: {} has {}, {} has {}",
                    first_dir.display(),
                    said(a),
                    dir.display(),
                    said(b)
                )
            });
        }
    }
    first.batches.range(range.clone()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::LeaderEpoch;
    use callboard_common::record::{BatchBuilder, Compression};

    /// A data directory with one partition: batches of a record each from offset 0 on, the value of one of them, and the
    /// high watermark that it noted.
    fn directory(at: &Path, batches: i64, other: Option<i64>, high_watermark: i64) {
        let dir = at.join("orders-0");
        fs::create_dir_all(&dir).expect("created");
        let mut log = Vec::new();
        for offset in 0..batches {
            let mut builder = BatchBuilder::new(Compression::None);
            let value: &[u8] = if other == Some(offset) {
                b"other"
            } else {
                b"value"
            };
            builder.push(1000 + offset, None, Some(value), &[]);
            let batch = builder.build();
            let header = batch.placed(Offset::new(offset), LeaderEpoch(0)).write();
            log.extend_from_slice(&header);
            log.extend_from_slice(&batch.bytes()[header.len()..]);
        }
        fs::write(dir.join("00000000000000000000.log"), log).expect("written");
        let mark = format!("0\n1\norders 0 {high_watermark}\n");
        fs::write(at.join("replication-offset-checkpoint"), mark).expect("written");
    }

    /// What is found when the second of three replicas differs so.
    fn found(batches: i64, other: Option<i64>, high_watermark: i64) -> Vec<Anomaly> {
        let root = tempfile::tempdir().expect("a directory");
        let dirs: Vec<PathBuf> = ["a", "b", "c"].map(|n| root.path().join(n)).into();
        directory(&dirs[0], 5, None, 5);
        directory(&dirs[1], batches, other, high_watermark);
        directory(&dirs[2], 5, None, 4);
        let mut findings = Findings::default();
        let compared = compare(&dirs, &mut findings).expect("readable");
        assert_eq!(compared.partitions, 1);
        findings.iter().map(|(anomaly, _)| anomaly).collect()
    }

    #[test]
    fn replicas_hold_the_same_bytes_below_the_high_watermark() {
        assert_eq!(found(5, None, 5), []);
        assert_eq!(found(5, Some(4), 5), [], "that is not committed on all");
        assert_eq!(found(5, Some(3), 5), [Anomaly::ReplicaBytes]);
        assert_eq!(found(3, None, 4), [Anomaly::ReplicaBytes], "one is missing");
        assert_eq!(found(3, None, 3), [], "it notes no more than it has");
    }

    #[test]
    fn damage_is_found_as_such() {
        let root = tempfile::tempdir().expect("a directory");
        let dirs: Vec<PathBuf> = ["a", "b"].map(|n| root.path().join(n)).into();
        dirs.iter().for_each(|dir| directory(dir, 3, None, 3));
        let path = dirs[0].join("orders-0/00000000000000000000.log");
        let mut bytes = fs::read(&path).expect("read");
        *bytes.last_mut().expect("there are bytes") ^= 1;
        fs::write(&path, bytes).expect("written");
        let mut findings = Findings::default();
        let _compared = compare(&dirs, &mut findings).expect("readable");
        let found: Vec<Anomaly> = findings.iter().map(|(anomaly, _)| anomaly).collect();
        assert_eq!(found, [Anomaly::ReplicaBytes]);
    }
}
