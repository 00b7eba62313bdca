//! The pith server: configuration, boot, drain, the gRPC edge, admission and the commands.
//!
//! A request's walk: `api` decodes and authenticates, [`admission`] bounds, `pith-context` packs (only if documents
//! came along), [`prompt`] renders and counts, the engine generates, `api` streams. Nothing here touches
//! tensors.
#![forbid(unsafe_code)]

pub mod admission;
pub mod api;
pub mod boot;
pub mod cli;
pub mod commands;
pub mod config;
pub mod drain;
pub mod embedding;
mod executor;
pub mod hub;
pub mod language_model;
pub mod prompt;
mod stored;
pub mod telemetry;
pub mod tenants;
