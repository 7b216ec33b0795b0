//! The settings file, and the server that a client asks.

use super::client::{Client, ServerUrl};
use super::exit::{self, USAGE};
use super::host;
use super::suggest::nearest;
use crate::config::{
    Config, Host, Mistake, NamedServer, Problem, RawClient, RawConfig, RawSettings, SERVER, SERVERS, SettingsFile,
};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The largest settings file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the settings file is.
#[derive(clap::Args)]
pub(super) struct FileFlag {
    /// The settings file [default: ~/.config/hyperfunc/hyperfunc.toml]
    #[arg(long = "config", env = "HYPERFUNC_CONFIG", value_name = "FILE")]
    path: Option<PathBuf>,
}

/// The server to ask, and the settings file that may name it.
#[derive(clap::Args)]
pub(super) struct ServerFlags {
    #[command(flatten)]
    client: RawClient,
    #[command(flatten)]
    settings: FileFlag,
}

impl ServerFlags {
    /// The client of that server.
    ///
    /// # Errors
    /// When the settings file is wrong, or names no such server.
    pub(super) fn client(self) -> anyhow::Result<Client> {
        let settings = self.settings.read()?;
        let named = self.client.server.map_or_else(|| settings.server(), |server| settings.find("--server", &server));
        Ok(named.map_err(|problem| exit::with(USAGE, problem))?.client())
    }
}

/// The settings file, as it was found.
pub(super) struct Settings {
    /// Where it is, or would be; `None` for a user without a home.
    pub(super) path: Option<PathBuf>,
    pub(super) is_there: bool,
    pub(super) file: SettingsFile,
}

impl FileFlag {
    /// The file, if one was named.
    pub(super) fn named(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the file. That which is named must be there, the default one need not be.
    ///
    /// The current directory is not looked into: whoever's checkout somebody stands in would choose the server that gets
    /// their modules and calls.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub(super) fn read(&self) -> anyhow::Result<Settings> {
        let Some(path) = self.path.clone().or_else(host::settings_file) else {
            return Ok(Settings { path: None, is_there: false, file: SettingsFile::default() });
        };
        let text = match text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.is_none() => {
                return Ok(Settings { path: Some(path), is_there: false, file: SettingsFile::default() });
            }
            Err(error) => {
                return Err(exit::with(USAGE, format_args!("the settings file {}: {error}", path.display())));
            }
        };
        let mistakes = match SettingsFile::parse(&text) {
            Ok(file) => {
                let settings = Settings { path: Some(path), is_there: true, file };
                let mistakes = settings.wrong_servers();
                if mistakes.is_empty() {
                    return Ok(settings);
                }
                mistakes
            }
            Err(mistakes) => mistakes.iter().map(|mistake| told(&path, mistake)).collect(),
        };
        Err(exit::with(USAGE, mistakes.join("\n")))
    }
}

impl Settings {
    /// The settings of the server on this machine, of which `stronger` win over those of the file.
    ///
    /// # Errors
    /// Names the first that is wrong.
    pub(super) fn of_server(&self, stronger: RawConfig) -> anyhow::Result<Config> {
        let this_host = Host { memory_bytes: host::memory_available(), data: host::data_dir() };
        let raw = stronger.or(self.file.settings.server.clone());
        Config::new(raw, this_host).map_err(|invalid| exit::with(USAGE, invalid))
    }

    /// The server that is asked when neither a flag nor a variable says which.
    ///
    /// # Errors
    /// When there is none of its name.
    pub(super) fn server(&self) -> Result<ServerUrl, String> {
        let of_file = self.file.settings.client.server.as_deref();
        of_file.map_or_else(|| SERVER.parse(), |server| self.find("server", server))
    }

    /// The server of that URL or name, which `key` has as its value.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn find(&self, key: &str, server: &str) -> Result<ServerUrl, String> {
        if server.is_empty() {
            return Err(format!("{key}: must be a URL, or a name from the settings file"));
        }
        if server.contains("://") {
            return server.parse().map_err(|problem| format!("{key} {server}: {problem}"));
        }
        match self.file.servers.get(server) {
            Some(named) => named.url.parse(),
            None => Err(format!("{key}: no server named {server}: {}", self.whom_it_knows(server))),
        }
    }

    /// What helps whoever named a server that is unknown.
    fn whom_it_knows(&self, server: &str) -> String {
        let names: Vec<String> = self.file.servers.keys().cloned().collect();
        let known = match (&self.path, &names[..]) {
            (Some(path), []) if self.is_there => format!("{} names none", path.display()),
            (Some(path), []) => format!("there is no {}", path.display()),
            (Some(path), [name]) => format!("{name} is in {}", path.display()),
            (Some(path), names) => format!("{} are in {}", names.join(", "), path.display()),
            (None, _) => "there is no settings file".to_owned(),
        };
        let url = format!("http://{server}");
        let meant = match nearest(server, &names) {
            None if server.contains([':', '/']) && url.parse::<ServerUrl>().is_ok() => Some(url.as_str()),
            near => near,
        };
        meant.map_or_else(|| known.clone(), |meant| format!("{known}; did you mean {meant}?"))
    }

    /// Where the file says something.
    pub(super) fn place(&self, line: usize) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        format!("{}:{line}", path.display())
    }

    /// Which servers of the file are none.
    fn wrong_servers(&self) -> Vec<String> {
        let wrong = |(name, NamedServer { url, line }): (&String, &NamedServer)| {
            let problem = url.parse::<ServerUrl>().err()?;
            Some(format!("{}: {SERVERS}.{name}: url {url}: {problem}", self.place(*line)))
        };
        let mut mistakes: Vec<String> = self.file.servers.iter().filter_map(wrong).collect();
        // A name whose URL is wrong would be told of twice.
        if mistakes.is_empty()
            && let Err(problem) = self.server()
        {
            let line = self.file.lines.get("server").copied().unwrap_or(1);
            mistakes.push(format!("{}: {problem}", self.place(line)));
        }
        mistakes
    }
}

/// A file's text, if it is not too long.
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// A mistake in a line, and what was probably meant.
fn told(path: &Path, mistake: &Mistake) -> String {
    let told = format!("{}:{mistake}", path.display());
    let Problem::Unknown(key) = &mistake.problem else { return told };
    let mut known: Vec<String> = RawSettings::names().into_iter().map(|name| name.key).collect();
    known.push(SERVERS.to_owned());
    match nearest(key, &known) {
        Some(meant) => format!("{told}; did you mean {meant}?"),
        None => told,
    }
}
