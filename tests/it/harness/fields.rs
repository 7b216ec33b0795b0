//! One field of a Func at a time: what is taken, how it is echoed, and what is refused.

use super::{Reply, Server};
use serde_json::Value;

/// The name of the function that [`Server::with_guest`] defines.
pub const BASE: &str = "base";

/// A JSON object with one field, such as `Config.Env`, whose JSON text is `value`.
pub fn only(field: &str, value: &str) -> String {
    match field.split_once('.') {
        Some((outer, inner)) => format!(r#"{{"{outer}":{{"{inner}":{value}}}}}"#),
        None => format!(r#"{{"{field}":{value}}}"#),
    }
}

/// A create of `name` from the image `guest`, with one more field.
pub fn with(name: &str, field: &str, value: &str) -> String {
    let fields = match field.split_once('.') {
        Some(("Config", inner)) => format!(r#""Config":{{"Image":"guest","{inner}":{value}}}"#),
        Some((outer, inner)) => format!(r#""Config":{{"Image":"guest"}},"{outer}":{{"{inner}":{value}}}"#),
        None if field == "Config" => format!(r#""Config":{value}"#),
        None => format!(r#""Config":{{"Image":"guest"}},"{field}":{value}"#),
    };
    format!(r#"{{"Name":"{name}",{fields}}}"#)
}

/// The value of a field such as `Config.Env`; `null` if it is absent.
pub fn field(function: &Value, field: &str) -> Value {
    let pointer = format!("/{}", field.replace('.', "/"));
    function.pointer(&pointer).cloned().unwrap_or_default()
}

impl Server {
    /// A server with an image `guest`, which does nothing, and a function [`BASE`] of it.
    pub fn with_guest() -> Self {
        let server = Self::start();
        server.load("guest", &super::guests::start(""));
        server.post("/funcs/create", &with(BASE, "Timeout", "77")).expect(201);
        server
    }

    /// Sends a JSON text.
    pub fn send(&self, method: &str, target: &str, json: &str) -> Reply {
        self.request(method, target).header("Content-Type", "application/json").body(json).send()
    }

    pub fn post(&self, target: &str, json: &str) -> Reply {
        self.send("POST", target, json)
    }

    pub fn put(&self, target: &str, json: &str) -> Reply {
        self.send("PUT", target, json)
    }

    /// One function as it is now.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.get(&format!("/funcs/{name}")).expect(200).json()
    }

    /// Checks that a create takes a field, and that it and an inspect then show `echoed`; `null` stands for absent.
    #[track_caller]
    pub fn takes(&self, name: &str, value: &str, echoed: &Value) {
        let reply = self.post("/funcs/create", &with("taken", name, value));
        assert_eq!(reply.status, 201, "{name} {value}: {}", reply.text());
        let function = reply.json();
        assert_eq!(field(&function, name), *echoed, "{name} {value}");
        assert_eq!(self.inspect("taken"), function, "{name} {value}");
        self.request("DELETE", "/funcs/taken").send().expect(204);
    }

    /// Checks that neither a create nor an update takes a field, that both name it, and that nothing comes of it.
    #[track_caller]
    pub fn refuses(&self, name: &str, value: &str) {
        let before = self.inspect(BASE);
        let shown: String = value.chars().take(80).collect();
        let create = self.post("/funcs/create", &with("refused", name, value));
        let update = self.put(&format!("/funcs/{BASE}"), &only(name, value));
        for (verb, reply) in [("create", create), ("update", update)] {
            assert_refused(&reply, name, &format!("{verb} {shown}"));
        }
        assert_eq!(self.get("/funcs/refused").status, 404, "{name} {shown}");
        assert_eq!(self.inspect(BASE), before, "{name} {shown}");
    }
}

/// Checks that an answer is a 400 whose one line of text begins with the field.
#[track_caller]
pub fn assert_refused(reply: &Reply, field: &str, what: &str) {
    assert_eq!(reply.status, 400, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/plain"), "{what}");
    let message = reply.text().strip_suffix('\n').unwrap();
    assert!(!message.contains('\n') && message.starts_with(field), "{what}: {message}");
}
