//! Points in time as people write them.

use std::time::SystemTime;

use callboard_client::{Offset, StartAt};
use callboard_common::Clock;
use callboard_common::config::Span;

/// Where to read from: `beginning`, `end`, an offset, a time (`2026-11-24T08:00:00Z`), or how long ago (`-10m`).
pub(crate) fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" | "earliest" => return Ok(StartAt::Beginning),
        "end" | "latest" => return Ok(StartAt::End),
        _ => {}
    }
    if let Some(ago) = text.strip_prefix('-') {
        let span: Span = ago.parse()?;
        let now = Clock::machine().now().wall.0;
        return Ok(StartAt::Timestamp(
            now - i64::try_from(span.0.as_millis()).unwrap_or(now),
        ));
    }
    if let Ok(offset) = text.parse::<i64>() {
        return Offset::checked(offset)
            .map(StartAt::Offset)
            .ok_or_else(|| "an offset is not negative".into());
    }
    let wanted = || {
        format!(
            "{text:?} is neither beginning, end, an offset, a time like 2026-11-24T08:00:00Z, nor an age like -10m"
        )
    };
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wanted())?;
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| wanted())?;
    Ok(StartAt::Timestamp(
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
    ))
}

/// A timestamp of a record, for a person.
pub(crate) fn readable(timestamp: i64) -> String {
    match u64::try_from(timestamp) {
        Ok(ms) => {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
            humantime::format_rfc3339_millis(time).to_string()
        }
        Err(_) => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_times_in_many_ways() {
        assert_eq!(start_at("beginning"), Ok(StartAt::Beginning));
        assert_eq!(start_at("end"), Ok(StartAt::End));
        assert_eq!(start_at("42"), Ok(StartAt::Offset(Offset::new(42))));
        assert_eq!(
            start_at("1970-01-01T00:00:01Z"),
            Ok(StartAt::Timestamp(1000))
        );
        assert_eq!(
            start_at("1970-01-01 00:00:02"),
            Ok(StartAt::Timestamp(2000))
        );
        assert!(matches!(start_at("-10m"), Ok(StartAt::Timestamp(_))));
        assert!(start_at("soon").is_err() && start_at("-5 weeks").is_err());
    }
}
