//! Functions and images: the old ones or the new ones, whole, whatever breaks a change of them.

use crate::breaking::{Break, Data, How, ask, assert_broken, breaks};
use crate::harness::{Reply, Request, Server, address, guests};
use serde_json::{Value, json};

/// A data directory with a function `f` of an image `image`, which says `old`.
fn with_function() -> (Data, Value) {
    let data = Data::new();
    let server = data.sound();
    server.load("image", &guests::prints("old"));
    let function = server.create(&json!({"Name": "f", "Config": {"Image": "image"}}));
    drop(server);
    (data, function)
}

/// Asks a server that may break for a change.
fn change(server: &Server, method: &str, target: &str, body: &Value) -> Option<Reply> {
    ask(server.address, &server.request(method, target).json(body))
}

/// Asks a server that may break to load a module that says `new`.
fn load(server: &Server, name: &str) -> Option<Reply> {
    let load = server.request("POST", &format!("/images/load?quiet=1&name={name}"));
    let load = load.header("Content-Type", "application/wasm").body(wat::parse_str(guests::prints("new")).unwrap());
    ask(server.address, &load)
}

/// Breaks a server by something that it is asked for, which it must not say that it has done.
#[track_caller]
fn broken_by(data: &Data, at: Break, asked: impl Fn(&Server) -> Option<Reply>) {
    let server = data.broken(at);
    let reply = asked(&server);
    assert!(reply.as_ref().is_none_or(|reply| reply.status == 500), "{at:?}: {reply:?}");
    assert_broken(server, at);
}

/// Checks that nothing lies about but the module of `image`; restarts have swept the rest.
#[track_caller]
fn assert_tidy(data: &Data, server: &Server) {
    assert_eq!(data.files("uploads"), Vec::<String>::new());
    let images = server.get("/images/json").expect(200).json();
    let id = |image: &Value| image["Id"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let named: Vec<String> = images.as_array().unwrap().iter().map(id).collect();
    let modules: Vec<String> = data.files("modules").iter().map(|file| file.replace(".wasm", "")).collect();
    assert_eq!(modules, named);
    for artifact in data.files("artifacts") {
        assert!(named.iter().any(|id| artifact.starts_with(id)), "{artifact}");
    }
}

#[test]
fn a_function_is_created_whole_or_not_at_all() {
    let create =
        |server: &Server| change(server, "POST", "/funcs/create", &json!({"Name": "g", "Config": {"Image": "image"}}));
    for at in breaks(&[("create.before_commit", 0)], &How::ALL) {
        let (data, _) = with_function();
        broken_by(&data, at, create);
        let server = data.sound();
        server.get("/funcs/g").expect(404);
        create(&server).unwrap().expect(201);
    }
    let mut places = breaks(&[("create.after_commit", 0)], &How::HARD);
    places.extend(breaks(&[("store.after_commit", 1)], &How::ALL));
    for at in places {
        let (data, _) = with_function();
        broken_by(&data, at, create);
        let server = data.sound();
        let created = server.get("/funcs/g").expect(200).json();
        assert_eq!(server.call(&address(&created), "").text(), "old", "{at:?}");
        create(&server).unwrap().expect(409);
    }
}

#[test]
fn a_function_is_updated_whole_or_not_at_all() {
    let update = |server: &Server| change(server, "PUT", "/funcs/f", &json!({"ContainerSize": "s1", "Refresh": true}));
    for at in breaks(&[("update.before_commit", 0)], &How::ALL) {
        let (data, function) = with_function();
        broken_by(&data, at, update);
        let server = data.sound();
        assert_eq!(server.inspect("f"), function, "{at:?}");
        server.call(&address(&function), "").expect(200);
    }
    for at in breaks(&[("update.after_commit", 0)], &How::HARD) {
        let (data, function) = with_function();
        broken_by(&data, at, update);
        let server = data.sound();
        let updated = server.inspect("f");
        assert_eq!(updated["ContainerSize"], "s1", "{at:?}");
        server.call(&address(&updated), "").expect(200);
        server.call(&address(&function), "").expect(404);
    }
}

#[test]
fn a_function_is_removed_with_its_calls_or_not_at_all() {
    let remove = |server: &Server| change(server, "DELETE", "/funcs/f", &json!({}));
    for at in breaks(&[("remove.before_commit", 0), ("remove.after_commit", 0)], &How::ALL) {
        let is_removed = at.0 == "remove.after_commit";
        if is_removed && at.2 == How::Error {
            continue;
        }
        let (data, function) = with_function();
        let target = address(&function);
        let server = data.sound();
        let call = server.enqueue(&target, "");
        server.wait_for_tally(&target, crate::harness::calls::Tally { finished: 1, ..Default::default() });
        drop(server);
        broken_by(&data, at, remove);
        let server = data.sound();
        if is_removed {
            server.get("/funcs/f").expect(404);
            let again = server.create(&json!({"Name": "f", "Config": {"Image": "image"}}));
            assert_eq!(server.list(&address(&again)), Vec::<Value>::new(), "{at:?}");
        } else {
            assert_eq!(server.inspect("f"), function);
            assert_eq!(server.output(&target, &call).expect(200).text(), "old", "{at:?}");
        }
    }
}

#[test]
fn a_module_is_deployed_whole_or_not_at_all() {
    let mut places = breaks(&[("image.before_commit", 0)], &How::ALL);
    places.extend(breaks(&[("image.after_commit", 0)], &How::HARD));
    places.extend(breaks(
        &[
            ("upload.before_sync", 0),
            ("artifact.before_rename", 0),
            ("module.before_rename", 0),
            ("module.after_rename", 0),
            ("module.before_remove", 0),
        ],
        &[How::Abort],
    ));
    for at in places {
        let (data, function) = with_function();
        broken_by(&data, at, |server| load(server, "image"));
        let server = data.sound();
        assert_tidy(&data, &server);
        let is_new = ["image.after_commit", "module.before_remove"].contains(&at.0);
        let says = if is_new { "new" } else { "old" };
        assert_eq!(server.call(&address(&function), "").expect(200).text(), says, "{at:?}");
        load(&server, "image").unwrap().expect(200);
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "new", "{at:?}");
        assert_tidy(&data, &server);
    }
}

