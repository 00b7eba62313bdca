//! Words and vectors find what they should.

use super::*;

#[test]
fn words_and_vectors_are_fused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put("one", "a", &words("harbour lighthouse mole", 32)).unwrap();
    store.put("one", "b", &words("salt wool tin harbours", 32)).unwrap();
    let (terms, near) = (crate::terms("harbour").collect::<Vec<_>>(), vector("elom", 32));
    let search = |query: Query<'_>| -> Vec<Hit> { store.search("one", &query).unwrap() };
    let only = |lexical, dense| FusionWeights { lexical, dense };
    let query =
        Query { terms: &terms, vector: Some(("letters", &near)), count: 10, ..Query::default() };
    let text = |hit: &Hit| {
        let text = store.get("one", &hit.id, None).unwrap().unwrap().text;
        text[hit.span.clone()].to_owned()
    };

    let by_words = search(Query { weights: only(1.0, 0.0), ..query });
    assert_eq!(by_words.iter().map(&text).collect::<Vec<_>>(), ["harbour", "harbours"]);
    assert!(by_words.iter().all(|hit| hit.score == 1.0 && hit.dense.is_none()));

    let by_vectors = search(Query { weights: only(0.0, 1.0), ..query });
    assert_eq!(text(&by_vectors[0]), "mole");
    assert!((by_vectors[0].dense.unwrap() - 1.0).abs() < 0.01, "{:?}", by_vectors[0]);
    // What has nothing in common is no hit.
    assert!(by_vectors.len() < 7 && by_vectors.iter().all(|hit| hit.score > 0.0));

    // Each is found by its own kind of score; the words have both kinds.
    let both = search(query);
    let first: Vec<String> = both.iter().take(3).map(&text).collect();
    assert!(first.contains(&"mole".to_owned()) && first.contains(&"harbour".to_owned()));
    assert!(both.iter().all(|hit| hit.dense.is_some()));
    assert!(both.is_sorted_by(|a, b| a.score >= b.score));
    assert_eq!(search(Query { count: 2, ..query }), both[..2]);

    // Only the documents named, and only vectors of the same making.
    let named = ["b".to_owned(), "nobody".to_owned()];
    let of_b = search(Query { documents: Some(&named), ..query });
    assert!(!of_b.is_empty() && of_b.iter().all(|hit| hit.id == "b"));
    assert_eq!(search(Query { documents: Some(&[]), ..query }), []);
    let others = search(Query { vector: Some(("other", &near)), ..query });
    assert!(others.iter().all(|hit| hit.dense.is_none()) && others.len() == 2);
    let short = search(Query { vector: Some(("letters", &near[..4])), ..query });
    assert_eq!(short, others);
}

#[test]
fn rare_words_weigh_more_and_long_chunks_less() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let text = "common rare. common common common. common other words beside.";
    let mut content = Content { text: text.to_owned(), ..Content::default() };
    for span in [0..12, 13..34, 35..61] {
        let terms = crate::terms(&text[span.clone()]).collect();
        content.chunks.push(Chunk { span, terms, vector: None });
    }
    store.put("one", "a", &content).unwrap();
    let spans = |question: &str| -> Vec<usize> {
        let terms: Vec<u64> = crate::terms(question).collect();
        let query = Query { terms: &terms, count: 9, ..Query::default() };
        store.search("one", &query).unwrap().iter().map(|hit| hit.span.start).collect()
    };
    assert_eq!(spans("rare common"), [0, 13, 35]);
    assert_eq!(spans("common"), [13, 0, 35]);
    assert_eq!(spans("nowhere"), []);
}

#[test]
fn a_question_that_cannot_be_asked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let field = |query: Query<'_>| match store.search("one", &query) {
        Err(StoreError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let good = Query { count: 1, ..Query::default() };
    assert_eq!(store.search("one", &good).unwrap(), []);
    assert_eq!(field(Query { count: 0, ..good }), "count");
    assert_eq!(field(Query { count: MAX_HITS + 1, ..good }), "count");
    for (lexical, dense) in [(0.0, 0.0), (-1.0, 1.0), (f32::NAN, 1.0), (f32::INFINITY, 1.0)] {
        assert_eq!(field(Query { weights: FusionWeights { lexical, dense }, ..good }), "weights");
    }
    assert_eq!(field(Query { vector: Some(("e", &[f32::NAN])), ..good }), "vector");
    assert_eq!(field(Query { vector: Some(("e", &[])), ..good }), "vector");
}

/// `cargo test --release -p pith-context a_million_chunks -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute and 2 GiB; prints times"]
fn a_million_chunks() {
    const DIMENSIONS: usize = 384;
    const CHUNKS: usize = 1000;
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { tenant_bytes: u64::MAX, ..Limits::default() };
    let store = Store::open(folder.path(), limits).unwrap();
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let text = "x".repeat(CHUNKS);
    let clock = std::time::Instant::now();
    for document in 0..1000 {
        let chunk = |at: usize, random: &mut dyn FnMut() -> u64| {
            let vector = (0..DIMENSIONS).map(|_| random() as f32 / (1_u64 << 31) as f32 - 0.5);
            Chunk {
                span: at..at + 1,
                vector: Some(vector.collect()),
                // Zipf's law, roughly: the n-th word once in n chunks.
                terms: (0..40)
                    .map(|_| (1e5_f64.powf(random() as f64 / (1_u64 << 31) as f64)) as u64)
                    .collect(),
            }
        };
        let content = Content {
            text: text.clone(),
            embedder: Some("random".to_owned()),
            chunks: (0..CHUNKS).map(|at| chunk(at, &mut random)).collect(),
            ..Content::default()
        };
        store.put("one", &format!("{document}"), &content).unwrap();
    }
    println!("stored in {:.1} s", clock.elapsed().as_secs_f64());
    let vector: Vec<f32> = (0..DIMENSIONS).map(|at| (at as f32).sin() / 14.0).collect();
    for terms in [&[][..], &[3, 50, 700, 8000, 20_000, 30_000, 40_000, 50_000]] {
        for weights in [FusionWeights::default(), FusionWeights { lexical: 0.0, dense: 1.0 }] {
            for _ in 0..3 {
                let clock = std::time::Instant::now();
                let vector = Some(("random", &vector[..]));
                let query = Query { terms, vector, count: 10, weights, ..Query::default() };
                let hits = store.search("one", &query).unwrap();
                let ms = clock.elapsed().as_secs_f64() * 1e3;
                println!("{} terms, {weights:?}: {ms:.0} ms, {} hits", terms.len(), hits.len());
                assert_eq!(hits.len(), 10);
            }
        }
    }
    let clock = std::time::Instant::now();
    store.delete("one", "500").unwrap();
    println!("deleted 1000 chunks in {:.0} ms", clock.elapsed().as_secs_f64() * 1e3);
    drop(store);
    let clock = std::time::Instant::now();
    let store = Store::open(folder.path(), Limits::default()).unwrap();
    println!("opened in {:.0} ms", clock.elapsed().as_secs_f64() * 1e3);
    let clock = std::time::Instant::now();
    assert_eq!(store.check().unwrap().chunks, 999_000);
    println!("checked in {:.0} ms", clock.elapsed().as_secs_f64() * 1e3);
}
