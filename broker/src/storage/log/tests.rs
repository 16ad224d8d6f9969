use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use callboard_common::record::{BatchBuilder, Compression};
use proptest::prelude::*;

use super::super::ReadMode;
use super::super::disk::{SimulatedDisk, read_whole, replace_whole};
use super::*;

const DIR: &str = "/data/orders-0";
const EPOCH: LeaderEpoch = LeaderEpoch(3);
const NOW: Timestamp = Timestamp(1_000_000);

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 2000,
        index_interval_bytes: 300,
        ..TopicConfig::default()
    }
}

fn files(disk: &SimulatedDisk, checkpoints: &Checkpoints) -> LogFiles {
    LogFiles {
        partition: TopicPartition::parse("orders-0").expect("valid"),
        dir: DIR.into(),
        open: Arc::new(OpenFiles::new(Arc::new(disk.clone()), 4)),
        checkpoints: checkpoints.clone(),
        outstanding: Outstanding::default(),
    }
}

fn checkpoints(disk: &SimulatedDisk) -> Checkpoints {
    disk.create_dir(Path::new("/data")).expect("created");
    Checkpoints::open(Arc::new(disk.clone()), Path::new("/data"))
}

fn reopen(disk: &SimulatedDisk, cut_at: Option<Offset>) -> Opened {
    let files = files(disk, &checkpoints(disk));
    if let Some(cut) = cut_at {
        files.outstanding.sync_failed(cut);
    }
    Log::open(files, config()).expect("opens")
}

/// A batch of `count` records whose values say which they are.
fn batch(first: i64, count: i64, pad: usize) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None).producer(5, 0, first as i32);
    for i in first..first + count {
        let mut value = i.to_be_bytes().to_vec();
        value.resize(8 + pad, 7);
        builder.push(10_000 + i, None, Some(&value), &[]);
    }
    builder.build()
}

/// The same as a leader has it.
fn placed(first: i64, count: i64, pad: usize, epoch: LeaderEpoch) -> Batch {
    let batch = batch(first, count, pad);
    let header = batch.placed(Offset::new(first), epoch).write();
    let bytes = [&header[..], &batch.bytes()[header.len()..]].concat();
    Batch::parse(bytes.into()).expect("a batch")
}

fn append(log: &mut Log, count: i64, pad: usize) {
    let base = log.log_end();
    let batch = batch(base.get(), count, pad);
    assert_eq!(log.append(&batch, EPOCH, NOW).expect("appended"), base);
}

fn sync(log: &mut Log) {
    if let Some(request) = log.sync_request() {
        request.run().expect("synced");
        log.synced(request.end);
    }
}

/// Three records in each, and all of it is durable.
fn four_batches(disk: &SimulatedDisk) -> Log {
    let mut log = reopen(disk, None).log;
    (0..4).for_each(|_| append(&mut log, 3, 10));
    sync(&mut log);
    log
}

/// Closes a log in order, committed up to an offset.
fn close(log: Log, committed: i64, producers: &ProducerTable) {
    let checkpoints = log.files.checkpoints.clone();
    log.close(Offset::new(committed), producers)
        .expect("closed");
    checkpoints.write().expect("written");
}

fn values(mut bytes: Bytes) -> Vec<(i64, i64)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (batch, rest) = Batch::split(bytes).expect("only whole batches are served");
        bytes = rest;
        for record in batch.records(1 << 20).expect("readable") {
            let value = record.value.expect("each has a value");
            out.push((
                record.offset.get(),
                i64::from_be_bytes(value[..8].try_into().expect("eight bytes")),
            ));
        }
    }
    out
}

fn read(log: &Log, from: Offset) -> Result<Vec<(i64, i64)>, StorageError> {
    let plan = log.plan_read(from, log.log_end(), 700, true);
    let now = plan.run(ReadMode::Now)?.expect("memory does not wait");
    assert_eq!(plan.run(ReadMode::Blocking)?, Some(now.clone()));
    Ok(values(now))
}

/// Every offset is read, from the batch that holds it, and says what was written there.
fn check_content(log: &Log) {
    for offset in log.log_start().get()..log.log_end().get() {
        let found = read(log, Offset::new(offset)).expect("readable");
        assert!(
            found.iter().any(|(o, _)| *o == offset),
            "{offset} is in {found:?}"
        );
        assert!(
            found.iter().all(|(o, v)| o == v),
            "offsets hold what was written: {found:?}"
        );
    }
}

fn small_log(disk: &SimulatedDisk) -> Log {
    let mut log = reopen(disk, None).log;
    log.begin_epoch(EPOCH);
    for count in [1, 3, 2, 4, 1, 1, 2, 3, 1, 2] {
        append(&mut log, count, 150);
    }
    sync(&mut log);
    log
}

#[test]
fn segments_roll_and_every_offset_is_read() {
    let disk = SimulatedDisk::new(1);
    let mut log = small_log(&disk);
    assert!(log.segment_count() > 1);
    assert_eq!(log.log_end(), Offset::new(20));
    check_content(&log);
    log.begin_epoch(EPOCH);
    log.close(Offset::new(20), &ProducerTable::default())
        .expect("closed");
    let opened = reopen(&disk, None);
    assert_eq!(
        (
            opened.log.log_end(),
            opened.quarantined,
            opened.damaged.len()
        ),
        (Offset::new(20), vec![], 0)
    );
    check_content(&opened.log);
}

