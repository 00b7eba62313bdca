//! The answer while it streams: what is complete, what is still to come.

use std::ops::Range;

use crate::segment::MAX_SENTENCE_BYTES;
use crate::segment::sentences::starts;

/// What has been said and not yet been compared.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Where `pending` begins in the whole answer, in bytes.
    offset: usize,
    pending: String,
}

impl Answer {
    pub(super) fn push(&mut self, text: &str) {
        self.pending.push_str(text);
    }

    /// The next sentence whose end no further text can move, and where it stands in the answer.
    pub(super) fn next_complete(&mut self) -> Option<(Range<usize>, String)> {
        self.next(false)
    }

    /// The next sentence, taking the answer to be over.
    pub(super) fn next_pending(&mut self) -> Option<(Range<usize>, String)> {
        self.next(true)
    }

    fn next(&mut self, over: bool) -> Option<(Range<usize>, String)> {
        loop {
            self.skip_space();
            if self.pending.is_empty() {
                return None;
            }
            let end = self.end(over)?;
            let sentence = self.pending[..end].trim_end().to_owned();
            let start = self.offset;
            self.pending.drain(..end);
            self.offset += end;
            if !sentence.is_empty() {
                return Some((start..start + sentence.len(), sentence));
            }
        }
    }

    fn skip_space(&mut self) {
        let space = self.pending.len() - self.pending.trim_start().len();
        self.pending.drain(..space);
        self.offset += space;
    }

    /// Where the first sentence of `pending` ends. It looks at no more text than a sentence may have, so that the
    /// result does not depend on how much has been pushed.
    fn end(&self, over: bool) -> Option<usize> {
        let long = self.pending.len() > MAX_SENTENCE_BYTES;
        let most = self.pending.floor_char_boundary(MAX_SENTENCE_BYTES);
        let head = &self.pending[..most];
        let line = head.find(['\n', '\r']);
        let flow = &head[..line.unwrap_or(most)];
        let settled = over || long || line.is_some();
        if let Some(&start) = starts(flow).get(1)
            && (settled || has_opened(&flow[start..]) && holds(flow, start))
        {
            return Some(start);
        }
        match line {
            Some(line) => Some(line + 1),
            // Pending text begins with a visible character, so this is not empty.
            None if long => Some(head.rfind(char::is_whitespace).unwrap_or(most)),
            None => over.then_some(most),
        }
    }
}

/// Whether the first word of `next` is over, so that no rule about sentence ends will look further.
fn has_opened(next: &str) -> bool {
    let Some(first) = next.find(char::is_alphabetic) else { return false };
    let word = &next[first..];
    !word.starts_with(|c: char| c.is_ascii()) && word.chars().count() > 1
        || word.contains(|c: char| !c.is_alphanumeric())
}

/// Whether the second sentence of `flow` begins at `start` whatever letter comes next: before its first letter may stand
/// marks, digits and signs through which the rules of sentence ends look ahead.
fn holds(flow: &str, start: usize) -> bool {
    ["a", "A"].iter().all(|next| starts(&[flow, next].concat()).get(1) == Some(&start))
}

/// What a line of the answer claims: without the list marker before it, and without an opening that only says where the
/// claim comes from or that it is the answer ("According to the text, the answer is").
pub(super) fn claim(sentence: &str) -> &str {
    let mut claim = sentence;
    if crate::segment::is_item(sentence) {
        claim = sentence.split_once([' ', '\t']).map_or(sentence, |(_, rest)| rest);
    }
    if let Some((opening, rest)) = claim.split_once(',')
        && is_reference(opening)
    {
        claim = rest;
    }
    without_announcement(claim)
}

/// Longest opening that is looked at, in words.
const MAX_OPENING_WORDS: usize = 8;

/// Whether an opening only points at the text: "According to the document", "Based on this passage".
fn is_reference(opening: &str) -> bool {
    const TEXTS: &[&str] = &[
        "text",
        "texts",
        "document",
        "documents",
        "passage",
        "passages",
        "context",
        "article",
        "source",
        "sources",
        "information",
        "excerpt",
        "above",
    ];
    let words: Vec<String> = words(opening).take(MAX_OPENING_WORDS + 1).collect();
    let points = matches!(
        words.first().map(String::as_str),
        Some("according" | "based" | "from" | "in" | "as")
    );
    points
        && words.len() <= MAX_OPENING_WORDS
        && words.last().is_some_and(|last| TEXTS.contains(&last.as_str()))
}

/// `claim` without "The answer is" or "Answer:" before it.
fn without_announcement(claim: &str) -> &str {
    let (mut announced, mut end) = (false, 0);
    for (number, word) in claim.split_inclusive(char::is_whitespace).enumerate() {
        end += word.len();
        let word = word.trim();
        announced |= word.trim_end_matches(':').eq_ignore_ascii_case("answer");
        if announced && (word.ends_with(':') || ["is", "was", "are", "were"].contains(&word)) {
            return &claim[end..];
        }
        let leads = announced
            || ["the", "correct", "short"].iter().any(|lead| word.eq_ignore_ascii_case(lead));
        if !leads && !word.is_empty() || number >= MAX_OPENING_WORDS {
            return claim;
        }
    }
    claim
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}
