//! One turn's choice: what stays, what its question adds, and when the budget calls for a new beginning.

use std::time::Instant;

use super::key::SelectionKey;
use super::record::Turn;
use super::remainder::{covers_everything, passages, subtract, trim};
use super::{Conversed, Measured, Sent, Sticky};
use crate::hints;
use crate::pack::{self, pack};
use crate::report::dropped;
use crate::{
    Budget, Compressed, ContextError, Document, KeptSpan, LanguageModel, Mode, Packed, Policy,
    Report, StageTimes, Tools, compress,
};

/// A turn spends at most one part in this many of the budget left, unless every document fits whole.
const TURN_SHARE: u32 = 2;
/// With less than one part in this many of the budget left, a question that asks for more is given a fresh choice.
const LEAST_SHARE: u32 = 16;

/// A vector nearer to the question's than this speaks for its sentence; any two are a little alike.
const LEAST_NEARNESS: f32 = 0.2;

/// One turn in the making.
pub(super) struct Choosing<'a> {
    pub(super) documents: &'a [Document],
    pub(super) policy: &'a Policy,
    pub(super) limit: Option<u32>,
    pub(super) model: &'a Measured<'a>,
    pub(super) tools: Tools<'a>,
    /// Index of the last message.
    pub(super) question: usize,
    /// Most context tokens, as the policy says.
    pub(super) asked: u32,
    pub(super) times: StageTimes,
    pub(super) warnings: Vec<String>,
}

/// Contexts joined and counted.
struct Weighed {
    contexts: Vec<(usize, Packed)>,
    prompt_tokens: u32,
    /// Context tokens of all contexts.
    tokens: u32,
    /// Prompt tokens without them.
    base: u32,
    /// Most context tokens; `None` if the prompt is too long without any.
    budget: Option<u32>,
}

impl Weighed {
    fn fits(&self) -> bool {
        self.budget.is_some_and(|budget| self.tokens <= budget)
    }
}

