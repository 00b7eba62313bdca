//! `pith.v1.Embeddings`: texts as vectors, and documents in the order of a question.

use std::sync::Arc;
use std::time::Instant;

use pith_context::{Embedder as _, bm25};
use pith_engine::encoder::Embedded;
use pith_proto::v1;
use pith_proto::v1::embeddings_server::Embeddings;
use tonic::{Request, Response, Status};

use super::Api;
use super::gate::Caller;
use super::status::ApiError;
use super::validate;
use crate::boot::EmbedderPhase;
use crate::embedding::Embedding;
use crate::language_model::Cancelled;

const MAX_TEXTS: usize = 1024;
const MAX_TEXT_BYTES: usize = 65_536;
const MAX_WEIGHT: f32 = 100.0;

#[tonic::async_trait]
impl Embeddings for Api {
    async fn embed(
        &self,
        request: Request<v1::EmbedRequest>,
    ) -> Result<Response<v1::EmbedResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let request_id = validate::request_id(request.request_id)?;
        check_texts("texts", &request.texts)?;
        let embedding = self.embedding(&request.model)?;
        let (model, dimensions) = (embedding.name().to_owned(), embedding.dimensions());
        let texts = request.texts;
        let work = move |cancelled| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Ok(vectors(&embedding, &texts, &cancelled, caller.deadline)?
                .map(|(values, embedded)| v1::Embedding {
                    values: values.to_vec(),
                    tokens: u32::try_from(embedded.tokens).unwrap_or(u32::MAX),
                    truncated: embedded.truncated,
                })
                .collect())
        };
        let embeddings = self.embedders.run(work).await?;
        let dimensions = u32::try_from(dimensions).unwrap_or(u32::MAX);
        Ok(Response::new(v1::EmbedResponse { request_id, model, dimensions, embeddings }))
    }

    async fn rerank(
        &self,
        request: Request<v1::RerankRequest>,
    ) -> Result<Response<v1::RerankResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let request_id = validate::request_id(request.request_id)?;
        if request.query.trim().is_empty() {
            return Err(ApiError::field("query", "must not be blank").into());
        }
        validate::query(&request.query)?;
        check_texts("documents", &request.documents)?;
        if request.top_n == Some(0) {
            return Err(ApiError::field("top_n", "must be at least 1").into());
        }
        let weights = Weights {
            lexical: weight("lexical_weight", request.lexical_weight)?,
            dense: weight("dense_weight", request.dense_weight)?,
        };
        if weights.lexical + weights.dense == 0.0 {
            let reason = "must be above 0 where lexical_weight is 0";
            return Err(ApiError::field("dense_weight", reason).into());
        }
        let (embedding, reason) = match self.embedding(&request.model) {
            _ if weights.dense == 0.0 => (None, String::new()),
            Ok(embedding) => (Some(embedding), String::new()),
            // Words alone could not tell what is asked for.
            Err(error) if weights.lexical == 0.0 => return Err(error.into()),
            Err(error @ (ApiError::NoEmbedder | ApiError::EmbedderLoading)) => {
                (None, error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        let model = embedding.as_ref().map_or("", |embedding| embedding.name()).to_owned();
        let (query, documents) = (request.query, request.documents);
        let work = move |cancelled| {
            let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
            rank(embedding.as_deref(), &query, &documents, weights, &cancelled, caller.deadline)
        };
        let mut results = self.embedders.run(work).await?;
        results.truncate(request.top_n.map_or(usize::MAX, |top| top as usize));
        let lexical_only = !reason.is_empty();
        Ok(Response::new(v1::RerankResponse { request_id, model, results, lexical_only, reason }))
    }
}

impl Api {
    /// The embedder called `name`; an empty name is the only one.
    fn embedding(&self, name: &str) -> Result<Arc<Embedding>, ApiError> {
        let embedding = match self.serving.embedders.phase() {
            EmbedderPhase::Ready(embedding) => embedding,
            EmbedderPhase::Loading => return Err(ApiError::EmbedderLoading),
            EmbedderPhase::Absent => return Err(ApiError::NoEmbedder),
        };
        if name.is_empty() || name == embedding.name() || name == self.serving.embedders.asked() {
            return Ok(embedding);
        }
        let asked = name.chars().take(128).collect();
        Err(ApiError::UnknownModel { asked, served: embedding.name().to_owned() })
    }
}

fn check_texts(field: &'static str, texts: &[String]) -> Result<(), ApiError> {
    if !(1..=MAX_TEXTS).contains(&texts.len()) {
        return Err(ApiError::field(field, format!("must be 1 to {MAX_TEXTS}")));
    }
    match texts.iter().position(|text| text.len() > MAX_TEXT_BYTES) {
        None => Ok(()),
        Some(index) => {
            let reason = format!("must have at most {MAX_TEXT_BYTES} bytes");
            Err(ApiError::field(format!("{field}[{index}]"), reason))
        }
    }
}

fn weight(field: &'static str, weight: Option<f32>) -> Result<f32, ApiError> {
    match weight.unwrap_or(1.0) {
        // NaN is in no range.
        weight if (0.0..=MAX_WEIGHT).contains(&weight) => Ok(weight),
        weight => {
            let reason = format!("is {weight}; it must be 0 to {MAX_WEIGHT}");
            Err(ApiError::field(field, reason))
        }
    }
}

/// What each half of a score counts.
#[derive(Debug, Clone, Copy)]
struct Weights {
    lexical: f32,
    dense: f32,
}

/// Vectors of `texts`, each with what is known of its text; given up when nobody waits for them any more.
fn vectors(
    embedding: &Embedding,
    texts: &[&str],
    cancelled: &Cancelled,
    deadline: Instant,
) -> Result<impl Iterator<Item = (Vec<f32>, Embedded)>, ApiError> {
    let mut numbers = Vec::new();
    let go_on = || cancelled.awaited_until(deadline);
    let embedded = embedding.embed_while(texts, &mut numbers, go_on)?;
    let dimensions = embedding.dimensions();
    let vectors: Vec<Vec<f32>> = numbers.chunks(dimensions).map(<[f32]>::to_vec).collect();
    Ok(vectors.into_iter().zip(embedded))
}

/// All documents, best first.
fn rank(
    embedding: Option<&Embedding>,
    query: &str,
    documents: &[&str],
    weights: Weights,
    cancelled: &Cancelled,
    deadline: Instant,
) -> Result<Vec<v1::RankedDocument>, ApiError> {
    let lexical = bm25(documents, query);
    let mut ranked: Vec<v1::RankedDocument> = (0..)
        .zip(&lexical)
        .map(|(index, &lexical)| v1::RankedDocument { index, lexical, ..Default::default() })
        .collect();
    let mut parts = vec![(weights.lexical, lexical)];
    if let Some(embedding) = embedding {
        let texts: Vec<&str> = std::iter::once(query).chain(documents.iter().copied()).collect();
        let mut vectors = vectors(embedding, &texts, cancelled, deadline)?;
        let question = vectors.next().map_or_else(Vec::new, |(vector, _)| vector);
        let mut dense = Vec::with_capacity(documents.len());
        for (document, (vector, embedded)) in ranked.iter_mut().zip(vectors) {
            let cosine: f32 = vector.iter().zip(&question).map(|(a, b)| a * b).sum();
            document.dense = Some(cosine);
            document.truncated = embedded.truncated;
            dense.push(cosine);
        }
        parts.push((weights.dense, dense));
    }
    let total: f32 = parts.iter().map(|(weight, _)| weight).sum();
    for (weight, scores) in &parts {
        for (document, deviation) in ranked.iter_mut().zip(deviations(scores)) {
            document.score += weight / total * deviation;
        }
    }
    // Stable: of equal documents the earlier stays first.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(ranked)
}

/// How many standard deviations each score lies above their mean; 0 where all are equal.
fn deviations(scores: &[f32]) -> Vec<f32> {
    let count = scores.len().max(1) as f32;
    let mean = scores.iter().sum::<f32>() / count;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f32>() / count;
    let deviation = variance.sqrt();
    // Equal scores differ from their mean by its rounding.
    let noise = 1e-6 * scores.iter().fold(0.0f32, |most, score| most.max(score.abs()));
    let of = |score: &f32| if deviation > noise { (score - mean) / deviation } else { 0.0 };
    scores.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::deviations;

    #[test]
    fn scores_are_told_by_how_far_they_stand_out() {
        assert_eq!(deviations(&[1.0, 3.0]), [-1.0, 1.0]);
        assert_eq!(deviations(&[0.3; 7]), [0.0; 7]);
        assert_eq!(deviations(&[0.0; 3]), [0.0; 3]);
        assert_eq!(deviations(&[5.0]), [0.0]);
        assert!(deviations(&[]).is_empty());
        let spread = deviations(&[0.0, 0.0, 0.0, 8.0]);
        assert!(spread[3] > 1.7 && (spread[0] + 0.577).abs() < 1e-2, "{spread:?}");
    }
}
