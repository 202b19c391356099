//! Durations as Kubernetes flags spell them: `1m30s`, `1.5h`, `500ms`.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration of at most 10,000 hours, spelled as in Go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(Duration);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADuration {
    /// Neither a number with a unit nor a sum of such.
    #[error("{0:?} is not a duration: write numbers with units, such as 1m30s, 1.5h or 500ms")]
    Form(String),
    /// Time runs forwards only.
    #[error("{0:?} is negative: time runs forwards only")]
    Negative(String),
    /// Beyond what a run can reach.
    #[error("{0:?} is longer than 10000h, the longest that a run can wait")]
    TooLong(String),
}

const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const LONGEST: u128 = 10_000 * 3_600_000_000_000;

impl GoDuration {
    /// Reads a duration.
    ///
    /// # Errors
    /// If the text is not a duration in Go's spelling, is negative or longer than 10,000 hours.
    pub fn parse(text: &str) -> Result<GoDuration, NotADuration> {
        let form = || NotADuration::Form(text.to_owned());
        if let Some(positive) = text.strip_prefix('-') {
            GoDuration::parse(positive).map_err(|_| form())?;
            return Err(NotADuration::Negative(text.to_owned()));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        let mut nanos: u128 = 0;
        loop {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(form)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, next) = tail.split_at(letters);
            let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
            nanos += part(number, *unit).ok_or_else(form)?;
            if nanos > LONGEST {
                return Err(NotADuration::TooLong(text.to_owned()));
            }
            if next.is_empty() {
                let nanos = u64::try_from(nanos).expect("10,000 hours of nanoseconds fit");
                return Ok(GoDuration(Duration::from_nanos(nanos)));
            }
            rest = next;
        }
    }

    /// So many seconds.
    pub const fn secs(secs: u64) -> GoDuration {
        GoDuration(Duration::from_secs(secs))
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> GoDuration {
        GoDuration(Duration::from_millis(millis))
    }

    /// As the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

fn part(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 || fraction.len() > 12 {
        return None;
    }
    let whole: u128 = format!("0{whole}").parse().ok()?;
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = format!("0{fraction}").parse().ok()?;
    Some(whole.saturating_mul(unit) + fraction * unit / tenths)
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> GoDuration {
        GoDuration(duration)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let mut rest = nanos;
        for unit in ["h", "m", "s", "ms", "us", "ns"] {
            let (_, size) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .expect("each unit is in the table");
            if rest >= *size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GoDuration, D::Error> {
        let text = String::deserialize(deserializer)?;
        GoDuration::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "go-duration",
            "description": "A duration in Go's spelling, such as `1m30s`, `1.5h` or `500ms`.",
            "examples": ["1m30s", "500ms"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_go_durations() {
        for (text, millis, printed) in [
            ("1m30s", 90_000, "1m30s"),
            ("1.5h", 5_400_000, "1h30m"),
            ("500ms", 500, "500ms"),
            ("0", 0, "0s"),
            ("2m2s", 122_000, "2m2s"),
            ("+.5s", 500, "500ms"),
        ] {
            let duration = GoDuration::parse(text).unwrap();
            assert_eq!(
                (duration.get().as_millis(), duration.to_string().as_str()),
                (millis, printed)
            );
            assert_eq!(GoDuration::parse(&duration.to_string()), Ok(duration));
        }
    }

    #[test]
    fn refuses_other_spellings_with_the_reason() {
        for text in ["", "30", "1 m", "5 minutes", "1d", "s", "1..5s", "-", "--5s"] {
            assert!(matches!(GoDuration::parse(text), Err(NotADuration::Form(_))), "{text}");
        }
        assert!(matches!(GoDuration::parse("-5s"), Err(NotADuration::Negative(_))));
        assert!(matches!(GoDuration::parse("99999999h"), Err(NotADuration::TooLong(_))));
        assert!(matches!(
            GoDuration::parse("99999999999999999999h"),
            Err(NotADuration::TooLong(_))
        ));
    }
}
