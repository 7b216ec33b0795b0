//! What an output must be.

mod json;

use super::cases::At;
use regex::bytes::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What an output must be.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// This, to the byte.
    Exact {
        text: String,
        /// Where it stands in the test file.
        at: At,
    },
    Pattern(Pattern),
}

/// What must be true of an output: all that is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawPattern")]
pub(super) struct Pattern {
    contains: Vec<String>,
    regex: Option<Regex>,
    json: Option<Value>,
    /// It is what this file holds, to the byte.
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPattern {
    #[serde(default, deserialize_with = "one_or_more")]
    contains: Vec<String>,
    #[serde(default, deserialize_with = "regex")]
    regex: Option<Regex>,
    #[serde(default, deserialize_with = "json::written")]
    json: Option<Value>,
    file: Option<PathBuf>,
}

/// How an output is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It is another text.
    Differs { expected: Vec<u8> },
    /// What must be true of it is not, in one line.
    Not(String),
    /// The file that it is compared with cannot be read.
    NoFile(String),
}

impl TryFrom<RawPattern> for Pattern {
    type Error = &'static str;

    fn try_from(raw: RawPattern) -> Result<Self, &'static str> {
        let RawPattern { contains, regex, json, file } = raw;
        if contains.is_empty() && regex.is_none() && json.is_none() && file.is_none() {
            return Err("one of `contains`, `regex`, `json`, `file` is required");
        }
        Ok(Self { contains, regex, json, file })
    }
}

impl Expected {
    /// The file that holds the whole of it.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Exact { .. } => None,
            Self::Pattern(pattern) => pattern.file.as_deref(),
        }
    }

    /// What is wrong with an output; nothing if it is as it must be. `read` brings the file that is named.
    pub(super) fn check(&self, output: &[u8], read: impl Fn(&Path) -> Result<Vec<u8>, String>) -> Vec<Mismatch> {
        let differs = |expected: Vec<u8>| (expected != output).then_some(Mismatch::Differs { expected });
        let Pattern { contains, regex, json, file } = match self {
            Self::Exact { text, .. } => return differs(text.clone().into_bytes()).into_iter().collect(),
            Self::Pattern(pattern) => pattern,
        };
        let mut found = Vec::new();
        for part in contains {
            if !holds(output, part.as_bytes()) {
                found.push(Mismatch::Not(format!("does not contain {part:?}")));
            }
        }
        if let Some(regex) = regex
            && !regex.is_match(output)
        {
            found.push(Mismatch::Not(format!("does not match the regex {:?}", regex.as_str())));
        }
        if let Some(expected) = json {
            let problem = match serde_json::from_slice(output) {
                Ok(output) => json::mismatch(expected, &output),
                Err(e) => Some(format!("is no JSON: {e}")),
            };
            found.extend(problem.map(Mismatch::Not));
        }
        match file.as_deref().map(read) {
            Some(Ok(expected)) => found.extend(differs(expected)),
            Some(Err(problem)) => found.push(Mismatch::NoFile(problem)),
            None => {}
        }
        found
    }
}

fn holds(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

/// `"a"`, or `["a", "b"]`
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(one) => Some(vec![one]),
        toml::Value::Array(more) => more.into_iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_) => None,
    }
    .filter(|parts| !parts.is_empty())
    .ok_or_else(|| serde::de::Error::custom("must be a string, or an array of strings"))
}

fn regex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let written = String::deserialize(deserializer)?;
    // Of the last line alone: the lines before it draw where in the expression it is.
    let problem = |e: regex::Error| {
        let told = e.to_string();
        format!("{written:?} is no regex: {}", told.lines().next_back().unwrap_or_default())
    };
    Regex::new(&written).map(Some).map_err(problem).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(toml: &str) -> Result<Expected, String> {
        let pattern: Result<Pattern, _> = toml::from_str(toml);
        pattern.map(Expected::Pattern).map_err(|e| e.message().to_owned())
    }

    fn problems(expected: &Expected, output: &[u8]) -> Vec<String> {
        let none = |file: &Path| Err(format!("{}: not there", file.display()));
        let told = |mismatch| match mismatch {
            Mismatch::Differs { expected } => format!("not {:?}", String::from_utf8_lossy(&expected)),
            Mismatch::Not(problem) | Mismatch::NoFile(problem) => problem,
        };
        expected.check(output, none).into_iter().map(told).collect()
    }

    #[test]
    fn all_that_is_given_must_be_true() {
        let expected = pattern("contains = ['a', 'b']\nregex = '^x'").unwrap();
        assert!(problems(&expected, b"x a b").is_empty());
        assert_eq!(problems(&expected, b"a"), [r#"does not contain "b""#, r#"does not match the regex "^x""#]);
        let expected = pattern("json = { n = 1 }").unwrap();
        assert!(problems(&expected, b"{\"n\": 1, \"m\": 2}\n").is_empty());
        assert!(problems(&expected, b"n")[0].starts_with("is no JSON: "));
        assert_eq!(problems(&pattern("file = 'x'").unwrap(), b""), ["x: not there"]);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for (toml, problem) in [
            ("", "one of `contains`, `regex`, `json`, `file` is required"),
            ("contains = 1", "must be a string, or an array of strings"),
            ("contains = []", "must be a string, or an array of strings"),
            ("contain = 'x'", "unknown field `contain`"),
            ("regex = '('", "\"(\" is no regex: error: unclosed group"),
            ("json = 'x'", "is no JSON"),
        ] {
            let told = pattern(toml).unwrap_err();
            assert!(told.contains(problem), "{toml}: {told}");
        }
    }

    proptest! {
        #[test]
        fn an_exact_text_is_that_text_alone(text in ".*", output in ".*") {
            let expected = Expected::Exact { text: text.clone(), at: 0..0 };
            prop_assert!(problems(&expected, text.as_bytes()).is_empty());
            prop_assert_eq!(problems(&expected, output.as_bytes()).is_empty(), text == output);
        }

        #[test]
        fn every_part_of_a_text_is_contained(text in "[ab]{0,20}", from in 0_usize..20, len in 0_usize..20) {
            let part: String = text.chars().skip(from).take(len).collect();
            prop_assert!(holds(text.as_bytes(), part.as_bytes()));
            prop_assert_eq!(holds(part.as_bytes(), text.as_bytes()), part == text);
        }
    }
}
