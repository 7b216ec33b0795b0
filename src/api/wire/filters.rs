//! `filters=` in a query: `{"name":{"x":true}}` as Docker's clients write it, or `{"name":["x"]}`.

use super::image::ImageFilters;
use crate::domain::{ContainerSize, ImageReference, Invalid};
use crate::service::functions::Filters;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Marked(BTreeMap<String, bool>),
    Listed(Vec<String>),
}

impl Values {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::Marked(marked) => marked.into_iter().filter_map(|(value, on)| on.then_some(value)).collect(),
            Self::Listed(values) => values,
        }
    }
}

/// Reads the filters of a list of functions.
///
/// # Errors
/// Names a key that is unknown, and the value that is wrong.
pub(in crate::api) fn function_filters(json: &str) -> Result<Filters, Invalid> {
    let mut filters = Filters::default();
    for (key, values) in parsed(json)? {
        match key.as_str() {
            "name" => filters.names = values,
            "image" => {
                filters.images =
                    values.iter().map(|value| reference("filters: image", value)).collect::<Result<_, _>>()?
            }
            "size" => {
                let sizes = values.iter().map(|value| ContainerSize::parse(value));
                filters.sizes =
                    sizes.collect::<Result<_, _>>().map_err(|e| Invalid::new("filters: size", e.problem))?;
            }
            "label" => filters.labels = values.into_iter().map(label).collect(),
            _ => return Err(unknown(&key, "name, image, size, label")),
        }
    }
    Ok(filters)
}

/// Reads the filters of a list of images; `filter` is a name that a client may send beside them.
///
/// # Errors
/// Names a key that is unknown, and the value that is wrong.
pub(in crate::api) fn image_filters(filter: Option<&str>, json: Option<&str>) -> Result<ImageFilters, Invalid> {
    let mut filters = ImageFilters::default();
    if let Some(name) = filter.filter(|name| !name.is_empty()) {
        filters.references.push(pattern("filter", name)?);
    }
    for (key, values) in json.map(parsed).transpose()?.unwrap_or_default() {
        match key.as_str() {
            "reference" => {
                for value in &values {
                    filters.references.push(pattern("filters: reference", value)?);
                }
            }
            "dangling" => filters.dangling = values.first().map(|value| matches!(value.as_str(), "true" | "1")),
            "label" => filters.labels = values,
            _ => return Err(unknown(&key, "reference, dangling, label")),
        }
    }
    Ok(filters)
}

fn parsed(json: &str) -> Result<BTreeMap<String, Vec<String>>, Invalid> {
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    let filters: BTreeMap<String, Values> = serde_json::from_str(json)
        .map_err(|_| Invalid::new("filters", "must be JSON like {\"name\":[\"x\"]} or {\"name\":{\"x\":true}}"))?;
    Ok(filters.into_iter().map(|(key, values)| (key, values.into_vec())).collect())
}

fn unknown(key: &str, known: &str) -> Invalid {
    Invalid::new("filters", format!("{key:?} is none of {known}"))
}

fn reference(field: &'static str, text: &str) -> Result<ImageReference, Invalid> {
    ImageReference::parse(text).map_err(|problem| Invalid::new(field, problem))
}

/// A name without a tag means all its tags.
fn pattern(field: &'static str, text: &str) -> Result<(String, Option<String>), Invalid> {
    let parsed = reference(field, text)?;
    let tagged = text != parsed.repository();
    Ok((parsed.repository().to_owned(), tagged.then(|| parsed.tag().to_owned())))
}

fn label(text: String) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for json in [r#"{"name":{"a":true,"b":false}}"#, r#"{"name":["a"]}"#] {
            assert_eq!(function_filters(json).unwrap().names, ["a"], "{json}");
        }
        let filters = function_filters(r#"{"label":["k","k=v=w"],"size":["S1"],"image":["a"]}"#).unwrap();
        assert_eq!(filters.labels, [("k".into(), None), ("k".into(), Some("v=w".into()))]);
        assert_eq!(filters.sizes, [ContainerSize::S1]);
        assert_eq!(function_filters("").unwrap(), Filters::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, named) in [
            (r#"{"colour":["red"]}"#, "colour"),
            (r#"{"size":["xl"]}"#, "size"),
            (r#"{"image":["A B"]}"#, "image"),
            ("[]", "filters"),
            ("{", "filters"),
            (r#"{"name":"x"}"#, "filters"),
        ] {
            let error = function_filters(json).unwrap_err();
            assert!(error.field.starts_with("filters") && error.to_string().contains(named), "{json}: {error}");
        }
        assert!(image_filters(None, Some(r#"{"before":["x"]}"#)).is_err());
    }

    #[test]
    fn a_name_without_a_tag_means_all_its_tags() {
        let of = |name| image_filters(Some(name), None).unwrap().references;
        assert_eq!(of("ubuntu"), [("ubuntu".to_owned(), None)]);
        assert_eq!(of("a/b:1"), [("a/b".to_owned(), Some("1".to_owned()))]);
        assert!(of("").is_empty());
    }
}
