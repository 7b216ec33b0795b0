//! tour
pub mod api;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod image;
pub mod service;
pub mod store;
