//! What a create or an update sends, and how each field that is not there, or empty, is read.
//!
//! Absent, `null`, `""` and `{}` all say nothing: a create then takes the default, an update keeps what was.

use crate::domain::{
    Change, Command, ConfigChange, ContainerSize, Env, FunctionName, HostChange, ImageReference, Invalid, Json,
    NetworkMode, PortBinding, PortBindings, Timeout,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

/// A create: a name and what the function is to be.
pub(in crate::api) struct Create {
    pub(in crate::api) name: FunctionName,
    pub(in crate::api) change: Change,
}

/// An update.
pub(in crate::api) struct Update {
    /// The function's name, if the body repeats it.
    pub(in crate::api) name: Option<String>,
    pub(in crate::api) refresh: bool,
    pub(in crate::api) change: Change,
}

impl TryFrom<FuncBody> for Create {
    type Error = Invalid;

    fn try_from(mut body: FuncBody) -> Result<Self, Invalid> {
        let name = FunctionName::new(&body.name.take().unwrap_or_default())?;
        Ok(Self { name, change: body.change()? })
    }
}

impl TryFrom<FuncBody> for Update {
    type Error = Invalid;

    fn try_from(mut body: FuncBody) -> Result<Self, Invalid> {
        let name = body.name.take().filter(|name| !name.is_empty());
        Ok(Self { name, refresh: body.refresh.unwrap_or(false), change: body.change()? })
    }
}

/// Reads the body of a create or an update.
///
/// # Errors
/// Names the field that is of a wrong type or breaks its rule.
pub(in crate::api) fn from_json<T: TryFrom<FuncBody, Error = Invalid>>(bytes: &[u8]) -> Result<T, Invalid> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(body) = serde_path_to_error::deserialize::<_, Object<FuncBody>>(&mut json).map_err(|e| {
        let path = e.path().to_string();
        // `?` is a key that could not be read.
        let field = if matches!(path.as_str(), "." | "?") { "body".to_owned() } else { path };
        Invalid::new(field, e.into_inner().to_string())
    })?;
    json.end().map_err(|e| Invalid::new("body", e.to_string()))?;
    body.try_into()
}

/// A JSON object and nothing else: by itself, serde takes an array for a struct as well.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for OnlyMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OnlyMap(PhantomData)).map(Self)
    }
}

/// The body of a create or an update. Unknown fields are ignored: clients send some.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::api) struct FuncBody {
    name: Option<String>,
    container_size: Option<String>,
    timeout: Option<i64>,
    refresh: Option<bool>,
    config: Option<Object<ConfigBody>>,
    host_config: Option<Object<HostConfigBody>>,
    networking_config: Option<Box<RawValue>>,
    fuel: Option<u64>,
    max_concurrency: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigBody {
    tty: Option<bool>,
    env: Option<Vec<String>>,
    exposed_ports: Option<BTreeMap<String, Option<Object<Nothing>>>>,
    cmd: Option<Words>,
    image: Option<String>,
    entrypoint: Option<Words>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<Signal>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfigBody {
    volumes_from: Option<Vec<String>>,
    port_bindings: Option<BTreeMap<String, Option<Vec<Object<PortBindingBody>>>>>,
    links: Option<Vec<String>>,
    publish_all_ports: Option<bool>,
    network_mode: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct PortBindingBody {
    host_ip: Option<String>,
    host_port: Option<String>,
}

/// `{}`
#[derive(Deserialize)]
struct Nothing {}

/// A string, which is one word, or an array of words. `""` says nothing; `[]` says that there shall be none.
struct Words(Option<Command>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrArray;

        impl<'de> Visitor<'de> for StringOrArray {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words((!word.is_empty()).then(|| vec![word.to_owned()])))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut words: A) -> Result<Words, A::Error> {
                let mut command = Command::new();
                while let Some(word) = words.next_element()? {
                    command.push(word);
                }
                Ok(Words(Some(command)))
            }
        }

        deserializer.deserialize_any(StringOrArray)
    }
}

/// A signal by name or number.
struct Signal(String);

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrNumber;

        impl Visitor<'_> for StringOrNumber {
            type Value = Signal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a signal's name or number")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Signal, E> {
                Ok(Signal(name.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Signal, E> {
                Ok(Signal(number.to_string()))
            }
        }

        deserializer.deserialize_any(StringOrNumber)
    }
}

impl FuncBody {
    fn change(self) -> Result<Change, Invalid> {
        let config = self.config.map_or_else(ConfigBody::default, |Object(config)| config);
        let host = self.host_config.map_or_else(HostConfigBody::default, |Object(host)| host);
        Ok(Change {
            size: said(self.container_size).map(|size| ContainerSize::parse(&size)).transpose()?,
            timeout: self.timeout.filter(|seconds| *seconds != 0).map(Timeout::from_seconds).transpose()?,
            config: config.change()?,
            host: host.change()?,
            networking: self.networking_config.as_deref().map(networking).transpose()?.flatten(),
            fuel: self.fuel,
            max_concurrency: self.max_concurrency,
        })
    }
}

impl ConfigBody {
    fn change(self) -> Result<ConfigChange, Invalid> {
        let image = said(self.image).map(|image| ImageReference::parse(&image)).transpose();
        let ports = self.exposed_ports.map(|ports| ports.into_keys().collect::<BTreeSet<_>>());
        Ok(ConfigChange {
            tty: self.tty,
            env: self.env.map(Env::new).transpose()?,
            exposed_ports: ports.filter(|ports| !ports.is_empty()),
            cmd: self.cmd.and_then(|words| words.0),
            image: image.map_err(|problem| Invalid::new("Config.Image", problem))?,
            entrypoint: self.entrypoint.and_then(|words| words.0),
            working_dir: said(self.working_dir),
            labels: self.labels.filter(|labels| !labels.is_empty()),
            stop_signal: self.stop_signal.map(|signal| signal.0).filter(|signal| !signal.is_empty()),
        })
    }
}

impl HostConfigBody {
    fn change(self) -> Result<HostChange, Invalid> {
        let bindings = self.port_bindings.map(|ports| {
            let of_port = |bindings: Option<Vec<Object<PortBindingBody>>>| {
                let bindings = bindings.unwrap_or_default().into_iter().map(|Object(binding)| PortBinding {
                    host_ip: binding.host_ip.unwrap_or_default(),
                    host_port: binding.host_port.unwrap_or_default(),
                });
                bindings.collect()
            };
            ports.into_iter().map(|(port, bindings)| (port, of_port(bindings))).collect::<PortBindings>()
        });
        Ok(HostChange {
            volumes_from: self.volumes_from,
            port_bindings: bindings.filter(|bindings| !bindings.is_empty()),
            links: self.links,
            publish_all_ports: self.publish_all_ports,
            network_mode: said(self.network_mode).map(|mode| NetworkMode::parse(&mode)).transpose()?,
        })
    }
}

/// `NetworkingConfig` as it was sent, unless it says nothing.
fn networking(raw: &RawValue) -> Result<Option<Json>, Invalid> {
    let wrong = |problem: String| Invalid::new("NetworkingConfig", problem);
    let fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(raw.get()).map_err(|_| wrong("must be an object".to_owned()))?;
    if fields.iter().all(|(name, value)| name == "EndpointsConfig" && value.get() == "null") {
        return Ok(None);
    }
    // As deep as a list of functions holds it. What our own clients cannot read, they could not list either.
    serde_json::from_str::<serde_json::Value>(&format!("[[{}]]", raw.get())).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(Json(raw.get().to_owned())))
}

/// An empty text says nothing.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
