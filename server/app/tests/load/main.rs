//! What the server promises under load, on the real model where arithmetic matters.
//!
//! These measure time and memory, so they run one after another whatever the number of test threads.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod batch;
mod cancels;
mod gap;
mod prefix;
mod process;
#[path = "../wire/support/mod.rs"]
#[expect(dead_code, reason = "shared with the wire tests, which use all of it")]
mod support;

/// Held by a test while it runs.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// SmolLM2 on all cores, ready to be called.
async fn smollm2() -> support::Server {
    support::serve_with(|config| {
        config.model.name = "smollm2".to_owned();
        config.cpu.threads = 0;
        config.cpu.kv_mib = 1024;
    })
    .await
}