#[test]
fn a_search_by_time_finds_the_first_record_that_is_not_older() {
    let disk = SimulatedDisk::new(1);
    let log = small_log(&disk);
    for i in 0..20 {
        let found = log
            .plan_time_search(10_000 + i, log.log_end())
            .run(1 << 20)
            .expect("readable");
        assert_eq!(found, Some((Offset::new(i), 10_000 + i)));
    }
    assert_eq!(
        log.plan_time_search(10_020, log.log_end())
            .run(1 << 20)
            .expect("readable"),
        None
    );
    assert_eq!(
        log.plan_time_search(10_019, Offset::new(18))
            .run(1 << 20)
            .expect("readable"),
        None,
        "not committed"
    );
    assert_eq!(log.max_timestamp(), Some(10_019));
}

#[test]
fn producers_are_rebuilt_from_snapshot_and_log() {
    let disk = SimulatedDisk::new(1);
    let checkpoints = checkpoints(&disk);
    let mut log = small_log(&disk);
    let mut producers = reopen(&disk, None).producers;
    assert_eq!(producers.len(), 1);
    log.checkpoint(log.log_end(), &producers)
        .expect("ready")
        .write()
        .expect("written");
    log.files.checkpoints.write().expect("written");
    append(&mut log, 2, 10);
    sync(&mut log);
    producers.apply(&batch(20, 2, 10).placed(Offset::new(20), EPOCH));
    drop(checkpoints);
    let found = reopen(&disk, None).producers;
    let last = |t: &ProducerTable| t.iter().next().and_then(|(_, p)| p.batches.back().copied());
    assert_eq!(last(&found), last(&producers));
}

/// The files of a log that was closed in order, for damaging them.
fn closed_log() -> BTreeMap<String, Vec<u8>> {
    let disk = SimulatedDisk::new(1);
    let log = small_log(&disk);
    close(log, 20, &ProducerTable::default());
    let read = |name: String| {
        let bytes = read_whole(&disk, &Path::new(DIR).join(&name), 1 << 20).expect("there");
        (name, bytes)
    };
    disk.list(Path::new(DIR))
        .expect("listed")
        .into_iter()
        .map(read)
        .collect()
}

fn restore(content: &BTreeMap<String, Vec<u8>>, recovery_point: i64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(2);
    disk.create_dir(Path::new(DIR)).expect("created");
    for (name, bytes) in content {
        let file = disk.create(&Path::new(DIR).join(name)).expect("created");
        file.write_at(&[bytes], 0).expect("written");
    }
    let checkpoints = checkpoints(&disk);
    let marks = Marks {
        recovery_point: Offset::new(recovery_point),
        ..Marks::default()
    };
    checkpoints.set(&TopicPartition::parse("orders-0").expect("valid"), marks);
    checkpoints.write().expect("written");
    disk
}

fn logs(content: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    content
        .keys()
        .filter(|n| n.ends_with(".log"))
        .cloned()
        .collect()
}

fn quarantined_bytes(disk: &SimulatedDisk) -> u64 {
    let names = disk.list(Path::new(DIR)).expect("listed");
    let kept = names.iter().filter(|n| n.contains("quarantine"));
    kept.map(|n| {
        disk.open(&Path::new(DIR).join(n))
            .expect("there")
            .size()
            .expect("size")
    })
    .sum()
}

/// However often a full disk refuses to keep what is cut, it gets no fuller.
#[test]
fn a_refused_quarantine_leaves_nothing() {
    let disk = SimulatedDisk::new(1);
    let log = small_log(&disk);
    let last = log.segments.last().expect("there is one");
    disk.rot(&last.files.path("log"), 30, 1);
    drop(log);
    // The note that something is in doubt still fits.
    disk.set_capacity(disk.used_bytes() + 20);
    for _ in 0..3 {
        let refused = Log::open(files(&disk, &checkpoints(&disk)), config());
        assert!(
            matches!(refused, Err(StorageError::Full { .. })),
            "{refused:?}"
        );
        let names = disk.list(Path::new(DIR)).expect("listed");
        assert!(!names.iter().any(|n| n.contains("quarantine")), "{names:?}");
    }
    disk.set_capacity(u64::MAX);
    assert_eq!(reopen(&disk, None).quarantined.len(), 1);
    assert!(quarantined_bytes(&disk) > 0);
}

/// Above the recovery point a cut anywhere ends the log at the batch before; what follows is kept aside.
#[test]
fn every_cut_point_leaves_whole_batches() {
    let content = closed_log();
    for name in logs(&content) {
        for cut in 0..content[&name].len() {
            let mut content = content.clone();
            content.get_mut(&name).expect("there").truncate(cut);
            let disk = restore(&content, 0);
            let total: usize = logs(&content).iter().map(|n| content[n].len()).sum();
            let opened = reopen(&disk, None);
            check_content(&opened.log);
            let kept = opened.log.size_bytes() + quarantined_bytes(&disk);
            assert_eq!(
                kept, total as u64,
                "no byte is dropped: {name} cut at {cut}"
            );
            let again = reopen(&disk, None);
            assert_eq!(
                (again.log.log_end(), again.quarantined),
                (opened.log.log_end(), vec![]),
                "{name} {cut}"
            );
        }
    }
}

