//! hyperfunc: functions are defined over HTTP, and every call runs a WebAssembly module in a fresh sandbox.
//!
//! What users are promised is in `docs/api.md`; comments cite its sections. How far it holds when machines fail, and which
//! test plays that, is in `docs/durability.md`. This page is the tour of the house.
//!
//! # Rooms
//!
//! Arrows point one way. All may use `domain`, which uses nothing; `engine`, `store` and `image` do not know each
//! other.
//!
//! ```text
//!   cli ──▶ api ──▶ service ──▶ engine   bytes in, an Outcome out: the only room that names wasmtime
//!    │                 ├──────▶ store    durable truth behind one trait: the only room that names SQLite
//!    │                 └──────▶ image    modules as files, and what was compiled of them
//!    └─ HTTP, as any client              domain: nouns and rules, pure
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`domain`] | functions, images, sizes, limits, calls, endings: built only by constructors that check |
//! | [`engine`] | compile, load, run; what a guest may hold and how it ends |
//! | [`image`] | modules named by their digest, artifacts with a seal |
//! | [`store`] | the trait that every backend keeps, its conformance suite, SQLite; the logs of functions |
//! | [`service`] | the verbs; the scheduler, the programs, the runner, the worker |
//! | [`api`] | HTTP and JSON: routes, who may, bodies, shapes, the one table of statuses |
//! | [`config`] | settings: as they were typed, and checked |
//! | [`cli`] | `serve`, which puts the rooms together, its clients, and what works without it |
//! | [`failpoint`] | where tests break this program; nothing at all in a build for users |
//!
//! # A synchronous call
//!
//! ```text
//!  api::server    a connection's task
//!  api::route     what is asked for                                  400 404 405
//!  api::body      stdin within 1 MB, the request as CGI variables    408 413 431
//!  service::calls the address, the permit of the scheduler           404 429 503
//!  service::programs  digest and flavour to a loaded program, once however many ask
//!  service::runner    engine::run, beside the others once it is heavy
//!  engine::sandbox    store, WASI, instance, _start, all dropped
//!  service::journal   what happened, in one record for the log
//!  api::answer    its result to a status and a line                  200 500 504 509
//! ```
//!
//! All of it happens in the task of the connection: a hop to another costs more than a short guest. A guest that runs
//! long gives way at each tick (`engine::turns`). When the client leaves, a call that waits is forgotten, and one that
//! runs moves to a task of its own (`service::calls`).
//!
//! # An asynchronous call
//!
//! ```text
//!  service::calls    reserves a place, asks the store                429
//!  store (enqueue)   one commit for all who ask at the same time; in its order each call comes into the scheduler
//!                    and then its client is answered: it is on disk
//!  service::permits  its turn has come: a grant for the worker, in the order of the starts
//!  service::worker   claims what was granted, one commit for all; runs each in a task of its own, as above
//!  store (finish)    the result, its rotation and the end of the call: one transition, fenced by the start's number
//!  service::results  whoever waits is woken; who reads has it removed, once `api::stream` knows that it has arrived
//! ```
//!
//! The queue is in the store, and its order in the scheduler: memory holds of a waiting call what it takes to choose, and
//! the request stays on disk until the call is claimed. A start takes up what the server before has left.
//!
//! # A module of a file
//!
//! ```text
//!  cli::run, test, dev, bench   what is asked for here, without a server
//!  service::local               the file to a loaded program: from the user's cache, else compiled on every core
//!  engine::sandbox              as above; the streams are this process's, or in memory
//! ```
//!
//! # Reading order
//!
//! `domain::function`, `domain::call`, `api::route`, `api::handle`, `service::calls`, `service::scheduler`,
//! `service::worker`, `engine::sandbox`, `engine::turns`, `store` (the trait), `store::sqlite::writer`, `cli::serve`.
//!
//! # Invariants
//!
//! `tests/tidy.rs` checks those that text can show.
//!
//! 1. Only `api` and `cli::client` name hyper, only `engine` wasmtime, only `store` rusqlite; serde is not in `domain`,
//!    `engine`, or the store's trait. Every table has its `account_id`, or hangs on a
//!    call that has one.
//! 2. A status that tells of a failure is chosen in `api::error` alone, by exhaustive match.
//! 3. A guest that traps, runs out or exits non-zero is a value ([`domain::Outcome`]), never an error.
//! 4. No raw string id crosses a room.
//! 5. Every queue, body, cache and wait has a named limit. No unbounded channel.
//! 6. Work in the background is owned by something whose drop or shutdown ends it.
//! 7. Only `service`, the engine's ticker and `cli` read the clock; randomness comes in as an argument.
//! 8. No request and no guest reaches a panic.
//! 9. Every fault has a text for the outside and one for the log. A function's UUID is in neither.
//! 10. What comes from the disk is checked before it is used: a row by its checksum, a module by its name, an artifact by
//!     its seal.

pub mod api;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod failpoint;
pub mod image;
pub mod service;
pub mod store;
