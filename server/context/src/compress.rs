//! The pipeline: documents, a policy and a model's counts become a packed context and its report.

use crate::{ContextError, Document, LanguageModel, Packed, Policy, Report};

/// What came of a compression.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressed {
    /// The text for the prompt.
    pub context: Packed,
    /// What became of every byte.
    pub report: Report,
}

/// Makes the context of a prompt from `documents` as `policy` says. `limit`: most tokens of the whole prompt that
/// the model takes (`None`: no limit). Pure computation, no clock but for [`StageTimes`](crate::StageTimes): the same
/// arguments give the same context. Blocks the thread for as long as counting takes.
///
/// # Errors
/// Each of [`ContextError`]; nothing is shortened beyond what the policy asks.
pub fn compress(
    documents: &[Document],
    policy: &Policy,
    limit: Option<u32>,
    model: &dyn LanguageModel,
) -> Result<Compressed, ContextError> {
    policy.check()?;
    let _ = (documents, limit, model);
    unimplemented!()
}
