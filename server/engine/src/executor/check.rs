//! What every executor refuses: a step that contradicts itself or the pool.
//!
//! The kernels trust their arguments, so nothing reaches them unchecked.

use super::{Capabilities, ExecutorError};
use crate::step::{Step, StepSequence, TokenSource, Want};

/// What a step is checked against.
#[derive(Debug)]
pub struct Limits<'a> {
    /// The executor's.
    pub capabilities: &'a Capabilities,
    /// Query heads of each layer.
    pub heads: &'a [usize],
    /// Rows of the step submitted just before that have exactly one sampled token, ascending.
    pub sampled_before: &'a [u32],
}

/// Rows of `step` with exactly one sampled token, ascending: those that a later step may name as
/// [`TokenSource::InFlight`].
pub fn sampled_rows(step: &Step) -> Vec<u32> {
    let sampling: Vec<u32> = (step.wants.iter())
        .filter(|(_, want)| matches!(want, Want::Sample(_)))
        .map(|&(row, _)| row)
        .collect();
    sampling.chunk_by(|a, b| a == b).filter(|run| run.len() == 1).map(|run| run[0]).collect()
}

fn malformed<T>(why: impl Into<String>) -> Result<T, ExecutorError> {
    Err(ExecutorError::Malformed(why.into()))
}

/// Checks all of `step`. Ok means that no index in it leaves the pool, the vocabulary or the step.
pub fn check(step: &Step, limits: &Limits<'_>) -> Result<(), ExecutorError> {
    check_rows(step, limits)?;
    check_copies(step, limits.capabilities)?;
    let mut next_row = 0;
    for (index, sequence) in step.sequences.iter().enumerate() {
        next_row = check_sequence(step, index, sequence, next_row, limits.capabilities)?;
    }
    if next_row != step.tokens.len() {
        return malformed(format!("sequences cover {next_row} of {} rows", step.tokens.len()));
    }
    check_slots_differ(step)?;
    check_wants(step, limits)
}

fn check_rows(step: &Step, limits: &Limits<'_>) -> Result<(), ExecutorError> {
    let capabilities = limits.capabilities;
    let rows = step.tokens.len();
    if rows == 0 || rows > capabilities.max_rows {
        return malformed(format!("{rows} rows, between 1 and {} allowed", capabilities.max_rows));
    }
    if step.positions.len() != rows || step.slots.len() != rows {
        return malformed(format!(
            "{rows} tokens, {} positions, {} slots",
            step.positions.len(),
            step.slots.len()
        ));
    }
    for token in &step.tokens {
        match *token {
            TokenSource::Literal(id) if id as usize >= capabilities.vocab => {
                return malformed(format!("token {id} of a vocabulary of {}", capabilities.vocab));
            }
            TokenSource::InFlight { row } if limits.sampled_before.binary_search(&row).is_err() => {
                return malformed(format!("row {row} of the step before has no one sampled token"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_copies(step: &Step, capabilities: &Capabilities) -> Result<(), ExecutorError> {
    let inside = |block: u32| (block as usize) < capabilities.blocks;
    match step.copies.iter().find(|c| !inside(c.from) || !inside(c.to) || c.from == c.to) {
        Some(copy) => malformed(format!(
            "copy of block {} onto {} in a pool of {}",
            copy.from, copy.to, capabilities.blocks
        )),
        None => Ok(()),
    }
}

/// Returns the row after the sequence's last.
fn check_sequence(
    step: &Step,
    index: usize,
    sequence: &StepSequence,
    next_row: usize,
    capabilities: &Capabilities,
) -> Result<usize, ExecutorError> {
    let &Capabilities { block_size, blocks, max_context, .. } = capabilities;
    let (first, rows) = (sequence.first_row as usize, sequence.rows as usize);
    let context = sequence.context as usize;
    if sequence.adapter.is_some() {
        return Err(ExecutorError::Unsupported("low-rank adapters"));
    }
    if first != next_row || rows == 0 || rows > step.tokens.len() - first {
        return malformed(format!(
            "sequence {index} has rows {first}+{rows}, {next_row} of {} covered so far",
            step.tokens.len()
        ));
    }
    if context < rows || context > max_context {
        return malformed(format!("sequence {index}: context {context}, at most {max_context}"));
    }
    if sequence.blocks.len() < context.div_ceil(block_size) {
        return malformed(format!(
            "sequence {index}: {} blocks for a context of {context}",
            sequence.blocks.len()
        ));
    }
    if let Some(block) = sequence.blocks.iter().find(|&&block| block as usize >= blocks) {
        return malformed(format!("sequence {index}: block {block} of a pool of {blocks}"));
    }
    for row in first..first + rows {
        let position = context - rows + (row - first);
        if step.positions[row] as usize != position {
            return malformed(format!("row {row} says position {}", step.positions[row]));
        }
        let block = sequence.blocks[position / block_size] as usize;
        if step.slots[row] as usize != block * block_size + position % block_size {
            return malformed(format!("row {row} writes slot {}", step.slots[row]));
        }
    }
    let mut free = 0;
    for bias in sequence.bias.iter() {
        let in_order = bias.span.start >= free && bias.span.start < bias.span.end;
        if !in_order || bias.span.end as usize > max_context {
            return malformed(format!("sequence {index}: bias over {:?}", bias.span));
        }
        if !(0.125..=8.0).contains(&bias.weight) {
            return malformed(format!("sequence {index}: bias weight {}", bias.weight));
        }
        free = bias.span.end;
    }
    Ok(first + rows)
}

/// Two rows that write one slot would race.
fn check_slots_differ(step: &Step) -> Result<(), ExecutorError> {
    let mut slots = step.slots.clone();
    slots.sort_unstable();
    match slots.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => malformed(format!("two rows write slot {}", pair[0])),
        None => Ok(()),
    }
}

fn check_wants(step: &Step, limits: &Limits<'_>) -> Result<(), ExecutorError> {
    let capabilities = limits.capabilities;
    if !step.wants.is_sorted_by_key(|want| want.0) {
        return malformed("wants are not in order of row");
    }
    let wanting = step.wants.chunk_by(|a, b| a.0 == b.0).count();
    if wanting > capabilities.max_wants {
        return malformed(format!("{wanting} rows want something"));
    }
    if let Some((row, _)) = step.wants.last()
        && *row as usize >= step.tokens.len()
    {
        return malformed(format!("row {row} of {} wants something", step.tokens.len()));
    }
    for (row, want) in &step.wants {
        match want {
            Want::Sample(spec) => {
                if let Err(why) = spec.check(capabilities.vocab) {
                    return malformed(format!("row {row}: {why}"));
                }
            }
            Want::Likelihood(targets) => {
                if let Some(id) = targets.iter().find(|&&id| id as usize >= capabilities.vocab) {
                    return malformed(format!("row {row}: likelihood of token {id}"));
                }
            }
            Want::AttentionMass(mass) => {
                let Some(&heads) = limits.heads.get(mass.layer as usize) else {
                    return malformed(format!("row {row}: attention of layer {}", mass.layer));
                };
                if mass.heads.is_empty() || mass.heads.iter().any(|&head| head >= heads) {
                    return malformed(format!("row {row}: heads {:?} of {heads}", mass.heads));
                }
                let seen = step.positions[*row as usize] + 1;
                if mass.spans.iter().any(|span| span.start > span.end || span.end > seen) {
                    return malformed(format!("row {row}: spans {:?} of {seen}", mass.spans));
                }
            }
            Want::Logits | Want::Embedding => {}
        }
    }
    Ok(())
}
