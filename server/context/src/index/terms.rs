//! Text becomes terms: lowercase words without plural endings, numbers and identifiers whole, pairs of characters where
//! a script writes no spaces.

use unicode_segmentation::UnicodeSegmentation;

/// Words that say nothing about what a sentence is about, sorted.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "although", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "being", "but", "by", "can", "could", "did", "do", "does",
    "during", "each", "for", "from", "had", "has", "have", "he", "her", "here", "hers", "him",
    "his", "how", "however", "i", "if", "in", "into", "is", "it", "its", "me", "more", "most",
    "my", "no", "nor", "not", "of", "on", "one", "or", "other", "our", "she", "should", "since",
    "so", "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they",
    "this", "those", "though", "through", "to", "was", "we", "were", "what", "when", "where",
    "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

/// Whether a lowercase word is too common to search for.
pub(crate) fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

/// A term: the hash of its normal form, odd if it holds a digit. Equal terms have equal hashes; that two terms share
/// one is a matter of 2^-63, and costs a little rank, no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Term(u64);

impl Term {
    /// FNV-1a: the same on every machine and in every release, so that rankings are too.
    fn new(normal: &str, number: bool) -> Self {
        let hash = normal.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash & !1 | u64::from(number))
    }

    /// The hash, to be kept.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`to_bits`](Self::to_bits) gave.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether it holds a digit.
    pub(crate) fn is_number(self) -> bool {
        self.0 & 1 == 1
    }
}

/// A term as it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occurrence {
    pub(crate) term: Term,
    /// A stop word: part of phrases, never searched for.
    pub(crate) stop: bool,
}

/// The terms of `text` in order, stop words among them.
pub(crate) fn occurrences(text: &str) -> Vec<Occurrence> {
    let mut reader = Reader { out: Vec::new(), normal: String::new(), pair: None };
    let mut joined: Option<(usize, usize)> = None;
    for (start, word) in text.unicode_word_indices() {
        let end = start + word.len();
        // `AB-1234` and `2018/05` are terms beside, and after, their parts.
        let unspaced = word.starts_with(is_unspaced);
        joined = match joined {
            Some((first, last))
                if !unspaced && matches!(&text[last..start], "-" | "/" | "#" | ":") =>
            {
                Some((first, end))
            }
            before => {
                reader.compound(text, before);
                (!unspaced).then_some((start, end))
            }
        };
        if unspaced {
            reader.pairs(start, word);
        } else {
            reader.end_pairs();
            reader.word(word);
        }
    }
    reader.end_pairs();
    reader.compound(text, joined);
    reader.out
}

/// The terms of `text` worth searching for, in order.
pub(crate) fn content_terms(text: &str) -> impl Iterator<Item = Term> {
    occurrences(text)
        .into_iter()
        .filter(|occurrence| !occurrence.stop)
        .map(|occurrence| occurrence.term)
}

/// The terms of `text` worth searching for, in order, each as a number: the same on every machine and in every
/// release.
pub fn terms(text: &str) -> impl Iterator<Item = u64> {
    content_terms(text).map(|term| term.0)
}

struct Reader {
    out: Vec<Occurrence>,
    /// Scratch for normal forms.
    normal: String,
    /// The last character of an unspaced script: where it ends, itself, and whether a pair holds it yet.
    pair: Option<(usize, char, bool)>,
}

impl Reader {
    fn push(&mut self, stop: bool, number: bool) {
        self.out.push(Occurrence { term: Term::new(&self.normal, number), stop });
    }

    fn word(&mut self, word: &str) {
        self.normal.clear();
        let number = word.contains(|c: char| c.is_numeric());
        if word.is_ascii() {
            self.normal.extend(word.bytes().map(|b| char::from(b.to_ascii_lowercase())));
        } else {
            self.normal.extend(
                word.chars().flat_map(char::to_lowercase).map(|c| if c == '’' { '\'' } else { c }),
            );
        }
        if let Some(owner) = self.normal.strip_suffix("'s") {
            self.normal.truncate(owner.len());
        }
        if number {
            self.normal.retain(|c| c != ',');
            self.push(false, true);
            return;
        }
        if self.normal.contains('.') && self.normal.split('.').all(|part| part.len() <= 1) {
            self.normal.retain(|c| c != '.');
        }
        let stop = is_stop_word(&self.normal);
        if !stop {
            singular(&mut self.normal);
        }
        self.push(stop, false);
    }

    /// Words joined by a mark, if there are several and one holds a digit.
    fn compound(&mut self, text: &str, joined: Option<(usize, usize)>) {
        let Some((start, end)) = joined else { return };
        let whole = &text[start..end];
        if whole.contains(['-', '/', '#', ':']) && whole.contains(|c: char| c.is_ascii_digit()) {
            self.normal.clear();
            self.normal.extend(whole.chars().flat_map(char::to_lowercase));
            self.push(false, true);
        }
    }

    /// Adds characters of an unspaced script; neighbours make a pair.
    fn pairs(&mut self, start: usize, word: &str) {
        for (offset, c) in word.char_indices() {
            match self.pair {
                Some((end, before, _)) if end == start + offset => {
                    self.normal.clear();
                    self.normal.extend([before, c]);
                    self.push(false, false);
                    self.pair = Some((end + c.len_utf8(), c, true));
                }
                _ => {
                    self.end_pairs();
                    self.pair = Some((start + offset + c.len_utf8(), c, false));
                }
            }
        }
    }

    /// Ends a run of pairs; a character that found no partner is a term by itself.
    fn end_pairs(&mut self) {
        if let Some((_, c, false)) = self.pair.take() {
            self.normal.clear();
            self.normal.push(c);
            self.push(false, false);
        }
    }
}

/// Whether `c` belongs to a script written without spaces (or, as Korean, with particles glued on).
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Myanmar
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' // kana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' // Han
        | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' // Hangul
    )
}

/// Takes the plural ending off an English word (Harman's s-stemmer, 1991).
fn singular(word: &mut String) {
    if word.len() <= 3 || !word.is_ascii() {
        return;
    }
    let ends = |suffix: &str| word.ends_with(suffix);
    if ends("ies") && !ends("eies") && !ends("aies") {
        word.truncate(word.len() - 3);
        word.push('y');
    } else if ends("s")
        && !ends("us")
        && !ends("ss")
        && !ends("aes")
        && !ends("ees")
        && !ends("oes")
    {
        word.truncate(word.len() - 1);
    } else if ends("oes") {
        word.truncate(word.len() - 2);
    }
}
