//! `new`: begins a function, as a directory that builds and passes `hyperfunc test`.

use super::output;
use crate::domain::FunctionName;
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc new rust greeter")]
pub(super) struct New {
    /// The language
    #[arg(value_name = "LANG")]
    language: Language,
    /// The function's name, and that of the directory that is made
    #[arg(value_name = "NAME", value_parser = name)]
    name: FunctionName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    C,
    Rust,
    Go,
}

/// A file of a new function: its name and its text, with names in `{{` and `}}` for what is put there.
type Template = (&'static str, &'static str);

const SHARED: [Template; 2] = [
    ("README.md", include_str!("templates/README.md")),
    ("{{name}}.test.toml", include_str!("templates/function.test.toml")),
];
const C: [Template; 3] = [
    ("main.c", include_str!("templates/c/main.c")),
    ("build.sh", include_str!("templates/c/build.sh")),
    (".gitignore", include_str!("templates/c/gitignore")),
];
const RUST: [Template; 4] = [
    ("src/main.rs", include_str!("templates/rust/main.rs")),
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml")),
    ("build.sh", include_str!("templates/rust/build.sh")),
    (".gitignore", include_str!("templates/rust/gitignore")),
];
const GO: [Template; 4] = [
    ("main.go", include_str!("templates/go/main.go")),
    ("go.mod", include_str!("templates/go/go.mod")),
    ("build.sh", include_str!("templates/go/build.sh")),
    (".gitignore", include_str!("templates/go/gitignore")),
];

/// What of a template is another in each language.
struct Words {
    language: &'static str,
    source: &'static str,
    toolchain: &'static str,
    /// Some three times what its first case spends.
    max_fuel: &'static str,
}

impl Language {
    fn templates(self) -> &'static [Template] {
        match self {
            Self::C => &C,
            Self::Rust => &RUST,
            Self::Go => &GO,
        }
    }

    fn words(self) -> Words {
        match self {
            Self::C => Words {
                language: "C",
                source: "main.c",
                toolchain: "the WASI SDK, or clang and wasi-libc",
                max_fuel: "10_000",
            },
            Self::Rust => Words {
                language: "Rust",
                source: "src/main.rs",
                toolchain: "`rustup target add wasm32-wasip1`",
                max_fuel: "50_000",
            },
            Self::Go => {
                Words { language: "Go", source: "main.go", toolchain: "Go 1.21 or newer", max_fuel: "5_000_000" }
            }
        }
    }

    /// Whether the language's own tools take such a name.
    fn check(self, name: &str) -> anyhow::Result<()> {
        // Directories of cargo's own, beside which it puts what it builds.
        const TAKEN: [&str; 4] = ["build", "deps", "examples", "incremental"];
        let is_no_crate = name.starts_with(|c: char| c.is_ascii_digit()) || TAKEN.contains(&name);
        if self == Self::Rust && is_no_crate {
            bail!("cargo takes no package that is called {name}");
        }
        Ok(())
    }
}

fn name(text: &str) -> Result<FunctionName, String> {
    FunctionName::new(text).map_err(|e| e.problem)
}

impl New {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let name = self.name.as_str();
        self.language.check(name)?;
        let dir = Path::new(name);
        // Fails if anything has this name.
        fs::create_dir(dir).with_context(|| name.to_owned())?;
        let written = self.write(dir);
        if written.is_err() {
            // It is all ours; what cannot be removed either says the same as what is told.
            let _ = fs::remove_dir_all(dir);
        }
        written?;
        output::line(&format!("{name} is made, in {}. Next:", self.language.words().language))?;
        for command in
            [format!("cd {name}"), "./build.sh".into(), "hyperfunc test".into(), format!("hyperfunc dev {name}.wasm")]
        {
            output::line(&format!("  {command}"))?;
        }
        Ok(0)
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        for (file, text) in SHARED.iter().chain(self.language.templates()) {
            let path = dir.join(self.filled(file));
            let write = || {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(&path, self.filled(text))?;
                let is_script = path.extension().is_some_and(|extension| extension == "sh");
                if is_script { fs::set_permissions(&path, fs::Permissions::from_mode(0o755)) } else { Ok(()) }
            };
            write().with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }

    fn filled(&self, template: &str) -> String {
        let Words { language, source, toolchain, max_fuel } = self.language.words();
        let words = [
            ("name", self.name.as_str()),
            ("language", language),
            ("source", source),
            ("toolchain", toolchain),
            ("max_fuel", max_fuel),
        ];
        let put = |text: String, (word, value): (&str, &str)| text.replace(&format!("{{{{{word}}}}}"), value);
        words.into_iter().fold(template.to_owned(), put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_be_put_into_a_template() {
        for language in Language::value_variants() {
            let new = New { language: *language, name: FunctionName::new("greeter").unwrap() };
            for (file, text) in SHARED.iter().chain(language.templates()) {
                let (file, text) = (new.filled(file), new.filled(text));
                assert!(!file.contains("{{") && !text.contains("{{") && text.ends_with('\n'), "{file}: {text}");
            }
        }
    }
}