/// Above the recovery point the first bad batch ends the log.
#[test]
fn every_flipped_byte_above_the_recovery_point_ends_the_log() {
    let content = closed_log();
    for name in logs(&content) {
        for at in 0..content[&name].len() {
            let mut content = content.clone();
            content.get_mut(&name).expect("there")[at] ^= 0x10;
            let disk = restore(&content, 0);
            let opened = reopen(&disk, None);
            check_content(&opened.log);
            // The leader epoch is not covered by the checksum and says nothing that recovery relies on.
            let ended = opened.log.log_end() < Offset::new(20);
            assert_eq!(ended, !opened.quarantined.is_empty());
            assert_eq!(opened.damaged.len(), 0);
        }
    }
}

/// Below the recovery point a bad batch is damage: it is reported and not served, everything else is.
#[test]
fn every_flipped_byte_below_the_recovery_point_costs_one_batch() {
    let content = closed_log();
    for name in logs(&content) {
        for at in 0..content[&name].len() {
            let mut content = content.clone();
            content.get_mut(&name).expect("there")[at] ^= 0x10;
            let disk = restore(&content, 20);
            let opened = reopen(&disk, None);
            assert_eq!(
                opened.log.log_end(),
                Offset::new(20),
                "no offset is given out again"
            );
            assert_eq!(opened.quarantined, vec![]);
            let read = |o| (o, read(&opened.log, Offset::new(o)));
            let (good, bad): (Vec<_>, Vec<_>) = (0..20).map(read).partition(|(_, r)| r.is_ok());
            assert!(
                bad.len() <= 4,
                "{name} at {at}: one batch of at most four records: {bad:?}"
            );
            for (offset, found) in good {
                let found = found.expect("partitioned");
                assert!(
                    found.iter().any(|(o, _)| *o == offset) && found.iter().all(|(o, v)| o == v),
                    "{found:?}"
                );
            }
        }
    }
}

/// I24: indexes and snapshots are caches.
#[test]
fn lost_and_corrupt_caches_change_nothing() {
    let content = closed_log();
    let caches: Vec<_> = content
        .keys()
        .filter(|n| !n.ends_with(".log"))
        .cloned()
        .collect();
    assert!(caches.len() >= 5, "{caches:?}");
    for recovery_point in [0, 11, 20] {
        for name in &caches {
            let mut lost = content.clone();
            drop(lost.remove(name));
            let garbage = [
                vec![],
                vec![0; 64],
                vec![0xff; 37],
                (0..120u8).collect(),
                content[name][..content[name].len() / 2].to_vec(),
            ];
            let corrupt = garbage.map(|g| {
                content
                    .clone()
                    .into_iter()
                    .map(|(n, b)| if n == *name { (n, g.clone()) } else { (n, b) })
                    .collect()
            });
            for content in corrupt.into_iter().chain([lost]) {
                let opened = reopen(&restore(&content, recovery_point), None);
                assert_eq!(opened.log.log_end(), Offset::new(20));
                assert_eq!(
                    (opened.damaged.len(), opened.quarantined.len()),
                    (0, 0),
                    "{name}"
                );
                check_content(&opened.log);
                let found = opened
                    .log
                    .plan_time_search(10_005, Offset::new(20))
                    .run(1 << 20)
                    .expect("readable");
                assert_eq!(found, Some((Offset::new(5), 10_005)), "{name}");
            }
        }
    }
}

/// DESIGN section 5: a full disk cuts the log back to where it was, and it goes on when there is space.
#[test]
fn a_full_disk_is_refused_and_recovers() {
    let disk = SimulatedDisk::new(1);
    let mut log = small_log(&disk);
    let before = (log.log_end(), log.size_bytes());
    disk.set_capacity(disk.used_bytes() + 100);
    let refused = log.append(&batch(20, 1, 150), EPOCH, NOW);
    assert!(
        matches!(refused, Err(StorageError::Full { .. })),
        "{refused:?}"
    );
    assert_eq!((log.log_end(), log.size_bytes()), before);
    check_content(&log);
    disk.set_capacity(u64::MAX);
    append(&mut log, 1, 150);
    sync(&mut log);
    check_content(&log);
    disk.crash();
    check_content(&reopen(&disk, None).log);
}

