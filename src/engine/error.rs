//! What can go wrong that is no guest's ending.

/// Why a module is not one that we run: its author's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(String);

impl Rejected {
    /// The most of a reason that is told: a module's own names come into it.
    const CHARS_MAX: usize = 300;

    pub(super) fn new(reason: impl std::fmt::Display) -> Self {
        let one_line = reason.to_string().replace(|c: char| c.is_control(), " ");
        Self(one_line.chars().take(Self::CHARS_MAX).collect())
    }

    pub(super) fn from_compiler(error: &wasmtime::Error) -> Self {
        Self::new(format_args!("does not compile: {error:#}"))
    }
}

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module is at fault.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The engine is.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// The engine failed; no guest is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused what the engine needs to start.
    #[error("the engine cannot start: {0}")]
    Start(String),
    /// Compiled bytes that this engine cannot load: compile the module again.
    #[error("the compiled module cannot be loaded: {0}")]
    Artifact(String),
    /// No sandbox could be made.
    #[error("no sandbox could be made: {0}")]
    Sandbox(String),
    /// The compiler panicked, or the code that serves guests.
    #[error("our own code panicked: {0}")]
    Panicked(String),
}
