//! A stream in a crowd says what it would say alone, to the last bit of its likelihoods.

use pith_client::{Client, v1};

use crate::support::{essay, request};
use crate::{ALONE, smollm2};

const STREAMS: usize = 64;

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
    for (n, crowded) in together.iter().enumerate() {
        assert_eq!(&tokens(client.clone(), n).await, crowded, "stream {n}");
    }
    server.idle().await;
    assert_eq!(server.engine().await.inconsistencies(), 0);
}
