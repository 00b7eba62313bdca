//! Where sentences begin in running text: the rules of UAX #29, and what they do not know.
//!
//! UAX #29 breaks after "Dr." and "No.", inside names with initials, and after a quoted "Stop!" in the middle of a
//! sentence. Each break it proposes is therefore looked at again with the words around it.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation;

use crate::index::terms::is_stop_word;

/// Characters without a letter or digit after which the rest of such a run is hidden from UAX #29, whose look-ahead
/// is quadratic in it.
const MAX_MARKS: usize = 32;

/// Abbreviations that never end a sentence.
const TITLES: &[&str] = &[
    "mr", "mrs", "ms", "mx", "dr", "prof", "st", "gen", "col", "lt", "sgt", "capt", "cmdr", "adm",
    "rev", "hon", "pres", "gov", "sen", "rep", "messrs", "mme", "mlle", "fr", "vs", "cf", "viz",
    "eg", "ie", "e.g", "i.e", "approx", // German
    "bspw", "bzw", "evtl", "fa", "ggf", "hr", "inkl", "sog", "vgl", "zzgl", // Spanish
    "dña", "ee", "ej", "srta", "sra", "ud", "uds",
];
/// Abbreviations that do not end a sentence when a number follows.
const BEFORE_NUMBERS: &[&str] = &[
    "no", "nos", "nr", "fig", "figs", "p", "pp", "vol", "vols", "ch", "chap", "sec", "sect", "art",
    "eq", "eqs", "c", "ca", "circa", "ver", "v", "jan", "feb", "mar", "apr", "jun", "jul", "aug",
    "sep", "sept", "oct", "nov", "dec",
];
/// Abbreviations that may end a sentence: they do when a common opening word follows.
const AMBIGUOUS: &[&str] = &[
    "inc", "ltd", "co", "corp", "jr", "sr", "etc", "al", "bros", "dept", "est", "univ", "ed",
    "eds", "gmbh", "mt", "ft", "str", "usw",
];
/// Words before a number with a point that is an ordinal: am 3. Oktober, der 1. Weltkrieg.
const BEFORE_ORDINALS: &[&str] = &[
    "ab", "am", "beim", "bis", "das", "dem", "den", "der", "des", "die", "im", "seit", "vom", "zum",
];
/// Where sentences end with no mark but a space, which also stands inside them, a sentence has at least so many bytes
/// (about 40 characters): Thai, Lao.
const MIN_UNMARKED: usize = 120;

/// Offsets at which sentences of `flow` begin; the first is 0. A line end inside counts as a space.
pub(crate) fn starts(flow: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let plain = plain(flow);
    for (proposed, _) in plain.split_sentence_bound_indices().skip(1) {
        // A break inside a run of white space belongs after it.
        let at = flow.len() - flow[proposed..].trim_start().len();
        let at = after_guillemet(flow, at);
        let begun = starts.last().copied().unwrap_or(0);
        if at > begun && at < flow.len() && is_break(&flow[begun..at], &flow[at..]) {
            push_unmarked(&flow[begun..at], begun, &mut starts);
            starts.push(at);
        }
    }
    let begun = starts.last().copied().unwrap_or(0);
    push_unmarked(&flow[begun..], begun, &mut starts);
    starts
}

/// Past a guillemet at `at` that closes, set off by a space as French has it, and the space after it.
fn after_guillemet(flow: &str, at: usize) -> usize {
    match flow[at..].strip_prefix('»') {
        Some(rest) if !rest.starts_with(char::is_alphanumeric) => {
            flow.len() - rest.trim_start().len()
        }
        _ => at,
    }
}

/// Cuts `sentence`, which begins at `offset`, at spaces between letters of scripts that have no mark for its end.
fn push_unmarked(sentence: &str, offset: usize, starts: &mut Vec<usize>) {
    let (mut begun, mut before, mut space) = (0, ' ', false);
    for (at, c) in sentence.char_indices() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        let parts = space && is_unmarked(before) && is_unmarked(c);
        if parts && at - begun >= MIN_UNMARKED {
            begun = at;
            starts.push(offset + at);
        }
        (before, space) = (c, false);
    }
}

/// Thai and Lao.
fn is_unmarked(c: char) -> bool {
    matches!(c, '\u{0e00}'..='\u{0eff}')
}

