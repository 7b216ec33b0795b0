//! Whatever the domain allows, in every field.

use super::*;
use crate::domain::{
    CallRequest, CallResult, Change, ConfigChange, ContainerSize, Env, HostChange, ImageReference, Json, NetworkMode,
    PortBinding, Timeout, Verdict,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::sample::select;

const PORT: &str = "[1-9][0-9]{0,3}(/(tcp|udp))?";
const CONTAINER_MODE: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,8}(:(ro|rw))?";
const CONTAINER_ALIAS: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,8}(:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,8})?";

pub(super) fn function() -> impl Strategy<Value = Function> {
    let names = ("[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", "[a-z0-9]([-a-z0-9]{0,253}[a-z0-9])?");
    (names, any::<[u8; 16]>(), any::<i64>(), definition()).prop_map(|((of, called), uuid, created, definition)| {
        Function {
            account: account(&of),
            name: name(&called),
            uuid: FunctionUuid::from_random(uuid),
            created: Timestamp(created),
            definition,
        }
    })
}

pub(super) fn definition() -> impl Strategy<Value = Definition> {
    let networking = prop_oneof![any::<String>(), Just("{ \"a\" :1.0,\r\n\t\"a\": {} }".to_owned())].prop_map(Json);
    let change = (
        select(&ContainerSize::ALL[..]),
        (1..=i64::from(Timeout::SECONDS_MAX)).prop_map(|seconds| Timeout::from_seconds(seconds).unwrap()),
        config(),
        host(),
        option::of(networking),
        option::of(any::<u64>()),
        option::of(any::<u32>()),
    );
    change.prop_map(|(size, timeout, config, host, networking, fuel, max_concurrency)| {
        let (size, timeout) = (Some(size), Some(timeout));
        Definition::create(Change { size, timeout, config, host, networking, fuel, max_concurrency }).unwrap()
    })
}

fn arguments() -> impl Strategy<Value = Vec<String>> {
    vec("[^\\x00]{0,12}", 0..4)
}

fn reference() -> impl Strategy<Value = ImageReference> {
    let text = ("[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[A-Za-z0-9_]{1,8})?", option::of(any::<[u8; 32]>()));
    text.prop_map(|(name, digest)| {
        let digest = digest.map(|bytes| format!("@{}", Digest::new(bytes))).unwrap_or_default();
        ImageReference::parse(&(name + &digest)).unwrap()
    })
}

fn config() -> impl Strategy<Value = ConfigChange> {
    let labels = (btree_map("[^s].{0,8}", any::<String>(), 0..4), option::of("[a-z]{1,4}/[ -~]{1,8}"));
    let labels = labels.prop_map(|(mut labels, content_type)| {
        labels.extend(content_type.map(|of| ("sh.hyperfunc.content-type".to_owned(), of)));
        labels
    });
    let fields = (
        any::<bool>(),
        vec("[^=\\x00]{1,8}=[^\\x00]{0,12}", 0..4),
        btree_set(PORT, 0..4),
        arguments(),
        reference(),
        arguments(),
        option::of("/[^\\x00]{0,12}"),
        labels,
        any::<String>(),
    );
    fields.prop_map(|(tty, env, ports, cmd, image, entrypoint, working_dir, labels, stop_signal)| ConfigChange {
        tty: Some(tty),
        env: Some(Env::new(env).unwrap()),
        exposed_ports: Some(ports),
        cmd: Some(cmd),
        image: Some(image),
        entrypoint: Some(entrypoint),
        working_dir,
        labels: Some(labels),
        stop_signal: Some(stop_signal),
    })
}

fn host() -> impl Strategy<Value = HostChange> {
    let binding = (select(vec!["", "127.0.0.1", "::1"]), select(vec!["", "80", "8000-8010"]));
    let binding = binding.prop_map(|(ip, port)| PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() });
    let mode = prop_oneof![
        Just(NetworkMode::Bridge),
        Just(NetworkMode::Host),
        Just(NetworkMode::None),
        "\\PC{1,8}".prop_map(NetworkMode::Container),
    ];
    let fields = (
        vec(CONTAINER_MODE, 0..3),
        btree_map(PORT, vec(binding, 0..3), 0..3),
        vec(CONTAINER_ALIAS, 0..3),
        any::<bool>(),
        mode,
    );
    fields.prop_map(|(volumes_from, port_bindings, links, publish_all_ports, network_mode)| HostChange {
        volumes_from: Some(volumes_from),
        port_bindings: Some(port_bindings),
        links: Some(links),
        publish_all_ports: Some(publish_all_ports),
        network_mode: Some(network_mode),
    })
}

pub(super) fn image() -> impl Strategy<Value = Image> {
    let info = (any::<bool>(), any::<u64>(), vec(any::<String>(), 0..4), vec(any::<String>(), 0..4));
    let info = info.prop_map(|(wide, initial_memory_bytes, imports, exports)| {
        let memory = if wide { MemoryKind::Wide } else { MemoryKind::Narrow };
        ModuleInfo { memory, initial_memory_bytes, imports, exports }
    });
    let config = (arguments(), arguments(), arguments(), option::of(any::<String>()));
    let config =
        config.prop_map(|(entrypoint, cmd, env, working_dir)| ImageConfig { entrypoint, cmd, env, working_dir });
    // Larger than any module, and as many as a test has are no more together than the store can count.
    let size_bytes = 0..=1_u64 << 56;
    let fields = ("[a-z0-9]{1,8}", reference(), any::<[u8; 32]>(), size_bytes, any::<i64>(), info, config);
    fields.prop_map(|(of, reference, digest, size_bytes, created, info, config)| Image {
        account: account(&of),
        repository: reference.repository().to_owned(),
        tag: Some(reference.tag().to_owned()),
        digest: Digest::new(digest),
        size_bytes,
        created: Timestamp(created),
        info,
        config,
    })
}

pub(super) fn call_request() -> impl Strategy<Value = CallRequest> {
    let variables = vec((any::<String>().prop_map(Into::into), any::<String>()), 0..5);
    (vec(any::<u8>(), 0..64), variables).prop_map(|(body, variables)| CallRequest { body: body.into(), variables })
}

/// Also what no execution leaves, such as the output of a call that failed.
pub(super) fn call_result() -> impl Strategy<Value = CallResult> {
    let bytes = || vec(any::<u8>(), 0..64);
    let fields = (select(&Verdict::ALL[..]), any::<String>(), option::of(any::<String>()), bytes(), bytes());
    fields.prop_map(|(verdict, message, content_type, stdout, stderr)| CallResult {
        verdict,
        message: (verdict != Verdict::Finished).then_some(message),
        content_type,
        stdout: stdout.into(),
        stderr: stderr.into(),
    })
}
