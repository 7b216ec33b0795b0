//! Amounts as people write them: with their units.

use crate::domain::MB;
use serde::Deserialize;
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
#[serde(untagged)]
enum Text {
    Number(u64),
    String(String),
}

macro_rules! read_as_text {
    ($($setting:ty),*) => {$(
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
read_as_text!(Bytes, Wait, Memory);

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
