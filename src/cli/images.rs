//! `images`: lists images.

use super::client::{Client, escaped};
use super::output;
use serde::Deserialize;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc images ubuntu")]
pub(super) struct Images {
    /// Only this image: a name, with or without a tag
    name: Option<String>,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// As the server answers
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    repo_tags: Vec<String>,
    created: i64,
    size: u64,
}

impl Images {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let target = format!("/images/json?filter={}", escaped(self.name.as_deref().unwrap_or_default()));
        if self.json {
            output::json(&client.get::<serde_json::Value>(&target).await?)?;
            return Ok(0);
        }
        let images: Vec<Image> = client.get(&target).await?;
        if self.quiet {
            images.iter().try_for_each(|image| output::line(output::short(&image.id)))?;
            return Ok(0);
        }
        let rows = images.iter().flat_map(|image| {
            let created = jiff::Timestamp::from_second(image.created).unwrap_or_default().to_string();
            let untagged = [("<none>:<none>").to_owned()];
            let tags = if image.repo_tags.is_empty() { untagged.to_vec() } else { image.repo_tags.clone() };
            tags.into_iter().map(move |name| {
                let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, ""));
                let id = output::short(&image.id).to_owned();
                vec![repository.to_owned(), tag.to_owned(), id, created.clone(), output::bytes(image.size)]
            })
        });
        output::table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], rows.collect())?;
        Ok(0)
    }
}
