//! The query of a request.

use crate::domain::Invalid;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;

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

#[cfg(test)]
mod tests {
    use super::*;

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