/// A full disk may refuse the next segment after the last one was closed: its index stays, and nothing more is written to it.
#[test]
fn a_refused_segment_costs_the_last_one_nothing() {
    let mut sealed_first = 0;
    for space in 1..120 {
        let disk = SimulatedDisk::new(1);
        let mut log = small_log(&disk);
        (0..4).for_each(|_| append(&mut log, 1, 150));
        let (end, entries) = (log.log_end().get(), log.active().index_entries());
        let full = log.active().files.clone();
        assert!(entries > 0);
        disk.set_capacity(disk.used_bytes() + space);
        for size in [2000, 2000, 1] {
            let refused = log.append(&batch(end, 1, size), EPOCH, NOW);
            assert!(refused.is_err(), "{space}: {refused:?}");
        }
        sealed_first += usize::from(log.active().sealed);
        disk.set_capacity(u64::MAX);
        let end = log.log_end();
        let _snapshot = log
            .checkpoint(end, &ProducerTable::default())
            .expect("noted");
        append(&mut log, 1, 2000);
        assert!(!Arc::ptr_eq(&log.active().files, &full), "{space}");
        let index = disk.open(&full.path("index")).expect("there");
        let written = index.size().expect("size");
        assert_eq!(written, (entries * 8) as u64, "{space}");
        check_content(&log);
    }
    assert!(sealed_first > 0, "it was refused between the two");
}

/// DESIGN section 5: after a failed sync the log is cut to its last synced end and goes on in a new segment.
#[test]
fn a_failed_sync_cuts_to_the_synced_end() {
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let mut log = small_log(&disk);
        append(&mut log, 2, 150);
        disk.fail_syncs(1);
        let request = log.sync_request().expect("something is unsynced");
        assert!(request.run().is_err());
        let synced_end = log.synced_end();
        assert_eq!(synced_end, Offset::new(20));
        drop(log);
        let mut opened = reopen(&disk, Some(synced_end));
        assert_eq!(
            (opened.log.log_end(), opened.quarantined.len().min(1)),
            (synced_end, 1)
        );
        let segments = opened.log.segment_count();
        append(&mut opened.log, 3, 150);
        assert_eq!(
            opened.log.segment_count(),
            segments,
            "the new segment takes it"
        );
        sync(&mut opened.log);
        drop(opened);
        disk.crash();
        let opened = reopen(&disk, None);
        assert_eq!(opened.log.log_end(), Offset::new(23), "seed {seed}");
        check_content(&opened.log);
    }
}

/// The error is told once: a close must not sync again and call it durable, and no later process may believe the
/// page cache.
#[test]
fn a_close_after_or_with_a_failed_sync_is_not_clean_and_cuts() {
    for sync_before in [true, false] {
        let disk = SimulatedDisk::new(3);
        let mut log = small_log(&disk);
        append(&mut log, 2, 150);
        let synced_end = log.synced_end();
        disk.fail_syncs(1);
        if sync_before {
            let request = log.sync_request().expect("something is unsynced");
            assert!(request.run().is_err());
        }
        let end = log.log_end();
        assert!(log.close(end, &ProducerTable::default()).is_err());
        assert_eq!(reopen(&disk, None).log.log_end(), synced_end);
        disk.crash();
        let opened = reopen(&disk, None);
        assert_eq!(opened.log.log_end(), synced_end);
        check_content(&opened.log);
    }
}

/// A new life waits for the sync of the last one and hears how it went.
#[test]
fn a_sync_that_fails_while_the_leader_restarts_cuts_the_log() {
    let disk = SimulatedDisk::new(4);
    let (mut log, files) = {
        drop(small_log(&disk));
        let files = files(&disk, &checkpoints(&disk));
        (
            Log::open(files.clone(), config()).expect("opens").log,
            files,
        )
    };
    append(&mut log, 2, 150);
    let synced_end = log.synced_end();
    let request = log.sync_request().expect("something is unsynced");
    drop(log);
    let opening = std::thread::spawn(move || Log::open(files, config()).expect("opens"));
    disk.fail_syncs(1);
    assert!(request.run().is_err());
    drop(request);
    let opened = opening.join().expect("opens");
    assert_eq!(opened.log.log_end(), synced_end);
}

#[test]
fn a_snapshot_beyond_the_end_goes() {
    let disk = SimulatedDisk::new(5);
    let mut log = small_log(&disk);
    append(&mut log, 2, 150);
    let beyond = log.log_end();
    // Kafka takes them at the end of what is written.
    let path = snapshot_path(Path::new(DIR), beyond);
    let bytes = producer_snapshot::encode(&ProducerTable::default());
    replace_whole(&disk, &path, &bytes).expect("written");
    let there = || snapshots(&disk, Path::new(DIR)).expect("listed");
    assert!(there().contains_key(&beyond));
    let cut = log.synced_end();
    drop(log);
    let opened = reopen(&disk, Some(cut));
    assert!(opened.log.log_end() < beyond);
    assert!(!there().contains_key(&beyond));
}

fn segments_on(disk: &SimulatedDisk) -> usize {
    let names = disk.list(Path::new(DIR)).expect("listed");
    names.iter().filter(|n| n.ends_with(".log")).count()
}

/// A removal that still waits on the pool when the next one is planned removes nothing whose start it has not made durable.
#[test]
fn a_removal_takes_only_what_it_was_planned_for() {
    let disk = SimulatedDisk::new(1);
    let mut log = small_log(&disk);
    for _ in 0..10 {
        append(&mut log, 1, 600);
    }
    sync(&mut log);
    let (end, nobody) = (log.log_end(), ProducerTable::default());
    let mut plan = || {
        log.advance_start(log.segments[0].end);
        let removal = log.retain(end, NOW, &nobody).expect("rolled");
        removal.expect("something goes")
    };
    let (first, second) = (plan(), plan());
    let (before, planned) = (segments_on(&disk), first.segment_count());
    assert!(planned < second.segment_count());
    first.run().expect("removed");
    assert_eq!(segments_on(&disk), before - planned);
    second.run().expect("removed");
    assert_eq!(segments_on(&disk), log.segment_count());
}