/// `flow` as UAX #29 should see it, byte for byte of the same length: line ends are spaces, and long runs of marks or
/// spaces go on as digits.
fn plain(flow: &str) -> Cow<'_, str> {
    let mut bytes = Vec::with_capacity(flow.len());
    let mut run = 0;
    for c in flow.chars() {
        run = if c.is_alphanumeric() { 0 } else { run + 1 };
        match c {
            _ if run > MAX_MARKS => bytes.extend(std::iter::repeat_n(b'0', c.len_utf8())),
            '\n' | '\r' => bytes.push(b' '),
            _ => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(flow), Cow::Owned)
}

/// Whether a sentence really ends between `before` (it and the white space after it) and `after`.
fn is_break(before: &str, after: &str) -> bool {
    let sentence = before.trim_end();
    let spaced = sentence.len() < before.len();
    let bare = sentence.trim_end_matches(|c: char| is_closing(c) || c.is_whitespace());
    let Some(mark) = bare.chars().next_back() else { return false };
    let marks = after.char_indices().take(MAX_MARKS).find(|(_, c)| c.is_alphanumeric());
    let opening = marks.map_or("", |(at, _)| &after[at..]);
    // 「…。」と: what was quoted is only now said.
    let quoted = sentence.ends_with(['」', '』']) && after.starts_with('と');
    if quoted || mark.is_ascii() && !spaced || opening.starts_with(char::is_lowercase) {
        return false;
    }
    if mark != '.' {
        return true;
    }
    let body = &bare[..bare.len() - 1];
    let mut words = body.split_whitespace();
    let word = words.next_back().unwrap_or(body).trim_start_matches(|c: char| !c.is_alphanumeric());
    let previous = words.next_back();
    if previous.is_none() && is_marker(word) {
        return false;
    }
    let next = opening.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
    let opens = is_stop_word(&next.to_ascii_lowercase());
    let lower = word.to_lowercase();
    if TITLES.contains(&lower.as_str()) {
        return false;
    }
    // `Hauptstr. 5`
    let numbered = BEFORE_NUMBERS.contains(&lower.as_str()) || lower.ends_with("str");
    if numbered && after.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    if AMBIGUOUS.contains(&lower.as_str()) || is_dotted(word) {
        return opens;
    }
    // `z. B.`, `d. h.`, `p. ej.`, `и т. д.`: letters with points, one after the other.
    let letter = |word: &str| word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    let chained = previous.and_then(|p| p.strip_suffix('.')).is_some_and(letter);
    let small = word.starts_with(char::is_lowercase);
    let ordinal = word.len() <= 2
        && word.bytes().all(|b| b.is_ascii_digit())
        && previous.is_some_and(|p| BEFORE_ORDINALS.contains(&p.to_lowercase().as_str()));
    // `M. Dupont`, but `World War I.`
    let monsieur = matches!(word, "M" | "MM");
    if letter(word) && (small || chained) || ordinal || monsieur {
        return opens;
    }
    let named = previous.is_none_or(|p| {
        p.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(char::is_uppercase)
    });
    if named && is_initial(word) {
        return opens;
    }
    true
}

/// Quotation marks and brackets that may stand after a sentence's last mark.
fn is_closing(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '*'
            | '_'
            | '`'
            | '”'
            | '’'
            | '»'
            | '」'
            | '』'
            | '）'
            | '】'
    )
}

/// A list item's number: `3`, `iv`, `a`.
fn is_marker(word: &str) -> bool {
    let inner = word.trim_end_matches(')');
    let roman = inner.len() <= 4
        && inner.bytes().all(|b| matches!(b.to_ascii_lowercase(), b'i' | b'v' | b'x'));
    let digits = inner.len() <= 3 && inner.bytes().all(|b| b.is_ascii_digit());
    !inner.is_empty() && (digits || roman || inner.len() == 1)
}

/// `U.S`, `a.m`, `J.-P`: single letters with dots between.
fn is_dotted(word: &str) -> bool {
    word.contains('.') && word.split(['.', '-']).all(|part| part.chars().count() <= 1)
}

/// One capital letter.
fn is_initial(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(char::is_uppercase) && chars.next().is_none()
}
