//! Searches over the latest versions of a tenant's documents: BM25 and, with an embedder, dot products.
//!
//! Every vector of the tenant is looked at; the best of either kind are scored by both and fused by a convex
//! combination of normalised scores (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
//! 2023): a score is divided by the best of its kind in this search, zero is the least.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use redb::ReadTransaction;

use super::dot::{dot, quantise_query};
use super::postings::{self, BLOCK};
use super::tables::{EXTENTS, Extent, POSTINGS, TENANTS, Tenant, VERSIONS, VersionRecord};
use super::vectors::Segment;
use super::{Store, StoreError, document};

/// Most hits of a search.
pub const MAX_HITS: usize = 1000;
/// Terms of a question that are looked for, so that a pasted page costs no more than a long question.
const MAX_TERMS: usize = 256;
/// Candidates of either kind, for each hit asked for and at least.
const DEPTH: usize = 4;
const MIN_DEPTH: usize = 256;
/// Vectors below which another thread costs more than it saves.
const VECTORS_PER_THREAD: usize = 16_384;
/// As in [`crate::index`].
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// What the two kinds of score count. Not negative, one of them above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusionWeights {
    /// BM25.
    pub lexical: f32,
    /// Dot products.
    pub dense: f32,
}

impl Default for FusionWeights {
    fn default() -> Self {
        Self { lexical: 0.5, dense: 0.5 }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Query<'a> {
    /// Terms of the question ([`crate::terms`]). The first 256 distinct ones count.
    pub terms: &'a [u64],
    /// Identity of an embedder and its vector of the question. Only vectors of the same embedder are compared with it.
    pub vector: Option<(&'a str, &'a [f32])>,
    /// Most hits; at most [`MAX_HITS`].
    pub count: usize,
    /// Documents to look at; `None`: all of the tenant's.
    pub documents: Option<&'a [String]>,
    /// What words and vectors count.
    pub weights: FusionWeights,
}

/// A chunk that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The document.
    pub id: String,
    /// Its version, the latest.
    pub version: u64,
    /// Bytes of its text.
    pub span: Range<usize>,
    /// The fused score, 0 to 1; comparable within one search.
    pub score: f32,
    /// BM25; 0 if no term of the question occurs.
    pub lexical: f32,
    /// Dot product with the question's vector; `None` where either has no vector.
    pub dense: Option<f32>,
}

/// A chunk's number and score; the greater one is the better hit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored {
    score: f32,
    chunk: u64,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        // The same search has the same hits: of equals the earlier.
        self.score.total_cmp(&other.score).then(other.chunk.cmp(&self.chunk))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best so many.
#[derive(Debug)]
struct Best {
    count: usize,
    heap: BinaryHeap<std::cmp::Reverse<Scored>>,
}

impl Best {
    fn new(count: usize) -> Self {
        Self { count, heap: BinaryHeap::with_capacity(count + 1) }
    }

    fn push(&mut self, scored: Scored) {
        if self.heap.len() < self.count {
            self.heap.push(std::cmp::Reverse(scored));
        } else if self.heap.peek().is_some_and(|worst| worst.0 < scored) {
            self.heap.pop();
            self.heap.push(std::cmp::Reverse(scored));
        }
    }

    fn into_sorted(self) -> Vec<Scored> {
        self.heap.into_sorted_vec().into_iter().map(|scored| scored.0).collect()
    }
}

/// Which chunks may be found.
#[derive(Debug)]
struct Filter(Option<Vec<Range<u64>>>);

impl Filter {
    fn allows(&self, chunk: u64) -> bool {
        let Some(ranges) = &self.0 else { return true };
        let after = ranges.partition_point(|range| range.start <= chunk);
        after > 0 && ranges[after - 1].contains(&chunk)
    }
}

