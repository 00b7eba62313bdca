//! A stream in a crowd says what it would say alone.

use pith_client::{Client, v1};

use crate::support::{essay, request};
use crate::{ALONE, smollm2};

const STREAMS: usize = 64;
/// Most a token's ln-probability may differ, and the margin below which another token may win.
const BOUND: f32 = 0.05;

/// Prompts from a few words to some 250 tokens, answers of 8 to 23 tokens.
fn asked(n: usize) -> v1::GenerateRequest {
    let prompt = format!("Tell me about harbour number {n}.\n\n{}", essay(n * n % 7));
    let mut request = request(&prompt, 8 + (n * 7 % 16) as u32);
    request.output = Some(v1::OutputOptions { logprobs: true, ..Default::default() });
    // Every run computes everything: a prefix found in the cache would hide a difference.
    request.no_prefix_cache = true;
    request
}

async fn tokens(client: Client, n: usize) -> Vec<(u32, f32)> {
    let answer = client.generate(asked(n)).await.unwrap().collect().await.unwrap();
    answer.tokens.iter().map(|token| (token.id, token.logprob.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mixed_streams_agree_with_lone_runs() {
    let _alone = ALONE.lock().await;
    let server = smollm2().await;
    let client = server.client().await;
    let crowd: Vec<_> = (0..STREAMS).map(|n| tokio::spawn(tokens(client.clone(), n))).collect();
    let mut together = Vec::new();
    for stream in crowd {
        together.push(stream.await.unwrap());
    }
    let mut worst = 0f32;
    for (n, crowded) in together.iter().enumerate() {
        let lone = tokens(client.clone(), n).await;
        assert_eq!(lone.len(), crowded.len());
        for (&(a, p), &(b, q)) in lone.iter().zip(crowded) {
            assert!(
                (p - q).abs() <= BOUND,
                "stream {n}: token {a} at {p} alone, {b} at {q} in the crowd"
            );
            worst = worst.max((p - q).abs());
            if a != b {
                // Two tokens within the bound of each other; from here on the texts differ.
                break;
            }
        }
    }
    println!("largest difference of a ln-probability: {worst:.2e}");
    server.idle().await;
    assert_eq!(server.engine().await.inconsistencies(), 0);
}
