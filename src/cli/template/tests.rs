//! What templates make, refuse and never do.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn func() -> Value {
    json!({
        "Name": "hello", "Timeout": 300, "UUID": "u",
        "Config": {
            "Tty": false, "Env": ["A=1", "B=2"], "Cmd": [], "Image": "ubuntu", "Entrypoint": null,
            "Labels": {"tier": "web", "a-b": "c"},
        },
    })
}

fn rendered(template: &str) -> Result<String, TemplateError> {
    template.parse::<Template>()?.render(&func())
}

/// Nested as deep as a template may be, or nearly so.
const DEEP: usize = 25;

#[test]
fn the_forms_that_people_use_make_what_go_makes_of_them() {
    for (template, made) in [
        ("", ""),
        ("a }} b { {", "a }} b { {"),
        ("{{.UUID}}", "u"),
        ("{{ .Name }} runs {{ .Config.Image }}!", "hello runs ubuntu!"),
        ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
        ("{{json .Name}} {{.Config.Env | json}}", r#""hello" ["A=1","B=2"]"#),
        ("{{index .Config.Env 0}}", "A=1"),
        (r#"{{index .Config.Labels "a-b"}}"#, "c"),
        ("{{index . `Config` \"Env\" 1}}", "B=2"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("{{range .Config.Env}}{{.}} of {{$.Name}};{{end}}", "A=1 of hello;B=2 of hello;"),
        ("{{range .Config.Labels}}{{.}} {{end}}", "c web "),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{len .Config.Env}} {{len .Config.Cmd}} {{len .Nothing}} {{len .Name}}", "2 0 0 5"),
        ("{{if .Fuel}}fuel{{else}}free{{end}}", "free"),
        ("{{if .Fuel}}a{{else if .Timeout}}b{{else}}c{{end}}.", "b."),
        ("{{if not .Config.Tty}}{{if eq .Name \"x\" \"hello\"}}yes{{end}}{{end}}", "yes"),
        ("{{if ne .Timeout 300}}other{{end}}", ""),
        ("{{if eq (len .Config.Env) 2}}two{{end}}", "two"),
        ("{{join .Config.Env \", \"}}", "A=1, B=2"),
        ("a \n{{- .Name -}}\n b {{.Name -}} c", "ahellob helloc"),
        ("{{.Nothing}} {{.Nothing.Of.It}} {{.Config.Entrypoint}}", "<no value> <no value> <no value>"),
        ("{{.Config.Env}} {{.Config.Labels}}", "[A=1 B=2] map[a-b:c tier:web]"),
        ("{{println .Name .Timeout true}}", "hello 300 true\n"),
        ("{{\"}}\\\"\\n\"}}", "}}\"\n"),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(made), "{template}");
    }
    assert_eq!(rendered("{{json .}}"), Ok(func().to_string()));
}

#[test]
fn what_is_wrong_is_said_with_its_place_before_there_is_data() {
    for (template, column, what) in [
        ("{{", 1, "without `}}`"),
        ("ab {{.Name", 4, "without `}}`"),
        ("{{}}", 1, "a value is missing"),
        ("é {{upper .Name}}", 5, "no such function: upper"),
        ("{{if .Name}}x", 1, "without `{{end}}`"),
        ("{{if}}x{{end}}", 1, "a value is missing"),
        ("{{range .A}}{{else}}x", 13, "without `{{end}}`"),
        ("x{{end}}", 2, "without `if`"),
        ("{{else}}", 1, "without `if`"),
        ("{{if .A}}{{else}}{{else}}{{end}}", 18, "a second `else`"),
        ("{{if .A}}{{else range .B}}{{end}}", 17, "only `if`"),
        ("{{if .A}}{{end .B}}", 16, "nothing may stand behind"),
        ("{{json}}", 3, "json takes 1 and not 0"),
        ("{{index .A}}", 3, "index takes at least 2"),
        ("{{.A .B}}", 6, "takes no arguments"),
        ("{{.A | .B}}", 6, "must be a function"),
        ("{{json json .A}}", 8, "parentheses"),
        ("{{json (len .A}}", 8, "without `)`"),
        ("{{.A)}}", 5, "without `(`"),
        ("{{.A..B}}", 3, "has no name"),
        ("{{$x}}", 3, "variables"),
        ("{{\"a}}", 3, "does not end"),
        ("{{index .A 1.5}}", 12, "not a whole number"),
        ("{{.A & .B}}", 6, "not expected"),
    ] {
        let error = template.parse::<Template>().map(|_| ()).unwrap_err();
        assert_eq!((error.column, error.what.contains(what)), (column, true), "{template}: {error}");
    }
}

#[test]
fn what_the_data_does_not_have_is_said_with_its_place() {
    for (template, column, what) in [
        ("{{index .Config.Env 2}}", 3, "index 2 of a list of 2"),
        ("x{{index .Config.Env -1}}", 4, "index -1 of a list of 2"),
        ("{{index .Name 0}}", 3, "a text cannot be indexed by a number"),
        ("{{index .Config.Env \"a\"}}", 3, "a list cannot be indexed by a text"),
        ("{{.Name.First}}", 3, "a text has no field First"),
        ("{{len .Timeout}}", 3, "len of a number"),
        ("{{range .Name}}{{end}}", 9, "range over a text"),
        ("{{join .Name \",\"}}", 3, "join of a text"),
    ] {
        let error = rendered(template).unwrap_err();
        assert_eq!((error.column, error.what.contains(what)), (column, true), "{template}: {error}");
    }
}

#[test]
fn none_is_too_deep_too_large_or_runs_for_ever() {
    let nested = |depth: usize| format!("{}{}", "{{range .}}".repeat(depth), "{{end}}".repeat(depth));
    assert!(nested(DEEP).parse::<Template>().is_ok());
    let calls = (0..DEEP).fold("1".to_owned(), |inner, depth| format!("({inner}{})", "|not".repeat(depth)));
    assert_eq!(rendered(&format!("{{{{{calls}}}}}")), Ok("true".to_owned()));
    for deep in [
        nested(100_000),
        format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{.{}}}}}", "|len".repeat(100_000)),
        format!("{{{{if .}}}}{}{{{{end}}}}", "{{else if .}}".repeat(100_000)),
    ] {
        assert!(deep.parse::<Template>().unwrap_err().what.contains("too deep"));
    }
    let ranges = "{{range $.L}}".repeat(DEEP) + "{{end}}".repeat(DEEP).as_str();
    let value = json!({"L": vec![1; 100], "T": "x".repeat(1 << 20)});
    let failure = |template: &str| template.parse::<Template>().unwrap().render(&value).unwrap_err().what;
    assert!(failure(&ranges).contains("too long"));
    assert!(failure("{{range .L}}{{$.T}}{{end}}").contains("too much"));
}

proptest! {
    #[test]
    fn no_template_panics(template in "(\\{\\{-? ?|-?\\}\\}|if |range |else |end|json |index |len |println |[.$|() ]|\
        (\\.(Config|Env|Name|x))|\"|[-0-9]|\\PC){0,24}") {
        let _ = rendered(&template);
    }

    #[test]
    fn no_form_panics(parts in proptest::collection::vec(proptest::sample::select(vec![
        "{{.Name}}", "{{if .Config}}", "{{range .Config.Env}}", "{{else}}", "{{else if .Fuel}}", "{{end}}", "{{json .}}",
        "{{index .Config.Env 0}}", "{{- len . -}}", " x ", "{{println (index . 0) | json}}",
    ]), 0..12)) {
        let _ = rendered(&parts.concat());
    }
}