/// A removal that a full disk stopped is done with the next one.
#[test]
fn what_a_full_disk_kept_goes_later() {
    let disk = SimulatedDisk::new(1);
    let mut log = small_log(&disk);
    let nobody = ProducerTable::default();
    log.advance_start(Offset::new(14));
    let end = log.log_end();
    let removal = log.retain(end, NOW, &nobody).expect("rolled");
    disk.set_capacity(disk.used_bytes());
    assert!(removal.expect("something goes").run().is_err());
    disk.set_capacity(u64::MAX);
    let before = segments_on(&disk);
    let removal = log.retain(end, NOW, &nobody).expect("rolled");
    removal.expect("the same goes").run().expect("removed");
    assert!(segments_on(&disk) < before);
    assert_eq!(segments_on(&disk), log.segment_count());
    assert!(log.retain(end, NOW, &nobody).expect("rolled").is_none());
}

/// What is known of producers outlives the records that say it, whenever the power goes while they are removed.
#[test]
fn producers_are_known_after_their_records_are_deleted() {
    for operations in 0..40 {
        let disk = SimulatedDisk::new(operations);
        let mut opened = reopen(&disk, None);
        let mut producers = ProducerTable::default();
        for sequence in 0..8 {
            let batch = batch(sequence, 1, 600);
            let base = opened.log.append(&batch, EPOCH, NOW).expect("appended");
            producers.apply(&batch.placed(base, EPOCH));
        }
        sync(&mut opened.log);
        let end = opened.log.log_end();
        opened.log.advance_start(end);
        disk.power_off_after(disk.operations() + operations);
        let removal = opened.log.retain(end, NOW, &producers);
        let _cut_short = removal.map(|r| r.map(Removal::run));
        drop(opened);
        disk.crash();
        let opened = reopen(&disk, None);
        let known: Vec<i64> = opened.producers.iter().map(|(id, _)| id).collect();
        assert_eq!(known, [5], "{operations} operations");
        let next = batch(8, 1, 600);
        assert!(opened.producers.check(next.header()).is_ok());
        let skipped = batch(9, 1, 600);
        assert!(opened.producers.check(skipped.header()).is_err());
    }
}

/// A snapshot that took its marks before the start was moved does not move it back.
#[test]
fn marks_only_rise() {
    let disk = SimulatedDisk::new(6);
    let checkpoints = checkpoints(&disk);
    let partition = TopicPartition::parse("orders-0").expect("valid");
    let at = |log_start, recovery_point| Marks {
        log_start: Offset::new(log_start),
        recovery_point: Offset::new(recovery_point),
        ..Marks::default()
    };
    checkpoints.set(&partition, at(50, 60));
    checkpoints.set(&partition, at(0, 70));
    let marks = checkpoints.marks(&partition);
    assert_eq!(
        (marks.log_start, marks.recovery_point),
        (Offset::new(50), Offset::new(70))
    );
}

#[test]
fn the_start_moves_up_and_old_segments_go() {
    let disk = SimulatedDisk::new(1);
    let mut log = small_log(&disk);
    let segments = log.segment_count();
    let nobody = ProducerTable::default();
    log.advance_start(Offset::new(14));
    let removal = log
        .retain(log.log_end(), Timestamp(10_000), &nobody)
        .expect("rolled")
        .expect("something goes");
    assert!(removal.segment_count() > 0);
    removal.run().expect("removed");
    assert!(log.segment_count() < segments);
    assert_eq!(log.log_start(), Offset::new(14));
    check_content(&log);
    drop(log);
    disk.crash();
    let mut log = reopen(&disk, None).log;
    assert_eq!(
        log.log_start(),
        Offset::new(14),
        "the start is durable before the files go"
    );
    // A week later all is too old; what is not committed stays.
    let week = Timestamp(10_020 + 7 * 24 * 3600 * 1000);
    let uncommitted = log.segments[0].end.get() - 1;
    assert!(
        log.retain(Offset::new(uncommitted), week, &nobody)
            .expect("nothing to do")
            .is_none()
    );
    log.retain(log.log_end(), week, &nobody)
        .expect("rolled")
        .expect("all goes")
        .run()
        .expect("removed");
    assert_eq!(
        (log.log_start(), log.log_end(), log.segment_count()),
        (Offset::new(20), Offset::new(20), 1)
    );
    append(&mut log, 2, 10);
    check_content(&log);
}

#[test]
fn segments_roll_by_age() {
    let disk = SimulatedDisk::new(1);
    let config = TopicConfig {
        segment_age: std::time::Duration::from_millis(500),
        ..TopicConfig::default()
    };
    let mut log = Log::open(files(&disk, &checkpoints(&disk)), config)
        .expect("opens")
        .log;
    for (at, segments) in [(0, 1), (500, 1), (501, 2), (600, 2), (1002, 3)] {
        let batch = batch(log.log_end().get(), 1, 0);
        let _base = log.append(&batch, EPOCH, Timestamp(at)).expect("appended");
        assert_eq!(log.segment_count(), segments, "at {at}");
    }
}

