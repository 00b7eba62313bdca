//! The engine's load, published without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::request::Load;

/// What the engine thread writes once a step and anyone reads at any time. Fields are read one by one: while
/// steps run, two of them may be of different steps.
#[derive(Debug, Default)]
pub(crate) struct LoadCells {
    cells: [AtomicU64; 19],
}

impl LoadCells {
    /// Publishes `load`.
    pub(crate) fn store(&self, load: &Load) {
        let values = [
            load.waiting as u64,
            load.waiting_tokens as u64,
            load.running as u64,
            load.blocks_free as u64,
            load.blocks_cached as u64,
            load.blocks_used as u64,
            load.blocks_total as u64,
            load.block_size as u64,
            load.prefix_queries,
            load.prefix_hits,
            load.preemptions,
            load.steps,
            load.prefill_tokens,
            load.generated_tokens,
            load.draft_tokens,
            load.accepted_draft_tokens,
            load.prefill_tokens_per_s.to_bits(),
            load.decode_step_seconds.to_bits(),
            load.computed_seconds.to_bits(),
        ];
        for (cell, value) in self.cells.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The load last published.
    pub(crate) fn read(&self) -> Load {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s] =
            std::array::from_fn(|at| self.cells[at].load(Ordering::Relaxed));
        Load {
            waiting: a as usize,
            waiting_tokens: b as usize,
            running: c as usize,
            blocks_free: d as usize,
            blocks_cached: e as usize,
            blocks_used: f as usize,
            blocks_total: g as usize,
            block_size: h as usize,
            prefix_queries: i,
            prefix_hits: j,
            preemptions: k,
            steps: l,
            prefill_tokens: m,
            generated_tokens: n,
            draft_tokens: o,
            accepted_draft_tokens: p,
            prefill_tokens_per_s: f64::from_bits(q),
            decode_step_seconds: f64::from_bits(r),
            computed_seconds: f64::from_bits(s),
        }
    }
}
