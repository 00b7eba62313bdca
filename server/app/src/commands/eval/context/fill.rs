//! A budget is spent in order of rank until a unit does not fit, headers and gap marks counted as in a packed context.

use pith_context::{Span, pack};

use super::haystack::Haystack;
use super::meter::Meter;

/// How many of `order`'s units each of `budgets`, in context tokens, holds: by estimate, that is by the sum of the units'
/// own counts and those of what must stand between them.
pub(super) fn estimated(haystack: &Haystack<'_>, order: &[usize], budgets: &[u32]) -> Vec<usize> {
    let mut ascending: Vec<usize> = (0..budgets.len()).collect();
    ascending.sort_by_key(|&budget| budgets[budget]);
    let mut chosen = vec![false; haystack.units.len()];
    let mut begun = vec![false; haystack.documents.len()];
    let mut held = vec![0; budgets.len()];
    let (mut spent, mut at) = (0, 0);
    for budget in ascending {
        while let Some(&unit) = order.get(at) {
            let cost = cost(haystack, unit, &chosen, &begun);
            if spent + cost > i64::from(budgets[budget]) {
                break;
            }
            spent += cost;
            chosen[unit] = true;
            begun[haystack.units[unit].document] = true;
            at += 1;
        }
        held[budget] = at;
    }
    held
}

/// Estimated tokens by which a unit lengthens the context.
fn cost(haystack: &Haystack<'_>, unit: usize, chosen: &[bool], begun: &[bool]) -> i64 {
    let document = haystack.units[unit].document;
    let joint = if begun[document] {
        let touches = |other: Option<usize>| {
            let other = other.filter(|&other| chosen.get(other) == Some(&true));
            i64::from(other.is_some_and(|other| haystack.units[other].document == document))
        };
        haystack.gap * (1 - touches(unit.checked_sub(1)) - touches(Some(unit + 1)))
    } else {
        haystack.headers[document]
    };
    haystack.counts[unit] + joint
}

/// The units that `budget` holds by exact count, sorted, and the context tokens they take. `guess`: how many that may be.
pub(super) fn exact(
    haystack: &Haystack<'_>,
    order: &[usize],
    budget: u32,
    guess: usize,
    meter: &Meter<'_>,
) -> (Vec<Span>, u32) {
    let measure = |held: usize| {
        let mut chosen = order[..held].to_vec();
        chosen.sort_unstable();
        let passages = haystack.passages(&chosen);
        let tokens = meter.context_tokens(&pack(haystack.documents, passages.iter().copied()).text);
        (passages, tokens)
    };
    let mut held = guess.min(order.len());
    let mut best = measure(held);
    while best.1 > budget && held > 0 {
        held -= 1;
        best = measure(held);
    }
    while held < order.len() {
        let more = measure(held + 1);
        if more.1 > budget {
            break;
        }
        held += 1;
        best = more;
    }
    best
}

#[cfg(test)]
mod tests {
    use pith_context::Document;

    use super::*;

    #[test]
    fn headers_and_gaps_are_counted_until_one_does_not_fit() {
        let documents = [Document::default(), Document::default()];
        let unit = |document, start| Span { document, start, end: start + 1 };
        let haystack = Haystack {
            documents: &documents,
            units: vec![unit(0, 0), unit(0, 2), unit(0, 4), unit(1, 0)],
            counts: vec![10, 20, 30, 40],
            headers: vec![5, 6],
            gap: 4,
            tokens: 111,
        };
        // A header, then a gap, then the middle, which closes the gap; then the other document.
        let order = [0, 2, 1, 3];
        let spent = [10 + 5, 30 + 4, 20 - 4, 40 + 6];
        let sums: Vec<u32> = (1..=4).map(|n| spent[..n].iter().sum::<i32>() as u32).collect();
        assert_eq!(sums, [15, 49, 65, 111]);
        assert_eq!(estimated(&haystack, &order, &sums), [1, 2, 3, 4]);
        assert_eq!(estimated(&haystack, &order, &[14, 48, 64, 110]), [0, 1, 2, 3]);
        // Nothing after one that does not fit is looked at, and budgets may stand in any order.
        assert_eq!(estimated(&haystack, &[3, 0], &[90, 20, 46]), [2, 0, 1]);
        assert_eq!(haystack.passages(&[0, 1, 3]), [Span { end: 3, ..unit(0, 0) }, unit(1, 0)]);
    }
}
