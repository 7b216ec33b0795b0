//! `HostConfig` and `NetworkingConfig`, and the warnings about what has no effect (`docs/api.md` section 2).

use crate::harness::fields::{BASE, only, with};
use crate::harness::{Server, guests};
use serde_json::{Value, json};

#[test]
fn network_modes_are_those_of_docker() {
    let server = Server::with_guest();
    for mode in ["bridge", "host", "none", "container:web", "container:4c01db0b339c"] {
        server.takes("HostConfig.NetworkMode", &format!("{mode:?}"), &json!(mode));
    }
    for default in ["null", r#""""#] {
        server.takes("HostConfig.NetworkMode", default, &json!("bridge"));
    }
    for value in
        [r#""container:""#, r#""container""#, r#""Bridge""#, r#""overlay""#, r#""bridge ""#, "5", "true", "[]", "{}"]
    {
        server.refuses("HostConfig.NetworkMode", value);
    }
}

#[test]
fn links_are_a_name_and_perhaps_an_alias() {
    let server = Server::with_guest();
    server.takes("HostConfig.Links", r#"["db","db:alias","a.b_c-1:x"]"#, &json!(["db", "db:alias", "a.b_c-1:x"]));
    for absent in ["[]", "null"] {
        server.takes("HostConfig.Links", absent, &Value::Null);
    }
    for value in
        [r#"[""]"#, r#"["db:"]"#, r#"[":a"]"#, r#"["a:b:c"]"#, r#"["a b"]"#, r#""db""#, "[1]", "[null]", r#"{"a":"b"}"#]
    {
        server.refuses("HostConfig.Links", value);
    }
}

#[test]
fn volumes_come_from_a_name_and_perhaps_read_only() {
    let server = Server::with_guest();
    server.takes("HostConfig.VolumesFrom", r#"["data","data:ro","data:rw"]"#, &json!(["data", "data:ro", "data:rw"]));
    for absent in ["[]", "null"] {
        server.takes("HostConfig.VolumesFrom", absent, &Value::Null);
    }
    for value in
        [r#"[""]"#, r#"["data:"]"#, r#"["data:xx"]"#, r#"[":ro"]"#, r#"["data:ro:rw"]"#, r#""data""#, "[1]", "{}"]
    {
        server.refuses("HostConfig.VolumesFrom", value);
    }
}

#[test]
fn port_bindings_are_an_address_and_a_port_or_a_range() {
    let server = Server::with_guest();
    let bound = |ip: &str, port: &str| json!({"80/tcp": [{"HostIp": ip, "HostPort": port}]});
    for (ip, port) in
        [("", "8080"), ("", ""), ("127.0.0.1", "1"), ("::1", "65535"), ("", "8000-8010"), ("0.0.0.0", "8000-8000")]
    {
        let bindings = bound(ip, port);
        server.takes("HostConfig.PortBindings", &bindings.to_string(), &bindings);
    }
    server.takes("HostConfig.PortBindings", r#"{"53/udp":[{}]}"#, &json!({"53/udp": [{"HostIp": "", "HostPort": ""}]}));
    let two = json!({"80/tcp": [{"HostIp": "", "HostPort": "1"}, {"HostIp": "", "HostPort": "2"}]});
    server.takes("HostConfig.PortBindings", &two.to_string(), &two);
    for absent in ["{}", "null"] {
        server.takes("HostConfig.PortBindings", absent, &Value::Null);
    }
    for port in ["0", "65536", "8010-8000", "1-2-3", "-", "80-", "-80", "0-5", "http", " 80", "+80"] {
        server.refuses("HostConfig.PortBindings", &bound("", port).to_string());
    }
    for value in [
        r#"{"80/tcp":[{"HostPort":8080}]}"#,
        r#"{"80/tcp":[{"HostIp":"host"}]}"#,
        r#"{"80/tcp":{"HostPort":"8080"}}"#,
        r#"{"80/tcp":["8080"]}"#,
        r#"{"80/xyz":[{"HostPort":"8080"}]}"#,
        r#"{"0/tcp":[{"HostPort":"8080"}]}"#,
        r#"{"":[]}"#,
        r#"["80/tcp"]"#,
        r#""80:80""#,
        "80",
    ] {
        server.refuses("HostConfig.PortBindings", value);
    }
}

#[test]
fn publishing_all_ports_is_a_yes_or_no() {
    let server = Server::with_guest();
    for (value, echoed) in [("true", json!(true)), ("false", Value::Null), ("null", Value::Null)] {
        server.takes("HostConfig.PublishAllPorts", value, &echoed);
    }
    for value in [r#""true""#, "1", "[]", "{}"] {
        server.refuses("HostConfig.PublishAllPorts", value);
    }
}

#[test]
fn a_host_config_is_an_object() {
    let server = Server::with_guest();
    for value in ["null", "{}", r#"{"Memory":5,"Binds":["/a:/b"]}"#] {
        server.takes("HostConfig", value, &json!({"NetworkMode": "bridge"}));
    }
    for value in ["5", "true", r#""bridge""#, "[]"] {
        server.refuses("HostConfig", value);
    }
}

#[test]
fn a_networking_config_is_kept_as_it_was_sent() {
    let server = Server::with_guest();
    let sent = r#"{ "Z":1.0, "EndpointsConfig" : {"front": {"Aliases":["a"],"IPAMConfig":null}},"é": 1e2 }"#;
    let created = server.post("/funcs/create", &with("net", "NetworkingConfig", sent)).expect(201);
    let server = server.kill_and_restart();
    let replies =
        [created, server.get("/funcs/net"), server.get("/funcs"), server.put("/funcs/net", r#"{"Timeout":5}"#)];
    for reply in replies {
        assert!(reply.text().contains(&format!(r#""NetworkingConfig":{sent}"#)), "{}", reply.text());
    }
    for default in ["null", "{}", r#"{"EndpointsConfig":null}"#, r#"{ "EndpointsConfig" : null }"#] {
        server.takes("NetworkingConfig", default, &json!({"EndpointsConfig": null}));
    }
    for value in ["5", "true", r#""front""#, "[]", r#"[{"EndpointsConfig":null}]"#] {
        server.refuses("NetworkingConfig", value);
    }
}

#[test]
fn a_networking_config_that_clients_could_not_read_back_is_refused() {
    let server = Server::with_guest();
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    server.post("/funcs/create", &with("deep", "NetworkingConfig", &nested(100))).expect(201);
    // Our own command line reads such a list.
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 2);
    for value in [nested(1000), nested(100_000), r#"{"a":1e400}"#.to_owned(), r#"{"a":"\ud800"}"#.to_owned()] {
        server.refuses("NetworkingConfig", &value);
    }
}

#[test]
fn what_is_kept_without_an_effect_is_named_in_every_answer() {
    let server = Server::with_guest();
    for (field, value) in [
        ("Config.ExposedPorts", r#"{"80/tcp":{}}"#),
        ("Config.StopSignal", r#""SIGKILL""#),
        ("HostConfig.NetworkMode", r#""host""#),
        ("HostConfig.NetworkMode", r#""container:web""#),
        ("HostConfig.Links", r#"["db"]"#),
        ("HostConfig.VolumesFrom", r#"["data"]"#),
        ("HostConfig.PortBindings", r#"{"80/tcp":[]}"#),
        ("HostConfig.PublishAllPorts", "true"),
        ("NetworkingConfig", r#"{"EndpointsConfig":{"front":{}}}"#),
    ] {
        let created = server.post("/funcs/create", &with("a", field, value)).expect(201).json();
        let inspected = server.inspect("a");
        let updated = server.put("/funcs/a", r#"{"Timeout":5}"#).expect(200).json();
        let base = server.put("/funcs/base", &only(field, value)).expect(200).json();
        for answer in [&created, &inspected, &updated, &base] {
            let warnings = answer["Warnings"].as_array().unwrap_or_else(|| panic!("no warning of {field}: {answer}"));
            assert!(warnings[0].as_str().unwrap().starts_with(field), "{field}: {answer}");
            assert_eq!(warnings.len(), 1, "{field}: {answer}");
            assert_eq!(answer.as_object().unwrap().keys().next_back().unwrap(), "Warnings");
        }
        for name in ["a", BASE] {
            server.request("DELETE", &format!("/funcs/{name}")).send().expect(204);
        }
        server.post("/funcs/create", &with(BASE, "Timeout", "77")).expect(201);
    }
}

#[test]
fn what_has_its_effect_is_not_warned_of() {
    let server = Server::with_guest();
    for (field, value) in [
        ("Config.Tty", "true"),
        ("Config.Env", r#"["A=1"]"#),
        ("Config.Cmd", r#""x""#),
        ("Config.Entrypoint", r#""x""#),
        ("Config.WorkingDir", r#""/srv""#),
        ("Config.Labels", r#"{"a":"b"}"#),
        ("HostConfig.NetworkMode", r#""none""#),
        ("HostConfig.PublishAllPorts", "false"),
        ("NetworkingConfig", r#"{"EndpointsConfig":null}"#),
        ("Fuel", "1000"),
        ("MaxConcurrency", "1"),
        ("ContainerSize", r#""l1""#),
    ] {
        let created = server.post("/funcs/create", &with("a", field, value)).expect(201).json();
        assert_eq!(created.get("Warnings"), None, "{field}: {created}");
        server.request("DELETE", "/funcs/a").send().expect(204);
    }
}

#[test]
fn a_size_that_a_32_bit_module_cannot_use_is_warned_of() {
    let server = Server::with_guest();
    server.load("wide", &guests::wide_prints("wide"));
    for size in ["l2", "l3"] {
        let of =
            |name: &str| json!({"Name": format!("{name}-{size}"), "ContainerSize": size, "Config": {"Image": name}});
        let narrow = server.create(&of("guest"));
        assert!(narrow["Warnings"][0].as_str().unwrap().starts_with("ContainerSize"), "{narrow}");
        let wide = server.create(&of("wide"));
        assert_eq!(wide.get("Warnings"), None, "{wide}");
    }
    let updated = server.put("/funcs/base", r#"{"ContainerSize":"l2"}"#).expect(200).json();
    assert_eq!(updated["Warnings"].as_array().unwrap().len(), 1, "{updated}");
}
