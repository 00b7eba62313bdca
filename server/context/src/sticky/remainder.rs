//! What is left of the spans a question asks for when those already sent are taken out.

use crate::{Document, KeptSpan, Span};

use super::record::Turn;

/// Passages: spans, in order, those that touch joined to one.
pub(super) fn passages(kept: &[KeptSpan]) -> Vec<Span> {
    let mut passages: Vec<Span> = Vec::new();
    for KeptSpan { span, .. } in kept {
        match passages.last_mut() {
            Some(last) if last.document == span.document && last.end == span.start => {
                last.end = span.end;
            }
            _ => passages.push(*span),
        }
    }
    passages
}

/// Whether `turns` hold every visible character of `documents`.
pub(super) fn covers_everything(documents: &[Document], turns: &[Turn]) -> bool {
    let sent = sent(turns);
    documents.iter().enumerate().all(|(document, source)| {
        let whole = Span { document, start: 0, end: source.text.len() };
        gaps(whole, &sent).iter().all(|gap| text(documents, *gap).trim().is_empty())
    })
}

/// What `turns` do not hold of `wanted`, in order; white space by itself does not count. `tokens` of a span that is cut
/// are set by [`trim`].
pub(super) fn subtract(
    wanted: &[KeptSpan],
    turns: &[Turn],
    documents: &[Document],
) -> Vec<KeptSpan> {
    let sent = sent(turns);
    let rest = |kept: &KeptSpan| {
        let whole = kept.clone();
        gaps(kept.span, &sent).into_iter().map(move |span| match span == whole.span {
            true => whole.clone(),
            false => KeptSpan { span, tokens: 0, ..whole.clone() },
        })
    };
    let visible = |kept: &KeptSpan| !text(documents, kept.span).trim().is_empty();
    wanted.iter().flat_map(rest).filter(visible).collect()
}

/// `kept` without white space at the edges of passages, which is not sent (a document kept whole aside). Tokens of spans
/// that change are counted by `count`.
pub(super) fn trim(
    kept: &[KeptSpan],
    documents: &[Document],
    count: impl Fn(&str) -> u32,
) -> Vec<KeptSpan> {
    let touching = |a: &KeptSpan, b: &KeptSpan| {
        a.span.document == b.span.document && a.span.end == b.span.start
    };
    let mut trimmed = Vec::with_capacity(kept.len());
    for passage in kept.chunk_by(touching) {
        let last = passage.len() - 1;
        let Span { document, start, .. } = passage[0].span;
        let whole = start == 0 && passage[last].span.end == documents[document].text.len();
        for (at, each) in passage.iter().enumerate() {
            let mut each = each.clone();
            let before = each.span;
            if at == 0 && !whole {
                let inside = text(documents, each.span);
                each.span.start += inside.len() - inside.trim_start().len();
            }
            if at == last && !whole {
                each.span.end = each.span.start + text(documents, each.span).trim_end().len();
            }
            if each.span.start == each.span.end {
                continue;
            }
            if each.span != before || each.tokens == 0 {
                each.tokens = count(text(documents, each.span));
            }
            trimmed.push(each);
        }
    }
    trimmed
}

/// What `turns` hold, in order.
fn sent(turns: &[Turn]) -> Vec<Span> {
    let mut sent: Vec<Span> =
        turns.iter().flat_map(|turn| &turn.kept).map(|kept| kept.span).collect();
    sent.sort_unstable();
    sent
}

/// The parts of `span` that none of `sent`, in order and apart, holds.
fn gaps(span: Span, sent: &[Span]) -> Vec<Span> {
    let Span { document, mut start, end } = span;
    let first = sent.partition_point(|other| (other.document, other.end) <= (document, start));
    let mut gaps = Vec::new();
    for other in sent[first..].iter().take_while(|o| o.document == document && o.start < end) {
        if other.start > start {
            gaps.push(Span { document, start, end: other.start });
        }
        start = other.end;
    }
    if start < end {
        gaps.push(Span { document, start, end });
    }
    gaps
}

fn text(documents: &[Document], span: Span) -> &str {
    &documents[span.document].text[span.start..span.end]
}
