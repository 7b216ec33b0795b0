//! Where in a test file something stands, and values that are a text or a table.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A test file that says nothing that we understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

/// A test file's text, and where it is from.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Tells what is wrong, and where: file, line, case and key.
    pub(super) fn malformed(&self, at: Option<Range<usize>>, problem: &str) -> Malformed {
        let path = self.path.display();
        let problem = problem.trim_end().replace('\n', ", ");
        let Some(Range { start, .. }) = at else { return Malformed(format!("{path}: {problem}")) };
        let line = self.text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1;
        let (case, key) = self.place(start);
        let case = case.map(|name| format!("case {name:?}: ")).unwrap_or_default();
        // Many say it themselves.
        let said = problem.split_once(": ").map(|(said, _)| said);
        let key = key.filter(|key| said.is_none_or(|said| !key.starts_with(said))).map(|key| format!("{key}: "));
        Malformed(format!("{path}:{line}: {case}{}{problem}", key.unwrap_or_default()))
    }

    /// Where a value is written: in the case of that name, or else for all of them; where the name is, if nowhere.
    pub(super) fn value(&self, name: Range<usize>, path: &str) -> Range<usize> {
        let Ok(table) = DeTable::parse(self.text) else { return name };
        let table = table.into_inner();
        let case = case_at(&table, name.start);
        case.into_iter().chain([&table]).find_map(|table| written(table, path)).unwrap_or(name)
    }

    /// The case that a place belongs to, and the key whose value it is in.
    fn place(&self, at: usize) -> (Option<String>, Option<String>) {
        let Ok(table) = DeTable::parse(self.text) else { return (None, None) };
        let table = table.into_inner();
        match case_at(&table, at) {
            Some(case) => {
                let name = case.get("name").and_then(|name| name.get_ref().as_str());
                (name.map(str::to_owned), key(case, at).filter(|key| key != "name"))
            }
            None => (None, key(&table, at)),
        }
    }
}

fn case_at<'a, 'text>(table: &'a DeTable<'text>, at: usize) -> Option<&'a DeTable<'text>> {
    let cases = table.get("case")?.get_ref().as_array()?;
    // The span of a `[[case]]` is not that of all that it holds.
    cases.iter().rfind(|case| case.span().start <= at)?.get_ref().as_table()
}

/// Where the value of `a.b` is, or at least that of `a`.
fn written(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(key)?;
    let inner = value.get_ref().as_table().and_then(|table| written(table, rest));
    Some(inner.unwrap_or_else(|| value.span()))
}

/// The path of the key whose value a place is in.
fn key(table: &DeTable<'_>, at: usize) -> Option<String> {
    let (key, value) = table.iter().find(|(_, value)| value.span().contains(&at))?;
    let inner = match value.get_ref() {
        DeValue::Table(table) => self::key(table, at),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => None,
    };
    let key = key.get_ref();
    Some(inner.map_or_else(|| key.to_string(), |inner| format!("{key}.{inner}")))
}

/// A text, or a table that says more. By hand: serde's `untagged` could not say what is wrong with either.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TextOr<T> {
    Text(String),
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Table)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
