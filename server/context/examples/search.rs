//! What searches of a large store take: `cargo run --release -p pith-context --example search [-- DOCUMENTS]`, each of
//! 1,000 chunks with random vectors of 384 numbers and words by Zipf's law. Without an argument a million chunks: a
//! minute, 2 GiB of memory and as much of the disk.
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pith_context::store::{Chunk, Content, FusionWeights, Limits, Query, Store};

const DIMENSIONS: usize = 384;
/// Chunks of a document.
const CHUNKS: usize = 1000;
/// Terms of a chunk, among [`WORDS`].
const TERMS: usize = 40;
const WORDS: f64 = 1e5;
/// Times each question is asked; the best counts.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let documents = match std::env::args().nth(1) {
        None => 1000,
        Some(documents) => documents.parse()?,
    };
    let folder = Folder(std::env::temp_dir().join(format!("pith-search-{}", std::process::id())));
    measure(&folder.0, documents)
}

/// Removed when the program ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            println!("{} is left over: {error}", self.0.display());
        }
    }
}

fn measure(folder: &Path, documents: usize) -> Result<(), Box<dyn Error>> {
    let limits = Limits { tenant_bytes: u64::MAX, ..Limits::default() };
    let store = Store::open(folder, limits.clone())?;
    let mut dice = Dice(1);
    let clock = Instant::now();
    for document in 0..documents {
        store.put("one", &document.to_string(), &content(&mut dice))?;
    }
    row("store all", clock);

    let vector: Vec<f32> = (0..DIMENSIONS).map(|at| (at as f32).sin() / 14.0).collect();
    let rare = [3, 50, 700, 8000, 20_000, 30_000, 40_000, 50_000];
    let meaning = FusionWeights { lexical: 0.0, dense: 1.0 };
    let questions: [(&str, &[u64], FusionWeights); 3] = [
        ("search by vector", &[], meaning),
        ("search by 8 words", &rare, FusionWeights { lexical: 1.0, dense: 0.0 }),
        ("search by both", &rare, FusionWeights::default()),
    ];
    for (name, terms, weights) in questions {
        let query = Query {
            terms,
            vector: Some(("random", &vector[..])),
            count: 10,
            weights,
            ..Query::default()
        };
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let clock = Instant::now();
            store.search("one", &query)?;
            best = best.min(milliseconds(clock));
        }
        println!("{name:<20} {best:>10.1} ms");
    }

    let clock = Instant::now();
    store.delete("one", "0")?;
    row("delete a document", clock);
    drop(store);
    let clock = Instant::now();
    let store = Store::open(folder, limits)?;
    row("open", clock);
    let clock = Instant::now();
    let census = store.check()?;
    row("check", clock);
    println!("{} chunks, {} vectors, {} postings", census.chunks, census.vectors, census.postings);
    Ok(())
}

fn content(dice: &mut Dice) -> Content {
    let chunk = |at| Chunk {
        span: at..at + 1,
        vector: Some((0..DIMENSIONS).map(|_| dice.share() as f32 - 0.5).collect()),
        // The n-th word once in n chunks, roughly.
        terms: (0..TERMS).map(|_| WORDS.powf(dice.share()) as u64).collect(),
    };
    Content {
        chunks: (0..CHUNKS).map(chunk).collect(),
        text: "x".repeat(CHUNKS),
        embedder: Some("random".to_owned()),
        ..Content::default()
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn row(name: &str, since: Instant) {
    println!("{name:<20} {:>10.1} ms", milliseconds(since));
}

/// A linear congruential generator (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    /// 0 up to 1.
    fn share(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }
}
