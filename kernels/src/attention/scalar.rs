//! The oracle: all scores of a row, a plain softmax, a weighted sum, accumulated in f64.

use super::{AttentionShape, BiasSpan, Keys};

/// Attention of every head of one row.
pub(super) fn row(
    shape: &AttentionShape,
    keys: Keys<'_>,
    q: &[f32],
    position: usize,
    bias: &[BiasSpan],
    out: &mut [f32],
) {
    let dim = shape.head_dim;
    let group = shape.heads / shape.kv_heads;
    for (head, (q, out)) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
        let (first, weights) = weights(shape, keys, head, q, position, bias);
        let mut sum = vec![0.0f64; dim];
        for (i, &weight) in weights.iter().enumerate() {
            let value = keys.kv.value(head / group, keys.slot(first + i));
            for (sum, v) in sum.iter_mut().zip(value) {
                *sum += f64::from(weight) * v;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sum) {
            *out = sum as f32;
        }
    }
}

/// The softmax weights of one head's query, and the position of the first key it sees.
pub(super) fn weights(
    shape: &AttentionShape,
    keys: Keys<'_>,
    head: usize,
    q: &[f32],
    position: usize,
    bias: &[BiasSpan],
) -> (usize, Vec<f32>) {
    let kv_head = head / (shape.heads / shape.kv_heads);
    let visible = shape.visible(position);
    let first = visible.start;
    let mut scores: Vec<f64> = visible
        .map(|at| {
            let key = keys.kv.key(kv_head, keys.slot(at));
            let dot: f64 = q.iter().zip(key).map(|(&q, k)| f64::from(q) * k).sum();
            let mut score = dot * f64::from(shape.scale);
            if let Some(cap) = shape.softcap {
                score = f64::from(cap) * (score / f64::from(cap)).tanh();
            }
            let span = bias.iter().find(|span| (span.start..span.end).contains(&(at as u32)));
            score + span.map_or(0.0, |span| f64::from(span.bias))
        })
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let total: f64 = scores.iter().sum();
    (first, scores.iter().map(|&s| (s / total) as f32).collect())
}
