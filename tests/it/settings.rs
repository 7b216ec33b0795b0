//! Where settings come from, and which wins (`docs/api.md` section 8, "Settings").

use crate::harness::program::{ended, failed, printed};
use crate::harness::{Server, binary};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Somebody with a home, and nothing in it.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// Somebody with a settings file where it is looked for.
    fn with(settings: &str) -> Self {
        let user = Self::new();
        fs::create_dir_all(user.file().parent().unwrap()).unwrap();
        fs::write(user.file(), settings).unwrap();
        user
    }

    fn file(&self) -> PathBuf {
        self.home.path().join(".config/hyperfunc/hyperfunc.toml")
    }

    /// Another file of this user's.
    fn another(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The program as this user starts it, at home.
    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = binary();
        for of_whoever_tests in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            program.env_remove(of_whoever_tests);
        }
        program.env("HOME", self.home.path()).current_dir(self.home.path()).args(arguments);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        ended(self.program(arguments).spawn().unwrap())
    }

    /// What `config` tells of a setting: its value, and where it is from.
    fn setting(&self, variables: &[(&str, &str)], arguments: &[&str], name: &str) -> (Value, String) {
        let mut program = self.program(&[&["config", "--json"], arguments].concat());
        program.envs(variables.iter().copied());
        let told: Value = serde_json::from_str(&printed(ended(program.spawn().unwrap()))).unwrap();
        let settings = told["Settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["Name"] == name).unwrap();
        (setting["Value"].clone(), setting["From"].as_str().unwrap().to_owned())
    }

    /// Where a line of the user's file is.
    fn at_line(&self, line: usize) -> String {
        format!("{}:{line}", self.file().display())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let user = User::with("# mine\nmax-running = 7\nserver = \"http://a:1\"\n");
    let variables = [("HYPERFUNC_MAX_RUNNING", "8"), ("HYPERFUNC_SERVER", "http://b:2")];
    for (name, of_variable, of_file, line, default) in [
        ("max-running", json!(8), json!(7), 2, json!(100)),
        ("server", json!("http://b:2"), json!("http://a:1"), 3, json!("http://127.0.0.1:8080")),
    ] {
        let variable =
            variables.iter().find(|(variable, _)| variable.to_lowercase().ends_with(&name.replace('-', "_")));
        assert_eq!(user.setting(&variables, &[], name), (of_variable, variable.unwrap().0.to_owned()));
        assert_eq!(user.setting(&[], &[], name), (of_file, user.at_line(line)));
        assert_eq!(User::new().setting(&[], &[], name), (default, "default".to_owned()));
    }
}

#[test]
fn a_server_has_the_settings_that_are_told() {
    let settings = "quota-functions = 1\nquota-images = 2\nquota-image-bytes = \"3MB\"\n";
    let user = User::with(settings);
    let data = user.home.path().join("data");
    let serve = |user: &User, arguments: &[&str]| {
        let mut program = user.program(&[]);
        program.env("HYPERFUNC_QUOTA_FUNCTIONS", "4").env("HYPERFUNC_QUOTA_IMAGES", "5");
        let server = Server::try_as(program, &data, arguments).unwrap();
        let quota = server.get("/info").json()["Quotas"].clone();
        ["Functions", "Images", "ImageBytes"].map(|key| quota[key].as_u64().unwrap())
    };
    assert_eq!(serve(&user, &["--quota-functions", "6"]), [6, 5, 3 << 20]);
    let named = user.another("named.toml", settings);
    assert_eq!(serve(&User::new(), &["--config", text(&named)]), [4, 5, 3 << 20]);
}

#[test]
fn the_file_is_the_one_that_is_named_else_that_of_the_user() {
    let user = User::with("max-running = 1\n");
    let (by_flag, by_variable) =
        (user.another("flag.toml", "max-running = 2\n"), user.another("variable.toml", "max-running = 3\n"));
    let xdg = user.home.path().join("xdg");
    fs::create_dir_all(xdg.join("hyperfunc")).unwrap();
    fs::write(xdg.join("hyperfunc/hyperfunc.toml"), "max-running = 4\n").unwrap();
    let (variable, xdg) = (("HYPERFUNC_CONFIG", text(&by_variable)), ("XDG_CONFIG_HOME", text(&xdg)));

    let running = |variables: &[(&str, &str)], arguments: &[&str]| user.setting(variables, arguments, "max-running").0;
    assert_eq!(running(&[], &[]), 1);
    assert_eq!(running(&[variable, xdg], &["--config", text(&by_flag)]), 2);
    assert_eq!(running(&[variable, xdg], &[]), 3);
    assert_eq!(running(&[xdg], &[]), 4);
}

#[test]
fn no_file_is_taken_from_where_somebody_stands() {
    let user = User::new();
    for name in ["hyperfunc.toml", ".hyperfunc.toml"] {
        user.another(name, "max-running = 5\n");
    }
    assert_eq!(user.setting(&[], &[], "max-running"), (json!(100), "default".to_owned()));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let user = User::new();
    let large = user.another("large.toml", &"# far too long\n".repeat(100_000));
    for (file, why) in
        [("nowhere.toml", "No such file"), (text(user.home.path()), "Is a directory"), (text(&large), "file too large")]
    {
        for verb in ["config", "serve", "ls", "images", "version", "audit"] {
            let (status, said) = failed(user.run(&[verb, "--config", file]));
            assert_eq!(status, 2, "{verb}: {said}");
            assert!(said.contains(file) && said.contains(why), "{verb}: {said}");
        }
    }
    let mut program = user.program(&["ls"]);
    let (status, said) = failed(ended(program.env("HYPERFUNC_CONFIG", "gone.toml").spawn().unwrap()));
    assert!(status == 2 && said.contains("gone.toml"), "{said}");
}

#[test]
fn every_mistake_in_a_file_is_told_to_every_verb() {
    let user = User::with(
        "listne = 1\nmax-running = 0\n\nmemory = [1]\nserver = \"nobody\"\n[servers.prod]\nurl = \"x\"\naccess = \"a\"\n",
    );
    for arguments in [&["config"][..], &["serve"], &["ls"], &["load", "x.wasm"], &["func", "ls"], &["backup", "x"]] {
        let (status, said) = failed(user.run(arguments));
        assert_eq!(status, 2, "{arguments:?}: {said}");
        let said: Vec<&str> = said.trim_start_matches("hyperfunc: ").lines().collect();
        let expected = [
            (1, "there is no setting listne; did you mean listen?"),
            (2, "max-running: 0 is not between 1 and 10000"),
            (4, "memory: must be a number or a string"),
            (8, "servers.prod: unknown field `access`, expected `url`"),
        ];
        assert_eq!(said, expected.map(|(line, problem)| format!("{}: {problem}", user.at_line(line))), "{arguments:?}");
    }
    for (settings, line, problem) in [
        ("max-running 1\n", 1, "key with no value, expected `=`"),
        ("[servers.a]\nurl = \"x\"\n", 1, "servers.a: url x: must be a URL like http://127.0.0.1:8080"),
        ("[servers.a]\nurl = \"https://x\"\n", 1, "servers.a: url https://x: this version speaks http only"),
        ("log = \"loud\"", 1, "log: loud is none of off, error, "),
        ("\nserver = \"b\"\n[servers.a]\nurl = \"http://x\"\n", 2, "server: no server named b: a is in "),
    ] {
        fs::write(user.file(), settings).unwrap();
        let (status, said) = failed(user.run(&["ls"]));
        assert_eq!(status, 2, "{said}");
        assert!(said.starts_with(&format!("hyperfunc: {}: {problem}", user.at_line(line))), "{settings}: {said}");
    }
}

#[test]
fn a_flag_of_the_server_that_cannot_be_is_wrong_usage() {
    for [flag, value] in [["--max-running", "0"], ["--log", "loud"], ["--memory", "1MB"], ["--listen", "0.0.0.0:0"]] {
        let (status, said) = failed(User::new().run(&["serve", flag, value]));
        assert!(status == 2 && said.starts_with(&format!("hyperfunc: {flag}: ")), "{status} {said}");
    }
}

#[test]
fn every_wrong_variable_is_told_with_the_file() {
    let user = User::with("max-running = 0\n");
    let mut program = user.program(&["config"]);
    program.env("HYPERFUNC_LISTEN", "0.0.0.0:80").env("HYPERFUNC_DRAIN", "soon").env("HYPERFUNC_LOG_FORMAT", "xml");
    let (status, said) = failed(ended(program.spawn().unwrap()));
    assert_eq!(status, 2);
    for told in ["HYPERFUNC_LISTEN: 0.0.0.0:80", "HYPERFUNC_DRAIN: ", "HYPERFUNC_LOG_FORMAT: ", &user.at_line(1)] {
        assert_eq!(said.lines().filter(|line| line.contains(told)).count(), 1, "{told}: {said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");

    let user = User::new();
    let mut program = user.program(&["config"]);
    let (status, said) = failed(ended(program.env("HYPERFUNC_SERVER", "prod").spawn().unwrap()));
    assert!(status == 2 && said.contains("HYPERFUNC_SERVER: no server named prod: "), "{said}");
}

#[test]
fn servers_have_names() {
    let (one, other) = (Server::start(), Server::start());
    for (server, function) in [(&one, "f"), (&other, "g")] {
        server.function(function, "(module (func (export \"_start\")))", json!({}));
    }
    let user = User::with(&format!(
        "server = \"one\"\n[servers.one]\nurl = \"http://{}\"\n[servers.other]\nurl = \"http://{}/\"\n",
        one.address, other.address
    ));
    let asks = |variable: Option<&str>, flag: Option<&str>| {
        let mut program = user.program(&["ls", "-q"]);
        program.envs(variable.map(|server| ("HYPERFUNC_SERVER", server)));
        program.args(flag.map(|server| ["--server", server]).into_iter().flatten());
        printed(ended(program.spawn().unwrap()))
    };
    let url = format!("http://{}", other.address);
    assert_eq!(asks(None, None), "f\n");
    assert_eq!(asks(Some("other"), None), "g\n");
    assert_eq!(asks(Some(&url), None), "g\n");
    assert_eq!(asks(Some("other"), Some("one")), "f\n");
    assert_eq!(asks(Some("one"), Some(&url)), "g\n");
    let version = printed(user.run(&["version", "--server", "other"]));
    assert!(version.contains(&other.address.to_string()), "{version}");
    assert_eq!(printed(user.run(&["func", "ls", "-q", "--server", "other"])), "g\n");
}

#[test]
fn an_unknown_server_is_told_which_there_are() {
    let user = User::with("[servers.prod]\nurl = \"http://a\"\n[servers.staging]\nurl = \"http://b\"\n");
    let file = user.file();
    let known = format!("prod, staging are in {}", file.display());
    for (server, problem) in [
        ("x", format!("no server named x: {known}")),
        ("Prod", format!("no server named Prod: {known}; did you mean prod?")),
        ("stagin", format!("no server named stagin: {known}; did you mean staging?")),
        ("localhost:8080", format!("no server named localhost:8080: {known}; did you mean http://localhost:8080?")),
        ("", "must be a URL, or a name from the settings file".to_owned()),
    ] {
        let said = failed(user.run(&["ls", "--server", server]));
        assert_eq!(said, (2, format!("hyperfunc: --server: {problem}\n")));
    }
    let (status, said) = failed(user.run(&["ls", "--server", "ftp://x"]));
    assert!(status == 2 && said.contains("--server ftp://x: must be a URL like http://"), "{said}");
    let (status, said) = failed(User::new().run(&["ls", "--server", "prod"]));
    assert!(status == 2 && said.contains("no server named prod: there is no "), "{said}");
    let (status, said) = failed(User::with("").run(&["ls", "--server", "prod"]));
    assert!(status == 2 && said.contains("hyperfunc.toml names none"), "{said}");
}

#[test]
fn config_shows_a_table_and_json() {
    let user = User::with("memory = \"1GB\"\n[servers.prod]\nurl = \"http://a\"\n");
    let shown = printed(user.run(&["config"]));
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let file = user.file();
    assert_eq!(lines[0], ["SETTING", "VALUE", "FROM"]);
    assert_eq!(lines[1], ["config", text(&file), "default"]);
    for expected in [
        ["memory", "1GB", &user.at_line(1)],
        ["servers.prod", "http://a", &user.at_line(2)],
        ["public-url", "none", "default"],
        ["data", text(&user.home.path().join(".local/share/hyperfunc")), "default"],
    ] {
        assert!(lines.contains(&expected.to_vec()), "{expected:?} is not in:\n{shown}");
    }

    let told: Value = serde_json::from_str(&printed(user.run(&["config", "--json"]))).unwrap();
    assert_eq!(told["File"], json!({"Path": file, "Exists": true, "From": "default"}));
    assert_eq!(told["Servers"], json!([{"Name": "prod", "Value": "http://a", "From": user.at_line(2)}]));
    let names = told["Settings"].as_array().unwrap().iter().map(|setting| setting["Name"].as_str().unwrap());
    let shown_names: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    for name in names {
        assert!(shown_names.contains(&name), "{name} is not in the table");
    }

    let nowhere = User::new();
    let shown = printed(nowhere.run(&["config"]));
    assert!(shown.lines().nth(1).unwrap().contains("hyperfunc.toml (is not there)"), "{shown}");
    let mut program = nowhere.program(&["config"]);
    let named = nowhere.another("named.toml", "");
    let shown = printed(ended(program.env("HYPERFUNC_CONFIG", &named).spawn().unwrap()));
    assert!(shown.lines().nth(1).unwrap().ends_with("HYPERFUNC_CONFIG"), "{shown}");
    let shown = printed(nowhere.run(&["config", "--config", "named.toml"]));
    assert!(shown.lines().nth(1).unwrap().ends_with("--config"), "{shown}");
}

/// The rows of the table of settings in the documentation: flag, variable, key, default.
fn documented() -> Vec<[String; 4]> {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "/");
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows = docs.lines().filter(|line| line.contains("| `HYPERFUNC_")).map(cells);
    rows.map(|row| [1, 2, 3, 4].map(|cell| row[cell].clone())).collect()
}

#[test]
fn every_documented_variable_and_key_works() {
    let values = BTreeMap::from([
        ("server", json!("http://10.0.0.1:1")),
        ("listen", json!("127.0.0.1:2")),
        ("func-listen", json!("0.0.0.0:3")),
        ("metrics-listen", json!("127.0.0.1:4")),
        ("public-url", json!("https://functions.example.org")),
        ("data", json!("/somewhere")),
        ("max-running", json!(5)),
        ("account-running", json!(6)),
        ("max-pending", json!(7)),
        ("max-pending-bytes", json!("8MB")),
        ("sync-wait", json!("9s")),
        ("output-cache", json!("10KB")),
        ("output-ttl", json!("11h")),
        ("memory", json!("1200MB")),
        ("drain", json!("13ms")),
        ("max-image-bytes", json!("14MB")),
        ("quota-functions", json!(15)),
        ("quota-images", json!(16)),
        ("quota-image-bytes", json!("17GB")),
        ("max-connections", json!(18)),
        ("log", json!("debug")),
        ("log-format", json!("json")),
    ]);
    let user = User::new();
    let told: Value = serde_json::from_str(&printed(user.run(&["config", "--json"]))).unwrap();
    let told: BTreeMap<&str, &Value> = told["Settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|setting| (setting["Name"].as_str().unwrap(), &setting["Value"]))
        .collect();
    let mut keys = Vec::new();
    for [flag, variable, key, default] in documented().iter().filter(|row| row[1] != "HYPERFUNC_CONFIG") {
        assert_eq!(flag.split(' ').next().unwrap().trim_start_matches("--"), key);
        let value = values.get(key.as_str()).unwrap_or_else(|| panic!("no value for {key}"));
        let as_text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let by_variable = user.setting(&[(variable, &as_text)], &[], key);
        assert_eq!(by_variable, (value.clone(), variable.clone()));
        let file = user.another("settings.toml", &format!("{key} = {value}\n"));
        let by_file = user.setting(&[], &["--config", text(&file)], key);
        assert_eq!(by_file, (value.clone(), format!("{}:1", file.display())));
        // Those that depend on the machine are told in words.
        let told = told[key.as_str()];
        let told = told.as_str().map_or_else(|| told.to_string(), str::to_owned);
        match key.as_str() {
            "data" | "account-running" | "memory" => {}
            _ if told == "null" => assert!(default.starts_with("none") || key == "public-url", "{key}: {default}"),
            _ => assert_eq!(*default, told, "{key}"),
        }
        keys.push(key.clone());
    }
    keys.sort();
    assert_eq!(keys, told.keys().copied().collect::<Vec<_>>(), "the table of the documentation lacks one");
}
