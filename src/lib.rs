//! tour
pub mod domain;
pub mod engine;
pub mod image;
pub mod service;
pub mod store;
