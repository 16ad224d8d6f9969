//! Kafka's checkpoint files of a data directory: recovery points, log starts, high watermarks.
//!
//! A file is text: version 0, the number of lines, then `topic partition offset` each. It is replaced as a
//! whole. The values only rise between restarts and losing the newest costs a longer scan, no record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard_common::{Offset, TopicName, TopicPartition};
use parking_lot::Mutex;

use super::disk::{Disk, read_whole, replace_whole};

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// A hundred bytes for each of a million partitions.
const LIMIT_BYTES: u64 = 100 << 20;

/// What the checkpoints say of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Everything below was synced.
    pub recovery_point: Offset,
    /// Everything below was deleted.
    pub log_start: Offset,
    /// Everything below was replicated as its topic asks for.
    pub high_watermark: Offset,
}

#[derive(Debug, Default)]
struct State {
    marks: BTreeMap<TopicPartition, Marks>,
    /// Counts changes; what was written last.
    version: u64,
    written: u64,
    /// Marks that came down or went, by the version of that, and are not known to be durable: who relies on it waits for them, also
    /// if the first attempt to write them has failed.
    owed: BTreeMap<TopicPartition, u64>,
}

/// The checkpoints of one data directory; clones share them.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
    writing: Arc<Mutex<()>>,
}

/// Writes a checkpoint file's text.
#[must_use]
pub fn format(offsets: &BTreeMap<TopicPartition, Offset>) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        text.push_str(&format!(
            "{} {} {offset}\n",
            partition.topic, partition.partition
        ));
    }
    text
}

/// Reads a checkpoint file's text; `None` if it is malformed.
pub fn parse(text: &str) -> Option<BTreeMap<TopicPartition, Offset>> {
    let mut lines = text.lines();
    let (version, count): (i32, usize) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let mut marks = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let topic = TopicName::new(words.next()?).ok()?;
        let partition = words.next()?.parse().ok().filter(|p: &i32| *p >= 0)?;
        let offset = Offset::checked(words.next()?.parse().ok()?)?;
        if words.next().is_some()
            || marks
                .insert(TopicPartition::new(topic, partition), offset)
                .is_some()
        {
            return None;
        }
    }
    (version == 0 && marks.len() == count).then_some(marks)
}

impl State {
    fn owe(&mut self, partition: &TopicPartition) {
        self.version += 1;
        let _before = self.owed.insert(partition.clone(), self.version);
    }
}

