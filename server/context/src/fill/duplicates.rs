//! Sentences that say again what is already kept.

use std::collections::HashMap;

use crate::index::terms::Term;

/// Shorter sentences, in distinct terms, are never taken for repetitions.
const MIN_TERMS: usize = 4;
/// Share of all terms of two sentences that both must hold.
const SIMILAR: f32 = 0.9;

/// The terms of the sentences kept so far, a stack.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Number of distinct terms of each.
    sizes: Vec<usize>,
    /// The sentences that hold a term, latest last.
    holders: HashMap<Term, Vec<usize>>,
}

impl Kept {
    pub(super) fn push(&mut self, terms: &[Term]) {
        let terms = distinct(terms);
        for term in &terms {
            self.holders.entry(*term).or_default().push(self.sizes.len());
        }
        self.sizes.push(terms.len());
    }

    /// Takes back the latest sentence, which had these terms.
    pub(super) fn pop(&mut self, terms: &[Term]) {
        self.sizes.pop();
        for term in distinct(terms) {
            if let Some(holders) = self.holders.get_mut(&term) {
                holders.pop();
            }
        }
    }

    /// Whether a kept sentence has nearly the same terms, and the same numbers.
    pub(super) fn repeats(&self, terms: &[Term]) -> bool {
        let terms = distinct(terms);
        if terms.len() < MIN_TERMS {
            return false;
        }
        let numbers = terms.iter().filter(|term| term.is_number()).count();
        let mut shared: HashMap<usize, (usize, usize)> = HashMap::new();
        for term in &terms {
            for &holder in self.holders.get(term).into_iter().flatten() {
                let (all, number) = shared.entry(holder).or_default();
                *all += 1;
                *number += usize::from(term.is_number());
            }
        }
        shared.iter().any(|(&holder, &(all, number))| {
            let union = terms.len() + self.sizes[holder] - all;
            number == numbers && all as f32 >= SIMILAR * union as f32
        })
    }
}

fn distinct(terms: &[Term]) -> Vec<Term> {
    let mut terms = terms.to_vec();
    terms.sort_unstable();
    terms.dedup();
    terms
}
