//! The tensors a plan computes with, and whether a file has exactly those.

use std::collections::HashSet;

use super::{Layer, Plan};
use crate::ModelError;
use crate::file::{Tensor, TensorType};

/// A tensor that must be there.
struct Need {
    name: String,
    rows: usize,
    cols: usize,
    storage: Storage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// Any type: a factor of matrix products or the embedding.
    Matrix,
    /// Not quantised: norms and biases are read as f32.
    Float,
    /// F32 alone.
    Single,
}

impl Storage {
    fn holds(self, kind: TensorType) -> bool {
        match self {
            Self::Matrix => true,
            Self::Float => matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16),
            Self::Single => kind == TensorType::F32,
        }
    }
}

/// Refuses a file that lacks a tensor of the plan, has it in another shape or type than the plan
/// computes with, or has a tensor that the plan does not know. `names` are those of all its tensors; `get` finds one by
/// its name, with its number of dimensions.
pub(super) fn check<'a>(
    plan: &Plan,
    mut names: impl ExactSizeIterator<Item = &'a str>,
    get: impl Fn(&str) -> Option<(&'a Tensor, usize)>,
) -> Result<(), ModelError> {
    let needs = needs(plan, get("rope_freqs.weight").is_some());
    for need in &needs {
        check_one(need, get(&need.name))?;
    }
    if needs.len() != names.len() {
        let known = needs.iter().map(|need| need.name.as_str()).collect::<HashSet<_>>();
        if let Some(extra) = names.find(|name| !known.contains(name)) {
            return Err(ModelError::Unsupported(format!(
                "tensor {extra:?} in a file of the architecture {}",
                plan.architecture
            )));
        }
    }
    Ok(())
}

fn check_one(need: &Need, found: Option<(&Tensor, usize)>) -> Result<(), ModelError> {
    let name = &need.name;
    let Some((tensor, dims)) = found else {
        return Err(ModelError::Invalid(format!("tensor {name} is missing")));
    };
    if dims > 2 || tensor.rows != need.rows || tensor.cols != need.cols {
        return Err(ModelError::Invalid(format!(
            "tensor {name} is {} x {} instead of {} x {}",
            tensor.rows, tensor.cols, need.rows, need.cols
        )));
    }
    if !need.storage.holds(tensor.kind) {
        return Err(ModelError::Unsupported(format!("tensor {name} of type {:?}", tensor.kind)));
    }
    Ok(())
}

/// Every tensor of `plan` with its rows and columns, and whether it is a matrix.
pub(super) fn shapes(plan: &Plan) -> impl Iterator<Item = (String, usize, usize, bool)> {
    let needs = needs(plan, false).into_iter();
    needs.map(|need| (need.name, need.rows, need.cols, need.storage == Storage::Matrix))
}

fn needs(plan: &Plan, rope_divisors: bool) -> Vec<Need> {
    let mut needs = vec![
        matrix("token_embd.weight".to_owned(), plan.vocab, plan.hidden),
        vector("output_norm.weight".to_owned(), plan.hidden),
    ];
    if !plan.tied_output {
        needs.push(matrix("output.weight".to_owned(), plan.vocab, plan.hidden));
    }
    if rope_divisors {
        let cols = plan.ropes.first().map_or(0, |rope| rope.inv_freq.len());
        let name = "rope_freqs.weight".to_owned();
        needs.push(Need { name, rows: 1, cols, storage: Storage::Single });
    }
    for (index, layer) in plan.layers.iter().enumerate() {
        needs.extend(layer_needs(index, layer, plan.hidden));
    }
    needs
}

fn layer_needs(index: usize, layer: &Layer, hidden: usize) -> Vec<Need> {
    let name = |suffix: &str| format!("blk.{index}.{suffix}");
    // Products of capped sizes: at most 2^20.
    let q = layer.heads * layer.head_dim;
    let kv = layer.kv_heads * layer.head_dim;
    let mut needs = vec![
        vector(name("attn_norm.weight"), hidden),
        matrix(name("attn_q.weight"), q, hidden),
        matrix(name("attn_k.weight"), kv, hidden),
        matrix(name("attn_v.weight"), kv, hidden),
        matrix(name("attn_output.weight"), hidden, q),
        vector(name("ffn_norm.weight"), hidden),
        matrix(name("ffn_gate.weight"), layer.feed_forward, hidden),
        matrix(name("ffn_up.weight"), layer.feed_forward, hidden),
        matrix(name("ffn_down.weight"), hidden, layer.feed_forward),
    ];
    if layer.qkv_bias {
        needs.push(vector(name("attn_q.bias"), q));
        needs.push(vector(name("attn_k.bias"), kv));
        needs.push(vector(name("attn_v.bias"), kv));
    }
    if layer.output_bias {
        needs.push(vector(name("attn_output.bias"), hidden));
    }
    if layer.qk_norm {
        needs.push(vector(name("attn_q_norm.weight"), layer.head_dim));
        needs.push(vector(name("attn_k_norm.weight"), layer.head_dim));
    }
    if layer.post_norms {
        needs.push(vector(name("post_attention_norm.weight"), hidden));
        needs.push(vector(name("post_ffw_norm.weight"), hidden));
    }
    needs
}

fn matrix(name: String, rows: usize, cols: usize) -> Need {
    Need { name, rows, cols, storage: Storage::Matrix }
}

fn vector(name: String, cols: usize) -> Need {
    Need { name, rows: 1, cols, storage: Storage::Float }
}