impl Store {
    /// The chunks that serve `query` best, best first.
    ///
    /// # Errors
    /// [`StoreError`]; a query that cannot be asked is invalid.
    pub fn search(&self, tenant: &str, query: &Query<'_>) -> Result<Vec<Hit>, StoreError> {
        check(query)?;
        self.read(|read, state| {
            let Some(tenant) = Tenant::find(&read.open_table(TENANTS)?, tenant)? else {
                return Ok(Vec::new());
            };
            let filter = filter(read, tenant.number, query.documents)?;
            let depth = (query.count * DEPTH).max(MIN_DEPTH);
            let lexical = match query.weights.lexical > 0.0 {
                true => Lexical::score(read, &tenant, query.terms)?,
                false => Lexical::default(),
            };
            let by_words = lexical.best(depth, &filter);
            let dense = match query.vector {
                Some((embedder, vector)) if query.weights.dense > 0.0 => {
                    let segments: Vec<Arc<Segment>> = state
                        .segments(tenant.number)
                        .into_values()
                        .filter(|s| *s.embedder == *embedder && s.dimensions == vector.len())
                        .collect();
                    let mut also: Vec<u64> = by_words.iter().map(|scored| scored.chunk).collect();
                    also.sort_unstable();
                    Some(scan(&segments, vector, depth, &also, &filter))
                }
                _ => None,
            };
            let fused = fuse(&lexical, &by_words, dense.as_ref(), query);
            let mut hits = Vec::with_capacity(fused.len());
            let extents = read.open_table(EXTENTS)?;
            for scored in fused {
                // A vector may be newer than this look at the database.
                let Some((id, version, span)) = locate(&extents, tenant.number, scored.chunk)?
                else {
                    continue;
                };
                hits.push(Hit {
                    id,
                    version,
                    span,
                    score: scored.score,
                    lexical: lexical.of(scored.chunk),
                    dense: dense.as_ref().and_then(|dense| dense.get(&scored.chunk).copied()),
                });
            }
            Ok(hits)
        })
    }
}

fn check(query: &Query<'_>) -> Result<(), StoreError> {
    if !(1..=MAX_HITS).contains(&query.count) {
        return Err(StoreError::invalid("count", format!("must be 1 to {MAX_HITS}")));
    }
    let FusionWeights { lexical, dense } = query.weights;
    let fine = |weight: f32| (0.0..=1e6).contains(&weight);
    if !fine(lexical) || !fine(dense) || lexical + dense == 0.0 {
        let message = "must be 0 to 1,000,000, one of them above 0";
        return Err(StoreError::invalid("weights", message));
    }
    if let Some((_, vector)) = query.vector
        && (!(1..=document::MAX_DIMENSIONS).contains(&vector.len())
            || !vector.iter().all(|component| component.is_finite()))
    {
        return Err(StoreError::invalid("vector", "must hold finite numbers"));
    }
    Ok(())
}

/// The chunks of the latest versions of `documents`.
fn filter(
    read: &ReadTransaction,
    tenant: u32,
    documents: Option<&[String]>,
) -> Result<Filter, StoreError> {
    let Some(ids) = documents else { return Ok(Filter(None)) };
    let versions = read.open_table(VERSIONS)?;
    let mut ranges = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some((_, record)) = VersionRecord::latest(&versions, tenant, id)? {
            ranges.push(record.first_chunk..record.first_chunk + record.chunks);
        }
    }
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup();
    Ok(Filter(Some(ranges)))
}

/// BM25 of every chunk that holds a term of the question.
#[derive(Debug, Default)]
struct Lexical {
    /// By block of chunks; zero where no term occurs.
    scores: BTreeMap<u64, Vec<f32>>,
}

impl Lexical {
    fn score(read: &ReadTransaction, tenant: &Tenant, terms: &[u64]) -> Result<Self, StoreError> {
        let mut seen = HashSet::new();
        let terms: Vec<u64> =
            terms.iter().copied().filter(|&term| seen.insert(term)).take(MAX_TERMS).collect();
        let table = read.open_table(POSTINGS)?;
        // Rows by term, block after block; blocks whose documents have gone are skipped.
        let mut rows: Vec<Vec<_>> = terms.iter().map(|_| Vec::new()).collect();
        let mut next = 0;
        let last = (tenant.number, u64::MAX, u64::MAX);
        while let Some(entry) = table.range((tenant.number, next, 0)..=last)?.next() {
            let (_, block, _) = entry?.0.value();
            for (&term, rows) in terms.iter().zip(&mut rows) {
                rows.extend(table.get((tenant.number, block, term))?.map(|row| (block, row)));
            }
            next = block + 1;
        }
        let mut scores: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
        let average = (tenant.terms as f32 / tenant.chunks.max(1) as f32).max(1.0);
        for rows in rows {
            let mut holding = 0.0;
            for (_, row) in &rows {
                holding += postings::count(row.value())? as f32;
            }
            let weight =
                (1.0 + (tenant.chunks as f32 - holding + 0.5).max(0.0) / (holding + 0.5)).ln();
            for (block, row) in rows {
                let scores = scores.entry(block).or_insert_with(|| vec![0.0; BLOCK as usize]);
                postings::each(row.value(), |posting| {
                    let frequency = posting.frequency as f32;
                    let length = posting.length as f32 / average;
                    if let Some(score) = scores.get_mut(posting.place as usize) {
                        *score += weight * frequency * (K1 + 1.0)
                            / (frequency + K1 * (1.0 - B + B * length));
                    }
                })?;
            }
        }
        Ok(Self { scores })
    }

