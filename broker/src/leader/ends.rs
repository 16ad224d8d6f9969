//! What readers of a log are told of its ends.

use callboard_common::{LeaderEpoch, Offset};

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
}