#[test]
fn a_load_that_fails_names_nothing_and_the_server_goes_on() {
    let mut places = breaks(
        &[("artifact.before_rename", 0), ("module.before_rename", 0), ("module.after_rename", 0)],
        &[How::Error, How::Panic],
    );
    places.push(Break("upload.before_sync", 0, How::Panic));
    for at in places {
        let (data, function) = with_function();
        let server = data.broken(at);
        load(&server, "image").unwrap().expect(500);
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "old", "{at:?}");
        assert_eq!(data.files("uploads"), Vec::<String>::new(), "{at:?}");
        drop(server);
        let server = data.sound();
        assert_tidy(&data, &server);
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "old", "{at:?}");
    }
}

#[test]
fn a_module_that_cannot_be_synced_stops_the_server_by_its_name() {
    // First the module itself, then what is compiled of it.
    for passes in [0, 1] {
        let (data, function) = with_function();
        let at = Break("upload.before_sync", passes, How::Error);
        let mut server = data.broken(at);
        let reply = load(&server, "image");
        assert!(reply.is_none_or(|reply| reply.status == 500));
        assert_eq!(server.ended().code(), Some(1));
        let log = server.log();
        let reason = log.lines().find(|line| line.contains("cannot be trusted any more")).unwrap();
        assert!(reason.contains("/uploads/"), "{log}");
        let server = data.sound();
        assert_tidy(&data, &server);
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "old");
    }
}

#[test]
fn files_that_cannot_be_removed_are_left_for_the_next_start() {
    for at in breaks(&[("module.before_remove", 0)], &[How::Error, How::Panic]) {
        let (data, function) = with_function();
        let server = data.broken(at);
        load(&server, "image").unwrap().expect(200);
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "new", "{at:?}");
        assert_eq!(data.files("modules").len(), 2, "{at:?}");
        drop(server);
        assert_tidy(&data, &data.sound());
    }
}

#[test]
fn an_image_is_removed_whole_or_not_at_all() {
    let mut places = breaks(&[("image_remove.before_commit", 0)], &How::ALL);
    places.extend(breaks(&[("image_remove.after_commit", 0)], &How::HARD));
    for at in places {
        let (data, function) = with_function();
        broken_by(&data, at, |server| change(server, "DELETE", "/images/image?force=1", &json!({})));
        let server = data.sound();
        assert_tidy(&data, &server);
        let call = Request::new(server.functions, "POST", &address(&function)).send();
        if at.0 == "image_remove.after_commit" {
            assert!(call.expect(500).text().starts_with("no such image: image"), "{at:?}");
        } else {
            assert_eq!(call.expect(200).text(), "old", "{at:?}");
        }
    }
}

#[test]
fn what_is_compiled_for_a_call_need_not_be_kept() {
    for how in [How::Error, How::Panic] {
        let (data, function) = with_function();
        for artifact in data.files("artifacts") {
            std::fs::remove_file(data.path().join("artifacts").join(artifact)).unwrap();
        }
        let server = data.broken(Break("artifact.before_rename", 0, how));
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "old", "{how:?}");
    }
}
