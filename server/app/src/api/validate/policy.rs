//! What may be done to a request's documents.

use pith_context::{Budget, Fusion, MAX_NEIGHBOR_WINDOW, MAX_SIGNAL_WEIGHT, Mode, Order, Policy};
use pith_proto::v1;

use super::MAX_QUERY_BYTES;
use crate::api::status::ApiError;

/// Refuses a sticky policy where there are no turns.
pub(in crate::api) fn not_sticky(policy: Option<&v1::CompressionPolicy>) -> Result<(), ApiError> {
    match policy {
        Some(policy) if policy.sticky => Err(ApiError::field(
            "policy.sticky",
            "is for chats: elsewhere there are no earlier turns",
        )),
        _ => Ok(()),
    }
}

pub(super) fn policy(policy: v1::CompressionPolicy, question: &str) -> Result<Policy, ApiError> {
    use v1::compression_policy::Budget as Wire;
    let wrong = |field: &'static str, reason: &'static str| Err(ApiError::field(field, reason));
    let mode = match v1::CompressionMode::try_from(policy.mode) {
        Ok(v1::CompressionMode::Unspecified | v1::CompressionMode::None) => Mode::None,
        Ok(v1::CompressionMode::Retrieve) => Mode::Retrieve,
        Err(_) => return wrong("policy.mode", "is not a mode of this server"),
    };
    if v1::Overflow::try_from(policy.on_overflow).is_err() {
        return wrong("policy.on_overflow", "is not known to this server");
    }
    let query = if policy.query.is_empty() { question } else { &policy.query };
    if policy.query.len() > MAX_QUERY_BYTES {
        return wrong("policy.query", "must have at most 65536 bytes");
    }
    if mode == Mode::Retrieve && query.trim().is_empty() {
        return wrong("policy.query", "must not be blank: retrieval selects for a question");
    }
    let budget = match policy.budget {
        // Everything, as far as the model has room.
        None => Budget::KeepRatio(1.0),
        Some(Wire::MaxContextTokens(0)) => {
            return wrong("policy.max_context_tokens", "must be at least 1");
        }
        Some(Wire::MaxContextTokens(tokens)) => Budget::Tokens(tokens),
        Some(Wire::KeepRatio(ratio)) if ratio > 0.0 && ratio <= 1.0 => Budget::KeepRatio(ratio),
        Some(Wire::KeepRatio(_)) => {
            return wrong("policy.keep_ratio", "must be above 0 and at most 1");
        }
    };
    if policy.neighbor_window.is_some_and(|window| window > MAX_NEIGHBOR_WINDOW) {
        return wrong("policy.neighbor_window", "must be at most 64");
    }
    if policy.top_k == Some(0) {
        return wrong("policy.top_k", "must be at least 1");
    }
    if policy.min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
        return wrong("policy.min_score", "must be 0 to 1");
    }
    for (field, weight) in [
        ("policy.lexical_weight", policy.lexical_weight),
        ("policy.dense_weight", policy.dense_weight),
    ] {
        if weight.is_some_and(|weight| !(0.0..=MAX_SIGNAL_WEIGHT).contains(&weight)) {
            return wrong(field, "must be 0 to 100");
        }
    }
    if policy.lexical_weight == Some(0.0) && policy.dense_weight == Some(0.0) {
        return wrong("policy.dense_weight", "must be above 0 if lexical_weight is 0");
    }
    let order = match v1::Order::try_from(policy.order) {
        Ok(v1::Order::Unspecified | v1::Order::Original) => Order::Original,
        Ok(v1::Order::Relevance) => Order::Relevance,
        Ok(v1::Order::Edges) => Order::Edges,
        Err(_) => return wrong("policy.order", "is not known to this server"),
    };
    let fusion = match v1::Fusion::try_from(policy.fusion) {
        Ok(v1::Fusion::Unspecified | v1::Fusion::Scores) => Fusion::Scores,
        Ok(v1::Fusion::Ranks) => Fusion::Ranks,
        Err(_) => return wrong("policy.fusion", "is not known to this server"),
    };
    Ok(Policy {
        mode,
        budget,
        query: query.to_owned(),
        neighbor_window: policy.neighbor_window,
        top_k: policy.top_k,
        min_score: policy.min_score,
        lexical_weight: policy.lexical_weight,
        dense_weight: policy.dense_weight,
        fusion,
        order,
    })
}
