use super::*;
use crate::Format;

/// A vector that tells texts apart by their length.
struct Lengths;

impl Embedder for Lengths {
    fn identity(&self) -> &str {
        "lengths"
    }

    fn dimensions(&self) -> usize {
        2
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        out.extend(texts.iter().flat_map(|text| {
            let angle = text.len() as f32 / 40.0;
            [angle.cos(), angle.sin()]
        }));
        Ok(())
    }
}

fn document(text: &str) -> Document {
    Document {
        title: Some("Bridges".to_owned()),
        text: text.to_owned(),
        format: Format::Markdown,
        ..Document::default()
    }
}

fn prepare(document: &Document, embedder: Option<&dyn Embedder>) -> Prepared {
    Prepared::new(document, embedder, &mut || Ok(())).unwrap()
}

const TEXT: &str = "# Tolmin\n\nThe bridge was built by Ana Koren in 1907. It is long.\n\n## Köln\n\nAnother. Yes. Yes.";

#[test]
fn what_is_stored_comes_back() {
    let document = document(TEXT);
    for embedder in [None, Some(&Lengths as &dyn Embedder)] {
        let prepared = prepare(&document, embedder);
        assert!(prepared.sentences.len() > 5 && prepared.vectors.is_some() == embedder.is_some());
        let bytes = prepared.encode();
        // What is read off the text again when it is needed is not stored.
        let prepared = Prepared { paths: None, ..prepared };
        assert_eq!(Prepared::decode(&bytes, &document), Some(prepared));
        for cut in 0..bytes.len() {
            // With vectors, what is left without them is whole by itself.
            let part = Prepared::decode(&bytes[..cut], &document);
            assert!(part.is_none_or(|part| part.vectors.is_none()), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            if let Some(read) = Prepared::decode(&damaged, &document) {
                assert!(read.sentences.iter().all(|s| document.text.get(s.span.clone()).is_some()));
            }
        }
    }
    assert!(
        Prepared::decode(&prepare(&document, None).encode(), &self::document("Short.")).is_none()
    );
}

#[test]
fn sentences_are_embedded_under_their_headings_and_alike_ones_once() {
    struct Notes(std::sync::Mutex<Vec<String>>);
    impl Embedder for Notes {
        fn identity(&self) -> &str {
            "notes"
        }
        fn dimensions(&self) -> usize {
            1
        }
        fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
            self.0.lock().unwrap().extend(texts.iter().map(|text| (*text).to_owned()));
            out.extend(texts.iter().map(|_| 1.0));
            Ok(())
        }
    }
    let notes = Notes(std::sync::Mutex::default());
    let prepared = prepare(&document(TEXT), Some(&notes));
    let texts = notes.0.into_inner().unwrap();
    assert!(texts.contains(&"Bridges: Tolmin".to_owned()), "{texts:?}");
    assert!(texts.contains(&"Bridges: Tolmin: It is long.".to_owned()), "{texts:?}");
    let yes = texts.iter().filter(|text| text.ends_with("Yes."));
    assert_eq!(yes.collect::<Vec<_>>(), ["Bridges: Tolmin: Köln: Yes."]);
    assert_eq!(prepared.vectors.unwrap().scales.len(), prepared.sentences.len());
}

#[test]
fn keys_tell_tenants_contents_and_makers_apart() {
    let text = document(TEXT);
    let key = PreparedKey::new("a", &text, "m");
    assert_eq!(
        key,
        PreparedKey::new("a", &Document { id: "other".to_owned(), ..text.clone() }, "m")
    );
    let untitled = Document { title: None, ..text.clone() };
    let plain = Document { format: Format::Text, ..text.clone() };
    let others = [
        PreparedKey::new("b", &text, "m"),
        PreparedKey::new("a", &text, ""),
        PreparedKey::new("a", &untitled, "m"),
        PreparedKey::new("a", &plain, "m"),
        PreparedKey::new("a", &document("Something else."), "m"),
    ];
    assert!(others.iter().all(|other| *other != key));
}

#[test]
fn the_cache_holds_what_it_may_and_forgets_the_oldest() {
    let prepared = std::sync::Arc::new(prepare(&document(TEXT), None));
    let key = |name: &str| PreparedKey::new(name, &document(TEXT), "");
    let cache = PreparedCache::new(prepared.size() * 2);
    for name in ["a", "b"] {
        cache.put(key(name), std::sync::Arc::clone(&prepared));
    }
    assert!(cache.get(&key("a")).is_some());
    cache.put(key("c"), std::sync::Arc::clone(&prepared));
    assert!(cache.get(&key("b")).is_none() && cache.get(&key("a")).is_some());
    cache.forget("a");
    assert!(cache.get(&key("a")).is_none() && cache.get(&key("c")).is_some());
    let none = PreparedCache::new(0);
    none.put(key("a"), prepared);
    assert!(none.get(&key("a")).is_none());
}

#[test]
fn conversations_are_told_from_prose() {
    let meeting = "Ana: Shall we begin?\nBen: Yes.\n".repeat(5);
    assert!(is_conversation(&meeting));
    assert!(!is_conversation(&"The bridge at Tolmin was opened in May.\n".repeat(12)));
    // Fields of a form come once each.
    let form: String = (0..12).map(|n| format!("Field {n}: value\n")).collect();
    assert!(!is_conversation(&form));
    assert!(!is_conversation("Ana: Shall we begin?\nBen: Yes.\n"), "too short to tell");
}
