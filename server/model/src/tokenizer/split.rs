//! Splitting text into words before BPE merges inside them: the rules `tokenizer.ggml.pre` names.

use regex::Regex;

use crate::ModelError;

/// GPT-2's rule. Its last alternatives were `\s+(?!\S)|\s+`; see [`Rule::trims`].
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
);

/// One pattern: its matches become words, and so does each stretch between matches.
#[derive(Debug)]
struct Rule {
    pattern: Regex,
    /// The published pattern prefers `\s+(?!\S)` to `\s+`: a run of spaces leaves its last one to the word
    /// behind it. Without look-ahead matching is linear in the text, so the run is trimmed afterwards.
    trims: bool,
    /// `\s*[\r\n]+` comes first, so a run that ends in a line break is whole as it is.
    lines: bool,
}

/// How one kind of vocabulary splits text.
#[derive(Debug)]
pub(crate) struct Split {
    rules: Vec<Rule>,
    /// A word that is a token is taken as it is, even where merges would not build it.
    pub(super) whole_words: bool,
    /// Prompts begin with BOS unless the file says otherwise.
    pub(super) bos: bool,
}

impl Split {
    /// The name of the rule whose published pattern is `pattern`, as a `tokenizer.json` has it.
    pub(crate) fn published(pattern: &str) -> Option<&'static str> {
        let known = [("llama-bpe", LLAMA3), ("qwen2", QWEN2), ("tekken", TEKKEN)];
        // What is left of a pattern once the look-ahead is done otherwise; see [`Rule::trims`].
        let ours = pattern.strip_suffix(r"\s+(?!\S)|\s+")?;
        known
            .into_iter()
            .find(|(_, rule)| rule.strip_suffix(r"\s+") == Some(ours))
            .map(|(name, _)| name)
    }

    /// The rule called `pre`.
    pub(super) fn named(pre: &str) -> Result<Self, ModelError> {
        // (pattern, ends in `\s+(?!\S)|\s+`, has `\s*[\r\n]+`), each applied to the words of the one before.
        let (patterns, whole_words): (&[(&str, bool, bool)], bool) = match pre {
            "default" => (
                &[
                    (r"[\p{P}\$\+<=>\^~\|]+", false, false),
                    (GPT2, true, false),
                    (r"\p{N}+", false, false),
                    (r"[0-9][0-9][0-9]", false, false),
                ],
                false,
            ),
            "gpt-2" => (&[(GPT2, true, false)], false),
            "smollm" => (&[(r"\p{N}", false, false), (GPT2, true, false)], false),
            "llama3" | "llama-v3" | "llama-bpe" => (&[(LLAMA3, true, true)], true),
            "qwen2" | "deepseek-r1-qwen" => (&[(QWEN2, true, true)], false),
            "tekken" => (&[(TEKKEN, true, true)], true),
            other => {
                return Err(ModelError::Unsupported(format!("tokenizer.ggml.pre {other:?}")));
            }
        };
        let rules = patterns
            .iter()
            .map(|&(pattern, trims, lines)| {
                let pattern = Regex::new(pattern).map_err(|error| {
                    ModelError::Unsupported(format!("pattern of {pre:?}: {error}"))
                })?;
                Ok(Rule { pattern, trims, lines })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { rules, whole_words, bos: whole_words })
    }

    /// Cuts `text` into words that tile it, as byte ranges, and gives each to `word`.
    pub(super) fn words(&self, text: &str, word: &mut impl FnMut(usize, usize)) {
        split(&self.rules, text, 0, word);
    }
}

fn split(rules: &[Rule], text: &str, base: usize, word: &mut impl FnMut(usize, usize)) {
    let Some((rule, rest)) = rules.split_first() else {
        word(base, base + text.len());
        return;
    };
    let mut at = 0;
    while at < text.len() {
        // Leftmost, first alternative: each search begins where the last match ended, so all searches
        // together read the text a bounded number of times.
        let Some(found) = rule.pattern.find_at(text, at) else { break };
        let (start, mut end) = (found.start(), found.end());
        if rule.trims {
            end = trim(text, start, end, rule.lines);
        }
        if start > at {
            split(rest, &text[at..start], base + at, word);
        }
        split(rest, &text[start..end], base + start, word);
        at = end;
    }
    if at < text.len() {
        split(rest, &text[at..], base + at, word);
    }
}

/// Where `\s+(?!\S)|\s+` ends, given where `\s+` does. No other alternative ends in white space, line breaks
/// aside where `lines` holds.
fn trim(text: &str, start: usize, end: usize, lines: bool) -> usize {
    let Some(last) = text[start..end].chars().next_back() else { return end };
    let run = last.is_whitespace() && !(lines && matches!(last, '\r' | '\n'));
    let trimmed = end - last.len_utf8();
    if run && end < text.len() && trimmed > start { trimmed } else { end }
}
