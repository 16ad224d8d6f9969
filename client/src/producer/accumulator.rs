//! Records of one partition to batches; pure.

use std::time::Duration;

use bytes::Bytes;
use callboard_common::record::{Batch, BatchBuilder, Compression, Header};

/// A record on its way, as its partition keeps it.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    /// What is told when it is delivered.
    pub(crate) tell: T,
}

/// A batch that is ready to leave.
#[derive(Debug)]
pub(crate) struct Ready<T> {
    pub(crate) batch: Batch,
    /// Who waits, in the order of the records.
    pub(crate) tell: Vec<T>,
    /// When its first record came.
    pub(crate) since: Duration,
}

/// The open batch of one partition.
#[derive(Debug)]
pub(crate) struct Accumulator<T> {
    compression: Compression,
    batch_bytes: usize,
    linger: Duration,
    open: Option<(BatchBuilder, Vec<T>, Duration)>,
}

impl<T> Accumulator<T> {
    pub(crate) fn new(compression: Compression, batch_bytes: usize, linger: Duration) -> Self {
        Self {
            compression,
            batch_bytes,
            linger,
            open: None,
        }
    }

    /// Takes a record at `now`; returns the batch that it has filled or does not fit into.
    pub(crate) fn push(&mut self, now: Duration, record: Queued<T>) -> Option<Ready<T>> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let size = BatchBuilder::record_size_bound(key, value, &record.headers);
        let full = self
            .open
            .as_ref()
            .is_some_and(|(open, ..)| open.size_bytes() + size > self.batch_bytes);
        let ready = if full { self.take() } else { None };
        let compression = self.compression;
        let (builder, tell, _) = self
            .open
            .get_or_insert_with(|| (BatchBuilder::new(compression), Vec::new(), now));
        builder.push(record.timestamp, key, value, &record.headers);
        tell.push(record.tell);
        let filled = ready.is_none() && builder.size_bytes() >= self.batch_bytes;
        if filled { self.take() } else { ready }
    }

    /// When the open batch leaves by age.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.open.as_ref().map(|(_, _, since)| *since + self.linger)
    }

    /// The open batch, whatever its size.
    pub(crate) fn take(&mut self) -> Option<Ready<T>> {
        let (builder, tell, since) = self.open.take()?;
        Some(Ready {
            batch: builder.build(),
            tell,
            since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tell: u32, size: usize) -> Queued<u32> {
        Queued {
            timestamp: 1,
            key: None,
            value: Some(vec![7; size].into()),
            headers: vec![],
            tell,
        }
    }

    #[test]
    fn batches_leave_by_size_and_keep_order() {
        let mut accumulator = Accumulator::new(Compression::None, 400, Duration::from_millis(5));
        let now = Duration::from_secs(1);
        assert!(accumulator.push(now, record(0, 100)).is_none());
        assert_eq!(accumulator.deadline(), Some(now + Duration::from_millis(5)));
        assert!(accumulator.push(now, record(1, 100)).is_none());
        let ready = accumulator
            .push(now, record(2, 250))
            .expect("it does not fit");
        assert_eq!(
            (ready.tell, ready.batch.header().record_count),
            (vec![0, 1], 2)
        );
        let ready = accumulator
            .push(now, record(3, 900))
            .expect("an open batch makes room for a large record");
        assert_eq!(ready.tell, [2]);
        assert_eq!(accumulator.take().map(|r| r.tell), Some(vec![3]));
        assert!(accumulator.take().is_none() && accumulator.deadline().is_none());
    }
}
