//! Times on the command line.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use rtpproxy_core::time::Wall;

use crate::flags;

/// The time from which something counts.
pub(super) fn start(text: &str, now: DateTime<Utc>) -> Result<Wall, String> {
    parse(text, now, Days::new(0))
}

/// The time before which something counts: a day counts as a whole.
pub(super) fn end(text: &str, now: DateTime<Utc>) -> Result<Wall, String> {
    parse(text, now, Days::new(1))
}

fn parse(text: &str, now: DateTime<Utc>, into_day: Days) -> Result<Wall, String> {
    let at = if let Some(ago) = text.strip_prefix('-') {
        flags::duration(ago).and_then(|ago| now.checked_sub_signed(chrono::Duration::from_std(ago).ok()?))
    } else if let Ok(day) = text.parse::<NaiveDate>() {
        day.checked_add_days(into_day).map(|day| day.and_time(NaiveTime::MIN).and_utc())
    } else {
        DateTime::parse_from_rfc3339(text).ok().map(Into::into)
    };
    at.and_then(|at| at.timestamp_nanos_opt()).and_then(|nanos| u64::try_from(nanos).ok()).map(Wall).ok_or_else(
        || {
            format!(
                "{text}: not a time; write 2026-11-22T18:00:00Z, 2026-11-22, or -2h for two hours before now (d, h, \
                 m, s)"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wall {
        Wall(DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap() as u64)
    }

    #[test]
    fn times_are_absolute_relative_or_days() {
        let now = DateTime::parse_from_rfc3339("2026-11-22T18:00:00Z").unwrap().into();
        for (text, from, to) in [
            ("2026-11-22T18:00:00.5+02:00", "2026-11-22T16:00:00.5Z", "2026-11-22T16:00:00.5Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("-2h", "2026-11-22T16:00:00Z", "2026-11-22T16:00:00Z"),
            ("-7d", "2026-11-15T18:00:00Z", "2026-11-15T18:00:00Z"),
            ("-90m", "2026-11-22T16:30:00Z", "2026-11-22T16:30:00Z"),
        ] {
            assert_eq!(start(text, now), Ok(at(from)), "{text}");
            assert_eq!(end(text, now), Ok(at(to)), "{text}");
        }
        for text in
            ["", "now", "-", "-2", "2h", "2026-13-01", "2026-11-22T18:00:00", "1969-01-01", "-99999999d"]
        {
            let error = start(text, now).unwrap_err();
            assert!(error.starts_with(&format!("{text}: not a time")), "{error}");
        }
    }
}
