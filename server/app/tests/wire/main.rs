//! What the server promises on the wire, one promise a file, each against a real server on a free port.
//!
//! One binary: linking a server takes longer than all of these together.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

mod auth;
mod bad_input;
mod deadline;
mod documents;
mod drain;
mod dry_run;
mod embeddings;
mod files;
mod health;
mod long_documents;
mod message_size;
mod never_silent;
mod prompt;
mod real_model;
mod reflection;
mod sticky;
mod streams;
mod vanish;
