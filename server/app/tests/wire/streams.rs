//! A streamed answer is its unary twin in pieces, and a slow reader delays nobody.

use std::time::Duration;

use crate::support::{first_tokens, request, serve, varied};
use pith_client::{Event, v1};

#[tokio::test]
async fn stream_and_unary_agree() {
    let server = serve().await;
    let client = server.client().await;
    let asked = v1::GenerateRequest {
        output: Some(v1::OutputOptions { logprobs: true, ..Default::default() }),
        ..varied("What is it?", 50)
    };
    let unary = client.generate_unary(asked.clone()).await.unwrap();
    let streamed = client.generate(asked).await.unwrap().collect().await.unwrap();
    assert_eq!((streamed.text, streamed.tokens.len()), (unary.text, 50));
    assert_eq!(
        streamed.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        unary.tokens.iter().map(|token| token.id).collect::<Vec<_>>()
    );
    let last = unary.r#final.unwrap();
    assert_eq!(last.finish_reason(), v1::FinishReason::Length);
    let confidence = last.confidence.unwrap();
    let mean =
        unary.tokens.iter().map(|token| f64::from(token.logprob.unwrap())).sum::<f64>() / 50.0;
    assert!((confidence.mean_logprob - mean).abs() < 1e-6 && !confidence.calibrated);
    let timings = last.timings.unwrap();
    assert!(
        timings.total_seconds >= timings.prepare_seconds + timings.decode_seconds,
        "{timings:?}"
    );
}

#[tokio::test]
async fn a_chat_of_one_message_is_a_prompt() {
    let server = serve().await;
    let client = server.client().await;
    let prompted = client.generate_unary(request("What is it?", 20)).await.unwrap();
    let chat = v1::ChatRequest {
        messages: vec![v1::ChatMessage {
            role: v1::Role::User.into(),
            content: "What is it?".into(),
        }],
        stop: request("", 20).stop,
        ..Default::default()
    };
    assert_eq!(client.chat_unary(chat.clone()).await.unwrap().text, prompted.text);
    assert_eq!(client.chat(chat).await.unwrap().collect().await.unwrap().text, prompted.text);
}

#[tokio::test]
async fn stop_strings_stop() {
    let server = serve().await;
    let client = server.client().await;
    let whole = client.generate_unary(varied("What is it?", 60)).await.unwrap().text;
    let stop = &whole[20..24];
    assert!(whole.find(stop).unwrap() > 0, "{whole:?} repeats itself");
    let mut asked = varied("What is it?", 60);
    asked.stop.as_mut().unwrap().strings = vec![stop.to_owned()];
    let stopped = client.generate_unary(asked).await.unwrap();
    assert_eq!(stopped.text, whole.split(stop).next().unwrap());
    let last = stopped.r#final.unwrap();
    assert_eq!(last.finish_reason(), v1::FinishReason::Stop);
    assert_eq!(
        last.matched_stop.unwrap().stop,
        Some(v1::matched_stop::Stop::Text(stop.to_owned()))
    );
}

#[tokio::test]
async fn a_slow_reader_delays_nobody() {
    let server = serve().await;
    let client = server.client().await;
    let mut slow = client.generate(request("What is it?", 2000)).await.unwrap();
    first_tokens(&mut slow).await;
    // Nobody reads it while another one is answered from beginning to end.
    let other = server.client().await;
    let answered = other.generate_unary(request("And this?", 500));
    let answered = tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap().unwrap();
    assert_eq!(answered.r#final.unwrap().usage.unwrap().completion_tokens, 500);
    // It has lost nothing by its rest.
    let mut last = None;
    while let Some(event) = slow.next().await.unwrap() {
        if let Event::Final(end) = event {
            last = Some(end);
        }
    }
    assert_eq!(last.unwrap().usage.unwrap().completion_tokens, 2000);
}

#[tokio::test]
async fn text_goes_to_tokens_and_back() {
    let server = serve().await;
    let client = server.client().await;
    let text = "the theatre, 漢字 🧂 <|im_end|>";
    let request = v1::TokenizeRequest { text: text.into(), with_spans: true, ..Default::default() };
    let tokens = client.tokenize(request.clone()).await.unwrap();
    assert_eq!(tokens.spans.len(), tokens.token_ids.len());
    assert_eq!(tokens.spans.last().unwrap().end, text.chars().count() as u64);
    let back = v1::DetokenizeRequest { token_ids: tokens.token_ids.clone(), ..Default::default() };
    assert_eq!(client.detokenize(back).await.unwrap().text, text);
    let parsed = client
        .tokenize(v1::TokenizeRequest { parse_control_tokens: true, ..request })
        .await
        .unwrap();
    assert_eq!(*parsed.token_ids.last().unwrap(), 2);
    assert!(!tokens.token_ids.contains(&2));
}

#[tokio::test]
async fn the_served_model_and_its_load_are_told() {
    let server = serve().await;
    let client = server.client().await;
    let models = client.models().await.unwrap();
    assert_eq!((models.len(), &*models[0].name, models[0].max_context_tokens), (1, "tiny", 2048));
    assert!(models[0].ready && models[0].chat_template && models[0].kv_capacity_tokens >= 2048);
    let load = client.load().await.unwrap().loads.remove(0);
    assert_eq!(
        load.kv_blocks_free + load.kv_blocks_cached + load.kv_blocks_used,
        load.kv_blocks_total
    );
}
