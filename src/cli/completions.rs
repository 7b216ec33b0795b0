//! `completions`: what a shell must know to complete our verbs and flags.

use clap::CommandFactory as _;
use clap_complete::Shell;
use std::io::Write as _;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    source <(hyperfunc completions bash)    in ~/.bashrc\n  \
    hyperfunc completions zsh > ~/.zfunc/_hyperfunc    for one in fpath\n  \
    hyperfunc completions fish > ~/.config/fish/completions/hyperfunc.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        // First as a whole: the generators panic where they cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "hyperfunc", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(0)
    }
}
