//! "Did you mean": to an error that something is not there, the name of what is there and is called nearly so.

use super::client::{Client, Refusal};
use super::output;
use serde::Deserialize;
use std::time::Duration;

/// How long an error may wait for its suggestion.
const PATIENCE: Duration = Duration::from_secs(1);

/// The error, with the function that was probably meant, if it says that there is none of that name.
pub(super) async fn function(client: &Client, error: anyhow::Error, name: &str) -> anyhow::Error {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Func {
        name: String,
    }
    if !Refusal::of(&error).is_some_and(|refusal| refusal.message.starts_with("no such function")) {
        return error;
    }
    let names = async {
        let functions: Vec<Func> = client.get("/funcs").await?;
        anyhow::Ok(functions.into_iter().map(|function| function.name).collect())
    };
    suggesting(error, name, names).await
}

/// The same for an image.
pub(super) async fn image(client: &Client, error: anyhow::Error, name: &str) -> anyhow::Error {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        repo_tags: Vec<String>,
    }
    if !Refusal::of(&error).is_some_and(Refusal::lacks_image) {
        return error;
    }
    let names = async {
        let images: Vec<Image> = client.get("/images/json").await?;
        let tags = images.into_iter().flat_map(|image| image.repo_tags);
        // As people call it.
        anyhow::Ok(tags.map(|tag| tag.strip_suffix(":latest").unwrap_or(&tag).to_owned()).collect())
    };
    suggesting(error, name.strip_suffix(":latest").unwrap_or(name), names).await
}

/// The error as it was, if the names do not come, or come late, or none is near.
async fn suggesting(
    error: anyhow::Error,
    name: &str,
    names: impl Future<Output = anyhow::Result<Vec<String>>>,
) -> anyhow::Error {
    let Ok(Ok(names)) = tokio::time::timeout(PATIENCE, names).await else { return error };
    match (error.downcast::<Refusal>(), nearest(name, &names)) {
        (Ok(mut refusal), Some(nearest)) => {
            refusal.message += &format!("; did you mean {}?", output::one_line(nearest));
            refusal.into()
        }
        (Ok(refusal), None) => refusal.into(),
        (Err(error), _) => error,
    }
}

/// The name that is meant by another, if one differs by little: in a third of the longer one's letters, and never in all.
pub(super) fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let letters = |name: &str| name.chars().count();
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), other);
    let is_near = |(distance, other): &(usize, &str)| {
        *distance < letters(name) && *distance <= (letters(name).max(letters(other)) / 3).max(1)
    };
    names.iter().map(|other| (distance(other), other.as_str())).filter(is_near).min().map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let names = ["hello", "help", "resize-images", "f"].map(str::to_owned);
        for (name, meant) in [
            ("helo", Some("hello")),
            ("hlep", Some("help")),
            ("Hello", Some("hello")),
            ("resize-image", Some("resize-images")),
            ("resizeimage", Some("resize-images")),
            ("resize", None),
            ("nothing", None),
            ("g", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &names), meant, "{name}");
        }
        assert_eq!(nearest("hello", &[]), None);
    }
}
