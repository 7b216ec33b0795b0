//! What is known of a stored module, and the names it is stored under.

use super::{AccountId, Digest, ImageReference, Timestamp};

/// How wide a module's memory addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// 32-bit: ends at 4 GB.
    Narrow,
    /// 64-bit: bounds-checked, as large as the size allows.
    Wide,
}

/// What inspection finds in a module, before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The width of its memory.
    pub memory: MemoryKind,
    /// What its memories hold before its first instruction, in bytes.
    pub initial_memory_bytes: u64,
    /// `module.name` of each import.
    pub imports: Vec<String>,
    /// The name of each export.
    pub exports: Vec<String>,
}

/// What an image gives to each function made of it, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// The default entry point.
    pub entrypoint: Vec<String>,
    /// The default command.
    pub cmd: Vec<String>,
    /// The weakest part of the environment: `NAME=value` each.
    pub env: Vec<String>,
    /// The default working directory.
    pub working_dir: Option<String>,
}

impl ImageConfig {
    /// The configuration of a module that came without one: its entry point is the last segment
    /// of the image's name.
    pub fn of_bare_module(reference: &ImageReference) -> Self {
        Self { entrypoint: vec![reference.base_name().to_owned()], ..Self::default() }
    }
}

/// A stored module under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Whose it is.
    pub account: AccountId,
    /// The name without a tag.
    pub repository: String,
    /// `None` once the tag has moved to another module, while a function still pins this one.
    pub tag: Option<String>,
    /// The sha256 of the module.
    pub digest: Digest,
    /// The module's size, in bytes.
    pub size_bytes: u64,
    /// When it got its name.
    pub created: Timestamp,
    /// What inspection found.
    pub info: ModuleInfo,
    /// What it gives to its functions.
    pub config: ImageConfig,
}

impl Image {
    /// Whether `reference` means this image: by its digest if it has one, else by its tag.
    pub fn is_named_by(&self, reference: &ImageReference) -> bool {
        self.repository == reference.repository()
            && match reference.digest() {
                Some(digest) => self.digest == digest,
                None => self.tag.as_deref() == Some(reference.tag()),
            }
    }
}
