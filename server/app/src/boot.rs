//! From settings to a running server.
//!
//! The port is bound first and the model is loaded behind it: probes get an answer (NOT_SERVING) from the first moment, and
//! a port that is taken is known before gigabytes are read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pith_context::{Embedder, PreparedCache, RecentSelections};
use pith_proto::v1::compression_server::CompressionServer;
use pith_proto::v1::documents_server::DocumentsServer;
use pith_proto::v1::embeddings_server::EmbeddingsServer;
use pith_proto::v1::inference_server::InferenceServer;
use pith_proto::v1::models_server::ModelsServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tower_http::catch_panic::CatchPanicLayer;

use crate::admission::Admission;
use crate::api::status::{ApiError, internal};
use crate::api::{Api, Door, GateLayer, Preparers, Rest, Shared};
use crate::config::Config;
use crate::drain::Drained;
use crate::embedding::Embedding;
use crate::executor;
use crate::hub::HubError;
use crate::stored::Stored;
use crate::tenants::Tenants;

mod embedder;
mod health;
mod listen;
mod machine;
mod memory;
mod model;

pub(crate) use embedder::{Embedders, Phase as EmbedderPhase};
pub(crate) use health::Health;
pub use model::Served;

use machine::Machine;

/// A ping unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes of the memory for what turns of chats sent, and most turns.
const SELECTIONS: (usize, usize) = (64 << 20, 1 << 17);
/// Memory of documents prepared before: a hundred of 100,000 tokens each.
const PREPARED_BYTES: usize = 256 << 20;

/// How far the model has come.
#[derive(Debug, Clone)]
enum Phase {
    Loading,
    Ready(Arc<Served>),
    Failed(NotServed),
}

/// Why the model is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotServed {
    /// What went wrong, causes included.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<anyhow::Error> for NotServed {
    fn from(error: anyhow::Error) -> Self {
        let of_hub = error.downcast_ref::<HubError>().map(|error| error.hint().to_string());
        let of_device = || Some(executor::hint(error.downcast_ref()?)?.to_owned());
        let hint = of_hub.or_else(of_device);
        Self { message: format!("{error:#}"), hint }
    }
}

/// The served model, once there is one.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    phase: watch::Receiver<Phase>,
    /// As the settings name it.
    asked: Arc<str>,
    /// What scores by meaning, beside it.
    pub(crate) embedders: Embedders,
}

impl Serving {
    /// The model, if it is loaded and warm.
    pub(crate) fn ready(&self) -> Option<Arc<Served>> {
        match &*self.phase.borrow() {
            Phase::Ready(served) => Some(Arc::clone(served)),
            Phase::Loading | Phase::Failed(_) => None,
        }
    }

    /// What embeds, if it is loaded: hand it to the context stage.
    pub(crate) fn embedder(&self) -> Option<Arc<dyn Embedder>> {
        self.embedders.ready()
    }

    /// What the settings call the model.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    /// The model called `name`; an empty name is the only one.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Served>, ApiError> {
        let served = match &*self.phase.borrow() {
            Phase::Ready(served) => Arc::clone(served),
            Phase::Loading => return Err(ApiError::Loading),
            Phase::Failed(_) => return Err(ApiError::NotServed),
        };
        if name.is_empty() || name == served.name || name == &*self.asked {
            return Ok(served);
        }
        Err(ApiError::UnknownModel {
            asked: name.chars().take(128).collect(),
            served: served.name.clone(),
        })
    }
}

/// A server that runs. [`Running::drain`] ends it in peace; dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    phase: watch::Receiver<Phase>,
    embedders: Embedders,
    pub(crate) health: Health,
    pub(crate) admission: Arc<Admission>,
    /// Stops the accept loop and tells open connections to finish.
    pub(crate) stop: CancellationToken,
    pub(crate) server: AbortOnDropHandle<()>,
    _loader: AbortOnDropHandle<()>,
    _rest: AbortOnDropHandle<()>,
}

