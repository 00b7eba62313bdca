//! What kind of thing a question asks for, as far as its words tell.
//!
//! The words looked for are English; a question in another language is of no kind, and nothing is lost but the help.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation;

use crate::index::terms::{Term, content_terms};

/// What an answer must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Somebody or somewhere: a name that the question does not give.
    Name,
    /// A point in time.
    Time,
    /// A number.
    Number,
}

/// A question as the selection reads it.
#[derive(Debug)]
pub(crate) struct Question {
    /// What its answer must hold, if that is clear.
    pub(crate) wanted: Option<Wanted>,
    /// It opens with the word that says so: "When was ...?", but not "What did she say when ...?".
    pub(crate) opens_with_it: bool,
    /// It asks what is said about something, which is spread over passages, rather than for a fact.
    pub(crate) discourse: bool,
    /// Its words.
    terms: HashSet<Term>,
}

/// After "what", "which" or "how": asks for a time.
const TIMES: &[&str] =
    &["year", "years", "date", "day", "month", "century", "decade", "old", "long"];
/// After "what", "which" or "how": asks for a number.
const NUMBERS: &[&str] = &[
    "many",
    "much",
    "tall",
    "far",
    "big",
    "large",
    "high",
    "deep",
    "wide",
    "often",
    "fast",
    "percent",
    "percentage",
    "number",
    "age",
    "amount",
];
/// After "what" or "which": asks for a place.
const PLACES: &[&str] = &["country", "city", "state"];
/// Words of questions about what was said rather than about facts.
const DISCOURSE: &[&str] = &[
    "summarize",
    "summarise",
    "summary",
    "overview",
    "outline",
    "discuss",
    "discussed",
    "discussion",
    "discussing",
    "debate",
    "opinion",
    "opinions",
    "viewpoint",
    "viewpoints",
    "attitude",
];

impl Question {
    pub(crate) fn new(query: &str) -> Self {
        let lower = query.to_lowercase();
        let words: Vec<&str> = lower.unicode_words().collect();
        let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
        let after = |first: &[&str], second: &[&str]| {
            words.windows(2).any(|pair| first.contains(&pair[0]) && second.contains(&pair[1]))
        };
        let wanted = if has(&["who", "whose", "whom"]) {
            Some(Wanted::Name)
        } else if has(&["when"]) || after(&["what", "which", "how"], TIMES) {
            Some(Wanted::Time)
        } else if after(&["what", "how"], NUMBERS) {
            Some(Wanted::Number)
        } else if has(&["where"]) || after(&["what", "which"], PLACES) {
            Some(Wanted::Name)
        } else {
            None
        };
        let opening = &words[..words.len().min(2)];
        let opens_with_it = opening
            .first()
            .is_some_and(|first| ["who", "whose", "whom", "when", "where"].contains(first))
            || opening.get(1).is_some_and(|second| {
                ["what", "which", "how"].contains(&opening[0])
                    && [TIMES, NUMBERS, PLACES].iter().any(|nouns| nouns.contains(second))
            });
        Self {
            wanted,
            opens_with_it,
            discourse: has(DISCOURSE),
            terms: content_terms(query).collect(),
        }
    }

    /// How far a sentence holds what is wanted, 0 to 1.
    pub(crate) fn answered(&self, cues: &Cues) -> f32 {
        match self.wanted {
            None => 0.0,
            Some(Wanted::Time) => f32::from(u8::from(cues.time)),
            Some(Wanted::Number) => f32::from(u8::from(cues.number)),
            Some(Wanted::Name) => {
                let new = cues.names.iter().filter(|name| !self.terms.contains(*name)).count();
                new.min(MAX_NAMES) as f32 / MAX_NAMES as f32
            }
        }
    }
}

/// Names from which on a sentence has no more to offer to a question for one.
const MAX_NAMES: usize = 4;

/// What a sentence offers to questions for names, times and numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cues {
    /// A year, a month, a century.
    pub(crate) time: bool,
    /// A number in digits or words.
    pub(crate) number: bool,
    /// Distinct words with a capital letter, the first word aside.
    pub(crate) names: Vec<Term>,
}

const TIME_WORDS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "century",
    "bc",
    "ad",
    "bce",
];
const NUMBER_WORDS: &[&str] = &[
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "hundred", "thousand", "million", "billion", "half", "third", "dozen",
];
/// Most names kept of a sentence: as many again as count, so that those of the question may go.
const MAX_KEPT_NAMES: usize = 12;

impl Cues {
    pub(crate) fn new(sentence: &str) -> Self {
        let mut cues = Self::default();
        for (start, word) in sentence.unicode_word_indices() {
            let lower = word.to_lowercase();
            let digits = word.bytes().take_while(u8::is_ascii_digit).count();
            let year = digits == 4 && matches!(&word[digits..], "" | "s");
            cues.time |= year || TIME_WORDS.contains(&lower.as_str());
            cues.number |=
                word.contains(|c: char| c.is_numeric()) || NUMBER_WORDS.contains(&lower.as_str());
            let name =
                start > 0 && word.starts_with(char::is_uppercase) && word.chars().nth(1).is_some();
            if name && cues.names.len() < MAX_KEPT_NAMES {
                cues.names.extend(content_terms(word).next());
            }
        }
        cues.names.sort_unstable();
        cues.names.dedup();
        cues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_tell_what_they_want() {
        let wanted = |query: &str| Question::new(query).wanted;
        assert_eq!(wanted("Who built the bridge?"), Some(Wanted::Name));
        assert_eq!(wanted("When was it built?"), Some(Wanted::Time));
        assert_eq!(wanted("In what year was it built?"), Some(Wanted::Time));
        assert_eq!(wanted("How many arches has it?"), Some(Wanted::Number));
        assert_eq!(wanted("where is the bridge"), Some(Wanted::Name));
        assert_eq!(wanted("Why was it built?"), None);
        assert_eq!(wanted("東京はどこですか"), None);
        assert!(Question::new("Summarize the discussion of the budget.").discourse);
        assert!(!Question::new("What was the budget?").discourse);
        let opens = |query: &str| Question::new(query).opens_with_it;
        assert!(opens("When was it built?") && opens("How many arches has it?"));
        assert!(!opens("What did she say when discussing it?") && !opens(""));
    }

    #[test]
    fn sentences_tell_what_they_offer() {
        let answered =
            |query: &str, sentence: &str| Question::new(query).answered(&Cues::new(sentence));
        assert_eq!(answered("When was it built?", "It was built in 1907."), 1.0);
        assert_eq!(answered("When was it built?", "It was built of stone."), 0.0);
        assert_eq!(answered("How many arches?", "It has eleven arches."), 1.0);
        assert_eq!(answered("How many arches?", "It has arches."), 0.0);
        let one =
            answered("Who built the bridge at Tolmin?", "The bridge at Tolmin is Ana Koren's.");
        assert_eq!(one, 0.5, "two names, and the question's own does not count");
        assert_eq!(answered("Who built it?", "Nobody knows."), 0.0);
    }
}
