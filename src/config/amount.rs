//! Amounts as people write them: with their units.

use crate::domain::MB;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No wait may be longer, in seconds.
const SECONDS_MAX: u64 = 86_400;

/// A number of bytes: `64MB`, `1GB`, or a plain number. MB = 2^20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Bytes(pub(super) u64);

/// A time: `30`, `30s`, `500ms`, `5m`; a plain number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Wait(pub(super) Duration);

/// An amount of memory: bytes, or a part of the machine's such as `75%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub enum Memory {
    /// In bytes.
    Bytes(u64),
    /// Of the machine or its control group, whichever is less.
    Percent(u64),
}

/// A value in TOML that may stand there as a number or a string.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a number or a string")]
enum Text {
    Number(u64),
    String(String),
}

macro_rules! written_as_text {
    ($($setting:ty),*) => {$(
        impl Serialize for $setting {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl TryFrom<Text> for $setting {
            type Error = String;

            fn try_from(text: Text) -> Result<Self, String> {
                match text {
                    Text::Number(number) => number.to_string().parse(),
                    Text::String(text) => text.parse(),
                }
            }
        }
    )*};
}
written_as_text!(Bytes, Wait, Memory);

/// A number and the unit behind it.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = with_unit(text).and_then(|(number, unit)| {
            let factor = match unit.to_ascii_uppercase().as_str() {
                "" | "B" => 1,
                "K" | "KB" => 1 << 10,
                "M" | "MB" => MB,
                "G" | "GB" => 1 << 30,
                _ => return None,
            };
            number.checked_mul(factor)
        });
        bytes.map(Self).ok_or_else(|| format!("{text:?} is not a number of bytes such as 64MB or 1GB"))
    }
}

impl Wait {
    /// How long.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wait = with_unit(text).and_then(|(number, unit)| match unit {
            "" | "s" => Some(Duration::from_secs(number)),
            "ms" => Some(Duration::from_millis(number)),
            "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
            "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
            _ => None,
        });
        wait.filter(|wait| wait.as_secs() <= SECONDS_MAX)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a time such as 30s, 500ms or 5m, at most a day"))
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("{text:?} is not between 1% and 100%")),
            },
            None => {
                text.parse().map(|Bytes(bytes)| Self::Bytes(bytes)).map_err(|e| format!("{e}, nor a part such as 75%"))
            }
        }
    }
}

/// In the largest unit that says it exactly.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GB"), (MB, "MB"), (1 << 10, "KB")];
        let whole = units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, ""));
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// In seconds, but what is less in milliseconds and whole hours in hours.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            _ if self.0.subsec_millis() > 0 => write!(f, "{}ms", self.0.as_millis()),
            seconds @ 3600.. if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => Bytes(*bytes).fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_amount_is_refused() {
        for bad in ["1XB", "-1", "", "1.5GB", "99999999999GB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        for bad in ["1y", "2d", "90000", "-1s", ""] {
            assert!(bad.parse::<Wait>().is_err(), "{bad}");
        }
        for bad in ["0%", "101%", "x%"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        for text in ["0", "1023", "1KB", "1536KB", "64MB", "10GB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        for text in ["0s", "500ms", "1500ms", "30s", "60s", "90s", "1h", "24h"] {
            assert_eq!(text.parse::<Wait>().unwrap().to_string(), text);
        }
        assert_eq!("75%".parse::<Memory>().unwrap().to_string(), "75%");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: u64, ms in 0..SECONDS_MAX * 1000, percent in 1..=100_u64) {
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
            let wait = Wait(Duration::from_millis(ms));
            prop_assert_eq!(wait.to_string().parse(), Ok(wait));
            for memory in [Memory::Bytes(bytes), Memory::Percent(percent)] {
                prop_assert_eq!(memory.to_string().parse(), Ok(memory));
            }
        }
    }
}
