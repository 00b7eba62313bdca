//! In which order what is kept stands.

use crate::{Order, Span};

/// A stretch of a document that is kept, and the value of the best sentence in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passage {
    pub(super) span: Span,
    pub(super) value: f32,
}

/// Puts passages in `order`: as they are if the request has one document (`alone`), else document by document.
pub(super) fn arrange(mut passages: Vec<Passage>, order: Order, alone: bool) -> Vec<Span> {
    passages.sort_unstable_by_key(|passage| passage.span);
    let mut groups: Vec<&[Passage]> =
        passages.chunk_by(|a, b| !alone && a.span.document == b.span.document).collect();
    if order != Order::Original {
        let value = |group: &[Passage]| {
            group.iter().map(|passage| passage.value).fold(f32::NEG_INFINITY, f32::max)
        };
        groups.sort_by(|a, b| value(b).total_cmp(&value(a)).then(a[0].span.cmp(&b[0].span)));
    }
    if order == Order::Edges {
        // The first, third, fifth ... best from the front, the others from the back.
        let back: Vec<&[Passage]> = groups.iter().skip(1).step_by(2).rev().copied().collect();
        groups = groups.into_iter().step_by(2).chain(back).collect();
    }
    groups.concat().into_iter().map(|passage| passage.span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(document: usize, start: usize, value: f32) -> Passage {
        Passage { span: Span { document, start, end: start + 1 }, value }
    }

    fn arranged(passages: &[Passage], order: Order, alone: bool) -> Vec<(usize, usize)> {
        let spans = arrange(passages.to_vec(), order, alone);
        spans.into_iter().map(|span| (span.document, span.start)).collect()
    }

    #[test]
    fn the_best_stands_first_or_at_both_ends() {
        let one = [4.0, 1.0, 5.0, 2.0, 3.0].into_iter().enumerate();
        let one: Vec<Passage> = one.map(|(at, value)| passage(0, 2 * at, value)).collect();
        let places = |order| -> Vec<usize> {
            arranged(&one, order, true).into_iter().map(|(_, start)| start / 2).collect()
        };
        assert_eq!(places(Order::Original), [0, 1, 2, 3, 4]);
        assert_eq!(places(Order::Relevance), [2, 0, 4, 3, 1]);
        assert_eq!(places(Order::Edges), [2, 4, 1, 3, 0]);
    }

    #[test]
    fn several_documents_stay_in_one_piece_each() {
        let several =
            [passage(0, 0, 1.0), passage(0, 5, 2.0), passage(1, 0, 9.0), passage(1, 7, 0.0)];
        assert_eq!(arranged(&several, Order::Relevance, false), [(1, 0), (1, 7), (0, 0), (0, 5)]);
        assert_eq!(arranged(&several, Order::Original, false), [(0, 0), (0, 5), (1, 0), (1, 7)]);
    }
}
