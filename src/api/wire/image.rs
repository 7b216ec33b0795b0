//! Images in Docker's shapes, and the lines that tell how a load goes.

use super::rfc3339;
use crate::domain::Image;
use crate::service::images::{Progress, Removed, Stored};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which images a list shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct ImageFilters {
    /// A repository and, if it matters, a tag; one of them must match.
    pub(in crate::api) references: Vec<(String, Option<String>)>,
    /// Whether the image must have no tag, or one.
    pub(in crate::api) dangling: Option<bool>,
    /// Labels that it must have; a bare module has none.
    pub(in crate::api) labels: Vec<String>,
}

impl ImageFilters {
    pub(in crate::api) fn take(&self, stored: &Stored) -> bool {
        let matches = |(repository, tag): &(String, Option<String>)| {
            stored.names.iter().any(|image| image.repository == *repository && (tag.is_none() || image.tag == *tag))
        };
        let is_dangling = stored.names.iter().all(|image| image.tag.is_none());
        (self.references.is_empty() || self.references.iter().any(matches))
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
            && self.labels.is_empty()
    }
}

/// An image in a list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    /// In seconds since 1970.
    created: i64,
    size: u64,
    virtual_size: u64,
    labels: BTreeMap<String, String>,
}

/// An image by itself.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected<'a> {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    created: String,
    size: u64,
    virtual_size: u64,
    architecture: &'static str,
    os: &'static str,
    config: ImageConfigJson<'a>,
    imports: &'a [String],
    exports: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfigJson<'a> {
    entrypoint: &'a [String],
    cmd: &'a [String],
    env: &'a [String],
    working_dir: &'a str,
    labels: BTreeMap<String, String>,
}

/// An image in a list, as clients see it.
pub(in crate::api) fn listed(stored: &Stored) -> impl Serialize + use<> {
    let image = &stored.image;
    Listed {
        id: image.digest.to_string(),
        repo_tags: repo_tags(stored),
        repo_digests: repo_digests(stored),
        created: image.created.0.div_euclid(1000),
        size: image.size_bytes,
        virtual_size: image.size_bytes,
        labels: BTreeMap::new(),
    }
}

/// An image by itself, as clients see it.
pub(in crate::api) fn inspected(stored: &Stored) -> impl Serialize + '_ {
    let Image { digest, size_bytes, created, info, config, .. } = stored.image.as_ref();
    Inspected {
        id: digest.to_string(),
        repo_tags: repo_tags(stored),
        repo_digests: repo_digests(stored),
        created: rfc3339(*created),
        size: *size_bytes,
        virtual_size: *size_bytes,
        architecture: "wasm",
        os: "wasip1",
        config: ImageConfigJson {
            entrypoint: &config.entrypoint,
            cmd: &config.cmd,
            env: &config.env,
            working_dir: config.working_dir.as_deref().unwrap_or_default(),
            labels: BTreeMap::new(),
        },
        imports: &info.imports,
        exports: &info.exports,
    }
}

fn repo_tags(stored: &Stored) -> Vec<String> {
    let tagged = |image: &Image| image.tag.as_ref().map(|tag| format!("{}:{tag}", image.repository));
    stored.names.iter().filter_map(|image| tagged(image)).collect()
}

fn repo_digests(stored: &Stored) -> Vec<String> {
    let mut repositories: Vec<&str> = stored.names.iter().map(|image| image.repository.as_str()).collect();
    repositories.dedup();
    repositories.into_iter().map(|repository| format!("{repository}@{}", stored.image.digest)).collect()
}

/// What removing an image did: `[{"Untagged": …}, {"Deleted": …}]`.
pub(in crate::api) fn removed(removed: &[Removed]) -> impl Serialize + use<> {
    let one = |removed: &Removed| match removed {
        Removed::Untagged(name) => BTreeMap::from([("Untagged", name.clone())]),
        Removed::Deleted(digest) => BTreeMap::from([("Deleted", digest.to_string())]),
    };
    removed.iter().map(one).collect::<Vec<_>>()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_detail: Option<ProgressDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_detail: Option<ErrorDetail<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct ProgressDetail {
    current: u64,
    total: u64,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
}

const BLANK: Line<'static> = Line { status: None, progress_detail: None, error_detail: None, error: None };

/// A step of a load.
pub(in crate::api) fn progress_line(name: &str, step: Progress) -> Bytes {
    let Progress::Compiling { current, total } = step;
    let progress_detail = Some(ProgressDetail { current, total });
    line(&Line { status: Some(format!("Compiling {name}")), progress_detail, ..BLANK })
}

/// The last line of a load that went well.
pub(in crate::api) fn loaded_line(name: &str) -> Bytes {
    line(&Line { status: Some(format!("{name} has been loaded.")), ..BLANK })
}

/// The last line of a load that did not.
pub(in crate::api) fn load_error_line(message: &str) -> Bytes {
    line(&Line { error_detail: Some(ErrorDetail { message }), error: Some(message), ..BLANK })
}

fn line(line: &Line<'_>) -> Bytes {
    // Strings and numbers only: it cannot fail.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_documentation() {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(
            text(progress_line("a:b", Progress::Compiling { current: 1, total: 2 })),
            "{\"status\":\"Compiling a:b\",\"progressDetail\":{\"current\":1,\"total\":2}}\n"
        );
        assert_eq!(text(loaded_line("a:b")), "{\"status\":\"a:b has been loaded.\"}\n");
        assert_eq!(text(load_error_line("no")), "{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\n");
    }
}
