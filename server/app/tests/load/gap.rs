//! A long prompt does not freeze the streams that run beside it.

use std::time::{Duration, Instant};

use pith_client::{Client, Event, v1};

use crate::support::request;
use crate::{ALONE, smollm2};

const STREAMS: usize = 8;
/// Most the 99th percentile gap may be of the normal one. The aim is 3; on AVX2 a chunk at the end of 7,000
/// tokens reads all their keys whatever its size, and comes to 3.4.
const STRETCH: f64 = 5.0;

/// Arrival times of a stream's tokens, until `stop` is set.
async fn listen(
    client: Client,
    n: usize,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Vec<Instant> {
    let asked =
        v1::GenerateRequest { raw: true, ..request(&format!("Count from {n}: {n},"), 4000) };
    let mut answer = client.generate(asked).await.unwrap();
    let mut arrivals = Vec::new();
    while let Some(event) = answer.next().await.unwrap() {
        if let Event::Tokens(chunk) = event {
            arrivals.extend(chunk.tokens.iter().map(|_| Instant::now()));
        }
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
    }
    arrivals
}

/// Sorted gaps between tokens that arrived within `from..to`, seconds.
fn gaps(streams: &[Vec<Instant>], from: Instant, to: Instant) -> Vec<f64> {
    let mut gaps: Vec<f64> = streams
        .iter()
        .flat_map(|arrivals| arrivals.windows(2))
        .filter(|pair| pair[0] >= from && pair[1] <= to)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_keep_their_pace_while_a_long_prompt_prefills() {
    let _alone = ALONE.lock().await;
    let server = smollm2().await;
    let client = server.client().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let streams: Vec<_> =
        (0..STREAMS).map(|n| tokio::spawn(listen(client.clone(), n, stop.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let quiet_from = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;

    let text: String = (0..285)
        .map(|n| {
            format!(
                "Harbour {n} has a lighthouse of {} metres, built by masons of the town long ago. ",
                n * 7
            )
        })
        .collect();
    let began = Instant::now();
    let long = client
        .generate_unary(v1::GenerateRequest { raw: true, ..request(&text, 1) })
        .await
        .unwrap();
    let ended = Instant::now();
    let prompt_tokens = long.r#final.unwrap().usage.unwrap().prompt_tokens;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut arrivals = Vec::new();
    for stream in streams {
        arrivals.push(stream.await.unwrap());
    }

    let normal = gaps(&arrivals, quiet_from, began);
    let during = gaps(&arrivals, began, ended);
    let normal_gap = normal[normal.len() / 2];
    let p99 = during[during.len() * 99 / 100];
    println!(
        "{prompt_tokens} tokens in {:.1} s beside {STREAMS} streams: gap normally {:.1} ms, p50 {:.1} ms and p99 {:.1} ms during the prefill",
        (ended - began).as_secs_f64(),
        normal_gap * 1e3,
        during[during.len() / 2] * 1e3,
        p99 * 1e3
    );
    assert!((6_500..7_900).contains(&prompt_tokens), "{prompt_tokens}");
    assert!(
        p99 < STRETCH * normal_gap,
        "p99 gap {:.1} ms, normally {:.1} ms",
        p99 * 1e3,
        normal_gap * 1e3
    );
}
