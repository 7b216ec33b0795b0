//! Where test files are.

use super::cases::SUFFIX;
use crate::cli::exit::{self, NOT_FOUND};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories below each other that are looked into.
const DEPTH_MAX: usize = 32;
/// Test files of one run.
const FILES_MAX: usize = 10_000;

/// The test files that arguments mean: a test file, the one beside a module, or all below a directory; without arguments,
/// all below this one.
///
/// # Errors
/// What is not there; that there are none, or too many.
pub(super) fn test_files(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for path in arguments {
        if path.is_dir() {
            walk(path, DEPTH_MAX, &mut found)?;
        } else {
            found.insert(named(path)?);
        }
    }
    if arguments.is_empty() {
        walk(Path::new(""), DEPTH_MAX, &mut found)?;
    }
    if found.is_empty() {
        let below = arguments.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
        let below = if below.is_empty() { "this directory".to_owned() } else { below };
        return Err(exit::with(NOT_FOUND, format_args!("no *{SUFFIX} below {below}")));
    }
    Ok(found.into_iter().collect())
}

/// The test file that a file is, or that stands beside it.
fn named(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    let test = if path.file_name().is_some_and(is_test) {
        path.to_owned()
    } else if path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat") {
        path.with_extension(SUFFIX.trim_start_matches('.'))
    } else if path.exists() {
        let problem = format_args!("{shown}: neither a *{SUFFIX}, a module with one beside it, nor a directory");
        return Err(exit::with(exit::USAGE, problem));
    } else {
        path.to_owned()
    };
    if test.exists() {
        return Ok(test);
    }
    let problem = if test == path { "no such file".to_owned() } else { format!("no {} beside it", test.display()) };
    Err(exit::with(NOT_FOUND, format_args!("{shown}: {problem}")))
}

/// Names need not be UTF-8.
fn is_test(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

/// Adds all that is below a directory. Links to directories are not followed: they may lead in circles.
fn walk(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let failed = |e: io::Error| anyhow::anyhow!("{}: {e}", dir.display());
    let readable = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    for entry in fs::read_dir(readable).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, kind) = (entry.file_name(), entry.file_type().map_err(failed)?);
        let path = dir.join(&name);
        if kind.is_dir() {
            let skipped = name.as_encoded_bytes().starts_with(b".") || name == "target" || name == "node_modules";
            if !skipped && depth > 0 {
                walk(&path, depth - 1, found)?;
            }
        } else if is_test(&name) {
            found.insert(path);
            anyhow::ensure!(found.len() <= FILES_MAX, "there are more than {FILES_MAX} test files");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_name_need_not_be_utf_8() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
        fs::write(at(b"\xff.test.toml"), "").unwrap();
        fs::write(at(b"\xff.wasm"), "").unwrap();
        for argument in [at(b""), at(b"\xff.wasm")] {
            assert_eq!(test_files(&[argument]).unwrap(), [at(b"\xff.test.toml")]);
        }
    }

    #[test]
    fn test_files_are_found_where_people_keep_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in
            ["a.test.toml", "b/c.test.toml", "target/d.test.toml", "b/node_modules/e.test.toml", ".h/f.test.toml"]
        {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "").unwrap();
        }
        fs::write(at("a.wasm"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        symlink(dir.path(), at("b/loop")).unwrap();
        let found = |path: &str| test_files(&[at(path)]).map_err(|e| (exit::of(&e), e.to_string()));
        assert_eq!(found("").unwrap(), [at("a.test.toml"), at("b/c.test.toml")]);
        assert_eq!(found("a.wasm").unwrap(), [at("a.test.toml")]);
        assert_eq!(found("b/c.test.toml").unwrap(), [at("b/c.test.toml")]);
        // Who names it means it.
        assert_eq!(found("target").unwrap(), [at("target/d.test.toml")]);
        fs::create_dir(at("empty")).unwrap();
        for (path, status, problem) in [
            ("empty", 127, "no *.test.toml below "),
            ("b/c.wasm.wasm", 127, "c.wasm.test.toml beside it"),
            ("nothing", 127, "nothing: no such file"),
            ("other", 2, "neither a *.test.toml"),
        ] {
            let (told, why) = found(path).unwrap_err();
            assert!(told == status && why.contains(problem), "{path}: {told} {why}");
        }
    }
}