impl Choosing<'_> {
    /// Decides what stands before each message, given what `earlier` turns sent.
    pub(super) fn choose(
        mut self,
        earlier: Vec<Turn>,
        whole: Compressed,
        key: SelectionKey,
        first: bool,
    ) -> Result<Conversed, ContextError> {
        let added = if earlier.is_empty() { None } else { self.extend(&earlier)? };
        let fresh = !earlier.is_empty() && added.is_none();
        let (mut turns, added) = match added {
            Some(added) => (earlier, added),
            None => (Vec::new(), self.begin(&whole)?),
        };
        let kept_before = self.weigh(&turns)?;
        if !added.is_empty() {
            turns.push(Turn { message: self.question, kept: added });
        }
        // Weighed before, and found to fit.
        let Weighed { contexts, prompt_tokens, tokens, budget, .. } = self.weigh(&turns)?;
        let budget = budget.unwrap_or(tokens);
        let earlier = kept_before.contexts.len();
        let sticky = Sticky {
            turns_kept: u32::try_from(earlier).unwrap_or(u32::MAX),
            tokens_kept: kept_before.tokens.min(tokens),
            tokens_added: tokens.saturating_sub(kept_before.tokens),
            fresh,
            reason: match (earlier, contexts.len() > earlier) {
                _ if fresh => {
                    "too little of the budget was left for what this question asks for: passages were chosen anew, \
                     and earlier messages stand without theirs"
                }
                (0, _) if first => "this is the first turn",
                (0, _) => {
                    "no passage is remembered of an earlier turn with this caller, model, policy and these documents \
                     and messages"
                }
                (_, true) => "passages of earlier turns stay where they were sent, this turn adds to them",
                (_, false) => {
                    "passages of earlier turns stay where they were sent, and this question asks for nothing else"
                }
            }
            .to_owned(),
        };
        let mut kept: Vec<KeptSpan> = turns.iter().flat_map(|turn| turn.kept.clone()).collect();
        kept.sort_by_key(|kept| kept.span);
        let dropped = dropped(self.documents, &kept);
        let reason = match dropped.is_empty() {
            true => format!("everything is kept, {tokens} context tokens"),
            false => format!(
                "kept {} passages within {budget} context tokens: {} tokens of earlier turns and {} of this one",
                kept.len(),
                sticky.tokens_kept,
                sticky.tokens_added,
            ),
        };
        let report = Report {
            mode: self.policy.mode,
            reason,
            tokens_after: tokens,
            prompt_tokens,
            budget_tokens: if self.policy.mode == Mode::None { tokens } else { budget },
            kept,
            dropped,
            times: self.times,
            warnings: self.warnings,
            ..whole.report
        };
        Ok(Conversed { contexts, report, sticky, sent: Sent { key, turns } })
    }

    /// What the question adds to `earlier` turns; `None` if the budget calls for a fresh choice.
    fn extend(&mut self, earlier: &[Turn]) -> Result<Option<Vec<KeptSpan>>, ContextError> {
        let used = self.weigh(earlier)?;
        if !used.fits() {
            return Ok(None);
        }
        if covers_everything(self.documents, earlier) {
            return Ok(Some(Vec::new()));
        }
        let Some(budget) = self.weigh(&with(earlier, self.question, Vec::new()))?.budget else {
            return Ok(None);
        };
        let left = budget.saturating_sub(used.tokens);
        let tight = left < budget.div_ceil(LEAST_SHARE);
        let share = if tight { budget / LEAST_SHARE } else { left / TURN_SHARE };
        let pinned = self.pinned()?;
        let wanted = match self.alone(share.saturating_add(pinned)) {
            // The smallest piece may fit into what is left all the same.
            Err(ContextError::BudgetTooSmall { .. }) if !tight => {
                self.alone(left.saturating_add(pinned))
            }
            // What must be kept was sent before, and costs nothing again.
            Err(ContextError::PinnedTooLarge { .. }) => self.alone(budget),
            other => other,
        };
        let wanted = match wanted {
            Err(ContextError::BudgetTooSmall { .. }) => return Ok(None),
            other => other?,
        };
        // A question that nothing speaks for ("Thank you!") has no call on the budget.
        let unmatched = |kept: &KeptSpan| kept.lexical == 0.0 && kept.dense < LEAST_NEARNESS;
        let unmatched = !wanted.dropped.is_empty() && wanted.kept.iter().all(unmatched);
        let added =
            if unmatched { Vec::new() } else { subtract(&wanted.kept, earlier, self.documents) };
        if added.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if tight {
            return Ok(None);
        }
        let added = match self.fit(earlier, &added, left / TURN_SHARE)? {
            Some(added) => Some(added),
            None => self.fit(earlier, &added, left)?,
        };
        if added.is_some() {
            self.warnings = wanted.warnings;
        }
        Ok(added)
    }

    /// What the question gets where nothing was sent before.
    fn begin(&mut self, whole: &Compressed) -> Result<Vec<KeptSpan>, ContextError> {
        let empty = self.weigh(&with(&[], self.question, Vec::new()))?;
        let all = whole.report.tokens_before;
        let budget = match (empty.budget, self.limit) {
            (Some(budget), _) => budget,
            (None, limit) => {
                let limit = limit.unwrap_or(u32::MAX);
                return Err(ContextError::Overflow { prompt_tokens: empty.base, limit });
            }
        };
        if budget < self.asked && all > budget && self.policy.mode != Mode::None {
            let asked = self.asked;
            self.warnings.push(format!(
                "the policy allows {asked} context tokens, the model's limit leaves {budget}"
            ));
        }
        let everything = self.policy.top_k.is_none()
            && self.policy.min_score.is_none()
            && !self.documents.iter().any(hints::excludes);
        if self.policy.mode == Mode::None || everything && all <= budget {
            let kept = whole.report.kept.clone();
            let weighed = self.weigh(&with(&[], self.question, kept.clone()))?;
            return match self.limit.filter(|_| !weighed.fits()) {
                Some(limit) => {
                    Err(ContextError::Overflow { prompt_tokens: weighed.prompt_tokens, limit })
                }
                None => Ok(kept),
            };
        }
        let pinned = self.pinned()?;
        if pinned > budget {
            return Err(ContextError::PinnedTooLarge { needed: pinned, budget });
        }
        let share = pinned + (budget - pinned) / TURN_SHARE;
        let wanted = match self.alone(share) {
            Err(ContextError::BudgetTooSmall { .. } | ContextError::PinnedTooLarge { .. }) => {
                self.alone(budget)
            }
            other => other,
        }?;
        self.warnings.extend(wanted.warnings);
        match self.fit(&[], &wanted.kept, budget)? {
            Some(kept) => Ok(kept),
            None if wanted.kept.is_empty() => Ok(Vec::new()),
            None => Err(ContextError::BudgetTooSmall { needed: wanted.tokens_after, budget }),
        }
    }

    /// What the question would get if it were asked alone, with `budget` context tokens.
    fn alone(&mut self, budget: u32) -> Result<Report, ContextError> {
        let budget = Budget::Tokens(budget.max(1));
        let policy = Policy { budget, ..self.policy.clone() };
        let report = compress(self.documents, &policy, None, self.model, self.tools)?.report;
        let times = report.times;
        self.times.segment += times.segment;
        self.times.index += times.index;
        self.times.embed += times.embed;
        self.times.select += times.select;
        self.times.pack += times.pack;
        self.times.count += times.count;
        Ok(report)
    }

    /// As much of `added` as takes `allowance` context tokens at most beside `earlier`, within the budget; what scored
    /// least goes first. `None` if that is nothing.
    fn fit(
        &mut self,
        earlier: &[Turn],
        added: &[KeptSpan],
        allowance: u32,
    ) -> Result<Option<Vec<KeptSpan>>, ContextError> {
        let used = self.weigh(earlier)?.tokens;
        let mut added = added.to_vec();
        let mut round = 0;
        loop {
            let trimmed = trim(&added, self.documents, |text| self.model.count(text));
            if trimmed.is_empty() {
                return Ok(None);
            }
            let weighed = self.weigh(&with(earlier, self.question, trimmed.clone()))?;
            if weighed.fits() && weighed.tokens.saturating_sub(used) <= allowance {
                return Ok(Some(trimmed));
            }
            // One by one, then faster: an allowance is missed by a joint or two as a rule.
            for _ in 0..=round / 4 {
                let documents = self.documents;
                let worst = added
                    .iter()
                    .enumerate()
                    .filter(|(_, KeptSpan { span, .. })| {
                        !hints::protects(&documents[span.document], &(span.start..span.end))
                    })
                    .min_by(|a, b| a.1.score.total_cmp(&b.1.score).then(b.0.cmp(&a.0)));
                let Some((worst, _)) = worst else { return Ok(None) };
                added.remove(worst);
            }
            round += 1;
        }
    }

    /// Joins and counts what stands before each message.
    fn weigh(&mut self, turns: &[Turn]) -> Result<Weighed, ContextError> {
        let clock = Instant::now();
        let packed = |turn: &Turn| (turn.message, pack(self.documents, passages(&turn.kept)));
        let contexts: Vec<(usize, Packed)> = turns.iter().map(packed).collect();
        self.times.pack += clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let texts: Vec<(usize, &str)> =
            contexts.iter().map(|(message, packed)| (*message, packed.text.as_str())).collect();
        let words: Vec<(usize, &str)> = texts.iter().map(|(message, _)| (*message, "")).collect();
        let prompt_tokens = self.model.model.chat_tokens(&texts)?;
        let base = self.model.model.chat_tokens(&words)?;
        self.times.count += clock.elapsed().as_secs_f64();
        Ok(Weighed {
            contexts,
            prompt_tokens,
            tokens: prompt_tokens.saturating_sub(base),
            base,
            budget: match self.limit {
                Some(limit) => limit.checked_sub(base).map(|room| room.min(self.asked)),
                None => Some(self.asked),
            },
        })
    }

    /// Context tokens of the documents that are kept whole.
    fn pinned(&self) -> Result<u32, ContextError> {
        let pinned = |document: &Document| document.pinned && !hints::excludes(document);
        if !self.documents.iter().any(pinned) {
            return Ok(0);
        }
        let pinned = pack(self.documents, pack::wholes(self.documents, pinned));
        let tokens = self.model.prompt_tokens(&pinned.text)?;
        Ok(tokens.saturating_sub(self.model.prompt_tokens("")?))
    }
}

/// `earlier` turns and one more.
fn with(earlier: &[Turn], message: usize, kept: Vec<KeptSpan>) -> Vec<Turn> {
    earlier.iter().cloned().chain([Turn { message, kept }]).collect()
}
