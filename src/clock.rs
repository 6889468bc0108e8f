//! The one door to time. Nothing else in the crate asks the host what time it is, so a test can move time, and a
//! reader can see where a host's clock matters: leases, schedules and expiry use the *store's* clock, never these.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since 1970-01-01 UTC. Shown and read as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// This much later (saturating).
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier (saturating).
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier`; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_millisecond())).map_err(|_| {
            format!(
                "`{}` is not a time: expected RFC 3339, such as `2026-01-10T09:14:05Z`",
                crate::names::shown(text)
            )
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A monotonic instant of this process, for measuring.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The host's wall clock. Only for what is local to this host (log lines, file names); the store has its own time.
#[must_use]
pub fn wall() -> Timestamp {
    let since = wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The same, as fine as the host tells it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn wall_time() -> SystemTime {
    SystemTime::now()
}

/// Where an engine that has no clock of its own (SQLite) gets the store's time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The store's time now.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        wall()
    }
}

/// A clock that only moves when told to: for tests of leases and schedules that must not sleep.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at the given time.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.ms())))
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Longest duration accepted anywhere from a user.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a duration as people write it: `250ms`, `10s`, `5m`, `1h30m`, `7d`; a bare number is seconds.
///
/// # Errors
/// When it is not such a text or is longer than 366 days.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!(
            "`{}` is not a duration: expected such as `250ms`, `30s`, `10m`, `1h30m` or `7d`, from 0 to 366d",
            crate::names::shown(text)
        )
    };
    let text = text.trim();
    let mut total_ms: f64 = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let scale = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "" if after.is_empty() && rest.len() == text.len() => 1_000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(bad()),
        };
        total_ms += number * scale;
        rest = after;
    }
    duration_from_secs(total_ms / 1_000.0).ok_or_else(bad)
}

/// Seconds to a duration; `None` for NaN, negatives and anything over [`MAX_DURATION`].
#[must_use]
pub fn duration_from_secs(secs: f64) -> Option<Duration> {
    if !(0.0..=MAX_DURATION.as_secs_f64()).contains(&secs) {
        return None;
    }
    Duration::try_from_secs_f64(secs).ok().map(|d| {
        Duration::from_millis(u64::try_from((d.as_nanos() + 500_000) / 1_000_000).unwrap_or(u64::MAX))
    })
}

/// A duration as people read it: `0.4 ms`, `1.2 s`, `4m 10s`, `3h 12m`, `2d 4h`.
#[must_use]
pub fn human(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0 if duration.as_millis() < 10 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => format!("{:.1} s", duration.as_secs_f64()),
        60..=3_599 => format!("{}m {:02}s", secs / 60, secs % 60),
        3_600..=86_399 => format!("{}h {:02}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1.5s", 1_500),
            ("10", 10_000),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), ms, "{text}");
        }
    }

    #[test]
    fn h04_durations_out_of_range_are_refused() {
        for bad in
            ["", "x", "-1s", "NaN", "1e309", "99999999d", "367d", "10 m 5", "1h30", "10parsecs", "..5s"]
        {
            assert!(parse_duration(bad).unwrap_err().contains("366d"), "{bad}");
        }
    }

    #[test]
    fn a_time_survives_its_text() {
        let time = Timestamp::from_ms(1_768_036_445_123);
        assert_eq!(time.to_string(), "2026-01-10T09:14:05.123Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}

/// Durations in JSON are seconds, as numbers; as strings they may be written as people do (`10m`).
pub mod secs {
    use super::{Duration, duration_from_secs, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes seconds; whole ones as an integer.
    ///
    /// # Errors
    /// When the serializer does.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if value.subsec_nanos() == 0 {
            serializer.serialize_u64(value.as_secs())
        } else {
            serializer.serialize_f64(value.as_secs_f64())
        }
    }

    /// Reads seconds or a text such as `10m`.
    ///
    /// # Errors
    /// When it is neither, or out of range.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(f64),
            Text(String),
        }
        match Given::deserialize(deserializer).map_err(|_| {
            de::Error::custom("expected a duration: seconds as a number, or a text such as \"10m\"")
        })? {
            Given::Number(secs) => duration_from_secs(secs).ok_or_else(|| {
                de::Error::custom(format!("duration {secs} s is out of range: 0 to 31622400 s (366d)"))
            }),
            Given::Text(text) => parse_duration(&text).map_err(de::Error::custom),
        }
    }

    /// The same for an optional duration.
    pub mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        /// Writes seconds or null.
        ///
        /// # Errors
        /// When the serializer does.
        pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads seconds, a text, or null.
        ///
        /// # Errors
        /// When it is none of these, or out of range.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            #[derive(Deserialize)]
            struct Wrapped(#[serde(with = "super")] Duration);
            Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(duration)| duration))
        }
    }
}
