//! The time before a log line (`RTPP_LOG_TFORM=rel`).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Writes the time since a start before each line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineClock {
    start: Duration,
}

impl LineClock {
    /// A clock as the environment asks for: `form` is `RTPP_LOG_TFORM`, `start` is `RTPP_LOG_TSTART` in
    /// seconds of the clock that `-C` names; without it the clock starts now.
    pub(crate) fn from_env(form: Option<&str>, start: Option<&str>) -> Option<Self> {
        if form != Some("rel") {
            return None;
        }
        let given = start.and_then(|text| text.parse().ok());
        let start = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Some(Self { start: start.unwrap_or_else(now) })
    }

    /// `HH:MM:SS.mmm/`
    pub(super) fn prefix(self) -> String {
        format(now().saturating_sub(self.start))
    }
}

fn format(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}/", seconds % 60, span.subsec_millis())
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_hours_to_milliseconds() {
        assert_eq!(format(Duration::from_millis(3_723_045)), "01:02:03.045/");
        assert_eq!(format(Duration::from_secs(100 * 3600)), "100:00:00.000/");
    }

    #[test]
    fn only_the_relative_form_is_known() {
        assert!(LineClock::from_env(None, None).is_none());
        assert!(LineClock::from_env(Some("abs"), None).is_none());
        assert_eq!(LineClock::from_env(Some("rel"), Some("1.5")).unwrap().start, Duration::from_millis(1500));
        assert!(LineClock::from_env(Some("rel"), Some("x")).unwrap().start > Duration::ZERO);
    }
}
