//! Durations for people: `1m 30s`, `250ms`.

use std::time::Duration;

use humantime::FormattedDuration;

/// The duration to the millisecond.
pub fn shown(duration: Duration) -> FormattedDuration {
    rounded(duration, 1)
}

/// The duration to a tenth of a second.
pub fn shown_roughly(duration: Duration) -> FormattedDuration {
    rounded(duration, 100)
}

fn rounded(duration: Duration, step_millis: u128) -> FormattedDuration {
    let millis = duration.as_millis() / step_millis * step_millis;
    humantime::format_duration(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cut_to_milliseconds_and_to_tenths() {
        let duration = Duration::from_micros(90_123_456);
        assert_eq!(shown(duration).to_string(), "1m 30s 123ms");
        assert_eq!(shown_roughly(duration).to_string(), "1m 30s 100ms");
    }
}
