//! Decides which segments are too old or too much; pure.

use callboard_common::Offset;

use crate::topic_config::TopicConfig;

/// What retention needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Offset after its last record.
    pub end: Offset,
    /// Its size.
    pub size_bytes: u64,
    /// Its largest timestamp.
    pub max_timestamp: Option<i64>,
}

/// How many segments from the oldest on go: those whose newest record is older than `retention.ms`, those without
/// which `retention.bytes` are still there, and those that end at or below `log_start`.
#[must_use]
pub fn expired(
    segments: &[SegmentSummary],
    config: &TopicConfig,
    log_start: Offset,
    now: i64,
) -> usize {
    let total: u64 = segments.iter().map(|s| s.size_bytes).sum();
    let mut excess = config
        .retention_bytes
        .map_or(0, |limit| total.saturating_sub(limit));
    let oldest = config
        .retention
        .map(|r| now.saturating_sub(i64::try_from(r.as_millis()).unwrap_or(i64::MAX)));
    let mut count = 0;
    for segment in segments {
        let too_old =
            oldest.is_some_and(|oldest| segment.max_timestamp.is_some_and(|t| t < oldest));
        let too_much = segment.size_bytes > 0 && excess >= segment.size_bytes;
        let below_start = segment.size_bytes > 0 && segment.end <= log_start;
        if !(too_old || too_much || below_start) {
            break;
        }
        excess = excess.saturating_sub(segment.size_bytes);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn segments() -> Vec<SegmentSummary> {
        let segment = |end, max_timestamp| SegmentSummary {
            end: Offset::new(end),
            size_bytes: 100,
            max_timestamp: Some(max_timestamp),
        };
        vec![segment(10, 1000), segment(20, 2000), segment(30, 3000)]
    }

    #[test]
    fn age_size_and_log_start_each_decide() {
        let by_age = TopicConfig {
            retention: Some(Duration::from_millis(500)),
            ..TopicConfig::default()
        };
        assert_eq!(expired(&segments(), &by_age, Offset::ZERO, 2500), 1);
        assert_eq!(expired(&segments(), &by_age, Offset::ZERO, 2501), 2);
        assert_eq!(expired(&segments(), &by_age, Offset::ZERO, 99_999), 3);
        let by_size = TopicConfig {
            retention: None,
            retention_bytes: Some(150),
            ..TopicConfig::default()
        };
        assert_eq!(expired(&segments(), &by_size, Offset::ZERO, 0), 1);
        let nothing = TopicConfig {
            retention: None,
            ..TopicConfig::default()
        };
        assert_eq!(expired(&segments(), &nothing, Offset::new(20), i64::MAX), 2);
        assert_eq!(expired(&segments(), &nothing, Offset::new(19), i64::MAX), 1);
    }
}