/// Binds the port, begins to serve, and loads the model behind it.
///
/// # Errors
/// The port cannot be bound, or the store that the settings name cannot be opened. What goes wrong with the model is told by [`Running::ready`].
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let listener = tokio::net::TcpListener::bind(config.listen.grpc)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen.grpc))?;
    let addr = listener.local_addr()?;
    let settings = config.store.clone();
    let stored = tokio::task::spawn_blocking(move || Stored::open(&settings)).await??;
    let (announce, phase) = watch::channel(Phase::Loading);
    let (announce_embedder, embedders) = embedder::begin(&config.context.embedder);
    let (health, health_service) = Health::new().await;
    let admission = Arc::new(Admission::new(config.limits.max_in_flight));
    let stop = CancellationToken::new();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let prepare_threads = match config.limits.prepare_threads {
        0 => cores,
        threads => threads,
    };
    let prepared = Arc::new(PreparedCache::new(PREPARED_BYTES));
    let (rest, rest_worker) = Rest::begin(Arc::clone(&prepared), Arc::clone(&admission));
    let api = Api {
        serving: Serving {
            phase: phase.clone(),
            asked: config.model.name.as_str().into(),
            embedders: embedders.clone(),
        },
        admission: Arc::clone(&admission),
        preparers: Preparers::new(prepare_threads),
        shared: Shared {
            prepared,
            selections: Arc::new(RecentSelections::new(SELECTIONS.0, SELECTIONS.1)),
            counts: Arc::default(),
            embed_bytes: crate::config::embed_bytes(config.context.embed_kib),
            rest,
        },
        embedders: Preparers::new(prepare_threads),
        stored,
    };
    let door = Door {
        tenants: Tenants::new(&config.tenants, config.limits.max_in_flight),
        admission: Arc::clone(&admission),
        max_request: config.max_request(),
    };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pith_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bytes = config.limits.max_message_mib << 20;
    let router = Server::builder()
        .layer(CatchPanicLayer::custom(|_| {
            internal("a call panicked").into_http::<tonic::body::Body>()
        }))
        .layer(GateLayer(Arc::new(door)))
        .max_concurrent_streams(config.limits.max_streams)
        .http2_keepalive_interval(Some(Duration::from_secs(config.limits.keepalive_seconds)))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // What many clients still ask for first, Python's among them.
        .add_service(reflection().build_v1alpha()?)
        .add_service(InferenceServer::new(api.clone()).max_decoding_message_size(bytes))
        .add_service(CompressionServer::new(api.clone()).max_decoding_message_size(bytes))
        .add_service(EmbeddingsServer::new(api.clone()).max_decoding_message_size(bytes))
        .add_service(DocumentsServer::new(api.clone()).max_decoding_message_size(bytes))
        .add_service(ModelsServer::new(api).max_decoding_message_size(bytes));
    let incoming = listen::incoming(listener, config.limits.max_connections, stop.clone());
    let serve = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let server = tokio::spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!(%error, "the server failed");
        }
    });
    let announce_both = (announce, announce_embedder);
    let loader = tokio::spawn(load(config, announce_both, embedders.clone(), health.clone()));
    Ok(Running {
        addr,
        phase,
        embedders,
        health,
        admission,
        stop,
        server: AbortOnDropHandle::new(server),
        _loader: AbortOnDropHandle::new(loader),
        _rest: rest_worker,
    })
}

/// Loads and warms the model, the embedder beside it, then keeps the model's health up to date.
async fn load(
    config: Config,
    (announce, announce_embedder): (watch::Sender<Phase>, watch::Sender<EmbedderPhase>),
    embedders: Embedders,
    health: Health,
) {
    let machine = match Machine::new(&config.cpu) {
        Ok(machine) => machine,
        Err(error) => {
            announce.send_replace(Phase::Failed(error.into()));
            return;
        }
    };
    let (name, beside) = (config.context.embedder.clone(), machine.clone());
    let device = config.context.embedder_device.or(config.engine.device);
    tokio::task::spawn_blocking(move || {
        announce_embedder.send_replace(embedder::load(&name, device, beside));
    });
    let loaded =
        tokio::task::spawn_blocking(move || model::load(&config, machine, embedders)).await;
    let served = match loaded.context("loading the model panicked").and_then(|loaded| loaded) {
        Ok(served) => served,
        Err(error) => {
            announce.send_replace(Phase::Failed(error.into()));
            return;
        }
    };
    if let Err(error) = served.warm_up().await {
        announce.send_replace(Phase::Failed(error.context("the warm-up generation failed").into()));
        return;
    }
    let engine = served.engine.clone();
    announce.send_replace(Phase::Ready(Arc::new(served)));
    health.follow(&engine).await;
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For [`pith_client::Client::connect`].
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The model, once it is loaded and warm.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub async fn ready(&self) -> Result<Arc<Served>, NotServed> {
        let gone = || NotServed { message: "the server is gone".to_owned(), hint: None };
        let mut phase = self.phase.clone();
        let phase =
            phase.wait_for(|phase| !matches!(phase, Phase::Loading)).await.map_err(|_| gone())?;
        match &*phase {
            Phase::Ready(served) => Ok(Arc::clone(served)),
            Phase::Failed(why) => Err(why.clone()),
            Phase::Loading => Err(gone()),
        }
    }

    /// The embedder, once it is loaded; none if there is none or it cannot be had. May take as long as fetching it.
    pub async fn embedder(&self) -> Option<Arc<Embedding>> {
        match self.embedders.settled().await {
            EmbedderPhase::Ready(embedding) => Some(embedding),
            EmbedderPhase::Loading | EmbedderPhase::Absent => None,
        }
    }

    /// The model, if it is ready now.
    pub(crate) fn served(&self) -> Option<Arc<Served>> {
        match &*self.phase.borrow() {
            Phase::Ready(served) => Some(Arc::clone(served)),
            Phase::Loading | Phase::Failed(_) => None,
        }
    }

    /// Takes no more calls, lets those in progress finish for up to `grace`, then ends.
    pub async fn drain(self, grace: Duration) -> Drained {
        crate::drain::drain(self, grace).await
    }
}