impl Checkpoints {
    /// Reads the checkpoints of `dir`; a file that is missing or malformed counts as empty.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        let read = |name: &str| {
            let bytes = read_whole(&*disk, &dir.join(name), LIMIT_BYTES).ok()?;
            parse(std::str::from_utf8(&bytes).ok()?)
        };
        let mut marks: BTreeMap<TopicPartition, Marks> = BTreeMap::new();
        for (partition, offset) in read(RECOVERY_POINTS).unwrap_or_default() {
            marks.entry(partition).or_default().recovery_point = offset;
        }
        for (partition, offset) in read(LOG_STARTS).unwrap_or_default() {
            marks.entry(partition).or_default().log_start = offset;
        }
        for (partition, offset) in read(HIGH_WATERMARKS).unwrap_or_default() {
            marks.entry(partition).or_default().high_watermark = offset;
        }
        let state = State {
            marks,
            version: 0,
            written: 0,
            owed: BTreeMap::new(),
        };
        Self {
            dir: dir.to_owned(),
            disk,
            state: Arc::new(Mutex::new(state)),
            writing: Arc::default(),
        }
    }

    /// What is known of a partition; nothing counts as zeros.
    #[must_use]
    pub fn marks(&self, partition: &TopicPartition) -> Marks {
        self.state
            .lock()
            .marks
            .get(partition)
            .copied()
            .unwrap_or_default()
    }

    /// Notes new marks; [`Checkpoints::write`] makes them durable.
    pub fn set(&self, partition: &TopicPartition, marks: Marks) {
        let mut state = self.state.lock();
        // Whoever took its marks earlier and comes later moves nothing back.
        let before = state.marks.get(partition).copied().unwrap_or(marks);
        let marks = Marks {
            log_start: marks.log_start.max(before.log_start),
            recovery_point: marks.recovery_point.max(before.recovery_point),
            ..marks
        };
        if state.marks.get(partition) != Some(&marks) {
            let _before = state.marks.insert(partition.clone(), marks);
            state.version += 1;
        }
    }

    /// The log is about to be cut at `end`, below what its marks say: they come down first, durably, or a crash would bring
    /// the offsets back without their records. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn lower(&self, partition: &TopicPartition, end: Offset) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            if let Some(marks) = state.marks.get_mut(partition) {
                let is_lower = end < marks.recovery_point || end < marks.high_watermark;
                marks.recovery_point = marks.recovery_point.min(end);
                marks.high_watermark = marks.high_watermark.min(end);
                if is_lower {
                    state.owe(partition);
                }
            }
        }
        self.pay(partition)
    }

    /// Forgets a partition that was deleted, durably: the next topic of its name begins at 0. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn remove(&self, partition: &TopicPartition) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            let before = state.marks.remove(partition);
            if before.is_some_and(|marks| marks != Marks::default()) {
                state.owe(partition);
            }
        }
        self.pay(partition)
    }

    /// Makes durable what is owed for a partition.
    fn pay(&self, partition: &TopicPartition) -> io::Result<()> {
        let is_owed = self.state.lock().owed.contains_key(partition);
        match is_owed {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Makes the marks durable, if any changed since the last time. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says; the files keep their old content.
    pub fn write(&self) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock();
        let (marks, version) = {
            let state = self.state.lock();
            if state.version == state.written {
                return Ok(());
            }
            (state.marks.clone(), state.version)
        };
        let write = |name: &str, mark: fn(&Marks) -> Offset| {
            let offsets = marks.iter().map(|(p, m)| (p.clone(), mark(m))).collect();
            let text = format(&offsets);
            replace_whole(&*self.disk, &self.dir.join(name), text.as_bytes())
        };
        // Log starts first: a recovery point is never ahead of what the start allows.
        write(LOG_STARTS, |m| m.log_start)?;
        write(RECOVERY_POINTS, |m| m.recovery_point)?;
        write(HIGH_WATERMARKS, |m| m.high_watermark)?;
        let mut state = self.state.lock();
        state.written = version;
        state.owed.retain(|_, of| *of > version);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::{MemoryDisk, SimulatedDisk};
    use super::*;

    #[test]
    fn marks_survive_and_malformed_files_count_as_empty() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        disk.create_dir(Path::new("/d")).expect("created");
        let checkpoints = Checkpoints::open(disk.clone(), Path::new("/d"));
        let partition = TopicPartition::parse("orders-3").expect("valid");
        let offset = Offset::new;
        let marks = Marks {
            recovery_point: offset(9),
            log_start: offset(2),
            high_watermark: offset(8),
        };
        checkpoints.set(&partition, marks);
        checkpoints.write().expect("written");
        let text = read_whole(&*disk, &Path::new("/d").join(RECOVERY_POINTS), 100).expect("there");
        assert_eq!(text, b"0\n1\norders 3 9\n");
        assert_eq!(
            Checkpoints::open(disk.clone(), Path::new("/d")).marks(&partition),
            marks
        );
        replace_whole(
            &*disk,
            &Path::new("/d").join(RECOVERY_POINTS),
            b"0\n2\norders 3 9\n",
        )
        .expect("written");
        let reread = Checkpoints::open(disk, Path::new("/d")).marks(&partition);
        assert_eq!(
            reread,
            Marks {
                recovery_point: Offset::ZERO,
                ..marks
            }
        );
    }

    /// Seeds 464185 and 479853: a full disk kept the marks of a deleted topic, the second attempt said that they were gone, and the
    /// log of the next topic of that name was judged by them.
    #[test]
    fn what_a_full_disk_kept_is_owed_until_it_is_written() {
        type Change = fn(&Checkpoints, &TopicPartition) -> io::Result<()>;
        let changes: [(Change, i64); 2] = [
            (|c, p| c.remove(p), 0),
            (|c, p| c.lower(p, Offset::new(5)), 5),
        ];
        for (change, left) in changes {
            let disk = SimulatedDisk::new(1);
            let (dir, shared) = (Path::new("/d"), Arc::new(disk.clone()));
            shared.create_dir(dir).expect("created");
            let checkpoints = Checkpoints::open(shared.clone(), dir);
            let partition = TopicPartition::parse("orders-0").expect("valid");
            let marks = Marks {
                recovery_point: Offset::new(9),
                ..Marks::default()
            };
            checkpoints.set(&partition, marks);
            checkpoints.write().expect("written");
            disk.set_capacity(disk.used_bytes());
            for attempt in 0..3 {
                let refused = change(&checkpoints, &partition);
                assert!(refused.is_err(), "attempt {attempt}");
            }
            let durable = || Checkpoints::open(shared.clone(), dir).marks(&partition);
            assert_eq!(durable().recovery_point, Offset::new(9));
            disk.set_capacity(u64::MAX);
            change(&checkpoints, &partition).expect("there is space again");
            assert_eq!(durable().recovery_point, Offset::new(left));
        }
    }
}
