//! How a `tokenizer.json` prepares text before merging: which of the rules known here its steps are.
//!
//! Any other combination is refused. Wrong tokens make a model worse without a sign.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::ModelError;
use crate::json::Few;
use crate::tokenizer::Split;

/// Most steps in a list; known files have up to four.
const MAX_STEPS: usize = 16;
/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// A step of any kind, with the settings of those that are known.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    r#type: String,
    normalizers: Option<Few<Step, MAX_STEPS>>,
    pretokenizers: Option<Few<Step, MAX_STEPS>>,
    processors: Option<Few<Step, MAX_STEPS>>,
    pattern: Option<Pattern>,
    content: Option<String>,
    prepend: Option<String>,
    behavior: Option<String>,
    invert: Option<bool>,
    individual_digits: Option<bool>,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
    replacement: Option<String>,
    prepend_scheme: Option<String>,
    single: Option<Few<Piece, MAX_STEPS>>,
}

#[derive(Debug, Deserialize)]
struct Pattern {
    #[serde(rename = "Regex")]
    regex: Option<String>,
    #[serde(rename = "String")]
    string: Option<String>,
}

/// A part of what a post-processor makes of a text.
#[derive(Debug, Deserialize)]
struct Piece {
    #[serde(rename = "SpecialToken")]
    special: Option<Named>,
    #[serde(rename = "Sequence")]
    sequence: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// How text is made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Bytes are spelled as characters; words are cut by the rule of this name.
    Bytes(&'static str),
    /// Spaces are spelled U+2581; with `prefix` one comes before the text and behind each special token.
    Spaces { prefix: bool },
}

impl Style {
    /// The style of these steps.
    pub(super) fn of(
        normalizer: Option<&Step>,
        pre_tokenizer: Option<&Step>,
    ) -> Result<Self, ModelError> {
        let normalizers = flat(normalizer, |step| step.normalizers.as_ref());
        let pre_tokenizers = flat(pre_tokenizer, |step| step.pretokenizers.as_ref());
        let unknown = |part: &str, steps: &[&Step]| {
            let names = steps.iter().map(|step| format!("{:?}", step.r#type)).collect::<Vec<_>>();
            let steps = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let steps: String = steps.chars().take(256).collect();
            Err(ModelError::Unsupported(format!("the {part} of tokenizer.json ({steps})")))
        };
        if pre_tokenizers.iter().any(|step| step.r#type == "ByteLevel") {
            // Composing characters (NFC) changes which tokens spell a text and is left out, as it is for GGUF files: what
            // is encoded are the bytes that came in.
            if !normalizers.iter().all(|step| step.r#type == "NFC") {
                return unknown("normalizer", &normalizers);
            }
            return match byte_rule(&pre_tokenizers) {
                Some(rule) => Ok(Self::Bytes(rule)),
                None => unknown("pre_tokenizer", &pre_tokenizers),
            };
        }
        let prefix = match normalizers.as_slice() {
            [replace] if replace.spells_spaces() => false,
            [prepend, replace] if prepend.prepends_space() && replace.spells_spaces() => true,
            [] if matches!(pre_tokenizers.as_slice(), [step] if step.is_plain_metaspace()) => {
                return Ok(Self::Spaces { prefix: false });
            }
            [] => return unknown("pre_tokenizer", &pre_tokenizers),
            steps => return unknown("normalizer", steps),
        };
        match pre_tokenizers.as_slice() {
            [] => Ok(Self::Spaces { prefix }),
            // No spaces are left to cut at.
            [split] if split.cuts_at_spaces() => Ok(Self::Spaces { prefix }),
            steps => unknown("pre_tokenizer", steps),
        }
    }
}

/// The token that a post-processor puts before every text.
pub(super) fn first_token(post_processor: Option<&Step>) -> Result<Option<&str>, ModelError> {
    let mut first = None;
    for step in flat(post_processor, |step| step.processors.as_ref()) {
        match (step.r#type.as_str(), &step.single) {
            ("ByteLevel", _) => {}
            ("TemplateProcessing", Some(Few(single))) => {
                let begins = single.first().filter(|piece| piece.sequence.is_none());
                first = begins.and_then(|piece| piece.special.as_ref());
            }
            (other, _) => {
                let other: String = other.chars().take(64).collect();
                let why = format!("the post_processor {other:?} of tokenizer.json");
                return Err(ModelError::Unsupported(why));
            }
        }
    }
    Ok(first.map(|named| named.id.as_str()))
}

/// The steps of a list, or the one step there is.
fn flat(step: Option<&Step>, list: impl Fn(&Step) -> Option<&Few<Step, MAX_STEPS>>) -> Vec<&Step> {
    match step {
        None => Vec::new(),
        Some(step) => match list(step) {
            Some(Few(steps)) if step.r#type == "Sequence" => steps.iter().collect(),
            _ => vec![step],
        },
    }
}

/// The name of the rule these steps are.
fn byte_rule(steps: &[&Step]) -> Option<&'static str> {
    let (bytes, before) = steps.split_last()?;
    let plain = bytes.r#type == "ByteLevel" && bytes.add_prefix_space == Some(false);
    // Files from before there was a choice have none.
    match (before, plain, bytes.use_regex.unwrap_or(true)) {
        ([], true, true) => Some("gpt-2"),
        ([digits], true, true) => {
            let each = digits.r#type == "Digits" && digits.individual_digits == Some(true);
            each.then_some("smollm")
        }
        ([split], true, false) => {
            let isolated = split.r#type == "Split"
                && split.behavior.as_deref() == Some("Isolated")
                && split.invert != Some(true);
            let regex = split.pattern.as_ref()?.regex.as_deref()?;
            isolated.then(|| Split::published(regex)).flatten()
        }
        _ => None,
    }
}

impl Step {
    fn of_space(&self) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| pattern.string.as_deref() == Some(" "))
    }

    fn spells_spaces(&self) -> bool {
        self.r#type == "Replace" && self.of_space() && self.content.as_deref() == Some(SPACE)
    }

    fn prepends_space(&self) -> bool {
        self.r#type == "Prepend" && self.prepend.as_deref() == Some(SPACE)
    }

    fn cuts_at_spaces(&self) -> bool {
        self.r#type == "Split" && self.of_space()
    }

    /// Spells spaces and does nothing else. Cutting there, which it may do, cuts where no token reaches over.
    fn is_plain_metaspace(&self) -> bool {
        self.r#type == "Metaspace"
            && self.replacement.as_deref() == Some(SPACE)
            && self.prepend_scheme.as_deref() == Some("never")
    }
}
