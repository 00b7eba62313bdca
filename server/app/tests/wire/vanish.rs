//! A client that is gone holds nothing: its blocks are free and its place is another's.

use crate::support::{Server, first_tokens, request, serve, serve_with};
use pith_client::Client;

async fn in_flight(server: &Server) -> u32 {
    server.client().await.load().await.unwrap().in_flight_requests
}

#[tokio::test]
async fn a_dropped_stream_frees_its_blocks() {
    let server = serve().await;
    let client = server.client().await;
    // The tiny model may be done before its load is read: only a stream caught holding blocks counts.
    let mut caught = 0;
    for _ in 0..200 {
        let mut answer = client.generate(request("What is it?", 2000)).await.unwrap();
        first_tokens(&mut answer).await;
        caught += u32::from(server.engine().await.load().blocks_used > 0);
        drop(answer);
        server.idle().await;
        if caught == 5 {
            break;
        }
    }
    assert_eq!(caught, 5);
    assert_eq!(in_flight(&server).await, 0);
}

#[tokio::test]
async fn so_does_a_lost_connection() {
    let server = serve().await;
    let endpoint = server.running.endpoint();
    // A runtime of its own: when it is shut down, its sockets close without a word of HTTP/2.
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(endpoint).await.unwrap();
            let mut answer = client.generate(request("What is it?", 2000)).await.unwrap();
            first_tokens(&mut answer).await;
            std::mem::forget(answer);
        });
    });
    tokio::task::spawn_blocking(move || gone.join().unwrap()).await.unwrap();
    server.idle().await;
    assert_eq!(in_flight(&server).await, 0);
}

#[tokio::test]
async fn and_a_dropped_unary_call() {
    let server = serve_with(|config| config.limits.max_in_flight = 1).await;
    let client = server.client().await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.generate_unary(request("What is it?", 2000)).await }
    });
    while in_flight(&server).await == 0 && !call.is_finished() {}
    call.abort();
    let _ = call.await;
    server.idle().await;
    // The only place there is has been given back.
    while in_flight(&server).await > 0 {}
    assert!(client.generate_unary(request("And now?", 2)).await.is_ok());
}