/// A scripted life of a partition; returns the offsets below which everything was confirmed durable.
fn life(disk: &SimulatedDisk) -> (Offset, Offset) {
    let (mut confirmed, mut start) = (Offset::ZERO, Offset::ZERO);
    let mut run = || -> Result<(), StorageError> {
        let io = |e| StorageError::io("checkpointing", Path::new("/data"))(e);
        let checkpoints = Checkpoints::open(Arc::new(disk.clone()), Path::new("/data"));
        for round in 0..12 {
            let opened = Log::open(files(disk, &checkpoints), config())?;
            let (mut log, mut producers) = (opened.log, opened.producers);
            for count in [2, 1, 3, 2, 4] {
                let batch = batch(log.log_end().get(), count, 120);
                let base = log.append(&batch, EPOCH, NOW)?;
                producers.apply(&batch.placed(base, EPOCH));
                if let Some(request) = log.sync_request() {
                    request.run()?;
                    log.synced(request.end);
                    confirmed = request.end;
                }
            }
            if round % 3 == 1 {
                // Also what no checkpoint has seen yet goes.
                start = Offset::new(confirmed.get() - 2);
                log.advance_start(start);
                if let Some(removal) = log.retain(confirmed, NOW, &producers)? {
                    removal.run()?;
                }
            }
            log.checkpoint(confirmed, &producers)?.write()?;
            checkpoints.write().map_err(io)?;
            if round % 2 == 0 {
                log.close(confirmed, &producers)?;
                checkpoints.write().map_err(io)?;
            }
        }
        Ok(())
    };
    let _ended_by_power = run();
    (confirmed, start)
}

