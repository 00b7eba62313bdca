//! `grpc.health.v1`: NOT_SERVING until the model is warm, when its engine has failed, and from the first moment of a
//! drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pith_engine::Engine;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthReporter;

/// The server as a whole, and each service.
pub(crate) const SERVICES: [&str; 6] = [
    "",
    "pith.v1.Inference",
    "pith.v1.Compression",
    "pith.v1.Documents",
    "pith.v1.Embeddings",
    "pith.v1.Models",
];
/// How often the engine is asked whether it works.
const INTERVAL: Duration = Duration::from_millis(500);

/// What probes are told.
#[derive(Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
    draining: Arc<AtomicBool>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl Health {
    /// Everything NOT_SERVING. (The reporter is born with "" SERVING.)
    pub(super) async fn new() -> (Self, HealthServer<impl tonic_health::pb::health_server::Health>)
    {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Self { reporter, draining: Arc::default() };
        health.set(ServingStatus::NotServing).await;
        (health, service)
    }

    /// SERVING as long as `engine` works. Never returns.
    pub(super) async fn follow(&self, engine: &Engine) {
        let mut told = false;
        loop {
            let serving = engine.healthy() && !self.draining.load(Ordering::SeqCst);
            if serving != told {
                told = serving;
                self.set(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
                    .await;
                // A drain that began meanwhile has the last word.
                if serving && self.draining.load(Ordering::SeqCst) {
                    self.set(ServingStatus::NotServing).await;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// NOT_SERVING, for good.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
