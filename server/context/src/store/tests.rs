//! What the store promises, one kind of promise a file.

mod counts;
mod damage;
mod disk;
mod documents;
mod model;
mod originals;
mod search;
mod selections;
mod tenants;

use std::path::Path;

use super::*;
use crate::extract::Way;

/// A store with small segments, so that few vectors fill one.
fn open(folder: &Path) -> Store {
    Store::open(folder, small()).unwrap()
}

fn small() -> Limits {
    Limits { segment_bytes: 200, versions: 3, ..Limits::default() }
}

/// A text whose words are its chunks, each with a vector of `dimensions`.
fn words(text: &str, dimensions: usize) -> Content {
    let mut content = Content {
        text: text.to_owned(),
        mime: "text/plain".to_owned(),
        embedder: Some("letters".to_owned()),
        ..Content::default()
    };
    for word in text.split_whitespace() {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        content.chunks.push(Chunk {
            span: start..start + word.len(),
            terms: crate::terms(word).collect(),
            vector: Some(vector(word, dimensions)),
        });
    }
    content
}

/// As [`words`], of a page that says `text`.
fn page(text: &str, dimensions: usize) -> Content {
    let bytes = format!("<title>A page</title><p>{}</p>", text.replace(' ', "&#32; ")).into_bytes();
    let extracted = crate::extract(&bytes, "text/html", &mut || true).unwrap();
    assert_eq!(extracted.text, text);
    let way = Way { elements: extracted.elements, origins: extracted.origins };
    let original = Some(Original { bytes, way, left_out: 0 });
    Content { mime: "text/html".to_owned(), original, ..words(text, dimensions) }
}

/// How often each letter occurs, of length 1: words of like letters are near.
fn vector(word: &str, dimensions: usize) -> Vec<f32> {
    let mut counts = vec![0.0_f32; dimensions];
    word.bytes().for_each(|byte| counts[usize::from(byte) % dimensions] += 1.0);
    let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt();
    counts.iter_mut().for_each(|count| *count /= length);
    counts
}

/// Documents found for a word, by their ids and text.
fn found(store: &Store, tenant: &str, word: &str) -> Vec<(String, String)> {
    let terms: Vec<u64> = crate::terms(word).collect();
    let query = Query { terms: &terms, count: 100, ..Query::default() };
    let hits = store.search(tenant, &query).unwrap();
    let text = |hit: &Hit| {
        let stored = store.get(tenant, &hit.id, Some(hit.version)).unwrap().unwrap();
        stored.text[hit.span.clone()].to_owned()
    };
    hits.iter().map(|hit| (hit.id.clone(), text(hit))).collect()
}

/// Every file in the folder, with its bytes.
fn everything(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(everything(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files
}
