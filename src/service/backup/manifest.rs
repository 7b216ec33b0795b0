//! What a backup says of itself: its first entry.

use super::Error;
use crate::domain::Digest;
use crate::image::module_file;
use crate::store::{Contents, SCHEMA_VERSION, SqliteStore};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The name of its entry, and of the one behind it, which holds its sha256 as `sha256sum` writes it.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const MANIFEST_SUM: &str = "manifest.sha256";
/// The largest manifest, in bytes: that of 300 000 modules.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// The form of backups that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
/// The longest name of a key.
const KEY_NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Manifest {
    format: u32,
    /// The version that wrote it.
    hyperfunc: String,
    pub(super) created: String,
    pub(super) schema: i64,
    pub(super) functions: u64,
    pub(super) images: u64,
    pub(super) queued: u64,
    pub(super) results: u64,
    /// All that follows, in its order.
    pub(super) entries: Vec<Entry>,
}

/// A file of the data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// Where, below the data directory.
    pub(super) name: String,
    pub(super) size: u64,
    sha256: String,
}

impl Entry {
    pub(super) fn new(name: String, size: u64, sha256: Digest) -> Self {
        Self { name, size, sha256: sha256.hex() }
    }

    /// Its sha256.
    pub(super) fn digest(&self) -> Result<Digest, Error> {
        let digest = Digest::parse(&format!("{}{}", Digest::PREFIX, self.sha256));
        digest.ok_or_else(|| Error::damaged(&self.name, "has no sha256"))
    }

    /// Whether it is a module whose name is its sha256.
    fn is_module(&self) -> Result<bool, Error> {
        Ok(self.name == module_file(self.digest()?))
    }

    /// Whether it is a key, by its name.
    pub(super) fn is_key(&self) -> bool {
        let name = self.name.strip_prefix("keys/").unwrap_or_default();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        plain && (1..=KEY_NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.')
    }
}

/// What every form of a backup has said, and will.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Form {
    format: u32,
    hyperfunc: String,
}

impl Manifest {
    pub(super) fn new(contents: &Contents, created: String, entries: Vec<Entry>) -> Self {
        let Contents { schema, functions, images, queued, results, modules: _ } = *contents;
        let hyperfunc = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, hyperfunc, created, schema, functions, images, queued, results, entries }
    }

    /// Reads it, and checks that there is nothing in it but what a backup has.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Error> {
        let unread = |e: serde_json::Error| Error::damaged(MANIFEST, &e.to_string());
        let Form { format, hyperfunc } = serde_json::from_slice(text).map_err(unread)?;
        if format != FORMAT {
            return Err(Error::OtherFormat { format, hyperfunc, known: FORMAT });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(unread)?;
        if manifest.schema > SCHEMA_VERSION {
            return Err(Error::OtherSchema { schema: manifest.schema, hyperfunc, known: SCHEMA_VERSION });
        }
        let mut names = HashSet::new();
        for (at, entry) in manifest.entries.iter().enumerate() {
            let is_expected = if at == 0 {
                entry.digest()?;
                entry.name == SqliteStore::FILE_NAME
            } else {
                entry.is_module()? || entry.is_key()
            };
            if !is_expected || !names.insert(&entry.name) {
                return Err(Error::damaged(&entry.name, "has no place in a backup"));
            }
        }
        if manifest.entries.is_empty() {
            return Err(Error::damaged(MANIFEST, "names no store"));
        }
        Ok(manifest)
    }

    /// Whether the store is the one that it tells of.
    pub(super) fn agrees_with(&self, contents: &Contents) -> bool {
        let Contents { schema, functions, images, queued, results, modules } = contents;
        let told = [self.functions, self.images, self.queued, self.results];
        let named: HashSet<String> = modules.iter().map(|(digest, _)| module_file(*digest)).collect();
        let others = self.entries.iter().skip(1).filter(|entry| !entry.is_key());
        let held: HashSet<String> = others.map(|entry| entry.name.clone()).collect();
        self.schema == *schema && told == [*functions, *images, *queued, *results] && named == held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, sha256: &str) -> Result<Manifest, Error> {
        let digest = Digest::new([7; 32]);
        let contents =
            Contents { schema: SCHEMA_VERSION, functions: 0, images: 0, queued: 0, results: 0, modules: vec![] };
        let store = Entry::new(SqliteStore::FILE_NAME.to_owned(), 1, digest);
        let second = Entry { name: name.to_owned(), size: 1, sha256: sha256.to_owned() };
        let manifest = Manifest::new(&contents, String::new(), vec![store, second]);
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap())
    }

    #[test]
    fn nothing_is_unpacked_but_modules_and_keys() {
        let digest = Digest::new([7; 32]);
        let hex = digest.hex();
        with(&module_file(digest), &hex).unwrap();
        with("keys/artifacts", &hex).unwrap();
        let other = module_file(Digest::new([8; 32]));
        let upper = module_file(digest).to_uppercase();
        for name in [
            "",
            "keys/",
            "keys/..",
            "keys/.x",
            "keys/a/b",
            "keys/../x",
            "../keys/x",
            "/keys/x",
            "modules/x.wasm",
            "lock",
            "keys",
            "hyperfunc.db",
            "hyperfunc.db-wal",
            "artifacts/x",
            "./keys/x",
            "keys\\x",
            "keys/a\0",
            &other,
            &upper,
        ] {
            let error = with(name, &hex).unwrap_err().to_string();
            assert!(
                error.contains(&name.escape_debug().to_string()) && error.contains("has no place"),
                "{name:?}: {error}"
            );
        }
        assert!(with(&format!("keys/{}", "k".repeat(65)), &hex).is_err());
        for sha256 in ["", "xyz", &hex[1..]] {
            assert!(with("keys/x", sha256).unwrap_err().to_string().contains("has no sha256"));
        }
    }
}
