//! The gRPC edge: `pith.v1`.
//!
//! `gate` stands before every service (who calls, until when, is there room), `validate` turns messages into checked
//! values, `originals` makes text of files, `prepare` makes prompts on its own threads, `answer` streams. `status` is the one table from errors to the
//! wire.

use std::sync::Arc;

use crate::admission::Admission;
use crate::boot::Serving;
use crate::stored::Stored;

mod answer;
mod compression;
mod desk;
mod documents;
mod embeddings;
mod gate;
mod hints;
mod inference;
mod models;
mod offsets;
mod originals;
mod prepare;
mod rest;
pub(crate) mod status;
mod validate;

pub(crate) use desk::Shared;
pub(crate) use gate::{Door, GateLayer};
pub(crate) use prepare::Preparers;
pub(crate) use rest::Rest;

/// What every service knows.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) serving: Serving,
    pub(crate) admission: Arc<Admission>,
    pub(crate) preparers: Preparers,
    pub(crate) shared: Shared,
    /// Of their own: a thousand texts take a while, and no prompt should wait for them.
    pub(crate) embedders: Preparers,
    pub(crate) stored: Stored,
}

/// A name for a request that came without one: unlikely to be met again, easy to read out.
fn made_up_id() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    format!("req-{:016x}", RandomState::new().build_hasher().finish())
}
