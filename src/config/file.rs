//! The settings file: one for the server and for its clients.

use super::RawSettings;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer, ValueDeserializer};

/// The table of servers that have a name; everything else in the file is a setting.
pub const SERVERS: &str = "servers";

/// What a settings file says.
#[derive(Debug, Clone, Default)]
pub struct SettingsFile {
    /// The settings.
    pub settings: RawSettings,
    /// Which line says which of them.
    pub lines: BTreeMap<String, usize>,
    /// The servers that clients know by a name.
    pub servers: BTreeMap<String, NamedServer>,
}

/// `[servers.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// As it was written.
    pub url: String,
    /// Where it was written.
    pub line: usize,
}

/// A line that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {problem}")]
pub struct Mistake {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no TOML, says the parser.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing.
    #[error("there is no setting {0}")]
    Unknown(String),
    /// A key that means something, and a value that does not.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: String,
        /// Why the value cannot be.
        problem: String,
    },
}

impl SettingsFile {
    /// Reads one.
    ///
    /// # Errors
    /// All that is wrong in it, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let line_at = |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, line_at);
            vec![Mistake { line, problem: Problem::Syntax(error.message().to_owned()) }]
        })?;
        let known = RawSettings::names();
        let (mut file, mut mistakes) = (Self::default(), Vec::new());
        for (key, value) in document.into_inner() {
            let (line, name) = (line_at(key.span()), key.get_ref().clone().into_owned());
            if name == SERVERS {
                mistakes.extend(file.name_servers(value, line_at));
            } else if !known.iter().any(|known| known.key == name) {
                mistakes.push(Mistake { line, problem: Problem::Unknown(name) });
            } else {
                match setting(key, value) {
                    Ok(setting) => {
                        file.settings = setting.or(file.settings);
                        file.lines.insert(name, line);
                    }
                    Err(problem) => mistakes.push(Mistake { line, problem: Problem::Value { key: name, problem } }),
                }
            }
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() { Ok(file) } else { Err(mistakes) }
    }

    /// Takes up the table of servers, and returns what is wrong with it.
    fn name_servers(&mut self, table: Spanned<DeValue<'_>>, line_at: impl Fn(Range<usize>) -> usize) -> Vec<Mistake> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Server {
            url: String,
        }
        let wrong = |line, key: String, problem: &str| Mistake {
            line,
            problem: Problem::Value { key, problem: problem.to_owned() },
        };
        let line = line_at(table.span());
        let DeValue::Table(table) = table.into_inner() else {
            return vec![wrong(line, SERVERS.to_owned(), "must be tables: [servers.NAME]")];
        };
        let mut mistakes = Vec::new();
        for (name, server) in table {
            let line = line_at(name.span());
            let name = name.into_inner().into_owned();
            if !is_name(&name) {
                mistakes.push(wrong(
                    line,
                    format!("{SERVERS}.{name:?}"),
                    "a name is letters, digits, `-`, `_` and `.`",
                ));
                continue;
            }
            match Server::deserialize(ValueDeserializer::from(server)) {
                Ok(Server { url }) => {
                    self.servers.insert(name, NamedServer { url, line });
                }
                Err(error) => {
                    let line = error.span().map_or(line, &line_at);
                    mistakes.push(wrong(line, format!("{SERVERS}.{name}"), error.message()));
                }
            }
        }
        mistakes
    }
}

/// One that nobody takes for a URL, and that does nothing to a terminal.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// One setting by itself, so that each can say what is wrong with it.
fn setting(key: Spanned<DeString<'_>>, value: Spanned<DeValue<'_>>) -> Result<RawSettings, String> {
    let table = Spanned::new(key.span(), DeTable::from_iter([(key, value)]));
    let setting = RawSettings::deserialize(Deserializer::from(table));
    setting.map_err(|error| error.message().to_owned())?.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_know_their_lines() {
        let file = SettingsFile::parse(
            "# ours\nserver = \"prod\"\nmax-running = 7\n\n[servers.prod]\nurl = \"http://a:1\"\n[servers.b-2]\nurl = \"http://b\"\n",
        )
        .unwrap();
        assert_eq!(file.settings.client.server.as_deref(), Some("prod"));
        assert_eq!(file.settings.server.max_running, Some(7));
        assert_eq!((file.lines["server"], file.lines["max-running"], file.lines.len()), (2, 3, 2));
        let servers: Vec<(&str, &str, usize)> =
            file.servers.iter().map(|(name, server)| (name.as_str(), server.url.as_str(), server.line)).collect();
        assert_eq!(servers, [("b-2", "http://b", 7), ("prod", "http://a:1", 5)]);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = "listne = 1\nmax-running = 0\nmemory = true\nlisten = \"x\"\nlog-format = \"xml\"\nserver = 1\n\
                    drain = \"2d\"\n[servers.a]\nurl = 1\n[servers.b]\naccess = \"x\"\n[servers.\"x y\"]\n[servers.c]\n";
        let told: Vec<String> = SettingsFile::parse(text).unwrap_err().iter().map(Mistake::to_string).collect();
        for (told, expected) in told.iter().zip([
            "1: there is no setting listne",
            "2: max-running: 0 is not between 1 and 10000",
            "3: memory: must be a number or a string",
            "4: listen: invalid socket address syntax",
            "5: log-format: unknown variant `xml`, expected `text` or `json`",
            "6: server: invalid type: integer `1`, expected a string",
            "7: drain: \"2d\" is not a time such as 30s, 500ms or 5m, at most a day",
            "9: servers.a: invalid type: integer `1`, expected a string",
            "11: servers.b: unknown field `access`, expected `url`",
            "12: servers.\"x y\": a name is letters, digits, `-`, `_` and `.`",
            "13: servers.c: missing field `url`",
        ]) {
            assert_eq!(told, expected);
        }
        assert_eq!(told.len(), 11, "{told:?}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for (text, line) in [("a = 1\nb", 2), ("drain = 1\n\ndrain = 2", 3), ("[servers", 1), ("servers = 1", 1)] {
            let told = SettingsFile::parse(text).unwrap_err();
            assert!(told.iter().any(|mistake| mistake.line == line), "{text}: {told:?}");
        }
    }
}
