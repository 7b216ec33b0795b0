//! What one execution may use, and what one account may own.

use std::num::NonZeroU64;
use std::time::Duration;

/// One megabyte, in bytes: 2^20 throughout the product.
pub const MB: u64 = 1 << 20;
/// The largest request body of a call, in bytes.
pub const STDIN_BYTES_MAX: usize = MB as usize;
/// The largest output of a call, in bytes.
pub const STDOUT_BYTES_MAX: usize = MB as usize;
/// How much of the beginning of stderr is kept, in bytes.
pub const STDERR_HEAD_BYTES: usize = 1 << 10;
/// How much of the end of stderr is kept, in bytes.
pub const STDERR_TAIL_BYTES: usize = 63 << 10;

/// The bounds of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All memories and tables of the instance together, in bytes.
    pub memory_bytes: u64,
    /// Wall clock from instantiation to exit, waits in host calls included.
    pub timeout: Duration,
    /// wasmtime fuel; `None` is unmetered.
    pub fuel: Option<NonZeroU64>,
    /// The most that stdout may carry, in bytes.
    pub stdout_bytes: usize,
}

/// What an account may own at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Functions.
    pub functions: u64,
    /// Images: names with a tag.
    pub images: u64,
    /// Bytes of distinct modules.
    pub image_bytes: u64,
}

/// Which part of a [`Quota`] is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaKind {
    /// [`Quota::functions`]
    Functions,
    /// [`Quota::images`]
    Images,
    /// [`Quota::image_bytes`]
    ImageBytes,
}

impl std::fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Functions => "functions",
            Self::Images => "images",
            Self::ImageBytes => "image bytes",
        })
    }
}
