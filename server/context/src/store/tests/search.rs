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
