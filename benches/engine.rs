//! What a call costs without a wire: a sandbox made, run and taken down, and how a module gets there.
//!
//! `cargo bench --bench engine`

#![allow(missing_docs, clippy::expect_used, reason = "criterion's macros; a bench fails by panicking")]

use criterion::{Criterion, criterion_group, criterion_main};
use hyperfunc::domain::{Limits, MB, MemoryKind, STDOUT_BYTES_MAX};
use hyperfunc::engine::{CompilerThreads, Engine, Flavour, Invocation, Program, Settings, Weight};
use std::hint::black_box;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

const HELLO: &[u8] = include_bytes!("../guest-examples/hello/hello.wasm");
const ECHO: &[u8] = include_bytes!("../guest-examples/echo/echo.wasm");

const LIMITS: Limits =
    Limits { memory_bytes: 512 * MB, timeout: Duration::from_secs(300), fuel: None, stdout_bytes: STDOUT_BYTES_MAX };

fn engine() -> Engine {
    let instances_max = NonZeroU32::new(100).expect("not zero");
    let settings = Settings {
        instances_max,
        memory_budget_bytes: 1024 * MB,
        threads: 2,
        compiler: CompilerThreads::One,
        clock: Instant::now,
    };
    Engine::new(settings).expect("an engine")
}

fn flavours() -> [Flavour; 2] {
    // The two of 32-bit modules.
    let unmetered = Flavour::unmetered(MemoryKind::Narrow);
    let metered = Flavour::ALL.into_iter().find(|flavour| flavour.name() == "metered").expect("a flavour");
    [unmetered, metered]
}

fn program(engine: &Engine, wasm: &[u8], flavour: Flavour) -> Program {
    engine.inspect(wasm).expect("a module");
    let artifact = engine.compile(wasm, flavour).expect("compiles");
    // SAFETY: the bytes are what this engine has just compiled.
    unsafe { engine.load(&artifact, flavour) }.expect("loads")
}

/// Context, instantiation, `_start` and drop.
fn run(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let engine = engine();
    let [unmetered, metered] = flavours();
    let mut group = criterion.benchmark_group("run");
    for (name, wasm, flavour, fuel) in [
        ("hello", HELLO, unmetered, None),
        ("hello_with_fuel", HELLO, metered, NonZeroU64::new(1_000_000)),
        ("echo_rust", ECHO, unmetered, None),
    ] {
        let program = program(&engine, wasm, flavour);
        let limits = Limits { fuel, ..LIMITS };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let weight = Weight::default();
                let invocation = Invocation { args: vec!["guest".to_owned()], ..Invocation::default() };
                let outcome =
                    runtime.block_on(engine.run(&program, invocation, &limits, &weight, std::future::pending()));
                black_box(outcome.expect("an outcome"))
            });
        });
    }
    group.finish();
}

/// From bytes to a program.
fn prepare(criterion: &mut Criterion) {
    let engine = engine();
    let [flavour, _] = flavours();
    let artifact = engine.compile(HELLO, flavour).expect("compiles");
    let mut group = criterion.benchmark_group("prepare");
    group.bench_function("inspect_hello", |bencher| bencher.iter(|| black_box(engine.inspect(HELLO))));
    group.bench_function("compile_hello", |bencher| bencher.iter(|| black_box(engine.compile(HELLO, flavour))));
    group.bench_function("load_hello", |bencher| {
        // SAFETY: the bytes are what this engine has just compiled.
        bencher.iter(|| black_box(unsafe { engine.load(&artifact, flavour) }.expect("loads")));
    });
    group.finish();
}

criterion_group!(benches, run, prepare);
criterion_main!(benches);