/// D4: the power goes after each operation that changes the disk; what was confirmed is there afterwards.
#[test]
fn power_loss_after_every_operation_keeps_what_was_confirmed() {
    let whole = SimulatedDisk::new(0);
    drop(whole.create_dir(Path::new("/data")));
    let _all = life(&whole);
    let operations = whole.operations();
    let seeds = 6;
    assert!(operations * seeds >= 3_000, "{operations}");
    for seed in 0..seeds {
        for operation in 0..operations {
            let disk = SimulatedDisk::new(seed * 1000 + operation);
            disk.create_dir(Path::new("/data")).expect("created");
            disk.power_off_after(operation);
            let (confirmed, start) = life(&disk);
            disk.crash();
            let opened = reopen(&disk, None);
            let log = &opened.log;
            assert_eq!(
                opened.damaged.len(),
                0,
                "seed {seed} operation {operation}: {:?}",
                opened.damaged
            );
            assert!(
                log.log_end() >= confirmed,
                "seed {seed} operation {operation}: {} < {confirmed}",
                log.log_end()
            );
            assert!(log.log_start() <= start.max(confirmed));
            check_content(log);
            if confirmed > Offset::ZERO {
                // Its producer is known, whatever of its records is gone: the next number is right, the one after is not.
                let judge = |n: i64| opened.producers.check(batch(n, 1, 10).header());
                let end = log.log_end().get();
                assert!(judge(end).is_ok(), "seed {seed} operation {operation}");
                assert!(judge(end + 1).is_err(), "seed {seed} operation {operation}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { count: i64, pad: usize },
    Sync,
    Checkpoint,
    AdvanceStart(i64),
    Retain,
    Close,
    Kill,
    PowerLoss,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1i64..5, 0usize..400).prop_map(|(count, pad)| Step::Append { count, pad }),
        4 => Just(Step::Sync),
        1 => Just(Step::Checkpoint),
        1 => (0i64..60).prop_map(Step::AdvanceStart),
        1 => Just(Step::Retain),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::PowerLoss),
    ]
}

/// The log against a model: which offsets exist, which were confirmed, where the log starts.
#[expect(
    clippy::unwrap_in_result,
    clippy::too_many_lines,
    reason = "a test that is told by its steps"
)]
fn follow_the_model(seed: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    let disk = SimulatedDisk::new(seed);
    let mut opened = reopen(&disk, None);
    let (mut confirmed, mut end, mut start) = (0, 0, 0);
    for step in steps.iter().cloned() {
        let log = &mut opened.log;
        match step {
            Step::Append { count, pad } => {
                let batch = batch(end, count, pad);
                opened.producers.apply(&batch.placed(log.log_end(), EPOCH));
                prop_assert_eq!(log.append(&batch, EPOCH, NOW).expect("appended").get(), end);
                end += count;
            }
            Step::Sync => {
                sync(log);
                confirmed = end;
            }
            Step::Checkpoint => {
                log.checkpoint(Offset::new(confirmed), &opened.producers)
                    .expect("ready")
                    .write()
                    .expect("written");
                log.files.checkpoints.write().expect("written");
            }
            Step::AdvanceStart(to) => {
                log.advance_start(Offset::new(to.min(confirmed)));
                start = start.max(to.min(confirmed));
            }
            Step::Retain => {
                if let Some(removal) = log
                    .retain(Offset::new(confirmed), Timestamp(20_000), &opened.producers)
                    .expect("rolled")
                {
                    removal.run().expect("removed");
                }
            }
            Step::Close => {
                let files = log.files.clone();
                opened
                    .log
                    .close(Offset::new(end), &opened.producers)
                    .expect("closed");
                files.checkpoints.write().expect("written");
                opened = reopen(&disk, None);
                confirmed = end;
            }
            Step::Kill => {
                opened = reopen(&disk, None);
                confirmed = end;
            }
            Step::PowerLoss => {
                disk.crash();
                opened = reopen(&disk, None);
            }
        }
        let log = &opened.log;
        let found = log.log_end().get();
        prop_assert!(
            (confirmed..=end).contains(&found),
            "{found} of {confirmed}..={end}: {:?} {:?}",
            opened.damaged,
            opened.quarantined
        );
        end = log.log_end().get();
        if matches!(step, Step::PowerLoss | Step::Kill | Step::Close) {
            prop_assert_eq!(opened.damaged.len(), 0);
            confirmed = end;
            // A start that was not made durable may be forgotten.
            prop_assert!(log.log_start().get() <= start);
            start = log.log_start().get();
        }
        prop_assert_eq!(log.log_start().get(), start);
        check_content(log);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_a_model_says(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        follow_the_model(seed, &steps)?;
    }
}

/// The power goes while segments below the start are removed: the oldest is back, those between it and the newest,
/// which was never synced either, are not.
#[test]
fn segments_of_both_sides_of_the_start_do_not_become_one_log() {
    use Step::{AdvanceStart, Append, Checkpoint, Close, PowerLoss, Retain, Sync};
    let steps = [
        Append { count: 4, pad: 94 },
        Append { count: 4, pad: 342 },
        Append { count: 1, pad: 0 },
        Close,
        Append { count: 3, pad: 134 },
        PowerLoss,
        Append { count: 2, pad: 336 },
        Append { count: 1, pad: 179 },
        Sync,
        Checkpoint,
        Append { count: 3, pad: 2 },
        PowerLoss,
        Append { count: 4, pad: 184 },
        Close,
        Sync,
        Append { count: 3, pad: 342 },
        AdvanceStart(19),
        Append { count: 4, pad: 282 },
        Append { count: 2, pad: 325 },
        Retain,
        PowerLoss,
    ];
    follow_the_model(314_347_662_233_389_719, &steps).expect("the model");
}

/// A segment that reached the disk although the one before it did not, which held nothing durable: it does not
/// become the log's start.
#[test]
fn a_segment_without_the_one_before_it_is_not_the_log() {
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let mut opened = reopen(&disk, None);
        append(&mut opened.log, 12, 100);
        close(opened.log, 12, &opened.producers);
        let mut log = reopen(&disk, None).log;
        append(&mut log, 4, 344);
        log.advance_start(Offset::new(12));
        // The full segment is closed and the deleted one goes, then another one is begun.
        let removal = log.retain(
            Offset::new(12),
            Timestamp(20_000),
            &ProducerTable::default(),
        );
        if let Some(removal) = removal.expect("rolled") {
            removal.run().expect("removed");
        }
        append(&mut log, 3, 128);
        disk.crash();
        let log = reopen(&disk, None).log;
        assert_eq!(log.log_start(), Offset::new(12), "seed {seed}");
        check_content(&log);
    }
}

/// What a leader's log has not is cut, although it was synced and checkpointed here: no crash brings its offsets back.
#[test]
fn what_was_cut_below_the_recovery_point_stays_cut() {
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let log = small_log(&disk);
        close(log, 20, &ProducerTable::default());
        let log = reopen(&disk, None).log;
        let mut log = log.truncate(Offset::new(10)).expect("cut").log;
        assert_eq!(log.log_end(), Offset::new(10));
        append(&mut log, 2, 100);
        sync(&mut log);
        disk.crash();
        let opened = reopen(&disk, None);
        assert_eq!(opened.log.log_end(), Offset::new(12), "seed {seed}");
        assert_eq!(opened.damaged.len(), 0);
        check_content(&opened.log);
    }
}

/// A follower's reigns are read from its batches, and not lost when those are not read any more.
#[test]
fn reigns_that_were_read_from_batches_are_kept() {
    let disk = SimulatedDisk::new(3);
    let mut log = reopen(&disk, None).log;
    for epoch in [3, 3, 5, 8, 8, 9] {
        let placed = placed(log.log_end().get(), 2, 300, LeaderEpoch(epoch));
        log.append_placed(&placed, NOW).expect("appended");
    }
    sync(&mut log);
    disk.crash();
    let log = reopen(&disk, None).log;
    let epochs = log.epochs().clone();
    assert_eq!(epochs.latest(), Some(LeaderEpoch(9)));
    for _ in 0..2 {
        let log = reopen(&disk, None).log;
        assert_eq!(*log.epochs(), epochs);
        close(log, 12, &ProducerTable::default());
    }
    assert_eq!(*reopen(&disk, None).log.epochs(), epochs);
}

