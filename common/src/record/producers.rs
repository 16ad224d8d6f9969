//! What a partition knows of its idempotent producers: their last batches, to drop what was retried.
//!
//! Pure: the leader checks batches against it, recovery rebuilds it from the log. It is derived from the log
//! alone, so that a restarted leader decides as the old one did.
//!
//! Sources: KIP-98 (idempotence); KIP-185 (window of five batches); Kafka's `ProducerStateManager`.

use std::collections::{BTreeMap, VecDeque};

use super::BatchHeader;
use super::batch::advance_sequence;

/// Batches per producer that a retry is recognised among; clients keep at most so many in flight.
pub const WINDOW: usize = 5;

/// Producers that a partition remembers at most. Of more, those that were silent for longest are forgotten: what a
/// client that makes up ids can cost is bounded, and who writes goes on.
pub const PRODUCERS_MAX: usize = 16_384;
/// So many are forgotten at once, so that looking for them is rare.
const FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 8;

/// One batch of a producer, as far as it is needed to recognise it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Sequence number of the first record.
    pub first_sequence: i32,
    /// Sequence number of the last record.
    pub last_sequence: i32,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Offset of the last record less that of the first.
    pub offset_delta: i32,
    /// Largest timestamp.
    pub timestamp: i64,
}

impl ProducedBatch {
    /// Offset of the first record.
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its newest epoch.
    pub epoch: i16,
    /// Its last batches of that epoch, oldest first, at most [`WINDOW`].
    pub batches: VecDeque<ProducedBatch>,
}

/// What a batch that may be appended is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// Not seen before: append it.
    New,
    /// Appended before: answer with where it is.
    Duplicate(ProducedBatch),
}

/// Why a batch must not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Batches between are missing.
    #[error("sequence number {found} is out of order, {expected} was expected")]
    OutOfOrder {
        /// The batch's first sequence number.
        found: i32,
        /// The one that continues the producer's last batch.
        expected: i32,
    },
    /// A newer instance of this producer has written.
    #[error("producer epoch {found} is older than {current}")]
    OldEpoch {
        /// The batch's epoch.
        found: i16,
        /// The newest epoch seen.
        current: i16,
    },
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable(BTreeMap<i64, Producer>);

impl ProducerTable {
    /// Judges a batch before it is appended. Batches without a producer id are always new.
    ///
    /// # Errors
    ///
    /// [`SequenceError`]; the table is unchanged.
    pub fn check(&self, batch: &BatchHeader) -> Result<Sequence, SequenceError> {
        if batch.producer_id < 0 {
            return Ok(Sequence::New);
        }
        // Of a producer that was never seen, or is forgotten, any sequence number is taken as its first.
        let Some(producer) = self.0.get(&batch.producer_id) else {
            return Ok(Sequence::New);
        };
        if batch.producer_epoch < producer.epoch {
            return Err(SequenceError::OldEpoch {
                found: batch.producer_epoch,
                current: producer.epoch,
            });
        }
        let found = batch.base_sequence;
        if batch.producer_epoch > producer.epoch {
            let fresh = if found == 0 {
                Ok(Sequence::New)
            } else {
                Err(SequenceError::OutOfOrder { found, expected: 0 })
            };
            return fresh;
        }
        let same = |b: &&ProducedBatch| {
            b.first_sequence == found && b.last_sequence == batch.last_sequence()
        };
        if let Some(duplicate) = producer.batches.iter().find(same) {
            return Ok(Sequence::Duplicate(*duplicate));
        }
        let expected = producer
            .batches
            .back()
            .map_or(0, |b| advance_sequence(b.last_sequence, 1));
        if found == expected {
            Ok(Sequence::New)
        } else {
            Err(SequenceError::OutOfOrder { found, expected })
        }
    }

