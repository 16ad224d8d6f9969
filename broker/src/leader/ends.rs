//! What readers of a log are told of its ends.

use callboard_common::{LeaderEpoch, Offset};
use tokio::sync::watch;

use super::error::FetchError;

/// The ends of a log that its readers watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The leader's reign; `None` while there is no leader.
    pub epoch: Option<LeaderEpoch>,
    /// The reign of a leader that does not serve yet, because its log may lack what was committed.
    pub in_doubt: Option<LeaderEpoch>,
    /// First offset that can be read.
    pub log_start: Offset,
    /// Offset after the last that can be read.
    pub high_watermark: Offset,
    /// Offset after the last record.
    pub log_end: Offset,
    /// Offset after the last record of earlier reigns. Below it the high watermark may be less than what was told of it
    /// then: this leader heard of it by the way (KIP-207).
    pub reign_start: Offset,
}

impl Ends {
    /// Whether all is known that earlier reigns committed.
    #[must_use]
    pub fn have_caught_up(&self) -> bool {
        self.high_watermark >= self.reign_start
    }

    /// Shows them to who watches, if they are others than before.
    pub fn show(self, to: &watch::Sender<Self>) {
        let _changed: bool = to.send_if_modified(|shown| {
            let changed = *shown != self;
            *shown = self;
            changed
        });
    }

    /// Up to where may be read from an offset on; `None` is nothing yet.
    ///
    /// # Errors
    ///
    /// [`FetchError::OutOfRange`] of an offset that is not in the log.
    pub fn readable(&self, from: i64) -> Result<Option<Offset>, FetchError> {
        let (log_start, high_watermark) = (self.log_start, self.high_watermark);
        match Offset::checked(from) {
            Some(from) if (log_start..high_watermark).contains(&from) => Ok(Some(high_watermark)),
            // Between the high watermark and the log's end there will be something soon.
            Some(from) if (high_watermark..=self.log_end).contains(&from) => Ok(None),
            Some(_) | None => Err(FetchError::OutOfRange {
                offset: from,
                log_start,
                high_watermark,
            }),
        }
    }
}

/// Whether a reader knows the reign that is (KIP-320).
///
/// # Errors
///
/// [`FetchError::Fenced`] and [`FetchError::UnknownEpoch`] say who is behind.
pub fn same_reign(asked: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), FetchError> {
    match asked {
        Some(asked) if asked < current => Err(FetchError::Fenced { asked, current }),
        Some(asked) if asked > current => Err(FetchError::UnknownEpoch { asked, current }),
        Some(_) | None => Ok(()),
    }
}