/// The file of the reigns is a cache too: without it they are read from the batches.
#[test]
fn reigns_survive_the_loss_of_their_file() {
    let disk = SimulatedDisk::new(4);
    let mut log = reopen(&disk, None).log;
    for epoch in [1, 2, 2, 4] {
        log.begin_epoch(LeaderEpoch(epoch));
        let batch = batch(log.log_end().get(), 2, 600);
        log.append(&batch, LeaderEpoch(epoch), NOW)
            .expect("appended");
    }
    let epochs = log.epochs().clone();
    close(log, 8, &ProducerTable::default());
    let path = Path::new(DIR).join(crate::storage::leader_epochs::FILE_NAME);
    disk.remove(&path).expect("removed");
    assert_eq!(*reopen(&disk, None).log.epochs(), epochs);
}

/// What was durable and is not there was not deleted.
#[test]
fn a_log_without_any_of_its_segments_is_damaged() {
    let disk = SimulatedDisk::new(10);
    let mut log = four_batches(&disk);
    log.advance_start(Offset::new(3));
    let path = log.segments[0].files.path("log");
    close(log, 12, &ProducerTable::default());
    disk.remove(&path).expect("removed");
    let opened = reopen(&disk, None);
    let log = opened.log;
    assert_eq!((log.log_start().get(), log.log_end().get()), (3, 12));
    let missed =
        |e: &StorageError| matches!(e, StorageError::Damaged { offset, .. } if offset.get() == 3);
    assert!(opened.damaged.iter().any(missed), "{:?}", opened.damaged);
}

/// What lies below the cut was not deleted, even if all of it has rotted.
#[test]
fn a_log_that_has_rotted_from_its_first_byte_does_not_begin_at_the_cut() {
    let disk = SimulatedDisk::new(9);
    let log = four_batches(&disk);
    let path = log.segments[0].files.path("log");
    drop(log);
    disk.rot(&path, 20, 1);
    let log = reopen(&disk, Some(Offset::new(9))).log;
    assert_eq!((log.log_start().get(), log.log_end().get()), (0, 0));
    assert!(log.is_in_doubt());
}

/// Records were deleted up to the middle of a batch, and that batch has rotted: the leader sends it again.
#[test]
fn a_rotten_batch_that_the_start_lies_in_comes_again() {
    let disk = SimulatedDisk::new(8);
    let mut log = four_batches(&disk);
    log.advance_start(Offset::new(4));
    let path = log.segments[0].files.path("log");
    let mut producers = ProducerTable::default();
    let again = placed(3, 3, 10, EPOCH);
    let second = again.size_bytes() as u64;
    producers.apply(again.header());
    close(log, 12, &producers);
    disk.rot(&path, second + 70, 1);
    let mut opened = reopen(&disk, Some(Offset::new(4)));
    let log = &mut opened.log;
    assert_eq!((log.log_start().get(), log.log_end().get()), (4, 4));
    log.append_placed(&again, NOW).expect("it continues");
    assert_eq!((log.log_start().get(), log.log_end().get()), (4, 6));
    sync(log);
    let log = reopen(&disk, None).log;
    assert_eq!(read(&log, Offset::new(4)).expect("read")[0].0, 3);
}

/// A failed sync takes away what was never durable; what has rotted below that was, and is missed.
#[test]
fn a_log_that_lost_more_than_a_failed_sync_took_is_in_doubt() {
    for rotten in [false, true] {
        let disk = SimulatedDisk::new(6);
        let log = small_log(&disk);
        if rotten {
            let last = log.segments.last().expect("there is one");
            disk.rot(&last.files.path("log"), 30, 1);
        }
        let end = log.log_end();
        drop(log);
        let opened = reopen(&disk, Some(end));
        assert_eq!(opened.log.is_in_doubt(), rotten);
        assert_eq!(opened.log.log_end() < end, rotten);
        assert_eq!(reopen(&disk, None).log.is_in_doubt(), rotten);
    }
}

/// Seed 483763: a log that was begun anew inside a batch lost power before its first sync. Whatever the disk kept, nothing that
/// was durable is missing, and the log goes on.
#[test]
fn a_log_begun_inside_a_batch_is_not_damaged_by_what_no_sync_covered() {
    for seed in 0..300 {
        let disk = SimulatedDisk::new(seed);
        let start = Offset::new(26);
        let restarted = small_log(&disk).restart_at(start, &ProducerTable::default());
        let mut log = restarted.expect("it begins anew").log;
        let inside = placed(25, 3, 200, EPOCH);
        log.append_placed(&inside, NOW).expect("26 lies in it");
        for first in [28, 30, 32] {
            let next = placed(first, 2, 200, EPOCH);
            log.append_placed(&next, NOW).expect("it continues");
        }
        disk.crash();
        drop(log);
        let mut opened = reopen(&disk, None);
        assert!(
            opened.damaged.is_empty(),
            "seed {seed}: {:?}",
            opened.damaged
        );
        let log = &mut opened.log;
        assert_eq!(log.log_start(), start, "seed {seed}");
        if log.log_end() == start {
            log.append_placed(&inside, NOW).expect("it comes again");
            assert_eq!(log.log_end(), Offset::new(28), "seed {seed}");
        }
    }
}