    fn of(&self, chunk: u64) -> f32 {
        self.scores.get(&(chunk / BLOCK)).map_or(0.0, |scores| scores[(chunk % BLOCK) as usize])
    }

    fn best(&self, count: usize, filter: &Filter) -> Vec<Scored> {
        let mut best = Best::new(count);
        for (block, scores) in &self.scores {
            for (&score, chunk) in scores.iter().zip(block * BLOCK..) {
                if score > 0.0 && filter.allows(chunk) {
                    best.push(Scored { score, chunk });
                }
            }
        }
        best.into_sorted()
    }
}

/// Dot products of the best `count` vectors and of the chunks `also` (sorted).
fn scan(
    segments: &[Arc<Segment>],
    vector: &[f32],
    count: usize,
    also: &[u64],
    filter: &Filter,
) -> HashMap<u64, f32> {
    let (query, scale) = quantise_query(vector);
    let total: usize = segments.iter().map(|segment| segment.chunks.len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = cores.min(total / VECTORS_PER_THREAD + 1);
    let work = |thread: usize| {
        let (mut best, mut found) = (Best::new(count), Vec::new());
        for segment in segments.iter().skip(thread).step_by(threads) {
            let codes = segment.codes.chunks_exact(segment.dimensions);
            for ((codes, &chunk), &unit) in codes.zip(&segment.chunks).zip(&segment.scales) {
                if !filter.allows(chunk) {
                    continue;
                }
                let scored = Scored { score: dot(codes, &query) as f32 * unit * scale, chunk };
                best.push(scored);
                if also.binary_search(&chunk).is_ok() {
                    found.push(scored);
                }
            }
        }
        (best, found)
    };
    let parts: Vec<(Best, Vec<Scored>)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let mine = work(0);
        let others = others.into_iter().filter_map(|thread| thread.join().ok());
        std::iter::once(mine).chain(others).collect()
    });
    let mut best = Best::new(count);
    let mut dots = HashMap::new();
    for (part, found) in parts {
        part.heap.into_iter().for_each(|scored| best.push(scored.0));
        dots.extend(found.into_iter().map(|scored| (scored.chunk, scored.score)));
    }
    dots.extend(best.into_sorted().into_iter().map(|scored| (scored.chunk, scored.score)));
    dots
}

/// The best chunks by both kinds of score.
fn fuse(
    lexical: &Lexical,
    by_words: &[Scored],
    dense: Option<&HashMap<u64, f32>>,
    query: &Query<'_>,
) -> Vec<Scored> {
    let none = HashMap::new();
    let dots = dense.unwrap_or(&none);
    let most = by_words.first().map_or(1.0, |best| best.score);
    let nearest = dots.values().copied().fold(f32::MIN_POSITIVE, f32::max);
    let words = query.weights.lexical;
    // Without a vector of the question, words alone speak.
    let vectors = if dense.is_some() { query.weights.dense } else { 0.0 };
    let total = (words + vectors).max(f32::MIN_POSITIVE);
    let mut best = Best::new(query.count);
    let mut push = |chunk: u64| {
        let near = dots.get(&chunk).map_or(0.0, |dot| dot.max(0.0) / nearest);
        let score = (words * lexical.of(chunk) / most + vectors * near) / total;
        if score > 0.0 {
            best.push(Scored { score, chunk });
        }
    };
    let chunks: BTreeSet<u64> =
        by_words.iter().map(|scored| scored.chunk).chain(dots.keys().copied()).collect();
    chunks.into_iter().for_each(&mut push);
    best.into_sorted()
}

/// Document, version and span of a chunk.
fn locate(
    extents: &impl redb::ReadableTable<(u32, u64), &'static [u8]>,
    tenant: u32,
    chunk: u64,
) -> Result<Option<(String, u64, Range<usize>)>, StoreError> {
    let Some(entry) = extents.range((tenant, 0)..=(tenant, chunk))?.next_back() else {
        return Ok(None);
    };
    let (key, record) = entry?;
    let extent = Extent::decode(record.value())?;
    let span = extent.span(chunk - key.value().1);
    Ok(span.map(|span| (extent.id.to_owned(), extent.version, span)))
}
