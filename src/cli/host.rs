//! What the server must know of the machine that it runs on.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory of the machine, in bytes.
pub(super) fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    #[allow(clippy::useless_conversion, reason = "the field is narrower on 32-bit machines")]
    u64::from(info.totalram).saturating_mul(unit)
}

/// What this process may hold of it: the least limit of its control groups, in bytes.
pub(super) fn memory_available() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    least_limit(&groups, Path::new("/sys/fs/cgroup")).map_or_else(memory_total, |limit| limit.min(memory_total()))
}

/// The least `memory.max` of the version 2 group that `groups` (`/proc/self/cgroup`) names, and of all above it.
fn least_limit(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = root.join(group);
    let dirs = path.ancestors().take_while(|dir| dir.starts_with(root));
    let limits = dirs.filter_map(|dir| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse::<u64>().ok());
    limits.min()
}

/// The XDG data directory, `~/.local/share` unless set, and `hyperfunc` in it.
pub(super) fn data_dir() -> Option<PathBuf> {
    Some(xdg("XDG_DATA_HOME", ".local/share")?.join("hyperfunc"))
}

/// The XDG cache directory, `~/.cache` unless set, and `hyperfunc` in it.
pub(super) fn cache_dir() -> Option<PathBuf> {
    Some(xdg("XDG_CACHE_HOME", ".cache")?.join("hyperfunc"))
}

/// The settings file in the XDG configuration directory, `~/.config` unless set.
pub(super) fn settings_file() -> Option<PathBuf> {
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("hyperfunc/hyperfunc.toml"))
}

/// A directory of the user's: a variable that names it, else its place below the home directory.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

/// Lets this process open as many files as it may, and returns how many that are: a loaded program and a connection hold
/// one each.
pub(super) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, there are fewer.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(least_limit("0::/a/b\n", root.path()), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        assert_eq!(least_limit("1:cpu:/x\n0::/a/b\n", root.path()), Some(1000));
        assert_eq!(least_limit("", root.path()), None);
    }
}
