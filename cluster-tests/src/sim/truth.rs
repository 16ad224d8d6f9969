//! What must hold at every moment, seen from outside of all nodes (RELIABILITY, section 2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use callboard_broker::controller::MetadataImage;
use callboard_broker::controller::records::bincode_config;
use callboard_broker::storage::{Log, ReadMode};
use callboard_common::kafka::Text;
use callboard_common::record::batch::checksum;
use callboard_common::record::{Batch, BatchHeader};
use callboard_common::{BrokerId, LeaderEpoch, Offset, TopicPartition, Uuid};

/// Most bytes that one read of a log takes.
const READ_BYTES: u32 = 1 << 20;
/// A value's first bytes are its record's number.
const NUMBER_BYTES: usize = 8;

/// The number of a record, which no other has.
#[must_use]
pub fn number_of(value: &[u8]) -> Option<u64> {
    let (number, _) = value.split_first_chunk::<NUMBER_BYTES>()?;
    Some(u64::from_be_bytes(*number))
}

/// One batch as it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    next: i64,
    checksum: u32,
    epoch: i32,
}

impl Committed {
    fn of(header: &BatchHeader) -> Self {
        Self {
            next: header.next_offset(),
            checksum: header.checksum,
            epoch: header.leader_epoch,
        }
    }
}

/// What was committed of one partition.
#[derive(Debug, Default)]
struct Partition {
    batches: BTreeMap<i64, Committed>,
    /// Offset after the last record that was committed.
    end: i64,
    /// Nothing below is there any more, because somebody deleted it.
    start: i64,
    offsets: BTreeMap<u64, i64>,
    leaders: BTreeMap<LeaderEpoch, (usize, Life)>,
    /// Whether more was committed that could not be read where it was, because that disk has rotted.
    unread: bool,
}

/// What members of the one group were told.
#[derive(Debug)]
pub struct Group {
    /// Who has a partition in a generation.
    owners: BTreeMap<(i32, i32), Text>,
    /// The newest generation that anybody has partitions in.
    pub newest: i32,
    /// What is known to be committed, by partition.
    pub committed: BTreeMap<i32, i64>,
    /// In which generation that was.
    committed_in: BTreeMap<i32, i32>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            owners: BTreeMap::new(),
            newest: -1,
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
        }
    }
}