    /// Notes a batch that was appended, or is found in the log.
    pub fn apply(&mut self, batch: &BatchHeader) {
        if batch.producer_id < 0 || batch.is_control() {
            return;
        }
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&batch.producer_id) {
            self.forget_silent();
        }
        let produced = ProducedBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            last_offset: batch.base_offset + i64::from(batch.last_offset_delta),
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        };
        self.note(batch.producer_id, batch.producer_epoch, produced);
    }

    fn forget_silent(&mut self) {
        let last = |p: &Producer| p.batches.back().map_or(-1, |b| b.last_offset);
        let mut offsets: Vec<i64> = self.0.values().map(last).collect();
        let (_, newest_forgotten, _) = offsets.select_nth_unstable(FORGOTTEN_AT_ONCE - 1);
        let newest_forgotten = *newest_forgotten;
        self.0.retain(|_, p| last(p) > newest_forgotten);
    }

    /// Forgets producers whose last batch is older than `timestamp`.
    pub fn expire(&mut self, timestamp: i64) {
        self.0
            .retain(|_, p| p.batches.back().is_some_and(|b| b.timestamp >= timestamp));
    }

    /// What is known of batches that end below `end`: enough to judge what comes after it, because whoever has more of
    /// them on their way than are remembered had all earlier ones acknowledged.
    #[must_use]
    pub fn up_to(&self, end: i64) -> Self {
        let known = |(id, producer): (&i64, &Producer)| {
            let batches = producer.batches.iter().filter(|b| b.last_offset < end);
            let batches: VecDeque<ProducedBatch> = batches.copied().collect();
            let epoch = producer.epoch;
            (!batches.is_empty()).then_some((*id, Producer { epoch, batches }))
        };
        Self(self.0.iter().filter_map(known).collect())
    }

    /// Puts a batch of a snapshot into the table, after the older ones of its producer.
    pub fn restore(&mut self, id: i64, epoch: i16, batch: ProducedBatch) {
        self.note(id, epoch, batch);
    }

    fn note(&mut self, id: i64, epoch: i16, batch: ProducedBatch) {
        let producer = self.0.entry(id).or_insert_with(|| Producer {
            epoch,
            batches: VecDeque::new(),
        });
        if epoch != producer.epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == WINDOW {
            let _oldest = producer.batches.pop_front();
        }
        producer.batches.push_back(batch);
    }

    /// The producers by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.0.iter().map(|(id, producer)| (*id, producer))
    }

    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no producer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        let mut builder = crate::record::BatchBuilder::new(crate::record::Compression::None)
            .producer(9, epoch, sequence);
        (0..count).for_each(|_| builder.push(1000, None, None, &[]));
        BatchHeader {
            base_offset,
            ..*builder.build().header()
        }
    }

    fn table(batches: &[BatchHeader]) -> ProducerTable {
        let mut table = ProducerTable::default();
        batches.iter().for_each(|b| table.apply(b));
        table
    }

    #[test]
    fn a_retry_of_any_of_the_last_five_is_a_duplicate() {
        let batches: Vec<_> = (0..6)
            .map(|i| batch(0, i * 2, 2, i64::from(i) * 2))
            .collect();
        let table = table(&batches);
        for retried in &batches[1..] {
            let Ok(Sequence::Duplicate(found)) = table.check(retried) else {
                panic!("{retried:?} is a duplicate")
            };
            assert_eq!(found.base_offset(), retried.base_offset);
        }
        assert_eq!(
            table.check(&batches[0]),
            Err(SequenceError::OutOfOrder {
                found: 0,
                expected: 12
            })
        );
        assert_eq!(table.check(&batch(0, 12, 1, 12)), Ok(Sequence::New));
    }

    /// Row 22 of the hostile inputs: made-up ids cost no more than so much, and push out who was silent.
    #[test]
    fn those_that_were_silent_for_longest_are_forgotten() {
        let mut table = ProducerTable::default();
        let of = |id: i64, offset: i64| BatchHeader {
            producer_id: id,
            ..batch(0, 0, 1, offset)
        };
        for id in 0..3 * PRODUCERS_MAX as i64 {
            table.apply(&of(id, id));
            assert!(table.len() <= PRODUCERS_MAX);
        }
        let newest = 3 * PRODUCERS_MAX as i64 - 1;
        assert!(table.iter().any(|(id, _)| id == newest));
        assert!(
            table
                .iter()
                .all(|(id, _)| id > newest - PRODUCERS_MAX as i64)
        );
    }

    #[test]
    fn gaps_and_old_epochs_are_refused() {
        let table = table(&[batch(3, 0, 2, 0)]);
        assert_eq!(
            table.check(&batch(3, 3, 1, 2)),
            Err(SequenceError::OutOfOrder {
                found: 3,
                expected: 2
            })
        );
        assert_eq!(
            table.check(&batch(2, 2, 1, 2)),
            Err(SequenceError::OldEpoch {
                found: 2,
                current: 3
            })
        );
        assert_eq!(
            table.check(&batch(4, 2, 1, 2)),
            Err(SequenceError::OutOfOrder {
                found: 2,
                expected: 0
            })
        );
        assert_eq!(table.check(&batch(4, 0, 1, 2)), Ok(Sequence::New));
    }

    #[test]
    fn sequence_numbers_go_on_from_zero() {
        let table = table(&[batch(0, i32::MAX - 1, 3, 0)]);
        assert_eq!(table.check(&batch(0, 1, 1, 3)), Ok(Sequence::New));
        assert!(matches!(
            table.check(&batch(0, i32::MAX - 1, 3, 0)),
            Ok(Sequence::Duplicate(_))
        ));
    }

    #[test]
    fn producers_are_forgotten_in_time() {
        let mut table = table(&[batch(0, 0, 1, 0)]);
        table.expire(1000);
        assert_eq!(table.len(), 1);
        table.expire(1001);
        assert!(table.is_empty());
    }
}
