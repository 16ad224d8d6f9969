//! Scenes of several replicas of one partition, each with a log of its own: who leads changes, and afterwards all logs are the
//! same. They are those of KIP-101 and KIP-279.

use std::path::Path;

use callboard_common::record::{BatchBuilder, Compression};

use super::super::ReadMode;
use super::*;
use crate::storage::checkpoint::Checkpoints;
use crate::storage::disk::SimulatedDisk;

const NOW: Timestamp = Timestamp(1_000_000);

/// A batch of one record as a leader has it; its value says who wrote it where.
fn written(at: i64, epoch: i32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(10_000, None, Some(format!("{epoch}/{at}").as_bytes()), &[]);
    let batch = builder.build();
    let header = batch.placed(Offset::new(at), LeaderEpoch(epoch)).write();
    let bytes = [&header[..], &batch.bytes()[header.len()..]].concat();
    Batch::parse(bytes.into()).expect("a batch")
}

/// A replica, and the reigns of the records in its log.
struct Replica {
    log: Log,
    epochs: Vec<i32>,
}

impl Replica {
    /// One whose records were written in these reigns.
    fn with(epochs: &[i32]) -> Self {
        let disk = Arc::new(SimulatedDisk::new(1));
        let data = Path::new("/data");
        disk.create_dir(data).expect("created");
        let files = LogFiles {
            partition: TopicPartition::parse("orders-0").expect("valid"),
            dir: data.join("orders-0"),
            checkpoints: Checkpoints::open(disk.clone(), data),
            open: Arc::new(OpenFiles::new(disk, 4)),
            outstanding: Outstanding::default(),
        };
        let opened = Log::open(files, TopicConfig::default()).expect("opened");
        let mut replica = Self {
            log: opened.log,
            epochs: Vec::new(),
        };
        epochs.iter().for_each(|epoch| replica.append(*epoch));
        replica
    }

    fn append(&mut self, epoch: i32) {
        let batch = written(self.epochs.len() as i64, epoch);
        self.log.append_placed(&batch, NOW).expect("it follows");
        self.epochs.push(epoch);
    }

    /// Leads in a new reign and writes so many records.
    fn lead(&mut self, epoch: i32, records: usize) {
        self.log.begin_epoch(LeaderEpoch(epoch));
        (0..records).for_each(|_| self.append(epoch));
    }

    /// Follows a leader until it has all; how often it was told to cut.
    fn follow(mut self, leader: &Self) -> (Self, usize) {
        let mut cuts = 0;
        while let Some(last) = self.log.last_epoch()
            && let Some((epoch, end)) = leader.log.divergence(last, self.log.log_end())
        {
            let cut = self.log.cut_point(epoch, end);
            assert!(cut < self.log.log_end(), "it gets on");
            self.log = self.log.truncate(cut).expect("cut").log;
            self.epochs.truncate(cut.get() as usize);
            cuts += 1;
        }
        for epoch in &leader.epochs[self.epochs.len()..] {
            self.append(*epoch);
        }
        assert_eq!(self.epochs, leader.epochs);
        assert_eq!(self.bytes(), leader.bytes(), "byte for byte");
        (self, cuts)
    }

    /// The batches, as readers get them: one segment after the other.
    fn bytes(&self) -> Vec<bytes::Bytes> {
        let (log, mut batches) = (&self.log, Vec::new());
        while (batches.len() as i64) < log.log_end().get() {
            let from = Offset::new(batches.len() as i64);
            let plan = log.plan_read(from, log.log_end(), 1 << 20, true);
            let read = plan.run(ReadMode::Blocking).expect("readable");
            let mut rest = read.expect("there is something");
            while !rest.is_empty() {
                let (batch, after) = Batch::split(rest).expect("whole batches");
                batches.push(batch.bytes().clone());
                rest = after;
            }
        }
        batches
    }
}

/// KIP-101, first scene: a follower that has all of it knew no high watermark of the last record when it started again. Cut there,
/// it would lose that record and lead without it.
#[test]
fn kip_101_a_high_watermark_that_lags_costs_no_record() {
    let leader = Replica::with(&[0, 0]);
    let follower = Replica::with(&[0, 0]);
    assert_eq!(follower.log.high_watermark(), Offset::ZERO);
    let (mut follower, cuts) = follower.follow(&leader);
    assert_eq!(cuts, 0);
    follower.lead(1, 1);
    let (_, cuts) = leader.follow(&follower);
    assert_eq!((cuts, follower.epochs), (0, vec![0, 0, 1]));
}

/// KIP-101, second scene: both lost their power, and the one that is back first never had the last record. It writes another
/// one at that offset: high watermarks would call the two logs the same.
#[test]
fn kip_101_two_records_at_one_offset_become_one() {
    let was_leader = Replica::with(&[0, 0]);
    let mut leads = Replica::with(&[0]);
    leads.lead(1, 2);
    let (same, cuts) = was_leader.follow(&leads);
    assert_eq!((cuts, same.epochs), (1, vec![0, 1, 1]));
}

/// KIP-279: leaders changed so fast that neither replica has seen the other's reigns. The follower goes back reign by reign.
#[test]
fn kip_279_reigns_that_the_leader_never_saw_are_cut_one_after_the_other() {
    let mut leads = Replica::with(&[0, 0, 0, 2, 2]);
    leads.lead(4, 2);
    let was_leader = Replica::with(&[0, 0, 0, 1, 1, 1, 3, 3]);
    let (same, cuts) = was_leader.follow(&leads);
    assert_eq!((cuts, same.epochs), (2, vec![0, 0, 0, 2, 2, 4, 4]));
}

/// KIP-279, the other way round: a reign without a record is no reason to cut, and none to keep what another one wrote.
#[test]
fn kip_279_a_reign_without_records_hides_nothing() {
    let mut leads = Replica::with(&[0, 0]);
    leads.lead(2, 0);
    leads.lead(3, 1);
    let (mut same, cuts) = Replica::with(&[0, 0, 1, 1]).follow(&leads);
    assert_eq!((cuts, &same.epochs[..]), (1, &[0, 0, 3][..]));
    same.lead(5, 0);
    let (third, cuts) = Replica::with(&[0, 0, 3]).follow(&same);
    assert_eq!((cuts, third.epochs), (0, vec![0, 0, 3]));
}
