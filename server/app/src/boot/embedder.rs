//! The embedder, fetched and loaded beside the model. Nothing waits for it, and nothing fails without it: words alone
//! speak for a sentence then.

use std::sync::Arc;
use std::time::Instant;

use pith_context::Embedder;
use tokio::sync::watch;

use super::machine::Machine;
use crate::config::DeviceChoice;
use crate::embedding::Embedding;
use crate::hub::{Cache, Catalogue, Hub, Pip, Progress};

/// How far the embedder has come.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// It is being fetched or loaded.
    Loading,
    /// It is there.
    Ready(Arc<Embedding>),
    /// There is none; the log says why.
    Absent,
}

/// The embedder, once there is one.
#[derive(Debug, Clone)]
pub(crate) struct Embedders {
    phase: watch::Receiver<Phase>,
    /// As the settings name it.
    asked: Arc<str>,
}

impl Embedders {
    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// What the settings call it.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    /// As the context stage takes it; none while it is being loaded.
    pub(crate) fn ready(&self) -> Option<Arc<dyn Embedder>> {
        match self.phase() {
            Phase::Ready(embedding) => Some(embedding),
            Phase::Loading | Phase::Absent => None,
        }
    }

    /// Makes it give up a card that was lost, so that it can come back.
    pub(super) fn let_go_of_lost(&self) {
        if let Phase::Ready(embedding) = self.phase() {
            embedding.let_go_of_lost();
        }
    }

    /// Waits until it is there or will not come.
    pub(super) async fn settled(&self) -> Phase {
        let mut phase = self.phase.clone();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Loading)).await;
        settled.map_or_else(|_| Phase::Absent, |phase| phase.clone())
    }
}

/// The embedder called `asked`, still to be loaded, and who will say when it is.
pub(super) fn begin(asked: &str) -> (watch::Sender<Phase>, Embedders) {
    let (announce, phase) = watch::channel(Phase::Loading);
    (announce, Embedders { phase, asked: asked.into() })
}

/// Finds (fetching on first use), opens and loads the embedder called `name`, on `device`. Blocks.
pub(super) fn load(name: &str, device: DeviceChoice, machine: Machine) -> Phase {
    if name.is_empty() {
        return Phase::Absent;
    }
    match find_and_load(name, device, machine) {
        Ok(embedding) => Phase::Ready(Arc::new(embedding)),
        Err(error) => {
            let why = format!("{error:#}");
            tracing::warn!(embedder = name, %why, "no embedder: contexts are chosen by their words alone");
            Phase::Absent
        }
    }
}

fn find_and_load(
    name: &str,
    device: DeviceChoice,
    Machine { isa, pool }: Machine,
) -> anyhow::Result<Embedding> {
    // In the background: bars would run through whatever else is printed.
    let hub =
        Hub::new(Catalogue::builtin()?, Cache::from_env()?, Pip::from_env(), Progress::Silent);
    if !hub.has_embedder(name) {
        tracing::info!(embedder = name, "fetching the embedder");
    }
    let found = hub.resolve_embedder(name)?;
    let begun = Instant::now();
    let embedding = Embedding::load(found.name, &found.path, device, isa, pool.background())?;
    let seconds = begun.elapsed().as_secs_f64();
    let (embedder, place) = (embedding.name(), embedding.place());
    tracing::info!(embedder, place, seconds, "the embedder is loaded");
    Ok(embedding)
}
