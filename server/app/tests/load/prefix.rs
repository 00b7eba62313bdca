//! A prefix computed once is not computed again.

use std::time::Instant;

use crate::support::{first_tokens, request};
use crate::{ALONE, smollm2};
use pith_client::{Client, Event, v1};

/// Seconds to the first token, and the usage at the end.
async fn ask(client: &Client, prompt: &str) -> (f64, v1::Usage) {
    let began = Instant::now();
    let mut answer =
        client.generate(v1::GenerateRequest { raw: true, ..request(prompt, 2) }).await.unwrap();
    first_tokens(&mut answer).await;
    let seconds = began.elapsed().as_secs_f64();
    loop {
        if let Event::Final(last) = answer.next().await.unwrap().unwrap() {
            return (seconds, last.usage.unwrap());
        }
    }
}

#[tokio::test]
async fn the_second_of_two_prompts_computes_only_what_differs() {
    let _alone = ALONE.lock().await;
    let server = smollm2().await;
    let client = server.client().await;
    // About 2,000 tokens, then a question of its own each.
    let shared: String = (0..86)
        .map(|n| {
            format!(
                "Harbour {n} has a lighthouse of {} metres, built by masons of the town long ago. ",
                n * 7
            )
        })
        .collect();
    let (first_seconds, first) =
        ask(&client, &format!("{shared}\nWhich harbour is the oldest?")).await;
    let (second_seconds, second) =
        ask(&client, &format!("{shared}\nHow tall is lighthouse 12, and who built it?")).await;
    assert!((1_800..2_400).contains(&first.prompt_tokens), "{first:?}");
    assert_eq!(first.cached_tokens, 0);
    let computed = second.prompt_tokens - second.cached_tokens;
    assert!(computed <= 48, "{computed} of {} tokens computed", second.prompt_tokens);
    println!(
        "first token after {first_seconds:.3} s, then {second_seconds:.3} s with {} of {} tokens cached",
        second.cached_tokens, second.prompt_tokens
    );
    assert!(
        second_seconds <= 0.2 * first_seconds,
        "{second_seconds:.3} s after {first_seconds:.3} s"
    );
}
