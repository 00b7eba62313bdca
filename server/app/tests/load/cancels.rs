//! Cancelling, at any moment and however often, leaves nothing behind.

use std::time::{Duration, Instant};

use crate::ALONE;
use crate::process::{resident_mib, threads};
use crate::support::{Server, canary, request, serve};

const CANCELS: usize = 1000;
/// Growth that an allocator's caches may account for, MiB.
const SLACK_MIB: usize = 48;

/// Opens streams and drops them after a random time: queued, in prefill or decoding.
async fn cancel(server: &Server, times: usize, seed: u64) {
    let client = server.client().await;
    let mut state = seed;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut open = Vec::new();
    for n in 0..times {
        let prompt = "What is it? ".repeat(1 + random(40) as usize);
        let (client, wait) = (client.clone(), Duration::from_micros(random(12_000)));
        open.push(tokio::spawn(async move {
            let read = async {
                let mut answer = client.generate(request(&prompt, 400)).await?;
                while answer.next().await?.is_some() {}
                Ok::<_, pith_client::Error>(())
            };
            // Dropped in the middle, or at its end if it was quicker.
            drop(tokio::time::timeout(wait, read).await);
        }));
        if n % 16 == 0 {
            for stream in open.drain(..) {
                stream.await.unwrap();
            }
        }
    }
    for stream in open {
        stream.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancels_leave_no_block_thread_or_memory() {
    let _alone = ALONE.lock().await;
    let server = serve().await;
    let before = canary(&server.client().await).await;
    // The first hundred fill pools that stay.
    cancel(&server, 100, 1).await;
    server.idle().await;
    let (threads_before, mib_before) = (threads(), resident_mib());
    cancel(&server, CANCELS, 2).await;
    server.idle().await;
    let engine = server.engine().await;
    assert_eq!((engine.live(), engine.inconsistencies()), (0, 0));
    // Blocking threads of the runtime end after ten idle seconds.
    let until = Instant::now() + Duration::from_secs(15);
    while threads() > threads_before && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(threads() <= threads_before, "{} threads, {threads_before} before", threads());
    let mib = resident_mib();
    assert!(mib <= mib_before + SLACK_MIB, "{mib} MiB resident, {mib_before} before");
    assert_eq!(server.client().await.load().await.unwrap().in_flight_requests, 0);
    assert_eq!(canary(&server.client().await).await, before);
}
