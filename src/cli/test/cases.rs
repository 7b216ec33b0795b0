//! What a `*.test.toml` says (`docs/api.md` section 8, "test").

mod text;

use crate::api::RequestView;
use crate::domain::{ContainerSize, Env, Invalid, STDIN_BYTES_MAX, Timeout};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

use super::matching::{Expected, Pattern};
pub(super) use text::Malformed;
use text::{Source, TextOr};

/// The end of a test file's name.
pub(super) const SUFFIX: &str = ".test.toml";
/// The largest test file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
/// Cases in one test file, at most.
const CASES_MAX: usize = 10_000;
/// What a case may take unless it says otherwise: a test that hangs is noticed before its author has lost patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A test file.
#[derive(Debug)]
pub(super) struct TestFile {
    pub(super) path: PathBuf,
    /// As it was read: `--update` changes it in places.
    pub(super) text: String,
    /// What its cases run.
    pub(super) module: PathBuf,
    pub(super) cases: Vec<Case>,
}

/// One execution of the module, and what must come of it.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) given: Given,
    pub(super) expected: Expectations,
}

/// What a guest is given.
#[derive(Debug)]
pub(super) struct Given {
    /// Without `argv[0]`.
    pub(super) argv: Vec<String>,
    pub(super) env: Env,
    pub(super) stdin: Stdin,
    pub(super) request: Request,
    pub(super) bounds: Bounds,
}

/// How much of the machine it may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) size: ContainerSize,
    pub(super) timeout: Duration,
    pub(super) fuel: Option<u64>,
}

/// Where a guest's stdin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stdin {
    Text(String),
    File(PathBuf),
}

/// What must come of an execution.
#[derive(Debug)]
pub(super) struct Expectations {
    pub(super) stdout: Option<Expected>,
    pub(super) stderr: Option<Expected>,
    pub(super) end: End,
    pub(super) max_ms: Option<f64>,
    pub(super) max_fuel: Option<u64>,
}

/// How an execution must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Other(Cut),
}

/// The endings that are no exit: each is the first word of its message (`docs/api.md` section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cut {
    Trap,
    Timeout,
    Fuel,
    Memory,
    Output,
}

/// The request of a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[serde(default = "Request::method")]
    method: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

// A case has the keys of its file once more: serde refuses unknown keys only of what it does not flatten.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    module: Option<PathBuf>,
    argv: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    stdin: Option<TextOr<FileOf>>,
    request: Option<Request>,
    #[serde(default, deserialize_with = "size")]
    size: Option<ContainerSize>,
    #[serde(default, deserialize_with = "timeout")]
    timeout: Option<Duration>,
    fuel: Option<u64>,
    #[serde(default)]
    case: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: Spanned<String>,
    argv: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    stdin: Option<TextOr<FileOf>>,
    request: Option<Request>,
    #[serde(default, deserialize_with = "size")]
    size: Option<ContainerSize>,
    #[serde(default, deserialize_with = "timeout")]
    timeout: Option<Duration>,
    fuel: Option<u64>,
    stdout: Option<Spanned<TextOr<Pattern>>>,
    stderr: Option<Spanned<TextOr<Pattern>>>,
    exit: Option<i32>,
    ending: Option<Cut>,
    max_ms: Option<f64>,
    max_fuel: Option<u64>,
}

/// `{ file = "in.txt" }`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileOf {
    file: PathBuf,
}

impl Request {
    fn method() -> String {
        "POST".to_owned()
    }

    /// The variables that its guest sees.
    ///
    /// # Errors
    /// Names what no server would take.
    pub(super) fn variables(&self, function: &str, body: &Bytes) -> Result<Vec<crate::domain::Variable>, Invalid> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        RequestView { method: &self.method, query: &self.query, headers: &headers }.variables(function, body)
    }
}

impl Default for Request {
    fn default() -> Self {
        Self { method: Self::method(), query: String::new(), headers: BTreeMap::new() }
    }
}

