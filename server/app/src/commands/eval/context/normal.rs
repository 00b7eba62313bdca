//! Answers as they are compared: lowercase, without punctuation, articles and extra white space (the rule of SQuAD).

use std::collections::HashMap;
use std::ops::Range;

/// A text in its normal form, each of whose bytes knows where it comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Normal {
    text: String,
    /// For each byte of `text`, the bytes of the source it stands for.
    sources: Vec<(usize, usize)>,
}

impl Normal {
    pub(super) fn new(source: &str) -> Self {
        let mut normal = Self::default();
        for (start, word) in words_of(source) {
            normal.push(word, start);
        }
        normal
    }

    /// Adds a word that begins at byte `start` of the source.
    fn push(&mut self, word: &str, start: usize) {
        let (before, mut lower) = (self.text.len(), String::with_capacity(word.len()));
        let mut sources = Vec::with_capacity(word.len());
        for (at, c) in word.char_indices().filter(|(_, c)| !c.is_ascii_punctuation()) {
            lower.extend(c.to_lowercase());
            sources.resize(lower.len(), (start + at, start + at + c.len_utf8()));
        }
        if lower.is_empty() || matches!(lower.as_str(), "a" | "an" | "the") {
            return;
        }
        if before > 0 {
            self.text.push(' ');
            self.sources.push((start, start));
        }
        self.text.push_str(&lower);
        self.sources.extend(sources);
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace()
    }

    /// Whether `part` stands in it; an empty one does not.
    pub(super) fn holds(&self, part: &Self) -> bool {
        !part.text.is_empty() && self.text.contains(&part.text)
    }

    /// Bytes of the source in which `part` stands, each time.
    pub(super) fn find(&self, part: &Self) -> Vec<Range<usize>> {
        if part.text.is_empty() {
            return Vec::new();
        }
        let found = self.text.match_indices(&part.text);
        found.map(|(at, found)| self.sources[at].0..self.sources[at + found.len() - 1].1).collect()
    }
}

/// The words of a text between white space, and where they begin.
pub(super) fn words_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    text.split_whitespace().map(move |word| {
        // Words are slices of the text, in order.
        let start = end + text[end..].find(word).unwrap_or(0);
        end = start + word.len();
        (start, word)
    })
}

/// Whether `answer` is one of `golds`, normalised.
pub(super) fn exact_match(answer: &str, golds: &[String]) -> f64 {
    let answer = Normal::new(answer);
    f64::from(u8::from(golds.iter().any(|gold| Normal::new(gold).text == answer.text)))
}

/// Whether one of `golds` stands in `answer`, normalised.
pub(super) fn gold_inside(answer: &str, golds: &[String]) -> f64 {
    let answer = Normal::new(answer);
    f64::from(u8::from(golds.iter().any(|gold| answer.holds(&Normal::new(gold)))))
}

/// F1 of the words of `answer` against the gold it shares most with.
pub(super) fn f1(answer: &str, golds: &[String]) -> f64 {
    let answer = Normal::new(answer);
    golds.iter().map(|gold| f1_of(&answer, &Normal::new(gold))).fold(0.0, f64::max)
}

fn f1_of(answer: &Normal, gold: &Normal) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    gold.words().for_each(|word| *left.entry(word).or_default() += 1);
    let mut common = 0;
    for word in answer.words() {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    let total = answer.words().count() + gold.words().count();
    if total == 0 { 0.0 } else { 2.0 * f64::from(common) / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golds(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn answers_compare_without_case_marks_and_articles() {
        assert_eq!(exact_match("The Röntgen-Rays!", &golds(&["röntgenrays"])), 1.0);
        assert_eq!(exact_match("rays", &golds(&["x rays"])), 0.0);
        assert_eq!(gold_inside("It was the  U.S. Senate.", &golds(&["no", "US Senate"])), 1.0);
        assert_eq!(gold_inside("anything", &golds(&["the"])), 0.0);
    }

    #[test]
    fn f1_counts_common_words_once_each() {
        // 2 common words of 3 and 4: 2 * 2 / 7.
        let value = f1("red red boat", &golds(&["a red boat sank today"]));
        assert!((value - 4.0 / 7.0).abs() < 1e-12, "{value}");
        assert_eq!(f1("", &golds(&["boat"])), 0.0);
        assert_eq!(f1("boat", &golds(&["ship", "boat"])), 1.0);
    }

    #[test]
    fn a_match_knows_its_bytes() {
        let text = "In «É Paris», the Big  Tower (1889) stands. The big tower!";
        let normal = Normal::new(text);
        let found = normal.find(&Normal::new("big TOWER"));
        let quoted: Vec<&str> = found.into_iter().map(|range| &text[range]).collect();
        assert_eq!(quoted, ["Big  Tower", "big tower"]);
        assert_eq!(&text[normal.find(&Normal::new("1889"))[0].clone()], "1889");
        assert_eq!(&text[normal.find(&Normal::new("é"))[0].clone()], "É");
        assert!(normal.find(&Normal::new("the")).is_empty());
    }
}
