//! `Config`: what is accepted, how it is echoed, and how it is refused (`docs/api.md` section 2).

use crate::harness::fields::{BASE, assert_refused};
use crate::harness::{Server, address, guests};
use serde_json::{Value, json};

#[test]
fn commands_and_entry_points_are_a_string_or_an_array() {
    let server = Server::with_guest();
    for field in ["Config.Cmd", "Config.Entrypoint"] {
        for (value, echoed) in [
            (r#""echo""#, json!(["echo"])),
            (r#""echo x""#, json!(["echo x"])),
            (r#"["echo"]"#, json!(["echo"])),
            (r#"["sh","-c","","é"]"#, json!(["sh", "-c", "", "é"])),
            (r#"[""]"#, json!([""])),
            ("[]", Value::Null),
            (r#""""#, Value::Null),
            ("null", Value::Null),
        ] {
            server.takes(field, value, &echoed);
        }
        for value in ["5", "true", "{}", "[5]", "[null]", r#"[["a"]]"#, r#""a\u0000""#, r#"["a","\u0000"]"#] {
            server.refuses(field, value);
        }
    }
}

#[test]
fn variables_have_a_name_and_a_value() {
    let server = Server::with_guest();
    for (value, echoed) in [
        (r#"["A=1","dropped","B=","C=x=y","D= é\n"]"#, json!(["A=1", "B=", "C=x=y", "D= é\n"])),
        (r#"["dropped",""]"#, json!([])),
        ("[]", json!([])),
        ("null", json!([])),
    ] {
        server.takes("Config.Env", value, &echoed);
    }
    for value in [
        r#"["=x"]"#,
        r#"["="]"#,
        r#"["A=1","=x"]"#,
        r#"["A=\u0000"]"#,
        r#"["A\u0000B=1"]"#,
        r#""A=1""#,
        r#"{"A":"1"}"#,
        "[1]",
        "[null]",
        r#"[["A=1"]]"#,
        "5",
    ] {
        server.refuses("Config.Env", value);
    }
}

#[test]
fn variables_take_32_kb_in_sum() {
    let server = Server::with_guest();
    let variables =
        |sum: usize| json!([format!("A={}", "x".repeat(16_382)), format!("B={}", "y".repeat(sum - 16_386))]);
    let exact = variables(32 << 10);
    server.takes("Config.Env", &exact.to_string(), &exact);
    server.refuses("Config.Env", &variables((32 << 10) + 1).to_string());
    server.refuses("Config.Env", &json!([format!("A={}", "é".repeat(16 << 10))]).to_string());
}

#[test]
fn a_working_directory_is_absolute() {
    let server = Server::with_guest();
    for (value, echoed) in
        [(r#""/""#, json!("/")), (r#""/srv/é""#, json!("/srv/é")), (r#""""#, Value::Null), ("null", Value::Null)]
    {
        server.takes("Config.WorkingDir", value, &echoed);
    }
    for value in [r#""srv""#, r#""./srv""#, r#""~""#, r#"" /""#, r#""/a\u0000""#, "5", "true", r#"["/"]"#] {
        server.refuses("Config.WorkingDir", value);
    }
}

#[test]
fn a_terminal_is_a_yes_or_no() {
    let server = Server::with_guest();
    for (value, echoed) in [("true", json!(true)), ("false", Value::Null), ("null", Value::Null)] {
        server.takes("Config.Tty", value, &echoed);
    }
    for value in [r#""true""#, "1", "0", "[]", "{}"] {
        server.refuses("Config.Tty", value);
    }
}

#[test]
fn labels_are_kept_and_of_ours_only_known_ones() {
    let server = Server::with_guest();
    for (value, echoed) in [
        (r#"{"tier":"web","empty":"","a b":"é\n"}"#, json!({"tier": "web", "empty": "", "a b": "é\n"})),
        (
            r#"{"sh.hyperfunc.content-type":"text/html; charset=utf-8"}"#,
            json!({"sh.hyperfunc.content-type": "text/html; charset=utf-8"}),
        ),
        (r#"{"sh.hyperfunction":"x"}"#, json!({"sh.hyperfunction": "x"})),
        ("{}", Value::Null),
        ("null", Value::Null),
    ] {
        server.takes("Config.Labels", value, &echoed);
    }
    for value in [
        r#"{"a":1}"#,
        r#"{"a":null}"#,
        r#"{"a":["b"]}"#,
        r#"["a"]"#,
        r#""a=b""#,
        "5",
        r#"{"sh.hyperfunc.content-type":"text/plain\r\nX-Evil: 1"}"#,
    ] {
        server.refuses("Config.Labels", value);
    }
    server.refuses("Config.Labels", r#"{"sh.hyperfunc.colour":"red"}"#);
    let reply =
        server.put("/funcs/base", r#"{"Config":{"Labels":{"fine":"x","sh.hyperfunc.colour":"red"}}}"#).expect(400);
    assert!(reply.text().contains("sh.hyperfunc.colour"), "{}", reply.text());
}

#[test]
fn exposed_ports_are_checked_and_kept() {
    let server = Server::with_guest();
    for (value, echoed) in [
        (r#"{"80/tcp":{}}"#, json!({"80/tcp": {}})),
        (r#"{"1/tcp":{},"65535/udp":{}}"#, json!({"1/tcp": {}, "65535/udp": {}})),
        ("{}", Value::Null),
        ("null", Value::Null),
    ] {
        server.takes("Config.ExposedPorts", value, &echoed);
    }
    for value in [
        r#"{"0/tcp":{}}"#,
        r#"{"65536/tcp":{}}"#,
        r#"{"-1/tcp":{}}"#,
        r#"{"+80/tcp":{}}"#,
        r#"{"80/xyz":{}}"#,
        r#"{"80/":{}}"#,
        r#"{"http":{}}"#,
        r#"{"":{}}"#,
        r#"{"80/tcp":5}"#,
        r#"{"80/tcp":[]}"#,
        r#"["80/tcp"]"#,
        r#""80/tcp""#,
        "80",
    ] {
        server.refuses("Config.ExposedPorts", value);
    }
}

#[test]
fn a_stop_signal_is_a_name_or_a_number_and_told_as_a_string() {
    let server = Server::with_guest();
    for (value, echoed) in [
        (r#""SIGKILL""#, "SIGKILL"),
        (r#""9""#, "9"),
        ("9", "9"),
        ("15", "15"),
        (r#""""#, "SIGTERM"),
        ("null", "SIGTERM"),
    ] {
        server.takes("Config.StopSignal", value, &json!(echoed));
    }
    for value in ["true", "9.5", "-9", "1e400", "[]", r#"["SIGKILL"]"#, "{}"] {
        server.refuses("Config.StopSignal", value);
    }
}

#[test]
fn images_are_named_as_docker_names_them() {
    let server = Server::with_guest();
    let digest = server.get("/images/guest/json").expect(200).json()["Id"].as_str().unwrap().to_owned();
    server.load("localhost:5000/acme/x__y.z-w:1.0_a", &guests::prints("far"));
    let pinned = format!("guest@{digest}");
    let create = |image: &str| server.post("/funcs/create", &format!(r#"{{"Name":"a","Config":{{"Image":{image}}}}}"#));
    for image in ["guest", "guest:latest", pinned.as_str(), "localhost:5000/acme/x__y.z-w:1.0_a"] {
        let function = create(&json!(image).to_string()).expect(201).json();
        assert_eq!(function["Config"]["Image"], *image, "as it was written");
        server.call(&address(&function), "").expect(200);
        server.request("DELETE", "/funcs/a").send().expect(204);
    }
    let before = server.inspect(BASE);
    for image in [
        r#""Guest""#,
        r#""a b""#,
        r#"":x""#,
        r#""guest:""#,
        r#""guest:a:b""#,
        r#""a//b""#,
        r#""/guest""#,
        r#""guest/""#,
        r#""..""#,
        r#""http://guest""#,
        r#""guest@sha256:12""#,
        r#""guest\u0000""#,
        "5",
        "true",
        r#"["guest"]"#,
        "{}",
    ] {
        assert_refused(&create(image), "Config.Image", image);
        assert_refused(
            &server.put("/funcs/base", &format!(r#"{{"Config":{{"Image":{image}}}}}"#)),
            "Config.Image",
            image,
        );
    }
    for image in ["null", r#""""#] {
        assert_refused(&create(image), "Config.Image", image);
    }
    for body in [r#"{"Name":"a"}"#, r#"{"Name":"a","Config":null}"#, r#"{"Name":"a","Config":{}}"#] {
        assert_refused(&server.post("/funcs/create", body), "Config.Image", body);
    }
    assert_eq!(server.get("/funcs").json(), json!([before]));
}

#[test]
fn an_image_that_is_not_there_is_a_bad_parameter() {
    let server = Server::with_guest();
    let before = server.inspect(BASE);
    let zeros = format!("guest@sha256:{}", "0".repeat(64));
    for image in ["nothing", "guest:other", "acme/guest", zeros.as_str()] {
        let create = server.try_create(&json!({"Name": "a", "Config": {"Image": image}}));
        let update = server.put("/funcs/base", &json!({"Config": {"Image": image}}).to_string());
        for reply in [create, update] {
            assert_refused(&reply, "Config.Image", image);
            assert!(reply.text().contains(&format!("no such image: {image}")), "{}", reply.text());
        }
    }
    assert_eq!(server.get("/funcs").json(), json!([before]));
}

#[test]
fn a_config_is_an_object() {
    let server = Server::with_guest();
    for value in ["5", "true", r#""x""#, "[]", r#"["guest"]"#] {
        server.refuses("Config", value);
    }
}
