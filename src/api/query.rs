//! The query of a request.

use crate::domain::{CallId, Invalid};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::ops::RangeInclusive;

/// The pairs of a query. A second `?` is read as `&`: a client of 2018 writes it.
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn of(parts: &'a Parts) -> Self {
        Self(parts.uri.query().unwrap_or_default())
    }

    /// The first value of a key, decoded as a form's; what is no UTF-8 in it is replaced.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = self.0.split(['&', '?']).find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == key).then_some(value)
        })?;
        Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
    }

    /// A yes or no; absent is no.
    ///
    /// # Errors
    /// Names the key, and what may stand there.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool, Invalid> {
        match self.text(key).as_deref() {
            Some("1" | "true" | "True") => Ok(true),
            None | Some("" | "0" | "false" | "False") => Ok(false),
            Some(_) => Err(Invalid::new(key, "is none of 1, true, True, 0, false, False")),
        }
    }
}

impl Query<'_> {
    /// A number in its bounds; absent is `None`.
    ///
    /// # Errors
    /// Names the key, and the bounds.
    pub(super) fn number(&self, key: &'static str, bounds: RangeInclusive<u32>) -> Result<Option<u32>, Invalid> {
        let Some(text) = self.text(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        let wrong = || Invalid::new(key, format!("is no number from {} to {}", bounds.start(), bounds.end()));
        number.map(Some).ok_or_else(wrong)
    }

    /// The id of a call; absent is `None`.
    ///
    /// # Errors
    /// Names the key.
    pub(super) fn call_id(&self, key: &'static str) -> Result<Option<CallId>, Invalid> {
        let Some(text) = self.text(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        CallId::parse(&text).map(Some).ok_or_else(|| Invalid::new(key, "is no id of a call"))
    }

    /// `tail`: a number of lines, or `all`, which absent means too.
    ///
    /// # Errors
    /// Names the key.
    pub(super) fn tail(&self) -> Result<Option<u64>, Invalid> {
        match self.text("tail").as_deref() {
            None | Some("" | "all") => Ok(None),
            Some(lines) => lines.parse().map(Some).map_err(|_| Invalid::new("tail", "is neither all nor a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_are_checked() {
        let query = Query("limit=5&none=&large=6&word=x&callid=01890000-0000-7000-8000-000000000000&tail=all");
        assert_eq!(query.number("limit", 1..=5), Ok(Some(5)));
        assert_eq!((query.number("none", 1..=5), query.number("absent", 1..=5)), (Ok(None), Ok(None)));
        assert!(query.number("large", 1..=5).is_err() && query.number("word", 1..=5).is_err());
        assert!(query.call_id("callid").unwrap().is_some() && query.call_id("absent").unwrap().is_none());
        assert_eq!(query.call_id("word").unwrap_err().field, "word");
        assert_eq!((query.tail(), Query("tail=7").tail(), Query("").tail()), (Ok(None), Ok(Some(7)), Ok(None)));
        assert!(Query("tail=-1").tail().is_err() && Query("tail=x").tail().is_err());
    }

    #[test]
    fn values_are_decoded_and_unknown_keys_ignored() {
        let query = Query("a=1&b=x%20y+z?c=True&d&e=maybe&a=2");
        assert_eq!(query.text("a").as_deref(), Some("1"));
        assert_eq!(query.text("b").as_deref(), Some("x y z"));
        assert_eq!(query.text("nothing"), None);
        assert_eq!((query.flag("c"), query.flag("d"), query.flag("nothing")), (Ok(true), Ok(false), Ok(false)));
        assert_eq!(query.flag("e").unwrap_err().field, "e");
    }
}