/// The start of a process, and the start of an actor in it.
pub type Life = (u64, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Truth {
    partitions: BTreeMap<(Uuid, i32), Partition>,
    /// Hashes of images by the entry that they end with.
    images: BTreeMap<u64, u32>,
    /// Terms of the quorum and who led in them.
    terms: BTreeMap<u64, BrokerId>,
    /// Versions of partitions that a leader's proposal changed.
    altered: BTreeSet<(Uuid, i32, i32)>,
    /// What groups without members are known to have committed.
    pub committed: BTreeMap<Text, i64>,
    /// Their commits of which nothing certain was heard: they may be done late.
    pub uncertain: BTreeSet<(Text, i64)>,
    /// The group whose members share the partitions.
    pub group: Group,
    /// Whether more was committed, or others are in sync, since it was looked at last.
    pub moved: bool,
    /// The newest metadata that any node has seen.
    pub metadata: Arc<MetadataImage>,
    /// What was found first.
    violation: Option<String>,
}

/// Reads whole batches from `from` to `limit`; or answers the offset from which on they cannot be read.
fn batches(log: &Log, from: Offset, limit: Offset) -> Result<Vec<Batch>, Offset> {
    let mut batches = Vec::new();
    let mut next = from;
    while next < limit {
        let plan = log.plan_read(next, limit, READ_BYTES, true);
        let read = plan.run(ReadMode::Blocking).ok().flatten();
        let mut bytes: Bytes = read.filter(|b| !b.is_empty()).ok_or(next)?;
        while !bytes.is_empty() {
            let (batch, rest) = Batch::split(bytes).map_err(|_| next)?;
            bytes = rest;
            next = Offset::new(batch.header().next_offset());
            batches.push(batch);
        }
    }
    Ok(batches)
}

impl Truth {
    /// Notes that something does not hold that must; what came first counts.
    pub fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// What does not hold.
    #[must_use]
    pub fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    fn partition(&mut self, id: Uuid, number: i32) -> &mut Partition {
        self.partitions.entry((id, number)).or_default()
    }

    /// I9: a node begins to lead: nobody led in that reign before, not even itself, because what it wrote then may be
    /// elsewhere already.
    pub fn reigns(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        (epoch, life): (LeaderEpoch, Life),
    ) {
        let known = self.partition(id, partition.partition);
        let (other, its_life) = *known.leaders.entry(epoch).or_insert((node, life));
        if (other, its_life) != (node, life) {
            self.violate(|| {
                let (a, b) = (node + 1, other + 1);
                format!("I9: node {a}, start {life:?}, and node {b}, start {its_life:?}, lead {partition} in epoch {epoch}")
            });
        }
    }

    /// I5: a node begins to serve what it leads, with a log in which nothing is known to be wrong: what was committed is
    /// all there.
    ///
    /// # Errors
    ///
    /// The offset from which on the log cannot be read.
    pub fn leads(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        epoch: LeaderEpoch,
        log: &Log,
    ) -> Result<(), Offset> {
        let known = self.partition(id, partition.partition);
        let (start, end) = (known.start, known.end);
        // One that hears late of its reign, when it has ended already, commits nothing in it.
        let is_newest = known.leaders.keys().next_back() == Some(&epoch);
        if !is_newest {
            return Ok(());
        }
        if log.log_end().get() < end {
            let found = log.log_end();
            self.violate(|| {
                let node = node + 1;
                format!("I1: node {node} leads {partition} in epoch {epoch} with a log that ends at {found}; up to {end} was committed")
            });
            return Ok(());
        }
        let from = log.log_start().max(Offset::new(start.min(end)));
        self.compare(
            node,
            (id, partition),
            log,
            from,
            Offset::new(end.max(from.get())),
        )
    }

    /// I5: what a log holds of what was committed is the same.
    ///
    /// # Errors
    ///
    /// As [`Truth::leads`].
    pub fn compare(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        log: &Log,
        from: Offset,
        to: Offset,
    ) -> Result<(), Offset> {
        if from >= to {
            return Ok(());
        }
        let batches = batches(log, from, to)?;
        let known = self.partition(id, partition.partition);
        let mut wrong = None;
        for batch in &batches {
            let header = batch.header();
            let found = Committed::of(header);
            let committed = known.batches.get(&header.base_offset).copied();
            if committed.is_some_and(|c| c != found)
                || (committed.is_none() && header.base_offset < known.end)
            {
                wrong = Some((header.base_offset, found, committed));
                break;
            }
        }
        if let Some((offset, found, committed)) = wrong {
            self.violate(|| {
                let node = node + 1;
                format!("I5: node {node} has {found:?} at {offset} of {partition}, committed was {committed:?}")
            });
        }
        Ok(())
    }

    /// I5, I12: a leader's high watermark has moved: what lies below is committed, once, for ever.
    ///
    /// # Errors
    ///
    /// As [`Truth::leads`].
    pub fn commits(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        log: &Log,
        high_watermark: Offset,
    ) -> Result<(), Offset> {
        let end = self.partition(id, partition.partition).end;
        if high_watermark.get() <= end {
            return Ok(());
        }
        let from = Offset::new(end).max(log.log_start());
        let batches = batches(log, from, high_watermark);
        self.partition(id, partition.partition).unread = batches.is_err();
        let batches = batches?;
        self.moved = true;
        let mut doubled = None;
        let known = self.partition(id, partition.partition);
        for batch in &batches {
            let header = batch.header();
            if header.base_offset < known.end {
                continue;
            }
            let committed = Committed::of(header);
            let _before = known.batches.insert(header.base_offset, committed);
            known.end = committed.next;
            // What a coordinator writes has no numbers.
            let records = match partition.topic.is_internal() {
                true => Vec::new(),
                false => batch.records(1 << 20).unwrap_or_default(),
            };
            for record in records {
                let number = record.value.as_deref().and_then(number_of);
                let Some(number) = number else { continue };
                if let Some(before) = known.offsets.insert(number, record.offset.get()) {
                    doubled = Some((number, before, record.offset));
                }
            }
        }
        if let Some((number, before, offset)) = doubled {
            self.violate(|| {
                let node = node + 1;
                format!("I12: record {number} was committed at {before} and at {offset} of {partition}, by node {node}")
            });
        }
        Ok(())
    }

    /// I5: a follower is about to cut its log here: nothing that was committed goes, if the follower counts. One that does not,
    /// and has not heard of a newer leader yet, may lose what it has: it fetches it again.
    pub fn cuts(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        log: &Log,
        at: Offset,
    ) {
        let me = BrokerId(node as i32 + 1);
        let topic = self.metadata.topic_by_id(&id).map(|(_, topic)| topic);
        let number = partition.partition.unsigned_abs() as usize;
        let image = topic.and_then(|t| t.partitions.get(number));
        if !image.is_some_and(|p| p.isr.contains(&me) || p.elr.contains(&me)) {
            return;
        }
        let known = self.partition(id, partition.partition);
        let from = at.max(Offset::new(known.start)).max(log.log_start());
        let to = log.log_end().min(Offset::new(known.end));
        // What cannot be read has rotted, and is to go.
        let Ok(found) = batches(log, from, to) else {
            return;
        };
        let known = self.partition(id, partition.partition);
        let was_committed = |batch: &&Batch| {
            let header = batch.header();
            let found = Committed::of(header);
            header.base_offset >= from.get()
                && known.batches.get(&header.base_offset) == Some(&found)
        };
        if let Some(batch) = found.iter().find(was_committed) {
            let offset = batch.header().base_offset;
            self.violate(|| {
                let node = node + 1;
                format!("I5: node {node} cuts {partition} at {at}, where it has what was committed at {offset}")
            });
        }
    }

    /// I10: the controller has changed who is in sync for a leader that knew this version.
    pub fn alters(&mut self, (id, partition): (Uuid, &TopicPartition), version: i32) {
        if !self.altered.insert((id, partition.partition, version)) {
            self.violate(|| {
                format!(
                    "I10: who is in sync of {partition} was changed twice as of version {version}"
                )
            });
        }
    }

    /// What was committed so far.
    #[must_use]
    pub fn end(&self, id: Uuid, number: i32) -> i64 {
        self.partitions.get(&(id, number)).map_or(0, |p| p.end)
    }

    /// Somebody deleted what lies below.
    pub fn deleted(&mut self, id: Uuid, number: i32, start: i64) {
        let known = self.partition(id, number);
        known.start = known.start.max(start);
    }

    /// The first offset that nobody has deleted.
    #[must_use]
    pub fn start(&self, id: Uuid, number: i32) -> i64 {
        self.partitions.get(&(id, number)).map_or(0, |p| p.start)
    }

    /// I1: a producer is told that its record stands at `offset`: it is committed there.
    pub fn acknowledges(
        &mut self,
        node: usize,
        (id, partition): (Uuid, &TopicPartition),
        offset: Offset,
        numbers: &[u64],
    ) {
        let known = self.partition(id, partition.partition);
        for (at, number) in (offset.get()..).zip(numbers) {
            let found = known.offsets.get(number).copied();
            let unread = known.unread && at >= known.end;
            if found != Some(at) && at >= known.start && !unread {
                let end = known.end;
                self.violate(|| {
                    let node = node + 1;
                    format!("I1: node {node} acknowledges record {number} at {at} of {partition}, committed is {found:?} (up to {end})")
                });
                return;
            }
        }
    }

    /// I8: a consumer is shown a record: it was committed there.
    pub fn shows(&mut self, (id, partition): (Uuid, &TopicPartition), offset: Offset, number: u64) {
        let known = self.partition(id, partition.partition);
        let found = known.offsets.get(&number).copied();
        let unread = known.unread && offset.get() >= known.end;
        if found != Some(offset.get()) && !unread {
            self.violate(|| {
                format!("I8: a consumer reads record {number} at {offset} of {partition}, committed is {found:?}")
            });
        }
    }

    /// I17: a member has partitions in a generation: nobody else has them.
    pub fn assigned(&mut self, (generation, member): (i32, &Text), partitions: &[i32]) {
        self.group.newest = self.group.newest.max(generation);
        for number in partitions {
            let owner = self.group.owners.entry((generation, *number));
            let owner = owner.or_insert_with(|| member.clone()).clone();
            if owner != *member {
                self.violate(|| {
                    format!("I17: {owner} and {member} have partition {number} in generation {generation}")
                });
            }
        }
    }

    /// I16: a commit of a member was acknowledged; when it was asked for, `newest` was the newest generation.
    pub fn group_commits(&mut self, (number, offset): (i32, i64), generation: i32, newest: i32) {
        if generation < newest {
            self.violate(|| {
                format!("I16: {offset} of partition {number} is committed in generation {generation}, asked for when {newest} had begun")
            });
        }
        let group = &mut self.group;
        let before = group.committed_in.insert(number, generation);
        if let Some(before) = before.filter(|before| *before > generation) {
            // Acknowledged late: what the next owner has committed follows it.
            let _same = group.committed_in.insert(number, before);
            return;
        }
        let _before = group.committed.insert(number, offset);
    }

    /// I19: equal entries give equal images everywhere.
    pub fn image(&mut self, node: usize, image: &MetadataImage) {
        let bytes = bincode::encode_to_vec(image, bincode_config()).unwrap_or_default();
        let hash = checksum(&bytes);
        let known = *self.images.entry(image.applied).or_insert(hash);
        if known != hash {
            let (applied, node) = (image.applied, node + 1);
            self.violate(|| format!("I19: node {node} has another image after entry {applied}"));
        }
    }

    /// I20: one leader of the quorum per term. Whether this is news.
    pub fn leads_quorum(&mut self, term: u64, broker: BrokerId) -> bool {
        let is_new = !self.terms.contains_key(&term);
        let known = *self.terms.entry(term).or_insert(broker);
        if known != broker {
            self.violate(|| format!("I20: {known} and {broker} lead the quorum in term {term}"));
        }
        is_new
    }
}