impl TestFile {
    /// Reads what a test file says. Files that it names are not looked at.
    ///
    /// # Errors
    /// What is wrong with it: the line, the case, the key.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Malformed> {
        let source = Source { path, text: &text };
        let raw: RawFile = toml::from_str(&text).map_err(|e| source.malformed(e.span(), e.message()))?;
        let cases = raw.cases(&source)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let module = raw.module.map_or_else(|| module_beside(path), |module| dir.join(module));
        Ok(Self { path: path.to_owned(), text, module, cases })
    }

    /// What the cases are called together: the file's path, without what all such names end in.
    pub(super) fn title(&self) -> String {
        let path = self.path.display().to_string();
        let path = path.strip_prefix("./").unwrap_or(&path);
        path.strip_suffix(SUFFIX).unwrap_or(path).to_owned()
    }

    /// What the module is called as a function, and by itself: `argv[0]`.
    pub(super) fn function(&self) -> String {
        self.module.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The files that a case names.
    pub(super) fn files_of<'a>(&'a self, case: &'a Case) -> impl Iterator<Item = PathBuf> + 'a {
        let stdin = match &case.given.stdin {
            Stdin::Text(_) => None,
            Stdin::File(file) => Some(file),
        };
        let expected = [&case.expected.stdout, &case.expected.stderr].into_iter().flatten().filter_map(Expected::file);
        stdin.map(PathBuf::as_path).into_iter().chain(expected).map(|file| self.beside(file))
    }

    /// Where a file is that is named in this one.
    pub(super) fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }
}

/// The module that a test file is about unless it says otherwise: `x.wasm`, or `x.wat` if there is only that.
fn module_beside(path: &Path) -> PathBuf {
    // Of the two parts of the suffix, one each.
    let [wasm, wat] = ["wasm", "wat"].map(|extension| path.with_extension("").with_extension(extension));
    if !wasm.exists() && wat.exists() { wat } else { wasm }
}

impl RawFile {
    fn cases(&self, source: &Source) -> Result<Vec<Case>, Malformed> {
        if self.case.is_empty() {
            return Err(source.malformed(None, "it has no [[case]]"));
        }
        if self.case.len() > CASES_MAX {
            return Err(source.malformed(None, &format!("it has more than {CASES_MAX} cases")));
        }
        let mut names = HashSet::new();
        let twice = self.case.iter().find(|case| !names.insert(case.name.get_ref().as_str()));
        if let Some(case) = twice {
            return Err(source.malformed(Some(case.name.span()), "name: another case has it too"));
        }
        self.case.iter().map(|case| self.case(case, source)).collect()
    }

    fn case(&self, raw: &RawCase, source: &Source) -> Result<Case, Malformed> {
        let malformed = |problem: &str| {
            // Each begins with its key.
            let key = problem.split(": ").next().unwrap_or_default();
            source.malformed(Some(source.value(raw.name.span(), key)), problem)
        };
        let name = raw.name.get_ref().clone();
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(malformed("name: must be one line that is not blank"));
        }
        let end = match (raw.exit, raw.ending) {
            (Some(_), Some(_)) => return Err(malformed("exit: not beside `ending`, which is another way to end")),
            (None, Some(cut)) => End::Other(cut),
            (exit, None) => End::Exit(exit.unwrap_or(0)),
        };
        if raw.max_ms.is_some_and(|max| max.is_nan() || max < 0.0) {
            return Err(malformed("max_ms: must be a number of milliseconds"));
        }
        let given = self.given(raw).map_err(|e| malformed(&e.to_string()))?;
        if raw.max_fuel.is_some() && given.bounds.fuel.is_some() {
            return Err(malformed("max_fuel: not beside `fuel`, which ends the guest instead"));
        }
        let expected = |expected: &Option<Spanned<TextOr<Pattern>>>| expected.as_ref().map(expected_of);
        let expected = Expectations {
            stdout: expected(&raw.stdout),
            stderr: expected(&raw.stderr),
            end,
            max_ms: raw.max_ms,
            max_fuel: raw.max_fuel,
        };
        Ok(Case { name, given, expected })
    }

    /// What a case says itself, and else what the file says for all of them.
    fn given(&self, case: &RawCase) -> Result<Given, Invalid> {
        let mut env = self.env.clone();
        env.extend(case.env.clone());
        if let Some(name) = env.keys().find(|name| name.contains('=')) {
            return Err(Invalid::new("env", format!("{name:?} has a `=` in its name")));
        }
        let env = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let env = Env::new(env).map_err(|e| Invalid::new("env", e.problem))?;
        let stdin = match case.stdin.clone().or_else(|| self.stdin.clone()) {
            None => Stdin::Text(String::new()),
            Some(TextOr::Text(text)) => Stdin::Text(text),
            Some(TextOr::Table(FileOf { file })) => Stdin::File(file),
        };
        let request = case.request.clone().or_else(|| self.request.clone()).unwrap_or_default();
        // The same for every body that is not too large, but for its length.
        request.variables("", &Bytes::new()).map_err(|e| Invalid::new(format!("request.{}", e.field), e.problem))?;
        if matches!(&stdin, Stdin::Text(text) if text.len() > STDIN_BYTES_MAX) {
            return Err(Invalid::new("stdin", "is larger than 1 MB: a server answers 413"));
        }
        let bounds = Bounds {
            size: case.size.or(self.size).unwrap_or_default(),
            timeout: case.timeout.or(self.timeout).unwrap_or(TIMEOUT),
            fuel: case.fuel.or(self.fuel).filter(|fuel| *fuel > 0),
        };
        let argv = case.argv.clone().or_else(|| self.argv.clone()).unwrap_or_default();
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Invalid::new("argv", "an argument contains a NUL"));
        }
        Ok(Given { argv, env, stdin, request, bounds })
    }
}

