//! The real server, over real sockets: a file for each behaviour, a server and a data directory for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "`tests/alone` uses the rest")]
mod harness;

mod accept;
mod arrival;
mod audit;
mod backup;
mod bodies;
mod busy;
mod call;
mod cli;
mod cli_calls;
mod cli_colours;
mod cli_errors;
mod cli_inspect;
mod cli_interrupted;
mod cli_rmi;
mod cli_update;
mod completions;
mod connections;
mod damaged;
mod deployment;
mod discard;
mod docs;
mod drain;
mod durability;
mod ending;
mod endings_alike;
mod environment;
mod examples;
mod fixtures;
mod follow;
mod fresh;
mod full_disk;
mod function_config;
mod function_fields;
mod function_host;
mod function_logs;
mod functions;
mod help;
mod idempotency;
mod image_refusals;
mod images;
mod kept;
mod leaving;
mod listeners;
mod log;
mod log_reading;
mod management;
mod metrics;
mod open_machine;
mod output;
mod power;
mod queue;
mod restart;
mod restore;
mod seed;
mod settings;
mod shutdown;
mod status;
mod synced;
mod terminal;
mod test_verb;
mod update;
