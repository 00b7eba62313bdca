//! A file becomes what is stored of it: its text, made ready for questions and in chunks that searches find.

use std::time::Instant;

use pith_context::extract::{ExtractError, Way};
use pith_context::store::{Chunk, Content, Original};
use pith_context::{ContextError, Document, Embedder, Extracted, Prepared, extract};

use super::super::status::ApiError;
use super::validate::Header;
use crate::language_model::Cancelled;

/// Everything to be stored of the uploaded `file`. Stops when nobody waits for it any more.
pub(super) fn prepare(
    header: Header,
    file: Vec<u8>,
    embedder: Option<&dyn Embedder>,
    deadline: Instant,
    cancelled: &Cancelled,
) -> Result<Content, ApiError> {
    let wrong = |error: ExtractError| {
        let media = matches!(error, ExtractError::Media { .. });
        let field = if media { "header.mime" } else { "data" };
        ApiError::Extract { field: field.to_owned(), error }
    };
    let mut awaited = || cancelled.awaited_until(deadline);
    let Extracted { text, format, elements, title, origins, left_out, .. } =
        extract(&file, &header.mime, &mut awaited).map_err(wrong)?;
    let original = (text.as_bytes() != file).then(|| Original {
        bytes: file,
        way: Way { elements: elements.clone(), origins },
        left_out: left_out as u64,
    });
    let title = header.title.or(title);
    let document = Document { title, text, format, elements, ..Document::default() };
    let mut proceed = || match cancelled.awaited_until(deadline) {
        true => Ok(()),
        false => Err(ContextError::Model { message: "nobody waits for it any more".to_owned() }),
    };
    let prepared = Prepared::new(&document, embedder, &mut proceed)?;
    let chunks = prepared.chunks().map(|(span, vector)| Chunk {
        terms: pith_context::terms(&document.text[span.clone()]).collect(),
        span,
        vector,
    });
    Ok(Content {
        chunks: chunks.collect(),
        prepared: prepared.encode(),
        text: document.text,
        original,
        mime: header.mime,
        title: document.title,
        metadata: header.metadata,
        embedder: embedder.map(|embedder| embedder.identity().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pith_context::store::{FusionWeights, Limits, Query, Store};

    use super::*;

    /// Tells texts about water from texts about anything else.
    struct Water;

    impl Embedder for Water {
        fn identity(&self) -> &str {
            "water"
        }

        fn dimensions(&self) -> usize {
            2
        }

        fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
            for text in texts {
                if text.contains("broken") {
                    return Err(ContextError::Embedder { message: "it broke".to_owned() });
                }
                let wet = ["sea", "river", "lake"].iter().any(|word| text.contains(word));
                out.extend(if wet { [1.0, 0.0] } else { [0.0, 1.0] });
            }
            Ok(())
        }
    }

    fn header() -> Header {
        Header {
            id: "guide".to_owned(),
            title: None,
            mime: "text/plain".to_owned(),
            metadata: Default::default(),
        }
    }

    fn text() -> String {
        (0..200)
            .map(|n| {
                let place = if n == 77 { "a river" } else { "a hill" };
                format!("Paragraph {n} is about {place} and {}.\n\n", "other things ".repeat(50))
            })
            .collect()
    }

    #[test]
    fn chunks_have_terms_and_vectors_and_are_found_by_either() {
        let soon = Instant::now() + Duration::from_secs(60);
        let content =
            prepare(header(), text().into_bytes(), Some(&Water), soon, &Cancelled::default())
                .unwrap();
        assert!(content.chunks.len() >= 200, "{}", content.chunks.len());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Limits::default()).unwrap();
        store.put("one", "guide", &content).unwrap();
        let query = Query {
            vector: Some(("water", &[1.0, 0.0])),
            count: 3,
            weights: FusionWeights { lexical: 0.0, dense: 1.0 },
            ..Query::default()
        };
        let hits = store.search("one", &query).unwrap();
        assert_eq!(hits.len(), 1);
        assert!(content.text[hits[0].span.clone()].contains("river"));
        let terms: Vec<u64> = pith_context::terms("paragraph 123").collect();
        let hits = store.search("one", &Query { terms: &terms, count: 3, ..Query::default() });
        assert!(content.text[hits.unwrap()[0].span.clone()].starts_with("Paragraph 123 "));
    }

    #[test]
    fn it_stops_for_whoever_has_left_and_when_the_model_fails() {
        let soon = Instant::now() + Duration::from_secs(60);
        let late = prepare(
            header(),
            text().into_bytes(),
            Some(&Water),
            Instant::now(),
            &Cancelled::default(),
        );
        assert!(matches!(late, Err(ApiError::Context(ContextError::Model { .. }))));
        let cancelled = Cancelled::default();
        drop(cancelled.on_drop());
        let left = prepare(header(), text().into_bytes(), Some(&Water), soon, &cancelled);
        assert!(matches!(left, Err(ApiError::Context(ContextError::Model { .. }))));
        let broken = "It is broken.".to_owned();
        let failed =
            prepare(header(), broken.into_bytes(), Some(&Water), soon, &Cancelled::default());
        assert!(matches!(failed, Err(ApiError::Context(ContextError::Embedder { .. }))));
    }
}