fn expected_of(written: &Spanned<TextOr<Pattern>>) -> Expected {
    match written.get_ref() {
        TextOr::Text(text) => Expected::Exact { text: text.clone(), at: written.span() },
        TextOr::Table(pattern) => Expected::Pattern(pattern.clone()),
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ContainerSize>, D::Error> {
    let name = String::deserialize(deserializer)?;
    ContainerSize::parse(&name).map(Some).map_err(|e| serde::de::Error::custom(format_args!("size: {}", e.problem)))
}

/// Seconds, and parts of them: a case that is to run into its timeout need not take long.
fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let max = Timeout::SECONDS_MAX;
    let seconds = f64::deserialize(deserializer)?;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    let duration = duration.filter(|d| !d.is_zero() && d.as_secs_f64() <= max.into());
    let problem = || serde::de::Error::custom(format_args!("timeout: must be more than 0 and at most {max} seconds"));
    duration.map(Some).ok_or_else(problem)
}

/// A place in a text, in bytes.
pub(super) type At = Range<usize>;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TestFile, String> {
        TestFile::parse(Path::new("dir/x.test.toml"), text.to_owned()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_case_is_a_name_and_what_it_says_else_what_the_file_says() {
        let file = parse(
            r#"
            module = "../m.wat"
            argv = ["a"]
            env = { A = "1", B = "2" }
            stdin = "in"
            size = "S1"
            timeout = 0.5
            [[case]]
            name = "defaults"
            [[case]]
            name = "own"
            argv = []
            env = { B = "3" }
            stdin = { file = "in.txt" }
            size = "s2"
            timeout = 2
            fuel = 7
            exit = 3
            stdout = { file = "out.txt" }
            "#,
        )
        .unwrap();
        assert_eq!((file.module.to_str().unwrap(), file.function()), ("dir/../m.wat", "m".to_owned()));
        assert_eq!(file.title(), "dir/x");
        let [defaults, own] = &file.cases[..] else { panic!("two cases") };
        assert_eq!((&defaults.given.argv[..], &own.given.argv[..]), (&["a".to_owned()][..], &[][..]));
        assert_eq!(defaults.given.env.variables(), ["A=1", "B=2"]);
        assert_eq!(own.given.env.variables(), ["A=1", "B=3"]);
        let bounds = |size, ms, fuel| Bounds { size, timeout: Duration::from_millis(ms), fuel };
        assert_eq!(defaults.given.bounds, bounds(ContainerSize::S1, 500, None));
        assert_eq!(own.given.bounds, bounds(ContainerSize::S2, 2000, Some(7)));
        assert_eq!((defaults.expected.end, own.expected.end), (End::Exit(0), End::Exit(3)));
        let files: Vec<_> = file.files_of(own).collect();
        assert_eq!(files, [Path::new("dir/in.txt"), Path::new("dir/out.txt")]);
    }

    #[test]
    fn without_more_a_case_is_a_post_of_nothing_that_has_ten_seconds() {
        let file = parse("[[case]]\nname = 'x'").unwrap();
        assert_eq!(file.module, Path::new("dir/x.wasm"));
        let given = &file.cases[0].given;
        assert_eq!(given.bounds, Bounds { size: ContainerSize::S4, timeout: TIMEOUT, fuel: None });
        assert_eq!((given.stdin.clone(), given.request.clone()), (Stdin::Text(String::new()), Request::default()));
    }

    #[test]
    fn what_is_malformed_is_told_with_its_file_line_case_and_key() {
        let case = |keys: &str| format!("# first\n[[case]]\nname = 'c'\n{keys}");
        for (text, problem) in [
            ("foo = 1".to_owned(), "dir/x.test.toml:1: unknown field `foo`"),
            ("timeout = 0".to_owned(), "dir/x.test.toml:1: timeout: must be more than 0"),
            (String::new(), "dir/x.test.toml: it has no [[case]]"),
            ("a = = 1".to_owned(), "dir/x.test.toml:1: "),
            ("[[case]]\nargv = []".to_owned(), "dir/x.test.toml:1: missing field `name`"),
            (case("exit = 'a'"), "dir/x.test.toml:4: case \"c\": exit: invalid type: string \"a\""),
            (case("stdot = ''"), "dir/x.test.toml:4: case \"c\": unknown field `stdot`"),
            (case("stdout = 3"), "dir/x.test.toml:4: case \"c\": stdout: invalid type: integer `3`, expected a string"),
            (case("stdout = {}"), "dir/x.test.toml:4: case \"c\": stdout: one of `contains`"),
            (case("stdout = { regex = '(' }"), "dir/x.test.toml:4: case \"c\": stdout.regex: \"(\" is no regex"),
            (case("stdin = { fil = 'x' }"), "dir/x.test.toml:4: case \"c\": stdin: unknown field `fil`"),
            (case("ending = 'exit'"), "dir/x.test.toml:4: case \"c\": ending: unknown variant `exit`"),
            (case("size = 's9'"), "dir/x.test.toml:4: case \"c\": size: \"s9\" is none of s1"),
            (case("exit = 1\nending = 'trap'"), "dir/x.test.toml:4: case \"c\": exit: not beside `ending`"),
            (case("fuel = 1\nmax_fuel = 1"), "dir/x.test.toml:5: case \"c\": max_fuel: not beside `fuel`"),
            (case("max_ms = -1"), "dir/x.test.toml:4: case \"c\": max_ms: "),
            (case("env = { '' = 'x' }"), "dir/x.test.toml:4: case \"c\": env: \"=x\" has an empty name"),
            (case("env = { 'a=b' = 'x' }"), "dir/x.test.toml:4: case \"c\": env: \"a=b\" has a `=`"),
            (case("request = { method = 'FOO' }"), "dir/x.test.toml:4: case \"c\": request.method: must be GET"),
            (case("argv = []\n[case.request]\nmethod = 'FOO'"), "dir/x.test.toml:6: case \"c\": request.method: "),
            (format!("request = {{ method = 'FOO' }}\n{}", case("")), "dir/x.test.toml:1: request.method: "),
            (case("request = { headers = { 'a b' = 'x' } }"), "dir/x.test.toml:4: case \"c\": request.headers.a b: "),
            (case("[[case]]\nname = 'c'"), "dir/x.test.toml:5: case \"c\": name: another case has it too"),
            ("[[case]]\nname = ' '".to_owned(), "dir/x.test.toml:2: case \" \": name: must be one line"),
        ] {
            let told = parse(&text).unwrap_err();
            assert!(told.starts_with(problem), "{text}\n  told:     {told}\n  expected: {problem}");
        }
        let large = case(&format!("stdin = '{}'", "x".repeat(STDIN_BYTES_MAX + 1)));
        assert!(parse(&large).unwrap_err().contains("stdin: is larger than 1 MB"));
        let many: String = (0..=CASES_MAX).map(|number| format!("[[case]]\nname = '{number}'\n")).collect();
        assert!(parse(&many).unwrap_err().contains("more than 10000 cases"));
    }
}
