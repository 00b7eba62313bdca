//! Going away in peace.
//!
//! The order matters: probes are told first, so that balancers send no more; then no call is let in, the port is
//! closed and connections are told to finish; calls in progress go on until they are done or the grace is over; then
//! the engine ends whatever is left with a typed error.

use std::time::{Duration, Instant};

use crate::boot::Running;

/// Once the last answer is handed over, how long its bytes may take to leave. Health watches have no end of their
/// own and are not waited for any longer than this.
const LINGER: Duration = Duration::from_millis(500);

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drained {
    /// Calls that were cut off because the grace was over.
    pub cut_off: usize,
    /// Seconds it took.
    pub seconds: f64,
}

/// Ends `running`; see the module.
pub(crate) async fn drain(running: Running, grace: Duration) -> Drained {
    let begun = Instant::now();
    running.health.drain().await;
    running.admission.close();
    running.stop.cancel();
    tracing::info!(
        in_flight = running.admission.in_flight(),
        grace_seconds = grace.as_secs(),
        "draining"
    );
    let emptied = tokio::time::timeout(grace, running.admission.empty()).await.is_ok();
    let cut_off = if emptied { 0 } else { running.admission.in_flight() };
    if let Some(served) = running.served() {
        let engine = served.engine.clone();
        // Ends what is left at once: the grace is over or nothing is there.
        let _ = tokio::task::spawn_blocking(move || engine.shutdown(Duration::ZERO)).await;
    }
    let _ = tokio::time::timeout(LINGER, running.server).await;
    Drained { cut_off, seconds: begun.elapsed().as_secs_f64() }
}

/// Returns when the process is told to end: SIGTERM, or SIGINT (Ctrl-C).
///
/// # Errors
/// The handlers cannot be installed.
pub async fn signal() -> std::io::Result<&'static str> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        })
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await?;
        Ok("Ctrl-C")
    }
}
