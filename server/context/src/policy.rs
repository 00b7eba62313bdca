//! What the caller wants done to the context.

use crate::ContextError;

/// The largest [`Policy::neighbor_window`] taken.
pub const MAX_NEIGHBOR_WINDOW: u32 = 64;
/// The largest [`Policy::lexical_weight`] and [`Policy::dense_weight`] taken.
pub const MAX_SIGNAL_WEIGHT: f32 = 100.0;

/// How the context is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Not at all: every document stands verbatim in the prompt, or the request fails.
    #[default]
    None,
    /// Sentences are chosen for the question, verbatim, until the budget is spent.
    Retrieve,
}

/// How much context may be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// So many context tokens (see [`LanguageModel::prompt_tokens`](crate::LanguageModel::prompt_tokens)); at least 1.
    Tokens(u32),
    /// This share of the tokens that keeping everything would take, rounded down; above 0, at most 1.
    KeepRatio(f32),
}

/// How words and vectors are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fusion {
    /// Their scores are put on one scale and added: all that is known of a sentence counts.
    #[default]
    Scores,
    /// Reciprocal rank fusion: only the order by words and the order by vectors count.
    Ranks,
}

/// In which order what is kept stands in the prompt: the documents of several, the passages of one. Within a document
/// of several, text keeps its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As in the request.
    #[default]
    Original,
    /// Best first.
    Relevance,
    /// The best at both ends, the least in the middle, where models look least.
    Edges,
}

/// What the caller wants done to the context.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How.
    pub mode: Mode,
    /// How much may be kept. Not looked at under [`Mode::None`].
    pub budget: Budget,
    /// What sentences are chosen for; must not be blank under [`Mode::Retrieve`].
    pub query: String,
    /// Sentences on either side that count, for less, in a sentence's rank. `Some(0)`: the words of the sentence stand
    /// for themselves; up to 4 suit questions for facts, more turn whole stretches up, as suits questions about
    /// what was said. `None`: by the kind of question and document. At most [`MAX_NEIGHBOR_WINDOW`].
    pub neighbor_window: Option<u32>,
    /// At most so many sentences are chosen by score (pinned documents and sentences added so that a
    /// pronoun keeps its antecedent come on top). At least 1. `None`: as many as the budget holds.
    pub top_k: Option<u32>,
    /// Sentences scoring less than this are not chosen; see [`KeptSpan::score`](crate::KeptSpan::score) for the
    /// scale, 0 to 1. `None`: the budget is filled.
    pub min_score: Option<f32>,
    /// What words count: 1 is the tuned balance, 0 leaves them out. At most [`MAX_SIGNAL_WEIGHT`]. `None`: 1.
    pub lexical_weight: Option<f32>,
    /// What vectors count, as `lexical_weight`. Not both may be 0.
    pub dense_weight: Option<f32>,
    /// How the two are brought together.
    pub fusion: Fusion,
    /// In which order what is kept stands in the prompt.
    pub order: Order,
}

impl Default for Policy {
    /// Nothing is shortened.
    fn default() -> Self {
        Self {
            mode: Mode::None,
            budget: Budget::KeepRatio(1.0),
            query: String::new(),
            neighbor_window: None,
            top_k: None,
            min_score: None,
            lexical_weight: None,
            dense_weight: None,
            fusion: Fusion::default(),
            order: Order::default(),
        }
    }
}

impl Policy {
    /// Checks every field the mode looks at.
    pub(crate) fn check(&self) -> Result<(), ContextError> {
        if self.mode == Mode::None {
            return Ok(());
        }
        let wrong =
            |field, message: &str| Err(ContextError::Policy { field, message: message.to_owned() });
        if self.query.trim().is_empty() {
            return wrong("query", "must not be blank: retrieval selects for a question");
        }
        match self.budget {
            Budget::Tokens(0) => return wrong("budget", "must be at least 1 token"),
            Budget::KeepRatio(ratio) if !(ratio > 0.0 && ratio <= 1.0) => {
                return wrong("budget", "the ratio to keep must be above 0 and at most 1");
            }
            Budget::Tokens(_) | Budget::KeepRatio(_) => {}
        }
        if self.neighbor_window.is_some_and(|window| window > MAX_NEIGHBOR_WINDOW) {
            return wrong("neighbor_window", "must be at most 64 sentences");
        }
        if self.top_k == Some(0) {
            return wrong("top_k", "must be at least 1");
        }
        if self.min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            return wrong("min_score", "must be between 0 and 1");
        }
        let fits = |weight: f32| (0.0..=MAX_SIGNAL_WEIGHT).contains(&weight);
        let weights =
            [("lexical_weight", self.lexical_weight), ("dense_weight", self.dense_weight)];
        for (field, weight) in weights {
            if weight.is_some_and(|weight| !fits(weight)) {
                return wrong(field, "must be between 0 and 100");
            }
        }
        if weights.iter().all(|(_, weight)| *weight == Some(0.0)) {
            return wrong("dense_weight", "must be above 0 if lexical_weight is 0");
        }
        Ok(())
    }
}
